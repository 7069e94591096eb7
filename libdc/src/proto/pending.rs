//! The requests in flight on a link.
//!
//! A request gets a uid of the link: the upper 24 bits are its slot in the table, the lower 8 count how often
//! the slot was used. A slot is freed only when the answer arrives or the link ends; an abandoned request
//! keeps its slot until then. So no late answer can reach another request.
//!
//! The payload identifies the recipient of the answer. It is stored in the slot, so there is no second table.
//! Nothing here panics.

use crate::limits::LINK_IN_FLIGHT_MAX;
use crate::time::Time;
use crate::wire::frame::Operation;

const GENERATION_BITS: u32 = 8;

/// A request in flight. `P` identifies the recipient of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRequest<P> {
    /// The payload; `None` if the answer is ignored.
    pub payload: Option<P>,
    /// The operation that the answer must have.
    pub operation: Operation,
    /// Whether the server may answer late without being at fault.
    pub may_block: bool,
}

impl<P> PendingRequest<P> {
    /// A request that is answered at once.
    #[must_use]
    pub const fn prompt(payload: Option<P>, operation: Operation) -> Self {
        Self { payload, operation, may_block: false }
    }

    /// The same request with another payload.
    #[inline]
    pub fn map<Q>(self, change: impl FnOnce(P) -> Q) -> PendingRequest<Q> {
        let Self { payload, operation, may_block } = self;
        PendingRequest { payload: payload.map(change), operation, may_block }
    }
}

/// The table of requests in flight.
///
/// Those with a deadline are chained in the order of insertion, which is that of their deadlines.
#[derive(Debug)]
pub struct PendingTable<P> {
    slots: Vec<PendingSlot<P>>,
    free: Vec<u32>,
    soonest: u32,
    latest: u32,
    count: usize,
    blocked: usize,
}

#[derive(Debug)]
struct PendingSlot<P> {
    generation: u8,
    request: Option<PendingRequest<P>>,
    deadline: Option<Time>,
    sooner: u32,
    later: u32,
}

const NONE: u32 = u32::MAX;

impl<P> Default for PendingTable<P> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), soonest: NONE, latest: NONE, count: 0, blocked: 0 }
    }
}

impl<P> PendingTable<P> {
    /// Requests without an answer so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether every request has been answered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Requests without an answer so far that may block.
    #[must_use]
    pub const fn blocked(&self) -> usize {
        self.blocked
    }

    /// Requests without an answer so far that do not block.
    #[must_use]
    pub const fn prompt(&self) -> usize {
        self.count - self.blocked
    }

    /// Whether no more requests can be taken.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.count >= LINK_IN_FLIGHT_MAX
    }

    /// Enters a request. Returns the uid to send it with. A deadline must not be before those of earlier
    /// requests.
    #[inline]
    pub fn insert(&mut self, request: PendingRequest<P>, deadline: Option<Time>) -> u32 {
        self.count += 1;
        self.blocked += usize::from(request.may_block);
        let slot = if let Some(slot) = self.free.pop() {
            let entry = &mut self.slots[slot as usize];
            entry.request = Some(request);
            entry.deadline = deadline;
            slot
        } else {
            let request = Some(request);
            self.slots.push(PendingSlot { generation: 0, request, deadline, sooner: NONE, later: NONE });
            self.slots.len() as u32 - 1
        };
        if deadline.is_some() {
            self.chain(slot);
        }
        uid_of(slot, self.slots[slot as usize].generation)
    }

    /// Removes the request with this uid: its answer came. `None` if there is no such request.
    #[inline]
    pub fn remove(&mut self, uid: u32) -> Option<PendingRequest<P>> {
        let slot = uid >> GENERATION_BITS;
        let entry = self.slots.get_mut(slot as usize)?;
        if uid_of(slot, entry.generation) != uid {
            return None;
        }
        let request = entry.request.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.unchain(slot);
        self.free.push(slot);
        self.count -= 1;
        self.blocked -= usize::from(request.may_block);
        Some(request)
    }

    /// The deadline of the next request that expires.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.slots.get(self.soonest as usize).and_then(|slot| slot.deadline)
    }

    /// Takes the payload of the next request whose deadline has passed. The slot stays in use until the
    /// answer comes, which is then ignored.
    pub fn expire(&mut self, now: Time) -> Option<(u32, PendingRequest<P>)> {
        self.next_deadline().filter(|deadline| *deadline <= now)?;
        let slot = self.soonest;
        self.unchain(slot);
        let entry = &mut self.slots[slot as usize];
        let uid = uid_of(slot, entry.generation);
        let request = entry.request.as_mut()?;
        let PendingRequest { operation, may_block, .. } = *request;
        Some((uid, PendingRequest { payload: request.payload.take(), operation, may_block }))
    }

    /// The link ended: removes every request, and returns each with its uid.
    pub fn drain(&mut self) -> impl Iterator<Item = (u32, PendingRequest<P>)> + use<P> {
        let slots = (0..).zip(std::mem::take(self).slots);
        slots.filter_map(|(number, slot)| Some((uid_of(number, slot.generation), slot.request?)))
    }

    fn chain(&mut self, slot: u32) {
        let before = std::mem::replace(&mut self.latest, slot);
        let entry = &mut self.slots[slot as usize];
        (entry.sooner, entry.later) = (before, NONE);
        match self.slots.get_mut(before as usize) {
            Some(before) => before.later = slot,
            None => self.soonest = slot,
        }
    }

    fn unchain(&mut self, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        if entry.deadline.take().is_none() {
            return;
        }
        let (sooner, later) = (entry.sooner, entry.later);
        match self.slots.get_mut(sooner as usize) {
            Some(sooner) => sooner.later = later,
            None => self.soonest = later,
        }
        match self.slots.get_mut(later as usize) {
            Some(later) => later.sooner = sooner,
            None => self.latest = sooner,
        }
    }
}

