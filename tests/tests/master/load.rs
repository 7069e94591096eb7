//! Callers that run during a test of the master.

use dc_tests::harness::callers::{CallCounters, Callers};
use dc_tests::harness::master::MasterProcess;

/// Minimum number of calls for a result.
const CALLS_MIN: u64 = 100;

/// Runs callers during `happens` and for a while after it. Every call must be answered.
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
