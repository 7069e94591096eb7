//! The behaviour of a child: one word for each argument, in any order.
//!
//! | word | |
//! |---|---|
//! | `@FILE` | reads words from this file, one a line; for a plan that changes while the master runs |
//! | `report=FILE` | writes to FILE the environment found at the start, see `report`, and then the line
//! `reported` |
//! | `output` | writes a long line, a binary one, and one without a newline |
//! | `chatter` | writes lines without end, and no others: for a standard output that is not read |
//! | `die=STATUS` | exits at once |
//! | `start-after=MS` | delays the start |
//! | `extend=MS` | sends EXTEND_TIMEOUT_USEC with this time |
//! | `ready`, `ready-after=MS` | sends READY=1 when it serves, or at this time after its start |
//! | `ready-when=FILE` | sends READY=1 when FILE exists |
//! | `status=TEXT` | adds STATUS to that message |
//! | `last-word` | exits with status 3 right after that message |
//! | `said=FILE` | creates FILE right after that message |
//! | `ready-by-helper` | lets a child process send READY=1 |
//! | `mute` | accepts no connection |
//! | `answer-after=MS` | delays each answer |
//! | `die-after=MS`, `die-when=FILE` | exits with status 3 at this time after its start, or when FILE exists |
//! | `deaf` | ignores signals |
//! | `linger-until=FILE` | after a signal, exits only when FILE exists |
//! | `grandchild=FILE` | starts a process that inherits the sockets and exits when FILE exists |
//! | `orphans=N` | leaves N orphans, which exit at once |
//! | `store=NAME:TEXT` | stores the descriptor of a file that contains TEXT; NAME may be empty |
//! | `store-closed=NAME` | stores the descriptor of a pipe whose other end closes when the child exits |
//! | `store-unpolled=NAME` | the same with FDPOLL=0, so it stays stored |
//! | `remove=NAME` | removes a stored descriptor |
//! | `helper`, `left-behind=FILE`, `leave-orphan` | the plans of the processes started by words above |

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The parsed words. Fields are named after them.
#[derive(Debug, Default)]
pub(crate) struct ChildPlan {
    pub(crate) report: Option<PathBuf>,
    pub(crate) output: bool,
    pub(crate) chatter: bool,
    pub(crate) die: Option<u8>,
    pub(crate) start_after: Duration,
    pub(crate) extend: Option<Duration>,
    pub(crate) ready: Option<ReadyPlan>,
    pub(crate) status: Option<String>,
    pub(crate) last_word: bool,
    pub(crate) said: Option<PathBuf>,
    pub(crate) mute: bool,
    pub(crate) answer_after: Duration,
    pub(crate) die_after: Option<Duration>,
    pub(crate) die_when: Option<PathBuf>,
    pub(crate) deaf: bool,
    pub(crate) linger_until: Option<PathBuf>,
    pub(crate) grandchild: Option<PathBuf>,
    pub(crate) orphans: u32,
    pub(crate) store: Vec<StorePlan>,
    pub(crate) remove: Vec<String>,
    pub(crate) helper: bool,
    pub(crate) left_behind: Option<PathBuf>,
    pub(crate) leave_orphan: bool,
}

/// The sender and the time of `READY=1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadyPlan {
    /// The child, at this time after its start, but not before it serves.
    After(Duration),
    /// The child, when this file exists.
    When(PathBuf),
    /// A child process that it has started.
    ByHelper,
}

/// A descriptor to be stored with the master.
#[derive(Debug)]
pub(crate) struct StorePlan {
    pub(crate) name: String,
    /// Content of the file; `None` for a pipe whose other end the child holds.
    pub(crate) text: Option<String>,
    /// Whether the master drops it when its other end closes.
    pub(crate) polled: bool,
}

impl ChildPlan {
    /// Parses the words of a plan.
    ///
    /// # Errors
    /// A word is unknown, or a file of words cannot be read.
    pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> io::Result<Self> {
        let mut plan = Self::default();
        for word in words {
            let word = word.into_string().map_err(|word| unknown_word(&word.to_string_lossy()))?;
            match word.strip_prefix('@') {
                Some(file) => {
                    let text = std::fs::read_to_string(file)?;
                    text.lines().try_for_each(|line| plan.add(line))?;
                }
                None => plan.add(&word)?,
            }
        }
        Ok(plan)
    }

    fn add(&mut self, word: &str) -> io::Result<()> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "report" => self.report = Some(value.into()),
            "output" => self.output = true,
            "chatter" => self.chatter = true,
            "die" => self.die = Some(number(word, value)?),
            "start-after" => self.start_after = milliseconds(word, value)?,
            "extend" => self.extend = Some(milliseconds(word, value)?),
            "ready" => self.ready = Some(ReadyPlan::After(Duration::ZERO)),
            "ready-after" => self.ready = Some(ReadyPlan::After(milliseconds(word, value)?)),
            "ready-when" => self.ready = Some(ReadyPlan::When(value.into())),
            "status" => self.status = Some(value.to_owned()),
            "last-word" => self.last_word = true,
            "said" => self.said = Some(value.into()),
            "ready-by-helper" => self.ready = Some(ReadyPlan::ByHelper),
            "mute" => self.mute = true,
            "answer-after" => self.answer_after = milliseconds(word, value)?,
            "die-after" => self.die_after = Some(milliseconds(word, value)?),
            "die-when" => self.die_when = Some(value.into()),
            "deaf" => self.deaf = true,
            "linger-until" => self.linger_until = Some(value.into()),
            "grandchild" => self.grandchild = Some(value.into()),
            "orphans" => self.orphans = number(word, value)?,
            "store" => {
                let (name, text) = value.split_once(':').ok_or_else(|| unknown_word(word))?;
                self.store.push(StorePlan {
                    name: name.to_owned(),
                    text: Some(text.to_owned()),
                    polled: true,
                });
            }
            "store-closed" | "store-unpolled" => {
                let polled = name == "store-closed";
                self.store.push(StorePlan { name: value.to_owned(), text: None, polled });
            }
            "remove" => self.remove.push(value.to_owned()),
            "helper" => self.helper = true,
            "left-behind" => self.left_behind = Some(value.into()),
            "leave-orphan" => self.leave_orphan = true,
            _ => return Err(unknown_word(word)),
        }
        Ok(())
    }
}

fn number<T: FromStr>(word: &str, value: &str) -> io::Result<T> {
    value.parse().map_err(|_| unknown_word(word))
}

fn milliseconds(word: &str, value: &str) -> io::Result<Duration> {
    number(word, value).map(Duration::from_millis)
}

fn unknown_word(word: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{word:?} is not a word of a plan"))
}
