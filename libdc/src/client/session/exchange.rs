//! One request and its answer, without the socket: shared by the asynchronous and the blocking client.
//!
//! Invariants: uids are unique among 2^32 successive requests; an answer is accepted only if it has the uid
//! and the operation of the request. The connection must not be used again after an error, or if bytes beyond
//! the answer were received. Nothing here panics on a peer's input.

use crate::client::session::error::{Error, Refusal};
use crate::id::SessionId;
use crate::limits::{SESSION_ADD_BYTES_MAX, SESSION_TIMEOUT_MS_MAX};
use crate::wire::frame::{Direction, MessageHead, Operation, SessionOperation};
use crate::wire::message::{MessageReader, MessageWriter};
use crate::wire::session::{AddRequest, SessionAnswer, SessionStatus};
use std::time::Duration;

/// A request with valid parameters.
#[derive(Clone, Copy, Debug)]
pub(super) enum SessionRequest<'a> {
    Add(AddRequest<'a>),
    Get(SessionId<'a>),
    Remove(SessionId<'a>),
    Have(SessionId<'a>),
}

impl<'a> SessionRequest<'a> {
    /// Checks the parameters as the server would. The timeout is truncated to whole milliseconds.
    pub(super) fn add(id: &'a [u8], session: &'a [u8], timeout: Duration) -> Result<Self, Refusal> {
        let timeout_ms = u32::try_from(timeout.as_millis())
            .ok()
            .filter(|ms| *ms <= SESSION_TIMEOUT_MS_MAX)
            .ok_or(Refusal::TimeoutRange)?;
        let id = SessionId::new(id).ok_or(Refusal::IdRange)?;
        if session.is_empty() || session.len() > SESSION_ADD_BYTES_MAX - id.as_bytes().len() {
            return Err(Refusal::DataRange);
        }
        Ok(Self::Add(AddRequest { timeout_ms, id, session }))
    }

    pub(super) fn get(id: &'a [u8]) -> Result<Self, Refusal> {
        SessionId::new(id).map(Self::Get).ok_or(Refusal::IdRange)
    }

    pub(super) fn remove(id: &'a [u8]) -> Result<Self, Refusal> {
        SessionId::new(id).map(Self::Remove).ok_or(Refusal::IdRange)
    }

    pub(super) fn have(id: &'a [u8]) -> Result<Self, Refusal> {
        SessionId::new(id).map(Self::Have).ok_or(Refusal::IdRange)
    }

    const fn operation(&self) -> SessionOperation {
        match self {
            Self::Add(_) => SessionOperation::Add,
            Self::Get(_) => SessionOperation::Get,
            Self::Remove(_) => SessionOperation::Remove,
            Self::Have(_) => SessionOperation::Have,
        }
    }
}

/// The size of a read, in bytes.
const READ_BYTES: usize = 4096;

/// One exchange at a time on a connection. The buffers are reused.
#[derive(Debug)]
pub(super) struct Exchange {
    uid: u32,
    operation: SessionOperation,
    request: Vec<u8>,
    /// Received bytes not consumed yet are before `filled`; the rest is free for reading.
    input: Vec<u8>,
    filled: usize,
    reader: MessageReader,
    untouched: bool,
    clean: bool,
}

impl Exchange {
    pub(super) const fn new() -> Self {
        Self {
            uid: 0,
            operation: SessionOperation::Have,
            request: Vec::new(),
            input: Vec::new(),
            filled: 0,
            reader: MessageReader::new(Some(Direction::Response)),
            untouched: true,
            clean: true,
        }
    }

    /// Begins the next exchange: encodes the request and discards the state of the previous one.
    pub(super) fn begin(&mut self, request: &SessionRequest<'_>) {
        self.uid = self.uid.wrapping_add(1);
        self.operation = request.operation();
        self.request.clear();
        self.filled = 0;
        self.reader = MessageReader::new(Some(Direction::Response));
        self.untouched = true;
        self.clean = true;
        let head = MessageHead::request(self.uid, self.operation());
        let writer = MessageWriter::begin(&mut self.request, head);
        match request {
            SessionRequest::Add(add) => add.write(&mut self.request),
            SessionRequest::Get(id) | SessionRequest::Remove(id) | SessionRequest::Have(id) => {
                self.request.extend_from_slice(id.as_bytes());
            }
        }
        writer.finish(&mut self.request);
    }

    /// The encoded request, to be sent.
    pub(super) fn request(&self) -> &[u8] {
        &self.request
    }

    /// Whether no byte of an answer was received yet.
    pub(super) const fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// Whether nothing was received after the answer, so that the connection may be used again.
    pub(super) const fn is_clean(&self) -> bool {
        self.clean
    }

    /// The free part of the buffer, to read into.
    pub(super) fn read_buffer(&mut self) -> &mut [u8] {
        let end = self.filled + READ_BYTES;
        if self.input.len() < end {
            self.input.resize(end, 0);
        }
        &mut self.input[self.filled..end]
    }

    /// Handles `read` bytes read into the [`read_buffer`](Self::read_buffer). `Ok(None)`: the answer is
    /// incomplete.
    ///
    /// # Errors
    /// If the bytes cannot be the answer to the request.
    pub(super) fn receive(&mut self, read: usize) -> Result<Option<SessionReply>, Error> {
        self.untouched = false;
        self.filled += read;
        let asked = self.operation();
        let input = &self.input[..self.filled];
        let mut rest = input;
        let Some(message) = self.reader.next(&mut rest)? else {
            let used = input.len() - rest.len();
            self.input.copy_within(used..self.filled, 0);
            self.filled -= used;
            return Ok(None);
        };
        if message.head.uid != self.uid || message.head.operation != asked {
            return Err(Error::NotAsked { uid: message.head.uid, operation: message.head.operation });
        }
        let reply = match SessionAnswer::parse(self.operation, message.data)? {
            SessionAnswer::Status(status) if !is_answer_to(self.operation, status) => {
                return Err(Error::Unexpected { operation: asked, status });
            }
            SessionAnswer::Status(status) => SessionReply::Status(status),
            SessionAnswer::Session(session) => SessionReply::Session(session.to_vec()),
        };
        self.clean = rest.is_empty();
        Ok(Some(reply))
    }

    const fn operation(&self) -> Operation {
        Operation::Session(self.operation)
    }
}

/// Whether `status` is a valid answer to `operation`.
const fn is_answer_to(operation: SessionOperation, status: SessionStatus) -> bool {
    match status {
        SessionStatus::Ok | SessionStatus::NotOk | SessionStatus::Disconnected => true,
        SessionStatus::Corrupt
        | SessionStatus::MatchingSession
        | SessionStatus::TimeoutRange
        | SessionStatus::IdRange
        | SessionStatus::DataRange => matches!(operation, SessionOperation::Add),
    }
}

/// A valid answer to the request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SessionReply {
    Status(SessionStatus),
    Session(Vec<u8>),
}

impl SessionReply {
    /// The result for an ADD.
    pub(super) fn stored(self) -> Result<(), Error> {
        Err(Error::Refused(match self {
            Self::Status(SessionStatus::Ok) => return Ok(()),
            Self::Status(SessionStatus::Disconnected) => return Err(Error::Disconnected),
            Self::Status(SessionStatus::MatchingSession) => Refusal::AlreadyStored,
            Self::Status(SessionStatus::TimeoutRange) => Refusal::TimeoutRange,
            Self::Status(SessionStatus::IdRange) => Refusal::IdRange,
            Self::Status(SessionStatus::DataRange) => Refusal::DataRange,
            Self::Status(SessionStatus::Corrupt) => Refusal::Corrupt,
            Self::Status(SessionStatus::NotOk) | Self::Session(_) => Refusal::NotStored,
        }))
    }

    /// The result for a GET.
    pub(super) fn session(self) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Session(session) => Ok(Some(session)),
            Self::Status(SessionStatus::Disconnected) => Err(Error::Disconnected),
            Self::Status(_) => Ok(None),
        }
    }

    /// The result for a REMOVE or a HAVE.
    pub(super) fn was_there(self) -> Result<bool, Error> {
        match self {
            Self::Status(SessionStatus::Disconnected) => Err(Error::Disconnected),
            reply => Ok(reply == Self::Status(SessionStatus::Ok)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SESSION_BYTES_MAX;
    use crate::wire::message::write_message;

    const ID: &[u8] = b"\x0d\x14\x1b";

    /// An exchange that has begun this request, with the uid 1.
    fn asked(request: Result<SessionRequest<'_>, Refusal>) -> Exchange {
        let mut exchange = Exchange::new();
        exchange.begin(&request.unwrap());
        exchange
    }

    impl Exchange {
        fn receive_bytes(&mut self, bytes: &[u8]) -> Result<Option<SessionReply>, Error> {
            self.read_buffer()[..bytes.len()].copy_from_slice(bytes);
            self.receive(bytes.len())
        }
    }

    /// A frame from a distcache 1.x server, at patch level 0.
    fn frame(uid: u8, operation: u8, data: &[u8]) -> Vec<u8> {
        let mut bytes =
            vec![0, 0x11, 0, 0, 1, 0, 0, 0, uid, 0, operation, 1, (data.len() >> 8) as u8, data.len() as u8];
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn requests_encode_to_protocol_bytes() {
        let add = asked(SessionRequest::add(ID, b"\xed\xf4", Duration::from_micros(60_000_999)));
        let expected = [
            &[0, 0x11, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1, 0, 13][..],
            &[0, 0, 0xea, 0x60, 0, 0, 0, 3, 0x0d, 0x14, 0x1b, 0xed, 0xf4],
        ]
        .concat();
        assert_eq!(add.request(), expected);
        for (request, number) in
            [(SessionRequest::get(ID), 1), (SessionRequest::remove(ID), 2), (SessionRequest::have(ID), 3)]
        {
            let head = [0, 0x11, 0, 1, 0, 0, 0, 0, 1, 0, number, 1, 0, 3];
            assert_eq!(asked(request).request(), [&head[..], ID].concat());
        }
    }

    #[test]
    fn invalid_request_is_refused_before_sending() {
        let second = Duration::from_secs(1);
        let week = Duration::from_millis(u64::from(SESSION_TIMEOUT_MS_MAX));
        assert_eq!(SessionRequest::get(b"").unwrap_err(), Refusal::IdRange);
        assert_eq!(SessionRequest::remove(&[0; 65]).unwrap_err(), Refusal::IdRange);
        assert_eq!(SessionRequest::have(&[0; 65]).unwrap_err(), Refusal::IdRange);
        assert_eq!(SessionRequest::add(&[0; 65], b"s", second).unwrap_err(), Refusal::IdRange);
        assert_eq!(SessionRequest::add(ID, b"", second).unwrap_err(), Refusal::DataRange);
        assert_eq!(
            SessionRequest::add(ID, b"s", week + Duration::from_millis(1)).unwrap_err(),
            Refusal::TimeoutRange
        );
        assert_eq!(SessionRequest::add(ID, b"s", Duration::MAX).unwrap_err(), Refusal::TimeoutRange);
        let longest = vec![7; SESSION_ADD_BYTES_MAX - ID.len()];
        assert_eq!(asked(SessionRequest::add(ID, &longest, week)).request().len(), 16 * (14 + 2048));
        let longer = vec![7; SESSION_ADD_BYTES_MAX - ID.len() + 1];
        assert_eq!(SessionRequest::add(ID, &longer, week).unwrap_err(), Refusal::DataRange);
    }

    #[test]
    fn statuses_map_to_results() {
        let add = |status| {
            let mut exchange = asked(SessionRequest::add(ID, b"s", Duration::ZERO));
            exchange.receive_bytes(&frame(1, 0, &[status])).unwrap().unwrap().stored()
        };
        add(0).unwrap();
        assert!(matches!(add(2), Err(Error::Disconnected)));
        for (status, refusal) in [
            (1, Refusal::NotStored),
            (100, Refusal::Corrupt),
            (101, Refusal::AlreadyStored),
            (102, Refusal::TimeoutRange),
            (103, Refusal::IdRange),
            (104, Refusal::DataRange),
        ] {
            assert!(matches!(add(status), Err(Error::Refused(it)) if it == refusal), "{status}");
        }
        let have = |status| {
            asked(SessionRequest::have(ID))
                .receive_bytes(&frame(1, 3, &[status]))
                .unwrap()
                .unwrap()
                .was_there()
        };
        assert!(have(0).unwrap());
        assert!(!have(1).unwrap());
        assert!(matches!(have(2), Err(Error::Disconnected)));
        let get = |data: &[u8]| {
            let reply = asked(SessionRequest::get(ID)).receive_bytes(&frame(1, 1, data)).map(Option::unwrap);
            reply.and_then(SessionReply::session)
        };
        assert_eq!(get(b"\x03").unwrap().as_deref(), Some(&b"\x03"[..]));
        assert_eq!(get(b"\x00\x01").unwrap().as_deref(), Some(&b"\x00\x01"[..]));
        assert_eq!(get(b"\x01").unwrap(), None);
        assert!(matches!(get(b"\x02"), Err(Error::Disconnected)));
        assert_eq!(get(b"\x00").unwrap().as_deref(), Some(&b"\x00"[..]));
        assert!(matches!(get(b""), Err(Error::Corruption(_))));
    }

    #[test]
    fn mismatched_answer_is_an_error() {
        let mut exchange = asked(SessionRequest::have(ID));
        let other_uid = exchange.receive_bytes(&frame(2, 3, &[0]));
        assert!(matches!(other_uid, Err(Error::NotAsked { uid: 2, .. })));
        let mut exchange = asked(SessionRequest::have(ID));
        assert!(matches!(exchange.receive_bytes(&frame(1, 2, &[0])), Err(Error::NotAsked { .. })));
        let mut exchange = asked(SessionRequest::have(ID));
        assert!(matches!(exchange.receive_bytes(&frame(1, 3, &[101])), Err(Error::Unexpected { .. })));
        let mut exchange = asked(SessionRequest::have(ID));
        let back_to_us = exchange.request().to_vec();
        assert!(matches!(exchange.receive_bytes(&back_to_us), Err(Error::Corruption(_))));
    }

    #[test]
    fn answer_in_pieces_is_accepted_and_excess_detected() {
        let session: Vec<u8> = (0..SESSION_BYTES_MAX).map(|i| i as u8).collect();
        let mut exchange = asked(SessionRequest::get(ID));
        let mut answer = Vec::new();
        let operation = Operation::Session(SessionOperation::Get);
        write_message(&mut answer, MessageHead::request(1, operation).response(), &session);
        let (last, bytes) = answer.split_last().unwrap();
        for piece in bytes.chunks(1021) {
            assert_eq!(exchange.receive_bytes(piece).unwrap(), None);
            assert!(!exchange.is_untouched());
        }
        assert_eq!(exchange.receive_bytes(&[*last]).unwrap(), Some(SessionReply::Session(session)));
        assert!(exchange.is_clean());

        exchange.begin(&SessionRequest::have(ID).unwrap());
        assert!(exchange.is_untouched());
        let two = [frame(2, 3, &[1]), frame(3, 3, &[0])].concat();
        assert_eq!(exchange.receive_bytes(&two).unwrap(), Some(SessionReply::Status(SessionStatus::NotOk)));
        assert!(!exchange.is_clean());
    }
}
