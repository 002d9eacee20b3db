//! A directory as the register of schemas: which services it has, and the descriptor sets that it names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use prost_reflect::DescriptorPool;

use super::source;
use crate::schema::digest;
use crate::trust::directory::Directory;
use crate::trust::note::Note;

/// A directory, `directory.toml` or signed, and the sets beside it.
#[derive(Debug)]
pub(super) struct Register {
    pub(super) directory: Directory,
    folder: PathBuf,
    /// Sets that `directory.toml` names by path.
    named: BTreeMap<[u8; 32], Bytes>,
}

impl Register {
    /// Whether a path looks like one: `directory.toml`, a signed directory, or a folder with either.
    pub(super) fn is_at(path: &Path) -> bool {
        file_of(path).is_some()
    }

    /// Reads it. Signatures are not looked at: `kopuro directory verify` does.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = file_of(path).with_context(|| {
            format!("{} is no directory: give directory.toml, or a signed directory", path.display())
        })?;
        let folder = file.parent().unwrap_or_else(|| Path::new("")).to_owned();
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let mut named = BTreeMap::new();
        let directory = if is_toml(&file) {
            Directory::from_toml_with(&text, &mut |path| {
                let bytes = source::bounded(&folder.join(path)).map_err(|error| format!("{error:#}"))?;
                let key = digest(&bytes);
                named.insert(key, bytes.into());
                Ok(key)
            })
        } else {
            Note::parse(&text).map_err(Into::into).and_then(|note| Directory::parse_text(note.text()))
        };
        let directory = directory.with_context(|| file.display().to_string())?;
        Ok(Self { directory, folder, named })
    }

    /// The bytes of a set. None: no file has it.
    pub(super) fn bytes(&self, key: &[u8; 32]) -> anyhow::Result<Option<Bytes>> {
        if let Some(bytes) = self.named.get(key) {
            return Ok(Some(bytes.clone()));
        }
        let name = format!("{}.binpb", hex::encode(key));
        for path in [self.folder.join(&name), self.folder.join("descriptors").join(&name)] {
            if path.exists() {
                let bytes = source::bounded(&path)?;
                if digest(&bytes) != *key {
                    bail!("{}: it has another SHA-256 than its name: restore it from a mirror", path.display());
                }
                return Ok(Some(bytes.into()));
            }
        }
        Ok(None)
    }

    /// The types of a set that must be there.
    pub(super) fn pool(&self, key: &[u8; 32]) -> anyhow::Result<(Bytes, DescriptorPool)> {
        let name = hex::encode(key);
        let bytes = self.bytes(key)?.with_context(|| {
            format!("{name}.binpb is not beside the directory: copy it there, as the directory's mirrors have it")
        })?;
        let pool = source::read_set(&bytes, &name)?;
        Ok((bytes, pool))
    }
}

/// The directory's file.
fn file_of(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return ["directory.toml", "directory.note", "directory"]
            .into_iter()
            .map(|name| path.join(name))
            .find(|file| file.is_file());
    }
    let is_note = || source::bounded(path).is_ok_and(|bytes| bytes.starts_with(b"kopuro directory "));
    (is_toml(path) || is_note()).then(|| path.to_owned())
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}
