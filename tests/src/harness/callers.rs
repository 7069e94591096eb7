//! A load of new connections: each sends one request, reads the whole answer and closes, in a loop.
//!
//! It detects requests that a restart disturbs: a connection refused, reset or left unanswered.
//! [`Callers::finish`] returns the counters; [`CallCounters::all_answered`] asserts that no call failed.

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

/// Number of concurrent callers. More would slow down the start of the servers on two processors.
const THREADS: usize = 3;
/// Pause of a caller between two calls, for the same reason.
const PAUSE: Duration = Duration::from_micros(500);
/// The longest time an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Running caller threads; dropping this stops them.
#[derive(Debug)]
pub struct Callers {
    shared: Arc<CallersShared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct CallersShared {
    counters: Mutex<CallCounters>,
    changed: Condvar,
    stopped: Mutex<bool>,
    stop: Condvar,
    started: Instant,
}

/// Results of the calls made so far.
#[derive(Clone, Debug, Default)]
pub struct CallCounters {
    /// Calls that got a complete answer.
    pub answered: u64,
    /// Answered calls per child process, where the answer names one.
    pub by_child: BTreeMap<Pid, u64>,
    /// Calls answered with DISCONNECTED by an agent that cannot reach the server.
    pub disconnected: u64,
    /// Calls with any other result.
    pub failures: Vec<CallFailure>,
}

/// A call that was not answered.
#[derive(Clone, Debug)]
pub struct CallFailure {
    /// Distinguishes refused, reset and unanswered calls.
    pub kind: CallFailureKind,
    /// The error text of the system or the client.
    pub error: String,
    /// Time since the callers started.
    pub after: Duration,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailureKind {
    /// No listener at the address.
    Refused,
    /// The connection was reset or aborted.
    Reset,
    /// The connection closed without an answer, or the answer timed out.
    Unanswered,
    /// Any other error, such as no free local port.
    Other,
}

/// The result of one successful call.
enum CallAnswer {
    /// An answer, with the child's pid if it names one.
    From(Option<Pid>),
    /// DISCONNECTED from an agent that cannot reach the server.
    Disconnected,
}

impl Callers {
    /// Starts callers of `dc_child` over TCP.
    #[must_use]
    pub fn of_child(address: SocketAddr) -> Self {
        Self::start(move |_| talk(tcp(address)?, b"who\n"))
    }

    /// Starts callers of `dc_child` on a Unix socket.
    #[must_use]
    pub fn of_child_at(path: &Path) -> Self {
        let path = PathBuf::from(path);
        Self::start(move |_| talk(unix(&path)?, b"who\n"))
    }

    /// Starts callers of an HTTP server that puts its pid behind `child/` in a header of its answer.
    #[must_use]
    pub fn of_http(address: SocketAddr) -> Self {
        Self::start(move |_| talk(tcp(address)?, b"GET / HTTP/1.0\r\n\r\n"))
    }

    /// Starts callers that store and look up sessions, through `dc_server` or `dc_client`.
    #[must_use]
    pub fn of_sessions(address: Address) -> Self {
        let ids = AtomicU64::new(0);
        Self::start(move |_| {
            let options = SessionOptions { connections: ConnectionMode::Temporary, timeout: ANSWER_MAX };
            let mut client = Client::new(address.clone(), options);
            let id = ids.fetch_add(1, Ordering::Relaxed);
            let result = if id.is_multiple_of(2) {
                client.add(&id.to_be_bytes(), b"session", PATIENCE)
            } else {
                client.get(&(id - 1).to_be_bytes()).map(drop)
            };
            match result {
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
            counters: Mutex::default(),
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

    /// Waits until this many further calls have been answered.
    pub fn wait_for(&self, count: u64) {
        let enough = self.shared.counters().answered + count;
        self.wait(&format!("{count} answers"), |counters| counters.answered >= enough);
    }

    /// Waits for an answer from this child.
    pub fn wait_for_child(&self, pid: Pid) {
        self.wait(&format!("an answer of child {pid}"), |counters| counters.by_child.contains_key(&pid));
    }

    /// Waits for an answer from a child not listed in `known`. Returns its pid.
    #[must_use]
    pub fn wait_for_another(&self, known: &[Pid]) -> Pid {
        let another =
            |counters: &CallCounters| counters.by_child.keys().find(|child| !known.contains(child)).copied();
        self.wait(&format!("an answer of another child than {known:?}"), |counters| {
            another(counters).is_some()
        });
        another(&self.shared.counters()).expect("the child that answered")
    }

    /// Waits for another answer from this child, besides those counted so far.
    pub fn wait_for_more_of(&self, pid: Pid) {
        let had = self.shared.counters().by_child.get(&pid).copied().unwrap_or_default();
        let more = |counters: &CallCounters| counters.by_child.get(&pid).is_some_and(|count| *count > had);
        self.wait(&format!("a further answer of child {pid}"), more);
    }

    /// Stops the callers. Returns the results of all calls.
    #[must_use]
    pub fn finish(mut self) -> CallCounters {
        self.stop();
        self.shared.counters().clone()
    }

    fn wait(&self, what: &str, holds: impl Fn(&CallCounters) -> bool) {
        let counters = self.shared.counters();
        let waited = self.shared.changed.wait_timeout_while(counters, PATIENCE, |counters| !holds(counters));
        let (counters, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "{what} did not happen within {PATIENCE:?}: {counters:?}");
    }

    fn stop(&mut self) {
        *self.shared.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.stop.notify_all();
        self.threads.drain(..).for_each(|thread| thread.join().expect("a caller thread that does not panic"));
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl CallersShared {
    fn counters(&self) -> MutexGuard<'_, CallCounters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, called: Result<CallAnswer, (CallFailureKind, String)>) {
        let mut counters = self.counters();
        match called {
            Ok(CallAnswer::From(child)) => {
                counters.answered += 1;
                child.into_iter().for_each(|child| *counters.by_child.entry(child).or_default() += 1);
            }
            Ok(CallAnswer::Disconnected) => counters.disconnected += 1,
            Err((kind, error)) => {
                counters.failures.push(CallFailure { kind, error, after: self.started.elapsed() });
            }
        }
        drop(counters);
        self.changed.notify_all();
    }

    /// Waits for the pause between calls. Returns whether to stop.
    fn pause(&self) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.stop.wait_timeout_while(stopped, PAUSE, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl CallCounters {
    /// Asserts that all calls were answered, at least `least` of them, and none with DISCONNECTED.
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

#[allow(clippy::needless_pass_by_value, reason = "the signature that map_err takes")]
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
