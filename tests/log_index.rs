//! The derived index answers as reading every entry would: across segment borders, while the log grows, after a
//! restart, and after its files were damaged, deleted or swapped.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kopuro::log::entry::{Entry, Kind, Outcome};
use kopuro::log::index::{
    Counts, EntrySource, Filter, Index, IndexError, IndexOptions, Progress, Query, Records, SourceError,
};
use proptest::prelude::*;
use prost::Message;

const HOUR: i64 = 3_600_000;
const START: i64 = 1_790_000_000_000;

/// A log's entries in a list.
#[derive(Default)]
struct Entries(Mutex<Vec<Bytes>>);

impl Entries {
    fn new(entries: &[Entry]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(entries.iter().map(encoded).collect())))
    }
}

impl EntrySource for Entries {
    fn size(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn read(&self, from: u64, max: usize) -> Result<Vec<Bytes>, SourceError> {
        Ok(self.0.lock().unwrap().iter().skip(from as usize).take(max).cloned().collect())
    }
}

fn encoded(entry: &Entry) -> Bytes {
    entry.encode_to_vec().into()
}

fn options(folder: &Path, segment_entries: u32) -> IndexOptions {
    IndexOptions { folder: folder.into(), segment_entries, cache_bytes: 20_000 }
}

fn indexed(folder: &Path, segment_entries: u32, entries: &Arc<Entries>) -> Index {
    let index = Index::open(options(folder, segment_entries), entries.clone()).unwrap();
    index.catch_up().unwrap();
    assert_eq!(index.indexed_size(), entries.size());
    index
}

/// An exchange as a scan of all entries finds it.
#[derive(Debug)]
struct Scanned {
    entries: Vec<u64>,
    first: Entry,
    progress: Progress,
    reason: String,
}

fn scan(entries: &[Entry]) -> Vec<Scanned> {
    let mut exchanges: Vec<Scanned> = Vec::new();
    let mut open: HashMap<Vec<u8>, usize> = HashMap::new();
    for (index, entry) in (0..).zip(entries) {
        let id = entry.exchange_id.to_vec();
        let at = *open.entry(id.clone()).or_insert_with(|| {
            let reason = String::new();
            exchanges.push(Scanned { entries: vec![], first: entry.clone(), progress: Progress::default(), reason });
            exchanges.len() - 1
        });
        let exchange = &mut exchanges[at];
        exchange.entries.push(index);
        if exchange.progress.add_entry(entry) {
            exchange.reason.clone_from(&entry.reason);
        }
        if !exchange.progress.is_open() {
            open.remove(&id);
        }
    }
    exchanges
}

fn is_meant(filter: &Filter, exchange: &Scanned) -> bool {
    let same = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
    let of = |wanted: &Option<String>, text: &str| {
        wanted.as_deref().is_none_or(|wanted| {
            text == wanted || (wanted.split('/').count() == 3 && text.starts_with(&format!("{wanted}/")))
        })
    };
    let first = &exchange.first;
    let ended = !exchange.progress.is_open();
    filter.from_unix_ms.is_none_or(|from| first.time_unix_ms >= from)
        && filter.until_unix_ms.is_none_or(|until| first.time_unix_ms < until)
        && of(&filter.consumer, &first.consumer)
        && of(&filter.provider, &first.provider)
        && same(&filter.service, &first.service)
        && same(&filter.method, &first.method)
        && same(&filter.legal_basis, &first.legal_basis)
        && filter.reason.as_ref().is_none_or(|reason| ended && *reason == exchange.reason)
        && filter.publication.is_none_or(|class| first.publication() == class)
        && filter.exchange_id.is_none_or(|id| first.exchange_id.as_ref() == id)
        && filter.outcome.is_none_or(|outcome| match outcome {
            Outcome::Unspecified => !ended,
            outcome => ended && exchange.progress.outcome() == outcome,
        })
        && match filter.records {
            Records::Exchanges => first.kind() != Kind::Audit,
            Records::Audits => first.kind() == Kind::Audit,
            Records::All => true,
        }
}

fn query(filter: &Filter, newest_first: bool, after: Option<u64>, limit: usize) -> Query {
    let deadline = Instant::now() + Duration::from_secs(60);
    Query { filter: filter.clone(), newest_first, after, limit, deadline }
}

/// All pages of a query.
fn openings(index: &Index, filter: &Filter, newest_first: bool, limit: usize) -> Vec<u64> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = index.query(&query(filter, newest_first, after, limit)).unwrap();
        assert!(page.openings.len() <= limit);
        found.extend(page.openings);
        match page.next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
}

