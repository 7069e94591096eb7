//! `-write`: a thread writes the traffic to a file, so that a slow disk does not delay the relay.
//!
//! At most [`QUEUED_BYTES_MAX`] wait for it; data beyond that is dropped, counted, and becomes a gap in the
//! file. A write error (a full disk) is reported once, the file ends with its last whole packet, and relaying
//! continues.

use super::conversation::CapturedConnection;
use super::file::PcapngBlocks;
use super::packet::{PacketError, TcpEndpoints};
use dc_snoop::observe::Endpoint;
use pcap_file::PcapError;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Most bytes that wait to be written.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Most events that wait to be written.
const QUEUED_EVENTS_MAX: usize = 1 << 16;
/// Blocks are written when this much is queued, or when the thread is idle.
const WRITE_BYTES: usize = 256 << 10;

/// The permissions of a file that was not there.
const MODE: u32 = 0o600;

/// Something that happened on a connection, to be written down.
#[derive(Debug)]
pub(crate) struct CaptureEvent {
    pub(crate) at: Duration,
    pub(crate) connection: u64,
    pub(crate) what: CaptureEventKind,
}

#[derive(Debug)]
pub(crate) enum CaptureEventKind {
    Opened { ends: TcpEndpoints, from: String },
    Accepted,
    Data { sender: Endpoint, offset: u64, bytes: Vec<u8> },
    Finished { sender: Endpoint, offset: u64 },
    Reset { sender: Endpoint },
    Closed,
}

/// The end of the queue where events go in.
#[derive(Debug)]
pub(crate) struct CaptureWriter {
    queue: SyncSender<CaptureEvent>,
    queued: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
    lost: u64,
}

impl CaptureWriter {
    /// Creates the file, readable for its owner alone, or truncates an existing one, writes its header and
    /// starts the thread.
    ///
    /// # Errors
    ///
    /// If the file cannot be created or written.
    pub(crate) fn start(path: &Path, description: &str) -> io::Result<Self> {
        let mut output = CaptureFile::new(path, description)?;
        let (queue, events) = sync_channel(QUEUED_EVENTS_MAX);
        let queued = Arc::new(AtomicUsize::new(0));
        let thread_queued = Arc::clone(&queued);
        let thread = std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || output.run(&events, &thread_queued))?;
        Ok(Self { queue, queued, thread, lost: 0 })
    }

    /// Hands an event over, or leaves it out if too much waits.
    pub(crate) fn record(&mut self, event: CaptureEvent) {
        let cost = cost(&event);
        let waiting = self.queued.fetch_add(cost, Ordering::Relaxed);
        if waiting + cost > QUEUED_BYTES_MAX || self.queue.try_send(event).is_err() {
            self.queued.fetch_sub(cost, Ordering::Relaxed);
            self.lost += cost as u64;
        }
    }

    /// Waits until all is written; the number of bytes that were left out.
    pub(crate) fn finish(self) -> u64 {
        drop(self.queue);
        if self.thread.join().is_err() {
            eprintln!("dc_snoop: the thread that writes the capture has panicked");
        }
        self.lost
    }
}

const fn cost(event: &CaptureEvent) -> usize {
    match &event.what {
        CaptureEventKind::Data { bytes, .. } => bytes.len(),
        _ => 0,
    }
}

/// The file, and the state of the connections in it.
struct CaptureFile {
    path: PathBuf,
    file: File,
    blocks: PcapngBlocks,
    /// Length of the file up to its last whole block.
    len: u64,
    failed: bool,
    conversations: HashMap<u64, CapturedConnection>,
}

impl CaptureFile {
    fn new(path: &Path, description: &str) -> io::Result<Self> {
        // The file contains all traffic, including session data.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
        let blocks = PcapngBlocks::new(description).map_err(into_io)?;
        let (path, conversations) = (path.to_owned(), HashMap::new());
        let mut output = Self { path, file, blocks, len: 0, failed: false, conversations };
        output.write()?;
        Ok(output)
    }

    fn run(&mut self, events: &Receiver<CaptureEvent>, queued: &AtomicUsize) {
        while let Ok(first) = events.recv() {
            for event in std::iter::once(first).chain(events.try_iter()) {
                queued.fetch_sub(cost(&event), Ordering::Relaxed);
                if !self.failed {
                    let result = self.event(event);
                    self.check(result);
                }
            }
            if !self.failed {
                let result = self.write();
                self.check(result);
            }
        }
    }

