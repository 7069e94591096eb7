//! A server without sockets, driven by the test: bytes and the time go in, bytes come out.

use libdc::id::{ConnectionId, LinkId, LockKey, Token};
use libdc::proto::machine::MachineState;
use libdc::proto::server::{
    Notification, ServerCloseReason, ServerConnection, ServerContext, ServerTimeouts,
};
use libdc::secret::AuthToken;
use libdc::service::{Completion, Effects, LinkPolicy, RequestCounters, Service};
use libdc::table::{FenceSource, LockSettings, SessionLimits, ShardedLocks, ShardedSessions};
use libdc::time::Time;
use libdc::wire::frame::{Direction, LinkOperation, MessageHead, Operation};
use libdc::wire::link::{Claim, Hello, Welcome};
use libdc::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use libdc::wire::message::{MessageReader, write_message};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const READ_TIMEOUT_MS: u64 = 23_000;
pub(crate) const GRACE_MS: u32 = 10_000;

/// A server with its connections, on a clock that only the test advances.
pub(crate) struct LockServerFixture {
    pub(crate) service: Service,
    pub(crate) now: Time,
    pub(crate) read_timeout_ms: u64,
    pub(crate) connections: BTreeMap<u64, Served>,
    pub(crate) opened: u64,
    /// Whether connections are notified late that they were taken over, as if each had a separate thread.
    pub(crate) tells_late: bool,
    /// Whether answers to blocked requests wait for [`LockServerFixture::deliver_held`].
    pub(crate) holds_answers: bool,
    held: Vec<Completion>,
}

pub(crate) struct Served {
    pub(crate) machine: ServerConnection,
    /// Bytes that the peer has received and the test has not taken.
    received: Vec<u8>,
}

pub(crate) struct FixtureOptions {
    pub(crate) locks: LockSettings,
    pub(crate) links: LinkPolicy,
    pub(crate) auth: Option<AuthToken>,
    pub(crate) read_timeout_ms: u64,
}

impl Default for FixtureOptions {
    fn default() -> Self {
        Self {
            locks: LockSettings {
                default_lease_ms: 33_000,
                locks_max: 1024,
                waiters_max: 0,
                idle_ms: 60_000,
            },
            links: LinkPolicy { grace_ms: GRACE_MS, auto_release: true },
            auth: None,
            read_timeout_ms: READ_TIMEOUT_MS,
        }
    }
}

impl LockServerFixture {
    pub(crate) fn new(options: FixtureOptions) -> Self {
        let sessions = ShardedSessions::new(1, SessionLimits::default(), [1, 2]);
        let locks = ShardedLocks::new(4, options.locks, FenceSource::starting_at(1), [3; 32]);
        Self {
            service: Service::new(Arc::new(sessions), locks, options.links, options.auth),
            now: Time::from_ms(1_000_000),
            read_timeout_ms: options.read_timeout_ms,
            connections: BTreeMap::new(),
            opened: 0,
            tells_late: false,
            holds_answers: false,
            held: Vec::new(),
        }
    }

    pub(crate) fn open(&mut self) -> u64 {
        self.opened += 1;
        self.service.connection_opened();
        let timeouts = ServerTimeouts { read_ms: self.read_timeout_ms, write_ms: 0 };
        let id = ConnectionId::new(self.opened);
        let machine = ServerConnection::new(self.now, id, &self.service, timeouts);
        self.connections.insert(self.opened, Served { machine, received: Vec::new() });
        self.opened
    }

    pub(crate) fn send(&mut self, id: u64, bytes: &[u8]) {
        self.step(id, |machine, cx| machine.handle_input(cx, bytes));
    }

    /// Takes the bytes that the peer has received since the last call.
    pub(crate) fn received(&mut self, id: u64) -> Vec<u8> {
        std::mem::take(&mut self.connections.get_mut(&id).expect("open").received)
    }

