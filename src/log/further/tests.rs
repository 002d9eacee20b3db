use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use uuid::Uuid;

use super::*;
use crate::log::entry::{
    CommittedField, FIRST_FURTHER, FurtherField, Kind, MAX_ENTRY, PrivateFields, Publication, further_field::Field,
};

/// What entries commit to, read back from their private halves as any reader would.
#[derive(Debug, Default, PartialEq)]
struct Told {
    firsts: BTreeSet<Vec<u8>>,
    subjects: Vec<Vec<u8>>,
    committed: Vec<(String, bool, bool, Vec<Bytes>)>,
    beyond: u64,
}

impl Told {
    fn add(&mut self, draft: Draft) {
        let record = draft.seal();
        assert!(record.private.len() + 16 <= MAX_ENTRY && record.entry.len() <= MAX_ENTRY, "{}", record.private.len());
        let private = PrivateFields::decode(&record.private[..]).unwrap();
        for field in private.fields {
            if field.slot == Slot::Subject as i32 {
                self.firsts.insert(field.value.to_vec());
            }
            if field.slot < i32::from(FIRST_FURTHER) {
                continue;
            }
            let further = FurtherField::decode(field.value.clone()).unwrap();
            assert_eq!(further.encode_to_vec(), field.value, "as prost would have written it");
            match further.field.unwrap() {
                Field::Subject(subject) => self.subjects.push(subject.to_vec()),
                Field::Committed(CommittedField { path, response, values, hashed }) => {
                    self.committed.push((path, response, hashed, values));
                }
                Field::Beyond(count) => self.beyond += count,
            }
        }
    }
}

fn opening(key: &ExchangeKey) -> Draft {
    let mut draft = Draft::new(Kind::RequestSent, Uuid::now_v7(), 1_700_000_000_000, key);
    draft.consumer = "KG/GOV/1/tax".into();
    draft.schema = Some([7; 32]);
    draft
}

fn number(n: usize) -> Vec<u8> {
    format!("2010119{n:07}").into_bytes()
}

#[test]
fn one_subject_takes_slot_2_and_nothing_more() {
    let key = ExchangeKey::generate();
    let mut further = FurtherFields::new(&key);
    for direction in [Direction::Request, Direction::Request, Direction::Response] {
        further.subject(direction, b"20101199912345");
    }
    let (mut draft, mut plain) = (opening(&key), opening(&key));
    assert!(further.fill(&mut draft).is_empty());
    plain.exchange_id = draft.exchange_id;
    plain.set(Slot::Subject, "20101199912345");
    assert_eq!(draft.seal().entry, plain.seal().entry, "the same commitment as without any of this");
}

#[test]
fn each_subject_is_told_once_over_request_and_response() {
    let key = ExchangeKey::generate();
    let mut further = FurtherFields::new(&key);
    let mut told = Told::default();
    (0..3).for_each(|n| further.subject(Direction::Request, &number(n)));
    let mut opens = opening(&key);
    assert!(further.fill(&mut opens).is_empty());
    told.add(opens.clone());
    (1..300).for_each(|n| further.subject(Direction::Response, &number(n)));
    let mut closes = opening(&key);
    let between = further.fill(&mut closes);
    assert_eq!(between.len(), 2, "128 of 297 in the closing entry");
    for draft in between {
        assert_eq!((draft.kind, draft.schema, draft.consumer.as_str()), (Kind::Subjects, opens.schema, "KG/GOV/1/tax"));
        told.add(draft);
    }
    told.add(closes);
    assert_eq!(told.firsts, BTreeSet::from([number(0)]));
    told.subjects.sort();
    assert_eq!(told.subjects, (1..300).map(number).collect::<Vec<_>>());
    assert_eq!(told.beyond, 0);
}

