//! Delayed and sealed exchanges: their entries show commitments only, both sides agree on the class before anything passes,
//! the node and its auditors still see them whole, and a delayed one is opened once, when its time has come.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kopuro::log::closed::ClosedLog;
use kopuro::log::due::open_due;
use kopuro::log::entry::{Draft, Entry, ExchangeKey, Kind, OpenedEntry, Outcome, Publication, Side};
use kopuro::log::hidden::{self, Seen};
use kopuro::log::index::{EntrySource, Filter, Follower, Index, IndexOptions, SourceError};
use kopuro::log::{Log, Record};
use kopuro::proto::kopuro::audit::v1::audit_log_client::AuditLogClient;
use kopuro::proto::kopuro::audit::v1::*;
use proptest::prelude::*;
use prost::Message;
use tonic::Code;
use uuid::Uuid;

use crate::harness::probe::ProbeClient;
use crate::harness::{AUDITOR, CONSUMER, DESK, Federation, PROBE, PROVIDER, Running, eventually, reason};
use crate::log_support::{draft, open};

const DAY_MS: i64 = 86_400_000;

/// Both sides' classes, as they stand in grants and outbound list.
fn federation(grant: &str, outbound: &str) -> Federation {
    let mut federation = Federation::new();
    federation.grants.push_str(&format!("publication = {grant}\n"));
    federation.outbound = format!(
        "[[allow]]\nsystem = \"desk\"\nprovider = \"*\"\nservice = \"*\"\nmethods = [\"*\"]\npublication = {outbound}\n"
    );
    federation
}

/// All entries of a log, with what they hide.
fn seen(log: &Log) -> Vec<Seen> {
    log.read_seen(0, 1_000).unwrap()
}

fn whole(seen: &[Seen]) -> Vec<Entry> {
    seen.iter().map(|seen| Entry::decode(seen.whole()).unwrap()).collect()
}

fn kinds(seen: &[Seen]) -> Vec<(Kind, Outcome)> {
    whole(seen).iter().map(|entry| (entry.kind(), entry.outcome())).collect()
}

