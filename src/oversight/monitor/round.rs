//! A round: look at every log's checkpoint, read what has come, judge.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::StreamExt;

use super::fact::{Reading, member_of};
use super::follow::{self, Batch, Batches};
use super::judge::Bench;
use super::report::{Finding, Report};
use super::{Condition, Monitor, MonitorError};
use crate::log::Checkpoint;
use crate::log::entry::{Kind, Publication as Class};
use crate::oversight::published::{PublishedError, PublishedTree, Seen};
use crate::trust::note::Note;

/// After so many entries the place is kept, in the middle of a round.
const COMMIT_ENTRIES: u64 = 2_000_000;
/// Accusations of one log that are kept in words.
const ACCUSED_KEPT: usize = 20;
/// New findings of one round that are told one by one.
const NEW_KEPT: usize = 1_000;

/// A log that is being read.
struct Reader {
    log: usize,
    followed: usize,
    time_ms: i64,
    batches: Batches,
}

impl Monitor {
    /// One round; the time is the caller's. What is wrong with logs and exchanges is in the report; an error is the
    /// monitor's own. `progress` is told how many entries have been read in this round.
    pub async fn round(&mut self, now_ms: i64, progress: impl Fn(u64)) -> Result<Report, MonitorError> {
        let trees = self.look(now_ms).await?;
        let mut bench = self.bench(now_ms);
        let mut readers: Vec<Reader> = trees
            .iter()
            .map(|(&followed, (log, tree))| {
                let state = &self.state.logs[*log];
                let batches = follow::batches(tree, *log as u32, state.read);
                Reader { log: *log, followed, time_ms: state.time_ms, batches }
            })
            .collect();
        let (mut read, mut kept_at, mut found) = (0, 0, Vec::new());
        // The one that is furthest behind in time, so that both sides of an exchange are read close to each other.
        while let Some(at) = (0..readers.len()).min_by_key(|at| (readers[*at].time_ms, readers[*at].log)) {
            let reader = &mut readers[at];
            match reader.batches.next().await {
                None => drop(readers.swap_remove(at)),
                Some(Err(error)) => {
                    self.followed[reader.followed].condition = Condition::from(&error);
                    drop(readers.swap_remove(at));
                }
                Some(Ok(batch)) => {
                    reader.time_ms = reader.time_ms.max(batch.time_ms);
                    let log = reader.log;
                    read += batch.readings.len() as u64;
                    self.take(log, batch, &mut bench)?;
                    progress(read);
                    if read - kept_at >= COMMIT_ENTRIES {
                        kept_at = read;
                        self.keep(&mut bench, &mut found)?;
                    }
                }
            }
        }
        self.compare_entangled(trees.values()).await?;
        self.keep(&mut bench, &mut found)?;
        self.report(&bench, read, found)
    }

    /// Fetches, verifies and compares all checkpoints; gives the trees of those that are good, by their place.
    async fn look(&mut self, now_ms: i64) -> Result<HashMap<usize, (usize, Arc<PublishedTree>)>, MonitorError> {
        let notes = join_all(self.followed.iter().map(|followed| followed.publication.checkpoint())).await;
        let mut looks = Vec::new();
        for (at, note) in notes.into_iter().enumerate() {
            match note.and_then(|note| self.recognise(at, &note)) {
                Err(error) => self.followed[at].condition = Condition::from(&error),
                Ok(checkpoint) => looks.push((at, checkpoint)),
            }
        }
        let advances = looks.into_iter().filter_map(|(at, checkpoint)| {
            let number = self.followed[at].number?;
            let seen = self.state.logs[number].checkpoint.as_deref().and_then(|note| Checkpoint::parse(note).ok());
            let publication = self.followed[at].publication.clone();
            Some(async move {
                let tree = follow::advance(publication, checkpoint.clone(), seen.as_ref()).await;
                (at, number, checkpoint, seen, tree)
            })
        });
        let mut trees = HashMap::new();
        for (at, number, checkpoint, seen, tree) in join_all(advances.collect::<Vec<_>>()).await {
            let log = &mut self.state.logs[number];
            match tree {
                Ok(tree) => {
                    log.checkpoint = Some(checkpoint.note);
                    log.good_ms = now_ms;
                    self.followed[at].condition = Condition::Good;
                    trees.insert(at, (number, tree));
                }
                Err(error) => {
                    self.followed[at].condition = Condition::from(&error);
                    if let (PublishedError::Rewritten { .. }, Some(seen)) = (&error, seen) {
                        self.forked(number, &seen, &checkpoint, &error)?;
                    }
                }
            }
        }
        Ok(trees)
    }

