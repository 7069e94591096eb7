//! Accepting connections up to a limit that can change at run time, and recovery when the system runs out of
//! resources.
//!
//! ```no_run
//! # use dc_daemon::listen::accept::ThrottledListener;
//! # use dc_daemon::listen::limiter::{ConnectionLimiter, ConnectionLimits};
//! # use std::sync::Arc;
//! # async fn example(listener: dc_daemon::listen::Listener) -> std::io::Result<()> {
//! let limits = ConnectionLimits { throttle: 1000, ..ConnectionLimits::default() };
//! let limiter = Arc::new(ConnectionLimiter::new(limits));
//! let listener = ThrottledListener::new(listener, Arc::clone(&limiter))?;
//! let (socket, permit) = listener.accept().await;
//! // From any task, at any time: at most 10 connections.
//! let free = limiter.set_limit(10);
//! # Ok(()) }
//! ```
//!
//! Nothing here panics.

use crate::file::OwnedFile;
use crate::listen::limiter::{ConnectionLimiter, ConnectionPermit};
use crate::listen::stream_socket::BACKLOG;
use crate::listen::{Listener, ListenerSocket};
use libdc::net::address::Address;
use libdc::net::socket::{Socket, prepare_tcp};
use std::fmt::Display;
use std::future::{poll_fn, ready};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// The pause without a descriptor or memory for a connection; it ends early when a connection closes.
const PAUSE: Duration = Duration::from_millis(100);
/// The minimum time between two log lines about that.
const QUIET: Duration = Duration::from_secs(10);

/// Accepts the connections of one listener while the limit permits. Listeners that share a
/// [`ConnectionLimiter`] share the limit.
///
/// The limit is exact if the listeners that share it run on one thread; with several threads each may exceed
/// it by one connection.
#[derive(Debug)]
pub struct ThrottledListener {
    listener: TokioListener,
    _file: Option<OwnedFile>,
    name: String,
    /// Whether another process may share the socket.
    was_passed: bool,
    places: Arc<ConnectionLimiter>,
    shortage: Mutex<AcceptPause>,
}

impl ThrottledListener {
    /// Accepts the connections of `listener`, in the current runtime. The file of a Unix socket is removed on
    /// drop, unless it was taken out of the listener before.
    ///
    /// # Errors
    /// The listener cannot be registered with the runtime.
    pub fn new(listener: Listener, places: Arc<ConnectionLimiter>) -> io::Result<Self> {
        let name = listener.actual_address().to_string();
        let was_passed = matches!(listener.address(), Address::Descriptor(_));
        let (socket, file) = listener.into_parts();
        let listener = TokioListener::new(socket)?;
        Ok(Self { listener, _file: file, name, was_passed, places, shortage: Mutex::default() })
    }

    /// Changes the limit above which new connections wait; 0 is no limit. Returns the number of free permits;
    /// `usize::MAX` without a limit. This is [`ConnectionLimiter::set_limit`], so it applies to all listeners
    /// that share the limiter.
    ///
    /// A higher limit admits waiting connections at once. A lower limit closes no connection: new ones wait
    /// until enough have closed.
    pub fn set_limit(&self, limit: usize) -> usize {
        self.places.set_limit(limit)
    }

    /// Accepts the next connection, with its permit. Cancel-safe: a connection that is not returned stays in
    /// the queue of the kernel.
    pub async fn accept(&self) -> (Socket, ConnectionPermit) {
        loop {
            self.places.room().await;
            if self.places.is_exhausted() {
                self.shortage().log(&self.name, &"all descriptors for connections are in use");
                self.pause().await;
                continue;
            }
            // Checked when a connection is ready: another listener may have taken the last permit, or the
            // limit was lowered.
            let filled = poll_fn(|_| if self.has_capacity() { Poll::Pending } else { Poll::Ready(()) });
            let in_shortage = self.shortage().told;
            let accepted = tokio::select! {
                biased;
                () = filled => continue,
                accepted = self.listener.accept() => accepted,
                // No connection is waiting any more.
                () = ready(()), if in_shortage => {
                    self.shortage().recovered(&self.name);
                    continue;
                }
            };
            match accepted {
                Ok(_) if self.places.is_over() => {
                    debug!("closed a connection beyond -max-connections");
                }
                Ok(socket) => return (socket, self.places.acquire()),
                Err(error) if is_exhaustion(&error) => {
                    self.shortage().log(&self.name, &error);
                    self.pause().await;
                }
                // The peer disconnected before the accept, or the network failed: not a local error.
                Err(error) => debug!(listener = self.name, %error, "cannot accept a connection"),
            }
        }
    }

    /// Serves every connection until `closing` is cancelled, and then closes the listener. Connections
    /// already in the accept queue are served too, up to the limit; closing the socket would reset them. The
    /// queue of a passed socket is left to the next process that holds it.
    pub async fn serve_until(
        self,
        closing: &CancellationToken,
        mut serve: impl FnMut(Socket, ConnectionPermit),
    ) {
        while let Some((socket, place)) = closing.run_until_cancelled(self.accept()).await {
            serve(socket, place);
        }
        for (socket, place) in self.finish() {
            serve(socket, place);
        }
    }

