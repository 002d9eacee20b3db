//! `kopuro log fsck`: everything that a node keeps and publishes of its log, compared with the log itself.
//!
//! The log is what sled holds and the head names; if these two disagree nothing is repaired. Everything else is derived
//! from the entries, can be made again, and is, with `--repair`: the index, and the tiles in a folder. A checkpoint is
//! never written: only the node signs, and only what it has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;

use super::source::explained;
use super::verify::key;
use crate::log::Checkpoint;
use crate::log::closed::ClosedLog;
use crate::log::index::{Index, IndexOptions};
use crate::log::tile::{self, Kind, Tile};
use crate::log::tree::{Hash, RightEdge, TILE_LEAVES};
use crate::log::verify::verify_folder;
use crate::oversight::published::{Place, Publication};
use crate::trust::file::{Access, Existing, write};

/// Tiles that are named one by one.
const NAMED: usize = 20;

/// What `kopuro log fsck` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the log is published: a folder or a URL
    #[arg(long, value_name = "FOLDER|URL")]
    published: Option<Place>,
    /// The log's public key: name+hash+key
    #[arg(long, value_name = "KEY")]
    vkey: String,
    /// Make again what is derived: the index, and tiles in a folder
    #[arg(long)]
    repair: bool,
    /// Root certificates for HTTPS besides the system's, PEM
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
}

