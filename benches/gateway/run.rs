//! One run: rounds over scenarios over rows, the rows of one scenario following each other directly.

use std::time::Duration;

use anyhow::Result;

use crate::load::{self, Measured};
use crate::plan::{Plan, Scenario};
use crate::process::{Memory, Process};
use crate::report::{LOG, PROOFS, PUBLICATION, Report, Sample, TYPED};
use crate::rows::{Row, Rows, Selection};
use crate::targets;
use crate::{log, proofs, publish, typed};

/// Measures everything in `plan`, writes the report and prints it.
pub(crate) async fn run(plan: &Plan, selection: &Selection) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("kopuro-bench-").tempdir_in(crate::output()?)?;
    let rows = Rows::start(folder.path(), selection).await?;
    let mut report = Report::new(plan, &rows);
    for skipped in &rows.skipped {
        println!("skipped {skipped}");
    }
    for round in 0..plan.rounds {
        for (number, scenario) in plan.scenarios.iter().enumerate() {
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, scenario.name());
            // Another row goes first each time, so that none always follows the same one.
            for turn in 0..rows.rows.len() {
                let index = (turn + round + number) % rows.rows.len();
                let sample = sample(&rows.rows[index], &rows.backend, scenario, plan).await;
                report.add(number, index, sample);
            }
        }
    }
    if selection.holds(LOG) {
        report.log = log::measure(folder.path(), plan).await?;
    }
    if selection.holds(PUBLICATION) {
        report.public = Some(publish::rates(folder.path()).await?);
    }
    if selection.holds(PROOFS) {
        report.proofs = Some(proofs::measure(folder.path()).await?);
    }
    if selection.holds(TYPED) {
        report.typed = Some(typed::measure()?);
    }
    report.finish();
    let targets = targets::judge(&report);
    report.write(&targets)?;
    report.print();
    for target in &targets {
        println!("{target}");
    }
    Ok(())
}

async fn sample(row: &Row, backend: &Process, scenario: &Scenario, plan: &Plan) -> Sample {
    let processes: Vec<&Process> = row.processes.iter().chain([backend]).collect();
    for process in &processes {
        process.reset_peak();
    }
    let mut edges = Vec::new();
    let measured = load::measure(&row.target, scenario, plan.warm_up, plan.window, || {
        edges.push(processes.iter().map(|process| process.cpu()).collect::<Vec<_>>());
    })
    .await;
    let measured = measured.unwrap_or_else(|error| Measured {
        failures: 1,
        first_failure: Some(format!("{error:#}")),
        ..Measured::default()
    });
    let cpu: Vec<Duration> = match &edges[..] {
        [before, after] => after.iter().zip(before).map(|(after, before)| after.since(before)).collect(),
        _ => vec![Duration::ZERO; processes.len()],
    };
    let memory: Vec<Memory> = processes.iter().map(|process| process.memory()).collect();
    Sample::new(&measured, &cpu, &memory)
}
