//! Starting the log.

use super::line::TimestampFormat;
use super::options::{LogFilter, LogFormat, LogOptions};
use super::stderr::Stderr;
use super::stream::{StdStream, StdStreams};
use super::syslog::{PATIENCE, SYSLOG_PATH, Syslog};
use nix::sys::signal::{SigSet, Signal};
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, IsTerminal};
use thiserror::Error;
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::fmt::{MakeWriter, layer};
use tracing_subscriber::layer::SubscriberExt;

/// Why the log cannot be started.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LogError {
    /// The process already has a log.
    #[error("the log is already started")]
    Started,
}

/// The log of this process, and its standard streams.
#[derive(Clone, Debug)]
pub struct Log {
    streams: StdStreams,
    patient: Option<Dispatch>,
}

/// Starts the log of this process; `program` is its name. From then on the events of `tracing` are logged
/// according to `options`. `SIGXFSZ` is blocked in this thread and the threads it starts, so that a log file
/// at the size limit of the process drops lines and does not end the process. A command that replaces the
/// process should call [`unblock`] first. A program that `detaches` may call this before or after it releases
/// its streams.
///
/// # Errors
///
/// [`LogError::Started`] if the process has a log already. An unavailable syslog daemon is not an error, but
/// is reported on standard error.
pub fn start(options: &LogOptions, program: &'static str, detaches: bool) -> Result<Log, LogError> {
    // A blocked signal makes the write fail, too; no safe call ignores it. Blocking cannot fail for a valid
    // mask.
    SigSet::from(Signal::SIGXFSZ).thread_block().ok();
    let streams = StdStreams::standard(detaches);
    if options.syslog {
        let writer = Syslog::new(SYSLOG_PATH, program);
        if let Err(error) = writer.look() {
            let text =
                format!("{program}: cannot log until a syslog daemon listens at {SYSLOG_PATH}: {error}\n");
            // There is no other place to report it.
            streams.write(StdStream::Errors, text.as_bytes()).ok();
        }
        let all = LogOptions { filter: LogFilter::default(), debug: false, ..options.clone() };
        let patient = Dispatch::new(subscriber(&all, LineStyle::Syslog, writer.patient(PATIENCE)));
        global(subscriber(options, LineStyle::Syslog, writer))?;
        return Ok(Log { streams, patient: Some(patient) });
    }
    let colour = options.format == LogFormat::Text
        && coloured(io::stderr().is_terminal(), |name| std::env::var_os(name));
    let writer = Stderr::new(streams.clone(), options.format, colour);
    global(subscriber(options, if colour { LineStyle::Colour } else { LineStyle::Plain }, writer))?;
    Ok(Log { streams, patient: None })
}

/// Undoes the change of [`start`] to the signal mask, for a process that is about to exec another program.
pub fn unblock() {
    SigSet::from(Signal::SIGXFSZ).thread_unblock().ok();
}

/// Reports a failure of the program to syslog, if `options` log there. The log need not be started.
pub fn log_to_syslog(options: &LogOptions, program: &'static str, failure: &impl Display) {
    if options.syslog {
        let writer = Syslog::new(SYSLOG_PATH, program).patient(PATIENCE);
        let last = Dispatch::new(subscriber(options, LineStyle::Syslog, writer));
        tracing::dispatcher::with_default(&last, || tracing::error!("{failure}"));
    }
}

impl Log {
    /// Writes lines to a standard stream unchanged, at most [`WRITE_BYTES_MAX`](super::WRITE_BYTES_MAX)
    /// bytes, and waits for capacity. Log lines do not wait for it, and do not interleave with it.
    ///
    /// # Errors
    /// The error of the system.
    pub fn pass(&self, standard: StdStream, lines: &[u8]) -> io::Result<()> {
        self.streams.put_patiently(standard, lines)
    }

    /// Makes events that `tell` emits in this thread wait up to a second each if they go to syslog, and logs
    /// them there from level info on, whatever `-log` is. To be called where a wait is harmless.
    pub fn with_timeout<T>(&self, tell: impl FnOnce() -> T) -> T {
        match &self.patient {
            Some(patient) => tracing::dispatcher::with_default(patient, tell),
            None => tell(),
        }
    }
}

/// The style of a line of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineStyle {
    /// Time and level, without colours.
    Plain,
    /// Time and level, with colours.
    Colour,
    /// Neither: syslog adds them itself.
    Syslog,
}

fn global(subscriber: Box<dyn Subscriber + Send + Sync>) -> Result<(), LogError> {
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Started)
}

