//! Two nodes under load, one of them killed with SIGKILL again and again: what was answered is in both logs, what was interrupted is
//! closed as such, nothing is there twice, and no request or answer ever ran ahead of its entry.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kopuro::log::closed::ClosedLog;
use kopuro::log::entry::{Entry, Kind, Outcome};
use kopuro::log::verify::verify_folder;
use kopuro::proto::kopuro::audit::v1::TailEntriesRequest;
use kopuro::proto::kopuro::audit::v1::audit_log_client::AuditLogClient;
use kopuro::trust::pki::Issued;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::harness::probe::{ProbeClient, blob};
use crate::harness::process::Process;
use crate::harness::{AUDITOR, CONSUMER, DESK, Federation, PROVIDER};

const KILLS: u64 = 30;
/// Callers of unary methods, and of streams.
const UNARY: usize = 16;
const STREAMS: usize = 4;
/// Nothing that a caller does takes longer, whoever is killed meanwhile.
const LIMIT: Duration = Duration::from_secs(15);

/// What the callers were told.
#[derive(Default)]
struct Told {
    /// Exchanges that were answered to the end.
    answered: Mutex<Vec<Uuid>>,
    /// Exchanges that a node said had failed.
    failed: Mutex<Vec<Uuid>>,
    count: AtomicU64,
    codes: Mutex<BTreeMap<String, u64>>,
    stop: AtomicBool,
}

impl Told {
    fn answered(&self, metadata: &MetadataMap) {
        self.answered.lock().unwrap().push(exchange(metadata).expect("an answer names its exchange"));
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    async fn failed(&self, status: &Status) {
        let by_node = exchange(status.metadata());
        if let Some(id) = by_node {
            self.failed.lock().unwrap().push(id);
        }
        let what = format!("{} {:?}", if by_node.is_some() { "node:" } else { "transport:" }, status.code());
        *self.codes.lock().unwrap().entry(what).or_default() += 1;
        // Not to fill the log with attempts while a node is away.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn exchange(metadata: &MetadataMap) -> Option<Uuid> {
    metadata.get("kopuro-exchange")?.to_str().ok()?.parse().ok()
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("not done in {LIMIT:?}: {what}"))
}

/// Calls until told to stop, whatever happens to the nodes.
async fn unary(probe: ProbeClient, told: Arc<Told>) {
    let mut n = 0_u64;
    while !told.stop.load(Ordering::SeqCst) {
        n += 1;
        let fail = n.is_multiple_of(10);
        let probe = if fail { probe.clone().with("x-do", "fail") } else { probe.clone() };
        match within("a unary call", probe.unary(n.to_string())).await {
            Ok(answer) => {
                assert_eq!(answer.get_ref().value, n.to_string());
                told.answered(answer.metadata());
            }
            // The back-end's own error is an answer like any other.
            Err(status) if fail && status.code() == Code::FailedPrecondition => {}
            Err(status) => told.failed(&status).await,
        }
    }
}

async fn streams(probe: ProbeClient, told: Arc<Told>) {
    let mut n = 0_u64;
    while !told.stop.load(Ordering::SeqCst) {
        n += 1;
        let opened = if n.is_multiple_of(2) {
            within("a stream opens", probe.expand(Some(200))).await
        } else {
            let said = futures_util::stream::iter((0..200).map(|n| blob(&n.to_string())));
            within("a stream opens", probe.chat(said)).await
        };
        let (metadata, mut stream) = match opened {
            Ok(opened) => (opened.metadata().clone(), opened.into_inner()),
            Err(status) => {
                told.failed(&status).await;
                continue;
            }
        };
        let mut count = 0_u64;
        loop {
            match within("a stream moves", stream.message()).await {
                Ok(Some(message)) => {
                    assert_eq!(message.value, count.to_string());
                    count += 1;
                }
                Ok(None) => {
                    assert_eq!(count, 200, "a stream that ended well has all its messages");
                    break told.answered(&metadata);
                }
                Err(status) => break told.failed(&status).await,
            }
        }
    }
}

/// A node's log, as an auditor has read it so far.
#[derive(Default)]
struct Seen {
    size: u64,
    by_exchange: HashMap<Uuid, Vec<Entry>>,
}

impl Seen {
    fn take(&mut self, entry: &[u8]) {
        let entry = Entry::decode(entry).unwrap();
        let id = Uuid::from_slice(&entry.exchange_id).unwrap();
        let entries = self.by_exchange.entry(id).or_default();
        assert!(entries.iter().all(|other| other.kind() != entry.kind()), "twice: {id} {:?}", entry.kind());
        entries.push(entry);
        self.size += 1;
    }

