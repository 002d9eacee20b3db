//! Roots and CRLs, and the verification of a chain under them.

use std::fmt;
use std::path::PathBuf;

use rustls::DistinguishedName;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use sha2::{Digest, Sha256};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::error::rfc3339;
use super::{
    CertificateError, PeerIdentity, Usage, claimed_identity, only_identity, parse, read_certificates, read_crls,
};
use crate::trust::identity::Identity;

/// What a chain is verified against. Immutable: a reload makes a new one.
pub struct Anchors {
    roots: Vec<TrustAnchor<'static>>,
    /// Name and validity of each root, in the order of `roots`: the path validation itself does not look at it.
    root_facts: Vec<Root>,
    root_names: Vec<DistinguishedName>,
    crls: Vec<CertRevocationList<'static>>,
    crl_facts: Vec<Crl>,
    algorithms: WebPkiSupportedAlgorithms,
    /// SHA-256 of each root and CRL that was added: by which two are told apart.
    made_of: Vec<[u8; 32]>,
}

/// What an operator wants to know of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its name.
    pub name: String,
    /// The file that it is in; none where it came as text.
    pub file: Option<PathBuf>,
    /// The first second at which it counts.
    pub not_before_unix: i64,
    /// The last one.
    pub not_after_unix: i64,
}

/// What an operator wants to know of a CRL in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crl {
    /// The CA's name.
    pub issuer: String,
    /// The file that it is in; none where it came otherwise.
    pub file: Option<PathBuf>,
    /// Rises with every CRL of this CA.
    pub number: u64,
    /// When it was made.
    pub this_update_unix: i64,
    /// From when on nothing under this CA is accepted until there is a newer one.
    pub next_update_unix: i64,
    /// How many certificates it revokes.
    pub revoked: usize,
}

/// Made of the same roots and CRLs, in the same order.
impl PartialEq for Anchors {
    fn eq(&self, other: &Self) -> bool {
        self.made_of == other.made_of
    }
}

impl Anchors {
    /// Reads PEM files: at least one root; CRLs are optional.
    pub fn load(ca_files: &[PathBuf], crl_files: &[PathBuf]) -> Result<Self, CertificateError> {
        let mut anchors = Self::empty();
        for path in ca_files {
            for root in read_certificates(path)? {
                anchors.add_root(&root, Some(path)).map_err(|error| CertificateError::file(path, error))?;
            }
        }
        for path in crl_files {
            for crl in read_crls(path)? {
                anchors.add_crl(&crl, Some(path)).map_err(|error| CertificateError::file(path, error))?;
            }
        }
        anchors.with_a_root()
    }

