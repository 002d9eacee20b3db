//! Open data: for each day a CSV and a Parquet file of the public fields, a list of days with counts, their SHA-256, and
//! a dictionary of the fields in Kyrgyz, Russian and English.
//!
//! A day is a run of the log: it ends before the first entry whose own time is of a later day. Times rise only roughly,
//! so an entry that was made before midnight and logged behind one of the new day stands, with its own time, in the new
//! day's file; one whose time is in the future turns no day. Where nothing of a later day comes, the day ends [`GRACE`]
//! after midnight, with what is logged then. A day is written once its last entry is published; the runs are kept (in
//! the data folder and in `days.csv`), so that a day written again is the same, byte for byte. Hidden entries show no
//! time: they count with their neighbours. What opens a delayed entry shows it in the day in which it was opened.

mod day;
pub(super) mod days;
pub(super) mod row;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::{IMMUTABLE, PublishError, Served, Shared, StoreError};
use crate::log::entry::Entry;
use crate::telemetry::{Status, metrics as names};
use crate::trust::file::{self, Access, Existing};
use day::DayError;
use days::{Day, Days};

const DAY_MS: i64 = 86_400_000;

/// How long after midnight a day stays open where nothing of the next day comes.
const GRACE: Duration = Duration::from_secs(600);

/// The longest pause after failures, and the shortest between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// Entries looked at in one go.
const STRIDE: u64 = 1 << 16;

/// A list of days that is larger is none: two centuries.
const MOST_DAYS: usize = 16 << 20;

const DICTIONARY: &[u8] = include_bytes!("dictionary.csv");

const CSV: &str = "text/csv; charset=utf-8";
const PARQUET: &str = "application/vnd.apache.parquet";
const JSON: &str = "application/json";
const SHORT: &str = "public, max-age=60";

/// How a file of `open-data/` is served; none where there is no such name.
pub(super) fn served(name: &str) -> Option<Served> {
    match name {
        "days.csv" | "dictionary.csv" => Some(Served { content_type: CSV, cache: SHORT }),
        "SHA256SUMS" => Some(Served { content_type: "text/plain; charset=utf-8", cache: SHORT }),
        "summary.json" => Some(Served { content_type: JSON, cache: SHORT }),
        name => {
            if let Some(month) = name.strip_prefix("summary-").and_then(|name| name.strip_suffix(".json")) {
                days::parse_day(&format!("{month}-01"))?;
                return Some(Served { content_type: JSON, cache: SHORT });
            }
            let (day, form) = name.split_once('.')?;
            days::parse_day(day)?;
            let content_type = match form {
                "csv" => CSV,
                "parquet" => PARQUET,
                _ => return None,
            };
            Some(Served { content_type, cache: IMMUTABLE })
        }
    }
}

