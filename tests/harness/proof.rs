//! A node's log in a test's own hands: what a node that is not ours, or not honest, can show of what it sends.

use bytes::Bytes;
use kopuro::log::entry::{Draft, ExchangeKey, Kind, Outcome, Publication, Slot};
use kopuro::log::entry_proof::EntryProof;
use kopuro::log::{Log, LogOptions};
use kopuro::trust::note::Signer;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use uuid::Uuid;

use super::probe::SERVICE;
use super::{DESK, PROBE};

/// The log.
pub(crate) struct OwnLog {
    pub(crate) log: Log,
    _folder: TempDir,
}

/// What an entry says; by default, of a unary call of the desk to the probe.
#[derive(Clone)]
pub(crate) struct Says {
    pub(crate) kind: Kind,
    pub(crate) id: Uuid,
    pub(crate) consumer: String,
    pub(crate) provider: String,
    pub(crate) method: String,
    pub(crate) basis: String,
    pub(crate) outcome: Outcome,
    pub(crate) grpc_status: u32,
    pub(crate) reason: String,
    /// Digests that it commits to.
    pub(crate) digests: Vec<(Slot, [u8; 32])>,
}

impl Says {
    /// `REQUEST_SENT` of a unary call with this message.
    pub(crate) fn request(id: Uuid, message: &Bytes) -> Self {
        Self {
            kind: Kind::RequestSent,
            id,
            consumer: DESK.into(),
            provider: PROBE.into(),
            method: "Unary".into(),
            basis: String::new(),
            outcome: Outcome::Unspecified,
            grpc_status: 0,
            reason: String::new(),
            digests: vec![(Slot::RequestDigest, digest(message))],
        }
    }
}

impl OwnLog {
    /// An empty log under this key.
    pub(crate) fn open(signer: Signer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = LogOptions { warn_free: 2, refuse_free: 1, ..LogOptions::new(folder.path(), signer) };
        Self { log: Log::open(options).unwrap().0, _folder: folder }
    }

    /// Appends such an entry and gives its proof.
    pub(crate) async fn proof(&self, says: &Says) -> EntryProof {
        let now = time::OffsetDateTime::now_utc().unix_timestamp() * 1_000;
        let mut draft = Draft::new(says.kind, says.id, now, &ExchangeKey::generate());
        draft.consumer.clone_from(&says.consumer);
        draft.provider.clone_from(&says.provider);
        draft.service = SERVICE.into();
        draft.method.clone_from(&says.method);
        draft.legal_basis.clone_from(&says.basis);
        draft.publication = Publication::Public;
        draft.outcome = says.outcome;
        draft.reason.clone_from(&says.reason);
        draft.grpc_status = says.grpc_status;
        for (slot, digest) in &says.digests {
            draft.set(*slot, *digest);
        }
        let open: Vec<Slot> = says.digests.iter().map(|(slot, _)| *slot).collect();
        let (record, openings) = draft.seal_opening(&open);
        let entry = record.entry.clone();
        EntryProof::new(&self.log.append(record).await.unwrap(), entry, &openings)
    }
}

/// What entries commit to of a payload.
pub(crate) fn digest(framed: &Bytes) -> [u8; 32] {
    Sha256::digest(framed).into()
}
