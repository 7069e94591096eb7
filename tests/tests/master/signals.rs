//! Signals at expected and unexpected times.

use crate::load::under_load;
use dc_tests::harness::master::{MasterProcess, PlanFile};
use dc_tests::harness::process::ProgramLaunch;
use dc_tests::harness::test_dir::TestDir;
use nix::sys::signal::{Signal, kill};
use std::fs;

/// The log message about a postponed SIGHUP.
const KEPT: &str = "another child starts once this one is ready or has failed";

/// The last log line of the master. Output of its children takes another path and may follow later.
pub(crate) fn last_of_the_master(lines: &[String]) -> Option<&String> {
    lines.iter().rfind(|line| !line.starts_with('['))
}

#[test]
fn many_hangups_while_a_child_starts_are_one_more() {
    let place = TestDir::new();
    let ready = place.file("ready");
    let plan = PlanFile::new(&place, &["ready"]);
    let mut master = MasterProcess::start(&["-start", "0"], &[plan.word()]);
    let first = master.child();
    under_load(&mut master, |master, callers| {
        plan.set(&[&format!("ready-when={}", ready.display())]);
        master.hup();
        let second = master.started();
        for _ in 0..3 {
            master.hup();
            master.expect(KEPT);
        }
        callers.wait_for_more_of(first);
        assert_eq!(master.process.log.with("started child=").len(), 2);
        fs::write(&ready, "").unwrap();
        assert_eq!(master.ready(), second);
        let third = master.ready();
        master.ended(second);
        callers.wait_for_child(third);
    });
    let lines = master.process.stop();
    let started = lines.iter().filter(|line| line.contains("started child=")).count();
    assert_eq!(started, 3, "{lines:#?}");
}

#[test]
fn signal_during_the_start_ends_it_and_leaves_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let place = TestDir::new();
        let listen = format!("unix://{}", place.file("socket").display());
        let pidfile = place.file("pid");
        let command = ["-command", "/bin/sleep", "--", "600"];
        let launch =
            ProgramLaunch::new("dc_master").with(["-listen", &listen, "-pidfile", pidfile.to_str().unwrap()]);
        let mut master = launch.with(command).start_amid(signal, &place, "pid");
        master.log.expect(&format!("ending signal={signal}"));
        assert_eq!(master.wait().code(), Some(0));
        assert_eq!(place.names(), Vec::<String>::new());
    }
}

#[test]
fn deferred_hangup_is_handled_when_the_starting_child_fails() {
    let place = TestDir::new();
    let death = place.file("death");
    let plan = PlanFile::new(&place, &["ready"]);
    let mut master = MasterProcess::start(&["-start", "0"], &[plan.word()]);
    let first = master.child();
    under_load(&mut master, |master, callers| {
        let report = format!("report={}", place.file("report").display());
        plan.set(&[&report, &format!("die-when={}", death.display()), "mute"]);
        master.hup();
        let second = master.started();
        // It has read its plan.
        master.written(second, "reported");
        master.hup();
        master.expect(KEPT);
        plan.set(&["ready"]);
        fs::write(&death, "").unwrap();
        master.ended(second);
        callers.wait_for_child(master.ready());
        master.ended(first);
    });
}

#[test]
fn a_hangup_ends_a_pause_and_is_no_restart_that_counts() {
    let place = TestDir::new();
    let plan = PlanFile::new(&place, &[]);
    let mut deaths = (0..3).map(|number| place.file(&format!("death-{number}")));
    let mut death = deaths.next().unwrap();
    plan.set(&["ready", "mute", &format!("die-when={}", death.display())]);
    // Another restart would exceed the limit, so none of these children was started at the end of the pause.
    let mut master = MasterProcess::start(&["-start", "0", "-max-restarts", "1"], &[plan.word()]);
    for next in deaths {
        plan.set(&["ready", "mute", &format!("die-when={}", next.display())]);
        fs::write(&death, "").unwrap();
        master.ended(master.child());
        master.expect("restarting in_ms=");
        master.hup();
        master.ready();
        death = next;
    }
    plan.set(&["ready"]);
    master.restart();
    // The last pause has ended meanwhile, without a start.
    plan.set(&["ready-after=2500"]);
    under_load(&mut master, |master, _| master.restart());
    let lines = master.process.stop();
    let started = lines.iter().filter(|line| line.contains("started child=")).count();
    assert_eq!(started, 5, "{lines:#?}");
}

