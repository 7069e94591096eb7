//! Descriptors that children leave to their successors.

use crate::load::under_load;
use dc_tests::harness::master::{ChildReport, MasterProcess, PlanFile};
use dc_tests::harness::test_dir::TestDir;
use nix::sys::signal::{Signal, kill};
use std::path::PathBuf;

/// A master whose children report what they find, with a plan that can be changed.
struct Storing {
    master: MasterProcess,
    plan: PlanFile,
    report: PathBuf,
    _place: TestDir,
}

impl Storing {
    fn start(first: &[&str]) -> Self {
        let place = TestDir::new();
        let report = place.file("report");
        let plan = PlanFile::new(&place, first);
        let word = format!("report={}", report.display());
        let master = MasterProcess::start(&["-start", "0"], &[&word, "ready", plan.word()]);
        Self { master, plan, report, _place: place }
    }

    /// Stored descriptors that the serving child received: name and content, in order.
    fn found(&self) -> Vec<(String, String)> {
        let found = ChildReport::read(&self.report);
        assert_eq!(found.one("pid"), self.master.child().to_string());
        let names: Vec<&str> = found.variable("LISTEN_FDNAMES").unwrap().split(':').collect();
        assert_eq!(found.variable("LISTEN_FDS"), Some(names.len().to_string().as_str()));
        assert_eq!(names[0], "listener");
        assert_eq!(found.variable("EINHORN_FD_COUNT"), Some("1"), "those of einhorn are sockets");
        // No more descriptors than names.
        assert_eq!(found.all("descriptor").len(), 3 + names.len(), "{found:?}");
        let contents = found.all("stored");
        let content = |number: usize| {
            let mine = contents.iter().find_map(|line| line.strip_prefix(&format!("{number} ")));
            mine.unwrap_or_default().to_owned()
        };
        let stored = names.iter().enumerate().skip(1);
        stored.map(|(place, name)| ((*name).to_owned(), content(3 + place))).collect()
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}

#[test]
fn stored_descriptor_stays_until_removed() {
    let mut storing = Storing::start(&["store=state:hello", "store=:nameless", "store=state:again"]);
    assert_eq!(storing.found(), []);
    storing.plan.set(&["remove=state"]);
    let all = pairs(&[("state", "hello"), ("stored", "nameless"), ("state", "again")]);
    under_load(&mut storing.master, |master, _| master.restart());
    assert_eq!(storing.found(), all);
    storing.plan.set(&[]);
    storing.master.restart();
    let left = pairs(&[("stored", "nameless")]);
    assert_eq!(storing.found(), left);
    // It stays stored even without a child.
    kill(storing.master.child(), Signal::SIGKILL).unwrap();
    storing.master.expect("restarting");
    storing.master.ready();
    assert_eq!(storing.found(), left);
    storing.master.process.stop();
}

#[test]
fn stored_descriptor_with_closed_peer_is_dropped() {
    let mut storing = Storing::start(&["store-closed=pipe", "store=kept:yes"]);
    let first = storing.master.child();
    storing.plan.set(&[]);
    storing.master.hup();
    storing.master.ready();
    assert_eq!(storing.found(), pairs(&[("pipe", ""), ("kept", "yes")]));
    storing.master.ended(first);
    // The first child had the other end.
    storing.master.restart();
    assert_eq!(storing.found(), pairs(&[("kept", "yes")]));
}

#[test]
fn stored_descriptor_with_fdpoll_0_outlives_its_peer() {
    let mut storing = Storing::start(&["store-closed=pipe", "store-unpolled=other"]);
    storing.plan.set(&[]);
    // The first child, which had the other ends, has ended before the third is started.
    storing.master.restart();
    for _ in 0..2 {
        storing.master.restart();
        assert_eq!(storing.found(), pairs(&[("other", "")]));
    }
    storing.master.process.stop();
}
