//! Decisions event by event, with a virtual clock.

use super::*;

const SETTINGS: SupervisorSettings = SupervisorSettings {
    start_ms: 3_000,
    ready_timeout_ms: 30_000,
    stop_timeout_ms: 30_000,
    restarts_max: 5,
};
/// Only `READY=1` makes a child ready.
const TOLD: SupervisorSettings = SupervisorSettings { start_ms: 0, ..SETTINGS };

const fn at(ms: u64) -> Time {
    Time::from_ms(ms)
}

/// The actions, without notifications and log events.
fn done(supervisor: &mut Supervisor) -> Vec<SupervisorAction> {
    let actions = std::iter::from_fn(|| supervisor.poll_action());
    actions.filter(|action| !is_talk(action)).collect()
}

fn is_talk(action: &SupervisorAction) -> bool {
    matches!(
        action,
        SupervisorAction::Report(_)
            | SupervisorAction::TellReady { .. }
            | SupervisorAction::TellServesOn { .. }
            | SupervisorAction::TellReloading
            | SupervisorAction::TellRestarting { .. }
            | SupervisorAction::TellStopping
    )
}

fn start(child: u64) -> SupervisorAction {
    SupervisorAction::Start { child: ChildId(child) }
}

fn stop(child: u64) -> SupervisorAction {
    SupervisorAction::Stop { child: ChildId(child) }
}

fn kill(child: u64) -> SupervisorAction {
    SupervisorAction::Kill { child: ChildId(child) }
}

fn pass(child: u64, signal: StopSignal) -> SupervisorAction {
    SupervisorAction::Pass { child: ChildId(child), signal }
}

/// A supervisor whose first child became ready at once.
fn serving(settings: SupervisorSettings) -> Supervisor {
    let mut supervisor = Supervisor::new(at(0), settings);
    supervisor.handle_ready(at(0), ChildId(1));
    assert_eq!(done(&mut supervisor), [start(1)]);
    supervisor
}

/// A supervisor with a serving child that starts a second one at `ms`.
fn renewing(settings: SupervisorSettings, ms: u64) -> Supervisor {
    let mut supervisor = serving(settings);
    supervisor.handle_hangup(at(ms));
    assert_eq!(done(&mut supervisor), [start(2)]);
    supervisor
}

#[test]
fn a_child_is_ready_when_it_says_so_or_has_lived_long_enough() {
    let mut supervisor = renewing(SETTINGS, 100);
    assert_eq!(supervisor.next_deadline(), Some(at(3_100)));
    supervisor.handle_time(at(3_099));
    assert_eq!(done(&mut supervisor), []);
    supervisor.handle_time(at(3_100));
    assert_eq!(done(&mut supervisor), [stop(1)]);

    let mut supervisor = renewing(SETTINGS, 100);
    supervisor.handle_ready(at(101), ChildId(2));
    assert_eq!(done(&mut supervisor), [stop(1)]);
    supervisor.handle_ready(at(102), ChildId(2));
    supervisor.handle_ready(at(102), ChildId(1));
    assert_eq!(done(&mut supervisor), []);
}

#[test]
fn child_ready_by_age_may_take_longer_than_ready_timeout() {
    let mut supervisor = renewing(SupervisorSettings { start_ms: 60_000, ..SETTINGS }, 0);
    supervisor.handle_time(at(59_999));
    assert_eq!(done(&mut supervisor), []);
    supervisor.handle_time(at(60_000));
    assert_eq!(done(&mut supervisor), [stop(1)]);
}

#[test]
fn an_old_child_that_does_not_stop_is_killed_once() {
    let mut supervisor = renewing(SETTINGS, 0);
    supervisor.handle_ready(at(10), ChildId(2));
    assert_eq!(done(&mut supervisor), [stop(1)]);
    supervisor.handle_time(at(30_009));
    assert_eq!(done(&mut supervisor), []);
    supervisor.handle_time(at(30_010));
    supervisor.handle_time(at(90_000));
    assert_eq!(done(&mut supervisor), [kill(1)]);
    assert_eq!(supervisor.next_deadline(), None);
    supervisor.handle_exit(at(90_000), ChildId(1));
    assert_eq!(done(&mut supervisor), []);
}

#[test]
fn a_new_child_that_dies_leaves_the_old_one_alone() {
    for failed in [false, true] {
        let mut supervisor = renewing(SETTINGS, 0);
        if failed {
            supervisor.handle_failed_start(at(1), ChildId(2));
        } else {
            supervisor.handle_exit(at(1), ChildId(2));
        }
        assert_eq!(done(&mut supervisor), []);
        assert_eq!(supervisor.next_deadline(), None, "nothing is tried again");
        supervisor.handle_hangup(at(2));
        assert_eq!(done(&mut supervisor), [start(3)], "nothing is left of the failure");
    }
}