    /// Whose checkpoint it is, by its origin; verifies signature and quorum.
    fn recognise(&mut self, at: usize, note: &str) -> Result<Checkpoint, PublishedError> {
        let bad = |what| PublishedError::Checkpoint(crate::log::LogError::Checkpoint(what));
        let origin = Checkpoint::parse(note)?.origin;
        let known = self.options.known.iter().find(|known| known.origin() == origin);
        let known = known.ok_or_else(|| bad("no key is known of the log that it names"))?;
        let checkpoint = Checkpoint::verify(note, &known.keys)?;
        let member = known.member.as_ref().map(|member| member.as_str().to_owned());
        if let Some(quorum) = &self.options.quorum {
            let note = Note::parse(note).map_err(|_| bad("it is no signed note"))?;
            quorum(&note).map_err(PublishedError::Quorum)?;
        }
        let number = self.state.number_of(&origin);
        if self.followed.iter().enumerate().any(|(other, followed)| other != at && followed.number == Some(number)) {
            return Err(bad("another of the places given is the same log"));
        }
        if self.followed[at].number.is_some_and(|before| before != number) {
            return Err(bad("another log than before is published here"));
        }
        self.followed[at].number = Some(number);
        if member.is_some() {
            self.state.logs[number].member = member;
        }
        Ok(checkpoint)
    }

    fn bench(&self, now_ms: i64) -> Bench {
        let members: Vec<_> = self.state.logs.iter().map(|log| log.member.clone()).collect();
        let whose = |followed: &super::Followed| members.get(followed.number?)?.clone();
        let followed = self.followed.iter().filter_map(whose).collect();
        let all_known = self.followed.iter().all(|followed| whose(followed).is_some());
        let grace_ms = i64::try_from(self.options.grace.as_millis()).unwrap_or(i64::MAX);
        Bench { members, followed, all_known, hidden: self.hidden(), now_ms, grace_ms }
    }

    /// Between which times each member's log has hidden entries.
    fn hidden(&self) -> HashMap<String, Vec<(i64, i64)>> {
        let hiding = self.state.logs.iter().filter(|log| !log.hidden.is_empty());
        hiding.filter_map(|log| Some((log.member.clone()?, log.hidden.clone()))).collect()
    }

