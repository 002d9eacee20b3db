//! Hostile callers: whom a node does not let in, what it does not take, how long it waits. All through, another caller's calls go
//! on unharmed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kopuro::trust::identity::Identity;
use kopuro::trust::pki::{Authority, Issued, Sans, Validity};
use rustls::pki_types::ServerName;
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::handshakes::client_hello_1_2;
use crate::harness::probe::{ProbeClient, blob};
use crate::harness::raw::{Body, PREFACE, Raw, client_config, ended, framed, tls, until_closed};
use crate::harness::{CONSUMER, Companion, DESK, Federation, PROVIDER, Running, eventually, reason};

const UNARY: &str = "/kopuro.test.v1.Probe/Unary";

/// Waits short enough for a test, long enough for a busy machine.
const SHORT: &str = "[limits]
handshake_timeout = \"1s\"
request_body_timeout = \"1s\"
stream_idle = \"1s\"
keepalive_interval = \"1s\"
keepalive_timeout = \"3s\"
";

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_say_who_it_is_is_not_let_in() {
    let mut federation = Federation::new();
    let now = OffsetDateTime::now_utc();
    let desk: Identity = DESK.parse().unwrap();
    let revoked = federation.issue(DESK);
    federation.revoke(CONSUMER, &revoked.serial_hex);
    let ca = federation.cas.get_mut(CONSUMER).unwrap();
    let day = time::Duration::days(1);
    let past = Validity { not_before: now - 3 * day, not_after: now - day };
    let expired = ca.issue(&desk, &Sans::default(), past).unwrap();
    let future = Validity { not_before: now + day, not_after: now + 3 * day };
    let early = ca.issue(&desk, &Sans::default(), future).unwrap();
    let mut strangers = Federation::new();
    let strange = strangers.issue(DESK);
    let foreign = foreign_leaf(federation.cas.get_mut(PROVIDER).unwrap(), &format!("kopuro://{DESK}"));

    let mut running = federation.start("").await;
    let companion = Companion::start(ProbeClient::new(running.desk().await));
    for address in [running.consumer.systems_addr(), running.provider.nodes_addr()] {
        for (what, issued, alert) in [
            ("another federation's CA", Some(&strange), "UnknownCA"),
            ("expired", Some(&expired), "CertificateExpired"),
            ("not valid yet", Some(&early), "CertificateExpired"),
            ("revoked", Some(&revoked), "CertificateRevoked"),
            ("another member's CA", Some(&foreign), "CertificateUnknown"),
            ("no certificate", None, "CertificateRequired"),
        ] {
            let config = client_config(&running.federation, issued);
            let said = ended(config, address, b"").await;
            assert!(said.contains(alert), "{what}: {said}");
        }
        // The alert protocol_version, and nothing else.
        let mut old = TcpStream::connect(address).await.unwrap();
        old.write_all(&client_hello_1_2()).await.unwrap();
        assert_eq!(until_closed(&mut old).await.unwrap(), [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 70]);
    }
    // Who is not known leaves no entry: the log holds the companion's calls only.
    companion.unharmed().await;
    assert!(Running::entries(&running.consumer).iter().all(|entry| entry.reason.is_empty()));
    running.stop().await;
}

