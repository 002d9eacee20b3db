//! Whose signatures count: logs' keys from flags, a directory or a witness policy, and the policy's quorum.

use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;

use crate::log::Checkpoint;
use crate::oversight::published::Quorum;
use crate::trust::note::{Note, Verifier};
use crate::trust::policy::WitnessPolicy;

/// Logs' keys, each named for its log's origin, and what else a checkpoint must carry.
#[derive(Clone, Default)]
pub(super) struct Trusted {
    pub(super) keys: Vec<Verifier>,
    pub(super) quorum: Option<Quorum>,
}

impl Trusted {
    /// Takes a policy's logs for known and its quorum for required.
    pub(super) fn add_policy(&mut self, path: &Path) -> anyhow::Result<()> {
        let policy = WitnessPolicy::read(path)?;
        self.keys.extend(policy.logs().iter().map(|log| log.key.clone()));
        self.quorum = Some(Arc::new(move |note| policy.require(note).map(drop).map_err(|error| error.to_string())));
        Ok(())
    }

    /// The keys of the log with this origin: one at least, and more where it has changed its key.
    pub(super) fn keys_of(&self, origin: &str) -> anyhow::Result<Vec<Verifier>> {
        let known = || self.keys.iter().map(Verifier::name).collect::<Vec<_>>().join(", ");
        let keys: Vec<Verifier> = self.keys.iter().filter(|key| key.name() == origin).cloned().collect();
        ensure!(!keys.is_empty(), "the checkpoint is of {origin}; keys are known of {}", known());
        Ok(keys)
    }

    /// Reads a checkpoint, and checks its log's signature and the quorum.
    pub(super) fn verify(&self, note: &str) -> anyhow::Result<Checkpoint> {
        let origin = Checkpoint::parse(note)?.origin;
        let checkpoint = Checkpoint::verify(note, &self.keys_of(&origin)?)?;
        if let Some(quorum) = &self.quorum {
            quorum(&Note::parse(note)?).map_err(|reason| anyhow::anyhow!("{origin}: {reason}"))?;
        }
        Ok(checkpoint)
    }
}

impl std::fmt::Debug for Trusted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trusted").field("keys", &self.keys).field("quorum", &self.quorum.is_some()).finish()
    }
}
