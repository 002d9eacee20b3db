//! Open data: a day's files, once the day is over, from what the leaves show, the same every time.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kopuro::log::Record;
use kopuro::log::entry::{Entry, ExchangeKey, Kind, Outcome, Publication, Side};
use kopuro::proto::kopuro::log::v1::OpenedEntry;
use prost::Message;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::harness::published::{Published, ask, get};
use crate::harness::{Federation, PROVIDER, eventually};
use crate::publish::fill_log;

const PUBLISH: &str = "[publish]\nstore = \"public\"\nlisten = \"127.0.0.1:0\"\ninterval = \"50ms\"\n";
const DAY: i64 = 86_400_000;

fn entry(time: i64, method: &str) -> Entry {
    Entry {
        kind: Kind::ResponseSent.into(),
        exchange_id: Bytes::copy_from_slice(Uuid::now_v7().as_bytes()),
        time_unix_ms: time,
        consumer: "KG/GOV/1/desk".into(),
        provider: "KG/GOV/2/probe".into(),
        service: "kopuro.test.v1.Probe".into(),
        method: method.into(),
        legal_basis: "law-1, \"§ 2\"".into(),
        publication: Publication::Public.into(),
        outcome: Outcome::Ok.into(),
        commitment: Bytes::from_static(&[7; 32]),
        ..Entry::default()
    }
}

fn record(entry: &Entry) -> Record {
    let private = kopuro::log::entry::PrivateFields {
        key: Bytes::copy_from_slice(ExchangeKey::generate().as_bytes()),
        fields: Vec::new(),
    };
    Record { entry: entry.encode_to_vec().into(), private: private.encode_to_vec().into() }
}

