//! Handshakes over loopback: valid ones, and common misconfigurations.

use super::authority::{Authority, Validity, replace};
use super::client::{CertificateFiles, ClientTls, ClientTlsOptions};
use super::error::{CertificateError, TlsError, TlsPeer};
use super::server::{ServerTls, handshake};
use crate::net::address::Address;
use crate::net::socket::Socket;
use crate::wire::detect::Protocol;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

const FOR_EVER: Duration = Duration::ZERO;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

fn server(identity: &CertificateFiles, client_ca: Option<PathBuf>) -> ServerTls {
    ServerTls::load(identity.cert.clone(), identity.key.clone(), client_ca).unwrap()
}

fn client(ca: &Authority, identity: Option<CertificateFiles>) -> ClientTls {
    ClientTls::load(ClientTlsOptions { ca: Some(ca.ca()), name: None, identity }).unwrap()
}

/// Performs the handshake on both sides.
async fn shake_hands(
    server: &ServerTls,
    client: &ClientTls,
    address: &str,
) -> (Result<Socket, TlsError>, Result<Socket, TlsError>) {
    let (near, far) = pair().await;
    let address: Address = address.parse().unwrap();
    tokio::join!(
        handshake(server, Socket::Tcp(far), FOR_EVER),
        client.connect(Socket::Tcp(near), &address, FOR_EVER)
    )
}

/// The server's error for a client that sends `bytes` and closes.
async fn server_error_for(bytes: &[u8]) -> TlsError {
    let ca = Authority::new();
    let tls = server(&ca.issue("localhost"), None);
    let (mut near, far) = pair().await;
    near.write_all(bytes).await.unwrap();
    near.shutdown().await.unwrap();
    handshake(&tls, Socket::Tcp(far), FOR_EVER).await.unwrap_err()
}

/// The client's error for a server that answers with `bytes` and closes.
async fn client_error_for(bytes: &[u8]) -> TlsError {
    let ca = Authority::new();
    let (near, mut far) = pair().await;
    far.write_all(bytes).await.unwrap();
    far.shutdown().await.unwrap();
    let address: Address = "IP:localhost:1".parse().unwrap();
    client(&ca, None).connect(Socket::Tcp(near), &address, FOR_EVER).await.unwrap_err()
}

async fn exchange(one: &mut Socket, other: &mut Socket) {
    for (from, to) in [(0_u8, 1_u8), (1, 0)] {
        let (from, to) = if from < to { (&mut *one, &mut *other) } else { (&mut *other, &mut *one) };
        from.write_all(b"a message").await.unwrap();
        let mut read = [0; 9];
        to.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"a message");
    }
}

