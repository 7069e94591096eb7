//! The server's side of one connection.
//!
//! ```text
//!           handle_input                      output
//!   bytes ─────────────▶ unread ─▶ messages ─▶ Service ─▶ answers ─▶ (the driver's socket)
//!                          ▲                                  │
//!                          └── stalled: the answers so far ◀──┘
//!                              must be written first
//! ```
//!
//! The machine keeps what has been read and not yet used: the beginning of a message, or whole messages
//! that wait until the peer has read earlier answers. An idle connection keeps no memory at all.

use crate::limits::OUTBOX_BYTES_MAX;
use crate::service::{Service, Tally};
use crate::time::Time;
use crate::wire::frame::{Corruption, Direction};
use crate::wire::message::MessageReader;
use crate::wire::session::ids_ahead;

/// Most requests for which the store is told at once what will be asked.
const ANNOUNCED_MAX: usize = 16;

/// One connection, as the server sees it.
#[derive(Debug)]
pub struct ServerConnection {
    reader: MessageReader,
    unread: Vec<u8>,
    stalled: bool,
    unfinished_since: Option<Time>,
}

impl Default for ServerConnection {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerConnection {
    /// A connection on which nothing has happened.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            reader: MessageReader::new(Some(Direction::Request)),
            unread: Vec::new(),
            stalled: false,
            unfinished_since: None,
        }
    }

    /// Takes bytes that arrived and appends the answers to `out`.
    ///
    /// Stops when `out` holds more than [`OUTBOX_BYTES_MAX`] ([`is_stalled`](Self::is_stalled) then); call
    /// again with no bytes once it has been written.
    ///
    /// # Errors
    /// [`Corruption`]: what came before it has been answered in `out`; the connection must be closed.
    pub fn handle_input(
        &mut self,
        now: Time,
        bytes: &[u8],
        service: &Service,
        out: &mut Vec<u8>,
    ) -> Result<(), Corruption> {
        if self.unread.is_empty() {
            let mut input = bytes;
            self.answer_messages(now, &mut input, service, out)?;
            self.unread.extend_from_slice(input);
        } else {
            let mut unread = std::mem::take(&mut self.unread);
            unread.extend_from_slice(bytes);
            let mut input = unread.as_slice();
            self.answer_messages(now, &mut input, service, out)?;
            let used = unread.len() - input.len();
            if used < unread.len() {
                unread.drain(..used);
                self.unread = unread;
            }
        }
        Ok(())
    }

    /// Whether requests wait here for their answers' turn. No input is needed then, but room for output.
    #[must_use]
    pub const fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether nothing is under way: no part of a message, no request without an answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.unread.is_empty() && !self.reader.is_inside_message()
    }

    /// Since when a message that began to arrive has not been whole. While the connection is stalled this
    /// is `None`: the rest may well be there.
    #[must_use]
    pub const fn unfinished_since(&self) -> Option<Time> {
        self.unfinished_since
    }

    fn answer_messages(
        &mut self,
        now: Time,
        input: &mut &[u8],
        service: &Service,
        out: &mut Vec<u8>,
    ) -> Result<(), Corruption> {
        let mut tally = Tally::default();
        let mut answered = false;
        let mut announced = 0_usize;
        let result = loop {
            self.stalled = out.len() >= OUTBOX_BYTES_MAX && !input.is_empty();
            if self.stalled {
                break Ok(());
            }
            if announced == 0 {
                announced = announce(input, service);
            }
            announced -= 1;
            match self.reader.next(input) {
                Ok(Some(request)) => {
                    answered = true;
                    if let Err(corruption) = service.answer(now, request, out, &mut tally) {
                        break Err(corruption);
                    }
                }
                Ok(None) => break Ok(()),
                Err(corruption) => break Err(corruption),
            }
        };
        self.reader.reclaim();
        service.record(&tally);
        if self.stalled || (input.is_empty() && !self.reader.is_inside_message()) {
            self.unfinished_since = None;
        } else if answered || self.unfinished_since.is_none() {
            self.unfinished_since = Some(now);
        }
        result
    }
}

/// Tells the store what is asked next, so that it can look for all of it at once. Returns how many requests
/// can be answered before it is worth to look again.
fn announce(input: &[u8], service: &Service) -> usize {
    let mut requested = ids_ahead(input).take(ANNOUNCED_MAX);
    let Some(first) = requested.next() else {
        return 1;
    };
    let mut ids = [first; ANNOUNCED_MAX];
    let mut count = 1;
    for (place, id) in ids[1..].iter_mut().zip(requested) {
        *place = id;
        count += 1;
    }
    if count > 1 {
        service.sessions().prefetch(&ids[..count]);
    }
    count
}
