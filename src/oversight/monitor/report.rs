//! What a round found, as data, as text, as lines of JSON and as metrics.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::Serialize;
use uuid::Uuid;

use super::exchanges::{Saved, Waiting};
use super::state::LogState;
use super::{Condition, Followed, Problem};
use crate::log::Checkpoint;

/// Findings that a report holds one by one; all are counted.
const SHOWN: usize = 1_000;

/// What a monitor has to say after a round.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When the round began, milliseconds since the Unix epoch.
    pub at_unix_ms: i64,
    /// Whether nothing at all is wrong.
    pub ok: bool,
    /// Entries read in this round.
    pub read: u64,
    /// Each log followed.
    pub logs: Vec<LogReport>,
    /// All exchanges since the state was begun.
    pub exchanges: ExchangeCounts,
    /// Exchanges that are wrong now, by what is wrong.
    pub wrong: BTreeMap<&'static str, u64>,
    /// Of these at most a thousand, the oldest first.
    pub findings: Vec<Finding>,
    /// Those that this round found.
    #[serde(skip)]
    pub new: Vec<Finding>,
    /// Files with two signed checkpoints that contradict each other.
    pub evidence: Vec<String>,
}

/// How many exchanges are in which state.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct ExchangeCounts {
    /// Both sides told the same.
    pub agreed: u64,
    /// One side told it, and the other side's log is not followed.
    pub unchecked: u64,
    /// Not over, or within the grace period.
    pub waiting: u64,
    /// The consumer failed to bring it to an answer; the provider has nothing of it.
    pub never_arrived: u64,
    /// One side shows nothing of it, and has hidden entries of that time: it cannot be compared.
    pub hidden: u64,
    /// Of those agreed, whose sides were checked by different schemas: neighbouring versions.
    pub other_schemas: u64,
    /// One side lacks it or tells it differently.
    pub wrong: u64,
    /// Given up: no news for 400 days.
    pub forgotten: u64,
}

/// A log, as it was found.
#[derive(Debug, Clone, Serialize)]
pub struct LogReport {
    /// Where it is published.
    pub place: String,
    /// Its name; empty as long as it has not been reached.
    pub origin: String,
    /// Whose it is, as far as that is known.
    pub member: Option<String>,
    /// How it was found.
    #[serde(flatten)]
    pub condition: Condition,
    /// Entries under the last checkpoint seen.
    pub size: u64,
    /// Root of that checkpoint.
    pub root: String,
    /// Entries read.
    pub read: u64,
    /// The latest time that its entries tell, milliseconds since the Unix epoch.
    pub time_unix_ms: i64,
    /// When its checkpoint was last found good.
    pub good_unix_ms: i64,
    /// Entries that show only a commitment until their delay is over.
    pub delayed: u64,
    /// Entries that never show more than a commitment.
    pub sealed: u64,
    /// Entries that cannot be read, or open what they cannot.
    pub unreadable: u64,
    /// The first of those, and why.
    pub first_unreadable: Option<(u64, String)>,
    /// Entries by which it accuses another log of contradicting itself.
    pub accusations: u64,
    /// The first few: index, and what they say.
    pub accused: Vec<(u64, String)>,
}

/// An exchange that one side lacks or tells differently.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Its id.
    pub exchange: String,
    /// What is wrong.
    pub problem: Problem,
    /// The same in words.
    pub told: String,
    /// Who asked.
    pub consumer: String,
    /// Who was asked.
    pub provider: String,
    /// Full service name.
    pub service: String,
    /// Method name.
    pub method: String,
    /// When it was first shown, milliseconds since the Unix epoch.
    pub since_unix_ms: i64,
    /// How long ago that is.
    pub age_seconds: i64,
    /// The entries that tell of it: origin of the log, and index.
    pub entries: Vec<(String, u64)>,
}

impl Finding {
    pub(super) fn new(waiting: &Waiting, problem: Problem, told: &str, now_ms: i64, logs: &[LogState]) -> Self {
        let first = waiting.facts.first().cloned().unwrap_or_default();
        let since = waiting.facts.iter().map(|fact| fact.shown_ms).min().unwrap_or_default();
        let origin = |number: u32| logs.get(number as usize).map(|log| log.origin.clone()).unwrap_or_default();
        Self {
            exchange: Uuid::from_slice(&waiting.id).map(|id| id.to_string()).unwrap_or_default(),
            problem,
            told: told.into(),
            consumer: first.consumer,
            provider: first.provider,
            service: first.service,
            method: first.method,
            since_unix_ms: since,
            age_seconds: now_ms.saturating_sub(since) / 1_000,
            entries: waiting.facts.iter().map(|fact| (origin(fact.log), fact.index)).collect(),
        }
    }
}

impl Report {
    pub(super) fn new(now_ms: i64, read: u64, saved: &Saved, evidence: &[String]) -> Self {
        let exchanges = ExchangeCounts {
            agreed: saved.agreed,
            unchecked: saved.unchecked,
            waiting: saved.waiting(),
            never_arrived: saved.never_arrived(),
            hidden: saved.hidden(),
            other_schemas: saved.other_schemas,
            wrong: saved.wrong().values().sum(),
            forgotten: saved.forgotten,
        };
        Self {
            at_unix_ms: now_ms,
            ok: false,
            read,
            logs: Vec::new(),
            exchanges,
            wrong: saved.wrong(),
            findings: Vec::new(),
            new: Vec::new(),
            evidence: evidence.to_vec(),
        }
    }

