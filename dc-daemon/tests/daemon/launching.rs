//! Starting a daemon: the result for the parent process, the pidfile, signals.

use crate::fleet::{DaemonDir, descriptors, proc, status, terminate, text};
use crate::probe::STATUS_FAILED;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, getsid};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("daemon_is_detached_once_the_parent_exits", daemon_is_detached_once_the_parent_exits),
    ("daemon_keeps_its_directory_until_it_serves", daemon_keeps_its_directory_until_it_serves),
    ("startup_failure_reaches_the_parent", startup_failure_reaches_the_parent),
    ("silent_death_of_a_daemon_is_reported", silent_death_of_a_daemon_is_reported),
    ("path_of_a_live_daemon_is_refused", path_of_a_live_daemon_is_refused),
    ("second_instance_is_refused", second_instance_is_refused),
    ("killed_daemon_can_be_restarted", killed_daemon_can_be_restarted),
    ("pidfile_that_cannot_be_created_is_an_error", pidfile_that_cannot_be_created_is_an_error),
    ("files_of_others_stay_after_exit", files_of_others_stay_after_exit),
    ("unknown_user_is_an_error", unknown_user_is_an_error),
    ("user_change_needs_root", user_change_needs_root),
    ("inherited_socket_is_served", inherited_socket_is_served),
    ("foreground_signals_shut_down", foreground_signals_shut_down),
    ("daemon_ignores_sighup_and_user_signals", daemon_ignores_sighup_and_user_signals),
    ("killable_daemon_exits_on_user_signals", killable_daemon_exits_on_user_signals),
    ("second_signal_exits_at_once", second_signal_exits_at_once),
];

fn daemon_is_detached_once_the_parent_exits() {
    let place = DaemonDir::new();
    let daemon = place.start(&[]);
    assert_eq!(place.connect().line(), format!("{daemon} {}", nix::unistd::geteuid().is_root()));
    assert_ne!(getsid(Some(daemon)), getsid(None));
    assert_ne!(getsid(Some(daemon)), Ok(daemon), "it can take no terminal");
    assert_eq!(fs::read_link(format!("/proc/{daemon}/cwd")).unwrap().to_str(), Some("/"));
    assert_eq!(status(daemon, "Umask"), status(Pid::this(), "Umask"));
    assert_eq!(status(daemon, "SigBlk"), ["0000000000000000"]);
    for (number, target) in descriptors(daemon).into_iter().take(3) {
        assert_eq!(target, "/dev/null", "{number}");
    }
    let limits = proc(daemon, "limits");
    let files: Vec<&str> = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(files[0], files[1]);
    assert_eq!(terminate(daemon, Signal::SIGTERM), WaitStatus::Exited(daemon, 0));
    place.assert_empty();
}

fn daemon_keeps_its_directory_until_it_serves() {
    let place = DaemonDir::new();
    let daemon = place.start(&["tread=directory"]);
    let directory = fs::read_to_string(place.path().join("directory")).unwrap();
    assert_eq!(fs::canonicalize(directory).unwrap(), fs::canonicalize(place.path()).unwrap());
    terminate(daemon, Signal::SIGTERM);
}

fn startup_failure_reaches_the_parent() {
    let place = DaemonDir::new();
    for options in [&["die=fail"][..], &["die=fail", "daemon"]] {
        let output = place.probe(options).output().unwrap();
        assert_eq!(text(&output), "probe: asked to fail\n");
        assert_eq!(output.status.code(), Some(STATUS_FAILED.into()));
        place.assert_empty();
    }
}

fn silent_death_of_a_daemon_is_reported() {
    for (die, message) in [
        ("die=kill", "probe: the daemon was killed by SIGKILL before it was serving\n"),
        ("die=panic", "probe: the daemon panicked before it was serving\n"),
        ("die=quietly", "probe: the daemon ended before it was serving\n"),
    ] {
        let place = DaemonDir::new();
        let output = place.probe(&[die, "daemon"]).output().unwrap();
        assert!(text(&output).ends_with(message), "{}", text(&output));
        assert_eq!(output.status.code(), Some(1));
    }
}

