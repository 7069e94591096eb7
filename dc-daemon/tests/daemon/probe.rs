//! A daemon without function, with the startup sequence of the real ones.
//!
//! It writes its process id, and whether it could become root, to each connection; later it writes the reason
//! of its shutdown.

use dc_daemon::account::{Account, group_id, user_id};
use dc_daemon::file_limit;
use dc_daemon::lifecycle::{DaemonLaunch, Unprivileged};
use dc_daemon::listen::{Listener, ListenerSocket, SocketPermissions};
use dc_daemon::signals::{SignalPolicy, SignalStream};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, setuid};
use std::error::Error;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{self, ExitCode};
use tokio::runtime::Builder;

/// The exit status of a probe with `die=fail`.
pub(crate) const STATUS_FAILED: u8 = 3;

pub(crate) fn main(options: &[String]) -> ExitCode {
    match run(&ProbeOptions(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::from(if error.to_string() == "asked to fail" { STATUS_FAILED } else { 1 })
        }
    }
}

struct ProbeOptions<'a>(&'a [String]);

impl<'a> ProbeOptions<'a> {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

fn run(options: &ProbeOptions<'_>) -> Result<(), Box<dyn Error>> {
    let user = options.value("user").map(Account::resolve).transpose()?;
    let permissions = SocketPermissions {
        owner: options.value("sockowner").map(user_id).transpose()?,
        group: options.value("sockgroup").map(group_id).transpose()?,
        mode: options.value("sockperms").map(str::parse).transpose()?,
    };
    file_limit::raise()?;
    let launch = DaemonLaunch {
        program: "probe",
        detach: options.has("daemon"),
        pidfile: options.value("pidfile").map(Into::into),
        user,
    };
    let starting = launch.begin()?;
    if let Some(directory) = options.value("tread") {
        std::fs::write(directory, std::env::current_dir()?.as_os_str().as_encoded_bytes())?;
    }
    let mut listeners = Vec::new();
    for address in options.0.iter().filter_map(|word| word.strip_prefix("listen=")) {
        listeners.push(Listener::bind(&address.parse()?, &permissions)?);
    }
    let files = listeners.iter_mut().filter_map(Listener::take_file).collect();
    let confined = starting.confine(files)?;
    match options.value("die") {
        Some("fail") => return Err("asked to fail".into()),
        Some("quietly") => return Ok(()),
        Some("panic") => panic!("asked to panic"),
        Some("kill") => kill(Pid::this(), Signal::SIGKILL)?,
        _ => {}
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options, confined, listeners))
}

async fn serve(
    options: &ProbeOptions<'_>,
    confined: Unprivileged,
    listeners: Vec<Listener>,
) -> Result<(), Box<dyn Error>> {
    let policy = SignalPolicy { killable: options.has("killable"), detached: options.has("daemon") };
    let mut signals = SignalStream::listen(policy)?;
    let serving = confined.serving()?;
    if !options.has("daemon") {
        println!("serving");
    }
    let sockets: Vec<UnixListener> =
        listeners.into_iter().filter_map(|listener| unix(listener.into_parts().0)).collect();
    let mut connections = Vec::new();
    loop {
        let shutdown = tokio::select! {
            shutdown = signals.shutdown() => shutdown,
            connection = accept(sockets.first()) => {
                let mut connection = connection?;
                let root = setuid(Uid::from_raw(0)).is_ok();
                writeln!(connection, "{} {root}", process::id())?;
                connections.push(connection);
                continue;
            }
        };
        for connection in &mut connections {
            // The peer may have disconnected.
            writeln!(connection, "shutdown now={}", shutdown.now).ok();
        }
        if shutdown.now || !options.has("linger") {
            break;
        }
    }
    serving.finish()?;
    Ok(())
}

fn unix(socket: ListenerSocket) -> Option<UnixListener> {
    match socket {
        ListenerSocket::Unix(socket) => Some(socket),
        ListenerSocket::Tcp(_) => None,
    }
}

async fn accept(socket: Option<&UnixListener>) -> std::io::Result<UnixStream> {
    let Some(socket) = socket else { return std::future::pending().await };
    let socket = tokio::net::UnixListener::from_std(socket.try_clone()?)?;
    let (connection, _) = socket.accept().await?;
    let connection = connection.into_std()?;
    connection.set_nonblocking(false)?;
    Ok(connection)
}
