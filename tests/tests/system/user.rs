//! Dropping root privileges, and the cleanup of files that the new user could not remove.

use dc_tests::harness::agent::{AgentProcess, unix};
use dc_tests::harness::connection::{NOTOK, TestConnection};
use dc_tests::harness::daemon::DaemonProcess;
use dc_tests::harness::notify_receiver::NotifyReceiver;
use dc_tests::harness::process::{ProgramLaunch, TestProcess, status};
use dc_tests::harness::require::skip;
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::test_dir::TestDir;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::{User, geteuid};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

/// The user to switch to; skips the test if that is impossible.
fn nobody() -> Option<User> {
    let nobody = geteuid().is_root().then(|| User::from_name("nobody").unwrap()).flatten();
    if nobody.is_none() {
        skip("not root, or there is no user nobody");
    }
    nobody
}

fn launch(dir: &TestDir, upstream: &str) -> ProgramLaunch {
    let (socket, pidfile) = (dir.file("scache"), dir.file("pid"));
    let arguments = ["-daemon", "-pidfile", pidfile.to_str().unwrap(), "-listen", &unix(&socket)];
    ProgramLaunch::new("dc_client").with(arguments).with(["-server", upstream, "-user", "nobody"])
}

#[test]
fn agent_of_root_drops_privileges_and_sets_socket_owner() {
    let Some(nobody) = nobody() else { return };
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let server = ServerProcess::start(&[]);
    let upstream = format!("IP:{}", server.address());
    // With the names of the user, with no names, and with the names of another user.
    let group = nix::unistd::Group::from_gid(nobody.gid).unwrap().unwrap().name;
    let cases: [(&[&str], u32, u32); 3] = [
        (&["-sockowner", "nobody", "-sockgroup", &group], uid, gid),
        (&["-sockowner", "-sockgroup"], uid, gid),
        (&["-sockowner", "root", "-sockgroup", "root"], 0, 0),
    ];
    for (options, owner, group) in cases {
        let dir = TestDir::new();
        let launch = launch(&dir, &upstream).with(options).with(["-sockperms", "660"]);
        let daemon = DaemonProcess::start(&launch, &dir.file("pid"));
        let ids = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join("\t");
        assert_eq!(status(daemon.pid(), "Uid"), ids(uid));
        assert_eq!(status(daemon.pid(), "Gid"), ids(gid));
        assert_eq!(status(daemon.pid(), "CapEff"), "0000000000000000");
        let socket = fs::metadata(dir.file("scache")).unwrap();
        assert!(socket.file_type().is_socket());
        assert_eq!(
            (socket.uid(), socket.gid(), socket.mode() & 0o7777),
            (owner, group, 0o660),
            "{options:?}"
        );
        assert_eq!(TestConnection::unix(&dir.file("scache")).have(b"id"), NOTOK);
        let pid = daemon.pid();
        assert_eq!(daemon.terminate(Signal::SIGTERM), WaitStatus::Exited(pid, 0));
        assert_eq!(dir.names(), Vec::<String>::new(), "{options:?}");
    }
}

/// The process's descriptors that refer to its standard error and are non-blocking.
fn nonblocking_stderr(process: &TestProcess) -> Vec<String> {
    let proc_path = |what: &str| format!("/proc/{}/{what}", process.pid());
    let stderr = fs::read_link(proc_path("fd/2")).unwrap();
    let entries = fs::read_dir(proc_path("fd")).unwrap().map(|entry| entry.unwrap());
    let same_target =
        entries.filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == stderr));
    let names = same_target.map(|entry| entry.file_name().into_string().unwrap());
    let does_not_block = |name: &String| {
        let info = fs::read_to_string(proc_path(&format!("fdinfo/{name}"))).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        i32::from_str_radix(flags.trim(), 8).unwrap() & OFlag::O_NONBLOCK.bits() != 0
    };
    names.filter(does_not_block).collect()
}

#[test]
fn log_is_nonblocking_where_user_cannot_reopen_stderr() {
    if nobody().is_none() {
        return;
    }
    // The pipe of the test belongs to root.
    let server = ServerProcess::start(&["-user", "nobody"]);
    assert_eq!(nonblocking_stderr(&server.process).len(), 1);
    let agent = AgentProcess::start(server.address(), &["-user", "nobody"]);
    assert_eq!(nonblocking_stderr(&agent.process).len(), 1);
}

#[test]
fn killed_unprivileged_daemon_is_replaced_by_next() {
    if nobody().is_none() {
        return;
    }
    let server = ServerProcess::start(&[]);
    let dir = TestDir::new();
    let launch = launch(&dir, &format!("IP:{}", server.address()));
    for _ in 0..3 {
        let daemon = DaemonProcess::start(&launch, &dir.file("pid"));
        assert_eq!(TestConnection::unix(&dir.file("scache")).have(b"id"), NOTOK);
        let pid = daemon.pid();
        assert_eq!(daemon.terminate(Signal::SIGKILL), WaitStatus::Signaled(pid, Signal::SIGKILL, false));
    }
    let last = DaemonProcess::start(&launch, &dir.file("pid"));
    last.terminate(Signal::SIGTERM);
    assert_eq!(dir.names(), Vec::<String>::new());
}

#[test]
fn unprivileged_daemon_notifies_service_manager_of_root() {
    let Some(_) = nobody() else { return };
    let (dir, receiver) = (TestDir::new(), NotifyReceiver::start());
    // The unprivileged user could not connect to it.
    fs::set_permissions(receiver.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let server = format!("IP:{}", ServerProcess::start(&[]).address());
    let launch = launch(&dir, &server).with_variable("NOTIFY_SOCKET", receiver.path());
    let daemon = DaemonProcess::start(&launch, &dir.file("pid"));
    receiver.expect("READY=1");
    let pid = daemon.pid();
    assert_eq!(daemon.terminate(Signal::SIGTERM), WaitStatus::Exited(pid, 0));
    receiver.expect("STOPPING=1");
}
