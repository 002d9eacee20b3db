//! The portal beside a published log: written to the store, served by the node, and counted from what is published.

use std::process::Command;

use kopuro::config;
use kopuro::trust::note::Signer;
use serde_json::Value;

use crate::harness::probe::ProbeClient;
use crate::harness::published::{ask, get};
use crate::harness::{CONSUMER, Federation, PROVIDER, eventually};

const PUBLISH: &str = "[publish]\nstore = \"public\"\nlisten = \"127.0.0.1:0\"\ninterval = \"50ms\"\n";

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_publishes_and_serves_the_portal() {
    let mut running = Federation::new().start(PUBLISH).await;
    let probe = ProbeClient::new(running.desk().await);
    probe.unary("one").await.unwrap();
    let store = running.federation.member_path(PROVIDER, "public");
    eventually("the portal in the store", async || store.join("portal/version.txt").exists().then_some(())).await;
    let address = running.provider.publication_addr().unwrap();

    // `/` leads to it, and a browser is told to keep to it.
    let root = get(address, "/").await;
    assert_eq!((root.status, root.header("location")), (307, "portal/"));
    for path in ["/portal/", "/portal/index.html"] {
        let page = get(address, path).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; "), "{policy}");
        assert!(policy.contains("connect-src 'self'; ") && policy.ends_with("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        assert_eq!(page.body, std::fs::read(store.join("portal/index.html")).unwrap());
    }
    for (path, content_type) in [
        ("app.js", "text/javascript; charset=utf-8"),
        ("pages/overview.js", "text/javascript; charset=utf-8"),
        ("portal.css", "text/css; charset=utf-8"),
        ("text/ky.ftl", "text/plain; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("portal.json", "application/json"),
        ("vendor/uplot/LICENSE.txt", "text/plain; charset=utf-8"),
    ] {
        let file = get(address, &format!("/portal/{path}")).await;
        assert_eq!((file.status, file.header("content-type")), (200, content_type), "{path}");
        assert_eq!(file.body, std::fs::read(store.join("portal").join(path)).unwrap(), "{path}");
    }
    let zipped = ask(address, "GET", "/portal/app.js", &[("accept-encoding", "gzip")]).await;
    assert_eq!(zipped.header("content-encoding"), "gzip");
    for path in ["/portal/none.js", "/portal/../checkpoint", "/portal/%2e%2e/vkey", "/portal/pages"] {
        assert_eq!(get(address, path).await.status, 404, "{path}");
    }
    let shown = json(&get(address, "/portal/portal.json").await.body);
    assert_eq!(shown["format"], "kopuro-portal/v1");
    assert_eq!(shown["logs"][0]["url"], "../");
    assert_eq!(shown["logs"][0]["vkey"], running.federation.log_key(PROVIDER).to_string());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn summaries_count_what_is_published_and_go_on_after_a_restart() {
    let mut running = Federation::new().start(PUBLISH).await;
    let probe = ProbeClient::new(running.desk().await);
    for call in 0..5 {
        probe.unary(format!("{call}")).await.unwrap();
    }
    // At the end all is counted.
    let federation = running.stop().await;
    let count = |member: &str, role: &str, calls: u64| {
        let folder = federation.member_path(member, "public/open-data");
        let whole = json(&std::fs::read(folder.join("summary.json")).unwrap());
        assert_eq!((&whole["entries"], &whole["from"]), (&(2 * calls).into(), &0.into()), "{whole}");
        let other = if member == CONSUMER { PROVIDER } else { CONSUMER };
        assert_eq!(whole["days"][0][5], serde_json::json!([[role, other, [calls, 0, 0, 0]]]), "{whole}");
        let name = whole["months"][0][0].as_str().unwrap();
        let month = json(&std::fs::read(folder.join(format!("summary-{name}.json"))).unwrap());
        assert_eq!(month["entries"], whole["entries"]);
        let counted = month["days"].as_array().unwrap().iter().flat_map(|day| day["groups"].as_array().unwrap());
        assert_eq!(counted.map(|group| group[9].as_u64().unwrap()).sum::<u64>(), calls);
    };
    count(CONSUMER, "asked", 5);
    count(PROVIDER, "answered", 5);

    let mut running = federation.start(PUBLISH).await;
    let probe = ProbeClient::new(running.desk().await);
    probe.unary("again").await.unwrap();
    let address = running.provider.publication_addr().unwrap();
    let served = eventually("the count", async || {
        let summary = get(address, "/open-data/summary.json").await;
        (summary.status == 200 && json(&summary.body)["entries"] == 12).then_some(summary)
    })
    .await;
    assert_eq!(served.header("content-type"), "application/json");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_may_do_without_and_is_told_what_is_wrong() {
    let mut running = Federation::new().start(&format!("{PUBLISH}[publish.portal]\nenabled = false\n")).await;
    let probe = ProbeClient::new(running.desk().await);
    probe.unary("one").await.unwrap();
    let address = running.provider.publication_addr().unwrap();
    eventually("the publication", async || (get(address, "/vkey").await.status == 200).then_some(())).await;
    for path in ["/", "/portal", "/portal/"] {
        assert_eq!(get(address, path).await.status, 404, "{path}");
    }
    assert!(!running.federation.member_path(PROVIDER, "public/portal").exists());
    let mut federation = running.stop().await;
    let wrong = "[publish.portal]\nmonitor = \"report\"\nlogs = [{ url = \"b.example/log\", vkey = \"b\" }]\n";
    let toml = federation.write_node(PROVIDER, &format!("{PUBLISH}{wrong}"));
    let problems = config::check(&config::load(&toml).unwrap()).await.unwrap_err().to_string();
    for told in ["is no address of a published log", "is no key", "is no address of a monitor's report"] {
        assert!(problems.contains(told), "{problems}");
    }
}

#[test]
fn a_portal_of_many_logs_is_written_as_a_site() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Signer::generate("a.example/log").unwrap(), Signer::generate("b.example/log").unwrap());
    let out = folder.path().join("site/portal");
    let portal = |logs: &[String]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kopuro"));
        command.arg("portal").arg("--out").arg(&out).args(["--monitor", "report.json"]);
        command.args(logs.iter().flat_map(|log| ["--log", log])).output().unwrap()
    };
    let logs = [format!("https://a.example/log#{}", a.verifier()), format!("../b/#{}", b.verifier())];
    let written = portal(&logs);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains("connect-src 'self' https://a.example;"), "{page}");
    let shown = json(&std::fs::read(out.join("portal.json")).unwrap());
    assert_eq!(shown["logs"][0]["url"], "https://a.example/log/");
    assert_eq!(shown["logs"][1]["vkey"], b.verifier().to_string());
    assert_eq!((&shown["monitor"], &shown["policy"]), (&"report.json".into(), &Value::Null));
    // Without a key nothing could be checked.
    let refused = portal(&["https://a.example/log".into()]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("its key is missing: URL#VKEY"));
}
