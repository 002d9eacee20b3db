//! The soak: one row under an even load for minutes, its memory read every few seconds. Flat means that the last third
//! holds no more than the middle third did, but for a tenth.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::load;
use crate::plan::{Call, Pace, Scenario};
use crate::rows::{Rows, Selection, TWO_NODES};

/// Load between two readings.
const STEP: Duration = Duration::from_secs(5);
/// How much more the last third may hold than the middle third.
const TOLERANCE: f64 = 1.1;

/// Loads the first of the selected rows (two nodes, if none is) for `length`.
pub(crate) async fn run(length: Duration, selection: &Selection) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("kopuro-soak-").tempdir_in(crate::output()?)?;
    let asked = if selection.0.is_empty() { &Selection(vec![TWO_NODES.to_owned()]) } else { selection };
    let rows = Rows::start(folder.path(), asked).await?;
    let row = rows.rows.first().context("no such row")?;
    let scenario = Scenario { call: Call::Unary { bytes: 100 }, pace: Pace::Closed { in_flight: 64 }, connections: 8 };
    println!("{}: {}, for {} s", row.name, scenario.name(), length.as_secs());
    let mut readings: Vec<Vec<u64>> = Vec::new();
    let mut exchanges = 0;
    let end = Instant::now() + length;
    while Instant::now() < end {
        let measured = load::measure(&row.target, &scenario, Duration::ZERO, STEP, || ()).await?;
        if let Some(failure) = measured.first_failure {
            bail!("{} calls failed: {failure}", measured.failures);
        }
        exchanges += measured.done;
        let held: Vec<u64> = row.processes.iter().map(|process| process.memory().resident).collect();
        let text: Vec<String> = held.iter().map(|&bytes| format!("{:.1} MB", bytes as f64 / 1e6)).collect();
        println!("{exchanges:>10} exchanges, {:>6.0}/s, {}", measured.rate(), text.join(", "));
        readings.push(held);
    }
    let third = readings.len() / 3;
    for (index, process) in row.processes.iter().enumerate() {
        let mean =
            |part: &[Vec<u64>]| part.iter().map(|held| held[index] as f64).sum::<f64>() / part.len().max(1) as f64;
        let (middle, last) = (mean(&readings[third..2 * third]), mean(&readings[2 * third..]));
        let reached = if last <= middle * TOLERANCE { "yes" } else { "no" };
        println!(
            "target memory of {} flat over {} s reached: {reached} ({:.1} MB in the middle third, {:.1} MB in the last)",
            process.label,
            length.as_secs(),
            middle / 1e6,
            last / 1e6
        );
    }
    Ok(())
}
