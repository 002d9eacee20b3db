//! A federation's certificate authorities: a root, and under it one issuing CA per member.
//!
//! In: identities to certify, requests, serial numbers to revoke. Out: certificates and CRLs as PEM. The root certifies
//! members' CAs and nothing else; a member's CA carries its member's URI, cannot have CAs under it, and certifies that
//! member's systems, nodes and auditors and nobody else's. What each certificate carries is in `profile`, what lies in a
//! CA's folder in `folder`. A CA knows what it issued: only that can be revoked, and a CRL lists everything revoked.
//!
//! An [`Authority`] works in memory until [`Authority::save`] gives it a folder; from then on, and after
//! [`Authority::load`], everything it issues and revokes is recorded there before it is given out.

mod error;
mod folder;
mod profile;
mod show;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    CertificateRevocationListParams, CertificateSigningRequestParams, Issuer, KeyIdMethod, KeyPair, PublicKeyData,
    RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::trust::certificate::{CertificateError, claimed_identity};
use crate::trust::identity::{Identity, MemberId};
use crate::trust::token::{Requester, TlsKey};

pub use error::PkiError;
use folder::{Folder, IssuedRecord, RevokedRecord};
use profile::Profile;
pub use show::{describe_certificate, describe_crl, names_of};

/// How long a CRL is good for unless told otherwise.
pub const CRL_VALIDITY: Duration = Duration::days(7);

/// A certificate authority, in memory or in a folder.
pub struct Authority {
    role: Role,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    not_after: OffsetDateTime,
    key: KeyPair,
    issued: Vec<IssuedRecord>,
    revoked: Vec<RevokedRecord>,
    crl_number: u64,
    folder: Option<Folder>,
}

/// What an authority may certify.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    /// Members' CAs of this federation.
    Root(String),
    /// This member's systems, nodes and auditors.
    Member(MemberId),
}

