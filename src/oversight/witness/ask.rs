//! One witness, asked once: the request, one correction of the size where it stands elsewhere, and a verdict on what
//! it answers. Whatever is not a good cosignature by its key is a fault of that witness and of nobody else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;

use super::message::{AddCheckpoint, SIZE_TYPE, parse_size};
use crate::log::{Checkpoint, Log};
use crate::trust::note::{Note, Signature, Verifier};
use crate::trust::tls::reasons;

/// No witness has reason to answer with more.
const MAX_ANSWER: usize = 64 << 10;
/// As much of a witness's own words is passed on.
const MAX_WORDS: usize = 200;

pub(super) type Web = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What was wrong with a witness.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitnessFault {
    /// Nothing came within the time that it has.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// It cannot be reached, or the connection broke.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// A status that is no cosignature.
    #[error("answered {status}: {words}")]
    Refused {
        /// The status.
        status: u16,
        /// What it said with it, shortened.
        words: String,
    },
    /// A 409 that names no size.
    #[error("answered 409 without a size")]
    NoSize,
    /// It has seen a larger log than this checkpoint has.
    #[error("has seen {0} entries of this log, more than the checkpoint has")]
    Ahead(u64),
    /// It names another size each time.
    #[error("answered 409 with {0}, and 409 again to that")]
    Undecided(u64),
    /// The answer is not made of signature lines.
    #[error("its answer is no cosignature: {0}")]
    Malformed(String),
    /// No line in the answer is of its key.
    #[error("its answer has no cosignature of its key")]
    OtherKey,
    /// A line says that it is of its key, and is not of this checkpoint.
    #[error("its cosignature is not of this checkpoint")]
    BadCosignature,
    /// No proof could be made for it from our own log.
    #[error("no consistency proof for it: {0}")]
    NoProof(String),
}

impl WitnessFault {
    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Silent(_) => "silent",
            Self::Unreachable(_) => "unreachable",
            Self::Refused { .. } => "refused",
            Self::NoSize | Self::Undecided(_) => "conflict",
            Self::Ahead(_) => "ahead",
            Self::Malformed(_) | Self::OtherKey | Self::BadCosignature => "wrong",
            Self::NoProof(_) => "proof",
        }
    }
}

/// A witness that can be asked.
#[derive(Debug)]
pub(super) struct Remote {
    /// Its place among the policy's witnesses.
    pub(super) index: usize,
    /// Its name in the policy.
    pub(super) name: String,
    pub(super) key: Verifier,
    /// `<prefix>/add-checkpoint`
    pub(super) url: Uri,
    /// The size that it cosigned last, as far as this process knows: a guess, corrected by its answers.
    pub(super) last: Mutex<Option<u64>>,
    /// Whether it was at fault the last time: what changes is told, not what stays.
    pub(super) at_fault: AtomicBool,
}

enum Told {
    Cosigned(Signature),
    /// It stands at this size.
    At(u64),
}

impl Remote {
    /// Its cosignature of a checkpoint of this log. The caller bounds the time.
    pub(super) async fn ask(&self, web: &Web, log: &Log, checkpoint: &Checkpoint) -> Result<Signature, WitnessFault> {
        // One that it has told before, unless it lies beyond this checkpoint.
        let remembered = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let old = remembered.filter(|last| *last <= checkpoint.size).unwrap_or(0);
        let cosignature = match self.send(web, log, checkpoint, old).await? {
            Told::Cosigned(cosignature) => cosignature,
            Told::At(size) => {
                self.stands_at(size, remembered, checkpoint)?;
                match self.send(web, log, checkpoint, size).await? {
                    Told::Cosigned(cosignature) => cosignature,
                    Told::At(_) => return Err(WitnessFault::Undecided(size)),
                }
            }
        };
        self.remember(checkpoint.size);
        Ok(cosignature)
    }

