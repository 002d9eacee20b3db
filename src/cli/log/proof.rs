//! `kopuro log proof` and `kopuro log check-proof`: that one entry is in a log, as a file that stands alone.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;

use super::published;
use super::source::Source;
use super::verify::keys;
use crate::log::Checkpoint;
use crate::log::closed::ClosedLog;
use crate::log::tlog_proof::TlogProof;
use crate::log::tree::{Hash, TILE_LEAVES};
use crate::oversight::published::{Place, PublishedTree};
use crate::trust::file::{Access, Existing, write};

/// What `kopuro log proof` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Index of the entry
    index: u64,
    /// Where the log is published, instead of --node or --data: a URL or a folder
    #[arg(value_name = "URL|FOLDER")]
    pub(super) place: Option<Place>,
    /// Where to write the proof
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Write the entry's bytes too
    #[arg(long, value_name = "FILE")]
    entry: Option<PathBuf>,
    /// The log's public key: name+hash+key
    #[arg(long, value_name = "KEY")]
    vkey: Vec<String>,
    /// A witness policy whose quorum must have cosigned
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Root certificates for HTTPS besides the system's, PEM
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
}

/// What `kopuro log check-proof` takes.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The .tlog-proof
    proof: PathBuf,
    /// The entry's bytes
    #[arg(long, value_name = "FILE")]
    entry: PathBuf,
    /// The log's public key: name+hash+key. From the directory, never from whoever gave the proof
    #[arg(long, value_name = "KEY", required = true)]
    vkey: Vec<String>,
}

/// From tiles: of one bundle and some twenty hashes at most, all verified.
pub(super) async fn of_published(args: Args) -> anyhow::Result<ExitCode> {
    let place = args.place.as_ref().context("which log?")?;
    let (publication, checkpoint, _) =
        published::open(place, &args.vkey, args.policy.as_deref(), args.roots.as_deref()).await?;
    let size = checkpoint.size;
    if args.index >= size {
        bail!("the log has entries 0 to {}", size.saturating_sub(1));
    }
    let tree = PublishedTree::open(publication, checkpoint.clone()).await?;
    let path = tree.inclusion_proof(args.index).await?;
    let bundle = tree.bundle(args.index / TILE_LEAVES, false).await?;
    let entry = bundle.get((args.index % TILE_LEAVES) as usize).context("the bundle ends before the entry")?.clone();
    finish(&args, &entry, path, checkpoint)
}

/// From a node, which makes the proof, or from a stopped node's folder.
pub(super) async fn of_log(source: &mut Source, args: Args) -> anyhow::Result<ExitCode> {
    if args.vkey.is_empty() {
        bail!("whose log is it? --vkey with its key from the directory");
    }
    let (entry, path, checkpoint) = match source {
        Source::Folder { log, .. } => of_folder(log, args.index)?,
        Source::Node(_) => source.inclusion_proof(args.index).await?,
    };
    finish(&args, &entry, path, checkpoint)
}

/// Verifies what is about to be written: a proof that does not hold helps nobody.
fn finish(args: &Args, entry: &Bytes, path: Vec<Hash>, checkpoint: Checkpoint) -> anyhow::Result<ExitCode> {
    let proof = TlogProof { extra: None, index: args.index, path, checkpoint };
    if !args.vkey.is_empty() {
        proof.verify(entry, &keys(&args.vkey)?)?;
    }
    let save = |path: &Path, content: &[u8]| {
        write(path, content, Access::Public, Existing::Replace).with_context(|| path.display().to_string())
    };
    save(&args.output, proof.to_string().as_bytes())?;
    if let Some(path) = &args.entry {
        save(path, entry)?;
    }
    println!("entry {} of {} is in {}", args.index, proof.checkpoint.size, proof.checkpoint.origin);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(&args.proof).with_context(|| args.proof.display().to_string())?;
    let entry = std::fs::read(&args.entry).with_context(|| args.entry.display().to_string())?;
    let proof: TlogProof = text.parse()?;
    proof.verify(&entry, &keys(&args.vkey)?)?;
    println!(
        "verified: it is entry {} of {}, whose checkpoint of {} entries is signed",
        proof.index, proof.checkpoint.origin, proof.checkpoint.size
    );
    Ok(ExitCode::SUCCESS)
}

/// A folder has entries and no tree: it is computed once over.
fn of_folder(log: &ClosedLog, index: u64) -> anyhow::Result<(Bytes, Vec<Hash>, Checkpoint)> {
    let checkpoint = log.checkpoint().clone();
    if index >= checkpoint.size {
        bail!("the log has entries {} to {}", log.first(), checkpoint.size.saturating_sub(1));
    }
    let entry = log.read(index, 1)?.into_iter().next().context("the entry cannot be read")?;
    Ok((entry, log.inclusion_proof(index, checkpoint.size)?, checkpoint))
}
