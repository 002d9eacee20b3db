//! Certificates and CRLs as a person reads them.

use std::fmt::Write;
use std::net::IpAddr;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{CertificateRevocationList, FromDer, GeneralName, X509Certificate};
use x509_parser::time::ASN1Time;

use super::Sans;
use crate::trust::certificate::{CertificateError, Crl, claimed_identity};
use crate::trust::identity::Identity;

/// A few lines on a certificate: whom it speaks for, who issued it, until when, for what.
pub fn describe_certificate(der: &CertificateDer<'_>, now: OffsetDateTime) -> Result<String, CertificateError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| CertificateError::Malformed(error.to_string()))?;
    let identity = match claimed_identity(der) {
        Ok(identity) => identity.to_string(),
        Err(CertificateError::NoIdentity) => "none (a federation's root, or not of this program)".into(),
        Err(error) => error.to_string(),
    };
    let validity = certificate.validity();
    let state = if now.unix_timestamp() < validity.not_before.timestamp() {
        "not valid yet".into()
    } else if now.unix_timestamp() > validity.not_after.timestamp() {
        "EXPIRED".into()
    } else {
        format!("{} days left", (validity.not_after.timestamp() - now.unix_timestamp()) / 86_400)
    };
    let mut out = String::new();
    line(&mut out, "identity", &identity);
    line(&mut out, "subject", &certificate.subject().to_string());
    line(&mut out, "issuer", &certificate.issuer().to_string());
    line(&mut out, "serial", &hex::encode(certificate.raw_serial()));
    line(&mut out, "valid", &format!("{} to {} ({state})", date(validity.not_before), date(validity.not_after)));
    line(&mut out, "use", &uses(&certificate));
    line(&mut out, "names", &host_names(&certificate));
    Ok(out)
}

/// A certificate's identity, its names besides, and its last second: what a renewal keeps, and why it is due.
pub fn names_of(der: &CertificateDer<'_>) -> Result<(Identity, Sans, OffsetDateTime), CertificateError> {
    let malformed = |error: &dyn std::fmt::Display| CertificateError::Malformed(error.to_string());
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
    let mut sans = Sans::default();
    let names = certificate.subject_alternative_name().map_err(|error| malformed(&error))?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => sans.dns.push((*name).to_owned()),
            GeneralName::IPAddress(octets) => sans.ips.extend(address(octets)),
            _ => {}
        }
    }
    Ok((claimed_identity(der)?, sans, certificate.validity().not_after.to_datetime()))
}

/// A few lines on a CRL: whose, which, until when, and what it revokes.
pub fn describe_crl(der: &CertificateRevocationListDer<'_>, now: OffsetDateTime) -> Result<String, CertificateError> {
    let facts = Crl::of(der)?;
    let (_, crl) =
        CertificateRevocationList::from_der(der).map_err(|error| CertificateError::BadCrl(error.to_string()))?;
    let state = if now.unix_timestamp() > facts.next_update_unix { " (OUT OF DATE)" } else { "" };
    let mut out = String::new();
    line(&mut out, "issuer", &facts.issuer);
    line(&mut out, "number", &facts.number.to_string());
    line(&mut out, "updated", &date(crl.last_update()));
    line(&mut out, "next update", &format!("{}{state}", crl.next_update().map(date).unwrap_or_default()));
    line(&mut out, "revoked", &facts.revoked.to_string());
    for revoked in crl.iter_revoked_certificates() {
        let text = format!("{} at {}", hex::encode(revoked.raw_serial()), date(revoked.revocation_date));
        line(&mut out, "", &text);
    }
    Ok(out)
}

fn line(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "{name:<12} {value}");
}

fn date(time: ASN1Time) -> String {
    time.to_datetime().format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

fn uses(certificate: &X509Certificate<'_>) -> String {
    if certificate.is_ca() {
        return "certificate authority".into();
    }
    let usage = certificate.extended_key_usage().ok().flatten().map(|extension| extension.value.clone());
    match usage {
        Some(usage) if usage.client_auth && usage.server_auth => "client and server",
        Some(usage) if usage.client_auth => "client",
        Some(usage) if usage.server_auth => "server",
        Some(_) => "neither client nor server",
        None => "any",
    }
    .into()
}

fn host_names(certificate: &X509Certificate<'_>) -> String {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let names: Vec<String> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(octets) => {
                Some(address(octets).map_or_else(|| hex::encode(octets), |address| address.to_string()))
            }
            _ => None,
        })
        .collect();
    if names.is_empty() { "none: known by its identity only".into() } else { names.join(", ") }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}
