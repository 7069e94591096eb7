//! A load of new connections: each asks one thing, reads the whole answer and closes, again and again.
//!
//! It is for what must not be noticed while a server is restarted: that a connection is refused, reset or left
//! unanswered. [`Callers::finish`] gives the tally, [`CallCounters::all_answered`] is the claim.

use crate::harness::patience::PATIENCE;
use libdc::client::blocking::Client;
use libdc::client::{ConnectionMode, Error, SessionOptions};
use libdc::net::address::Address;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How many call at once: on two processors more would only keep the servers from starting.
const THREADS: usize = 3;
/// Between two calls of one of them, for the same reason.
const PAUSE: Duration = Duration::from_micros(500);
/// The longest that an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Callers at work. Dropped, they stop.
#[derive(Debug)]
pub struct Callers {
    shared: Arc<CallersShared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct CallersShared {
    tally: Mutex<CallCounters>,
    changed: Condvar,
    stopped: Mutex<bool>,
    stop: Condvar,
    started: Instant,
}

/// What became of the calls.
#[derive(Clone, Debug, Default)]
pub struct CallCounters {
    /// Those that were answered.
    pub answered: u64,
    /// Of these, those of each child, where the answer tells.
    pub by_child: BTreeMap<Pid, u64>,
    /// Those that were answered that the server is out of reach, which an agent may say.
    pub disconnected: u64,
    /// All others.
    pub failures: Vec<CallFailure>,
}

/// A call that was not answered.
#[derive(Clone, Debug)]
pub struct CallFailure {
    /// In which way.
    pub kind: CallFailureKind,
    /// What the system says.
    pub error: String,
    /// Since the callers began.
    pub after: Duration,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailureKind {
    /// Nobody listens.
    Refused,
    /// The connection broke.
    Reset,
    /// It was closed without an answer, or none came.
    Unanswered,
    /// Something else, such as no port left to call from.
    Other,
}

/// What one call brought.
enum CallAnswer {
    /// An answer, and from whom if it tells.
    From(Option<Pid>),
    /// An agent's that can't reach the server.
    Disconnected,
}

impl Callers {
    /// Callers of children of the tests, on TCP.
    #[must_use]
    pub fn of_child(address: SocketAddr) -> Self {
        Self::start(move |_| talk(tcp(address)?, b"who\n"))
    }

    /// Callers of children of the tests, on a Unix socket.
    #[must_use]
    pub fn of_child_at(path: &Path) -> Self {
        let path = PathBuf::from(path);
        Self::start(move |_| talk(unix(&path)?, b"who\n"))
    }

    /// Callers of a server of HTTP, which has its number behind `child/` in a field of its answer.
    #[must_use]
    pub fn of_http(address: SocketAddr) -> Self {
        Self::start(move |_| talk(tcp(address)?, b"GET / HTTP/1.0\r\n\r\n"))
    }

    /// Callers that store sessions and ask for them, through `dc_server` or `dc_client`.
    #[must_use]
    pub fn of_sessions(address: Address) -> Self {
        let ids = AtomicU64::new(0);
        Self::start(move |_| {
            let options = SessionOptions { connections: ConnectionMode::Temporary, timeout: ANSWER_MAX };
            let mut client = Client::new(address.clone(), options);
            let id = ids.fetch_add(1, Ordering::Relaxed);
            let asked = if id.is_multiple_of(2) {
                client.add(&id.to_be_bytes(), b"session", PATIENCE)
            } else {
                client.get(&(id - 1).to_be_bytes()).map(drop)
            };
            match asked {
                Ok(()) => Ok(CallAnswer::From(None)),
                Err(Error::Disconnected) => Ok(CallAnswer::Disconnected),
                Err(error) => Err((kind_of(&error), error.to_string())),
            }
        })
    }

    fn start(
        call: impl Fn(usize) -> Result<CallAnswer, (CallFailureKind, String)> + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(CallersShared {
            tally: Mutex::default(),
            changed: Condvar::new(),
            stopped: Mutex::new(false),
            stop: Condvar::new(),
            started: Instant::now(),
        });
        let call = Arc::new(call);
        let caller = |number| {
            let (shared, call) = (Arc::clone(&shared), Arc::clone(&call));
            thread::spawn(move || {
                while !shared.pause() {
                    shared.note(call(number));
                }
            })
        };
        let threads = (0..THREADS).map(caller).collect();
        let callers = Self { shared, threads };
        callers.wait_for(1);
        callers
    }

    /// Waits until this many calls more have been answered.
    pub fn wait_for(&self, count: u64) {
        let enough = self.shared.tally().answered + count;
        self.wait(&format!("{count} answers"), |tally| tally.answered >= enough);
    }

