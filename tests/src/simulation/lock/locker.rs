//! An application that uses locks at random: it acquires them, waits for them, renews and releases them,
//! tries the tokens of former holds, and disconnects at any point.
//!
//! It relies only on the answers it received. Each lock is used over one connection at a time.

use super::conversation::{KEYS, LockConversation, SentLock};
use super::history::{LockHistory, LockOpKind, ObservedLockReply};
use super::violation::LockViolation;
use crate::simulation::agent::SimAgent;
use crate::simulation::event_queue::SimEvent;
use crate::simulation::network::{Network, NetworkEnd, Party};
use crate::simulation::random::SeededRng;
use crate::simulation::scenario::Scenario;
use crate::simulation::server::{ServerState, SimServer};
use crate::simulation::violation::Violation;
use libdc::id::{LinkId, Token};
use libdc::time::Time;
use libdc::wire::lock::LockStatus;

/// Longest extra pause after a failed connect, a closed connection or `error_disconnected`, in milliseconds.
const DISCOURAGED_MS: u64 = 2_000;
/// How long a locker waits for a server over a stalled connection, in milliseconds.
const PATIENCE_MS: u64 = 20_000;
/// Limit of tokens of former holds that a locker keeps.
const OLD_MAX: usize = 4;

/// How a locker behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockerPlan {
    /// The agent it connects to; `None` for a connection to the server.
    pub(crate) agent: Option<usize>,
    pub(crate) speech: LockerProtocol,
    /// Total number of its operations.
    pub(crate) operations: usize,
    /// Limit of requests in flight.
    pub(crate) depth: usize,
    /// Longest pause between two turns, in milliseconds.
    pub(crate) think_ms: u64,
    /// Turns per thousand in which it closes its connection early.
    pub(crate) vanishes: u64,
    /// Number of keys that it uses.
    pub(crate) keys: usize,
    /// The longest lease that it requests, in seconds.
    pub(crate) lease_s_max: u64,
    /// The longest wait timeout that it requests, in seconds.
    pub(crate) timeout_s_max: u64,
}

/// The protocol between a locker and its agent or the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockerProtocol {
    Text,
    Frames,
    /// Frames over the locker's link. The locker re-establishes it, and claims the locks it held.
    Link,
}

/// The parts of the simulation that a locker uses.
pub(crate) struct LockerEnv<'a> {
    pub(crate) net: &'a mut Network,
    pub(crate) agents: &'a mut [SimAgent],
    pub(crate) server: &'a mut SimServer,
    pub(crate) history: &'a mut LockHistory,
}

/// An application that uses locks at random.
pub(crate) struct Locker {
    number: usize,
    plan: LockerPlan,
    random: SeededRng,
    /// Operations that remain to be made.
    left: usize,
    conversation: Option<LockConversation>,
    held: Vec<LockerHold>,
    /// Keys of an ENQUEUE that no WAIT has completed yet.
    places: Vec<usize>,
    old: Vec<(usize, Token)>,
    /// The event that calls [`wake`](Self::wake) is queued.
    called: bool,
    discouraged: bool,
    /// When it gives up on a server that does not answer.
    patience: Option<Time>,
    /// How often it has given up its holds; each time it opens a link with a new ID.
    lives: u32,
}

#[derive(Clone, Copy)]
struct LockerHold {
    key: usize,
    token: Token,
    /// End of the lease by the locker's clock, counted from before the request.
    until: Time,
    lease_ms: u64,
    /// A request with its token is open.
    busy: bool,
}

impl Locker {
    /// A locker without any operations yet.
    pub(crate) fn new(number: usize, plan: LockerPlan, random: SeededRng) -> Self {
        Self {
            number,
            left: plan.operations,
            plan,
            random,
            conversation: None,
            held: Vec::new(),
            places: Vec::new(),
            old: Vec::new(),
            called: true,
            discouraged: false,
            patience: None,
            lives: 0,
        }
    }

    /// Whether all its operations have ended and its connection is closed.
    pub(crate) const fn is_done(&self) -> bool {
        self.left == 0 && self.conversation.is_none()
    }

    /// Connects if necessary, or disconnects at random, then sends requests and reads answers.
    pub(crate) fn wake(&mut self, around: &mut LockerEnv<'_>, scenario: &Scenario) {
        self.called = false;
        if self.conversation.is_none() && self.left > 0 {
            self.connect(around, scenario);
        }
        let (net, history) = (&mut *around.net, &mut *around.history);
        if self.random.chance(self.plan.vanishes)
            && let Some(conversation) = self.conversation.take()
        {
            net.trace.count("lockers that vanish", 1);
            self.close(net, history, &conversation);
        }
        self.ask(net, history);
        self.turn(net, history);
    }

