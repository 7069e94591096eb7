//! The environment that a child finds at its start: lines of a keyword and a value.
//!
//! The keywords are `pid`, `parent`, `directory`, `argument`, `variable NAME=VALUE`, `status FIELD: VALUE` of
//! proc(5), and for each open descriptor `descriptor NUMBER TARGET`, followed by `cloexec` and `nonblock` if
//! set. For a descriptor after the sockets there is also `stored NUMBER TEXT` with the start of its content.

use crate::descriptors::{FIRST, number};
use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::{env, process};

/// The fields of `/proc/self/status` that a process inherits.
const FIELDS: [&str; 7] = ["Name:", "Uid:", "Gid:", "Groups:", "SigBlk:", "SigIgn:", "NSpid:"];
/// Bits of `flags` in `proc_pid_fdinfo(5)`, which are octal.
const O_NONBLOCK: u32 = 0o4_000;
const O_CLOEXEC: u32 = 0o2_000_000;
/// The most bytes read from a stored descriptor.
const STORED_MAX: usize = 64;

/// Writes the report under a temporary name and renames it, so that the file is always complete.
///
/// # Errors
/// The errors of the file system.
pub(crate) fn write(path: &Path) -> io::Result<()> {
    let text = report()?;
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, text)?;
    fs::rename(&unfinished, path)
}

fn report() -> io::Result<String> {
    let mut text = format!("pid {}\nparent {}\n", process::id(), parent_id());
    let mut line = |kind: &str, what: &str| {
        // Writing to a string cannot fail.
        writeln!(text, "{kind} {what}").ok();
    };
    line("directory", &env::current_dir()?.to_string_lossy());
    env::args_os().skip(1).for_each(|argument| line("argument", &argument.to_string_lossy()));
    for (name, value) in env::vars_os() {
        line("variable", &format!("{}={}", name.to_string_lossy(), value.to_string_lossy()));
    }
    for field in fs::read_to_string("/proc/self/status")?.lines() {
        if FIELDS.iter().any(|inherited| field.starts_with(inherited)) {
            line("status", field);
        }
    }
    let sockets = number("EINHORN_FD_COUNT").unwrap_or_default();
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    numbers.sort_unstable();
    for number in numbers {
        // The descriptor of this directory listing is closed by now.
        let Ok(target) = fs::read_link(format!("/proc/self/fd/{number}")) else { continue };
        line("descriptor", &format!("{number} {}{}", target.display(), flags(number)?));
        if number >= FIRST + sockets
            && let Some(stored) = stored(number)
        {
            line("stored", &format!("{number} {stored}"));
        }
    }
    Ok(text)
}

fn flags(number: i32) -> io::Result<String> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
    let flags = flags.ok_or_else(|| io::Error::other("no flags"))?;
    let named = [(O_CLOEXEC, " cloexec"), (O_NONBLOCK, " nonblock")];
    Ok(named.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect())
}

fn stored(number: i32) -> Option<String> {
    let file = File::open(format!("/proc/self/fd/{number}"))
        .ok()
        .filter(|file| file.metadata().is_ok_and(|of| of.is_file()))?;
    let mut bytes = [0; STORED_MAX];
    let count = file.read_at(&mut bytes, 0).ok()?;
    Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
}
