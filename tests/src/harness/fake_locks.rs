//! A lock server that keeps its promises, or breaks one of them. It speaks frames of class 1, and is written without
//! libdc, so that it shares none of its mistakes. Nobody waits in vain for so long that it would have to say so.

use crate::harness::loopback::own_loopback;
use crate::harness::patience::PATIENCE;
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const HEADER_BYTES: usize = 14;
const TOKEN_BYTES: usize = 16;
const LOCK_CLASS: u8 = 1;
const ACQUIRE: u8 = 0;
const ENQUEUE: u8 = 1;
const WAIT: u8 = 2;
const RELEASE: u8 = 3;

const OK: u8 = 0;
const ACQUIRED: u8 = 1;
const QUEUED: u8 = 2;
const TIMEOUT: u8 = 3;
const ERROR: u8 = 4;
const ERROR_LIMIT_MISMATCH: u8 = 7;
const ERROR_NOT_ENQUEUED: u8 = 9;

/// One in so many times a promise is broken that is broken now and then.
const NOW_AND_THEN: u64 = 10;

/// When a lease ends that ends too early.
const EARLY: Duration = Duration::from_millis(300);

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultMode {
    /// All as it should be.
    Honest,
    /// Now and then somebody is granted what others hold.
    GrantsTwice,
    /// Now and then a fence is smaller than the one before.
    FenceGoesBack,
    /// Of those who wait the last is granted first.
    LastInFirstOut,
    /// Now and then who only tries gets what others wait for.
    TriesOvertake,
    /// What is released can be released again.
    ReleasesTwice,
    /// Now and then what is held can't be released.
    LosesLocks,
    /// A renewed lease is shorter than asked.
    RenewsForLess,
    /// A renewal is answered and changes nothing.
    RenewsNothing,
    /// A lease ends long before it should.
    ExpiresEarly,
    /// A lease never ends.
    NeverExpires,
    /// The limit that others hold with does not matter.
    IgnoresLimits,
    /// The answers have another uid.
    MixesUpUids,
}

/// A listening server; it ends when this is dropped.
#[derive(Debug)]
pub struct FakeLockServer {
    address: SocketAddr,
    shared: Arc<FakeLockShared>,
}

#[derive(Debug)]
struct FakeLockShared {
    conduct: FaultMode,
    state: Mutex<FakeLockState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct FakeLockState {
    keys: HashMap<Vec<u8>, FakeKey>,
    fence: u64,
    asked: u64,
    connections: Vec<Arc<TcpStream>>,
    ended: bool,
}

#[derive(Debug, Default)]
struct FakeKey {
    limit: u32,
    holders: Vec<FakeHolder>,
    waiters: VecDeque<FakeWaiter>,
}

#[derive(Debug)]
struct FakeHolder {
    token: [u8; TOKEN_BYTES],
    connection: usize,
    lease: Duration,
    ends: Instant,
    /// It was queued for and is not waited for yet.
    unclaimed: bool,
}

#[derive(Debug)]
struct FakeWaiter {
    connection: usize,
    lease: Duration,
    /// Of the request that waits; none while there is just a place.
    header: Option<[u8; HEADER_BYTES]>,
}

/// The fields of a request, one after the other. What is not there is 0: no request of a test lacks any.
struct FakeFields<'a>(&'a [u8]);

impl FakeLockServer {
    /// Starts one.
    #[must_use]
    pub fn start(conduct: FaultMode) -> Self {
        let listener = TcpListener::bind((own_loopback(), 0)).expect("a port");
        let address = listener.local_addr().expect("the address of a listener");
        let state = FakeLockState { fence: 1000, ..FakeLockState::default() };
        let shared = Arc::new(FakeLockShared { conduct, state: Mutex::new(state), changed: Condvar::new() });
        let (accepting, expiring) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || accepting.accept(&listener));
        thread::spawn(move || expiring.expire());
        Self { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for FakeLockServer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        for stream in &state.connections {
            // It may be closed by now.
            stream.shutdown(Shutdown::Both).ok();
        }
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the thread that accepts, which sees that it is over.
        TcpStream::connect(self.address).ok();
    }
}

