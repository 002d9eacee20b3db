//! Default deny: each refusal reaches the caller as a gRPC status that says why and which side refused, and stands in the log of
//! the side that refused; where that is the provider's, also in the consumer's as the provider's answer.

use std::time::{Duration, Instant};

use kopuro::config;
use kopuro::gateway::Node;
use kopuro::log::entry::{Entry, Kind, Outcome, Side};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::harness::probe::{ProbeClient, SERVICE, blob, descriptors};
use crate::harness::proof::{OwnLog, Says};
use crate::harness::raw::{Raw, frame, framed, whole};
use crate::harness::{CONSUMER, DESK, Federation, PROBE, PROVIDER, Running, reason, story, write_whole};

const OTHER: &str = "KG/GOV/1/other";
const UNARY: &str = "/kopuro.test.v1.Probe/Unary";

/// The caller's view: code, reason, side.
#[track_caller]
fn assert_refused(status: &Status, code: Code, why: &str, side: &str) {
    assert_eq!((status.code(), reason(status)), (code, Some((why.to_owned(), side.to_owned()))), "{status:?}");
}

/// The log's view of a call that this side refused.
#[track_caller]
fn assert_recorded(entry: &Entry, code: Code, why: &str, side: Side) {
    let told = (entry.kind(), entry.outcome(), entry.reason.as_str(), entry.side(), entry.grpc_status);
    assert_eq!(told, (Kind::Refused, Outcome::Refused, why, side, code as u32));
    assert_eq!(Uuid::from_slice(&entry.exchange_id).unwrap().get_version_num(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consumers_node_refuses_and_records() {
    let mut running = Running::start().await;
    let desk = running.desk().await;
    let other = running.federation.issue(OTHER);
    let other = running.federation.channel(running.consumer.systems_addr(), &other).await.unwrap();
    let probe = ProbeClient::new(desk.clone());
    let with = |name, value| ProbeClient::new(desk.clone()).with(name, value);

    let refused = [
        (probe.unary_at("/kopuro.test.v1.Nothing/Unary", "x").await, Code::Unimplemented, "SERVICE_UNKNOWN"),
        (probe.unary_at("/kopuro.test.v1.Probe/Nothing", "x").await, Code::Unimplemented, "METHOD_UNKNOWN"),
        (ProbeClient::new(other).collect(nothing()).await, Code::PermissionDenied, "OUTBOUND_NOT_ALLOWED"),
        (with("kopuro-provider", "KG/GOV/2/nobody").unary("x").await, Code::NotFound, "PROVIDER_UNKNOWN"),
        (with("kopuro-provider", "probe").unary("x").await, Code::InvalidArgument, "INVALID_METADATA"),
        (with("kopuro-user", "").unary("x").await, Code::InvalidArgument, "INVALID_METADATA"),
        (with("kopuro-exchange", "0199").unary("x").await, Code::InvalidArgument, "RESERVED_METADATA"),
        (with("kopuro-consumer", OTHER).unary("x").await, Code::InvalidArgument, "RESERVED_METADATA"),
        (with("kopuro-refused", "refused X").unary("x").await, Code::InvalidArgument, "RESERVED_METADATA"),
        (with("kopuro-anything", "x").unary("x").await, Code::InvalidArgument, "RESERVED_METADATA"),
        (with("grpc-timeout", "1x").unary("x").await, Code::InvalidArgument, "INVALID_METADATA"),
    ];
    let entries = Running::entries(&running.consumer);
    assert_eq!(entries.len(), refused.len(), "{}", story(&entries));
    for ((answer, code, why), entry) in refused.into_iter().zip(&entries) {
        assert_refused(&answer.unwrap_err(), code, why, "consumer");
        assert_recorded(entry, code, why, Side::Consumer);
        let asking = if why == "OUTBOUND_NOT_ALLOWED" { OTHER } else { DESK };
        assert_eq!(entry.consumer, asking);
        assert!(!entry.service.is_empty() && !entry.method.is_empty());
    }
    assert_eq!(Running::entries(&running.provider).len(), 0, "nothing of it reached the provider");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_grpc_call_is_refused() {
    let mut running = Running::start().await;
    let desk = running.federation.issue(DESK);
    let mut raw = Raw::connect(&running.federation, running.consumer.systems_addr(), &desk).await;
    for (path, content_type) in [
        (UNARY, "application/json"),
        (UNARY, "application/grpcweb"),
        ("/", "application/grpc"),
        ("/kopuro.test.v1.Probe", "application/grpc"),
        ("/kopuro.test.v1.Probe/Unary/more", "application/grpc"),
        (&format!("/{}/Unary", "x".repeat(300)), "application/grpc"),
    ] {
        let answer = raw.call(path, &[("content-type", content_type)], framed("x")).await.unwrap();
        assert_eq!(answer.http, 200);
        assert_eq!(answer.headers.get("content-type").unwrap(), "application/grpc");
        assert_refused(&answer.status.unwrap(), Code::InvalidArgument, "MALFORMED_CALL", "consumer");
    }
    let get = http::Request::get(format!("https://node{UNARY}")).body(whole("")).unwrap();
    // Who does not speak as gRPC does is answered in JSON.
    let answer = raw.send(get).await.unwrap();
    assert_eq!(answer.http, 400);
    assert!(String::from_utf8_lossy(&answer.body).contains("MALFORMED_CALL"), "{answer:?}");

    // The framing of the one message.
    for (body, code, why) in [
        (&[0, 0, 0, 0][..], Code::InvalidArgument, "MESSAGE_MALFORMED"),
        (&[], Code::InvalidArgument, "MESSAGE_MALFORMED"),
        (&[7, 0, 0, 0, 0], Code::InvalidArgument, "MESSAGE_MALFORMED"),
        (&[0, 0, 0, 0, 9, 1], Code::InvalidArgument, "MESSAGE_MALFORMED"),
        (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Code::InvalidArgument, "MESSAGE_MALFORMED"),
        (&[0, 255, 255, 255, 255, 1], Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
    ] {
        let answer = raw.call(UNARY, &[], whole(body)).await.unwrap();
        assert_refused(&answer.status.unwrap(), code, why, "consumer");
    }
    let entries = Running::entries(&running.consumer);
    assert_eq!(entries.len(), 13);
    assert!(entries.iter().all(|e| e.kind() == Kind::Refused && e.consumer == DESK), "{}", story(&entries));
    raw.call(UNARY, &[], framed("x")).await.unwrap().status.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_call_here_is_refused() {
    let mut running = Running::start().await;
    let systems = running.consumer.systems_addr();
    for (identity, code, why) in [
        ("KG/GOV/1/ghost", Code::Unauthenticated, "NOT_IN_DIRECTORY"),
        (PROBE, Code::PermissionDenied, "WRONG_LISTENER"),
        ("KG/GOV/1/_node/main", Code::PermissionDenied, "WRONG_LISTENER"),
        ("KG/GOV/1/_auditor/inspection", Code::PermissionDenied, "WRONG_LISTENER"),
    ] {
        let issued = running.federation.issue(identity);
        let channel = running.federation.channel(systems, &issued).await.unwrap();
        assert_refused(&ProbeClient::new(channel).unary("x").await.unwrap_err(), code, why, "consumer");
        let entry = Running::entries(&running.consumer).pop().unwrap();
        assert_recorded(&entry, code, why, Side::Consumer);
        assert_eq!(entry.consumer, identity);
    }

    // At the nodes' listener, as ordinary stubs call.
    let nodes = running.provider.nodes_addr();
    for (identity, code, why) in [
        (DESK, Code::PermissionDenied, "WRONG_LISTENER"),
        (PROBE, Code::PermissionDenied, "WRONG_LISTENER"),
        ("KG/GOV/1/_auditor/inspection", Code::PermissionDenied, "WRONG_LISTENER"),
        ("KG/GOV/1/_node/spare", Code::Unauthenticated, "NOT_IN_DIRECTORY"),
        ("KG/GOV/1/_node/main", Code::InvalidArgument, "INVALID_METADATA"),
    ] {
        let issued = running.federation.issue(identity);
        let channel = running.federation.channel(nodes, &issued).await.unwrap();
        assert_refused(&ProbeClient::new(channel).unary("x").await.unwrap_err(), code, why, "provider");
        let entry = Running::entries(&running.provider).pop().unwrap();
        assert_recorded(&entry, code, why, Side::Provider);
        assert_eq!(
            (entry.consumer.as_str(), entry.service.as_str(), entry.method.as_str()),
            (identity, SERVICE, "Unary")
        );
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_providers_node_refuses_and_both_record() {
    let mut federation = Federation::new();
    federation.grants = [
        grant(DESK, "Unary", "law-1", "rate = { per_second = 1, burst = 1 }"),
        grant(DESK, "Collect", "law-1", ""),
        grant(DESK, "Collect", "law-2", ""),
        grant(DESK, "Expand", "law-1", "until = 2020-01-01"),
        grant(DESK, "Chat", "law-1", "from = 2099-01-01"),
    ]
    .concat();
    federation.outbound = format!("{}{}", allow("desk"), allow("other"));
    let mut running = federation.start("").await;
    let channel = running.desk().await;
    let desk = ProbeClient::new(channel.clone());
    let purpose = ProbeClient::new(channel).with("kopuro-purpose", "law-9");
    let other = running.federation.issue(OTHER);
    let other = ProbeClient::new(running.federation.channel(running.consumer.systems_addr(), &other).await.unwrap());

    expect(&running, other.unary("x").await, Code::PermissionDenied, "GRANT_MISSING").await;
    expect(&running, desk.collect(nothing()).await, Code::FailedPrecondition, "PURPOSE_REQUIRED").await;
    expect(&running, purpose.collect(nothing()).await, Code::FailedPrecondition, "PURPOSE_NOT_ALLOWED").await;
    expect(&running, desk.expand(Some(1)).await, Code::PermissionDenied, "GRANT_EXPIRED").await;
    expect(&running, desk.chat(nothing()).await, Code::PermissionDenied, "GRANT_NOT_YET_VALID").await;

    // One a second: of several at once all but the first are told when to come again.
    let calls = (0..5).map(|_| desk.unary("x"));
    let answers = futures_util::future::join_all(calls).await;
    let limited: Vec<Status> = answers.into_iter().filter_map(Result::err).collect();
    assert!(limited.len() >= 3, "{limited:?}");
    for status in &limited {
        assert_refused(status, Code::ResourceExhausted, "RATE_LIMITED", "provider");
        let details = status.get_error_details();
        let after = details.retry_info().and_then(|info| info.retry_delay).expect("it says when to come again");
        assert!(after <= Duration::from_secs(5), "{after:?}");
    }

    // Another method of a service that is granted.
    running.federation.grants = grant(OTHER, "Collect", "law-1", "");
    let file = running.federation.member_path(PROVIDER, "grants/probe.toml");
    write_whole(&file, running.federation.grants.as_bytes());
    running.provider.reload().await.unwrap();
    expect(&running, other.unary("x").await, Code::PermissionDenied, "METHOD_NOT_GRANTED").await;
    running.stop().await;
}

/// Refused by the provider's node, just now: in its log, and in the consumer's.
async fn expect<T>(running: &Running, answer: Result<T, Status>, code: Code, why: &str) {
    assert_refused(&answer.err().expect("refused"), code, why, "provider");
    let provider = Running::entries(&running.provider).pop().unwrap();
    assert_recorded(&provider, code, why, Side::Provider);
    let mut consumer = Running::entries(&running.consumer);
    consumer.retain(|entry| entry.kind() != Kind::RequestCompleted);
    let [.., asked, answered] = &consumer[..] else { panic!("{}", story(&consumer)) };
    assert_eq!(asked.kind(), Kind::RequestSent);
    let told = (answered.kind(), answered.outcome(), answered.reason.as_str(), answered.side(), answered.grpc_status);
    assert_eq!(told, (Kind::ResponseReceived, Outcome::Refused, why, Side::Provider, code as u32));
    for entry in [asked, answered] {
        assert_eq!(entry.exchange_id, provider.exchange_id);
        assert_eq!((&entry.consumer, &entry.provider), (&provider.consumer, &provider.provider));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_providers_one_must_be_named() {
    let mut federation = Federation::new();
    let second = "KG/GOV/2/second";
    federation.directory.systems.push(kopuro::trust::directory::System { id: second.parse().unwrap() });
    federation.directory.services.push(kopuro::trust::directory::Service {
        name: SERVICE.into(),
        provider: second.parse().unwrap(),
        descriptors: kopuro_digest(&descriptors()),
    });
    federation.directory.sort();
    federation.grants += &grant(DESK, "*", "law-1", "").replace("\"probe\"", "\"second\"");
    let mut running = federation.start("").await;
    let channel = running.desk().await;

    let status = ProbeClient::new(channel.clone()).unary("x").await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "PROVIDER_REQUIRED", "consumer");
    assert!(status.message().contains(PROBE) && status.message().contains(second), "{status:?}");
    assert_recorded(&Running::entries(&running.consumer)[0], status.code(), "PROVIDER_REQUIRED", Side::Consumer);

    ProbeClient::new(channel.clone()).with("kopuro-provider", PROBE).unary("x").await.unwrap();
    // The other is in the directory, and its node's configuration does not say where it listens.
    let status = ProbeClient::new(channel).with("kopuro-provider", second).unary("x").await.unwrap_err();
    assert_refused(&status, Code::Unavailable, "BACKEND_UNREACHABLE", "provider");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_reached_is_named_quickly() {
    let mut running = Running::start().await;
    let desk = ProbeClient::new(running.desk().await);
    let port = running.federation.probe_port;
    // Before a connection to it is pooled.
    let Running { federation, consumer, provider, probe } = running;
    drop(probe);
    tokio::time::timeout(Duration::from_secs(5), async {
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the back-end stops listening");
    let began = Instant::now();
    let status = desk.unary("x").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_refused(&status, Code::Unavailable, "BACKEND_UNREACHABLE", "provider");
    assert!(status.message().contains(PROBE), "{status:?}");
    let entry = Running::entries(&provider).pop().unwrap();
    assert_eq!(
        (entry.kind(), entry.reason.as_str(), entry.side()),
        (Kind::Failed, "BACKEND_UNREACHABLE", Side::Provider)
    );
    let entry = Running::entries(&consumer).pop().unwrap();
    assert_eq!(
        (entry.kind(), entry.outcome(), entry.reason.as_str(), entry.side()),
        (Kind::ResponseReceived, Outcome::Failed, "BACKEND_UNREACHABLE", Side::Provider)
    );

    // The other node: nobody listens.
    provider.stop().await;
    let began = Instant::now();
    let status = desk.unary("x").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_refused(&status, Code::Unavailable, "PEER_UNREACHABLE", "consumer");
    assert!(status.message().contains(PROVIDER), "{status:?}");
    let entry = Running::entries(&consumer).pop().unwrap();
    assert_eq!((entry.kind(), entry.reason.as_str(), entry.side()), (Kind::Failed, "PEER_UNREACHABLE", Side::Consumer));

    // Somebody listens and never answers.
    let silent = std::net::TcpListener::bind(("127.0.0.1", federation.ports[PROVIDER].nodes)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let began = Instant::now();
        let status = desk.unary("x").await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_refused(&status, Code::Unavailable, "PEER_UNREACHABLE", "consumer");
        if status.message().contains("no connection within") {
            break;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(silent);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cannot_replay_or_speak_for_others() {
    let mut running = Running::start().await;
    let node = running.federation.issue("KG/GOV/1/_node/main");
    let mut raw = Raw::connect(&running.federation, running.provider.nodes_addr(), &node).await;
    let own_log = OwnLog::open(running.federation.log_signer(CONSUMER));
    let first = Uuid::now_v7();
    let proof = own_log.proof(&Says::request(first, &frame("x"))).await.to_base64();
    let first = first.to_string();
    let good = [
        ("kopuro-exchange", first.as_str()),
        ("kopuro-consumer", DESK),
        ("kopuro-provider", PROBE),
        ("kopuro-proof-bin", proof.as_str()),
    ];
    let answer = raw.call(UNARY, &good, framed("x")).await.unwrap();
    assert_eq!(answer.status.as_ref().map(Status::code), Some(Code::Ok), "{answer:?}");
    assert!(!answer.body.is_empty());

    let hour_ago = uuid::Builder::from_unix_timestamp_millis(
        u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp() - 3_600).unwrap() * 1_000,
        &[7; 10],
    )
    .into_uuid()
    .to_string();
    let random = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef).to_string();
    let fresh = || Uuid::now_v7().to_string();
    let call = |exchange: &str, consumer: &str, provider: &str| {
        [("kopuro-exchange", exchange), ("kopuro-consumer", consumer), ("kopuro-provider", provider)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    };
    let of_ghost = Uuid::now_v7();
    let says = Says { provider: "KG/GOV/2/ghost".into(), ..Says::request(of_ghost, &frame("x")) };
    let proof = ("kopuro-proof-bin".to_owned(), own_log.proof(&says).await.to_base64());
    let ghost = [call(&of_ghost.to_string(), DESK, "KG/GOV/2/ghost"), vec![proof]].concat();
    let forged = [call(&fresh(), DESK, PROBE), vec![("kopuro-refused".to_owned(), "refused X".to_owned())]].concat();
    let without = |name: &str| call(&fresh(), DESK, PROBE).into_iter().filter(|(n, _)| n != name).collect::<Vec<_>>();
    let json = [call(&fresh(), DESK, PROBE), vec![("content-type".to_owned(), "application/json".to_owned())]].concat();
    let cases = [
        (call(&first, DESK, PROBE), Code::AlreadyExists, "EXCHANGE_ID_REFUSED"),
        (call(&hour_ago, DESK, PROBE), Code::AlreadyExists, "EXCHANGE_ID_REFUSED"),
        (call(&random, DESK, PROBE), Code::InvalidArgument, "INVALID_METADATA"),
        (call("x", DESK, PROBE), Code::InvalidArgument, "INVALID_METADATA"),
        (call(&fresh(), PROBE, PROBE), Code::PermissionDenied, "FOREIGN_CONSUMER"),
        (call(&fresh(), "KG/GOV/3/desk", PROBE), Code::PermissionDenied, "FOREIGN_CONSUMER"),
        (call(&fresh(), "KG/GOV/1/ghost", PROBE), Code::Unauthenticated, "NOT_IN_DIRECTORY"),
        (call(&fresh(), DESK, "KG/GOV/1/other"), Code::NotFound, "PROVIDER_NOT_HERE"),
        (ghost, Code::NotFound, "PROVIDER_UNKNOWN"),
        (without("kopuro-exchange"), Code::InvalidArgument, "INVALID_METADATA"),
        (without("kopuro-consumer"), Code::InvalidArgument, "INVALID_METADATA"),
        (without("kopuro-provider"), Code::InvalidArgument, "INVALID_METADATA"),
        (forged, Code::InvalidArgument, "RESERVED_METADATA"),
        (json, Code::InvalidArgument, "MALFORMED_CALL"),
    ];
    for (headers, code, why) in cases {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let answer = raw.call(UNARY, &headers, framed("x")).await.unwrap();
        assert_refused(answer.status.as_ref().unwrap(), code, why, "provider");
        assert_eq!(answer.headers.get("kopuro-refused").unwrap(), &format!("refused {why}"));
        assert_recorded(&Running::entries(&running.provider).pop().unwrap(), code, why, Side::Provider);
    }
    let seen = &running.probe.seen.calls;
    assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), 1, "the back-end saw the first call only");
    let ids: Vec<_> = Running::entries(&running.provider).into_iter().map(|e| e.exchange_id).collect();
    assert_eq!(ids.iter().filter(|id| **id == ids[0]).count(), 2, "a replay is recorded under an id of the node's own");

    // Nor after a restart.
    let Running { federation, consumer, provider, probe } = running;
    provider.stop().await;
    let config = config::load(&federation.member_path(PROVIDER, "node.toml")).unwrap();
    let provider = Node::start(config).await.unwrap();
    let mut raw = Raw::connect(&federation, provider.nodes_addr(), &node).await;
    let answer = raw.call(UNARY, &good, framed("x")).await.unwrap();
    assert_refused(&answer.status.unwrap(), Code::AlreadyExists, "EXCHANGE_ID_REFUSED", "provider");
    Running { federation, consumer, provider, probe }.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_directory_in_force_nothing_passes() {
    let mut federation = Federation::new();
    let in_force = time::Duration::seconds(4);
    federation.directory.expires = time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + in_force;
    let mut running = federation.start("").await;
    let desk = ProbeClient::new(running.desk().await);
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        match desk.unary("x").await {
            Ok(_) => assert!(Instant::now() < deadline, "an expired directory still counts"),
            Err(status) => break status,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason(&status).unwrap().0, "DIRECTORY_EXPIRED", "{status:?}");

    // A newer one is taken up without a restart.
    running.federation.directory.expires += time::Duration::days(1);
    running.federation.publish_directory();
    for node in [&running.consumer, &running.provider] {
        node.reload().await.unwrap();
    }
    desk.unary("x").await.unwrap();
    running.stop().await;
}

fn nothing() -> futures_util::stream::Iter<std::array::IntoIter<crate::harness::probe::Blob, 1>> {
    futures_util::stream::iter([blob("x")])
}

fn grant(consumer: &str, method: &str, basis: &str, more: &str) -> String {
    format!(
        "[[grant]]\nconsumer = \"{consumer}\"\nprovider = \"probe\"\nservice = \"{SERVICE}\"\nmethods = [\"{method}\"]\n\
         legal_basis = {{ code = \"{basis}\", text = \"Мыйзам\" }}\n{more}\n"
    )
}

fn allow(system: &str) -> String {
    format!("[[allow]]\nsystem = \"{system}\"\nprovider = \"*\"\nservice = \"*\"\nmethods = [\"*\"]\n")
}

fn kopuro_digest(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}
