//! The client against a server scripted by the test over a Unix socket, in one thread and on a clock that
//! jumps to the next timer.

use crate::client::lock::boot_clock::BootClock;
use crate::client::lock::{AcquireOptions, Guard, LockClient, LockError, LockOptions, Loss, PeerKind};
use crate::id::{Grant, Token};
use crate::net::address::Address;
use crate::wire::frame::{Direction, LinkOperation, MessageHead, Operation};
use crate::wire::link::Welcome;
use crate::wire::lock::{LockAnswer, LockStatus};
use crate::wire::message::{Message, MessageReader, write_message};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

const GRACE_MS: u32 = 10_000;
const LEASE_MS: u64 = 33_000;
/// Pings after which the expected request counts as missing.
const PINGS_MAX: usize = 100;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn lock() -> AcquireOptions {
    AcquireOptions::default()
}

/// The listener of a scripted server.
pub(super) struct ScriptedStage {
    listener: Option<UnixListener>,
    directory: TempDir,
}

impl ScriptedStage {
    pub(super) fn new() -> Self {
        let mut stage = Self { listener: None, directory: tempfile::tempdir().unwrap() };
        stage.listen();
        stage
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn listen(&mut self) {
        std::fs::remove_file(self.path()).ok();
        self.listener = Some(UnixListener::bind(self.path()).unwrap());
    }

    pub(super) fn address(&self) -> Address {
        format!("UNIX:{}", self.path().display()).parse().unwrap()
    }

    /// A client of this kind of peer.
    fn client(&self, peer: PeerKind) -> LockClient {
        let address = self.address();
        let options = LockOptions { peer, ..LockOptions::default() };
        let (client, driver) = LockClient::with_clock(address, options, BootClock::Runtime(Instant::now()));
        tokio::spawn(driver.run());
        client
    }

    pub(super) async fn accept(&self) -> Played {
        let stream = self.listener.as_ref().unwrap().accept().await.unwrap().0;
        Played { stream, reader: MessageReader::link(Direction::Request), unread: Vec::new() }
    }

    /// A connection whose link is up, nothing claimed.
    pub(super) async fn open(&self) -> Played {
        let mut peer = self.accept().await;
        peer.greet(GRACE_MS).await;
        peer.status("OPEN", LockStatus::Ok).await;
        peer
    }

    /// A client, its connection, and a lock that it holds.
    pub(super) async fn hold(&self, as_peer: PeerKind) -> (LockClient, Played, Guard) {
        let client = self.client(as_peer);
        let taken = client.clone();
        let taking = tokio::spawn(async move { taken.acquire("k", &lock()).await });
        let mut peer = self.open().await;
        peer.grant("ACQUIRE", 1).await;
        (client, peer, taking.await.unwrap().unwrap())
    }
}

/// The server's end of a connection.
pub(super) struct Played {
    stream: UnixStream,
    reader: MessageReader,
    unread: Vec<u8>,
}

impl Played {
    /// The next request other than a ping, which is answered; `None` when the connection was closed.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let mut pings = 0;
        loop {
            let mut input = self.unread.as_slice();
            let message = self.reader.next(&mut input).unwrap().map(Message::from);
            let used = self.unread.len() - input.len();
            self.unread.drain(..used);
            match message {
                Some(ping) if ping.head.operation == Operation::Link(LinkOperation::Ping) => {
                    pings += 1;
                    assert!(pings < PINGS_MAX, "nothing but pings");
                    self.answer(ping.head, &[]).await;
                }
                Some(message) => return Some(message),
                None => {
                    if self.stream.read_buf(&mut self.unread).await.unwrap() == 0 {
                        return None;
                    }
                }
            }
        }
    }

