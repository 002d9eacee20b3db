//! For systems without gRPC: the Connect protocol and gRPC-Web at the systems' listener, over HTTP/1.1 and HTTP/2, with the same
//! certificates, grants and log as gRPC.

use std::io::{Read, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use kopuro::log::entry::{Kind, Outcome};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::harness::probe::{Blob, ProbeClient};
use crate::harness::raw::{Body, frame, until_closed, whole};
use crate::harness::web::{Told, Web, http1_stream};
use crate::harness::{AUDITOR, CLERK, CONSUMER, DESK, Federation, MUTE, Running, eventually, told};

const UNARY: &str = "/kopuro.test.v1.Probe/Unary";
const EXPAND: &str = "/kopuro.test.v1.Probe/Expand";
const COLLECT: &str = "/kopuro.test.v1.Probe/Collect";
const CHAT: &str = "/kopuro.test.v1.Probe/Chat";
const STREAM: [(&str, &str); 1] = [("content-type", "application/connect+json")];

fn blob(text: &str) -> String {
    json!({ "value": STANDARD.encode(text) }).to_string()
}

fn text_of(json: &Value) -> String {
    String::from_utf8(STANDARD.decode(json["value"].as_str().unwrap_or_default()).unwrap()).unwrap()
}

fn said(told: &Told) -> String {
    text_of(&told.json())
}

fn enveloped(flag: u8, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(flag);
    bytes.put_u32(message.len() as u32);
    bytes.put(message);
    bytes.freeze()
}

fn envelopes(mut bytes: &[u8]) -> Vec<(u8, Value)> {
    let mut found = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = bytes {
        let size = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        found.push((*flag, serde_json::from_slice(&rest[..size]).unwrap()));
        bytes = &rest[size..];
    }
    assert!(bytes.is_empty());
    found
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn both_as(running: &mut Running, system: &str) -> [Web; 2] {
    let issued = running.federation.issue(system);
    let (federation, address) = (&running.federation, running.consumer.systems_addr());
    [Web::http1(federation, address, &issued).await, Web::http2(federation, address, &issued).await]
}

async fn both(running: &mut Running) -> [Web; 2] {
    both_as(running, DESK).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_call_in_json_is_the_exchange_that_grpc_makes() {
    let mut running = Running::start().await;
    for mut web in both(&mut running).await {
        let before = Running::entries(&running.consumer).len();
        let headers = [("x-said", "hello"), ("x-said-bin", "AAEC"), ("kopuro-user", "official-7"), ("cookie", "a=b")];
        let answer = web.post(UNARY, &headers, blob("жооп")).await;
        assert_eq!((answer.status, said(&answer).as_str()), (200, "жооп"), "{answer:?}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!((answer.header("x-heard"), answer.header("x-heard-bin")), ("hello", "AAEC"));
        assert!(answer.headers.keys().all(|name| !name.as_str().contains("grpc")), "{answer:?}");

        let seen = running.probe.seen.metadata.lock().unwrap().clone().unwrap();
        assert!(seen.get("cookie").is_none() && seen.get("connect-protocol-version").is_none());
        assert_eq!(seen.get("kopuro-consumer").unwrap(), DESK);
        assert_eq!(seen.get("kopuro-user").unwrap(), "official-7");
        let entries = Running::entries(&running.consumer);
        let new = &entries[before..];
        let story = [(Kind::RequestSent, Outcome::Unspecified, ""), (Kind::ResponseReceived, Outcome::Ok, "")];
        assert_eq!(told(new), story);
        assert_eq!(uuid::Uuid::from_slice(&new[0].exchange_id).unwrap().to_string(), answer.header("kopuro-exchange"));
    }
    ProbeClient::new(running.desk().await).unary("жооп").await.unwrap();
    let entries = Running::entries(&running.provider);
    let [.., json, _, grpc, _] = &entries[..] else { panic!() };
    assert_eq!(
        (json.kind(), json.service.clone(), json.method.clone()),
        (grpc.kind(), grpc.service.clone(), grpc.method.clone())
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_get_and_compression() {
    let mut running = Running::start().await;
    let message = frame("hi")[5..].to_vec();
    for mut web in both(&mut running).await {
        let proto = [("content-type", "application/proto"), ("connect-protocol-version", "1")];
        let answer = web.post(UNARY, &proto, message.clone()).await;
        assert_eq!(
            (answer.status, answer.header("content-type"), &answer.body[..]),
            (200, "application/proto", &message[..])
        );

        let json = format!("{UNARY}?connect=v1&encoding=json&message=%7B%22value%22%3A%22aGk%3D%22%7D");
        let answer = web.get(&json, &[]).await;
        assert_eq!((answer.status, said(&answer).as_str()), (200, "hi"), "{answer:?}");
        let based = URL_SAFE_NO_PAD.encode(gzip(&message));
        let proto = format!("{UNARY}?message={based}&encoding=proto&base64=1&compression=gzip&connect=v1");
        let answer = web.get(&proto, &[]).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &message[..]), "{answer:?}");
        let answer = web.get(&format!("{UNARY}?encoding=json"), &[]).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("invalid_argument")));
        let answer = web.get(&format!("{EXPAND}?connect=v1&encoding=json&message=%7B%7D"), &[]).await;
        assert_eq!(answer.status, 501, "{answer:?}");

        // Both ways compressed.
        let long = "көп сөз ".repeat(2_000);
        let headers = [("content-encoding", "gzip"), ("accept-encoding", "br, gzip;q=0.8")];
        let answer = web.post(UNARY, &headers, gzip(blob(&long).as_bytes())).await;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, "gzip"));
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut plain).unwrap();
        assert_eq!(text_of(&serde_json::from_slice(&plain).unwrap()), long);
        let answer = web.post(UNARY, &[("content-encoding", "br")], "x").await;
        assert_eq!((answer.status, answer.reason().0.as_str()), (501, "MALFORMED_CALL"));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_told_as_connect_tells_them() {
    let mut running = Running::start().await;
    for mut web in both(&mut running).await {
        // The provider's own error: code, message, details, trailers.
        let answer = web.post(UNARY, &[("x-do", "fail")], blob("x")).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let json = answer.json();
        assert_eq!(
            (json["code"].as_str(), json["message"].as_str()),
            (Some("failed_precondition"), Some("asked to fail: ката"))
        );
        assert_eq!(json["details"][0]["type"], "google.rpc.ErrorInfo");
        assert_eq!(json["details"][0]["debug"]["reason"], "PROBE_FAILED");
        assert_eq!(json["details"][1]["debug"]["message"], "Ката кетти");
        assert!(["x-trailer", "trailer-x-trailer"].iter().any(|name| answer.header(name) == "kept"), "{answer:?}");

        // What is no message of its type.
        for (body, reason, says) in [
            (r#"{"vlaue":"aGk="}"#, "UNKNOWN_FIELD", "kopuro.test.v1.Blob has no field \"vlaue\""),
            (r#"{"value":7}"#, "MESSAGE_MALFORMED", "field value: not a string of base64"),
            (r#"{"value":"#, "MESSAGE_MALFORMED", "not JSON"),
            ("", "MESSAGE_MALFORMED", "not JSON"),
        ] {
            let before = Running::entries(&running.consumer).len();
            let answer = web.post(UNARY, &[], body).await;
            assert_eq!((answer.status, answer.reason()), (400, (reason.into(), "consumer".into())), "{body}");
            assert!(answer.json()["message"].as_str().unwrap().contains(says), "{answer:?}");
            let entries = Running::entries(&running.consumer);
            assert_eq!(told(&entries[before..]), [(Kind::Refused, Outcome::Refused, reason)]);
        }
        // What is no call.
        let deadline = [("connect-timeout-ms", "soon")];
        for (path, headers, status, reason) in [
            ("/kopuro.test.v1.Probe/No", &[][..], 404, "ROUTE_UNKNOWN"),
            ("/kopuro.test.v1.No/Unary", &[], 404, "ROUTE_UNKNOWN"),
            ("/", &[], 404, "ROUTE_UNKNOWN"),
            ("/v1/persons/1", &[], 404, "ROUTE_UNKNOWN"),
            (UNARY, &[("content-type", "text/plain")], 415, "MALFORMED_CALL"),
            (UNARY, &deadline, 400, "MALFORMED_CALL"),
            (UNARY, &[("connect-protocol-version", "2")], 400, "MALFORMED_CALL"),
            (UNARY, &[("kopuro-exchange", "x")], 400, "RESERVED_METADATA"),
            (UNARY, &[("kopuro-provider", "KG/GOV/1/desk")], 404, "PROVIDER_UNKNOWN"),
            (EXPAND, &[], 501, "MALFORMED_CALL"),
            (UNARY, &[("sec-fetch-site", "cross-site")], 403, "CROSS_SITE"),
        ] {
            let before = Running::entries(&running.consumer).len();
            let answer = web.post(path, headers, blob("x")).await;
            assert_eq!((answer.status, answer.reason().0.as_str()), (status, reason), "{path} {headers:?}");
            let entries = Running::entries(&running.consumer);
            assert_eq!(told(&entries[before..]), [(Kind::Refused, Outcome::Refused, reason)], "{path} {headers:?}");
        }
        let answer = web.post(UNARY, &[("connect-timeout-ms", "100"), ("x-do", "hang")], blob("x")).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (504, Some("deadline_exceeded")));
    }
    // Who may not: not by the outbound list, not by the grants, not at all.
    for (system, status, reason, side) in [
        (MUTE, 403, "OUTBOUND_NOT_ALLOWED", "consumer"),
        (CLERK, 403, "GRANT_MISSING", "provider"),
        (AUDITOR, 403, "WRONG_LISTENER", "consumer"),
    ] {
        for mut web in both_as(&mut running, system).await {
            let answer = web.post(UNARY, &[], "this is not even read").await;
            if side == "consumer" {
                assert_eq!((answer.status, answer.reason()), (status, (reason.into(), side.into())), "{system}");
            }
            let answer = web.post(UNARY, &[], blob("x")).await;
            assert_eq!((answer.status, answer.reason()), (status, (reason.into(), side.into())), "{system}");
        }
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_their_trailers() {
    let mut running = Running::start().await;
    let [mut http1, mut http2] = both(&mut running).await;
    for web in [&mut http1, &mut http2] {
        let asked = enveloped(0, blob("3").as_bytes());
        let answer = web.send("POST", EXPAND, &STREAM, whole(asked.clone())).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/connect+json"));
        let told_ = envelopes(&answer.body);
        let texts: Vec<String> = told_[..3].iter().map(|(_, json)| text_of(json)).collect();
        assert_eq!(texts, ["0", "1", "2"]);
        assert_eq!((told_[3].0, told_[3].1.get("error")), (2, None), "{told_:?}");

        // An error in the middle, and one before the first message; compressed messages.
        let fail = [STREAM[0], ("x-do", "fail")];
        let told_ = envelopes(&web.send("POST", EXPAND, &fail, whole(asked.clone())).await.body);
        assert_eq!(told_.len(), 4);
        assert_eq!(told_[3].1["error"]["code"], "failed_precondition");
        assert_eq!(told_[3].1["error"]["details"][0]["debug"]["reason"], "PROBE_FAILED");
        assert_eq!(told_[3].1["metadata"]["x-trailer"], json!(["kept"]));
        let bad = web.send("POST", EXPAND, &STREAM, whole(enveloped(0, b"{\"no\":1}"))).await;
        let told_ = envelopes(&bad.body);
        assert_eq!((bad.status, told_.len(), told_[0].0), (200, 1, 2));
        assert_eq!(told_[0].1["error"]["details"][0]["debug"]["reason"], "UNKNOWN_FIELD");
        let compressed = [STREAM[0], ("connect-content-encoding", "gzip")];
        let asked = enveloped(1, &gzip(blob("1").as_bytes()));
        assert_eq!(envelopes(&web.send("POST", EXPAND, &compressed, whole(asked)).await.body).len(), 2);

        // A stream of requests.
        let asked = [enveloped(0, blob("12345").as_bytes()), enveloped(0, blob("678").as_bytes())].concat();
        let told_ = envelopes(&web.send("POST", COLLECT, &STREAM, whole(asked)).await.body);
        assert_eq!((text_of(&told_[0].1).as_str(), told_[1].0), ("8", 2));
        // None, two, and half a message where one is due.
        for asked in
            [Bytes::new(), [enveloped(0, b"{}"), enveloped(0, b"{}")].concat().into(), enveloped(0, b"{}").slice(..6)]
        {
            let told_ = envelopes(&web.send("POST", EXPAND, &STREAM, whole(asked)).await.body);
            assert_eq!(told_[0].1["error"]["details"][0]["debug"]["reason"], "MESSAGE_MALFORMED", "{told_:?}");
        }
    }
    // Both ways at once, which HTTP/1.1 cannot.
    let asked = [enveloped(0, blob("a").as_bytes()), enveloped(0, blob("b").as_bytes())].concat();
    let told_ = envelopes(&http2.send("POST", CHAT, &STREAM, whole(asked.clone())).await.body);
    assert_eq!((text_of(&told_[1].1).as_str(), told_[2].0), ("b", 2));
    let told_ = envelopes(&http1.send("POST", CHAT, &STREAM, whole(asked)).await.body);
    assert_eq!(told_[0].1["error"]["code"], "unimplemented");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_stream_is_taken_as_gone() {
    let mut running = Running::start().await;
    for (round, mut web) in both(&mut running).await.into_iter().enumerate() {
        let endless = enveloped(0, blob("").as_bytes());
        let mut answer = web.open("POST", EXPAND, &STREAM, whole(endless)).await.into_body();
        answer.frame().await.unwrap().unwrap();
        drop((answer, web));
        running
            .probe
            .seen
            .until("cancelled", |seen| seen.cancelled.load(std::sync::atomic::Ordering::SeqCst) > round as u64)
            .await;
        Running::entries_until(&running.consumer, |entries| {
            entries.iter().filter(|entry| entry.kind() == Kind::Failed && entry.reason == "CANCELLED").count()
                == round + 1
        })
        .await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_patience_have_limits() {
    let limits = "[limits]\nmessage = \"64KiB\"\nrequest_body_timeout = \"1s\"\nmetadata = \"8KiB\"\n";
    let mut running = Federation::new().start(limits).await;
    for mut web in both(&mut running).await {
        let large = blob(&"x".repeat(70_000));
        for (headers, body) in
            [(&[][..], large.clone().into_bytes()), (&[("content-encoding", "gzip")], gzip(&vec![b' '; 50 << 20]))]
        {
            let answer = web.post(UNARY, headers, body).await;
            assert_eq!((answer.status, answer.reason().0.as_str()), (429, "MESSAGE_TOO_LARGE"), "{answer:?}");
        }
        let envelope = [enveloped(0, b"").slice(..1), Bytes::from_static(&[0xff; 4])].concat();
        let told_ = envelopes(&web.send("POST", EXPAND, &STREAM, whole(envelope)).await.body);
        assert_eq!(told_[0].1["error"]["code"], "resource_exhausted");
        // The answer is as large as may be, and its JSON larger.
        let answer = web.post(UNARY, &[("x-do", "big")], blob("65000")).await;
        assert_eq!((answer.status, answer.body.len() > 80_000), (200, true));
        let deep = format!("{{\"value\":{}", "[".repeat(5_000));
        assert_eq!(web.post(UNARY, &[], deep).await.status, 400);
        // A body that never comes.
        let never: Body = http_body_util::StreamBody::new(futures_util::stream::pending()).boxed_unsync();
        let answer = web.send("POST", UNARY, &[("content-type", "application/json")], never).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (504, Some("deadline_exceeded")));
    }
    // A head that never ends, one that is too large, and a connection on which nothing more comes.
    let (desk, address) = (running.federation.issue(DESK), running.consumer.systems_addr());
    let federation = &running.federation;
    for first in ["", "POST / HTTP/1.1\r\nhost: node\r\nx: ", &format!("GET /{} HTTP/1.1\r\n", "x".repeat(100_000))] {
        let mut stream = http1_stream(federation, address, &desk).await;
        let _ = stream.write_all(first.as_bytes()).await;
        let said = until_closed(&mut stream).await.unwrap();
        assert!(!said.starts_with(b"HTTP/1.1 2"), "{first:.40}");
    }
    let mut stream = http1_stream(federation, address, &desk).await;
    stream.write_all(b"GET /openapi HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut stream).await.unwrap().starts_with(b"HTTP/1.1 200"));
    // Answers that are not taken: what does not fit into the sockets' buffers holds the connection no longer than the limit.
    let mut stream = http1_stream(federation, address, &desk).await;
    let body = blob("60000");
    let ask = format!(
        "POST {UNARY} HTTP/1.1\r\nhost: node\r\nx-do: big\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(ask.repeat(300).as_bytes()).await.unwrap();
    eventually("the connection is cut", async || {
        let told = async { stream.write_all(b"\r\n").await.and(stream.flush().await) };
        matches!(tokio::time::timeout(Duration::from_secs(1), told).await, Ok(Err(_))).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_second_request_is_smuggled() {
    let mut running = Running::start().await;
    let (desk, address) = (running.federation.issue(DESK), running.consumer.systems_addr());
    let federation = &running.federation;
    let hidden = "GET /openapi HTTP/1.1\r\nhost: node\r\n\r\n";
    let post = format!("POST {UNARY} HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\n");
    let size = hidden.len();
    for (head, body) in [
        (format!("content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"), ""),
        (format!("transfer-encoding: chunked\r\ncontent-length: {size}\r\n\r\n0\r\n\r\n"), hidden),
        (format!("content-length: 0\r\ncontent-length: {size}\r\n\r\n"), hidden),
        (format!("content-length: 0, {size}\r\n\r\n"), hidden),
        (format!("content-length: +{size}\r\n\r\n"), hidden),
        ("content-length: -1\r\n\r\n".to_owned(), hidden),
        ("transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_owned(), hidden),
        ("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n".to_owned(), hidden),
        ("transfer-encoding : chunked\r\n\r\n0\r\n\r\n".to_owned(), hidden),
        ("x: y\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), hidden),
        ("transfer-encoding: chunked\r\n\r\n0x0\r\n\r\n".to_owned(), hidden),
        ("transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n".to_owned(), hidden),
        ("x\0y: z\r\ncontent-length: 0\r\n\r\n".to_owned(), hidden),
        ("upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}".to_owned(), hidden),
    ] {
        let mut stream = http1_stream(federation, address, &desk).await;
        stream.write_all(format!("{post}{head}{body}").as_bytes()).await.unwrap();
        let said = String::from_utf8_lossy(&until_closed(&mut stream).await.unwrap()).into_owned();
        assert!(said.matches("HTTP/1.1 ").count() <= 1 && !said.contains("\"services\""), "{head}\n{said}");
    }
    // Plain text is no TLS, and HTTP/1.1 at the nodes' listener no protocol.
    let mut config = crate::harness::raw::client_config(federation, Some(&desk));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let nodes = crate::harness::raw::ended(config, running.consumer.nodes_addr(), hidden.as_bytes()).await;
    assert!(nodes.contains("NoApplicationProtocol"), "{nodes}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_http1_ends_with_its_certificate_and_its_node() {
    let mut running = Running::start().await;
    let desk = running.federation.issue(DESK);
    let address = running.consumer.systems_addr();
    let mut revoked = http1_stream(&running.federation, address, &desk).await;
    let other = running.federation.issue(DESK);
    let mut kept = http1_stream(&running.federation, address, &other).await;
    for stream in [&mut revoked, &mut kept] {
        stream.write_all(b"GET /openapi HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();
    }
    running.federation.revoke(CONSUMER, &desk.serial_hex);
    running.consumer.reload().await.unwrap();
    let _ = until_closed(&mut revoked).await.unwrap();
    kept.write_all(b"GET /openapi HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();

    // A running call ends, and with it the connection.
    let body = blob("slow");
    let slow = format!(
        "POST {UNARY} HTTP/1.1\r\nhost: node\r\nx-do: slow\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    kept.write_all(slow.as_bytes()).await.unwrap();
    running.probe.seen.until("the call", |seen| seen.calls.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    let Running { consumer, provider, probe, federation } = running;
    let stopping = tokio::spawn(consumer.stop());
    let said = String::from_utf8_lossy(&until_closed(&mut kept).await.unwrap()).into_owned();
    assert_eq!(said.matches("HTTP/1.1 200").count(), 3, "{said}");
    tokio::time::timeout(Duration::from_secs(10), stopping).await.unwrap().unwrap();
    provider.stop().await;
    drop((probe, federation));
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_carries_the_same() {
    let mut running = Running::start().await;
    let read = |body: &[u8]| {
        let size = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        let (message, trailers) = body[5..].split_at(size);
        assert_eq!(trailers[0], 0x80);
        let blob: Blob = prost::Message::decode(message).unwrap();
        (String::from_utf8(blob.value.to_vec()).unwrap(), String::from_utf8(trailers[5..].to_vec()).unwrap())
    };
    for mut web in both(&mut running).await {
        let binary = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1"), ("grpc-timeout", "5S")];
        let answer = web.send("POST", UNARY, &binary, whole(frame("салам"))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let (text, trailers) = read(&answer.body);
        assert_eq!(text, "салам");
        assert!(trailers.contains("grpc-status:0"), "{trailers}");
        assert!(!answer.header("kopuro-exchange").is_empty());

        let text = [("content-type", "application/grpc-web-text"), ("accept", "application/grpc-web-text")];
        let answer = web.send("POST", UNARY, &text, whole(STANDARD.encode(frame("салам")))).await;
        // Each part is padded on its own.
        let decoded: Vec<u8> = answer
            .body
            .split_inclusive(|byte| *byte == b'=')
            .flat_map(|part| {
                let end = part.iter().rposition(|byte| *byte != b'=').map_or(0, |at| at + 1);
                base64::engine::general_purpose::STANDARD_NO_PAD.decode(&part[..end]).unwrap()
            })
            .collect();
        assert_eq!(read(&decoded).0, "салам");

        let answer = web.send("POST", "/kopuro.test.v1.Probe/No", &binary, whole(frame("x"))).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, "12"));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_own_services_are_spoken_to_in_json_too() {
    let mut running = Running::start().await;
    for mut web in both(&mut running).await {
        let answer = web.post("/grpc.health.v1.Health/Check", &[], "{}").await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "status": "SERVING" })));
        let answer = web.post("/grpc.health.v1.Health/Check", &[], r#"{"no":1}"#).await;
        assert_eq!((answer.status, answer.reason().0.as_str()), (400, "UNKNOWN_FIELD"), "{answer:?}");
        let answer = web.get("/openapi", &[]).await;
        assert_eq!(answer.json()["services"][0]["service"], "kopuro.test.v1.Probe");
        let answer = web.get("/openapi/kopuro.test.v1.Probe.json", &[]).await;
        assert_eq!(answer.json()["openapi"], "3.1.0");
        assert_eq!(web.get("/openapi/kopuro.test.v1.No.json", &[]).await.status, 404);
    }
    // Shown to those who may call it, and of it what they may call.
    for mut web in both_as(&mut running, "KG/GOV/1/other").await {
        let paths = web.get("/openapi/kopuro.test.v1.Probe.json", &[]).await.json()["paths"].clone();
        assert_eq!(paths.as_object().unwrap().keys().collect::<Vec<_>>(), [UNARY]);
    }
    for mut web in both_as(&mut running, MUTE).await {
        assert_eq!(web.get("/openapi", &[]).await.json()["services"], json!([]));
        assert_eq!(web.get("/openapi/kopuro.test.v1.Probe.json", &[]).await.status, 404);
    }
    for mut web in both_as(&mut running, AUDITOR).await {
        assert_eq!(web.get("/openapi", &[]).await.status, 403);
    }
    running.stop().await;
}
