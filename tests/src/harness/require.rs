//! A test's requirements of the system, such as root, namespaces or a tool.
//!
//! A test without its requirement reports that it is skipped, and passes. With `DISTCACHE_TESTS_REQUIRE=1` it
//! fails instead, so a complete environment cannot lose tests silently; `.ci/run` sets it. Crates below
//! `dc-tests` include this file by its path, so it uses only the standard library.

use std::env;
use std::io::{self, Write};

/// The variable that makes a missing requirement a failure, if set to `1`.
const REQUIRE: &str = "DISTCACHE_TESTS_REQUIRE";

/// Reports that the running test is skipped, for this reason. The caller returns.
///
/// # Panics
///
/// With `DISTCACHE_TESTS_REQUIRE=1`, so the test fails.
pub fn skip(reason: &str) {
    assert!(env::var_os(REQUIRE).is_none_or(|value| value != "1"), "{REQUIRE}=1: {reason}");
    // Unlike `eprintln!`, this is seen without `--nocapture`.
    writeln!(io::stderr(), "skipped: {reason}").ok();
}
