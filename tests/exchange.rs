//! The bridge carries: all four kinds of call through two nodes, with what gRPC promises of each, and what both logs say of them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kopuro::log::entry::{Kind, Outcome, Side};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::probe::{ProbeClient, blob, noise};
use crate::harness::{DESK, Federation, PROBE, Running, told};

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_call_is_in_both_logs_before_it_is_answered() {
    let mut running = Running::start().await;
    let probe = ProbeClient::new(running.desk().await)
        .with("x-said", "salam")
        .with_bin("x-said-bin", &[0, 255, 7])
        .with("kopuro-user", "inspector-7")
        .with("kopuro-purpose", "law-1");
    let answer = probe.unary("hello").await.unwrap();

    // Both closing entries are there the moment the caller has its answer.
    let consumer = Running::entries(&running.consumer);
    let provider = Running::entries(&running.provider);
    assert_eq!(
        told(&consumer),
        [(Kind::RequestSent, Outcome::Unspecified, ""), (Kind::ResponseReceived, Outcome::Ok, "")]
    );
    assert_eq!(
        told(&provider),
        [(Kind::RequestReceived, Outcome::Unspecified, ""), (Kind::ResponseSent, Outcome::Ok, "")]
    );
    let id = answer.metadata().get("kopuro-exchange").unwrap().to_str().unwrap();
    for entry in consumer.iter().chain(&provider) {
        assert_eq!(uuid::Uuid::from_slice(&entry.exchange_id).unwrap().to_string(), id);
        assert_eq!((entry.consumer.as_str(), entry.provider.as_str()), (DESK, PROBE));
        assert_eq!((entry.service.as_str(), entry.method.as_str()), ("kopuro.test.v1.Probe", "Unary"));
        assert_eq!(entry.legal_basis, "law-1");
        assert_eq!(entry.commitment.len(), 32);
    }

    assert_eq!(&answer.get_ref().value[..], b"hello");
    assert_eq!(answer.metadata().get("x-heard").unwrap(), "salam");
    assert_eq!(answer.metadata().get_bin("x-heard-bin").unwrap().to_bytes().unwrap(), &[0u8, 255, 7][..]);
    assert!(answer.metadata().get("kopuro-refused").is_none(), "a back-end cannot speak for the gateway");

    // What the back-end was told.
    let seen = running.probe.seen.metadata.lock().unwrap().clone().unwrap();
    for (name, value) in [
        ("kopuro-consumer", DESK),
        ("kopuro-provider", PROBE),
        ("kopuro-purpose", "law-1"),
        ("kopuro-user", "inspector-7"),
        ("kopuro-exchange", id),
        ("x-said", "salam"),
    ] {
        assert_eq!(seen.get(name).unwrap(), value, "{name}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_flow_both_ways() {
    let mut running = Running::start().await;
    let probe = ProbeClient::new(running.desk().await);

    let sum = probe.collect(futures_util::stream::iter((0..100).map(|_| blob("12345")))).await.unwrap();
    assert_eq!(&sum.get_ref().value[..], b"500");

    let mut numbers = probe.expand(Some(1_000)).await.unwrap().into_inner();
    let mut count = 0;
    while let Some(number) = numbers.message().await.unwrap() {
        assert_eq!(number.value, count.to_string());
        count += 1;
    }
    assert_eq!(count, 1_000);
    assert_eq!(numbers.trailers().await.unwrap().unwrap_or_default().get("kopuro-refused"), None);

    // Ping-pong: each side waits for the other, so nothing may be held back.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut echo = probe.chat(tokio_stream::wrappers::ReceiverStream::new(receiver)).await.unwrap().into_inner();
    for n in 0..50 {
        sender.send(blob(&n.to_string())).await.unwrap();
        assert_eq!(echo.message().await.unwrap().unwrap().value, n.to_string());
    }
    drop(sender);
    assert!(echo.message().await.unwrap().is_none());

    // Two streamed requests ran to their end: the consumer's node says so of both.
    for (node, count) in [(&running.consumer, 8), (&running.provider, 6)] {
        let entries = Running::entries_until(node, |entries| entries.len() == count).await;
        let completed = entries.iter().filter(|entry| entry.kind() == Kind::RequestCompleted).count();
        assert_eq!(completed, count - 6, "{:?}", told(&entries));
        assert!(entries.iter().filter(|e| e.outcome() == Outcome::Ok).count() == 3, "{:?}", told(&entries));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_keep_their_details_and_trailers() {
    let mut running = Running::start().await;
    let probe = ProbeClient::new(running.desk().await).with("x-do", "fail");
    let mut failed = vec![
        probe.unary("x").await.unwrap_err(),
        probe.collect(futures_util::stream::iter([blob("x")])).await.unwrap_err(),
    ];
    let mut stream = probe.expand(Some(3)).await.unwrap().into_inner();
    for _ in 0..3 {
        stream.message().await.unwrap().unwrap();
    }
    failed.push(stream.message().await.unwrap_err());
    for status in &failed {
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "asked to fail: ката"));
        assert_eq!(status.metadata().get("x-trailer").unwrap(), "kept");
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "PROBE_FAILED");
        assert_eq!(details.localized_message().unwrap().message, "Ката кетти");
    }
    for (node, count) in [(&running.consumer, 7), (&running.provider, 6)] {
        let entries = Running::entries_until(node, |e| e.len() == count).await;
        let closing: Vec<_> = entries.iter().filter(|e| e.outcome() == Outcome::Error).collect();
        assert_eq!(closing.len(), 3);
        assert!(closing.iter().all(|e| e.grpc_status == Code::FailedPrecondition as u32 && e.reason.is_empty()));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_shortened_passed_on_and_enforced() {
    let mut running = Running::start().await;
    let channel = running.desk().await;
    let probe = ProbeClient::new(channel.clone()).with("x-do", "slow").timeout(Duration::from_secs(5));
    probe.unary("x").await.unwrap();
    let told_to_backend = running.probe.seen.metadata.lock().unwrap().clone().unwrap();
    let left =
        told_to_backend.get("grpc-timeout").unwrap().to_str().unwrap().trim_end_matches('u').parse::<u64>().unwrap();
    assert!((3_000_000..5_000_000).contains(&left), "{left} µs");

    running.stop().await;

    // tonic's client cuts a call itself at its own deadline; without one, the nodes' limits are the deadline they enforce.
    let limits = "[limits]\nunary_timeout = \"300ms\"\nstream_timeout = \"600ms\"\n";
    let mut running = Federation::new().start(limits).await;
    let hanging = ProbeClient::new(running.desk().await).with("x-do", "hang");
    let began = Instant::now();
    let status = hanging.unary("x").await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(began.elapsed() < Duration::from_secs(3));
    running.probe.seen.until("the call is cancelled", |seen| seen.cancelled.load(Ordering::SeqCst) == 1).await;

    let mut stream = hanging.expand(Some(2)).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    stream.message().await.unwrap().unwrap();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::DeadlineExceeded);

    let entries = Running::entries_until(&running.consumer, |e| e.len() == 4).await;
    assert_eq!(entries.iter().filter(|e| e.reason == "DEADLINE_EXCEEDED" && e.outcome() == Outcome::Failed).count(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_ends_at_the_back_end_and_is_closed_in_both_logs() {
    let mut running = Running::start().await;
    let channel = running.desk().await;
    let hanging = ProbeClient::new(channel.clone()).with("x-do", "hang");
    let call = tokio::spawn(async move { hanging.unary("x").await });
    running.probe.seen.until("the call arrives", |seen| seen.calls.load(Ordering::SeqCst) == 1).await;
    call.abort();
    running.probe.seen.until("it is cancelled", |seen| seen.cancelled.load(Ordering::SeqCst) == 1).await;

    let mut stream = ProbeClient::new(channel).expand(None).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    drop(stream);
    running.probe.seen.until("the stream is cancelled", |seen| seen.cancelled.load(Ordering::SeqCst) == 2).await;

    for node in [&running.consumer, &running.provider] {
        let entries = Running::entries_until(node, |e| e.len() == 4).await;
        let closed: Vec<_> = entries.iter().filter(|e| e.kind() == Kind::Failed).collect();
        assert_eq!(closed.len(), 2, "{:?}", told(&entries));
        assert!(closed.iter().all(|e| e.reason == "CANCELLED" && e.grpc_status == Code::Cancelled as u32));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_up_to_the_limit_and_no_further() {
    let mut running = Running::start().await;
    let channel = running.desk().await;
    let probe = ProbeClient::new(channel.clone());
    let three = vec![5u8; 3 << 20];
    assert_eq!(probe.unary(three.clone()).await.unwrap().get_ref().value, three);
    let gzip = ProbeClient::new(channel.clone()).gzip();
    assert_eq!(gzip.unary(three.clone()).await.unwrap().get_ref().value, three);

    let status = probe.unary(vec![5u8; 5 << 20]).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str(), info.metadata["side"].as_str()),
        ("MESSAGE_TOO_LARGE", "kopuro", "consumer")
    );

    let status = ProbeClient::new(channel.clone()).with("x-do", "big").unary((5 << 20).to_string()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(status.get_error_details().error_info().unwrap().metadata["side"], "provider");

    let status = probe.collect(futures_util::stream::iter([blob("a"), noise(5 << 20)])).await.unwrap_err();
    assert_eq!(
        status.get_error_details().error_info().map(|i| i.reason.clone()).as_deref(),
        Some("MESSAGE_TOO_LARGE"),
        "{status:?}"
    );
    // The connection and the nodes are as good as before.
    probe.unary("after").await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_tiny_messages_slows_its_writer_and_harms_nobody() {
    let mut running = Running::start().await;
    let channel = running.desk().await;
    let probe = ProbeClient::new(channel.clone());
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut stream = probe.expand(None).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        stalled.push(stream);
    }
    // The writers come to rest: backpressure reached them through both nodes.
    let seen = running.probe.seen.clone();
    let mut last = 0;
    let mut still = 0;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = seen.messages_sent.load(Ordering::SeqCst);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        if still == 10 {
            break;
        }
    }
    assert_eq!(still, 10, "the writers were never stopped: {last} messages");
    // Others between the same nodes, on the same connections, go on.
    let other = ProbeClient::new(running.desk().await);
    for _ in 0..50 {
        other.unary("x").await.unwrap();
    }
    // And the stalled ones, when they read again.
    for stream in &mut stalled {
        for n in 0..2_000 {
            let next = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
            next.unwrap_or_else(|_| panic!("stuck at message {n}")).unwrap().unwrap();
        }
    }
    drop(stalled);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_at_once_on_one_connection() {
    let mut running = Running::start().await;
    let probe = ProbeClient::new(running.desk().await);
    let calls = (0..1_000).map(|n: u32| {
        let probe = probe.clone();
        async move { assert_eq!(probe.unary(n.to_string()).await.unwrap().get_ref().value, n.to_string()) }
    });
    futures_util::stream::iter(calls).buffer_unordered(1_000).collect::<Vec<()>>().await;
    assert_eq!(Running::entries(&running.consumer).len(), 2_000);
    assert_eq!(Running::entries(&running.provider).len(), 2_000);
    let sides: Vec<_> = Running::entries(&running.provider).iter().map(|e| e.side()).collect();
    assert!(sides.iter().all(|side| *side == Side::Unspecified));
    running.stop().await;
}
