//! Whether the two sides of an exchange tell the same story. Pure: the time is an argument.
//!
//! Each side is told by the log of its member. The rules:
//!
//! - What the consumer's node itself refused never left it: the provider's log must not have it.
//! - What the consumer's node could not bring to an answer (FAILED) may be missing at the provider, or have ended
//!   differently there: a caller hangs up just as the answer is on its way, and each side tells the truth.
//! - Everything else must be in both logs, name the same systems and method, and end with the same outcome and status.
//! - What the other log hides cannot be compared: where a side is missing and its log has hidden entries of that time, nothing is
//!   said of it but that. A consumer may hide what its provider publishes, and a refusal may be hidden by the provider.
//! - A side has the grace period to be published after the other has shown itself.
//! - An exchange that only the consumer has opened and nobody has closed may still be going on, or the rest of it may be
//!   hidden: nothing is said of it.
//! - Where consumer and provider are of one member there is one log, and nothing to compare.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::fact::{Ending, Fact, member_of};
use crate::log::entry::{Kind, Outcome, Side};

/// Whose the logs are, what time it is, and how long a side may take.
#[derive(Debug, Clone)]
pub(super) struct Bench {
    /// The member of each log, by its number.
    pub(super) members: Vec<Option<String>>,
    /// Members whose logs are followed.
    pub(super) followed: HashSet<String>,
    /// Whether it is known whose each of the logs is: one that has not been reached yet may be anybody's.
    pub(super) all_known: bool,
    /// Between which times each member's log has hidden entries, ascending.
    pub(super) hidden: HashMap<String, Vec<(i64, i64)>>,
    pub(super) now_ms: i64,
    pub(super) grace_ms: i64,
}

impl Bench {
    /// Whether a member's log has hidden entries about this time, give or take the grace period: one of them may be what is missing.
    fn may_hide(&self, member: &str, at_ms: i64) -> bool {
        let Some(hidden) = self.hidden.get(member) else { return false };
        let behind = hidden.partition_point(|(_, until)| until.saturating_add(self.grace_ms) < at_ms);
        hidden.get(behind).is_some_and(|(from, _)| from.saturating_sub(self.grace_ms) <= at_ms)
    }
}

/// What is wrong with an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Problem {
    /// The provider's log has it, the consumer's has not.
    MissingAtConsumer,
    /// The consumer's log has it, the provider's has not.
    MissingAtProvider,
    /// The provider's log closed it, the consumer's has not.
    OpenAtConsumer,
    /// The consumer's log closed it, the provider's has not.
    OpenAtProvider,
    /// The two logs tell different ends of it.
    DifferentEnd,
    /// The two logs name different systems or methods for it.
    DifferentSubject,
    /// The consumer's node refused it, and the provider's log has it all the same.
    RefusedAndSent,
    /// One log opens or closes it more than once.
    Repeated,
    /// A log has it that is neither the consumer's nor the provider's.
    ForeignLog,
}

impl Problem {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::MissingAtConsumer,
        Self::MissingAtProvider,
        Self::OpenAtConsumer,
        Self::OpenAtProvider,
        Self::DifferentEnd,
        Self::DifferentSubject,
        Self::RefusedAndSent,
        Self::Repeated,
        Self::ForeignLog,
    ];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingAtConsumer => "MISSING_AT_CONSUMER",
            Self::MissingAtProvider => "MISSING_AT_PROVIDER",
            Self::OpenAtConsumer => "OPEN_AT_CONSUMER",
            Self::OpenAtProvider => "OPEN_AT_PROVIDER",
            Self::DifferentEnd => "DIFFERENT_END",
            Self::DifferentSubject => "DIFFERENT_SUBJECT",
            Self::RefusedAndSent => "REFUSED_AND_SENT",
            Self::Repeated => "REPEATED",
            Self::ForeignLog => "FOREIGN_LOG",
        }
    }
}

