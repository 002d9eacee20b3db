//! Exchanges about many people: each of them finds it, whichever entry names them, and is shown the slots that hold
//! themselves; committed fields and further subjects are opened one at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use kopuro::log::Log;
use kopuro::log::commitment::Opening;
use kopuro::log::entry::further_field::Field;
use kopuro::log::entry::{Draft, Entry, ExchangeKey, FIRST_FURTHER, FurtherField, Kind, Outcome, Publication, Slot};
use kopuro::log::further::{Direction, FurtherFields};
use kopuro::log::hidden::Private;
use kopuro::log::index::{Index, IndexOptions};
use kopuro::log::tree::Hash;
use kopuro::oversight::subject::{Classes, Found, Wanted, find};
use kopuro::proto::kopuro::audit::v1::subject_access_client::SubjectAccessClient;
use kopuro::proto::kopuro::audit::v1::*;
use prost::Message;
use tonic::transport::Channel;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::harness::{CLERK, DESK, Federation, PROBE, PROVIDER, Running, eventually};
use crate::log_support::{erasure, open};

const START: i64 = 1_790_000_000_000;

fn person(n: usize) -> String {
    format!("2010119{n:07}")
}

/// One side's record of an exchange in the making.
struct Side {
    key: ExchangeKey,
    id: Uuid,
    class: Publication,
    further: FurtherFields,
}

impl Side {
    fn new(class: Publication) -> Self {
        let key = ExchangeKey::generate();
        let further = FurtherFields::new(&key);
        Self { key, id: Uuid::now_v7(), class, further }
    }

    fn names(&mut self, direction: Direction, people: impl IntoIterator<Item = usize>) {
        people.into_iter().for_each(|n| self.further.subject(direction, person(n).as_bytes()));
    }

    fn draft(&self, kind: Kind) -> Draft {
        let mut draft = Draft::new(kind, self.id, START, &self.key);
        (draft.consumer, draft.provider) = (DESK.into(), PROBE.into());
        (draft.service, draft.method) = ("kopuro.test.v1.Probe".into(), "Unary".into());
        draft.publication = self.class;
        draft.schema = Some([0x5c; 32]);
        if kind == Kind::ResponseSent {
            draft.outcome = Outcome::Ok;
        }
        draft
    }

    /// The entries of one step, in the order of the log.
    fn step(&mut self, kind: Kind) -> Vec<Draft> {
        let mut draft = self.draft(kind);
        let mut entries = self.further.fill(&mut draft);
        let at = if kind == Kind::ResponseSent { entries.len() } else { 0 };
        entries.insert(at, draft);
        entries
    }
}

async fn append(log: &Log, drafts: Vec<Draft>) -> Vec<u64> {
    let appended = log.append_all(drafts.into_iter().map(Draft::seal).collect()).await.unwrap();
    let indices: Vec<u64> = appended.iter().map(|appended| appended.index).collect();
    assert!(indices.windows(2).all(|pair| pair[0] < pair[1]), "in the order given: {indices:?}");
    indices
}

fn small(folder: &Path) -> IndexOptions {
    IndexOptions { folder: folder.join("index"), segment_entries: 7, cache_bytes: 100_000 }
}

/// All openings of a person, in pages.
fn openings(index: &Index, who: usize, page: usize) -> Vec<u64> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let deadline = Instant::now() + Duration::from_secs(10);
        let page = index.of_subject(person(who).as_bytes(), before, page, deadline).unwrap();
        found.extend(page.openings);
        match page.next {
            Some(next) => before = Some(next),
            None => return found,
        }
    }
}

