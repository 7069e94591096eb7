//! Prints in a separate thread, so that a slow or stopped terminal does not delay the relay.
//!
//! At most [`QUEUED_BYTES_MAX`] wait for it. Records beyond that are dropped, counted, and reported in the
//! output. [`Printer::closed`] notifies when the reader of the output has gone.

use crate::json;
use crate::line::LineWriter;
use crate::record::TrafficRecord;
use dc_snoop::decode::Redaction;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::Notify;

/// Most memory that waits to be printed.
const QUEUED_BYTES_MAX: usize = 32 << 20;
/// Maximum number of batches waiting to be printed. A batch holds the records of one read.
const QUEUED_BATCHES_MAX: usize = 4096;
/// Maximum wait at the end of the program for a reader that does not read.
const PATIENCE: Duration = Duration::from_secs(2);

/// The format of records.
#[derive(Debug)]
pub(crate) enum OutputFormat {
    Text(Box<LineWriter>),
    Json(Redaction),
}

impl OutputFormat {
    fn write(&mut self, out: &mut String, record: &TrafficRecord) {
        match self {
            Self::Text(writer) => writer.write(out, record),
            Self::Json(secrets) => json::write(out, record, *secrets),
        }
    }

    fn dropped(&self, out: &mut String, count: u64) {
        let text = match self {
            Self::Text(_) => format!("… {count} not shown: the output is slower than what passes\n"),
            Self::Json(_) => format!("{{\"event\":\"dropped\",\"count\":{count}}}\n"),
        };
        out.push_str(&text);
    }
}

#[derive(Debug)]
struct Batch {
    records: Vec<TrafficRecord>,
    text: String,
    /// How many records were dropped before these.
    dropped: u64,
    cost: usize,
}

/// The end of the queue where records go in.
#[derive(Debug)]
pub(crate) struct Printer {
    /// `None` once it is finished.
    queue: Option<SyncSender<Batch>>,
    queued: Arc<AtomicUsize>,
    closed: Arc<Notify>,
    ended: Receiver<()>,
    dropped: u64,
}

impl Printer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's, if it has no thread to give.
    pub(crate) fn start(
        mut format: OutputFormat,
        mut output: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, batches) = sync_channel::<Batch>(QUEUED_BATCHES_MAX);
        let (end, ended) = sync_channel(1);
        let queued = Arc::new(AtomicUsize::new(0));
        let closed = Arc::new(Notify::new());
        let (thread_queued, thread_closed) = (Arc::clone(&queued), Arc::clone(&closed));
        std::thread::Builder::new().name("printer".to_owned()).spawn(move || {
            let result = print(&mut format, &mut output, &batches, &thread_queued);
            if let Err(error) = result {
                if error.kind() != ErrorKind::BrokenPipe {
                    eprintln!("dc_snoop: cannot write to the standard output: {error}");
                }
                thread_closed.notify_one();
            }
            drop(end);
        })?;
        Ok(Self { queue: Some(queue), queued, closed, ended, dropped: 0 })
    }

    /// Hands records over, or drops them if too many wait.
    pub(crate) fn print(&mut self, records: Vec<TrafficRecord>) {
        if !records.is_empty() {
            self.send(Batch { cost: 0, dropped: 0, records, text: String::new() });
        }
    }

    /// Hands a text over, or drops it if too much waits.
    pub(crate) fn print_text(&mut self, text: String) {
        self.send(Batch { cost: text.len(), dropped: 0, records: Vec::new(), text });
    }

    fn send(&mut self, mut batch: Batch) {
        batch.cost += batch.records.iter().map(TrafficRecord::cost).sum::<usize>();
        batch.dropped = self.dropped;
        let (cost, count) = (batch.cost, batch.records.len().max(1) as u64);
        // Counted before it is sent, so that the thread never subtracts more than was added.
        let waiting = self.queued.fetch_add(cost, Ordering::Relaxed);
        let taken = match &self.queue {
            Some(queue) if waiting + cost <= QUEUED_BYTES_MAX => queue.try_send(batch).is_ok(),
            _ => false,
        };
        if taken {
            self.dropped = 0;
        } else {
            self.queued.fetch_sub(cost, Ordering::Relaxed);
            self.dropped += count;
        }
    }

    /// Notifies when the reader of the output has gone.
    pub(crate) fn closed(&self) -> Arc<Notify> {
        Arc::clone(&self.closed)
    }

    /// Waits until everything is printed, unless the reader has gone.
    pub(crate) fn finish(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        if self.dropped > 0 {
            let last = Batch { records: Vec::new(), text: String::new(), dropped: self.dropped, cost: 0 };
            // If the queue is still full, the thread is blocked, and the output is not read.
            queue.try_send(last).ok();
        }
        drop(queue);
        // No value is ever sent: the end of the channel signals the end of the thread.
        let mut before = usize::MAX;
        while self.ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let waiting = self.queued.load(Ordering::Relaxed);
            if waiting >= before {
                return;
            }
            before = waiting;
        }
    }
}

fn print(
    format: &mut OutputFormat,
    output: &mut impl Write,
    batches: &Receiver<Batch>,
    queued: &AtomicUsize,
) -> io::Result<()> {
    let mut text = String::new();
    while let Ok(first) = batches.recv() {
        // Other waiting batches are written with the same call.
        for batch in std::iter::once(first).chain(batches.try_iter()) {
            append(format, &mut text, &batch);
            queued.fetch_sub(batch.cost, Ordering::Relaxed);
            if text.len() >= 64 << 10 {
                output.write_all(text.as_bytes())?;
                text.clear();
            }
        }
        output.write_all(text.as_bytes())?;
        output.flush()?;
        text.clear();
    }
    Ok(())
}

fn append(format: &mut OutputFormat, text: &mut String, batch: &Batch) {
    if batch.dropped > 0 {
        format.dropped(text, batch.dropped);
    }
    for record in &batch.records {
        format.write(text, record);
    }
    text.push_str(&batch.text);
}

/// Prints without a queue; may block.
///
/// # Errors
///
/// Those of the output.
pub(crate) fn print_now(
    format: &mut OutputFormat,
    output: &mut impl Write,
    records: &[TrafficRecord],
) -> io::Result<()> {
    let mut text = String::new();
    for record in records {
        format.write(&mut text, record);
    }
    output.write_all(text.as_bytes())
}
