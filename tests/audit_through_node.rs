//! The auditor's view of a running node, on its systems' listener: what an auditor is shown, that each look is logged, who is not let
//! in, and that ordinary gRPC tools and our own command line work there.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use kopuro::log::checkpoint::Checkpoint;
use kopuro::log::entry::{Entry, Kind, Outcome, PrivateFields, Slot};
use kopuro::log::proof;
use kopuro::log::tree::Hash;
use kopuro::proto::kopuro::audit::v1::audit_log_client::AuditLogClient;
use kopuro::proto::kopuro::audit::v1::*;
use prost::Message;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt;

use crate::harness::probe::{ProbeClient, SERVICE};
use crate::harness::{AUDITOR, CLERK, CONSUMER, DESK, MUTE, PROBE, Running, told, write_whole};

const AUDIT: &str = "kopuro.audit.v1.AuditLog";

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("not done in 20 s")
}

async fn as_whom(running: &mut Running, identity: &str) -> Channel {
    let certificate = running.federation.issue(identity);
    running.federation.channel(running.consumer.systems_addr(), &certificate).await.unwrap()
}

fn last_entry(running: &Running) -> Entry {
    Running::entries(&running.consumer).pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_finds_and_proves_what_passed() {
    let mut running = Running::start().await;
    let probe = ProbeClient::new(running.desk().await).with("kopuro-purpose", "law-1");
    let answer = probe.unary("x").await.unwrap();
    let id: uuid::Uuid = answer.metadata().get("kopuro-exchange").unwrap().to_str().unwrap().parse().unwrap();
    probe.clone().with("x-do", "fail").unary("x").await.unwrap_err();
    let clerk = ProbeClient::new(as_whom(&mut running, CLERK).await);
    clerk.unary("x").await.unwrap_err();
    let entries = Running::entries(&running.consumer);
    assert_eq!(entries.len(), 6, "{:?}", told(&entries));

    let mut auditor = AuditLogClient::new(as_whom(&mut running, AUDITOR).await);
    // The index is behind the writer; the answer says how far it reaches.
    let found = within(async {
        loop {
            let request =
                QueryExchangesRequest { order: Order::OldestFirst.into(), ..QueryExchangesRequest::default() };
            let found = auditor.query_exchanges(request).await.unwrap().into_inner();
            if found.indexed_size >= 6 {
                return found.exchanges;
            }
        }
    })
    .await;
    let seen: Vec<_> = found.iter().map(|e| (e.consumer.as_str(), e.provider.as_str(), e.outcome())).collect();
    assert_eq!(seen, [(DESK, PROBE, Outcome::Ok), (DESK, PROBE, Outcome::Error), (CLERK, PROBE, Outcome::Refused)]);
    assert_eq!((found[0].legal_basis.as_str(), found[2].reason.as_str()), ("law-1", "GRANT_MISSING"));

    let look = last_entry(&running);
    assert_eq!((look.kind(), look.outcome(), look.method.as_str()), (Kind::Audit, Outcome::Ok, "QueryExchanges"));
    assert_eq!((look.consumer.as_str(), look.provider.as_str(), look.service.as_str()), (AUDITOR, CONSUMER, AUDIT));
    let log = running.consumer.log().unwrap();
    let fields = PrivateFields::decode(&log.read_private(log.checkpoint().size - 1).unwrap()[..]).unwrap();
    let address = fields.fields.iter().find(|field| field.slot() == Slot::Address).map(|field| &field.value[..]);
    assert_eq!(address, Some(&b"127.0.0.1"[..]), "from where they looked");

    let looks = log.checkpoint().size;
    let request = GetExchangeRequest { exchange_id: Bytes::copy_from_slice(id.as_bytes()) };
    let got = auditor.get_exchange(request).await.unwrap().into_inner();
    assert_eq!(got.exchange.unwrap().indices, [0, 1]);
    let opening = Entry::decode(got.entries[0].entry.clone()).unwrap();
    assert_eq!(opening.exchange_id, id.as_bytes()[..]);

    let request = TailEntriesRequest { from: 0, follow: false };
    let mut tail = auditor.tail_entries(request).await.unwrap().into_inner();
    let mut told_kinds = Vec::new();
    while let Some(entry) = within(tail.message()).await.unwrap() {
        assert_eq!(entry.index, told_kinds.len() as u64);
        told_kinds.push(Entry::decode(entry.entry).unwrap().kind());
    }
    assert_eq!(told_kinds[..2], [Kind::RequestSent, Kind::ResponseReceived]);

    let key = running.federation.log_key(CONSUMER);
    let signed = auditor.get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner();
    let signed = Checkpoint::verify(&signed.checkpoint, key).unwrap();
    let request = GetInclusionProofRequest { index: got.entries[1].index, tree_size: 0 };
    let proved = auditor.get_inclusion_proof(request).await.unwrap().into_inner();
    let latest = Checkpoint::verify(&proved.checkpoint, key).unwrap();
    assert!(latest.size > signed.size);
    assert_eq!(proved.entry, got.entries[1].entry);
    let hash = |bytes: &Bytes| Hash(bytes.as_ref().try_into().unwrap());
    let path: Vec<Hash> = proved.hashes.iter().map(hash).collect();
    proof::verify_inclusion(Hash::of_leaf(&proved.entry), proved.index, latest.size, &path, latest.root).unwrap();
    let request = GetConsistencyProofRequest { old_size: signed.size, new_size: latest.size };
    let proved = auditor.get_consistency_proof(request).await.unwrap().into_inner();
    let path: Vec<Hash> = proved.hashes.iter().map(hash).collect();
    proof::verify_consistency(signed.size, signed.root, latest.size, latest.root, &path).unwrap();

    let stats = auditor.stats(StatsRequest::default()).await.unwrap().into_inner();
    assert_eq!(stats.exchanges, 3);
    assert!(stats.by_pair.iter().any(|count| count.label.contains(DESK) && count.exchanges == 2), "{stats:?}");

    // Every kind of look since, each an entry.
    let after = Running::entries(&running.consumer).split_off(usize::try_from(looks).unwrap());
    let methods: Vec<&str> = after.iter().map(|entry| entry.method.as_str()).collect();
    let asked = ["GetExchange", "TailEntries", "GetCheckpoint", "GetInclusionProof", "GetConsistencyProof", "Stats"];
    assert_eq!(methods, asked);
    assert!(after.iter().all(|entry| entry.kind() == Kind::Audit && entry.consumer == AUDITOR));

    // An auditor looks; it does not ask other members' systems.
    let status = ProbeClient::new(as_whom(&mut running, AUDITOR).await).unary("x").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "WRONG_LISTENER");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_is_no_auditor() {
    let mut running = Running::start().await;
    // Nor is somebody whose certificate says so and whom the directory does not list.
    for who in [DESK, "KG/GOV/1/_auditor/self-appointed"] {
        let mut client = AuditLogClient::new(as_whom(&mut running, who).await);
        let refused = client.query_exchanges(QueryExchangesRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
        let details = refused.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("NOT_AN_AUDITOR", "kopuro"));
        let look = last_entry(&running);
        assert_eq!((look.kind(), look.outcome()), (Kind::Audit, Outcome::Refused));
        assert_eq!((look.reason.as_str(), look.consumer.as_str()), ("NOT_AN_AUDITOR", who));
        let refused = client.tail_entries(TailEntriesRequest { from: 0, follow: true }).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    }
    assert_eq!(Running::entries(&running.consumer).len(), 4);

    // Nodes' listeners know no auditors.
    let auditor = running.federation.issue(AUDITOR);
    let channel = running.federation.channel(running.consumer.nodes_addr(), &auditor).await.unwrap();
    let refused = AuditLogClient::new(channel).get_checkpoint(GetCheckpointRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "WRONG_LISTENER");
    running.stop().await;
}

/// What reflection answers to one question.
async fn reflect(channel: Channel, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    within(answers.message()).await.unwrap().unwrap().message_response.unwrap()
}

async fn services(channel: Channel) -> Vec<String> {
    match reflect(channel, MessageRequest::ListServices(String::new())).await {
        MessageResponse::ListServicesResponse(list) => list.service.into_iter().map(|service| service.name).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_and_health_are_as_ordinary_tools_expect() {
    let mut running = Running::start().await;
    let (desk, mute) = (running.desk().await, as_whom(&mut running, MUTE).await);
    let auditor = as_whom(&mut running, AUDITOR).await;
    let shown = services(desk.clone()).await;
    assert!(shown.contains(&SERVICE.to_owned()) && !shown.contains(&AUDIT.to_owned()), "{shown:?}");
    let shown = services(mute.clone()).await;
    assert!(!shown.contains(&SERVICE.to_owned()) && !shown.contains(&AUDIT.to_owned()), "{shown:?}");
    let shown = services(auditor.clone()).await;
    assert!(!shown.contains(&SERVICE.to_owned()) && shown.contains(&AUDIT.to_owned()), "{shown:?}");

    let symbol = |name: &str| MessageRequest::FileContainingSymbol(name.to_owned());
    let answer = reflect(desk.clone(), symbol("kopuro.test.v1.Probe.Unary")).await;
    assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{answer:?}");
    for (channel, name) in [(mute.clone(), SERVICE), (desk.clone(), AUDIT), (auditor, SERVICE)] {
        match reflect(channel, symbol(name)).await {
            MessageResponse::ErrorResponse(error) => assert_eq!(error.error_code, Code::NotFound as i32),
            other => panic!("{name}: {other:?}"),
        }
    }

    let mut health = HealthClient::new(desk);
    let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    let mut watch = HealthClient::new(mute).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(within(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    drop(watch);
    assert!(Running::entries(&running.consumer).is_empty(), "none of this is an exchange");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_works_with_an_auditors_certificate() {
    let mut running = Running::start().await;
    let answer = ProbeClient::new(running.desk().await).unary("x").await.unwrap();
    let id = answer.metadata().get("kopuro-exchange").unwrap().to_str().unwrap().to_owned();
    let auditor = running.federation.issue(AUDITOR);
    let file = |name: &str| running.federation.path(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (file("auditor.pem"), file("auditor.key"), file("root.pem"));
    write_whole(cert.as_ref(), auditor.cert_pem.as_bytes());
    write_whole(key.as_ref(), auditor.key_pem.as_bytes());
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let node = format!("https://{}", running.consumer.systems_addr());
    let vkey = running.federation.log_key(CONSUMER).to_string();
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kopuro"));
        command.arg("log").args(["--node", &node, "--cert", &cert, "--key", &key, "--ca", &ca]).args(arguments);
        let output = within(command.kill_on_drop(true).output()).await.unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    };
    // Two entries, indexed soon after they are durable.
    let query = within(async {
        loop {
            let answer = run(&["query", "--format", "jsonl"]).await;
            if answer.contains("OK") || answer.contains("ok") {
                return answer;
            }
        }
    })
    .await;
    assert!(query.contains(&id) && query.contains(DESK), "{query}");
    assert!(run(&["show", &id]).await.contains("RESPONSE_RECEIVED"));
    assert!(run(&["stats"]).await.contains(DESK));
    assert!(run(&["verify", "--vkey", &vkey]).await.starts_with("verified: "));
    running.stop().await;
}
