//! The life of the master: what is opened, started, awaited and ended, in that order.

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

/// Descriptors that there must be besides the sockets: seven for the runtime, and most of those for a first child, whose start
/// says itself when it has too few.
const DESCRIPTORS_MIN: usize = 16;

/// Holds the sockets and runs the command until a signal ends it.
pub(crate) fn run(options: MasterOptions) -> Result<(), MasterError> {
    let user = options.user.as_deref().map(Account::resolve).transpose().map_err(StartError::from)?;
    let permissions = options.socket.permissions(user.as_ref()).map_err(StartError::from)?;
    // Before detaching: the variables are meant for the process that the supervisor started.
    let passed = SocketActivation::from_environment().map_err(StartError::from)?;
    let further = further(&passed, &options.listen, None)?;
    let passed = passed.as_slice().iter().map(ListenSpec::from);
    let places: Vec<ListenSpec> = passed.chain(further.into_iter().map(ListenSpec::from)).collect();
    let notifier = Notifier::from_environment()?;
    // A daemon leaves it, and children start there.
    let directory = options.daemon.then(Directory::current).transpose()?;
    let launch = DaemonLaunch {
        program: PROGRAM.name,
        detach: options.daemon,
        pidfile: options.pidfile.clone(),
        // That of the children: the master keeps the right to become it.
        user: None,
    };
    let detached = launch.detach()?;
    let signals = MasterSignals::hold()?;
    let starting = detached.lock()?;
    let sockets = ListenSockets::open(&places, permissions, options.nonblock).map_err(StartError::from)?;
    // The sockets keep their files themselves, for one may be made anew.
    let confined = starting.confine(Vec::new())?;
    let log = log::start(&options.log, PROGRAM.name, options.daemon).map_err(StartError::from)?;
    for address in sockets.addresses() {
        info!(%address, "listening");
    }
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        warn!(%error, "what children leave behind goes to another process");
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

/// Makes sure that the master can open what it needs. The runtime panics where it can't.
fn check_descriptors() -> io::Result<()> {
    let null = File::open("/dev/null")?;
    let opened: io::Result<Vec<File>> = (1..DESCRIPTORS_MIN).map(|_| null.try_clone()).collect();
    opened.map(drop)
}

/// All durations among the options are of a day at most.
const fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
