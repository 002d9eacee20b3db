//! The gateway's own errors, as a caller sees them: a gRPC status, a message naming the cause, and
//! `google.rpc.ErrorInfo` with domain `kopuro`, a stable reason and the side that refused. One constructor per rule, so this
//! file is the list of reasons.

use std::time::Duration;

use http::HeaderMap;
use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt};

use super::body::BoxError;
use super::framing::FramingError;
use super::metadata::MetadataError;
use super::typed::ENCODINGS;
use crate::log::further::Direction;
use crate::policy::Denial;
use crate::proto::kopuro::log::v1::Side;
use crate::schema::json::JsonError;
use crate::schema::plan::Violation;
use crate::trust::identity::{Identity, MemberId, SystemId};

/// The domain of our `ErrorInfo`.
pub const DOMAIN: &str = "kopuro";

/// Why a node did not carry a call.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// gRPC status code.
    pub(super) code: Code,
    /// Stable, UPPER_SNAKE_CASE: in `ErrorInfo.reason`, in the log entry, in metrics.
    pub(super) reason: &'static str,
    /// For people; holds nothing from a payload.
    pub(super) message: String,
    /// When to try again, where that is known.
    pub(super) retry_after: Option<Duration>,
}

impl Refusal {
    /// Reasons for which what a peer sent is refused that only a peer gives who does not do what it must.
    pub(super) const MISBEHAVIOUR: [&str; 3] = ["PROOF_MISSING", "PROOF_INVALID", "PEER_LOG_CONTRADICTS"];

    fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), retry_after: None }
    }

    /// The path is not `/package.Service/Method`, or the content type is not gRPC's.
    pub(super) fn malformed(what: &str) -> Self {
        Self::new(Code::InvalidArgument, "MALFORMED_CALL", what)
    }

    /// The certificate behind the connection is no longer good.
    pub(super) fn certificate(why: impl std::fmt::Display) -> Self {
        Self::new(Code::Unauthenticated, "CERTIFICATE_NOT_VALID", format!("the client certificate is not valid: {why}"))
    }

    /// A certificate of another role than the listener serves.
    pub(super) fn wrong_listener(identity: &Identity, listener: &str) -> Self {
        Self::new(Code::PermissionDenied, "WRONG_LISTENER", format!("{identity} may not call here: {listener}"))
    }

    /// The certificate is good, but the directory does not list its holder.
    pub(super) fn not_in_directory(who: impl std::fmt::Display) -> Self {
        Self::new(Code::Unauthenticated, "NOT_IN_DIRECTORY", format!("{who} is not listed in the directory"))
    }

    /// A node that speaks for a system of another member.
    pub(super) fn foreign_consumer(node: &Identity, consumer: &SystemId) -> Self {
        Self::new(
            Code::PermissionDenied,
            "FOREIGN_CONSUMER",
            format!("{node} may not speak for {consumer}: it is another member's system"),
        )
    }

    /// Bad metadata.
    pub(super) fn metadata(error: &MetadataError) -> Self {
        let reason = match error {
            MetadataError::Reserved(_) => "RESERVED_METADATA",
            _ => "INVALID_METADATA",
        };
        Self::new(Code::InvalidArgument, reason, error.to_string())
    }

    /// No system offers the service.
    pub(super) fn service_unknown(service: &str) -> Self {
        Self::new(Code::Unimplemented, "SERVICE_UNKNOWN", format!("no system in the directory offers {service}"))
    }

    /// The service has no such method.
    pub(super) fn method_unknown(service: &str, method: &str) -> Self {
        Self::new(Code::Unimplemented, "METHOD_UNKNOWN", format!("{service} has no method {method}"))
    }

    /// The named provider does not offer the service.
    pub(super) fn provider_unknown(provider: &SystemId, service: &str) -> Self {
        Self::new(Code::NotFound, "PROVIDER_UNKNOWN", format!("{provider} does not offer {service}"))
    }

    /// Several systems offer the service and the call names none.
    pub(super) fn provider_required(service: &str, systems: &[&SystemId]) -> Self {
        let names: Vec<&str> = systems.iter().map(|s| s.as_str()).collect();
        Self::new(
            Code::FailedPrecondition,
            "PROVIDER_REQUIRED",
            format!("several systems offer {service}: name one in metadata kopuro-provider: {}", names.join(", ")),
        )
    }

    /// The provider is not this node's to answer for.
    pub(super) fn not_provider_here(provider: &SystemId) -> Self {
        Self::new(Code::NotFound, "PROVIDER_NOT_HERE", format!("{provider} is not a system of this node's member"))
    }

    /// What the grants or the outbound list say.
    pub(super) fn denied(denial: &Denial, consumer: &SystemId, service: &str, method: &str) -> Self {
        Self {
            code: denial.code(),
            reason: denial.reason(),
            message: format!("{consumer} may not call {service}/{method}: {denial}"),
            retry_after: denial.retry_after(),
        }
    }

    /// Too many exchanges at once.
    pub(super) fn overloaded(what: &str) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(Code::ResourceExhausted, "NODE_OVERLOADED", format!("the node is at its limit of {what}"))
        }
    }

    /// The exchange's id was used before, or is not of this time.
    pub(super) fn stale_exchange(why: &str) -> Self {
        Self::new(Code::AlreadyExists, "EXCHANGE_ID_REFUSED", why)
    }

    /// A message breaks the framing or the limit.
    pub(super) fn framing(error: FramingError, direction: &str) -> Self {
        match error {
            FramingError::TooLarge { .. } => {
                Self::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", format!("{direction}: {error}"))
            }
            _ if direction == "request" => {
                Self::new(Code::InvalidArgument, "MESSAGE_MALFORMED", format!("{direction}: {error}"))
            }
            _ => Self::new(Code::Internal, "RESPONSE_MALFORMED", format!("{direction}: {error}")),
        }
    }

    /// A message breaks its type's rules, or the grant's. Never holds a value of it.
    pub(super) fn violation(violation: &Violation, direction: Direction) -> Self {
        let (code, reason, of) = match (direction, violation) {
            (Direction::Response, _) => (Code::Internal, "RESPONSE_MALFORMED", "response"),
            (Direction::Request, Violation::Unknown { .. } | Violation::UnknownType { .. }) => {
                (Code::InvalidArgument, "UNKNOWN_FIELD", "request")
            }
            (Direction::Request, Violation::Rule { .. }) => (Code::InvalidArgument, "RULE_VIOLATED", "request"),
            (Direction::Request, _) => (Code::InvalidArgument, "MESSAGE_MALFORMED", "request"),
        };
        Self::new(code, reason, format!("{of}: {violation}"))
    }

    /// A compressed message that cannot be read.
    pub(super) fn compression(direction: Direction, why: &str) -> Self {
        match direction {
            Direction::Request => {
                Self::new(Code::InvalidArgument, "MESSAGE_MALFORMED", format!("request: a compressed message: {why}"))
            }
            Direction::Response => {
                Self::new(Code::Internal, "RESPONSE_MALFORMED", format!("response: a compressed message: {why}"))
            }
        }
    }

    /// A message compressed in a way that the node does not know: it could not look inside.
    pub(super) fn encoding_unknown(direction: Direction, name: &str) -> Self {
        match direction {
            Direction::Request => Self::new(
                Code::Unimplemented,
                "ENCODING_UNKNOWN",
                format!("request: messages may come as {ENCODINGS}, not as {name:?}"),
            ),
            Direction::Response => Self::new(
                Code::Internal,
                "RESPONSE_MALFORMED",
                format!("response: compressed as {name:?}, which was not accepted"),
            ),
        }
    }

    /// A compressed message that is too large when it is not.
    pub(super) fn decompressed_too_large(direction: Direction, limit: u32) -> Self {
        let of = if direction == Direction::Request { "request" } else { "response" };
        let what = format!("{of}: a compressed message has more than the limit of {limit} bytes");
        Self::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", what)
    }

    /// Metadata and message speak of different people.
    pub(super) fn subject_mismatch() -> Self {
        let what = "metadata kopuro-subject names somebody whom the request is not about: leave it out, the node takes \
                    the subject from the message";
        Self::new(Code::InvalidArgument, "SUBJECT_MISMATCH", what)
    }

    /// The types cannot be judged by: nothing passes.
    pub(super) fn unusable(service: &str, method: &str, why: impl std::fmt::Display) -> Self {
        let what = format!("{service}/{method}: the grant or the types cannot be used, so nothing passes: {why}");
        Self::new(Code::FailedPrecondition, "GRANT_UNUSABLE", what)
    }

    /// The sender of a request stopped in the middle.
    pub(super) fn request_broken(why: impl std::fmt::Display) -> Self {
        Self::new(Code::Cancelled, "REQUEST_INTERRUPTED", format!("the request ended before it was whole: {why}"))
    }

    /// The same; or what is wrong with it, where it was read in another protocol.
    pub(super) fn of_request(why: BoxError) -> Self {
        match why.downcast::<Self>() {
            Ok(refusal) => *refusal,
            Err(why) => Self::request_broken(why),
        }
    }

    /// A request in JSON that is not one of its type.
    pub(super) fn json(error: &JsonError) -> Self {
        let (code, reason) = match error {
            JsonError::UnknownField { .. } => (Code::InvalidArgument, "UNKNOWN_FIELD"),
            JsonError::TooLarge(_) | JsonError::TooManyValues(_) => (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            _ => (Code::InvalidArgument, "MESSAGE_MALFORMED"),
        };
        Self::new(code, reason, format!("request: {error}"))
    }

    /// An answer that cannot be told in JSON, or is not one of its type.
    pub(super) fn answer(why: impl std::fmt::Display) -> Self {
        Self::new(Code::Internal, "RESPONSE_MALFORMED", format!("response: {why}"))
    }

    /// A request in another protocol than gRPC that breaks that protocol's rules.
    pub(super) fn protocol(code: Code, what: impl Into<String>) -> Self {
        Self::new(code, "MALFORMED_CALL", what)
    }

    /// Asked by a page of another site, in a browser that holds the system's certificate.
    pub(super) fn cross_site() -> Self {
        let what = "a page of another site may not call with this system's certificate";
        Self::new(Code::PermissionDenied, "CROSS_SITE", what)
    }

    /// No method has this address.
    pub(super) fn no_route(method: &http::Method) -> Self {
        let what = "no method has this path: POST /package.Service/Method, or a path of google.api.http";
        Self::new(Code::NotFound, "ROUTE_UNKNOWN", format!("{method}: {what}"))
    }

    /// Several methods have this address.
    pub(super) fn route_ambiguous(paths: &[&str]) -> Self {
        Self::new(
            Code::FailedPrecondition,
            "ROUTE_AMBIGUOUS",
            format!("several methods have this path: call one by its own, or name a provider: {}", paths.join(", ")),
        )
    }

    /// The log cannot be written.
    pub(super) fn log_unavailable(why: impl std::fmt::Display) -> Self {
        Self::new(
            Code::Unavailable,
            "LOG_UNAVAILABLE",
            format!("the node cannot write its log, so it carries nothing: {why}"),
        )
    }

    /// A message of another node without the proof that it is logged there.
    pub(super) fn proof_missing(code: Code, node: &Identity) -> Self {
        Self::new(
            code,
            "PROOF_MISSING",
            format!("{node} did not show that it has logged what it sent: it sent no proof"),
        )
    }

    /// One whose proof does not hold.
    pub(super) fn proof_invalid(code: Code, node: &Identity, why: impl std::fmt::Display) -> Self {
        Self::new(code, "PROOF_INVALID", format!("{node} did not show that it has logged what it sent: {why}"))
    }

    /// One whose log has two histories.
    pub(super) fn peer_contradicts(node: &Identity, why: impl std::fmt::Display) -> Self {
        Self::new(Code::PermissionDenied, "PEER_LOG_CONTRADICTS", format!("{node} is not trusted: {why}"))
    }

    /// One whose log has not been proven to be of one history for too long.
    pub(super) fn peer_unproven(node: &Identity, why: impl std::fmt::Display) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(5)),
            ..Self::new(Code::Unavailable, "PEER_LOG_UNPROVEN", format!("{node} is not trusted for now: {why}"))
        }
    }

    /// The other member's node cannot be reached.
    pub(super) fn peer_unreachable(member: &MemberId, why: impl std::fmt::Display) -> Self {
        Self::new(Code::Unavailable, "PEER_UNREACHABLE", format!("the node of {member} cannot be reached: {why}"))
    }

    /// The provider's own system cannot be reached.
    pub(super) fn backend_unreachable(system: &SystemId, why: impl std::fmt::Display) -> Self {
        Self::new(Code::Unavailable, "BACKEND_UNREACHABLE", format!("{system} cannot be reached: {why}"))
    }

    /// A stream of requests for a back-end that speaks HTTP and JSON.
    pub(super) fn backend_cannot_stream(method: &str) -> Self {
        let what = format!("{method}: the provider's system takes no stream of requests");
        Self::new(Code::Unimplemented, "BACKEND_CANNOT_STREAM", what)
    }

    /// A back-end that should answer in JSON does not.
    pub(super) fn not_json(who: impl std::fmt::Display, what: impl std::fmt::Display) -> Self {
        Self::new(Code::Internal, "RESPONSE_MALFORMED", format!("{who} did not answer as its type asks: {what}"))
    }

    /// The call was on its way when the other end broke off.
    pub(super) fn broken_off(who: impl std::fmt::Display, code: Code, why: impl std::fmt::Display) -> Self {
        Self::new(code, "BROKEN_OFF", format!("{who} broke off the call: {why}"))
    }

    /// The answer is not gRPC.
    pub(super) fn not_grpc(who: impl std::fmt::Display, what: impl std::fmt::Display, code: Code) -> Self {
        Self::new(code, "NOT_GRPC", format!("{who} did not answer in gRPC: {what}"))
    }

    /// The caller's deadline, or the node's own limit, has passed.
    pub(super) fn deadline() -> Self {
        Self::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the deadline passed before the exchange was complete")
    }

    /// Nothing moved on a stream for too long.
    pub(super) fn idle(limit: Duration) -> Self {
        Self::new(
            Code::DeadlineExceeded,
            "STREAM_IDLE",
            format!("nothing moved on the stream for {} s", limit.as_secs()),
        )
    }

    /// The caller went away.
    pub(super) fn cancelled() -> Self {
        Self::new(Code::Cancelled, "CANCELLED", "the caller cancelled")
    }

    /// The directory has expired: nobody vouches for who is who any more.
    pub(super) fn directory_expired() -> Self {
        Self::new(
            Code::Unavailable,
            "DIRECTORY_EXPIRED",
            "the node's directory has expired and it has found no newer one",
        )
    }

    /// The node is shutting down.
    pub(super) fn draining() -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(Code::Unavailable, "DRAINING", "the node is shutting down and takes no new exchanges")
        }
    }

    /// As a gRPC status with its details.
    pub(super) fn to_status(&self, side: Side) -> tonic::Status {
        let side = match side {
            Side::Provider => "provider",
            _ => "consumer",
        };
        let mut details = ErrorDetails::with_error_info(self.reason, DOMAIN, [("side".to_owned(), side.to_owned())]);
        if let Some(after) = self.retry_after {
            details.set_retry_info(Some(after));
        }
        tonic::Status::with_error_details(self.code, self.message.clone(), details)
    }

    /// As trailers.
    pub(super) fn to_trailers(&self, side: Side) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        if self.to_status(side).add_header(&mut trailers).is_err() {
            // Only a message that is no header text could fail, and tonic percent-encodes it; still, never without a status.
            trailers.insert("grpc-status", http::HeaderValue::from_static("13"));
        }
        trailers
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