    /// For metrics and the operator: what came of asking it for a cosignature of a checkpoint of this log and size.
    pub(super) fn tell(&self, log: &str, size: u64, fault: Option<&WitnessFault>) {
        let (log, witness) = (log.to_owned(), self.name.clone());
        let was = self.at_fault.swap(fault.is_some(), Ordering::Relaxed);
        match fault {
            None => {
                metrics::gauge!("kopuro_cosigned_size", "log" => log, "witness" => witness).set(size as f64);
                if was {
                    tracing::info!(witness = self.name, size, "cosigns again");
                }
            }
            Some(fault) => {
                let labels = [("log", log), ("witness", witness), ("reason", fault.reason().to_owned())];
                metrics::counter!("kopuro_cosignature_failures_total", &labels).increment(1);
                if was {
                    tracing::debug!(witness = self.name, size, %fault, "no cosignature");
                } else {
                    tracing::warn!(witness = self.name, size, %fault, "no cosignature");
                }
            }
        }
    }

    fn stands_at(&self, size: u64, remembered: Option<u64>, checkpoint: &Checkpoint) -> Result<(), WitnessFault> {
        if size > checkpoint.size {
            // Not remembered: a size that we never had would only mislead the next request.
            return Err(WitnessFault::Ahead(size));
        }
        if let Some(last) = remembered.filter(|last| *last > size) {
            tracing::error!(witness = self.name, last, size, "a witness has forgotten a checkpoint that it cosigned");
        }
        self.remember(size);
        Ok(())
    }

    fn remember(&self, size: u64) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(size);
    }

    async fn send(&self, web: &Web, log: &Log, checkpoint: &Checkpoint, old: u64) -> Result<Told, WitnessFault> {
        let (log, new) = (log.clone(), checkpoint.size);
        let proof = tokio::task::spawn_blocking(move || log.consistency_proof(old, new))
            .await
            .map_err(|error| WitnessFault::NoProof(error.to_string()))?
            .map_err(|error| WitnessFault::NoProof(error.to_string()))?;
        let body = AddCheckpoint { old, proof, checkpoint: checkpoint.note.clone() }.to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.url.clone())
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(Full::from(body))
            .map_err(|error| WitnessFault::Unreachable(error.to_string()))?;
        let response = web.request(request).await.map_err(|error| WitnessFault::Unreachable(reasons(&error)))?;
        self.judge(response, checkpoint).await
    }

    async fn judge(&self, response: Response<Incoming>, checkpoint: &Checkpoint) -> Result<Told, WitnessFault> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| WitnessFault::Unreachable(reasons(error.as_ref())))?.to_bytes();
        match head.status {
            StatusCode::OK => self.cosignature(&body, checkpoint).map(Told::Cosigned),
            StatusCode::CONFLICT => {
                let typed = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == SIZE_TYPE.as_bytes());
                parse_size(&body).filter(|_| typed).map(Told::At).ok_or(WitnessFault::NoSize)
            }
            status => Err(WitnessFault::Refused { status: status.as_u16(), words: words(&body) }),
        }
    }

    fn cosignature(&self, body: &[u8], checkpoint: &Checkpoint) -> Result<Signature, WitnessFault> {
        let malformed = |reason: String| WitnessFault::Malformed(reason);
        let lines = std::str::from_utf8(body).map_err(|_| malformed("not UTF-8".into()))?;
        let lines = Signature::parse_lines(lines).map_err(|error| malformed(error.to_string()))?;
        let note = Note::parse(&checkpoint.note).map_err(|error| malformed(error.to_string()))?;
        // Lines of other keys are not ours to judge.
        let mut own = lines.into_iter().filter(|line| line.is_of(&self.key));
        let first = own.next().ok_or(WitnessFault::OtherKey)?;
        if std::iter::once(&first)
            .chain(&own.collect::<Vec<_>>())
            .any(|line| !self.key.verifies(note.text(), &line.bytes))
        {
            return Err(WitnessFault::BadCosignature);
        }
        Ok(first)
    }
}

/// The beginning of what a witness says, fit for a line of ours.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let shown = text.trim().chars().take(MAX_WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    if shown.is_empty() { "nothing more".into() } else { shown }
}