/// Writes each day's files when the day is over, until told to stop.
pub(super) async fn keep(shared: Arc<Shared>, stop: CancellationToken) {
    let interval = shared.options.interval.max(SHORTEST_PAUSE);
    let mut keeper = Keeper { shared, stop: stop.clone(), days: None, listed: false, run: None };
    let mut failures = 0_u32;
    loop {
        let turn = tokio::select! {
            () = stop.cancelled() => return,
            turn = keeper.turn() => turn,
        };
        let Shared { health, options, .. } = &*keeper.shared;
        match turn {
            Ok(()) => {
                failures = 0;
                health.set("open data", Status::Ok);
            }
            Err(error) => {
                failures += 1;
                metrics::counter!(names::PUBLISH_FAILURES, "node" => options.node.clone()).increment(1);
                if failures.is_power_of_two() {
                    tracing::warn!(%error, failures, "open data not written");
                }
                health.set("open data", Status::Warning(format!("open data is not written: {error}")));
            }
        }
        let pause = interval.saturating_mul(1 << failures.min(5)).min(LONGEST_PAUSE.max(interval));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Keeper {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// The days that are written, once known.
    days: Option<Days>,
    /// Whether the lists in the store are those of these days.
    listed: bool,
    /// The run that is open.
    run: Option<Run>,
}

/// A run of the log that has not ended.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    /// Which day it is; none while no entry of it has said so.
    day: Option<i64>,
    /// Looked at up to here.
    next: u64,
}

impl Keeper {
    async fn turn(&mut self) -> Result<(), PublishError> {
        let mut days = match self.days.take() {
            Some(days) => days,
            None => self.known_days().await?,
        };
        let result = loop {
            if !self.listed
                && let Err(error) = self.put_lists(&days).await
            {
                break Err(error);
            }
            self.listed = true;
            match self.next_day(&mut days).await {
                Ok(true) => self.listed = false,
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.shared.in_days.store(days.end(), std::sync::atomic::Ordering::Relaxed);
        self.shared.settle();
        self.days = Some(days);
        result
    }

    /// Writes the next day that is over. Gives back whether there was one.
    async fn next_day(&mut self, days: &mut Days) -> Result<bool, PublishError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64);
        let Some((first, day, end)) = self.run_that_ended(days, now).await? else { return Ok(false) };
        let name = days::name(day);
        let failed = |reason: String| PublishError::OpenData { day: name.clone(), reason };
        let (log, folder, stop) = (self.shared.log.clone(), self.shared.options.folder.clone(), self.stop.clone());
        let made = tokio::task::spawn_blocking(move || day::make(&log, first, end, &folder, &stop)).await?;
        let made = made.map_err(|error: DayError| failed(error.to_string()))?;
        let written = Day {
            day,
            first,
            entries: end - first,
            rows: made.rows,
            delayed: made.delayed,
            sealed: made.sealed,
            csv: made.csv.sha256,
            parquet: made.parquet.sha256,
        };
        for (file, form) in [(made.csv.file, "csv"), (made.parquet.file, "parquet")] {
            let file_name = format!("{name}.{form}");
            let Some(served) = served(&file_name) else { return Err(failed("it has no name".into())) };
            let from = tokio::fs::File::from_std(file);
            self.shared.files.upload(&format!("open-data/{file_name}"), from, served).await?;
        }
        let mut with = days.clone();
        with.push(written);
        // Kept before it is told: what was told stays so.
        let (path, text) = (self.kept(), with.to_csv());
        let kept = path.clone();
        let write = move || file::write(&kept, text.as_bytes(), Access::Public, Existing::Replace);
        tokio::task::spawn_blocking(write).await?.map_err(PublishError::file(&path))?;
        *days = with;
        tracing::info!(day = name, rows = made.rows, delayed = made.delayed, sealed = made.sealed, "open data written");
        Ok(true)
    }

    /// The run that comes after the written days, if it has ended: first entry, day, and where it ends.
    async fn run_that_ended(&mut self, days: &Days, now: i64) -> Result<Option<(u64, i64, u64)>, PublishError> {
        let (first, last_day, today) = (days.end(), days.last_day(), now.div_euclid(DAY_MS));
        let mut run = self.run.filter(|run| run.first == first).unwrap_or(Run { first, day: None, next: first });
        // In this order: what is published is no more than what the log had.
        let published = self.shared.published.borrow().as_ref().map_or(0, |published| published.size);
        let logged = self.shared.log.checkpoint().size;
        let found = loop {
            if run.day == Some(today) || run.next >= published {
                break None;
            }
            let (log, until) = (self.shared.log.clone(), published.min(run.next + STRIDE));
            let (looked, turned) =
                tokio::task::spawn_blocking(move || look(&log, run, until, last_day, today)).await??;
            run = looked;
            if turned {
                break Some(run.next);
            }
        };
        self.run = Some(run);
        let Some(day) = run.day else { return Ok(None) };
        let closed = day < today && now >= (day + 1) * DAY_MS + GRACE.as_millis() as i64 && published == logged;
        let end = found.or_else(|| (closed && published > first).then_some(published));
        Ok(end.map(|end| (first, day, end)))
    }

    /// Days written before: as the data folder has them, or else the store, where that goes with what is published.
    async fn known_days(&self) -> Result<Days, PublishError> {
        let path = self.kept();
        match tokio::fs::read_to_string(&path).await {
            Ok(text) => {
                let reason = "it is not a list of days: remove it, and it is taken from publish.store";
                let wrong = || std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
                Days::parse(&text).ok_or_else(wrong).map_err(PublishError::file(&path))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let stored = match self.shared.files.get("open-data/days.csv", MOST_DAYS).await {
                    Err(StoreError::TooLarge { .. }) => None,
                    stored => stored?,
                };
                let days = stored.as_deref().and_then(|text| Days::parse(std::str::from_utf8(text).ok()?));
                let logged = self.shared.log.checkpoint().size;
                Ok(days.filter(|days| days.end() <= logged).unwrap_or_default())
            }
            Err(error) => Err(PublishError::file(&path)(error)),
        }
    }

    async fn put_lists(&self, days: &Days) -> Result<(), PublishError> {
        let list = Bytes::from(days.to_csv());
        let sums = Bytes::from(days.sums(&[("days.csv", &list), ("dictionary.csv", DICTIONARY)]));
        for (name, bytes) in
            [("dictionary.csv", Bytes::from_static(DICTIONARY)), ("days.csv", list), ("SHA256SUMS", sums)]
        {
            if let Some(served) = served(name) {
                self.shared.files.put(&format!("open-data/{name}"), bytes, served).await?;
            }
        }
        Ok(())
    }

    fn kept(&self) -> std::path::PathBuf {
        self.shared.options.folder.join("open-data.csv")
    }
}

/// Looks at a run's entries up to `until`, or up to one that is of a later day: whether there is such a one. Blocks shortly.
fn look(
    log: &crate::log::Log,
    mut run: Run,
    until: u64,
    last_day: i64,
    today: i64,
) -> Result<(Run, bool), crate::log::LogError> {
    while run.next < until {
        let entries = log.read(run.next, (until - run.next) as usize)?;
        if entries.is_empty() {
            break;
        }
        for bytes in entries {
            let day = Entry::decode(bytes).ok().and_then(|entry| row::day(&entry));
            // Late ones are of this run, and nothing is of a day that has not come.
            if let Some(day) = day.filter(|day| *day > run.day.unwrap_or(last_day) && *day <= today) {
                if run.day.is_some() {
                    return Ok((run, true));
                }
                run.day = Some(day);
            }
            run.next += 1;
        }
    }
    Ok((run, false))
}
