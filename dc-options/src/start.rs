//! Starting a daemon as its options say, up to the moment when it serves.

use crate::{DaemonOptions, Program, log};
use libdc::auth::AuthTokenError;
use libdc::net::accept::ConnectionLimits;
use libdc::net::address::Address;
use libdc::net::listen::{ListenError, Listener};
use libdc::net::tls::error::TlsError;
use libdc::process::account::{Account, AccountError};
use libdc::process::file_limit;
use libdc::process::life::{Confined, Launch, LifeError};
use libdc::process::state::StateError;
use std::fmt::Display;
use std::future::pending;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;
use thiserror::Error;
use tracing::{debug, info};

/// A daemon that listens and has given up every right that it does not need. It may start threads now.
#[derive(Debug)]
pub struct Started {
    listeners: Vec<Listener>,
    confined: Confined,
    limits: ConnectionLimits,
}

impl Started {
    /// Detaches, locks the pidfile, listens, becomes the user and starts the log, in this order. Under
    /// `-daemon` only the daemon returns. No thread may exist before.
    ///
    /// # Errors
    /// [`StartError`], in one line. What was made is removed again.
    pub fn new(program: &Program, options: &DaemonOptions, listen: &[Address]) -> Result<Self, StartError> {
        let user = options.user.as_deref().map(Account::resolve).transpose()?;
        let permissions = options.socket.permissions(user.as_ref())?;
        let launch =
            Launch { program: program.name, detach: options.daemon, pidfile: options.pidfile.clone(), user };
        let starting = launch.begin()?;
        let files_max = file_limit::raise()?;
        let bind = |address| Listener::bind(address, &permissions);
        let mut listeners = listen.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let confined = starting.confine(listeners.iter_mut().filter_map(Listener::take_file).collect())?;
        log::start(&options.log, program.name)?;
        debug!(files_max, "descriptors that may be open");
        for listener in &listeners {
            info!(address = %listener.actual_address(), "listening");
        }
        let limits = ConnectionLimits {
            max_connections: options.max_connections,
            throttle: options.throttle,
            descriptors: file_limit::connections_max(files_max),
        };
        Ok(Self { listeners, confined, limits })
    }

    /// The listeners, how many connections to accept from all of them together, and what is to be told when
    /// they are served.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Listener>, ConnectionLimits, Confined) {
        (self.listeners, self.limits, self.confined)
    }
}

/// Reports how a daemon ended: nothing, or one line on stderr and status 1.
pub fn exit_code(program: &Program, end: Result<(), impl Display>) -> ExitCode {
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody can be told (a full disk, a closed stderr), the status still says it.
            writeln!(io::stderr(), "{}: {error}", program.name).ok();
            ExitCode::FAILURE
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

/// Why a daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A user or group is not known.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// An address can't be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Detaching, pidfile or user.
    #[error(transparent)]
    Life(#[from] LifeError),
    /// The file of the token of authentication gives none.
    #[error(transparent)]
    AuthToken(#[from] AuthTokenError),
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
