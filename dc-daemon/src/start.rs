//! Starting a daemon as its options say, up to the moment when it serves.

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

/// A daemon that listens and has given up every right that it does not need. It may start threads now.
#[derive(Debug)]
pub struct BoundDaemon {
    listeners: Vec<Listener>,
    confined: Unprivileged,
    places: Arc<ConnectionLimiter>,
    supervisor: ServiceManager,
    signals: BlockedSignals,
    policy: SignalPolicy,
}

/// What a daemon serves with.
#[derive(Debug)]
pub struct DaemonParts {
    /// The listeners.
    pub listeners: Vec<Listener>,
    /// The places for the connections of all listeners together.
    pub places: Arc<ConnectionLimiter>,
    /// The signals; those too that have come since the start.
    pub signals: SignalStream,
    /// Who is told when it serves.
    pub opening: PendingReady,
    /// The supervisor, to be told when the daemon has been opened.
    pub supervisor: ServiceManager,
}

impl BoundDaemon {
    /// Detaches, holds signals back, locks the pidfile, listens, starts the log and becomes the user, in this order. Under
    /// `-daemon` only the daemon returns. No thread may exist before, nor be started until [`BoundDaemon::into_parts`].
    ///
    /// It listens on the sockets that a supervisor passed and on `listen`; where there are neither, on `otherwise`.
    ///
    /// # Errors
    /// [`StartError`], in one line. What was made is removed again.
    pub fn new(
        program: &ProgramInfo,
        options: &DaemonOptions,
        listen: &[Address],
        otherwise: Option<Address>,
    ) -> Result<Self, StartError> {
        // Before detaching: the variables are meant for the process that the supervisor started.
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
        // With the rights that the standard streams were opened with: another user may not open them anew.
        log::start(&options.log, program.name, options.daemon)?;
        let confined = starting.confine(listeners.iter_mut().filter_map(Listener::take_file).collect())?;
        debug!(files_max, "descriptors that may be open");
        let places = Arc::new(ConnectionLimiter::new(ConnectionLimits {
            max_connections: options.max_connections,
            throttle: options.throttle,
            descriptors: file_limit::connections_max(files_max),
        }));
        let policy = SignalPolicy { killable: options.killable, detached: options.daemon };
        Ok(Self { listeners, confined, places, supervisor, signals, policy })
    }

    /// Takes over the signals, and returns what to serve with. In the runtime, before anything else.
    ///
    /// # Errors
    /// Those of the system, for the signals.
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
    /// It serves: writes the pidfile, logs where it listens, and lets the starter of a daemon go.
    ///
    /// # Errors
    /// [`LifecycleError`]. The files are removed then, and nothing is logged.
    pub fn serving(self) -> Result<Serving, LifecycleError> {
        self.confined.serving_after(|| {
            for address in &self.addresses {
                info!(%address, "listening");
            }
        })
    }
}

/// Why a program does not start, or ends in another way than it was told to.
pub trait ProgramFailure: Display {
    /// The exit status that says so.
    fn status(&self) -> u8;
}

/// Reports how a program ended: nothing, or one line on stderr, and in the syslog where it logs there, and the status of
/// the failure.
pub fn exit_code(program: &ProgramInfo, log: &LogOptions, end: Result<(), impl ProgramFailure>) -> ExitCode {
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where nobody can be told (a full disk, a closed stderr), the status still says it.
            writeln!(io::stderr(), "{}: {failure}", program.name).ok();
            log::log_to_syslog(log, program.name, &failure);
            ExitCode::from(failure.status())
        }
    }
}

/// Waits for `-shutdown-timeout`; for ever if it is 0. Cancel-safe.
pub async fn time_to_finish(shutdown_timeout: Duration) {
    if shutdown_timeout.is_zero() {
        pending::<()>().await;
    } else {
        tokio::time::sleep(shutdown_timeout).await;
    }
}

/// Where to listen besides what was passed: at `listen`, but once on each descriptor; with neither, at `otherwise`.
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
        // The system chooses another port each time for port 0.
        if address.port() != Some(0) && further[..place].contains(address) {
            return Err(StartError::Twice { address: address.clone() });
        }
    }
    Ok(further)
}

/// Why a daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// There is nothing to listen on.
    #[error("-listen is required, or a socket passed by a supervisor, in LISTEN_FDS or EINHORN_FDS")]
    NoAddress,
    /// There can be one listener at an address.
    #[error("-listen \"{address}\" is given twice")]
    Twice {
        /// The address.
        address: Address,
    },
    /// The variables of passed sockets make no sense.
    #[error(transparent)]
    Passed(#[from] ActivationError),
    /// A passed descriptor can't be listened on.
    #[error("passed by a supervisor, {0}")]
    PassedListener(ListenError),
    /// The supervisor that the environment names can be none.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// A user or group is not known.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// An address can't be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Detaching, pidfile or user.
    #[error(transparent)]
    Life(#[from] LifecycleError),
    /// The file of the token of authentication gives none.
    #[error(transparent)]
    AuthToken(#[from] TokenFileError),
    /// The files of TLS can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The state directory can't be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is a log already.
    #[error(transparent)]
    Log(#[from] log::LogError),
    /// The system refuses what the daemon needs to run.
    #[error("can't start: {0}")]
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

    /// Where it is listened besides the passed descriptors, with these passed and these addresses given, `UNIX:/default` being the default.
    fn listened(passed: &str, listen: &[&str], default: bool) -> Result<Vec<String>, String> {
        let variable = |name: &str| (name == "EINHORN_FDS").then(|| OsString::from(passed));
        let passed = SocketActivation::from_variables(variable, 1, 1).unwrap();
        let listen: Vec<Address> = listen.iter().map(|text| text.parse().unwrap()).collect();
        let otherwise = default.then(|| "UNIX:/default".parse().unwrap());
        let found = further(&passed, &listen, otherwise).map_err(|error| error.to_string())?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_passed_is_listened_on_besides_what_is_given() {
        assert_eq!(listened("3 4", &[], true).unwrap(), Vec::<String>::new());
        assert_eq!(listened("3", &["IP:1"], true).unwrap(), ["IP:1"]);
        assert_eq!(listened("", &["IP:1", "IP:2"], true).unwrap(), ["IP:1", "IP:2"]);
    }

    #[test]
    fn a_passed_descriptor_that_is_also_named_is_used_once() {
        assert_eq!(listened("3", &["FD:3"], false).unwrap(), Vec::<String>::new());
        assert_eq!(listened("3", &["FD:3", "FD:4"], false).unwrap(), ["FD:4"]);
    }

    #[test]
    fn an_address_that_is_given_twice_is_a_mistake() {
        for address in ["FD:3", "UNIX:/s", "IP:9001"] {
            let error = listened("", &[address, "IP:1", address], false).unwrap_err();
            assert_eq!(error, format!("-listen \"{address}\" is given twice"));
        }
        assert_eq!(listened("", &["IP:0", "IP:0"], false).unwrap(), ["IP:0", "IP:0"]);
        assert_eq!(listened("3", &["FD:3", "FD:3"], false).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_default_is_for_when_there_is_nothing_else() {
        assert_eq!(listened("", &[], true).unwrap(), ["UNIX:/default"]);
        let error = listened("", &[], false).unwrap_err();
        assert!(error.contains("-listen") && error.contains("LISTEN_FDS"), "{error}");
    }
}
