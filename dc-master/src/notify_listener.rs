//! Receives the notifications of a child on its `NOTIFY_SOCKET`.
//!
//! The format is that of `sd_notify(3)`: `NAME=VALUE` lines in one datagram, with descriptors attached. Each
//! child has a separate socket. The kernel names the sender; only the child and its descendants are accepted.

use crate::notify_socket::NotifySocket;
use dc_daemon::fd_passing::{self, ReceiveError};
use dc_daemon::file::OwnedFile;
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tracing::warn;

/// Maximum length of a datagram, as in systemd.
const NOTICE_BYTES_MAX: usize = 4096;
/// Maximum number of datagrams handled in one turn, from any sender.
const DATAGRAMS_MAX: usize = 512;
/// Minimum interval between two log lines about ignored datagrams.
const IGNORED_PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of generations between a child and the descendant that notifies for it.
const GENERATIONS_MAX: usize = 64;

/// The notification socket of one child.
#[derive(Debug)]
pub(crate) struct NotifyListener {
    socket: UnixDatagram,
    child: Pid,
    ignored: IgnoredMessages,
    /// Removes the path of the socket.
    _file: Option<OwnedFile>,
}

/// The contents of one datagram.
#[derive(Debug, Default)]
pub(crate) struct NotifyMessage {
    pub(crate) ready: bool,
    pub(crate) status: Option<String>,
    /// `EXTEND_TIMEOUT_USEC=`, in milliseconds.
    pub(crate) extension_ms: Option<u64>,
    pub(crate) store: Option<FdStoreRequest>,
    pub(crate) name: Option<String>,
    pub(crate) polled: bool,
    /// The attached descriptors. Any not stored are closed with the message, which answers `BARRIER=1`.
    pub(crate) descriptors: Vec<OwnedFd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FdStoreRequest {
    /// Store the attached descriptors.
    Keep,
    /// Remove the descriptors with the name `FDNAME`.
    Remove,
}

impl NotifyListener {
    /// Listens for notifications of `child`. Call it in the runtime.
    ///
    /// # Errors
    ///
    /// If the runtime cannot watch the socket.
    pub(crate) fn new(opened: NotifySocket, child: Pid) -> io::Result<Self> {
        let NotifySocket { socket, file, .. } = opened;
        Ok(Self {
            socket: UnixDatagram::from_std(socket)?,
            child,
            ignored: IgnoredMessages::default(),
            _file: file,
        })
    }

    /// The next message. Malformed datagrams are logged and skipped.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<NotifyMessage> {
        loop {
            // It fails when the runtime shuts down.
            if ready!(self.socket.poll_recv_ready(cx)).is_err() {
                return Poll::Pending;
            }
            let Self { socket, child, ignored, .. } = self;
            let mut looked_at = 0;
            let next = || match receive(socket, *child, ignored, &mut looked_at) {
                None if looked_at < DATAGRAMS_MAX => Err(io::ErrorKind::WouldBlock.into()),
                notice => Ok(notice),
            };
            match socket.try_io(Interest::READABLE, next) {
                Ok(Some(notice)) => return Poll::Ready(notice),
                // The budget is spent; more may follow after the other tasks.
                Ok(None) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(_) => {}
            }
        }
    }

    /// The next message already received, even if the runtime has not reported it yet. `looked_at` counts
    /// datagrams from 0; at the limit the result is `None`.
    pub(crate) fn next(&mut self, looked_at: &mut usize) -> Option<NotifyMessage> {
        receive(&self.socket, self.child, &mut self.ignored, looked_at)
    }
}

impl Drop for NotifyListener {
    fn drop(&mut self) {
        let child = self.child.as_raw();
        if self.ignored.unsaid > 0 {
            warn!(child, more = self.ignored.unsaid, "notifications were ignored");
        }
    }
}

/// Counts ignored datagrams and limits the rate of log lines about them.
#[derive(Debug, Default)]
struct IgnoredMessages {
    said_at: Option<Instant>,
    /// Number ignored since the last log line.
    unsaid: u64,
}

impl IgnoredMessages {
    /// Counts one, and calls `say` if a log line is due, with the number of those suppressed before.
    fn note(&mut self, now: Instant, say: impl FnOnce(Option<u64>)) {
        if self.said_at.is_some_and(|at| now.saturating_duration_since(at) < IGNORED_PAUSE) {
            self.unsaid += 1;
            return;
        }
        self.said_at = Some(now);
        let unsaid = std::mem::take(&mut self.unsaid);
        say((unsaid > 0).then_some(unsaid));
    }
}

