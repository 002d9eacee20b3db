//! The demo's traffic: a deterministic mix of exchanges between the four ministries, some of which are meant to be
//! refused or to fail, with a bounded number in flight.
//!
//! Every exchange is drawn from the seed and its number, so the mix is the same whatever the machine's speed. Each
//! scenario says how it should end; what ends otherwise is a surprise, and a demo with surprises has failed.

mod by_hand;
mod scenario;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub(in crate::cli::demo) use by_hand::JsonClient;
pub(in crate::cli::demo) use scenario::Scenario;

use scenario::Came;

use super::population::{Population, Rng};
use crate::cli::call::connection::timed_out;

/// How many exchanges are under way at once.
const IN_FLIGHT: usize = 24;

/// Domain of the errors that nodes make, in `google.rpc.ErrorInfo`.
const NODES: &str = "kopuro";

/// Who is there to call and about whom.
#[derive(Debug)]
pub(in crate::cli::demo) struct World {
    pub(in crate::cli::demo) seed: u64,
    pub(in crate::cli::demo) population: Arc<Population>,
    /// A connection of each consumer system to its own node.
    pub(in crate::cli::demo) channels: HashMap<&'static str, Channel>,
    /// The same systems, without gRPC.
    pub(in crate::cli::demo) json: HashMap<&'static str, JsonClient>,
}

/// How an exchange ended for the system that asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli::demo) enum Ending {
    /// The provider's system answered OK.
    Answered,
    /// The provider's system answered with an error.
    Error(i32),
    /// A node refused.
    Refused { reason: String, side: String },
    /// No answer: deadline, cancelled, unreachable.
    Failed(i32),
}

/// Counts of one consumer's calls to one provider.
#[derive(Debug, Clone, Default)]
pub(in crate::cli::demo) struct Counts {
    pub(in crate::cli::demo) answered: u64,
    pub(in crate::cli::demo) errors: u64,
    pub(in crate::cli::demo) refused: u64,
    pub(in crate::cli::demo) failed: u64,
}

/// What happened.
#[derive(Debug, Default)]
pub(in crate::cli::demo) struct Tally {
    /// By consumer and provider.
    pub(in crate::cli::demo) pairs: BTreeMap<(&'static str, &'static str), Counts>,
    /// By reason, side and what was asked.
    pub(in crate::cli::demo) refusals: BTreeMap<(String, String, &'static str), u64>,
    /// What ended otherwise than it should have.
    pub(in crate::cli::demo) surprises: Vec<String>,
    pub(in crate::cli::demo) exchanges: u64,
    pub(in crate::cli::demo) messages: u64,
    /// Fields that providers' nodes withheld.
    pub(in crate::cli::demo) withheld_fields: u64,
    /// Answered calls in JSON over HTTPS.
    pub(in crate::cli::demo) json_calls: u64,
    pub(in crate::cli::demo) took: Duration,
    unary: Vec<Duration>,
}

impl World {
    /// Makes `count` exchanges, from number `first` on; `progress` is told of each.
    pub(in crate::cli::demo) async fn exchange(&self, first: u64, count: u64, progress: impl Fn(&Tally)) -> Tally {
        let started = Instant::now();
        let mut tally = Tally::default();
        let drawn = (first..first.saturating_add(count)).map(|number| {
            let mut rng = Rng::of(&format!("exchange {} {number}", self.seed));
            async move {
                let scenario = Scenario::draw(&mut rng);
                let began = Instant::now();
                let result = scenario.play(self, &mut rng).await;
                (scenario, result, began.elapsed())
            }
        });
        let mut under_way = stream::iter(drawn).buffer_unordered(IN_FLIGHT);
        while let Some((scenario, result, took)) = under_way.next().await {
            tally.add(scenario, &result, took);
            progress(&tally);
        }
        tally.took = started.elapsed();
        tally
    }
}

impl Tally {
    /// How often a node refused for this reason.
    pub(in crate::cli::demo) fn refused_for(&self, reason: &str) -> u64 {
        self.refusals.iter().filter(|((why, ..), _)| why == reason).map(|(_, times)| times).sum()
    }

    fn add(&mut self, scenario: Scenario, result: &Result<Came, Status>, took: Duration) {
        let ending = match result {
            Ok(_) if scenario.hangs_up() => Ending::Failed(Code::Cancelled as i32),
            Ok(_) => Ending::Answered,
            Err(status) => Ending::of(status.clone()),
        };
        self.exchanges += 1;
        let came = result.as_ref().copied().unwrap_or_default();
        self.messages += came.messages;
        self.withheld_fields += came.withheld;
        self.json_calls += u64::from(scenario == Scenario::JsonCall && result.is_ok());
        let counts = self.pairs.entry((scenario.consumer(), scenario.provider())).or_default();
        match &ending {
            Ending::Answered => {
                counts.answered += 1;
                if scenario.is_unary() {
                    self.unary.push(took);
                }
            }
            Ending::Error(_) => counts.errors += 1,
            Ending::Failed(_) => counts.failed += 1,
            Ending::Refused { reason, side } => {
                counts.refused += 1;
                *self.refusals.entry((reason.clone(), side.clone(), scenario.title())).or_default() += 1;
            }
        }
        if !scenario.may_end(&ending) {
            let why = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
            self.surprises.push(format!("{}: {ending:?} {why}", scenario.title()));
        }
    }

    /// Sums over all pairs.
    pub(in crate::cli::demo) fn total(&self) -> Counts {
        self.pairs.values().fold(Counts::default(), |sum, counts| Counts {
            answered: sum.answered + counts.answered,
            errors: sum.errors + counts.errors,
            refused: sum.refused + counts.refused,
            failed: sum.failed + counts.failed,
        })
    }

    /// The time within which a share of the answered unary calls was back.
    pub(in crate::cli::demo) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.unary.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let index = ((last as f64) * share).round() as usize;
        sorted.get(index.min(last)).copied().unwrap_or_default()
    }
}

impl Ending {
    /// Tells a node's refusal from a system's error and from no answer at all.
    fn of(status: Status) -> Self {
        let status = timed_out(status);
        let code = status.code();
        match status.get_details_error_info().filter(|info| info.domain == NODES) {
            _ if matches!(code, Code::DeadlineExceeded | Code::Cancelled | Code::Unavailable) => {
                Self::Failed(code as i32)
            }
            Some(info) => {
                let side = info.metadata.get("side").cloned().unwrap_or_default();
                Self::Refused { reason: info.reason, side }
            }
            None => Self::Error(code as i32),
        }
    }
}
