//! What the fleet is for: sessions stored on one host are resumed on another.

use dc_tests::harness::agent::{AgentProcess, unix};
use dc_tests::harness::connection::{NOTOK, OK, TestConnection};
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::test_dir::TestDir;

#[test]
fn sessions_stored_through_one_agent_are_resumed_through_another() {
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
fn a_server_listens_at_every_address_that_it_is_given() {
    let place = TestDir::new();
    let (first, second) = (place.file("first"), place.file("second"));
    let server = ServerProcess::start(&["-listen", &unix(&first), "-listen", &unix(&second)]);
    assert_eq!(server.connect().add(b"id", b"session"), OK);
    for path in [first, second] {
        assert_eq!(TestConnection::unix(&path).get(b"id"), b"session");
    }
}

#[test]
fn a_connection_for_each_operation_is_as_good_as_one_for_all() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    for number in 0..300_u32 {
        assert_eq!(agent.connect().add(&number.to_be_bytes(), b"session"), OK);
        assert_eq!(agent.connect().get(&number.to_be_bytes()), b"session");
    }
}
