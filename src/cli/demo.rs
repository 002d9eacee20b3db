//! `kopuro demo`: four ministries with synthetic data, on one machine, exchanging as they would.
//!
//! In: nothing but a folder to work in. It makes a federation there ([`federation`]), starts the four nodes and the
//! back-ends behind them ([`backends`], over a [`population`]) on loopback ports, drives a mix of exchanges
//! (`traffic`), and tells what happened (`report`). With `--once` it then stops the nodes, verifies every log and
//! every exchange in both logs (`check`), and says so in one line of JSON. Every log is published, a witness of the public
//! council cosigns its checkpoints, and a monitor compares what is published (`oversight`). Nothing that it makes is meant to last.

pub mod backends;
mod check;
pub mod federation;
mod oversight;
pub mod population;
mod report;
mod running;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use check::Checked;
use federation::Federation;
use population::Population;
use report::Progress;
use running::Running;
use traffic::{Tally, World};

use crate::oversight::monitor::Report;

/// The demo's people are the same every time.
const SEED: u64 = 2017;

/// How many families there are.
const HOUSEHOLDS: usize = 400;

/// From how many exchanges on every kind of them must have come up.
const TYPED_FROM: u64 = 250;

/// How long the monitor waits for what is to be published.
const PUBLISHED_LIMIT: Duration = Duration::from_secs(15);

/// What `kopuro demo` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for keys, configuration and data, empty or missing; by default a fresh temporary one
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// How many exchanges to make
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    exchanges: u64,
    /// Make the exchanges, stop the nodes, verify all logs, print a line of JSON, and exit 0 only if all holds
    #[arg(long)]
    once: bool,
    /// Draw another mix of exchanges
    #[arg(long, default_value_t = SEED)]
    seed: u64,
}

/// The last line of `--once`.
#[derive(Debug, Serialize)]
struct Outcome {
    exchanges: u64,
    entries: u64,
    answered: u64,
    errors: u64,
    refused: u64,
    failed: u64,
    /// Fields of answers that providers' nodes withheld.
    withheld_fields: u64,
    /// Calls refused for their purpose.
    purpose_refused: u64,
    /// Calls refused because their bytes are no message of the type.
    malformed_refused: u64,
    /// Calls refused for a field that the type does not have.
    unknown_field: u64,
    /// Answered calls in JSON over HTTPS.
    json_calls: u64,
    /// Whether every log verifies, every exchange is in both logs with the same outcome, and the monitor finds nothing wrong.
    verified: bool,
    /// Exchanges of which the monitor found both sides to tell the same, from the published logs alone.
    monitored: u64,
    /// Exchanges that ended otherwise than meant.
    surprises: usize,
    seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
    logs: Vec<LogOutcome>,
    folder: PathBuf,
}