    /// The same, from text.
    pub fn from_pem(roots: &str, crls: &str) -> Result<Self, CertificateError> {
        let mut anchors = Self::empty();
        for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
            anchors.add_root(&root.map_err(|error| CertificateError::Pem(error.to_string()))?, None)?;
        }
        for crl in CertificateRevocationListDer::pem_slice_iter(crls.as_bytes()) {
            anchors.add_crl(&crl.map_err(|error| CertificateError::Pem(error.to_string()))?, None)?;
        }
        anchors.with_a_root()
    }

    /// The CRLs that count, one per issuer.
    pub fn crls(&self) -> &[Crl] {
        &self.crl_facts
    }

    /// The roots; of several with one name and key (a prolonged root) the one that lasts longest.
    pub fn roots(&self) -> impl Iterator<Item = &Root> {
        let all = || self.roots.iter().zip(&self.root_facts);
        let outlasted = move |(anchor, root): &(&TrustAnchor<'_>, &Root)| {
            all().any(|(other, longer)| same_root(anchor, other) && longer.not_after_unix > root.not_after_unix)
        };
        all().filter(move |root| !outlasted(root)).map(|(_, root)| root)
    }

    /// Verifies a chain (leaf first) and says whom it speaks for.
    pub fn verify_peer(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<PeerIdentity, CertificateError> {
        let (leaf, others) = chain.split_first().ok_or(CertificateError::Missing)?;
        let failure = |error| CertificateError::from_webpki(error, usage, || self.name_revoked(chain));
        let end_entity = EndEntityCert::try_from(leaf).map_err(failure)?;
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| {
            options
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let usage_of_key = match usage {
            Usage::Client => KeyUsage::client_auth(),
            Usage::Server => KeyUsage::server_auth(),
        };
        let path = end_entity
            .verify_for_usage(self.algorithms.all, &self.roots, others, now, usage_of_key, revocation, None)
            .map_err(failure)?;

        let mut not_after_unix = self.root_not_after(path.anchor(), now)?;
        for certificate in std::iter::once(leaf.clone()).chain(path.intermediate_certificates().map(|ca| ca.der())) {
            not_after_unix = not_after_unix.min(parse(&certificate)?.validity().not_after.timestamp());
        }
        Ok(PeerIdentity {
            identity: identity_of(&end_entity, &path)?,
            not_after_unix,
            serial_hex: hex::encode(end_entity.serial()),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        })
    }

    pub(crate) fn root_names(&self) -> &[DistinguishedName] {
        &self.root_names
    }

    pub(crate) fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.algorithms
    }

    fn empty() -> Self {
        Self {
            roots: Vec::new(),
            root_facts: Vec::new(),
            root_names: Vec::new(),
            crls: Vec::new(),
            crl_facts: Vec::new(),
            algorithms: aws_lc_rs::default_provider().signature_verification_algorithms,
            made_of: Vec::new(),
        }
    }

    fn with_a_root(self) -> Result<Self, CertificateError> {
        if self.roots.is_empty() { Err(CertificateError::NoRoots) } else { Ok(self) }
    }

    fn add_root(&mut self, certificate: &CertificateDer<'_>, file: Option<&PathBuf>) -> Result<(), CertificateError> {
        let parsed = parse(certificate)?;
        if !parsed.is_ca() {
            return Err(CertificateError::Refused("not a CA's certificate, so it cannot be a root".into()));
        }
        let anchor = webpki::anchor_from_trusted_cert(certificate)
            .map_err(|error| CertificateError::Malformed(error.to_string()))?
            .to_owned();
        self.root_names.push(DistinguishedName::in_sequence(&anchor.subject));
        self.root_facts.push(Root {
            name: parsed.subject().to_string(),
            file: file.cloned(),
            not_before_unix: parsed.validity().not_before.timestamp(),
            not_after_unix: parsed.validity().not_after.timestamp(),
        });
        self.roots.push(anchor);
        self.made_of.push(Sha256::digest(certificate).into());
        Ok(())
    }

    fn add_crl(
        &mut self,
        der: &CertificateRevocationListDer<'_>,
        file: Option<&PathBuf>,
    ) -> Result<(), CertificateError> {
        let bad = |error: &dyn fmt::Display| CertificateError::BadCrl(error.to_string());
        let crl = CertRevocationList::from(OwnedCertRevocationList::from_der(der).map_err(|error| bad(&error))?);
        if crl.issuing_distribution_point().is_some() {
            return Err(CertificateError::BadCrl("it covers only part of its CA's certificates".into()));
        }
        let facts = Crl { file: file.cloned(), ..Crl::of(der)? };
        self.made_of.push(Sha256::digest(der).into());
        let same_issuer = self.crls.iter().position(|other| other.issuer() == crl.issuer());
        match same_issuer {
            Some(position) if facts.number > self.crl_facts[position].number => {
                self.crls[position] = crl;
                self.crl_facts[position] = facts;
            }
            Some(_) => {}
            None => {
                self.crls.push(crl);
                self.crl_facts.push(facts);
            }
        }
        Ok(())
    }

    fn root_not_after(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> Result<i64, CertificateError> {
        // Several roots may have one name and key and differ in validity (a prolonged root): the longest counts.
        let of_this_root = self.roots.iter().zip(&self.root_facts).filter(|(root, _)| same_root(root, anchor));
        let longest = of_this_root.map(|(_, root)| root).max_by_key(|root| root.not_after_unix);
        let (not_before, not_after) = longest.map_or((i64::MAX, 0), |root| (root.not_before_unix, root.not_after_unix));
        let time = |seconds: i64| {
            rfc3339(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds.try_into().unwrap_or(0))))
        };
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < not_before {
            Err(CertificateError::NotYetValid(time(not_before)))
        } else if now > not_after {
            Err(CertificateError::Expired(time(not_after)))
        } else {
            Ok(not_after)
        }
    }

    /// The path validation says that something is revoked; a person needs to know what.
    fn name_revoked(&self, chain: &[CertificateDer<'_>]) -> String {
        for certificate in chain {
            let Ok(cert) = EndEntityCert::try_from(certificate) else { continue };
            let listed = |crl: &CertRevocationList<'_>| {
                crl.issuer() == cert.issuer() && matches!(crl.find_serial(cert.serial()), Ok(Some(_)))
            };
            if self.crls.iter().any(listed) {
                let serial = hex::encode(cert.serial());
                return match claimed_identity(certificate) {
                    Ok(identity) => format!("{identity}, serial {serial}"),
                    Err(_) => format!("serial {serial}"),
                };
            }
        }
        "a certificate of the chain".into()
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anchors").field("roots", &self.roots.len()).field("crls", &self.crl_facts).finish()
    }
}

