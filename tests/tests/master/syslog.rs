//! Output to the local syslog: the log, and the children's output.

use dc_tests::harness::daemon::{DaemonProcess, stderr};
use dc_tests::harness::loopback::own_loopback;
use dc_tests::harness::patience::{PATIENCE, with_timeout};
use dc_tests::harness::process::ProgramLaunch;
use dc_tests::harness::programs::program;
use dc_tests::harness::require::skip;
use dc_tests::harness::test_dir::TestDir;
use nix::sys::signal::Signal;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

/// A private `/dev` for the program, in which `/dev/log` is the socket `log` of this directory.
const OWN_DEV: &str = "exec unshare -m sh -c 'mkdir -p dev && mount -t tmpfs tmpfs dev && \
    cp -a /dev/null /dev/urandom dev/ && ln -s \"$PWD/log\" dev/log && mount --bind dev /dev && exec \"$0\" \"$@\"' \"$0\" \"$@\"";

/// A syslog in `place`.
fn syslog(place: &TestDir) -> UnixDatagram {
    let syslog = UnixDatagram::bind(place.file("log")).unwrap();
    syslog.set_read_timeout(Some(PATIENCE)).unwrap();
    syslog
}

/// A master with `place` as its `/dev`. `None`, with a message, if that is not possible.
fn launch(place: &TestDir) -> Option<ProgramLaunch> {
    let works = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        skip("no mount namespace can be made (unshare -m)");
        return None;
    }
    let launch =
        ProgramLaunch::new("dc_master").within(place.path()).after(OWN_DEV).with(["-syslog", "-start", "0"]);
    Some(launch.with(["-listen", &format!("tcp://{}:0", own_loopback())]))
}

/// The next message, without its time and pid.
fn message(syslog: &UnixDatagram) -> String {
    let mut buffer = [0; 10_000];
    let count = syslog.recv(&mut buffer).expect("a message");
    let text = String::from_utf8(buffer[..count].to_vec()).unwrap();
    let (head, message) = text.split_once(": ").unwrap();
    assert!(head.contains(" dc_master["), "{text}");
    message.to_owned()
}

/// Messages up to the first with this ending.
fn messages_until(syslog: &UnixDatagram, end: &str) -> Vec<String> {
    let mut messages = Vec::new();
    while !messages.last().is_some_and(|last: &String| last.ends_with(end)) {
        messages.push(message(syslog));
    }
    messages
}

#[test]
fn child_output_reaches_syslog_at_any_log_level() {
    let place = TestDir::new();
    let Some(launch) = launch(&place) else { return };
    let syslog = syslog(&place);
    let launch = launch.with(["-log", "error", "-command", program("dc_child").to_str().unwrap()]);
    let mut master = launch.with(["--", "output", "ready"]).start();
    let mut messages = messages_until(&syslog, "] plain");
    // Standard error may arrive at any time.
    let is_there = |messages: &[String]| messages.iter().any(|message| message.ends_with("] to stderr"));
    if !is_there(&messages) {
        messages.extend(messages_until(&syslog, "] to stderr"));
    }
    with_timeout("the end of the master", move || master.stop());
    messages.extend(messages_until(&syslog, "] without an end"));
    let long = messages.iter().filter(|message| !message.contains("binary"));
    let count = long.map(|line| line.bytes().filter(|byte| *byte == b'x').count()).sum::<usize>();
    assert_eq!(count, 300_001, "of the long line something is lost");
    let strays: Vec<&String> = messages.iter().filter(|message| !message.starts_with('[')).collect();
    assert!(strays.is_empty(), "{strays:?}");
}

#[test]
fn why_it_does_not_start_is_said_on_both_ways() {
    let place = TestDir::new();
    let Some(launch) = launch(&place) else { return };
    let syslog = syslog(&place);
    for further in [&[][..], &["-daemon"]] {
        let output = launch.clone().with(further).with(["-command", "/no/such/command"]).output();
        let said = stderr(&output);
        let reason = said.strip_prefix("dc_master: ").unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(reason.contains("/no/such/command"), "{said}");
        messages_until(&syslog, reason.trim_end());
    }
}

#[test]
fn missing_syslog_is_reported_before_streams_are_closed() {
    let place = TestDir::new();
    let Some(launch) = launch(&place) else { return };
    let pidfile = place.file("pid");
    let launch = launch.with(["-daemon", "-pidfile", pidfile.to_str().unwrap()]);
    let launch = launch.with(["-command", program("dc_child").to_str().unwrap(), "--", "ready"]);
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let output = launch.output();
    let said = stderr(&output);
    assert_eq!((output.status.code(), said.lines().count()), (Some(0), 1), "{said}");
    assert!(said.starts_with("dc_master: cannot log until a syslog daemon listens at /dev/log: "), "{said}");
    let daemon = DaemonProcess::of_pidfile(&pidfile);
    // The socket is used once it exists.
    let syslog = syslog(&place);
    daemon.terminate(Signal::SIGTERM);
    messages_until(&syslog, "ended");
}
