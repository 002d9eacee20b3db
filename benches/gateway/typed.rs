//! What it costs one thread to check a message by a plan: a record of 1 kB with 20 fields as a register has them, half of its text in
//! Cyrillic, with a subject. Beside it, in the same run, the same message decoded by `prost-reflect`; and a mask that drops half of it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use kopuro::policy::UnknownFields;
use kopuro::schema::plan::{Allow, Found, Plan, PlanOptions};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde::Serialize;

const TYPES: &str = r#"
    syntax = "proto3";
    package bench;
    import "kopuro/options/v1/options.proto";
    message Record {
      string pin = 1 [(kopuro.options.v1.subject) = true];
      string surname = 2;
      string given_name = 3;
      string patronymic = 4;
      int32 sex = 5;
      string birth_date = 6;
      string birth_place = 7;
      int32 status = 8;
      string passport = 9;
      string issuer = 10;
      int64 issued = 11;
      string region = 12;
      string town = 13;
      string street = 14;
      repeated string phones = 15;
      bytes photo_digest = 16;
      fixed64 version = 17;
      bytes signature = 18;
      string remark = 19;
      string source = 20;
    }
"#;

const RECORD: &str = r#"{
    "pin": "20101199012345", "surname": "Асанов", "givenName": "Бакыт", "patronymic": "Кубанычбекович", "sex": 2,
    "birthDate": "1990-01-01", "birthPlace": "Ысык-Көл облусу, Каракол шаары", "status": 1, "passport": "ID1234567",
    "issuer": "МКК 211051", "issued": "1600000000", "region": "Чүй облусу, Аламүдүн району", "town": "Лебединовка айылы",
    "street": "Ленин көчөсү, 145-А", "phones": ["+996555123456"],
    "photoDigest": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "version": "1234567890123",
    "signature": "SIGNATURE",
    "remark": "Справка выдана по месту требования; действительна в течение тридцати дней. Данные сверены с реестром актов.",
    "source": "https://registry.example.kg/records/2026/11/25/0b8f2b52-6d2e-7c11-9a3e-5f1f2d3c4b5a?version=1234567890123&form=full"
}"#;

/// Half of the fields, and about half of the bytes.
const KEPT: [&str; 10] =
    ["pin", "surname", "patronymic", "birth_date", "status", "issuer", "region", "street", "photo_digest", "remark"];

/// Messages walked in one go, and how many goes: the fastest counts, since what else the machine does only slows.
const TOGETHER: u32 = 10_000;
const GOES: usize = 25;

/// Nanoseconds a message, at best.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct TypedCost {
    pub(crate) bytes: usize,
    /// Checked, and its subject taken.
    pub(crate) check_ns: f64,
    /// Decoded to a `DynamicMessage`.
    pub(crate) decode_ns: f64,
    /// Masked: half of it copied out.
    pub(crate) mask_ns: f64,
}

impl TypedCost {
    /// Bytes of messages a second, in GB.
    pub(crate) fn gb_per_s(&self, ns: f64) -> f64 {
        self.bytes as f64 / ns
    }

    /// How often a message is checked in the time in which one is decoded.
    pub(crate) fn times_as_fast(&self) -> f64 {
        self.decode_ns / self.check_ns
    }
}

/// Measures all three, in turns.
pub(crate) fn measure() -> Result<TypedCost> {
    eprintln!("plans");
    let record = types()?;
    let signature = "QUJD".repeat(86);
    let json = RECORD.replace("SIGNATURE", &signature);
    let message = DynamicMessage::deserialize(record.clone(), &mut serde_json::Deserializer::from_str(&json))?;
    let bytes = Bytes::from(message.encode_to_vec());
    let plan = |allow, unknown| Plan::compile(&record, &PlanOptions { allow, unknown, rules: false });
    let check = plan(Allow::Everything, UnknownFields::Refuse)?;
    let kept = KEPT.iter().map(|path| (*path).to_owned()).collect();
    let mask = plan(Allow::Paths(kept), UnknownFields::Strip)?;
    // Used again and emptied each time, as the gateway does.
    let mut found = Found::default();
    let mut apply = |plan: &Plan| {
        found.subjects.clear();
        let out = black_box(plan).apply(black_box(&bytes), &mut found);
        drop(black_box((out, &found)));
    };
    let mut best = [Duration::MAX; 3];
    for _ in 0..GOES {
        best[0] = best[0].min(timed(|| apply(&check)));
        best[1] = best[1].min(timed(|| drop(black_box(DynamicMessage::decode(record.clone(), black_box(&bytes[..]))))));
        best[2] = best[2].min(timed(|| apply(&mask)));
    }
    let [check_ns, decode_ns, mask_ns] = best.map(|time| time.as_secs_f64() * 1e9 / f64::from(TOGETHER));
    Ok(TypedCost { bytes: bytes.len(), check_ns, decode_ns, mask_ns })
}

fn timed(mut act: impl FnMut()) -> Duration {
    let begun = Instant::now();
    (0..TOGETHER).for_each(|_| act());
    begun.elapsed()
}

fn types() -> Result<MessageDescriptor> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("bench.proto"), TYPES)?;
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let mut compiler = protox::Compiler::new([folder.path(), own.as_ref()])?;
    compiler.include_imports(true).open_file("bench.proto")?;
    let pool = DescriptorPool::decode(&compiler.encode_file_descriptor_set()[..])?;
    pool.get_message_by_name("bench.Record").context("bench.Record")
}
