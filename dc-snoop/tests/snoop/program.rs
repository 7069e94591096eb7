//! The program under test, with a scripted server behind it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};

/// A running `dc_snoop` that relays from one Unix socket to another.
pub(crate) struct SnoopProgram {
    child: Child,
    dir: tempfile::TempDir,
    server: UnixListener,
    stderr: BufReader<ChildStderr>,
}

impl SnoopProgram {
    /// Starts it; it is listening when this returns.
    pub(crate) fn start<S: AsRef<OsStr>>(args: &[S]) -> Self {
        let mut command = program();
        command.args(args);
        Self::start_command(command)
    }

    /// The same with a command that has some options already.
    pub(crate) fn start_command(mut command: Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = UnixListener::bind(dir.path().join("server")).unwrap();
        let address = |name: &str| format!("UNIX:{}", dir.path().join(name).display());
        command.args(["-listen", &address("listen"), "-server", &address("server")]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("dc_snoop: listening on UNIX:"), "{line}");
        Self { child, dir, server, stderr }
    }

    /// A connection through it: the client's end and the server's.
    pub(crate) fn connect(&self) -> (UnixStream, UnixStream) {
        let client = UnixStream::connect(self.dir.path().join("listen")).unwrap();
        let (server, _) = self.server.accept().unwrap();
        (client, server)
    }

    /// The path of a file of this run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.child.stdout.take().unwrap())
    }

    pub(crate) fn stderr_line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Interrupts it, as Ctrl-C does. Returns its output, and the rest of its standard error.
    pub(crate) fn interrupt(mut self) -> (String, String) {
        interrupt(&self.child);
        let (mut printed, mut said) = (String::new(), String::new());
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut printed).unwrap();
        }
        self.stderr.read_to_string(&mut said).unwrap();
        assert!(self.wait().success(), "{said}");
        (printed, said)
    }
}

impl Drop for SnoopProgram {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Interrupts a program, as Ctrl-C does.
pub(crate) fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
}

/// The program, without environment variables that would change the output.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dc_snoop"));
    command.env("TZ", "UTC");
    command
}

/// What `dc_snoop` with these arguments prints.
pub(crate) fn run<S: AsRef<OsStr>>(args: &[S]) -> Output {
    program().args(args).output().unwrap()
}

/// A TCP connection through a separate `dc_snoop`: the program, the client's end and the server's.
pub(crate) fn over_tcp(args: &[&str]) -> (Child, TcpStream, TcpStream) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("IP:{}", server.local_addr().unwrap());
    let mut command = program();
    command.args(["-listen", "IP:127.0.0.1:0", "-server", &address]).args(args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let listening = line.trim_end().strip_suffix(')').and_then(|it| it.rsplit_once('(')).unwrap().1;
    let client = TcpStream::connect(listening).unwrap();
    let (accepted, _) = server.accept().unwrap();
    (child, client, accepted)
}
