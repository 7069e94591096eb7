//! Orphaned processes adopted by the master, and processes left behind by it.

use crate::load::under_load;
use dc_tests::harness::callers::Callers;
use dc_tests::harness::master::MasterProcess;
use dc_tests::harness::patience::with_timeout;
use dc_tests::harness::test_dir::TestDir;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs;
use std::net::{TcpListener, TcpStream};

#[test]
fn a_grandchild_that_holds_the_socket_keeps_nobody_from_it() {
    let place = TestDir::new();
    let end = place.file("end");
    let grandchild = format!("grandchild={}", end.display());
    let mut master = MasterProcess::start(&["-start", "0"], &["ready", &grandchild]);
    under_load(&mut master, |master, _| master.restart());
    // The grandchild of the first child now belongs to the master.
    assert_eq!(master.children().len(), 2);
    let address = master.address();
    master.process.stop();
    assert!(TcpStream::connect(address).is_err(), "somebody listens");
    let again = TcpListener::bind(address).unwrap();
    TcpStream::connect(address).unwrap();
    again.accept().unwrap();
    fs::write(&end, "").unwrap();
}

#[test]
fn orphans_are_reaped() {
    let mut master = MasterProcess::start(&["-start", "0"], &["ready", "orphans=20"]);
    master.wait_for_children(&[master.child()]);
    under_load(&mut master, |master, _| master.restart());
    master.wait_for_children(&[master.child()]);
}

#[test]
fn hundreds_of_restarts_leave_nothing() {
    let mut master = MasterProcess::start(&["-start", "0"], &["ready"]);
    let pid = master.process.pid();
    let tally = under_load(&mut master, |master, _| {
        // By now all one-time resources, such as a thread's descriptor, exist.
        (0..3).for_each(|_| master.restart());
        let descriptors = master.descriptors();
        (0..200).for_each(|_| master.restart());
        master.wait_for_children(&[master.child()]);
        master.wait_for_descriptors(descriptors);
    });
    assert!(tally.by_child.len() > 100, "{}", tally.by_child.len());
    assert_eq!(master.process.pid(), pid);
    let lines = master.process.stop();
    for (text, count) in [("ready child=", 204), ("stopping child=", 203), ("ended child=", 204)] {
        let found = lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!(found, count, "{text}");
    }
}

#[test]
fn failed_restarts_leave_nothing_either() {
    let place = TestDir::new();
    let plan = dc_tests::harness::master::PlanFile::new(&place, &["ready"]);
    let mut master = MasterProcess::start(&["-start", "0"], &[plan.word()]);
    let old = master.child();
    under_load(&mut master, |master, _| {
        plan.set(&["die=1"]);
        let fail = |master: &MasterProcess| {
            master.hup();
            let new = master.started();
            master.ended(new);
            master.expect("the old one keeps serving");
        };
        (0..3).for_each(|_| fail(master));
        let descriptors = master.descriptors();
        (0..20).for_each(|_| fail(master));
        master.wait_for_children(&[old]);
        master.wait_for_descriptors(descriptors);
    });
}

#[test]
fn children_of_a_master_that_is_killed_are_told() {
    // This process adopts orphans, so that their end can be observed.
    set_child_subreaper(true).unwrap();
    for (options, status) in
        [(&["-start", "0"][..], None), (&["-start", "0", "-orphan-signal", "KILL"], Some(Signal::SIGKILL))]
    {
        let mut master = MasterProcess::start(options, &["ready"]);
        let child = master.child();
        master.process.kill();
        let ended = with_timeout("the end of an orphan", move || waitpid(child, None)).unwrap();
        let expected =
            status.map_or(WaitStatus::Exited(child, 0), |signal| WaitStatus::Signaled(child, signal, false));
        assert_eq!(ended, expected, "{options:?}");
    }
}

#[test]
fn orphan_signal_none_lets_children_of_a_killed_master_serve() {
    set_child_subreaper(true).unwrap();
    let mut master = MasterProcess::start(&["-start", "0", "-orphan-signal", "none"], &["ready"]);
    let child = master.child();
    let callers = Callers::of_child(master.address());
    master.process.kill();
    callers.wait_for(100);
    callers.wait_for_more_of(child);
    callers.finish().all_answered(100);
    kill(child, Signal::SIGTERM).unwrap();
    let ended = with_timeout("the end of an orphan", move || waitpid(child, None)).unwrap();
    assert_eq!(ended, WaitStatus::Exited(child, 0));
}