    /// Reads what is new, over the node's audit service.
    async fn read_on(&mut self, federation: &Federation, node: &Process, auditor: &Issued) {
        let channel = federation.channel(node.systems, auditor).await.unwrap();
        let request = TailEntriesRequest { from: self.size, follow: false };
        let mut tail = AuditLogClient::new(channel).tail_entries(request).await.unwrap().into_inner();
        while let Some(indexed) = tail.message().await.unwrap() {
            assert_eq!(indexed.index, self.size);
            self.take(&indexed.entry);
        }
    }

    fn kinds(&self, id: &Uuid) -> Vec<Kind> {
        let kinds = self.by_exchange.get(id).into_iter().flatten().map(Entry::kind);
        // Neither opens nor closes.
        kinds.filter(|kind| *kind != Kind::RequestCompleted).collect()
    }
}

/// Every answered exchange is whole in both logs, every failed one is closed at the consumer's.
fn check_told(answered: &[Uuid], failed: &[Uuid], consumer: &Seen, provider: &Seen) {
    for id in answered {
        assert_eq!(consumer.kinds(id), [Kind::RequestSent, Kind::ResponseReceived], "{id} at the consumer's");
        assert_eq!(provider.kinds(id), [Kind::RequestReceived, Kind::ResponseSent], "{id} at the provider's");
    }
    for id in failed {
        let kinds = consumer.kinds(id);
        assert!(matches!(kinds[..], [Kind::RequestSent, Kind::Failed | Kind::ResponseReceived]), "{id}: {kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_under_load_loses_and_doubles_nothing() {
    let mut federation = Federation::new();
    federation.write_files("[drain]\nlimit = \"5s\"\n");
    let probe = federation.start_probe().await;
    let mut nodes = [Process::start(&federation, PROVIDER).await, Process::start(&federation, CONSUMER).await];
    let members = [PROVIDER, CONSUMER];
    let (desk, auditor) = (federation.issue(DESK), federation.issue(AUDITOR));

    let told = Arc::new(Told::default());
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..UNARY + STREAMS {
        let client = ProbeClient::new(federation.channel(nodes[1].systems, &desk).await.unwrap());
        if number < UNARY {
            callers.spawn(unary(client, told.clone()));
        } else {
            callers.spawn(streams(client, told.clone()));
        }
    }

    let (mut consumer, mut provider) = (Seen::default(), Seen::default());
    for round in 0..KILLS {
        // Both are up: calls pass again, and so many of them that some are under way at any moment.
        let before = told.count.load(Ordering::SeqCst);
        within("calls pass again", async {
            while told.count.load(Ordering::SeqCst) < before + 100 {
                assert!(callers.try_join_next().is_none(), "a caller gave up");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        // Killed at another moment of its work each time.
        tokio::time::sleep(Duration::from_micros(730 * (round % 13))).await;
        let which = (round % 2) as usize;
        nodes[which].kill();
        nodes[which] = Process::start(&federation, members[which]).await;

        let (answered, failed) = (told.answered.lock().unwrap().clone(), told.failed.lock().unwrap().clone());
        within("the auditor reads", async {
            provider.read_on(&federation, &nodes[0], &auditor).await;
            consumer.read_on(&federation, &nodes[1], &auditor).await;
        })
        .await;
        check_told(&answered, &failed, &consumer, &provider);
    }

    told.stop.store(true, Ordering::SeqCst);
    within("the callers end", async { while callers.join_next().await.transpose().unwrap().is_some() {} }).await;
    let [provider_node, consumer_node] = nodes;
    consumer_node.stop().await;
    provider_node.stop().await;

    // From here on by the files alone.
    let consumer = read_folder(&federation, CONSUMER);
    let provider = read_folder(&federation, PROVIDER);
    check_told(&told.answered.lock().unwrap(), &told.failed.lock().unwrap(), &consumer, &provider);
    let interrupted = [closed_once(&consumer, Kind::RequestSent), closed_once(&provider, Kind::RequestReceived)];
    assert!(interrupted.iter().all(|count| *count > 0), "{interrupted:?}: nobody was interrupted");
    for (id, entries) in &provider.by_exchange {
        if entries[0].kind() == Kind::RequestReceived {
            assert!(consumer.kinds(id).contains(&Kind::RequestSent), "{id} left the consumer's node before its entry");
        }
    }
    for (id, entries) in &consumer.by_exchange {
        if entries.last().unwrap().outcome() == Outcome::Ok && entries[0].kind() == Kind::RequestSent {
            let kinds = provider.kinds(id);
            assert_eq!(kinds, [Kind::RequestReceived, Kind::ResponseSent], "{id} left the provider's before its entry");
        }
    }
    let received = provider.by_exchange.values().filter(|entries| entries[0].kind() == Kind::RequestReceived).count();
    let calls = probe.seen.calls.load(Ordering::SeqCst);
    assert!(calls <= received as u64, "the back-end saw {calls} calls, of which the log has {received}");

    let codes = told.codes.lock().unwrap();
    let by_node: Vec<_> = codes.keys().filter(|code| code.starts_with("node:")).collect();
    assert_eq!(by_node, ["node: Unavailable"], "a peer that died is UNAVAILABLE: {codes:?}");
    println!(
        "{} answered, {codes:?}; entries {} and {}, interrupted {interrupted:?}",
        told.answered.lock().unwrap().len(),
        consumer.size,
        provider.size,
    );
}

/// Verifies a stopped node's log and reads it.
fn read_folder(federation: &Federation, member: &str) -> Seen {
    let data = federation.member_path(member, "data");
    let verified = verify_folder(&data, federation.log_key(member)).unwrap();
    assert_eq!(verified.ahead_of_head, 0, "it was closed well");
    assert_eq!(files_in(&data.join("sled/blobs")), 0, "sled wrote files that it does not sync");
    let log = ClosedLog::open(&data).unwrap();
    assert_eq!(log.checkpoint().size, verified.size);
    let mut seen = Seen::default();
    while seen.size < verified.size {
        for entry in log.read(seen.size, 1_000).unwrap() {
            seen.take(&entry);
        }
    }
    seen
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Every opened exchange has one closing entry, after its opening one; gives how many a crash had left open.
fn closed_once(log: &Seen, opening: Kind) -> usize {
    let mut interrupted = 0;
    for (id, entries) in &log.by_exchange {
        let entries: Vec<_> = entries.iter().filter(|entry| entry.kind() != Kind::RequestCompleted).collect();
        let kinds: Vec<Kind> = entries.iter().map(|entry| entry.kind()).collect();
        if matches!(kinds[..], [Kind::Refused | Kind::Audit]) {
            continue;
        }
        assert_eq!((kinds.len(), kinds[0]), (2, opening), "{id}: {kinds:?}");
        let end = entries[1];
        if end.reason == "INTERRUPTED" {
            assert_eq!((end.kind(), end.outcome()), (Kind::Failed, Outcome::Failed), "{id}");
            interrupted += 1;
        }
    }
    interrupted
}
