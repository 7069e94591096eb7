//! Accepting connections: the limits on their number, and what to do when the system has no more to give.

use crate::file::OwnFile;
use crate::net::listen::{Listener, ListenerSocket};
use crate::net::places::{Place, Places};
use crate::net::socket::{Socket, prepare_tcp};
use std::fmt::Display;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

/// How long to wait when there is no descriptor or memory for a connection, unless one ends before.
const PAUSE: Duration = Duration::from_millis(100);
/// Shortest time between two lines of the log about that.
const QUIET: Duration = Duration::from_secs(10);

/// How many connections there may be. 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionLimits {
    /// A connection beyond this is accepted and closed at once.
    pub max_connections: usize,
    /// While there are this many, new ones wait in the system's queue.
    pub throttle: usize,
    /// The same, for as many as there are descriptors besides those that the program needs for itself.
    pub descriptors: usize,
}

/// Takes the connections of one listener.
#[derive(Debug)]
pub struct Acceptor {
    listener: RuntimeListener,
    _file: Option<OwnFile>,
    name: String,
    limits: ConnectionLimits,
    places: Arc<Places>,
    shortage: Shortage,
}

impl Acceptor {
    /// An acceptor in the runtime that this is called in. The file of a Unix socket is removed when the
    /// acceptor is dropped, unless it was taken out of the listener before.
    ///
    /// # Errors
    /// If the listener can't be registered with the runtime.
    pub fn new(listener: Listener, limits: ConnectionLimits, places: Arc<Places>) -> io::Result<Self> {
        let name = listener.address().to_string();
        let (socket, file) = listener.into_parts();
        let listener = RuntimeListener::new(socket)?;
        Ok(Self { listener, _file: file, name, limits, places, shortage: Shortage::default() })
    }

    /// The next connection, with its place. Cancel-safe: a connection that is not returned is still
    /// in the system's queue.
    pub async fn accept(&mut self) -> (Socket, Place) {
        loop {
            let ConnectionLimits { max_connections, throttle, descriptors } = self.limits;
            if throttle > 0 {
                self.places.below(throttle).await;
            }
            if descriptors > 0 && self.places.taken() >= descriptors {
                self.shortage.tell(&self.name, &"all the descriptors for connections are in use");
                self.pause().await;
                continue;
            }
            let accepted = tokio::select! {
                biased;
                accepted = self.listener.accept() => accepted,
                // Nobody is left waiting.
                () = ready(()), if self.shortage.told => {
                    self.shortage.end(&self.name);
                    continue;
                }
            };
            match accepted {
                Ok(_) if max_connections > 0 && self.places.taken() >= max_connections => {
                    debug!(limit = max_connections, "a connection beyond -max-connections was closed");
                }
                Ok(socket) => return (socket, self.places.take()),
                Err(error) if is_exhaustion(&error) => {
                    self.shortage.tell(&self.name, &error);
                    self.pause().await;
                }
                // The peer left before it was accepted, or the network failed: nothing of ours.
                Err(error) => debug!(listener = self.name, %error, "a connection was not made"),
            }
        }
    }

    async fn pause(&self) {
        tokio::select! {
            () = self.places.freed() => {}
            () = sleep(PAUSE) => {}
        }
    }
}

/// A time without descriptors or memory for new connections: one line when it begins, one when nobody waits any
/// more, and peace for a while if it comes again at once.
#[derive(Debug, Default)]
struct Shortage {
    told: bool,
    quiet_until: Option<Instant>,
}

impl Shortage {
    fn tell(&mut self, listener: &str, reason: &dyn Display) {
        let now = Instant::now();
        if self.told || self.quiet_until.is_some_and(|until| now < until) {
            return;
        }
        warn!(listener, %reason, "can't accept; new connections wait");
        *self = Self { told: true, quiet_until: Some(now + QUIET) };
    }

    fn end(&mut self, listener: &str) {
        info!(listener, "accepting again");
        self.told = false;
    }
}

#[derive(Debug)]
enum RuntimeListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl RuntimeListener {
    fn new(listener: ListenerSocket) -> io::Result<Self> {
        Ok(match listener {
            ListenerSocket::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            ListenerSocket::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
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

/// Whether there is too little of something that may come back: descriptors or memory.
fn is_exhaustion(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}
