//! What is compressed is judged to its end and no further; nodes with neighbouring versions of the directory interoperate. Callers are
//! raw: no stub sends such messages.

use std::io::Write;
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use kopuro::trust::pki::Issued;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::harness::raw::{Answered, Raw, whole};
use crate::harness::{CONSUMER, DESK, Federation, PROVIDER, Running, reason};

const UNARY: &str = "/kopuro.test.v1.Probe/Unary";
const COLLECT: &str = "/kopuro.test.v1.Probe/Collect";
const PIN: &str = "10101199000011";
const OTHER_PIN: &str = "20202199000022";

/// The type as the test writes it.
#[derive(Clone, PartialEq, Message)]
struct Person {
    #[prost(string, tag = "1")]
    pin: String,
    #[prost(string, tag = "2")]
    surname: String,
    #[prost(string, tag = "3")]
    phone: String,
    #[prost(int32, tag = "4")]
    year: i32,
    #[prost(message, repeated, tag = "5")]
    family: Vec<Self>,
    #[prost(string, tag = "6")]
    act: String,
    /// Only of a newer version.
    #[prost(string, tag = "9")]
    later: String,
}

fn person() -> Person {
    let relative = Person { pin: OTHER_PIN.into(), surname: "Асанова".into(), ..Person::default() };
    Person {
        pin: PIN.into(),
        surname: "Асанов".into(),
        phone: "+996 555 000000".into(),
        year: 1990,
        family: vec![relative],
        act: "42".into(),
        later: String::new(),
    }
}

/// The probe's service over these types; `later` adds a field, as a newer version does.
fn types(later: bool) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kopuro/test/v1/probe.proto");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let later = if later { "string later = 9;" } else { "" };
    let text = format!(
        r#"syntax = "proto3"; package kopuro.test.v1;
import "kopuro/options/v1/options.proto"; import "buf/validate/validate.proto";
message Person {{
  string pin = 1 [(kopuro.options.v1.subject) = true];
  string surname = 2 [(kopuro.options.v1.category) = "identity"];
  string phone = 3 [(kopuro.options.v1.category) = "contact"];
  int32 year = 4 [(buf.validate.field).int32.lte = 2100];
  repeated Person family = 5 [(kopuro.options.v1.category) = "family"];
  string act = 6 [(kopuro.options.v1.commit) = true];
  {later}
}}
message Blob {{ Person value = 1; }}
service Probe {{
  rpc Unary(Blob) returns (Blob) {{ option (kopuro.options.v1.purposes) = "law-1"; }}
  rpc Collect(stream Blob) returns (Blob);
  rpc Expand(Blob) returns (stream Blob);
  rpc Chat(stream Blob) returns (stream Blob);
}}"#
    );
    std::fs::write(&file, text).unwrap();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    protox::compile([file], [folder.path(), ours.as_path()]).unwrap().encode_to_vec()
}

/// Lists these types in the directory, from its next version on.
fn list(federation: &mut Federation, types: &[u8]) {
    let digest: [u8; 32] = Sha256::digest(types).into();
    std::fs::write(federation.path(&format!("descriptors/{}.binpb", hex::encode(digest))), types).unwrap();
    federation.directory.services.iter_mut().for_each(|service| service.descriptors = digest);
}

/// Both nodes over these types; the grant says this besides.
async fn start(grant: &str) -> (Running, Raw, Issued) {
    let mut federation = Federation::new();
    list(&mut federation, &types(false));
    federation.grants.push_str(grant);
    let mut running = federation.start("").await;
    let desk = running.federation.issue(DESK);
    let raw = Raw::connect(&running.federation, running.consumer.systems_addr(), &desk).await;
    (running, raw, desk)
}