    /// Says once that no more can be written.
    fn check(&mut self, result: io::Result<()>) {
        let Err(error) = result else { return };
        self.failed = true;
        let path = self.path.display();
        eprintln!("dc_snoop: -write {path}: {error}; nothing more is written, relaying continues");
        // A pipe cannot be truncated, and no other repair is possible.
        self.file.set_len(self.len).ok();
    }

    fn event(&mut self, event: CaptureEvent) -> io::Result<()> {
        let CaptureEvent { at, connection, what } = event;
        if let CaptureEventKind::Opened { ends, from } = what {
            let mut conversation = CapturedConnection::new(ends);
            let syn = conversation.syn().map_err(invalid)?;
            self.conversations.insert(connection, conversation);
            return self.packet(at, &syn, Some(format!("connection #{connection} from {from}")));
        }
        // Its beginning may have been left out.
        let ends = TcpEndpoints::stand_in(connection);
        let conversation =
            self.conversations.entry(connection).or_insert_with(|| CapturedConnection::new(ends));
        let packets: Vec<Vec<u8>> = match what {
            CaptureEventKind::Opened { .. } | CaptureEventKind::Closed => {
                self.conversations.remove(&connection);
                return Ok(());
            }
            CaptureEventKind::Accepted => conversation.accepted().map_err(invalid)?.into(),
            CaptureEventKind::Data { sender, offset, bytes } => {
                conversation.data(sender, offset, &bytes).map_err(invalid)?
            }
            CaptureEventKind::Finished { sender, offset } => {
                conversation.fin(sender, offset).map_err(invalid)?.into()
            }
            CaptureEventKind::Reset { sender } => vec![conversation.reset(sender).map_err(invalid)?],
        };
        packets.iter().try_for_each(|packet| self.packet(at, packet, None))
    }

    fn packet(&mut self, at: Duration, packet: &[u8], comment: Option<String>) -> io::Result<()> {
        self.blocks.packet(at, packet, comment).map_err(into_io)?;
        if self.blocks.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        let bytes = self.blocks.drain();
        let result = self.file.write_all(&bytes);
        match &result {
            Ok(()) => self.len += bytes.len() as u64,
            // Back to the end of the last whole block, for later appends. A pipe has no position.
            Err(_) => {
                let written = self.file.stream_position().unwrap_or(self.len) - self.len;
                self.len += whole_blocks(&bytes, written);
                self.file.seek(io::SeekFrom::Start(self.len)).ok();
            }
        }
        result
    }
}

/// Length of the whole blocks within the first `written` bytes. A block has its length after its type.
fn whole_blocks(blocks: &[u8], written: u64) -> u64 {
    let mut rest = &blocks[..blocks.len().min(usize::try_from(written).unwrap_or(usize::MAX))];
    let mut whole = 0;
    while let Some(length) = rest.get(4..8).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes)
        && let Some(further) = rest.get(length as usize..)
        && length > 0
    {
        whole += u64::from(length);
        rest = further;
    }
    whole
}

fn into_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

fn invalid(error: PacketError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, metadata, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_file_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.pcapng");
        let mode_after_start = || {
            CaptureWriter::start(&path, "test").unwrap().finish();
            metadata(&path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(mode_after_start(), MODE);
        set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(mode_after_start(), 0o640, "an existing file keeps its permissions");
    }

    #[test]
    fn partial_block_does_not_count_until_complete() {
        let block = |length: u32| {
            let mut block = vec![0; length as usize];
            block[4..8].copy_from_slice(&length.to_be_bytes());
            block
        };
        let blocks = [block(12), block(40), block(8)].concat();
        for (written, whole) in
            [(0, 0), (7, 0), (11, 0), (12, 12), (51, 12), (52, 52), (59, 52), (60, 60), (99, 60)]
        {
            assert_eq!(whole_blocks(&blocks, written), whole, "{written}");
        }
        assert_eq!(whole_blocks(&[0; 16], 16), 0, "that is no block");

        let mut blocks = PcapngBlocks::new("of the test").unwrap();
        blocks.packet(Duration::from_secs(1), b"packet", None).unwrap();
        let bytes = blocks.drain();
        let length = bytes.len() as u64;
        assert_eq!(whole_blocks(&bytes, length), length, "all are whole");
        assert!((1..length).contains(&whole_blocks(&bytes, length - 1)), "all but the last are");
    }
}