/// What is to be done with an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Both sides tell the same, or there is nothing that the other side should tell: done with it.
    Agreed,
    /// It is over, and the other side's log is not followed: done with it.
    Unchecked,
    /// The consumer failed to bring it to an answer and the provider has nothing of it. Kept, in case it comes.
    NeverArrived,
    /// One side has nothing of it to show, and hides entries of that time. Kept, in case it comes.
    Hidden,
    /// Kept; looked at again when something comes, or at this time.
    Waiting(Option<i64>),
    /// Wrong, and why in words. Kept: what is missing may yet come.
    Found(Problem, String),
}

/// What one side tells.
#[derive(Debug, Default)]
struct View<'f> {
    opened: u32,
    endings: u32,
    ending: Option<Ending>,
    basis: Option<&'f str>,
    subject: Option<[&'f str; 4]>,
    first_ms: i64,
    last_ms: i64,
    /// When its first entry was made.
    made_ms: i64,
}

impl<'f> View<'f> {
    fn add(&mut self, fact: &'f Fact) {
        let made = if fact.made_ms == 0 { fact.shown_ms } else { fact.made_ms };
        self.made_ms = if self.is_empty() { made } else { self.made_ms.min(made) };
        self.first_ms = if self.is_empty() { fact.shown_ms } else { self.first_ms.min(fact.shown_ms) };
        self.last_ms = self.last_ms.max(fact.shown_ms);
        self.subject = Some(fact.subject());
        if fact.opens() {
            self.opened += 1;
        } else {
            self.endings += 1;
            self.ending = Some(fact.ending());
            self.basis = Some(&fact.legal_basis);
        }
    }

    fn is_empty(&self) -> bool {
        self.opened == 0 && self.endings == 0
    }
}

/// Judges an exchange by all that its logs tell of it.
pub(super) fn judge(facts: &[Fact], bench: &Bench) -> Verdict {
    let Some(first) = facts.first() else { return Verdict::Agreed };
    let (consumer, provider) = (member_of(&first.consumer), member_of(&first.provider));
    if consumer == provider {
        let endings = facts.iter().filter(|fact| !fact.opens()).count();
        return if 2 * endings >= facts.len() { Verdict::Agreed } else { Verdict::Waiting(None) };
    }
    let (mut asked, mut answered) = (View::default(), View::default());
    for fact in facts {
        let member = bench.members.get(fact.log as usize).and_then(Option::as_deref);
        let side = match (fact.kind(), member) {
            (Kind::RequestSent | Kind::ResponseReceived, None) => Side::Consumer,
            (Kind::RequestReceived | Kind::ResponseSent, None) => Side::Provider,
            (Kind::RequestSent | Kind::ResponseReceived, Some(member)) if member == member_of(&fact.consumer) => {
                Side::Consumer
            }
            (Kind::RequestReceived | Kind::ResponseSent, Some(member)) if member == member_of(&fact.provider) => {
                Side::Provider
            }
            (Kind::Refused | Kind::Failed, Some(member)) if member == member_of(&fact.consumer) => Side::Consumer,
            (Kind::Refused | Kind::Failed, Some(member)) if member == member_of(&fact.provider) => Side::Provider,
            // Whose log it is nobody has said: the side is the one that has spoken in it before.
            (Kind::Refused | Kind::Failed, None) => side_of_log(facts, fact),
            _ => {
                let told = format!("the log of {} tells of it", member.unwrap_or("nobody known"));
                return Verdict::Found(Problem::ForeignLog, told);
            }
        };
        if side == Side::Provider { answered.add(fact) } else { asked.add(fact) }
    }
    compare(&asked, &answered, bench, consumer, provider)
}

fn side_of_log(facts: &[Fact], fact: &Fact) -> Side {
    let speaks = |kind| facts.iter().any(|other| other.log == fact.log && other.kind() == kind);
    match fact.side() {
        Side::Provider if !speaks(Kind::RequestSent) => Side::Provider,
        _ if speaks(Kind::RequestReceived) => Side::Provider,
        _ => Side::Consumer,
    }
}

