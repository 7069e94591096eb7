//! Failures of a new child: the old child keeps serving.

use crate::load::under_load;
use dc_tests::harness::master::{ChildReport, MasterProcess, PlanFile, number, wait_for_file};
use dc_tests::harness::programs::program;
use dc_tests::harness::require::skip;
use dc_tests::harness::test_dir::TestDir;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

const DIED: &str = "the new child died before it was ready; the old one keeps serving";
const NOT_READY: &str = "the new child was not ready in time; the old one keeps serving";

/// Under load, a child with `plan` fails with the log line `says`, and the old one keeps serving; the next
/// good child takes over.
fn fails(options: &[&str], plan: &[&str], says: &str) {
    let place = TestDir::new();
    let plan_file = PlanFile::new(&place, &["ready"]);
    let mut master = MasterProcess::start(options, &[plan_file.word()]);
    let old = master.child();
    under_load(&mut master, |master, callers| {
        plan_file.set(plan);
        master.hup();
        let new = master.started();
        let line = master.expect(says);
        assert_eq!(number(&line), new, "{line}");
        assert!(line.contains(&format!("old={old}")), "{line}");
        master.process.log.wait_for(&format!("ended child={new} "));
        callers.wait_for_more_of(old);
        // The failure leaves no trace: the next child starts and takes over.
        plan_file.set(&["ready"]);
        master.restart();
        callers.wait_for_child(master.child());
    });
    assert_eq!(master.process.log.with("stopping child=").len(), 1);
    assert_eq!(master.process.log.with("restarting").len(), 0);
    master.process.stop();
}

#[test]
fn child_that_dies_at_once_leaves_the_old_one_serving() {
    fails(&["-start", "0"], &["die=7"], DIED);
    // The same with readiness by age alone.
    fails(&["-start", "60000"], &["die=0"], DIED);
}

