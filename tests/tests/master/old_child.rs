//! An old child that does not stop, or dies.

use crate::load::under_load;
use crate::signals::last_of_the_master;
use dc_tests::harness::callers::{CallFailureKind, Callers};
use dc_tests::harness::master::{MasterProcess, PlanFile};
use dc_tests::harness::test_dir::TestDir;
use nix::sys::signal::{Signal, kill};
use std::fs;

#[test]
fn accepted_connections_are_answered_by_the_old_child() {
    // Each answer takes long enough to be in flight when its child is stopped.
    let mut master = MasterProcess::start(&["-start", "0"], &["ready", "answer-after=30"]);
    let tally = under_load(&mut master, |master, callers| {
        for _ in 0..5 {
            callers.wait_for_more_of(master.child());
            master.restart();
        }
    });
    assert!(tally.by_child.len() >= 5, "{tally:?}");
}

#[test]
fn child_that_does_not_stop_is_killed_unnoticed() {
    let place = TestDir::new();
    let never = format!("linger-until={}", place.file("never").display());
    let mut master = MasterProcess::start(&["-start", "0", "-stop-timeout", "1"], &["ready", &never]);
    let old = master.child();
    under_load(&mut master, |master, callers| {
        master.hup();
        let new = master.ready();
        master.expect(&format!("killed child={old}"));
        master.ended(old);
        callers.wait_for_child(new);
    });
}

#[test]
fn child_that_ignores_signals_loses_only_accepted_connections() {
    let place = TestDir::new();
    let plan = PlanFile::new(&place, &["ready", "deaf"]);
    let mut master = MasterProcess::start(&["-start", "0", "-stop-timeout", "1"], &[plan.word()]);
    let old = master.child();
    let callers = Callers::of_child(master.address());
    callers.wait_for_child(old);
    plan.set(&["ready"]);
    master.hup();
    let new = master.ready();
    master.expect(&format!("killed child={old}"));
    master.ended(old);
    callers.wait_for_child(new);
    callers.wait_for(100);
    let tally = callers.finish();
    let refused = tally.failures.iter().find(|failure| failure.kind == CallFailureKind::Refused);
    assert!(refused.is_none() && tally.failures.len() <= 3, "{tally:?}");
}

#[test]
fn the_end_comes_although_a_child_heeds_no_signal() {
    let mut master = MasterProcess::start(&["-start", "0", "-stop-timeout", "1"], &["ready", "deaf"]);
    let child = master.child();
    let lines = master.process.stop();
    assert!(lines.iter().any(|line| line.contains(&format!("killed child={child}"))), "{lines:#?}");
    assert!(last_of_the_master(&lines).is_some_and(|line| line.ends_with(" ended")), "{lines:#?}");
}

#[test]
fn killed_child_is_replaced_while_callers_wait() {
    let place = TestDir::new();
    let death = place.file("death");
    let plan = PlanFile::new(&place, &["ready", "mute", &format!("die-when={}", death.display())]);
    let mut master = MasterProcess::start(&["-start", "0"], &[plan.word()]);
    let old = master.child();
    plan.set(&["ready"]);
    fs::write(&death, "").unwrap();
    master.ended(old);
    // From here on no child serves, and the sockets listen.
    let callers = std::thread::spawn({
        let address = master.address();
        move || Callers::of_child(address)
    });
    master.expect("restarting in_ms=1000");
    let new = master.ready();
    let callers = callers.join().unwrap();
    callers.wait_for_child(new);
    callers.wait_for(100);
    callers.finish().all_answered(100);
}

#[test]
fn old_child_dying_during_a_start_leaves_no_gap() {
    let place = TestDir::new();
    let ready = place.file("ready");
    let plan = PlanFile::new(&place, &["ready"]);
    let mut master = MasterProcess::start(&["-start", "0"], &[plan.word()]);
    let old = master.child();
    plan.set(&[&format!("ready-when={}", ready.display())]);
    master.hup();
    let new = master.started();
    kill(old, Signal::SIGKILL).unwrap();
    master.ended(old);
    under_load(&mut master, |master, callers| {
        fs::write(&ready, "").unwrap();
        assert_eq!(master.ready(), new);
        callers.wait_for_child(new);
    });
    // The starting child is enough.
    assert_eq!(master.process.log.with("started child=").len(), 2);
    master.process.stop();
}

#[test]
fn the_master_gives_up_when_children_die_too_often() {
    let place = TestDir::new();
    let (death, end) = (place.file("death"), place.file("end"));
    let plan = PlanFile::new(&place, &["ready", &format!("linger-until={}", end.display())]);
    let mut master = MasterProcess::start(&["-start", "0", "-max-restarts", "1"], &[plan.word()]);
    let first = master.child();
    plan.set(&["ready", &format!("die-when={}", death.display())]);
    master.hup();
    let second = master.ready();
    fs::write(&death, "").unwrap();
    master.ended(second);
    master.expect("restarting in_ms=1000");
    let third = master.started();
    master.ended(third);
    // The master waits for a draining child.
    fs::write(&end, "").unwrap();
    master.ended(first);
    assert_eq!(master.process.wait().code(), Some(1), "{:#?}", master.process.log.lines());
    assert_eq!(master.process.log.with("started child=").len(), 3);

    let death = place.file("another death");
    let plan = ["ready", &format!("die-when={}", death.display())];
    let mut strict = MasterProcess::start(&["-start", "0", "-max-restarts", "0"], &plan);
    fs::write(&death, "").unwrap();
    strict.ended(strict.child());
    assert_eq!(strict.process.wait().code(), Some(1));
}
