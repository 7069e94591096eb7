//! `dc_child` is what `dc_master` runs in its tests: a server that behaves well, or badly in the ways that its
//! arguments name. [`plan`] has them all.
//!
//! It answers each line that a connection sends with `child PID`, and closes. It takes its sockets as
//! socketmaster's, einhorn's or systemd's programs do, speaks to `NOTIFY_SOCKET` in bytes of its own, and has nothing
//! of libdc in it, so that it proves what is said of any program. Told to end, it answers what it has accepted.
//!
//! What it can't do it says on standard error, and ends with status 9, which nothing else does.

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

/// The status of a child that can't be what its plan says.
const BROKEN: u8 = 9;
/// How often a file is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The longest that any process lives: a test that failed may not end it.
const LIFE_MAX: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    let started = Instant::now();
    let done = ChildPlan::parse(env::args_os().skip(1)).and_then(|plan| run(&plan, started));
    done.unwrap_or_else(|error| {
        eprintln!("dc_child: {error}");
        ExitCode::from(BROKEN)
    })
}

/// Does what `plan` says, in its order.
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
        // Its parent, this process, ends at once.
        own(&["left-behind=/"]).spawn()?;
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
        own(&[&format!("left-behind={}", path.display())]).spawn()?;
    }
    for _ in 0..plan.orphans {
        own(&["leave-orphan"]).status()?;
    }
    for stored in &plan.store {
        notify::store(stored)?;
    }
    for name in &plan.remove {
        notify::send(format!("FDSTOREREMOVE=1\nFDNAME={name}").as_bytes())?;
    }
    let helper = match &plan.ready {
        Some(ReadyPlan::ByHelper) => Some(own(&["helper"]).stdin(Stdio::piped()).spawn()?),
        _ => None,
    };
    let status = serve::serve(plan, listeners, started)?;
    if let Some(mut helper) = helper {
        drop(helper.stdin.take());
        helper.wait()?;
    }
    Ok(ExitCode::from(status))
}

/// This program anew, with another plan, and what this one has inherited.
fn own(plan: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(plan);
    command
}

/// Says that its parent is ready, and lives as long as that.
fn help() -> io::Result<ExitCode> {
    notify::send(b"READY=1")?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns when there is such a file, or no directory for it any more.
fn wait_for(path: &Path) {
    let started = Instant::now();
    while !path.exists() && path.parent().is_none_or(Path::exists) && started.elapsed() < LIFE_MAX {
        thread::sleep(LOOK_EVERY);
    }
}
