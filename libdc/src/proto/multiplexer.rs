//! The agent's multiplexer: many local connections, one link to the server.
//!
//! ```text
//!   handle_local ─▶ Local ─▶ request ─┬─ link up: Flight, a new uid ─▶ link outbox ─▶ (the server)
//!                                     └─ link down: DISCONNECTED ──┐
//!   (the application) ◀─ Local's outbox ◀─ the asker's uid ◀─ Flight ◀─ answer ◀─ handle_link
//! ```
//!
//! The link is *down*, *probing* (connected, but the server has not yet proven that it answers) or *up*.
//! Only while it is up are requests sent on; otherwise they are answered at once. The probe is a HAVE of
//! a random id, an ordinary miss to any server; its answer carries the server's patch level.
//!
//! Everything is bounded: requests under way for each connection and in all, answers not yet read, bytes
//! not yet written to the server. Whoever is at a bound is not read until there is room again.

use crate::proto::flight::{Asker, InFlight};
use crate::proto::link::{Link, LinkFault, LinkState};
use crate::proto::local::{Local, LocalFault, LocalId};
use crate::proto::local_frames::take_requests;
use crate::time::Time;
use crate::wire::frame::{Direction, MessageHead};
use crate::wire::message::MessageReader;
use std::collections::VecDeque;

/// What an operator chooses of the multiplexer's behaviour. Times are in milliseconds; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct MultiplexerSettings {
    /// A request that the server has not answered for this long is answered DISCONNECTED.
    pub timeout_ms: u64,
    /// A local connection that asked nothing for this long is closed.
    pub idle_ms: u64,
}

/// The agent's state: its local connections, the link, and what is under way between them.
#[derive(Debug)]
pub struct Multiplexer {
    settings: MultiplexerSettings,
    places: Vec<LocalPlace>,
    free: Vec<u32>,
    link: Link,
    /// Connections with something to write or, after a stall, room to read.
    attention: VecDeque<LocalId>,
    /// Connections that stalled because the link had no room.
    waiting_for_link: VecDeque<LocalId>,
}

#[derive(Debug, Default)]
struct LocalPlace {
    generation: u32,
    local: Option<Local>,
}

impl Multiplexer {
    /// A multiplexer without connections.
    #[must_use]
    pub fn new(settings: MultiplexerSettings) -> Self {
        Self {
            settings,
            places: Vec::new(),
            free: Vec::new(),
            link: Link::new(settings.timeout_ms),
            attention: VecDeque::new(),
            waiting_for_link: VecDeque::new(),
        }
    }

    // ---- local connections

