//! The requests that are on their way to the server, and who asked them.
//!
//! A request gets a uid of the link's own: the upper 24 bits name its place in the table, the lower 8 count how
//! often the place was used. A place is free again only when its answer came or the link ended; a request nobody
//! waits for any more keeps its place until then. So no late answer can reach somebody else.

use crate::limits::LINK_IN_FLIGHT_MAX;
use crate::proto::agent::local::LocalId;
use crate::time::Time;
use crate::wire::frame::Operation;

const GENERATION_BITS: u32 = 8;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentOrigin {
    /// A local connection.
    Local {
        /// Which one.
        id: LocalId,
        /// The uid it gave its request.
        uid: u32,
    },
    /// A local connection, about a lock: the rest is kept beside.
    Lock,
    /// The agent itself.
    Agent,
    /// Nobody any more: the asker was told that the server could not be reached.
    Nobody,
}

/// A request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRequest {
    /// Who asked.
    pub asker: AgentOrigin,
    /// What.
    pub operation: Operation,
    /// Whether the answer may be long in coming, without fault of the server.
    pub may_block: bool,
}

impl PendingRequest {
    /// A request that is answered at once.
    #[must_use]
    pub const fn prompt(asker: AgentOrigin, operation: Operation) -> Self {
        Self { asker, operation, may_block: false }
    }
}

/// The table of requests on their way.
///
/// Those that have a deadline are chained in the order they came, which is that of their deadlines.
#[derive(Debug)]
pub struct PendingTable {
    places: Vec<PendingSlot>,
    free: Vec<u32>,
    soonest: u32,
    latest: u32,
    count: usize,
    blocked: usize,
}

#[derive(Debug)]
struct PendingSlot {
    generation: u8,
    request: Option<PendingRequest>,
    deadline: Option<Time>,
    sooner: u32,
    later: u32,
}

const NONE: u32 = u32::MAX;

impl Default for PendingTable {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new(), soonest: NONE, latest: NONE, count: 0, blocked: 0 }
    }
}

impl PendingTable {
    /// Requests that have no answer yet.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether every request has been answered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Requests that may block and have no answer yet.
    #[must_use]
    pub const fn blocked(&self) -> usize {
        self.blocked
    }

    /// Requests that are answered at once, and have not been.
    #[must_use]
    pub const fn prompt(&self) -> usize {
        self.count - self.blocked
    }

    /// Whether no more requests can be taken.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.count >= LINK_IN_FLIGHT_MAX
    }

    /// Enters a request and gives the uid to send it with. Deadlines must not go back from one request to
    /// the next.
    pub fn insert(&mut self, request: PendingRequest, deadline: Option<Time>) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            let unused =
                PendingSlot { generation: 0, request: None, deadline: None, sooner: NONE, later: NONE };
            self.places.push(unused);
            self.places.len() as u32 - 1
        });
        let entry = &mut self.places[place as usize];
        entry.request = Some(request);
        entry.deadline = deadline;
        self.count += 1;
        self.blocked += usize::from(request.may_block);
        let uid = uid_of(place, entry.generation);
        if deadline.is_some() {
            self.chain(place);
        }
        uid
    }

    /// The answer to the request with this uid came: who asked? `None` if there is no such request.
    pub fn remove(&mut self, uid: u32) -> Option<PendingRequest> {
        let place = uid >> GENERATION_BITS;
        let entry = self.places.get_mut(place as usize)?;
        if uid_of(place, entry.generation) != uid {
            return None;
        }
        let request = entry.request.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.unchain(place);
        self.free.push(place);
        self.count -= 1;
        self.blocked -= usize::from(request.may_block);
        Some(request)
    }

    /// When the next request runs out of time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.places.get(self.soonest as usize).and_then(|place| place.deadline)
    }

    /// The next request that has run out of time. Its place stays taken, but nobody waits for it.
    pub fn expire(&mut self, now: Time) -> Option<PendingRequest> {
        self.next_deadline().filter(|deadline| *deadline <= now)?;
        let place = self.soonest;
        self.unchain(place);
        let request = self.places[place as usize].request.as_mut()?;
        Some(std::mem::replace(request, PendingRequest { asker: AgentOrigin::Nobody, ..*request }))
    }

    /// The link ended: takes out every request with its uid, answered by nobody now.
    pub fn drain(&mut self) -> impl Iterator<Item = (u32, PendingRequest)> + use<> {
        let places = (0..).zip(std::mem::take(self).places);
        places.filter_map(|(number, place)| Some((uid_of(number, place.generation), place.request?)))
    }

    fn chain(&mut self, place: u32) {
        let before = std::mem::replace(&mut self.latest, place);
        let entry = &mut self.places[place as usize];
        (entry.sooner, entry.later) = (before, NONE);
        match self.places.get_mut(before as usize) {
            Some(before) => before.later = place,
            None => self.soonest = place,
        }
    }

    fn unchain(&mut self, place: u32) {
        let entry = &mut self.places[place as usize];
        if entry.deadline.take().is_none() {
            return;
        }
        let (sooner, later) = (entry.sooner, entry.later);
        match self.places.get_mut(sooner as usize) {
            Some(sooner) => sooner.later = later,
            None => self.soonest = later,
        }
        match self.places.get_mut(later as usize) {
            Some(later) => later.sooner = sooner,
            None => self.latest = sooner,
        }
    }
}