    fn take(&mut self, number: usize, batch: Batch, bench: &mut Bench) -> Result<(), MonitorError> {
        let log = &mut self.state.logs[number];
        log.add_hidden(batch.first_ms, &batch.hidden);
        for reading in batch.readings {
            match reading {
                Reading::Fact(id, fact) => {
                    if log.member.is_none() {
                        // Its first opening entry tells whose it is.
                        let member = match fact.kind() {
                            Kind::RequestSent => Some(member_of(&fact.consumer).to_owned()),
                            Kind::RequestReceived => Some(member_of(&fact.provider).to_owned()),
                            _ => None,
                        };
                        log.member.clone_from(&member);
                        bench.followed.extend(member.clone());
                        bench.members[number] = member;
                        let known = |followed: &super::Followed| bench.members.get(followed.number?)?.as_ref();
                        bench.all_known = self.followed.iter().all(|followed| known(followed).is_some());
                    }
                    self.exchanges.add(id, fact, bench)?;
                }
                Reading::Hidden(Class::Sealed) => log.sealed += 1,
                Reading::Hidden(_) => log.delayed += 1,
                Reading::Evidence { index, notes } => {
                    log.accusations += 1;
                    if log.accused.len() < ACCUSED_KEPT {
                        let [one, other] = notes.map(|note| Checkpoint::parse(&note).ok());
                        let told = match (one, other) {
                            (Some(one), Some(other)) => {
                                format!("{}: {} entries against {} entries", one.origin, one.size, other.size)
                            }
                            _ => "its checkpoints cannot be read".into(),
                        };
                        log.accused.push((index, told));
                    }
                }
                Reading::Unreadable { index, reason } => {
                    log.unreadable += 1;
                    log.first_unreadable.get_or_insert((index, reason));
                }
                Reading::Other => {}
            }
        }
        log.read = batch.next;
        log.time_ms = log.time_ms.max(batch.time_ms);
        if let Some(checkpoint) = batch.peer_checkpoint.as_deref().and_then(|note| Checkpoint::parse(note).ok()) {
            let followed = self.options.known.iter().any(|known| known.origin() == checkpoint.origin);
            let newer = self.entangled.get(&checkpoint.origin).is_none_or(|other| other.size < checkpoint.size);
            if followed && newer {
                self.entangled.insert(checkpoint.origin.clone(), checkpoint);
            }
        }
        Ok(())
    }

    /// What others have seen of a log must be in the log that is published.
    async fn compare_entangled(
        &mut self,
        trees: impl Iterator<Item = &(usize, Arc<PublishedTree>)>,
    ) -> Result<(), MonitorError> {
        for (number, tree) in trees {
            let origin = &tree.checkpoint().origin;
            let Some(carried) = self.entangled.get(origin).filter(|carried| carried.size <= tree.size()) else {
                continue;
            };
            let carried = carried.clone();
            self.entangled.remove(origin);
            let known = self.options.known.iter().find(|known| known.origin() == *origin);
            if known.is_none_or(|known| carried.verify_signature(&known.keys).is_err()) {
                // Nobody's evidence: whoever carried it may have made it up.
                continue;
            }
            if let Err(error @ PublishedError::Rewritten { .. }) = tree.extends(&carried).await {
                let checkpoint = tree.checkpoint().clone();
                self.forked(*number, &carried, &checkpoint, &error)?;
            }
        }
        Ok(())
    }

    fn forked(
        &mut self,
        number: usize,
        seen: &Checkpoint,
        now: &Checkpoint,
        error: &PublishedError,
    ) -> Result<(), MonitorError> {
        let kept = Seen::open(&self.options.state.join("evidence"))?.keep_evidence(seen, now)?.display().to_string();
        self.state.logs[number].forked.get_or_insert_with(|| format!("{error}; both checkpoints are in {kept}"));
        if !self.state.evidence.contains(&kept) {
            self.state.evidence.push(kept);
        }
        Ok(())
    }

    /// Judges, and keeps the place: exchanges first, then the state that names them.
    fn keep(&mut self, bench: &mut Bench, found: &mut Vec<Finding>) -> Result<(), MonitorError> {
        bench.hidden = self.hidden();
        let logs = &self.state.logs;
        self.exchanges.commit(bench, |waiting, problem, told| {
            if found.len() < NEW_KEPT {
                found.push(Finding::new(waiting, problem, told, bench.now_ms, logs));
            }
        })?;
        self.state.exchanges = self.exchanges.saved().clone();
        self.state.write(&self.options.state)?;
        self.exchanges.settle()
    }

    fn report(&self, bench: &Bench, read: u64, new: Vec<Finding>) -> Result<Report, MonitorError> {
        let mut report = Report::new(bench.now_ms, read, self.exchanges.saved(), &self.state.evidence);
        for followed in &self.followed {
            report.add_log(followed, &self.state.logs);
        }
        self.exchanges.each_wrong(bench, |waiting, problem, told| {
            report.add_finding(Finding::new(waiting, problem, told, bench.now_ms, &self.state.logs))
        })?;
        report.new = new;
        report.settle();
        Ok(report)
    }
}