const fn uid_of(slot: u32, generation: u8) -> u32 {
    slot << GENERATION_BITS | generation as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::SessionOperation;

    const GET: Operation = Operation::Session(SessionOperation::Get);

    fn request(number: u32) -> PendingRequest<u32> {
        PendingRequest::prompt(Some(number), GET)
    }

    #[test]
    fn answer_removes_its_request_once() {
        let mut pending = PendingTable::<u32>::default();
        let first = pending.insert(request(1), None);
        let second = pending.insert(request(2), None);
        assert_eq!(pending.remove(second), Some(request(2)));
        assert_eq!(pending.remove(second), None, "the answer came twice");
        assert_eq!(pending.remove(first), Some(request(1)));
        assert!(pending.is_empty());
    }

    #[test]
    fn reused_slot_has_another_uid() {
        let mut pending = PendingTable::<u32>::default();
        let old = pending.insert(request(1), None);
        assert!(pending.remove(old).is_some());
        let new = pending.insert(request(2), None);
        assert_ne!(old, new);
        assert_eq!(pending.remove(old), None, "a second answer to an old request reached a new one");
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn expired_request_keeps_its_slot_until_the_answer() {
        let mut pending = PendingTable::<u32>::default();
        let late = pending.insert(request(1), Some(Time::from_ms(10)));
        assert_eq!(pending.next_deadline(), Some(Time::from_ms(10)));
        assert_eq!(pending.expire(Time::from_ms(9)), None);
        assert_eq!(pending.expire(Time::from_ms(10)), Some((late, request(1))));
        assert_eq!(pending.expire(Time::from_ms(10)), None);
        assert_eq!(pending.len(), 1);
        let other = pending.insert(request(2), Some(Time::from_ms(20)));
        assert_ne!(late >> GENERATION_BITS, other >> GENERATION_BITS);
        assert_eq!(pending.remove(late).map(|request| request.payload), Some(None));
    }

    #[test]
    fn expiry_keeps_its_order_whatever_is_answered_between() {
        let mut pending = PendingTable::<u32>::default();
        let slow = pending.insert(request(0), Some(Time::from_ms(0)));
        let mut waiting = Vec::new();
        for i in 1..2_000 {
            let uid = pending.insert(request(i), Some(Time::from_ms(u64::from(i))));
            if i % 3 == 0 {
                waiting.push(i);
            } else {
                assert!(pending.remove(uid).is_some());
            }
        }
        assert_eq!(pending.next_deadline(), Some(Time::from_ms(0)));
        assert!(pending.remove(slow).is_some());
        assert_eq!(pending.expire(Time::from_ms(2)), None, "a request expired before its time");
        for i in waiting {
            let expired = pending.expire(Time::from_ms(2_000));
            assert_eq!(expired.map(|(_, request)| request), Some(request(i)));
        }
        assert_eq!(pending.next_deadline(), None);
    }

    #[test]
    fn blocking_requests_are_counted_apart() {
        let mut pending = PendingTable::<u32>::default();
        let prompt = pending.insert(request(1), None);
        let blocked = pending.insert(PendingRequest { may_block: true, ..request(2) }, None);
        assert_eq!((pending.len(), pending.prompt(), pending.blocked()), (2, 1, 1));
        assert!(pending.remove(prompt).is_some());
        assert_eq!((pending.prompt(), pending.blocked()), (0, 1));
        assert!(pending.remove(blocked).is_some());
        assert_eq!((pending.prompt(), pending.blocked()), (0, 0));
    }

    #[test]
    fn drain_returns_every_request_and_empties_the_table() {
        let mut pending = PendingTable::<u32>::default();
        let uids: Vec<u32> = (0..5).map(|i| pending.insert(request(i), Some(Time::from_ms(1)))).collect();
        assert!(pending.remove(uids[2]).is_some());
        let left: Vec<u32> = pending.drain().map(|(uid, _)| uid).collect();
        assert_eq!(left, [uids[0], uids[1], uids[3], uids[4]]);
        assert!(pending.is_empty());
        assert_eq!(pending.next_deadline(), None);
    }
}
