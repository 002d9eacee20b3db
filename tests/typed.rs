//! Typed, end to end: what does not fit its type does not pass, what a grant does not allow does not cross, and the log says whose
//! data it was and by which types it was judged.

use std::path::Path;

use kopuro::log::entry::{Entry, FurtherField, Kind, Outcome, Slot, further_field};
use kopuro::log::hidden::Private;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio_stream::StreamExt;
use tonic::Code;

use crate::harness::probe::{Blob, ProbeClient};
use crate::harness::{CONSUMER, Federation, PROVIDER, Running, eventually, reason, story, told, write_whole};

/// A person; on the wire, what the probe takes for its bytes.
#[derive(Clone, PartialEq, Message)]
struct Person {
    #[prost(string, tag = "1")]
    pin: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    street: String,
    #[prost(message, repeated, tag = "4")]
    family: Vec<Self>,
    #[prost(string, tag = "5")]
    passport: String,
    #[prost(int32, tag = "6")]
    level: i32,
    /// No field of the type.
    #[prost(string, tag = "90")]
    unknown: String,
}

const TYPES: &str = r#"syntax = "proto3";
package kopuro.test.v1;
import "buf/validate/validate.proto";
import "kopuro/options/v1/options.proto";
message Blob { Person value = 1; }
message Person {
  string pin = 1 [(kopuro.options.v1.subject) = true, (kopuro.options.v1.category) = "identity",
                  (buf.validate.field).string.pattern = "^([0-9]{4})?$"];
  string name = 2 [(kopuro.options.v1.category) = "identity"];
  string street = 3 [(kopuro.options.v1.category) = "contact"];
  repeated Person family = 4 [(kopuro.options.v1.category) = "family"];
  string passport = 5 [(kopuro.options.v1.category) = "identity", (kopuro.options.v1.commit) = true];
  int32 level = 6;
}
service Probe {
  rpc Unary(Blob) returns (Blob) { option (kopuro.options.v1.purposes) = "law-1"; }
  rpc Collect(stream Blob) returns (Blob);
  rpc Expand(Blob) returns (stream Blob);
  rpc Chat(stream Blob) returns (stream Blob);
}
"#;

/// The probe's service with these types, and this after its grant.
fn federation(grant: &str) -> Federation {
    let mut federation = Federation::new();
    // A grant that limits fields names its methods.
    let named = "methods = [\"Unary\", \"Collect\", \"Expand\", \"Chat\"]";
    federation.grants = federation.grants.replace("methods = [\"*\"]", named) + grant;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kopuro/test/v1/probe.proto");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, TYPES).unwrap();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut compiler = protox::Compiler::new([folder.path(), ours.as_path()]).unwrap();
    let set = compiler.include_imports(true).open_file(file).unwrap().encode_file_descriptor_set();
    let digest: [u8; 32] = Sha256::digest(&set).into();
    std::fs::write(federation.path(&format!("descriptors/{}.binpb", hex::encode(digest))), set).unwrap();
    federation.directory.services.iter_mut().for_each(|service| service.descriptors = digest);
    federation
}

fn aisha() -> Person {
    let bakyt = Person { pin: "2222".into(), name: "Бакыт".into(), ..Person::default() };
    Person {
        pin: "1111".into(),
        name: "Айша".into(),
        street: "Чүй проспекти".into(),
        family: vec![bakyt],
        passport: "ID1234567".into(),
        level: 7,
        unknown: String::new(),
    }
}

fn bytes(person: &Person) -> Vec<u8> {
    person.encode_to_vec()
}