fn subscriber<W>(options: &LogOptions, look: LineStyle, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let registry = tracing_subscriber::registry().with(options.env_filter());
    // A write error must not be reported on stderr, which may be the failing stream.
    let layer = layer().with_writer(writer).with_ansi(look == LineStyle::Colour).log_internal_errors(false);
    match (options.format, look) {
        (LogFormat::Json, _) => {
            Box::new(registry.with(layer.json().flatten_event(true).with_timer(TimestampFormat)))
        }
        (LogFormat::Text, LineStyle::Syslog) => {
            Box::new(registry.with(layer.compact().with_target(false).with_level(false).without_time()))
        }
        (LogFormat::Text, LineStyle::Plain | LineStyle::Colour) => {
            Box::new(registry.with(layer.compact().with_target(false).with_timer(TimestampFormat)))
        }
    }
}

/// Whether lines have colours: on a terminal that supports them, unless the user disabled them.
fn coloured(terminal: bool, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> bool {
    let unwanted = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    let unable = variable("TERM").is_some_and(|term| term == OsStr::new("dumb"));
    terminal && !unwanted && !unable
}

#[cfg(test)]
mod tests {
    use super::super::options::LogFilter;
    use super::*;
    use std::io::{self, Read, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct SharedWriter(Arc<Mutex<Vec<u8>>>);

    impl Write for SharedWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn options(filter: &str, format: LogFormat, debug: bool) -> LogOptions {
        LogOptions { filter: LogFilter::parse(filter).unwrap(), format, syslog: false, debug }
    }

    fn logged(options: &LogOptions, look: LineStyle) -> String {
        let lines = SharedWriter::default();
        let writer = lines.clone();
        tracing::subscriber::with_default(subscriber(options, look, move || writer.clone()), || {
            tracing::error!(connection = 3, peer = "a b", "went away");
            tracing::info!("serving");
            tracing::debug!("detail");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_line_has_time_level_message_and_fields() {
        let text = logged(&options("info", LogFormat::Text, false), LineStyle::Plain);
        let lines: Vec<_> = text.lines().map(|line| line.split_once('Z').unwrap()).collect();
        assert_eq!(lines[0].0.len(), "2026-03-01T12:00:01.204".len());
        assert_eq!(
            [lines[0].1, lines[1].1],
            [" ERROR went away connection=3 peer=\"a b\"", "  INFO serving"]
        );
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn json_line_is_one_object() {
        let text = logged(&options("info", LogFormat::Json, false), LineStyle::Plain);
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["level"], "ERROR");
        assert_eq!(first["message"], "went away");
        assert_eq!((&first["connection"], &first["peer"]), (&3.into(), &"a b".into()));
        let time = first["timestamp"].as_str().unwrap();
        assert!(time.len() == "2026-03-01T12:00:01.204Z".len() && time.ends_with('Z'));
    }

    #[test]
    fn debug_option_overrides_the_filter() {
        let lines = |filter, debug| {
            logged(&options(filter, LogFormat::Text, debug), LineStyle::Plain).lines().count()
        };
        assert_eq!(lines("error", false), 1);
        assert_eq!(lines("trace", false), 3);
        assert_eq!(lines("off", false), 0);
        assert_eq!(lines("off", true), 3);
        assert_eq!(lines("dc_daemon=info,warn", false), 2);
    }

    #[test]
    fn syslog_line_has_no_time_and_level() {
        let text = logged(&options("info", LogFormat::Text, false), LineStyle::Syslog);
        assert_eq!(text.lines().map(str::trim_start).next_back(), Some("serving"));
        assert!(text.starts_with("went away connection=3"));
    }

    #[test]
    fn colours_need_a_terminal_and_no_opt_out() {
        let with = |terminal, name: &'static str, value: &'static str| {
            coloured(terminal, move |asked| (asked == name).then(|| value.into()))
        };
        assert!(with(true, "TERM", "xterm"));
        assert!(with(true, "NO_COLOR", ""));
        assert!(!with(true, "NO_COLOR", "1"));
        assert!(!with(true, "TERM", "dumb"));
        assert!(!with(false, "TERM", "xterm"));
        assert!(logged(&options("info", LogFormat::Text, false), LineStyle::Colour).contains("\u{1b}["));
    }

    #[test]
    fn peer_data_cannot_forge_a_line() {
        let (mut reader, writer) = io::pipe().unwrap();
        let options = options("info", LogFormat::Text, false);
        let writer = Stderr::new(StdStreams::to(writer), LogFormat::Text, false);
        tracing::subscriber::with_default(subscriber(&options, LineStyle::Plain, writer), || {
            tracing::info!(key = %"a\n2026-01-01T00:00:00.000Z  INFO forged\u{1b}[31m", "locked");
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("key=a\\n2026") && !text.contains('\u{1b}'), "{text}");
    }
}
