//! `dc_lock` as a process, with a scripted agent.
#![allow(clippy::unwrap_used, reason = "so a test fails")]

mod agent;
mod patience;

use agent::{FENCE, ScriptedAgent};
use libdc::id::{LinkId, LockKey};
use libdc::wire::frame::LockOperation;
use libdc::wire::link::Hello;
use libdc::wire::lock::{LockAction, LockRequest, LockStatus};
use libdc::wire::message::write_message;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use patience::TestDeadline;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

/// A command that prints `ready` and exits after a line or the end of its standard input.
const READY: &str = "echo ready; read x";

/// A running `dc_lock` with a time limit.
struct RunningCommand {
    child: Child,
    deadline: TestDeadline,
}

impl RunningCommand {
    fn start(agent: &ScriptedAgent, words: &[&str]) -> Self {
        // A shell in the background ignores some signals, and its child processes inherit that.
        Self::start_under(&["env", "--default-signal=HUP,INT,QUIT,TERM"], agent, words)
    }

    /// Starts it through the command `by`, which executes it.
    fn start_under(by: &[&str], agent: &ScriptedAgent, words: &[&str]) -> Self {
        let mut command = Command::new(by[0]);
        command.args(&by[1..]).arg(env!("CARGO_BIN_EXE_dc_lock"));
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DC_LOCK_"))
        {
            command.env_remove(name);
        }
        command.env("DC_LOCK_CONNECT", agent.address()).args(words);
        // A separate group whose parent is in another: the kernel discards SIGTSTP to an orphaned group.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let deadline = TestDeadline::for_process(pid_of(&child));
        Self { child, deadline }
    }

    fn signal(&self, signal: Signal) {
        kill(pid_of(&self.child), signal).unwrap();
    }