#[tokio::test]
async fn tls_carries_data_in_both_directions() {
    let ca = Authority::new();
    let (far, near) =
        shake_hands(&server(&ca.issue("localhost"), None), &client(&ca, None), "IP:localhost:1").await;
    let (mut far, mut near) = (far.unwrap(), near.unwrap());
    exchange(&mut far, &mut near).await;
    assert!(far.peer().starts_with("127.0.0.1:"));
    assert_eq!(far.try_write(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(near);
    assert_eq!(far.read(&mut [0; 9]).await.unwrap(), 0, "close_notify was sent");
    assert!(far.detach().is_err());
}

#[tokio::test]
async fn ip_address_matches_certificate() {
    let ca = Authority::new();
    let tls = server(&ca.issue("127.0.0.1"), None);
    for address in ["IP:127.0.0.1:1", "IP:1"] {
        shake_hands(&tls, &client(&ca, None), address).await.1.unwrap();
    }
    let tls = server(&ca.issue("::1"), None);
    shake_hands(&tls, &client(&ca, None), "IP:[::1]:1").await.1.unwrap();
}

#[tokio::test]
async fn tls_name_overrides_host() {
    let ca = Authority::new();
    let tls = server(&ca.issue("cache.example"), None);
    for name in ["cache.example", "cache.example."] {
        let name = Some(name.parse().unwrap());
        let options = ClientTlsOptions { ca: Some(ca.ca()), name, identity: None };
        shake_hands(&tls, &ClientTls::load(options).unwrap(), "IP:10.0.0.1:1").await.1.unwrap();
    }
    assert!("no name".parse::<super::client::TlsName>().is_err());
    assert!("[::1]".parse::<super::client::TlsName>().is_ok());
}

#[tokio::test]
async fn wrong_name_error_lists_certificate_names() {
    let ca = Authority::new();
    let (far, near) =
        shake_hands(&server(&ca.issue("a.example"), None), &client(&ca, None), "IP:b.example:1").await;
    let text = near.unwrap_err().to_string();
    let expected = "the certificate of the server is not for the name b.example but for ";
    let names = text.strip_prefix(expected).unwrap_or_else(|| panic!("{text}"));
    assert!(names.split(", ").any(|name| name == "a.example"), "{text}");
    let text = far.unwrap_err().to_string();
    assert!(text.starts_with("the client does not trust our certificate"), "{text}");
}

#[tokio::test]
async fn unknown_ca_is_reported() {
    let ca = Authority::new();
    let tls = server(&ca.issue("localhost"), None);
    for other in [Authority::named("another"), Authority::new()] {
        let (far, near) = shake_hands(&tls, &client(&other, None), "IP:localhost:1").await;
        let near = near.unwrap_err();
        assert!(
            matches!(near, TlsError::Certificate(TlsPeer::Server, CertificateError::UnknownCa)),
            "{near:?}"
        );
        assert!(matches!(far, Err(TlsError::Distrusted(TlsPeer::Client, _))), "{far:?}");
    }
}

#[tokio::test]
async fn invalid_period_error_states_duration() {
    let ca = Authority::new();
    for (validity, says) in [
        (Validity::Past, "the certificate of the server has expired ("),
        (Validity::Future, "the certificate of the server is not valid yet ("),
    ] {
        let tls = server(&ca.issue_for("localhost", validity), None);
        let text = shake_hands(&tls, &client(&ca, None), "IP:localhost:1").await.1.unwrap_err().to_string();
        assert!(text.starts_with(says) && text.contains(" days "), "{text}");
    }
}

#[tokio::test]
async fn ca_certificate_is_rejected_as_server_certificate() {
    let ca = Authority::new();
    let near = shake_hands(&server(&ca.itself(), None), &client(&ca, None), "IP:localhost:1").await.1;
    assert!(matches!(near, Err(TlsError::Certificate(TlsPeer::Server, CertificateError::IsCa))), "{near:?}");
}

#[tokio::test]
async fn client_certificate_is_required_and_verified() {
    let (ca, other) = (Authority::new(), Authority::new());
    let tls = server(&ca.issue("localhost"), Some(ca.ca()));
    let with = |identity| client(&ca, identity);
    let (far, near) = shake_hands(&tls, &with(Some(ca.issue("a client"))), "IP:localhost:1").await;
    exchange(&mut far.unwrap(), &mut near.unwrap()).await;

    let (far, near) = shake_hands(&tls, &with(None), "IP:localhost:1").await;
    assert!(matches!(far, Err(TlsError::ClientCertificateMissing)), "{far:?}");
    let text = near.unwrap().read(&mut [0]).await.unwrap_err().to_string();
    assert_eq!(text, TlsError::ClientCertificateRequired.to_string());

    let (far, near) = shake_hands(&tls, &with(Some(other.issue("a client"))), "IP:localhost:1").await;
    let unknown = TlsError::Certificate(TlsPeer::Client, CertificateError::UnknownCa).to_string();
    assert_eq!(far.unwrap_err().to_string(), unknown);
    let text = near.unwrap().read(&mut [0]).await.unwrap_err().to_string();
    assert!(text.starts_with("the server does not trust our certificate"), "{text}");

    let far =
        shake_hands(&tls, &with(Some(ca.issue_for("a client", Validity::Past))), "IP:localhost:1").await.0;
    let text = far.unwrap_err().to_string();
    assert!(text.starts_with("the certificate of the client has expired ("), "{text}");
}

#[tokio::test]
async fn plain_connection_is_detected_by_first_byte() {
    for (bytes, opening, says) in [
        (&b"l\nkey\n0\n"[..], Protocol::Text, "it began with a line-protocol request"),
        (&[0, 0x11, 0, 1], Protocol::Frames, "it began with distcache frames"),
        (b"GET / HTTP/1.1\r\n\r\n", Protocol::Unknown(b'G'), "it began with byte 0x47"),
    ] {
        let error = server_error_for(bytes).await;
        assert!(matches!(error, TlsError::Plain(found) if found == opening), "{error:?}");
        assert!(error.to_string().starts_with("plain-text connection on a TLS listener: "), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(matches!(server_error_for(b"").await, TlsError::Closed(TlsPeer::Client)));
    assert!(matches!(server_error_for(&[0x16]).await, TlsError::Closed(TlsPeer::Client)));
    assert!(matches!(server_error_for(b"\x16 and then no TLS").await, TlsError::NotTls(TlsPeer::Client)));
}

#[tokio::test]
async fn tls_1_1_client_is_reported() {
    // One without extensions, and one with that for signature algorithms.
    let extensions: [&[u8]; 2] = [&[], &[0, 8, 0, 13, 0, 4, 0, 2, 4, 3]];
    for extensions in extensions {
        let length = 43 + extensions.len() as u8;
        let mut hello = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length, 3, 2];
        hello.extend([7; 32]);
        hello.extend([0, 0, 4, 0, 0x2f, 0, 0x35, 1, 0]);
        hello.extend(extensions);
        let error = server_error_for(&hello).await;
        assert!(matches!(error, TlsError::OldVersion(TlsPeer::Client)), "{error:?}");
    }
}

#[tokio::test]
async fn server_without_tls_is_reported() {
    assert!(matches!(client_error_for(b"error\n").await, TlsError::NotTls(TlsPeer::Server)));
    assert!(matches!(client_error_for(&[0, 0x11, 0, 1, 1]).await, TlsError::NotTls(TlsPeer::Server)));
    assert!(matches!(client_error_for(b"").await, TlsError::Closed(TlsPeer::Server)));
    // The alert protocol_version of a peer that supports TLS 1.1 only.
    assert!(matches!(
        client_error_for(&[0x15, 3, 2, 0, 2, 2, 70]).await,
        TlsError::OldVersion(TlsPeer::Server)
    ));
}

#[tokio::test(start_paused = true)]
async fn handshake_times_out() {
    let ca = Authority::new();
    let tls = server(&ca.issue("localhost"), None);
    let within = Duration::from_secs(23);
    let (near, far) = pair().await;
    let error = handshake(&tls, Socket::Tcp(far), within).await.unwrap_err();
    assert_eq!(error.to_string(), "TLS handshake not completed within 23000 ms");
    drop(near);
    let (near, far) = pair().await;
    let address: Address = "IP:localhost:1".parse().unwrap();
    let error = client(&ca, None).connect(Socket::Tcp(near), &address, within).await.unwrap_err();
    assert!(matches!(error, TlsError::Timeout(time) if time == within), "{error:?}");
    drop(far);
}

#[tokio::test]
async fn unix_socket_stays_plain() {
    let ca = Authority::new();
    let (near, far) = UnixStream::pair().unwrap();
    let far = handshake(&server(&ca.issue("localhost"), None), Socket::Unix(far), FOR_EVER).await.unwrap();
    assert!(matches!(far, Socket::Unix(_)));
    let address: Address = "UNIX:/tmp/x".parse().unwrap();
    let error = client(&ca, None).connect(Socket::Unix(near), &address, FOR_EVER).await.unwrap_err();
    assert!(matches!(error, TlsError::NotTcp));
}

#[tokio::test(start_paused = true)]
async fn server_reloads_renewed_certificate() {
    let (old, new) = (Authority::named("old"), Authority::named("new"));
    let identity = old.issue("localhost");
    let tls = server(&identity, None);
    let (of_old, of_new) = (client(&old, None), client(&new, None));
    shake_hands(&tls, &of_old, "IP:localhost:1").await.1.unwrap();
    replace(&identity, &new.issue("localhost"));
    shake_hands(&tls, &of_old, "IP:localhost:1").await.1.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    shake_hands(&tls, &of_new, "IP:localhost:1").await.1.unwrap();
    fs::write(&identity.key, "broken").unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    shake_hands(&tls, &of_new, "IP:localhost:1").await.1.unwrap();
}

#[tokio::test]
async fn client_reloads_renewed_ca_and_certificate() {
    let (old, new) = (Authority::new(), Authority::new());
    let identity = old.issue("a client");
    let ca = old.write("bundle", fs::read(old.ca()).unwrap());
    let options = ClientTlsOptions { ca: Some(ca.clone()), name: None, identity: Some(identity.clone()) };
    let client = ClientTls::load(options).unwrap();
    let tls = server(&new.issue("localhost"), Some(new.ca()));
    assert!(shake_hands(&tls, &client, "IP:localhost:1").await.1.is_err());
    fs::copy(new.ca(), &ca).unwrap();
    assert!(
        shake_hands(&tls, &client, "IP:localhost:1").await.0.is_err(),
        "the server still has the old certificate"
    );
    replace(&identity, &new.issue("a client"));
    let (far, near) = shake_hands(&tls, &client, "IP:localhost:1").await;
    exchange(&mut far.unwrap(), &mut near.unwrap()).await;
}

/// As our drivers do, writes all data and then only reads: records kept by rustls must still be sent.
#[tokio::test]
async fn buffered_records_are_sent_while_reading() {
    const MESSAGE: usize = 1 << 20;
    let ca = Authority::new();
    let (far, near) =
        shake_hands(&server(&ca.issue("localhost"), None), &client(&ca, None), "IP:localhost:1").await;
    let (mut far, mut near) = (far.unwrap(), near.unwrap());
    // Fill the socket, and then the buffer of rustls as well.
    let mut written = 0;
    poll_fn(|cx| {
        while let Poll::Ready(count) = Pin::new(&mut far).poll_write(cx, &[7; MESSAGE]) {
            written += count.unwrap();
        }
        Poll::Ready(())
    })
    .await;
    let reader = async {
        let mut buffer = vec![0; 1 << 16];
        let mut read = 0;
        while read < written {
            read += near.read(&mut buffer).await.unwrap();
        }
        near.write_all(b"!").await.unwrap();
    };
    let mut answer = [0; 1];
    let (_, answered) = tokio::join!(reader, far.read_exact(&mut answer));
    answered.unwrap();
    assert_eq!(&answer, b"!");
}

#[tokio::test]
async fn non_reading_peer_blocks_the_writer() {
    let ca = Authority::new();
    let (far, near) =
        shake_hands(&server(&ca.issue("localhost"), None), &client(&ca, None), "IP:localhost:1").await;
    let mut far = far.unwrap();
    let stopped = poll_fn(|cx| {
        for _ in 0..1000 {
            if Pin::new(&mut far).poll_write(cx, &[7; 1 << 20]).is_pending() {
                return Poll::Ready(true);
            }
        }
        Poll::Ready(false)
    });
    assert!(stopped.await, "a gigabyte was accepted without being sent");
    drop(near);
}

fn refused(cert: PathBuf, key: PathBuf) -> String {
    ServerTls::load(cert, key, None).unwrap_err().to_string()
}

#[test]
fn invalid_file_errors_name_paths() {
    let ca = Authority::new();
    let (good, other) = (ca.issue("localhost"), ca.issue("localhost"));
    let (empty, absent) = (ca.write("empty", ""), ca.file("absent"));
    let encrypted = ca.write(
        "encrypted",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let legacy = ca.write(
        "legacy",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    );
    let broken_key = ca.write("broken.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let broken_cert = ca.write("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let cut = ca.write("cut", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let large = ca.file("large");
    fs::File::create(&large).unwrap().set_len((4 << 20) + 1).unwrap();
    let directory = ca.file(".");
    let cases = [
        (&absent, &good.key, "cannot read CERT: No such file or directory (os error 2)"),
        (&good.cert, &absent, "cannot read KEY: No such file or directory (os error 2)"),
        (&directory, &good.key, "CERT is not a regular file"),
        (&large, &good.key, "CERT is too large for certificates or a key"),
        (&empty, &good.key, "no certificate in CERT (expected PEM)"),
        (&good.key, &good.key, "no certificate in CERT (expected PEM)"),
        (&cut, &good.key, "CERT is not valid PEM"),
        (&broken_cert, &good.key, "malformed certificate in CERT"),
        (&good.cert, &empty, "no private key in KEY (expected PEM)"),
        (&good.cert, &good.cert, "no private key in KEY (expected PEM)"),
        (&good.cert, &encrypted, "the private key in KEY is encrypted; passphrases are not supported"),
        (&good.cert, &legacy, "the private key in KEY is encrypted; passphrases are not supported"),
        (&good.cert, &broken_key, "the private key in KEY is malformed or of an unsupported type"),
        (&good.cert, &other.key, "the private key in KEY does not match the first certificate in CERT"),
    ];
    for (cert, key, expected) in cases {
        let path = |path: &PathBuf| path.display().to_string();
        let expected = expected.replace("CERT", &path(cert)).replace("KEY", &path(key));
        assert_eq!(refused(cert.clone(), key.clone()), expected);
    }
}

#[test]
fn invalid_ca_file_errors_name_paths() {
    let ca = Authority::new();
    let good = ca.issue("localhost");
    let empty = ca.write("empty", "");
    let expected = format!("no certificate in {} (expected PEM)", empty.display());
    let error = ServerTls::load(good.cert.clone(), good.key, Some(empty.clone())).unwrap_err();
    assert_eq!(error.to_string(), expected);
    let error =
        ClientTls::load(ClientTlsOptions { ca: Some(empty), ..ClientTlsOptions::default() }).unwrap_err();
    assert_eq!(error.to_string(), expected);
    let identity = Some(CertificateFiles { cert: good.cert, key: ca.file("absent") });
    let options = ClientTlsOptions { ca: Some(ca.ca()), name: None, identity };
    assert!(matches!(ClientTls::load(options), Err(TlsError::Read { .. })));
}

#[test]
fn expired_own_certificate_is_used() {
    let ca = Authority::new();
    for validity in [Validity::Past, Validity::Future] {
        let identity = ca.issue_for("localhost", validity);
        server(&identity, None);
    }
}
