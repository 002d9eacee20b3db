//! The rules by which a certificate authority refuses.

use std::fmt::Display;
use std::path::Path;

use time::OffsetDateTime;

use crate::trust::certificate::CertificateError;
use crate::trust::identity::{Identity, IdentityError, MemberId};
use crate::trust::token::TokenError;

/// Why a certificate authority refuses.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key or CA would be overwritten.
    #[error("{0} exists and is not overwritten")]
    Exists(String),
    /// A file of the CA cannot be read or written, or is not what it should be.
    #[error("{path}: {reason}")]
    File {
        /// Which file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The CA's certificate is not one that this program makes.
    #[error("not a CA's certificate: it must be a CA's and carry a member's identity, or a federation as organisation")]
    NotACa,
    /// `ca.key` is not the key of `ca.pem`.
    #[error("the CA's key does not belong to its certificate")]
    KeyMismatch,
    /// A root was asked for something else than a member's CA.
    #[error("the root certifies members' CAs only, not {0}: use the member's CA")]
    RootCertifiesMembers(Identity),
    /// The identity belongs to another member.
    #[error("{identity} does not belong to {member}, and this CA certifies for no other member")]
    ForeignMember {
        /// Who was to be certified.
        identity: Identity,
        /// Whose CA it is.
        member: MemberId,
    },
    /// The member belongs to another federation.
    #[error("{member} does not belong to the federation {federation}")]
    ForeignFederation {
        /// Whose CA was to be certified.
        member: MemberId,
        /// Whose root it is.
        federation: String,
    },
    /// A member's CA was asked to certify a CA.
    #[error("the CA of {0} certifies systems, nodes and auditors, not CAs: those are the root's to certify")]
    MemberAsLeaf(MemberId),
    /// The certificate would be valid longer than its CA.
    #[error("the CA itself is valid until {0} only")]
    OutlastsCa(OffsetDateTime),
    /// The first second lies behind the last one.
    #[error("the validity ends before it begins")]
    EmptyValidity,
    /// A DNS name is none.
    #[error("{0:?} is not a DNS name")]
    DnsName(String),
    /// A request is malformed or its signature false.
    #[error("not a certificate request that can be taken: {0}")]
    Request(rcgen::Error),
    /// A request names something else than a URI, DNS names and addresses.
    #[error("the request asks for a name that is neither a URI, a DNS name nor an address")]
    RequestedName,
    /// A request's key is of a kind that is not certified.
    #[error("the request's key is none of ECDSA P-256, ECDSA P-384 and Ed25519")]
    RequestedKey,
    /// This CA has no such serial number in its `issued.csv`.
    #[error("this CA issued no certificate with serial number {0}")]
    NotIssued(String),
    /// It is revoked already.
    #[error("the certificate with serial number {0} is revoked already")]
    AlreadyRevoked(String),
    /// A certificate or its identity is not good.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A text is not an identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The token that has the key does not sign.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The system's random generator failed.
    #[error("no random bytes from the system: {0}")]
    Random(String),
    /// The certificate library refuses.
    #[error("certificate: {0}")]
    Library(#[from] rcgen::Error),
}

impl PkiError {
    pub(super) fn file(path: &Path, reason: impl Display) -> Self {
        Self::File { path: path.display().to_string(), reason: reason.to_string() }
    }
}
