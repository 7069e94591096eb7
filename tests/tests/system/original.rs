//! A server of distcache 1.x, which closes the connection at any class but sessions.

use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::{NOTOK, OK};
use dc_tests::harness::fake::{FakeKind, FakeServer};

#[test]
fn agent_sends_only_session_requests_to_original_server() {
    let original = FakeServer::start(FakeKind::Original);
    let agent = AgentProcess::start(original.address(), &[]);
    let line = agent.process.log.with("the link is up").join("\n");
    assert!(line.contains("patch_level=0"), "{line}");
    let mut client = agent.connect();
    assert_eq!(client.add(b"id", b"session"), OK);
    assert_eq!(client.get(b"id"), b"session");
    assert_eq!(client.have(b"id"), OK);
    assert_eq!(client.remove(b"id"), OK);
    assert_eq!(client.remove(b"id"), NOTOK);

    // An agent of a current server pings a quiet link. It started later, so the first agent would have sent
    // its ping by then.
    let current = FakeServer::start(FakeKind::Current);
    let other = AgentProcess::start(current.address(), &[]);
    current.wait_for_pings(1);
    assert_eq!(other.connect().have(b"id"), NOTOK);
    assert!(original.requests().iter().all(|(class, _)| *class == 0), "{:?}", original.requests());
    assert_eq!(client.have(b"id"), NOTOK);
    assert_eq!(agent.process.log.with(" WARN "), Vec::<String>::new());
}
