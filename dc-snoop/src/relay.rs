//! The relay: opens a server connection for every accepted one, and passes bytes in both directions.
//!
//! A direction reads, writes the bytes, then passes them to the decoder. It reads again when all is written,
//! so a slow reader slows the writer and no buffer grows. An end of input is relayed as such, a reset as a
//! reset. An idle connection has no buffer.

use crate::capture::packet::SEGMENT_BYTES_MAX;
use crate::monitor::RelayMonitor;
use crate::record::ConnectionClose;
use crate::socket::{AcceptedConnection, Acceptor, RelaySocket};
use dc_snoop::observe::Endpoint;
use libdc::net::address::Address;
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Maximum length of one read, which fits a captured packet.
const READ_BYTES: usize = SEGMENT_BYTES_MAX;
/// Buffers kept for the next reads.
const SPARE_BUFFERS_MAX: usize = 16;
/// After an error of accept (most often: no descriptors left), how long to wait before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts and relays until it is dropped, which closes all connections. Call it in a `LocalSet`.
pub(crate) async fn run(acceptor: &Acceptor, server: Address, watch: Rc<RelayMonitor>) {
    let relay = Rc::new(Relay { server, watch, buffers: RefCell::default() });
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        tokio::select! {
            accepted = acceptor.accept() => match accepted {
                Ok(accepted) => {
                    failing = false;
                    connections.spawn_local(Rc::clone(&relay).connection(accepted));
                }
                Err(error) => {
                    // Said once, not ten times a second.
                    if !failing {
                        eprintln!("dc_snoop: cannot accept connections, new ones wait: {error}");
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    eprintln!("dc_snoop: a connection was not relayed to its end: {error}");
                }
            }
        }
    }
}

#[derive(Debug)]
struct Relay {
    server: Address,
    watch: Rc<RelayMonitor>,
    buffers: RefCell<Vec<Vec<u8>>>,
}

/// One direction of a connection.
#[derive(Clone, Copy)]
struct RelayDirection<'a> {
    connection: u64,
    sender: Endpoint,
    from: &'a RelaySocket,
    to: &'a RelaySocket,
}

impl Relay {
    async fn connection(self: Rc<Self>, accepted: AcceptedConnection) {
        let connection = self.watch.open(&accepted);
        let client = accepted.socket;
        let server = match RelaySocket::connect(&self.server).await {
            Ok(server) => server,
            Err(error) => {
                self.watch.refuse(connection, format!("cannot connect to {}: {error}", self.server));
                // The client gets the same result as from the server.
                client.reset();
                return;
            }
        };
        self.watch.accepted(connection);
        let up = RelayDirection { connection, sender: Endpoint::Client, from: &client, to: &server };
        let down = RelayDirection { connection, sender: Endpoint::Server, from: &server, to: &client };
        match tokio::try_join!(self.pass(up), self.pass(down)) {
            Ok((up, down)) => self.watch.close(up.max(down), connection, ConnectionClose::Orderly),
            Err(sender) => {
                self.watch.close(self.watch.now(), connection, ConnectionClose::Reset(sender));
                client.reset();
                server.reset();
            }
        }
    }

    /// Relays bytes until the end of input or until the peer stops reading. Returns the time; the error is
    /// the endpoint that broke the connection.
    async fn pass(&self, way: RelayDirection<'_>) -> Result<Duration, Endpoint> {
        let RelayDirection { connection, sender, from, to } = way;
        let mut offset = 0;
        loop {
            from.readable().await.map_err(|_| sender)?;
            // A connection with constant input must yield to the others.
            tokio::task::coop::consume_budget().await;
            let mut buffer = self.buffer();
            let count = match from.try_read(&mut buffer) {
                Ok(0) => {
                    self.give_back(buffer);
                    to.finish_writing();
                    return Ok(self.watch.finish(connection, sender, offset));
                }
                Ok(count) => count,
                Err(error) => {
                    self.give_back(buffer);
                    if is_transient(&error) {
                        continue;
                    }
                    return Err(sender);
                }
            };
            let result = self.deliver(way, &buffer[..count], &mut offset).await;
            self.give_back(buffer);
            if result.is_err() {
                // The peer stopped reading. Bytes of the other direction may still be read, so that direction
                // continues.
                from.stop_reading();
                return Ok(self.watch.finish(connection, sender, offset));
            }
        }
    }

    /// Writes all of `bytes`. Written bytes are observed before the next write: an answer must not be seen
    /// before its request.
    async fn deliver(&self, way: RelayDirection<'_>, mut bytes: &[u8], offset: &mut u64) -> io::Result<()> {
        let at = self.watch.now();
        while !bytes.is_empty() {
            match way.to.try_write(bytes) {
                Ok(count) => {
                    let (written, rest) = bytes.split_at(count);
                    self.watch.bytes(at, way.connection, way.sender, *offset, written);
                    *offset += count as u64;
                    bytes = rest;
                }
                Err(error) if is_transient(&error) => way.to.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| vec![0; READ_BYTES])
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < SPARE_BUFFERS_MAX {
            buffers.push(buffer);
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
