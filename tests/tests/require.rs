//! Checks `skip` by running a test in a process, with the variable and without.

use dc_tests::harness::require::skip;
use std::env;
use std::process::Command;

const REQUIRE: &str = "DISTCACHE_TESTS_REQUIRE";

#[test]
#[ignore = "started by missing_requirement_fails_only_if_required"]
fn lacks_requirement() {
    skip("a requirement that no system meets");
}

#[test]
fn missing_requirement_fails_only_if_required() {
    for (value, passes) in [(None, true), (Some(""), true), (Some("0"), true), (Some("1"), false)] {
        let mut test = Command::new(env::current_exe().unwrap());
        test.args(["--ignored", "--exact", "lacks_requirement"]).env_remove(REQUIRE);
        test.envs(value.map(|value| (REQUIRE, value)));
        let output = test.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(out.contains("running 1 test"), "{out}");
        assert_eq!(output.status.success(), passes, "{value:?}: {out}{err}");
        assert_eq!(
            err.contains("skipped: a requirement that no system meets\n"),
            passes,
            "{value:?}: {out}{err}"
        );
        assert_eq!(
            out.contains("REQUIRE=1: a requirement that no system meets"),
            !passes,
            "{value:?}: {out}{err}"
        );
    }
}