    fn finish(self) -> Vec<(Socket, ConnectionPermit)> {
        let mut last = Vec::new();
        if self.was_passed {
            return last;
        }
        let Ok(listener) = self.listener.into_std() else { return last };
        // New connections may arrive as fast as these are accepted.
        for _ in 0..BACKLOG {
            if self.places.is_full() || self.places.is_exhausted() || self.places.is_over() {
                break;
            }
            match accept_now(&listener) {
                Ok(socket) => last.push((socket, self.places.acquire())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_exhaustion(&error) => break,
                // The peer disconnected before the accept.
                Err(_) => {}
            }
        }
        last
    }

    fn has_capacity(&self) -> bool {
        !self.places.is_full() && !self.places.is_exhausted()
    }

    fn shortage(&self) -> MutexGuard<'_, AcceptPause> {
        // Valid after a panic: both fields are valid on their own.
        self.shortage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pause(&self) {
        tokio::select! {
            () = self.places.changed() => {}
            () = sleep(PAUSE) => {}
        }
    }
}

/// A period without descriptors or memory for new connections: one log line when it begins, one when no
/// connection waits any more, and no repetition for [`QUIET`].
#[derive(Debug, Default)]
struct AcceptPause {
    told: bool,
    quiet_until: Option<Instant>,
}

impl AcceptPause {
    fn log(&mut self, listener: &str, reason: &dyn Display) {
        let now = Instant::now();
        if self.told || self.quiet_until.is_some_and(|until| now < until) {
            return;
        }
        warn!(listener, %reason, "cannot accept; new connections wait");
        *self = Self { told: true, quiet_until: Some(now + QUIET) };
    }