const fn uid_of(place: u32, generation: u8) -> u32 {
    place << GENERATION_BITS | generation as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::SessionOperation;

    const GET: Operation = Operation::Session(SessionOperation::Get);

    fn asked_by(uid: u32) -> PendingRequest {
        PendingRequest::prompt(AgentOrigin::Local { id: LocalId::default(), uid }, GET)
    }

    #[test]
    fn answers_find_their_askers_once() {
        let mut flight = PendingTable::default();
        let first = flight.insert(asked_by(1), None);
        let second = flight.insert(asked_by(2), None);
        assert_eq!(flight.remove(second), Some(asked_by(2)));
        assert_eq!(flight.remove(second), None, "an answer came twice");
        assert_eq!(flight.remove(first), Some(asked_by(1)));
        assert!(flight.is_empty());
    }

    #[test]
    fn a_place_used_again_has_another_uid() {
        let mut flight = PendingTable::default();
        let old = flight.insert(asked_by(1), None);
        assert!(flight.remove(old).is_some());
        let new = flight.insert(asked_by(2), None);
        assert_ne!(old, new);
        assert_eq!(flight.remove(old), None, "a second answer to an old request reached a new one");
        assert_eq!(flight.len(), 1);
    }

    #[test]
    fn an_expired_request_keeps_its_place_until_the_answer_comes() {
        let mut flight = PendingTable::default();
        let late = flight.insert(asked_by(1), Some(Time::from_ms(10)));
        assert_eq!(flight.next_deadline(), Some(Time::from_ms(10)));
        assert_eq!(flight.expire(Time::from_ms(9)), None);
        assert_eq!(flight.expire(Time::from_ms(10)), Some(asked_by(1)));
        assert_eq!(flight.expire(Time::from_ms(10)), None);
        assert_eq!(flight.len(), 1);
        let other = flight.insert(asked_by(2), Some(Time::from_ms(20)));
        assert_ne!(late >> GENERATION_BITS, other >> GENERATION_BITS);
        assert_eq!(flight.remove(late).map(|request| request.asker), Some(AgentOrigin::Nobody));
    }

    #[test]
    fn deadlines_come_in_order_whatever_is_answered_between() {
        let mut flight = PendingTable::default();
        let slow = flight.insert(asked_by(0), Some(Time::from_ms(0)));
        let mut waiting = Vec::new();
        for i in 1..2_000 {
            let uid = flight.insert(asked_by(i), Some(Time::from_ms(u64::from(i))));
            if i % 3 == 0 {
                waiting.push(i);
            } else {
                assert!(flight.remove(uid).is_some());
            }
        }
        assert_eq!(flight.next_deadline(), Some(Time::from_ms(0)));
        assert!(flight.remove(slow).is_some());
        assert_eq!(flight.expire(Time::from_ms(2)), None, "a request expired before its time");
        for i in waiting {
            assert_eq!(flight.expire(Time::from_ms(2_000)), Some(asked_by(i)));
        }
        assert_eq!(flight.next_deadline(), None);
    }

    #[test]
    fn those_that_may_block_are_counted_apart() {
        let mut flight = PendingTable::default();
        let prompt = flight.insert(asked_by(1), None);
        let blocked = flight.insert(PendingRequest { may_block: true, ..asked_by(2) }, None);
        assert_eq!((flight.len(), flight.prompt(), flight.blocked()), (2, 1, 1));
        assert!(flight.remove(prompt).is_some());
        assert_eq!((flight.prompt(), flight.blocked()), (0, 1));
        assert!(flight.remove(blocked).is_some());
        assert_eq!((flight.prompt(), flight.blocked()), (0, 0));
    }

    #[test]
    fn the_end_of_the_link_gives_back_every_request() {
        let mut flight = PendingTable::default();
        let uids: Vec<u32> = (0..5).map(|i| flight.insert(asked_by(i), Some(Time::from_ms(1)))).collect();
        assert!(flight.remove(uids[2]).is_some());
        let left: Vec<u32> = flight.drain().map(|(uid, _)| uid).collect();
        assert_eq!(left, [uids[0], uids[1], uids[3], uids[4]]);
        assert!(flight.is_empty());
        assert_eq!(flight.next_deadline(), None);
    }
}