    /// Reads, writes, and closes the connection after the last answer.
    pub(crate) fn turn(&mut self, net: &mut Network, history: &mut LockHistory) {
        if let Some(mut conversation) = self.conversation.take() {
            let goes_on = self.read(net, history, &mut conversation).unwrap_or_else(|violation| {
                net.fail(Violation::Locking(violation));
                false
            });
            conversation.write(net);
            let is_content = self.left == 0 && conversation.open.is_empty();
            let goes_on_waiting = goes_on && self.retries(net, &conversation);
            if goes_on_waiting && !is_content {
                self.conversation = Some(conversation);
            } else {
                if !goes_on {
                    self.check_abandoned(net, history, &conversation);
                }
                self.close(net, history, &conversation);
            }
        }
        self.call_again(net);
    }

    /// Whether it keeps waiting. It gives up on a stalled connection, which may never carry anything again.
    fn retries(&mut self, net: &mut Network, conversation: &LockConversation) -> bool {
        let connection = conversation.end.connection;
        if self.plan.agent.is_some() || (conversation.open.is_empty() && conversation.is_open()) {
            self.patience = None;
            return true;
        }
        let deadline = *self.patience.get_or_insert(net.now().after_ms(PATIENCE_MS));
        if deadline <= net.now() {
            if net.is_stalled(connection) {
                net.trace.count("lockers that lose their patience", 1);
                return false;
            }
            self.patience = Some(net.now().after_ms(PATIENCE_MS));
        }
        net.set_timer(conversation.end, self.patience);
        true
    }

    fn connect(&mut self, around: &mut LockerEnv<'_>, scenario: &Scenario) {
        let (net, direct) = (&mut *around.net, self.plan.agent.is_none());
        let party = Party::Locker { locker: self.number, direct };
        let end = if let Some(agent) = self.plan.agent {
            if !around.agents[agent].is_there() {
                self.discouraged = true;
                return;
            }
            let quality = scenario.network.local(&mut net.random);
            around.agents[agent].accept(net, party, quality)
        } else {
            if !matches!(around.server.state(), ServerState::Running | ServerState::Stopped) {
                self.discouraged = true;
                return;
            }
            let quality = scenario.network.link(&mut net.random);
            let connection = net.connect(party, Party::Server { agent: None }, quality);
            around.server.accept(net, NetworkEnd { connection, side: 1 }, None);
            NetworkEnd { connection, side: 0 }
        };
        let mut conversation =
            LockConversation::new(end, net.now(), self.plan.speech == LockerProtocol::Text);
        let own_link = (self.plan.speech == LockerProtocol::Link).then_some(self.number);
        around.history.connected(end.connection, self.plan.agent, own_link);
        if own_link.is_some() {
            let mut link_id = [0xff; LinkId::BYTES];
            link_id[..8].copy_from_slice(&(self.number as u64).to_be_bytes());
            link_id[8..12].copy_from_slice(&self.lives.to_be_bytes());
            let claims = self.claims(net, around.history, end.connection);
            conversation.open_link(LinkId::new(link_id), &claims);
        }
        self.conversation = Some(conversation);
    }

    /// Begins claims for the locks that it held over its link and may still hold.
    fn claims(&mut self, net: &mut Network, history: &mut LockHistory, connection: u32) -> Vec<SentLock> {
        let now = net.now();
        self.held.retain(|held| held.until > now);
        let mut claims = Vec::new();
        for held in &mut self.held {
            held.busy = true;
            let locking = LockOpKind::Claim { token: held.token };
            let operation = history.begin(net, self.number, connection, held.key, locking);
            claims.push(SentLock::new(operation, held.key, locking));
        }
        claims
    }

    /// Schedules the next call of [`wake`](Self::wake) if operations remain and the depth allows it.
    fn call_again(&mut self, net: &mut Network) {
        let has_room = self.conversation.as_ref().is_none_or(|it| it.open.len() < self.plan.depth);
        if self.left > 0 && has_room && !self.called {
            self.called = true;
            let discouraged = std::mem::take(&mut self.discouraged);
            let least_ms = if discouraged { 20 } else { 0 };
            let most_ms = self.plan.think_ms + if discouraged { DISCOURAGED_MS } else { 20 };
            net.agenda.after_ms(self.random.between(least_ms..=most_ms), SimEvent::Locker(self.number));
        }
    }

    fn ask(&mut self, net: &mut Network, history: &mut LockHistory) {
        let Some(mut conversation) = self.conversation.take() else { return };
        let room = self.plan.depth.saturating_sub(conversation.open.len()).min(self.left).min(3);
        if room > 0 && conversation.is_open() {
            for _ in 0..self.random.between(1..=room as u64) {
                let (key, locking) = self.draw(net.now(), &conversation);
                self.left -= 1;
                let connection = conversation.end.connection;
                let operation = history.begin(net, self.number, connection, key, locking);
                conversation.ask(operation, key, locking);
            }
        }
        self.conversation = Some(conversation);
    }

