//! A log's keys. It has one; while that is changed it signs by two, and its history may be signed by others that it has had. All of
//! them have one name, which is the log's origin.

use crate::trust::note::{Signer, Verifier};

/// What a log signs by: its key, and while that is changed another of the same name.
#[derive(Debug, Clone)]
pub struct Signers {
    first: Signer,
    second: Option<Signer>,
}

impl Signers {
    /// These two. The second counts only where it is another key of the same name.
    pub fn new(first: Signer, second: Option<Signer>) -> Self {
        let second = second.filter(|second| second.name() == first.name() && second.verifier() != first.verifier());
        Self { first, second }
    }

    pub(crate) fn first(&self) -> &Signer {
        &self.first
    }

    pub(crate) fn second(&self) -> Option<&Signer> {
        self.second.as_ref()
    }

    /// The log's origin.
    pub fn name(&self) -> &str {
        self.first.name()
    }

    /// The public halves, the first key's first.
    pub fn verifiers(&self) -> Vec<Verifier> {
        std::iter::once(&self.first).chain(&self.second).map(Signer::verifier).collect()
    }
}

impl From<Signer> for Signers {
    fn from(signer: Signer) -> Self {
        Self { first: signer, second: None }
    }
}

/// Public keys of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKeys {
    all: Vec<Verifier>,
    signing: usize,
}

impl LogKeys {
    pub(super) fn new(signers: &Signers, known: Vec<Verifier>) -> Self {
        let mut all = signers.verifiers();
        let signing = all.len();
        for key in known {
            // Of another name, it is another log's.
            if key.name() == signers.name() && !all.contains(&key) {
                all.push(key);
            }
        }
        Self { all, signing }
    }

    /// The log's name, which is that of its keys.
    pub fn origin(&self) -> &str {
        self.all.first().map_or("", Verifier::name)
    }

    /// Those that sign now, the log's own first.
    pub fn signing(&self) -> &[Verifier] {
        &self.all[..self.signing]
    }

    /// All of which a signature counts: those that sign, and others that have signed.
    pub fn all(&self) -> &[Verifier] {
        &self.all
    }
}
