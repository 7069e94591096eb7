//! Starting a daemon from its options, up to the moment when it serves.

use crate::account::{Account, AccountError};
use crate::activation::{ActivationError, PassedFd, SocketActivation};
use crate::file_limit;
use crate::lifecycle::{DaemonLaunch, LifecycleError, Serving, Unprivileged};
use crate::listen::limiter::{ConnectionLimiter, ConnectionLimits};
use crate::listen::{ListenError, Listener};
use crate::notify::{Notifier, NotifyError};
use crate::service_manager::ServiceManager;
use crate::signals::{BlockedSignals, SignalPolicy, SignalStream};
use crate::state::StateError;
use crate::token_file::TokenFileError;
use crate::{DaemonOptions, LogOptions, log};
use dc_cli::{ProgramInfo, STATUS_MISTAKE};
use libdc::net::address::Address;
use libdc::net::tls::error::TlsError;
use std::fmt::Display;
use std::future::pending;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tracing::{debug, info};

/// A daemon that listens and has given up all unneeded privileges. It may start threads now.
#[derive(Debug)]
pub struct BoundDaemon {
    listeners: Vec<Listener>,
    confined: Unprivileged,
    places: Arc<ConnectionLimiter>,
    supervisor: ServiceManager,
    signals: BlockedSignals,
    policy: SignalPolicy,
}

/// The parts that a daemon serves with.
#[derive(Debug)]
pub struct DaemonParts {
    /// The listeners, passed ones first.
    pub listeners: Vec<Listener>,
    /// The connection limit, shared by all listeners.
    pub places: Arc<ConnectionLimiter>,
    /// The signals, including those received since the start.
    pub signals: SignalStream,
    /// Completes the start once the daemon serves.
    pub opening: PendingReady,
    /// The service manager, to be notified once the start is complete.
    pub supervisor: ServiceManager,
}

impl BoundDaemon {
    /// Detaches, blocks signals, locks the pidfile, listens, starts the log and switches the user, in this
    /// order. With `-daemon` only the daemon returns. No thread may exist before this call, nor be started
    /// until [`BoundDaemon::into_parts`].
    ///
    /// Listens on the sockets passed by a service manager and on `listen`; without any of them, on
    /// `otherwise`.
    ///
    /// # Errors
    /// [`StartError`], in one line. Created files are removed.
    pub fn new(
        program: &ProgramInfo,
        options: &DaemonOptions,
        listen: &[Address],
        otherwise: Option<Address>,
    ) -> Result<Self, StartError> {
        // Before detaching: the variables are meant for the process that the service manager started.
        let passed = SocketActivation::from_environment()?;
        let further = further(&passed, listen, otherwise)?;
        let supervisor = ServiceManager::new(Notifier::from_environment()?, options.daemon);
        let user = options.user.as_deref().map(Account::resolve).transpose()?;
        let permissions = options.socket.permissions(user.as_ref())?;
        let launch = DaemonLaunch {
            program: program.name,
            detach: options.daemon,
            pidfile: options.pidfile.clone(),
            user,
        };
        let detached = launch.detach()?;
        let signals = BlockedSignals::hold()?;
        let starting = detached.lock()?;
        let files_max = file_limit::raise()?;
        let bind = |address| Listener::bind(address, &permissions);
        let mut listeners = passed.listeners().map_err(StartError::PassedListener)?;
        for address in &further {
            listeners.push(bind(address)?);
        }
        // Before the user changes: the new user may lack permission to reopen the standard streams.
        log::start(&options.log, program.name, options.daemon)?;
        let confined = starting.confine(listeners.iter_mut().filter_map(Listener::take_file).collect())?;
        debug!(files_max, "limit of open descriptors");
        let places = Arc::new(ConnectionLimiter::new(ConnectionLimits {
            max_connections: options.max_connections,
            throttle: options.throttle,
            descriptors: file_limit::connections_max(files_max),
        }));
        let policy = SignalPolicy { killable: options.killable, detached: options.daemon };
        Ok(Self { listeners, confined, places, supervisor, signals, policy })
    }

    /// Handles the signals, and returns the parts to serve with. Must be the first call in the runtime.
    ///
    /// # Errors
    /// A signal handler cannot be installed.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn into_parts(self) -> io::Result<DaemonParts> {
        let Self { listeners, confined, places, supervisor, signals, policy } = self;
        let signals = signals.listen(policy)?;
        let addresses = listeners.iter().map(Listener::actual_address).collect();
        Ok(DaemonParts {
            listeners,
            places,
            signals,
            opening: PendingReady { confined, addresses },
            supervisor,
        })
    }
}

/// A daemon that is about to serve.
#[derive(Debug)]
#[must_use = "who started the daemon waits"]
pub struct PendingReady {
    confined: Unprivileged,
    addresses: Vec<Address>,
}

impl PendingReady {
    /// Writes the pidfile, logs the listeners' addresses, and releases the parent process of a daemon.
    ///
    /// # Errors
    /// [`LifecycleError`]. The files are then removed, and nothing is logged.
    pub fn serving(self) -> Result<Serving, LifecycleError> {
        self.confined.serving_after(|| {
            for address in &self.addresses {
                info!(%address, "listening");
            }
        })
    }
}

