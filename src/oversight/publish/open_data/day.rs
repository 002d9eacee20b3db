//! A day's two files. The same entries always give the same bytes.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::row::{self, COLUMNS, Row, Seen};
use crate::log::entry::Entry;
use crate::log::{Log, LogError};

/// Rows gathered in memory before they are written as a row group.
const GROUP: usize = 16_384;

const SCHEMA: &str = "message kopuro_open_data {
    required int64 entry (INTEGER(64,false));
    optional int64 opened_by (INTEGER(64,false));
    required int64 time (TIMESTAMP(MILLIS,true));
    required binary kind (STRING);
    required binary exchange_id (STRING);
    required binary consumer (STRING);
    required binary provider (STRING);
    required binary service (STRING);
    required binary method (STRING);
    required binary legal_basis (STRING);
    required binary publication (STRING);
    required binary outcome (STRING);
    optional int32 grpc_status;
    required binary reason (STRING);
    required binary side (STRING);
    required binary schema (STRING);
}";

/// What a day came to.
pub(super) struct Made {
    pub(super) rows: u64,
    pub(super) delayed: u64,
    pub(super) sealed: u64,
    pub(super) csv: Written,
    pub(super) parquet: Written,
}

/// A file without a name, at its beginning, and its digest.
pub(super) struct Written {
    pub(super) file: File,
    pub(super) sha256: [u8; 32],
}

/// Why a day's files could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum DayError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{0}")]
    Write(#[from] std::io::Error),
    #[error("CSV: {0}")]
    Csv(#[from] csv::Error),
    #[error("Parquet: {0}")]
    Parquet(#[from] ParquetError),
    #[error("entry {0} is missing")]
    Missing(u64),
    #[error("stopped")]
    Stopped,
}

/// Makes the files of entries `first` to `end - 1`, in a folder on a disk. Blocks for as long as that takes.
pub(super) fn make(log: &Log, first: u64, end: u64, folder: &Path, stop: &CancellationToken) -> Result<Made, DayError> {
    let (mut rows, mut delayed, mut sealed) = (0, 0, 0);
    let mut csv = csv::Writer::from_writer(Hashing::new(tempfile::tempfile_in(folder)?));
    csv.write_record(COLUMNS)?;
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by("kopuro open data v1".to_owned())
        .build();
    let target = Hashing::new(tempfile::tempfile_in(folder)?);
    let mut parquet = SerializedFileWriter::new(target, schema, Arc::new(properties))?;
    let mut group = Vec::with_capacity(GROUP);
    let mut next = first;
    while next < end {
        if stop.is_cancelled() {
            return Err(DayError::Stopped);
        }
        let wanted = usize::try_from(end - next).unwrap_or(usize::MAX);
        let entries = log.read(next, wanted)?;
        if entries.is_empty() {
            return Err(DayError::Missing(next));
        }
        for bytes in entries {
            // Its own log's entries decode; one of a later version shows what this one knows.
            let entry = Entry::decode(bytes).unwrap_or_default();
            match row::see(next, entry) {
                Seen::Delayed => delayed += 1,
                Seen::Sealed => sealed += 1,
                Seen::Row(row) => {
                    rows += 1;
                    write_csv(&mut csv, &row)?;
                    group.push(row);
                    if group.len() == GROUP {
                        write_group(&mut parquet, &group)?;
                        group.clear();
                    }
                }
            }
            next += 1;
        }
    }
    if !group.is_empty() {
        write_group(&mut parquet, &group)?;
    }
    let csv = csv.into_inner().map_err(csv::IntoInnerError::into_error)?.finish()?;
    let parquet = parquet.into_inner()?.finish()?;
    Ok(Made { rows, delayed, sealed, csv, parquet })
}

fn write_csv(csv: &mut csv::Writer<Hashing>, row: &Row) -> Result<(), csv::Error> {
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    csv.write_record([
        row.entry.to_string().as_str(),
        &number(row.opened_by),
        &row::timestamp(row.time_unix_ms),
        row.kind,
        &row.exchange_id,
        &row.consumer,
        &row.provider,
        &row.service,
        &row.method,
        &row.legal_basis,
        row.publication,
        row.outcome,
        &number(row.grpc_status.map(u64::from)),
        &row.reason,
        row.side,
        &row.schema,
    ])
}

fn write_group(parquet: &mut SerializedFileWriter<Hashing>, rows: &[Box<Row>]) -> Result<(), ParquetError> {
    let mut group = parquet.next_row_group()?;
    // Indices are unsigned where the column says so, in the same 64 bits.
    numbers(&mut group, rows.iter().map(|row| Some(row.entry as i64)), false)?;
    numbers(&mut group, rows.iter().map(|row| row.opened_by.map(|index| index as i64)), true)?;
    numbers(&mut group, rows.iter().map(|row| Some(row.time_unix_ms)), false)?;
    text(&mut group, rows.iter().map(|row| row.kind))?;
    text(&mut group, rows.iter().map(|row| row.exchange_id.as_str()))?;
    text(&mut group, rows.iter().map(|row| row.consumer.as_str()))?;
    text(&mut group, rows.iter().map(|row| row.provider.as_str()))?;
    text(&mut group, rows.iter().map(|row| row.service.as_str()))?;
    text(&mut group, rows.iter().map(|row| row.method.as_str()))?;
    text(&mut group, rows.iter().map(|row| row.legal_basis.as_str()))?;
    text(&mut group, rows.iter().map(|row| row.publication))?;
    text(&mut group, rows.iter().map(|row| row.outcome))?;
    let statuses: Vec<i32> = rows.iter().filter_map(|row| row.grpc_status).map(|status| status as i32).collect();
    let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.grpc_status.is_some())).collect();
    if let Some(mut column) = group.next_column()? {
        column.typed::<Int32Type>().write_batch(&statuses, Some(&levels), None)?;
        column.close()?;
    }
    text(&mut group, rows.iter().map(|row| row.reason.as_str()))?;
    text(&mut group, rows.iter().map(|row| row.side))?;
    text(&mut group, rows.iter().map(|row| row.schema.as_str()))?;
    group.close().map(drop)
}

type Group<'a> = SerializedRowGroupWriter<'a, Hashing>;

fn numbers(
    group: &mut Group<'_>,
    numbers: impl Iterator<Item = Option<i64>> + Clone,
    optional: bool,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else { return Ok(()) };
    let levels: Option<Vec<i16>> =
        optional.then(|| numbers.clone().map(|number| i16::from(number.is_some())).collect());
    let values: Vec<i64> = numbers.flatten().collect();
    column.typed::<Int64Type>().write_batch(&values, levels.as_deref(), None)?;
    column.close()
}

fn text<'a>(group: &mut Group<'_>, values: impl Iterator<Item = &'a str>) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else { return Ok(()) };
    let values: Vec<ByteArray> = values.map(ByteArray::from).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
    column.close()
}

/// Writes to a file and hashes what it writes.
struct Hashing {
    file: BufWriter<File>,
    digest: Sha256,
}

impl Hashing {
    fn new(file: File) -> Self {
        Self { file: BufWriter::new(file), digest: Sha256::new() }
    }

    fn finish(mut self) -> std::io::Result<Written> {
        self.file.flush()?;
        let mut file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Written { file, sha256: self.digest.finalize().into() })
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
