//! Notifications from a service to its service manager: systemd, `dc_master`, or any other that sets
//! `NOTIFY_SOCKET` (`sd_notify(3)`).
//!
//! Messages are datagrams of `NAME=value` lines. A [`Notifier`] without a service manager does nothing, so a
//! program need not check. It connects when it is created: afterwards the program may change its user or root
//! directory, or fork. An unavailable or slow service manager causes neither an error nor a wait: a warning
//! is logged, and the message is sent again until it is accepted, before any later message. Messages that are
//! still pending when the [`Notifier`] is dropped are logged.
//!
//! ```no_run
//! # use dc_daemon::notify::Notifier;
//! let manager = Notifier::from_environment()?;
//! // ... listeners are open, state is loaded ...
//! manager.ready();
//! manager.status("serving");
//! # Ok::<(), dc_daemon::notify::NotifyError>(())
//! ```
//!
//! A thread runs while a message is pending, so the first message must be sent after the last fork of the
//! program.
//!
//! The sd-notify crate was considered: it has no abstract addresses, connects again for each message and may
//! block without a limit. Nothing here panics.

mod channel;
mod delivery;
mod error;

use self::channel::{Haste, NotifyChannel};
use self::delivery::{Delivery, Word};
pub use self::error::NotifyError;
use crate::fd_passing::DESCRIPTORS_MAX;
use nix::time::{ClockId, clock_gettime};
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::process;
use std::time::Duration;
use tracing::warn;

/// The maximum length of a status; longer text is truncated. systemd takes 4096 bytes per message.
const STATUS_BYTES_MAX: usize = 1024;
/// The maximum length of the name of a stored descriptor.
const NAME_BYTES_MAX: usize = 255;

/// A connection to the service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    delivery: Option<Delivery>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Connects to the service manager named by `NOTIFY_SOCKET`. If that is unset or empty, the notifier does
    /// nothing.
    ///
    /// # Errors
    /// [`NotifyError`] if the value is not a valid address. An unavailable service manager is not an error.
    pub fn from_environment() -> Result<Self, NotifyError> {
        Self::from_variables(|name| env::var_os(name), process::id())
    }

    /// As [`Notifier::from_environment`], with these variables, for the process `pid`.
    ///
    /// # Errors
    /// As [`Notifier::from_environment`].
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<OsString>,
        pid: u32,
    ) -> Result<Self, NotifyError> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self { delivery: None, watchdog: None });
        };
        let delivery = Delivery::new(NotifyChannel::open(&name)?);
        Ok(Self { delivery: Some(delivery), watchdog: watchdog(variable, pid)? })
    }

    /// Whether there is a service manager.
    #[must_use]
    pub const fn is_supervised(&self) -> bool {
        self.delivery.is_some()
    }

    /// The service is ready: `READY=1`.
    pub fn ready(&self) {
        self.send("READY", "1");
    }

    /// The service is shutting down: `STOPPING=1`.
    pub fn stopping(&self) {
        self.send("STOPPING", "1");
    }

    /// The service reloads its configuration, until it is [ready](Self::ready) again: `RELOADING=1`.
    pub fn reloading(&self) {
        match clock_gettime(ClockId::CLOCK_MONOTONIC) {
            Ok(now) => {
                let usec = Duration::from(now).as_micros();
                self.send("RELOADING", &format!("1\nMONOTONIC_USEC={usec}"));
            }
            Err(error) => warn!(%error, "cannot notify the service manager of the reload"),
        }
    }

    /// The main process of the service is `pid`, not the process that the service manager started. systemd
    /// accepts this from that process only with `NotifyAccess=all`.
    pub fn main_pid(&self, pid: u32) {
        self.send("MAINPID", &pid.to_string());
    }

    /// One line for operators about the current activity: `STATUS=`.
    pub fn status(&self, text: &str) {
        let kept = &text.as_bytes()[..text.len().min(STATUS_BYTES_MAX)];
        let text = kept.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        self.send("STATUS", &text.replace(char::is_control, " "));
    }

    /// The service is alive: `WATCHDOG=1`, to be sent at least once per [`Notifier::watchdog_interval`]. It
    /// is dropped if the service manager cannot take a message now.
    pub fn watchdog(&self) {
        if let Some(delivery) = &self.delivery {
            delivery.log("WATCHDOG=1");
        }
    }

    /// The interval in which the service manager expects [`Notifier::watchdog`]; sending twice per interval
    /// is usual. `None` without a watchdog.
    #[must_use]
    pub const fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Stores duplicates of `descriptors` in the service manager under `name`: the next process of the
    /// service is started with them (see [`activation`](crate::activation)). Descriptors of several calls add
    /// up. Waits up to a second for each message. Does nothing without a service manager.
    ///
    /// # Errors
    /// [`FdStoreError`]. Some descriptors may have been stored then.
    pub fn store(&self, name: &str, descriptors: &[BorrowedFd<'_>]) -> Result<(), FdStoreError> {
        let message = format!("FDSTORE=1\nFDNAME={}", checked(name)?);
        let Some(delivery) = &self.delivery else { return Ok(()) };
        for some in descriptors.chunks(DESCRIPTORS_MAX) {
            delivery.channel().send(&message, some, Haste::Wait).map_err(FdStoreError::Send)?;
        }
        Ok(())
    }

    /// Makes the service manager close the descriptors stored under `name`. Waits up to a second. Does
    /// nothing without a service manager.
    ///
    /// # Errors
    /// [`FdStoreError`] if the name is invalid or the message cannot be sent.
    pub fn remove_stored(&self, name: &str) -> Result<(), FdStoreError> {
        let message = format!("FDSTOREREMOVE=1\nFDNAME={}", checked(name)?);
        let Some(delivery) = &self.delivery else { return Ok(()) };
        delivery.channel().send(&message, &[], Haste::Wait).map_err(FdStoreError::Send)
    }

    fn send(&self, name: &'static str, value: &str) {
        if let Some(delivery) = &self.delivery {
            delivery.send(Word { name, message: format!("{name}={value}") });
        }
    }
}

