//! Output of the relay: decodes and prints the traffic, and writes it to a file. Nothing here blocks.

use crate::capture::packet::TcpEndpoints;
use crate::capture::writer::{CaptureEvent, CaptureEventKind, CaptureWriter};
use crate::clock::WallClock;
use crate::decoder::Decoder;
use crate::printer::Printer;
use crate::record::ConnectionClose;
use crate::socket::AcceptedConnection;
use crate::stats::TrafficStats;
use dc_snoop::observe::Endpoint;
use std::cell::{Cell, RefCell};
use std::time::Duration;
use tokio::sync::Notify;

/// Looks on at the relay, from every connection of its one thread.
#[derive(Debug)]
pub(crate) struct RelayMonitor {
    clock: WallClock,
    tap: RefCell<Decoder>,
    printer: RefCell<Printer>,
    recorder: RefCell<Option<CaptureWriter>>,
    opened: Cell<u64>,
    done: Notify,
}

impl RelayMonitor {
    pub(crate) fn new(
        clock: WallClock,
        tap: Decoder,
        printer: Printer,
        recorder: Option<CaptureWriter>,
    ) -> Self {
        Self {
            clock,
            tap: RefCell::new(tap),
            printer: RefCell::new(printer),
            recorder: RefCell::new(recorder),
            opened: Cell::new(0),
            done: Notify::new(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// A connection was accepted; its number.
    pub(crate) fn open(&self, accepted: &AcceptedConnection) -> u64 {
        let (at, connection) = (self.now(), self.opened.get() + 1);
        self.opened.set(connection);
        let ends = TcpEndpoints::new(connection, accepted.ends);
        self.record(at, connection, || CaptureEventKind::Opened { ends, from: accepted.from.clone() });
        self.tap.borrow_mut().open(at, connection, accepted.from.clone());
        self.print();
        connection
    }

    /// The connection to the server was established.
    pub(crate) fn accepted(&self, connection: u64) {
        self.record(self.now(), connection, || CaptureEventKind::Accepted);
    }

    /// The connection to the server failed.
    pub(crate) fn refuse(&self, connection: u64, why: String) {
        let at = self.now();
        self.record(at, connection, || CaptureEventKind::Reset { sender: Endpoint::Server });
        self.record(at, connection, || CaptureEventKind::Closed);
        self.tap.borrow_mut().refuse(at, connection, why);
        self.print();
    }

    /// Bytes were relayed, `offset` having been before them.
    pub(crate) fn bytes(&self, at: Duration, connection: u64, sender: Endpoint, offset: u64, bytes: &[u8]) {
        self.record(at, connection, || CaptureEventKind::Data { sender, offset, bytes: bytes.to_vec() });
        self.tap.borrow_mut().bytes(at, connection, sender, bytes);
        self.print();
    }

    /// `sender` sends no more; when that was.
    pub(crate) fn finish(&self, connection: u64, sender: Endpoint, offset: u64) -> Duration {
        let at = self.now();
        self.record(at, connection, || CaptureEventKind::Finished { sender, offset });
        at
    }

    /// The connection is over.
    pub(crate) fn close(&self, at: Duration, connection: u64, how: ConnectionClose) {
        if let ConnectionClose::Reset(sender) = how {
            self.record(at, connection, || CaptureEventKind::Reset { sender });
        }
        self.record(at, connection, || CaptureEventKind::Closed);
        self.tap.borrow_mut().close(at, connection, how);
        self.print();
    }

    /// Waits until the requested number of messages has been seen. Cancel-safe.
    pub(crate) async fn done(&self) {
        self.done.notified().await;
    }

    /// The statistics since the last call, if enabled.
    pub(crate) fn take_stats(&self) -> Option<TrafficStats> {
        self.tap.borrow_mut().take_stats(self.now())
    }

    /// The total statistics, if enabled.
    pub(crate) fn total_stats(&self) -> Option<TrafficStats> {
        self.tap.borrow_mut().total_stats(self.now())
    }

    pub(crate) fn print_text(&self, text: String) {
        self.printer.borrow_mut().print_text(text);
    }

    /// Reports unfinished messages, and waits until everything is printed and written.
    pub(crate) fn finish_all(&self) {
        self.tap.borrow_mut().close_all(self.now());
        self.print();
        if let Some(recorder) = self.recorder.take() {
            let lost = recorder.finish();
            if lost > 0 {
                eprintln!(
                    "dc_snoop: {lost} bytes are missing in the capture: the disk is slower than what passes"
                );
            }
        }
        self.printer.borrow_mut().finish();
    }

    fn record(&self, at: Duration, connection: u64, what: impl FnOnce() -> CaptureEventKind) {
        if let Some(recorder) = self.recorder.borrow_mut().as_mut() {
            recorder.record(CaptureEvent { at, connection, what: what() });
        }
    }

    fn print(&self) {
        let mut tap = self.tap.borrow_mut();
        self.printer.borrow_mut().print(tap.drain());
        if tap.is_done() {
            self.done.notify_one();
        }
    }
}
