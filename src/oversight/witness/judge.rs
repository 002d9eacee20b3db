//! What a witness says to a checkpoint: the checks of C2SP tlog-witness, in its order, and the one step that must not
//! come apart: compare with what was cosigned last, sign, make it durable, and only then answer.
//!
//! Each log has a lock of its own, held over all of that. So of two requests that both extend the same checkpoint, one
//! is answered and the other is told the new size. Blocks for the disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::message::AddCheckpoint;
use super::state::{Seen, State, StateError, origin_hash};
use crate::log::Checkpoint;
use crate::log::proof::{ProofError, verify_consistency};
use crate::log::tree::Hash;
use crate::trust::note::{Cosigner, Note, NoteError, Verifier};

/// A clock set back by no more than this goes unnoticed: the last time is used again. Beyond, the witness does not sign.
const CLOCK_SLACK: u64 = 5;

/// Why a witness does not start.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// Its state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A checkpoint that cannot be cosigned.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its own key is listed as a log's.
    #[error("the log {0} is listed with the witness's own key")]
    OwnKey(String),
    /// A log's key is a witness's.
    #[error("{0} is a witness's key, not a log's")]
    NotALog(String),
}

/// What a witness answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200: its cosignature, a line.
    Cosigned(String),
    /// 400: no request, or an old size above the new one.
    Malformed(String),
    /// 404: it does not know this log.
    UnknownLog,
    /// 403: the log has not signed it, or not well.
    NotSigned,
    /// 409: the old size is not where the witness stands; this is.
    Conflict(u64),
    /// 422: the proof does not hold, or the same size had another root.
    Inconsistent(String),
    /// 503: it cannot sign now.
    Unavailable(&'static str),
}

impl Answer {
    /// The status code of HTTP.
    pub fn status(&self) -> u16 {
        match self {
            Self::Cosigned(_) => 200,
            Self::Malformed(_) => 400,
            Self::NotSigned => 403,
            Self::UnknownLog => 404,
            Self::Conflict(_) => 409,
            Self::Inconsistent(_) => 422,
            Self::Unavailable(_) => 503,
        }
    }
}

/// A witness: its key, the logs that it follows, and what it has cosigned.
#[derive(Debug)]
pub struct Witness {
    cosigner: Cosigner,
    state: State,
    logs: HashMap<String, Followed>,
    /// Origins by their hash.
    hashes: HashMap<String, String>,
}

#[derive(Debug, Default)]
struct Followed {
    /// None for a log that is no longer followed: it stays where it was.
    keys: Vec<Verifier>,
    seen: Mutex<Option<Seen>>,
}

impl Witness {
    /// Of these logs, going on from its state. Several keys of one origin are that log's.
    pub fn new(cosigner: Cosigner, logs: &[Verifier], state: State, seen: Vec<Seen>) -> Result<Self, WitnessError> {
        let own = cosigner.verifier().public_key();
        let mut followed: HashMap<String, Followed> = HashMap::new();
        for key in logs {
            if key.is_cosigner() {
                return Err(WitnessError::NotALog(key.to_string()));
            }
            if key.public_key() == own {
                return Err(WitnessError::OwnKey(key.name().into()));
            }
            followed.entry(key.name().into()).or_default().keys.push(key.clone());
        }
        for seen in seen {
            tell_size(&seen);
            let origin = seen.checkpoint.origin.clone();
            let keys = followed.get(&origin).map_or(&[][..], |log| &log.keys);
            // None of its keys is well: they may be new. A bad one is not.
            if let Err(error @ NoteError::BadSignature(_)) = Note::parse(&seen.checkpoint.note)?.verify(keys) {
                return Err(error.into());
            }
            followed.entry(origin).or_default().seen = Mutex::new(Some(seen));
        }
        let hashes = followed.keys().map(|origin| (origin_hash(origin), origin.clone())).collect();
        Ok(Self { cosigner, state, logs: followed, hashes })
    }

    /// Its public key.
    pub fn verifier(&self) -> Verifier {
        self.cosigner.verifier()
    }

    /// What it has cosigned last of each log, by origin; none where it has yet to see one.
    pub fn seen(&self) -> Vec<(&str, Option<Seen>)> {
        let mut all: Vec<_> = self.logs.iter().map(|(origin, log)| (origin.as_str(), log.latest())).collect();
        all.sort_by_key(|(origin, _)| *origin);
        all
    }

    /// The last cosigned checkpoint of the log whose origin has this SHA-256, in hex.
    pub fn latest_by_hash(&self, hash: &str) -> Option<Seen> {
        self.logs.get(self.hashes.get(hash)?)?.latest()
    }