    /// Waits until the command has printed `ready`.
    fn expect_ready(&mut self) {
        // Exactly these bytes: the rest is read when the process has ended.
        let mut said = [0; 6];
        self.child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"ready\n");
    }

    /// Closes its standard input and waits until it has exited.
    fn wait_for_end(self) -> CommandEnd {
        let Self { child, deadline } = self;
        let output = child.wait_with_output().unwrap();
        drop(deadline);
        CommandEnd::from_output(output)
    }

    /// Waits until it has exited, with its standard input open.
    fn ended(mut self) -> CommandEnd {
        let input = self.child.stdin.take();
        let end = self.wait_for_end();
        drop(input);
        end
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Exit status and output.
#[derive(Debug)]
struct CommandEnd {
    status: i32,
    out: String,
    err: String,
}

impl CommandEnd {
    fn from_output(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Runs it with a lock that is granted at once.
fn run(words: &[&str]) -> CommandEnd {
    let agent = ScriptedAgent::new();
    let running = RunningCommand::start(&agent, words);
    let mut connection = agent.open();
    connection.grant();
    connection.expect_end();
    running.wait_for_end()
}

#[test]
fn the_command_runs_with_the_lock_in_its_environment() {
    let show = "echo $DC_LOCK_KEY $DC_LOCK_FENCE $DC_LOCK_TOKEN; exit 7";
    let end = run(&["k", "--", "sh", "-c", show]);
    assert_eq!(end.out, format!("k {FENCE} {FENCE:016x}0000000000000abc\n"));
    assert_eq!((end.status, end.err.as_str()), (7, ""));
    assert_eq!(run(&["-c", show, "k"]).status, 7);
}

#[test]
fn the_status_is_that_of_the_shell() {
    assert_eq!(run(&["k", "--", "true"]).status, 0);
    assert_eq!(run(&["k", "--", "sh", "-c", "kill -KILL $$"]).status, 128 + 9);
    let end = run(&["k", "--", "/nowhere/at-all"]);
    assert_eq!(end.status, 127);
    assert!(end.err.starts_with("dc_lock: cannot run /nowhere/at-all: "), "{}", end.err);
    assert_eq!(run(&["k", "--", "/dev/null"]).status, 126);
}

#[test]
fn a_script_without_a_first_line_is_run_by_the_shell() {
    for on_loss in ["kill", "warn"] {
        let agent = ScriptedAgent::new();
        let script = agent.file("script").display().to_string();
        // Written by another process: a file that a child of this one has open for writing cannot be
        // executed.
        let write = "echo 'echo $DC_LOCK_FENCE \"$@\"; exit 7' > \"$0\" && chmod 755 \"$0\"";
        assert!(Command::new("sh").args(["-c", write, &script]).status().unwrap().success());
        let running =
            RunningCommand::start(&agent, &["-on-loss", on_loss, "k", "--", &script, "a b", "-c", "--"]);
        let mut connection = agent.open();
        connection.grant();
        connection.expect_end();
        let end = running.wait_for_end();
        assert_eq!((end.status, end.out), (7, format!("{FENCE} a b -c --\n")), "{on_loss}: {}", end.err);
    }
}

#[test]
fn a_parent_that_ignores_the_ends_of_children_changes_nothing() {
    for on_loss in ["kill", "warn"] {
        let agent = ScriptedAgent::new();
        let words = ["-on-loss", on_loss, "k", "--", "sh", "-c", &format!("{READY}; exit 7")];
        let mut running = RunningCommand::start_under(&["env", "--ignore-signal=CHLD"], &agent, &words);
        let mut connection = agent.open();
        connection.grant();
        running.expect_ready();
        drop(running.child.stdin.take());
        connection.expect_end();
        let end = running.wait_for_end();
        assert_eq!((end.status, end.err.as_str()), (7, ""), "{on_loss}");
    }
}

#[test]
fn lock_request_matches_the_options() {
    for (words, action) in [
        (&["k", "--", "true"][..], (1, libdc::limits::LOCK_MS_MAX, 0)),
        (&["-n", "k", "--", "true"], (1, 0, 0)),
        (&["-w", "0", "k", "--", "true"], (1, 0, 0)),
        (&["-limit=4", "-lease", "1m", "k", "--", "true"], (4, libdc::limits::LOCK_MS_MAX, 60_000)),
    ] {
        let agent = ScriptedAgent::new();
        let running = RunningCommand::start(&agent, words);
        let mut connection = agent.open();
        let asked = connection.grant();
        let key = LockKey::new("k").unwrap();
        let (limit, timeout_ms, lease_ms) = action;
        let action = LockAction::Acquire { key, limit, timeout_ms, lease_ms };
        assert_eq!(
            LockRequest::parse(LockOperation::Acquire, &asked),
            Ok(Ok(LockRequest { owner: 0, action }))
        );
        connection.expect_end();
        assert_eq!(running.wait_for_end().status, 0);
    }
}

#[test]
fn a_lock_that_is_held_is_a_status_of_its_own() {
    for (words, status) in [
        (&["-n", "k", "--", "true"][..], 75),
        (&["-w", "1.5", "k", "--", "true"], 75),
        (&["-n", "-E", "0", "k", "--", "false"], 0),
        (&["-n", "-conflict-exit-code=9", "k", "--", "true"], 9),
    ] {
        let agent = ScriptedAgent::new();
        let running = RunningCommand::start(&agent, words);
        let mut connection = agent.open();
        connection.status("ACQUIRE", LockStatus::Timeout);
        let end = running.wait_for_end();
        assert_eq!((end.status, end.err.as_str()), (status, ""), "{words:?}");
    }
}

#[test]
fn verbose_prints_each_step() {
    let agent = ScriptedAgent::new();
    let running = RunningCommand::start(&agent, &["-verbose", "k", "--", "true"]);
    let mut connection = agent.open();
    connection.status("ACQUIRE", LockStatus::Timeout);
    connection.grant();
    connection.expect_end();
    let end = running.wait_for_end();
    let lines: Vec<&str> = end.err.lines().collect();
    assert_eq!(lines[0], "dc_lock: waiting for k");
    assert!(
        lines[1].starts_with("dc_lock: got k after ") && lines[1].ends_with("fence 1234567"),
        "{lines:?}"
    );
    assert_eq!(lines[2..], ["dc_lock: released k"]);
}

#[test]
fn each_refusal_has_its_status() {
    for (status, expected) in [
        (LockStatus::ErrorMaxLocks, 69),
        (LockStatus::ErrorMaxWaiters, 69),
        (LockStatus::ErrorUnsupported, 69),
        (LockStatus::ErrorLimitMismatch, 70),
        (LockStatus::Error, 70),
    ] {
        let agent = ScriptedAgent::new();
        let running = RunningCommand::start(&agent, &["k", "--", "true"]);
        let mut connection = agent.open();
        connection.status("ACQUIRE", status);
        let end = running.wait_for_end();
        assert_eq!(end.status, expected, "{status:?}: {}", end.err);
        assert_eq!(end.err.lines().count(), 1);
    }
}

#[test]
fn a_link_that_is_not_opened_has_its_status() {
    for (status, expected) in
        [(LockStatus::ErrorDisconnected, 69), (LockStatus::ErrorUnsupported, 69), (LockStatus::ErrorAuth, 77)]
    {
        let agent = ScriptedAgent::new();
        let running = RunningCommand::start(&agent, &["k", "--", "true"]);
        let mut connection = agent.accept();
        let probe = connection.expect("HAVE").head;
        connection.answer(probe, &[1]);
        connection.welcome(status, 0);
        assert_eq!(running.wait_for_end().status, expected, "{status:?}");
    }
}

#[test]
fn absent_server_and_server_without_locks_are_reported() {
    let agent = ScriptedAgent::new();
    let running = RunningCommand::start(&agent, &["-connect", "UNIX:/nowhere/at-all", "k", "--", "true"]);
    let end = running.wait_for_end();
    assert_eq!(end.status, 69);
    assert!(end.err.starts_with("dc_lock: could not connect to UNIX:/nowhere/at-all: "), "{}", end.err);

    let running = RunningCommand::start(&agent, &["k", "--", "true"]);
    let mut connection = agent.accept();
    let mut head = connection.expect("HAVE").head.response();
    head.patch_level = 0;
    let mut out = Vec::new();
    write_message(&mut out, head, &[1]);
    connection.send(&out);
    let end = running.wait_for_end();
    assert_eq!((end.status, end.err.as_str()), (69, "dc_lock: the server knows no locks\n"));
}

#[test]
fn a_token_is_presented_and_never_shown() {
    let agent = ScriptedAgent::new();
    let file = agent.file("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let file = file.display().to_string();
    let running = RunningCommand::start(&agent, &["-auth-token-file", &file, "k", "--", "true"]);
    let mut connection = agent.accept();
    let hello = connection.welcome(LockStatus::Ok, 10_000);
    assert_eq!(Hello::parse(&hello).unwrap().auth_token, b"s3cret");
    assert_ne!(Hello::parse(&hello).unwrap().link_id, LinkId::new([0; 16]));
    connection.status("OPEN", LockStatus::Ok);
    connection.grant();
    connection.expect_end();
    let end = running.wait_for_end();
    assert_eq!(end.status, 0);
    assert!(!end.err.contains("s3cret"));
    let missing = agent.file("missing").display().to_string();
    let end =
        RunningCommand::start(&agent, &["-auth-token-file", &missing, "k", "--", "true"]).wait_for_end();
    assert_eq!(end.status, 66, "{}", end.err);
}

#[test]
fn connection_closed_unanswered_suggests_a_missing_token() {
    let agent = ScriptedAgent::new();
    let running = RunningCommand::start(&agent, &["k", "--", "true"]);
    let mut connection = agent.accept();
    connection.expect("HAVE");
    drop(connection);
    let end = running.wait_for_end();
    assert_eq!(end.status, 69);
    assert!(
        end.err.ends_with("closed by the peer without an answer; does the server ask for a token?\n"),
        "{}",
        end.err
    );
}

#[test]
fn a_signal_ends_the_wait() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let agent = ScriptedAgent::new();
        let running = RunningCommand::start(&agent, &["k", "--", "echo", "ran"]);
        let mut connection = agent.open();
        connection.expect("ACQUIRE");
        running.signal(signal);
        while connection.next().is_some() {}
        let end = running.wait_for_end();
        assert_eq!((end.status, end.out.as_str()), (128 + signal as i32, ""));
    }
}

#[test]
fn a_signal_is_passed_on_to_the_command() {
    let agent = ScriptedAgent::new();
    let mut running = RunningCommand::start(
        &agent,
        &["k", "--", "sh", "-c", &format!("trap 'echo ended; exit 3' TERM; {READY}")],
    );
    let mut connection = agent.open();
    connection.grant();
    running.expect_ready();
    running.signal(Signal::SIGTERM);
    connection.expect_end();
    let end = running.ended();
    assert_eq!((end.status, end.out.as_str()), (3, "ended\n"));
}

/// Stops it by SIGTSTP, sent to it alone. Returns the state of its command, which has printed its pid.
fn stop_alone(running: &mut RunningCommand) -> String {
    let mut number = String::new();
    BufReader::new(running.child.stdout.as_mut().unwrap()).read_line(&mut number).unwrap();
    running.signal(Signal::SIGTSTP);
    let pid = pid_of(&running.child);
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGSTOP));
    let status = std::fs::read_to_string(format!("/proc/{}/status", number.trim())).unwrap();
    status.lines().find_map(|line| line.strip_prefix("State:")).unwrap().trim().to_owned()
}