fn count(index: &Index, filter: &Filter) -> Counts {
    index.count(filter, Instant::now() + Duration::from_secs(60)).unwrap()
}

/// What the index says about each filter is what the scan says.
fn agrees(index: &Index, entries: &[Entry], filters: &[Filter]) {
    let exchanges = scan(entries);
    for exchange in &exchanges {
        assert_eq!(index.entries_of(exchange.entries[0]).unwrap(), exchange.entries);
    }
    for filter in filters {
        let meant: Vec<&Scanned> = exchanges.iter().filter(|exchange| is_meant(filter, exchange)).collect();
        let mut expected: Vec<u64> = meant.iter().map(|exchange| exchange.entries[0]).collect();
        assert_eq!(openings(index, filter, false, 7), expected, "oldest first, {filter:?}");
        expected.reverse();
        assert_eq!(openings(index, filter, true, 3), expected, "newest first, {filter:?}");

        let counts = count(index, filter);
        assert_eq!(counts.exchanges, meant.len() as u64);
        let mut outcomes: HashMap<Outcome, u64> = HashMap::new();
        let (mut pairs, mut reasons) = (HashMap::new(), HashMap::new());
        for exchange in &meant {
            let outcome = exchange.progress.outcome();
            if exchange.progress.is_open() || outcome != Outcome::Unspecified {
                *outcomes.entry(outcome).or_default() += 1;
            }
            if !exchange.progress.is_open() && !exchange.reason.is_empty() {
                *reasons.entry(exchange.reason.clone()).or_default() += 1;
            }
            let pair = format!("{} -> {}", exchange.first.consumer, exchange.first.provider);
            *pairs.entry(pair).or_default() += 1;
        }
        assert_eq!(counts.by_outcome.into_iter().collect::<HashMap<_, _>>(), outcomes, "{filter:?}");
        assert_eq!(counts.by_pair.into_iter().collect::<HashMap<_, u64>>(), pairs);
        assert_eq!(counts.by_reason.into_iter().collect::<HashMap<_, u64>>(), reasons);
        assert_eq!(counts.by_day.iter().map(|(_, count)| count).sum::<u64>(), meant.len() as u64);
    }
}

fn filters(exchange_id: [u8; 16]) -> Vec<Filter> {
    let text = |text: &str| Some(text.to_owned());
    let all = Filter { records: Records::All, ..Filter::default() };
    let from_unix_ms = Some(START + HOUR);
    let consumer = text("KG/GOV/1/tax");
    vec![
        Filter::default(),
        all.clone(),
        Filter { records: Records::Audits, ..Filter::default() },
        Filter { from_unix_ms, until_unix_ms: Some(START + 30 * HOUR), ..Filter::default() },
        Filter { consumer: consumer.clone(), ..all.clone() },
        Filter { consumer: text("KG/GOV/1"), method: text("Get"), ..Filter::default() },
        Filter { provider: text("KG/GOV/2/register"), outcome: Some(Outcome::Ok), ..Filter::default() },
        Filter { outcome: Some(Outcome::Unspecified), ..all.clone() },
        Filter { outcome: Some(Outcome::Failed), from_unix_ms, ..all.clone() },
        Filter { outcome: Some(Outcome::Refused), reason: text("GRANT_MISSING"), ..all.clone() },
        Filter { reason: text("DEADLINE"), consumer, ..all.clone() },
        Filter { service: text("kg.Nowhere"), ..Filter::default() },
        Filter {
            legal_basis: text("LAW-2"),
            publication: Some(kopuro::log::entry::Publication::Sealed),
            ..all.clone()
        },
        Filter { exchange_id: Some(exchange_id), ..all.clone() },
        Filter { exchange_id: Some([9; 16]), ..all },
    ]
}