impl FakeLockShared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let stream = Arc::new(stream.expect("a connection"));
            stream.set_nodelay(true).expect("an option of a socket");
            let mut state = self.lock();
            if state.ended {
                return;
            }
            let connection = state.connections.len();
            state.connections.push(Arc::clone(&stream));
            drop(state);
            let serving = Arc::clone(self);
            thread::spawn(move || {
                // The end of a connection is no failure of the server.
                serving.serve(&stream, connection).ok();
                serving.lock().disconnected(connection, serving.conduct);
            });
        }
    }

    fn serve(&self, mut stream: &TcpStream, connection: usize) -> io::Result<()> {
        loop {
            let mut header = [0; HEADER_BYTES];
            stream.read_exact(&mut header)?;
            assert_eq!((header[9], header[11]), (LOCK_CLASS, 1), "a lock in one frame");
            let mut data = vec![0; usize::from(u16::from_be_bytes([header[12], header[13]]))];
            stream.read_exact(&mut data)?;
            let mut state = self.lock();
            state.handle(connection, header, &data, self.conduct);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Grants what expires.
    fn expire(&self) {
        let mut state = self.lock();
        while !state.ended {
            state.expire(self.conduct);
            let soonest = state.keys.values().flat_map(|key| &key.holders).map(|holder| holder.ends).min();
            let wait = soonest.map_or(PATIENCE, |ends| ends.saturating_duration_since(Instant::now()));
            let waited = self.changed.wait_timeout(state, wait.max(Duration::from_millis(1)));
            state = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, FakeLockState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeLockState {
    fn handle(&mut self, connection: usize, header: [u8; HEADER_BYTES], data: &[u8], conduct: FaultMode) {
        self.expire(conduct);
        self.asked += 1;
        let mut fields = FakeFields(&data[8..]);
        let name = fields.str();
        let answer = match header[10] {
            operation @ (ACQUIRE | ENQUEUE) => {
                let limit = fields.u32();
                let timeout = if operation == ACQUIRE { fields.ms() } else { Duration::MAX };
                let lease = fields.ms();
                self.ask(
                    &name,
                    limit,
                    timeout,
                    FakeWaiter { connection, lease, header: Some(header) },
                    conduct,
                )
            }
            WAIT => self.wait(&name, connection, header),
            operation => self.hold(&name, operation, &mut fields, conduct),
        };
        if let Some(answer) = answer {
            self.answer(connection, header, &answer, conduct);
        }
        self.grant_waiters(&name, conduct);
    }

    fn ask(
        &mut self,
        name: &[u8],
        limit: u32,
        timeout: Duration,
        mut waiter: FakeWaiter,
        conduct: FaultMode,
    ) -> Option<Vec<u8>> {
        let now_and_then = self.asked.is_multiple_of(NOW_AND_THEN);
        let key = self.keys.entry(name.to_vec()).or_default();
        if key.holders.is_empty() && key.waiters.is_empty() {
            key.limit = limit;
        } else if key.limit != limit && conduct != FaultMode::IgnoresLimits {
            return Some(vec![ERROR_LIMIT_MISMATCH]);
        }
        let has_room = key.holders.len() < key.limit as usize;
        let is_granted = has_room && key.waiters.is_empty()
            || conduct == FaultMode::GrantsTwice && now_and_then && key.waiters.is_empty()
            || conduct == FaultMode::IgnoresLimits && key.limit != limit;
        let is_queued = waiter.header.is_some_and(|header| header[10] == ENQUEUE);
        if is_granted {
            let status = if is_queued { ACQUIRED } else { OK };
            return Some([&[status][..], &self.grant(name, &waiter, conduct)].concat());
        }
        if timeout.is_zero() {
            if conduct == FaultMode::TriesOvertake && !key.waiters.is_empty() {
                // As if it had been free for a moment: somebody must go for that.
                key.waiters.push_front(waiter);
                return None;
            }
            return Some(vec![TIMEOUT]);
        }
        if is_queued {
            waiter.header = None;
        }
        key.waiters.push_back(waiter);
        is_queued.then(|| vec![QUEUED])
    }

    fn wait(&mut self, name: &[u8], connection: usize, header: [u8; HEADER_BYTES]) -> Option<Vec<u8>> {
        let key = self.keys.entry(name.to_vec()).or_default();
        if let Some(holder) = key.holders.iter_mut().find(|it| it.unclaimed && it.connection == connection) {
            holder.unclaimed = false;
            holder.ends = Instant::now() + holder.lease;
            return Some(granted(OK, holder.token, holder.lease));
        }
        let is_place = |it: &&mut FakeWaiter| it.connection == connection && it.header.is_none();
        match key.waiters.iter_mut().find(is_place) {
            Some(place) => place.header = Some(header),
            None => return Some(vec![ERROR_NOT_ENQUEUED]),
        }
        None
    }

    /// What is asked with a token.
    fn hold(
        &mut self,
        name: &[u8],
        operation: u8,
        fields: &mut FakeFields<'_>,
        conduct: FaultMode,
    ) -> Option<Vec<u8>> {
        let token = fields.token();
        let key = self.keys.entry(name.to_vec()).or_default();
        let lost = conduct == FaultMode::LosesLocks && self.asked.is_multiple_of(NOW_AND_THEN);
        let at = key.holders.iter().position(|holder| holder.token == token);
        let Some(at) = at.filter(|_| !lost) else {
            let well = conduct == FaultMode::ReleasesTwice && operation == RELEASE;
            let answer = if well { OK } else { ERROR };
            return Some(vec![answer]);
        };
        if operation == RELEASE {
            key.holders.remove(at);
            return Some(vec![OK]);
        }
        let mut lease = fields.ms();
        if conduct == FaultMode::RenewsForLess {
            lease /= 2;
        }
        if conduct != FaultMode::RenewsNothing {
            key.holders[at].ends = Instant::now() + lease;
        }
        Some([&[OK][..], &milliseconds(lease)].concat())
    }

    /// Has somebody hold the key. Token and lease.
    fn grant(&mut self, name: &[u8], waiter: &FakeWaiter, conduct: FaultMode) -> Vec<u8> {
        self.fence += 1;
        let goes_back = conduct == FaultMode::FenceGoesBack && self.fence.is_multiple_of(NOW_AND_THEN);
        let fence = if goes_back { self.fence - NOW_AND_THEN } else { self.fence };
        let mut token = [7; TOKEN_BYTES];
        token[..8].copy_from_slice(&fence.to_be_bytes());
        let FakeWaiter { connection, lease, header } = *waiter;
        let ends = Instant::now() + if conduct == FaultMode::ExpiresEarly { EARLY.min(lease) } else { lease };
        let unclaimed = header.is_none();
        let key = self.keys.entry(name.to_vec()).or_default();
        key.holders.push(FakeHolder { token, connection, lease, ends, unclaimed });
        granted(OK, token, lease)[1..].to_vec()
    }

    fn grant_waiters(&mut self, name: &[u8], conduct: FaultMode) {
        while let Some(key) = self.keys.get_mut(name).filter(|key| key.holders.len() < key.limit as usize) {
            let last_first = conduct == FaultMode::LastInFirstOut;
            let next = if last_first { key.waiters.pop_back() } else { key.waiters.pop_front() };
            let Some(waiter) = next else { return };
            let grant = self.grant(name, &waiter, conduct);
            if let Some(header) = waiter.header {
                self.answer(waiter.connection, header, &[&[OK][..], &grant].concat(), conduct);
            }
        }
    }

    /// Ends every lease whose time is up.
    fn expire(&mut self, conduct: FaultMode) {
        let now = Instant::now();
        if conduct == FaultMode::NeverExpires {
            return;
        }
        self.end_holds(conduct, |holder| holder.ends <= now);
    }

    fn disconnected(&mut self, connection: usize, conduct: FaultMode) {
        for key in self.keys.values_mut() {
            key.waiters.retain(|waiter| waiter.connection != connection);
        }
        self.end_holds(conduct, |holder| holder.connection == connection);
    }

    fn end_holds(&mut self, conduct: FaultMode, is_over: impl Fn(&FakeHolder) -> bool) {
        for key in self.keys.values_mut() {
            key.holders.retain(|holder| !is_over(holder));
        }
        for name in self.keys.keys().cloned().collect::<Vec<_>>() {
            self.grant_waiters(&name, conduct);
        }
    }

    fn answer(&self, connection: usize, mut header: [u8; HEADER_BYTES], data: &[u8], conduct: FaultMode) {
        header[3] = 1;
        header[4] = 1;
        header[8] ^= u8::from(conduct == FaultMode::MixesUpUids);
        header[12..].copy_from_slice(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
        let mut stream: &TcpStream = &self.connections[connection];
        // It may be closed by now.
        stream.write_all(&[&header[..], data].concat()).ok();
    }
}

impl FakeFields<'_> {
    fn read<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *field
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.read())
    }

    fn ms(&mut self) -> Duration {
        Duration::from_millis(u64::from_be_bytes(self.read()))
    }

    fn token(&mut self) -> [u8; TOKEN_BYTES] {
        self.read()
    }

    fn str(&mut self) -> Vec<u8> {
        let length = usize::from(u16::from_be_bytes(self.read())).min(self.0.len());
        let (field, rest) = self.0.split_at(length);
        self.0 = rest;
        field.to_vec()
    }
}

fn granted(status: u8, token: [u8; TOKEN_BYTES], lease: Duration) -> Vec<u8> {
    [&[status][..], &token, &milliseconds(lease)].concat()
}

fn milliseconds(lease: Duration) -> [u8; 8] {
    u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).to_be_bytes()
}
