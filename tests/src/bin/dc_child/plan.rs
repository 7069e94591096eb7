//! What a child is to do: a word for each argument, in any order.
//!
//! | word | |
//! |---|---|
//! | `@FILE` | the words in this file, one a line; for a plan that changes while the master runs |
//! | `report=FILE` | write to FILE what was found at the start, see `report`, and then the line `reported` |
//! | `output` | write lines that are long, binary, and not ended |
//! | `chatter` | write lines for ever, and no others: for a standard output that nobody reads |
//! | `die=STATUS` | end at once |
//! | `start-after=MS` | do nothing for so long |
//! | `extend=MS` | ask for so much more time to start |
//! | `ready`, `ready-after=MS` | say that it is ready, when it serves or so long after its start |
//! | `ready-when=FILE` | say so when there is such a file |
//! | `status=TEXT` | say so of its state then, in the same datagram |
//! | `last-word` | end with status 3 as soon as it has said so |
//! | `said=FILE` | make FILE then |
//! | `ready-by-helper` | have a process say so that it starts |
//! | `mute` | accept nothing |
//! | `answer-after=MS` | answer each connection only so long after its request |
//! | `die-after=MS`, `die-when=FILE` | end with status 3 so long after its start, or when there is such a file |
//! | `deaf` | heed no signal |
//! | `linger-until=FILE` | told to end, do so when there is such a file |
//! | `grandchild=FILE` | start a process that has the sockets and ends when there is such a file |
//! | `orphans=N` | leave N processes behind, which end at once |
//! | `store=NAME:TEXT` | store a descriptor with this text behind it; NAME may be empty |
//! | `store-closed=NAME` | store a descriptor whose other end is closed when the child ends |
//! | `store-unpolled=NAME` | the same, and have it kept nevertheless |
//! | `remove=NAME` | remove what was stored |
//! | `helper`, `left-behind=FILE`, `leave-orphan` | it is a process that one of the above started |

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What a child is to do.
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

/// Who says `READY=1`, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadyPlan {
    /// The child, so long after its start, but not before it serves.
    After(Duration),
    /// The child, when there is such a file.
    When(PathBuf),
    /// A process that it has started.
    ByHelper,
}

/// A descriptor for the store.
#[derive(Debug)]
pub(crate) struct StorePlan {
    pub(crate) name: String,
    /// What is behind it; a pipe whose other end the child has where it is `None`.
    pub(crate) text: Option<String>,
    /// Whether it goes when its other end does.
    pub(crate) polled: bool,
}

impl ChildPlan {
    /// The plan that these words make.
    ///
    /// # Errors
    /// A word means nothing, or a file of words can't be read.
    pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> io::Result<Self> {
        let mut plan = Self::default();
        for word in words {
            let word = word.into_string().map_err(|word| wrong(&word.to_string_lossy()))?;
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
                let (name, text) = value.split_once(':').ok_or_else(|| wrong(word))?;
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
            _ => return Err(wrong(word)),
        }
        Ok(())
    }
}

fn number<T: FromStr>(word: &str, value: &str) -> io::Result<T> {
    value.parse().map_err(|_| wrong(word))
}

fn milliseconds(word: &str, value: &str) -> io::Result<Duration> {
    number(word, value).map(Duration::from_millis)
}

fn wrong(word: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{word:?} is no part of a plan"))
}
