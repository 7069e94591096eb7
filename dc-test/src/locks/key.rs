//! One key: its contenders and holders, as far as they can be known.

use libdc::id::Token;
use libdc::time::Time;
use std::cell::Cell;
use std::rc::Rc;

/// Maximum difference between the clocks of server and tester, and delay of the server's clock.
pub(super) const MARGIN_MS: u64 = 100;
/// Maximum time for a server to notice a closed connection and deliver a grant.
pub(super) const SETTLE_MS: u64 = 2000;

#[derive(Debug)]
pub(super) struct KeyModel {
    pub(super) name: String,
    /// The contenders, in the order in which they began.
    pub(super) places: Vec<Contender>,
    pub(super) holders: Vec<ContenderHold>,
    /// Number of requests for the key.
    pub(super) asked: u64,
    /// Since when fewer hold it than may.
    pub(super) spare_since: Time,
    /// When the server has certainly noticed every abandoned connection.
    pub(super) settled: Time,
    /// The greatest fence that it was granted with.
    pub(super) fence: u64,
}

/// A contender for a key.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) seat: u64,
    pub(super) connection: u64,
    pub(super) asked: Time,
    /// The tick at which the server was known to have read it.
    pub(super) known: Option<u64>,
    /// It is in the queue until then at least, unless it is granted.
    pub(super) stays_until: Time,
    /// The first grant to a request that was certainly later: its fence, and when it was seen.
    pub(super) overtaken: Option<(u64, Time)>,
    /// The greatest fence seen when it asked.
    pub(super) floor: u64,
    /// If there was no other contender or holder: the number of requests at that time.
    pub(super) alone: Option<u64>,
}

/// A holder of a key.
#[derive(Debug)]
pub(super) struct ContenderHold {
    pub(super) seat: u64,
    pub(super) connection: u64,
    pub(super) token: Token,
    pub(super) asked: Time,
    /// It is held until then at least.
    pub(super) until: Time,
    /// And not after this.
    pub(super) ends: Time,
    /// Its release is in flight: it can no longer prove anything, so it does not overlap.
    pub(super) releasing: bool,
    /// Its lease has ended.
    pub(super) ended: bool,
    pub(super) rivalries: Vec<Rc<Overlap>>,
}

/// More grants at a time than the limit allows, as it seems. It is certain when as many as the limit allows
/// prove to have been valid still: only then can no lost connection, whose locks are free, be the reason.
#[derive(Debug)]
pub(super) struct Overlap {
    /// The fence of the last of the grants.
    pub(super) fence: u64,
    /// The last of the grants was given back before this one was seen.
    pub(super) is_over: bool,
    /// When it was noticed.
    pub(super) tick: u64,
    pub(super) confirmed: Cell<u32>,
}

impl KeyModel {
    pub(super) fn new(name: String) -> Self {
        let (places, holders, start) = (Vec::new(), Vec::new(), Time::from_ms(0));
        Self { name, places, holders, asked: 0, spare_since: start, settled: start, fence: 0 }
    }

    /// Number of known holders, including those with an unanswered release.
    pub(super) fn held(&self) -> usize {
        self.holders.iter().filter(|holder| !holder.ended).count()
    }

    pub(super) fn contender(&mut self, seat: u64) -> Option<&mut Contender> {
        let at = self.places.binary_search_by_key(&seat, |place| place.seat).ok()?;
        self.places.get_mut(at)
    }

    pub(super) fn take_place(&mut self, seat: u64) -> Option<Contender> {
        let at = self.places.binary_search_by_key(&seat, |place| place.seat).ok()?;
        Some(self.places.remove(at))
    }

    pub(super) fn holder(&mut self, seat: u64) -> Option<&mut ContenderHold> {
        self.holders.iter_mut().find(|holder| holder.seat == seat)
    }

    /// The holder does not hold it any more.
    pub(super) fn take_holder(&mut self, seat: u64, limit: u32, now: Time) -> Option<ContenderHold> {
        self.make_room(limit, now);
        let at = self.holders.iter().position(|holder| holder.seat == seat)?;
        Some(self.holders.swap_remove(at))
    }

    /// A holder is about to drop out.
    pub(super) fn make_room(&mut self, limit: u32, now: Time) {
        if self.held() >= limit as usize {
            self.spare_since = now;
        }
    }

    /// A connection failed or was closed: its locks are free, but the server may not have noticed yet.
    pub(super) fn disconnected(&mut self, connection: u64, now: Time) {
        let before = self.places.len() + self.holders.len();
        self.places.retain(|place| place.connection != connection);
        self.holders.retain(|holder| holder.connection != connection);
        if self.places.len() + self.holders.len() < before {
            self.unsettle(now);
        }
    }

    /// An unknown holder may exist for a while.
    pub(super) fn unsettle(&mut self, now: Time) {
        self.spare_since = now;
        self.settled = now.after_ms(SETTLE_MS);
    }

    /// Records the grant with `fence`: contenders that certainly asked before are overtaken.
    pub(super) fn note_grant(&mut self, granted: &Contender, fence: u64, now: Time) {
        for place in &mut self.places {
            if place.is_before(granted) && place.overtaken.is_none_or(|(least, _)| fence < least) {
                let at = place.overtaken.map_or(now, |(_, at)| at);
                place.overtaken = Some((fence, at));
            }
        }
        self.fence = self.fence.max(fence);
    }

    /// The overlap of the holders, if they seem to exceed the limit. It is recorded in the earlier ones.
    pub(super) fn find_rivals(&mut self, limit: u32, tick: u64, now: Time) {
        let is_certain =
            |it: &&mut ContenderHold| !it.ended && !it.releasing && it.until > now.after_ms(MARGIN_MS);
        let mut certain: Vec<&mut ContenderHold> = self.holders.iter_mut().filter(is_certain).collect();
        if certain.len() <= limit as usize {
            return;
        }
        certain.sort_unstable_by_key(|holder| holder.token.fence());
        if let Some((last, others)) = certain.split_last_mut() {
            let (fence, confirmed) = (last.token.fence(), Cell::new(0));
            let rivalry = Rc::new(Overlap { fence, is_over: false, tick, confirmed });
            for holder in others {
                holder.rivalries.push(Rc::clone(&rivalry));
            }
        }
    }
}

impl Contender {
    /// Whether this contender certainly asked before `other`. A seat is numbered by the tick of its request.
    fn is_before(&self, other: &Self) -> bool {
        self.connection == other.connection && self.seat < other.seat
            || self.known.is_some_and(|known| known < other.seat)
    }
}

impl ContenderHold {
    /// Records that the hold was valid at `tick`. Returns an overlap that is now proven.
    pub(super) fn confirm(&mut self, tick: u64, limit: u32) -> Option<Rc<Overlap>> {
        let mut proven = None;
        self.rivalries.retain(|rivalry| {
            let counts = rivalry.tick < tick;
            if counts {
                rivalry.confirmed.set(rivalry.confirmed.get() + 1);
            }
            if counts && rivalry.confirmed.get() >= limit {
                proven = Some(Rc::clone(rivalry));
            }
            !counts
        });
        proven
    }
}
