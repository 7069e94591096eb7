//! A lock server that is correct, or has a known fault. It speaks frames of class 1, and is written without
//! libdc, so that it has none of libdc's bugs. A wait has no timeout, because no test waits that long.

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

/// A fault that is intermittent happens in one of this many cases.
const INTERMITTENT: u64 = 10;

/// The lease of [`FaultMode::ExpiresEarly`], in place of a longer one.
const EARLY: Duration = Duration::from_millis(300);

/// The fault of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultMode {
    /// Correct behaviour, no fault.
    Honest,
    /// Intermittently grants a key that is held.
    GrantsTwice,
    /// Intermittently, a fence is smaller than the previous one.
    FenceGoesBack,
    /// Grants the last waiter first.
    LastInFirstOut,
    /// An acquire without a wait timeout is granted before the waiters.
    TriesOvertake,
    /// A released token can be released again.
    ReleasesTwice,
    /// Intermittently, a held key cannot be released.
    LosesLocks,
    /// A renewed lease is shorter than requested.
    RenewsForLess,
    /// A renewal is acknowledged and changes nothing.
    RenewsNothing,
    /// A lease expires long before its end.
    ExpiresEarly,
    /// A lease never expires.
    NeverExpires,
    /// Ignores a limit that differs from the holders' limit.
    IgnoresLimits,
    /// An answer carries a wrong uid.
    MixesUpUids,
}

/// A listening server; dropping it stops it.
#[derive(Debug)]
pub struct FakeLockServer {
    address: SocketAddr,
    shared: Arc<FakeLockShared>,
}

#[derive(Debug)]
struct FakeLockShared {
    mode: FaultMode,
    state: Mutex<FakeLockState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct FakeLockState {
    keys: HashMap<Vec<u8>, FakeKey>,
    fence: u64,
    requests: u64,
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
    /// Granted after ENQUEUE, and WAIT has not been received yet.
    unclaimed: bool,
}

#[derive(Debug)]
struct FakeWaiter {
    connection: usize,
    lease: Duration,
    /// Header of the pending request; `None` while only enqueued.
    header: Option<[u8; HEADER_BYTES]>,
}

/// The fields of a request, read in order. A missing field is 0; no test sends such a request.
struct FakeFields<'a>(&'a [u8]);

