//! Connecting to an [`Address`].

use crate::net::address::{Address, Host, TcpAddress};
use crate::net::socket::{Socket, prepare_tcp};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{sleep, timeout};

/// The first and longest delay before connecting to a Unix socket with a full backlog again.
const BACKLOG_PAUSE: Duration = Duration::from_millis(1);
const BACKLOG_PAUSE_MAX: Duration = Duration::from_millis(50);

/// Connects to `address` within a timeout. A host name is resolved for each call. Several addresses share the
/// timeout, so that an unresponsive one does not prevent the use of the next. Cancel-safe.
///
/// # Errors
/// Errors of the resolver, or of the last address tried; [`ErrorKind::TimedOut`] if the timeout has passed.
pub async fn connect(address: &Address, within: Duration) -> io::Result<Socket> {
    match address {
        Address::Unix(path) => {
            let connecting = connect_unix(path.as_path());
            Ok(Socket::Unix(timeout(within, connecting).await.map_err(io::Error::from)??))
        }
        Address::Tcp(tcp) => {
            let found = timeout(within, look_up(tcp)).await.map_err(io::Error::from)??;
            connect_tcp(&found, within).await
        }
        Address::Descriptor(_) => {
            Err(io::Error::new(ErrorKind::InvalidInput, "cannot connect to a descriptor"))
        }
    }
}

/// Connects with retries at growing intervals: a Unix socket with a full backlog refuses at once, and does
/// not signal when it accepts connections again.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = BACKLOG_PAUSE;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(pause).await,
            result => return result,
        }
        pause = (pause * 2).min(BACKLOG_PAUSE_MAX);
    }
}

async fn look_up(tcp: &TcpAddress) -> io::Result<Vec<SocketAddr>> {
    if let Some(known) = tcp.known() {
        return Ok(known);
    }
    let Some(Host::Name(name)) = tcp.host() else {
        return Ok(Vec::new());
    };
    let found = lookup_host((name.as_str(), tcp.port())).await?;
    Ok(found.filter(|found| tcp.family().admits(found)).collect())
}

async fn connect_tcp(addresses: &[SocketAddr], within: Duration) -> io::Result<Socket> {
    let share = within / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address of this family");
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                prepare_tcp(&stream)?;
                return Ok(Socket::Tcp(stream));
            }
            Ok(Err(error)) => last = error,
            Err(elapsed) => last = elapsed.into(),
        }
    }
    Err(last)
}
