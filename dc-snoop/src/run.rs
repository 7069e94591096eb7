//! The two modes: relaying until a signal, and decoding a capture.

use crate::capture::file::CaptureReader;
use crate::capture::packet::TcpSegment;
use crate::capture::writer::CaptureWriter;
use crate::clock::WallClock;
use crate::decoder::{Decoder, DecoderOptions};
use crate::filter::Filters;
use crate::line::LineWriter;
use crate::monitor::RelayMonitor;
use crate::options::View;
use crate::printer::{OutputFormat, Printer, print_now};
use crate::relay;
use crate::replay::Replay;
use crate::socket::Acceptor;
use crate::stats::TrafficStats;
use dc_daemon::file_limit;
use dc_daemon::listen::{ListenError, Listener, SocketPermissions};
use dc_daemon::signals::{SignalPolicy, SignalStream};
use dc_snoop::decode::Redaction;
use jiff::tz::TimeZone;
use libdc::net::address::Address;
use pcap_file::PcapError;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Read, Write, stdout};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Most empty tables of `-stats` in a row when a capture has a long pause.
const EMPTY_TABLES_MAX: u32 = 60;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SnoopError {
    /// A runtime, thread or signal handler could not be created.
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    /// The listener could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The file of `-write` cannot be made.
    #[error("-write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The file of `-read` cannot be opened.
    #[error("-read {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The file of `-read` is no capture, or ends inside a packet.
    #[error("-read {}: {}", path.display(), describe(source))]
    Read { path: PathBuf, source: PcapError },
    /// The output cannot be written.
    #[error("cannot write to the standard output: {0}")]
    Output(#[source] io::Error),
}

/// The crate says "error reading bytes" and keeps the reason in `source`.
fn describe(error: &PcapError) -> String {
    match error {
        PcapError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            "it ends inside a packet".to_owned()
        }
        PcapError::IoError(error) => error.to_string(),
        other => format!("it is not a capture that can be read: {other}"),
    }
}

/// Relays from `listen` to `server` until a signal, the end of the output, or the requested number of
/// messages.
pub(crate) fn relay(
    listen: &Address,
    server: Address,
    write: Option<&Path>,
    view: &View,
) -> Result<(), SnoopError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SnoopError::Start)?;
    let end = LocalSet::new().block_on(&runtime, async {
        // On failure there are fewer connections, and accepting them reports it.
        file_limit::raise().ok();
        let mut signals = SignalStream::listen(SignalPolicy::default()).map_err(SnoopError::Start)?;
        let listener = Listener::bind(listen, &SocketPermissions::default())?;
        let local = listener.local_address();
        let (socket, file) = listener.into_parts();
        let acceptor = Acceptor::new(socket).map_err(SnoopError::Start)?;
        let recorder = write.map(|path| {
            let description = format!("relayed from {listen} to {server}");
            CaptureWriter::start(path, &description)
                .map_err(|source| SnoopError::Write { path: path.to_owned(), source })
        });
        let recorder = recorder.transpose()?;
        let printer = Printer::start(format_of(view), stdout()).map_err(SnoopError::Start)?;
        let closed = printer.closed();
        let clock = WallClock::start();
        let watch = Rc::new(RelayMonitor::new(
            clock,
            Decoder::new(tap_options(view), clock.now()),
            printer,
            recorder,
        ));
        match local {
            Some(local) => eprintln!("dc_snoop: listening on {listen} ({local})"),
            None => eprintln!("dc_snoop: listening on {listen}"),
        }
        tokio::select! {
            () = relay::run(&acceptor, server, Rc::clone(&watch)) => {}
            () = tables(&watch, view) => {}
            _ = signals.shutdown() => {}
            () = closed.notified() => {}
            () = watch.done() => {}
        }
        if let Some(total) = watch.total_stats() {
            watch.print_text(format!(
                "{}{}",
                if view.json { "" } else { "\nin all\n" },
                show(&total, watch.now(), view)
            ));
        }
        watch.finish_all();
        // Removes the socket's path.
        drop(file);
        Ok(())
    });
    // A pending name lookup must not delay the exit.
    runtime.shutdown_background();
    end
}

/// Prints a table at each interval, or waits without end.
async fn tables(watch: &RelayMonitor, view: &View) {
    let Some(period) = view.stats else { return std::future::pending().await };
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if let Some(stats) = watch.take_stats() {
            watch.print_text(show(&stats, watch.now(), view));
        }
    }
}