impl FakeLockServer {
    /// Starts a server on a free port.
    #[must_use]
    pub fn start(mode: FaultMode) -> Self {
        let listener = TcpListener::bind((own_loopback(), 0)).expect("a port");
        let address = listener.local_addr().expect("the address of a listener");
        let state = FakeLockState { fence: 1000, ..FakeLockState::default() };
        let shared = Arc::new(FakeLockShared { mode, state: Mutex::new(state), changed: Condvar::new() });
        let (accepting, expiring) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || accepting.accept(&listener));
        thread::spawn(move || expiring.expire());
        Self { address, shared }
    }

    /// The TCP address it listens on.
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
            // It may be closed already.
            stream.shutdown(Shutdown::Both).ok();
        }
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the accepting thread, which then ends.
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
                // An error of a connection does not end the server.
                serving.serve(&stream, connection).ok();
                serving.lock().disconnected(connection, serving.mode);
            });
        }
    }

    fn serve(&self, mut stream: &TcpStream, connection: usize) -> io::Result<()> {
        loop {
            let mut header = [0; HEADER_BYTES];
            stream.read_exact(&mut header)?;
            assert_eq!((header[9], header[11]), (LOCK_CLASS, 1), "a lock request in one frame");
            let mut data = vec![0; usize::from(u16::from_be_bytes([header[12], header[13]]))];
            stream.read_exact(&mut data)?;
            let mut state = self.lock();
            state.handle(connection, header, &data, self.mode);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Expires leases as they end, in a thread.
    fn expire(&self) {
        let mut state = self.lock();
        while !state.ended {
            state.expire(self.mode);
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
    fn handle(&mut self, connection: usize, header: [u8; HEADER_BYTES], data: &[u8], mode: FaultMode) {
        self.expire(mode);
        self.requests += 1;
        let mut fields = FakeFields(&data[8..]);
        let name = fields.str();
        let answer = match header[10] {
            operation @ (ACQUIRE | ENQUEUE) => {
                let limit = fields.u32();
                let timeout = if operation == ACQUIRE { fields.ms() } else { Duration::MAX };
                let lease = fields.ms();
                self.ask(&name, limit, timeout, FakeWaiter { connection, lease, header: Some(header) }, mode)
            }
            WAIT => self.wait(&name, connection, header),
            operation => self.hold(&name, operation, &mut fields, mode),
        };
        if let Some(answer) = answer {
            self.answer(connection, header, &answer, mode);
        }
        self.grant_waiters(&name, mode);
    }

    fn ask(
        &mut self,
        name: &[u8],
        limit: u32,
        timeout: Duration,
        mut waiter: FakeWaiter,
        mode: FaultMode,
    ) -> Option<Vec<u8>> {
        let intermittent = self.requests.is_multiple_of(INTERMITTENT);
        let key = self.keys.entry(name.to_vec()).or_default();
        if key.holders.is_empty() && key.waiters.is_empty() {
            key.limit = limit;
        } else if key.limit != limit && mode != FaultMode::IgnoresLimits {
            return Some(vec![ERROR_LIMIT_MISMATCH]);
        }
        let has_room = key.holders.len() < key.limit as usize;
        let is_granted = has_room && key.waiters.is_empty()
            || mode == FaultMode::GrantsTwice && intermittent && key.waiters.is_empty()
            || mode == FaultMode::IgnoresLimits && key.limit != limit;
        let is_queued = waiter.header.is_some_and(|header| header[10] == ENQUEUE);
        if is_granted {
            let status = if is_queued { ACQUIRED } else { OK };
            return Some([&[status][..], &self.grant(name, &waiter, mode)].concat());
        }
        if timeout.is_zero() {
            if mode == FaultMode::TriesOvertake && !key.waiters.is_empty() {
                // As if the key had been free for a moment and granted to this request.
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
        let is_enqueued = |it: &&mut FakeWaiter| it.connection == connection && it.header.is_none();
        match key.waiters.iter_mut().find(is_enqueued) {
            Some(waiter) => waiter.header = Some(header),
            None => return Some(vec![ERROR_NOT_ENQUEUED]),
        }
        None
    }

    /// Handles RELEASE and RENEW, which carry a token.
    fn hold(
        &mut self,
        name: &[u8],
        operation: u8,
        fields: &mut FakeFields<'_>,
        mode: FaultMode,
    ) -> Option<Vec<u8>> {
        let token = fields.token();
        let key = self.keys.entry(name.to_vec()).or_default();
        let lost = mode == FaultMode::LosesLocks && self.requests.is_multiple_of(INTERMITTENT);
        let at = key.holders.iter().position(|holder| holder.token == token);
        let Some(at) = at.filter(|_| !lost) else {
            let released = mode == FaultMode::ReleasesTwice && operation == RELEASE;
            let answer = if released { OK } else { ERROR };
            return Some(vec![answer]);
        };
        if operation == RELEASE {
            key.holders.remove(at);
            return Some(vec![OK]);
        }
        let mut lease = fields.ms();
        if mode == FaultMode::RenewsForLess {
            lease /= 2;
        }
        if mode != FaultMode::RenewsNothing {
            key.holders[at].ends = Instant::now() + lease;
        }
        Some([&[OK][..], &milliseconds(lease)].concat())
    }

    /// Makes the waiter a holder. Returns token and lease.
    fn grant(&mut self, name: &[u8], waiter: &FakeWaiter, mode: FaultMode) -> Vec<u8> {
        self.fence += 1;
        let goes_back = mode == FaultMode::FenceGoesBack && self.fence.is_multiple_of(INTERMITTENT);
        let fence = if goes_back { self.fence - INTERMITTENT } else { self.fence };
        let mut token = [7; TOKEN_BYTES];
        token[..8].copy_from_slice(&fence.to_be_bytes());
        let FakeWaiter { connection, lease, header } = *waiter;
        let ends = Instant::now() + if mode == FaultMode::ExpiresEarly { EARLY.min(lease) } else { lease };
        let unclaimed = header.is_none();
        let key = self.keys.entry(name.to_vec()).or_default();
        key.holders.push(FakeHolder { token, connection, lease, ends, unclaimed });
        granted(OK, token, lease)[1..].to_vec()
    }

    fn grant_waiters(&mut self, name: &[u8], mode: FaultMode) {
        while let Some(key) = self.keys.get_mut(name).filter(|key| key.holders.len() < key.limit as usize) {
            let last_first = mode == FaultMode::LastInFirstOut;
            let next = if last_first { key.waiters.pop_back() } else { key.waiters.pop_front() };
            let Some(waiter) = next else { return };
            let grant = self.grant(name, &waiter, mode);
            if let Some(header) = waiter.header {
                self.answer(waiter.connection, header, &[&[OK][..], &grant].concat(), mode);
            }
        }
    }

    /// Removes every lease that has expired.
    fn expire(&mut self, mode: FaultMode) {
        let now = Instant::now();
        if mode == FaultMode::NeverExpires {
            return;
        }
        self.remove_holders(mode, |holder| holder.ends <= now);
    }

    fn disconnected(&mut self, connection: usize, mode: FaultMode) {
        for key in self.keys.values_mut() {
            key.waiters.retain(|waiter| waiter.connection != connection);
        }
        self.remove_holders(mode, |holder| holder.connection == connection);
    }

    fn remove_holders(&mut self, mode: FaultMode, is_over: impl Fn(&FakeHolder) -> bool) {
        for key in self.keys.values_mut() {
            key.holders.retain(|holder| !is_over(holder));
        }
        for name in self.keys.keys().cloned().collect::<Vec<_>>() {
            self.grant_waiters(&name, mode);
        }
    }

    fn answer(&self, connection: usize, mut header: [u8; HEADER_BYTES], data: &[u8], mode: FaultMode) {
        header[3] = 1;
        header[4] = 1;
        header[8] ^= u8::from(mode == FaultMode::MixesUpUids);
        header[12..].copy_from_slice(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
        let mut stream: &TcpStream = &self.connections[connection];
        // It may be closed already.
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
