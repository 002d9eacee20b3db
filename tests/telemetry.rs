//! Health and metrics as operators get them: over a socket.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kopuro::telemetry::metrics::{ALL, Kind, Listener, NodeMetrics, Stage, When, install};
use kopuro::telemetry::{Health, Status, admin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::harness::collector::Collector;
use crate::harness::probe::ProbeClient;
use crate::harness::process::Process;
use crate::harness::{CONSUMER, DESK, Federation, PROVIDER, admin as ask};

async fn get(address: std::net::SocketAddr, path: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let handle = install().unwrap();
    assert!(install().is_ok(), "several nodes in one process share the recorder");
    let health = Health::starting();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(admin::serve(listener, handle, health.clone(), async { drop(stopped.await) }));

    assert!(get(address, "/healthz", "*/*").await.starts_with("HTTP/1.1 200"));
    let starting = get(address, "/readyz", "*/*").await;
    assert!(starting.starts_with("HTTP/1.1 503") && starting.contains("node: starting"), "{starting}");

    let mut followed = health.subscribe();
    health.set(Health::NODE, Status::Ok);
    health.set("log", Status::Warning("2 GiB free".into()));
    assert!(followed.has_changed().unwrap() && followed.borrow_and_update().is_ready());
    health.set("log", Status::Warning("2 GiB free".into()));
    assert!(!followed.has_changed().unwrap(), "the same again is no change");
    let ready = get(address, "/readyz", "application/json").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(ready.ends_with(r#"{"conditions":{"log":"2 GiB free"},"ok":true}"#), "{ready}");

    health.set("log", Status::NotReady("disk full".into()));
    assert!(get(address, "/readyz", "*/*").await.contains("log: disk full"));
    assert!(get(address, "/healthz", "*/*").await.starts_with("HTTP/1.1 200"));
    health.set("log", Status::Dead("entries lost".into()));
    assert!(get(address, "/healthz", "*/*").await.starts_with("HTTP/1.1 503"));

    let metrics = NodeMetrics::new("KG/GOV/5/_node/main");
    metrics.stage(Stage::Durable, Duration::from_micros(300));
    metrics.exchange_ended(&"KG/GOV/6".parse().unwrap(), &"KG/GOV/5".parse().unwrap(), "ok");
    metrics.refused("provider", "GRANT_MISSING");
    metrics.connections(Listener::Systems).increment(1.0);
    let text = get(address, "/metrics", "*/*").await;
    for line in [
        r#"kopuro_stage_seconds_bucket{node="KG/GOV/5/_node/main",stage="durable",le="0.0005"} 1"#,
        r#"kopuro_exchanges_total{node="KG/GOV/5/_node/main",consumer="KG/GOV/6",provider="KG/GOV/5",outcome="ok"} 1"#,
        r#"kopuro_refused_total{node="KG/GOV/5/_node/main",side="provider",reason="GRANT_MISSING"} 1"#,
        r#"kopuro_connections{node="KG/GOV/5/_node/main",listener="systems"} 1"#,
        "# HELP kopuro_exchanges_total Exchanges that ended at this node",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }

    assert!(get(address, "/nothing", "*/*").await.starts_with("HTTP/1.1 404"));
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), serving).await.expect("it stops").unwrap();
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(admin::serve(listener, install().unwrap(), Health::starting(), std::future::pending()));
    let long = "x".repeat(64 << 10);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nhost: node\r\nx-long: {long}\r\n\r\n");
    // The server may close before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert!(get(address, "/healthz", "*/*").await.starts_with("HTTP/1.1 200"), "others are still answered");
    serving.abort();
}

/// A running demo's node, by the command that an operator types.
#[test]
fn a_node_at_a_glance() {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let demo = crate::harness::demo::StandingDemo::start(&folder.path().join("demo"), 80);
    let config = folder.path().join("demo/registry/node.toml");
    let status = |json: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kopuro"));
        command.arg("status").args(json).arg("--config").arg(&config).output().unwrap()
    };
    let output = status(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for expected in [
        "KG/GOV/70000001/_node/main  ready",
        "entries, root ",
        "published ",
        "KG/GOV/70000002/_node/main",
        "last refusals",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let told: serde_json::Value = serde_json::from_slice(&status(&["--json"]).stdout).unwrap();
    assert_eq!((told["ready"].as_bool(), told["peers"].as_array().map(Vec::len)), (Some(true), Some(3)), "{told}");
    assert!(told["log"]["entries"].as_u64().unwrap() > 100 && told["refusals"][0]["reason"].is_string(), "{told}");
    // Nothing changes while nobody changes anything: what was opened for the exchanges stays open.
    assert!(told["backends"][0]["connections"].as_u64().unwrap() > 0, "{told}");
    demo.interrupt();
    let gone = status(&[]);
    assert!(!gone.status.success() && String::from_utf8_lossy(&gone.stderr).contains("is the node running?"));
}

/// The first cell of every row of operators' table: what they are promised.
fn documented() -> BTreeSet<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operate.md");
    let text = std::fs::read_to_string(path).unwrap();
    let cells = text.lines().filter(|line| line.starts_with("| `kopuro_")).filter_map(|line| line.split('|').nth(1));
    cells.flat_map(|cell| cell.split(',')).map(|name| name.trim().trim_matches('`').to_owned()).collect()
}

/// Names and kinds of what is told, and which of it has a help text.
fn told(text: &str) -> (BTreeMap<&str, &str>, BTreeSet<&str>) {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let helped = text.lines().filter_map(|line| Some(line.strip_prefix("# HELP ")?.split_once(' ')?.0)).collect();
    (kinds, helped)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_documents_promise_is_what_nodes_tell() {
    let names: BTreeSet<String> = ALL.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(documented(), names, "docs/operate.md, and src/telemetry/metrics/told.rs");

    // Processes of their own: in this one, others' nodes and witnesses tell theirs.
    let collector = Collector::start().await;
    let mut federation = Federation::new();
    federation.write_files(&format!(
        "[publish]\nstore = \"public\"\n[telemetry.otlp]\nendpoint = \"http://{}\"\ndelay = \"50ms\"\n",
        collector.address
    ));
    let probe = federation.start_probe().await;
    let nodes = [Process::start(&federation, PROVIDER).await, Process::start(&federation, CONSUMER).await];
    let desk = federation.issue(DESK);
    let client = ProbeClient::new(federation.channel(nodes[1].systems, &desk).await.unwrap());
    client.unary("x").await.unwrap();
    client.unary_at("/kopuro.test.v1.Probe/Nonsense", "x").await.unwrap_err();

    let always = [When::Always, When::Published, When::Exporting];
    let expected: BTreeSet<&str> =
        ALL.iter().filter(|metric| always.contains(&metric.when)).map(|metric| metric.name).collect();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let texts = loop {
        let mut texts = Vec::new();
        for node in &nodes {
            texts.push(ask(node.admin, "/metrics").await.unwrap().1);
        }
        let all = texts.concat();
        let (kinds, _) = told(&all);
        let missing: Vec<_> = expected.iter().filter(|name| !kinds.contains_key(*name)).collect();
        if missing.is_empty() {
            break texts;
        }
        assert!(tokio::time::Instant::now() < deadline, "no node tells {missing:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for text in &texts {
        let (kinds, helped) = told(text);
        for (name, kind) in &kinds {
            let known =
                ALL.iter().find(|metric| metric.name == *name).unwrap_or_else(|| panic!("{name} is on no list"));
            let wanted = match known.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            assert_eq!((*kind, helped.contains(name)), (wanted, true), "{name}");
            assert!(!matches!(known.when, When::Witness | When::Monitor), "{name}");
        }
    }
    let all = texts.concat();
    for expected in [
        r#"kopuro_refused_total{node="KG/GOV/1/_node/main",side="consumer",reason="METHOD_UNKNOWN"} 1"#,
        r#"kopuro_stage_seconds_count{node="KG/GOV/1/_node/main",stage="accept"} 1"#,
        r#"kopuro_stage_seconds_count{node="KG/GOV/2/_node/main",stage="backend"} 1"#,
        r#"kopuro_peer_reachable{node="KG/GOV/1/_node/main",peer="KG/GOV/2/_node/main"} 1"#,
        r#"kopuro_backend_reachable{node="KG/GOV/2/_node/main",system="KG/GOV/2/probe"} 1"#,
        r#"kopuro_expiry_timestamp_seconds{node="KG/GOV/1/_node/main",what="crl"} "#,
    ] {
        assert!(all.contains(expected), "{expected} in {all}");
    }
    for node in nodes {
        node.stop().await;
    }
    drop(probe);
}

/// Without anybody calling: an operator has to learn of it before the callers do.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_gone_and_comes_back_is_told() {
    let mut federation = Federation::new();
    federation.write_files("");
    let probe = federation.start_probe().await;
    let mut provider = Process::start(&federation, PROVIDER).await;
    let consumer = Process::start(&federation, CONSUMER).await;
    let desk = federation.issue(DESK);
    let client = ProbeClient::new(federation.channel(consumer.systems, &desk).await.unwrap());
    client.unary("x").await.unwrap();
    let becomes = async |reachable: u8| {
        let line =
            format!("kopuro_peer_reachable{{node=\"KG/GOV/1/_node/main\",peer=\"KG/GOV/2/_node/main\"}} {reachable}\n");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(40);
        while !ask(consumer.admin, "/metrics").await.unwrap().1.contains(&line) {
            assert!(tokio::time::Instant::now() < deadline, "never told: {line}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    becomes(1).await;
    provider.kill();
    becomes(0).await;
    let provider = Process::start(&federation, PROVIDER).await;
    becomes(1).await;
    client.unary("again").await.unwrap();
    consumer.stop().await;
    provider.stop().await;
    drop(probe);
}
