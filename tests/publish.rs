//! A node publishes its log: what strangers read over HTTP and in the store proves itself, and neither a crash nor a store that
//! fails or lies makes it say anything else.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use kopuro::config;
use kopuro::gateway::Node;
use kopuro::log::entry::Entry;
use kopuro::log::tile::{Kind, Tile};
use kopuro::log::tree::{Hash, RightEdge};
use kopuro::log::{Checkpoint, Log, LogOptions};
use prost::Message;
use uuid::Uuid;

use crate::harness::probe::ProbeClient;
use crate::harness::process::Process;
use crate::harness::published::{Answer, Published, ask, get, root};
use crate::harness::{CONSUMER, DESK, Federation, PROVIDER, Running, admin, eventually};
use crate::log_support::record;

const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Publishes to a folder and over HTTP, at once.
const PUBLISH: &str = "[publish]\nstore = \"public\"\nlisten = \"127.0.0.1:0\"\ninterval = \"50ms\"\n";

fn store(federation: &Federation, member: &str) -> PathBuf {
    federation.member_path(member, "public")
}

/// Waits until all that a node has logged is published.
async fn all_published(node: &Node) -> u64 {
    let mut published = node.publication().unwrap().published();
    let log = node.log().unwrap();
    let done = published.wait_for(|published| {
        published.as_ref().is_some_and(|published| published.size > 0 && published.size == log.checkpoint().size)
    });
    let done = tokio::time::timeout(Duration::from_secs(10), done).await.expect("published in time").unwrap();
    done.as_ref().unwrap().size
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_proves_itself() {
    let mut running = Federation::new().start(PUBLISH).await;
    let probe = ProbeClient::new(running.desk().await);
    let key = running.federation.log_key(PROVIDER).clone();
    let mut sizes = Vec::new();
    // Past one full tile, in steps of other sizes.
    for calls in [1, 2, 40, 100, 3] {
        for call in 0..calls {
            probe.unary(format!("{call}")).await.unwrap();
        }
        sizes.push(all_published(&running.provider).await);
    }
    let size = *sizes.last().unwrap();
    assert_eq!(size, 292, "two entries for each call");

    let web = Published::Web(running.provider.publication_addr().unwrap());
    let folder = Published::folder(store(&running.federation, PROVIDER));
    let (checkpoint, entries) = web.verify(&key).await;
    assert_eq!((&checkpoint, &entries), (&folder.verify(&key).await.0, &folder.verify(&key).await.1));
    assert_eq!(checkpoint, *running.provider.log().unwrap().checkpoint());
    for size in &sizes {
        for tile in Tile::between(0, *size) {
            let at = tile.to_string();
            assert!(folder.read(&at).await.is_some(), "{at} of size {size}");
            assert_eq!(web.read(&at).await, folder.read(&at).await, "{at} of size {size}");
        }
    }
    // The other side tells the same exchanges, under its own key.
    let other = Published::Web(running.consumer.publication_addr().unwrap());
    all_published(&running.consumer).await;
    let (_, others) = other.verify(running.federation.log_key(CONSUMER)).await;
    let ids = |entries: &[Bytes]| {
        let ids = entries.iter().map(|entry| Entry::decode(entry.clone()).unwrap().exchange_id);
        ids.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(ids(&entries), ids(&others));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_server_keeps_to_the_specification() {
    let mut running = Federation::new().start(PUBLISH).await;
    let probe = ProbeClient::new(running.desk().await);
    for call in 0..130 {
        probe.unary(format!("{call}")).await.unwrap();
    }
    assert_eq!(all_published(&running.provider).await, 260);
    let at = running.provider.publication_addr().unwrap();

    let checkpoint = get(at, "/checkpoint").await;
    assert_eq!((checkpoint.status, checkpoint.header("content-type")), (200, "text/plain; charset=utf-8"));
    assert_eq!(checkpoint.header("cache-control"), "public, max-age=5");
    assert_eq!(checkpoint.header("access-control-allow-origin"), "*");
    assert_eq!(checkpoint.header("x-content-type-options"), "nosniff");
    for path in ["/tile/0/000", "/tile/0/001.p/4", "/tile/1/000.p/1", "/tile/entries/000", "/tile/entries/001.p/4"] {
        let answer = get(at, path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/octet-stream"), "{path}");
        assert_eq!(answer.header("cache-control"), IMMUTABLE, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");

        let tag = answer.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() > 10, "{tag}");
        for known in [tag.clone(), format!("\"other\", W/{tag}"), "*".into()] {
            let same = ask(at, "GET", path, &[("if-none-match", &known)]).await;
            assert_eq!((same.status, same.header("etag"), same.body.len()), (304, &*tag, 0), "{path} {known}");
            assert_eq!(same.header("cache-control"), IMMUTABLE);
        }
        assert_eq!(ask(at, "GET", path, &[("if-none-match", "\"other\"")]).await.status, 200);
        let head = ask(at, "HEAD", path, &[]).await;
        assert_eq!((head.status, head.body.len(), head.header("etag")), (200, 0, &*tag), "{path}");
        assert_eq!(head.header("content-length"), answer.body.len().to_string(), "{path}");
    }

    // Bundles are compressed for those who ask, under a tag of their own; hashes do not compress.
    let plain = get(at, "/tile/entries/000").await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary").contains("accept-encoding")), ("", true));
    let zipped = ask(at, "GET", "/tile/entries/000", &[("accept-encoding", "br, gzip;q=0.8")]).await;
    assert_eq!((zipped.status, zipped.header("content-encoding")), (200, "gzip"));
    assert!(zipped.body.len() < plain.body.len() / 2);
    assert_ne!(zipped.header("etag"), plain.header("etag"));
    let mut unzipped = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&zipped.body[..]), &mut unzipped).unwrap();
    assert_eq!(unzipped, plain.body);
    let refused = ask(at, "GET", "/tile/entries/000", &[("accept-encoding", "gzip;q=0, identity")]).await;
    assert_eq!(refused.header("content-encoding"), "");
    let hashes = ask(at, "GET", "/tile/0/000", &[("accept-encoding", "gzip")]).await;
    assert_eq!(hashes.header("content-encoding"), "");

    // Beyond the published size, and what is no tile.
    for path in [
        "/tile/0/001",
        "/tile/0/001.p/5",
        "/tile/1/000.p/2",
        "/tile/1/000",
        "/tile/2/000.p/1",
        "/tile/entries/001.p/5",
        "/tile/entries/x001/000",
        "/tile/0/0",
        "/tile/63/000",
        "/tile/0/x999/x999/x999/x999/x999/999",
        "/tile/0/000.p/256",
        "/tile/../node.toml",
        "/tile/%2e%2e/%2e%2e/log.key",
        "/open-data/..%2f..%2flog.key",
        "/open-data/2026-01-01.csv",
        "/log.key",
        "/portal/../log.key",
    ] {
        let answer = get(at, path).await;
        assert_eq!((answer.status, answer.header("cache-control")), (404, "no-store"), "{path}");
    }
    // A partial tile of any size that the log has passed.
    assert_eq!(get(at, "/tile/0/000.p/77").await.body, hashes.body.slice(..77 * 32));
    assert_eq!(ask(at, "POST", "/checkpoint", &[("content-length", "0")]).await.status, 405);
    assert_eq!(ask(at, "DELETE", "/tile/0/000", &[]).await.status, 405);
    let preflight = [("origin", "https://anybody.example"), ("access-control-request-method", "GET")];
    let preflight = ask(at, "OPTIONS", "/checkpoint", &preflight).await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (200, "*"));

    // Beside the log.
    let grants = get(at, "/grants.json").await;
    assert_eq!(grants.header("content-type"), "application/json");
    let grants: serde_json::Value = serde_json::from_slice(&grants.body).unwrap();
    let expected = serde_json::json!({ "grants": [{
        "consumer": DESK, "provider": "KG/GOV/2/probe", "service": "kopuro.test.v1.Probe", "methods": ["*"],
        "legal_basis": { "code": "law-1", "text": "Мыйзам № 1" }, "from": null, "until": null,
        "publication": { "class": "public" },
        "fields": null, "categories": null, "name_withheld": false,
        "unknown_fields": "refuse", "unknown_response_fields": "strip",
    }] });
    assert_eq!(grants, expected);
    let directory = std::fs::read(running.federation.path("directory")).unwrap();
    assert_eq!(get(at, "/directory").await.body, directory);
    let proto = include_bytes!("../proto/kopuro/log/v1/entry.proto");
    assert_eq!(get(at, "/entry.proto").await.body, &proto[..]);
    let key = running.federation.log_key(PROVIDER).to_string();
    assert_eq!(get(at, "/vkey").await.body, format!("{key}\n"));
    let folder = store(&running.federation, PROVIDER);
    eventually("beside the log in the folder", async || std::fs::read(folder.join("vkey")).ok()).await;
    for file in ["grants.json", "directory", "entry.proto", "vkey"] {
        assert_eq!(std::fs::read(folder.join(file)).unwrap(), get(at, &format!("/{file}")).await.body, "{file}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_are_published_as_they_change() {
    let mut running = Federation::new().start(PUBLISH).await;
    let at = running.provider.publication_addr().unwrap();
    assert!(String::from_utf8_lossy(&get(at, "/grants.json").await.body).contains("law-1"));
    running.federation.grants = running.federation.grants.replace("law-1", "law-9");
    let file = running.federation.member_path(PROVIDER, "grants/probe.toml");
    std::fs::write(file, &running.federation.grants).unwrap();
    running.provider.reload().await.unwrap();
    let folder = store(&running.federation, PROVIDER);
    eventually("the new grants", async || {
        let told = get(at, "/grants.json").await.body;
        let stored = std::fs::read(folder.join("grants.json")).unwrap_or_default();
        (String::from_utf8_lossy(&told).contains("law-9") && told == stored).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_may_ask_so_much() {
    let publish = format!("{PUBLISH}rate = {{ per_second = 1, burst = 20 }}\nproxies = [\"127.0.0.1\"]\n");
    let running = Federation::new().start(&publish).await;
    let at = running.provider.publication_addr().unwrap();
    let of = async |client: &str| ask(at, "GET", "/vkey", &[("x-forwarded-for", client)]).await;
    for request in 0..20 {
        assert_eq!(of("192.0.2.1").await.status, 200, "request {request}");
    }
    let refused: Answer = eventually("enough", async || {
        let answer = of("192.0.2.1").await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(of("192.0.2.2").await.status, 200, "another client is not concerned");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_all_connections() {
    let running = Federation::new().start(PUBLISH).await;
    let at = running.provider.publication_addr().unwrap();
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(tokio::net::TcpStream::connect(at).await.unwrap());
    }
    // One more is closed at once, without an answer; when one goes there is room again.
    let mut more = tokio::net::TcpStream::connect(at).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut more, &mut answer);
    let read = tokio::time::timeout(Duration::from_secs(5), read).await.expect("closed at once");
    assert!(read.is_err() || answer.is_empty());
    drop(silent.pop());
    eventually("room", async || {
        let mut stream = tokio::net::TcpStream::connect(at).await.ok()?;
        let request = "GET /vkey HTTP/1.1\r\nhost: log\r\nconnection: close\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_the_log_itself_is_served() {
    let publish = "[publish]\nlisten = \"127.0.0.1:0\"\ninterval = \"50ms\"\n";
    let mut running = Federation::new().start(publish).await;
    let probe = ProbeClient::new(running.desk().await);
    for call in 0..150 {
        probe.unary(format!("{call}")).await.unwrap();
    }
    all_published(&running.provider).await;
    let web = Published::Web(running.provider.publication_addr().unwrap());
    let key = running.federation.log_key(PROVIDER).clone();
    let (before, _) = web.verify(&key).await;
    assert_eq!(before.size, 300);
    assert!(!store(&running.federation, PROVIDER).exists());

    // After a restart the same is there at once.
    let Running { federation, provider, consumer, probe } = running;
    provider.stop().await;
    let provider = federation.start_node(PROVIDER).await;
    let web = Published::Web(provider.publication_addr().unwrap());
    assert_eq!(web.verify(&key).await.0, before);
    Running { federation, provider, consumer, probe }.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_out_of_reach_stops_nothing_and_is_caught_up_with() {
    let mut running = Federation::new().start(PUBLISH).await;
    let probe = ProbeClient::new(running.desk().await);
    probe.unary("before").await.unwrap();
    let before = all_published(&running.provider).await;

    // The folder is gone: where it was, nothing can be written.
    let folder = store(&running.federation, PROVIDER);
    let away = running.federation.member_path(PROVIDER, "away");
    std::fs::rename(&folder, &away).unwrap();
    std::fs::write(&folder, "a file in its place").unwrap();
    for call in 0..300 {
        probe.unary(format!("{call}")).await.unwrap();
    }
    let at = running.federation.ports[PROVIDER].admin;
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], at));
    let (status, said) = eventually("a warning", async || {
        admin(at, "/readyz").await.ok().filter(|(_, said)| said.contains("publication: the log is not published"))
    })
    .await;
    assert_eq!(status, 200, "exchanges pass: {said}");
    let metrics = admin(at, "/metrics").await.unwrap().1;
    let of = |name: &str| {
        let start = format!("{name}{{node=\"KG/GOV/2/_node/main\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&start)?.parse::<f64>().ok())
    };
    assert!(of("kopuro_publish_failures_total").unwrap() >= 1.0, "{metrics}");
    let web = Published::Web(running.provider.publication_addr().unwrap());
    let key = running.federation.log_key(PROVIDER).clone();
    assert_eq!(web.verify(&key).await.0.size, before, "what was published is still served, from the log");

    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&away, &folder).unwrap();
    let after = all_published(&running.provider).await;
    assert_eq!(after, before + 600);
    Published::folder(&folder).verify(&key).await;
    eventually("good again", async || {
        admin(at, "/readyz").await.ok().filter(|(_, said)| !said.contains("publication"))
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_or_changed_tiles_is_mended_and_not_believed() {
    let mut running = Federation::new().start(PUBLISH).await;
    let probe = ProbeClient::new(running.desk().await);
    for call in 0..140 {
        probe.unary(format!("{call}")).await.unwrap();
    }
    all_published(&running.provider).await;
    let key = running.federation.log_key(PROVIDER).clone();
    let folder = store(&running.federation, PROVIDER);

    // Full tiles are another's, cut short, or gone: served from the log all the same.
    let bundle = std::fs::read(folder.join("tile/entries/000")).unwrap();
    let mut forged = bundle.clone();
    *forged.last_mut().unwrap() ^= 1;
    std::fs::write(folder.join("tile/entries/000"), forged).unwrap();
    std::fs::write(folder.join("tile/0/000"), [7; 32 * 256]).unwrap();
    let at = running.provider.publication_addr().unwrap();
    Published::Web(at).verify(&key).await;
    std::fs::write(folder.join("tile/entries/000"), &bundle[..100]).unwrap();
    std::fs::remove_file(folder.join("tile/0/000")).unwrap();
    Published::Web(at).verify(&key).await;
    let metrics =
        admin(std::net::SocketAddr::from(([127, 0, 0, 1], running.federation.ports[PROVIDER].admin)), "/metrics");
    assert!(metrics.await.unwrap().1.contains("kopuro_publish_store_wrong_total{node=\"KG/GOV/2/_node/main\"} 4"));
    std::fs::write(folder.join("tile/entries/000"), &bundle).unwrap();

    // A store that was emptied under the node is filled again.
    eventually("nothing written meanwhile", async || std::fs::remove_dir_all(&folder).ok()).await;
    probe.unary("after").await.unwrap();
    all_published(&running.provider).await;
    Published::folder(&folder).verify(&key).await;

    // One that lost its last tiles while the node was away: mended at the start.
    let Running { federation, provider, consumer, probe } = running;
    provider.stop().await;
    let (checkpoint, _) = Published::folder(&folder).verify(&key).await;
    let last: Vec<String> = Tile::between(256, checkpoint.size).map(|tile| tile.to_string()).collect();
    assert_eq!(last, ["tile/entries/001.p/26", "tile/0/001.p/26"]);
    std::fs::remove_file(folder.join(&last[0])).unwrap();
    std::fs::write(folder.join(&last[1]), [1; 26 * 32]).unwrap();
    let provider = federation.start_node(PROVIDER).await;
    assert_eq!(Published::folder(&folder).verify(&key).await.0, checkpoint);
    Running { federation, provider, consumer, probe }.stop().await;
}

/// A checkpoint that the provider's key signs of a log that is not its own.
fn forged(federation: &Federation, size: u64) -> String {
    let key = std::fs::read_to_string(federation.member_path(PROVIDER, "log.key")).unwrap();
    let signer = kopuro::trust::note::Signer::from_encoded(&key).unwrap();
    let mut edge = RightEdge::default();
    (0..size).for_each(|entry| edge.push(Hash::of_leaf(&entry.to_be_bytes())));
    Checkpoint::sign(&signer, &edge).unwrap().note
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_contradicts_what_it_published_is_not_started() {
    let mut running = Federation::new().start(PUBLISH).await;
    let probe = ProbeClient::new(running.desk().await);
    for call in 0..10 {
        probe.unary(format!("{call}")).await.unwrap();
    }
    let size = all_published(&running.provider).await;
    let federation = running.stop().await;
    let (checkpoint, remembered) =
        (store(&federation, PROVIDER).join("checkpoint"), federation.member_path(PROVIDER, "data/published"));
    let good = std::fs::read_to_string(&checkpoint).unwrap();
    let start = async || {
        let config = config::load(&federation.member_path(PROVIDER, "node.toml")).unwrap();
        Node::start(config).await
    };
    for (file, size, told) in [
        (&checkpoint, size + 1, "publish.store has 21 entries published, and the log holds 20"),
        (&checkpoint, size, "publish.store has root"),
        (&checkpoint, 7, "for 7 entries"),
        (&remembered, size + 1, "the data folder's file `published` has 21 entries published"),
        (&remembered, size, "two histories"),
    ] {
        std::fs::write(file, forged(&federation, size)).unwrap();
        let refused = start().await.unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
        std::fs::write(file, &good).unwrap();
    }
    // Another log's checkpoint, or what is none: the node runs, publishes nothing over it, and says so.
    let other = kopuro::trust::note::Signer::generate("log.example/other").unwrap();
    let other = Checkpoint::sign(&other, &RightEdge::default()).unwrap().note;
    for wrong in [other.as_str(), "no checkpoint"] {
        std::fs::write(&checkpoint, wrong).unwrap();
        let node = start().await.unwrap();
        let (status, said) = admin(node.admin_addr(), "/readyz").await.unwrap();
        assert_eq!(status, 200);
        assert!(said.contains("has a checkpoint that is not this log's"), "{said}");
        node.stop().await;
        assert_eq!(std::fs::read_to_string(&checkpoint).unwrap(), wrong, "left as it is");
    }
    std::fs::write(&checkpoint, &good).unwrap();

    // Seen only while it runs: nothing more is published.
    let node = start().await.unwrap();
    let lie = forged(&federation, 500);
    std::fs::write(&checkpoint, &lie).unwrap();
    node.log().unwrap().append(record(Uuid::now_v7())).await.unwrap();
    let said = eventually("an alarm", async || {
        admin(node.admin_addr(), "/readyz")
            .await
            .ok()
            .map(|(_, said)| said)
            .filter(|said| said.contains("nothing more"))
    })
    .await;
    assert!(said.contains("500 entries published, and the log holds 21"), "{said}");
    let metrics = admin(node.admin_addr(), "/metrics").await.unwrap().1;
    assert!(metrics.contains("kopuro_publish_refused{node=\"KG/GOV/2/_node/main\"} 1"), "{metrics}");
    node.stop().await;
    assert_eq!(std::fs::read_to_string(&checkpoint).unwrap(), lie);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_loses_nothing_and_contradicts_nothing() {
    let mut federation = Federation::new();
    federation.write_files(PUBLISH);
    let _backend = federation.start_probe().await;
    // More than a full tile to publish at the first start, so that there is a between.
    let key = federation.log_key(PROVIDER).clone();
    let folder = store(&federation, PROVIDER);
    let consumer = federation.start_node(CONSUMER).await;
    let desk = federation.issue(DESK);
    let probe = ProbeClient::new(federation.channel(consumer.systems_addr(), &desk).await.unwrap());
    let mut answered = Vec::new();
    let mut shown = vec![Checkpoint { size: 0, root: Hash::of_nothing(), origin: String::new(), note: String::new() }];
    for failpoint in [
        "commit:40",
        "head:40",
        "tile:1",
        "tile:2",
        "tile:3",
        "tiles:2",
        "remembered:2",
        "checkpoint:2",
        "checkpoint:3",
    ] {
        let mut node = Process::start_to_fail(&federation, PROVIDER, failpoint).await;
        // Calls until it dies.
        let mut calls = 0;
        while !node.has_aborted() {
            calls += 1;
            assert!(calls < 2_000, "it never came to {failpoint}");
            match tokio::time::timeout(Duration::from_secs(5), probe.unary("on")).await.unwrap() {
                Ok(answer) => {
                    let id: Uuid = answer.metadata().get("kopuro-exchange").unwrap().to_str().unwrap().parse().unwrap();
                    answered.push(id);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        // What a stranger sees in the meantime is whole.
        if folder.join("checkpoint").exists() {
            shown.push(Published::folder(&folder).verify(&key).await.0);
        }
        let node = Process::start(&federation, PROVIDER).await;
        node.stop().await;
        let (checkpoint, entries) = Published::folder(&folder).verify(&key).await;
        let leaves: Vec<Hash> = entries.iter().map(|entry| Hash::of_leaf(entry)).collect();
        for shown in &shown {
            assert_eq!(root(&leaves[..shown.size as usize]), shown.root, "{failpoint}: size {} stands", shown.size);
        }
        let verified = kopuro::log::verify::verify_folder(&federation.member_path(PROVIDER, "data"), &key).unwrap();
        assert_eq!(verified.checkpoint.unwrap(), checkpoint, "all is published");
        let ids: std::collections::HashSet<Uuid> = entries
            .iter()
            .map(|entry| Uuid::from_slice(&Entry::decode(entry.clone()).unwrap().exchange_id).unwrap())
            .collect();
        assert!(answered.iter().all(|id| ids.contains(id)), "{failpoint}: an answered exchange is not published");
        shown.push(checkpoint);
    }
    assert!(!answered.is_empty());
    consumer.stop().await;
}

#[tokio::test]
async fn mistakes_are_told_with_their_place() {
    let mut federation = Federation::new();
    federation.write_files("");
    for (publish, told) in [
        ("[publish]\nstor = \"x\"\n", "unknown field `stor`"),
        ("[publish]\n", "publish: names neither a store nor an address"),
        (
            "[publish]\nstore = \"ftp://x/y\"\n",
            "publish.store: \"ftp://x/y\" is no store: its scheme is not file, s3, gs or az",
        ),
        ("[publish]\nlisten = \"127.0.0.1:SYSTEMS\"\n", "is also listen.systems's"),
        ("[publish]\nstore = \"x\"\nurl = \"log.example/KG\"\n", "publish.url: \"log.example/KG\" is no prefix"),
        ("[publish]\nstore = \"x\"\ninterval = \"0s\"\n", "must be longer than zero"),
        ("[publish]\nstore = \"x\"\nrate = { per_second = 0, burst = 1 }\n", "publish.rate"),
        ("[publish]\nstore = \"node.toml\"\n", "cannot be used"),
    ] {
        let publish = publish.replace("SYSTEMS", &federation.ports[PROVIDER].systems.to_string());
        let file = federation.write_node(PROVIDER, &publish);
        let refused = match config::load(&file) {
            Ok(config) => config::check(&config).await.map(drop).unwrap_err(),
            Err(error) => error,
        };
        let refused = refused.to_string();
        let line = refused.lines().find(|line| line.contains(told)).unwrap_or_else(|| panic!("{publish}: {refused}"));
        assert!(line.contains("node.toml:"), "{line}");
    }
    // What is right, with stores of all kinds.
    for store in ["x", "file:///tmp/kopuro-x", "s3://bucket/civil", "gs://bucket/civil", "az://container/civil"] {
        let url = "url = \"https://log.example/KG/GOV/2\"";
        let file = federation.write_node(PROVIDER, &format!("[publish]\nstore = \"{store}\"\n{url}\n"));
        let config = config::load(&file).unwrap();
        let problems = match config::check(&config).await {
            Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect::<String>(),
            Err(error) => error.to_string(),
        };
        // Azure's address is made of its account, which only the environment has.
        let unknown = store.starts_with("az://") && std::env::var_os("AZURE_STORAGE_ACCOUNT_NAME").is_none();
        assert_eq!(problems.contains("publish."), unknown, "{store}: {problems}");
    }
}

/// Makes a node's log as it would be had it had these entries, before the node starts.
pub(crate) async fn fill_log(federation: &Federation, member: &str, records: Vec<kopuro::log::Record>) {
    let key = std::fs::read_to_string(federation.member_path(member, "log.key")).unwrap();
    let signer = kopuro::trust::note::Signer::from_encoded(&key).unwrap();
    let mut options = LogOptions::new(federation.member_path(member, "data"), signer);
    (options.warn_free, options.refuse_free) = (0, 0);
    let (log, _) = Log::open(options).unwrap();
    for record in records {
        log.append(record).await.unwrap();
    }
    log.close().await;
}

#[test]
fn a_partial_tile_is_there_for_each_size_only_where_it_has_something() {
    // The harness' own arithmetic, so that `verify` cannot pass by looking at nothing.
    let tiles: Vec<String> = Tile::between(0, 70_000).map(|tile| tile.to_string()).collect();
    assert_eq!(tiles.len(), 2 * 274 + 2 + 1);
    assert!(tiles.contains(&"tile/2/000.p/1".to_owned()) && tiles.contains(&"tile/1/001.p/17".to_owned()));
    assert_eq!(Tile::between(0, 70_000).filter(|tile| tile.kind == Kind::Entries).count(), 274);
}
