//! `kopuro witness`: runs a witness of logs, makes its key, shows what it has cosigned.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use sd_notify::NotifyState;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::node::{BAD_CONFIGURATION, tell_supervisor};
use crate::config::{self, LoadedWitness, WitnessConfig};
use crate::oversight::witness::{State, Witness, serve};
use crate::telemetry::{self, Format, Health, Status};
use crate::trust::file::{Access, Existing, write};
use crate::trust::note::Cosigner;

/// Cosign the checkpoints of logs, as an independent body that sees that none is rewritten.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  A key and an empty state, once; the printed line goes into the policies of those who trust this witness:
    kopuro witness keygen --name witness.council.kg/w1 --out witness.key --state state
  Run it; witness.toml lists the logs to follow:
    kopuro witness run --config witness.toml
  What it has cosigned last, of each log:
    kopuro witness show --state state")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Answer logs' add-checkpoint requests (C2SP tlog-witness)
    Run(Run),
    /// Make a witness's key and its empty state
    Keygen(Keygen),
    /// Print what a witness has cosigned; exit 0 only if its state is whole
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The witness's configuration
    #[arg(long, value_name = "FILE", env = "KOPURO_WITNESS_CONFIG", default_value = "witness.toml")]
    config: PathBuf,

    /// Check configuration, keys, certificate and state, say what is wrong where, and do not start
    #[arg(long)]
    check: bool,

    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "KOPURO_LOG_FORMAT")]
    log_format: Format,

    /// Address for logs, instead of listen
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// Address for health and metrics, instead of admin
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

#[derive(Debug, clap::Args)]
struct Keygen {
    /// Name of the witness: a URL without its scheme, as witness.council.kg/w1
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where the private key goes to (0600)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The folder of what it will have cosigned; made here, and never anew for the same key
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The state folder; a running witness is not disturbed
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Run(run) => run.run(),
        Command::Keygen(keygen) => keygen.run(),
        Command::Show(show) => show.run(),
    }
}

impl Run {
    fn run(self) -> anyhow::Result<ExitCode> {
        telemetry::init_tracing(self.log_format)?;
        let loaded = config::load_witness(&self.config).and_then(|mut config| {
            config.listen = self.listen.unwrap_or(config.listen);
            config.admin = self.admin.unwrap_or(config.admin);
            config.check().map(|loaded| (config, loaded))
        });
        let (config, loaded) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                eprintln!("{error}");
                return Ok(ExitCode::from(BAD_CONFIGURATION));
            }
        };
        if self.check {
            let (key, seen) = State::read(&config.state)?;
            anyhow::ensure!(key == loaded.cosigner.verifier(), "{} is the state of {key}", config.state.display());
            println!("ok: {key}; {} logs followed, {} cosigned", loaded.logs.len(), seen.len());
            return Ok(ExitCode::SUCCESS);
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
        runtime.block_on(start(config, loaded))
    }
}

/// Runs the witness until it is told to stop and has answered what it was asked. A second signal ends it at once.
async fn start(config: WitnessConfig, loaded: LoadedWitness) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = telemetry::metrics::install()?;
    let LoadedWitness { cosigner, logs, tls, options } = loaded;
    let (state, seen) = State::open(&config.state, &cosigner.verifier())?;
    let witness = Arc::new(Witness::new(cosigner, &logs, state, seen)?);
    let listener = bind("logs", config.listen).await?;
    let admin_listener = bind("health and metrics", config.admin).await?;
    let (listen, admin) = (listener.local_addr()?, admin_listener.local_addr()?);

    let health = Health::starting();
    let (drain, end) = (CancellationToken::new(), CancellationToken::new());
    let operators =
        tokio::spawn(telemetry::admin::serve(admin_listener, metrics, health.clone(), end.clone().cancelled_owned()));
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!(
        key = %witness.verifier(), logs = logs.len(), %admin,
        "the witness is up at {scheme}://{listen}{}", options.prefix
    );
    let served = tokio::spawn(serve(listener, tls, witness, options, drain.clone().cancelled_owned()));
    health.set(Health::NODE, Status::Ok);
    tell_supervisor(&[NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tell_supervisor(&[NotifyState::Stopping]);
    health.set("draining", Status::NotReady("the witness is shutting down".into()));
    drain.cancel();
    tokio::select! {
        ended = served => ended.context("serving")?,
        _ = terminate.recv() => anyhow::bail!("told to stop twice: requests were cut off"),
        _ = interrupt.recv() => anyhow::bail!("told to stop twice: requests were cut off"),
    }
    end.cancel();
    let _ = operators.await;
    tracing::info!("the witness is down");
    Ok(ExitCode::SUCCESS)
}

async fn bind(what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen for {what} at {address}"))
}

impl Keygen {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let cosigner = Cosigner::generate(&self.name)?;
        let mut encoded = cosigner.to_encoded();
        encoded.push('\n');
        write(&self.out, encoded.as_bytes(), Access::Secret, Existing::Keep)
            .with_context(|| self.out.display().to_string())?;
        if let Err(error) = State::create(&self.state, &cosigner.verifier()) {
            // It was made a moment ago, and nobody knows it yet.
            let _ = std::fs::remove_file(&self.out);
            return Err(error.into());
        }
        println!("{}", cosigner.verifier());
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let (key, seen) = State::read(&self.state)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "witness  {key}")?;
        for seen in seen {
            let time = i64::try_from(seen.time).ok().and_then(|time| OffsetDateTime::from_unix_timestamp(time).ok());
            let time = time.map_or_else(|| seen.time.to_string(), |time| time.to_string());
            let checkpoint = seen.checkpoint;
            writeln!(out, "\nlog      {}", checkpoint.origin)?;
            writeln!(out, "size     {}\nroot     {}\nat       {time}", checkpoint.size, checkpoint.root)?;
        }
        let evidence = State::evidence(&self.state)?;
        if !evidence.is_empty() {
            writeln!(out, "\nlogs that signed two roots for one size:")?;
        }
        for path in evidence {
            writeln!(out, "  {}", path.display())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
