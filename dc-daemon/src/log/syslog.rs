//! Log lines to the local syslog, in the format of RFC 3164: `<30>Mar  1 13:00:01 dc_client[123]: connected`.
//!
//! The facility is daemon; the severity follows the level of the event. Datagrams are addressed by path, so a
//! restarted syslog daemon receives them without a reconnect, and a send never blocks. The `syslog` function
//! of libc and the crates built on it or like it were considered: their sends block on a stopped syslog
//! daemon, and with it every thread that logs. A line that may wait does so for at most [`PATIENCE`].
//!
//! If the syslog daemon takes connections and not datagrams, lines are sent over one connection, each
//! terminated by a NUL, as libc does.

use super::line::{DroppedLines, cut, one_line};
use super::stream::OutputStream;
use jiff::Zoned;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The address of the local syslog daemon.
pub(super) const SYSLOG_PATH: &str = "/dev/log";
/// The maximum wait of a line that may wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// The maximum size of one datagram that common syslog daemons accept.
const DATAGRAM_BYTES_MAX: usize = 8192;
/// The facility `daemon`, in the bits of a priority.
const FACILITY: u8 = 3 << 3;

/// A client of the local syslog daemon.
#[derive(Debug)]
pub(super) struct Syslog {
    socket: Option<UnixDatagram>,
    path: PathBuf,
    program: &'static str,
    /// The maximum wait of a line.
    patience: Duration,
    /// Used if the syslog daemon takes connections.
    connection: Mutex<Option<OutputStream>>,
    lost: Arc<DroppedLines>,
}

impl Syslog {
    /// Logs to the syslog daemon that listens at `path`, for `program`. It need not be available.
    pub(super) fn new(path: impl Into<PathBuf>, program: &'static str) -> Self {
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        Self {
            socket: socket.ok(),
            path: path.into(),
            program,
            patience: Duration::ZERO,
            connection: Mutex::default(),
            lost: Arc::default(),
        }
    }

    /// The same client for lines that wait up to `patience` each. Both share the count of dropped lines.
    pub(super) fn patient(&self, patience: Duration) -> Self {
        let socket = UnixDatagram::unbound();
        let socket = socket.and_then(|socket| socket.set_write_timeout(Some(patience)).map(|()| socket));
        Self {
            socket: socket.ok(),
            patience,
            lost: Arc::clone(&self.lost),
            ..Self::new(&self.path, self.program)
        }
    }

    /// Checks whether a syslog daemon is available. Does not wait.
    ///
    /// # Errors
    /// The error of the system if it is not.
    pub(super) fn look(&self) -> io::Result<()> {
        match UnixDatagram::unbound()?.connect(&self.path) {
            Err(error) if takes_connections(&error) => {
                let connection = self.connect()?;
                self.connection.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(connection);
                Ok(())
            }
            found => found,
        }
    }

    fn message(&self, level: Level, message: &str) {
        let lost = self.lost.reset();
        if lost > 0 && !self.sent(Level::WARN, &DroppedLines::message(lost)) {
            self.lost.add(lost + 1);
            return;
        }
        if !self.sent(level, message) {
            self.lost.add(1);
        }
    }

    /// Sends `message`; returns whether it was sent.
    fn sent(&self, level: Level, message: &str) -> bool {
        // The process id is read each time: it changes when a daemon detaches.
        let mut datagram = format!(
            "<{}>{} {}[{}]: {message}",
            FACILITY | severity(level),
            Zoned::now().strftime("%b %e %H:%M:%S"),
            self.program,
            std::process::id()
        );
        cut(&mut datagram, DATAGRAM_BYTES_MAX);
        let Some(socket) = &self.socket else { return false };
        match socket.send_to(datagram.as_bytes(), &self.path) {
            Err(error) if takes_connections(&error) => self.streamed(datagram),
            sent => sent.is_ok(),
        }
    }

    /// Sends `record` over the connection, or over a new one if that is broken; returns whether it was sent.
    fn streamed(&self, mut record: String) -> bool {
        record.push('\0');
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let broken =
            match connection.as_mut().map(|stream| stream.put_within(record.as_bytes(), self.patience)) {
                Some(Ok(())) => return true,
                Some(Err(error)) => error.kind() != io::ErrorKind::WouldBlock,
                None => true,
            };
        if broken {
            *connection = self.connect().ok();
            let again = connection.as_mut().map(|stream| stream.put_within(record.as_bytes(), self.patience));
            return again.is_some_and(|end| end.is_ok());
        }
        false
    }

    /// Connects, without waiting to be accepted.
    fn connect(&self) -> io::Result<OutputStream> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(&self.path)?)?;
        Ok(OutputStream::own(socket))
    }
}

/// Whether an error means that the socket takes connections and not datagrams.
fn takes_connections(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EPROTOTYPE as i32)
}

/// The severity of a level, as numbered by RFC 3164.
const fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = SyslogMessage<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        SyslogMessage { syslog: self, level: Level::INFO }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        SyslogMessage { syslog: self, level: *meta.level() }
    }
}

/// Takes one line. Never fails: a line that cannot be sent is counted as dropped.
#[derive(Debug)]
pub(super) struct SyslogMessage<'a> {
    syslog: &'a Syslog,
    level: Level,
}