/// Decodes the capture `path`.
pub(crate) fn read(path: &Path, view: &View) -> Result<(), SnoopError> {
    let opened: io::Result<Box<dyn Read>> = if path.as_os_str() == "-" {
        Ok(Box::new(io::stdin().lock()))
    } else {
        File::open(path).map(|file| Box::new(file) as _)
    };
    let file = opened.map_err(|source| SnoopError::Open { path: path.to_owned(), source })?;
    let mut output = StandardOutput { format: format_of(view), out: BufWriter::new(stdout().lock()) };
    let failed = |source| SnoopError::Read { path: path.to_owned(), source };
    let mut reader = CaptureReader::new(file).map_err(failed)?;
    let mut reading = CaptureReplay::new(view);
    // Records before the malformed packet are shown in any case.
    let result = loop {
        match reader.next() {
            Ok(Some(packet)) => {
                let Some(segment) = TcpSegment::of_packet(packet.link, &packet.packet) else { continue };
                if is_closed(reading.segment(packet.at, &segment, &mut output))? {
                    return Ok(());
                }
                if reading.tap.is_done() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(failed(error)),
        }
    };
    let end = reading.finish(&mut output);
    if is_closed(end)? { Ok(()) } else { result }
}

/// A capture being decoded.
struct CaptureReplay<'a> {
    view: &'a View,
    tap: Decoder,
    replay: Replay,
    at: Option<Duration>,
    next_table: Duration,
}

impl<'a> CaptureReplay<'a> {
    fn new(view: &'a View) -> Self {
        let tap = Decoder::new(tap_options(view), Duration::ZERO);
        Self { view, tap, replay: Replay::default(), at: None, next_table: Duration::MAX }
    }

    fn segment(
        &mut self,
        at: Duration,
        segment: &TcpSegment<'_>,
        output: &mut StandardOutput<'_>,
    ) -> io::Result<()> {
        if self.at.is_none() {
            self.tap = Decoder::new(tap_options(self.view), at);
            self.next_table = self.view.stats.map_or(Duration::MAX, |period| at.saturating_add(period));
        }
        self.at = Some(at);
        let period = self.view.stats.unwrap_or_default();
        for _ in 0..EMPTY_TABLES_MAX {
            if at < self.next_table {
                break;
            }
            if let Some(stats) = self.tap.take_stats(self.next_table) {
                output.text(&show(&stats, self.next_table, self.view))?;
            }
            self.next_table = self.next_table.saturating_add(period);
        }
        if at >= self.next_table {
            self.next_table = at.saturating_add(period);
        }
        self.replay.segment(&mut self.tap, at, segment);
        output.records(&mut self.tap)
    }

    fn finish(&mut self, output: &mut StandardOutput<'_>) -> io::Result<()> {
        let at = self.at.unwrap_or_default();
        self.replay.finish(&mut self.tap, at);
        output.records(&mut self.tap)?;
        if let Some(total) = self.tap.total_stats(at) {
            output.text(if self.view.json { "" } else { "\nin all\n" })?;
            output.text(&show(&total, at, self.view))?;
        }
        output.out.flush()
    }
}

/// The standard output, waited for.
struct StandardOutput<'a> {
    format: OutputFormat,
    out: BufWriter<io::StdoutLock<'a>>,
}

impl StandardOutput<'_> {
    fn records(&mut self, tap: &mut Decoder) -> io::Result<()> {
        print_now(&mut self.format, &mut self.out, &tap.drain())
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }
}

/// Whether the output was closed by its reader, which ends the program without an error.
fn is_closed(result: io::Result<()>) -> Result<bool, SnoopError> {
    match result {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(SnoopError::Output(error)),
    }
}

fn show(stats: &TrafficStats, now: Duration, view: &View) -> String {
    if view.json { stats.json(now) } else { stats.table(now, &TimeZone::system()) }
}

fn tap_options(view: &View) -> DecoderOptions {
    DecoderOptions {
        filters: Filters::new(view.filters.clone()),
        connections: view.connections,
        keep_bytes: view.hex,
        count: view.count,
        stats: view.stats.is_some(),
    }
}

fn format_of(view: &View) -> OutputFormat {
    let secrets = if view.secrets { Redaction::Shown } else { Redaction::Hidden };
    if view.json {
        OutputFormat::Json(secrets)
    } else {
        OutputFormat::Text(Box::new(LineWriter::new(secrets, TimeZone::system(), wants_colour())))
    }
}

/// On a terminal with colours, unless `NO_COLOR` is set (no-color.org).
fn wants_colour() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stdout().is_terminal()
        && !is_set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
