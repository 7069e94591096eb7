//! The purpose of the fleet: sessions stored on one host are resumed on another.

use dc_tests::harness::agent::{AgentProcess, unix};
use dc_tests::harness::connection::{NOTOK, OK, TestConnection};
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::test_dir::TestDir;

#[test]
fn session_stored_through_one_agent_is_found_through_another() {
    let server = ServerProcess::start(&[]);
    let (first, second) =
        (AgentProcess::start(server.address(), &[]), AgentProcess::start(server.address(), &[]));
    let (mut here, mut there) = (first.connect(), second.connect());
    let session = |number: u32| -> Vec<u8> { number.to_be_bytes().repeat(1 + number as usize * 40) };
    for number in 0..200_u32 {
        assert_eq!(here.add(&number.to_be_bytes(), &session(number)), OK);
    }
    for number in 0..200_u32 {
        assert_eq!(there.get(&number.to_be_bytes()), session(number));
    }
    assert_eq!(there.remove(&7_u32.to_be_bytes()), OK);
    assert_eq!(here.have(&7_u32.to_be_bytes()), NOTOK);
    assert_eq!(here.have(&8_u32.to_be_bytes()), OK);
}

#[test]
fn server_listens_on_every_given_address() {
    let dir = TestDir::new();
    let (first, second) = (dir.file("first"), dir.file("second"));
    let server = ServerProcess::start(&["-listen", &unix(&first), "-listen", &unix(&second)]);
    assert_eq!(server.connect().add(b"id", b"session"), OK);
    for path in [first, second] {
        assert_eq!(TestConnection::unix(&path).get(b"id"), b"session");
    }
}

#[test]
fn agent_serves_one_connection_per_operation() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    for number in 0..300_u32 {
        assert_eq!(agent.connect().add(&number.to_be_bytes(), b"session"), OK);
        assert_eq!(agent.connect().get(&number.to_be_bytes()), b"session");
    }
}