/// What the private halves say, entry by entry: whom each exchange (by its opening) is about. Exchanges go by their ids.
fn scan(log: &Log) -> BTreeMap<String, BTreeSet<u64>> {
    let (mut opened, mut about) = (HashMap::new(), BTreeMap::<String, BTreeSet<u64>>::new());
    for index in 0..log.checkpoint().size {
        let entry = Entry::decode(log.read_seen(index, 1).unwrap()[0].whole()).unwrap();
        if entry.exchange_id.is_empty() {
            continue;
        }
        let opening = *opened.entry(entry.exchange_id).or_insert(index);
        let Ok(private) = log.read_private(index) else { continue };
        let private = kopuro::log::entry::PrivateFields::decode(&private[..]).unwrap();
        for field in private.fields {
            let who = match FurtherField::decode(field.value.clone()).ok().and_then(|further| further.field) {
                _ if field.slot == Slot::Subject as i32 => field.value,
                Some(Field::Subject(subject)) if field.slot >= i32::from(FIRST_FURTHER) => subject,
                _ => continue,
            };
            about.entry(String::from_utf8(who.to_vec()).unwrap()).or_default().insert(opening);
        }
    }
    about
}

/// Two dozen exchanges that overlap, over segments of seven entries: people in requests, in answers, in entries of their own;
/// some exchanges go on through several segments.
async fn story(log: &Log) {
    let mut sides: Vec<Side> = Vec::new();
    for n in 0..24_usize {
        let class = [Publication::Public, Publication::Public, Publication::Sealed][n % 3];
        let mut side = Side::new(class);
        // Person n alone, with neighbours, or with many.
        side.names(Direction::Request, [n, n + 1, n + 2].into_iter().take(n % 4));
        append(log, side.step(Kind::RequestReceived)).await;
        if n % 5 == 4 {
            // A stream that runs through entries of its own.
            for first in [100, 300] {
                side.names(Direction::Response, (first..first + 140).map(|m| m + n));
                let draft = side.further.full(&side.draft(Kind::ResponseSent), START).unwrap();
                append(log, vec![draft]).await;
            }
        }
        side.names(Direction::Response, [n + 50, 7]);
        sides.push(side);
        // Some close at once, some long after.
        if n % 2 == 0 {
            let at = n * 7 % sides.len();
            let mut closed = sides.swap_remove(at);
            append(log, closed.step(Kind::ResponseSent)).await;
        }
    }
    for mut side in sides {
        append(log, side.step(Kind::ResponseSent)).await;
    }
}

#[tokio::test]
async fn whoever_is_named_by_any_entry_of_an_exchange_finds_it_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    story(&log).await;
    let people = || (0..80).chain([104, 239, 250, 304, 399, 443, 460, 500]);
    let agrees = |index: &Index, what: &str| {
        let about = scan(&log);
        let mut found_any = 0;
        for who in people() {
            let expected: Vec<u64> = about.get(&person(who)).into_iter().flatten().rev().copied().collect();
            found_any += expected.len();
            for page in [1, 3, 100] {
                assert_eq!(openings(index, who, page), expected, "{what}: person {who}, pages of {page}");
            }
        }
        found_any
    };
    let (index, follower) = Index::follow(small(folder.path()), &log).unwrap();
    let size = log.checkpoint().size;
    assert!(size > 50, "{size}: eight segments");
    eventually("the index is up", async || (index.indexed_size() == size).then_some(())).await;
    let all = agrees(&index, "at first");
    assert!(all > 80, "{all}");
    assert!(openings(&index, 7, 100).len() >= 20, "whom nearly all of them are about");

    // Files of another version are made again.
    let file = folder.path().join("index/00000001.sub");
    std::fs::write(&file, b"kopuro index 2\nolder").unwrap();
    assert_eq!(agrees(&index, "damaged"), all);

    // What is destroyed is not found; of an exchange with values left, the others still are.
    let opening = *openings(&index, 5, 100).last().unwrap();
    assert_eq!(Entry::decode(log.read(opening, 1).unwrap().remove(0)).unwrap().kind(), Kind::RequestReceived);
    log.erase(erasure(opening, 1), START).await.unwrap();
    log.erase(erasure(size - 9, 4), START).await.unwrap();
    let size = log.checkpoint().size;
    eventually("the index is up", async || (index.indexed_size() == size).then_some(())).await;
    assert!(agrees(&index, "erased") < all);

    // And all the same after a restart, from the files and without them.
    drop((index, follower));
    for keep in [true, false] {
        if !keep {
            std::fs::remove_dir_all(folder.path().join("index")).unwrap();
        }
        let (index, _follower) = Index::follow(small(folder.path()), &log).unwrap();
        eventually("the index is up", async || (index.indexed_size() == size).then_some(())).await;
        agrees(&index, "opened again");
    }
    log.close().await;
}