/// The next datagram already received, unless the budget is spent.
fn receive(
    socket: &UnixDatagram,
    child: Pid,
    ignored: &mut IgnoredMessages,
    looked_at: &mut usize,
) -> Option<NotifyMessage> {
    let mut buffer = [0; NOTICE_BYTES_MAX];
    let child = child.as_raw();
    while *looked_at < DATAGRAMS_MAX {
        *looked_at += 1;
        let received = match fd_passing::receive_in_part(socket, &mut buffer) {
            Ok(received) => received,
            Err(ReceiveError::NothingYet) => {
                *looked_at -= 1;
                return None;
            }
            // An immediate retry would loop.
            Err(ReceiveError::System(error)) => {
                *looked_at -= 1;
                warn!(child, %error, "a notification cannot be received");
                return None;
            }
            Err(error) => {
                ignored
                    .note(Instant::now(), |more| warn!(child, more, "a notification was ignored: {error}"));
                continue;
            }
        };
        let sender = received.sender.and_then(|sender| i32::try_from(sender.pid).ok()).unwrap_or(0);
        if is_of_family(sender, child) {
            if received.descriptors_lost {
                warn!(child, "descriptors of a notification were lost: there was no room for them");
            }
            return Some(NotifyMessage::parse(&buffer[..received.bytes], received.descriptors));
        }
        ignored.note(Instant::now(), |more| {
            warn!(child, sender, more, "a notification was ignored: its sender is not the child");
        });
    }
    None
}

impl NotifyMessage {
    fn parse(text: &[u8], descriptors: Vec<OwnedFd>) -> Self {
        let mut notice = Self { polled: true, descriptors, ..Self::default() };
        for line in text.split(|byte| *byte == b'\n') {
            let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
            let value = String::from_utf8_lossy(&line[at + 1..]);
            match (&line[..at], &*value) {
                (b"READY", "1") => notice.ready = true,
                (b"STATUS", _) => notice.status = Some(value.into_owned()),
                (b"EXTEND_TIMEOUT_USEC", us) => {
                    notice.extension_ms = us.parse::<u64>().ok().map(|us| us / 1000);
                }
                (b"FDSTORE", "1") => notice.store = Some(FdStoreRequest::Keep),
                (b"FDSTOREREMOVE", "1") => notice.store = Some(FdStoreRequest::Remove),
                (b"FDNAME", _) => notice.name = Some(value.into_owned()),
                (b"FDPOLL", "0") => notice.polled = false,
                _ => {}
            }
        }
        notice
    }
}

/// Whether `process` is `child` or one of its descendants.
fn is_of_family(process: i32, child: i32) -> bool {
    let mut ancestor = process;
    for _ in 0..GENERATIONS_MAX {
        if ancestor == child {
            return true;
        }
        match parent(ancestor) {
            Some(parent) if parent > 1 => ancestor = parent,
            _ => return false,
        }
    }
    false
}

/// The parent of a process, from its line in `/proc` (proc(5)): number, name in parentheses, state, parent.
fn parent(process: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    fn parse(text: &str) -> NotifyMessage {
        NotifyMessage::parse(text.as_bytes(), Vec::new())
    }

    #[test]
    fn a_datagram_may_say_several_things() {
        let notice = parse("STATUS=Loading\nREADY=1\nEXTEND_TIMEOUT_USEC=1500000\n");
        assert!(notice.ready && notice.polled && notice.store.is_none());
        assert_eq!((notice.status.as_deref(), notice.extension_ms), (Some("Loading"), Some(1500)));
        let notice = parse("FDSTORE=1\nFDNAME=a=b\nFDPOLL=0");
        assert_eq!((notice.store, notice.name.as_deref()), (Some(FdStoreRequest::Keep), Some("a=b")));
        assert!(!notice.polled && !notice.ready);
        assert_eq!(parse("FDSTOREREMOVE=1\nFDNAME=x").store, Some(FdStoreRequest::Remove));
    }

    #[test]
    fn malformed_datagrams_have_no_effect() {
        for text in ["", "\n\n", "READY", "READY=0", "READY=11", "ready=1", " READY=1", "XREADY=1", "=1"] {
            assert!(!parse(text).ready, "{text:?}");
        }
        assert!(!NotifyMessage::parse(b"READY=1\xff", Vec::new()).ready);
        assert_eq!(parse("EXTEND_TIMEOUT_USEC=-1").extension_ms, None);
    }

    proptest! {
        #[test]
        fn any_datagram_is_a_notice_and_only_one_line_makes_ready(
            lines in prop::collection::vec(prop_oneof![
                4 => prop::collection::vec(any::<u8>(), 0..20),
                1 => Just(b"READY=1".to_vec()),
            ], 0..5),
        ) {
            let text = lines.join(&b"\n"[..]);
            let says_so = text.split(|byte| *byte == b'\n').any(|line| line == b"READY=1");
            prop_assert_eq!(NotifyMessage::parse(&text, Vec::new()).ready, says_so);
        }
    }

    #[test]
    fn log_lines_about_ignored_datagrams_are_rate_limited() {
        let mut ignored = IgnoredMessages::default();
        let start = Instant::now();
        let mut said = Vec::new();
        for ms in [0, 1, 500, 999, 1_000, 2_500, 2_600] {
            ignored.note(start + Duration::from_millis(ms), |more| said.push((ms, more)));
        }
        assert_eq!(said, [(0, None), (1_000, Some(3)), (2_500, None)]);
        assert_eq!(ignored.unsaid, 1);
    }

    #[test]
    fn a_descendant_is_of_the_family_and_a_parent_is_not() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(is_of_family(pid, own) && is_of_family(own, own));
        assert!(!is_of_family(own, pid));
        assert!(!is_of_family(0, own) && !is_of_family(-1, own) && !is_of_family(1, own));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!is_of_family(pid, own), "the parent is unknown");
    }
}
