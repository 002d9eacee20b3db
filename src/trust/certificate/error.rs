//! The rules that a certificate, chain or CRL can break, in words for an operator.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Usage;
use crate::trust::identity::{Identity, IdentityError, MemberId};

/// Which rule a certificate, CRL or chain breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A PEM file cannot be read or does not hold what it should.
    #[error("{path}: {reason}")]
    File {
        /// Which file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something in a PEM text, not from a file, is not what it should be.
    #[error("{0}")]
    Pem(String),
    /// No root certificate is configured.
    #[error("no root certificate")]
    NoRoots,
    /// The peer presented nothing.
    #[error("no certificate presented")]
    Missing,
    /// It is not an X.509 certificate as RFC 5280 has it.
    #[error("malformed certificate: {0}")]
    Malformed(String),
    /// A certificate of the chain is past its validity.
    #[error("certificate expired at {0}")]
    Expired(String),
    /// A certificate of the chain is not valid yet, or our clock is wrong.
    #[error("certificate not valid before {0}")]
    NotYetValid(String),
    /// Its issuer's CRL lists it.
    #[error("certificate revoked: {0}")]
    Revoked(String),
    /// The chain does not lead to a root that we know, or a signature in it is false.
    #[error("certificate of an unknown issuer: the chain leads to none of the configured roots")]
    UnknownIssuer,
    /// The leaf has no `kopuro://` URI.
    #[error("certificate carries no kopuro:// identity")]
    NoIdentity,
    /// The leaf has more than one `kopuro://` URI.
    #[error("certificate carries two identities, {0} and {1}")]
    SeveralIdentities(String, String),
    /// The leaf's URI is not an identity.
    #[error("certificate carries an identity that is none: {0}")]
    BadIdentity(#[from] IdentityError),
    /// The leaf names a member: only a CA speaks for a whole member.
    #[error("certificate names the member {0}, not one of its systems, nodes or auditors")]
    MemberAsPeer(MemberId),
    /// The CA that issued the leaf does not say whose CA it is.
    #[error("certificate of {0} was issued by a CA that carries no member's identity")]
    IssuerWithoutMember(Identity),
    /// The leaf, or a CA above it, belongs to another member than the CA that issued the leaf.
    #[error("certificate speaks for {leaf}, and its CA may only speak for {issuer}")]
    ForeignMember {
        /// Whom the leaf claims to be.
        leaf: Identity,
        /// Whose CA it is.
        issuer: MemberId,
    },
    /// The certificate is good, and somebody else's than the one that was called.
    #[error("certificate speaks for {presented}, expected {expected}")]
    UnexpectedPeer {
        /// Whom we called.
        expected: Identity,
        /// Who answered.
        presented: Identity,
    },
    /// Extended key usage, basic constraints or path length forbid this use.
    #[error("certificate is not for use as a {}: {reason}", match usage { Usage::Client => "client", Usage::Server => "server" })]
    WrongUse {
        /// The use it was put to.
        usage: Usage,
        /// What forbids it.
        reason: String,
    },
    /// The CRL of one of the issuers is past its next update.
    #[error("revocation list out of date: its next update was due at {0}; get a newer one from the CA")]
    CrlExpired(String),
    /// A CRL is malformed, partial, or not signed by its issuer.
    #[error("revocation list refused: {0}")]
    BadCrl(String),
    /// Anything else that makes a chain invalid.
    #[error("certificate refused: {0}")]
    Refused(String),
}

impl CertificateError {
    pub(super) fn file(path: &Path, reason: impl Display) -> Self {
        Self::File { path: path.display().to_string(), reason: reason.to_string() }
    }

    /// `revoked` names the certificate at fault; the verifier does not say.
    pub(super) fn from_webpki(error: webpki::Error, usage: Usage, revoked: impl FnOnce() -> String) -> Self {
        use webpki::Error as E;
        match error {
            E::CertExpired { not_after, .. } => Self::Expired(rfc3339(not_after)),
            E::CertNotValidYet { not_before, .. } => Self::NotYetValid(rfc3339(not_before)),
            E::CertRevoked => Self::Revoked(revoked()),
            E::CrlExpired { next_update, .. } => Self::CrlExpired(rfc3339(next_update)),
            E::UnknownIssuer | E::InvalidSignatureForPublicKey => Self::UnknownIssuer,
            E::InvalidCrlSignatureForPublicKey | E::IssuerNotCrlSigner => {
                Self::BadCrl("it is not signed by the CA that it names".into())
            }
            E::RequiredEkuNotFoundContext(_) => {
                Self::WrongUse { usage, reason: "its extended key usage does not include it".into() }
            }
            E::CaUsedAsEndEntity => Self::WrongUse { usage, reason: "it is a CA's".into() },
            E::EndEntityUsedAsCa => Self::WrongUse { usage, reason: "its issuer is not a CA".into() },
            E::PathLenConstraintViolated => {
                Self::WrongUse { usage, reason: "its issuer may not have CAs under it".into() }
            }
            E::BadDer | E::BadDerTime | E::MalformedExtensions | E::ExtensionValueInvalid | E::TrailingData(_) => {
                Self::Malformed(error.to_string())
            }
            other => Self::Refused(other.to_string()),
        }
    }
}

/// What the handshake fails with: the standard reasons give the peer the standard alert, the rest keep their text.
impl From<CertificateError> for rustls::Error {
    fn from(error: CertificateError) -> Self {
        use rustls::CertificateError as Tls;
        Self::InvalidCertificate(match &error {
            CertificateError::Expired(_) => Tls::Expired,
            CertificateError::NotYetValid(_) => Tls::NotValidYet,
            CertificateError::Revoked(_) => Tls::Revoked,
            CertificateError::UnknownIssuer => Tls::UnknownIssuer,
            CertificateError::CrlExpired(_) => Tls::UnknownRevocationStatus,
            CertificateError::Malformed(_) => Tls::BadEncoding,
            CertificateError::WrongUse { .. } => Tls::InvalidPurpose,
            _ => Tls::Other(rustls::OtherError(Arc::new(error))),
        })
    }
}

pub(super) fn rfc3339(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{} s after 1970", time.as_secs()))
}
