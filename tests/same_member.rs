//! Two systems of one member call each other through their own node: both sides of the exchange are in its one log, and the outbound
//! list and the grants hold as between members.

use std::sync::atomic::Ordering;

use kopuro::log::entry::{Entry, Kind, Outcome, PrivateFields, Side, Slot};
use prost::Message;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::probe::{Probe, ProbeClient, blob, failure};
use crate::harness::{CLERK, DESK, Federation, REGISTRY, Running, told};

const CARRIED: [(Kind, Outcome, &str); 4] = [
    (Kind::RequestSent, Outcome::Unspecified, ""),
    (Kind::RequestReceived, Outcome::Unspecified, ""),
    (Kind::ResponseSent, Outcome::Ok, ""),
    (Kind::ResponseReceived, Outcome::Ok, ""),
];

async fn start() -> (Running, Probe) {
    let mut federation = Federation::new().with_registry();
    let registry = federation.start_registry().await;
    (federation.start("").await, registry)
}

async fn as_system(running: &mut Running, system: &str) -> ProbeClient {
    let certificate = running.federation.issue(system);
    let channel = running.federation.channel(running.consumer.systems_addr(), &certificate).await.unwrap();
    ProbeClient::new(channel).with("kopuro-provider", REGISTRY)
}

/// The entries after the first `skip`, once there are `count` of them.
async fn next(running: &Running, skip: usize, count: usize) -> Vec<Entry> {
    Running::entries_until(&running.consumer, |entries| entries.len() == skip + count).await.split_off(skip)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_four_kinds_pass_with_four_entries_each() {
    let (mut running, registry) = start().await;
    let desk = as_system(&mut running, DESK).await;

    let answer = desk.clone().with("x-said", "salam").unary("hello").await.unwrap();
    assert_eq!(answer.get_ref().value, "hello");
    assert_eq!(answer.metadata().get("x-heard").unwrap(), "salam");
    let id = answer.metadata().get("kopuro-exchange").unwrap().to_str().unwrap().to_owned();
    let entries = Running::entries(&running.consumer);
    assert_eq!(told(&entries), CARRIED, "all four are there with the answer");
    for entry in &entries {
        assert_eq!(uuid::Uuid::from_slice(&entry.exchange_id).unwrap().to_string(), id);
        assert_eq!((entry.consumer.as_str(), entry.provider.as_str()), (DESK, REGISTRY));
    }
    assert!(entries[1..].iter().all(|entry| entry.legal_basis == "law-2"), "as the grant says");
    let digests: Vec<_> = (0..4).map(|index| private(&running, index, Slot::RequestDigest)).collect();
    assert!(digests[0].is_some() && digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let seen = registry.seen.metadata.lock().unwrap().clone().unwrap();
    for (name, value) in
        [("kopuro-consumer", DESK), ("kopuro-provider", REGISTRY), ("kopuro-exchange", &id), ("x-said", "salam")]
    {
        assert_eq!(seen.get(name).unwrap(), value, "{name}");
    }

    let sum = desk.collect(futures_util::stream::iter((0..10).map(|_| blob("12345")))).await.unwrap();
    assert_eq!(sum.get_ref().value, "50");
    assert_eq!(told(&next(&running, 4, 4).await), CARRIED);

    let mut numbers = desk.expand(Some(500)).await.unwrap().into_inner();
    let mut count = 0;
    while let Some(number) = numbers.message().await.unwrap() {
        assert_eq!(number.value, count.to_string());
        count += 1;
    }
    assert_eq!(count, 500);
    assert_eq!(told(&next(&running, 8, 4).await), CARRIED);

    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut echo = desk.chat(tokio_stream::wrappers::ReceiverStream::new(receiver)).await.unwrap().into_inner();
    for n in 0..20 {
        sender.send(blob(&n.to_string())).await.unwrap();
        assert_eq!(echo.message().await.unwrap().unwrap().value, n.to_string());
    }
    drop(sender);
    assert!(echo.message().await.unwrap().is_none());
    assert_eq!(told(&next(&running, 12, 4).await), CARRIED);

    assert_eq!(registry.seen.calls.load(Ordering::SeqCst), 4);
    assert_eq!(running.probe.seen.calls.load(Ordering::SeqCst), 0);
    assert!(Running::entries(&running.provider).is_empty(), "the other member has no part in it");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outbound_list_and_grants_hold_within_a_member() {
    let (mut running, registry) = start().await;
    // The outbound list lets this one call the other member only.
    let status = as_system(&mut running, "KG/GOV/1/other").await.unary("x").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert_eq!(status.get_error_details().error_info().unwrap().metadata["side"], "consumer");
    let entries = next(&running, 0, 1).await;
    assert_eq!((entries[0].kind(), entries[0].side()), (Kind::Refused, Side::Consumer));
    assert_eq!((entries[0].consumer.as_str(), entries[0].provider.as_str()), ("KG/GOV/1/other", REGISTRY));

    // This one may call, and has no grant.
    let status = as_system(&mut running, CLERK).await.unary("x").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["side"].as_str()), ("GRANT_MISSING", "provider"));
    let entries = next(&running, 1, 3).await;
    assert_eq!(
        told(&entries),
        [
            (Kind::RequestSent, Outcome::Unspecified, ""),
            (Kind::Refused, Outcome::Refused, "GRANT_MISSING"),
            (Kind::ResponseReceived, Outcome::Refused, "GRANT_MISSING"),
        ]
    );
    assert!(
        entries[1..].iter().all(|entry| entry.side() == Side::Provider && entry.exchange_id == entries[0].exchange_id)
    );
    assert_eq!(registry.seen.calls.load(Ordering::SeqCst), 0);

    // Two systems offer the service: the caller must say which.
    let desk = ProbeClient::new(running.desk().await);
    let status = desk.unary("x").await.unwrap_err();
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "PROVIDER_REQUIRED");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_and_cancellation_close_both_sides() {
    let (mut running, registry) = start().await;
    let desk = as_system(&mut running, DESK).await;
    let status = desk.clone().with("x-do", "fail").unary("x").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (failure().code(), failure().message()));
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "PROBE_FAILED");
    let entries = next(&running, 0, 4).await;
    assert!(entries[2..].iter().all(|entry| entry.outcome() == Outcome::Error), "{:?}", told(&entries));

    let hanging = desk.clone().with("x-do", "hang");
    let call = tokio::spawn(async move { hanging.unary("x").await });
    registry.seen.until("the call arrives", |seen| seen.calls.load(Ordering::SeqCst) == 2).await;
    call.abort();
    registry.seen.until("it is cancelled", |seen| seen.cancelled.load(Ordering::SeqCst) == 1).await;
    cancelled(&next(&running, 4, 4).await);

    let mut stream = desk.expand(None).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    drop(stream);
    registry.seen.until("the stream is cancelled", |seen| seen.cancelled.load(Ordering::SeqCst) == 2).await;
    cancelled(&next(&running, 8, 4).await);
    running.stop().await;
}

fn cancelled(entries: &[Entry]) {
    let mut sides: Vec<Side> = entries[2..].iter().map(Entry::side).collect();
    sides.sort();
    assert_eq!(sides, [Side::Consumer, Side::Provider]);
    assert!(
        entries[2..].iter().all(|entry| (entry.kind(), entry.reason.as_str()) == (Kind::Failed, "CANCELLED")),
        "{:?}",
        told(entries)
    );
}

fn private(running: &Running, index: u64, slot: Slot) -> Option<bytes::Bytes> {
    let fields = running.consumer.log().unwrap().read_private(index).unwrap();
    let fields = PrivateFields::decode(&fields[..]).unwrap();
    fields.fields.into_iter().find(|field| field.slot() == slot).map(|field| field.value)
}