fn answer(log: &Log, index: &Index, who: usize, classes: Classes) -> Found {
    let wanted = Wanted {
        subject: Zeroizing::new(person(who).into_bytes()),
        from_unix_ms: i64::MIN,
        until_unix_ms: i64::MAX,
        looks: true,
        classes,
    };
    find(log, index, &wanted, None, 100, usize::MAX, Instant::now() + Duration::from_secs(10)).unwrap()
}

#[tokio::test]
async fn hidden_exchanges_stay_hidden_and_entries_about_others_only_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    for class in [Publication::Public, Publication::Sealed, Publication::Public] {
        let mut side = Side::new(class);
        side.names(Direction::Request, 0..300);
        append(&log, side.step(Kind::RequestReceived)).await;
        side.names(Direction::Response, 1_000..1_002);
        append(&log, side.step(Kind::ResponseSent)).await;
    }
    let index = Index::open(small(folder.path()), std::sync::Arc::new(log.clone())).unwrap();
    index.catch_up().unwrap();
    // Opening, two of subjects, closing: four entries each.
    let shown = |who: usize, classes: Classes| -> Vec<(Vec<u64>, Vec<u64>)> {
        let found = answer(&log, &index, who, classes).exchanges;
        let shown = |found: &kopuro::oversight::subject::FoundExchange| {
            assert_eq!(found.exchange.schema, [0x5c; 32][..]);
            let entries = found.entries.iter().map(|(at, ..)| *at).collect();
            (found.exchange.indices.clone(), entries)
        };
        found.iter().map(shown).collect()
    };
    let due = Classes::Due(i64::MAX);
    let (first, third): (Vec<u64>, Vec<u64>) = ((0..4).collect(), (8..12).collect());
    // In slot 2; in the opening entry; in an entry of subjects; in the closing one.
    assert_eq!(shown(0, due), [(third.clone(), vec![8, 11]), (first.clone(), vec![0, 3])]);
    assert_eq!(shown(100, due), [(third.clone(), vec![8, 11]), (first.clone(), vec![0, 3])]);
    assert_eq!(shown(200, due), [(third.clone(), vec![8, 9, 11]), (first.clone(), vec![0, 1, 3])]);
    assert_eq!(shown(299, due), [(third.clone(), vec![8, 10, 11]), (first.clone(), vec![0, 2, 3])]);
    assert_eq!(shown(1_001, due), [(third, vec![8, 11]), (first.clone(), vec![0, 3])]);
    assert_eq!(shown(1_001, Classes::All).len(), 3);
    assert_eq!(shown(1_002, Classes::All).len(), 0);

    // The opening entry's half is gone: those whom another entry names still find the exchange.
    log.erase(erasure(8, 1), START).await.unwrap();
    index.catch_up().unwrap();
    assert_eq!(shown(100, due), [(first, vec![0, 3])]);
    assert_eq!(shown(200, due)[0].1, [9, 11]);
    assert_eq!(shown(0, due)[0].1, [11], "slot 2 of the closing entry");
    log.close().await;
}

/// A portal's grant, and an officer's.
fn federation() -> Federation {
    let mut federation = Federation::new();
    for (service, method) in [("SubjectAccess", "ListExchanges"), ("Openings", "OpenFields")] {
        federation.grants.push_str(&format!(
            "\n[[grant]]\nconsumer = \"{CLERK}\"\nprovider = \"node\"\nservice = \"kopuro.audit.v1.{service}\"\n\
             methods = [\"{method}\"]\nlegal_basis = {{ code = \"data-law-5\", text = \"Law on personal data\" }}\n"
        ));
    }
    federation
}

