//! Accepting connections: the limits on their number, and what to do when the system has no more to give.

use crate::file::OwnFile;
use crate::net::listen::{Listener, ListenerSocket};
use crate::net::places::{Place, Places};
use crate::net::socket::{Socket, prepare_tcp};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tracing::{debug, info, warn};

/// How long to wait when the system has no descriptor or memory for a connection, unless one ends before.
const PAUSE: Duration = Duration::from_millis(100);

/// How many connections there may be. 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionLimits {
    /// A connection beyond this is accepted and closed at once.
    pub max_connections: usize,
    /// While there are this many, new ones wait in the system's queue.
    pub throttle: usize,
}

/// Takes the connections of one listener.
#[derive(Debug)]
pub struct Acceptor {
    listener: RuntimeListener,
    _file: Option<OwnFile>,
    name: String,
    limits: ConnectionLimits,
    places: Arc<Places>,
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
        Ok(Self { listener: RuntimeListener::new(socket)?, _file: file, name, limits, places })
    }

    /// The next connection, with its place. Cancel-safe: a connection that is not returned is still
    /// in the system's queue.
    pub async fn accept(&mut self) -> (Socket, Place) {
        let mut exhausted = false;
        loop {
            if self.limits.throttle > 0 {
                self.places.below(self.limits.throttle).await;
            }
            match self.listener.accept().await {
                Ok(socket) => {
                    if exhausted {
                        info!(listener = self.name, "accepting again");
                        exhausted = false;
                    }
                    let limit = self.limits.max_connections;
                    if limit > 0 && self.places.taken() >= limit {
                        debug!(limit, "a connection beyond -max-connections was closed");
                        continue;
                    }
                    return (socket, self.places.take());
                }
                Err(error) if is_exhaustion(&error) => {
                    if !exhausted {
                        warn!(listener = self.name, %error, "can't accept; new connections wait");
                        exhausted = true;
                    }
                    tokio::select! {
                        () = self.places.freed() => {}
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
                // The peer left before it was accepted, or the network failed: nothing of ours.
                Err(error) => debug!(listener = self.name, %error, "a connection was not made"),
            }
        }
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
