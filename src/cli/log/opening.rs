//! `kopuro log open` and `check-opening`: opening files, made from a stopped node's folder or by a running node that has
//! granted it, and verified by anybody.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use prost::Message;
use tonic::transport::Channel;

use super::print::{Format, Printer};
use super::source::{explained, refused};
use crate::log::checkpoint::Checkpoint;
use crate::log::closed::ClosedLog;
use crate::log::commitment::Opening;
use crate::log::entry::further_field::Field;
use crate::log::entry::{CommittedField, FurtherField, Slot};
use crate::log::hidden::Seen;
use crate::log::opening::{FIELDS, MAX_BYTES, OpeningFile, Shown, field_name, slot_named};
use crate::log::tile::{self, Kind, Tile};
use crate::log::tree::{Hash, RightEdge, Subtrees, TILE_LEAVES, TILE_LEVELS};
use crate::proto::kopuro::audit::v1::openings_client::OpeningsClient;
use crate::proto::kopuro::audit::v1::{FieldOpening, OpenFieldsRequest};
use crate::trust::note::Verifier;

/// What `kopuro log open` takes.
#[derive(Debug, clap::Args)]
pub(super) struct OpenArgs {
    /// Which entry
    #[arg(long, value_name = "N")]
    index: u64,
    /// Which field, by its name, or as further-9, further-10, … where the entry has further subjects or committed fields; may be
    /// given several times
    #[arg(long = "field", required = true, value_name = "FIELD", value_parser = slot)]
    fields: Vec<u8>,
    /// Prove it under this published checkpoint instead of the log's latest
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Where to write the opening file; standard output where it is left out
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The legal basis claimed, where the node's grant has several (`kopuro-purpose`)
    #[arg(long, value_name = "CODE")]
    purpose: Option<String>,
    /// The official acting (`kopuro-user`): goes into the node's entry of this look
    #[arg(long, value_name = "WHO")]
    user: Option<String>,
}

/// What `kopuro log check-opening` takes.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The opening file
    file: PathBuf,
    /// The log's public key, from the directory: name+hash+key
    #[arg(long, value_name = "KEY")]
    vkey: Verifier,
    /// A checkpoint that you got from the published log: the opening must hold under this very one
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The published log in a folder (`checkpoint`, `tile/…`): the opening must be of it, or of an earlier state of it
    #[arg(long, value_name = "FOLDER", conflicts_with = "checkpoint")]
    published: Option<PathBuf>,
}

/// From a stopped node's folder.
pub(super) fn open(folder: &Path, args: &OpenArgs) -> anyhow::Result<ExitCode> {
    let log = ClosedLog::open(folder).map_err(explained)?;
    let checkpoint = match args.checkpoint()? {
        Some(published) => published,
        None => log.checkpoint().clone(),
    };
    anyhow::ensure!(checkpoint.origin == log.checkpoint().origin, "the checkpoint is another log's");
    let read = log.read_with_private(args.index, 1)?.into_iter().next();
    let (entry, private) = read.with_context(|| format!("the log has no entry {}", args.index))?;
    let private =
        private.context("its private half does not open: it is destroyed, or seal.key is not in the folder")?;
    let proof = log.inclusion_proof(args.index, checkpoint.size)?;
    args.write(&OpeningFile::new(args.index, &entry, &private, &args.fields, &proof, &checkpoint)?)
}

/// From a running node that has granted it.
pub(super) async fn open_at_node(channel: Channel, args: &OpenArgs) -> anyhow::Result<ExitCode> {
    let published = args.checkpoint()?;
    let mut request = tonic::Request::new(OpenFieldsRequest {
        index: args.index,
        slots: args.fields.iter().map(|slot| i32::from(*slot)).collect(),
        tree_size: published.as_ref().map_or(0, |checkpoint| checkpoint.size),
    });
    for (name, value) in [("kopuro-purpose", &args.purpose), ("kopuro-user", &args.user)] {
        if let Some(value) = value {
            request.metadata_mut().insert(name, value.parse()?);
        }
    }
    let answer = OpeningsClient::new(channel).open_fields(request).await.map_err(refused)?.into_inner();
    let entry = answer.entry.context("the node answers without an entry")?;
    let openings = entry.openings.iter().map(opening).collect::<anyhow::Result<_>>()?;
    let proof: Vec<Vec<u8>> = entry.inclusion.iter().map(|hash| hash.to_vec()).collect();
    let note = published.map_or(answer.checkpoint, |checkpoint| checkpoint.note);
    args.write(&OpeningFile::of_openings(entry.index, &entry.entry, openings, &proof, &note))
}

fn opening(field: &FieldOpening) -> anyhow::Result<Opening> {
    let hash = |bytes: &bytes::Bytes| bytes.as_ref().try_into().map(Hash).context("a hash or salt has not 32 bytes");
    Ok(Opening {
        slot: u8::try_from(field.slot)?,
        salt: hash(&field.salt)?.0,
        value: field.value.to_vec(),
        slots: u8::try_from(field.slots)?,
        path: field.path.iter().map(hash).collect::<anyhow::Result<_>>()?,
    })
}

impl OpenArgs {
    fn checkpoint(&self) -> anyhow::Result<Option<Checkpoint>> {
        self.checkpoint.as_deref().map(|path| Ok(Checkpoint::parse(&text(path)?)?)).transpose()
    }