#[test]
fn a_stop_is_passed_on_and_the_command_goes_on_with_it() {
    let agent = ScriptedAgent::new();
    let mut running = RunningCommand::start(&agent, &["k", "--", "sh", "-c", "echo $$; read x; exit 5"]);
    let mut connection = agent.open();
    connection.grant();
    assert_eq!(stop_alone(&mut running), "T (stopped)");
    running.signal(Signal::SIGCONT);
    drop(running.child.stdin.take());
    connection.expect_end();
    assert_eq!(running.wait_for_end().status, 5);
}

#[test]
fn command_is_ended_if_its_lease_ended_while_stopped() {
    const GRACE_MS: u32 = 3_000;
    for (on_loss, status, out) in [("kill", 76, "ended\n"), ("warn", 0, "went on\n")] {
        let agent = ScriptedAgent::with_grace_ms(GRACE_MS);
        let command = "trap 'echo ended; exit 0' TERM; echo $$; read x; echo went on";
        let mut running =
            RunningCommand::start(&agent, &["-on-loss", on_loss, "k", "--", "sh", "-c", command]);
        let mut connection = agent.open();
        connection.grant();
        stop_alone(&mut running);
        connection.expect_silence(Duration::from_millis(GRACE_MS.into()));
        running.child.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
        running.signal(Signal::SIGCONT);
        let ended = thread::spawn(move || running.ended());
        // A renewal before the release is optional.
        while let Some(request) = connection.next() {
            let status =
                if request.head.operation.name() == "RENEW" { LockStatus::Error } else { LockStatus::Ok };
            connection.answer(request.head, &[status as u8]);
        }
        let end = ended.join().unwrap();
        assert_eq!((end.status, end.out.as_str()), (status, out), "{on_loss}: {}", end.err);
    }
}

