//! Promise 2: no proof, no passage. A node that omits, forges, replays or swaps the proof that it has logged what it sends is refused,
//! and so is one whose log has two histories; honest peers go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use kopuro::gateway::Node;
use kopuro::log::checkpoint::Checkpoint;
use kopuro::log::entry::{Kind, Outcome, Slot};
use kopuro::log::entry_proof::EntryProof;
use kopuro::trust::note::Signer;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::harness::probe::ProbeClient;
use crate::harness::proof::{OwnLog, Says, digest};
use crate::harness::raw::{Answered, Raw, frame, framed};
use crate::harness::stand_in::{Answers, Asked, StandIn};
use crate::harness::{
    CONSUMER, Companion, DESK, Federation, PROBE, PROVIDER, Running, admin, eventually, reason, told,
};

const UNARY: &str = "/kopuro.test.v1.Probe/Unary";

/// A call to the provider's node, as the consumer's node makes it.
async fn call(raw: &mut Raw, id: Uuid, proof: Option<&str>, more: &[(&str, &str)], message: &str) -> Answered {
    let id = id.to_string();
    let mut headers = vec![("kopuro-exchange", id.as_str()), ("kopuro-consumer", DESK), ("kopuro-provider", PROBE)];
    headers.extend(proof.map(|proof| ("kopuro-proof-bin", proof)));
    headers.extend(more);
    raw.call(UNARY, &headers, framed(message)).await.unwrap()
}

fn refused(answer: &Answered) -> (Code, String) {
    let status = answer.status.as_ref().unwrap();
    (status.code(), reason(status).map(|(reason, _)| reason).unwrap_or_default())
}

