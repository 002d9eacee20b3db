//! Who watches the four ministries: a witness of the public council, which cosigns every checkpoint before it is published, and a
//! monitor, which reads what is published and nothing else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::federation::{Federation, MemberFiles};
use crate::oversight::monitor::{KnownLog, Monitor, MonitorOptions, Report};
use crate::oversight::portal::{INDEX, LogSource, Site, Sources, public_policy};
use crate::oversight::published::Place;
use crate::oversight::witness::{ServeOptions, State, Witness, serve};
use crate::trust::note::Cosigner;
use crate::trust::policy::WitnessPolicy;

/// The public council's witness, running.
pub(super) struct PublicCouncil {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl PublicCouncil {
    /// Starts the witness where the nodes' policy says it is.
    pub(super) async fn start(federation: &Federation) -> anyhow::Result<Self> {
        let files = &federation.witness;
        let encoded = std::fs::read_to_string(&files.key).with_context(|| files.key.display().to_string())?;
        let cosigner = Cosigner::from_encoded(zeroize::Zeroizing::new(encoded).trim_end())?;
        let (state, seen) = State::open(&files.state, &cosigner.verifier())?;
        let logs: Vec<_> = federation.members.iter().map(|member| member.log_key.clone()).collect();
        let witness = Arc::new(Witness::new(cosigner, &logs, state, seen)?);
        let listener =
            TcpListener::bind(files.address).await.with_context(|| format!("witness at {}", files.address))?;
        let stop = CancellationToken::new();
        // All four nodes ask from one address here.
        let options =
            ServeOptions { per_second: const { std::num::NonZeroU32::new(200).unwrap() }, ..Default::default() };
        let serving = tokio::spawn(serve(listener, None, witness, options, stop.clone().cancelled_owned()));
        Ok(Self { stop, serving })
    }

    /// Answers what has begun and ends.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        let _ = self.serving.await;
    }
}

/// Reads all published logs from their tiles alone and compares them. Where nodes still run, `grace` is for what the other side
/// may yet publish.
pub(super) async fn monitor(federation: &Federation, grace: Duration) -> anyhow::Result<Report> {
    let policy = WitnessPolicy::read(&federation.witness.policy)?;
    let known = federation
        .members
        .iter()
        .map(|member| KnownLog { keys: vec![member.log_key.clone()], member: Some(member.id.clone()) });
    let mut monitor = Monitor::open(MonitorOptions {
        places: federation.members.iter().map(|member| Place::Folder(member.published.clone())).collect(),
        known: known.collect(),
        quorum: Some(Arc::new(move |note| policy.require(note).map(drop).map_err(|error| error.to_string()))),
        state: state_folder(federation),
        grace,
        roots: None,
    })?;
    let now = i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000)?;
    Ok(monitor.round(now, |_| {}).await?)
}

/// Writes the portal of all four logs beside them, with what the monitor found. Gives back its first page.
pub(super) fn portal(federation: &Federation, report: &Report) -> anyhow::Result<PathBuf> {
    let log = |member: &MemberFiles| {
        let name = member.published.file_name().unwrap_or_default().to_string_lossy();
        LogSource { url: format!("../{name}/"), vkey: member.log_key.to_string() }
    };
    let policy = std::fs::read_to_string(&federation.witness.policy)?;
    let sources = Sources {
        logs: federation.members.iter().map(log).collect(),
        policy: Some(public_policy(&policy)),
        monitor: Some("report.json".into()),
    };
    let folder = federation.folder.join("published/portal");
    Site::new(&sources).write(&folder).with_context(|| folder.display().to_string())?;
    // The places are this machine's, and nobody else's business.
    let mut report = serde_json::to_value(report)?;
    for (log, source) in report["logs"].as_array_mut().into_iter().flatten().zip(&sources.logs) {
        log["place"] = source.url.clone().into();
    }
    std::fs::write(folder.join("report.json"), serde_json::to_vec(&report)?)?;
    Ok(folder.join(INDEX))
}

fn state_folder(federation: &Federation) -> PathBuf {
    federation.folder.join("monitor")
}
