//! `dc_child`, the child process that `dc_master` runs in its tests: a server that behaves well, or has the
//! faults that its arguments name. [`plan`] lists them all.
//!
//! It answers each line that a connection sends with `child PID`, and closes. It takes its sockets as
//! programs of socketmaster, einhorn or systemd do, writes `sd_notify` messages without a library, and uses
//! nothing of libdc, so that it stands for any program. On shutdown it answers the connections that it has
//! accepted.
//!
//! An error is written to standard error, and the exit status is 9, which has no other cause.

mod descriptors;
mod notify;
mod output;
mod plan;
mod report;
mod serve;

use plan::{ChildPlan, ReadyPlan};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, io, path::Path};

/// The exit status of a child that cannot follow its plan.
const BROKEN: u8 = 9;
/// The interval at which a file is polled for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The longest lifetime of a process, in case a failed test leaves it running.
const LIFE_MAX: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    let started = Instant::now();
    let status = ChildPlan::parse(env::args_os().skip(1)).and_then(|plan| run(&plan, started));
    status.unwrap_or_else(|error| {
        eprintln!("dc_child: {error}");
        ExitCode::from(BROKEN)
    })
}

/// Follows the plan, step by step.
fn run(plan: &ChildPlan, started: Instant) -> io::Result<ExitCode> {
    if let Some(path) = &plan.report {
        report::write(path)?;
        output::line("reported");
    }
    if plan.helper {
        return help();
    }
    if let Some(path) = &plan.left_behind {
        wait_for(path);
        return Ok(ExitCode::SUCCESS);
    }
    if plan.leave_orphan {
        // Its parent, this process, exits at once.
        this_program(&["left-behind=/"]).spawn()?;
        return Ok(ExitCode::SUCCESS);
    }
    output::write(plan.output)?;
    if plan.chatter {
        output::chatter()?;
    }
    if let Some(status) = plan.die {
        return Ok(ExitCode::from(status));
    }
    if let Some(time) = plan.extend {
        notify::send(format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()).as_bytes())?;
    }
    thread::sleep(plan.start_after.saturating_sub(started.elapsed()));
    let listeners = descriptors::listeners()?;
    if let Some(path) = &plan.grandchild {
        this_program(&[&format!("left-behind={}", path.display())]).spawn()?;
    }
    for _ in 0..plan.orphans {
        this_program(&["leave-orphan"]).status()?;
    }
    for stored in &plan.store {
        notify::store(stored)?;
    }
    for name in &plan.remove {
        notify::send(format!("FDSTOREREMOVE=1\nFDNAME={name}").as_bytes())?;
    }
    let helper = match &plan.ready {
        Some(ReadyPlan::ByHelper) => Some(this_program(&["helper"]).stdin(Stdio::piped()).spawn()?),
        _ => None,
    };
    let status = serve::serve(plan, listeners, started)?;
    if let Some(mut helper) = helper {
        drop(helper.stdin.take());
        helper.wait()?;
    }
    Ok(ExitCode::from(status))
}

/// This program with another plan and the same inherited descriptors.
fn this_program(plan: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(plan);
    command
}

/// Sends READY=1 for its parent, and lives until the parent exits.
fn help() -> io::Result<ExitCode> {
    notify::send(b"READY=1")?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns when the file exists, or its directory no longer does.
fn wait_for(path: &Path) {
    let started = Instant::now();
    while !path.exists() && path.parent().is_none_or(Path::exists) && started.elapsed() < LIFE_MAX {
        thread::sleep(LOOK_EVERY);
    }
}
