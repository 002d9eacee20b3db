//! Exchanges that are not done with: in memory as they come, on disk where they wait.
//!
//! Most exchanges are opened and closed in both logs within a second, and are dropped as soon as both sides have told the
//! same. What is left is put, by the hour and five random bits of its id (a UUIDv7), into one of many files; a file is
//! read again only when something comes for it or one of its exchanges falls due. So memory holds at most
//! [`MOST_FACTS`] facts and one file, however many exchanges wait.
//!
//! ```text
//! add ──▶ memory ──too many──▶ <shard>.<generation + 1>.spill     appended
//!            └──────commit───▶ <shard>.<generation + 1>           shard's file + spill + memory, judged, rewritten whole
//! ```
//!
//! A commit writes new files beside the old ones. The state that names them, and how far each log has been read, is
//! replaced in one step by the caller; then [`Exchanges::settle`] removes what it no longer names. After a crash, entries
//! are read a second time; a fact that is there already changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::MonitorError;
use super::fact::{ExchangeId, Fact};
use super::judge::{Bench, Problem, Verdict, judge};
use crate::log::entry::Kind;

/// Facts in memory before they go to disk: some 50 MB.
const MOST_FACTS: usize = 100_000;
/// Facts of one exchange that are looked at; more are a repetition as it is.
const MOST_OF_ONE: usize = 16;
/// After so long without news an exchange is forgotten: 400 days, beyond any delay of publication in use.
pub(super) const HORIZON_MS: i64 = 400 * 86_400_000;
const HOUR_MS: u64 = 3_600_000;

/// An exchange that waits, or that is wrong.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Waiting {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    pub(super) facts: Vec<Fact>,
    /// Whether it has been reported.
    #[prost(bool, tag = "3")]
    pub(super) reported: bool,
}

/// What the state remembers of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shard {
    file: String,
    waiting: u64,
    never_arrived: u64,
    #[serde(default)]
    hidden: u64,
    wrong: BTreeMap<Problem, u64>,
    /// When the first of its exchanges falls due.
    due_ms: Option<i64>,
}

/// What the state remembers of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    generation: u64,
    shards: BTreeMap<String, Shard>,
    /// Exchanges done with: both sides told the same.
    pub(super) agreed: u64,
    /// Exchanges done with: the other side's log is not followed.
    pub(super) unchecked: u64,
    /// Of those agreed, whose sides were checked by different schemas.
    #[serde(default)]
    pub(super) other_schemas: u64,
    /// Exchanges given up after [`HORIZON_MS`].
    pub(super) forgotten: u64,
}

impl Saved {
    pub(super) fn waiting(&self) -> u64 {
        self.shards.values().map(|shard| shard.waiting).sum()
    }

    pub(super) fn never_arrived(&self) -> u64 {
        self.shards.values().map(|shard| shard.never_arrived).sum()
    }

    pub(super) fn hidden(&self) -> u64 {
        self.shards.values().map(|shard| shard.hidden).sum()
    }

    /// How many are wrong, by what is wrong.
    pub(super) fn wrong(&self) -> BTreeMap<&'static str, u64> {
        let mut wrong = BTreeMap::new();
        for (problem, count) in self.shards.values().flat_map(|shard| &shard.wrong) {
            *wrong.entry(problem.name()).or_default() += count;
        }
        wrong
    }
}

/// The join of all logs.
#[derive(Debug)]
pub(super) struct Exchanges {
    folder: PathBuf,
    saved: Saved,
    memory: HashMap<ExchangeId, Vec<Fact>>,
    facts: usize,
    most_facts: usize,
    spilled: HashSet<String>,
}

impl Exchanges {
    /// Goes on from what was saved; removes files that a crash left behind.
    pub(super) fn open(folder: PathBuf, saved: Saved) -> Result<Self, MonitorError> {
        std::fs::create_dir_all(&folder).map_err(|error| MonitorError::state(&folder, error))?;
        let (memory, spilled) = (HashMap::new(), HashSet::new());
        let exchanges = Self { folder, saved, memory, facts: 0, most_facts: MOST_FACTS, spilled };
        exchanges.settle()?;
        Ok(exchanges)
    }

