//! What root gives up, and what it leaves behind although it may not remove it any more.

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

/// The user to become, where that is possible; says so where not.
fn nobody() -> Option<User> {
    let nobody = geteuid().is_root().then(|| User::from_name("nobody").unwrap()).flatten();
    if nobody.is_none() {
        skip("not root, or there is no user nobody");
    }
    nobody
}

fn launch(place: &TestDir, upstream: &str) -> ProgramLaunch {
    let (socket, pidfile) = (place.file("scache"), place.file("pid"));
    let arguments = ["-daemon", "-pidfile", pidfile.to_str().unwrap(), "-listen", &unix(&socket)];
    ProgramLaunch::new("dc_client").with(arguments).with(["-server", upstream, "-user", "nobody"])
}

#[test]
fn an_agent_of_root_runs_as_its_user_with_the_socket_as_asked() {
    let Some(nobody) = nobody() else { return };
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let server = ServerProcess::start(&[]);
    let upstream = format!("IP:{}", server.address());
    // With the names of the user, with no names, and with those of another.
    let group = nix::unistd::Group::from_gid(nobody.gid).unwrap().unwrap().name;
    let cases: [(&[&str], u32, u32); 3] = [
        (&["-sockowner", "nobody", "-sockgroup", &group], uid, gid),
        (&["-sockowner", "-sockgroup"], uid, gid),
        (&["-sockowner", "root", "-sockgroup", "root"], 0, 0),
    ];
    for (options, owner, group) in cases {
        let place = TestDir::new();
        let launch = launch(&place, &upstream).with(options).with(["-sockperms", "660"]);
        let daemon = DaemonProcess::start(&launch, &place.file("pid"));
        let ids = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join("\t");
        assert_eq!(status(daemon.pid(), "Uid"), ids(uid));
        assert_eq!(status(daemon.pid(), "Gid"), ids(gid));
        assert_eq!(status(daemon.pid(), "CapEff"), "0000000000000000");
        let socket = fs::metadata(place.file("scache")).unwrap();
        assert!(socket.file_type().is_socket());
        assert_eq!(
            (socket.uid(), socket.gid(), socket.mode() & 0o7777),
            (owner, group, 0o660),
            "{options:?}"
        );
        assert_eq!(TestConnection::unix(&place.file("scache")).have(b"id"), NOTOK);
        let pid = daemon.pid();
        assert_eq!(daemon.terminate(Signal::SIGTERM), WaitStatus::Exited(pid, 0));
        assert_eq!(place.names(), Vec::<String>::new(), "{options:?}");
    }
}

/// The numbers of a process's descriptors that lead where its standard error does and do not block.
fn own_ways_to_stderr(process: &TestProcess) -> Vec<String> {
    let of = |what: &str| format!("/proc/{}/{what}", process.pid());
    let stderr = fs::read_link(of("fd/2")).unwrap();
    let entries = fs::read_dir(of("fd")).unwrap().map(|entry| entry.unwrap());
    let alike = entries.filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == stderr));
    let names = alike.map(|entry| entry.file_name().into_string().unwrap());
    let does_not_block = |name: &String| {
        let info = fs::read_to_string(of(&format!("fdinfo/{name}"))).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        i32::from_str_radix(flags.trim(), 8).unwrap() & OFlag::O_NONBLOCK.bits() != 0
    };
    names.filter(does_not_block).collect()
}

#[test]
fn the_log_does_not_block_where_the_user_may_not_open_standard_error() {
    if nobody().is_none() {
        return;
    }
    // The pipe of the test is root's.
    let server = ServerProcess::start(&["-user", "nobody"]);
    assert_eq!(own_ways_to_stderr(&server.process).len(), 1);
    let agent = AgentProcess::start(server.address(), &["-user", "nobody"]);
    assert_eq!(own_ways_to_stderr(&agent.process).len(), 1);
}

#[test]
fn a_user_that_root_became_can_be_replaced_by_the_next() {
    if nobody().is_none() {
        return;
    }
    let server = ServerProcess::start(&[]);
    let place = TestDir::new();
    let launch = launch(&place, &format!("IP:{}", server.address()));
    for _ in 0..3 {
        let daemon = DaemonProcess::start(&launch, &place.file("pid"));
        assert_eq!(TestConnection::unix(&place.file("scache")).have(b"id"), NOTOK);
        let pid = daemon.pid();
        assert_eq!(daemon.terminate(Signal::SIGKILL), WaitStatus::Signaled(pid, Signal::SIGKILL, false));
    }
    let last = DaemonProcess::start(&launch, &place.file("pid"));
    last.terminate(Signal::SIGTERM);
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn the_supervisor_of_root_is_told_by_who_became_a_user() {
    let Some(_) = nobody() else { return };
    let (place, supervisor) = (TestDir::new(), NotifyReceiver::start());
    // The user alone could not connect to it.
    fs::set_permissions(supervisor.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let server = format!("IP:{}", ServerProcess::start(&[]).address());
    let launch = launch(&place, &server).with_variable("NOTIFY_SOCKET", supervisor.path());
    let daemon = DaemonProcess::start(&launch, &place.file("pid"));
    supervisor.expect("READY=1");
    let pid = daemon.pid();
    assert_eq!(daemon.terminate(Signal::SIGTERM), WaitStatus::Exited(pid, 0));
    supervisor.expect("STOPPING=1");
}