    fn write(&self, file: &OpeningFile) -> anyhow::Result<ExitCode> {
        match &self.out {
            None => print!("{}", file.to_text()),
            Some(path) => {
                // It names a person: for its owner only, until they pass it on.
                let out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
                out.and_then(|mut out| out.write_all(file.to_text().as_bytes()))
                    .with_context(|| format!("writing {}", path.display()))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) fn check(args: &CheckArgs, format: Format) -> anyhow::Result<ExitCode> {
    let shown = OpeningFile::parse(&text(&args.file)?)?.verify(&args.vkey)?;
    if let Some(path) = &args.checkpoint {
        let trusted = Checkpoint::verify(&text(path)?, &args.vkey).with_context(|| path.display().to_string())?;
        shown.check_against(&trusted)?;
    }
    if let Some(folder) = &args.published {
        let path = folder.join("checkpoint");
        let published = Checkpoint::verify(&text(&path)?, &args.vkey).with_context(|| path.display().to_string())?;
        shown.check_within(&published, &mut PublishedFolder { folder, size: published.size })?;
    }
    let Shown { index, entry, fields, checkpoint } = shown;
    println!(
        "verified: entry {index} of {}, in its tree of {} entries, commits to",
        checkpoint.origin, checkpoint.size
    );
    for (slot, value) in &fields {
        println!("  {} {}", field_name(*slot), readable(*slot, value));
    }
    let seen = Seen { entry: entry.encode_to_vec().into(), hidden: None };
    let mut printer = Printer::new(format);
    printer.whole_entry(index, &seen)?;
    printer.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// The tree of a log that is published in a folder, from its tiles.
struct PublishedFolder<'f> {
    folder: &'f Path,
    size: u64,
}

impl Subtrees for PublishedFolder<'_> {
    type Error = anyhow::Error;

    fn complete(&mut self, level: u32, index: u64) -> anyhow::Result<Hash> {
        let tile_level = level / TILE_LEVELS;
        let within = level % TILE_LEVELS;
        let first = index << within;
        let number = first / TILE_LEAVES;
        let has = self.size >> (tile_level * TILE_LEVELS);
        let width = has.saturating_sub(number * TILE_LEAVES).min(TILE_LEAVES);
        let tile = Tile { kind: Kind::Hashes(u8::try_from(tile_level)?), number, width: u16::try_from(width)? };
        let path = self.folder.join(tile.to_string());
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let hashes = tile::hashes(&bytes, tile.width).with_context(|| format!("{}: damaged", path.display()))?;
        let at = usize::try_from(first % TILE_LEAVES)?;
        let hashes = hashes.get(at..at + (1 << within)).with_context(|| format!("{}: too short", path.display()))?;
        let mut edge = RightEdge::default();
        hashes.iter().for_each(|hash| edge.push(*hash));
        Ok(edge.root())
    }
}

/// A slot by the name of its field.
fn slot(name: &str) -> Result<u8, String> {
    slot_named(name).ok_or_else(|| {
        let names: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
        format!("no such field: there are {}, and further-9, further-10, …", names.join(", "))
    })
}

/// A value as people read it: text, four numbers, a person or field, or hexadecimal.
fn readable(slot: u8, value: &[u8]) -> String {
    match Slot::try_from(i32::from(slot)) {
        Ok(Slot::Subject | Slot::User | Slot::Case | Slot::Address) => as_text(value),
        Ok(Slot::Sizes) if value.len() == 32 => {
            let numbers: Vec<String> =
                value.as_chunks::<8>().0.iter().map(|n| u64::from_be_bytes(*n).to_string()).collect();
            format!(
                "request: {} messages, {} bytes; response: {} messages, {} bytes",
                numbers[0], numbers[1], numbers[2], numbers[3]
            )
        }
        Ok(Slot::Hidden) => format!("({} bytes: the fields below)", value.len()),
        Ok(_) => hex::encode(value),
        Err(_) => further(value),
    }
}

/// A further subject; a committed field with its path, whether it is of the request or the response, and its values, as text where
/// they are text; or how many more there were.
fn further(value: &[u8]) -> String {
    let field = FurtherField::decode(value).ok().and_then(|further| further.field);
    match field {
        Some(Field::Subject(subject)) => format!("subject {}", as_text(&subject)),
        Some(Field::Committed(CommittedField { path, response, values, hashed })) => {
            let side = if response { "response" } else { "request" };
            let readable = |value: &bytes::Bytes| match std::str::from_utf8(value) {
                Ok(text) if !hashed && text.chars().all(|c| !c.is_control()) => format!("{text:?}"),
                _ => hex::encode(value),
            };
            let values: Vec<String> = values.iter().map(readable).collect();
            let what = if hashed { "SHA-256 of " } else { "" };
            format!("{what}{} of the {side}: {}", path.escape_debug(), values.join(", "))
        }
        Some(Field::Beyond(count)) => format!("{count} more subjects and values, to which nothing is committed"),
        None => hex::encode(value),
    }
}

fn as_text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).escape_debug().to_string()
}

/// A small text file.
fn text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).with_context(|| path.display().to_string())?;
    Ok(text)
}