#[derive(Debug, Serialize)]
struct LogOutcome {
    member: String,
    entries: u64,
    root: String,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let folder = match &args.dir {
        Some(folder) => folder.clone(),
        None => tempfile::Builder::new().prefix("kopuro-demo-").tempdir()?.keep(),
    };
    let temporary = args.dir.is_none() && args.once;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(demo(args, &folder));
    // Nobody is asked to look at what is over; a failure is kept, to be looked at.
    if temporary && result.as_ref().is_ok_and(|code| *code == ExitCode::SUCCESS) {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    result
}

async fn demo(args: &Args, folder: &Path) -> anyhow::Result<ExitCode> {
    eprintln!("Working in {}", folder.display());
    let federation = Federation::create(folder, &federation::kyrgyz_republic()?)?;
    record_events(&federation.folder.join("events.log"))?;
    let population = Arc::new(Population::new(SEED, HOUSEHOLDS));
    eprintln!(
        "Made {} ministries with keys, grants and a directory signed by its council of {}; {} people, all fictional.",
        federation.members.len(),
        federation.directory.council.len(),
        population.people.len()
    );
    let running = Running::start(&federation, &population).await?;
    eprint!("{}", report::members(&federation));

    let world = World {
        seed: args.seed,
        population: population.clone(),
        channels: running.connect(&federation).await?,
        json: Running::json_clients(&federation)?,
    };
    let progress = Progress::new(args.exchanges);
    let tally = tokio::select! {
        tally = world.exchange(0, args.exchanges, |tally| progress.show(tally)) => Some(tally),
        () = asked_to_stop() => None,
    };
    progress.done();
    drop(world);
    let Some(tally) = tally else {
        running.stop().await;
        eprintln!("Stopped before the exchanges were made.");
        return Ok(ExitCode::FAILURE);
    };
    println!("{}", report::summary(&tally, &running.checkpoints()));
    tell_surprises(&tally);

    if !args.once {
        running.published(PUBLISHED_LIMIT).await;
        let report = oversight::monitor(&federation, Duration::ZERO).await?;
        println!("{}", report::watched(&federation, &report));
        tell_portal(&oversight::portal(&federation, &report)?);
        println!("{}", report::commands(&federation, &population)?);
        println!("Everything is under {}; the nodes run until Ctrl-C.", folder.display());
        asked_to_stop().await;
        eprintln!("Stopping.");
        running.stop().await;
        return Ok(ExitCode::SUCCESS);
    }

    eprintln!("Stopping the nodes and verifying their logs.");
    running.stop().await;
    let checked = check::logs(&federation)?;
    let report = oversight::monitor(&federation, Duration::ZERO).await?;
    println!("{}", report::watched(&federation, &report));
    tell_portal(&oversight::portal(&federation, &report)?);
    let outcome = conclude(args, &federation, &tally, &checked, &report);
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(if outcome.verified && tally.surprises.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was asked for must be what happened, and what is in the logs.
fn conclude(args: &Args, federation: &Federation, tally: &Tally, checked: &Checked, report: &Report) -> Outcome {
    let total = tally.total();
    let mut verified = checked.problems.count == 0 && report.ok;
    for problem in &checked.problems.shown {
        eprintln!("problem: {problem}");
    }
    for (what, wanted, found) in [
        ("exchanges made", args.exchanges, tally.exchanges),
        ("exchanges in the logs", tally.exchanges, checked.exchanges),
        ("refusals in the logs", total.refused, checked.refused),
    ] {
        if wanted != found {
            eprintln!("problem: {what}: {found}, not {wanted}");
            verified = false;
        }
    }
    // With this many exchanges, each kind of typed exchange has come up.
    let typed = [
        ("withheld_fields", tally.withheld_fields),
        ("purpose_refused", tally.refused_for("PURPOSE_NOT_ALLOWED")),
        ("malformed_refused", tally.refused_for("MESSAGE_MALFORMED")),
        ("unknown_field", tally.refused_for("UNKNOWN_FIELD")),
        ("json_calls", tally.json_calls),
    ];
    for (what, _) in typed.iter().filter(|(_, times)| *times == 0 && tally.exchanges >= TYPED_FROM) {
        eprintln!("problem: {what}: none, in {} exchanges", tally.exchanges);
        verified = false;
    }
    let ms = |share| (tally.quantile(share).as_secs_f64() * 10_000.0).round() / 10.0;
    Outcome {
        exchanges: tally.exchanges,
        entries: checked.logs.iter().map(|log| log.entries).sum(),
        answered: total.answered,
        errors: total.errors,
        refused: total.refused,
        failed: total.failed,
        withheld_fields: tally.withheld_fields,
        purpose_refused: tally.refused_for("PURPOSE_NOT_ALLOWED"),
        malformed_refused: tally.refused_for("MESSAGE_MALFORMED"),
        unknown_field: tally.refused_for("UNKNOWN_FIELD"),
        json_calls: tally.json_calls,
        verified,
        monitored: report.exchanges.agreed,
        surprises: tally.surprises.len(),
        seconds: (tally.took.as_secs_f64() * 10.0).round() / 10.0,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        logs: checked
            .logs
            .iter()
            .map(|log| LogOutcome { member: log.member.to_string(), entries: log.entries, root: log.root.clone() })
            .collect(),
        folder: federation.folder.clone(),
    }
}

/// A browser reads no files beside a page without a web server: any will do.
fn tell_portal(page: &Path) {
    let root = page.parent().and_then(Path::parent).unwrap_or(page);
    println!("The portal of these logs is {}; to look at it:\n", page.display());
    println!("    python3 -m http.server --directory {} 8000    # http://localhost:8000/portal/\n", root.display());
}

fn tell_surprises(tally: &Tally) {
    for surprise in tally.surprises.iter().take(10) {
        eprintln!("surprise: {surprise}");
    }
    if tally.surprises.len() > 10 {
        eprintln!("and {} more", tally.surprises.len() - 10);
    }
}

/// What the nodes have to say goes to a file: the screen is for the person.
fn record_events(path: &Path) -> anyhow::Result<()> {
    use tracing_subscriber::EnvFilter;
    let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file)).finish();
    // A second demo in one process (a test) keeps the first one's.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Ctrl-C, or SIGTERM from whoever supervises us.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
