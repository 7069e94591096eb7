//! What goes to the local syslog: the log, and what children write.

use dc_tests::harness::loopback::own_loopback;
use dc_tests::harness::patience::{PATIENCE, patiently};
use dc_tests::harness::place::Place;
use dc_tests::harness::process::Launch;
use dc_tests::harness::programs::program;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

/// A `/dev` of its own for the program, in which `/dev/log` is the socket `log` of this directory.
const OWN_DEV: &str = "exec unshare -m sh -c 'mkdir dev && mount -t tmpfs tmpfs dev && \
    cp -a /dev/null /dev/urandom dev/ && ln -s \"$PWD/log\" dev/log && mount --bind dev /dev && exec \"$0\" \"$@\"' \"$0\" \"$@\"";

/// A syslog, and the launch of a master that takes it for the system's. `None`, with a word, where that is not possible.
fn with_syslog(place: &Place) -> Option<(UnixDatagram, Launch)> {
    let works = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: nothing can be mounted in a space of its own");
        return None;
    }
    let syslog = UnixDatagram::bind(place.file("log")).unwrap();
    syslog.set_read_timeout(Some(PATIENCE)).unwrap();
    Some((syslog, Launch::new("dc_master").within(place.path()).after(OWN_DEV).with(["-syslog"])))
}

/// The next message, without time and number of the process.
fn message(syslog: &UnixDatagram) -> String {
    let mut buffer = [0; 10_000];
    let count = syslog.recv(&mut buffer).expect("a message");
    let text = String::from_utf8(buffer[..count].to_vec()).unwrap();
    let (head, message) = text.split_once(": ").unwrap();
    assert!(head.contains(" dc_master["), "{text}");
    message.to_owned()
}

/// Messages up to one that ends so.
fn messages_until(syslog: &UnixDatagram, end: &str) -> Vec<String> {
    let mut messages = Vec::new();
    while !messages.last().is_some_and(|last: &String| last.ends_with(end)) {
        messages.push(message(syslog));
    }
    messages
}

#[test]
fn what_children_write_is_all_there_whatever_is_logged() {
    let place = Place::new();
    let Some((syslog, launch)) = with_syslog(&place) else { return };
    let launch = launch.with(["-log", "error", "-start", "0"]);
    let launch = launch.with(["-listen", &format!("tcp://{}:0", own_loopback())]);
    let launch = launch.with(["-command", program("dc_child").to_str().unwrap(), "--", "output", "ready"]);
    let mut master = launch.start();
    let mut messages = messages_until(&syslog, "] plain");
    // Standard error comes when it comes.
    let is_there = |messages: &[String]| messages.iter().any(|message| message.ends_with("] to stderr"));
    if !is_there(&messages) {
        messages.extend(messages_until(&syslog, "] to stderr"));
    }
    patiently("the end of the master", move || master.stop());
    messages.extend(messages_until(&syslog, "] without an end"));
    let long = messages.iter().filter(|message| !message.contains("binary"));
    let count = long.map(|line| line.bytes().filter(|byte| *byte == b'x').count()).sum::<usize>();
    assert_eq!(count, 300_001, "of the long line something is lost");
    let strays: Vec<&String> = messages.iter().filter(|message| !message.starts_with('[')).collect();
    assert!(strays.is_empty(), "{strays:?}");
}
