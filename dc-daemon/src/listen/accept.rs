//! Accepting connections, no more at a time than a limit that can be changed meanwhile, and what to do when the system has no more
//! to give.
//!
//! ```no_run
//! # use dc_daemon::listen::accept::ThrottledListener;
//! # use libdc::net::places::{ConnectionLimits, Places};
//! # use std::sync::Arc;
//! # async fn example(listener: dc_daemon::listen::Listener) -> std::io::Result<()> {
//! let limits = ConnectionLimits { throttle: 1000, ..ConnectionLimits::default() };
//! let places = Arc::new(Places::new(limits));
//! let listener = ThrottledListener::new(listener, Arc::clone(&places))?;
//! let (socket, place) = listener.accept().await;
//! // From anywhere, at any time: 10 connections at most.
//! let free = places.set_limit(10);
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

/// How long to wait when there is no descriptor or memory for a connection, unless one ends before.
const PAUSE: Duration = Duration::from_millis(100);
/// Shortest time between two lines of the log about that.
const QUIET: Duration = Duration::from_secs(10);

/// Takes the connections of one listener while there is a place for them. Several that share their [`ConnectionLimiter`] share the limit.
///
/// The limit holds to the connection where those that share it run on one thread; on several each may be one beyond it.
#[derive(Debug)]
pub struct ThrottledListener {
    listener: TokioListener,
    _file: Option<OwnedFile>,
    name: String,
    /// Another process may have it, too.
    was_passed: bool,
    places: Arc<ConnectionLimiter>,
    shortage: Mutex<AcceptPause>,
}

impl ThrottledListener {
    /// Takes the connections of `listener`, in the runtime that this is called in. The file of a Unix socket is removed when this
    /// is dropped, unless it was taken out of the listener before.
    ///
    /// # Errors
    /// If the listener can't be registered with the runtime.
    pub fn new(listener: Listener, places: Arc<ConnectionLimiter>) -> io::Result<Self> {
        let name = listener.actual_address().to_string();
        let was_passed = matches!(listener.address(), Address::Descriptor(_));
        let (socket, file) = listener.into_parts();
        let listener = TokioListener::new(socket)?;
        Ok(Self { listener, _file: file, name, was_passed, places, shortage: Mutex::default() })
    }

    /// From now on new connections wait while there are `limit` of them; 0 is no limit. Returns how many places are
    /// free now; `usize::MAX` if there is no limit. This is [`ConnectionLimiter::set_limit`], and so it is for all listeners that share
    /// the places.
    ///
    /// A higher limit lets in at once who waits. A lower one closes no connection: new ones wait until enough have ended.
    pub fn set_limit(&self, limit: usize) -> usize {
        self.places.set_limit(limit)
    }

    /// The next connection, with its place. Cancel-safe: a connection that is not returned is still
    /// in the system's queue.
    pub async fn accept(&self) -> (Socket, ConnectionPermit) {
        loop {
            self.places.room().await;
            if self.places.is_exhausted() {
                self.shortage().log(&self.name, &"all the descriptors for connections are in use");
                self.pause().await;
                continue;
            }
            // Looked at when a connection is there: another listener took the last place, or the limit was lowered.
            let filled = poll_fn(|_| if self.has_capacity() { Poll::Pending } else { Poll::Ready(()) });
            let in_shortage = self.shortage().told;
            let accepted = tokio::select! {
                biased;
                () = filled => continue,
                accepted = self.listener.accept() => accepted,
                // Nobody is left waiting.
                () = ready(()), if in_shortage => {
                    self.shortage().recovered(&self.name);
                    continue;
                }
            };
            match accepted {
                Ok(_) if self.places.is_over() => {
                    debug!("a connection beyond -max-connections was closed");
                }
                Ok(socket) => return (socket, self.places.acquire()),
                Err(error) if is_exhaustion(&error) => {
                    self.shortage().log(&self.name, &error);
                    self.pause().await;
                }
                // The peer left before it was accepted, or the network failed: nothing of ours.
                Err(error) => debug!(listener = self.name, %error, "a connection was not made"),
            }
        }
    }

