//! Who may call what: a provider's grants, a consumer's outbound list, and limits on callers.
//!
//! In: an exchange's names (consumer, provider, service, method, purpose) and the time, as an argument. Out: the grant
//! or rule that allows it, or a [`Denial`] with a stable reason. What no grant allows is denied; a look-up is two hash
//! probes and a short list. Nothing here reads files or sockets; the one clock is the rate limiters' monotonic one.

mod callers;
pub mod grant;
mod grants;
mod outbound;

use std::time::Duration;

pub use callers::CallerLimits;
pub use grant::{Allowed, Consumer, Grant, LegalBasis, Methods, Publication, Rate, UnknownFields, UnknownPolicy};
pub use grants::Grants;
pub use outbound::{Outbound, Providers, Rule};

/// Why a call is not allowed: each variant a rule, each with a stable reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The consumer's own member does not let this system make this call.
    #[error("this system's own node does not let it call this service: the outbound list has no rule for it")]
    OutboundMissing,
    /// The provider has given this consumer nothing for the service.
    #[error("the provider has granted this system nothing for this service")]
    NoGrant,
    /// The service is granted, the method is not.
    #[error("the provider has granted this system other methods of the service, not this one")]
    MethodNotGranted,
    /// The grant begins later.
    #[error("the grant is not valid yet")]
    NotYetValid {
        /// When the earliest such grant begins, Unix milliseconds.
        from_unix_ms: i64,
    },
    /// The grant has ended.
    #[error("the grant has expired")]
    Expired {
        /// When the last such grant ended, Unix milliseconds.
        until_unix_ms: i64,
    },
    /// Several legal bases are possible and the call names none.
    #[error("several legal bases are possible: name one in metadata kopuro-purpose ({})", .possible.join(", "))]
    PurposeRequired {
        /// The codes that would be accepted.
        possible: Vec<String>,
    },
    /// The call names a legal basis that no grant for the method has.
    #[error("the legal basis named in kopuro-purpose is not among the granted ones")]
    PurposeNotAllowed,
    /// The consumer's node has recorded the call under a class that publishes sooner than the grant allows.
    #[error(
        "the grant's exchanges are {granted}, and the consumer's node records this one as {recorded}: its outbound rule must set publication = {}",
        written(granted)
    )]
    PublicationTooOpen {
        /// How the consumer's side is recorded.
        recorded: Publication,
        /// The grant's class.
        granted: Publication,
    },
    /// The grant's, or the node's, rate is used up.
    #[error("too many calls: try again in {} ms", .retry_after.as_millis().max(1))]
    RateLimited {
        /// When the next call would pass.
        retry_after: Duration,
    },
}

/// A class as the outbound list writes it.
fn written(publication: &Publication) -> String {
    match publication {
        Publication::Delayed { days } => format!("{{ delayed_days = {days} }}"),
        other => format!("\"{other}\""),
    }
}

impl Denial {
    /// The stable reason, for `google.rpc.ErrorInfo`, the log and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OutboundMissing => "OUTBOUND_NOT_ALLOWED",
            Self::NoGrant => "GRANT_MISSING",
            Self::MethodNotGranted => "METHOD_NOT_GRANTED",
            Self::NotYetValid { .. } => "GRANT_NOT_YET_VALID",
            Self::Expired { .. } => "GRANT_EXPIRED",
            Self::PurposeRequired { .. } => "PURPOSE_REQUIRED",
            Self::PurposeNotAllowed => "PURPOSE_NOT_ALLOWED",
            Self::PublicationTooOpen { .. } => "PUBLICATION_TOO_OPEN",
            Self::RateLimited { .. } => "RATE_LIMITED",
        }
    }

    /// The gRPC status that the caller sees.
    pub fn code(&self) -> tonic::Code {
        match self {
            Self::OutboundMissing
            | Self::NoGrant
            | Self::MethodNotGranted
            | Self::NotYetValid { .. }
            | Self::Expired { .. } => tonic::Code::PermissionDenied,
            Self::PurposeRequired { .. } | Self::PurposeNotAllowed | Self::PublicationTooOpen { .. } => {
                tonic::Code::FailedPrecondition
            }
            Self::RateLimited { .. } => tonic::Code::ResourceExhausted,
        }
    }

    /// When trying again makes sense, for `google.rpc.RetryInfo`.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}