fn path_of_a_live_daemon_is_refused() {
    let place = DaemonDir::new();
    let live = UnixListener::bind(place.socket()).unwrap();
    let output = place.probe(&["daemon"]).output().unwrap();
    let socket = place.socket();
    assert_eq!(
        text(&output),
        format!("probe: UNIX:{}: a live process is listening there\n", socket.display())
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(socket.exists() && !place.pidfile().exists());
    drop(live);
    terminate(place.start(&[]), Signal::SIGTERM);
    place.assert_empty();
}

fn second_instance_is_refused() {
    let place = DaemonDir::new();
    let daemon = place.start(&[]);
    for options in [&[][..], &["daemon"]] {
        let output = place.probe(options).output().unwrap();
        let pidfile = place.pidfile();
        let message = format!(
            "probe: pidfile {}: another instance is running as process {daemon}\n",
            pidfile.display()
        );
        assert_eq!((text(&output), output.status.code()), (message, Some(1)));
    }
    assert_eq!(place.pid_in_file(), daemon);
    assert!(place.connect().line().starts_with(&daemon.to_string()));
    terminate(daemon, Signal::SIGTERM);
    place.assert_empty();
}

fn killed_daemon_can_be_restarted() {
    let place = DaemonDir::new();
    let first = place.start(&[]);
    terminate(first, Signal::SIGKILL);
    assert!(place.pidfile().exists() && place.socket().exists());
    let second = place.start(&[]);
    assert_ne!(first, second);
    assert!(place.connect().line().starts_with(&second.to_string()));
    terminate(second, Signal::SIGTERM);
    place.assert_empty();
}

fn pidfile_that_cannot_be_created_is_an_error() {
    let place = DaemonDir::new();
    for options in [&["pidfile=no/such/pid"][..], &["pidfile=no/such/pid", "daemon"]] {
        let output = place.bare_probe(options).output().unwrap();
        let path = place.path().join("no/such/pid");
        let message = format!("probe: pidfile {}: cannot open it: No such file", path.display());
        assert!(text(&output).starts_with(&message), "{}", text(&output));
        assert_eq!((text(&output).lines().count(), output.status.code()), (1, Some(1)));
    }
}

fn files_of_others_stay_after_exit() {
    let place = DaemonDir::new();
    let daemon = place.start(&[]);
    fs::remove_file(place.socket()).unwrap();
    fs::remove_file(place.pidfile()).unwrap();
    let _other = UnixListener::bind(place.socket()).unwrap();
    fs::write(place.pidfile(), "another's").unwrap();
    assert_eq!(terminate(daemon, Signal::SIGTERM), WaitStatus::Exited(daemon, 0));
    UnixStream::connect(place.socket()).unwrap();
    assert_eq!(fs::read_to_string(place.pidfile()).unwrap(), "another's");
}

fn unknown_user_is_an_error() {
    let place = DaemonDir::new();
    for option in ["user=no-such-user", "sockowner=no-such-user"] {
        let output = place.probe(&[option, "daemon"]).output().unwrap();
        assert_eq!(text(&output), "probe: user \"no-such-user\" does not exist\n");
        assert_eq!(output.status.code(), Some(1));
    }
    let output = place.probe(&["sockgroup=no-such-group"]).output().unwrap();
    assert_eq!(text(&output), "probe: group \"no-such-group\" does not exist\n");
    place.assert_empty();
}

fn user_change_needs_root() {
    let place = DaemonDir::sticky();
    let mut probe = place.probe(&["user=4711"]);
    if nix::unistd::geteuid().is_root() {
        probe.uid(65534);
    }
    let output = probe.output().unwrap();
    assert_eq!(text(&output), "probe: cannot change the user: only root can\n");
    assert_eq!(output.status.code(), Some(1));
    place.assert_empty();
}

fn inherited_socket_is_served() {
    let place = DaemonDir::new();
    let listener = UnixListener::bind(place.socket()).unwrap();
    let mut child =
        place.bare_probe(&["listen=FD:0", "sockperms=000"]).stdin(OwnedFd::from(listener)).spawn().unwrap();
    let daemon = Pid::from_raw(child.id().try_into().unwrap());
    assert!(place.connect().line().starts_with(&daemon.to_string()));
    kill(daemon, Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(place.socket().exists(), "it was not ours to remove");
}

fn foreground_signals_shut_down() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // Under nohup(1), which may run this test, SIGHUP has no effect.
        let ignored = u64::from_str_radix(&status(Pid::this(), "SigIgn")[0], 16).unwrap();
        if signal == Signal::SIGHUP && ignored & 1 != 0 {
            println!("skipped: SIGHUP is ignored");
            continue;
        }
        let place = DaemonDir::new();
        let mut child = place.start_in_foreground(&["killable"]);
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        assert!(child.wait().unwrap().success(), "{signal}");
        place.assert_empty();
    }
}

fn daemon_ignores_sighup_and_user_signals() {
    let place = DaemonDir::new();
    let daemon = place.start(&[]);
    let mut talk = place.connect();
    talk.line();
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGPIPE] {
        kill(daemon, signal).unwrap();
    }
    assert!(place.connect().line().starts_with(&daemon.to_string()));
    kill(daemon, Signal::SIGINT).unwrap();
    assert_eq!(talk.line(), "shutdown now=false");
    assert_eq!(talk.line(), "");
    terminate(daemon, Signal::SIGCONT);
    place.assert_empty();
}

fn killable_daemon_exits_on_user_signals() {
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        let place = DaemonDir::new();
        let daemon = place.start(&["killable"]);
        assert_eq!(terminate(daemon, signal), WaitStatus::Exited(daemon, 0));
        place.assert_empty();
    }
}

fn second_signal_exits_at_once() {
    let place = DaemonDir::new();
    let mut child = place.start_in_foreground(&["linger"]);
    let probe = Pid::from_raw(child.id().try_into().unwrap());
    let mut talk = place.connect();
    talk.line();
    kill(probe, Signal::SIGTERM).unwrap();
    assert_eq!(talk.line(), "shutdown now=false");
    kill(probe, Signal::SIGTERM).unwrap();
    assert_eq!(talk.line(), "shutdown now=true");
    assert_eq!(child.wait().unwrap().into_raw(), 0);
    place.assert_empty();
}