async fn portal(running: &mut Running) -> Channel {
    let certificate = running.federation.issue(CLERK);
    running.federation.channel(running.provider.systems_addr(), &certificate).await.unwrap()
}

async fn told(channel: &Channel, log: &Log, who: &str, looks: bool) -> Vec<SubjectExchange> {
    let mut client = SubjectAccessClient::new(channel.clone());
    let question = ListExchangesRequest { subject: who.into(), looks, ..ListExchangesRequest::default() };
    let size = log.checkpoint().size;
    eventually("the index is up", async || {
        let answer = client.list_exchanges(question.clone()).await.unwrap().into_inner();
        (answer.indexed_size >= size).then_some(answer.exchanges)
    })
    .await
}

/// Whom an answer's openings name, each checked against its entry's commitment.
fn named(exchange: &SubjectExchange) -> Vec<(u64, i32, Vec<u8>)> {
    let mut named = Vec::new();
    for shown in &exchange.entries {
        let entry = Entry::decode(shown.entry.clone()).unwrap();
        for field in &shown.openings {
            let opening = Opening {
                slot: u8::try_from(field.slot).unwrap(),
                salt: field.salt.as_ref().try_into().unwrap(),
                value: field.value.to_vec(),
                slots: u8::try_from(field.slots).unwrap(),
                path: field.path.iter().map(|hash| Hash(hash.as_ref().try_into().unwrap())).collect(),
            };
            opening.verify(Hash(entry.commitment.as_ref().try_into().unwrap())).unwrap();
            let who = if field.slot == Slot::Subject as i32 {
                field.value.to_vec()
            } else {
                match FurtherField::decode(field.value.clone()).unwrap().field.unwrap() {
                    Field::Subject(subject) => subject.to_vec(),
                    other => panic!("{other:?}"),
                }
            };
            named.push((shown.index, field.slot, who));
        }
    }
    named
}

