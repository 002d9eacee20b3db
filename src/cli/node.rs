//! `kopuro node`: runs a ministry's node, checks its configuration, or makes one.

mod init;
mod template;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use sd_notify::NotifyState;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, ConfigError, Loaded, NodeConfig, Overrides, Severity};
use crate::gateway::Node;
use crate::telemetry::{self, Format};
use crate::trust::directory::Source;

/// What a bad configuration exits with (`EX_USAGE` of sysexits.h): a supervisor need not try again.
pub(super) const BAD_CONFIGURATION: u8 = 64;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// The node's configuration
    #[arg(long, value_name = "FILE", env = "KOPURO_CONFIG", default_value = "node.toml")]
    config: PathBuf,

    /// Check configuration, certificates, directory and grants, say what is wrong where, and do not start
    #[arg(long)]
    check: bool,

    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "KOPURO_LOG_FORMAT")]
    log_format: Format,

    /// Folder of the log and of the last good directory, instead of node.data
    #[arg(long, value_name = "FOLDER", env = "KOPURO_DATA")]
    data: Option<PathBuf>,

    /// Address for the member's own systems, instead of listen.systems
    #[arg(long, value_name = "ADDRESS", env = "KOPURO_SYSTEMS")]
    systems: Option<SocketAddr>,

    /// Address for other nodes, instead of listen.nodes
    #[arg(long, value_name = "ADDRESS", env = "KOPURO_NODES")]
    nodes: Option<SocketAddr>,

    /// Address for health and metrics, instead of listen.admin
    #[arg(long, value_name = "ADDRESS", env = "KOPURO_ADMIN")]
    admin: Option<SocketAddr>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the configuration, keys and requests of a new node, and the enrolment for the federation's council
    Init(Box<init::Init>),
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(Command::Init(init)) = args.command {
        return init.run();
    }
    telemetry::init_tracing(args.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let overrides = Overrides { data: args.data, systems: args.systems, nodes: args.nodes, admin: args.admin };
        let config = match config::load(&args.config) {
            Ok(config) => config.overridden(overrides),
            Err(error) => return Ok(refuse(&error)),
        };
        if args.check {
            return Ok(config::check(&config)
                .await
                .map_or_else(|error| refuse(&error), |loaded| report(&config, &loaded)));
        }
        match config::open(&config).await {
            Ok((source, loaded)) => start(config, source, loaded).await,
            Err(error) => Ok(refuse(&error)),
        }
    })
}

/// Runs the node until it is told to stop and has drained. A second signal ends the draining at once.
async fn start(config: NodeConfig, source: Source, loaded: Loaded) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let node = Node::start_checked(config, source, loaded).await?;
    tell_supervisor(&[NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tell_supervisor(&[NotifyState::Stopping]);
    tokio::select! {
        () = node.stop() => Ok(ExitCode::SUCCESS),
        _ = terminate.recv() => anyhow::bail!("told to stop twice: exchanges were cut off"),
        _ = interrupt.recv() => anyhow::bail!("told to stop twice: exchanges were cut off"),
    }
}

/// systemd, if it started us (`sd_notify`).
pub(super) fn tell_supervisor(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify the service supervisor");
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("{error}");
    eprintln!("kopuro: the configuration has {}", count(error.problems.len(), "problem"));
    ExitCode::from(BAD_CONFIGURATION)
}

/// The result of `--check`: a mismatch does not stop a node, and is still what one who checks wants to fail on.
fn report(config: &NodeConfig, loaded: &Loaded) -> ExitCode {
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    for warning in loaded.expiries.iter().filter_map(|expiry| expiry.warning(now)) {
        eprintln!("{}: notice: {warning}", config.path().display());
    }
    let mismatches = loaded.warnings.iter().filter(|warning| warning.severity == Severity::Mismatch).count();
    if mismatches > 0 {
        eprintln!("kopuro: the configuration has {}", count(mismatches, "problem"));
        return ExitCode::from(BAD_CONFIGURATION);
    }
    let directory = &loaded.directory;
    println!(
        "ok: {}; directory {} version {} (until {}), {}, {}, {}",
        config.identity(),
        directory.federation,
        directory.version,
        directory.expires.date(),
        count(loaded.grants.len(), "grant"),
        count(loaded.outbound.iter().count(), "outbound rule"),
        count(loaded.backends.len(), "back-end"),
    );
    ExitCode::SUCCESS
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