    /// Draws the next operation at random.
    fn draw(&mut self, now: Time, conversation: &LockConversation) -> (usize, LockOpKind) {
        let random = &mut self.random;
        let waits_for = |key: usize| {
            let waits = |it: &SentLock| it.key == key && matches!(it.locking, LockOpKind::Wait { .. });
            conversation.open.iter().any(waits)
        };
        let whole_seconds = self.plan.speech == LockerProtocol::Text;
        let up_to_s = |least_ms: u64, most_s: u64, random: &mut SeededRng| {
            if whole_seconds {
                1_000 * random.between(least_ms.div_ceil(1_000)..=most_s)
            } else {
                random.between(least_ms..=1_000 * most_s)
            }
        };
        if let Some(key) = self.places.iter().copied().find(|key| !waits_for(*key))
            && random.chance(500)
        {
            return (key, LockOpKind::Wait { timeout_ms: up_to_s(0, self.plan.timeout_s_max, random) });
        }
        let lease_ms = up_to_s(1, self.plan.lease_s_max, random);
        let free = self.held.iter().position(|held| !held.busy);
        if let Some(place) = free
            && random.chance(600)
        {
            let held = &mut self.held[place];
            held.busy = true;
            let (key, token) = (held.key, held.token);
            let mostly_releases = if held.until > now { 450 } else { 200 };
            if random.chance(mostly_releases) {
                return (key, LockOpKind::Release { token });
            }
            // Like a guard, it requests at least the previous lease.
            return (key, LockOpKind::Renew { token, lease_ms: lease_ms.max(held.lease_ms) });
        }
        if !self.old.is_empty() && random.chance(60) {
            let (key, token) = random.pick(&self.old);
            let renew = LockOpKind::Renew { token, lease_ms };
            return (key, if random.chance(700) { renew } else { LockOpKind::Release { token } });
        }
        let may_cancel =
            |it: &&SentLock| matches!(it.locking, LockOpKind::Acquire { .. } | LockOpKind::Wait { .. });
        if !whole_seconds
            && random.chance(80)
            && let Some(it) = conversation.open.iter().find(may_cancel)
        {
            return (it.key, LockOpKind::Cancel { operation: it.operation });
        }
        let key = random.below(self.plan.keys as u64) as usize % KEYS.len();
        if random.chance(250) {
            return (key, LockOpKind::Enqueue { lease_ms });
        }
        let timeout_ms = if random.chance(250) { 0 } else { up_to_s(0, self.plan.timeout_s_max, random) };
        (key, LockOpKind::Acquire { timeout_ms, lease_ms })
    }

    /// Reads the answers received. Returns whether the connection stays open.
    fn read(
        &mut self,
        net: &mut Network,
        history: &mut LockHistory,
        conversation: &mut LockConversation,
    ) -> Result<bool, LockViolation> {
        let mut answers = Vec::new();
        let goes_on = conversation.read(net, self.number, &mut answers)?;
        for (request, reply) in answers {
            self.patience = None;
            history.finish(net, self.number, request.operation, reply);
            self.apply_reply(history, &request, reply);
            if self.plan.agent.is_none() && conversation.open.is_empty() {
                check_in_time(net, history, request.operation)?;
            }
        }
        Ok(goes_on)
    }

    fn apply_reply(&mut self, history: &LockHistory, request: &SentLock, reply: ObservedLockReply) {
        let begun = history.operations[request.operation].begun.at;
        self.discouraged |= reply == ObservedLockReply::Status(LockStatus::ErrorDisconnected);
        match (request.locking, reply) {
            (LockOpKind::Renew { token, .. }, ObservedLockReply::Renewed(lease_ms)) => {
                if let Some(held) = self.held.iter_mut().find(|held| held.token == token) {
                    *held = LockerHold { until: begun.after_ms(lease_ms), lease_ms, busy: false, ..*held };
                }
            }
            (
                LockOpKind::Renew { token, .. } | LockOpKind::Release { token } | LockOpKind::Claim { token },
                ObservedLockReply::Status(status),
            ) => {
                let is_kept = status == LockStatus::ErrorDisconnected
                    || (status == LockStatus::Ok && matches!(request.locking, LockOpKind::Claim { .. }));
                for held in self.held.iter_mut().filter(|held| held.token == token) {
                    held.busy = false;
                }
                if !is_kept {
                    self.give_up(|held| held.token == token);
                }
            }
            (locking, ObservedLockReply::Granted(grant)) => {
                let key = request.key;
                if matches!(locking, LockOpKind::Enqueue { .. }) && !self.places.contains(&key) {
                    self.places.push(key);
                } else if matches!(locking, LockOpKind::Wait { .. }) {
                    self.places.retain(|place| *place != key);
                }
                let until = begun.after_ms(grant.lease_ms);
                let held =
                    LockerHold { key, token: grant.token, until, lease_ms: grant.lease_ms, busy: false };
                match self.held.iter_mut().find(|held| held.token == grant.token) {
                    Some(same) => *same = LockerHold { busy: same.busy, ..held },
                    None => self.held.push(held),
                }
            }
            (LockOpKind::Enqueue { .. }, ObservedLockReply::Status(LockStatus::Queued)) => {
                self.places.push(request.key);
            }
            (LockOpKind::Wait { .. }, ObservedLockReply::Status(_)) => {
                self.places.retain(|place| *place != request.key);
            }
            _ => {}
        }
    }

