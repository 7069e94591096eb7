//! A server in the same thread that behaves correctly or breaks one rule.

use libdc::net::address::Address;
use libdc::wire::frame::{Direction, Operation, SessionOperation};
use libdc::wire::message::{Message, MessageReader, write_message};
use libdc::wire::session::{AddRequest, SessionStatus};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The behaviour of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FakeConduct {
    Honest,
    /// Answers pipelined requests in reverse order.
    Reversed,
    /// A GET returns the session with one bit changed.
    AltersSessions,
    /// A GET gets some other session that is stored.
    MixesUpSessions,
    /// Every fifth ADD is answered OK and stores nothing.
    ForgetsAdds,
    /// Every fifth ADD of an absent session is answered "already stored".
    MatchesWrongly,
    /// An ADD of a stored session is answered OK and replaces it.
    Replaces,
    /// A REMOVE is answered OK and removes nothing.
    KeepsRemoved,
    /// A HAVE is always answered OK.
    HasAll,
    /// An ADD is always refused.
    RefusesAdds,
    /// The answers have another uid.
    MixesUpUids,
    /// The answers are no messages.
    Babbles,
    /// Keeps this many sessions only.
    Evicts(usize),
    /// Answers these requests DISCONNECTED, and has forgotten all sessions when they are over.
    Disconnects(Range<usize>),
    /// The same, and then alters sessions besides.
    DisconnectsAndAlters(Range<usize>),
    /// Executes requests with these numbers, but closes the connection instead of answering.
    Closes(Range<usize>),
    /// Stops answering from this request on.
    FallsSilent(usize),
}

/// A listening server; it stops on drop.
pub(crate) struct ScriptedFake {
    pub(crate) address: Address,
    task: JoinHandle<()>,
}

impl Drop for ScriptedFake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct ScriptedServer {
    conduct: FakeConduct,
    requests: usize,
    adds: usize,
    sessions: HashMap<Vec<u8>, (Vec<u8>, Instant)>,
}

impl ScriptedFake {
    pub(crate) async fn start(conduct: FakeConduct) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("IP:{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = ScriptedServer { conduct, requests: 0, adds: 0, sessions: HashMap::new() };
        let server = Arc::new(Mutex::new(server));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&server)));
            }
        });
        Self { address, task }
    }
}

async fn serve(mut stream: TcpStream, server: Arc<Mutex<ScriptedServer>>) {
    let mut reader = MessageReader::new(Some(Direction::Request));
    let mut input = Vec::new();
    while stream.read_buf(&mut input).await.is_ok_and(|n| n > 0) {
        let mut rest = input.as_slice();
        let mut answers = Vec::new();
        while let Some(request) = reader.next(&mut rest).unwrap().map(Message::from) {
            let Some(answer) = server.lock().unwrap().answer(&request) else {
                return;
            };
            answers.push(answer);
        }
        input = rest.to_vec();
        if server.lock().unwrap().conduct == FakeConduct::Reversed {
            answers.reverse();
        }
        if stream.write_all(&answers.concat()).await.is_err() {
            return;
        }
    }
}

impl ScriptedServer {
    /// The bytes to answer with; `None` closes the connection.
    fn answer(&mut self, request: &Message) -> Option<Vec<u8>> {
        self.requests += 1;
        let Operation::Session(operation) = request.head.operation else {
            panic!("{request:?}");
        };
        let number = self.requests;
        let mut head = request.head.response();
        match &self.conduct {
            FakeConduct::MixesUpUids => head.uid ^= 0x4000_0000,
            FakeConduct::Babbles => return Some(b"ERROR\r\nthis is another protocol\r\n".to_vec()),
            FakeConduct::FallsSilent(from) if number >= *from => return Some(Vec::new()),
            FakeConduct::Disconnects(outage) | FakeConduct::DisconnectsAndAlters(outage)
                if outage.contains(&number) =>
            {
                self.sessions.clear();
                return Some(status_message(head, SessionStatus::Disconnected));
            }
            _ => {}
        }
        let data = self.handle(operation, &request.data);
        if matches!(&self.conduct, FakeConduct::Closes(at) if at.contains(&number)) {
            return None;
        }
        let mut bytes = Vec::new();
        write_message(&mut bytes, head, &data);
        Some(bytes)
    }

    fn handle(&mut self, operation: SessionOperation, data: &[u8]) -> Vec<u8> {
        let now = Instant::now();
        self.sessions.retain(|_, (_, end)| *end > now);
        let status = match operation {
            SessionOperation::Add => self.add(AddRequest::parse(data).unwrap().unwrap(), now),
            SessionOperation::Get => match self.get(data) {
                Some(session) => return session,
                None => SessionStatus::NotOk,
            },
            SessionOperation::Remove if self.conduct == FakeConduct::KeepsRemoved => {
                if self.sessions.contains_key(data) { SessionStatus::Ok } else { SessionStatus::NotOk }
            }
            SessionOperation::Remove => {
                self.sessions.remove(data).map_or(SessionStatus::NotOk, |_| SessionStatus::Ok)
            }
            SessionOperation::Have if self.conduct == FakeConduct::HasAll => SessionStatus::Ok,
            SessionOperation::Have => {
                self.sessions.get(data).map_or(SessionStatus::NotOk, |_| SessionStatus::Ok)
            }
        };
        vec![status as u8]
    }

    fn add(&mut self, add: AddRequest<'_>, now: Instant) -> SessionStatus {
        self.adds += 1;
        let is_fifth = self.adds.is_multiple_of(5);
        let is_stored = self.sessions.contains_key(add.id.as_bytes());
        match &self.conduct {
            FakeConduct::RefusesAdds => return SessionStatus::DataRange,
            FakeConduct::Replaces => {}
            _ if is_stored => return SessionStatus::MatchingSession,
            FakeConduct::ForgetsAdds if is_fifth => return SessionStatus::Ok,
            FakeConduct::MatchesWrongly if is_fifth => return SessionStatus::MatchingSession,
            FakeConduct::Evicts(max) if self.sessions.len() >= *max => {
                let soonest = self.sessions.iter().min_by_key(|(_, (_, end))| *end);
                let soonest = soonest.map(|(id, _)| id.clone()).unwrap_or_default();
                self.sessions.remove(&soonest);
            }
            _ => {}
        }
        let end = now + Duration::from_millis(u64::from(add.timeout_ms));
        self.sessions.insert(add.id.as_bytes().to_vec(), (add.session.to_vec(), end));
        SessionStatus::Ok
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        let mut session = self.sessions.get(id)?.0.clone();
        match &self.conduct {
            FakeConduct::AltersSessions => *session.last_mut().unwrap() ^= 0x80,
            FakeConduct::DisconnectsAndAlters(outage) if self.requests >= outage.end => session[0] ^= 1,
            FakeConduct::MixesUpSessions => session = self.sessions.values().next().unwrap().0.clone(),
            _ => {}
        }
        Some(session)
    }
}

fn status_message(head: libdc::wire::frame::MessageHead, status: SessionStatus) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, head, &[status as u8]);
    bytes
}
