//! Handshakes over loopback, good ones and those that people get wrong.

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

/// What comes of the handshake on both sides.
async fn meet(
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

/// What the server says of a client that sends `bytes` and closes.
async fn told_of(bytes: &[u8]) -> TlsError {
    let ca = Authority::new();
    let tls = server(&ca.issue("localhost"), None);
    let (mut near, far) = pair().await;
    near.write_all(bytes).await.unwrap();
    near.shutdown().await.unwrap();
    handshake(&tls, Socket::Tcp(far), FOR_EVER).await.unwrap_err()
}

/// What the client says of a server that answers with `bytes` and closes.
async fn told_of_server(bytes: &[u8]) -> TlsError {
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
async fn both_sides_talk() {
    let ca = Authority::new();
    let (far, near) = meet(&server(&ca.issue("localhost"), None), &client(&ca, None), "IP:localhost:1").await;
    let (mut far, mut near) = (far.unwrap(), near.unwrap());
    exchange(&mut far, &mut near).await;
    assert!(far.peer().starts_with("127.0.0.1:"));
    assert_eq!(far.try_write(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(near);
    assert_eq!(far.read(&mut [0; 9]).await.unwrap(), 0, "the close was said");
    assert!(far.detach().is_err());
}

#[tokio::test]
async fn an_address_is_a_name_as_well() {
    let ca = Authority::new();
    let tls = server(&ca.issue("127.0.0.1"), None);
    for address in ["IP:127.0.0.1:1", "IP:1"] {
        meet(&tls, &client(&ca, None), address).await.1.unwrap();
    }
    let tls = server(&ca.issue("::1"), None);
    meet(&tls, &client(&ca, None), "IP:[::1]:1").await.1.unwrap();
}

#[tokio::test]
async fn another_name_may_be_asked_for() {
    let ca = Authority::new();
    let tls = server(&ca.issue("cache.example"), None);
    for name in ["cache.example", "cache.example."] {
        let name = Some(name.parse().unwrap());
        let options = ClientTlsOptions { ca: Some(ca.ca()), name, identity: None };
        meet(&tls, &ClientTls::load(options).unwrap(), "IP:10.0.0.1:1").await.1.unwrap();
    }
    assert!("no name".parse::<super::client::TlsName>().is_err());
    assert!("[::1]".parse::<super::client::TlsName>().is_ok());
}

#[tokio::test]
async fn a_wrong_name_is_told_with_the_right_one() {
    let ca = Authority::new();
    let (far, near) = meet(&server(&ca.issue("a.example"), None), &client(&ca, None), "IP:b.example:1").await;
    let text = near.unwrap_err().to_string();
    let expected = "the certificate of the server is not for the name b.example but for ";
    let names = text.strip_prefix(expected).unwrap_or_else(|| panic!("{text}"));
    assert!(names.split(", ").any(|name| name == "a.example"), "{text}");
    let text = far.unwrap_err().to_string();
    assert!(text.starts_with("the client does not trust the certificate of this side"), "{text}");
}

#[tokio::test]
async fn an_unknown_ca_is_told() {
    let ca = Authority::new();
    let tls = server(&ca.issue("localhost"), None);
    for other in [Authority::named("another"), Authority::new()] {
        let (far, near) = meet(&tls, &client(&other, None), "IP:localhost:1").await;
        let near = near.unwrap_err();
        assert!(
            matches!(near, TlsError::Certificate(TlsPeer::Server, CertificateError::UnknownCa)),
            "{near:?}"
        );
        assert!(matches!(far, Err(TlsError::Distrusted(TlsPeer::Client, _))), "{far:?}");
    }
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_told_with_the_time() {
    let ca = Authority::new();
    for (validity, says) in [
        (Validity::Past, "the certificate of the server has expired ("),
        (Validity::Future, "the certificate of the server is not valid yet ("),
    ] {
        let tls = server(&ca.issue_for("localhost", validity), None);
        let text = meet(&tls, &client(&ca, None), "IP:localhost:1").await.1.unwrap_err().to_string();
        assert!(text.starts_with(says) && text.contains(" days "), "{text}");
    }
}

#[tokio::test]
async fn the_certificate_of_a_ca_is_none_of_a_server() {
    let ca = Authority::new();
    let near = meet(&server(&ca.itself(), None), &client(&ca, None), "IP:localhost:1").await.1;
    assert!(matches!(near, Err(TlsError::Certificate(TlsPeer::Server, CertificateError::IsCa))), "{near:?}");
}

#[tokio::test]
async fn a_client_may_have_to_have_a_certificate() {
    let (ca, other) = (Authority::new(), Authority::new());
    let tls = server(&ca.issue("localhost"), Some(ca.ca()));
    let with = |identity| client(&ca, identity);
    let (far, near) = meet(&tls, &with(Some(ca.issue("a client"))), "IP:localhost:1").await;
    exchange(&mut far.unwrap(), &mut near.unwrap()).await;

    let (far, near) = meet(&tls, &with(None), "IP:localhost:1").await;
    assert!(matches!(far, Err(TlsError::ClientCertificateMissing)), "{far:?}");
    let text = near.unwrap().read(&mut [0]).await.unwrap_err().to_string();
    assert_eq!(text, TlsError::ClientCertificateRequired.to_string());

    let (far, near) = meet(&tls, &with(Some(other.issue("a client"))), "IP:localhost:1").await;
    let unknown = TlsError::Certificate(TlsPeer::Client, CertificateError::UnknownCa).to_string();
    assert_eq!(far.unwrap_err().to_string(), unknown);
    let text = near.unwrap().read(&mut [0]).await.unwrap_err().to_string();
    assert!(text.starts_with("the server does not trust the certificate of this side"), "{text}");

    let far = meet(&tls, &with(Some(ca.issue_for("a client", Validity::Past))), "IP:localhost:1").await.0;
    let text = far.unwrap_err().to_string();
    assert!(text.starts_with("the certificate of the client has expired ("), "{text}");
}

#[tokio::test]
async fn a_plain_connection_is_told_by_its_first_byte() {
    for (bytes, opening, says) in [
        (&b"l\nkey\n0\n"[..], Protocol::Text, "it began with the text protocol"),
        (&[0, 0x11, 0, 1], Protocol::Frames, "it began with frames of distcache"),
        (b"GET / HTTP/1.1\r\n\r\n", Protocol::Unknown(b'G'), "it began with byte 0x47"),
    ] {
        let error = told_of(bytes).await;
        assert!(matches!(error, TlsError::Plain(found) if found == opening), "{error:?}");
        assert!(error.to_string().starts_with("a plain connection on a TLS port: "), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(matches!(told_of(b"").await, TlsError::Closed(TlsPeer::Client)));
    assert!(matches!(told_of(&[0x16]).await, TlsError::Closed(TlsPeer::Client)));
    assert!(matches!(told_of(b"\x16 and then no TLS").await, TlsError::NotTls(TlsPeer::Client)));
}

#[tokio::test]
async fn a_client_of_tls_1_1_is_told() {
    // One without extensions, and one that knows that of the algorithms of signatures.
    let extensions: [&[u8]; 2] = [&[], &[0, 8, 0, 13, 0, 4, 0, 2, 4, 3]];
    for extensions in extensions {
        let length = 43 + extensions.len() as u8;
        let mut hello = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length, 3, 2];
        hello.extend([7; 32]);
        hello.extend([0, 0, 4, 0, 0x2f, 0, 0x35, 1, 0]);
        hello.extend(extensions);
        let error = told_of(&hello).await;
        assert!(matches!(error, TlsError::OldVersion(TlsPeer::Client)), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_told() {
    assert!(matches!(told_of_server(b"error\n").await, TlsError::NotTls(TlsPeer::Server)));
    assert!(matches!(told_of_server(&[0, 0x11, 0, 1, 1]).await, TlsError::NotTls(TlsPeer::Server)));
    assert!(matches!(told_of_server(b"").await, TlsError::Closed(TlsPeer::Server)));
    // The alert protocol_version of one that speaks TLS 1.1.
    assert!(matches!(
        told_of_server(&[0x15, 3, 2, 0, 2, 2, 70]).await,
        TlsError::OldVersion(TlsPeer::Server)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_a_time() {
    let ca = Authority::new();
    let tls = server(&ca.issue("localhost"), None);
    let within = Duration::from_secs(23);
    let (near, far) = pair().await;
    let error = handshake(&tls, Socket::Tcp(far), within).await.unwrap_err();
    assert_eq!(error.to_string(), "the handshake of TLS was not complete after 23000 ms");
    drop(near);
    let (near, far) = pair().await;
    let address: Address = "IP:localhost:1".parse().unwrap();
    let error = client(&ca, None).connect(Socket::Tcp(near), &address, within).await.unwrap_err();
    assert!(matches!(error, TlsError::Timeout(time) if time == within), "{error:?}");
    drop(far);
}

#[tokio::test]
async fn a_socket_on_this_host_stays_plain() {
    let ca = Authority::new();
    let (near, far) = UnixStream::pair().unwrap();
    let far = handshake(&server(&ca.issue("localhost"), None), Socket::Unix(far), FOR_EVER).await.unwrap();
    assert!(matches!(far, Socket::Unix(_)));
    let address: Address = "UNIX:/tmp/x".parse().unwrap();
    let error = client(&ca, None).connect(Socket::Unix(near), &address, FOR_EVER).await.unwrap_err();
    assert!(matches!(error, TlsError::NotTcp));
}

#[tokio::test(start_paused = true)]
async fn a_server_takes_up_a_renewed_certificate() {
    let (old, new) = (Authority::named("old"), Authority::named("new"));
    let identity = old.issue("localhost");
    let tls = server(&identity, None);
    let (of_old, of_new) = (client(&old, None), client(&new, None));
    meet(&tls, &of_old, "IP:localhost:1").await.1.unwrap();
    replace(&identity, &new.issue("localhost"));
    meet(&tls, &of_old, "IP:localhost:1").await.1.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    meet(&tls, &of_new, "IP:localhost:1").await.1.unwrap();
    fs::write(&identity.key, "broken").unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    meet(&tls, &of_new, "IP:localhost:1").await.1.unwrap();
}

#[tokio::test]
async fn a_client_takes_up_a_renewed_ca_and_certificate() {
    let (old, new) = (Authority::new(), Authority::new());
    let identity = old.issue("a client");
    let ca = old.write("bundle", fs::read(old.ca()).unwrap());
    let options = ClientTlsOptions { ca: Some(ca.clone()), name: None, identity: Some(identity.clone()) };
    let client = ClientTls::load(options).unwrap();
    let tls = server(&new.issue("localhost"), Some(new.ca()));
    assert!(meet(&tls, &client, "IP:localhost:1").await.1.is_err());
    fs::copy(new.ca(), &ca).unwrap();
    assert!(meet(&tls, &client, "IP:localhost:1").await.0.is_err(), "the certificate is still the old");
    replace(&identity, &new.issue("a client"));
    let (far, near) = meet(&tls, &client, "IP:localhost:1").await;
    exchange(&mut far.unwrap(), &mut near.unwrap()).await;
}

/// A driver that writes all it has and then only reads, as ours do: what rustls kept must go out all the same.
#[tokio::test]
async fn what_the_socket_did_not_take_goes_out_while_reading() {
    const MESSAGE: usize = 1 << 20;
    let ca = Authority::new();
    let (far, near) = meet(&server(&ca.issue("localhost"), None), &client(&ca, None), "IP:localhost:1").await;
    let (mut far, mut near) = (far.unwrap(), near.unwrap());
    // As much as the socket takes, and until rustls has kept something too.
    let mut written = 0;
    poll_fn(|cx| {
        while let Poll::Ready(count) = Pin::new(&mut far).poll_write(cx, &[7; MESSAGE]) {
            written += count.unwrap();
        }
        Poll::Ready(())
    })
    .await;
    let reader = async {
        let mut room = vec![0; 1 << 16];
        let mut read = 0;
        while read < written {
            read += near.read(&mut room).await.unwrap();
        }
        near.write_all(b"!").await.unwrap();
    };
    let mut answer = [0; 1];
    let (_, answered) = tokio::join!(reader, far.read_exact(&mut answer));
    answered.unwrap();
    assert_eq!(&answer, b"!");
}

#[tokio::test]
async fn a_peer_that_reads_nothing_stops_the_writer() {
    let ca = Authority::new();
    let (far, near) = meet(&server(&ca.issue("localhost"), None), &client(&ca, None), "IP:localhost:1").await;
    let mut far = far.unwrap();
    let stopped = poll_fn(|cx| {
        for _ in 0..1000 {
            if Pin::new(&mut far).poll_write(cx, &[7; 1 << 20]).is_pending() {
                return Poll::Ready(true);
            }
        }
        Poll::Ready(false)
    });
    assert!(stopped.await, "a gigabyte was taken and sent nowhere");
    drop(near);
}

fn refused(cert: PathBuf, key: PathBuf) -> String {
    ServerTls::load(cert, key, None).unwrap_err().to_string()
}

#[test]
fn wrong_files_are_named() {
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
        (&absent, &good.key, "can't read CERT: No such file or directory (os error 2)"),
        (&good.cert, &absent, "can't read KEY: No such file or directory (os error 2)"),
        (&directory, &good.key, "CERT is not a regular file"),
        (&large, &good.key, "CERT is too large for certificates or a key"),
        (&empty, &good.key, "there is no certificate in CERT (PEM is expected)"),
        (&good.key, &good.key, "there is no certificate in CERT (PEM is expected)"),
        (&cut, &good.key, "CERT is broken: it is not PEM"),
        (&broken_cert, &good.key, "a certificate in CERT is broken"),
        (&good.cert, &empty, "there is no private key in KEY (PEM is expected)"),
        (&good.cert, &good.cert, "there is no private key in KEY (PEM is expected)"),
        (
            &good.cert,
            &encrypted,
            "the private key in KEY is encrypted with a passphrase, which nobody could enter",
        ),
        (
            &good.cert,
            &legacy,
            "the private key in KEY is encrypted with a passphrase, which nobody could enter",
        ),
        (&good.cert, &broken_key, "the private key in KEY can't be used: it is broken or of an unknown kind"),
        (&good.cert, &other.key, "the private key in KEY is not that of the first certificate in CERT"),
    ];
    for (cert, key, expected) in cases {
        let path = |path: &PathBuf| path.display().to_string();
        let expected = expected.replace("CERT", &path(cert)).replace("KEY", &path(key));
        assert_eq!(refused(cert.clone(), key.clone()), expected);
    }
}

#[test]
fn wrong_files_of_cas_are_named() {
    let ca = Authority::new();
    let good = ca.issue("localhost");
    let empty = ca.write("empty", "");
    let expected = format!("there is no certificate in {} (PEM is expected)", empty.display());
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
fn an_expired_certificate_of_ones_own_is_used() {
    let ca = Authority::new();
    for validity in [Validity::Past, Validity::Future] {
        let identity = ca.issue_for("localhost", validity);
        server(&identity, None);
    }
}