/// Kills `dc_lock`. Returns the remaining output of its command: empty if it was killed too.
fn stderr_after_kill(words: &[&str]) -> String {
    let agent = ScriptedAgent::new();
    let mut running = RunningCommand::start(&agent, words);
    let mut connection = agent.open();
    connection.grant();
    running.expect_ready();
    let input = running.child.stdin.take();
    running.signal(Signal::SIGKILL);
    while connection.next().is_some() {}
    running.child.wait().unwrap();
    drop(input);
    // Reads until every writer of the pipe has exited.
    let mut said = String::new();
    running.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    said
}

#[test]
fn a_command_is_killed_with_its_dc_lock() {
    let outlives = format!("trap '' TERM HUP; {READY}; echo outlived");
    assert_eq!(stderr_after_kill(&["k", "--", "sh", "-c", &outlives]), "");
    assert_eq!(stderr_after_kill(&["k", "-c", &outlives]), "");
    assert_eq!(stderr_after_kill(&["-on-loss", "warn", "k", "-c", &outlives]), "outlived\n");
}

#[test]
fn a_lock_that_is_lost_ends_the_command() {
    let agent = ScriptedAgent::with_grace_ms(3_000);
    let mut running = RunningCommand::start(
        &agent,
        &["k", "--", "sh", "-c", &format!("trap 'echo ended; exit 0' TERM; {READY}")],
    );
    let mut connection = agent.open();
    connection.grant();
    running.expect_ready();
    connection.status("RENEW", LockStatus::Error);
    connection.expect_bye();
    let end = running.ended();
    assert_eq!((end.status, end.out.as_str()), (76, "ended\n"));
    assert!(end.err.contains("the lock k is lost: the server says that it is held no more"), "{}", end.err);
}