#[tokio::test(flavor = "multi_thread")]
async fn a_citizen_is_shown_the_slots_that_hold_themselves_and_learns_who_opened_them() {
    let mut running = federation().start("").await;
    let log = running.provider.log().unwrap().clone();
    let mut side = Side::new(Publication::Public);
    side.names(Direction::Request, [0, 1]);
    append(&log, side.step(Kind::RequestReceived)).await;
    side.names(Direction::Response, [2, 0, 3]);
    side.further.committed(Direction::Response, &"person.passport".into(), b"ID1234567");
    side.further.committed(Direction::Response, &"person.passport".into(), &[0xff; 5]);
    append(&log, side.step(Kind::ResponseSent)).await;

    let channel = portal(&mut running).await;
    let (second, first) = (i32::from(FIRST_FURTHER), Slot::Subject as i32);
    for (who, slots) in
        [(0, vec![(0, first), (1, first)]), (1, vec![(0, second)]), (2, vec![(1, second)]), (3, vec![(1, second + 1)])]
    {
        let exchanges = told(&channel, &log, &person(who), false).await;
        assert_eq!(exchanges.len(), 1, "person {who}");
        assert_eq!(exchanges[0].entries.len(), 2);
        let expected: Vec<_> = slots.iter().map(|(at, slot)| (*at, *slot, person(who).into_bytes())).collect();
        assert_eq!(named(&exchanges[0]), expected, "never another person's");
        // Not a byte of the answer names anybody else, and the committed field is nobody's to see here.
        let bytes = exchanges[0].encode_to_vec();
        for secret in (0..4).filter(|other| *other != who).map(person).chain(["ID1234567".into()]) {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{who}: {secret}");
        }
    }

    // An officer opens the committed field: all whom the entry is about can learn of it.
    let mut officer = openings_client::OpeningsClient::new(channel.clone());
    let open = |slots: &[i32]| OpenFieldsRequest { index: 1, slots: slots.to_vec(), tree_size: 0 };
    let shown = officer.open_fields(open(&[second + 2])).await.unwrap().into_inner().entry.unwrap();
    let value = FurtherField::decode(shown.openings[0].value.clone()).unwrap().field.unwrap();
    let Field::Committed(committed) = value else { panic!("{value:?}") };
    assert_eq!((committed.path.as_str(), committed.response, committed.values.len()), ("person.passport", true, 2));
    for who in [0, 2, 3] {
        let looks = told(&channel, &log, &person(who), true).await;
        let openings: Vec<_> =
            looks.iter().filter(|look| look.exchange.as_ref().unwrap().service == "kopuro.audit.v1.Openings").collect();
        assert_eq!(openings.len(), 1, "person {who}");
        assert!(named(openings[0]).iter().all(|(_, _, named)| *named == person(who).into_bytes()));
    }
    let looks = told(&channel, &log, &person(1), true).await;
    assert!(looks.iter().all(|look| look.exchange.as_ref().unwrap().service != "kopuro.audit.v1.Openings"));
    // A slot that is not there, and a number that no slot has.
    let refused = officer.open_fields(open(&[100])).await.unwrap_err();
    assert_eq!(refused.message(), "the entry has no further-100: of these it has further-9 to further-11");
    for none in [255, 137, -1] {
        assert_eq!(officer.open_fields(open(&[none])).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
    running.stop().await;
}

/// Calls with an annotated subject in the request, and nothing in the back-end or in metadata: the citizen's journal is complete.
#[tokio::test(flavor = "multi_thread")]
async fn an_annotated_subject_makes_a_journal_complete_with_no_work_by_the_agency() {
    use crate::harness::probe::ProbeClient;
    let mut federation = federation();
    annotate(&mut federation);
    let mut running = federation.start("").await;
    let desk = ProbeClient::new(running.desk().await).with("kopuro-purpose", "law-1");
    for who in [person(1), person(2), person(1)] {
        desk.unary(who).await.unwrap();
    }
    let log = running.provider.log().unwrap().clone();
    let channel = portal(&mut running).await;
    for (who, calls) in [(1, 2), (2, 1), (3, 0)] {
        let exchanges = told(&channel, &log, &person(who), false).await;
        assert_eq!(exchanges.len(), calls, "person {who}");
        for exchange in &exchanges {
            assert_eq!(exchange.exchange.as_ref().unwrap().outcome(), Outcome::Ok);
            assert!(!exchange.exchange.as_ref().unwrap().schema.is_empty());
            assert!(
                named(exchange)
                    .iter()
                    .all(|(_, slot, named)| { *slot == Slot::Subject as i32 && *named == person(who).into_bytes() })
            );
        }
    }
    // The consumer's log says the same.
    let consumer = running.consumer.log().unwrap();
    let half = consumer.read_private(0).unwrap();
    assert_eq!(Private::read(&half).unwrap().value(Slot::Subject), Some(person(1).as_bytes()));
    let federation = running.stop().await;
    assert!(federation.member_path(PROVIDER, "data").exists());
}

/// The probe's service with its messages' only field annotated as the subject.
fn annotate(federation: &mut Federation) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kopuro/test/v1/probe.proto");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let text = "syntax = \"proto3\"; package kopuro.test.v1; import \"kopuro/options/v1/options.proto\";\n\
        message Blob { bytes value = 1 [(kopuro.options.v1.subject) = true]; }\n\
        service Probe { rpc Unary(Blob) returns (Blob); rpc Collect(stream Blob) returns (Blob);\n\
        rpc Expand(Blob) returns (stream Blob); rpc Chat(stream Blob) returns (stream Blob); }\n";
    std::fs::write(&file, text).unwrap();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    // As protox encodes it: prost's own types would lose the annotations.
    let mut compiler = protox::Compiler::new([folder.path(), ours.as_path()]).unwrap();
    let set = compiler.include_imports(true).open_file(file).unwrap().encode_file_descriptor_set();
    let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&set).into();
    let name = format!("descriptors/{}.binpb", hex::encode(digest));
    std::fs::write(federation.path(&name), set).unwrap();
    federation.directory.services.iter_mut().for_each(|service| service.descriptors = digest);
}