    /// Waits for an answer of this child.
    pub fn wait_for_child(&self, pid: Pid) {
        self.wait(&format!("an answer of child {pid}"), |tally| tally.by_child.contains_key(&pid));
    }

    /// Waits for an answer of a child other than these. Returns its number.
    #[must_use]
    pub fn wait_for_another(&self, known: &[Pid]) -> Pid {
        let another =
            |tally: &CallCounters| tally.by_child.keys().find(|child| !known.contains(child)).copied();
        self.wait(&format!("an answer of another child than {known:?}"), |tally| another(tally).is_some());
        another(&self.shared.tally()).expect("it has answered")
    }

    /// Waits for an answer of this child that has not come yet.
    pub fn wait_for_more_of(&self, pid: Pid) {
        let had = self.shared.tally().by_child.get(&pid).copied().unwrap_or_default();
        let more = |tally: &CallCounters| tally.by_child.get(&pid).is_some_and(|count| *count > had);
        self.wait(&format!("a further answer of child {pid}"), more);
    }

    /// Stops them. Returns what became of all calls.
    #[must_use]
    pub fn finish(mut self) -> CallCounters {
        self.stop();
        self.shared.tally().clone()
    }

    fn wait(&self, what: &str, holds: impl Fn(&CallCounters) -> bool) {
        let tally = self.shared.tally();
        let waited = self.shared.changed.wait_timeout_while(tally, PATIENCE, |tally| !holds(tally));
        let (tally, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "{what} did not come within {PATIENCE:?}: {tally:?}");
    }

    fn stop(&mut self) {
        *self.shared.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.stop.notify_all();
        self.threads.drain(..).for_each(|thread| thread.join().expect("callers don't panic"));
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl CallersShared {
    fn tally(&self) -> MutexGuard<'_, CallCounters> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, called: Result<CallAnswer, (CallFailureKind, String)>) {
        let mut tally = self.tally();
        match called {
            Ok(CallAnswer::From(child)) => {
                tally.answered += 1;
                child.into_iter().for_each(|child| *tally.by_child.entry(child).or_default() += 1);
            }
            Ok(CallAnswer::Disconnected) => tally.disconnected += 1,
            Err((kind, error)) => {
                tally.failures.push(CallFailure { kind, error, after: self.started.elapsed() });
            }
        }
        drop(tally);
        self.changed.notify_all();
    }

    /// Waits for a moment. Whether it is time to stop.
    fn pause(&self) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.stop.wait_timeout_while(stopped, PAUSE, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl CallCounters {
    /// That every call was answered, at least `least` of them, and none with an excuse.
    pub fn all_answered(&self, least: u64) {
        let first = &self.failures[..self.failures.len().min(5)];
        let count = self.failures.len();
        assert!(count == 0, "{count} calls failed besides {} answered ones: {first:?}", self.answered);
        assert_eq!(self.disconnected, 0, "answers that the server is out of reach");
        assert!(self.answered >= least, "only {} calls were answered", self.answered);
    }
}

fn tcp(address: SocketAddr) -> Result<TcpStream, (CallFailureKind, String)> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_MAX).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWER_MAX)).map_err(failed)?;
    Ok(stream)
}

fn unix(path: &Path) -> Result<UnixStream, (CallFailureKind, String)> {
    let stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWER_MAX)).map_err(failed)?;
    Ok(stream)
}

fn talk(mut stream: impl Read + Write, question: &[u8]) -> Result<CallAnswer, (CallFailureKind, String)> {
    stream.write_all(question).map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    if answer.is_empty() {
        return Err((CallFailureKind::Unanswered, "closed without an answer".to_owned()));
    }
    let text = String::from_utf8_lossy(&answer);
    let named = ["child", "process"].iter().find_map(|word| text.split_once(word));
    let digits = named.map(|(_, rest)| rest.trim_start_matches([' ', '/']));
    let digits = digits.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
    Ok(CallAnswer::From(digits.and_then(|digits| digits.parse().ok()).map(Pid::from_raw)))
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn failed(error: io::Error) -> (CallFailureKind, String) {
    (kind(&error), error.to_string())
}

fn kind(error: &io::Error) -> CallFailureKind {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => CallFailureKind::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            CallFailureKind::Reset
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => CallFailureKind::Unanswered,
        _ => CallFailureKind::Other,
    }
}

fn kind_of(error: &Error) -> CallFailureKind {
    match error {
        Error::Connect { source, .. } | Error::Io { source, .. } => kind(source),
        Error::Closed | Error::Timeout { .. } => CallFailureKind::Unanswered,
        _ => CallFailureKind::Other,
    }
}
