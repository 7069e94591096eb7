//! Giving up root: the remaining privileges of a daemon, and the removal of its files. Needs root.

use crate::fleet::{DaemonDir, descriptors, is_root, status, terminate, text};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("root_is_given_up_permanently", root_is_given_up_permanently),
    ("socket_has_configured_owner_and_mode", socket_has_configured_owner_and_mode),
    ("files_are_removed_before_the_daemon_exits", files_are_removed_before_the_daemon_exits),
    ("killed_daemon_files_are_removed", killed_daemon_files_are_removed),
    ("killed_daemon_can_be_replaced_at_once", killed_daemon_can_be_replaced_at_once),
    ("successor_waits_for_the_cleanup_helper", successor_waits_for_the_cleanup_helper),
    ("failed_start_leaves_no_files", failed_start_leaves_no_files),
    ("cleanup_helper_holds_no_other_descriptors", cleanup_helper_holds_no_other_descriptors),
    ("cleanup_helper_survives_signals", cleanup_helper_survives_signals),
    ("cleanup_helper_keeps_files_of_others", cleanup_helper_keeps_files_of_others),
    ("missing_cleanup_helper_is_reported", missing_cleanup_helper_is_reported),
    ("cleanup_helper_is_started_only_if_needed", cleanup_helper_is_started_only_if_needed),
];

const NOBODY: &[&str] = &["user=4711", "sockowner=4712", "sockgroup=4713", "sockperms=660"];

