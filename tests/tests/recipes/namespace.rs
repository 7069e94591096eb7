//! Runs the commands of a document unchanged, as root in namespaces that leave the system alone.
//!
//! Mounts, processes and network are private, with 10.0.0.1 on the loopback interface. `/tmp`, `/run` and
//! `/var/lib` are empty, `/etc` is a copy, and `/usr/local/bin` also has the programs under test. All blocks
//! of a document run in one bash, in their order, so later blocks use the daemons and files of earlier ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Longest time that a document may take.
const SECONDS_MAX: &str = "300";

/// Prepares new namespaces and runs the steps. `$1` is the directory of the steps, `$2` and so on are the
/// programs.
const ENTER: &str = r#"
steps=$1
shift
ip link set lo up
ip address add 10.0.0.1/24 dev lo
mount -t tmpfs -o mode=755 recipes /mnt
mkdir /mnt/steps /mnt/bin /mnt/etc /mnt/local
mount --bind "$steps" /mnt/steps
for program in "$@"; do
    : > "/mnt/bin/${program##*/}"
    mount --bind "$program" "/mnt/bin/${program##*/}"
done
mount --bind /usr/local/bin /mnt/local
mount -t tmpfs -o mode=755 recipes /usr/local/bin
for file in /mnt/local/* /mnt/bin/*; do
    [ ! -e "$file" ] || ln -sf "$file" /usr/local/bin/
done
cp -a /etc/. /mnt/etc
mount --bind /mnt/etc /etc
mount -t tmpfs -o mode=755 recipes /var/lib
mount -t tmpfs -o mode=755 recipes /run
mount -t tmpfs -o mode=1777 recipes /tmp
cd /tmp
exec bash /mnt/steps/all
"#;

/// Commands whose output goes to one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// Line of the document.
    pub(crate) line: usize,
    pub(crate) commands: String,
    pub(crate) in_background: bool,
    /// If set, `commands` is the content of a file to be written to this path.
    pub(crate) file: Option<String>,
}

/// The result of all steps.
pub(crate) enum Ran {
    /// The output of each step, in their order.
    All(Vec<String>),
    /// The reason: a step failed, or did not end in time.
    Failed(String),
}

/// The components that these steps need and this system lacks.
pub(crate) fn missing(steps: &[Step]) -> Vec<String> {
    let mut tools = BTreeSet::from(["bash", "ip", "mount", "timeout", "unshare"]);
    let optional = ["openssl", "pkill", "python3", "systemd-socket-activate", "useradd"];
    let named = |tool: &&str| steps.iter().any(|step| step.commands.contains(*tool));
    tools.extend(optional.into_iter().filter(named));
    let folders = ["/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let is_there = |tool: &str| folders.iter().any(|folder| Path::new(folder).join(tool).exists());
    let absent = tools.into_iter().filter(|tool| !is_there(tool));
    let mut missing: Vec<_> = absent.map(|tool| format!("{tool} is not installed")).collect();
    if missing.is_empty() {
        let tried = unshare().arg("true").stderr(Stdio::null()).status();
        if !tried.is_ok_and(|status| status.success()) {
            missing.push("namespaces cannot be made: this needs root".to_owned());
        }
    }
    missing
}

/// `unshare` with the namespaces and the environment of the steps.
fn unshare() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", SECONDS_MAX, "unshare", "--mount", "--net", "--pid", "--ipc", "--uts"]);
    command.args(["--fork", "--kill-child", "--mount-proc"]);
    command.env_clear().env("HOME", "/root").env("LC_ALL", "C.UTF-8");
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null());
    command
}

/// Runs the steps, with `programs` in the path.
pub(crate) fn run(steps: &[Step], programs: &[std::path::PathBuf]) -> Ran {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str| directory.path().join(name);
    let mut all = String::from("set -e\ntrap 'echo $step > /mnt/steps/last' EXIT\n");
    for (number, step) in steps.iter().enumerate() {
        fs::write(file(&format!("{number}.sh")), &step.commands).expect("a file of ours");
        all.push_str(&format!("step={number}\n{}\n", command_of(number, step)));
    }
    all.push_str("step=all\n");
    fs::write(file("all"), all).expect("a file of ours");
    let mut command = unshare();
    command.args(["bash", "-e", "-c", ENTER, "enter"]).arg(directory.path()).args(programs);
    let ran = command.output().expect("timeout and unshare");
    let read =
        |name: String| String::from_utf8_lossy(&fs::read(file(&name)).unwrap_or_default()).into_owned();
    let last = read("last".to_owned());
    match last.trim().parse::<usize>() {
        _ if last.trim() == "all" && ran.status.success() => {
            Ran::All((0..steps.len()).map(|number| read(format!("{number}.out"))).collect())
        }
        Ok(number) => {
            let line = steps.get(number).map_or(0, |step| step.line);
            let commands = read(format!("{number}.sh"));
            Ran::Failed(format!("line {line} failed:\n{commands}\n{}", read(format!("{number}.out"))))
        }
        Err(_) => {
            let begun = (0..steps.len()).rev().find(|number| file(&format!("{number}.out")).exists());
            let line = begun.and_then(|number| steps.get(number)).map_or(0, |step| step.line);
            let said = String::from_utf8_lossy(&ran.stderr).into_owned();
            Ran::Failed(format!("{} at line {line}: {said}", ran.status))
        }
    }
}

/// How bash runs a step.
fn command_of(number: usize, step: &Step) -> String {
    let script = format!("/mnt/steps/{number}.sh");
    match &step.file {
        Some(path) => format!("mkdir -p \"$(dirname {path})\" && cp {script} {path}"),
        None if step.in_background => format!("(. {script}) > /mnt/steps/{number}.out 2>&1 &"),
        None => format!(". {script} > /mnt/steps/{number}.out 2>&1"),
    }
}
