//! What must hold of the logs once the nodes have stopped: each verifies from its first entry to its signed
//! checkpoint, every exchange is closed, and both sides tell the same of it.

use std::collections::HashMap;

use anyhow::Context;
use prost::Message;

use super::federation::{Federation, MemberFiles};
use crate::log::entry::{Entry, Kind, Outcome, Side};
use crate::log::verify::verify_folder;
use crate::log::{Log, LogOptions};
use crate::trust::identity::MemberId;
use crate::trust::note::Signer;

/// More problems than these are only counted.
const SHOWN: usize = 20;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) logs: Vec<CheckedLog>,
    /// Exchanges, each counted once, in the log of the member that asked.
    pub(super) exchanges: u64,
    pub(super) refused: u64,
    pub(super) problems: Problems,
}

/// One member's log.
#[derive(Debug)]
pub(super) struct CheckedLog {
    pub(super) member: MemberId,
    pub(super) entries: u64,
    pub(super) root: String,
}

/// What does not hold.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) shown: Vec<String>,
    pub(super) count: usize,
}

/// What one log says of one exchange.
#[derive(Debug, Default)]
struct View {
    consumer: String,
    provider: String,
    what: String,
    opened: u32,
    ending: Option<Ending>,
    endings: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ending {
    outcome: Outcome,
    grpc_status: u32,
    side: Side,
}

type Views = HashMap<[u8; 16], View>;

/// Verifies all logs and compares them. The nodes must have stopped.
pub(super) fn logs(federation: &Federation) -> anyhow::Result<Checked> {
    let mut checked = Checked::default();
    let mut all: HashMap<&MemberId, Views> = HashMap::new();
    for member in &federation.members {
        let verified = verify_folder(&member.data(), &member.log_key)
            .with_context(|| format!("the log of {} does not verify", member.id))?;
        let root = verified.checkpoint.map(|checkpoint| hex::encode(checkpoint.root.0)).unwrap_or_default();
        checked.logs.push(CheckedLog { member: member.id.clone(), entries: verified.size, root });
        all.insert(&member.id, views(member, verified.size, &mut checked.problems)?);
    }
    for (member, views) in &all {
        for (id, view) in views {
            let Some(ending) = view.ending.filter(|_| view.endings == 1 && view.opened <= 1) else {
                checked.problems.add(|| format!("{member}: {} is not opened and closed once", view.tell(id)));
                continue;
            };
            let asked_here = member_of(&view.consumer) == member.as_str();
            let other_member = member_of(if asked_here { &view.provider } else { &view.consumer });
            let other = all.iter().find(|(member, _)| member.as_str() == other_member);
            let other = other.and_then(|(_, views)| views.get(id));
            if asked_here {
                checked.exchanges += 1;
                checked.refused += u64::from(ending.outcome == Outcome::Refused);
                compare(id, view, ending, other, &mut checked.problems);
            } else if other.is_none() {
                checked.problems.add(|| format!("{member}: {} is not in the consumer's log", view.tell(id)));
            }
        }
    }
    Ok(checked)
}

/// The consumer's view against the provider's.
fn compare(id: &[u8; 16], view: &View, ending: Ending, other: Option<&View>, problems: &mut Problems) {
    // What never left the consumer's node is in its log only; and a call that this node gave up may not have reached the other.
    let of_consumer = ending.side == Side::Consumer;
    let never_left = of_consumer && ending.outcome == Outcome::Refused;
    match (never_left, other) {
        (true, None) => {}
        (false, None) if of_consumer && ending.outcome == Outcome::Failed => {}
        (true, Some(_)) => problems.add(|| format!("{} was refused, and went out all the same", view.tell(id))),
        (false, None) => problems.add(|| format!("{} is not in the provider's log", view.tell(id))),
        (false, Some(other)) => {
            let theirs = other.ending.map(|ending| (ending.outcome, ending.grpc_status));
            // A caller that hangs up, or whose time runs out, may do so just as the answer is on its way: then each
            // side truthfully tells another end.
            let same = theirs == Some((ending.outcome, ending.grpc_status));
            if !same && ending.outcome != Outcome::Failed {
                problems.add(|| format!("{}: {ending:?} here, {theirs:?} at the provider", view.tell(id)));
            }
        }
    }
}

/// Reads a whole log, an exchange at a time.
fn views(member: &MemberFiles, size: u64, problems: &mut Problems) -> anyhow::Result<Views> {
    let key = zeroize::Zeroizing::new(std::fs::read_to_string(member.folder.join("log.key"))?);
    let (log, recovered) = Log::open(LogOptions::new(member.data(), Signer::from_encoded(&key)?))?;
    if !recovered.open_exchanges.is_empty() {
        problems.add(|| format!("{}: {} exchanges are open", member.id, recovered.open_exchanges.len()));
    }
    let mut views = Views::new();
    let mut next = 0;
    while next < size {
        let entries = log.read_seen(next, 1_000)?;
        anyhow::ensure!(!entries.is_empty(), "{}: entries end at {next} of {size}", member.id);
        for seen in entries {
            let entry = Entry::decode(seen.whole()).with_context(|| format!("{}: entry {next}", member.id))?;
            next += 1;
            let about_the_log = matches!(entry.kind(), Kind::Erasure | Kind::Opened | Kind::Evidence);
            if !about_the_log && !matches!(entry.kind(), Kind::Audit | Kind::RequestCompleted | Kind::Subjects) {
                let id = entry.exchange_id.as_ref().try_into().with_context(|| format!("{}: no id", member.id))?;
                views.entry(id).or_default().add(&entry);
            }
        }
    }
    Ok(views)
}

impl View {
    fn add(&mut self, entry: &Entry) {
        match entry.kind() {
            Kind::RequestSent | Kind::RequestReceived => self.opened += 1,
            _ => {
                self.endings += 1;
                let (outcome, side) = (entry.outcome(), entry.side());
                self.ending = Some(Ending { outcome, grpc_status: entry.grpc_status, side });
            }
        }
        self.consumer.clone_from(&entry.consumer);
        self.provider.clone_from(&entry.provider);
        self.what = format!("{}/{}", entry.service, entry.method);
    }

