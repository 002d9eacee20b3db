//! Certificates: whom a chain speaks for, and whether it may.
//!
//! In: roots and CRLs from PEM files, and a chain that a peer presents. Out: the identity that the chain proves, or the
//! rule that it breaks. A chain proves an identity when all of this holds:
//!
//! - it leads to one of the roots, every signature on the way is good and every certificate, the root too, is in force;
//! - no certificate on the way is revoked (below), and the leaf is meant for the use it is put to (extended key usage);
//! - the leaf carries exactly one `kopuro://` URI, which names a system, node or auditor;
//! - the CA that issued the leaf carries the URI of the leaf's member, and no CA above it carries another member's. So
//!   one ministry's CA cannot speak for another, nor make itself a sub-CA in another's name.
//!
//! Revocation. Every certificate of the chain below the root is looked up in the CRL of its issuer, if one is configured:
//! the leaf in its member's CRL, the member's CA in the root's. A CRL must be signed by that issuer and must not be past
//! its next update: an old one is refused, with everything that it should vouch for, because an attacker who can hold
//! back CRLs would otherwise undo revocations. An issuer *without* any configured CRL is not checked: a member that
//! joins would else be cut off from every node until each operator has its first CRL. [`Anchors::crls`] says which
//! issuers are covered, so that an operator sees what is missing. A CRL that covers only part of an issuer's
//! certificates (issuing distribution point) is refused at loading, so "configured" always means "covers everything".
//! Of several CRLs of one issuer the one with the highest number counts. A CA that changes its key changes its name.

mod anchors;
mod error;

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::trust::identity::{Identity, URI_SCHEME};

pub use anchors::{Anchors, Crl, Root};
pub use error::CertificateError;

/// What a verified chain says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Whom it speaks for: a system, node or auditor.
    pub identity: Identity,
    /// The last second at which the whole chain is valid.
    pub not_after_unix: i64,
    /// Serial number of the leaf, lower-case hex.
    pub serial_hex: String,
    /// The chain as presented, leaf first, to verify again when roots or CRLs change.
    pub chain: Arc<[CertificateDer<'static>]>,
}

/// In which role the peer presents its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// It called us.
    Client,
    /// We called it.
    Server,
}

/// The identity that a certificate claims, unverified: for one's own certificate, and for showing one to a person.
pub fn claimed_identity(certificate: &CertificateDer<'_>) -> Result<Identity, CertificateError> {
    let parsed = parse(certificate)?;
    let names = parsed.subject_alternative_name().map_err(|error| CertificateError::Malformed(error.to_string()))?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    only_identity(names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }))
}

/// A certificate's subject, and its first and last second.
pub fn validity_of(certificate: &CertificateDer<'_>) -> Result<(String, i64, i64), CertificateError> {
    let parsed = parse(certificate)?;
    let validity = parsed.validity();
    Ok((parsed.subject().to_string(), validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Every certificate of a PEM file, at least one.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| CertificateError::file(path, error))?;
    if certificates.is_empty() {
        return Err(CertificateError::file(path, "no certificate in it"));
    }
    Ok(certificates)
}

/// Every CRL of a PEM file, at least one.
pub fn read_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, CertificateError> {
    let crls: Vec<_> = CertificateRevocationListDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| CertificateError::file(path, error))?;
    if crls.is_empty() {
        return Err(CertificateError::file(path, "no certificate revocation list in it"));
    }
    Ok(crls)
}

/// The one `kopuro://` URI among a certificate's names.
pub(super) fn only_identity<'a>(uris: impl Iterator<Item = &'a str>) -> Result<Identity, CertificateError> {
    // The scheme in any case, so that an odd spelling counts as a second identity and not as none.
    let ours = |uri: &&str| uri.get(..URI_SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(URI_SCHEME));
    let mut uris = uris.filter(ours);
    let uri = uris.next().ok_or(CertificateError::NoIdentity)?;
    if let Some(second) = uris.next() {
        return Err(CertificateError::SeveralIdentities(uri.into(), second.into()));
    }
    Ok(Identity::from_uri(uri)?)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(CertificateError::Malformed("something follows the certificate".into())),
        Err(error) => Err(CertificateError::Malformed(error.to_string())),
    }
}
