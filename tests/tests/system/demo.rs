//! `cargo demo`, the first program that a new user runs.

use dc_tests::harness::daemon::stderr;
use dc_tests::harness::process::ProgramLaunch;

#[test]
fn demo_prints_every_step_and_succeeds() {
    let output = ProgramLaunch::new("dc_demo").output();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{shown}\n{}", output.status, stderr(&output));
    assert_eq!(stderr(&output), "");
    let steps = [
        "server", "host A", "host B", "store", "resume", "remove", "watch", "lock", "outage", "recovery",
        "stop",
    ];
    let begins: Vec<&str> = shown.lines().filter_map(|line| line.get(..10)).map(str::trim).collect();
    assert!(steps.iter().all(|step| begins.contains(step)), "{shown}");
    assert!(shown.contains("← GET") && shown.ends_with("\nAll went well.\n"), "{shown}");
    for line in ["→ ENQUEUE", "← WAIT", "host B has it within"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    // The content of a session is never printed.
    assert!(!shown.contains("a1a1a1"), "{shown}");
}