#[test]
fn late_new_child_is_stopped_and_the_old_one_keeps_serving() {
    let mut supervisor = renewing(TOLD, 0);
    supervisor.handle_time(at(29_999));
    assert_eq!(done(&mut supervisor), []);
    supervisor.handle_time(at(30_000));
    assert_eq!(done(&mut supervisor), [stop(2)]);
    supervisor.handle_ready(at(30_001), ChildId(2));
    assert_eq!(done(&mut supervisor), [], "it comes too late");
    supervisor.handle_time(at(60_000));
    assert_eq!(done(&mut supervisor), [kill(2)]);
}

#[test]
fn without_an_age_and_a_timeout_nothing_is_due() {
    let mut supervisor = renewing(SupervisorSettings { start_ms: 0, ready_timeout_ms: 0, ..SETTINGS }, 0);
    assert_eq!(supervisor.next_deadline(), None);
    supervisor.handle_time(at(1_000_000));
    assert_eq!(done(&mut supervisor), []);
}

#[test]
fn extension_moves_the_deadline_and_disables_ready_by_age() {
    let mut supervisor = renewing(SETTINGS, 0);
    supervisor.handle_extension(at(2_000), ChildId(2), 60_000);
    supervisor.handle_extension(at(2_000), ChildId(1), 60_000);
    supervisor.handle_time(at(61_999));
    assert_eq!(done(&mut supervisor), []);
    supervisor.handle_time(at(62_000));
    assert_eq!(done(&mut supervisor), [stop(2)]);
}

#[test]
fn hangups_while_a_child_starts_are_one_more_start() {
    let mut supervisor = renewing(SETTINGS, 0);
    for ms in 1..9 {
        supervisor.handle_hangup(at(ms));
    }
    assert_eq!(done(&mut supervisor), []);
    supervisor.handle_ready(at(10), ChildId(2));
    assert_eq!(done(&mut supervisor), [stop(1), start(3)]);
    supervisor.handle_ready(at(11), ChildId(3));
    assert_eq!(done(&mut supervisor), [stop(2)]);

    let mut supervisor = renewing(SETTINGS, 0);
    supervisor.handle_hangup(at(1));
    supervisor.handle_exit(at(2), ChildId(2));
    assert_eq!(done(&mut supervisor), [start(3)]);
}

#[test]
fn a_child_that_dies_is_restarted_after_pauses_that_double() {
    let mut supervisor = serving(SupervisorSettings { restarts_max: 60, ..SETTINGS });
    let mut now = 0;
    for (child, pause) in (1..).zip([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 32_000]) {
        supervisor.handle_exit(at(now), ChildId(child));
        assert_eq!(done(&mut supervisor), []);
        assert_eq!(supervisor.next_deadline(), Some(at(now + pause)));
        now += pause;
        supervisor.handle_time(at(now));
        assert_eq!(done(&mut supervisor), [start(child + 1)]);
        supervisor.handle_ready(at(now), ChildId(child + 1));
    }
    supervisor.handle_exit(at(now + 10_000), ChildId(8));
    assert_eq!(supervisor.next_deadline(), Some(at(now + 11_000)), "it ran well for a while");
}

#[test]
fn ready_child_that_dies_while_old_one_drains_is_restarted() {
    let mut supervisor = renewing(SETTINGS, 0);
    supervisor.handle_ready(at(10), ChildId(2));
    supervisor.handle_exit(at(20), ChildId(2));
    assert_eq!(done(&mut supervisor), [stop(1)]);
    supervisor.handle_exit(at(30), ChildId(1));
    supervisor.handle_time(at(1_020));
    assert_eq!(done(&mut supervisor), [start(3)]);
}

#[test]
fn child_death_while_another_starts_causes_no_second_start() {
    let mut supervisor = renewing(SETTINGS, 0);
    supervisor.handle_exit(at(10), ChildId(1));
    assert_eq!(supervisor.next_deadline(), Some(at(3_000)));
    supervisor.handle_exit(at(20), ChildId(2));
    supervisor.handle_time(at(1_020));
    assert_eq!(done(&mut supervisor), [start(3)], "neither is left");
}

#[test]
fn a_hangup_in_a_pause_starts_at_once() {
    let mut supervisor = serving(SETTINGS);
    supervisor.handle_exit(at(10), ChildId(1));
    supervisor.handle_hangup(at(11));
    assert_eq!(done(&mut supervisor), [start(2)]);
    supervisor.handle_time(at(2_000));
    assert_eq!(done(&mut supervisor), [], "the restart is not made twice");
}

#[test]
fn too_many_restarts_in_a_minute_end_the_master() {
    let mut supervisor = serving(SETTINGS);
    let mut now = 0;
    let mut child = 1;
    let end = loop {
        supervisor.handle_exit(at(now), ChildId(child));
        let Some(next) = supervisor.next_deadline() else { break done(&mut supervisor) };
        now = next.as_ms();
        supervisor.handle_time(next);
        child += 1;
        assert_eq!(done(&mut supervisor), [start(child)]);
    };
    assert_eq!(end, [SupervisorAction::End(MasterExit::TooManyRestarts)]);
    assert_eq!((child, now), (6, 31_000), "five restarts, the last 31 s after the first death");
}