#[test]
fn child_without_descriptors_leaves_the_old_one_serving() {
    let mut master = MasterProcess::start(&["-start", "0"], &["ready"]);
    let old = master.child();
    let allow = |master: &MasterProcess, files: usize| {
        let pid = master.process.pid().to_string();
        let limit = format!("--nofile={files}:4096");
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    under_load(&mut master, |master, callers| {
        allow(master, master.descriptors() + 3);
        for _ in 0..3 {
            master.hup();
            let line = master.expect("cannot start a new child; the old one keeps serving");
            assert!(line.ends_with(&format!("old={old}")), "{line}");
        }
        callers.wait_for_more_of(old);
        allow(master, 1024);
        master.restart();
        callers.wait_for_child(master.child());
    });
    master.process.stop();
}

#[test]
fn child_that_dies_after_a_second_leaves_the_old_one_serving() {
    fails(&["-start", "60000"], &["mute", "die-after=1000"], DIED);
}

#[test]
fn child_that_dies_after_ready_leaves_the_old_one_serving() {
    let place = TestDir::new();
    let go = place.file("go");
    let plan = PlanFile::new(&place, &["ready"]);
    let mut master = MasterProcess::start(&["-start", "0"], &[plan.word()]);
    let old = master.child();
    under_load(&mut master, |master, callers| {
        plan.set(&["mute", "last-word", &format!("ready-when={}", go.display())]);
        master.hup();
        let new = master.started();
        // The master detects both at once.
        master.process.signal(Signal::SIGSTOP);
        fs::write(&go, "").unwrap();
        master.wait_for_zombie(new);
        master.process.signal(Signal::SIGCONT);
        let line = master.expect(DIED);
        assert!(line.contains(&format!("child={new} old={old}")), "{line}");
        callers.wait_for_more_of(old);
        plan.set(&["ready"]);
        master.restart();
    });
    assert_eq!(master.process.log.with("ready child=").len(), 2);
    master.process.stop();
}

#[test]
fn child_that_is_never_ready_is_given_up() {
    fails(&["-start", "0", "-ready-timeout", "1"], &[], NOT_READY);
}

#[test]
fn child_that_is_never_ready_and_ignores_signals_is_killed() {
    let place = TestDir::new();
    let plan = PlanFile::new(&place, &["ready"]);
    let options = ["-start", "0", "-ready-timeout", "1", "-stop-timeout", "1"];
    let mut master = MasterProcess::start(&options, &[plan.word()]);
    let old = master.child();
    under_load(&mut master, |master, callers| {
        plan.set(&["mute", "deaf"]);
        master.hup();
        let new = master.started();
        master.expect(NOT_READY);
        master.expect(&format!("killed child={new}"));
        master.ended(new);
        callers.wait_for_more_of(old);
    });
}

#[test]
fn ready_child_that_dies_is_replaced_while_the_old_one_drains() {
    let place = TestDir::new();
    let (death, end) = (place.file("death"), place.file("end"));
    let plan = PlanFile::new(&place, &["ready", &format!("linger-until={}", end.display())]);
    let mut master = MasterProcess::start(&["-start", "0"], &[plan.word()]);
    let old = master.child();
    under_load(&mut master, |master, callers| {
        plan.set(&["ready", "mute", &format!("die-when={}", death.display())]);
        master.hup();
        let new = master.ready();
        master.expect(&format!("stopping child={old}"));
        plan.set(&["ready"]);
        fs::write(&death, "").unwrap();
        master.ended(new);
        master.expect("restarting in_ms=1000");
        // New connections now wait for this one.
        let next = master.ready();
        callers.wait_for_child(next);
        assert!(master.children().contains(&old), "the old one was not left to drain");
        fs::write(&end, "").unwrap();
        master.ended(old);
    });
}

#[test]
fn child_that_dies_while_the_master_is_stopped_was_not_ready() {
    let place = TestDir::new();
    let plan = PlanFile::new(&place, &["ready"]);
    let mut master = MasterProcess::start(&["-start", "1000"], &[plan.word()]);
    let old = master.child();
    under_load(&mut master, |master, callers| {
        // It is certainly dead when its start timeout has passed.
        plan.set(&["mute", "die-after=1200"]);
        master.hup();
        let new = master.started();
        master.process.signal(Signal::SIGSTOP);
        master.wait_for_zombie(new);
        master.process.signal(Signal::SIGCONT);
        let line = master.expect(DIED);
        assert!(line.contains(&format!("child={new} old={old}")), "{line}");
        callers.wait_for_more_of(old);
    });
    master.process.stop();
}

#[test]
fn ready_is_handled_before_the_deadline_of_a_stopped_master() {
    let place = TestDir::new();
    let said = place.file("said");
    let plan = PlanFile::new(&place, &["ready"]);
    let mut master = MasterProcess::start(&["-start", "0", "-ready-timeout", "1"], &[plan.word()]);
    let old = master.child();
    under_load(&mut master, |master, _| {
        plan.set(&["ready-after=1200", &format!("said={}", said.display())]);
        master.hup();
        let new = master.started();
        master.process.signal(Signal::SIGSTOP);
        wait_for_file(&said);
        master.process.signal(Signal::SIGCONT);
        assert_eq!(master.ready(), new);
        master.ended(old);
    });
    assert_eq!(master.process.log.with("not ready in time").len(), 0);
    master.process.stop();
}

#[test]
fn child_extends_its_start_timeout() {
    let place = TestDir::new();
    let plan = PlanFile::new(&place, &["ready"]);
    let mut master = MasterProcess::start(&["-start", "0", "-ready-timeout", "1"], &[plan.word()]);
    under_load(&mut master, |master, callers| {
        plan.set(&["extend=30000", "ready-after=1500"]);
        master.restart();
        callers.wait_for_child(master.child());
    });
    assert_eq!(master.process.log.with("not ready in time").len(), 0);
}

#[test]
fn descendant_of_a_child_may_notify_ready() {
    let mut master = MasterProcess::start(&["-start", "0"], &["ready-by-helper"]);
    under_load(&mut master, |master, _| master.restart());
}

#[test]
fn script_child_may_notify_ready_with_systemd_notify() {
    if Command::new("systemd-notify").arg("--version").output().is_err() {
        skip("systemd-notify is not installed");
        return;
    }
    let script = format!("systemd-notify --ready && exec {}", program("dc_child").display());
    let mut master = MasterProcess::for_command(Path::new("/bin/sh"), &["-start", "0"], &["-c", &script]);
    under_load(&mut master, |master, callers| {
        callers.wait_for_child(master.child());
        master.restart();
    });
}

#[test]
fn ready_from_an_unrelated_process_is_ignored() {
    let place = TestDir::new();
    let (report, ready) = (place.file("report"), place.file("ready"));
    let plan = PlanFile::new(&place, &["ready"]);
    let mut master = MasterProcess::start(&["-start", "0"], &[plan.word()]);
    let old = master.child();
    under_load(&mut master, |master, _| {
        let report_word = format!("report={}", report.display());
        plan.set(&[&report_word, &format!("ready-when={}", ready.display())]);
        master.hup();
        let new = master.started();
        master.written(new, "reported");
        let found = ChildReport::read(&report);
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to(b"READY=1", found.variable("NOTIFY_SOCKET").unwrap()).unwrap();
        master.expect("its sender is not the child");
        fs::write(&ready, "").unwrap();
        assert_eq!(master.ready(), new);
        master.ended(old);
    });
    let order: Vec<String> = master.process.log.lines();
    let at = |text: &str| order.iter().rposition(|line| line.contains(text)).unwrap();
    assert!(at("its sender is not the child") < at("ready child="), "a stranger made it ready");
}

#[test]
fn silent_child_is_ready_by_its_age() {
    let mut master = MasterProcess::start(&["-start", "50"], &[]);
    under_load(&mut master, |master, callers| {
        master.restart();
        callers.wait_for_child(master.child());
    });
}