/// Names of a certificate besides its identity, for clients that check host names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sans {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: OffsetDateTime,
    /// Last second.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From five minutes ago (clocks differ) for so many days.
    pub fn days(now: OffsetDateTime, days: u32) -> Self {
        Self { not_before: now - Duration::minutes(5), not_after: now + Duration::days(days.into()) }
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Issued {
    /// Leaf and issuing CA.
    pub cert_pem: String,
    /// PKCS #8.
    pub key_pem: Zeroizing<String>,
    /// Serial number of the leaf, lower-case hex.
    pub serial_hex: String,
}

/// A key and the request to certify it.
#[derive(Debug)]
pub struct Request {
    /// PKCS #10, for the CA.
    pub csr_pem: String,
    /// PKCS #8, stays where it was made.
    pub key_pem: Zeroizing<String>,
}

/// Makes a key and a request for this identity: for a member, the request of its CA.
pub fn request(identity: &Identity, sans: &Sans) -> Result<Request, PkiError> {
    let key = profile::generate_key()?;
    let csr = Profile::request(identity, sans)?.params.serialize_request(&key)?;
    Ok(Request { csr_pem: csr.pem()?, key_pem: Zeroizing::new(key.serialize_pem()) })
}

/// A request for this identity by a key that is there, in a file (PKCS #8, PEM).
pub fn request_for(key_pem: &str, identity: &Identity, sans: &Sans) -> Result<String, PkiError> {
    let key = KeyPair::from_pem(key_pem)?;
    Ok(Profile::request(identity, sans)?.params.serialize_request(&key)?.pem()?)
}

/// A request for this identity by a key in a token.
pub fn request_by_token(key: &TlsKey, identity: &Identity, sans: &Sans) -> Result<String, PkiError> {
    let requester = Requester::new(key);
    let request = Profile::request(identity, sans)?.params.serialize_request(&requester);
    match (request, requester.failed()) {
        (_, Some(error)) => Err(error.into()),
        (request, None) => Ok(request?.pem()?),
    }
}

impl Authority {
    /// A new root, in memory until [`Authority::save`].
    pub fn create_root(federation: &str, now: OffsetDateTime) -> Result<Self, PkiError> {
        // A federation's name is the first segment of its members.
        let _: MemberId = format!("{federation}/x/x").parse()?;
        let key = profile::generate_key()?;
        let profile = Profile::root(federation, now)?;
        let certificate = profile.params.self_signed(&key)?;
        Self::new(certificate.der().clone(), key)
    }

    /// A new issuing CA of a member, signed by this root. Valid for five years, or as long as the root.
    pub fn issue_member_ca(&mut self, member: &MemberId, now: OffsetDateTime) -> Result<Self, PkiError> {
        let key = profile::generate_key()?;
        let (certificate, _) = self.certify_member(member, &key, profile::member_ca_validity(now))?;
        Self::new(certificate, key)
    }

    /// Reads a CA's folder.
    pub fn load(path: &Path) -> Result<Self, PkiError> {
        let folder = Folder::at(path);
        let (certificate_pem, key_pem) = folder.read_ca()?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| PkiError::file(&folder.certificate(), error))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|error| PkiError::file(&folder.key(), error))?;
        let mut authority = Self::new(certificate, key)?;
        authority.issued = folder.read_issued()?;
        authority.revoked = folder.read_revoked()?;
        authority.crl_number = folder.read_crl_number()?;
        authority.folder = Some(folder);
        Ok(authority)
    }

    /// Puts the CA into a folder, where it stays: what it issues and revokes from then on is recorded there. A CA that
    /// is already there is never overwritten.
    pub fn save(&mut self, path: &Path) -> Result<(), PkiError> {
        let folder = Folder::create(path)?;
        let key_pem = Zeroizing::new(self.key.serialize_pem());
        folder.write_ca(&self.certificate_pem, &key_pem)?;
        for record in &self.issued {
            folder.record_issued(record)?;
        }
        for record in &self.revoked {
            folder.record_revoked(record)?;
        }
        self.folder = Some(folder);
        Ok(())
    }

    /// Makes a key and a certificate for it.
    pub fn issue(&mut self, identity: &Identity, sans: &Sans, validity: Validity) -> Result<Issued, PkiError> {
        let key = profile::generate_key()?;
        let (certificate, serial_hex) = self.certify(identity, sans, &key, validity)?;
        Ok(Issued { cert_pem: self.chain(&certificate), key_pem: Zeroizing::new(key.serialize_pem()), serial_hex })
    }

    /// Certifies the key of a request; gives leaf and issuing CA. Of the request only its key, identity, DNS names and
    /// addresses count; the rest is this CA's to say. A root takes requests of members' CAs, and leaves the host names
    /// out.
    pub fn sign(&mut self, csr_pem: &str, validity: Validity) -> Result<String, PkiError> {
        let csr = CertificateSigningRequestParams::from_pem(csr_pem).map_err(PkiError::Request)?;
        profile::check_requested_key(&csr.public_key)?;
        let (identity, sans) = profile::requested_names(&csr.params)?;
        match (&self.role, &identity) {
            (Role::Root(_), Identity::Member(member)) => {
                let (certificate, _) = self.certify_member(member, &csr.public_key, validity)?;
                Ok(pem("CERTIFICATE", &certificate))
            }
            _ => {
                let (certificate, _) = self.certify(&identity, &sans, &csr.public_key, validity)?;
                Ok(self.chain(&certificate))
            }
        }
    }

    /// Revokes a certificate that this CA issued, and gives the new CRL, good for [`CRL_VALIDITY`].
    pub fn revoke(&mut self, serial_hex: &str, now: OffsetDateTime) -> Result<String, PkiError> {
        let serial = serial_hex.replace(':', "").to_ascii_lowercase();
        if !self.issued.iter().any(|record| record.serial == serial) {
            return Err(PkiError::NotIssued(serial));
        }
        if self.revoked.iter().any(|record| record.serial == serial) {
            return Err(PkiError::AlreadyRevoked(serial));
        }
        let record = RevokedRecord { serial, revoked_at: profile::to_second(now) };
        if let Some(folder) = &self.folder {
            folder.record_revoked(&record)?;
        }
        self.revoked.push(record);
        self.crl(now, now + CRL_VALIDITY)
    }

    /// A fresh CRL, valid until `next_update`; written to the folder, if there is one.
    pub fn crl(&mut self, now: OffsetDateTime, next_update: OffsetDateTime) -> Result<String, PkiError> {
        // Not below the clock, so that numbers rise even if the last CRL was lost.
        let clock = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        self.crl_number = clock.max(self.crl_number.saturating_add(1));
        let mut revoked_certs = Vec::with_capacity(self.revoked.len());
        for record in &self.revoked {
            let serial = hex::decode(&record.serial).map_err(|_| PkiError::NotIssued(record.serial.clone()))?;
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: record.revoked_at,
                reason_code: None,
                invalidity_date: None,
            });
        }
        let crl = CertificateRevocationListParams {
            this_update: profile::to_second(now - Duration::minutes(5)),
            next_update: profile::to_second(next_update),
            crl_number: self.crl_number.into(),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = crl.signed_by(&self.issuer()?)?.pem()?;
        if let Some(folder) = &self.folder {
            folder.write_crl(&crl)?;
        }
        Ok(crl)
    }

    /// Its own certificate: for a root, what nodes trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The member that it certifies for; none for a root.
    pub fn member(&self) -> Option<&MemberId> {
        match &self.role {
            Role::Root(_) => None,
            Role::Member(member) => Some(member),
        }
    }

    /// The federation that it belongs to.
    pub fn federation(&self) -> &str {
        match &self.role {
            Role::Root(federation) => federation,
            Role::Member(member) => member.instance(),
        }
    }

    fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, PkiError> {
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|error| CertificateError::Malformed(error.to_string()))?;
        let organisation = parsed.subject().iter_organization().next().and_then(|name| name.as_str().ok());
        let role = match claimed_identity(&certificate) {
            _ if !parsed.is_ca() => return Err(PkiError::NotACa),
            Ok(Identity::Member(member)) => Role::Member(member),
            Err(CertificateError::NoIdentity) => Role::Root(organisation.ok_or(PkiError::NotACa)?.into()),
            Ok(_) => return Err(PkiError::NotACa),
            Err(error) => return Err(error.into()),
        };
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(PkiError::KeyMismatch);
        }
        let not_after = parsed.validity().not_after.to_datetime();
        let certificate_pem = pem("CERTIFICATE", &certificate);
        Ok(Self {
            role,
            certificate,
            certificate_pem,
            not_after,
            key,
            issued: Vec::new(),
            revoked: Vec::new(),
            crl_number: 0,
            folder: None,
        })
    }

    fn certify(
        &mut self,
        identity: &Identity,
        sans: &Sans,
        key: &impl PublicKeyData,
        validity: Validity,
    ) -> Result<(CertificateDer<'static>, String), PkiError> {
        match &self.role {
            Role::Root(_) => return Err(PkiError::RootCertifiesMembers(identity.clone())),
            Role::Member(member) if member != identity.member() => {
                return Err(PkiError::ForeignMember { identity: identity.clone(), member: member.clone() });
            }
            Role::Member(member) if matches!(identity, Identity::Member(_)) => {
                return Err(PkiError::MemberAsLeaf(member.clone()));
            }
            Role::Member(_) => {}
        }
        if validity.not_after > self.not_after {
            return Err(PkiError::OutlastsCa(self.not_after));
        }
        let profile = Profile::leaf(identity, sans, validity)?;
        self.sign_and_record(&profile, identity, key)
    }

    fn certify_member(
        &mut self,
        member: &MemberId,
        key: &impl PublicKeyData,
        mut validity: Validity,
    ) -> Result<(CertificateDer<'static>, String), PkiError> {
        let identity = Identity::Member(member.clone());
        match &self.role {
            Role::Root(federation) if federation == member.instance() => {}
            Role::Root(federation) => {
                return Err(PkiError::ForeignFederation { member: member.clone(), federation: federation.clone() });
            }
            Role::Member(own) => return Err(PkiError::MemberAsLeaf(own.clone())),
        }
        validity.not_after = validity.not_after.min(self.not_after);
        let profile = Profile::member_ca(member, validity)?;
        self.sign_and_record(&profile, &identity, key)
    }

    fn sign_and_record(
        &mut self,
        profile: &Profile,
        identity: &Identity,
        key: &impl PublicKeyData,
    ) -> Result<(CertificateDer<'static>, String), PkiError> {
        let certificate = profile.params.signed_by(key, &self.issuer()?)?;
        let record = IssuedRecord {
            serial: profile.serial_hex.clone(),
            identity: identity.to_string(),
            not_before: profile.params.not_before,
            not_after: profile.params.not_after,
        };
        if let Some(folder) = &self.folder {
            folder.record_issued(&record)?;
        }
        self.issued.push(record);
        Ok((certificate.into(), profile.serial_hex.clone()))
    }

    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, PkiError> {
        Ok(Issuer::from_ca_cert_der(&self.certificate, &self.key)?)
    }

    fn chain(&self, leaf: &CertificateDer<'_>) -> String {
        format!("{}{}", pem("CERTIFICATE", leaf), self.certificate_pem)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("role", &self.role).field("folder", &self.folder).finish_non_exhaustive()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let text = BASE64_STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for start in (0..text.len()).step_by(64) {
        out.push_str(&text[start..text.len().min(start + 64)]);
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}