    pub(super) async fn expect(&mut self, operation: &str) -> Message {
        let message = self.next().await.expect("a request");
        assert_eq!(message.head.operation.name(), operation);
        message
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn answer(&mut self, request: MessageHead, data: &[u8]) {
        let mut out = Vec::new();
        write_message(&mut out, request.response(), data);
        self.send(&out).await;
    }

    pub(super) async fn status(&mut self, operation: &str, status: LockStatus) {
        let head = self.expect(operation).await.head;
        self.answer(head, &[status as u8]).await;
    }

    async fn greet(&mut self, grace_ms: u32) {
        let probe = self.expect("HAVE").await.head;
        self.answer(probe, &[1]).await;
        let hello = self.expect("HELLO").await.head;
        assert!(self.unread.is_empty(), "bytes behind HELLO");
        let mut out = Vec::new();
        Welcome { status: LockStatus::Ok, grace_ms, remembered: 0 }.write(hello, &mut out);
        self.send(&out).await;
    }

    pub(super) async fn grant(&mut self, operation: &str, fence: u64) {
        let head = self.expect(operation).await.head;
        self.grant_to(head, fence).await;
    }

    async fn grant_to(&mut self, head: MessageHead, fence: u64) {
        let grant = Grant { token: Token::new(fence, 7), lease_ms: LEASE_MS };
        let mut out = Vec::new();
        LockAnswer::Grant { status: LockStatus::Ok, grant }.write(head, &mut out);
        self.send(&out).await;
    }

    pub(super) async fn renew(&mut self) {
        let head = self.expect("RENEW").await.head;
        let mut out = Vec::new();
        LockAnswer::Renewed { lease_ms: LEASE_MS }.write(head, &mut out);
        self.send(&out).await;
    }
}

#[tokio::test(start_paused = true)]
async fn held_lock_is_renewed_until_released() {
    let stage = ScriptedStage::new();
    let (_client, mut peer, guard) = stage.hold(PeerKind::Server).await;
    assert_eq!((guard.key(), guard.fence(), guard.lease()), ("k", 1, ms(LEASE_MS)));
    assert!(guard.is_valid_for(ms(10_000)) && !guard.is_valid_for(ms(10_001)));
    let start = Instant::now();
    for _ in 0..3 {
        peer.renew().await;
    }
    assert!(start.elapsed() >= ms(3 * 3_333), "a third of the grace each");
    let renewing = tokio::spawn(async move {
        guard.renew().await.unwrap();
        assert!(guard.is_valid_for(ms(9_900)));
        guard
    });
    peer.renew().await;
    let releasing = tokio::spawn(renewing.await.unwrap().release());
    peer.status("RELEASE", LockStatus::Ok).await;
    releasing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropped_guard_releases_and_dropped_client_sends_bye() {
    let stage = ScriptedStage::new();
    let (client, mut peer, guard) = stage.hold(PeerKind::Server).await;
    drop(guard);
    peer.status("RELEASE", LockStatus::Ok).await;
    drop(client);
    peer.status("BYE", LockStatus::Ok).await;
    assert!(peer.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn guard_keeps_its_client() {
    let stage = ScriptedStage::new();
    let (client, mut peer, guard) = stage.hold(PeerKind::Server).await;
    drop(client);
    peer.renew().await;
    drop(guard);
    peer.expect("RELEASE").await;
    peer.expect("BYE").await;
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_the_answer_to_bye() {
    let stage = ScriptedStage::new();
    let (client, mut peer, guard) = stage.hold(PeerKind::Server).await;
    let closing = tokio::spawn(client.close());
    peer.status("BYE", LockStatus::Ok).await;
    closing.await.unwrap();
    assert_eq!(guard.lost().await, Loss::Closed);
    assert!(matches!(guard.renew().await, Err(LockError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn unrenewed_guard_is_lost_before_grace_ends() {
    let stage = ScriptedStage::new();
    let (_client, mut peer, guard) = stage.hold(PeerKind::Server).await;
    let start = Instant::now();
    let loss = tokio::select! {
        loss = guard.lost() => loss,
        // No request is answered.
        () = async { while peer.stream.read_buf(&mut peer.unread).await.unwrap() > 0 {} } => panic!("closed"),
    };
    assert_eq!(loss, Loss::Unrenewed);
    assert!(start.elapsed() < ms(u64::from(GRACE_MS)), "after {:?}", start.elapsed());
    assert!(guard.remaining() > ms(2_000) && !guard.is_valid_for(Duration::ZERO));
    assert_eq!(guard.loss(), Some(Loss::Unrenewed));
}

#[tokio::test(start_paused = true)]
async fn refused_renewal_loses_guard_at_once() {
    let stage = ScriptedStage::new();
    let (_client, mut peer, guard) = stage.hold(PeerKind::Server).await;
    let start = Instant::now();
    peer.status("RENEW", LockStatus::Error).await;
    assert_eq!(guard.lost().await, Loss::Refused);
    assert!(start.elapsed() < ms(4_000));
    assert_eq!(guard.remaining(), Duration::ZERO);
    assert!(matches!(guard.release().await, Err(LockError::NotHeld)));
}

/// Cuts the link while a lock is held; the claim is answered with this status.
async fn cut(answer: LockStatus) -> (LockClient, Played, Guard) {
    let stage = ScriptedStage::new();
    let (client, peer, guard) = stage.hold(PeerKind::Server).await;
    drop(peer);
    let mut peer = stage.accept().await;
    assert!(!guard.is_valid_for(Duration::ZERO), "not while the connection is broken");
    assert_eq!(guard.loss(), None);
    peer.greet(GRACE_MS).await;
    peer.status("CLAIM", answer).await;
    peer.status("OPEN", LockStatus::Ok).await;
    (client, peer, guard)
}

#[tokio::test(start_paused = true)]
async fn guard_outlives_its_connection_to_a_server() {
    let (_client, mut peer, guard) = cut(LockStatus::Ok).await;
    peer.renew().await;
    let renewing = tokio::spawn(async move { guard.renew().await.map(|()| guard) });
    peer.renew().await;
    assert!(renewing.await.unwrap().unwrap().is_valid_for(ms(1)));
}

#[tokio::test(start_paused = true)]
async fn guard_with_refused_claim_is_lost() {
    let (_client, mut peer, guard) = cut(LockStatus::Error).await;
    assert_eq!(guard.lost().await, Loss::Refused);
    let _answering = tokio::spawn(async move { peer.next().await });
    assert!(matches!(guard.renew().await, Err(LockError::NotHeld)));
}

#[tokio::test(start_paused = true)]
async fn guard_over_agent_is_lost_with_its_connection() {
    let stage = ScriptedStage::new();
    let (_client, peer, guard) = stage.hold(PeerKind::ByAddress).await;
    drop(peer);
    assert_eq!(guard.lost().await, Loss::Disconnected);
}

#[tokio::test(start_paused = true)]
async fn dropped_future_cancels_its_request() {
    let stage = ScriptedStage::new();
    let client = stage.client(PeerKind::Server);
    let asking = client.clone();
    let asking = tokio::spawn(async move { asking.acquire("k", &lock()).await });
    let mut peer = stage.open().await;
    let asked = peer.expect("ACQUIRE").await.head;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    peer.status("CANCEL", LockStatus::Error).await;
    peer.grant_to(asked, 1).await;
    peer.expect("RELEASE").await;
}

#[tokio::test(start_paused = true)]
async fn grant_to_dropped_future_is_released() {
    let stage = ScriptedStage::new();
    let client = stage.client(PeerKind::Server);
    let options = lock();
    let mut asking = Box::pin(client.acquire("k", &options));
    let mut peer = tokio::select! {
        peer = stage.open() => peer,
        _ = &mut asking => panic!("answered"),
    };
    // The grant is delivered to a future that is not polled again.
    peer.grant("ACQUIRE", 1).await;
    let ready = tokio::spawn({
        let client = client.clone();
        async move { client.ready().await }
    });
    ready.await.unwrap().unwrap();
    peer.renew().await;
    drop(asking);
    peer.expect("RELEASE").await;
}

#[tokio::test(start_paused = true)]
async fn retrying_call_waits_through_an_outage() {
    let mut stage = ScriptedStage::new();
    let client = stage.client(PeerKind::Server);
    let asking = client.clone();
    let asking = tokio::spawn(async move { asking.acquire("k", &lock()).await });
    let mut peer = stage.open().await;
    peer.expect("ACQUIRE").await;
    stage.listener = None;
    drop(peer);
    assert!(matches!(client.stats().await, Err(LockError::Disconnected(_))));
    assert!(matches!(client.stats().await, Err(LockError::Connect { .. })));
    stage.listen();
    let mut peer = stage.open().await;
    peer.grant("ACQUIRE", 9).await;
    assert_eq!(asking.await.unwrap().unwrap().fence(), 9);
}

#[tokio::test(start_paused = true)]
async fn calls_without_retry_fail_without_server() {
    let mut stage = ScriptedStage::new();
    stage.listener = None;
    let client = stage.client(PeerKind::Server);
    assert!(matches!(client.ready().await, Err(LockError::Connect { .. })));
    assert!(matches!(client.try_acquire("k", &lock()).await, Err(LockError::Connect { .. })));
    let options = AcquireOptions { retry: false, ..lock() };
    assert!(matches!(client.acquire("k", &options).await, Err(LockError::Connect { .. })));
    assert!(
        client.acquire_within("k", ms(300), &lock()).await.unwrap().is_none(),
        "the wait timeout has passed"
    );
}

#[tokio::test(start_paused = true)]
async fn wait_timeouts_and_queue_positions() {
    let stage = ScriptedStage::new();
    let client = stage.client(PeerKind::Server);
    let asking = tokio::spawn(async move {
        assert!(client.try_acquire("k", &lock()).await.unwrap().is_none());
        assert!(client.acquire_within("k", ms(5), &lock()).await.unwrap().is_none());
        let place = client.enqueue("k", &AcquireOptions::semaphore(3)).await.unwrap();
        assert!(!place.is_held());
        let guard = place.wait().await.unwrap();
        let place = client.enqueue("k", &lock()).await.unwrap();
        assert!(place.wait_within(ms(5)).await.unwrap().is_none());
        drop(client.enqueue("k", &lock()).await.unwrap());
        guard
    });
    let mut peer = stage.open().await;
    peer.status("ACQUIRE", LockStatus::Timeout).await;
    peer.status("ACQUIRE", LockStatus::Timeout).await;
    peer.status("ENQUEUE", LockStatus::Queued).await;
    peer.grant("WAIT", 2).await;
    peer.status("ENQUEUE", LockStatus::Queued).await;
    peer.status("WAIT", LockStatus::Timeout).await;
    peer.status("ENQUEUE", LockStatus::Queued).await;
    peer.status("WAIT", LockStatus::Timeout).await;
    assert_eq!(asking.await.unwrap().fence(), 2);
}

#[tokio::test(start_paused = true)]
async fn invalid_arguments_are_refused_locally() {
    let stage = ScriptedStage::new();
    let client = stage.client(PeerKind::Server);
    for (key, options, text) in [
        ("a b", lock(), "InvalidKey"),
        ("", lock(), "InvalidKey"),
        ("k", AcquireOptions::semaphore(0), "InvalidLimit"),
        ("k", AcquireOptions { lease: Some(Duration::ZERO), ..lock() }, "InvalidLease"),
        ("k", AcquireOptions { lease: Some(Duration::MAX), ..lock() }, "InvalidLease"),
    ] {
        assert_eq!(format!("{:?}", client.acquire(key, &options).await.unwrap_err()), text);
    }
}

#[test]
fn end_of_runtime_ends_the_client() {
    let stage_runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (client, guard) = stage_runtime.block_on(async {
        let stage = ScriptedStage::new();
        let (client, _peer, guard) = stage.hold(PeerKind::Server).await;
        (client, guard)
    });
    assert!(guard.is_valid_for(ms(1)));
    drop(stage_runtime);
    assert!(!guard.is_valid_for(ms(1)));
    assert_eq!(guard.loss(), Some(Loss::Closed));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(matches!(runtime.block_on(client.stats()), Err(LockError::Closed)));
    runtime.block_on(client.close());
}