impl Write for SyslogMessage<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = one_line(bytes, false);
        self.syslog.message(self.level, String::from_utf8_lossy(&line).trim());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = vec![0; 2 * DATAGRAM_BYTES_MAX];
        let bytes = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..bytes].to_vec()).unwrap()
    }

    #[test]
    fn message_has_priority_time_name_and_pid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::new(&path, "dc_client");
        for (level, priority) in
            [(Level::ERROR, 27), (Level::WARN, 28), (Level::INFO, 30), (Level::DEBUG, 31), (Level::TRACE, 31)]
        {
            SyslogMessage { syslog: &syslog, level }.write_all(b"a\nb\n").unwrap();
            let text = received(&daemon);
            let (head, message) = text.split_once("dc_client").unwrap();
            assert_eq!(message, format!("[{}]: a\\nb", std::process::id()));
            let time = head.strip_prefix(&format!("<{priority}>")).unwrap();
            let form: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert!(form.ends_with("00:00:00 ") && time.len() == "Mar  1 13:00:01 ".len(), "{time}");
        }
    }

    #[test]
    fn missing_syslog_drops_lines_until_it_returns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let syslog = Syslog::new(&path, "dc_client");
        syslog.message(Level::INFO, "nobody hears");
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.message(Level::INFO, "first");
        assert!(received(&daemon).ends_with(&DroppedLines::message(1)));
        assert!(received(&daemon).ends_with(": first"));
        drop(daemon);
        syslog.message(Level::INFO, "the socket is dead");
        std::fs::remove_file(&path).unwrap();
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.message(Level::INFO, "second");
        assert!(received(&daemon).ends_with(&DroppedLines::message(1)));
        assert!(received(&daemon).ends_with(": second"));
    }

    #[test]
    fn stopped_syslog_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::new(&path, "dc_client");
        // There is no reader: the queue fills, and this loop ends nevertheless.
        for _ in 0..100_000 {
            syslog.message(Level::INFO, "again");
        }
        let lost = syslog.lost.reset();
        assert!(lost > 0);
        syslog.lost.add(lost);
        daemon.set_nonblocking(true).unwrap();
        let mut buffer = [0; 256];
        while daemon.recv(&mut buffer).is_ok() {}
        syslog.message(Level::INFO, "awake");
        assert!(received(&daemon).ends_with(&DroppedLines::message(lost)));
        assert!(received(&daemon).ends_with(": awake"));
    }

    #[test]
    fn patient_sender_drops_no_line_while_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::new(&path, "dc_client").patient(Duration::from_secs(60));
        // More than any queue holds; the reader starts when it is full.
        let fills = UnixDatagram::unbound().unwrap();
        fills.set_nonblocking(true).unwrap();
        while fills.send_to(b"before", &path).is_ok() {}
        let writes = std::thread::spawn(move || {
            (0..5000).for_each(|number| syslog.message(Level::INFO, &format!("line {number}")));
            syslog.lost.reset()
        });
        let mut lines = std::iter::repeat_with(|| received(&daemon)).filter(|line| line != "before");
        for number in 0..5000 {
            assert!(lines.next().unwrap().ends_with(&format!(": line {number}")));
        }
        assert_eq!(writes.join().unwrap(), 0);
    }

    #[test]
    fn patient_sender_times_out_and_shares_the_drop_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::new(&path, "dc_client");
        let patient = syslog.patient(Duration::from_millis(1));
        while syslog.lost.reset() == 0 {
            syslog.message(Level::INFO, "before");
        }
        for _ in 0..3 {
            patient.message(Level::INFO, "nobody reads");
        }
        daemon.set_nonblocking(true).unwrap();
        while daemon.recv(&mut [0; 256]).is_ok() {}
        syslog.message(Level::INFO, "awake");
        assert!(received(&daemon).ends_with(&DroppedLines::message(3)));
        assert!(received(&daemon).ends_with(": awake"));
    }

    #[test]
    fn stream_syslog_is_connected_and_reconnected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let syslog = Syslog::new(&path, "dc_client");
        assert!(syslog.look().is_err());
        for round in 0..2 {
            let daemon = UnixListener::bind(&path).unwrap();
            if round == 0 {
                syslog.look().unwrap();
            }
            syslog.message(Level::INFO, "first");
            syslog.message(Level::INFO, "second");
            let mut records = BufReader::new(daemon.accept().unwrap().0).split(0);
            for expected in ["first", "second"] {
                let record = String::from_utf8(records.next().unwrap().unwrap()).unwrap();
                assert!(
                    record.starts_with("<30>") && record.ends_with(&format!("]: {expected}")),
                    "{record}"
                );
            }
            std::fs::remove_file(&path).unwrap();
        }
        assert_eq!(syslog.lost.reset(), 0);
    }

    #[test]
    fn unread_connection_drops_lines_unless_patient() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixListener::bind(&path).unwrap();
        let syslog = Syslog::new(&path, "dc_client");
        for _ in 0..100_000 {
            syslog.message(Level::INFO, "again");
        }
        assert!(syslog.lost.reset() > 0);
        let patient = syslog.patient(Duration::from_secs(60));
        drop(daemon.accept().unwrap());
        let writes = std::thread::spawn(move || {
            (0..20_000).for_each(|number| patient.message(Level::INFO, &format!("line {number}")));
            patient.lost.reset()
        });
        let records = BufReader::new(daemon.accept().unwrap().0).split(0).map(Result::unwrap);
        for (number, record) in records.enumerate() {
            assert!(String::from_utf8(record).unwrap().ends_with(&format!(": line {number}")));
        }
        assert_eq!(writes.join().unwrap(), 0);
    }

    #[test]
    fn message_is_truncated_to_the_datagram_maximum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        Syslog::new(&path, "dc_client").message(Level::INFO, &"ä".repeat(DATAGRAM_BYTES_MAX));
        let text = received(&daemon);
        assert!(
            text.len() <= DATAGRAM_BYTES_MAX && text.len() > DATAGRAM_BYTES_MAX - 4 && text.ends_with('…')
        );
    }
}
