//! The services' protobuf types, known at run time from the directory's descriptor sets.
//!
//! In: what the directory says (service, provider, digest of its descriptor set) and the sets' bytes, which the caller
//! has read. Out: a [`Catalogue`] that answers, without allocating, which methods a service has and how they stream,
//! and keeps a descriptor pool per set for what reads messages. Pure: no I/O, no clock.
//!
//! A service whose set is missing, damaged or lacks it is left out and named in [`Catalogue::problems`]: one member's
//! mistake must not take the other members' services away.

pub mod annotations;
pub mod breaking;
mod catalogue;
pub mod editions;
pub mod example;
pub mod fields;
mod files;
pub mod http;
pub mod json;
pub mod openapi;
pub mod plan;
mod plans;
pub mod rules;
pub mod set;

pub use catalogue::check_service;
pub use catalogue::{Catalogue, Method, Offer, Service, ServiceOffer};
pub use files::{FileIndex, digest, extract, set_of};
pub use plans::MethodPlans;

use prost_reflect::Kind;

use self::annotations::AnnotationError;
use self::plan::PlanError;
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
    /// The service's annotations say what cannot be meant.
    #[error("{service} of {provider}: {error}")]
    Annotation {
        /// The service.
        service: String,
        /// Who offers it.
        provider: SystemId,
        /// What is wrong.
        error: Box<AnnotationError>,
    },
    /// No plan can be made for a method's messages: among others, for rules that are not supported.
    #[error("{service}/{method} of {provider}: {error}")]
    Plan {
        /// The service.
        service: String,
        /// The method.
        method: String,
        /// Who offers it.
        provider: SystemId,
        /// Why not.
        error: Box<PlanError>,
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
    /// A method's `google.api.http` cannot be kept to: it is called by its own path only.
    #[error("{service}/{method} of {provider}: google.api.http: {reason}")]
    HttpRule {
        /// The service.
        service: String,
        /// The method.
        method: String,
        /// Who offers it.
        provider: SystemId,
        /// What is wrong.
        reason: Box<http::RuleError>,
    },
    /// The set lacks a service that was asked of it ([`extract`]).
    #[error("the descriptor set does not define {0}")]
    NotDefined(String),
}

impl SchemaError {
    /// What to do about it, for an operator: with the folder where descriptor sets lie.
    pub fn remedy(&self, folder: &std::path::Path) -> String {
        match self {
            Self::MissingSet { .. } | Self::DigestMismatch { .. } => {
                format!("put the set that the directory names in {}", folder.display())
            }
            _ => "have the service's author correct its types, and the council list the new set".to_owned(),
        }
    }
}

/// protobuf's name of a field's type.
fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Double => "double",
        Kind::Float => "float",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::Sint32 => "sint32",
        Kind::Sint64 => "sint64",
        Kind::Fixed32 => "fixed32",
        Kind::Fixed64 => "fixed64",
        Kind::Sfixed32 => "sfixed32",
        Kind::Sfixed64 => "sfixed64",
        Kind::Bool => "bool",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Message(_) => "message",
        Kind::Enum(_) => "enum",
    }
}

#[cfg(test)]
mod tests;
