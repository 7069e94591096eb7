//! A network between two peers, with faults: delayed bytes, connections cut or half closed.

use crate::harness::loopback::own_loopback;
use crate::harness::patience::PATIENCE;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The direction in which bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayWay {
    /// From the connecting peer to the server.
    Up,
    /// From the server to the connecting peer.
    Down,
}

/// Relays connections to a server; dropping it closes them all.
#[derive(Debug)]
pub struct TestRelay {
    address: SocketAddr,
    shared: Arc<RelayShared>,
}

#[derive(Debug)]
struct RelayShared {
    upstream: SocketAddr,
    state: Mutex<RelayState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct RelayState {
    up: RelayLane,
    down: RelayLane,
    connections: Vec<RelayPair>,
    accepted: usize,
    refuses: bool,
    ended: bool,
}

#[derive(Debug, Default)]
struct RelayLane {
    held: bool,
    /// Bytes received and not forwarded yet.
    waiting: usize,
}

#[derive(Debug)]
struct RelayPair {
    near: TcpStream,
    far: TcpStream,
}

impl TestRelay {
    /// Starts a relay to the server at `upstream`, which need not listen yet.
    #[must_use]
    pub fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((own_loopback(), 0)).expect("a port");
        let address = listener.local_addr().expect("the address of a listener");
        let shared = Arc::new(RelayShared { upstream, state: Mutex::default(), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        Self { address, shared }
    }

    /// The address that peers connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts delaying bytes that travel in direction `way`.
    pub fn hold(&self, way: RelayWay) {
        self.shared.lock().lane(way).held = true;
    }

    /// Waits until `count` bytes in direction `way` are delayed.
    pub fn wait_until_held(&self, way: RelayWay, count: usize) {
        self.shared.wait(&format!("{count} delayed bytes"), |state| state.lane(way).waiting >= count);
    }

    /// Forwards the delayed bytes, and further ones at once.
    pub fn release(&self, way: RelayWay) {
        self.shared.lock().lane(way).held = false;
        self.shared.changed.notify_all();
    }

    /// Closes every connection on both sides. Delayed bytes are lost.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Closes every connection, and from now on each new one at once.
    pub fn refuse(&self) {
        self.shared.lock().refuses = true;
        self.shared.cut();
    }

    /// Relays new connections again after [`refuse`](Self::refuse).
    pub fn accept_again(&self) {
        self.shared.lock().refuses = false;
    }

    /// Signals end of input in direction `way` on every connection.
    pub fn half_close(&self, way: RelayWay) {
        for pair in &self.shared.lock().connections {
            let receiver = if way == RelayWay::Up { &pair.far } else { &pair.near };
            // The connection may be closed already.
            receiver.shutdown(Shutdown::Write).ok();
        }
    }

    /// Waits until `count` connections have been made through the relay since its start.
    pub fn wait_for_connections(&self, count: usize) {
        self.shared.wait(&format!("connection {count}"), |state| state.accepted >= count);
    }
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.cut();
        // Wakes the accepting thread, which then ends.
        TcpStream::connect(self.address).ok();
    }
}

impl RelayShared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for near in listener.incoming() {
            if self.lock().ended {
                return;
            }
            let near = near.expect("a connection");
            if self.lock().refuses {
                continue;
            }
            // An unreachable server closes the connection.
            if let Ok(far) = TcpStream::connect(self.upstream) {
                self.join(near, far);
            }
        }
    }

    fn join(self: &Arc<Self>, near: TcpStream, far: TcpStream) {
        let duplicate = |stream: &TcpStream| stream.try_clone().expect("a second descriptor of a socket");
        near.set_nodelay(true).expect("an option of a socket");
        far.set_nodelay(true).expect("an option of a socket");
        let pair = RelayPair { near: duplicate(&near), far: duplicate(&far) };
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        let (near_again, far_again) = (duplicate(&near), duplicate(&far));
        thread::spawn(move || up.pump(RelayWay::Up, near, far));
        thread::spawn(move || down.pump(RelayWay::Down, far_again, near_again));
        let mut state = self.lock();
        state.connections.push(pair);
        state.accepted += 1;
        drop(state);
        self.changed.notify_all();
    }

    fn pump(&self, way: RelayWay, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 65_536];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let mut state = self.lock();
            state.lane(way).waiting += count;
            self.changed.notify_all();
            while state.lane(way).held && !state.ended {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.lane(way).waiting -= count;
            drop(state);
            if to.write_all(&bytes[..count]).is_err() {
                // The receiver is gone: close the sender's side too.
                from.shutdown(Shutdown::Both).ok();
                return;
            }
        }
        // It may be closed already.
        to.shutdown(Shutdown::Write).ok();
    }

    fn cut(&self) {
        for pair in self.lock().connections.drain(..) {
            // Either end may be closed already.
            pair.near.shutdown(Shutdown::Both).ok();
            pair.far.shutdown(Shutdown::Both).ok();
        }
        self.changed.notify_all();
    }

    fn wait(&self, what: &str, mut reached: impl FnMut(&mut RelayState) -> bool) {
        let waiting = self.changed.wait_timeout_while(self.lock(), PATIENCE, |state| !reached(state));
        let timed_out = waiting.map_or(true, |(_, waited)| waited.timed_out());
        assert!(!timed_out, "{what} did not happen within {PATIENCE:?}");
    }

    fn lock(&self) -> MutexGuard<'_, RelayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RelayState {
    const fn lane(&mut self, way: RelayWay) -> &mut RelayLane {
        match way {
            RelayWay::Up => &mut self.up,
            RelayWay::Down => &mut self.down,
        }
    }
}