#[test]
fn a_command_that_does_not_heed_is_killed() {
    let agent = ScriptedAgent::with_grace_ms(1_000);
    let mut running =
        RunningCommand::start(&agent, &["k", "--", "sh", "-c", &format!("trap '' TERM; {READY}")]);
    let mut connection = agent.open();
    connection.grant();
    running.expect_ready();
    // The request is not answered.
    connection.expect("RENEW");
    connection.expect_end();
    let end = running.ended();
    assert_eq!(end.status, 76);
    let lines: Vec<&str> = end.err.lines().collect();
    assert!(lines[0].contains("the lock k is lost: it could not be renewed in time"), "{lines:?}");
    assert_eq!(lines[1..], ["dc_lock: the command has not ended: killing it"]);
}

/// Returns whether `run` ends before the call of a waiting client without an answer times out.
fn is_sooner_than_the_patient(agent: &ScriptedAgent, run: impl FnOnce()) -> bool {
    let mut patient = RunningCommand::start(agent, &["k", "--", "true"]);
    run();
    let is_sooner = patient.child.try_wait().unwrap().is_none();
    patient.child.kill().unwrap();
    patient.child.wait().unwrap();
    is_sooner
}

#[test]
fn nonblocking_client_soon_reports_silent_server() {
    for words in [&["-n", "k", "--", "true"][..], &["-w", "1", "k", "--", "true"]] {
        let agent = ScriptedAgent::new();
        let running = RunningCommand::start(&agent, words);
        // Its connections are not accepted.
        let is_sooner = is_sooner_than_the_patient(&agent, || {
            let end = running.wait_for_end();
            assert_eq!((end.status, end.err.as_str()), (69, "dc_lock: no answer in time\n"));
        });
        assert!(is_sooner, "{words:?}");
    }
}

#[test]
fn the_server_is_not_waited_for_once_the_lock_is_lost() {
    let agent = ScriptedAgent::with_grace_ms(1_000);
    let mut running = RunningCommand::start(&agent, &["k", "--", "sh", "-c", READY]);
    let mut connection = agent.open();
    connection.grant();
    running.expect_ready();
    connection.expect("RENEW");
    connection.expect("RELEASE");
    // Neither request is answered.
    assert!(is_sooner_than_the_patient(&agent, || assert_eq!(running.ended().status, 76)));
}

#[test]
fn an_agent_that_ends_takes_the_lock_with_it() {
    let agent = ScriptedAgent::new();
    let mut running = RunningCommand::start(&agent, &["k", "--", "sh", "-c", READY]);
    let mut connection = agent.open();
    connection.grant();
    running.expect_ready();
    drop(connection);
    let end = running.ended();
    assert_eq!(end.status, 76);
    assert!(end.err.contains("the connection to the agent was lost"), "{}", end.err);
}

#[test]
fn with_warn_the_command_runs_on() {
    let agent = ScriptedAgent::with_grace_ms(3_000);
    let words = ["-on-loss", "warn", "k", "--", "sh", "-c", &format!("{READY}; exit 5")];
    let mut running = RunningCommand::start(&agent, &words);
    let mut connection = agent.open();
    connection.grant();
    running.expect_ready();
    connection.status("RENEW", LockStatus::Error);
    let mut said = String::new();
    BufReader::new(running.child.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.ends_with("the command runs on without it\n"), "{said}");
    drop(running.child.stdin.take());
    connection.expect_bye();
    assert_eq!(running.wait_for_end().status, 5);
}

#[test]
fn a_loss_that_shows_at_the_end_is_said() {
    let agent = ScriptedAgent::new();
    let running = RunningCommand::start(&agent, &["k", "--", "true"]);
    let mut connection = agent.open();
    connection.grant();
    connection.status("RELEASE", LockStatus::Error);
    connection.expect_bye();
    let end = running.wait_for_end();
    assert_eq!(
        (end.status, end.err.as_str()),
        (76, "dc_lock: the lock k was lost before the command ended\n")
    );
}

#[test]
fn mistakes_and_questions_do_not_need_an_agent() {
    let agent = ScriptedAgent::new();
    for (words, status) in
        [(&["k"][..], 64), (&["-limit", "0", "k", "--", "true"], 64), (&["-h"], 0), (&["-version"], 0)]
    {
        assert_eq!(RunningCommand::start(&agent, words).wait_for_end().status, status, "{words:?}");
    }
}