/// Why a program does not start, or exits with a failure.
pub trait ProgramFailure: Display {
    /// The exit status for this failure.
    fn status(&self) -> u8;
}

/// Reports the result of a program: a failure is one line on stderr, also in syslog if configured, and its
/// status is returned.
pub fn exit_code(program: &ProgramInfo, log: &LogOptions, end: Result<(), impl ProgramFailure>) -> ExitCode {
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If stderr does not accept it (full disk, closed stream), the status still reports the failure.
            writeln!(io::stderr(), "{}: {failure}", program.name).ok();
            log::log_to_syslog(log, program.name, &failure);
            ExitCode::from(failure.status())
        }
    }
}

/// Waits for `-shutdown-timeout`, without end if it is 0. Cancel-safe.
pub async fn time_to_finish(shutdown_timeout: Duration) {
    if shutdown_timeout.is_zero() {
        pending::<()>().await;
    } else {
        tokio::time::sleep(shutdown_timeout).await;
    }
}

/// The addresses to listen on besides the passed sockets: `listen`, with each descriptor used once; if both
/// are empty, `otherwise`.
///
/// # Errors
/// [`StartError::NoAddress`], [`StartError::Twice`].
pub fn further(
    passed: &SocketActivation,
    listen: &[Address],
    otherwise: Option<Address>,
) -> Result<Vec<Address>, StartError> {
    let passed: Vec<Address> = passed.as_slice().iter().map(PassedFd::address).collect();
    if passed.is_empty() && listen.is_empty() {
        return Ok(vec![otherwise.ok_or(StartError::NoAddress)?]);
    }
    let further: Vec<Address> = listen.iter().filter(|address| !passed.contains(address)).cloned().collect();
    for (place, address) in further.iter().enumerate() {
        // For port 0 the system chooses another port each time.
        if address.port() != Some(0) && further[..place].contains(address) {
            return Err(StartError::Twice { address: address.clone() });
        }
    }
    Ok(further)
}

/// Why a daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// No address to listen on is configured.
    #[error("-listen is required unless a service manager passes sockets (LISTEN_FDS or EINHORN_FDS)")]
    NoAddress,
    /// An address is listed twice.
    #[error("-listen \"{address}\" is given twice")]
    Twice {
        /// The duplicate address.
        address: Address,
    },
    /// The variables of socket activation are invalid.
    #[error(transparent)]
    Passed(#[from] ActivationError),
    /// A passed descriptor cannot be listened on.
    #[error("passed by the service manager, {0}")]
    PassedListener(ListenError),
    /// The value of `NOTIFY_SOCKET` is invalid.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// A user or group does not exist.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Detaching, locking the pidfile or switching the user failed.
    #[error(transparent)]
    Life(#[from] LifecycleError),
    /// The auth token file cannot be used.
    #[error(transparent)]
    AuthToken(#[from] TokenFileError),
    /// The TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A log is already started.
    #[error(transparent)]
    Log(#[from] log::LogError),
    /// A resource of the system is not available.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl ProgramFailure for StartError {
    fn status(&self) -> u8 {
        match self {
            Self::NoAddress | Self::Twice { .. } => STATUS_MISTAKE as u8,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    /// The addresses to listen on besides the passed descriptors `passed`, for `listen`, with or without
    /// `UNIX:/default` as the default.
    fn listened(passed: &str, listen: &[&str], default: bool) -> Result<Vec<String>, String> {
        let variable = |name: &str| (name == "EINHORN_FDS").then(|| OsString::from(passed));
        let passed = SocketActivation::from_variables(variable, 1, 1).unwrap();
        let listen: Vec<Address> = listen.iter().map(|text| text.parse().unwrap()).collect();
        let otherwise = default.then(|| "UNIX:/default".parse().unwrap());
        let found = further(&passed, &listen, otherwise).map_err(|error| error.to_string())?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn passed_sockets_add_to_listen_options() {
        assert_eq!(listened("3 4", &[], true).unwrap(), Vec::<String>::new());
        assert_eq!(listened("3", &["IP:1"], true).unwrap(), ["IP:1"]);
        assert_eq!(listened("", &["IP:1", "IP:2"], true).unwrap(), ["IP:1", "IP:2"]);
    }

    #[test]
    fn passed_descriptor_also_in_listen_is_used_once() {
        assert_eq!(listened("3", &["FD:3"], false).unwrap(), Vec::<String>::new());
        assert_eq!(listened("3", &["FD:3", "FD:4"], false).unwrap(), ["FD:4"]);
    }

    #[test]
    fn duplicate_address_is_refused() {
        for address in ["FD:3", "UNIX:/s", "IP:9001"] {
            let error = listened("", &[address, "IP:1", address], false).unwrap_err();
            assert_eq!(error, format!("-listen \"{address}\" is given twice"));
        }
        assert_eq!(listened("", &["IP:0", "IP:0"], false).unwrap(), ["IP:0", "IP:0"]);
        assert_eq!(listened("3", &["FD:3", "FD:3"], false).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn default_address_applies_without_others() {
        assert_eq!(listened("", &[], true).unwrap(), ["UNIX:/default"]);
        let error = listened("", &[], false).unwrap_err();
        assert!(error.contains("-listen") && error.contains("LISTEN_FDS"), "{error}");
    }
}
