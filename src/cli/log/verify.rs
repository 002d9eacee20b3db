//! `kopuro log verify`: the whole log recomputed and compared with what was signed.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::source::{Source, explained};
use crate::log::checkpoint::Checkpoint;
use crate::log::tree::{Hash, RightEdge};
use crate::log::verify::verify_folder;
use crate::trust::note::Verifier;

/// Of a stopped node's folder: entries, every commit's root and signature, the head.
pub(super) fn folder(folder: &Path, keys: &[Verifier]) -> anyhow::Result<ExitCode> {
    let verified = verify_folder(folder, keys).map_err(explained)?;
    println!("verified: {} entries in {} commits, signed by {}", verified.size, verified.commits, origin(keys));
    if verified.first > 0 {
        println!("entries below {} were pruned: a signed checkpoint stands for them here", verified.first);
    }
    if let Some(checkpoint) = verified.checkpoint {
        print!("{}", checkpoint.note);
    }
    Ok(ExitCode::SUCCESS)
}

/// Of a node: its checkpoint's signature, and that all its entries give the signed root.
pub(super) async fn node(source: &mut Source, keys: &[Verifier]) -> anyhow::Result<ExitCode> {
    let signed = source.checkpoint().await?;
    let signed = Checkpoint::verify(&signed.note, keys)?;
    let progress = progress(signed.size);
    let mut edge = RightEdge::default();
    let mut entries = source.entries(0, false).await?;
    while edge.size() < signed.size {
        let Some((index, entry)) = entries.next().await? else {
            bail!("first bad index {}: the log ends there, and {} entries are signed", edge.size(), signed.size);
        };
        if index != edge.size() {
            bail!("first bad index {}: entry {index} came in its place", edge.size());
        }
        edge.push(Hash::of_leaf(&entry.entry));
        if index % 1_024 == 0 {
            progress.set_position(index);
        }
    }
    progress.finish_and_clear();
    let (computed, root) = (edge.root(), signed.root);
    if computed != root {
        // One checkpoint covers all: which of the entries it is, only an older checkpoint could say.
        bail!("entries 0 to {} are not those that were signed: root {computed}, signed {root}", signed.size - 1);
    }
    println!("verified: {} entries, signed by {}", signed.size, signed.origin);
    print!("{}", signed.note);
    Ok(ExitCode::SUCCESS)
}

fn origin(keys: &[Verifier]) -> &str {
    keys.first().map_or("", Verifier::name)
}

/// Keys of one log: of different names they are a mistake.
pub(super) fn keys(vkeys: &[String]) -> anyhow::Result<Vec<Verifier>> {
    let keys = vkeys.iter().map(|vkey| key(vkey)).collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(other) = keys.iter().find(|key| key.name() != origin(&keys)) {
        bail!("keys of two logs: {} and {}", origin(&keys), other.name());
    }
    Ok(keys)
}

fn key(vkey: &str) -> anyhow::Result<Verifier> {
    vkey.parse().with_context(|| format!("{vkey:?} is no verifier key (name+hash+key)"))
}

pub(super) fn progress(entries: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} entries, {per_sec}, {eta} left");
    ProgressBar::new(entries).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
