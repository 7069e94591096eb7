//! Properties that hold for any order of events from children, the operator and the clock.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

/// An event. A `u8` selects one of the existing children.
#[derive(Clone, Copy, Debug)]
enum PropertyEvent {
    Hangup,
    Ready(u8),
    Extension(u8, u64),
    Exit(u8),
    FailedStart(u8),
    End,
    Pass(u64),
}

fn happening() -> impl Strategy<Value = PropertyEvent> {
    prop_oneof![
        4 => Just(PropertyEvent::Hangup),
        5 => any::<u8>().prop_map(PropertyEvent::Ready),
        1 => (any::<u8>(), 0..90_000_u64).prop_map(|(child, ms)| PropertyEvent::Extension(child, ms)),
        5 => any::<u8>().prop_map(PropertyEvent::Exit),
        1 => any::<u8>().prop_map(PropertyEvent::FailedStart),
        1 => Just(PropertyEvent::End),
        8 => (0..40_000_u64).prop_map(PropertyEvent::Pass),
    ]
}

fn settings() -> impl Strategy<Value = SupervisorSettings> {
    let ms = || prop_oneof![Just(0_u64), Just(100), Just(3_000), Just(30_000)];
    (ms(), ms(), ms(), 0..7_usize).prop_map(|(start_ms, ready_timeout_ms, stop_timeout_ms, restarts_max)| {
        SupervisorSettings { start_ms, ready_timeout_ms, stop_timeout_ms, restarts_max }
    })
}

/// The children as observed through the actions.
#[derive(Debug, Default)]
struct ObservedState {
    /// Whether each was asked to stop.
    children: HashMap<ChildId, bool>,
    ready: Option<ChildId>,
    ended: Option<MasterExit>,
    told_to_end: bool,
}

impl ObservedState {
    fn observe(&mut self, action: SupervisorAction) -> Result<(), TestCaseError> {
        prop_assert!(self.ended.is_none(), "{action:?} after the end");
        match action {
            SupervisorAction::Start { child } => {
                prop_assert!(!self.told_to_end, "a start while it ends");
                prop_assert!(self.children.insert(child, false).is_none(), "{child:?} started twice");
                let running = self.children.values().filter(|stopped| !**stopped).count();
                prop_assert!(running <= 2, "one serves and one starts, no more");
            }
            SupervisorAction::Stop { child } => {
                let stopped = self.children.insert(child, true);
                prop_assert_eq!(stopped, Some(false), "each is told once");
                // The serving child is stopped only when another is ready; a child that is not ready does not
                // serve.
                prop_assert_ne!(Some(child), self.ready);
            }
            SupervisorAction::Pass { child, .. } => {
                prop_assert!(self.children.insert(child, true).is_some());
            }
            SupervisorAction::Kill { child } => {
                prop_assert_eq!(self.children.get(&child), Some(&true), "killed without having been told");
            }
            SupervisorAction::Report(SupervisorEvent::Ready { child }) => self.ready = Some(child),
            SupervisorAction::Report(SupervisorEvent::TooManyRestarts | SupervisorEvent::Ending { .. }) => {
                self.told_to_end = true;
            }
            SupervisorAction::End(status) => {
                prop_assert!(self.children.is_empty(), "the end with children");
                self.ended = Some(status);
            }
            _ => {}
        }
        Ok(())
    }

    fn choose(&self, choice: u8) -> Option<ChildId> {
        let mut ids: Vec<ChildId> = self.children.keys().copied().collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| ids[usize::from(choice) % ids.len()])
    }
}

fn happen(supervisor: &mut Supervisor, observed: &mut ObservedState, now: Time, happening: PropertyEvent) {
    match happening {
        PropertyEvent::Hangup => supervisor.handle_hangup(now),
        PropertyEvent::Ready(choice) => {
            observed.choose(choice).inspect(|id| supervisor.handle_ready(now, *id));
        }
        PropertyEvent::Extension(choice, ms) => {
            observed.choose(choice).inspect(|id| supervisor.handle_extension(now, *id, ms));
        }
        PropertyEvent::Exit(choice) => {
            if let Some(id) = observed.choose(choice) {
                observed.children.remove(&id);
                supervisor.handle_exit(now, id);
            }
        }
        PropertyEvent::FailedStart(choice) => {
            if let Some(id) = observed.choose(choice).filter(|id| observed.ready != Some(*id)) {
                observed.children.remove(&id);
                supervisor.handle_failed_start(now, id);
            }
        }
        PropertyEvent::End => supervisor.handle_end(now, StopSignal::Terminate),
        PropertyEvent::Pass(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn serving_child_is_kept_until_another_is_ready(
        settings in settings(),
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        let mut now = Time::from_ms(0);
        let mut supervisor = Supervisor::new(now, settings);
        let mut observed = ObservedState::default();
        for happening in happenings {
            if let PropertyEvent::Pass(ms) = happening {
                now = now.after_ms(ms);
            }
            happen(&mut supervisor, &mut observed, now, happening);
            supervisor.handle_time(now);
            while let Some(action) = supervisor.poll_action() {
                observed.observe(action)?;
            }
            if observed.ended.is_some() {
                break;
            }
            prop_assert!(supervisor.next_deadline().is_none_or(|at| at > now), "no deadline is overdue");
            let running = observed.children.values().any(|stopped| !stopped);
            let planned = supervisor.restart_at.is_some();
            prop_assert!(observed.told_to_end || running || planned, "nothing runs, and nothing will");
        }
    }
}