/// What a node's counter says.
async fn counted(node: &Node, series: &str) -> u64 {
    let (_, metrics) = admin(node.admin_addr(), "/metrics").await.unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix(series));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_between_nodes_is_shown_to_be_logged_and_logs_entangle() {
    let mut running = Running::start().await;
    let probe = ProbeClient::new(running.desk().await);
    for _ in 0..3 {
        probe.unary("x").await.unwrap();
    }
    // Each node keeps the checkpoints that the other has shown it; they are of the other's log, and cover the other's entries.
    for (node, of, kind) in
        [(&running.provider, CONSUMER, Kind::RequestReceived), (&running.consumer, PROVIDER, Kind::ResponseReceived)]
    {
        let entries = Running::entries(node);
        let kept: Vec<_> = entries.iter().filter(|entry| entry.kind() == kind).collect();
        assert_eq!(kept.len(), 3);
        let mut last = 0;
        for entry in kept {
            let checkpoint = Checkpoint::verify(&entry.peer_checkpoint, running.federation.log_key(of)).unwrap();
            assert!(checkpoint.size > last, "a later message, a later checkpoint");
            last = checkpoint.size;
        }
    }
    // What they have shown is proven to be of one history.
    for node in [&running.consumer, &running.provider] {
        eventually("the peer's checkpoints are proven", async || {
            let series = r#"kopuro_peer_consistency_proofs_total{node="KG/GOV/1/_node/main",result="proven"}"#;
            (counted(node, series).await > 0).then_some(())
        })
        .await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_proof_that_holds_does_not_pass() {
    let mut running = Running::start().await;
    let companion = Companion::start(ProbeClient::new(running.desk().await));
    // The companion's node is the real one; the liar has a log of its own under that node's key, which nobody has seen yet.
    let mut federation = Federation::new();
    federation.write_files("");
    let _probe = federation.start_probe().await;
    let provider = federation.start_node(PROVIDER).await;
    let node = federation.issue("KG/GOV/1/_node/main");
    let own = OwnLog::open(federation.log_signer(CONSUMER));
    let strange = OwnLog::open(Signer::generate("log.example/KG/GOV/1").unwrap());
    let mut raw = Raw::connect(&federation, provider.nodes_addr(), &node).await;

    // As it should be.
    let (first, message) = (Uuid::now_v7(), frame("x"));
    let good = own.proof(&Says::request(first, &message)).await.to_base64();
    assert_eq!(refused(&call(&mut raw, first, Some(&good), &[], "x").await).0, Code::Ok);

    let id = Uuid::now_v7;
    let says = |id: Uuid| Says::request(id, &message);
    let mut cases: Vec<(&str, Uuid, Option<String>, &str, &str)> = Vec::new();
    cases.push(("no proof", id(), None, "x", "PROOF_MISSING"));
    cases.push(("another exchange's proof", id(), Some(good.clone()), "x", "PROOF_INVALID"));
    for garbage in ["", "!!!", "AAAA"] {
        cases.push(("garbage", id(), Some(garbage.to_owned()), "x", "PROOF_INVALID"));
    }
    let of = id();
    cases.push(("another payload", of, Some(own.proof(&says(of)).await.to_base64()), "another", "PROOF_INVALID"));
    let of = id();
    cases.push(("another log", of, Some(strange.proof(&says(of)).await.to_base64()), "x", "PROOF_INVALID"));
    for (what, alter) in [
        ("another method", Says { method: "Collect".into(), ..says(id()) }),
        ("another consumer", Says { consumer: "KG/GOV/1/clerk".into(), ..says(id()) }),
        ("another provider", Says { provider: "KG/GOV/2/other".into(), ..says(id()) }),
        ("another kind", Says { kind: Kind::RequestReceived, ..says(id()) }),
        ("another basis", Says { basis: "law-9".into(), ..says(id()) }),
        ("no digest", Says { digests: Vec::new(), ..says(id()) }),
    ] {
        cases.push((what, alter.id, Some(own.proof(&alter).await.to_base64()), "x", "PROOF_INVALID"));
    }
    for (what, alter) in [("a rewritten entry", 0), ("another index", 1), ("a broken path", 2), ("a forged root", 3)] {
        let of = id();
        let proof = own.proof(&says(of)).await;
        cases.push((what, of, Some(tampered(&proof, alter)), "x", "PROOF_INVALID"));
    }
    for (what, id, proof, message, why) in cases {
        let answer = call(&mut raw, id, proof.as_deref(), &[], message).await;
        assert_eq!(refused(&answer), (Code::PermissionDenied, why.to_owned()), "{what}: {answer:?}");
        let entry = Running::entries(&provider).pop().unwrap();
        assert_eq!((entry.kind(), entry.reason.as_str()), (Kind::Refused, why), "{what}");
        assert_eq!(entry.exchange_id, id.as_bytes()[..], "{what}");
    }
    // What is said of a person has to be what the entry commits to.
    let of = id();
    let mut with_case = says(of);
    with_case.digests.push((Slot::Case, [b'7'; 32]));
    let proof = own.proof(&with_case).await.to_base64();
    let case = "7".repeat(32);
    let answer = call(&mut raw, of, Some(&proof), &[("kopuro-case", "another")], "x").await;
    assert_eq!(refused(&answer).1, "PROOF_INVALID");
    let of = id();
    let proof = own.proof(&Says { id: of, ..with_case }).await.to_base64();
    assert_eq!(refused(&call(&mut raw, of, Some(&proof), &[("kopuro-case", &case)], "x").await).0, Code::Ok);

    companion.unharmed().await;
    provider.stop().await;
    running.stop().await;
}

/// A proof with something altered: the entry, the index, the path, the checkpoint's root.
fn tampered(proof: &EntryProof, what: u32) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use kopuro::proto::kopuro::log::v1::EntryProof as Wire;
    use prost::Message;
    let mut wire = Wire::decode(Bytes::from(STANDARD_NO_PAD.decode(proof.to_base64()).unwrap())).unwrap();
    match what {
        0 => {
            let mut entry = kopuro::log::entry::Entry::decode(wire.entry).unwrap();
            entry.time_unix_ms += 1;
            wire.entry = entry.encode_to_vec().into();
        }
        1 => wire.index += 1,
        2 => {
            let mut path = wire.path.to_vec();
            path[5] ^= 1;
            wire.path = path.into();
        }
        _ => {
            let root = wire.checkpoint.lines().nth(2).unwrap().to_owned();
            let other = if root.starts_with('A') { "B" } else { "A" };
            wire.checkpoint = wire.checkpoint.replacen(&root, &format!("{other}{}", &root[1..]), 1);
        }
    }
    STANDARD_NO_PAD.encode(wire.encode_to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_request_is_shown_to_be_logged_at_its_end() {
    let mut federation = Federation::new();
    federation.write_files("");
    let probe = federation.start_probe().await;
    let provider = federation.start_node(PROVIDER).await;
    let node = federation.issue("KG/GOV/1/_node/main");
    let own = OwnLog::open(federation.log_signer(CONSUMER));
    let mut raw = Raw::connect(&federation, provider.nodes_addr(), &node).await;
    let message = frame("x");
    for (what, completed, code) in [
        ("as it should be", Some(digest(&message)), Code::Ok),
        ("another digest", Some([7; 32]), Code::PermissionDenied),
        ("none", None, Code::PermissionDenied),
    ] {
        let id = Uuid::now_v7();
        let opening = Says { method: "Collect".into(), digests: Vec::new(), ..Says::request(id, &message) };
        let proof = own.proof(&opening).await.to_base64();
        let mut trailers = HeaderMap::new();
        if let Some(digest) = completed {
            let digests = vec![(Slot::RequestDigest, digest)];
            let says = Says { kind: Kind::RequestCompleted, digests, ..opening.clone() };
            insert(&mut trailers, "kopuro-proof-bin", &own.proof(&says).await.to_base64());
        }
        let id = id.to_string();
        let headers = [
            ("kopuro-exchange", id.as_str()),
            ("kopuro-consumer", DESK),
            ("kopuro-provider", PROBE),
            ("kopuro-proof-bin", proof.as_str()),
        ];
        let body = crate::harness::raw::with_trailers(message.clone(), trailers);
        let answer = raw.call("/kopuro.test.v1.Probe/Collect", &headers, body).await.unwrap();
        assert_eq!(answer.status.as_ref().map(Status::code), Some(code), "{what}: {answer:?}");
        let entry = Running::entries(&provider).pop().unwrap();
        let kind = if code == Code::Ok { Kind::ResponseSent } else { Kind::Failed };
        assert_eq!(entry.kind(), kind, "{what}");
    }
    drop(probe);
    provider.stop().await;
}

/// How a dishonest provider's node answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    None,
    NoProof,
    OtherPayload,
    OtherRequest,
    OtherStatus,
    OtherExchange,
    OtherKind,
    OtherLog,
    RefusalUnshown,
    FailureWithPayload,
    FailureThatIsOk,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_proof_that_holds_is_withheld() {
    let mut federation = Federation::new();
    federation.write_files("");
    let consumer = federation.start_node(CONSUMER).await;
    let own = Arc::new(OwnLog::open(federation.log_signer(PROVIDER)));
    let strange = Arc::new(OwnLog::open(Signer::generate("log.example/KG/GOV/2").unwrap()));
    let lie = Arc::new(std::sync::Mutex::new(Lie::None));
    let answering = {
        let lie = lie.clone();
        Arc::new(move |asked: Asked| {
            let (own, strange, lie) = (own.clone(), strange.clone(), *lie.lock().unwrap());
            let future: futures_util::future::BoxFuture<'static, Answers> =
                Box::pin(async move { lying(&own, &strange, lie, &asked).await });
            future
        })
    };
    let _stand_in = StandIn::start(&mut federation, answering).await;
    let desk = federation.issue(DESK);
    let probe = ProbeClient::new(federation.channel(consumer.systems_addr(), &desk).await.unwrap());

    assert_eq!(&probe.unary("x").await.unwrap().into_inner().value[..], b"secret");
    for (what, why) in [
        (Lie::NoProof, "PROOF_MISSING"),
        (Lie::OtherPayload, "PROOF_INVALID"),
        (Lie::OtherRequest, "PROOF_INVALID"),
        (Lie::OtherStatus, "PROOF_INVALID"),
        (Lie::OtherExchange, "PROOF_INVALID"),
        (Lie::OtherKind, "PROOF_INVALID"),
        (Lie::OtherLog, "PROOF_INVALID"),
        (Lie::RefusalUnshown, "PROOF_MISSING"),
        (Lie::FailureWithPayload, "PROOF_INVALID"),
        (Lie::FailureThatIsOk, "PROOF_INVALID"),
    ] {
        *lie.lock().unwrap() = what;
        let status = probe.unary("x").await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{what:?}: {status:?}");
        assert_eq!(reason(&status).unwrap(), (why.to_owned(), "consumer".to_owned()), "{what:?}");
        let entries = Running::entries(&consumer);
        let entry = entries.last().unwrap();
        assert_eq!(
            (entry.kind(), entry.outcome(), entry.reason.as_str()),
            (Kind::Failed, Outcome::Failed, why),
            "{what:?}"
        );
    }
    // A node that cannot write its log cannot prove that it says so; its word passes as this node's, and nothing with it.
    *lie.lock().unwrap() = Lie::None;
    assert_eq!(
        &probe.unary("x").await.unwrap().into_inner().value[..],
        b"secret",
        "{}",
        told(&Running::entries(&consumer)).len()
    );
    // Operators learn which peer it was.
    for (why, times) in [("PROOF_MISSING", 2), ("PROOF_INVALID", 8)] {
        let labels = r#"node="KG/GOV/1/_node/main",peer="KG/GOV/2/_node/main""#;
        let series = format!("kopuro_peer_misbehaviour_total{{{labels},reason=\"{why}\"}}");
        let count = counted(&consumer, &series).await;
        assert!(count >= times, "{series} {count}");
    }
    consumer.stop().await;
}

async fn lying(own: &OwnLog, strange: &OwnLog, lie: Lie, asked: &Asked) -> Answers {
    let secret = frame("secret");
    let mut headers = HeaderMap::new();
    let mut trailers = HeaderMap::new();
    if asked.path != UNARY {
        insert(&mut headers, "grpc-status", "12");
        return Answers { headers, ..Answers::default() };
    }
    let mut says = Says {
        kind: Kind::ResponseSent,
        digests: vec![(Slot::RequestDigest, digest(&asked.body)), (Slot::ResponseDigest, digest(&secret))],
        ..Says::request(asked.exchange(), &asked.body)
    };
    says.outcome = Outcome::Ok;
    match lie {
        Lie::OtherPayload => says.digests[1].1 = digest(&frame("another")),
        Lie::OtherRequest => says.digests[0].1 = digest(&frame("another")),
        Lie::OtherStatus => says.grpc_status = 5,
        Lie::OtherExchange => says.id = Uuid::now_v7(),
        Lie::OtherKind => says.kind = Kind::RequestReceived,
        // A failure commits to no payload, so none may come with it.
        Lie::FailureWithPayload | Lie::FailureThatIsOk => {
            let status = if lie == Lie::FailureWithPayload { 14 } else { 0 };
            (says.kind, says.outcome, says.grpc_status) = (Kind::Failed, Outcome::Failed, status);
            says.reason = "BACKEND_UNREACHABLE".into();
        }
        _ => {}
    }
    let log = if lie == Lie::OtherLog { strange } else { own };
    let proof = log.proof(&says).await.to_base64();
    if !matches!(lie, Lie::NoProof | Lie::RefusalUnshown) {
        insert(&mut headers, "kopuro-proof-bin", &proof);
    }
    if lie == Lie::RefusalUnshown {
        insert(&mut headers, "grpc-status", "7");
        insert(&mut headers, "kopuro-refused", "refused GRANT_MISSING");
        return Answers { headers, ..Answers::default() };
    }
    insert(&mut trailers, "grpc-status", if lie == Lie::FailureWithPayload { "14" } else { "0" });
    if matches!(lie, Lie::FailureWithPayload | Lie::FailureThatIsOk) {
        insert(&mut trailers, "kopuro-refused", "failed BACKEND_UNREACHABLE");
    }
    Answers { headers, body: secret, trailers }
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_two_histories_is_evidence_and_its_node_is_refused() {
    let mut federation = Federation::new();
    federation.write_files("");
    let probe = federation.start_probe().await;
    let provider = federation.start_node(PROVIDER).await;
    let node = federation.issue("KG/GOV/1/_node/main");
    let [one, other] = [0; 2].map(|_| OwnLog::open(federation.log_signer(CONSUMER)));
    let mut raw = Raw::connect(&federation, provider.nodes_addr(), &node).await;
    let message = frame("x");
    let first = Uuid::now_v7();
    let proof = one.proof(&Says::request(first, &message)).await.to_base64();
    assert_eq!(refused(&call(&mut raw, first, Some(&proof), &[], "x").await).0, Code::Ok);
    // The same size, another entry.
    for log in [&other, &one] {
        let id = Uuid::now_v7();
        let proof = log.proof(&Says::request(id, &message)).await.to_base64();
        let answer = call(&mut raw, id, Some(&proof), &[], "x").await;
        assert_eq!(refused(&answer), (Code::PermissionDenied, "PEER_LOG_CONTRADICTS".to_owned()), "{answer:?}");
    }
    assert_eq!(probe.seen.calls.load(Ordering::SeqCst), 1);

    // It says so: in its log, with both checkpoints; in health and metrics; on disk.
    let entries =
        Running::entries_until(&provider, |entries| entries.iter().any(|entry| entry.kind() == Kind::Evidence)).await;
    let evidence = entries.iter().find(|entry| entry.kind() == Kind::Evidence).unwrap();
    assert_eq!((evidence.provider.as_str(), evidence.reason.as_str()), ("KG/GOV/1/_node/main", "PEER_LOG_CONTRADICTS"));
    let key = federation.log_key(CONSUMER);
    let [a, b] =
        [&evidence.peer_checkpoint, &evidence.other_peer_checkpoint].map(|note| Checkpoint::verify(note, key).unwrap());
    assert!(a.size == b.size && a.root != b.root);
    eventually("health tells", async || {
        let (status, text) = admin(provider.admin_addr(), "/readyz").await.unwrap();
        (status == 200 && text.contains("KG/GOV/1/_node/main")).then_some(())
    })
    .await;
    let files: Vec<_> = std::fs::read_dir(federation.member_path(PROVIDER, "data/peers")).unwrap().collect();
    assert!(files.iter().flatten().any(|file| file.path().extension().is_some_and(|kind| kind == "evidence")));

    // After a restart too.
    provider.stop().await;
    let provider = federation.start_node(PROVIDER).await;
    let mut raw = Raw::connect(&federation, provider.nodes_addr(), &node).await;
    let id = Uuid::now_v7();
    let proof = one.proof(&Says::request(id, &message)).await.to_base64();
    assert_eq!(refused(&call(&mut raw, id, Some(&proof), &[], "x").await).1, "PEER_LOG_CONTRADICTS");
    provider.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_log_of_another_size_is_found_out_by_asking() {
    let mut running = Running::start().await;
    let desk = ProbeClient::new(running.desk().await);
    desk.unary("x").await.unwrap();
    // Somebody with the consumer's keys shows a log that the running node's does not continue: that node, asked, proves otherwise.
    let node = running.federation.issue("KG/GOV/1/_node/main");
    let own = OwnLog::open(running.federation.log_signer(CONSUMER));
    let mut raw = Raw::connect(&running.federation, running.provider.nodes_addr(), &node).await;
    for _ in 0..5 {
        own.proof(&Says::request(Uuid::now_v7(), &frame("x"))).await;
    }
    for _ in 0..8 {
        desk.unary("x").await.unwrap();
    }
    let id = Uuid::now_v7();
    let proof = own.proof(&Says::request(id, &frame("x"))).await.to_base64();
    // Until the answer is there it passes; then no more, and never again.
    call(&mut raw, id, Some(&proof), &[], "x").await;
    let why = eventually("the contradiction is found", async || {
        let status = desk.unary("x").await.err()?;
        reason(&status).map(|(reason, _)| reason)
    })
    .await;
    assert_eq!(why, "PEER_LOG_CONTRADICTS");
    Running::entries_until(&running.provider, |entries| entries.iter().any(|entry| entry.kind() == Kind::Evidence))
        .await;
    running.stop().await;
}
