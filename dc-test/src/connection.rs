//! A connection with pipelined requests: messages on top, a socket below.

use libdc::net::address::Address;
use libdc::net::connect::connect;
use libdc::net::socket::Socket;
use libdc::wire::frame::{DecodeError, Direction, MessageHead};
use libdc::wire::message::{MessageReader, MessageRef, MessageWriter};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// A connection to the server.
#[derive(Debug)]
pub(crate) struct PipelinedConnection {
    socket: Socket,
    reader: MessageReader,
    input: Box<[u8]>,
    /// Unconsumed input lies between these.
    used: usize,
    filled: usize,
    output: Vec<u8>,
    written: usize,
}

impl PipelinedConnection {
    pub(crate) async fn open(address: &Address, within: Duration) -> io::Result<Self> {
        Ok(Self {
            socket: connect(address, within).await?,
            reader: MessageReader::new(Some(Direction::Response)),
            input: vec![0; READ_BYTES].into_boxed_slice(),
            used: 0,
            filled: 0,
            output: Vec::new(),
            written: 0,
        })
    }

    /// Queues a request for sending.
    pub(crate) fn queue(&mut self, head: MessageHead, write_data: impl FnOnce(&mut Vec<u8>)) {
        self.queue_bytes(|out| {
            let writer = MessageWriter::begin(out, head);
            write_data(out);
            writer.finish(out);
        });
    }

    /// Queues a message that encodes itself.
    pub(crate) fn queue_bytes(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
        write(&mut self.output);
    }

    /// Sends queued bytes and reads what is available: at least one byte; `false` means end of input.
    ///
    /// Cancel-safe: progress in both directions is kept.
    pub(crate) async fn transfer(&mut self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_transfer(cx)).await
    }

    /// The next message in the input buffer.
    pub(crate) fn next_message(&mut self) -> Result<Option<MessageRef<'_>>, DecodeError> {
        let mut rest = &self.input[self.used..self.filled];
        let before = rest.len();
        let message = self.reader.next(&mut rest)?;
        self.used += before - rest.len();
        Ok(message)
    }

    /// Both directions at once: a server with a full output buffer reads no requests.
    fn poll_transfer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.written < self.output.len() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.output[self.written..]) {
                Poll::Ready(written) => self.written += written?,
                Poll::Pending => break,
            }
        }
        self.input.copy_within(self.used..self.filled, 0);
        self.filled -= self.used;
        self.used = 0;
        let mut room = ReadBuf::new(&mut self.input[self.filled..]);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        self.filled += read;
        Poll::Ready(Ok(read > 0))
    }
}
