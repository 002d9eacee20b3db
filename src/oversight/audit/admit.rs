//! Who may ask, and the entry that says who did: written and durable before anything is answered.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Status};
use uuid::Uuid;

use super::AuditService;
use crate::log::entry::{Draft, ExchangeKey, Kind, Outcome, Publication, Side, Slot};
use crate::oversight::status;
use crate::trust::certificate::PeerIdentity;

/// The service's name, in entries.
const SERVICE: &str = "kopuro.audit.v1.AuditLog";
/// Reason of a refusal.
const NOT_AN_AUDITOR: &str = "NOT_AN_AUDITOR";

/// A request that has been logged.
pub(super) struct Admitted<R> {
    request: R,
    auditor: String,
}

impl<R> Admitted<R> {
    pub(super) fn get_ref(&self) -> &R {
        &self.request
    }

    /// Who asks.
    pub(super) fn auditor(&self) -> &str {
        &self.auditor
    }
}

impl AuditService {
    /// Logs the request, and lets it through where the caller is an auditor.
    pub(super) async fn admit<R: Message>(&self, method: &str, request: Request<R>) -> Result<Admitted<R>, Status> {
        let Some(peer) = request.extensions().get::<Arc<PeerIdentity>>().cloned() else {
            return Err(Status::unauthenticated("no verified client certificate"));
        };
        let address = request.remote_addr();
        let request = request.into_inner();
        let is_auditor = (self.is_auditor)(&peer);
        let auditor = peer.identity.to_string();

        let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        let key = ExchangeKey::generate();
        let mut draft = Draft::new(Kind::Audit, Uuid::now_v7(), i64::try_from(now).unwrap_or(i64::MAX), &key);
        draft.consumer.clone_from(&auditor);
        draft.provider = self.member.to_string();
        draft.service = SERVICE.into();
        draft.method = method.into();
        draft.publication = Publication::Public;
        // What the answer turns out to be is not logged: that they looked is.
        draft.outcome = Outcome::Ok;
        if !is_auditor {
            draft.outcome = Outcome::Refused;
            draft.grpc_status = tonic::Code::PermissionDenied as u32;
            draft.reason = NOT_AN_AUDITOR.into();
            draft.side = Side::Provider;
        }
        draft.set(Slot::Query, query(&request));
        if let Some(address) = address {
            draft.set(Slot::Address, address.ip().to_string());
        }
        self.log.append(draft.seal()).await.map_err(|error| {
            tracing::warn!(%error, method, "an auditor's question is refused: it could not be logged");
            status::with_reason(tonic::Code::Unavailable, "the log takes no entries", "LOG_UNAVAILABLE")
        })?;
        if is_auditor {
            Ok(Admitted { request, auditor })
        } else {
            let text = "the directory does not list the caller as an auditor";
            Err(status::with_reason(tonic::Code::PermissionDenied, text, NOT_AN_AUDITOR))
        }
    }
}

/// The request's bytes; of one too large for an entry, its beginning.
fn query(request: &impl Message) -> Vec<u8> {
    const MOST: usize = 32_768;
    let mut bytes = request.encode_to_vec();
    bytes.truncate(MOST);
    bytes
}
