//! Who may ask about a person, and the entry that says who did: written and durable before anything is answered.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::find::is_subject;
use super::{SubjectService, now_unix_ms};
use crate::log::entry::further_field::Field;
use crate::log::entry::{self, Draft, ExchangeKey, FurtherField, Kind, Outcome, Side, Slot};
use crate::log::further::MAX_SUBJECT;
use crate::oversight::status;
use crate::policy::{Denial, Publication};
use crate::trust::certificate::PeerIdentity;

/// What a question is about.
#[derive(Default)]
pub(super) struct About {
    /// The person; empty where it is about none.
    pub(super) subject: Zeroizing<Vec<u8>>,
    /// More persons, where it is about an entry that names them.
    pub(super) others: Vec<Zeroizing<Vec<u8>>>,
    /// The question's own entry shows no more than entries of this class do.
    pub(super) class: Publication,
}

/// Why a caller may not ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotPermitted {
    /// gRPC status code.
    pub code: Code,
    /// Stable reason.
    pub reason: &'static str,
    /// For people.
    pub text: String,
}

impl From<Denial> for NotPermitted {
    fn from(denial: Denial) -> Self {
        Self { code: denial.code(), reason: denial.reason(), text: denial.to_string() }
    }
}

impl SubjectService {
    /// Logs the question and lets it through where a grant allows it.
    pub(super) async fn admit<R: Message>(
        &self,
        service: &str,
        method: &str,
        request: Request<R>,
        about: &About,
    ) -> Result<R, Status> {
        let Some(peer) = request.extensions().get::<Arc<PeerIdentity>>().cloned() else {
            return Err(Status::unauthenticated("no verified client certificate"));
        };
        let address = request.remote_addr();
        let permitted = (self.permit)(&peer, service, method, text(request.metadata(), "kopuro-purpose"));

        let mut draft = Draft::new(Kind::Audit, Uuid::now_v7(), now_unix_ms(), &ExchangeKey::generate());
        draft.consumer = peer.identity.to_string();
        draft.provider = self.member.to_string();
        draft.service = service.into();
        draft.method = method.into();
        // What the answer turns out to be is not logged: that they looked is.
        draft.outcome = Outcome::Ok;
        let mut class = about.class;
        match &permitted {
            Ok(grant) => {
                draft.legal_basis.clone_from(&grant.legal_basis.code);
                class = class.stricter(grant.publication.unwrap_or_default());
            }
            Err(refused) => {
                draft.outcome = Outcome::Refused;
                draft.grpc_status = refused.code as u32;
                draft.reason = refused.reason.into();
                draft.side = Side::Provider;
            }
        }
        (draft.publication, draft.delay_days) = match class {
            Publication::Public => (entry::Publication::Public, 0),
            Publication::Delayed { days } => (entry::Publication::Delayed, days),
            Publication::Sealed => (entry::Publication::Sealed, 0),
        };
        for (slot, name) in [(Slot::User, "kopuro-user"), (Slot::Case, "kopuro-case")] {
            if let Some(value) = text(request.metadata(), name) {
                draft.set(slot, value);
            }
        }
        let request = request.into_inner();
        draft.set(Slot::Query, query(&request));
        if (1..=MAX_SUBJECT).contains(&about.subject.len()) {
            draft.set(Slot::Subject, about.subject.to_vec());
        }
        for other in &about.others {
            // As many as one entry names find room in another.
            draft.add(&FurtherField { field: Some(Field::Subject(Bytes::copy_from_slice(other))) });
        }
        if let Some(address) = address {
            draft.set(Slot::Address, address.ip().to_string());
        }
        self.log.append(draft.seal()).await.map_err(|error| {
            tracing::warn!(%error, method, "a question about a subject is refused: it could not be logged");
            status::with_reason(Code::Unavailable, "the log takes no entries", "LOG_UNAVAILABLE")
        })?;
        match permitted {
            Ok(_) => Ok(request),
            Err(refused) => Err(status::with_reason(refused.code, &refused.text, refused.reason)),
        }
    }
}

fn text<'m>(metadata: &'m MetadataMap, name: &str) -> Option<&'m str> {
    metadata.get(name)?.to_str().ok().filter(|text| is_subject(text.as_bytes()))
}

/// The request's bytes; of one too large for an entry, its beginning.
fn query(request: &impl Message) -> Vec<u8> {
    const MOST: usize = 8_192;
    let mut bytes = request.encode_to_vec();
    bytes.truncate(MOST);
    bytes
}
