//! A connection of TLS, for drivers that write and never flush.
//!
//! rustls takes what is written and makes records of it; what the socket does not take of those, at most 64 KiB and less than the
//! socket's own buffer, waits here. It goes out before anything else is written, and with each read: the task is woken when
//! the socket takes more, and whatever it does first sends the rest. So a driver that polls to read while it waits, as
//! all do, need not know of it.
//!
//! A peer that closes without saying so in TLS is taken for one that closed: in all our protocols a message
//! shows where it ends, so nobody can cut one short unnoticed. Dropped, the connection says that it closes, as far as
//! the socket takes that at once.

use crate::net::tls::error::{TlsError, TlsPeer};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A connection of TLS whose handshake is complete.
pub struct TlsSocket {
    stream: TlsStream<TcpStream>,
}

impl TlsSocket {
    pub(super) fn new(stream: impl Into<TlsStream<TcpStream>>) -> Self {
        Self { stream: stream.into() }
    }

    /// The connection that it goes over.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        self.stream.get_ref().0
    }

    fn peer(&self) -> TlsPeer {
        match self.stream {
            TlsStream::Client(_) => TlsPeer::Server,
            TlsStream::Server(_) => TlsPeer::Client,
        }
    }

    /// Says what went wrong in the words of [`TlsError`]: a refused certificate may show only after the handshake.
    fn explained(&self, error: io::Error) -> io::Error {
        TlsError::of_stream(error, self.peer()).into()
    }

    /// Sends what the socket did not take before.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.stream.get_ref().1.wants_write() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
            return Poll::Ready(Err(this.explained(error)));
        }
        match ready!(Pin::new(&mut this.stream).poll_read(cx, buf)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read.map_err(|error| this.explained(error))),
        }
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // A peer that reads nothing is to show here, and not only when 64 KiB more are waiting.
        ready!(this.poll_drain(cx)).map_err(|error| this.explained(error))?;
        Pin::new(&mut this.stream).poll_write(cx, bytes).map_err(|error| this.explained(error))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_drain(cx).map_err(|error| this.explained(error))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Drop for TlsSocket {
    fn drop(&mut self) {
        fn say<S>(tcp: &TcpStream, session: &mut rustls::ConnectionCommon<S>) {
            session.send_close_notify();
            let mut at_once = NonblockingWriter(tcp);
            // Who does not hear of it sees the connection end.
            while session.wants_write() && session.write_tls(&mut at_once).is_ok_and(|written| written > 0) {}
        }
        match &mut self.stream {
            TlsStream::Client(stream) => {
                let (tcp, session) = stream.get_mut();
                say(tcp, session);
            }
            TlsStream::Server(stream) => {
                let (tcp, session) = stream.get_mut();
                say(tcp, session);
            }
        }
    }
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsSocket").field(self.tcp()).finish()
    }
}

/// Writes what the socket takes now.
struct NonblockingWriter<'a>(&'a TcpStream);

impl io::Write for NonblockingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
