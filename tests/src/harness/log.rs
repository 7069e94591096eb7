//! The output of a process, line by line, as it is written.

use crate::harness::patience::PATIENCE;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The lines that a process has written so far. Clones share one log.
#[derive(Clone, Debug, Default)]
pub struct CapturedLog {
    shared: Arc<LogShared>,
}

#[derive(Debug, Default)]
struct LogShared {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LogState {
    lines: Vec<String>,
    /// The first line not yet examined by [`CapturedLog::expect`].
    next: usize,
    /// Number of pipes that are still open.
    open: usize,
}

impl CapturedLog {
    /// Reads a pipe to its end, in a thread.
    pub fn follow(&self, pipe: impl Read + Send + 'static) {
        self.lock().open += 1;
        let log = self.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                log.lock().lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                log.shared.changed.notify_all();
                line.clear();
            }
            log.lock().open -= 1;
            log.shared.changed.notify_all();
        });
    }

    /// Waits for a line with `text` after the line that the last call returned.
    pub fn expect(&self, text: &str) -> String {
        let what = format!("a line with {text:?}");
        self.wait(&what, |state| {
            let found = state.lines[state.next..].iter().position(|line| line.contains(text));
            if let Some(found) = found {
                state.next += found + 1;
                return Some(state.lines[state.next - 1].clone());
            }
            assert!(state.open > 0, "the process ended without {what}");
            None
        })
    }

    /// Waits for a line with `text` anywhere in the log: two writers have no order.
    pub fn wait_for(&self, text: &str) -> String {
        let what = format!("a line with {text:?}");
        self.wait(&what, |state| {
            let found = state.lines.iter().find(|line| line.contains(text)).cloned();
            assert!(found.is_some() || state.open > 0, "the process ended without {what}");
            found
        })
    }

    /// Skips all lines read so far: [`expect`](Self::expect) continues after them.
    pub fn skip(&self) {
        let mut state = self.lock();
        state.next = state.lines.len();
    }

    /// The lines with `text` so far.
    #[must_use]
    pub fn with(&self, text: &str) -> Vec<String> {
        self.lock().lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// All lines so far, of both streams.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Waits until all pipes are closed, so all writers have exited.
    pub fn wait_for_end(&self) {
        self.wait("the end of the process", |state| (state.open == 0).then_some(()));
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut(&mut LogState) -> Option<T>) -> T {
        let mut found = None;
        let state = self.lock();
        let waiting = self.shared.changed.wait_timeout_while(state, PATIENCE, |state| {
            found = look(state);
            found.is_none()
        });
        drop(waiting);
        found.unwrap_or_else(|| panic!("{what} did not happen within {PATIENCE:?}"))
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        // A panic of another thread left the lines valid.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The timestamp at the start of a log line; timestamps compare as strings.
#[must_use]
pub fn time_of(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}
