//! The targets, and whether a run reached them. What is not reached is said as plainly as what is.

use std::fmt;

use serde::Serialize;

use crate::plan::Scenario;
use crate::report::{LOG, PLAIN_FILE, Report};
use crate::rows::{DIRECT, NGINX, ONE_NODE, TWO_NODES};

/// A target and what came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    target: &'static str,
    /// Nothing where it could not be measured here.
    reached: Option<bool>,
    figure: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reached = match self.reached {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not measured",
        };
        write!(f, "target {} reached: {reached} ({})", self.target, self.figure)
    }
}

/// Judges a finished report.
pub(crate) fn judge(report: &Report) -> Vec<Verdict> {
    vec![
        log_alone(report),
        cpu(report, "one node, log off: CPU per exchange ≤ 0.7 of nginx's at 64 in flight", ONE_NODE, 0.7),
        cpu(report, "two nodes, log on: CPU per exchange of each ≤ 1.2 of nginx's at 64 in flight", TWO_NODES, 1.2),
        latency(report),
        proofs(report),
        typed(report),
        masked(report),
        idle(report),
        peak(report),
    ]
}

fn log_alone(report: &Report) -> Verdict {
    let target = "the log alone, 256 waiting: ≥ 100,000/s or ≥ 0.7 of the plain file, whichever is lower";
    let (Some(log), Some(file)) = (report.log(LOG, 256), report.log(PLAIN_FILE, 256)) else {
        return verdict(target, None, &[]);
    };
    let figure = format!("{:.0}/s, {:.2} of the file's {:.0}/s", log.rate, log.rate / file.rate, file.rate);
    verdict(target, Some(log.rate >= (0.7 * file.rate).min(100_000.0)), &[figure])
}

/// An exchange waits for its four entries, one after the other.
const DURABLE_WAITS: f64 = 4.0;

fn latency(report: &Report) -> Verdict {
    let target = "two nodes, log on: added p50 at 1 in flight ≤ its durable waits + 1 ms";
    let of = |row| report.median(Scenario::ONE_IN_FLIGHT, row).map(|median| median.p50_us);
    let (Some(direct), Some(nodes), Some(log)) = (of(DIRECT), of(TWO_NODES), report.log(LOG, 1)) else {
        return verdict(target, None, &[]);
    };
    let (added, allowed) = (nodes - direct, DURABLE_WAITS * log.p50_us + 1000.0);
    let figure = format!(
        "{added:.0} µs added; {DURABLE_WAITS} waits of {:.0} µs (the log alone's median at 1 waiting) and 1 ms are {allowed:.0} µs",
        log.p50_us
    );
    verdict(target, Some(added <= allowed), &[figure])
}

fn proofs(report: &Report) -> Verdict {
    let target = "proofs: CPU per exchange at a node < 60 µs at 64 in flight";
    let figure = report.proofs.map(|proofs| proofs.exchange_us());
    let figures: Vec<_> = figure.iter().map(|figure| format!("{figure:.1} µs")).collect();
    verdict(target, figure.map(|figure| figure < 60.0), &figures)
}

fn typed(report: &Report) -> Verdict {
    let target = "plans: check and extract 1 kB of 20 fields ≥ 1 GB/s a core, and ≥ 15 times as fast as decoding";
    let reached = report.typed.map(|typed| typed.gb_per_s(typed.check_ns) >= 1.0 && typed.times_as_fast() >= 15.0);
    let figure = |typed: crate::typed::TypedCost| {
        format!("{:.2} GB/s, {:.1} times", typed.gb_per_s(typed.check_ns), typed.times_as_fast())
    };
    verdict(target, reached, &Vec::from_iter(report.typed.map(figure)))
}

fn masked(report: &Report) -> Verdict {
    let target = "plans: a mask that drops half ≥ 500 MB/s a core";
    let rate = report.typed.map(|typed| typed.gb_per_s(typed.mask_ns) * 1e3);
    verdict(target, rate.map(|rate| rate >= 500.0), &Vec::from_iter(rate.map(|rate| format!("{rate:.0} MB/s"))))
}

/// The dearest process of `row` over nginx, at the worse of one and eight connections.
fn cpu(report: &Report, target: &'static str, row: &str, limit: f64) -> Verdict {
    let mut worst: Option<f64> = None;
    let mut figures = Vec::new();
    for scenario in Scenario::SIXTY_FOUR {
        let (Some(own), Some(nginx)) = (report.median(scenario, row), report.median(scenario, NGINX)) else { continue };
        let nginx: f64 = nginx.own_cpu().iter().sum();
        for cpu in own.own_cpu() {
            let ratio = cpu / nginx;
            figures.push(format!("{ratio:.2}: {cpu:.1} µs to {nginx:.1} µs, {scenario}"));
            worst = Some(worst.map_or(ratio, |worst| worst.max(ratio)));
        }
    }
    verdict(target, worst.map(|worst| worst <= limit), &figures)
}

fn idle(report: &Report) -> Verdict {
    let held: Vec<u64> = report
        .idle
        .iter()
        .filter(|idle| idle.row == TWO_NODES)
        .flat_map(|idle| idle.resident_bytes.iter().copied())
        .collect();
    let reached = held.iter().max().map(|&most| most < 60_000_000);
    let figures: Vec<_> = held.iter().map(|&bytes| format!("{:.1} MB", bytes as f64 / 1e6)).collect();
    verdict("a node's memory idle < 60 MB", reached, &figures)
}

fn peak(report: &Report) -> Verdict {
    let mut figures = Vec::new();
    let mut most: Option<f64> = None;
    for table in report.tables.iter().filter(|table| table.in_flight == Some(256)) {
        let Some(median) = report.median(&table.scenario, TWO_NODES) else { continue };
        let own = median.peak_bytes.split_last().map_or(&[][..], |(_, own)| own);
        let peak = own.iter().copied().fold(0.0, f64::max);
        figures.push(format!("{:.1} MB, {}", peak / 1e6, table.scenario));
        most = Some(most.map_or(peak, |most| most.max(peak)));
    }
    verdict("a node's memory at 256 in flight < 300 MB", most.map(|most| most < 300e6), &figures)
}

fn verdict(target: &'static str, reached: Option<bool>, figures: &[String]) -> Verdict {
    let figure = if figures.is_empty() { "a row is missing".to_owned() } else { figures.join("; ") };
    Verdict { target, reached, figure }
}