    pub(super) fn add_log(&mut self, followed: &Followed, logs: &[LogState]) {
        let state = followed.number.and_then(|number| logs.get(number)).cloned().unwrap_or_default();
        let checkpoint = state.checkpoint.as_deref().and_then(|note| Checkpoint::parse(note).ok());
        self.logs.push(LogReport {
            place: followed.publication.place().to_string(),
            condition: state.condition(followed.condition.clone()),
            size: checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size),
            root: checkpoint.map(|checkpoint| checkpoint.root.to_string()).unwrap_or_default(),
            origin: state.origin,
            member: state.member,
            read: state.read,
            time_unix_ms: state.time_ms,
            good_unix_ms: state.good_ms,
            delayed: state.delayed,
            sealed: state.sealed,
            unreadable: state.unreadable,
            first_unreadable: state.first_unreadable,
            accusations: state.accusations,
            accused: state.accused,
        });
    }

    /// Adds a finding; whether there is room for another.
    pub(super) fn add_finding(&mut self, finding: Finding) -> bool {
        self.findings.push(finding);
        self.findings.len() < SHOWN
    }

    /// Sorts, and says whether all is well.
    pub(super) fn settle(&mut self) {
        self.findings.sort_by(|a, b| (a.since_unix_ms, &a.exchange).cmp(&(b.since_unix_ms, &b.exchange)));
        let good = |log: &LogReport| log.condition.is_good() && log.unreadable == 0 && log.accusations == 0;
        self.ok = self.exchanges.wrong == 0 && self.evidence.is_empty() && self.logs.iter().all(good);
    }

    /// Sets the metrics that say the same.
    pub fn record_metrics(&self) {
        metrics::gauge!("kopuro_monitor_ok").set(if self.ok { 1.0 } else { 0.0 });
        metrics::gauge!("kopuro_monitor_round_timestamp_seconds").set(self.at_unix_ms as f64 / 1_000.0);
        metrics::counter!("kopuro_monitor_entries_read_total").increment(self.read);
        for log in &self.logs {
            let place = || log.place.clone();
            metrics::gauge!("kopuro_monitor_log_good", "log" => place())
                .set(f64::from(u8::from(log.condition.is_good())));
            metrics::gauge!("kopuro_monitor_log_entries", "log" => place()).set(log.size as f64);
            metrics::gauge!("kopuro_monitor_log_good_timestamp_seconds", "log" => place())
                .set(log.good_unix_ms as f64 / 1_000.0);
            metrics::gauge!("kopuro_monitor_log_unreadable", "log" => place()).set(log.unreadable as f64);
            metrics::gauge!("kopuro_monitor_log_accusations", "log" => place()).set(log.accusations as f64);
        }
        for problem in Problem::ALL {
            let wrong = self.wrong.get(problem.name()).copied().unwrap_or_default();
            metrics::gauge!("kopuro_monitor_exchanges_wrong", "problem" => problem.name()).set(wrong as f64);
        }
        let ExchangeCounts { agreed, unchecked, waiting, never_arrived, hidden, other_schemas, .. } = self.exchanges;
        let states = [
            ("agreed", agreed),
            ("unchecked", unchecked),
            ("waiting", waiting),
            ("never_arrived", never_arrived),
            ("hidden", hidden),
            ("other_schemas", other_schemas),
        ];
        for (state, count) in states {
            metrics::gauge!("kopuro_monitor_exchanges", "state" => state).set(count as f64);
        }
        metrics::gauge!("kopuro_monitor_evidence").set(self.evidence.len() as f64);
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exchange, consumer, provider, service, method, told, .. } = self;
        write!(f, "{} {exchange}: {consumer} asks {provider} for {service}/{method}: {told}", self.problem.name())?;
        write!(f, "; {} old", age(self.age_seconds))?;
        let entries: Vec<String> = self.entries.iter().map(|(origin, index)| format!("{origin} {index}")).collect();
        write!(f, " ({})", entries.join(", "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for log in &self.logs {
            let whose = log.member.as_deref().unwrap_or("-");
            let mut line =
                format!("{:<11} {} {} {}, {} entries", log.condition.name(), log.place, log.origin, whose, log.size);
            if log.delayed + log.sealed > 0 {
                write!(line, ", {} delayed, {} sealed", log.delayed, log.sealed)?;
            }
            if !log.condition.why().is_empty() {
                write!(line, ": {}", log.condition.why())?;
            }
            writeln!(f, "{line}")?;
            if let Some((index, why)) = &log.first_unreadable {
                writeln!(f, "            {} entries cannot be read, the first is {index}: {why}", log.unreadable)?;
            }
            for (index, told) in &log.accused {
                writeln!(f, "            entry {index} accuses {told}")?;
            }
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        if self.exchanges.wrong > self.findings.len() as u64 {
            writeln!(f, "and {} more", self.exchanges.wrong - self.findings.len() as u64)?;
        }
        for evidence in &self.evidence {
            writeln!(f, "evidence: {evidence}")?;
        }
        let ExchangeCounts { agreed, unchecked, waiting, never_arrived, wrong, hidden, other_schemas, .. } =
            self.exchanges;
        write!(
            f,
            "exchanges: {agreed} agreed, {wrong} wrong, {waiting} waiting, {never_arrived} never arrived, {unchecked} \
             with one log only"
        )?;
        if hidden > 0 {
            write!(f, ", {hidden} that cannot be compared: the other side hides entries of their time")?;
        }
        if other_schemas > 0 {
            write!(f, "; {other_schemas} of those agreed were checked by different schemas")?;
        }
        Ok(())
    }
}

/// `3 d 4 h`, `12 min`, `5 s`.
pub(super) fn age(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}