#[test]
fn a_hangup_during_the_end_is_ignored() {
    let place = TestDir::new();
    let end = place.file("end");
    let linger = format!("linger-until={}", end.display());
    let mut master = MasterProcess::start(&["-start", "0"], &["ready", &linger]);
    let child = master.child();
    master.process.signal(Signal::SIGTERM);
    master.written(child, "signal TERM");
    master.hup();
    master.expect("ending already: no new child is started");
    fs::write(&end, "").unwrap();
    master.ended(child);
    assert!(master.process.wait().success());
    assert_eq!(master.process.log.with("started child=").len(), 1);
}

#[test]
fn ending_signal_is_passed_to_children_before_the_master_ends() {
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT"), (Signal::SIGQUIT, "QUIT")] {
        let place = TestDir::new();
        let end = place.file("end");
        let plan = PlanFile::new(&place, &["ready", &format!("linger-until={}", end.display())]);
        let mut master = MasterProcess::start(&["-start", "0"], &[plan.word()]);
        let old = master.child();
        master.hup();
        let new = master.ready();
        master.written(old, "signal HUP");
        master.process.signal(signal);
        master.written(new, &format!("signal {name}"));
        assert_eq!(master.children().len(), 2);
        fs::write(&end, "").unwrap();
        assert!(master.process.wait().success());
        let lines = master.process.log.lines();
        for child in [old, new] {
            assert!(lines.iter().any(|line| line.contains(&format!("ended child={child} "))), "{lines:#?}");
        }
        assert!(last_of_the_master(&lines).is_some_and(|line| line.ends_with(" ended")), "{lines:#?}");
    }
}

#[test]
fn children_that_are_told_to_end_with_the_master_have_not_died() {
    let mut master = MasterProcess::start(&["-start", "0", "-max-restarts", "0"], &["ready"]);
    let child = master.child();
    // As a service manager that signals all processes of a service. The master detects both at once.
    master.process.signal(Signal::SIGSTOP);
    kill(child, Signal::SIGTERM).unwrap();
    master.wait_for_zombie(child);
    master.process.signal(Signal::SIGTERM);
    master.process.signal(Signal::SIGCONT);
    assert!(master.process.wait().success(), "{:#?}", master.process.log.lines());
    assert_eq!(master.process.log.with("has died").len(), 0);
}

#[test]
fn a_child_that_has_not_started_yet_is_ended_too() {
    let place = TestDir::new();
    let never = format!("ready-when={}", place.file("never").display());
    let plan = PlanFile::new(&place, &["ready"]);
    let mut master = MasterProcess::start(&["-start", "0"], &[plan.word()]);
    plan.set(&[&format!("report={}", place.file("report").display()), &never]);
    master.hup();
    let new = master.started();
    master.written(new, "reported");
    let lines = master.process.stop();
    assert!(lines.iter().any(|line| line.contains(&format!("ended child={new} "))), "{lines:#?}");
    assert!(last_of_the_master(&lines).is_some_and(|line| line.ends_with(" ended")), "{lines:#?}");
}

#[test]
fn user_signals_are_passed_on() {
    let mut master = MasterProcess::start(&["-start", "0"], &["ready"]);
    let child = master.child();
    for (signal, name) in [(Signal::SIGUSR1, "USR1"), (Signal::SIGUSR2, "USR2")] {
        master.process.signal(signal);
        master.written(child, &format!("signal {name}"));
    }
    under_load(&mut master, |master, _| master.restart());
}

#[test]
fn user_signals_do_not_kill_a_child_that_starts() {
    let place = TestDir::new();
    let ready = place.file("ready");
    let plan = PlanFile::new(&place, &["ready"]);
    let mut master = MasterProcess::start(&["-start", "0"], &[plan.word()]);
    let first = master.child();
    // Like any program, it handles no signal before it serves.
    plan.set(&["start-after=300", &format!("ready-when={}", ready.display())]);
    master.hup();
    let second = master.started();
    master.process.signal(Signal::SIGUSR1);
    master.written(first, "signal USR1");
    fs::write(&ready, "").unwrap();
    assert_eq!(master.ready(), second);
}

#[test]
fn the_old_one_gets_the_signal_that_was_asked_for() {
    for written in ["QUIT", "SIGQUIT", "3"] {
        let mut master = MasterProcess::start(&["-start", "0", "-stop-signal", written], &["ready"]);
        let old = master.child();
        under_load(&mut master, |master, _| {
            master.restart();
        });
        let told = master.process.log.with(&format!("[{old}] signal"));
        assert!(told.len() == 1 && told[0].ends_with("signal QUIT"), "{told:?}");
        let stopping = master.process.log.with(&format!("stopping child={old} signal="));
        assert!(stopping.len() == 1 && stopping[0].ends_with("QUIT"), "{stopping:?}");
    }
}
