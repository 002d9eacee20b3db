//! A log as it is published: which key is its, what was seen of it before, and its verification with a progress bar.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use super::verify::{keys, progress};
use crate::cli::trusted::Trusted;
use crate::log::Checkpoint;
use crate::oversight::published::{self, Place, Publication, PublishedError, PublishedTree, Seen};
use crate::trust::note::Verifier;

/// How to know the log's key and what to compare it with.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// The log's public key: name+hash+key. From the directory, never from the log itself. Of a log that has changed its
    /// key there may be several
    #[arg(long, value_name = "KEY")]
    pub(super) vkey: Vec<String>,
    /// A witness policy (C2SP tlog-policy): its logs' keys are known, and its quorum must have cosigned
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Keep the checkpoint here, and go on from the one kept before
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Go on from this checkpoint, which has been verified before
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    from: Option<PathBuf>,
    /// Root certificates for HTTPS besides the system's, PEM
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// So many bundles at a time; by default twice the processors, or 16 over HTTP
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    jobs: Option<u16>,
}

impl Flags {
    /// The keys, where nothing but keys will do.
    pub(super) fn keys(&self) -> anyhow::Result<Vec<Verifier>> {
        ensure!(!self.vkey.is_empty(), "whose log is it? --vkey with its key from the directory");
        keys(&self.vkey)
    }
}

/// Opens a publication under its signed, and where a policy asks for it cosigned, checkpoint.
pub(super) async fn open(
    place: &Place,
    vkey: &[String],
    policy: Option<&Path>,
    roots: Option<&Path>,
) -> anyhow::Result<(Publication, Checkpoint, Trusted)> {
    let mut trusted = Trusted::default();
    if let Some(policy) = policy {
        trusted.add_policy(policy)?;
    }
    trusted.keys.extend(keys(vkey)?);
    ensure!(!trusted.keys.is_empty(), "whose log is it? --vkey with its key from the directory, or --policy");
    let publication = Publication::new(place.clone(), roots)?;
    let note = publication.checkpoint().await?;
    let checkpoint = trusted.verify(&note)?;
    Ok((publication, checkpoint, trusted))
}

/// Everything that is published, or what has come since the checkpoint seen last.
pub(super) async fn verify(place: &Place, flags: Flags) -> anyhow::Result<ExitCode> {
    let (publication, checkpoint, trusted) =
        open(place, &flags.vkey, flags.policy.as_deref(), flags.roots.as_deref()).await?;
    let log = trusted.keys_of(&checkpoint.origin)?;
    let kept = flags.state.as_deref().map(Seen::open).transpose()?;
    let seen = match (&kept, &flags.from) {
        (Some(kept), _) => kept.get(&log)?,
        (None, Some(path)) => {
            let note = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Some(Checkpoint::verify(&note, &log).with_context(|| path.display().to_string())?)
        }
        (None, None) => None,
    };
    let tree = PublishedTree::open(publication, checkpoint.clone()).await?;
    let from = seen.as_ref().map_or(0, |seen| seen.size);
    if let Some(seen) = &seen
        && let Err(error) = tree.extends(seen).await
    {
        if let (Some(kept), PublishedError::Rewritten { .. }) = (&kept, &error) {
            let evidence = kept.keep_evidence(seen, &checkpoint)?;
            bail!("{error}; both signed checkpoints are kept in {}", evidence.display());
        }
        return Err(error.into());
    }
    let default = match place {
        Place::Folder(_) => 2 * std::thread::available_parallelism().map_or(1, usize::from),
        Place::Url(_) => 16,
    };
    let (tree, started) = (Arc::new(tree), Instant::now());
    let bar = progress(checkpoint.size - from);
    let jobs = flags.jobs.map_or(default, usize::from);
    let checked = published::verify(&tree, from, jobs, |done| bar.set_position(done)).await;
    bar.finish_and_clear();
    let checked = checked?;
    if let Some(kept) = &kept {
        kept.keep(&checkpoint)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let since = if from > 0 { format!(", of them {checked} since the checkpoint seen before") } else { String::new() };
    println!("verified: {} entries{since}, signed by {}", checkpoint.size, checkpoint.origin);
    if checked > 0 {
        println!("{checked} entries in {seconds:.2} s, {:.0} a second", checked as f64 / seconds.max(1e-6));
    }
    print!("{}", checkpoint.note);
    Ok(ExitCode::SUCCESS)
}
