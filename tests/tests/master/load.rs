//! Callers beside whatever a test does to a master.

use dc_tests::harness::callers::{CallCounters, Callers};
use dc_tests::harness::master::MasterProcess;

/// The fewest calls that a claim is made for.
const CALLS_MIN: u64 = 100;

/// Has callers at work while `happens` happens, and for a while behind it. Not one may go without an answer.
pub(crate) fn under_load(
    master: &mut MasterProcess,
    happens: impl FnOnce(&mut MasterProcess, &Callers),
) -> CallCounters {
    let callers = Callers::of_child(master.address());
    happens(master, &callers);
    callers.wait_for(CALLS_MIN);
    let tally = callers.finish();
    tally.all_answered(CALLS_MIN);
    tally
}