/// What a reader of the published log sees of a hidden entry.
fn shows_nothing(seen: &Seen) -> bool {
    let shown = Entry::decode(seen.entry.clone()).unwrap();
    let (publication, delay_days, commitment) = (shown.publication, shown.delay_days, shown.commitment.clone());
    shown == Entry { publication, delay_days, commitment, ..Entry::default() }
        && hidden::is_hidden(&seen.entry)
        && !String::from_utf8_lossy(&seen.entry).contains("KG/")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_exchange_shows_its_commitment_and_auditors_see_it_whole() {
    let mut running = federation("\"sealed\"", "\"sealed\"").start("").await;
    let desk = ProbeClient::new(running.desk().await);
    let answer = desk.unary("x").await.unwrap();
    let id: Uuid = answer.metadata().get("kopuro-exchange").unwrap().to_str().unwrap().parse().unwrap();
    desk.clone().with("x-do", "fail").unary("x").await.unwrap_err();

    for (node, sides) in [
        (&running.consumer, [Kind::RequestSent, Kind::ResponseReceived]),
        (&running.provider, [Kind::RequestReceived, Kind::ResponseSent]),
    ] {
        let seen = seen(node.log().unwrap());
        assert!(seen.iter().all(shows_nothing));
        let [opens, closes] = sides;
        let expected = [
            (opens, Outcome::Unspecified),
            (closes, Outcome::Ok),
            (opens, Outcome::Unspecified),
            (closes, Outcome::Error),
        ];
        assert_eq!(kinds(&seen), expected);
        let entries = whole(&seen);
        assert!(
            entries.iter().all(|e| e.consumer == DESK && e.provider == PROBE && e.publication() == Publication::Sealed)
        );
        assert_eq!(entries[0].exchange_id, id.as_bytes()[..]);
    }

    let certificate = running.federation.issue(AUDITOR);
    let channel = running.federation.channel(running.provider.systems_addr(), &certificate).await.unwrap();
    let mut auditor = AuditLogClient::new(channel);
    let filter = Some(kopuro::proto::kopuro::audit::v1::Filter {
        consumer: DESK.into(),
        outcome: Outcome::Error.into(),
        publication: Publication::Sealed.into(),
        ..Default::default()
    });
    let found = eventually("both exchanges in the index", async || {
        let request = QueryExchangesRequest { filter: filter.clone(), ..Default::default() };
        let found = auditor.query_exchanges(request).await.unwrap().into_inner();
        (found.indexed_size >= 4).then_some(found.exchanges)
    })
    .await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].consumer.as_str(), found[0].indices.as_slice()), (DESK, &[2, 3][..]));
    let stats = auditor.stats(StatsRequest { filter: None }).await.unwrap().into_inner();
    assert_eq!((stats.exchanges, stats.hidden_entries), (2, 0));

    let request = GetExchangeRequest { exchange_id: Bytes::copy_from_slice(id.as_bytes()) };
    let got = auditor.get_exchange(request).await.unwrap().into_inner();
    assert_eq!(got.exchange.unwrap().outcome(), Outcome::Ok);
    let log = running.provider.log().unwrap();
    let leaves = log.read(0, 2).unwrap();
    let mut tail = auditor.tail_entries(TailEntriesRequest { from: 0, follow: false }).await.unwrap().into_inner();
    for (leaf, got) in leaves.iter().zip(got.entries) {
        let told = tail.message().await.unwrap().unwrap();
        assert_eq!((&told.entry, &got.entry), (leaf, leaf), "the leaf's bytes as they are");
        assert_eq!(told.hidden, got.hidden);
        let merged = Entry::decode(&[&told.entry[..], &told.hidden[..]].concat()[..]).unwrap();
        assert_eq!(merged.consumer, DESK);
    }

    // The command line on the stopped node's folder sees the same; without the key it sees that there is something.
    let federation = running.stop().await;
    let data = federation.member_path(PROVIDER, "data");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kopuro"));
        let output =
            command.args(["log", "--data", data.to_str().unwrap(), "--format", "jsonl"]).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["query", "--outcome", "error"]).contains(DESK));
    assert!(run(&["show", &id.to_string()]).contains("REQUEST_RECEIVED"));
    std::fs::remove_file(data.join("seal.key")).unwrap();
    std::fs::remove_dir_all(data.join("index")).unwrap();
    assert!(!run(&["query"]).contains(DESK));
    let stats = run(&["stats"]);
    assert!(stats.contains(r#"{"by":"hidden entries","exchanges":4,"value":""}"#), "{stats}");
    assert!(run(&["tail", "--since", "0"]).contains("HIDDEN"));
    let vkey = federation.log_key(PROVIDER).to_string();
    assert!(run(&["verify", "--vkey", &vkey]).starts_with("verified: "), "what is destroyed leaves the log whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_records_too_openly_is_refused_before_anything_passes() {
    for (grant, outbound, remedy) in [
        ("\"sealed\"", "\"public\"", "publication = \"sealed\""),
        ("\"sealed\"", "{ delayed_days = 3000 }", "publication = \"sealed\""),
        ("{ delayed_days = 30 }", "{ delayed_days = 29 }", "publication = { delayed_days = 30 }"),
    ] {
        let mut running = federation(grant, outbound).start("").await;
        let refused = ProbeClient::new(running.desk().await).unary("x").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        assert_eq!(reason(&refused), Some(("PUBLICATION_TOO_OPEN".into(), "provider".into())));
        assert!(refused.message().contains(remedy), "{}", refused.message());
        assert_eq!(running.probe.seen.calls.load(std::sync::atomic::Ordering::SeqCst), 0, "nothing passed");

        let provider = seen(running.provider.log().unwrap());
        assert_eq!(kinds(&provider), [(Kind::Refused, Outcome::Refused)]);
        assert!(shows_nothing(&provider[0]), "the refusal tells nothing of what the grant hides");
        assert_eq!(whole(&provider)[0].reason, "PUBLICATION_TOO_OPEN");
        let consumer = seen(running.consumer.log().unwrap());
        assert_eq!(
            kinds(&consumer),
            [(Kind::RequestSent, Outcome::Unspecified), (Kind::ResponseReceived, Outcome::Refused)]
        );
        assert!(shows_nothing(&consumer[1]), "the consumer has learnt the class by then");
        running.stop().await;
    }
    // As strict as the grant, or stricter, passes.
    for (grant, outbound) in [("{ delayed_days = 30 }", "{ delayed_days = 31 }"), ("\"public\"", "\"sealed\"")] {
        let mut running = federation(grant, outbound).start("").await;
        ProbeClient::new(running.desk().await).unary("x").await.unwrap();
        assert!(seen(running.consumer.log().unwrap()).iter().all(shows_nothing));
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_exchange_that_a_crash_left_open_is_closed() {
    let mut federation = federation("\"sealed\"", "\"sealed\"");
    federation.write_files("");
    let node = federation.start_node(CONSUMER).await;
    let log = node.log().unwrap();
    let mut opening = Draft::new(Kind::RequestSent, Uuid::now_v7(), 1_790_000_000_000, &ExchangeKey::generate());
    opening.publication = Publication::Sealed;
    (opening.consumer, opening.provider) = (DESK.into(), PROBE.into());
    log.append(opening.seal()).await.unwrap();
    // The node knows nothing of it: as if it had crashed.
    node.stop().await;
    let node = federation.start_node(CONSUMER).await;
    let entries = seen(node.log().unwrap());
    assert_eq!(kinds(&entries), [(Kind::RequestSent, Outcome::Unspecified), (Kind::Failed, Outcome::Failed)]);
    assert!(entries.iter().all(shows_nothing));
    let closed = &whole(&entries)[1];
    assert_eq!(
        (closed.reason.as_str(), closed.side(), closed.consumer.as_str()),
        ("INTERRUPTED", Side::Consumer, DESK)
    );
    node.stop().await;
}

/// An index of its own over a running node's log.
fn index_of(log: &Log, folder: &Path) -> (Index, Follower) {
    Index::follow(IndexOptions::new(folder), log).unwrap()
}

/// Checks every opening in a log against the entry that it opens; which those are.
fn opened(log: &Log) -> Vec<u64> {
    let entries = seen(log);
    let openings = whole(&entries).into_iter().filter(|entry| entry.kind() == Kind::Opened);
    openings
        .map(|entry| {
            assert_eq!((entry.publication(), entry.exchange_id.len()), (Publication::Public, 0));
            let opened = entry.opened.unwrap();
            let target = &entries[opened.index as usize];
            let verified = hidden::verify_opened(&opened, &target.entry).unwrap();
            assert_eq!(verified, Entry::decode(target.whole()).unwrap());
            opened.index
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_exchange_is_opened_once_when_its_time_has_come() {
    let mut running = federation("{ delayed_days = 30 }", "{ delayed_days = 40 }").start("").await;
    let desk = ProbeClient::new(running.desk().await);
    for _ in 0..3 {
        desk.unary("x").await.unwrap();
    }
    let log = running.provider.log().unwrap();
    assert!(seen(log).iter().all(shows_nothing));
    let made: Vec<i64> = whole(&seen(log)).iter().map(|entry| entry.time_unix_ms).collect();
    let folder = tempfile::tempdir().unwrap();
    let (index, follower) = index_of(log, folder.path());
    assert_eq!(open_due(log, &index, made[0] + 30 * DAY_MS - 1).await.unwrap(), 0);
    // One exchange of the three, as far as it is due at the very millisecond.
    let due_first = made.iter().filter(|time| **time <= made[1]).count() as u64;
    assert_eq!(open_due(log, &index, made[1] + 30 * DAY_MS).await.unwrap(), due_first);
    assert_eq!(open_due(log, &index, made[1] + 30 * DAY_MS).await.unwrap(), 0);
    drop(follower);

    // After a restart, with an index built from nothing, it goes on where it was.
    let Running { federation, consumer, provider, probe } = running;
    provider.stop().await;
    let provider = federation.start_node(PROVIDER).await;
    let log = provider.log().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (index, _follower) = index_of(log, folder.path());
    assert_eq!(open_due(log, &index, made[5] + 30 * DAY_MS).await.unwrap(), 6 - due_first);
    assert_eq!(open_due(log, &index, made[5] + 300 * DAY_MS).await.unwrap(), 0);
    let mut all = opened(log);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5], "each once");
    // The openings are no exchanges.
    eventually("the index has the openings", async || (index.indexed_size() == 12).then_some(())).await;
    let counts = index.count(&Filter::default(), Instant::now() + Duration::from_secs(10)).unwrap();
    assert_eq!((counts.exchanges, counts.hidden), (3, 0));
    consumer.stop().await;
    provider.stop().await;
    drop(probe);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_opened_any_more_stays_hidden_and_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    let delayed = |number: u8| {
        let mut draft = draft(Kind::Refused, Uuid::now_v7());
        (draft.publication, draft.delay_days) = (Publication::Delayed, 1);
        draft.reason = format!("R{number}");
        draft.seal()
    };
    let time = 1_790_000_000_000;
    log.append(delayed(0)).await.unwrap();
    // Its private half is another entry's: as good as destroyed.
    let (entry, other) = (delayed(1), delayed(2));
    log.append(Record { entry: entry.entry, private: other.private }).await.unwrap();
    log.append(delayed(3)).await.unwrap();
    let (index, _follower) = index_of(&log, folder.path());
    assert_eq!(open_due(&log, &index, time + DAY_MS).await.unwrap(), 2);
    assert_eq!(open_due(&log, &index, time + DAY_MS).await.unwrap(), 0);
    let entries = seen(&log);
    assert_eq!(opened(&log), [0, 2]);
    log.close().await;
    let closed = ClosedLog::open(folder.path()).unwrap();
    assert_eq!(ClosedLog::read_seen(&closed, 0, 1).unwrap()[0].hidden, entries[0].hidden);
}

// === The index's list of what is due, against a scan ===

/// A log's entries in a list, with what they hide.
#[derive(Default)]
struct Entries(Mutex<Vec<Seen>>);

impl EntrySource for Entries {
    fn size(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn read(&self, from: u64, max: usize) -> Result<Vec<Bytes>, SourceError> {
        Ok(self.read_seen(from, max)?.into_iter().map(|seen| seen.entry).collect())
    }

    fn read_seen(&self, from: u64, max: usize) -> Result<Vec<Seen>, SourceError> {
        Ok(self.0.lock().unwrap().iter().skip(from as usize).take(max).cloned().collect())
    }
}

/// One entry: public, delayed by some days, sealed, delayed with its half gone, or opening an earlier one.
fn made(what: (u8, u16), time: i64) -> Seen {
    let mut draft = Draft::new(Kind::Refused, Uuid::now_v7(), time, &ExchangeKey::generate());
    draft.publication = Publication::Public;
    match what.0 {
        0 => {}
        1 | 3 => (draft.publication, draft.delay_days) = (Publication::Delayed, u32::from(what.1 % 5) + 1),
        2 => draft.publication = Publication::Sealed,
        _ => {
            draft.kind = Kind::Opened;
            draft.opened = Some(OpenedEntry { index: what.1.into(), ..OpenedEntry::default() });
        }
    }
    let record = draft.seal();
    Seen::new(record.entry, (what.0 != 3).then_some(&record.private))
}

proptest! {
    #[test]
    fn what_is_due_is_what_a_scan_finds(
        made_of in prop::collection::vec((0..5u8, 0..40u16), 1..40),
        segment in 1..9u32,
        days in 0..8i64,
        from in 0..40u64,
        limit in 1..20usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let source = Arc::new(Entries::default());
        let options = IndexOptions { folder: folder.path().into(), segment_entries: segment, cache_bytes: 10_000 };
        let index = Index::open(options.clone(), source.clone()).unwrap();
        let (mut delayed, mut opened) = (Vec::new(), BTreeSet::new());
        for (at, (what, number)) in made_of.into_iter().enumerate() {
            // Opens something that is there.
            let number = if what == 4 { number % (at as u16 + 1) } else { number };
            source.0.lock().unwrap().push(made((what, number), 0));
            match what {
                1 => delayed.push((at as u64, (i64::from(number % 5) + 1) * DAY_MS)),
                4 => drop(opened.insert(u64::from(number))),
                _ => {}
            }
            if at % 3 == 0 {
                index.catch_up().unwrap();
                index.due(days * DAY_MS, 0, 3).unwrap();
            }
        }
        let expected: Vec<u64> = delayed
            .into_iter()
            .filter(|(at, due)| *due <= days * DAY_MS && !opened.contains(at) && *at >= from)
            .map(|(at, _)| at)
            .take(limit)
            .collect();
        index.catch_up().unwrap();
        prop_assert_eq!(&index.due(days * DAY_MS, from, limit).unwrap(), &expected);
        // Later, and then again: what was looked at once is not forgotten.
        index.due(0, 0, 1).unwrap();
        prop_assert_eq!(&index.due(days * DAY_MS, from, limit).unwrap(), &expected);
        drop(index);
        let again = Index::open(options, source).unwrap();
        again.catch_up().unwrap();
        prop_assert_eq!(again.due(days * DAY_MS, from, limit).unwrap(), expected);
    }
}