    pub(super) fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Takes in a fact. Where that makes an exchange whole and both sides agree, it is dropped.
    pub(super) fn add(&mut self, id: ExchangeId, fact: Fact, bench: &Bench) -> Result<(), MonitorError> {
        let closes = !fact.opens();
        let facts = self.memory.entry(id).or_default();
        if !push(facts, fact) {
            return Ok(());
        }
        self.facts += 1;
        // What is not whole may have its other half on disk.
        if closes && is_whole(facts) && judge(facts, bench) == Verdict::Agreed {
            self.facts -= facts.len();
            self.saved.agreed += 1;
            self.saved.other_schemas += u64::from(other_schemas(facts));
            self.memory.remove(&id);
        }
        if self.facts >= self.most_facts { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<(), MonitorError> {
        for (shard, exchanges) in self.take_memory() {
            let path = self.folder.join(format!("{shard}.{}.spill", self.saved.generation + 1));
            let failed = |error| MonitorError::state(&path, error);
            let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
            let mut file = BufWriter::new(file);
            exchanges.iter().try_for_each(|waiting| put(&mut file, waiting)).map_err(failed)?;
            file.flush().map_err(failed)?;
            self.spilled.insert(shard);
        }
        Ok(())
    }

    fn take_memory(&mut self) -> BTreeMap<String, Vec<Waiting>> {
        let mut shards: BTreeMap<String, Vec<Waiting>> = BTreeMap::new();
        for (id, facts) in self.memory.drain() {
            let waiting = Waiting { id: id.to_vec(), facts, reported: false };
            shards.entry(shard_of(&id)).or_default().push(waiting);
        }
        self.facts = 0;
        shards
    }

    /// Judges whatever has news or falls due, and writes what goes on waiting; tells of each exchange that is newly
    /// found wrong. Durable once the caller has saved [`Self::saved`].
    pub(super) fn commit(
        &mut self,
        bench: &Bench,
        mut on_found: impl FnMut(&Waiting, Problem, &str),
    ) -> Result<(), MonitorError> {
        let mut memory = self.take_memory();
        let due = |shard: &Shard| shard.due_ms.is_some_and(|due| due <= bench.now_ms);
        let mut keys: Vec<String> =
            self.saved.shards.iter().filter(|(_, shard)| due(shard)).map(|(k, _)| k.clone()).collect();
        keys.extend(memory.keys().cloned());
        keys.extend(self.spilled.drain());
        keys.sort_unstable();
        keys.dedup();
        let generation = self.saved.generation + 1;
        for key in keys {
            let mut exchanges = match self.saved.shards.get(&key) {
                Some(shard) => read(&self.folder.join(&shard.file), true)?,
                None => HashMap::new(),
            };
            merge(&mut exchanges, read(&self.folder.join(format!("{key}.{generation}.spill")), false)?);
            let fresh = memory.remove(&key).unwrap_or_default();
            merge(&mut exchanges, fresh.into_iter().filter_map(|waiting| Some((id_of(&waiting)?, waiting))).collect());
            let shard = self.judge_shard(&mut exchanges, bench, &mut on_found);
            if exchanges.is_empty() {
                self.saved.shards.remove(&key);
                continue;
            }
            let shard = Shard { file: format!("{key}.{generation}"), ..shard };
            write(&self.folder.join(&shard.file), exchanges.values())?;
            self.saved.shards.insert(key, shard);
        }
        self.saved.generation = generation;
        Ok(())
    }

    fn judge_shard(
        &mut self,
        exchanges: &mut HashMap<ExchangeId, Waiting>,
        bench: &Bench,
        on_found: &mut impl FnMut(&Waiting, Problem, &str),
    ) -> Shard {
        let (mut shard, saved) = (Shard::default(), &mut self.saved);
        exchanges.retain(|_, exchange| {
            let verdict = judge(&exchange.facts, bench);
            let news = exchange.facts.iter().map(|fact| fact.shown_ms).max().unwrap_or_default();
            match &verdict {
                Verdict::Agreed => {
                    saved.agreed += 1;
                    saved.other_schemas += u64::from(other_schemas(&exchange.facts));
                }
                Verdict::Unchecked => saved.unchecked += 1,
                _ if news.saturating_add(HORIZON_MS) < bench.now_ms => saved.forgotten += 1,
                Verdict::NeverArrived => shard.never_arrived += 1,
                Verdict::Hidden => shard.hidden += 1,
                Verdict::Waiting(due) => {
                    shard.waiting += 1;
                    shard.due_ms = shard.due_ms.into_iter().chain(*due).min();
                }
                Verdict::Found(problem, told) => {
                    *shard.wrong.entry(*problem).or_default() += 1;
                    if !exchange.reported {
                        on_found(exchange, *problem, told);
                    }
                }
            }
            exchange.reported = matches!(verdict, Verdict::Found(..));
            match verdict {
                Verdict::Agreed | Verdict::Unchecked => false,
                _ => news.saturating_add(HORIZON_MS) >= bench.now_ms,
            }
        });
        shard
    }

    /// Removes files that the saved state does not name.
    pub(super) fn settle(&self) -> Result<(), MonitorError> {
        let failed = |error| MonitorError::state(&self.folder, error);
        let named: HashSet<&str> = self.saved.shards.values().map(|shard| shard.file.as_str()).collect();
        for file in std::fs::read_dir(&self.folder).map_err(failed)? {
            let file = file.map_err(failed)?;
            if file.file_name().to_str().is_none_or(|name| !named.contains(name)) {
                std::fs::remove_file(file.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Shows exchanges that were wrong at the last commit, as long as more are wanted.
    pub(super) fn each_wrong(
        &self,
        bench: &Bench,
        mut show: impl FnMut(&Waiting, Problem, &str) -> bool,
    ) -> Result<(), MonitorError> {
        for shard in self.saved.shards.values().filter(|shard| !shard.wrong.is_empty()) {
            for exchange in read(&self.folder.join(&shard.file), true)?.values() {
                if let Verdict::Found(problem, told) = judge(&exchange.facts, bench)
                    && !show(exchange, problem, &told)
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Whether more than one entry stands for each side, as far as the logs in it go: opened and closed, or refused.
fn is_whole(facts: &[Fact]) -> bool {
    let one_log = facts.iter().all(|fact| fact.log == facts[0].log);
    let told = |log| {
        let mut of_log = facts.iter().filter(move |fact| fact.log == log);
        let refused = of_log.clone().any(|fact| fact.kind() == Kind::Refused);
        refused || (of_log.clone().any(Fact::opens) && of_log.any(|fact| !fact.opens()))
    };
    if one_log { facts.len() >= 4 } else { facts.iter().all(|fact| told(fact.log)) }
}

/// Whether the logs of an exchange name different schemas: its sides were on neighbouring versions.
fn other_schemas(facts: &[Fact]) -> bool {
    let mut named = facts.iter().filter(|fact| fact.schema != 0);
    let first = named.next();
    first.is_some_and(|first| named.any(|other| other.log != first.log && other.schema != first.schema))
}

/// Adds a fact that is not there yet.
fn push(facts: &mut Vec<Fact>, fact: Fact) -> bool {
    let there = facts.iter().any(|other| (other.log, other.index) == (fact.log, fact.index));
    if there || facts.len() >= MOST_OF_ONE {
        return false;
    }
    facts.push(fact);
    true
}

fn merge(into: &mut HashMap<ExchangeId, Waiting>, from: HashMap<ExchangeId, Waiting>) {
    for (id, waiting) in from {
        let known = into.entry(id).or_insert_with(|| Waiting { id: id.to_vec(), ..Waiting::default() });
        known.reported |= waiting.reported;
        for fact in waiting.facts {
            push(&mut known.facts, fact);
        }
        // As the entries stand: what comes first in a log is judged first.
        known.facts.sort_by_key(|fact| (fact.log, fact.index));
    }
}

/// By the hour of a UUIDv7 and five bits of what is random in it.
fn shard_of(id: &ExchangeId) -> String {
    let millis = id[..6].iter().fold(0_u64, |millis, byte| millis << 8 | u64::from(*byte));
    format!("{:02x}-{:02x}", millis / HOUR_MS % 256, id[15] & 31)
}

fn id_of(waiting: &Waiting) -> Option<ExchangeId> {
    waiting.id.as_slice().try_into().ok()
}

fn put(out: &mut impl Write, waiting: &Waiting) -> std::io::Result<()> {
    out.write_all(&waiting.encode_length_delimited_to_vec())
}

/// A file is its exchanges and the SHA-256 of their bytes.
fn write<'w>(path: &Path, exchanges: impl Iterator<Item = &'w Waiting>) -> Result<(), MonitorError> {
    let failed = |error| MonitorError::state(path, error);
    let mut content = Vec::new();
    exchanges.for_each(|waiting| content.extend(waiting.encode_length_delimited_to_vec()));
    let digest = Sha256::digest(&content);
    content.extend_from_slice(&digest);
    let mut file = File::create(path).map_err(failed)?;
    file.write_all(&content).and_then(|()| file.sync_data()).map_err(failed)
}

/// Reads a file whole, or a spill of this process, which has no digest and may not be there.
fn read(path: &Path, whole: bool) -> Result<HashMap<ExchangeId, Waiting>, MonitorError> {
    let failed = |error: &dyn std::fmt::Display| MonitorError::state(path, error);
    let mut content = Vec::new();
    match File::open(path) {
        Ok(mut file) => _ = file.read_to_end(&mut content).map_err(|error| failed(&error))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !whole => return Ok(HashMap::new()),
        Err(error) => return Err(failed(&error)),
    }
    if whole {
        let at = content.len().checked_sub(32).ok_or_else(|| failed(&"too short"))?;
        if Sha256::digest(&content[..at])[..] != content[at..] {
            return Err(failed(&"damaged; without it, begin anew with an empty folder"));
        }
        content.truncate(at);
    }
    let mut exchanges = HashMap::new();
    let mut rest = &content[..];
    while !rest.is_empty() {
        let waiting = Waiting::decode_length_delimited(&mut rest).map_err(|error| failed(&error))?;
        let id = id_of(&waiting).ok_or_else(|| failed(&"an exchange without an id"))?;
        merge(&mut exchanges, HashMap::from([(id, waiting)]));
    }
    Ok(exchanges)
}

#[cfg(test)]
mod tests;