    fn tell(&self, id: &[u8; 16]) -> String {
        format!("exchange {} ({} asks {} for {})", hex::encode(id), self.consumer, self.provider, self.what)
    }
}

impl Problems {
    fn add(&mut self, problem: impl FnOnce() -> String) {
        self.count += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(problem());
        }
    }
}

fn member_of(system: &str) -> &str {
    system.rsplit_once('/').map_or(system, |(member, _)| member)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(outcome: Outcome, grpc_status: u32, side: Side) -> View {
        let ending = Ending { outcome, grpc_status, side };
        View { opened: 1, endings: 1, ending: Some(ending), ..View::default() }
    }

    /// How many problems there are between a consumer's view and a provider's.
    fn problems(consumer: &View, provider: Option<&View>) -> usize {
        let mut problems = Problems::default();
        compare(&[7; 16], consumer, consumer.ending.unwrap(), provider, &mut problems);
        problems.count
    }

    #[test]
    fn both_sides_must_tell_the_same() {
        let ok = view(Outcome::Ok, 0, Side::Unspecified);
        let error = view(Outcome::Error, 5, Side::Unspecified);
        let refused_here = view(Outcome::Refused, 7, Side::Consumer);
        let refused_there = view(Outcome::Refused, 7, Side::Provider);
        let failed = view(Outcome::Failed, 1, Side::Consumer);
        assert_eq!(problems(&ok, Some(&ok)), 0);
        assert_eq!(problems(&refused_there, Some(&refused_there)), 0);
        assert_eq!(problems(&refused_here, None), 0);
        assert_eq!(problems(&failed, Some(&ok)), 0);
        assert_eq!(problems(&ok, Some(&error)), 1);
        assert_eq!(problems(&ok, None), 1);
        assert_eq!(problems(&failed, None), 0);
        assert_eq!(problems(&view(Outcome::Failed, 14, Side::Provider), None), 1);
        assert_eq!(problems(&refused_there, None), 1);
        assert_eq!(problems(&refused_here, Some(&ok)), 1);
    }
}