impl Crl {
    /// Reads the facts of a CRL; its signature is verified where it is used, against its issuer's key.
    pub fn of(der: &CertificateRevocationListDer<'_>) -> Result<Self, CertificateError> {
        let (_, crl) =
            CertificateRevocationList::from_der(der).map_err(|error| CertificateError::BadCrl(error.to_string()))?;
        let next_update = crl.next_update().ok_or_else(|| CertificateError::BadCrl("it has no next update".into()))?;
        let number = crl.crl_number().cloned().unwrap_or_else(|| BigUint::from(0u8));
        Ok(Self {
            issuer: crl.issuer().to_string(),
            file: None,
            this_update_unix: crl.last_update().timestamp(),
            number: u64::try_from(number).map_err(|_| CertificateError::BadCrl("its number passes 64 bits".into()))?,
            next_update_unix: next_update.timestamp(),
            revoked: crl.iter_revoked_certificates().count(),
        })
    }
}

fn same_root(one: &TrustAnchor<'_>, other: &TrustAnchor<'_>) -> bool {
    one.subject == other.subject && one.subject_public_key_info == other.subject_public_key_info
}

/// The leaf's identity, if the CAs above it may speak for it.
fn identity_of(leaf: &EndEntityCert<'_>, path: &VerifiedPath<'_>) -> Result<Identity, CertificateError> {
    let identity = only_identity(leaf.valid_uri_names())?;
    if let Identity::Member(member) = identity {
        return Err(CertificateError::MemberAsPeer(member));
    }
    for (position, ca) in path.intermediate_certificates().enumerate() {
        match only_identity(ca.valid_uri_names()) {
            Ok(Identity::Member(member)) if member == *identity.member() => {}
            Ok(Identity::Member(issuer)) => return Err(CertificateError::ForeignMember { leaf: identity, issuer }),
            // Above the issuing CA, a CA that belongs to no member is fine.
            Err(CertificateError::NoIdentity) if position > 0 => {}
            Ok(_) | Err(CertificateError::NoIdentity) => return Err(CertificateError::IssuerWithoutMember(identity)),
            Err(error) => return Err(error),
        }
    }
    if path.intermediate_certificates().next().is_none() {
        return Err(CertificateError::IssuerWithoutMember(identity));
    }
    Ok(identity)
}