/// A leaf that a member's CA signs for another member's system, as our own tools never would.
fn foreign_leaf(ca: &mut Authority, uri: &str) -> Issued {
    let folder = tempfile::tempdir().unwrap();
    ca.save(folder.path()).unwrap();
    let ca_key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(folder.path().join("ca.key")).unwrap()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(ca.certificate_pem(), &ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
    let leaf = params.signed_by(&key, &issuer).unwrap().pem();
    // The CA writes to its folder from now on, so the folder stays.
    let _ = folder.keep();
    Issued {
        cert_pem: format!("{leaf}{}", ca.certificate_pem()),
        key_pem: key.serialize_pem().into(),
        serial_hex: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http2_is_cut_off() {
    let mut running = Federation::new().start(SHORT).await;
    let desk = running.federation.issue(DESK);
    let config = client_config(&running.federation, Some(&desk));
    let companion = Companion::start(ProbeClient::new(running.desk().await));
    for address in [running.consumer.systems_addr(), running.provider.nodes_addr()] {
        // Not TLS at all.
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();
        until_closed(&mut plain).await.unwrap();

        // At the systems' listener HTTP/1.1 is spoken (`json` tells how), for those who name it and for those who name nothing.
        let mut only_http1 = config.clone();
        only_http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let said = ended(only_http1, address, &[0xff; 64]).await;
        let of_nodes = address == running.provider.nodes_addr();
        assert_eq!(said.contains("NoApplicationProtocol"), of_nodes, "{said}");
        let mut no_alpn = config.clone();
        no_alpn.alpn_protocols.clear();
        for config in [config.clone(), no_alpn] {
            let said =
                ended(config.clone(), address, b"GET / HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n").await;
            assert_eq!(said, "closed");
            assert_eq!(ended(config, address, &[0xff; 64]).await, "closed");
        }
        // HTTP/2, and then not: DATA on stream 0, a frame larger than allowed, SETTINGS of a wrong length, HPACK nonsense.
        for wrong in [
            h2_frame(0, 0, 0, b"x"),
            h2_frame(0, 0, 1, &vec![0; 1 << 20]),
            h2_frame(4, 0, 0, b"12345"),
            [h2_frame(4, 0, 0, b""), h2_frame(1, 5, 1, &[0xff; 100])].concat(),
            [h2_frame(4, 0, 0, b""), h2_frame(9, 4, 1, b"x")].concat(),
        ] {
            assert_eq!(ended(config.clone(), address, &[PREFACE, &wrong].concat()).await, "closed");
        }
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..40 {
            let mut garbage = [PREFACE, &h2_frame(4, 0, 0, b"")].concat();
            for _ in 0..20 {
                let mut next = || {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random
                };
                let payload: Vec<u8> = (0..next() % 60).map(|_| next() as u8).collect();
                garbage.extend(h2_frame((next() % 12) as u8, next() as u8, (next() % 6) as u32, &payload));
            }
            let mut stream = tls(config.clone(), address).await.unwrap();
            // The node may have hung up already.
            let _ = stream.write_all(&garbage).await;
            let _ = stream.shutdown().await;
            let _ = until_closed(&mut stream).await;
        }
    }
    companion.unharmed().await;
    running.stop().await;
}

/// An HTTP/2 frame.
fn h2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_headers_and_messages_harm_nobody_else() {
    let mut running = Running::start().await;
    let desk = running.federation.issue(DESK);
    let channel = running.desk().await;
    let companion = Companion::start(ProbeClient::new(running.desk().await));

    let big = "x".repeat(20 << 10);
    let status = ProbeClient::new(channel.clone()).with("x-big", &big).unary("x").await.unwrap_err();
    assert_ne!(status.code(), Code::Ok);
    ProbeClient::new(channel.clone()).unary("after").await.unwrap();
    let address = running.consumer.systems_addr();
    let mut raw = Raw::connect(&running.federation, address, &desk).await;
    let huge = "x".repeat(1 << 20);
    if let Ok(answer) = raw.call(UNARY, &[("x-huge", &huge)], framed("x")).await {
        assert_eq!(answer.http, 431, "{answer:?}");
    }

    // A gigabyte announced: refused at the announcement, and what follows is not read for ever.
    let mut raw = Raw::connect(&running.federation, address, &desk).await;
    let (body, feeding) = dripping(Duration::ZERO, || Bytes::from(vec![0; 16 << 10]), Some(&[0, 0x40, 0, 0, 0]));
    let answer = raw.call(UNARY, &[], body).await.unwrap();
    let status = answer.status.unwrap();
    assert_eq!((status.code(), reason(&status).unwrap().0.as_str()), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"));
    tokio::time::timeout(Duration::from_secs(10), feeding).await.expect("the node stops reading").unwrap();
    companion.unharmed().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_callers_are_cut_off_in_time() {
    let mut running = Federation::new().start(SHORT).await;
    let desk = running.federation.issue(DESK);
    let config = client_config(&running.federation, Some(&desk));
    let companion = Companion::start(ProbeClient::new(running.desk().await));
    let addresses = [running.consumer.systems_addr(), running.provider.nodes_addr()];
    futures_util::future::join_all(addresses.map(|address| say_too_little(&config, address))).await;

    // A unary request's one message, byte by byte.
    let mut raw = Raw::connect(&running.federation, running.consumer.systems_addr(), &desk).await;
    let began = Instant::now();
    let (body, feeding) = dripping(Duration::from_millis(100), || Bytes::from_static(b"x"), Some(&[0, 0, 0, 1, 0]));
    let status = raw.call(UNARY, &[], body).await.unwrap().status.unwrap();
    assert_eq!((status.code(), reason(&status).unwrap().0.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    feeding.abort();

    // A stream of requests that comes to rest, of both kinds that have one.
    for collect in [true, false] {
        let began = Instant::now();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.send(blob("one")).await.unwrap();
        let probe = ProbeClient::new(running.desk().await);
        let call = async {
            if collect {
                return probe.collect(ReceiverStream::new(receiver)).await.unwrap_err();
            }
            let mut echo = probe.chat(ReceiverStream::new(receiver)).await.unwrap().into_inner();
            assert_eq!(&echo.message().await.unwrap().unwrap().value[..], b"one");
            echo.message().await.unwrap_err()
        };
        let status = tokio::time::timeout(Duration::from_secs(15), call).await.expect("an end");
        assert_eq!((status.code(), reason(&status).unwrap().0.as_str()), (Code::DeadlineExceeded, "STREAM_IDLE"));
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        drop(sender);
    }

    // An answer that is asked for and not read, by a client that answers every PING.
    let config = client_config(&running.federation, Some(&desk));
    let stream = tls(config, running.consumer.systems_addr()).await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(10);
    let (mut sender, driver) = builder.handshake::<_, Body>(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(driver);
    let request = http::Request::post(format!("https://node{UNARY}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-do", "big")
        .body(framed("1000000"))
        .unwrap();
    let unread = sender.send_request(request).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), driver).await.expect("cut off").unwrap().ok();
    drop(unread);
    companion.unharmed().await;
    running.stop().await;
}

/// Everything slow that can be done to a listener before there is a call, all of it cut off in time.
async fn say_too_little(config: &rustls::ClientConfig, address: SocketAddr) {
    // Many who say nothing at all.
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // A ClientHello, byte by byte.
    let hello = hello(config);
    let mut dribble = TcpStream::connect(address).await.unwrap();
    for byte in hello {
        if dribble.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        if began.elapsed() > Duration::from_secs(4) {
            break;
        }
    }
    until_closed(&mut dribble).await.unwrap();
    for mut stream in silent {
        until_closed(&mut stream).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());

    // TLS, and then no preface; a preface byte by byte; a preface and then nothing, not even answers to PING.
    let began = Instant::now();
    assert_eq!(ended(config.clone(), address, b"").await, "closed");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let began = Instant::now();
    let mut stream = tls(config.clone(), address).await.unwrap();
    for byte in PREFACE {
        let sent = async {
            stream.write_all(&[*byte]).await?;
            stream.flush().await
        };
        if sent.await.is_err() || began.elapsed() > Duration::from_secs(4) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let _ = until_closed(&mut stream).await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    for last in [h2_frame(4, 0, 0, b""), [h2_frame(4, 0, 0, b""), h2_frame(1, 0, 1, &[0x82])].concat()] {
        let began = Instant::now();
        assert_eq!(ended(config.clone(), address, &[PREFACE, &last].concat()).await, "closed");
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    }
}

/// A body that begins with `first` and goes on with as many pieces as are taken; the task that feeds it ends when nobody reads.
fn dripping(
    pause: Duration,
    piece: impl Fn() -> Bytes + Send + 'static,
    first: Option<&'static [u8]>,
) -> (Body, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let feeding = tokio::spawn(async move {
        let mut next = first.map_or_else(&piece, Bytes::from_static);
        while sender.send(Ok(Frame::data(next))).await.is_ok() {
            tokio::time::sleep(pause).await;
            next = piece();
        }
    });
    (StreamBody::new(ReceiverStream::new(receiver).boxed()).boxed_unsync(), feeding)
}

/// What our own client would say first.
fn hello(config: &rustls::ClientConfig) -> Vec<u8> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config.clone()), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_takes_nobodys_place() {
    let limits = "[limits]\nsystems_connections = 3\n";
    let mut running = Federation::new().start(limits).await;
    let address = running.consumer.systems_addr();
    let companion = Companion::start(ProbeClient::new(running.desk().await));
    // Far more than there are places: the oldest are closed long before the limit of a handshake.
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    for stream in &mut silent[..27] {
        until_closed(stream).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // Who shakes hands is let in meanwhile, up to the limit of three with the companion, and again when one has left.
    let second = running.desk().await;
    ProbeClient::new(second.clone()).unary("x").await.unwrap();
    let third = running.desk().await;
    ProbeClient::new(third.clone()).unary("x").await.unwrap();
    let desk = running.federation.issue(DESK);
    let config = client_config(&running.federation, Some(&desk));
    assert_eq!(ended(config, address, PREFACE).await, "closed");
    drop(third);
    eventually("the place is free again", async || {
        let channel = running.federation.channel(address, &desk).await.ok()?;
        ProbeClient::new(channel).unary("x").await.ok()
    })
    .await;
    companion.unharmed().await;
    running.stop().await;
}
