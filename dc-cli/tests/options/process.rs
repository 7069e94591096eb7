//! Processes: exit statuses, streams, and a stderr that cannot be written.
//!
//! Each test starts this test executable again as the program, restricted to the test [`program`].

use crate::sample::{PROGRAM, Sample};
use dc_daemon::log;
use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

const LINE: &str = "DC_TEST_LINE";

/// Not a test but the program, if the variable is set: it takes its options from there, logs, and exits with
/// status 7.
#[test]
fn program() {
    let Ok(line) = std::env::var(LINE) else { return };
    let args: Vec<_> = line.split_whitespace().map(Into::into).collect();
    let options: Sample =
        PROGRAM.try_parse(args, |name| std::env::var_os(name)).unwrap_or_else(|stop| stop.exit());
    log::start(&options.daemon.log, PROGRAM.name, false).unwrap();
    let again = log::start(&options.daemon.log, PROGRAM.name, false);
    assert_eq!(again.map(drop), Err(log::LogError::Started));
    for number in 0..3000 {
        tracing::info!(number, "a line that is long enough to fill a pipe soon");
        tracing::debug!(number, "seen only with -debug");
    }
    std::process::exit(7)
}

fn started(line: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "process::program", "--nocapture", "--quiet"])
        .env(LINE, line)
        .env_remove("RUST_LOG");
    command
}

fn quiet(line: &str) -> Command {
    let mut command = started(line);
    command.stdout(Stdio::null());
    command
}

#[test]
fn usage_error_is_the_only_output_with_status_64() {
    let output = started("-server IP:1 -retry 0").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "dc_sample: -retry \"0\" is too small; it takes 1 to 3600000 milliseconds, \
         or a number with a unit: 250ms, 5s, 2m, 1h\n"
    );
}

#[test]
fn invalid_filter_is_a_usage_error() {
    let output = started("-server IP:1 -log a=b=c").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(
        String::from_utf8(output.stderr).unwrap().starts_with("dc_sample: -log \"a=b=c\" is not a filter;")
    );
}

#[test]
fn help_goes_to_stdout_with_status_0() {
    let output = started("-help").output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), [].as_slice()));
    assert!(String::from_utf8(output.stdout).unwrap().contains(&PROGRAM.usage::<Sample>()));
}

#[test]
fn log_lines_go_to_stderr() {
    let output = started("-server IP:1").output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.lines()
            .next()
            .unwrap()
            .ends_with("Z  INFO a line that is long enough to fill a pipe soon number=0")
    );
    assert!(!text.contains('\u{1b}') && !text.contains("-debug"));
}

#[test]
fn full_disk_and_closed_stderr_do_not_stop_the_program() {
    for line in ["-server IP:1", "-server IP:1 -log-format json", "-server IP:1 -syslog"] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(quiet(line).stderr(full).status().unwrap().code(), Some(7), "{line}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(quiet(line).stderr(writer).status().unwrap().code(), Some(7), "{line}");
    }
}

#[test]
fn unread_pipe_drops_lines_and_does_not_block() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = quiet("-server IP:1 -debug").stderr(writer).spawn().unwrap();
    // It exits although the pipe has no reader meanwhile.
    assert_eq!(child.wait().unwrap().code(), Some(7));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let lines = text.lines().count();
    assert!(lines > 10 && lines < 6000, "{lines}");
    assert!(text.ends_with('\n') && text.lines().all(|line| line.contains("number=")));
}

#[test]
fn file_size_limit_drops_lines_and_does_not_kill() {
    let mut file = tempfile::tempfile().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 8 && exec \"$0\" \"$@\""]);
    let program = quiet("-server IP:1");
    shell
        .arg(program.get_program())
        .args(program.get_args())
        .env(LINE, "-server IP:1")
        .env_remove("RUST_LOG");
    let status = shell.stdout(Stdio::null()).stderr(file.try_clone().unwrap()).status().unwrap();
    assert_eq!(status.code(), Some(7), "{status}");
    let mut text = String::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_string(&mut text).unwrap();
    // The unit of the limit is 512 bytes or 1024.
    assert!(text.len() == 4096 || text.len() == 8192, "{}", text.len());
}