    fn recovered(&mut self, listener: &str) {
        info!(listener, "accepting again");
        self.told = false;
    }
}

#[derive(Debug)]
enum TokioListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl TokioListener {
    fn new(listener: ListenerSocket) -> io::Result<Self> {
        Ok(match listener {
            ListenerSocket::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            ListenerSocket::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    fn into_std(self) -> io::Result<ListenerSocket> {
        Ok(match self {
            Self::Tcp(listener) => ListenerSocket::Tcp(listener.into_std()?),
            Self::Unix(listener) => ListenerSocket::Unix(listener.into_std()?),
        })
    }

    /// Accepts a connection. Cancel-safe.
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                prepare_tcp(&stream)?;
                Ok(Socket::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

/// Accepts a waiting connection directly, since the runtime may not have been notified of it yet.
fn accept_now(listener: &ListenerSocket) -> io::Result<Socket> {
    match listener {
        ListenerSocket::Tcp(listener) => {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(true)?;
            let stream = TcpStream::from_std(stream)?;
            prepare_tcp(&stream)?;
            Ok(Socket::Tcp(stream))
        }
        ListenerSocket::Unix(listener) => {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(true)?;
            Ok(Socket::Unix(UnixStream::from_std(stream)?))
        }
    }
}

/// Whether a resource is exhausted that may become available again: descriptors or memory.
fn is_exhaustion(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::SocketPermissions;
    use crate::listen::limiter::ConnectionLimits;
    use libdc::net::address::SocketPath;
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;
    use tempfile::TempDir;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    #[tokio::test]
    async fn listener_name_is_its_actual_address() {
        let address = "IP:127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(&address, &SocketPermissions::default()).unwrap();
        let reached = listener.local_address().unwrap();
        let listener = ThrottledListener::new(listener, limited(0)).unwrap();
        assert_eq!(listener.name, format!("IP:{reached}"));
    }

    /// A listener in a temporary directory.
    struct Door {
        listener: Arc<ThrottledListener>,
        path: PathBuf,
        _directory: TempDir,
    }

    impl Door {
        fn open(places: &Arc<ConnectionLimiter>) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("door");
            let address = Address::from(SocketPath::new(&path).unwrap());
            let listener = Listener::bind(&address, &SocketPermissions::default()).unwrap();
            let listener = Arc::new(ThrottledListener::new(listener, Arc::clone(places)).unwrap());
            Self { listener, path, _directory: directory }
        }

        fn knock(&self) -> UnixStream {
            UnixStream::connect(&self.path).unwrap()
        }

        async fn enter(&self) -> (Socket, ConnectionPermit) {
            soon(self.listener.accept()).await
        }

        /// Accepts in a separate task.
        fn waits(&self) -> JoinHandle<(Socket, ConnectionPermit)> {
            let listener = Arc::clone(&self.listener);
            tokio::spawn(async move { listener.accept().await })
        }
    }

    fn limited(throttle: usize) -> Arc<ConnectionLimiter> {
        Arc::new(ConnectionLimiter::new(ConnectionLimits { throttle, ..ConnectionLimits::default() }))
    }

    /// The result of `event`, which must happen without waiting: the paused clock advances only when every
    /// task is idle.
    async fn soon<T>(event: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(1), event).await.unwrap()
    }

    /// Polls every task that is ready, including for connections made before this call. An unfinished task is
    /// then waiting.
    async fn run_until_idle() {
        // Accepting this connection makes the runtime poll the kernel, which reports the other connections
        // too.
        let other = Door::open(&limited(0));
        let _peer = other.knock();
        other.enter().await;
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_connection_waits_for_a_close() {
        let door = Door::open(&limited(1));
        let _peers = (door.knock(), door.knock());
        let first = door.enter().await;
        let second = door.waits();
        run_until_idle().await;
        assert!(!second.is_finished());
        drop(first);
        soon(second).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn raised_limit_admits_waiting_connections() {
        let door = Door::open(&limited(1));
        let _peers = [door.knock(), door.knock(), door.knock()];
        let _first = door.enter().await;
        let second = door.waits();
        run_until_idle().await;
        assert_eq!(door.listener.set_limit(2), 1);
        let _second = soon(second).await.unwrap();
        let third = door.waits();
        run_until_idle().await;
        assert!(!third.is_finished());
        assert_eq!(door.listener.set_limit(0), usize::MAX);
        soon(third).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn lowered_limit_closes_no_connection() {
        let places = limited(3);
        let door = Door::open(&places);
        let mut peers = vec![door.knock(), door.knock()];
        let (first, second) = (door.enter().await, door.enter().await);
        let third = door.waits();
        run_until_idle().await;
        // The limit changes while an accept is pending.
        assert_eq!(door.listener.set_limit(1), 0);
        peers.push(door.knock());
        run_until_idle().await;
        assert_eq!((places.taken(), places.limit()), (2, 1));
        drop(first);
        run_until_idle().await;
        assert!(!third.is_finished());
        peers[1].set_nonblocking(true).unwrap();
        let open = std::io::Read::read(&mut peers[1], &mut [0]).unwrap_err();
        assert_eq!(open.kind(), io::ErrorKind::WouldBlock);
        drop(second);
        soon(third).await.unwrap();
        assert_eq!(door.listener.set_limit(5), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn listeners_with_one_limiter_share_the_limit() {
        let places = limited(1);
        let (front, back) = (Door::open(&places), Door::open(&places));
        // Both accepts are pending.
        let (at_front, at_back) = (front.waits(), back.waits());
        run_until_idle().await;
        let _peers = (front.knock(), back.knock());
        run_until_idle().await;
        assert_eq!(places.taken(), 1);
        let (inside, waiting) =
            if at_front.is_finished() { (at_front, at_back) } else { (at_back, at_front) };
        let inside = soon(inside).await.unwrap();
        run_until_idle().await;
        assert!(!waiting.is_finished());
        assert_eq!(front.listener.set_limit(1), 0);
        drop(inside);
        soon(waiting).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn connection_beyond_max_connections_is_closed() {
        let places = Arc::new(ConnectionLimiter::new(ConnectionLimits {
            max_connections: 1,
            ..ConnectionLimits::default()
        }));
        let door = Door::open(&places);
        let _first_peer = door.knock();
        let first = door.enter().await;
        let mut beyond = door.knock();
        let next = door.waits();
        run_until_idle().await;
        assert_eq!(std::io::Read::read(&mut beyond, &mut [0]).unwrap(), 0);
        drop(first);
        let _peer = door.knock();
        soon(next).await.unwrap();
    }

    fn listening_on(path: &std::path::Path) -> Listener {
        let address = Address::from(SocketPath::new(path).unwrap());
        Listener::bind(&address, &SocketPermissions::default()).unwrap()
    }

    #[tokio::test]
    async fn closing_serves_queued_connections_up_to_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        for (throttle, room) in [(0, 3), (2, 2)] {
            let listener = ThrottledListener::new(listening_on(&path), limited(throttle)).unwrap();
            let mut peers = [(); 3].map(|()| UnixStream::connect(&path).unwrap());
            let mut last = listener.finish();
            assert_eq!(last.len(), room);
            // It is served like any other connection.
            let Socket::Unix(first) = &mut last[0].0 else { panic!("not a Unix socket") };
            tokio::io::AsyncWriteExt::write_all(first, b"x").await.unwrap();
            std::io::Read::read_exact(&mut peers[0], &mut [0]).unwrap();
            assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[tokio::test]
    async fn closing_leaves_the_queue_of_a_passed_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        let (socket, _file) = listening_on(&path).into_parts();
        let ListenerSocket::Unix(socket) = socket else { panic!("not a Unix socket") };
        let passed = nix::unistd::dup(&socket).unwrap();
        let address = Address::Descriptor(std::os::fd::AsRawFd::as_raw_fd(&passed));
        let listener = Listener::bind(&address, &SocketPermissions::default()).unwrap();
        std::mem::forget(passed);
        let listener = ThrottledListener::new(listener, limited(0)).unwrap();
        let _peer = UnixStream::connect(&path).unwrap();
        assert!(listener.finish().is_empty());
        socket.accept().unwrap();
    }
}
