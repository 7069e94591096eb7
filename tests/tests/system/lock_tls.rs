//! TLS and authentication between agents and their server: valid credentials work, invalid ones are logged by
//! name, and no secret is logged.

use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::{DISCONNECTED, OK};
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::test_dir::TestDir;
use rcgen::{CertificateParams, KeyPair};
use std::fs;
use std::path::Path;

const SECRET: &str = "a token that is secret";

/// Writes a certificate for this name or address, and its key.
fn write_certificate(dir: &TestDir, name: &str, address: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([address.to_owned()]).unwrap().self_signed(&key).unwrap();
    let (cert, private) = (dir.file(&format!("{name}.pem")), dir.file(&format!("{name}.key")));
    fs::write(&cert, certificate.pem()).unwrap();
    fs::write(&private, key.serialize_pem()).unwrap();
    (text(&cert), text(&private))
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Writes a file with this token.
fn write_token(dir: &TestDir, name: &str, token: &str) -> String {
    let path = dir.file(name);
    fs::write(&path, format!("{token}\n")).unwrap();
    text(&path)
}

#[test]
fn agent_serves_only_with_valid_certificate_and_token() {
    let dir = TestDir::new();
    let (cert, key) = write_certificate(&dir, "server", "fleet.example");
    let (other, other_key) = write_certificate(&dir, "other", "fleet.example");
    let (client_cert, client_key) = write_certificate(&dir, "client", "agent.example");
    let right = write_token(&dir, "right", SECRET);
    let wrong = write_token(&dir, "wrong", "a token that is invented");
    let server = ServerProcess::start(&[
        "-tls-cert",
        &cert,
        "-tls-key",
        &key,
        "-tls-client-ca",
        &client_cert,
        "-auth-token-file",
        &right,
    ]);
    let options = |ca: &str, name: &str, token: &str| {
        let tls = ["-tls", "-tls-ca", ca, "-tls-name", name, "-retry", "20", "-auth-token-file", token];
        tls.map(str::to_owned).to_vec()
    };
    let identity = |cert: &str, key: &str| ["-tls-cert", cert, "-tls-key", key].map(str::to_owned).to_vec();
    let client_identity = || identity(&client_cert, &client_key);
    let start = |options: Vec<String>, identity: Vec<String>| {
        let options: Vec<_> = options.iter().chain(&identity).map(String::as_str).collect();
        AgentProcess::start(server.address(), &options)
    };

    let agent = start(options(&cert, "fleet.example", &right), client_identity());
    let mut client = agent.connect();
    assert_eq!(client.add(b"id", b"session"), OK);
    assert_eq!(client.get(b"id"), b"session");
    let mut locker = agent.connect();
    assert!(locker.request("l\nk\n0\n").starts_with("ok "));

    let refused = [
        (options(&other, "fleet.example", &right), client_identity(), "not signed by a trusted CA"),
        (options(&cert, "another.example", &right), client_identity(), "another.example"),
        (options(&cert, "fleet.example", &right), Vec::new(), "requires a client certificate"),
        (
            options(&cert, "fleet.example", &right),
            identity(&other, &other_key),
            "does not trust our certificate",
        ),
        (options(&cert, "fleet.example", &wrong), client_identity(), "the auth token is wrong"),
    ];
    for (options, identity, warning) in refused {
        let agent = start(options, identity);
        let warnings = agent.process.log.with(" WARN ");
        assert!(warnings.iter().any(|line| line.contains(warning)), "{warning}: {warnings:?}");
        assert_eq!(agent.connect().get(b"id"), DISCONNECTED);
        assert_eq!(agent.connect().request("l\nj\n0\n"), "error_disconnected");
        assert!(!agent.process.log.lines().concat().contains("token that"));
    }
    server.process.log.expect("a wrong auth token");
    assert!(!server.process.log.lines().concat().contains("token that"), "a secret in the log");
}

#[test]
fn server_with_token_refuses_unauthenticated_peers() {
    let dir = TestDir::new();
    let token = write_token(&dir, "token", SECRET);
    let server = ServerProcess::start(&["-auth-token-file", &token]);
    let agent = AgentProcess::start(server.address(), &["-retry", "20"]);
    assert_eq!(agent.connect().have(b"id"), DISCONNECTED);
    server.process.log.expect("not authenticated");
    let mut direct = server.connect();
    assert_eq!(direct.request("l\nk\n0\n"), "error_auth");
    assert_eq!(direct.read_to_end(), b"");
    let mut direct = server.connect();
    assert_eq!(direct.request(&format!("auth\n_\n{SECRET}\n")), "ok");
    assert!(direct.request("l\nk\n0\n").starts_with("ok "));
}

#[test]
fn plain_and_tls_mismatch_is_refused_and_logged() {
    let dir = TestDir::new();
    let (cert, key) = write_certificate(&dir, "server", "fleet.example");
    let server = ServerProcess::start(&["-tls-cert", &cert, "-tls-key", &key]);
    let mut plain = server.connect();
    plain.write(b"l\nk\n0\n");
    assert_eq!(plain.read_to_end(), b"");
    server.process.log.expect("plain-text connection on a TLS listener");
    let without = ServerProcess::start(&[]);
    let mut tls = without.connect();
    tls.write(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]);
    assert_eq!(tls.read_to_end(), b"");
    without.process.log.expect("a TLS handshake on a port without TLS");
}
