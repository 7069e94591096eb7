//! A TLS connection for drivers that write without flushing.
//!
//! rustls converts written data to records. Records that the socket does not accept, at most 64 KiB and less
//! than the socket's own buffer, are kept here. They are sent before further writes and with every read: the
//! task is woken when the socket becomes writable, and its next call sends the rest. Drivers that poll for
//! input while they wait, as all do, need no special code.
//!
//! A peer that closes without a TLS `close_notify` is treated as closed. In all our protocols messages are
//! delimited, so that truncation is always detected. A dropped connection sends `close_notify` if the socket
//! accepts it immediately.

use crate::net::tls::error::{TlsError, TlsPeer};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A TLS connection whose handshake is complete.
pub struct TlsSocket {
    stream: TlsStream<TcpStream>,
}

impl TlsSocket {
    pub(super) fn new(stream: impl Into<TlsStream<TcpStream>>) -> Self {
        Self { stream: stream.into() }
    }

    /// The TCP connection below it.
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

    /// Translates an error to a [`TlsError`]: a rejected certificate may show only after the handshake.
    fn translate_error(&self, error: io::Error) -> io::Error {
        TlsError::of_stream(error, self.peer()).into()
    }

    /// Sends the records that the socket did not accept before.
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
            return Poll::Ready(Err(this.translate_error(error)));
        }
        match ready!(Pin::new(&mut this.stream).poll_read(cx, buf)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read.map_err(|error| this.translate_error(error))),
        }
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // A peer that does not read must be noticed here, and not only when 64 KiB more are pending.
        ready!(this.poll_drain(cx)).map_err(|error| this.translate_error(error))?;
        Pin::new(&mut this.stream).poll_write(cx, bytes).map_err(|error| this.translate_error(error))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_drain(cx).map_err(|error| this.translate_error(error))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Drop for TlsSocket {
    fn drop(&mut self) {
        fn send_close_notify<S>(tcp: &TcpStream, session: &mut rustls::ConnectionCommon<S>) {
            session.send_close_notify();
            let mut writer = NonblockingWriter(tcp);
            // If this cannot be sent, the peer sees the end of the connection.
            while session.wants_write() && session.write_tls(&mut writer).is_ok_and(|written| written > 0) {}
        }
        match &mut self.stream {
            TlsStream::Client(stream) => {
                let (tcp, session) = stream.get_mut();
                send_close_notify(tcp, session);
            }
            TlsStream::Server(stream) => {
                let (tcp, session) = stream.get_mut();
                send_close_notify(tcp, session);
            }
        }
    }
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsSocket").field(self.tcp()).finish()
    }
}

/// Writes as much as the socket accepts immediately.
struct NonblockingWriter<'a>(&'a TcpStream);

impl io::Write for NonblockingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