#[test]
fn without_restarts_the_first_death_ends_the_master() {
    let mut supervisor = renewing(SupervisorSettings { restarts_max: 0, ..SETTINGS }, 0);
    supervisor.handle_ready(at(10), ChildId(2));
    supervisor.handle_exit(at(20), ChildId(2));
    assert_eq!(done(&mut supervisor), [stop(1), pass(1, StopSignal::Terminate)]);
    supervisor.handle_end(at(21), StopSignal::Interrupt);
    assert_eq!(done(&mut supervisor), [pass(1, StopSignal::Interrupt)]);
    supervisor.handle_exit(at(22), ChildId(1));
    assert_eq!(done(&mut supervisor), [SupervisorAction::End(MasterExit::TooManyRestarts)]);
}

#[test]
fn command_that_cannot_be_executed_at_first_ends_the_master() {
    let mut supervisor = Supervisor::new(at(0), SETTINGS);
    supervisor.handle_failed_start(at(1), ChildId(1));
    assert_eq!(done(&mut supervisor), [start(1), SupervisorAction::End(MasterExit::CommandFailed)]);
}

#[test]
fn a_command_that_can_not_be_executed_any_more_is_tried_again() {
    let mut supervisor = serving(SETTINGS);
    supervisor.handle_exit(at(0), ChildId(1));
    supervisor.handle_time(at(1_000));
    supervisor.handle_failed_start(at(1_001), ChildId(2));
    supervisor.handle_time(at(3_001));
    assert_eq!(done(&mut supervisor), [start(2), start(3)]);

    let mut supervisor = Supervisor::new(at(0), SETTINGS);
    supervisor.handle_exit(at(0), ChildId(1));
    supervisor.handle_time(at(1_000));
    supervisor.handle_failed_start(at(1_001), ChildId(2));
    assert_eq!(done(&mut supervisor), [start(1), start(2)], "it could be executed once");
}

#[test]
fn the_master_ends_when_its_children_have() {
    let mut supervisor = renewing(SETTINGS, 0);
    supervisor.handle_end(at(10), StopSignal::Quit);
    assert_eq!(done(&mut supervisor), [pass(1, StopSignal::Quit), pass(2, StopSignal::Quit)]);
    supervisor.handle_hangup(at(11));
    supervisor.handle_ready(at(12), ChildId(2));
    supervisor.handle_exit(at(13), ChildId(1));
    supervisor.handle_end(at(14), StopSignal::Terminate);
    assert_eq!(done(&mut supervisor), [pass(2, StopSignal::Terminate)]);
    supervisor.handle_time(at(30_010));
    assert_eq!(done(&mut supervisor), [kill(2)]);
    supervisor.handle_exit(at(30_011), ChildId(2));
    assert_eq!(done(&mut supervisor), [SupervisorAction::End(MasterExit::Success)]);
}

#[test]
fn without_children_the_master_ends_at_once() {
    let mut supervisor = serving(SETTINGS);
    supervisor.handle_exit(at(0), ChildId(1));
    supervisor.handle_end(at(10), StopSignal::Terminate);
    assert_eq!(done(&mut supervisor), [SupervisorAction::End(MasterExit::Success)]);
    supervisor.handle_time(at(100_000));
    assert_eq!(done(&mut supervisor), []);
}

#[test]
fn service_manager_is_notified_of_each_state() {
    let told = |supervisor: &mut Supervisor| {
        let actions = std::iter::from_fn(|| supervisor.poll_action());
        let told = actions.filter(|action| is_talk(action) && !matches!(action, SupervisorAction::Report(_)));
        told.collect::<Vec<_>>()
    };
    let mut supervisor = Supervisor::new(at(0), SETTINGS);
    supervisor.handle_hangup(at(1));
    assert_eq!(told(&mut supervisor), [], "it is not ready, so it cannot be reloading");
    let ready = |child| SupervisorAction::TellReady { child: ChildId(child) };
    supervisor.handle_ready(at(2), ChildId(1));
    assert_eq!(told(&mut supervisor), [ready(1), SupervisorAction::TellReloading]);
    supervisor.handle_hangup(at(3));
    supervisor.handle_exit(at(4), ChildId(2));
    let after = StartFailure::DiedEarly { child: ChildId(2) };
    let serves_on = SupervisorAction::TellServesOn { child: ChildId(1), after };
    assert_eq!(
        told(&mut supervisor),
        [serves_on, SupervisorAction::TellReloading],
        "the reload failed, and one more begins"
    );
    supervisor.handle_ready(at(5), ChildId(3));
    assert_eq!(told(&mut supervisor), [ready(3)]);
    supervisor.handle_exit(at(6), ChildId(3));
    supervisor.handle_end(at(7), StopSignal::Terminate);
    assert_eq!(
        told(&mut supervisor),
        [SupervisorAction::TellRestarting { in_ms: 1_000 }, SupervisorAction::TellStopping]
    );
}