    /// Has every connection served until `closing` is cancelled, and closes the listener then. Those who wait to be accepted by
    /// that time are served, too, as far as there is room: they know of nothing, and would see their connections reset. The
    /// queue of a socket that was passed is left to the process that has it next.
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
        // Others may come as quickly as these are taken.
        for _ in 0..BACKLOG {
            if self.places.is_full() || self.places.is_exhausted() || self.places.is_over() {
                break;
            }
            match accept_now(&listener) {
                Ok(socket) => last.push((socket, self.places.acquire())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_exhaustion(&error) => break,
                // It left before it was accepted.
                Err(_) => {}
            }
        }
        last
    }

    fn has_capacity(&self) -> bool {
        !self.places.is_full() && !self.places.is_exhausted()
    }

    fn shortage(&self) -> MutexGuard<'_, AcceptPause> {
        // What a panic left of it is two values that are each good.
        self.shortage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pause(&self) {
        tokio::select! {
            () = self.places.changed() => {}
            () = sleep(PAUSE) => {}
        }
    }
}

/// A time without descriptors or memory for new connections: one line when it begins, one when nobody waits any
/// more, and peace for a while if it comes again at once.
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
        warn!(listener, %reason, "can't accept; new connections wait");
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

    /// Cancel-safe.
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

/// Accepts a connection that waits. The runtime is not asked: it may not know of it yet.
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

/// Whether there is too little of something that may come back: descriptors or memory.
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
    async fn a_listener_is_called_as_it_can_be_reached() {
        let address = "IP:127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(&address, &SocketPermissions::default()).unwrap();
        let reached = listener.local_address().unwrap();
        let listener = ThrottledListener::new(listener, limited(0)).unwrap();
        assert_eq!(listener.name, format!("IP:{reached}"));
    }

    /// A listener on a path of its own.
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

        /// Accepts in a task of its own.
        fn waits(&self) -> JoinHandle<(Socket, ConnectionPermit)> {
            let listener = Arc::clone(&self.listener);
            tokio::spawn(async move { listener.accept().await })
        }
    }

    fn limited(throttle: usize) -> Arc<ConnectionLimiter> {
        Arc::new(ConnectionLimiter::new(ConnectionLimits { throttle, ..ConnectionLimits::default() }))
    }

    /// What happens at once, or else not at all: the clock stands still while something does.
    async fn soon<T>(event: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(1), event).await.unwrap()
    }

    /// Every task learns of the connections made before this, and has its turn. One that is still not done waits.
    async fn run_until_idle() {
        // The runtime has to ask the system for this one, and is told of the others with it.
        let other = Door::open(&limited(0));
        let _peer = other.knock();
        other.enter().await;
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_beyond_the_limit_waits_for_one_to_end() {
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
    async fn a_higher_limit_lets_in_who_waits() {
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
    async fn a_lower_limit_closes_none_and_waits_for_them_to_end() {
        let places = limited(3);
        let door = Door::open(&places);
        let mut peers = vec![door.knock(), door.knock()];
        let (first, second) = (door.enter().await, door.enter().await);
        let third = door.waits();
        run_until_idle().await;
        // It is in the midst of accepting when the limit changes.
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
    async fn listeners_that_share_their_places_share_the_limit() {
        let places = limited(1);
        let (front, back) = (Door::open(&places), Door::open(&places));
        // Both are in the midst of accepting.
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
    async fn a_connection_beyond_the_most_is_closed_at_once() {
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
    async fn at_the_end_those_who_wait_are_taken_as_far_as_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        for (throttle, room) in [(0, 3), (2, 2)] {
            let listener = ThrottledListener::new(listening_on(&path), limited(throttle)).unwrap();
            let mut peers = [(); 3].map(|()| UnixStream::connect(&path).unwrap());
            let mut last = listener.finish();
            assert_eq!(last.len(), room);
            // Each is served as any other.
            let Socket::Unix(first) = &mut last[0].0 else { panic!("not a Unix socket") };
            tokio::io::AsyncWriteExt::write_all(first, b"x").await.unwrap();
            std::io::Read::read_exact(&mut peers[0], &mut [0]).unwrap();
            assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[tokio::test]
    async fn who_waits_at_a_passed_socket_is_left_to_the_next_process() {
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
