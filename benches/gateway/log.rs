//! The log alone: appends that wait until they are durable, so many at a time, and beside them the least that could be
//! durable: a plain file to which one thread writes the same bytes, with one `fdatasync` for all that wait.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use kopuro::log::entry::{Draft, ExchangeKey, Kind, Publication, Slot};
use kopuro::log::{Log, LogOptions, Record};
use kopuro::trust::note::Signer;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::certs::{ASKER, ECHO};
use crate::plan::Plan;
use crate::report::{LOG, LogLine, PLAIN_FILE};
use crate::{echo, report};

const WAITING: [usize; 5] = [1, 16, 64, 256, 1024];
const WARM_UP: Duration = Duration::from_millis(100);
/// Sealed beforehand and appended in turn: sealing is the caller's work, not the log's.
const RECORDS: usize = 4096;

/// Measures both at each number of waiting appends, in turns, and gives the medians.
pub(crate) async fn measure(folder: &Path, plan: &Plan) -> Result<Vec<LogLine>> {
    let (log, _) = Log::open(LogOptions::new(folder.join("log"), Signer::generate("benchmark")?))?;
    let file = PlainFile::create(&folder.join("plain file"))?;
    let records: Arc<[Record]> = (0..RECORDS).map(|_| record()).collect();
    let mut lines = Vec::new();
    for waiting in WAITING {
        let mut samples: [Vec<LogLine>; 2] = Default::default();
        for round in 0..plan.rounds {
            eprintln!("round {} of {}: the log alone, {waiting} waiting", round + 1, plan.rounds);
            let append = {
                let log = log.clone();
                move |record: Record| {
                    let log = log.clone();
                    async move { log.append(record).await.map(drop).map_err(anyhow::Error::from) }
                }
            };
            samples[0].push(run(LOG, waiting, plan.log_window, &records, append).await?);
            let append = {
                let file = file.clone();
                move |record: Record| {
                    let file = file.clone();
                    async move { file.append(record).await }
                }
            };
            samples[1].push(run(PLAIN_FILE, waiting, plan.log_window, &records, append).await?);
        }
        lines.extend(samples.iter().filter_map(|samples| LogLine::median(samples)));
    }
    log.close().await;
    Ok(lines)
}

async fn run<A, F>(
    what: &'static str,
    waiting: usize,
    window: Duration,
    records: &Arc<[Record]>,
    append: A,
) -> Result<LogLine>
where
    A: Fn(Record) -> F + Clone + Send + 'static,
    F: Future<Output = Result<()>> + Send,
{
    let begin = Instant::now() + WARM_UP;
    let end = begin + window;
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..waiting {
        let (append, records, next) = (append.clone(), Arc::clone(records), Arc::clone(&next));
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let started = Instant::now();
                if started >= end {
                    return Ok::<_, anyhow::Error>(latencies);
                }
                let index = next.fetch_add(1, Ordering::Relaxed) % records.len();
                append(records[index].clone()).await?;
                let ended = Instant::now();
                if (begin..end).contains(&ended) {
                    latencies.push(ended - started);
                }
            }
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    latencies.sort_unstable();
    let quantile = |share: f64| {
        let last = latencies.len().saturating_sub(1);
        latencies.get((last as f64 * share).round() as usize).copied().map_or(0.0, report::microseconds)
    };
    let rate = latencies.len() as f64 / window.as_secs_f64();
    Ok(LogLine { what, waiting, rate, p50_us: quantile(0.5), p99_us: quantile(0.99) })
}

/// An entry such as a node writes, some 300 bytes, with what it commits to.
pub(crate) fn record() -> Record {
    let now = time::OffsetDateTime::now_utc().unix_timestamp() * 1000;
    let mut draft = Draft::new(Kind::RequestReceived, Uuid::now_v7(), now, &ExchangeKey::generate());
    draft.consumer = ASKER.to_owned();
    draft.provider = ECHO.to_owned();
    draft.service = echo::SERVICE.to_owned();
    draft.method = "Unary".to_owned();
    draft.legal_basis = "benchmark".to_owned();
    draft.publication = Publication::Public;
    draft.set(Slot::RequestDigest, [7; 32]).set(Slot::Address, *b"127.0.0.1:50000").set(Slot::Sizes, [0; 32]);
    draft.seal()
}

/// A file, its thread, and who waits for it.
#[derive(Clone)]
struct PlainFile {
    queue: mpsc::Sender<(Bytes, oneshot::Sender<()>)>,
}

impl PlainFile {
    fn create(path: &Path) -> Result<Self> {
        let mut file = File::create_new(path)?;
        let (queue, mut queued) = mpsc::channel::<(Bytes, oneshot::Sender<()>)>(8_192);
        std::thread::spawn(move || {
            let mut waiters = Vec::new();
            let mut bytes = Vec::new();
            // The most that the log takes into one commit, too.
            while let Some(first) = queued.blocking_recv() {
                let more = std::iter::from_fn(|| queued.try_recv().ok());
                for (record, waiter) in std::iter::once(first).chain(more).take(1024) {
                    bytes.extend_from_slice(&record);
                    waiters.push(waiter);
                }
                if file.write_all(&bytes).and_then(|()| file.sync_data()).is_err() {
                    // The waiters are dropped, and their appends fail.
                    return;
                }
                bytes.clear();
                for waiter in waiters.drain(..) {
                    let _ = waiter.send(());
                }
            }
        });
        Ok(Self { queue })
    }

    async fn append(&self, record: Record) -> Result<()> {
        let bytes = [&record.entry[..], &record.private[..]].concat();
        let (waiter, durable) = oneshot::channel();
        self.queue.send((bytes.into(), waiter)).await.ok().context("the plain file cannot be written")?;
        durable.await.context("the plain file cannot be written")
    }
}
