//! What each kind of certificate carries (`certs/README.md` has the table for people).

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SanType,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::{PkiError, Sans, Validity};
use crate::trust::certificate::only_identity;
use crate::trust::identity::{Identity, MemberId};

const ROOT_DAYS: i64 = 3653;
const MEMBER_CA_DAYS: i64 = 1826;
/// `serialNumber` in a distinguished name: makes a CA's name its own, so that a renewed CA has its own CRL.
const DN_SERIAL_NUMBER: &[u64] = &[2, 5, 4, 5];
/// RFC 5280's upper bound of a common name and of an organisation.
const UB_NAME: usize = 64;

/// A certificate about to be signed.
pub(super) struct Profile {
    pub(super) params: CertificateParams,
    pub(super) serial_hex: String,
}

impl Profile {
    pub(super) fn root(federation: &str, now: OffsetDateTime) -> Result<Self, PkiError> {
        let validity = Validity { not_before: now - Duration::minutes(5), not_after: now + Duration::days(ROOT_DAYS) };
        let mut profile = Self::new(validity)?;
        profile.name(federation, &format!("Kopuro root {federation}"));
        profile.make_ca(BasicConstraints::Constrained(1))?;
        Ok(profile)
    }

    pub(super) fn member_ca(member: &MemberId, validity: Validity) -> Result<Self, PkiError> {
        let mut profile = Self::new(validity)?;
        profile.name(member.as_str(), &format!("Kopuro CA {member}"));
        profile.make_ca(BasicConstraints::Constrained(0))?;
        profile.params.use_authority_key_identifier_extension = true;
        profile.identify(&Identity::Member(member.clone()))?;
        Ok(profile)
    }

    pub(super) fn leaf(identity: &Identity, sans: &Sans, validity: Validity) -> Result<Self, PkiError> {
        let mut profile = Self::new(validity)?;
        profile.describe(identity, sans)?;
        let params = &mut profile.params;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Systems serve too: the provider's node calls them. An auditor only ever calls.
        params.extended_key_usages = match identity {
            Identity::Auditor { .. } => vec![ExtendedKeyUsagePurpose::ClientAuth],
            _ => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        Ok(profile)
    }

    /// A request says who asks; everything else is the CA's to say.
    pub(super) fn request(identity: &Identity, sans: &Sans) -> Result<Self, PkiError> {
        let now = OffsetDateTime::UNIX_EPOCH;
        let mut profile = Self::new(Validity { not_before: now, not_after: now + Duration::DAY })?;
        profile.params.serial_number = None;
        profile.describe(identity, sans)?;
        Ok(profile)
    }

    fn new(validity: Validity) -> Result<Self, PkiError> {
        if validity.not_before > validity.not_after {
            return Err(PkiError::EmptyValidity);
        }
        let mut serial = random::<16>()?;
        // Positive and without leading zeros, so that it is written the same in DER, hex and everywhere.
        serial[0] = (serial[0] & 0x7f) | 0x40;
        let mut params = CertificateParams::default();
        params.not_before = to_second(validity.not_before);
        params.not_after = to_second(validity.not_after);
        params.serial_number = Some(SerialNumber::from(serial.to_vec()));
        Ok(Self { params, serial_hex: hex::encode(serial) })
    }

    fn describe(&mut self, identity: &Identity, sans: &Sans) -> Result<(), PkiError> {
        let text = identity.to_string();
        self.name(identity.member().as_str(), text.rsplit('/').next().unwrap_or(&text));
        self.identify(identity)?;
        for name in &sans.dns {
            let bad = || PkiError::DnsName(name.clone());
            rustls::pki_types::DnsName::try_from(name.as_str()).map_err(|_| bad())?;
            self.params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(|_| bad())?));
        }
        self.params.subject_alt_names.extend(sans.ips.iter().copied().map(SanType::IpAddress));
        Ok(())
    }

    fn name(&mut self, organisation: &str, common: &str) {
        let mut name = DistinguishedName::new();
        // Identities are ASCII, so cutting at a byte is cutting at a character.
        name.push(DnType::OrganizationName, organisation.chars().take(UB_NAME).collect::<String>());
        name.push(DnType::CommonName, common.chars().take(UB_NAME).collect::<String>());
        self.params.distinguished_name = name;
    }

    fn identify(&mut self, identity: &Identity) -> Result<(), PkiError> {
        self.params.subject_alt_names.push(SanType::URI(identity.to_uri().try_into()?));
        Ok(())
    }

    fn make_ca(&mut self, constraints: BasicConstraints) -> Result<(), PkiError> {
        let number = DnValue::PrintableString(self.serial_hex[..16].try_into()?);
        self.params.distinguished_name.push(DnType::CustomDnType(DN_SERIAL_NUMBER.to_vec()), number);
        self.params.is_ca = IsCa::Ca(constraints);
        self.params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(())
    }
}

pub(super) fn member_ca_validity(now: OffsetDateTime) -> Validity {
    Validity { not_before: now - Duration::minutes(5), not_after: now + Duration::days(MEMBER_CA_DAYS) }
}

pub(super) fn generate_key() -> Result<KeyPair, PkiError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// Whom a request asks to certify: one identity, and any DNS names and addresses.
pub(super) fn requested_names(params: &CertificateParams) -> Result<(Identity, Sans), PkiError> {
    let mut uris = Vec::new();
    let mut sans = Sans::default();
    for name in &params.subject_alt_names {
        match name {
            SanType::URI(uri) => uris.push(uri.as_str()),
            SanType::DnsName(name) => sans.dns.push(name.as_str().into()),
            SanType::IpAddress(address) => sans.ips.push(*address),
            _ => return Err(PkiError::RequestedName),
        }
    }
    Ok((only_identity(uris.into_iter())?, sans))
}

/// The kinds of key that are certified. The request names an algorithm; its key must have that curve's length.
pub(super) fn check_requested_key(key: &impl PublicKeyData) -> Result<(), PkiError> {
    let kinds = [(&PKCS_ECDSA_P256_SHA256, 65), (&PKCS_ECDSA_P384_SHA384, 97), (&PKCS_ED25519, 32)];
    let good = kinds.iter().any(|(kind, length)| key.algorithm() == *kind && key.der_bytes().len() == *length);
    if good { Ok(()) } else { Err(PkiError::RequestedKey) }
}

/// X.509 knows whole seconds.
pub(super) fn to_second(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(0).unwrap_or(time)
}

fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| PkiError::Random(error.to_string()))?;
    Ok(bytes)
}