fn root_is_given_up_permanently() {
    if !is_root() {
        return;
    }
    let place = DaemonDir::sticky();
    let daemon = place.start(NOBODY);
    assert_eq!(place.connect().line(), format!("{daemon} false"));
    assert_eq!(status(daemon, "Uid"), ["4711"; 4]);
    assert_eq!(status(daemon, "Gid"), ["4711"; 4]);
    assert_eq!(status(daemon, "Groups"), ["4711"]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(daemon, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(place.pid_in_file(), daemon);
    assert_eq!(fs::metadata(place.pidfile()).unwrap().uid(), 0);
    terminate(daemon, Signal::SIGTERM);
}

fn socket_has_configured_owner_and_mode() {
    if !is_root() {
        return;
    }
    let place = DaemonDir::sticky();
    let daemon = place.start(NOBODY);
    let socket = fs::metadata(place.socket()).unwrap();
    assert_eq!((socket.uid(), socket.gid(), socket.permissions().mode() & 0o7777), (4712, 4713, 0o660));
    terminate(daemon, Signal::SIGTERM);
}

fn files_are_removed_before_the_daemon_exits() {
    if !is_root() {
        return;
    }
    for options in [&[][..], &["killable"]] {
        let place = DaemonDir::sticky();
        let daemon = place.start(&[NOBODY, options].concat());
        let custodian = place.custodian();
        let signal = if options.is_empty() { Signal::SIGTERM } else { Signal::SIGUSR1 };
        assert_eq!(terminate(daemon, signal), WaitStatus::Exited(daemon, 0));
        place.assert_empty();
        assert_eq!(waitpid(custodian, None), Ok(WaitStatus::Exited(custodian, 0)));
    }
}

fn killed_daemon_files_are_removed() {
    if !is_root() {
        return;
    }
    let place = DaemonDir::sticky();
    let daemon = place.start(NOBODY);
    let custodian = place.custodian();
    terminate(daemon, Signal::SIGKILL);
    assert_eq!(waitpid(custodian, None), Ok(WaitStatus::Exited(custodian, 0)));
    place.assert_empty();
}

fn killed_daemon_can_be_replaced_at_once() {
    if !is_root() {
        return;
    }
    let place = DaemonDir::sticky();
    let mut daemon = place.start(NOBODY);
    for _ in 0..5 {
        let custodian = place.custodian();
        terminate(daemon, Signal::SIGKILL);
        daemon = place.start(NOBODY);
        assert_eq!(waitpid(custodian, None), Ok(WaitStatus::Exited(custodian, 0)));
        assert_eq!(place.pid_in_file(), daemon);
        assert_eq!(place.connect().line(), format!("{daemon} false"));
    }
    terminate(daemon, Signal::SIGTERM);
    place.assert_empty();
}

fn successor_waits_for_the_cleanup_helper() {
    if !is_root() {
        return;
    }
    let place = DaemonDir::sticky();
    let daemon = place.start(NOBODY);
    let custodian = place.custodian();
    kill(custodian, Signal::SIGSTOP).unwrap();
    terminate(daemon, Signal::SIGKILL);
    let mut successor = place.probe(NOBODY).spawn().unwrap();
    // It has inspected the pidfile once it sleeps or has failed.
    let looked = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S") || rest.starts_with(" Z"))
    };
    while !looked(successor.id()) {
        std::thread::yield_now();
    }
    kill(custodian, Signal::SIGCONT).unwrap();
    let mut line = String::new();
    BufReader::new(successor.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "serving\n");
    assert_eq!(waitpid(custodian, None), Ok(WaitStatus::Exited(custodian, 0)));
    kill(place.pid_in_file(), Signal::SIGTERM).unwrap();
    assert!(successor.wait().unwrap().success());
    place.assert_empty();
}

fn failed_start_leaves_no_files() {
    if !is_root() {
        return;
    }
    for (die, code) in [("die=fail", 3), ("die=kill", 1)] {
        let place = DaemonDir::sticky();
        let output = place.probe(&[NOBODY, &[die, "daemon"]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        // The cleanup helper of a dead daemon; it may have exited, too.
        for process in place.processes() {
            waitpid(process, None).ok();
        }
        place.assert_empty();
    }
}

fn cleanup_helper_holds_no_other_descriptors() {
    if !is_root() {
        return;
    }
    let place = DaemonDir::sticky();
    let daemon = place.start(NOBODY);
    let custodian = place.custodian();
    let mut kept = Vec::new();
    for (number, target) in descriptors(custodian) {
        if number <= 2 {
            assert_eq!(target, "/dev/null");
        } else if target.starts_with("socket:") {
            kept.push("socket pair".to_owned());
        } else {
            kept.push(target);
        }
    }
    kept.sort_unstable();
    let file = |path: std::path::PathBuf| path.display().to_string();
    let mut expected =
        vec!["socket pair".to_owned(), file(place.pidfile()), file(place.pidfile()), file(place.socket())];
    expected.sort_unstable();
    assert_eq!(kept, expected);
    // A socket held only by the daemon is dead with it, even while its cleanup helper still runs.
    kill(custodian, Signal::SIGSTOP).unwrap();
    terminate(daemon, Signal::SIGKILL);
    let refused = UnixStream::connect(place.socket()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    kill(custodian, Signal::SIGCONT).unwrap();
    waitpid(custodian, None).unwrap();
    place.assert_empty();
}

fn cleanup_helper_survives_signals() {
    if !is_root() {
        return;
    }
    let place = DaemonDir::sticky();
    let daemon = place.start(NOBODY);
    let custodian = place.custodian();
    assert_eq!(fs::read_link(format!("/proc/{custodian}/cwd")).unwrap().to_str(), Some("/"));
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1] {
        kill(custodian, signal).unwrap();
    }
    assert_eq!(terminate(daemon, Signal::SIGTERM), WaitStatus::Exited(daemon, 0));
    assert_eq!(waitpid(custodian, None), Ok(WaitStatus::Exited(custodian, 0)));
    place.assert_empty();
}

fn cleanup_helper_keeps_files_of_others() {
    if !is_root() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let place = DaemonDir::sticky();
        let daemon = place.start(NOBODY);
        let custodian = place.custodian();
        fs::remove_file(place.socket()).unwrap();
        fs::remove_file(place.pidfile()).unwrap();
        let _other = UnixListener::bind(place.socket()).unwrap();
        fs::write(place.pidfile(), "another's").unwrap();
        terminate(daemon, signal);
        waitpid(custodian, None).unwrap();
        UnixStream::connect(place.socket()).unwrap();
        assert_eq!(fs::read_to_string(place.pidfile()).unwrap(), "another's");
    }
}

fn missing_cleanup_helper_is_reported() {
    if !is_root() {
        return;
    }
    let place = DaemonDir::sticky();
    let child = place.start_in_foreground(NOBODY);
    terminate(place.custodian(), Signal::SIGKILL);
    kill(place.pid_in_file(), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let message = "probe: the cleanup helper for socket and pidfile has exited: ";
    assert!(text(&output).starts_with(message), "{}", text(&output));
    assert_eq!(output.status.code(), Some(1));
    // The remaining files do not prevent the next start.
    terminate(place.start(NOBODY), Signal::SIGTERM);
    place.assert_empty();
}

fn cleanup_helper_is_started_only_if_needed() {
    if !is_root() {
        return;
    }
    for options in [&["user=root"][..], &["sockperms=600"]] {
        let place = DaemonDir::new();
        let daemon = place.start(options);
        assert_eq!(place.processes(), [daemon]);
        terminate(daemon, Signal::SIGTERM);
        place.assert_empty();
    }
}