/// Whether `name` is a valid name of stored descriptors: 1 to 255 printable ASCII characters except colon, as
/// in systemd.
#[must_use]
pub fn is_stored_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b':')
}

fn checked(name: &str) -> Result<&str, FdStoreError> {
    if is_stored_name(name) { Ok(name) } else { Err(FdStoreError::Name { name: name.to_owned() }) }
}

/// The value of `WATCHDOG_USEC`, unless `WATCHDOG_PID` is another process.
fn watchdog(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Result<Option<Duration>, NotifyError> {
    let number = |name: &'static str| -> Result<Option<u64>, NotifyError> {
        let Some(value) = variable(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let digits = value.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|text| text.parse().ok()).filter(|number| *number > 0);
        number.map(Some).ok_or(NotifyError::Watchdog { variable: name, value })
    };
    if number("WATCHDOG_PID")?.is_some_and(|meant| meant != u64::from(pid)) {
        return Ok(None);
    }
    Ok(number("WATCHDOG_USEC")?.map(Duration::from_micros))
}

/// Why descriptors were not stored or removed.
#[derive(Debug, thiserror::Error)]
pub enum FdStoreError {
    /// The name is not valid for stored descriptors.
    #[error(
        "{name:?} is not a name for stored descriptors: 1 to 255 printable ASCII characters except colon"
    )]
    Name {
        /// The name, as given.
        name: String,
    },
    /// The message cannot be sent to the service manager.
    #[error("cannot notify the service manager: {0}")]
    Send(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd_passing::receive;
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    use std::path::Path;
    use tempfile::TempDir;

    /// A service manager, and the environment of a service whose process id is 7.
    struct NotifyPair {
        directory: TempDir,
        supervisor: UnixDatagram,
    }

    impl NotifyPair {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let supervisor = bind(&directory.path().join("notify"));
            Self { directory, supervisor }
        }

        fn service(&self) -> Notifier {
            service(&[("NOTIFY_SOCKET", self.directory.path().join("notify").to_str().unwrap())]).unwrap()
        }

        fn hears(&self) -> Option<String> {
            received(&self.supervisor)
        }
    }

    fn bind(path: &Path) -> UnixDatagram {
        let supervisor = UnixDatagram::bind(path).unwrap();
        supervisor.set_nonblocking(true).unwrap();
        supervisor
    }

    fn received(supervisor: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 4096];
        let bytes = receive(supervisor, &mut buffer).ok()?.bytes;
        Some(str::from_utf8(&buffer[..bytes]).unwrap().to_owned())
    }

    fn service(variables: &[(&str, &str)]) -> Result<Notifier, NotifyError> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        Notifier::from_variables(variable, 7)
    }

    fn monotonic_usec() -> u128 {
        Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_micros()
    }

    #[test]
    fn messages_match_sd_notify() {
        let pair = NotifyPair::new();
        let service = pair.service();
        assert!(service.is_supervised());
        service.ready();
        service.stopping();
        service.main_pid(42);
        service.watchdog();
        service.status("two\nlines");
        service.remove_stored("sessions").unwrap();
        for expected in [
            "READY=1",
            "STOPPING=1",
            "MAINPID=42",
            "WATCHDOG=1",
            "STATUS=two lines",
            "FDSTOREREMOVE=1\nFDNAME=sessions",
        ] {
            assert_eq!(pair.hears().as_deref(), Some(expected));
        }
        let before = monotonic_usec();
        service.reloading();
        let said = pair.hears().unwrap();
        let usec: u128 = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=monotonic_usec()).contains(&usec));
        service.status(&"ü".repeat(STATUS_BYTES_MAX));
        assert_eq!(pair.hears().unwrap().len(), "STATUS=".len() + STATUS_BYTES_MAX);
        assert_eq!(pair.hears(), None);
    }

    #[test]
    fn abstract_address_is_accepted() {
        let name = format!("distcache-notify-{}", process::id());
        let supervisor = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        service(&[("NOTIFY_SOCKET", &format!("@{name}"))]).unwrap().ready();
        assert_eq!(received(&supervisor).as_deref(), Some("READY=1"));
    }

    #[test]
    fn notifier_without_a_service_manager_does_nothing() {
        for variables in [vec![], vec![("NOTIFY_SOCKET", ""), ("WATCHDOG_USEC", "1000")]] {
            let service = service(&variables).unwrap();
            assert!(!service.is_supervised());
            service.ready();
            service.store("name", &[io::stdin().as_fd()]).unwrap();
            assert_eq!(service.watchdog_interval(), None);
        }
    }

    #[test]
    fn invalid_notify_socket_is_refused() {
        let long = format!("/{}", "x".repeat(200));
        for name in ["notify", "@", "vsock:2:1234", &long, "/etc/passwd/notify"] {
            let error = service(&[("NOTIFY_SOCKET", name)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("NOTIFY_SOCKET={name}: ")), "{error}");
        }
    }

    #[test]
    fn pending_messages_reach_a_replaced_service_manager() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let service = service(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).unwrap();
        for _ in 0..2 {
            service.ready();
            let supervisor = bind(&path);
            service.status("serving");
            assert_eq!(received(&supervisor).as_deref(), Some("READY=1"));
            assert_eq!(received(&supervisor).as_deref(), Some("STATUS=serving"));
            drop(supervisor);
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn connection_outlives_the_removed_path() {
        let pair = NotifyPair::new();
        let service = pair.service();
        // As after a change of root directory or user.
        std::fs::remove_file(pair.directory.path().join("notify")).unwrap();
        service.ready();
        assert_eq!(pair.hears().as_deref(), Some("READY=1"));
    }

    /// Sends more messages than any socket queue holds.
    fn fill(service: &Notifier) {
        for _ in 0..10_000 {
            service.watchdog();
        }
    }

    #[test]
    fn blocked_messages_are_sent_when_the_manager_reads_again() {
        let pair = NotifyPair::new();
        let service = pair.service();
        fill(&service);
        service.status("starting");
        service.main_pid(42);
        service.ready();
        service.status("serving");
        service.reloading();
        service.ready();
        // No further call: the notifier itself retries.
        pair.supervisor.set_nonblocking(false).unwrap();
        pair.supervisor.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut said = std::iter::from_fn(|| pair.hears()).filter(|said| said != "WATCHDOG=1");
        assert_eq!(said.next().as_deref(), Some("MAINPID=42"));
        assert_eq!(said.next().as_deref(), Some("STATUS=serving"));
        assert!(said.next().unwrap().starts_with("RELOADING=1\n"));
        assert_eq!(said.next().as_deref(), Some("READY=1"));
        service.stopping();
        assert_eq!(said.next().as_deref(), Some("STOPPING=1"));
    }

    #[test]
    fn drop_does_not_wait_for_a_blocked_service_manager() {
        let pair = NotifyPair::new();
        let service = pair.service();
        fill(&service);
        service.stopping();
        drop(service);
        while let Some(said) = pair.hears() {
            assert_eq!(said, "WATCHDOG=1");
        }
    }

    #[test]
    fn drop_sends_pending_messages_once_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let service = service(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).unwrap();
        service.ready();
        let supervisor = bind(&path);
        drop(service);
        assert_eq!(received(&supervisor).as_deref(), Some("READY=1"));
    }

    #[test]
    fn store_sends_descriptors_with_a_name() {
        let pair = NotifyPair::new();
        let (_reader, writer) = io::pipe().unwrap();
        let service = pair.service();
        service.store("locks", &vec![writer.as_fd(); DESCRIPTORS_MAX + 1]).unwrap();
        for count in [DESCRIPTORS_MAX, 1] {
            let mut buffer = [0; 64];
            let received = receive(&pair.supervisor, &mut buffer).unwrap();
            assert_eq!(&buffer[..received.bytes], b"FDSTORE=1\nFDNAME=locks");
            assert_eq!(received.descriptors.len(), count);
        }
        let long = "n".repeat(256);
        for name in ["", "a:b", "a\nb", "ü", "\x7f", &long] {
            assert!(
                matches!(service.store(name, &[writer.as_fd()]), Err(FdStoreError::Name { .. })),
                "{name}"
            );
            assert!(matches!(service.remove_stored(name), Err(FdStoreError::Name { .. })), "{name}");
        }
        assert!(is_stored_name(&long[1..]) && is_stored_name("a b~"));
        assert_eq!(pair.hears(), None);
        drop(pair);
        assert!(matches!(service.store("locks", &[writer.as_fd()]), Err(FdStoreError::Send(_))));
    }

    #[test]
    fn watchdog_of_another_process_is_ignored() {
        let pair = NotifyPair::new();
        let path = pair.directory.path().join("notify");
        let with = |further: &[(&str, &str)]| {
            service(&[&[("NOTIFY_SOCKET", path.to_str().unwrap())], further].concat())
        };
        let interval = |further: &[_]| with(further).unwrap().watchdog_interval();
        assert_eq!(interval(&[]), None);
        let usec = ("WATCHDOG_USEC", "30000000");
        assert_eq!(interval(&[usec]), Some(Duration::from_secs(30)));
        assert_eq!(interval(&[usec, ("WATCHDOG_PID", "7")]), Some(Duration::from_secs(30)));
        assert_eq!(interval(&[usec, ("WATCHDOG_PID", "8")]), None);
        for wrong in ["0", "-1", "+1", "soon", "99999999999999999999"] {
            let error = with(&[("WATCHDOG_USEC", wrong)]).unwrap_err().to_string();
            assert_eq!(error, format!("WATCHDOG_USEC={wrong}: not a number above 0"));
            assert!(with(&[usec, ("WATCHDOG_PID", wrong)]).is_err());
        }
    }
}
