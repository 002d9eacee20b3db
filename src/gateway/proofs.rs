//! No proof, no passage: what a message between nodes has to show, and what is made of it.
//!
//! A request shows `REQUEST_SENT`; an answer shows the provider's closing entry, or its refusal; a streamed answer shows
//! `REQUEST_RECEIVED` in its headers and the closing entry in its trailers; a streamed request shows `REQUEST_COMPLETED` in its own
//! trailers. The entry must be in the sender's log, under a checkpoint that its key signed, must speak of this very call, and must
//! commit to the payload that came. Anything else is not carried.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Code;

use super::exchange::{Exchange, recorded, sizes};
use super::framing::Totals;
use super::metadata::{self, CallMetadata, NodeMetadata};
use super::peer_log::{Distrust, PeerLog};
use super::refusal::Refusal;
use crate::log::Checkpoint;
use crate::log::entry::{Kind, Outcome, Slot};
use crate::log::entry_proof::{EntryProof, Proven};

/// Carries an [`EntryProof`], in base64 as gRPC's binary metadata.
pub(super) const PROOF: HeaderName = HeaderName::from_static("kopuro-proof-bin");

/// What an opening entry's proof opens: what the other side is told anyway.
pub(super) const OF_REQUEST: [Slot; 4] = [Slot::RequestDigest, Slot::Subject, Slot::User, Slot::Case];
/// What a closing entry's proof opens.
pub(super) const OF_CLOSING: [Slot; 3] = [Slot::RequestDigest, Slot::ResponseDigest, Slot::Sizes];

/// The reason of a refusal for which there can be no proof.
const LOG_UNAVAILABLE: &str = "LOG_UNAVAILABLE";

/// How an answer's proof was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// As the answer says.
    Logged,
    /// The provider's node says that it cannot write its log, and nothing else of what it says counts: the caller is told so in
    /// this node's own words.
    NoLog,
}

/// Takes the proof out of metadata.
pub(super) fn take(headers: &mut HeaderMap) -> Option<HeaderValue> {
    headers.remove(PROOF)
}

/// Adds a proof to metadata.
pub(super) fn put(headers: &mut HeaderMap, proof: Option<HeaderValue>) {
    if let Some(proof) = proof {
        headers.insert(PROOF, proof);
    }
}

/// As the value of [`PROOF`]; not for the connection's table of headers, which it would only fill.
pub(super) fn to_header(proof: &EntryProof) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&proof.to_base64()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A request's proof: `REQUEST_SENT` of this exchange, committing to what the caller is said to have said. The payload is compared
/// when it is there, by [`payload`].
pub(super) fn request(
    log: &PeerLog,
    proof: Option<&HeaderValue>,
    exchange: &mut Exchange,
    node: &NodeMetadata,
    call: &CallMetadata,
) -> Result<Proven, Refusal> {
    let code = Code::PermissionDenied;
    let (proven, checkpoint) = read(log, proof, code)?;
    let invalid = |why: String| Refusal::proof_invalid(code, log.node(), why);
    speaks_of(&proven, exchange, Kind::RequestSent).map_err(invalid)?;
    let entry = proven.entry();
    if entry.legal_basis != call.purpose.as_deref().unwrap_or_default() {
        return Err(invalid("its entry has another legal basis than the call".into()));
    }
    if (entry.publication(), entry.delay_days) != recorded(node.publication) {
        return Err(invalid("its entry is of another publication class than it says".into()));
    }
    for (slot, said) in [(Slot::Subject, &call.subject), (Slot::User, &call.user), (Slot::Case, &call.case)] {
        if let Some(value) = said {
            proven.opens(slot, value.as_bytes()).map_err(|error| invalid(error.to_string()))?;
        }
    }
    exchange.peer_checkpoint.clone_from(&checkpoint.note);
    Ok(proven)
}

/// Whether a request's entry commits to the message that came.
pub(super) fn payload(log: &PeerLog, proven: &Proven, request: &Totals) -> Result<(), Refusal> {
    let held = proven.opens(Slot::RequestDigest, &request.digest);
    held.map_err(|error| Refusal::proof_invalid(Code::PermissionDenied, log.node(), error.to_string()))
}

/// The end of a streamed request: `REQUEST_COMPLETED`, committing to all messages.
pub(super) fn completed(
    log: &PeerLog,
    trailers: Option<&HeaderMap>,
    told: &Told,
    request: &Totals,
) -> Result<(), Refusal> {
    let (proven, _) = read(log, trailers.and_then(|trailers| trailers.get(PROOF)), Code::PermissionDenied)?;
    told.is_of(&proven, Kind::RequestCompleted)
        .and_then(|()| proven.opens(Slot::RequestDigest, &request.digest).map_err(|error| error.to_string()))
        .map_err(|why| Refusal::proof_invalid(Code::PermissionDenied, log.node(), why))
}

/// The head of a streamed answer: `REQUEST_RECEIVED` of this exchange.
pub(super) fn received(log: &PeerLog, headers: &HeaderMap, exchange: &mut Exchange) -> Result<(), Refusal> {
    let (proven, checkpoint) = read(log, headers.get(PROOF), Code::Internal)?;
    speaks_of(&proven, exchange, Kind::RequestReceived)
        .map_err(|why| Refusal::proof_invalid(Code::Internal, log.node(), why))?;
    exchange.peer_checkpoint.clone_from(&checkpoint.note);
    Ok(())
}

