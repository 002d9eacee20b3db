//! `kopuro log fsck`: everything that a node keeps and publishes of its log, compared with the log itself.
//!
//! The log is what sled holds and the head names; if these two disagree nothing is repaired. Everything else is derived
//! from the entries, can be made again, and is, with `--repair`: the index, and the tiles in a folder. A checkpoint is
//! never written: only the node signs, and only what it has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use prost::Message;

use super::source::explained;
use super::verify::keys;
use crate::log::closed::ClosedLog;
use crate::log::entry::Entry;
use crate::log::hidden::Private;
use crate::log::index::{Filter, Index, IndexOptions};
use crate::log::tile::{self, Kind, Tile};
use crate::log::tree::{Hash, RightEdge, TILE_LEAVES, TILE_LEVELS};
use crate::log::verify::verify_folder;
use crate::log::{Checkpoint, LogError};
use crate::oversight::published::{Place, Publication};
use crate::trust::file::{Access, Existing, write};

/// Tiles that are named one by one.
const NAMED: usize = 20;

/// Nobody waits behind us.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What `kopuro log fsck` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the log is published: a folder or a URL
    #[arg(long, value_name = "FOLDER|URL")]
    published: Option<Place>,
    /// The log's public key: name+hash+key; of a log that has changed its key, each that it has had
    #[arg(long, value_name = "KEY", required = true)]
    vkey: Vec<String>,
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
    let log_keys = keys(&args.vkey)?;
    let verified = verify_folder(folder, &log_keys).map_err(explained)?;
    let pruned = if verified.first > 0 { format!(", those below {} pruned", verified.first) } else { String::new() };
    let told = format!("{} entries in {} commits{pruned}", verified.size, verified.commits);
    let mut good = tell("log", &Part::Good(told));
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
    good &= tell("private", &private(&log)?);
    if let Some(place) = &args.published {
        let publication = Publication::new(place.clone(), args.roots.as_deref())?;
        let checkpoint = Checkpoint::verify(&publication.checkpoint().await?, &log_keys)?;
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

/// Every private half that is to be there opens, and is what its entry commits to.
fn private(log: &ClosedLog) -> anyhow::Result<Part> {
    if !log.has_key() {
        return Ok(Part::NotCompared("seal.key is not in the folder, or not this log's"));
    }
    let (mut opened, mut gone, mut next) = (0_u64, 0_u64, log.first());
    while next < log.checkpoint().size {
        for entry in log.read(next, 1_024)? {
            let index = next;
            next += 1;
            let half = match log.read_private(index) {
                Ok(half) => half,
                Err(LogError::Erased { .. } | LogError::NoPrivate { .. } | LogError::PrivateLost { .. }) => {
                    gone += 1;
                    continue;
                }
                Err(error @ LogError::Damaged { .. }) => return Ok(Part::Bad(error.to_string())),
                Err(error) => return Err(error.into()),
            };
            let commitment = Private::read(&half).map(|half| half.commitment());
            let committed = Entry::decode(entry)
                .is_ok_and(|entry| commitment.is_some_and(|commitment| commitment.0[..] == entry.commitment[..]));
            if !committed {
                return Ok(Part::Bad(format!("entry {index} does not commit to its private half")));
            }
            opened += 1;
        }
    }
    Ok(Part::Good(format!("{opened} halves open, {gone} are erased, lost or never were")))
}

/// Builds the index anew beside the one that is there, and compares file by file.
fn index(folder: &Path, log: &Arc<ClosedLog>, repair: bool) -> anyhow::Result<Part> {
    let options = IndexOptions::new(folder);
    let there = files(&options.folder)?;
    if there.is_empty() {
        return Ok(Part::Good("none; the node builds it".into()));
    }
    if log.first() > 0 {
        return Ok(Part::NotCompared("entries were pruned: it cannot be made again"));
    }
    let fresh = tempfile::tempdir_in(folder).context("room for a new index")?;
    let made = Index::open(IndexOptions { folder: fresh.path().into(), ..IndexOptions::new(folder) }, log.clone())?;
    made.catch_up()?;
    let hidden = made.count(&Filter::default(), Instant::now() + PATIENCE)?.hidden;
    drop(made);
    if hidden > 0 && !log.has_key() {
        return Ok(Part::NotCompared("entries hide their fields, and the sealing key is not in the folder"));
    }
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
    if !repair && hidden > 0 {
        return Ok(Part::NotCompared(
            "it may know what hidden entries lost since to an erasure: --repair makes it again",
        ));
    }
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
        // Of subjects: made when it is asked for, and checked then.
        if path.is_file() && path.extension().is_none_or(|extension| extension != "sub") {
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
    let mut edge = log.edge();
    if size < edge.size() {
        let told = format!("{size} entries are published, and those below {} are pruned: they are lost", edge.size());
        return Ok(Part::Bad(told));
    }
    while edge.size() < size {
        let wanted = (size - edge.size()).min(4 * TILE_LEAVES) as usize;
        log.read(edge.size(), wanted)?.iter().for_each(|entry| edge.push(Hash::of_leaf(entry)));
    }
    let (computed, signed) = (edge.root(), checkpoint.root);
    if computed != signed {
        return Ok(Part::Bad(format!("the first {size} entries have the root {computed}, published is {signed}")));
    }
    let mut derived = Derived { edge: log.edge(), ..Derived::default() };
    let (mut wrong, mut repaired, mut compared) = (Vec::new(), 0_u64, 0_u64);
    while derived.edge.size() < size {
        let bundle = TILE_LEAVES - derived.edge.size() % TILE_LEAVES;
        let wanted = (size - derived.edge.size()).min(bundle) as usize;
        let mut entries = Vec::with_capacity(wanted);
        while entries.len() < wanted {
            let from = derived.edge.size() + entries.len() as u64;
            entries.extend(log.read(from, wanted - entries.len())?);
        }
        derived.take(&entries, size);
        for Ready { tile, missing, expected } in derived.ready.drain(..) {
            compared += 1;
            let Some(found) = compare(publication, tile, 32 * missing, &expected).await else { continue };
            match (repair && missing == 0, publication.place()) {
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
async fn compare(publication: &Publication, tile: Tile, from: usize, expected: &[u8]) -> Option<String> {
    match publication.tile(tile).await {
        // A partial tile may be gone where the full one is there: it begins with what the partial one had.
        Ok((bytes, _)) if bytes.get(from..).is_some_and(|bytes| bytes.starts_with(expected)) => None,
        Ok(_) => Some("differs".into()),
        Err(error) => Some(error.to_string()),
    }
}

/// A tile as the entries give it, without the hashes of what was pruned.
struct Ready {
    tile: Tile,
    /// How many hashes are not known here, at its beginning.
    missing: usize,
    expected: Vec<u8>,
}

/// Tiles and bundles as the entries give them, as soon as they are complete.
#[derive(Default)]
struct Derived {
    edge: RightEdge,
    /// The tile that is growing, at each level: its number, how many hashes are not known, the others.
    rows: Vec<(u64, usize, Vec<Hash>)>,
    ready: Vec<Ready>,
}

impl Derived {
    /// Takes in a bundle's entries; with the last, of a tree of `size`, the partial tiles are ready too.
    fn take(&mut self, entries: &[Bytes], size: u64) {
        let (number, missing) = (self.edge.size() / TILE_LEAVES, self.edge.size() % TILE_LEAVES);
        if missing == 0 {
            let mut expected = Vec::new();
            entries.iter().for_each(|entry| tile::push_entry(&mut expected, entry));
            let tile = Tile { kind: Kind::Entries, number, width: entries.len() as u16 };
            self.ready.push(Ready { tile, missing: 0, expected });
        }
        let mut nodes = Vec::new();
        for entry in entries {
            let leaf = Hash::of_leaf(entry);
            nodes.push((0, self.edge.size(), leaf));
            self.edge.push_merging(leaf, |level, index, hash| {
                if level.is_multiple_of(TILE_LEVELS) {
                    nodes.push((level / TILE_LEVELS, index, hash));
                }
            });
        }
        for (level, index, hash) in nodes {
            self.push(level as usize, index, hash);
        }
        if self.edge.size() == size {
            for level in 0..self.rows.len() {
                self.finish(level);
            }
        }
    }

    fn push(&mut self, level: usize, index: u64, hash: Hash) {
        if self.rows.len() <= level {
            self.rows.resize_with(level + 1, Default::default);
        }
        let (number, missing, hashes) = &mut self.rows[level];
        if hashes.is_empty() {
            (*number, *missing) = (index / TILE_LEAVES, (index % TILE_LEAVES) as usize);
        }
        hashes.push(hash);
        if *missing + hashes.len() == usize::from(tile::FULL) {
            self.finish(level);
        }
    }

    /// The growing tile of a level is ready, unless it is empty; the next one begins.
    fn finish(&mut self, level: usize) {
        let (number, missing, hashes) = &mut self.rows[level];
        if hashes.is_empty() {
            return;
        }
        let width = (*missing + hashes.len()) as u16;
        let tile = Tile { kind: Kind::Hashes(level as u8), number: *number, width };
        let expected = hashes.drain(..).flat_map(|hash| hash.0).collect();
        self.ready.push(Ready { tile, missing: *missing, expected });
    }
}