fn entry(id: u8, kind: Kind, outcome: Outcome, variant: u8, hours: i64) -> Entry {
    let systems = ["KG/GOV/1/tax", "KG/GOV/1/customs", "KG/GOV/2/register", "KG/GOV/3/fund"];
    let reason = match outcome {
        Outcome::Refused => ["GRANT_MISSING", "RATE_LIMITED"][usize::from(variant % 2)],
        Outcome::Failed => "DEADLINE",
        _ => "",
    };
    Entry {
        kind: kind.into(),
        // The first bytes differ widely, so that ids are in no order.
        exchange_id: Bytes::copy_from_slice(&[id.wrapping_mul(89), id, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
        time_unix_ms: START + hours * HOUR,
        consumer: systems[usize::from(variant % 2)].into(),
        provider: if variant == 7 { String::new() } else { systems[usize::from(variant / 2 % 4)].into() },
        service: if variant.is_multiple_of(3) { "kg.civil.v1.CivilRegistry".into() } else { "kg.tax.v1.Tax".into() },
        method: if variant.is_multiple_of(5) { "List".into() } else { "Get".into() },
        legal_basis: format!("LAW-{}", variant % 3),
        publication: i32::from(variant % 4),
        outcome: outcome.into(),
        reason: reason.into(),
        ..Entry::default()
    }
}

prop_compose! {
    /// Any order of kinds and ids, those of well-behaved gateways and others, with clocks that jump.
    fn any_entry()(
        id in 0..40_u8, kind in prop::sample::select(vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 12_i32]), outcome in 0..5_i32, variant in 0..8_u8, hours in 0..100_i64,
    ) -> Entry {
        let kind = Kind::try_from(kind).unwrap();
        let opens = matches!(kind, Kind::RequestSent | Kind::RequestReceived);
        let outcome = if opens { Outcome::Unspecified } else { Outcome::try_from(outcome).unwrap() };
        entry(id, kind, outcome, variant, hours)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answers_as_a_scan_would(
        entries in proptest::collection::vec(any_entry(), 0..300),
        segment_entries in prop_oneof![Just(1_u32), 2..40_u32, Just(1_000)],
        reopened_at in 0..300_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (before, _) = entries.split_at(reopened_at.min(entries.len()));
        let source = Entries::new(before);
        drop(indexed(folder.path(), segment_entries, &source));

        source.0.lock().unwrap().extend(entries[before.len()..].iter().map(encoded));
        let index = indexed(folder.path(), segment_entries, &source);
        let id = entries.first().map_or([0; 16], |entry| entry.exchange_id.as_ref().try_into().unwrap());
        agrees(&index, &entries, &filters(id));

        let of_id = (0..).zip(&entries).filter(|(_, entry)| entry.exchange_id.as_ref() == id).map(|(index, _)| index);
        prop_assert_eq!(index.find(&id).unwrap(), of_id.collect::<Vec<u64>>());
    }
}

/// Exchanges that overlap, so that many close in a later segment than they opened in.
fn story(exchanges: u8) -> Vec<Entry> {
    let open = (0..exchanges).map(|id| entry(id, Kind::RequestSent, Outcome::Unspecified, id % 8, i64::from(id)));
    let close = (0..exchanges).map(|id| {
        let outcome = [Outcome::Ok, Outcome::Failed, Outcome::Ok, Outcome::Refused][usize::from(id % 4)];
        entry(id, Kind::ResponseReceived, outcome, id % 8, i64::from(id) + 1)
    });
    open.chain(close).collect()
}

fn segment_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn damaged_missing_and_foreign_files_are_built_again() {
    let entries = story(120);
    let source = Entries::new(&entries);
    let all = filters(entries[3].exchange_id.as_ref().try_into().unwrap());
    let folder = tempfile::tempdir().unwrap();
    drop(indexed(folder.path(), 16, &source));
    let files = segment_files(folder.path());
    assert_eq!(files.len(), 15);
    let original: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();

    // Every file with one byte changed, at a place that differs: found before or while it is read.
    for (number, file) in files.iter().enumerate() {
        let mut bytes = original[number].clone();
        let at = number * (bytes.len() - 1) / 14;
        bytes[at] ^= 0x20;
        std::fs::write(file, bytes).unwrap();
    }
    agrees(&indexed(folder.path(), 16, &source), &entries, &all);

    // Cut off, emptied, swapped, deleted.
    std::fs::write(&files[2], &original[2][..original[2].len() / 2]).unwrap();
    std::fs::write(&files[4], b"").unwrap();
    std::fs::write(&files[5], &original[6]).unwrap();
    std::fs::remove_file(&files[9]).unwrap();
    agrees(&indexed(folder.path(), 16, &source), &entries, &all);
    files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    drop(indexed(folder.path(), 16, &source));
    let again = files.iter().map(|file| std::fs::read(file).unwrap());
    assert!(again.eq(original), "a segment follows from the entries alone");

    // Another log's, and another segment length's.
    let mut others = entries.clone();
    others.iter_mut().for_each(|entry| entry.legal_basis = "LAW-9".into());
    let other = tempfile::tempdir().unwrap();
    drop(indexed(other.path(), 16, &Entries::new(&others)));
    std::fs::copy(other.path().join("00000003.seg"), &files[3]).unwrap();
    agrees(&indexed(folder.path(), 16, &source), &entries, &all);
    agrees(&indexed(folder.path(), 10, &source), &entries, &all);
}

#[test]
fn a_folder_deleted_under_a_running_index_is_built_again() {
    let entries = story(120);
    let source = Entries::new(&entries);
    let folder = tempfile::tempdir().unwrap();
    let index = indexed(folder.path(), 16, &source);
    for file in segment_files(folder.path()) {
        std::fs::remove_file(file).unwrap();
    }
    agrees(&index, &entries, &filters([0; 16]));
    assert_eq!(segment_files(folder.path()).len(), 15);
}

#[test]
fn a_follower_keeps_up_and_pages_stay_put_meanwhile() {
    let entries = story(120);
    let source = Entries::new(&entries[..100]);
    let folder = tempfile::tempdir().unwrap();
    let (commits, woken) = tokio::sync::watch::channel(());
    let (index, follower) = Index::follow_source(options(folder.path(), 16), source.clone(), woken).unwrap();
    let reaches = |size: u64| {
        let patience = Instant::now() + Duration::from_secs(20);
        while index.indexed_size() < size {
            assert!(Instant::now() < patience, "the follower did not reach {size}");
            std::thread::yield_now();
        }
    };
    reaches(100);
    let all = Filter::default();
    let first = index.query(&query(&all, true, None, 10)).unwrap();
    assert_eq!(first.openings, (90..100).rev().collect::<Vec<u64>>());

    source.0.lock().unwrap().extend(entries[100..].iter().map(encoded));
    commits.send(()).unwrap();
    reaches(240);
    let second = index.query(&query(&all, true, first.next, 10)).unwrap();
    assert_eq!(second.openings, (80..90).rev().collect::<Vec<u64>>(), "the next page, whatever has come since");
    agrees(&index, &entries, &filters([0; 16]));

    // Gone back while followed: the answer is short for a moment and never wrong.
    for file in segment_files(folder.path()) {
        std::fs::remove_file(file).unwrap();
    }
    let Ok(page) = index.query(&query(&Filter { outcome: Some(Outcome::Ok), ..all }, false, None, 1_000)) else {
        panic!("a missing segment is no error")
    };
    assert!(page.openings.len() <= 60);
    reaches(240);
    drop(follower);
    agrees(&index, &entries, &filters([0; 16]));
}

#[test]
fn out_of_time_a_page_is_short_and_counts_are_an_error() {
    let entries = story(100);
    let folder = tempfile::tempdir().unwrap();
    let index = indexed(folder.path(), 16, &Entries::new(&entries));
    let mut late = query(&Filter { outcome: Some(Outcome::Refused), ..Filter::default() }, true, None, 100);
    late.deadline = Instant::now();
    let mut found = Vec::new();
    loop {
        let page = index.query(&late).unwrap();
        found.extend(page.openings);
        late.after = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 25);
    assert!(matches!(index.count(&Filter::default(), Instant::now()), Err(IndexError::OutOfTime)));
}