    /// An application connected.
    pub fn open_local(&mut self, now: Time) -> LocalId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(LocalPlace::default());
            self.places.len() as u32 - 1
        });
        let entry = &mut self.places[place as usize];
        entry.local = Some(Local::new(now));
        LocalId { place, generation: entry.generation }
    }

    /// A local connection is gone. Answers that are under way for it will be dropped.
    pub fn close_local(&mut self, id: LocalId) {
        if self.local(id).is_some() {
            let entry = &mut self.places[id.place()];
            entry.local = None;
            entry.generation = entry.generation.wrapping_add(1);
            self.free.push(id.place);
        }
    }

    /// Takes bytes from a local connection.
    ///
    /// # Errors
    /// [`LocalFault::Corruption`]: the connection must be closed once what is in its outbox is written.
    pub fn handle_local(&mut self, now: Time, id: LocalId, bytes: &[u8]) -> Result<(), LocalFault> {
        let Some(local) = local_mut(&mut self.places, id) else {
            return Ok(());
        };
        let mut took = false;
        let result = if local.unread.is_empty() {
            let mut input = bytes;
            let result = take_requests(now, id, local, &mut input, &mut self.link, &self.settings, &mut took);
            local.unread.extend_from_slice(input);
            result
        } else {
            let mut unread = std::mem::take(&mut local.unread);
            unread.extend_from_slice(bytes);
            let mut input = unread.as_slice();
            let result = take_requests(now, id, local, &mut input, &mut self.link, &self.settings, &mut took);
            let used = unread.len() - input.len();
            if used < unread.len() {
                unread.drain(..used);
                local.unread = unread;
            }
            result
        };
        local.note_input(now, took);
        if local.stalled && !self.link.has_room() && !std::mem::replace(&mut local.waits_for_link, true) {
            self.waiting_for_link.push_back(id);
        }
        Ok(result?)
    }

    /// Whether more bytes of this connection can be taken now. While they can't, leave them in the socket.
    #[must_use]
    pub fn wants_input(&self, id: LocalId) -> bool {
        self.local(id).is_some_and(|local| !local.stalled)
    }

    /// What is to be written to a local connection. Call [`local_written`](Self::local_written) after.
    #[must_use]
    pub fn local_output(&self, id: LocalId) -> &[u8] {
        self.local(id).map_or(&[], |local| local.outbox.pending())
    }

    /// A local connection took `count` bytes of its output; `blocked` says that it takes no more for now.
    ///
    /// # Errors
    /// As [`handle_local`](Self::handle_local): requests that had waited for room are taken now.
    pub fn local_written(
        &mut self,
        now: Time,
        id: LocalId,
        count: usize,
        blocked: bool,
    ) -> Result<(), LocalFault> {
        let Some(local) = local_mut(&mut self.places, id) else {
            return Ok(());
        };
        if count > 0 {
            local.outbox.advance(count);
        }
        if blocked && !local.outbox.is_empty() {
            local.outbox.block(now);
        }
        if local.stalled && local.has_room() { self.handle_local(now, id, &[]) } else { Ok(()) }
    }

    /// The next local connection that has output, or can be read again after a stall.
    pub fn poll_attention(&mut self) -> Option<LocalId> {
        while let Some(id) = self.attention.pop_front() {
            if let Some(local) = local_mut(&mut self.places, id) {
                local.listed = false;
                return Some(id);
            }
        }
        None
    }

    /// When [`check_local`](Self::check_local) has to be called for a connection.
    #[must_use]
    pub fn local_deadline(&self, id: LocalId) -> Option<Time> {
        self.local(id).and_then(|local| local.deadline(self.settings.idle_ms))
    }

    /// Whether a local connection may go on.
    ///
    /// # Errors
    /// The [`LocalFault`] for which it must be closed.
    pub fn check_local(&self, now: Time, id: LocalId) -> Result<(), LocalFault> {
        self.local(id).map_or(Ok(()), |local| local.check(now, self.settings.idle_ms))
    }

    /// Whether nothing is under way for a local connection.
    #[must_use]
    pub fn is_local_idle(&self, id: LocalId) -> bool {
        self.local(id).is_none_or(Local::is_idle)
    }

    // ---- the link

    /// The link is connected. `probe_id` is asked for to learn who the server is: 32 random bytes.
    pub fn link_connected(&mut self, now: Time, probe_id: &[u8; 32]) {
        self.link.connect(now, probe_id);
    }

    /// The link is gone, or given up. Every request under way is answered DISCONNECTED.
    pub fn link_lost(&mut self, now: Time) {
        for request in self.link.close() {
            self.give_up(now, request);
        }
        self.release_waiting();
    }

    /// Where the link stands.
    #[must_use]
    pub const fn link_state(&self) -> LinkState {
        self.link.state
    }

    /// Requests that have not been answered.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.link.flight.len()
    }

    /// Takes bytes from the server.
    ///
    /// # Errors
    /// The [`LinkFault`] for which the link must be closed ([`link_lost`](Self::link_lost)).
    pub fn handle_link(&mut self, now: Time, bytes: &[u8]) -> Result<(), LinkFault> {
        let mut reader = std::mem::take(&mut self.link.reader);
        let mut unread = std::mem::take(&mut self.link.unread);
        let result = if unread.is_empty() {
            let mut input = bytes;
            let result = self.take_answers(now, &mut reader, &mut input);
            unread.extend_from_slice(input);
            result
        } else {
            unread.extend_from_slice(bytes);
            let mut input = unread.as_slice();
            let result = self.take_answers(now, &mut reader, &mut input);
            let used = unread.len() - input.len();
            unread.drain(..used);
            result
        };
        reader.reclaim();
        self.link.reader = reader;
        self.link.unread = unread;
        self.link.heard(now);
        self.release_waiting();
        result
    }

    /// What is to be written to the server. Call [`link_written`](Self::link_written) after.
    #[must_use]
    pub fn link_output(&self) -> &[u8] {
        self.link.outbox.pending()
    }

    /// The server took `count` bytes.
    pub fn link_written(&mut self, count: usize) {
        self.link.outbox.advance(count);
        self.release_waiting();
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called.
    #[must_use]
    pub fn link_deadline(&self) -> Option<Time> {
        self.link.deadline()
    }

    /// The time of [`link_deadline`](Self::link_deadline) came: answers what took too long, asks whether
    /// the server is there.
    ///
    /// # Errors
    /// [`LinkFault::Silent`]: the link must be closed ([`link_lost`](Self::link_lost)).
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), LinkFault> {
        while let Some(request) = self.link.flight.expire(now) {
            self.give_up(now, request);
        }
        self.link.check(now)
    }

    fn take_answers(
        &mut self,
        now: Time,
        reader: &mut MessageReader,
        input: &mut &[u8],
    ) -> Result<(), LinkFault> {
        while let Some(answer) = reader.next(input)? {
            if answer.head.direction == Direction::Request {
                self.link.take_request(answer.head)?;
                continue;
            }
            let request = self.link.flight.take(answer.head.uid).ok_or(LinkFault::Unasked)?;
            if request.operation != answer.head.operation {
                return Err(LinkFault::OtherOperation);
            }
            match request.asker {
                Asker::Local { id, uid } => {
                    if let Some(local) = local_mut(&mut self.places, id) {
                        local.answer(now, MessageHead { uid, ..answer.head }, answer.data);
                        self.settle(id);
                    }
                }
                Asker::Agent => self.link.learn(answer.head),
                Asker::Nobody => {}
            }
        }
        Ok(())
    }

    /// Nobody will answer this request but us.
    fn give_up(&mut self, now: Time, request: InFlight) {
        if let Asker::Local { id, uid } = request.asker
            && let Some(local) = local_mut(&mut self.places, id)
        {
            local.answer_disconnected(now, MessageHead::request(uid, request.operation));
            self.settle(id);
        }
    }

    /// A request of this connection has its answer.
    fn settle(&mut self, id: LocalId) {
        if let Some(local) = local_mut(&mut self.places, id) {
            local.in_flight -= 1;
            self.attend(id);
        }
    }

    /// The link has room again: those who waited for it may go on.
    fn release_waiting(&mut self) {
        for _ in 0..self.waiting_for_link.len() {
            if !self.link.has_room() {
                return;
            }
            if let Some(id) = self.waiting_for_link.pop_front()
                && let Some(local) = local_mut(&mut self.places, id)
            {
                local.waits_for_link = false;
                self.attend(id);
            }
        }
    }

    /// Lists a connection for [`poll_attention`](Self::poll_attention), once.
    fn attend(&mut self, id: LocalId) {
        if let Some(local) = local_mut(&mut self.places, id)
            && !std::mem::replace(&mut local.listed, true)
        {
            self.attention.push_back(id);
        }
    }

    fn local(&self, id: LocalId) -> Option<&Local> {
        let place = self.places.get(id.place()).filter(|place| place.generation == id.generation)?;
        place.local.as_ref()
    }
}

fn local_mut(places: &mut [LocalPlace], id: LocalId) -> Option<&mut Local> {
    let place = places.get_mut(id.place()).filter(|place| place.generation == id.generation)?;
    place.local.as_mut()
}