    /// Drops holds, and keeps their tokens for later attempts.
    fn give_up(&mut self, is_lost: impl Fn(&LockerHold) -> bool) {
        for held in self.held.extract_if(.., |held| is_lost(held)) {
            self.old.push((held.key, held.token));
        }
        let surplus = self.old.len().saturating_sub(OLD_MAX);
        self.old.drain(..surplus);
    }

    /// Closes the connection; the effects of its open requests remain unknown.
    fn close(&mut self, net: &mut Network, history: &mut LockHistory, conversation: &LockConversation) {
        for request in &conversation.open {
            history.finish(net, self.number, request.operation, ObservedLockReply::Lost);
        }
        let connection = conversation.end.connection;
        let now = net.moment();
        let is_kept = self.plan.speech == LockerProtocol::Link && self.left > 0 && !self.random.chance(300);
        // Over its own link, a locker relies on its holds until it detects the end of the connection.
        let over =
            if self.plan.speech == LockerProtocol::Link { now } else { net.over(connection).unwrap_or(now) };
        history.left(connection, over);
        net.close(conversation.end);
        self.places.clear();
        self.patience = None;
        self.lives += u32::from(!is_kept);
        for held in &mut self.held {
            held.busy = false;
        }
        if !is_kept {
            self.give_up(|_| true);
        }
        self.discouraged = true;
    }

    /// Checks that the other end did not close the connection without need while a request was in flight. A
    /// server that shuts down may do so if the request had not reached it.
    fn check_abandoned(&self, net: &mut Network, history: &LockHistory, conversation: &LockConversation) {
        let is_plain = self.plan.agent.is_none() && self.plan.speech != LockerProtocol::Link;
        let end = conversation.end;
        let had_arrived = net.arrived_total(end.peer()) == conversation.asked;
        let was_drained = history.shutdowns.last().is_some_and(|shutdown| {
            let closed = net.closed(end.peer());
            closed.is_some_and(|closed| shutdown.idle_since < closed && closed <= shutdown.ended)
        });
        if let Some(request) = conversation.open.front()
            && is_plain
            && (had_arrived || !was_drained)
            && !net.was_cut(conversation.end.connection)
            && net.disturbed_until() < conversation.since
        {
            let operation = request.operation;
            net.fail(Violation::Locking(LockViolation::Abandoned { operation }));
        }
    }
}

/// How much longer than its wait timeout a request may take over an undisturbed network, in milliseconds.
const ANSWER_MS_MAX: u64 = 3_000;

/// Checks that an answer over an undisturbed network was in time. A waiter is answered soon after a shutdown
/// begins, and a request that was alone on its connection soon after its wait timeout.
fn check_in_time(net: &Network, history: &LockHistory, operation: usize) -> Result<(), LockViolation> {
    let it = &history.operations[operation];
    if let Some(shutdown) = history.shutdowns.last()
        && it.begun < shutdown.idle_since
        && it.ended < shutdown.ended
        && net.disturbed_until() <= shutdown.began
        && it.ended.at > shutdown.began.after_ms(ANSWER_MS_MAX)
    {
        let after_ms = it.ended.at.ms_since(shutdown.began);
        return Err(LockViolation::KeptWaiting { operation, after_ms });
    }
    let (LockOpKind::Acquire { timeout_ms, .. } | LockOpKind::Wait { timeout_ms }) = it.locking else {
        return Ok(());
    };
    let was_alone = history.operations[..operation]
        .iter()
        .all(|other| other.connection != it.connection || other.ended < it.begun);
    let after_ms = it.ended.at.ms_since(it.begun.at);
    if was_alone && net.disturbed_until() < it.begun.at && after_ms > timeout_ms + ANSWER_MS_MAX {
        return Err(LockViolation::Overdue { operation, after_ms, timeout_ms });
    }
    Ok(())
}