#[test]
fn no_two_entries_with_further_fields_share_their_salts() {
    let key = ExchangeKey::generate();
    let mut further = FurtherFields::new(&key);
    (0..200).for_each(|n| further.subject(Direction::Request, &number(n)));
    let mut opens = opening(&key);
    let mut drafts = further.fill(&mut opens);
    further.subject(Direction::Response, &number(200));
    let mut closes = opening(&key);
    closes.kind = Kind::ResponseSent;
    drafts.extend(further.fill(&mut closes));
    drafts.extend([opens, closes]);
    assert_eq!(drafts.len(), 3);
    let salts = drafts.into_iter().map(|draft| {
        let record = draft.seal();
        crate::log::hidden::Private::read(&record.private).unwrap().open_at(FIRST_FURTHER).unwrap().salt
    });
    assert_eq!(salts.collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn a_long_stream_is_told_as_it_runs_and_its_memory_is_bounded() {
    let key = ExchangeKey::generate();
    let (mut further, mut told, of) = (FurtherFields::new(&key), Told::default(), opening(&key));
    let path: Arc<str> = "people.passport".into();
    let mut entries = 0;
    for n in 0..5_000 {
        let mut found = Found { subjects: vec![number(n).as_slice().into()], ..Found::default() };
        found.committed.push((path.clone(), number(n).into()));
        further.take(Direction::Response, &mut found);
        assert_eq!((found.subjects.len(), found.committed.len()), (0, 0));
        while let Some(draft) = further.full(&of, 1) {
            entries += 1;
            told.add(draft);
        }
        assert!(further.pending.len() <= usize::from(MAX_FURTHER) && further.pending_bytes <= BATCH_BYTES);
    }
    let mut closes = opening(&key);
    for draft in further.fill(&mut closes) {
        told.add(draft);
    }
    told.add(closes);
    assert!(entries >= 31, "{entries}");
    assert_eq!(told.firsts.len(), 1);
    assert_eq!(told.subjects.len(), MAX_FOUND - 1);
    assert_eq!(told.committed.iter().map(|(.., values)| values.len()).sum::<usize>(), MAX_FOUND);
    assert_eq!(told.beyond, 2 * (5_000 - MAX_FOUND as u64));
}

#[test]
fn what_cannot_be_told_as_it_is_says_so() {
    let key = ExchangeKey::generate();
    let (mut further, mut told) = (FurtherFields::new(&key), Told::default());
    further.subject(Direction::Request, b"");
    further.subject(Direction::Request, &[b'1'; MAX_SUBJECT + 1]);
    further.committed(Direction::Request, &"note".into(), &[5; MAX_VALUE]);
    further.committed(Direction::Request, &"note".into(), &[5; MAX_VALUE + 1]);
    further.committed(Direction::Request, &"p".repeat(MAX_PATH + 1).into(), b"5");
    further.committed(Direction::Response, &"note".into(), b"");
    let mut draft = opening(&key);
    assert!(further.fill(&mut draft).is_empty());
    told.add(draft);
    assert_eq!((told.firsts.len(), told.subjects.len(), told.beyond), (0, 0, 3));
    let digest = Bytes::copy_from_slice(&Sha256::digest([5; MAX_VALUE + 1]));
    let expected = [
        ("note".to_owned(), false, false, vec![Bytes::from(vec![5; MAX_VALUE])]),
        ("note".to_owned(), false, true, vec![digest]),
        ("note".to_owned(), true, false, vec![Bytes::new()]),
    ];
    assert_eq!(told.committed, expected);
    assert!(!format!("{further:?}").contains('5'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_is_found_is_told_in_order_and_every_entry_can_be_appended(
        found in prop::collection::vec((any::<bool>(), 0..40_usize, prop::collection::vec(any::<u8>(), 0..1_500)), 0..400),
        sealed: bool,
        opens: bool,
        name in "[a-z]{0,3000}",
        streamed: bool,
    ) {
        let key = ExchangeKey::generate();
        let (mut further, mut told) = (FurtherFields::new(&key), Told::default());
        let mut of = opening(&key);
        of.kind = if opens { Kind::RequestReceived } else { Kind::ResponseSent };
        of.publication = if sealed { Publication::Sealed } else { Publication::Public };
        of.method = name;
        of.peer_checkpoint = "c".repeat(2_000);
        let mut subjects = Vec::new();
        let mut values = BTreeMap::<_, Vec<Bytes>>::new();
        for (response, n, value) in &found {
            let direction = if *response { Direction::Response } else { Direction::Request };
            if !subjects.contains(&number(*n)) {
                subjects.push(number(*n));
            }
            further.subject(direction, &number(*n));
            let path = format!("field_{}", n % 7);
            further.committed(direction, &path.as_str().into(), value);
            let hashed = value.len() > MAX_VALUE;
            let value = if hashed { Sha256::digest(value).to_vec() } else { value.clone() };
            values.entry((path, *response, hashed)).or_default().push(value.into());
            while let Some(draft) = streamed.then(|| further.full(&of, 5)).flatten() {
                told.add(draft);
            }
        }
        let rest = further.fill(&mut of);
        if opens {
            told.add(of.clone());
        }
        rest.into_iter().for_each(|draft| told.add(draft));
        if !opens {
            told.add(of);
        }
        let mut read = BTreeMap::<_, Vec<Bytes>>::new();
        for (path, response, hashed, group) in told.committed {
            read.entry((path, response, hashed)).or_default().extend(group);
        }
        prop_assert_eq!(read, values);
        let all: Vec<_> = told.firsts.into_iter().chain(told.subjects).collect();
        prop_assert_eq!(all, subjects);
    }
}
