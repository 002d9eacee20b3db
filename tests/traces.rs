//! Traces: W3C Trace Context from a caller through two nodes to a back-end, and OTLP of it to a collector.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use kopuro::telemetry::trace::TraceContext;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use tonic::metadata::MetadataMap;

use crate::harness::collector::{Collector, said};
use crate::harness::probe::ProbeClient;
use crate::harness::process::Process;
use crate::harness::{CONSUMER, DESK, Federation, PROBE, PROVIDER, Running, admin, eventually};

const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const CONSUMERS_NODE: &str = "KG/GOV/1/_node/main";
const PROVIDERS_NODE: &str = "KG/GOV/2/_node/main";

/// What the back-end was told in the last call.
fn told(running: &Running) -> MetadataMap {
    running.probe.seen.metadata.lock().unwrap().clone().unwrap()
}

fn context(metadata: &MetadataMap) -> TraceContext {
    assert_eq!(metadata.get_all("traceparent").iter().count(), 1);
    let text = metadata.get("traceparent").unwrap().as_bytes();
    TraceContext::parse(text).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(text)))
}

fn exporting(collector: &str, more: &str) -> String {
    format!("[telemetry.otlp]\nendpoint = \"http://{collector}\"\ndelay = \"50ms\"\ninterval = \"100ms\"\n{more}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_trace_goes_through_both_nodes() {
    let mut running = Running::start().await;
    let channel = running.desk().await;
    let traced =
        ProbeClient::new(channel.clone()).with("traceparent", VALID).with("tracestate", "congo=t61rcWkgMzE,x=1");
    traced.unary("x").await.unwrap();
    let metadata = told(&running);
    let (came, went) = (TraceContext::parse(VALID.as_bytes()).unwrap(), context(&metadata));
    assert_eq!((went.trace_id, went.flags), (came.trace_id, came.flags));
    assert_ne!(went.parent_id, came.parent_id);
    assert_eq!(metadata.get("tracestate").unwrap(), "congo=t61rcWkgMzE,x=1");
    // Again: another exchange, another span.
    traced.expand(Some(2)).await.unwrap().into_inner().message().await.unwrap().unwrap();
    assert_ne!(context(&told(&running)).parent_id, went.parent_id);

    let invalid = ProbeClient::new(channel.clone())
        .with("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01")
        .with("tracestate", "congo=t61rcWkgMzE");
    for probe in [invalid, ProbeClient::new(channel)] {
        probe.unary("x").await.unwrap();
        let metadata = told(&running);
        assert!(metadata.get("traceparent").is_none() && metadata.get("tracestate").is_none(), "{metadata:?}");
    }
    // The log is of exchanges, not of traces.
    for node in [&running.consumer, &running.provider] {
        for entry in Running::entries(node) {
            let bytes = entry.encode_to_vec();
            assert!(!bytes.windows(16).any(|window| window == came.trace_id));
            assert!(!String::from_utf8_lossy(&bytes).contains("4bf92f3577b34da6"));
        }
    }
    running.stop().await;
}

/// A trace's four spans: of the consumer's node, its leg to the provider's, of that node, its leg to the back-end.
fn four(came: &[(String, Span)], trace_id: Option<&[u8]>) -> Option<[Span; 4]> {
    let find = |node: &str, kind: SpanKind| {
        let mut of = came.iter().filter(|(source, span)| source == node && span.kind == kind as i32);
        of.find(|(_, span)| trace_id.is_none_or(|trace_id| span.trace_id == trace_id)).map(|(_, span)| span.clone())
    };
    Some([
        find(CONSUMERS_NODE, SpanKind::Server)?,
        find(CONSUMERS_NODE, SpanKind::Client)?,
        find(PROVIDERS_NODE, SpanKind::Server)?,
        find(PROVIDERS_NODE, SpanKind::Client)?,
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn both_nodes_spans_are_of_one_trace() {
    let collector = Collector::start().await;
    let mut federation = Federation::new();
    let headers = federation.path("headers");
    std::fs::write(&headers, "authorization: Bearer s3cret\n").unwrap();
    std::fs::set_permissions(&headers, std::fs::Permissions::from_mode(0o600)).unwrap();
    federation.write_files("");
    let mut running =
        federation.start(&exporting(&collector.address.to_string(), "headers = { file = \"../headers\" }\n")).await;
    let answer = ProbeClient::new(running.desk().await)
        .with("kopuro-user", "inspector-7")
        .with("kopuro-subject", "20101199012345")
        .with("kopuro-case", "case-4711")
        .with("kopuro-purpose", "law-1")
        .unary("what-is-asked")
        .await
        .unwrap();
    let id = answer.metadata().get("kopuro-exchange").unwrap().to_str().unwrap().to_owned();
    let spans = collector.until("four spans", |came| four(&came.spans, None)).await;

    // One trace, each the child of the one before; the back-end is told the last.
    let backend = context(&told(&running));
    for (index, span) in spans.iter().enumerate() {
        let parent = index.checked_sub(1).map_or(&[][..], |before| &spans[before].span_id);
        assert_eq!((&span.trace_id[..], &span.parent_span_id[..]), (&backend.trace_id[..], parent), "{span:#?}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        let outer = &spans[index.saturating_sub(1)];
        // Two clocks of one machine, read at different times.
        assert!(span.start_time_unix_nano + 5_000_000 >= outer.start_time_unix_nano, "{span:#?} {outer:#?}");
    }
    assert_eq!(backend.parent_id, spans[3].span_id[..]);

    for span in &spans {
        assert_eq!(span.name, "kopuro.test.v1.Probe/Unary");
        for (key, value) in [
            ("rpc.system.name", "grpc"),
            ("rpc.service", "kopuro.test.v1.Probe"),
            ("rpc.method", "kopuro.test.v1.Probe/Unary"),
            ("rpc.response.status_code", "OK"),
            ("kopuro.exchange_id", id.as_str()),
            ("kopuro.consumer", DESK),
            ("kopuro.provider", PROBE),
        ] {
            assert_eq!(said(&span.attributes, key), Some(value), "{span:#?}");
        }
    }
    for (span, key, value) in [
        (0, "kopuro.outcome", "ok"),
        (0, "kopuro.side", "consumer"),
        (1, "kopuro.hop", "peer"),
        (1, "server.address", "127.0.0.1"),
        (2, "kopuro.side", "provider"),
        (3, "kopuro.hop", "backend"),
    ] {
        assert_eq!(said(&spans[span].attributes, key), Some(value), "{:#?}", spans[span]);
    }

    // A caller's own choice holds: not sampled, nothing is recorded, and what follows is its trace all the same.
    let not_sampled = VALID.replace("-01", "-00");
    let channel = running.desk().await;
    ProbeClient::new(channel.clone()).with("traceparent", &not_sampled).unary("x").await.unwrap();
    assert_eq!(context(&told(&running)).flags, 0);
    // An invalid one is replaced by one that begins here.
    ProbeClient::new(channel.clone()).with("traceparent", "nonsense").unary("x").await.unwrap();
    let begun = context(&told(&running));
    let spans = collector.until("the trace begun", |came| four(&came.spans, Some(&begun.trace_id))).await;
    assert!(spans[0].parent_span_id.is_empty());

    // A refusal of a method that there is not, in a caller's trace.
    let traced = ProbeClient::new(channel).with("traceparent", VALID);
    traced.unary_at("/kopuro.test.v1.Probe/Nonsense", "x").await.unwrap_err();
    let parent = TraceContext::parse(VALID.as_bytes()).unwrap().parent_id;
    let find = |came: &[(String, Span)]| came.iter().find(|(_, span)| span.parent_span_id == parent).cloned();
    let (_, refused) = collector.until("a refusal", |came| find(&came.spans)).await;
    let reason = said(&refused.attributes, "kopuro.reason");
    assert_eq!((refused.name.as_str(), reason), ("_OTHER", Some("METHOD_UNKNOWN")), "{refused:#?}");
    assert_eq!(said(&refused.attributes, "rpc.response.status_code"), Some("UNIMPLEMENTED"));

    // A stream is one span, until its end.
    let mut stream = traced.expand(Some(3)).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    let last = context(&told(&running));
    let ended = |came: &[(String, Span)]| came.iter().any(|(_, span)| span.span_id == last.parent_id);
    collector.until("the stream's spans", |came| ended(&came.spans).then_some(())).await;

    let (bytes, metadata) =
        collector.until("a request", |came| came.metadata.clone().map(|metadata| (came.bytes.clone(), metadata))).await;
    assert_eq!(metadata.get("authorization").unwrap(), "Bearer s3cret");
    let exported = String::from_utf8_lossy(&bytes);
    for personal in ["inspector-7", "20101199012345", "case-4711", "what-is-asked", "Nonsense"] {
        assert!(!exported.contains(personal), "{personal} is exported");
    }

    // Metrics too, under the names that Prometheus has.
    let count = collector.until("metrics", |came| {
        let mut of = came
            .metrics
            .iter()
            .filter(|(source, metric)| source == CONSUMERS_NODE && metric.name == "kopuro_exchanges_total");
        let Some(Data::Sum(sum)) = &of.next()?.1.data else { panic!("no counter") };
        let point = sum.data_points.iter().find(|point| {
            let labels = [("node", CONSUMERS_NODE), ("consumer", CONSUMER), ("provider", PROVIDER), ("outcome", "ok")];
            labels.iter().all(|(key, value)| said(&point.attributes, key) == Some(value))
        })?;
        match point.value {
            Some(Value::AsDouble(count)) => (count >= 4.0).then_some(count),
            ref other => panic!("{other:?}"),
        }
    });
    assert!(count.await >= 4.0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_over_tls_has_to_be_the_one_that_is_meant() {
    let mut federation = Federation::new();
    let collector = Collector::start_secure(&federation.issue(PROBE)).await;
    let (port, root) = (collector.address.port(), federation.path("root.pem"));
    // What vouches for it is the federation's root; what this machine trusts besides does not.
    let more = |roots: &str| {
        format!(
            "[telemetry.otlp]\nendpoint = \"https://localhost:{port}\"\ndelay = \"50ms\"\nmetrics = false\ntimeout = \"500ms\"\n{roots}"
        )
    };
    federation.write_files("");
    federation.write_node(PROVIDER, &more(&format!("roots = \"{}\"\n", root.display())));
    federation.write_node(CONSUMER, &more(""));
    let probe = federation.start_probe().await;
    let (provider, consumer) = (federation.start_node(PROVIDER).await, federation.start_node(CONSUMER).await);
    let desk = federation.issue(DESK);
    let client = ProbeClient::new(federation.channel(consumer.systems_addr(), &desk).await.unwrap());
    client.unary("x").await.unwrap();
    let find = |came: &[(String, Span)]| came.iter().any(|(source, _)| source == PROVIDERS_NODE).then_some(());
    collector.until("the provider's spans", |came| find(&came.spans)).await;
    eventually("the other one says why not", async || {
        let (_, text) = admin(consumer.admin_addr(), "/readyz").await.ok()?;
        text.contains("traces: the collector does not take them").then_some(())
    })
    .await;
    collector
        .until("nothing of the other", |came| came.spans.iter().all(|(of, _)| of == PROVIDERS_NODE).then_some(()))
        .await;
    consumer.stop().await;
    provider.stop().await;
    drop(probe);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_harms_no_exchange() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = exporting(&nobody.to_string(), "queue = 4\ntimeout = \"300ms\"\n");
    let mut running = Federation::new().start(&more).await;
    let probe = ProbeClient::new(running.desk().await);
    for call in 0..300 {
        probe.unary(call.to_string()).await.unwrap();
    }
    assert_eq!(running.probe.seen.calls.load(Ordering::SeqCst), 300);
    let address = running.consumer.admin_addr();
    // Two spans for each exchange, exported never; and what became of each is counted, but for those still on their way.
    let counted = eventually("dropped spans are counted", async || {
        let (_, text) = admin(address, "/metrics").await.ok()?;
        let of = |result: &str| -> Option<f64> {
            let series = format!("kopuro_otlp_spans_total{{node=\"{CONSUMERS_NODE}\",result=\"{result}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series))?.parse().ok()
        };
        let (full, failed, exported) = (of("queue_full")?, of("failed")?, of("exported")?);
        (full > 0.0 && failed > 0.0).then_some((full, failed, exported))
    })
    .await;
    assert!(counted.0 + counted.1 <= 600.0, "{counted:?}");
    eventually("it is told, and the node is ready", async || {
        let (status, text) = admin(address, "/readyz").await.ok()?;
        let told = text.contains("traces: the collector does not take them") && text.contains("Connection refused");
        (status == 200 && told).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_an_exchange_have_its_trace() {
    let mut federation = Federation::new();
    federation.write_files("");
    let probe = federation.start_probe().await;
    let provider = federation.start_node(PROVIDER).await;
    let environment = [("KOPURO_LOG", "info,kopuro::gateway=debug"), ("KOPURO_LOG_FORMAT", "json")];
    let environment = environment.map(|(name, value)| (name, Path::new(value)));
    let consumer = Process::start_with(&federation, CONSUMER, &environment).await;
    let desk = federation.issue(DESK);
    let channel = federation.channel(consumer.systems, &desk).await.unwrap();
    let client = ProbeClient::new(channel).with("kopuro-user", "inspector-7");
    client.unary("untraced").await.unwrap();
    client.with("traceparent", VALID).unary("traced").await.unwrap();

    let ended = eventually("two lines", async || {
        let said = consumer.said();
        let lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let ended: Vec<_> = lines.filter(|line| line["message"] == "exchange ended").collect();
        (ended.len() == 2).then_some(ended)
    })
    .await;
    assert!(ended[0]["span"].is_null() && ended[0]["outcome"] == "ok", "{}", ended[0]);
    let span = &ended[1]["span"];
    assert_eq!(span["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736", "{}", ended[1]);
    assert!(span["span_id"].as_str().is_some_and(|id| id.len() == 16), "{span}");
    assert_eq!((&ended[1]["consumer"], &ended[1]["method"]), (&DESK.into(), &"Unary".into()));
    assert!(!consumer.said().contains("inspector-7"));
    consumer.stop().await;
    provider.stop().await;
    drop(probe);
}