fn compare(asked: &View<'_>, answered: &View<'_>, bench: &Bench, consumer: &str, provider: &str) -> Verdict {
    for (view, who) in [(asked, "consumer"), (answered, "provider")] {
        if view.opened > 1 || view.endings > 1 {
            let told = format!("the {who}'s log opens it {} times and closes it {} times", view.opened, view.endings);
            return Verdict::Found(Problem::Repeated, told);
        }
    }
    let after_grace = |since_ms: i64, problem: Problem, told: &str| {
        let due = since_ms.saturating_add(bench.grace_ms);
        let hidden = match problem {
            Problem::MissingAtConsumer => bench.may_hide(consumer, answered.made_ms),
            Problem::MissingAtProvider => bench.may_hide(provider, asked.made_ms),
            _ => false,
        };
        match bench.now_ms >= due {
            false => Verdict::Waiting(Some(due)),
            true if hidden => Verdict::Hidden,
            true => Verdict::Found(problem, told.into()),
        }
    };
    let never_left = |end: Ending| end.outcome == Outcome::Refused && end.side == Side::Consumer;
    let follows = |member: &str| bench.followed.contains(member);
    let not_followed = match bench.all_known {
        true => Verdict::Unchecked,
        false => Verdict::Waiting(Some(bench.now_ms.saturating_add(bench.grace_ms))),
    };
    match (asked.is_empty(), answered.is_empty()) {
        (true, true) => Verdict::Agreed,
        (false, true) => match asked.ending {
            None => Verdict::Waiting(None),
            Some(end) if never_left(end) => Verdict::Agreed,
            Some(_) if !follows(provider) => not_followed,
            Some(end) if end.outcome == Outcome::Failed => Verdict::NeverArrived,
            Some(end) => {
                let told = format!("the consumer's log closes it as {end}, the provider's log has nothing of it");
                after_grace(asked.last_ms, Problem::MissingAtProvider, &told)
            }
        },
        (true, false) if !follows(consumer) => match answered.ending {
            None => Verdict::Waiting(None),
            Some(_) => not_followed,
        },
        (true, false) => {
            let told = match answered.ending {
                Some(end) => format!("the provider's log closes it as {end}, the consumer's log has nothing of it"),
                None => "the provider's log opens it, the consumer's log has nothing of it".into(),
            };
            after_grace(answered.first_ms, Problem::MissingAtConsumer, &told)
        }
        (false, false) if asked.subject != answered.subject => {
            let name = |view: &View<'_>| {
                let [consumer, provider, service, method] = view.subject.unwrap_or_default();
                format!("{consumer} asks {provider} for {service}/{method}")
            };
            let told = format!("consumer's log: {}; provider's log: {}", name(asked), name(answered));
            Verdict::Found(Problem::DifferentSubject, told)
        }
        (false, false) => match (asked.ending, answered.ending) {
            (None, None) => Verdict::Waiting(None),
            (Some(end), _) if never_left(end) => Verdict::Found(
                Problem::RefusedAndSent,
                "the consumer's node refused it, the provider's log has it".into(),
            ),
            (Some(end), None) => {
                let told = format!("the consumer's log closes it as {end}, the provider's log has not closed it");
                after_grace(asked.last_ms, Problem::OpenAtProvider, &told)
            }
            (None, Some(end)) => {
                let told = format!("the provider's log closes it as {end}, the consumer's log has not closed it");
                after_grace(answered.last_ms, Problem::OpenAtConsumer, &told)
            }
            (Some(here), Some(there)) => {
                let same = (here.outcome, here.grpc_status) == (there.outcome, there.grpc_status);
                if here.outcome == Outcome::Failed || (same && basis_agrees(asked, answered)) {
                    return Verdict::Agreed;
                }
                let basis = |view: &View<'_>| view.basis.unwrap_or_default().to_owned();
                let told = format!(
                    "consumer's log: {here}, basis {:?}; provider's log: {there}, basis {:?}",
                    basis(asked),
                    basis(answered)
                );
                Verdict::Found(Problem::DifferentEnd, told)
            }
        },
    }
}

/// Where both closings name a legal basis it is the same one; a refused call may have none.
fn basis_agrees(asked: &View<'_>, answered: &View<'_>) -> bool {
    match (asked.basis, answered.basis) {
        (Some(one), Some(other)) => one == other || one.is_empty() || other.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
