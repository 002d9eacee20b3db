//! A monitor follows published logs from their tiles alone: what matches is quiet, and whatever one side lacks, tells
//! differently or tells twice is reported, over restarts too.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use kopuro::log::entry::{Draft, ExchangeKey, Kind, Outcome, Side, Slot};
use kopuro::log::tree::{Hash, RightEdge};
use kopuro::log::{Checkpoint, Log, LogOptions};
use kopuro::oversight::monitor::{Condition, KnownLog, Monitor, MonitorError, MonitorOptions, Report};
use kopuro::oversight::published::Place;
use kopuro::trust::note::{Signer, Verifier};
use prost::Message;
use tempfile::TempDir;
use uuid::Uuid;

use crate::harness::publisher::{publish_log, write_checkpoint};
use crate::harness::{self, CONSUMER, DESK, PROBE, PROVIDER, Running};

/// When the story takes place.
const NOON: i64 = 1_795_600_000_000;
const MINUTE: i64 = 60_000;

/// Two members' logs, written by hand and published.
struct Logs {
    folder: TempDir,
    asked: Log,
    answered: Log,
    keys: [Verifier; 2],
}

/// What the two sides write of an exchange; none where a side writes nothing.
type Ends = [Option<Outcome>; 2];
const OK: Option<Outcome> = Some(Outcome::Ok);

impl Logs {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signers = ["one.example/log", "two.example/log"].map(|name| Signer::generate(name).unwrap());
        let keys = signers.each_ref().map(Signer::verifier);
        std::fs::write(folder.path().join("asked.key"), signers[0].to_encoded().as_bytes()).unwrap();
        let [asked, answered] = signers;
        let open = |name: &str, signer| {
            let mut options = LogOptions::new(folder.path().join(name), signer);
            (options.warn_free, options.refuse_free) = (0, 0);
            Log::open(options).unwrap().0
        };
        Self { asked: open("asked", asked), answered: open("answered", answered), keys, folder }
    }

    fn draft(kind: Kind, id: Uuid, at: i64) -> Draft {
        let mut draft = Draft::new(kind, id, at, &ExchangeKey::generate());
        (draft.consumer, draft.provider) = (DESK.into(), PROBE.into());
        (draft.service, draft.method) = ("probe.v1.Probe".into(), "Unary".into());
        draft.publication = kopuro::log::entry::Publication::Public;
        draft.set(Slot::RequestDigest, [7; 32]);
        draft
    }

    /// One exchange, as each side tells it.
    async fn exchange(&self, ends: Ends, at: i64) -> Uuid {
        let id = Uuid::now_v7();
        for (log, end, [opening, closing]) in [
            (&self.asked, ends[0], [Kind::RequestSent, Kind::ResponseReceived]),
            (&self.answered, ends[1], [Kind::RequestReceived, Kind::ResponseSent]),
        ] {
            let Some(end) = end else { continue };
            log.append(Self::draft(opening, id, at).seal()).await.unwrap();
            let mut draft = Self::draft(closing, id, at + 5);
            draft.outcome = end;
            log.append(draft.seal()).await.unwrap();
        }
        id
    }

    fn published(&self, name: &str) -> PathBuf {
        self.folder.path().join("published").join(name)
    }

    fn publish(&self) {
        publish_log(&self.published("asked"), &self.asked, 0);
        publish_log(&self.published("answered"), &self.answered, 0);
    }

    fn monitor(&self) -> Monitor {
        Monitor::open(self.options()).unwrap()
    }

    fn options(&self) -> MonitorOptions {
        let known = [CONSUMER, PROVIDER].iter().zip(&self.keys);
        let known =
            known.map(|(member, key)| KnownLog { keys: vec![key.clone()], member: Some(member.parse().unwrap()) });
        MonitorOptions {
            places: ["asked", "answered"].map(|name| Place::Folder(self.published(name))).into(),
            known: known.collect(),
            quorum: None,
            state: self.folder.path().join("state"),
            grace: Duration::from_secs(600),
            roots: None,
        }
    }
}

async fn look(monitor: &mut Monitor, now: i64) -> Report {
    monitor.round(now, |_| {}).await.unwrap()
}