    /// Judges a request's body at a time in Unix seconds. Blocks: a cosignature is on the disk when it is returned.
    pub fn add_checkpoint(&self, body: &[u8], now: u64) -> Answer {
        let request = match AddCheckpoint::parse(body) {
            Ok(request) => request,
            Err(error) => return Answer::Malformed(error.to_string()),
        };
        let (note, checkpoint) = match (Note::parse(&request.checkpoint), Checkpoint::parse(&request.checkpoint)) {
            (Ok(note), Ok(checkpoint)) => (note, checkpoint),
            (Err(error), _) => return Answer::Malformed(error.to_string()),
            (_, Err(error)) => return Answer::Malformed(error.to_string()),
        };
        let Some(log) = self.logs.get(&checkpoint.origin).filter(|log| !log.keys.is_empty()) else {
            return Answer::UnknownLog;
        };
        // No signature of its keys, or a bad one.
        if note.verify(&log.keys).is_err() {
            return Answer::NotSigned;
        }
        if request.old > checkpoint.size {
            return Answer::Malformed(format!("old {} is more than the size {}", request.old, checkpoint.size));
        }

        // What a poisoned lock guards is what is on the disk, or older.
        let mut seen = log.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (size, root) = match &*seen {
            Some(seen) => (seen.checkpoint.size, seen.checkpoint.root),
            None => (0, Hash::of_nothing()),
        };
        if let Some(seen) = seen.as_ref().filter(|_| checkpoint.size == size && checkpoint.root != root) {
            // Signed by the log, as that one was: whatever old size came with it, this is proof.
            self.tell_contradiction(&seen.checkpoint, &note.only_of(&log.keys));
        }
        if request.old != size {
            return Answer::Conflict(size);
        }
        if let Err(error) = consistent(size, root, &checkpoint, &request.proof) {
            tracing::warn!(log = checkpoint.origin, seen = size, size = checkpoint.size, error, "not cosigned");
            return Answer::Inconsistent(error);
        }
        let last = seen.as_ref().map_or(0, |seen| seen.time);
        if now.saturating_add(CLOCK_SLACK) < last {
            tracing::error!(log = checkpoint.origin, now, last, "the clock is behind the last cosignature: not signed");
            return Answer::Unavailable("the witness's clock is behind its last cosignature");
        }
        let time = now.max(last);
        if let Some(seen) =
            seen.as_ref().filter(|seen| seen.time == time && size == checkpoint.size && request.old == size)
        {
            // The same again within the same second: nothing new to keep.
            return Answer::Cosigned(seen.line.clone());
        }
        match self.cosign(&note.only_of(&log.keys), checkpoint, time) {
            Ok(next) => {
                tell_size(&next);
                let line = next.line.clone();
                *seen = Some(next);
                Answer::Cosigned(line)
            }
            Err(error) => {
                tracing::error!(%error, "a checkpoint could not be kept: not cosigned");
                Answer::Unavailable("the witness cannot keep what it would sign")
            }
        }
    }

    /// Signs and keeps. Nobody has the cosignature before this returns.
    fn cosign(&self, note: &Note, checkpoint: Checkpoint, time: u64) -> Result<Seen, WitnessError> {
        let mut note = note.clone();
        let cosignature = self.cosigner.cosign(note.text(), time)?;
        let line = cosignature.to_string();
        note.add(cosignature)?;
        let next = Seen { checkpoint: Checkpoint { note: note.to_string(), ..checkpoint }, time, line };
        self.state.remember(&next)?;
        Ok(next)
    }

    fn tell_contradiction(&self, cosigned: &Checkpoint, other: &Note) {
        let (log, size) = (&cosigned.origin, cosigned.size);
        metrics::counter!("kopuro_witness_contradictions_total", "log" => log.clone()).increment(1);
        match self.state.keep_evidence(log, &cosigned.note, &other.to_string()) {
            Ok(true) => tracing::error!(log, size, "the log signed two roots for one size: kept as evidence"),
            Ok(false) => {}
            Err(error) => tracing::error!(log, size, %error, "the log signed two roots for one size; not kept"),
        }
    }
}

impl Followed {
    fn latest(&self) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn consistent(old: u64, root: Hash, new: &Checkpoint, proof: &[Hash]) -> Result<(), String> {
    if new.size == 0 && new.root != Hash::of_nothing() {
        return Err("an empty log has another root".into());
    }
    verify_consistency(old, root, new.size, new.root, proof).map_err(|error| match error {
        ProofError::Root { .. } if old == new.size => "another root was cosigned for this size".into(),
        error => error.to_string(),
    })
}

fn tell_size(seen: &Seen) {
    metrics::gauge!("kopuro_witness_size", "log" => seen.checkpoint.origin.clone()).set(seen.checkpoint.size as f64);
}
