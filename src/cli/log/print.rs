//! Exchanges, entries and counts as a table, JSON lines or CSV.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use prost::Message;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::log::entry::{Entry, Kind, Outcome, Publication, Side};
use crate::log::hidden::Seen;
use crate::log::tree::Hash;
use crate::oversight::join::outcome_label;
use crate::proto::kopuro::audit::v1::{Exchange, StatsResponse};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Jsonl,
    Csv,
}

/// Rows of a table held back so that its columns fit; further ones begin another table.
const ROWS: usize = 1_000;

/// A row: names and values.
type Row = Vec<(&'static str, Value)>;

pub(super) struct Printer {
    format: Format,
    table: Option<Table>,
    csv: Option<csv::Writer<io::Stdout>>,
}

impl Printer {
    pub(super) fn new(format: Format) -> Self {
        Self { format, table: None, csv: None }
    }

    pub(super) fn exchange(&mut self, exchange: &Exchange) -> anyhow::Result<()> {
        let outcome = outcome_label(exchange.outcome());
        let short = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
        if self.format == Format::Table {
            return self.row(vec![
                ("time", utc(exchange.time_unix_ms)),
                ("consumer", exchange.consumer.clone().into()),
                ("provider", exchange.provider.clone().into()),
                ("method", format!("{}/{}", short(&exchange.service), exchange.method).into()),
                ("basis", exchange.legal_basis.clone().into()),
                ("outcome", format!("{outcome} {}", exchange.reason).trim_end().into()),
                ("ms", exchange.duration_ms.into()),
                ("exchange", id(&exchange.exchange_id)),
            ]);
        }
        let indices: Vec<String> = exchange.indices.iter().map(u64::to_string).collect();
        self.row(vec![
            ("exchange_id", id(&exchange.exchange_id)),
            ("time", utc(exchange.time_unix_ms)),
            ("kind", name(exchange.kind().as_str_name(), "KIND_")),
            ("consumer", exchange.consumer.clone().into()),
            ("provider", exchange.provider.clone().into()),
            ("service", exchange.service.clone().into()),
            ("method", exchange.method.clone().into()),
            ("legal_basis", exchange.legal_basis.clone().into()),
            ("publication", name(exchange.publication().as_str_name(), "PUBLICATION_")),
            ("outcome", outcome.into()),
            ("grpc_status", exchange.grpc_status.into()),
            ("reason", exchange.reason.clone().into()),
            ("side", name(exchange.side().as_str_name(), "SIDE_")),
            ("duration_ms", exchange.duration_ms.into()),
            ("indices", indices.join(" ").into()),
            ("schema", hex::encode(&exchange.schema).into()),
        ])
    }

    /// An entry in a line.
    pub(super) fn entry(&mut self, index: u64, seen: &Seen) -> anyhow::Result<()> {
        let row = fields(index, seen)?;
        if self.format != Format::Table {
            return self.row(row);
        }
        // Lines and not a table: they come one by one, for hours.
        let text = |wanted: &str| row.iter().find(|(name, _)| *name == wanted).map_or(String::new(), |(_, v)| plain(v));
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{:>8} {} {:<17} {} -> {} {}/{} {} {}",
            text("index"),
            text("time"),
            text("kind"),
            text("consumer"),
            text("provider"),
            text("service"),
            text("method"),
            text("outcome"),
            text("reason"),
        )?;
        Ok(())
    }

    /// An entry with all its public fields, one to a line.
    pub(super) fn whole_entry(&mut self, index: u64, seen: &Seen) -> anyhow::Result<()> {
        let row = fields(index, seen)?;
        if self.format != Format::Table {
            return self.row(row);
        }
        let mut table = table();
        for (name, value) in row {
            table.add_row([name.to_owned(), plain(&value)]);
        }
        writeln!(io::stdout(), "{table}")?;
        Ok(())
    }

    pub(super) fn stats(&mut self, stats: &StatsResponse) -> anyhow::Result<()> {
        let lists = [
            ("day", &stats.by_day),
            ("pair", &stats.by_pair),
            ("service", &stats.by_service),
            ("outcome", &stats.by_outcome),
            ("reason", &stats.by_reason),
        ];
        for (by, counts) in lists {
            for count in counts {
                let label = count.label.clone().into();
                self.row(vec![("by", by.into()), ("value", label), ("exchanges", count.exchanges.into())])?;
            }
        }
        self.row(vec![("by", "all".into()), ("value", "".into()), ("exchanges", stats.exchanges.into())])?;
        if stats.hidden_entries > 0 {
            let entries = stats.hidden_entries.into();
            self.row(vec![("by", "hidden entries".into()), ("value", "".into()), ("exchanges", entries)])?;
        }
        self.finish()
    }

    fn row(&mut self, row: Row) -> anyhow::Result<()> {
        match self.format {
            Format::Jsonl => {
                let object: Map<String, Value> =
                    row.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                writeln!(io::stdout(), "{}", Value::Object(object))?;
            }
            Format::Csv => {
                let first = self.csv.is_none();
                let csv = self.csv.get_or_insert_with(|| csv::Writer::from_writer(io::stdout()));
                if first {
                    csv.write_record(row.iter().map(|(name, _)| *name))?;
                }
                csv.write_record(row.iter().map(|(_, value)| plain(value)))?;
            }
            Format::Table => {
                let names = row.iter().map(|(name, _)| *name).collect::<Vec<_>>();
                let shown = self.table.get_or_insert_with(|| {
                    let mut table = table();
                    table.set_header(names);
                    table
                });
                shown.add_row(row.iter().map(|(_, value)| plain(value)));
                if shown.row_count() >= ROWS {
                    self.finish()?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        if let Some(csv) = &mut self.csv {
            csv.flush()?;
        }
        Ok(io::stdout().flush()?)
    }

    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(table) = self.table.take() {
            writeln!(io::stdout(), "{table}")?;
        }
        self.flush()
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// All public fields of an entry.
fn fields(index: u64, seen: &Seen) -> anyhow::Result<Row> {
    let entry = Entry::decode(seen.whole())?;
    let kind = match Kind::try_from(entry.kind) {
        _ if seen.stays_hidden() => "HIDDEN",
        kind => kind.map_or("KIND_UNKNOWN", |kind| kind.as_str_name()),
    };
    let outcome = match entry.outcome() {
        Outcome::Unspecified => "",
        outcome => outcome_label(outcome),
    };
    let publication = Publication::try_from(entry.publication).unwrap_or_default().as_str_name();
    let side = Side::try_from(entry.side).unwrap_or_default().as_str_name();
    Ok(vec![
        ("index", index.into()),
        ("leaf", Hash::of_leaf(&seen.entry).to_string().into()),
        ("kind", name(kind, "KIND_")),
        ("exchange_id", id(&entry.exchange_id)),
        ("time", utc(entry.time_unix_ms)),
        ("consumer", entry.consumer.into()),
        ("provider", entry.provider.into()),
        ("service", entry.service.into()),
        ("method", entry.method.into()),
        ("legal_basis", entry.legal_basis.into()),
        ("publication", name(publication, "PUBLICATION_")),
        ("delay_days", entry.delay_days.into()),
        ("outcome", outcome.into()),
        ("grpc_status", entry.grpc_status.into()),
        ("reason", entry.reason.into()),
        ("side", name(side, "SIDE_")),
        ("schema", hex::encode(&entry.schema).into()),
        ("commitment", hex::encode(&entry.commitment).into()),
        ("peer_checkpoint", entry.peer_checkpoint.into()),
    ])
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn name(full: &str, prefix: &str) -> Value {
    match full.strip_prefix(prefix).unwrap_or(full) {
        "UNSPECIFIED" => "".into(),
        name => name.into(),
    }
}

fn id(bytes: &[u8]) -> Value {
    uuid::Uuid::from_slice(bytes).map_or_else(|_| hex::encode(bytes), |id| id.to_string()).into()
}

/// RFC 3339 in UTC: the same for whoever reads it.
fn utc(unix_ms: i64) -> Value {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| unix_ms.to_string()).into()
}
