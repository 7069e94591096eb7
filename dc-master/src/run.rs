//! Life cycle of the master: opens, starts, waits and shuts down.

use crate::error::MasterError;
use crate::exec_stub::ExecRequest;
use crate::launch::{Directory, Launcher};
use crate::master::{Master, MasterParts};
use crate::notify_socket::{NotifyDir, SenderAccess};
use crate::options::{MasterOptions, PROGRAM};
use crate::output::ChildOutput;
use crate::signals::MasterSignals;
use crate::sockets::{ListenSockets, ListenSpec};
use crate::supervisor::SupervisorSettings;
use dc_daemon::account::Account;
use dc_daemon::activation::SocketActivation;
use dc_daemon::lifecycle::DaemonLaunch;
use dc_daemon::log;
use dc_daemon::notify::Notifier;
use dc_daemon::start::{StartError, further};
use libdc::net::runtime::runtime;
use std::fs::File;
use std::io;
use std::time::Duration;
use tracing::{info, warn};

/// Descriptors needed besides the sockets: seven for the runtime, and most of those for a first child.
/// Starting a child reports a shortage itself.
const DESCRIPTORS_MIN: usize = 16;

/// Holds the sockets and runs the command until a signal ends it.
pub(crate) fn run(options: MasterOptions) -> Result<(), MasterError> {
    let user = options.user.as_deref().map(Account::resolve).transpose().map_err(StartError::from)?;
    let permissions = options.socket.permissions(user.as_ref()).map_err(StartError::from)?;
    // Before detaching: the variables are addressed to this process id.
    let passed = SocketActivation::from_environment().map_err(StartError::from)?;
    let further = further(&passed, &options.listen, None)?;
    let passed = passed.as_slice().iter().map(ListenSpec::from);
    let places: Vec<ListenSpec> = passed.chain(further.into_iter().map(ListenSpec::from)).collect();
    let notifier = Notifier::from_environment()?;
    // Detaching changes the directory; children start in the original one.
    let directory = options.daemon.then(Directory::current).transpose()?;
    let launch = DaemonLaunch {
        program: PROGRAM.name,
        detach: options.daemon,
        pidfile: options.pidfile.clone(),
        // The user applies to children: the master keeps the privilege to change to it.
        user: None,
    };
    let detached = launch.detach()?;
    let signals = MasterSignals::hold()?;
    let starting = detached.lock()?;
    let sockets = ListenSockets::open(&places, permissions, options.nonblock).map_err(StartError::from)?;
    // The sockets own their files, since a socket may be reopened.
    let confined = starting.confine(Vec::new())?;
    let log = log::start(&options.log, PROGRAM.name, options.daemon).map_err(StartError::from)?;
    for address in sockets.addresses() {
        info!(%address, "listening");
    }
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        warn!(%error, "cannot adopt orphaned descendants of children");
    }
    check_descriptors()?;
    let launcher = Launcher {
        start: ExecRequest {
            command: options.command,
            arguments: options.arguments,
            user: options.user,
            orphan_signal: options.orphan_signal.0,
        },
        directory,
        notify_sockets: NotifyDir::new(SenderAccess::for_user(user.as_ref().map(Account::uid))),
    };
    let settings = SupervisorSettings {
        start_ms: milliseconds(options.start),
        ready_timeout_ms: milliseconds(options.ready_timeout),
        stop_timeout_ms: milliseconds(options.stop_timeout),
        restarts_max: options.max_restarts,
    };
    runtime()?.block_on(async {
        let signals = MasterSignals::listen(signals)?;
        let output = ChildOutput::start(log, options.log.syslog)?;
        let parts = MasterParts { launcher, sockets, output, signals, notifier, confined };
        Master::new(settings, options.stop_signal, parts).run().await
    })
}

/// Checks that the master can open enough descriptors. The runtime would panic.
fn check_descriptors() -> io::Result<()> {
    let null = File::open("/dev/null")?;
    let opened: io::Result<Vec<File>> = (1..DESCRIPTORS_MIN).map(|_| null.try_clone()).collect();
    opened.map(drop)
}

/// No duration among the options exceeds a day.
const fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
