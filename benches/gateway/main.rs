//! The benchmark: what a node costs, in time, CPU and memory, beside a direct connection, nginx and HAProxy.
//!
//! ```text
//! cargo bench --bench gateway                 everything, some ten minutes
//! cargo bench --bench gateway -- --quick      under two minutes
//! cargo bench --bench gateway -- --soak 10m   one node under load: is its memory flat?
//! ```
//!
//! Every party is a process of its own, so that CPU time and memory are that party's alone: this binary starts itself
//! again as back-end and as nodes; the load generator is the process one sees. Rows are measured in turns, round by
//! round, so that what else the machine does hits all of them; what is reported is the median over the rounds. The
//! results go to `target/bench/gateway.json` and, as a table, to standard output.

mod backend;
mod certs;
mod echo;
mod load;
mod log;
mod nodes;
mod peers;
mod plan;
mod process;
mod proofs;
mod publish;
mod report;
mod rows;
mod run;
mod soak;
mod targets;
mod typed;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use crate::certs::{Certificates, PROVIDER_SYSTEM};
use crate::plan::Plan;

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "gateway", about = "Measures a node beside a direct connection, nginx and HAProxy")]
struct Arguments {
    /// What the targets need and a taste of the rest, in under two minutes.
    #[arg(long)]
    quick: bool,
    /// Instead: load one row for so long (`10m`, `90s`) and watch its memory.
    #[arg(long, value_parser = duration)]
    soak: Option<Duration>,
    /// Only the rows whose name contains one of these (`direct,nginx`).
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Only the scenarios whose name contains this (`64 in flight`).
    #[arg(long)]
    scenarios: Option<String>,
    /// Length of each window.
    #[arg(long)]
    seconds: Option<f64>,
    /// How many times each window is measured.
    #[arg(long)]
    rounds: Option<usize>,
    /// Cargo says so when it runs a benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    role: Option<String>,
    #[arg(long, hide = true)]
    folder: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores()).enable_all().build()?;
    if let Some(role) = &arguments.role {
        process::end_with_parent();
        return runtime.block_on(play(role, arguments.folder.as_deref().context("--folder")?));
    }
    if !arguments.bench {
        // `cargo test --all-targets` runs it too.
        println!("the benchmark runs as `cargo bench --bench gateway`");
        return Ok(());
    }
    let plan = plan(&arguments);
    let selection = rows::Selection(arguments.rows.clone());
    match arguments.soak {
        Some(length) => runtime.block_on(soak::run(length, &selection)),
        None => runtime.block_on(run::run(&plan, &selection)),
    }
}

/// Is one of a row's processes.
async fn play(role: &str, folder: &Path) -> Result<()> {
    let announce = |address| println!("listening {address}");
    match role {
        "backend" => backend::serve(Certificates::at(folder).server(PROVIDER_SYSTEM)?, announce).await,
        "node" | "unlogged-node" => {
            nodes::serve(folder, role == "node", |[systems, nodes]| {
                println!("listening {systems} {nodes}");
            })
            .await
        }
        other => anyhow::bail!("no role {other:?}"),
    }
}

fn plan(arguments: &Arguments) -> Plan {
    let mut plan = if arguments.quick { Plan::quick() } else { Plan::full() };
    if let Some(part) = &arguments.scenarios {
        plan.scenarios.retain(|scenario| scenario.name().contains(part));
    }
    if let Some(seconds) = arguments.seconds {
        plan.window = Duration::from_secs_f64(seconds.clamp(0.05, 3600.0));
    }
    plan.rounds = arguments.rounds.unwrap_or(plan.rounds).max(1);
    plan
}

/// The folder of the results. Logs are written under it too: a temporary folder may be in memory, where durability
/// costs nothing.
fn output() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// How many cores every party may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let seconds = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("{unit:?} is not s, m or h")),
    };
    let number: u64 = number.parse().map_err(|error| format!("{number:?}: {error}"))?;
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}