/// How one part was found.
enum Part {
    Good(String),
    Repaired(String),
    Bad(String),
    NotCompared(&'static str),
}

pub(super) async fn run(folder: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let log_key = key(&args.vkey)?;
    let verified = verify_folder(folder, &log_key).map_err(explained)?;
    let mut good = tell("log", &Part::Good(format!("{} entries in {} commits", verified.size, verified.commits)));
    good &= tell(
        "head",
        &match verified.ahead_of_head {
            0 => Part::Good("names the last commit".into()),
            1 => Part::Good("one commit behind, as after a crash; the node brings it forward".into()),
            behind => Part::Bad(format!("{behind} commits behind: an older copy")),
        },
    );
    if verified.size == 0 {
        return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let log = Arc::new(ClosedLog::open(folder).map_err(explained)?);
    good &= tell("index", &index(folder, &log, args.repair)?);
    good &= tell("private", &private());
    if let Some(place) = &args.published {
        let publication = Publication::new(place.clone(), args.roots.as_deref())?;
        let checkpoint = Checkpoint::verify(&publication.checkpoint().await?, &log_key)?;
        good &= tell("published", &published(&log, &publication, &checkpoint, args.repair).await?);
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a line; whether it is good news.
fn tell(what: &str, part: &Part) -> bool {
    let (state, told) = match part {
        Part::Good(told) => ("good", told.as_str()),
        Part::Repaired(told) => ("repaired", told.as_str()),
        Part::Bad(told) => ("BAD", told.as_str()),
        Part::NotCompared(told) => ("-", *told),
    };
    println!("{what:<10} {state:<9} {told}");
    !matches!(part, Part::Bad(_))
}

/// The seam for the private halves: whoever can read them compares them with the entries' commitments here.
fn private() -> Part {
    Part::NotCompared("private halves are not compared here")
}

/// Builds the index anew beside the one that is there, and compares file by file.
fn index(folder: &Path, log: &Arc<ClosedLog>, repair: bool) -> anyhow::Result<Part> {
    let options = IndexOptions::new(folder);
    let there = files(&options.folder)?;
    if there.is_empty() {
        return Ok(Part::Good("none; the node builds it".into()));
    }
    let fresh = tempfile::tempdir_in(folder).context("room for a new index")?;
    let made = Index::open(IndexOptions { folder: fresh.path().into(), ..IndexOptions::new(folder) }, log.clone())?;
    made.catch_up()?;
    drop(made);
    let expected = files(fresh.path())?;
    let differs: Vec<&str> = expected
        .iter()
        .filter(|(name, content)| there.get(*name) != Some(*content))
        .map(|(name, _)| name.as_str())
        .chain(there.keys().filter(|name| !expected.contains_key(*name)).map(String::as_str))
        .collect();
    if differs.is_empty() {
        return Ok(Part::Good(format!("{} files", there.len())));
    }
    let told = format!("{} of {} files differ, the first is {}", differs.len(), there.len(), differs[0]);
    if !repair {
        return Ok(Part::Bad(told));
    }
    for name in &differs {
        let path = options.folder.join(name);
        match expected.get(*name) {
            Some(content) => write(&path, content, Access::Secret, Existing::Replace),
            None => std::fs::remove_file(&path),
        }
        .with_context(|| path.display().to_string())?;
    }
    Ok(Part::Repaired(told))
}

fn files(folder: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let listed = match std::fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    for file in listed {
        let path = file?.path();
        if path.is_file() {
            let content = std::fs::read(&path).with_context(|| path.display().to_string())?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, content);
        }
    }
    Ok(files)
}

/// Every tile and bundle of the published checkpoint, against those that the entries give.
async fn published(
    log: &ClosedLog,
    publication: &Publication,
    checkpoint: &Checkpoint,
    repair: bool,
) -> anyhow::Result<Part> {
    let (size, stored) = (checkpoint.size, log.checkpoint().size);
    if size > stored {
        return Ok(Part::Bad(format!("{size} entries are published, {stored} are stored: entries are lost")));
    }
    // Before anything is written: what is published of another history is evidence, and stays.
    let mut edge = RightEdge::default();
    while edge.size() < size {
        let wanted = (size - edge.size()).min(4 * TILE_LEAVES) as usize;
        log.read(edge.size(), wanted)?.iter().for_each(|entry| edge.push(Hash::of_leaf(entry)));
    }
    let (computed, signed) = (edge.root(), checkpoint.root);
    if computed != signed {
        return Ok(Part::Bad(format!("the first {size} entries have the root {computed}, published is {signed}")));
    }
    let mut derived = Derived::default();
    let (mut wrong, mut repaired, mut compared) = (Vec::new(), 0_u64, 0_u64);
    while derived.edge.size() < size {
        let wanted = (size - derived.edge.size()).min(TILE_LEAVES) as usize;
        let mut entries = Vec::with_capacity(wanted);
        while entries.len() < wanted {
            let from = derived.edge.size() + entries.len() as u64;
            entries.extend(log.read(from, wanted - entries.len())?);
        }
        derived.take(&entries, size);
        for (tile, expected) in derived.ready.drain(..) {
            compared += 1;
            let Some(found) = compare(publication, tile, &expected).await else { continue };
            match (repair, publication.place()) {
                (true, Place::Folder(folder)) => {
                    let path = folder.join(tile.to_string());
                    let written = std::fs::create_dir_all(path.parent().unwrap_or(folder))
                        .and_then(|()| write(&path, &expected, Access::Public, Existing::Replace));
                    written.with_context(|| path.display().to_string())?;
                    repaired += 1;
                }
                _ => wrong.push(format!("{tile} {found}")),
            }
        }
    }
    if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(NAMED);
        wrong.truncate(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return Ok(Part::Bad(format!("{}{more}", wrong.join(", "))));
    }
    let told = format!("{size} of {stored} entries, {compared} tiles and bundles");
    Ok(if repaired > 0 {
        Part::Repaired(format!("{repaired} of them written again; {told}"))
    } else {
        Part::Good(told)
    })
}

/// None where what is published is what must be; else what is wrong with it.
async fn compare(publication: &Publication, tile: Tile, expected: &[u8]) -> Option<String> {
    match publication.tile(tile).await {
        // A partial tile may be gone where the full one is there: it begins with what the partial one had.
        Ok((bytes, _)) if bytes.starts_with(expected) => None,
        Ok(_) => Some("differs".into()),
        Err(error) => Some(error.to_string()),
    }
}

/// Tiles and bundles as the entries give them, as soon as they are complete.
#[derive(Default)]
struct Derived {
    edge: RightEdge,
    /// The hashes of the tile that is growing, at each level, and its number.
    levels: Vec<(u64, Vec<Hash>)>,
    ready: Vec<(Tile, Vec<u8>)>,
}

impl Derived {
    /// Takes in a bundle's entries; with the last, of a tree of `size`, the partial tiles are ready too.
    fn take(&mut self, entries: &[Bytes], size: u64) {
        let number = self.edge.size() / TILE_LEAVES;
        let mut bundle = Vec::new();
        entries.iter().for_each(|entry| tile::push_entry(&mut bundle, entry));
        self.ready.push((Tile { kind: Kind::Entries, number, width: entries.len() as u16 }, bundle));
        for entry in entries {
            let leaf = Hash::of_leaf(entry);
            self.push(0, leaf);
            self.edge.push(leaf);
        }
        if self.edge.size() == size {
            for level in 0..self.levels.len() {
                self.finish(level);
            }
        }
    }

    fn push(&mut self, level: usize, hash: Hash) {
        if self.levels.len() == level {
            self.levels.push((0, Vec::new()));
        }
        self.levels[level].1.push(hash);
        if self.levels[level].1.len() == usize::from(tile::FULL) {
            let mut root = RightEdge::default();
            self.levels[level].1.iter().for_each(|hash| root.push(*hash));
            self.finish(level);
            self.push(level + 1, root.root());
        }
    }

    /// The growing tile of a level is ready, unless it is empty; the next one begins.
    fn finish(&mut self, level: usize) {
        let (number, hashes) = &mut self.levels[level];
        if hashes.is_empty() {
            return;
        }
        let tile = Tile { kind: Kind::Hashes(level as u8), number: *number, width: hashes.len() as u16 };
        self.ready.push((tile, hashes.drain(..).flat_map(|hash| hash.0).collect()));
        *number += 1;
    }
}
