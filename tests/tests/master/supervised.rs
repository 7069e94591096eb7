//! Notifications of the master to its service manager, such as systemd. The test is the receiver.

use crate::load::under_load;
use dc_tests::harness::loopback::own_loopback;
use dc_tests::harness::master::{ChildReport, MasterProcess};
use dc_tests::harness::notify_receiver::NotifyReceiver;
use dc_tests::harness::process::ProgramLaunch;
use dc_tests::harness::programs::program;
use dc_tests::harness::test_dir::TestDir;
use nix::sys::signal::{Signal, kill};

/// A master with the receiver of its notifications.
struct Supervised {
    supervisor: NotifyReceiver,
    master: MasterProcess,
    place: TestDir,
}

impl Supervised {
    /// With additional shell commands before the master is started.
    fn start(prelude: &str, options: &[&str], plan: &[&str]) -> Self {
        let place = TestDir::new();
        let supervisor = NotifyReceiver::start();
        let launch = ProgramLaunch::new("dc_master").with_variable("NOTIFY_SOCKET", supervisor.path());
        let launch = launch.after(&format!("{prelude} exec \"$0\" \"$@\""));
        let launch = launch.with(["-listen", &format!("tcp://{}:0", own_loopback()), "-start", "0"]);
        let launch = launch.with(options).with(["-command", program("dc_child").to_str().unwrap(), "--"]);
        let master = MasterProcess::launch(
            &launch.with(plan).with([format!("report={}", place.file("report").display())]),
        );
        Self { supervisor, master, place }
    }

    /// The next notification, except keepalives, STATUS and MAINPID. Names and values.
    fn hear(&self) -> Vec<(String, String)> {
        loop {
            let said = self.hear_any();
            let is_more =
                |(name, _): &(String, String)| !["STATUS", "WATCHDOG", "MAINPID"].contains(&name.as_str());
            if said.iter().any(is_more) {
                return said;
            }
        }
    }

    /// The next notification about the state.
    fn hear_status(&self) -> String {
        loop {
            if let Some(status) = value(&self.hear_any(), "STATUS") {
                return status.to_owned();
            }
        }
    }

    fn hear_any(&self) -> Vec<(String, String)> {
        let text = self.supervisor.hears();
        let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let said: Vec<_> = text.lines().filter_map(pair).collect();
        let pid = self.master.process.pid().to_string();
        assert!(value(&said, "MAINPID").is_none_or(|main| main == pid), "{said:?}");
        said
    }
}

fn value<'s>(said: &'s [(String, String)], name: &str) -> Option<&'s str> {
    said.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn systemd_hears_of_readiness_reloads_and_the_end() {
    let mut supervised = Supervised::start("", &[], &["ready"]);
    let ready = supervised.hear();
    assert_eq!(value(&ready, "READY"), Some("1"), "{ready:?}");

    let mut before = 0;
    for _ in 0..2 {
        under_load(&mut supervised.master, |master, _| master.restart());
        let reloading = supervised.hear();
        assert_eq!(value(&reloading, "RELOADING"), Some("1"), "{reloading:?}");
        let at: u64 = value(&reloading, "MONOTONIC_USEC").unwrap().parse().unwrap();
        assert!(at > before, "{reloading:?}");
        before = at;
        let ready = supervised.hear();
        assert_eq!(value(&ready, "READY"), Some("1"), "{ready:?}");
    }

    supervised.master.process.stop();
    let stopping = supervised.hear();
    assert_eq!(value(&stopping, "STOPPING"), Some("1"), "{stopping:?}");
}

#[test]
fn a_reload_that_fails_is_over_too() {
    let place = TestDir::new();
    let plan = dc_tests::harness::master::PlanFile::new(&place, &["ready"]);
    let supervised = Supervised::start("", &[], &[plan.word()]);
    assert_eq!(value(&supervised.hear(), "READY"), Some("1"));
    plan.set(&["die=1"]);
    supervised.master.hup();
    supervised.master.expect("the old one keeps serving");
    assert_eq!(value(&supervised.hear(), "RELOADING"), Some("1"));
    assert_eq!(value(&supervised.hear(), "READY"), Some("1"));
}

#[test]
fn the_status_is_that_of_the_child_that_serves() {
    let place = TestDir::new();
    let plan = dc_tests::harness::master::PlanFile::new(&place, &["ready", "status=of its own"]);
    let mut supervised = Supervised::start("", &[], &[plan.word()]);
    let first = supervised.master.child();
    let own = format!("process {first}: of its own");
    // Once from the child, and once when it is ready.
    assert_eq!([supervised.hear_status(), supervised.hear_status()], [own.as_str(), own.as_str()]);

    plan.set(&["die=1"]);
    supervised.master.hup();
    let serves_on = format!("process {first} keeps serving: the new child died before it was ready");
    assert_eq!(supervised.hear_status(), serves_on);

    plan.set(&["ready"]);
    supervised.master.restart();
    assert_eq!(supervised.hear_status(), format!("process {} serves", supervised.master.child()));
}

#[test]
fn notify_waits_for_a_ready_child_and_hides_its_messages() {
    let supervised = Supervised::start("", &[], &["ready-by-helper"]);
    let ready = supervised.hear();
    assert_eq!(value(&ready, "READY"), Some("1"), "{ready:?}");
    let found = ChildReport::read(&supervised.place.file("report"));
    let address = found.variable("NOTIFY_SOCKET").unwrap();
    assert!(address.contains("/dc_master-"), "the child speaks to the supervisor: {address}");
}

#[test]
fn signs_of_life_are_given_where_they_are_asked_for() {
    let supervised = Supervised::start("export WATCHDOG_USEC=200000 WATCHDOG_PID=$$;", &[], &["ready"]);
    let mut signs = 0;
    while signs < 4 {
        signs += usize::from(value(&supervised.hear_any(), "WATCHDOG") == Some("1"));
    }
    let found = ChildReport::read(&supervised.place.file("report"));
    assert_eq!((found.variable("WATCHDOG_USEC"), found.variable("WATCHDOG_PID")), (None, None));
}

#[test]
fn systemd_is_told_when_the_child_is_away() {
    let supervised = Supervised::start("", &[], &["ready"]);
    assert_eq!(value(&supervised.hear(), "READY"), Some("1"));
    kill(supervised.master.child(), Signal::SIGKILL).unwrap();
    loop {
        let said = supervised.hear_any();
        if value(&said, "STATUS").is_some_and(|status| status.contains("no child serves")) {
            break;
        }
    }
}