fn frame(flag: u8, message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(flag);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

/// A `Blob` around the bytes of a person.
fn blob(person: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    prost::encoding::bytes::encode(1, &person.to_vec(), &mut blob);
    blob
}

fn of(person: &Person) -> Bytes {
    frame(0, &blob(&person.encode_to_vec()))
}

fn compressed(encoding: &str, message: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    if encoding == "gzip" {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(message).unwrap();
        return encoder.finish().unwrap();
    }
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

fn gzip(message: &[u8]) -> Vec<u8> {
    compressed("gzip", message)
}

/// The persons of an answer's messages, none of which is compressed.
fn persons(body: &[u8]) -> Vec<Person> {
    let mut rest = body;
    let mut persons = Vec::new();
    while let [0, a, b, c, d, more @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let mut message = &more[..length];
        prost::encoding::decode_key(&mut message).unwrap();
        prost::encoding::decode_varint(&mut message).unwrap();
        persons.push(Person::decode(message).unwrap());
        rest = &more[length..];
    }
    assert!(rest.is_empty(), "{rest:?}");
    persons
}

fn is_ok(answered: &Answered) -> bool {
    answered.status.as_ref().is_some_and(|status| status.code() == Code::Ok)
}

/// Code, reason and side of a refusal.
fn refused(answered: &Answered) -> (Code, String, String) {
    let status = answered.status.as_ref().expect("a status");
    let (why, side) = reason(status).unwrap_or_else(|| panic!("no refusal: {status:?}"));
    (status.code(), why, side)
}

#[tokio::test]
async fn compressed_messages_are_looked_into_and_bombs_are_not_unpacked() {
    let (running, mut raw, _) = start("").await;
    let sent = blob(&person().encode_to_vec());
    let call = [("grpc-encoding", "gzip")];
    let answered = raw.call(UNARY, &call, whole(frame(1, &gzip(&sent)))).await.unwrap();
    assert!(is_ok(&answered), "{answered:?}");
    // Malformed inside, not what is announced, announced by nobody, and in a way that is not known.
    let bad = gzip(&blob(&[0x08, 1]));
    let answered = raw.call(UNARY, &call, whole(frame(1, &bad))).await.unwrap();
    assert_eq!(refused(&answered).1, "MESSAGE_MALFORMED");
    let answered = raw.call(UNARY, &call, whole(frame(1, &sent))).await.unwrap();
    assert_eq!(refused(&answered).1, "MESSAGE_MALFORMED");
    let answered = raw.call(UNARY, &[], whole(frame(1, &gzip(&sent)))).await.unwrap();
    assert_eq!(refused(&answered).1, "MESSAGE_MALFORMED");
    // What stands behind the end would cross unread.
    for encoding in ["gzip", "deflate"] {
        let twice = [compressed(encoding, &sent), compressed(encoding, &sent)].concat();
        let answered = raw.call(UNARY, &[("grpc-encoding", encoding)], whole(frame(1, &twice))).await.unwrap();
        assert_eq!(refused(&answered).1, "MESSAGE_MALFORMED", "{encoding}");
        // The back-end itself knows no deflate: that is its own answer, and no node's.
        let once = compressed(encoding, &sent);
        let answered = raw.call(UNARY, &[("grpc-encoding", encoding)], whole(frame(1, &once))).await.unwrap();
        assert_eq!(answered.status.as_ref().and_then(reason), None, "{encoding}: {answered:?}");
    }
    let answered = raw.call(UNARY, &[("grpc-encoding", "zstd")], whole(frame(1, &sent))).await.unwrap();
    assert_eq!(refused(&answered), (Code::Unimplemented, "ENCODING_UNKNOWN".into(), "consumer".into()));
    // 64 MiB of a surname in some kilobytes.
    let bomb = gzip(&blob(&Person { surname: "a".repeat(64 << 20), ..Person::default() }.encode_to_vec()));
    for path in [UNARY, COLLECT] {
        let answered = raw.call(path, &call, whole(frame(1, &bomb))).await.unwrap();
        assert_eq!(
            (refused(&answered).0, refused(&answered).1.as_str()),
            (Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn neighbouring_versions_interoperate_whichever_node_is_ahead() {
    for ahead in [CONSUMER, PROVIDER] {
        let mut federation = Federation::new();
        list(&mut federation, &types(false));
        let behind = if ahead == CONSUMER { PROVIDER } else { CONSUMER };
        federation.poll = "3600s";
        federation.write_files("");
        let probe = federation.start_probe().await;
        let first = federation.start_node(behind).await;
        // The next version of the directory, which only the other node has read.
        list(&mut federation, &types(true));
        federation.publish_directory();
        let second = federation.start_node(ahead).await;
        let (consumer, provider) = if ahead == CONSUMER { (second, first) } else { (first, second) };
        let mut running = Running { federation, consumer, provider, probe };
        let desk = running.federation.issue(DESK);
        let mut raw = Raw::connect(&running.federation, running.consumer.systems_addr(), &desk).await;

        let answered = raw.call(UNARY, &[], whole(of(&person()))).await.unwrap();
        assert_eq!(persons(&answered.body), [person()]);
        let newer = Person { later: "x".into(), ..person() };
        let answered = raw.call(UNARY, &[], whole(of(&newer))).await.unwrap();
        if ahead == PROVIDER {
            // The consumer's node passes what it does not know, both ways.
            assert_eq!(persons(&answered.body), [newer]);
        } else {
            assert_eq!(refused(&answered), (Code::InvalidArgument, "UNKNOWN_FIELD".into(), "provider".into()));
        }
        let schema = |node| Running::entries(node)[0].schema.clone();
        assert_ne!(schema(&running.consumer), schema(&running.provider));
        running.stop().await;
    }
}
