//! The last checkpoint seen of each log, kept in a folder: what makes today's reading the continuation of yesterday's.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::PublishedError;
use crate::log::Checkpoint;
use crate::trust::file::{Access, Existing, write};
use crate::trust::note::Verifier;

/// A folder of checkpoints, a file per log.
#[derive(Clone, Debug)]
pub struct Seen {
    folder: PathBuf,
}

impl Seen {
    /// Makes the folder where it is missing.
    pub fn open(folder: &Path) -> Result<Self, PublishedError> {
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        Ok(Self { folder: folder.into() })
    }

    /// The checkpoint kept of this log, its signature verified anew; none where there is none yet.
    pub fn get(&self, log: &(impl AsRef<[Verifier]> + ?Sized)) -> Result<Option<Checkpoint>, PublishedError> {
        let path = self.path(log.as_ref().first().map_or("", Verifier::name), "checkpoint");
        match std::fs::read_to_string(&path) {
            Ok(note) => Checkpoint::verify(&note, log).map(Some).map_err(|error| failed(&path, error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, error)),
        }
    }

    /// Keeps it, in place of an earlier one, in one step.
    pub fn keep(&self, checkpoint: &Checkpoint) -> Result<(), PublishedError> {
        let path = self.path(&checkpoint.origin, "checkpoint");
        let written = write(&path, checkpoint.note.as_bytes(), Access::Public, Existing::Replace);
        written.map_err(|error| failed(&path, error))
    }

    /// Keeps two checkpoints that contradict each other, in a file named by what is in it; gives its path. Both notes
    /// are there whole, one after the other: anybody can verify them.
    pub fn keep_evidence(&self, one: &Checkpoint, other: &Checkpoint) -> Result<PathBuf, PublishedError> {
        let content = format!("{}\n{}", one.note, other.note);
        let digest = hex::encode(&Sha256::digest(&content)[..8]);
        let path = self.path(&one.origin, &format!("{}-{digest}.evidence", one.size));
        let written = write(&path, content.as_bytes(), Access::Public, Existing::Replace);
        written.map_err(|error| failed(&path, error))?;
        Ok(path)
    }

    /// A name that is legible, and that no two logs share.
    fn path(&self, origin: &str, what: &str) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
        let legible: String = origin.chars().map(plain).take(60).collect();
        let digest = hex::encode(&Sha256::digest(origin)[..4]);
        self.folder.join(format!("{}-{digest}.{what}", legible.trim_start_matches('.')))
    }
}

fn failed(path: &Path, error: impl std::fmt::Display) -> PublishedError {
    PublishedError::Seen { path: path.display().to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tree::RightEdge;
    use crate::trust::note::Signer;

    #[test]
    fn keeps_one_per_log_and_believes_only_the_logs_key() {
        let folder = tempfile::tempdir().unwrap();
        let seen = Seen::open(&folder.path().join("state")).unwrap();
        let [one, other] = ["a.example/log", "a.example_log"].map(|name| Signer::generate(name).unwrap());
        assert_eq!(seen.get(&one.verifier()).unwrap(), None);
        let checkpoint = Checkpoint::sign(&one, &RightEdge::default()).unwrap();
        seen.keep(&checkpoint).unwrap();
        assert_eq!(seen.get(&one.verifier()).unwrap(), Some(checkpoint.clone()));
        assert_eq!(seen.get(&other.verifier()).unwrap(), None);
        let impostor = Signer::generate("a.example/log").unwrap();
        assert!(seen.get(&impostor.verifier()).is_err());

        let evidence = seen.keep_evidence(&checkpoint, &checkpoint).unwrap();
        assert!(std::fs::read_to_string(evidence).unwrap().contains(&checkpoint.note));
    }
}
