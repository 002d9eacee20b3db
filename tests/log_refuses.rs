//! No entry, no exchange: where a node's log takes nothing, nothing reaches the back-end, no answer leaves, and the node says so.

use std::sync::atomic::Ordering;
use std::time::Duration;

use kopuro::gateway::Node;
use kopuro::log::entry::{Entry, Kind, Outcome, Side};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::harness::probe::{ProbeClient, blob};
use crate::harness::{CONSUMER, DESK, Federation, PROVIDER, Running, admin, told};

/// More than any disk has.
const VAST: &str = "900000TiB";

fn assert_refused(status: &Status, side: &str) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("LOG_UNAVAILABLE", "kopuro"));
    assert_eq!(info.metadata["side"], side);
}

/// What `grpc.health.v1` says at the systems' listener.
async fn health(federation: &mut Federation, node: &Node, as_whom: &str) -> ServingStatus {
    let certificate = federation.issue(as_whom);
    let channel = federation.channel(node.systems_addr(), &certificate).await.unwrap();
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
    answer.into_inner().status()
}

/// Waits, for at most ten seconds, until the admin listener answers so; gives the text.
async fn admin_until(node: &Node, path: &str, status: u16) -> String {
    let mut last = None;
    for _ in 0..500 {
        let answer = admin(node.admin_addr(), path).await.unwrap();
        if answer.0 == status {
            return answer.1;
        }
        last = Some(answer);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{path} never was {status}: {last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_space_at_the_consumers_nothing_leaves() {
    let mut federation = Federation::new();
    federation.space.insert(CONSUMER.into(), [VAST, VAST]);
    let mut running = federation.start("").await;
    // From its first moment: the node was never ready.
    let (status, reasons) = admin(running.consumer.admin_addr(), "/readyz").await.unwrap();
    assert_eq!(status, 503);
    assert!(reasons.contains("log: ") && reasons.contains("bytes free"), "{reasons}");
    assert_eq!(admin(running.consumer.admin_addr(), "/healthz").await.unwrap().0, 200, "a restart would not help");
    assert_eq!(health(&mut running.federation, &running.consumer, DESK).await, ServingStatus::NotServing);

    let probe = ProbeClient::new(running.desk().await);
    assert_refused(&probe.unary("x").await.unwrap_err(), "consumer");
    assert_refused(&probe.collect(futures_util::stream::iter([blob("x")])).await.unwrap_err(), "consumer");
    assert_refused(&probe.expand(Some(3)).await.unwrap_err(), "consumer");
    assert_refused(&probe.chat(futures_util::stream::iter([blob("x")])).await.unwrap_err(), "consumer");
    // Not even a refusal that has other grounds is told without its entry.
    assert_refused(&probe.unary_at("/no.such.Service/Method", "x").await.unwrap_err(), "consumer");
    assert_eq!(running.probe.seen.calls.load(Ordering::SeqCst), 0);
    assert!(Running::entries(&running.consumer).is_empty() && Running::entries(&running.provider).is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_space_at_the_providers_nothing_reaches_the_back_end() {
    let mut federation = Federation::new();
    federation.space.insert(PROVIDER.into(), [VAST, VAST]);
    let mut running = federation.start("").await;
    admin_until(&running.provider, "/readyz", 503).await;
    assert_eq!(admin(running.consumer.admin_addr(), "/readyz").await.unwrap().0, 200);

    let probe = ProbeClient::new(running.desk().await);
    assert_refused(&probe.unary("x").await.unwrap_err(), "provider");
    assert_refused(&probe.expand(Some(3)).await.unwrap_err(), "provider");
    assert_eq!(running.probe.seen.calls.load(Ordering::SeqCst), 0);
    assert!(Running::entries(&running.provider).is_empty());
    let entries = Running::entries_until(&running.consumer, |entries| entries.len() == 4).await;
    for end in entries.iter().filter(|entry| entry.kind() != Kind::RequestSent) {
        assert_eq!((end.kind(), end.outcome()), (Kind::ResponseReceived, Outcome::Failed), "{:?}", told(&entries));
        assert_eq!((end.reason.as_str(), end.side()), ("LOG_UNAVAILABLE", Side::Provider));
        assert_eq!(end.grpc_status, Code::Unavailable as u32);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn little_space_is_a_warning_and_no_more() {
    let mut federation = Federation::new();
    federation.space.insert(CONSUMER.into(), [VAST, "1MiB"]);
    let mut running = federation.start("").await;
    let (status, reasons) = admin(running.consumer.admin_addr(), "/readyz").await.unwrap();
    assert_eq!(status, 200);
    assert!(reasons.contains("log: ") && reasons.contains("MiB are free"), "{reasons}");
    assert_eq!(health(&mut running.federation, &running.consumer, DESK).await, ServingStatus::Serving);
    ProbeClient::new(running.desk().await).unary("x").await.unwrap();
    assert_eq!(Running::entries(&running.consumer).len(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_entry_fails_at_the_consumers_is_withheld() {
    answer_is_withheld(CONSUMER, "consumer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_entry_fails_at_the_providers_is_withheld() {
    answer_is_withheld(PROVIDER, "provider").await;
}

/// The store of one node fails while a call and a stream are with the back-end.
async fn answer_is_withheld(member: &str, side: &str) {
    let mut running = Federation::new().start("").await;
    let channel = running.desk().await;
    let probe = ProbeClient::new(channel);
    let (to_collect, collected) = tokio::sync::mpsc::channel(1);
    let (to_chat, chatted) = tokio::sync::mpsc::channel(1);
    let collecting = {
        let probe = probe.clone();
        tokio::spawn(async move { probe.collect(tokio_stream::wrappers::ReceiverStream::new(collected)).await })
    };
    let mut chat = probe.chat(tokio_stream::wrappers::ReceiverStream::new(chatted)).await.unwrap().into_inner();
    to_collect.send(blob("12345")).await.unwrap();
    to_chat.send(blob("echo")).await.unwrap();
    assert_eq!(chat.message().await.unwrap().unwrap().value, "echo");
    running.probe.seen.until("both messages arrive", |s| s.messages_received.load(Ordering::SeqCst) == 2).await;

    // As if sled had written a page to a file that it does not sync: no commit can be vouched for.
    let blob_file = running.federation.member_path(member, "data/sled/blobs/0000000000000001");
    std::fs::write(&blob_file, b"page").unwrap();
    drop((to_collect, to_chat));
    let limit = Duration::from_secs(10);
    let answer = tokio::time::timeout(limit, collecting).await.unwrap().unwrap();
    assert_refused(&answer.unwrap_err(), side);
    let end = tokio::time::timeout(limit, chat.message()).await.unwrap();
    assert_refused(&end.unwrap_err(), side);

    // From now on nothing passes, and only a restart helps: the node asks for one.
    let calls = running.probe.seen.calls.load(Ordering::SeqCst);
    assert_eq!(calls, 2);
    assert_refused(&probe.unary("x").await.unwrap_err(), side);
    assert_eq!(running.probe.seen.calls.load(Ordering::SeqCst), calls);
    let node = if member == CONSUMER { &running.consumer } else { &running.provider };
    let reasons = admin_until(node, "/healthz", 503).await;
    assert!(reasons.contains("log: ") && reasons.contains("blob"), "{reasons}");
    admin_until(node, "/readyz", 503).await;
    let as_whom = if member == CONSUMER { DESK } else { "KG/GOV/2/probe" };
    let node = if member == CONSUMER { &running.consumer } else { &running.provider };
    assert_eq!(health(&mut running.federation, node, as_whom).await, ServingStatus::NotServing);
    if member == PROVIDER {
        let is_end = |entry: &&Entry| !matches!(entry.kind(), Kind::RequestSent | Kind::RequestCompleted);
        let three = |entries: &[Entry]| entries.iter().filter(is_end).count() == 3;
        let entries = Running::entries_until(&running.consumer, three).await;
        let ends: Vec<_> = entries.iter().filter(is_end).collect();
        assert!(
            ends.iter().all(|end| (end.outcome(), end.reason.as_str(), end.side())
                == (Outcome::Failed, "LOG_UNAVAILABLE", Side::Provider)),
            "the consumer's log says who failed: {:?}",
            told(&entries)
        );
    }

    std::fs::remove_file(&blob_file).unwrap();
    let Running { mut federation, consumer, provider, probe: backend } = running;
    let (consumer, provider) = if member == CONSUMER {
        consumer.stop().await;
        (federation.start_node(CONSUMER).await, provider)
    } else {
        provider.stop().await;
        (consumer, federation.start_node(PROVIDER).await)
    };
    let desk = federation.issue(DESK);
    let probe = ProbeClient::new(federation.channel(consumer.systems_addr(), &desk).await.unwrap());
    probe.unary("after").await.unwrap();
    let node = if member == CONSUMER { &consumer } else { &provider };
    let entries = Running::entries(node);
    let opened = entries.iter().filter(|e| matches!(e.kind(), Kind::RequestSent | Kind::RequestReceived));
    for open in opened {
        let closed =
            entries.iter().filter(|e| e.exchange_id == open.exchange_id && e.outcome() != Outcome::Unspecified);
        assert_eq!(closed.count(), 1, "{:?}", told(&entries));
    }
    Running { federation, consumer, provider, probe: backend }.stop().await;
}
