//! `kopuro monitor`: follows published logs, and says what does not match.

mod serve;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::trusted::Trusted;
use crate::config::units::parse_duration;
use crate::oversight::monitor::{Finding, KnownLog, Monitor, MonitorOptions, Report};
use crate::oversight::published::Place;
use crate::telemetry;
use crate::trust::directory::{Directory, SignedDirectory};
use crate::trust::file::{self, Access, Existing};
use crate::trust::identity::MemberId;
use crate::trust::note::{Note, Verifier};

/// What `kopuro monitor` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each log's key must be known: from --directory, behind # after its place, with --vkey or from --policy.

Examples:
  kopuro monitor --directory directory.note --log https://gw.civil.kg/log --log https://gw.tax.kg/log --state monitor
  kopuro monitor --log 'KG/GOV/70000005=published/70000005#gw.civil.kg/log+0a1b2c3d+AU…' --state monitor --once
  kopuro monitor --directory directory.note --log https://gw.civil.kg/log --state monitor --listen 0.0.0.0:8080")]
pub(super) struct Args {
    /// A published log: a URL or folder, before it perhaps the member whose log it is, behind it its key
    #[arg(long, value_name = "[MEMBER=]URL|FOLDER[#VKEY]", required = true, value_parser = parse_log)]
    log: Vec<LogFlag>,
    /// Where to keep what has been seen; a restart goes on from there
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
    /// A log's public key: name+hash+key
    #[arg(long, value_name = "KEY")]
    vkey: Vec<Verifier>,
    /// The federation's directory, which says whose keys and logs are whose
    #[arg(long, value_name = "FILE")]
    directory: Option<PathBuf>,
    /// Keys of the council that must have signed the directory; without them it is taken as it is
    #[arg(long, value_name = "KEY", requires = "directory")]
    council: Vec<Verifier>,
    /// How many of them
    #[arg(long, value_name = "N", default_value_t = 1, requires = "council")]
    threshold: usize,
    /// A witness policy (C2SP tlog-policy): its quorum must have cosigned every checkpoint
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// How long the other side of an exchange may take to be published
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    grace: Duration,
    /// Look once, report, and exit with 1 if anything is wrong
    #[arg(long)]
    once: bool,
    /// How long to wait between two looks
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration, conflicts_with = "once")]
    interval: Duration,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Serve a page for people, /report.json, /healthz and /metrics here
    #[arg(long, value_name = "ADDRESS", conflicts_with = "once")]
    listen: Option<SocketAddr>,
    /// Write the report here after each look, as JSON: for the portal
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Root certificates for HTTPS besides the system's, PEM
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// An object a line: `finding` for each exchange that does not match, `round` after each look
    Jsonl,
}

#[derive(Clone, Debug)]
struct LogFlag {
    member: Option<MemberId>,
    place: Place,
    key: Option<Verifier>,
}

fn parse_log(text: &str) -> Result<LogFlag, String> {
    let (rest, key) = match text.split_once('#') {
        None => (text, None),
        Some((rest, key)) => (rest, Some(key.parse::<Verifier>().map_err(|error| error.to_string())?)),
    };
    // A path or a URL may have an equals sign too: a member is one that reads as a member.
    let member = rest.split_once('=').and_then(|(member, place)| Some((member.parse::<MemberId>().ok()?, place)));
    let (member, place) = member.map_or((None, rest), |(member, place)| (Some(member), place));
    Ok(LogFlag {
        member,
        place: place.parse().map_err(|error: crate::oversight::published::PublishedError| error.to_string())?,
        key,
    })
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(monitor(args))
}

