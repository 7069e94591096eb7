//! The program is missing, cannot be executed, or is replaced.

use crate::load::under_load;
use dc_tests::harness::daemon::stderr;
use dc_tests::harness::master::MasterProcess;
use dc_tests::harness::process::ProgramLaunch;
use dc_tests::harness::programs::{directory, program};
use dc_tests::harness::test_dir::TestDir;
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// A command at a separate path, which leads to `dc_child`.
fn linked(place: &TestDir) -> std::path::PathBuf {
    let path = place.file("app");
    symlink(program("dc_child"), &path).unwrap();
    path
}

/// A copy of `dc_child`. It is made by another process, so that no fork of this one has it open for writing,
/// which would prevent its execution.
pub(crate) fn copy_child(path: &Path) {
    let copied = Command::new("cp").arg(program("dc_child")).arg(path).status().unwrap();
    assert!(copied.success());
}

#[test]
fn a_first_start_that_is_impossible_is_one_line_and_status_1() {
    let place = TestDir::new();
    let (missing, plain) = (place.file("missing"), place.file("plain"));
    fs::write(&plain, "no program").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let pidfile = place.file("pid");
    for command in [&missing, &plain, place.path()] {
        for further in [&[][..], &["-daemon", "-pidfile", pidfile.to_str().unwrap()]] {
            let socket = format!("unix://{}", place.file("socket").display());
            let launch = ProgramLaunch::new("dc_master").with(["-log", "error", "-listen", &socket]);
            let output = launch.with(further).with(["-command", command.to_str().unwrap()]).output();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.lines().count() == 1 && said.contains(command.to_str().unwrap()), "{said}");
            assert_eq!(place.names(), ["plain"], "something was left");
        }
    }
}

#[test]
fn a_command_that_goes_and_comes_back_costs_nothing() {
    let place = TestDir::new();
    let command = linked(&place);
    let mut master = MasterProcess::for_command(&command, &["-start", "0"], &["ready"]);
    let old = master.child();
    let cannot_start = format!("cannot start {}: ", command.display());
    under_load(&mut master, |master, callers| {
        fs::remove_file(&command).unwrap();
        master.hup();
        master.expect(&cannot_start);
        master.expect("the old one keeps serving");
        callers.wait_for_more_of(old);
        let plain = place.file("plain");
        fs::write(&plain, "no program").unwrap();
        symlink(&plain, &command).unwrap();
        master.hup();
        master.expect(&cannot_start);
        master.expect("the old one keeps serving");
        callers.wait_for_more_of(old);
        fs::remove_file(&command).unwrap();
        linked(&place);
        master.restart();
        callers.wait_for_child(master.child());
    });
    assert_eq!(master.process.log.with("restarting").len(), 0);
    master.process.stop();
}

#[test]
fn missing_command_is_retried_after_its_child_died() {
    let place = TestDir::new();
    let command = linked(&place);
    let mut master = MasterProcess::for_command(&command, &["-start", "0"], &["ready"]);
    fs::remove_file(&command).unwrap();
    kill(master.child(), Signal::SIGKILL).unwrap();
    master.ended(master.child());
    master.expect("restarting in_ms=1000");
    master.expect(&format!("cannot start {}: ", command.display()));
    master.expect("restarting in_ms=2000");
    linked(&place);
    master.hup();
    master.ready();
    under_load(&mut master, |master, _| master.restart());
}

#[test]
fn a_command_that_is_replaced_is_the_next_child() {
    let place = TestDir::new();
    let (command, next) = (place.file("app"), place.file("app.next"));
    copy_child(&command);
    let mut master = MasterProcess::for_command(&command, &["-start", "0"], &["ready"]);
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let runs = |master: &MasterProcess| inode(Path::new(&format!("/proc/{}/exe", master.child())));
    let old = runs(&master);
    assert_eq!(old, inode(&command));
    copy_child(&next);
    under_load(&mut master, |master, callers| {
        fs::rename(&next, &command).unwrap();
        callers.wait_for_more_of(master.child());
        assert_eq!(runs(master), old);
        master.restart();
        assert_eq!(runs(master), inode(&command));
        assert_ne!(inode(&command), old);
    });
}

#[test]
fn a_command_without_a_slash_is_looked_up() {
    let path = format!("{}:/usr/bin:/bin", directory().display());
    let launch = ProgramLaunch::new("dc_master").with_variable("PATH", path);
    let launch = launch.with(["-listen", "tcp://127.0.0.1:0", "-start", "0", "-command", "dc_child"]);
    let mut master = MasterProcess::launch(&launch.with(["--", "ready"]));
    under_load(&mut master, |master, _| master.restart());
}