/// The end of an answer: the provider's closing entry, or its refusal, saying what the trailers say and committing to what came.
/// `proof` stands in the headers of a whole answer, in the trailers of a streamed one. `request` and `response` are what passed, and
/// whether it is a stream.
pub(super) fn closing(
    log: &PeerLog,
    proof: Option<&HeaderValue>,
    trailers: &HeaderMap,
    exchange: &mut Exchange,
    request: (&Totals, bool),
    response: (&Totals, bool),
) -> Result<Shown, Refusal> {
    let said = trailers.get(metadata::REFUSED).and_then(|said| said.to_str().ok()?.split_once(' '));
    let status = trailers.get(metadata::STATUS).and_then(|status| status.to_str().ok()?.parse::<u32>().ok());
    if let (None, Some((_, LOG_UNAVAILABLE))) = (proof, said) {
        return Ok(Shown::NoLog);
    }
    let (proven, checkpoint) = read(log, proof, Code::Internal)?;
    let invalid = |why: String| Refusal::proof_invalid(Code::Internal, log.node(), why);
    let entry = proven.entry();
    let (response, streamed) = response;
    // Of these no entry commits to a payload: none may come with them but what has streamed before.
    if said.is_some() && (status == Some(0) || (response.bytes > 0 && !streamed)) {
        return Err(invalid("it says that it came to no answer, and answers".into()));
    }
    let kind = match said {
        None => Kind::ResponseSent,
        Some(("refused", _)) => Kind::Refused,
        Some(_) => Kind::Failed,
    };
    if kind != Kind::Refused {
        speaks_of(&proven, exchange, kind).map_err(invalid)?;
    } else if entry.kind() != Kind::Refused || response.bytes > 0 {
        // A refusal may stand under an id of the provider's own: nothing passed.
        return Err(invalid("its entry is not of the refusal that it answers with".into()));
    }
    if Some(entry.grpc_status) != status {
        return Err(invalid("its entry has another status than its answer".into()));
    }
    match said {
        Some((_, reason)) if entry.reason != reason => {
            return Err(invalid("its entry has another reason than its answer".into()));
        }
        None if (entry.outcome() == Outcome::Ok) != (status == Some(0)) => {
            return Err(invalid("its entry has another outcome than its answer".into()));
        }
        None => {
            let held = proven.opens(Slot::ResponseDigest, &response.digest);
            held.and_then(|()| request_as_sent(&proven, request, response))
                .map_err(|error| invalid(error.to_string()))?;
        }
        Some(_) => {}
    }
    exchange.peer_checkpoint.clone_from(&checkpoint.note);
    Ok(Shown::Logged)
}

/// The provider's closing entry commits to the request as it was sent. Of a streamed one it may have taken less than was sent: its
/// system may answer before it has read all.
fn request_as_sent(
    proven: &Proven,
    (request, streamed): (&Totals, bool),
    response: &Totals,
) -> Result<(), crate::log::entry_proof::EntryProofError> {
    if request.messages == 0 {
        return Ok(());
    }
    let digest = proven.opens(Slot::RequestDigest, &request.digest);
    if !streamed || digest.is_ok() {
        return digest;
    }
    // As long as what was sent, and another digest: that is no shorter beginning of it.
    match proven.opens(Slot::Sizes, &sizes(request, Some(response))) {
        Ok(()) => digest,
        Err(_) => Ok(()),
    }
}

/// What an exchange's entries must say, kept apart for a body that outlives the borrow of its exchange.
#[derive(Debug, Clone)]
pub(super) struct Told {
    id: uuid::Uuid,
    consumer: String,
    provider: String,
    service: String,
    method: String,
}

impl Told {
    pub(super) fn by(exchange: &Exchange) -> Self {
        Self {
            id: exchange.id,
            consumer: exchange.consumer.clone(),
            provider: exchange.provider.clone(),
            service: exchange.service.clone(),
            method: exchange.method.clone(),
        }
    }

    fn is_of(&self, proven: &Proven, kind: Kind) -> Result<(), String> {
        is_of(proven, kind, &self.id, [&self.consumer, &self.provider, &self.service, &self.method])
    }
}

fn speaks_of(proven: &Proven, exchange: &Exchange, kind: Kind) -> Result<(), String> {
    let Exchange { id, consumer, provider, service, method, .. } = exchange;
    is_of(proven, kind, id, [consumer, provider, service, method])
}

fn is_of(proven: &Proven, kind: Kind, id: &uuid::Uuid, parties: [&String; 4]) -> Result<(), String> {
    let entry = proven.entry();
    if entry.kind() != kind {
        return Err(format!("its entry is a {}", entry.kind().as_str_name()));
    }
    let said = [&entry.consumer, &entry.provider, &entry.service, &entry.method];
    if entry.exchange_id == id.as_bytes()[..] && said == parties {
        Ok(())
    } else {
        Err("its entry is of another exchange".into())
    }
}

fn read(log: &PeerLog, proof: Option<&HeaderValue>, code: Code) -> Result<(Proven, Arc<Checkpoint>), Refusal> {
    let proof = proof.ok_or_else(|| Refusal::proof_missing(code, log.node()))?;
    let invalid = |why: String| Refusal::proof_invalid(code, log.node(), why);
    let proof = EntryProof::read(proof.as_bytes()).map_err(|error| invalid(error.to_string()))?;
    let checkpoint = log.take(proof.checkpoint()).map_err(|distrust| match distrust {
        Distrust::Checkpoint(_) => invalid(distrust.to_string()),
        Distrust::Contradicts => Refusal::peer_contradicts(log.node(), &distrust),
        Distrust::Unproven(_) => Refusal::peer_unproven(log.node(), &distrust),
    })?;
    let proven = proof.verify(&checkpoint).map_err(|error| invalid(error.to_string()))?;
    Ok((proven, checkpoint))
}