    pub(crate) fn line(&mut self, id: u64) -> String {
        let text = String::from_utf8(self.received(id)).expect("text");
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    pub(crate) fn ask(&mut self, id: u64, request: &str) -> String {
        self.send(id, request.as_bytes());
        self.line(id)
    }

    /// Sends a request that must be granted. Returns the token of the lock.
    pub(crate) fn lock(&mut self, id: u64, request: &str) -> String {
        let answer = self.ask(id, request);
        let mut words = answer.split(' ');
        assert!(matches!(words.next(), Some("ok" | "acquired")), "{answer}");
        words.next().expect("a token").to_owned()
    }

    /// Whether no more requests are handled on the connection.
    pub(crate) fn is_ending(&self, id: u64) -> bool {
        !matches!(self.connections[&id].machine.state(), MachineState::Open { .. })
    }

    /// Why the connection is closed, once its delay has passed.
    pub(crate) fn close_reason(&self, id: u64) -> Option<ServerCloseReason> {
        match self.connections[&id].machine.state() {
            MachineState::Closed(reason) => Some(reason),
            MachineState::Open { .. } | MachineState::Closing => None,
        }
    }

    pub(crate) fn close(&mut self, id: u64) {
        self.service.connection_closed();
        self.step(id, ServerConnection::close);
        self.connections.remove(&id);
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now.after_ms(ms);
        loop {
            let mut effects = Effects::new();
            let next = self.service.advance_locks(self.now, &mut effects);
            self.deliver(effects);
            let deadline = self.connections.values().filter_map(|served| served.machine.deadline()).min();
            let Some(next) = [next, deadline].into_iter().flatten().min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            for id in self.connections.keys().copied().collect::<Vec<_>>() {
                self.step(id, ServerConnection::handle_timeout);
            }
        }
        self.now = end;
    }

    /// Calls the machine once and writes its output.
    pub(crate) fn step(&mut self, id: u64, act: impl FnOnce(&mut ServerConnection, &mut ServerContext<'_>)) {
        let Some(served) = self.connections.get_mut(&id) else { return };
        let (mut output, mut effects, mut counters) =
            (Vec::new(), Effects::new(), RequestCounters::default());
        let mut cx = ServerContext {
            now: self.now,
            service: &self.service,
            output: &mut output,
            effects: &mut effects,
            counters: &mut counters,
        };
        served.machine.begin_turn(&mut cx);
        act(&mut served.machine, &mut cx);
        loop {
            let output = served.machine.poll_output(&cx);
            if output.is_empty() {
                break;
            }
            served.received.extend_from_slice(output);
            let count = output.len();
            served.machine.wrote(&mut cx, count);
        }
        self.service.record(&counters);
        self.deliver(effects);
    }

    pub(crate) fn deliver(&mut self, effects: Effects) {
        let taken_over = if self.tells_late { Vec::new() } else { effects.taken_over };
        for id in taken_over {
            self.mail(id.number(), Notification::LinkTakenOver);
        }
        if self.holds_answers {
            self.held.extend(effects.completions);
            return;
        }
        for completion in effects.completions {
            self.mail(completion.reply.connection.number(), Notification::Completion(completion));
        }
    }

    pub(crate) fn mail(&mut self, id: u64, notification: Notification) {
        self.step(id, |machine, cx| machine.handle_mail(cx, notification));
    }

    pub(crate) fn deliver_held(&mut self) {
        self.holds_answers = false;
        let answers = std::mem::take(&mut self.held);
        self.deliver(Effects { completions: answers, ..Effects::new() });
    }

    // ---- frames

    pub(crate) fn messages(&mut self, id: u64) -> Vec<(u32, Vec<u8>)> {
        let output = self.received(id);
        let (mut reader, mut input) = (MessageReader::link(Direction::Response), output.as_slice());
        let mut messages = Vec::new();
        while let Some(answer) = reader.next(&mut input).expect("good answers") {
            // A ping of the server is not an answer.
            if answer.head.direction == Direction::Response {
                messages.push((answer.head.uid, answer.data.to_vec()));
            }
        }
        messages
    }

    /// Sends a lock request. Returns its answer if it comes at once.
    pub(crate) fn request(
        &mut self,
        id: u64,
        uid: u32,
        owner: u64,
        action: LockAction<'_>,
    ) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        LockRequest { owner, action }.write(uid, &mut bytes);
        self.send(id, &bytes);
        let messages = self.messages(id);
        messages.into_iter().find(|(answered, _)| *answered == uid).map(|(_, data)| data)
    }

    pub(crate) fn acquire(
        &mut self,
        id: u64,
        uid: u32,
        owner: u64,
        name: &str,
        timeout_ms: u64,
    ) -> Option<Token> {
        let action = LockAction::Acquire { key: key(name), limit: 1, timeout_ms, lease_ms: 30_000 };
        let data = self.request(id, uid, owner, action)?;
        match LockAnswer::parse(action.operation(), &data) {
            Ok(LockAnswer::Grant { grant, .. }) => Some(grant.token),
            _ => None,
        }
    }

    pub(crate) fn hello(&mut self, id: u64, link: u8, auth_token: &[u8]) -> Welcome {
        let mut bytes = Vec::new();
        Hello { link_id: LinkId::new([link; 16]), auth_token }.write(1, &mut bytes);
        self.send(id, &bytes);
        Welcome::parse(&self.messages(id)[0].1).expect("a welcome")
    }

    pub(crate) fn link(&mut self, id: u64, operation: LinkOperation, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_message(&mut bytes, MessageHead::request(77, Operation::Link(operation)), data);
        self.send(id, &bytes);
        let answer = self.messages(id).into_iter().find(|(uid, _)| *uid == 77);
        answer.map(|(_, data)| data).unwrap_or_default()
    }

    pub(crate) fn claim(&mut self, id: u64, owner: u64, name: &str, token: Token) -> LockStatus {
        let mut data = Vec::new();
        Claim { owner, token, key: key(name) }.write(&mut data);
        LockStatus::from_wire(self.link(id, LinkOperation::Claim, &data)[0]).expect("a status")
    }
}

pub(crate) fn key(name: &str) -> LockKey<'_> {
    LockKey::new(name).expect("a key")
}

pub(crate) fn release(name: &str, token: Token) -> LockAction<'_> {
    LockAction::Release { key: key(name), token }
}
