//! The services' protobuf types, known at run time from the directory's descriptor sets.
//!
//! In: what the directory says (service, provider, digest of its descriptor set) and the sets' bytes, which the caller
//! has read. Out: a [`Catalogue`] that answers, without allocating, which methods a service has and how they stream,
//! and keeps a descriptor pool per set for what reads messages. Pure: no I/O, no clock.
//!
//! A service whose set is missing, damaged or lacks it is left out and named in [`Catalogue::problems`]: one member's
//! mistake must not take the other members' services away.

pub mod annotations;
mod catalogue;
pub mod editions;
mod files;
pub mod plan;

pub use catalogue::{Catalogue, Method, Offer, Service, ServiceOffer};
pub use files::{FileIndex, digest, extract};

use crate::trust::identity::SystemId;

/// Why a service of the directory is not in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// No set with the digest that the directory names was found.
    #[error("{service} of {provider}: no descriptor set {digest}")]
    MissingSet {
        /// The service.
        service: String,
        /// Who offers it.
        provider: SystemId,
        /// SHA-256 of the set, hexadecimal.
        digest: String,
    },
    /// The bytes found under a digest have another.
    #[error("descriptor set {expected}: its bytes have SHA-256 {found}")]
    DigestMismatch {
        /// What the directory says.
        expected: String,
        /// What the bytes have.
        found: String,
    },
    /// The bytes are no valid, complete `google.protobuf.FileDescriptorSet`.
    #[error("descriptor set {digest}: {reason}")]
    BadSet {
        /// SHA-256 of the set, hexadecimal.
        digest: String,
        /// What is wrong.
        reason: String,
    },
    /// The set does not define the service.
    #[error("{service} of {provider}: descriptor set {digest} does not define it")]
    ServiceAbsent {
        /// The service.
        service: String,
        /// Who offers it.
        provider: SystemId,
        /// SHA-256 of the set, hexadecimal.
        digest: String,
    },
    /// The directory offers the same service of the same system twice.
    #[error("{service} of {provider} is offered twice")]
    OfferedTwice {
        /// The service.
        service: String,
        /// Who offers it.
        provider: SystemId,
    },
    /// Two providers of a service disagree on whether a method streams; the later one is left out.
    #[error("{service}/{method}: {provider} streams differently from {other}")]
    KindsDiffer {
        /// The service.
        service: String,
        /// The method.
        method: String,
        /// Who is left out.
        provider: SystemId,
        /// Who came first.
        other: SystemId,
    },
    /// The set lacks a service that was asked of it ([`extract`]).
    #[error("the descriptor set does not define {0}")]
    NotDefined(String),
}

#[cfg(test)]
mod tests;