/// Name of the problem and exchange, of each finding.
fn told(report: &Report) -> Vec<(&'static str, String)> {
    let mut told: Vec<_> = report.findings.iter().map(|one| (one.problem.name(), one.exchange.clone())).collect();
    told.sort();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_side_lacks_or_tells_differently_is_reported_after_its_grace_and_until_it_comes() {
    let logs = Logs::new();
    for _ in 0..200 {
        logs.exchange([OK, OK], NOON).await;
    }
    logs.exchange([Some(Outcome::Failed), OK], NOON).await;
    let differs = logs.exchange([OK, Some(Outcome::Error)], NOON).await;
    let lacks = logs.exchange([OK, None], NOON).await;
    let hides = logs.exchange([None, OK], NOON).await;
    let refused = Uuid::now_v7();
    let mut draft = Logs::draft(Kind::Refused, refused, NOON);
    (draft.outcome, draft.side, draft.reason) = (Outcome::Refused, Side::Consumer, "OUTBOUND_NOT_ALLOWED".into());
    logs.asked.append(draft.seal()).await.unwrap();
    logs.publish();

    let mut monitor = logs.monitor();
    let report = look(&mut monitor, NOON + MINUTE).await;
    assert_eq!(told(&report), [("DIFFERENT_END", differs.to_string())], "two others have their grace");
    assert_eq!((report.exchanges.agreed, report.exchanges.waiting), (202, 2), "{report}");
    assert!(!report.ok && report.logs.iter().all(|log| log.condition == Condition::Good));

    let report = look(&mut monitor, NOON + 12 * MINUTE).await;
    let wrong = [("DIFFERENT_END", differs), ("MISSING_AT_CONSUMER", hides), ("MISSING_AT_PROVIDER", lacks)];
    assert_eq!(told(&report), wrong.map(|(problem, id)| (problem, id.to_string())));
    let finding = report.findings.iter().find(|finding| finding.exchange == lacks.to_string()).unwrap();
    assert_eq!((finding.age_seconds, finding.entries.len()), (12 * 60, 2));
    assert_eq!(finding.entries[0], ("one.example/log".into(), 404));
    assert_eq!((report.new.len(), report.read), (2, 0));

    // Another monitor on the same state is refused, and a restart goes on where this one was.
    assert!(matches!(Monitor::open(logs.options()), Err(MonitorError::Locked(_))));
    drop(monitor);
    let mut monitor = logs.monitor();
    let report = look(&mut monitor, NOON + 13 * MINUTE).await;
    assert_eq!((told(&report).len(), report.new.len(), report.read), (3, 0, 0));
    assert_eq!(report.exchanges.agreed, 202);

    // The one that was missing is published late.
    logs.answered.append(Logs::draft(Kind::RequestReceived, lacks, NOON).seal()).await.unwrap();
    let mut draft = Logs::draft(Kind::ResponseSent, lacks, NOON + 5);
    draft.outcome = Outcome::Ok;
    logs.answered.append(draft.seal()).await.unwrap();
    logs.publish();
    let report = look(&mut monitor, NOON + 14 * MINUTE).await;
    assert_eq!((told(&report).len(), report.read, report.exchanges.agreed), (2, 2, 203));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_tells_two_histories_is_kept_as_evidence_for_good() {
    let logs = Logs::new();
    logs.exchange([OK, OK], NOON).await;
    logs.publish();
    let mut monitor = logs.monitor();
    assert!(look(&mut monitor, NOON).await.ok);

    // The same key signs another history of the same length.
    let other = Logs::new();
    other.exchange([OK, OK], NOON).await;
    let signer = Signer::generate("one.example/log").unwrap();
    let mut edge = RightEdge::default();
    edge.push(Hash::of_leaf(b"another"));
    edge.push(Hash::of_leaf(b"history"));
    // A stranger's signature proves nothing of the log.
    write_checkpoint(&logs.published("asked"), &Checkpoint::sign(&signer, &edge).unwrap());
    let report = look(&mut monitor, NOON).await;
    assert!(matches!(&report.logs[0].condition, Condition::Bad(_)) && report.evidence.is_empty(), "{report}");

    logs.publish();
    assert!(look(&mut monitor, NOON).await.ok, "what was only unreadable may come right again");
    let forged = logs.forge_asked(&edge).await;
    write_checkpoint(&logs.published("asked"), &forged);
    let report = look(&mut monitor, NOON).await;
    assert!(matches!(&report.logs[0].condition, Condition::Forked(_)), "{report}");
    let evidence = std::fs::read_to_string(&report.evidence[0]).unwrap();
    for note in [&forged.note, &logs.asked.checkpoint().note] {
        assert!(evidence.contains(note), "{evidence}");
    }
    // Going back to the first history does not undo it, nor does a restart.
    logs.publish();
    drop(monitor);
    let report = look(&mut logs.monitor(), NOON).await;
    assert!(!report.ok && report.logs[0].condition.name() == "FORKED" && report.evidence.len() == 1, "{report}");
}

impl Logs {
    /// Another history under the consumer's own key, as its keeper could sign it.
    async fn forge_asked(&self, edge: &RightEdge) -> Checkpoint {
        let key = self.folder.path().join("asked.key");
        let encoded = std::fs::read_to_string(key).unwrap();
        Checkpoint::sign(&Signer::from_encoded(&encoded).unwrap(), edge).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_shortened_or_gone_is_said_and_honest_logs_go_on() {
    let logs = Logs::new();
    for _ in 0..300 {
        logs.exchange([OK, OK], NOON).await;
    }
    logs.publish();
    let bundle = logs.published("asked").join("tile/entries/001");
    let good = std::fs::read(&bundle).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    std::fs::write(&bundle, bad).unwrap();
    let mut monitor = logs.monitor();
    let report = look(&mut monitor, NOON).await;
    assert!(report.logs[0].condition.why().contains("first bad index 256"), "{report}");
    assert_eq!((report.logs[0].read, report.logs[1].read), (256, 600));
    // It comes right, and nothing is lost or counted twice.
    std::fs::write(&bundle, &good).unwrap();
    let report = look(&mut monitor, NOON).await;
    assert!(report.ok && report.exchanges.agreed == 300, "{report}");

    let (long, short) = (logs.asked.checkpoint(), Logs::new());
    short.exchange([OK, OK], NOON).await;
    std::fs::remove_file(logs.published("answered").join("checkpoint")).unwrap();
    let mut edge = RightEdge::default();
    edge.push(Hash::of_leaf(&logs.asked.read(0, 1).unwrap()[0]));
    write_checkpoint(&logs.published("asked"), &logs.forge_asked(&edge).await);
    let report = look(&mut monitor, NOON).await;
    let why: Vec<&str> = report.logs.iter().map(|log| log.condition.name()).collect();
    assert_eq!(why, ["BAD", "UNREACHABLE"], "{report}");
    assert!(report.logs[0].condition.why().contains("shows 1 entries, and has shown 600"), "{report}");
    assert_eq!(report.logs[0].size, long.size, "the longer one stays the last seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_reached_at_first_is_waited_for() {
    let logs = Logs::new();
    let id = logs.exchange([OK, None], NOON).await;
    for _ in 0..10 {
        logs.exchange([OK, OK], NOON).await;
    }
    logs.publish();
    let away = logs.folder.path().join("away");
    std::fs::rename(logs.published("answered"), &away).unwrap();
    let mut options = logs.options();
    options.known.iter_mut().for_each(|known| known.member = None);
    let mut monitor = Monitor::open(options).unwrap();
    let report = look(&mut monitor, NOON + 60 * MINUTE).await;
    assert_eq!((report.exchanges.waiting, report.exchanges.unchecked, report.exchanges.wrong), (11, 0, 0), "{report}");
    std::fs::rename(&away, logs.published("answered")).unwrap();
    let report = look(&mut monitor, NOON + 90 * MINUTE).await;
    assert_eq!((report.exchanges.agreed, told(&report)), (10, vec![("MISSING_AT_PROVIDER", id.to_string())]));
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_entries_are_counted_and_joined_once_they_are_opened() {
    use kopuro::log::entry::Publication;
    let logs = Logs::new();
    let sealed = Uuid::now_v7();
    let mut draft = Logs::draft(Kind::RequestSent, sealed, NOON);
    draft.publication = Publication::Sealed;
    logs.asked.append(draft.seal()).await.unwrap();
    let delayed = Uuid::now_v7();
    let mut indices = Vec::new();
    for (kind, outcome) in [(Kind::RequestSent, Outcome::Unspecified), (Kind::ResponseReceived, Outcome::Ok)] {
        let mut draft = Logs::draft(kind, delayed, NOON);
        (draft.publication, draft.delay_days, draft.outcome) = (Publication::Delayed, 30, outcome);
        indices.push(logs.asked.append(draft.seal()).await.unwrap().index);
    }
    logs.publish();
    let mut monitor = logs.monitor();
    let report = look(&mut monitor, NOON + 60 * MINUTE).await;
    assert!(report.ok && report.exchanges.waiting == 0, "{report}");
    assert_eq!((report.logs[0].sealed, report.logs[0].delayed), (1, 2));

    // Its time has come on one side; the other has its grace from then on.
    let later = NOON + 31 * 24 * 60 * MINUTE;
    for index in indices {
        let mut draft = Draft::new(Kind::Opened, Uuid::nil(), later, &ExchangeKey::generate());
        draft.opened = kopuro::log::hidden::open(index, &logs.asked.read_private(index).unwrap());
        assert!(draft.opened.is_some());
        logs.asked.append(draft.seal()).await.unwrap();
    }
    logs.publish();
    let report = look(&mut monitor, later + MINUTE).await;
    assert!(report.ok && report.exchanges.waiting == 1, "{report}");
    let report = look(&mut monitor, later + 20 * MINUTE).await;
    assert_eq!(told(&report), [("MISSING_AT_PROVIDER", delayed.to_string())]);
    assert_eq!(report.findings[0].entries[0].1, 1, "the entry that was opened");

    // One that opens what the entry does not commit to.
    let mut draft = Draft::new(Kind::Opened, Uuid::nil(), later, &ExchangeKey::generate());
    draft.opened = kopuro::log::hidden::open(1, &logs.asked.read_private(2).unwrap());
    logs.asked.append(draft.seal()).await.unwrap();
    logs.publish();
    let report = look(&mut monitor, later + 20 * MINUTE).await;
    let (index, why) = report.logs[0].first_unreadable.clone().unwrap();
    assert!(index == 5 && why.contains("does not open entry 1"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_hides_more_strictly_than_its_provider_is_not_called_missing() {
    use kopuro::log::entry::Publication;
    let logs = Logs::new();
    // The consumer's rule delays what the provider's grant publishes; each entry of the consumer's also has further people.
    let (id, at) = (Uuid::now_v7(), NOON);
    let mut indices = Vec::new();
    for kind in [Kind::RequestSent, Kind::Subjects, Kind::ResponseReceived] {
        let mut draft = Logs::draft(kind, id, at);
        (draft.publication, draft.delay_days) = (Publication::Delayed, 30);
        draft.outcome = if kind == Kind::ResponseReceived { Outcome::Ok } else { Outcome::Unspecified };
        draft.schema = Some([1; 32]);
        indices.push(logs.asked.append(draft.seal()).await.unwrap().index);
    }
    for (kind, outcome) in
        [(Kind::RequestReceived, None), (Kind::Subjects, None), (Kind::Subjects, None), (Kind::ResponseSent, OK)]
    {
        let mut draft = Logs::draft(kind, id, at);
        (draft.outcome, draft.schema) = (outcome.unwrap_or_default(), Some([2; 32]));
        logs.answered.append(draft.seal()).await.unwrap();
    }
    // Hours later another exchange, and one that the consumer really lacks: nothing is hidden then.
    let later = NOON + 300 * MINUTE;
    logs.exchange([OK, OK], later).await;
    let much_later = later + 300 * MINUTE;
    logs.exchange([OK, OK], much_later).await;
    let lacks = logs.exchange([None, OK], much_later).await;
    logs.publish();
    let mut monitor = logs.monitor();
    let report = look(&mut monitor, much_later + 60 * MINUTE).await;
    assert_eq!(told(&report), [("MISSING_AT_CONSUMER", lacks.to_string())], "{report}");
    assert_eq!((report.exchanges.hidden, report.exchanges.agreed, report.exchanges.other_schemas), (1, 2, 0));
    assert!(report.to_string().contains("1 that cannot be compared"), "{report}");

    // A restart knows as much; and when it is opened it is compared: the same, by neighbouring versions of the types.
    drop(monitor);
    let mut monitor = logs.monitor();
    assert_eq!(look(&mut monitor, much_later + 61 * MINUTE).await.exchanges.hidden, 1);
    for index in indices {
        let opened = much_later + 31 * 24 * 60 * MINUTE;
        let mut draft = Draft::new(Kind::Opened, Uuid::nil(), opened, &ExchangeKey::generate());
        draft.opened = kopuro::log::hidden::open(index, &logs.asked.read_private(index).unwrap());
        logs.asked.append(draft.seal()).await.unwrap();
    }
    logs.publish();
    let report = look(&mut monitor, much_later + 32 * 24 * 60 * MINUTE).await;
    assert_eq!(
        (report.exchanges.hidden, report.exchanges.agreed, report.exchanges.other_schemas),
        (0, 3, 1),
        "{report}"
    );
    assert_eq!(told(&report).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn accusations_and_other_histories_that_peers_have_seen_come_to_light() {
    let logs = Logs::new();
    let id = logs.exchange([OK, OK], NOON).await;
    let mut edge = RightEdge::default();
    edge.push(Hash::of_leaf(b"shown to the peer only"));
    let shown = logs.forge_asked(&edge).await;
    // The provider's node saw a checkpoint of the consumer's log that is not of the history which is published.
    let mut draft = Logs::draft(Kind::RequestReceived, Uuid::now_v7(), NOON);
    draft.provider = "KG/GOV/2/other".into();
    draft.consumer = "KG/GOV/2/other".into();
    draft.peer_checkpoint = shown.note.clone();
    logs.answered.append(draft.seal()).await.unwrap();
    let entry = kopuro::log::entry::Entry {
        kind: Kind::Evidence.into(),
        time_unix_ms: NOON,
        peer_checkpoint: shown.note.clone(),
        other_peer_checkpoint: logs.asked.checkpoint().note.clone(),
        exchange_id: id.into_bytes().to_vec().into(),
        ..Default::default()
    };
    let private = Logs::draft(Kind::Evidence, id, NOON).seal().private;
    logs.answered.append(kopuro::log::Record { entry: entry.encode_to_vec().into(), private }).await.unwrap();
    logs.publish();
    let report = look(&mut logs.monitor(), NOON).await;
    assert_eq!(report.logs[1].accused, [(3, "one.example/log: 1 entries against 2 entries".into())]);
    assert!(matches!(&report.logs[0].condition, Condition::Forked(why) if why.contains("first 1 entries")), "{report}");
    assert!(std::fs::read_to_string(&report.evidence[0]).unwrap().contains(&shown.note));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_of_real_nodes_match() {
    let mut running = Running::start().await;
    let desk = harness::probe::ProbeClient::new(running.desk().await);
    for n in 0..20 {
        desk.unary(n.to_string()).await.unwrap();
    }
    desk.clone().with("x-do", "fail").unary("x").await.unwrap_err();
    harness::probe::ProbeClient::new(running.desk().await)
        .with("kopuro-provider", "KG/GOV/2/none")
        .unary("x")
        .await
        .unwrap_err();
    let folder = tempfile::tempdir().unwrap();
    let mut logs = Vec::new();
    for (node, name, member) in [(&running.consumer, "asked", CONSUMER), (&running.provider, "answered", PROVIDER)] {
        let published = folder.path().join(name);
        publish_log(&published, node.log().unwrap(), 0);
        logs.push(format!("{member}={}#{}", published.display(), running.federation.log_key(member)));
    }
    let state = folder.path().join("state").display().to_string();
    let report = folder.path().join("report.json").display().to_string();
    let once = |logs: &[&str]| {
        let flags = logs.iter().flat_map(|log| ["--log", log]);
        let more = ["--state", &state, "--once", "--grace", "0s", "--format", "jsonl", "--report", &report];
        kopuro(&["monitor"].into_iter().chain(flags).chain(more).collect::<Vec<_>>())
    };
    let output = once(&[&logs[0], &logs[1]]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let round: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((round["type"].as_str(), round["exchanges"]["agreed"].as_u64()), (Some("round"), Some(22)), "{text}");
    // The same in a file, for the portal.
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!((&kept["exchanges"], &kept["at_unix_ms"]), (&round["exchanges"], &round["at_unix_ms"]));
    running.stop().await;
}

fn kopuro(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kopuro")).args(args).output().unwrap()
}

/// A monitor process, stopped with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_for_people_and_the_metrics_for_operators() {
    let logs = Logs::new();
    logs.exchange([OK, OK], NOON).await;
    let lacks = logs.exchange([OK, None], NOON).await;
    logs.publish();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let flags = |name: &str, key: &Verifier| format!("{}#{key}", logs.published(name).display());
    let child = Command::new(env!("CARGO_BIN_EXE_kopuro"))
        .args(["monitor", "--log", &flags("asked", &logs.keys[0]), "--log", &flags("answered", &logs.keys[1])])
        .args(["--state", &logs.folder.path().join("state").display().to_string()])
        .args(["--grace", "1s", "--listen", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _monitor = Process(child.unwrap());
    let get = |path: &'static str| {
        harness::eventually(path, async move || match harness::admin(port, path).await {
            Ok((200, answer)) => Some(answer.split_once("\r\n\r\n").unwrap().1.to_owned()),
            _ => None,
        })
    };
    let page = get("/?lang=en").await;
    assert!(page.contains("Missing in the answering side") && page.contains(&lacks.to_string()), "{page}");
    assert!(get("/").await.contains("lang=\"ky\""));
    let report: serde_json::Value = serde_json::from_str(&get("/report.json").await).unwrap();
    assert_eq!(report["wrong"]["MISSING_AT_PROVIDER"], 1, "{report}");
    assert_eq!(report["logs"][0]["member"], CONSUMER, "learned from its entries");
    let metrics = get("/metrics").await;
    assert!(metrics.contains("kopuro_monitor_exchanges_wrong{problem=\"MISSING_AT_PROVIDER\"} 1"), "{metrics}");
    assert_eq!(get("/healthz").await, "ok\n");
}

/// Publishes two members' logs of as many exchanges as the environment says, for measurements: both sides of each in
/// small entries as nodes write them. Does nothing when it runs as an ordinary test.
#[test]
fn for_measurements() {
    let Some(folder) = std::env::var_os("KOPURO_TEST_MEASURE") else { return };
    let exchanges: usize = std::env::var("KOPURO_TEST_EXCHANGES").unwrap().parse().unwrap();
    let folder = PathBuf::from(folder);
    let ids: Vec<Uuid> = (0..exchanges)
        .map(|n| {
            let mut id = *Uuid::now_v7().as_bytes();
            // A thousand exchanges a second.
            id[..6].copy_from_slice(&(NOON as u64 + n as u64).to_be_bytes()[2..]);
            Uuid::from_bytes(id)
        })
        .collect();
    for (name, kinds) in [
        ("asked", [Kind::RequestSent, Kind::ResponseReceived]),
        ("answered", [Kind::RequestReceived, Kind::ResponseSent]),
    ] {
        let entries = ids.iter().enumerate().flat_map(|(n, id)| {
            kinds.map(|kind| {
                let closes = matches!(kind, Kind::ResponseReceived | Kind::ResponseSent);
                let entry = kopuro::log::entry::Entry {
                    kind: kind.into(),
                    exchange_id: id.as_bytes().to_vec().into(),
                    time_unix_ms: NOON + n as i64,
                    consumer: DESK.into(),
                    provider: PROBE.into(),
                    service: "probe.v1.Probe".into(),
                    method: "Unary".into(),
                    legal_basis: "tax-code-2022-art-118".into(),
                    publication: 1,
                    outcome: i32::from(closes),
                    commitment: vec![7; 32].into(),
                    ..Default::default()
                };
                bytes::Bytes::from(entry.encode_to_vec())
            })
        });
        let signer = Signer::generate(&format!("{name}.example/log")).unwrap();
        let published = folder.join(name);
        harness::publisher::publish(&published, &entries.collect::<Vec<_>>(), 0, &signer);
        std::fs::write(published.join("vkey"), signer.verifier().to_string()).unwrap();
    }
}