async fn monitor(args: Args) -> anyhow::Result<ExitCode> {
    let options = options(&args)?;
    if args.once {
        let mut monitor = Monitor::open(options)?;
        let bar = spinner();
        let report = monitor.round(now_ms(), |read| bar.set_position(read)).await?;
        bar.finish_and_clear();
        keep(&report, args.report.as_deref())?;
        print(&report, args.format, &report.findings)?;
        return Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    telemetry::init_tracing(telemetry::Format::Text)?;
    let (publish, current) = watch::channel(None);
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = match args.listen {
        Some(address) => {
            let listener =
                tokio::net::TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
            tracing::info!(address = %listener.local_addr()?, "the page is served");
            let metrics = telemetry::metrics::install()?;
            Some(tokio::spawn(serve::serve(listener, metrics, current, stop.clone().cancelled_owned())))
        }
        None => None,
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let looking = look(Monitor::open(options)?, &args, publish);
    let ended = tokio::select! {
        ended = looking => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // The state is kept in one step: whatever a round had not yet kept is read again next time.
    stop.cancel();
    if let Some(serving) = serving {
        let _ = serving.await;
    }
    ended.map(|()| ExitCode::SUCCESS)
}

/// Round after round, until the monitor itself fails.
async fn look(mut monitor: Monitor, args: &Args, publish: watch::Sender<Option<Report>>) -> anyhow::Result<()> {
    let format = args.format;
    let mut ticks = tokio::time::interval(args.interval.max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = Vec::new();
    loop {
        ticks.tick().await;
        let report = monitor.round(now_ms(), |_| {}).await?;
        report.record_metrics();
        keep(&report, args.report.as_deref())?;
        // In text, only what is new; a collector of lines wants every round.
        let conditions: Vec<String> = report.logs.iter().map(|log| log.condition.name().to_owned()).collect();
        let news = format == Format::Jsonl || !report.new.is_empty() || conditions != told;
        told = conditions;
        if news {
            print(&report, format, &report.new)?;
        }
        publish.send_replace(Some(report));
    }
}

/// Writes the report to a file, whole or not at all.
fn keep(report: &Report, path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    file::write(path, &serde_json::to_vec(report)?, Access::Public, Existing::Replace)
        .with_context(|| path.display().to_string())
}

/// Prints a round: to people all that is wrong, to collectors these findings.
fn print(report: &Report, format: Format, findings: &[Finding]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Text => writeln!(out, "{report}")?,
        Format::Jsonl => {
            let object = |kind: &str, mut value: serde_json::Value| {
                value["type"] = kind.into();
                value
            };
            for finding in findings {
                writeln!(out, "{}", object("finding", serde_json::to_value(finding)?))?;
            }
            let mut round = serde_json::to_value(report)?;
            if let Some(round) = round.as_object_mut() {
                round.remove("findings");
            }
            writeln!(out, "{}", object("round", round))?;
        }
    }
    Ok(out.flush()?)
}

fn options(args: &Args) -> anyhow::Result<MonitorOptions> {
    let mut known: Vec<KnownLog> = Vec::new();
    let mut add = |key: &Verifier, member: Option<&MemberId>| {
        match known.iter_mut().find(|known| known.origin() == key.name()) {
            Some(known) => {
                known.member = known.member.take().or_else(|| member.cloned());
                if !known.keys.contains(key) {
                    known.keys.push(key.clone());
                }
            }
            None => known.push(KnownLog { keys: vec![key.clone()], member: member.cloned() }),
        };
    };
    for log in &args.log {
        if let Some(key) = &log.key {
            add(key, log.member.as_ref());
        } else if let (Some(member), None) = (&log.member, &args.directory) {
            bail!("{}: a member is told by the key: write {member}=…#VKEY, or give --directory", log.place);
        }
    }
    args.vkey.iter().for_each(|key| add(key, None));
    if let Some(path) = &args.directory {
        let note = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let directory = if args.council.is_empty() {
            Directory::parse_text(Note::parse(&note)?.text())?
        } else {
            SignedDirectory::verify(&note, &args.council, args.threshold, OffsetDateTime::now_utc(), 1)?.directory
        };
        for node in &directory.nodes {
            node.log_keys().iter().for_each(|key| add(key, Some(&node.member)));
        }
    }
    let mut trusted = Trusted::default();
    if let Some(policy) = &args.policy {
        trusted.add_policy(policy)?;
    }
    trusted.keys.iter().for_each(|key| add(key, None));
    ensure!(!known.is_empty(), "no log's key is known: --directory, --vkey, --policy, or # after a log's place");
    Ok(MonitorOptions {
        places: args.log.iter().map(|log| log.place.clone()).collect(),
        known,
        quorum: trusted.quorum,
        state: args.state.clone(),
        grace: args.grace,
        roots: args.roots.clone(),
    })
}

fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} entries, {per_sec}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn now_ms() -> i64 {
    (OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_with_and_without_its_member_and_key() {
        let key = crate::trust::note::Signer::generate("a.example/log").unwrap().verifier();
        let flag = parse_log(&format!("KG/GOV/1=https://a.example/log/#{key}")).unwrap();
        assert_eq!((flag.member.unwrap().as_str(), flag.key.unwrap()), ("KG/GOV/1", key));
        assert_eq!(flag.place, Place::Url("https://a.example/log".into()));
        let flag = parse_log("a=b/published").unwrap();
        assert!(flag.member.is_none() && flag.key.is_none() && flag.place == Place::Folder("a=b/published".into()));
        assert!(parse_log("https://a.example/log#key").is_err());
    }
}