/// A day's name, so many days ago.
fn day(today: i64, ago: i64) -> String {
    let date = time::OffsetDateTime::from_unix_timestamp((today - ago) * 86_400).unwrap().date();
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

#[tokio::test(flavor = "multi_thread")]
async fn days_that_are_over_are_open_data() {
    let now = (time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as i64;
    let today = now / DAY;
    let at = |ago: i64, ms: i64| (today - ago) * DAY + ms;
    let hidden = |publication: Publication| Entry {
        publication: publication.into(),
        delay_days: 1,
        commitment: Bytes::from_static(&[9; 32]),
        ..Entry::default()
    };
    let mut refused = entry(at(3, 20), "Refused");
    (refused.kind, refused.outcome) = (Kind::Refused.into(), Outcome::Refused.into());
    (refused.side, refused.grpc_status, refused.reason) = (Side::Provider.into(), 7, "GRANT_MISSING".into());
    refused.schema = Bytes::from_static(&[0x5c; 32]);
    let mut opening = entry(at(1, 5), "");
    opening.kind = Kind::Opened.into();
    let opened = entry(at(3, 40), "Delayed");
    opening.opened = Some(OpenedEntry { index: 2, hidden: opened.encode_to_vec().into(), ..OpenedEntry::default() });
    let entries = [
        entry(at(3, 10), "First"),        // 0: three days ago
        refused,                          // 1
        hidden(Publication::Delayed),     // 2
        entry(at(-400, 0), "Future"),     // 3: a clock that was wrong: turns no day
        hidden(Publication::Sealed),      // 4
        entry(at(1, 1), "Next"),          // 5: the next day that has entries
        entry(at(3, 86_399_999), "Late"), // 6: made before midnight, logged after
        opening,                          // 7
        entry(at(1, 86_399_999), "Last"), // 8
        entry(at(0, 1), "Today"),         // 9: today is not over
    ];
    let mut federation = Federation::new();
    federation.write_files(PUBLISH);
    fill_log(&federation, PROVIDER, entries.iter().map(record).collect()).await;

    let node = federation.start_node(PROVIDER).await;
    let store = federation.member_path(PROVIDER, "public/open-data");
    let read = |name: &str| std::fs::read(store.join(name)).ok();
    let (first, next) = (day(today, 3), day(today, 1));
    let sums = eventually("two days", async || {
        read("SHA256SUMS").filter(|sums| String::from_utf8_lossy(sums).contains(&next))
    })
    .await;
    let mut files: Vec<String> =
        std::fs::read_dir(&store).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let mut expected = vec!["SHA256SUMS".to_owned(), "days.csv".into(), "dictionary.csv".into()];
    expected.extend([&first, &next].into_iter().flat_map(|day| [format!("{day}.csv"), format!("{day}.parquet")]));
    expected.sort();
    // Summaries go on with the log.
    files.retain(|file| !file.starts_with("summary"));
    assert_eq!(files, expected, "and no file of today");

    // What a reader checks first.
    let sums: BTreeMap<String, String> = String::from_utf8(sums)
        .unwrap()
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(digest, name)| (name.to_owned(), digest.to_owned()))
        .collect();
    assert_eq!(sums.len(), 6);
    for (name, digest) in &sums {
        assert_eq!(hex::encode(Sha256::digest(read(name).unwrap())), *digest, "{name}");
    }

    let csv = |name: &str| -> Vec<BTreeMap<String, String>> {
        csv::Reader::from_reader(&read(name).unwrap()[..]).deserialize().map(Result::unwrap).collect()
    };
    let days = csv("days.csv");
    let told = |day: &BTreeMap<String, String>| {
        ["day", "first_entry", "entries", "rows", "delayed", "sealed"].map(|column| day[column].clone())
    };
    assert_eq!(told(&days[0]), [first.as_str(), "0", "5", "3", "1", "1"]);
    assert_eq!(told(&days[1]), [next.as_str(), "5", "4", "4", "0", "0"]);
    let rows = csv(&format!("{first}.csv"));
    assert_eq!(rows.iter().map(|row| row["entry"].as_str()).collect::<Vec<_>>(), ["0", "1", "3"]);
    assert_eq!(
        rows[1],
        [
            ("entry", "1"),
            ("opened_by", ""),
            ("time", &format!("{first}T00:00:00.020Z")),
            ("kind", "REFUSED"),
            ("exchange_id", &Uuid::from_slice(&entries[1].exchange_id).unwrap().to_string()),
            ("consumer", "KG/GOV/1/desk"),
            ("provider", "KG/GOV/2/probe"),
            ("service", "kopuro.test.v1.Probe"),
            ("method", "Refused"),
            ("legal_basis", "law-1, \"§ 2\""),
            ("publication", "PUBLIC"),
            ("outcome", "REFUSED"),
            ("grpc_status", "7"),
            ("reason", "GRANT_MISSING"),
            ("side", "PROVIDER"),
            ("schema", &"5c".repeat(32)),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
    );
    let rows = csv(&format!("{next}.csv"));
    assert_eq!(rows.iter().map(|row| row["entry"].as_str()).collect::<Vec<_>>(), ["5", "6", "2", "8"]);
    let shown = &rows[2];
    assert_eq!((shown["opened_by"].as_str(), shown["method"].as_str()), ("7", "Delayed"));
    assert_eq!((shown["publication"].as_str(), shown["kind"].as_str()), ("DELAYED", "RESPONSE_SENT"));
    // The same rows in both forms.
    for day in [&first, &next] {
        let csv = csv(&format!("{day}.csv"));
        let parquet = parquet_rows(read(&format!("{day}.parquet")).unwrap());
        assert_eq!(parquet.len(), csv.len());
        for (parquet, csv) in parquet.iter().zip(&csv) {
            for column in [
                "entry",
                "opened_by",
                "exchange_id",
                "method",
                "legal_basis",
                "outcome",
                "grpc_status",
                "side",
                "schema",
            ] {
                assert_eq!(parquet[column], csv[column], "{column}");
            }
        }
    }
    // Every column is in the dictionary, in three languages.
    let dictionary = csv("dictionary.csv");
    for (file, columns) in [("YYYY-MM-DD", rows[0].keys()), ("days", days[0].keys())] {
        for column in columns {
            let line = dictionary.iter().find(|line| line["file"] == file && line["field"] == *column).unwrap();
            assert!(["ky", "ru", "en"].iter().all(|language| !line[*language].is_empty()), "{column}");
        }
    }

    // Over HTTP.
    let web = node.publication_addr().unwrap();
    for (name, content_type, cache) in [
        (format!("{first}.csv"), "text/csv; charset=utf-8", "public, max-age=31536000, immutable"),
        (format!("{next}.parquet"), "application/vnd.apache.parquet", "public, max-age=31536000, immutable"),
        ("SHA256SUMS".into(), "text/plain; charset=utf-8", "public, max-age=60"),
        ("days.csv".into(), "text/csv; charset=utf-8", "public, max-age=60"),
    ] {
        let path = format!("/open-data/{name}");
        let answer = get(web, &path).await;
        assert_eq!(
            (answer.status, answer.header("content-type"), answer.header("cache-control")),
            (200, content_type, cache)
        );
        assert_eq!(Some(answer.body.to_vec()), read(&name));
        let tag = answer.header("etag").to_owned();
        assert_eq!(ask(web, "GET", &path, &[("if-none-match", &tag)]).await.status, 304, "{name}");
        let part = ask(web, "GET", &path, &[("range", "bytes=-7")]).await;
        let place = format!("bytes {}-{}/{2}", answer.body.len() - 7, answer.body.len() - 1, answer.body.len());
        assert_eq!((part.status, part.header("content-range")), (206, &*place));
        assert_eq!(part.body, answer.body.slice(answer.body.len() - 7..));
        assert_eq!(ask(web, "GET", &path, &[("range", "bytes=9999999-")]).await.status, 416);
        let head = ask(web, "HEAD", &path, &[]).await;
        assert_eq!((head.status, head.header("content-length")), (200, answer.body.len().to_string().as_str()));
    }
    assert_eq!(get(web, &format!("/open-data/{}.csv", day(today, 0))).await.status, 404);
    node.stop().await;

    // Written again from nothing but the log, it is the same, byte for byte.
    let before: BTreeMap<String, Vec<u8>> = files.iter().map(|name| (name.clone(), read(name).unwrap())).collect();
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::remove_file(federation.member_path(PROVIDER, "data/open-data.csv")).unwrap();
    let node = federation.start_node(PROVIDER).await;
    eventually("the same", async || {
        let after: BTreeMap<String, Vec<u8>> =
            before.keys().filter_map(|name| Some((name.clone(), read(name)?))).collect();
        (after == before).then_some(())
    })
    .await;
    let key = federation.log_key(PROVIDER);
    Published::folder(federation.member_path(PROVIDER, "public")).verify(key).await;
    node.stop().await;
    // What was written is left alone by the next start.
    let made = || std::fs::metadata(store.join(format!("{first}.csv"))).unwrap().modified().unwrap();
    let when = made();
    let node = federation.start_node(PROVIDER).await;
    tokio::time::timeout(Duration::from_secs(5), node.publication().unwrap().published().wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap();
    node.stop().await;
    assert_eq!(made(), when);
}

fn parquet_rows(file: Vec<u8>) -> Vec<BTreeMap<String, String>> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    let reader = SerializedFileReader::new(Bytes::from(file)).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    let text = |field: &Field| match field {
        Field::Null => String::new(),
        Field::Str(text) => text.clone(),
        other => other.to_string(),
    };
    rows.map(|row| row.unwrap().get_column_iter().map(|(name, field)| (name.clone(), text(field))).collect()).collect()
}
