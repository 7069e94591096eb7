//! Clients across a fork: the child gets a new connection, and the parent keeps its existing one.
//!
//! Forking requires a process with a single thread. The test therefore runs itself again as that process, and
//! acts as its server. The server sends each connection its number, so that a client can identify its
//! connection.
#![allow(clippy::unwrap_used, reason = "so a test fails")]

use libdc::client::{ConnectionMode, SessionOptions, blocking};
use libdc::net::address::Address;
use libdc::wire::frame::{Direction, LinkOperation, LockOperation, Operation};
use libdc::wire::message::{Message, MessageReader, write_message};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

const TARGET: &str = "LIBDC_TEST_FORK_TARGET";
const ID: &[u8] = b"an id";

fn main() {
    if let Ok(address) = std::env::var(TARGET) {
        let address: Address = address.parse().unwrap();
        blocking_client_forks(address.clone());
        #[cfg(feature = "async")]
        asynchronous_client_forks(address.clone());
        #[cfg(feature = "async")]
        lock_client_forks(address);
        return;
    }
    let dir = std::env::temp_dir().join(format!("libdc-fork-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let socket = dir.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    // The thread ends with the process.
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            std::thread::spawn(move || serve(stream.unwrap(), number));
        }
    });
    let program = std::env::current_exe().unwrap();
    let status = Command::new(program).env(TARGET, format!("UNIX:{}", socket.display())).status().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(status.success(), "{status}");
    println!("test clients that fork ... ok");
}

fn options() -> SessionOptions {
    let connections = ConnectionMode::Persistent { notice_fork: true, retry: false };
    SessionOptions { connections, timeout: Duration::from_secs(20) }
}

fn blocking_client_forks(address: Address) {
    let mut client = Some(blocking::Client::new(address, options()));
    let mut get = || client.as_mut().unwrap().get(ID).unwrap().unwrap();
    let ours = get();
    in_child(|| {
        let childs = get();
        assert_ne!(childs, ours);
        in_child(|| assert!(get() != ours && get() != childs));
        assert_eq!(get(), childs);
    });
    assert_eq!(get(), ours);
    in_child(|| client = None);
    assert_eq!(client.unwrap().get(ID).unwrap().unwrap(), ours);
}

/// The child must not use its parent's runtime, not even to close the connection.
#[cfg(feature = "async")]
fn asynchronous_client_forks(address: Address) {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let parents = runtime();
    let mut client = Some(libdc::client::Client::new(address, options()));
    let mut get = |runtime: &tokio::runtime::Runtime| {
        runtime.block_on(client.as_mut().unwrap().get(ID)).unwrap().unwrap()
    };
    let ours = get(&parents);
    in_child(|| {
        let runtime = runtime();
        let childs = get(&runtime);
        assert_ne!(childs, ours);
        assert_eq!(get(&runtime), childs);
    });
    assert_eq!(get(&parents), ours);
    in_child(|| client = None);
    assert_eq!(parents.block_on(client.as_mut().unwrap().get(ID)).unwrap().unwrap(), ours);
}

/// The child holds no locks, and does not affect its parent: neither with requests nor by dropping inherited
/// values.
#[cfg(feature = "async")]
fn lock_client_forks(address: Address) {
    use libdc::client::lock::{AcquireOptions, LockClient, LockError, LockOptions, Loss};
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let parents = runtime();
    let client = parents.block_on(LockClient::connect(address, LockOptions::default())).unwrap();
    let how = AcquireOptions::default();
    let mut guard = Some(parents.block_on(client.acquire("k", &how)).unwrap());
    in_child(|| {
        let held = guard.take().unwrap();
        assert!(!held.is_valid_for(Duration::ZERO));
        assert_eq!(held.loss(), Some(Loss::Forked));
        let runtime = runtime();
        assert_eq!(runtime.block_on(held.lost()), Loss::Forked);
        assert!(matches!(runtime.block_on(held.renew()), Err(LockError::Forked)));
        assert!(matches!(runtime.block_on(client.try_acquire("k", &how)), Err(LockError::Forked)));
        runtime.block_on(client.clone().close());
        drop(held);
    });
    let guard = guard.unwrap();
    assert!(guard.is_valid_for(Duration::ZERO));
    parents.block_on(guard.release()).unwrap();
    parents.block_on(client.close());
}

/// Runs `test` in a forked child, and fails if the child does.
fn in_child(test: impl FnOnce()) {
    #[expect(unsafe_code, reason = "std has no fork")]
    // SAFETY: this process has a single thread.
    let forked = unsafe { fork() }.unwrap();
    match forked {
        ForkResult::Child => {
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).is_ok();
            std::process::exit(i32::from(!passed));
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
        }
    }
}

/// Answers every GET with the number of the connection, and grants every lock request.
fn serve(mut stream: UnixStream, number: usize) {
    let mut reader = MessageReader::new(Some(Direction::Request));
    let (mut input, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        input.extend_from_slice(&buffer[..n]);
        let mut rest = input.as_slice();
        while let Some(request) = reader.next(&mut rest).unwrap().map(Message::from) {
            let mut out = Vec::new();
            let data = match request.head.operation {
                Operation::Session(_) => format!("connection {number}").into_bytes(),
                // A grace period of ten seconds.
                Operation::Link(LinkOperation::Hello) => vec![0, 0, 0, 0x27, 0x10, 0, 0, 0, 0],
                // A token, and a lease of ten seconds.
                Operation::Lock(LockOperation::Acquire) => [&[0; 17][..], &10_000_u64.to_be_bytes()].concat(),
                Operation::Lock(_) | Operation::Link(_) => vec![0],
            };
            write_message(&mut out, request.head.response(), &data);
            stream.write_all(&out).unwrap();
        }
        input = rest.to_vec();
    }
}