/// As it crosses.
fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// What a closing entry commits to in this slot.
fn committed(node: &kopuro::gateway::Node, kind: Kind, slot: Slot) -> Vec<u8> {
    let at = Running::entries(node).iter().rposition(|entry| entry.kind() == kind).unwrap();
    let half = node.log().unwrap().read_private(at as u64).unwrap();
    Private::read(&half).unwrap().value(slot).unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_its_type_does_not_pass() {
    let mut running = federation("").start("").await;
    let desk = running.desk().await;
    let probe = ProbeClient::new(desk.clone());
    let deep = (0..120).fold(Person::default(), |inner, _| Person { family: vec![inner], ..Person::default() });
    let mismatched = ProbeClient::new(desk.clone()).with("kopuro-subject", "9999");
    let purposeless = ProbeClient::new(desk).with("kopuro-purpose", "law-2");
    let refused = [
        (probe.unary(vec![0x08, 1]).await, "MESSAGE_MALFORMED", "consumer", "value.pin"),
        (probe.unary(vec![0x0a, 2, 0xff, 0xfe]).await, "MESSAGE_MALFORMED", "consumer", "value.pin"),
        (probe.unary(vec![0x0a, 9, b'1']).await, "MESSAGE_MALFORMED", "consumer", "value"),
        (probe.unary(vec![0x33, 0x34]).await, "MESSAGE_MALFORMED", "consumer", "value"),
        (probe.unary(bytes(&deep)).await, "MESSAGE_MALFORMED", "consumer", "family"),
        (
            probe.unary(bytes(&Person { unknown: "?".into(), ..aisha() })).await,
            "UNKNOWN_FIELD",
            "provider",
            "unknown field 90",
        ),
        (probe.unary(bytes(&Person { pin: "12x4".into(), ..aisha() })).await, "RULE_VIOLATED", "provider", "value.pin"),
        (mismatched.unary(bytes(&aisha())).await, "SUBJECT_MISMATCH", "consumer", "kopuro-subject"),
        (purposeless.unary(bytes(&aisha())).await, "PURPOSE_NOT_ALLOWED", "consumer", "legal basis"),
    ];
    let count = refused.len();
    for (answer, why, side, says) in refused {
        let status = answer.unwrap_err();
        let code = if why == "PURPOSE_NOT_ALLOWED" { Code::FailedPrecondition } else { Code::InvalidArgument };
        assert_eq!((status.code(), reason(&status)), (code, Some((why.into(), side.into()))), "{status:?}");
        assert!(status.message().contains(says), "{says} in {}", status.message());
        for secret in ["1111", "12x4", "Айша", "9999"] {
            assert!(!status.message().contains(secret), "{}", status.message());
        }
    }
    assert_eq!(running.probe.seen.calls.load(std::sync::atomic::Ordering::SeqCst), 0, "nothing reached the back-end");
    let entries = Running::entries(&running.consumer);
    let refusals = entries.iter().filter(|entry| entry.outcome() == Outcome::Refused).count();
    assert_eq!(refusals, count, "{}", story(&entries));

    assert_eq!(probe.unary(bytes(&aisha())).await.unwrap().into_inner().value, bytes(&aisha()));
    let same = ProbeClient::new(running.desk().await).with("kopuro-subject", "2222");
    same.unary(bytes(&aisha())).await.unwrap();
    for node in [&running.consumer, &running.provider] {
        let last = Running::entries(node).pop().unwrap();
        assert_eq!(last.schema, running.federation.directory.services[0].descriptors.to_vec());
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_not_granted_does_not_cross() {
    let mut running =
        federation("fields = [\"value.pin\", \"value.family.name\"]\nname_withheld = true\n").start("").await;
    let probe = ProbeClient::new(running.desk().await);
    let answer = probe.unary(bytes(&aisha())).await.unwrap();
    let metadata = answer.metadata().clone();
    let told = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    assert_eq!(told("kopuro-withheld"), "5");
    assert_eq!(told("kopuro-withheld-fields"), "value.family.pin,value.level,value.name,value.passport,value.street");
    let family = vec![Person { name: "Бакыт".into(), ..Person::default() }];
    let expected = Person { pin: "1111".into(), family, ..Person::default() };
    let value = answer.into_inner().value;
    assert_eq!(Person::decode(value.clone()).unwrap(), expected);

    // Both logs commit to what crossed, and to whom it was about on the side of each message.
    let crossed = Sha256::digest(framed(&Blob { value }.encode_to_vec())).to_vec();
    assert_eq!(committed(&running.provider, Kind::ResponseSent, Slot::ResponseDigest), crossed);
    assert_eq!(committed(&running.consumer, Kind::ResponseReceived, Slot::ResponseDigest), crossed);
    assert_eq!(committed(&running.provider, Kind::RequestReceived, Slot::Subject), b"1111");
    assert_eq!(committed(&running.consumer, Kind::RequestSent, Slot::Subject), b"1111");
    let half = running.consumer.log().unwrap().read_private(0).unwrap();
    let private = kopuro::log::entry::PrivateFields::decode(&half[..]).unwrap();
    let further: Vec<FurtherField> = private
        .fields
        .iter()
        .filter(|field| field.slot >= 9)
        .map(|field| FurtherField::decode(&field.value[..]).unwrap())
        .collect();
    let of = |further: &FurtherField| match further.field.clone().unwrap() {
        further_field::Field::Subject(who) => String::from_utf8(who.to_vec()).unwrap(),
        further_field::Field::Committed(field) => format!("{}={:?}", field.path, field.values),
        further_field::Field::Beyond(count) => format!("{count} beyond"),
    };
    let mut names: Vec<String> = further.iter().map(of).collect();
    names.sort();
    assert_eq!(names, ["2222", "value.passport=[b\"ID1234567\"]"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn categories_hold_on_streams_and_through_compression() {
    let mut running = federation("categories = [\"contact\"]\n").start("").await;
    let desk = running.desk().await;
    for probe in [ProbeClient::new(desk.clone()), ProbeClient::new(desk.clone()).gzip()] {
        let people: Vec<Blob> = (0..50).map(|_| Blob { value: bytes(&aisha()).into() }).collect();
        let mut answers = probe.chat(tokio_stream::iter(people)).await.unwrap().into_inner();
        let mut count = 0;
        while let Some(blob) = answers.next().await {
            let expected = Person { street: "Чүй проспекти".into(), level: 7, ..Person::default() };
            assert_eq!(Person::decode(blob.unwrap().value).unwrap(), expected);
            count += 1;
        }
        assert_eq!(count, 50);
        let trailers = answers.trailers().await.unwrap().unwrap();
        // Pin, name, one relative and passport of each.
        assert_eq!(trailers.get("kopuro-withheld").unwrap(), "200");
        assert!(trailers.get("kopuro-withheld-fields").is_none());
    }
    let unary = ProbeClient::new(desk.clone()).gzip().unary(bytes(&aisha())).await.unwrap();
    assert_eq!(Person::decode(unary.into_inner().value).unwrap().name, "");
    // Little on the wire, and far over the limit once it is unpacked.
    let bomb = ProbeClient::new(desk.clone()).gzip().unary(vec![0; 32 << 20]).await.unwrap_err();
    assert_eq!(
        (bomb.code(), reason(&bomb)),
        (Code::ResourceExhausted, Some(("MESSAGE_TOO_LARGE".into(), "consumer".into())))
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_types_do_not_know_goes_by_the_grants_word() {
    let stranger = Person { unknown: "?".into(), ..aisha() };
    for (grant, seen) in [
        ("unknown_fields = \"strip\"\nunknown_response_fields = \"pass\"\n", &aisha()),
        ("unknown_fields = \"pass\"\n", &aisha()),
        ("unknown_fields = \"pass\"\nunknown_response_fields = \"pass\"\n", &stranger),
    ] {
        let mut running = federation(grant).start("").await;
        let answer = ProbeClient::new(running.desk().await).unary(bytes(&stranger)).await.unwrap();
        assert_eq!(Person::decode(answer.into_inner().value).unwrap(), *seen, "{grant}");
        // Stripped or not, the provider's log commits to what came.
        let came = Sha256::digest(framed(&Blob { value: bytes(&stranger).into() }.encode_to_vec())).to_vec();
        assert_eq!(committed(&running.provider, Kind::RequestReceived, Slot::RequestDigest), came, "{grant}");
        running.stop().await;
    }
    let mut running = federation("unknown_fields = \"pass\"\nunknown_response_fields = \"refuse\"\n").start("").await;
    let status = ProbeClient::new(running.desk().await).unary(bytes(&stranger)).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::Internal, Some(("RESPONSE_MALFORMED".into(), "provider".into())))
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_mid_stream_that_does_not_fit_ends_the_call() {
    let mut running = federation("").start("").await;
    let probe = ProbeClient::new(running.desk().await);
    let good = Blob { value: bytes(&aisha()).into() };
    let broken = Blob { value: vec![0x0a, 9, b'1'].into() };
    let ruled_out = Blob { value: bytes(&Person { pin: "12x4".into(), ..aisha() }).into() };
    for (bad, why, side) in [(broken, "MESSAGE_MALFORMED", "consumer"), (ruled_out, "RULE_VIOLATED", "provider")] {
        let status = probe.collect(tokio_stream::iter([good.clone(), bad, good.clone()])).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status)),
            (Code::InvalidArgument, Some((why.into(), side.into()))),
            "{status:?}"
        );
    }
    // A back-end that answers what its type does not have.
    let status = ProbeClient::new(running.desk().await).with("x-do", "big").unary("0202").await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::Internal, Some(("RESPONSE_MALFORMED".into(), "provider".into())))
    );
    let status = match probe.expand(None).await {
        Ok(answers) => answers.into_inner().next().await.unwrap().unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::Internal, Some(("RESPONSE_MALFORMED".into(), "provider".into())))
    );
    for node in [&running.consumer, &running.provider] {
        let entries: Vec<Entry> = Running::entries_until(node, |entries| {
            entries.iter().filter(|entry| entry.outcome() == Outcome::Failed).count() >= 3
        })
        .await;
        let ends = told(&entries);
        assert!(ends.iter().any(|(kind, _, why)| *kind == Kind::Failed || *why == "RESPONSE_MALFORMED"), "{ends:?}");
    }
    probe.unary(bytes(&aisha())).await.expect("the node goes on");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_about_many_people_names_all_of_them() {
    let mut running = federation("").start("").await;
    let probe = ProbeClient::new(running.desk().await);
    let people: Vec<Blob> = (0..700)
        .map(|number| Blob { value: bytes(&Person { pin: format!("{number:04}"), ..Person::default() }).into() })
        .collect();
    let mut answers = probe.chat(tokio_stream::iter(people)).await.unwrap().into_inner();
    while let Some(answer) = answers.next().await {
        answer.unwrap();
    }
    for node in [&running.consumer, &running.provider] {
        let entries = Running::entries(node);
        let log = node.log().unwrap();
        let mut named = std::collections::BTreeSet::new();
        for at in 0..entries.len() {
            let half = log.read_private(at as u64).unwrap();
            let private = kopuro::log::entry::PrivateFields::decode(&half[..]).unwrap();
            for field in private.fields {
                if field.slot == Slot::Subject as i32 {
                    named.insert(String::from_utf8(field.value.to_vec()).unwrap());
                } else if field.slot >= 9
                    && let Some(further_field::Field::Subject(who)) =
                        FurtherField::decode(&field.value[..]).unwrap().field
                {
                    named.insert(String::from_utf8(who.to_vec()).unwrap());
                }
            }
        }
        assert_eq!(named.len(), 700, "{}", story(&entries));
        let kinds: Vec<Kind> = entries.iter().map(Entry::kind).collect();
        assert!(kinds.iter().filter(|kind| **kind == Kind::Subjects).count() >= 4, "{kinds:?}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_mask_is_taken_up_without_dropping_a_call() {
    let mut running = federation("").start("").await;
    let probe = ProbeClient::new(running.desk().await);
    assert_eq!(Person::decode(probe.unary(bytes(&aisha())).await.unwrap().into_inner().value).unwrap(), aisha());
    let grants = running.federation.grants.clone();
    let path = running.federation.member_path(PROVIDER, "grants/probe.toml");
    write_whole(&path, format!("{grants}fields = [\"value.name\"]\n").as_bytes());
    let only_name = Person { name: "Айша".into(), ..Person::default() };
    eventually("the new mask", async || {
        let answer = probe.unary(bytes(&aisha())).await.expect("no call is dropped").into_inner();
        (Person::decode(answer.value).unwrap() == only_name).then_some(())
    })
    .await;
    // A mask that cannot be: the one in force stays.
    write_whole(&path, format!("{grants}fields = [\"value.nothing\"]\n").as_bytes());
    assert!(
        running.provider.reload().await.is_err()
            || Person::decode(probe.unary(bytes(&aisha())).await.unwrap().into_inner().value).unwrap() == only_name
    );
    let answer = probe.unary(bytes(&aisha())).await;
    let value = answer.map(|answer| Person::decode(answer.into_inner().value).unwrap());
    assert!(value.as_ref().map_or(true, |person| *person == only_name), "never more than was granted: {value:?}");
    assert!(running.federation.member_path(CONSUMER, "data").exists());
    running.stop().await;
}
