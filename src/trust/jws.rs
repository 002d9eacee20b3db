//! Detached signatures by the key of a certificate: who wrote a document, provable long after a connection has closed.
//!
//! A JWS in compact serialisation with a detached payload (RFC 7515, appendix F): `BASE64URL(header)..BASE64URL(signature)`, over
//! `BASE64URL(header) "." BASE64URL(payload)`. The header has `alg` (ES256, ES384, EdDSA or PS256), `typ`, which names the kind of document, and
//! `x5c`, the chain, leaf first (RFC 7515, 4.1.6); nothing else. The chain is judged as a TLS client's is, so the signature proves what a
//! connection would. No TLS handshake signs such bytes: what it signs begins with 64 spaces (RFC 8446, 4.4.3).

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::{Anchors, CertificateError, PeerIdentity, Usage};
use super::tls::{Credentials, TlsError};

/// Longer than any chain of ours with its signature.
const MOST_BYTES: usize = 64 << 10;
/// Leaf, its CA, and what may be above.
const MOST_CERTIFICATES: usize = 8;

/// Why a signature is not good, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum JwsError {
    /// It is not written as a detached JWS of ours.
    #[error("the signature is malformed: {0}")]
    Malformed(String),
    /// It is a signature of another kind of document.
    #[error("it is a signature of {found:?}, not of {expected:?}")]
    OtherType {
        /// What it should be of.
        expected: String,
        /// What it says.
        found: String,
    },
    /// The document is not what was signed, or another key signed it.
    #[error("the signature does not hold: the document was changed, or another key signed it")]
    False,
    /// The chain proves no identity.
    #[error("the signer's certificate does not hold: {0}")]
    Certificate(#[from] CertificateError),
    /// Our own key is of a kind that this cannot be done with.
    #[error("a key of this kind cannot sign: use ECDSA P-256 or P-384, Ed25519 or RSA")]
    Key,
    /// The TLS library refuses to sign.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    x5c: Vec<String>,
}

struct Algorithm {
    name: &'static str,
    scheme: SignatureScheme,
    verify: &'static dyn VerificationAlgorithm,
    /// Bytes of each half of an ECDSA signature, which JWS writes one after the other and not in DER.
    half: Option<usize>,
}

static ALGORITHMS: [Algorithm; 4] = [
    Algorithm {
        name: "ES256",
        scheme: SignatureScheme::ECDSA_NISTP256_SHA256,
        verify: &signature::ECDSA_P256_SHA256_FIXED,
        half: Some(32),
    },
    Algorithm {
        name: "ES384",
        scheme: SignatureScheme::ECDSA_NISTP384_SHA384,
        verify: &signature::ECDSA_P384_SHA384_FIXED,
        half: Some(48),
    },
    Algorithm { name: "EdDSA", scheme: SignatureScheme::ED25519, verify: &signature::ED25519, half: None },
    Algorithm {
        name: "PS256",
        scheme: SignatureScheme::RSA_PSS_SHA256,
        verify: &signature::RSA_PSS_2048_8192_SHA256,
        half: None,
    },
];

/// Signs a document of this type.
pub fn sign(credentials: &Credentials, typ: &str, payload: &[u8]) -> Result<String, JwsError> {
    let x5c = credentials.chain().iter().map(|certificate| STANDARD.encode(certificate)).collect();
    let mut header = Header { alg: String::new(), typ: typ.to_owned(), x5c };
    for algorithm in &ALGORITHMS {
        algorithm.name.clone_into(&mut header.alg);
        let json = serde_json::to_vec(&header).map_err(|error| JwsError::Malformed(error.to_string()))?;
        let header = URL_SAFE_NO_PAD.encode(json);
        let Some(made) = credentials.sign(algorithm.scheme, &signed(&header, payload))? else { continue };
        let made = match algorithm.half {
            Some(half) => fixed(&made, half).ok_or(JwsError::Key)?,
            None => made,
        };
        return Ok(format!("{header}..{}", URL_SAFE_NO_PAD.encode(made)));
    }
    Err(JwsError::Key)
}

/// Whose signature of this document it is.
pub fn verify(
    jws: &str,
    typ: &str,
    payload: &[u8],
    anchors: &Anchors,
    now: UnixTime,
) -> Result<PeerIdentity, JwsError> {
    let malformed = |what: &str| JwsError::Malformed(what.to_owned());
    if jws.len() > MOST_BYTES {
        return Err(malformed("it is too long"));
    }
    let (header_text, made) = jws.split_once("..").ok_or_else(|| malformed("it is no detached JWS"))?;
    let json = URL_SAFE_NO_PAD.decode(header_text).map_err(|error| JwsError::Malformed(error.to_string()))?;
    let header: Header = serde_json::from_slice(&json).map_err(|error| JwsError::Malformed(error.to_string()))?;
    if header.typ != typ {
        return Err(JwsError::OtherType { expected: typ.to_owned(), found: header.typ });
    }
    let algorithm = ALGORITHMS.iter().find(|algorithm| algorithm.name == header.alg);
    let algorithm = algorithm.ok_or_else(|| malformed("its alg is none of ES256, ES384, EdDSA, PS256"))?;
    if !(1..=MOST_CERTIFICATES).contains(&header.x5c.len()) {
        return Err(malformed("its x5c is no chain"));
    }
    let chain = header.x5c.iter().map(|certificate| STANDARD.decode(certificate).map(CertificateDer::from));
    let chain: Vec<CertificateDer<'_>> =
        chain.collect::<Result<_, _>>().map_err(|error| JwsError::Malformed(error.to_string()))?;
    let made = URL_SAFE_NO_PAD.decode(made).map_err(|error| JwsError::Malformed(error.to_string()))?;

    let (_, leaf) = X509Certificate::from_der(&chain[0])
        .map_err(|error| JwsError::Certificate(CertificateError::Malformed(error.to_string())))?;
    let key = UnparsedPublicKey::new(algorithm.verify, &leaf.public_key().subject_public_key.data);
    key.verify(&signed(header_text, payload), &made).map_err(|_| JwsError::False)?;
    Ok(anchors.verify_peer(&chain, Usage::Client, now)?)
}

fn signed(header: &str, payload: &[u8]) -> Vec<u8> {
    format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload)).into_bytes()
}

/// `SEQUENCE { r INTEGER, s INTEGER }` as `r ‖ s`, each of `half` bytes.
fn fixed(der: &[u8], half: usize) -> Option<Vec<u8>> {
    let [0x30, length, rest @ ..] = der else { return None };
    // At most 2 × (2 + 49) = 102 with P-384: the length is one byte.
    if usize::from(*length) != rest.len() {
        return None;
    }
    let mut out = Vec::with_capacity(half * 2);
    let mut rest = rest;
    for _ in 0..2 {
        let [0x02, length, after @ ..] = rest else { return None };
        let (integer, after) = after.split_at_checked(usize::from(*length))?;
        let start = integer.iter().position(|byte| *byte != 0).unwrap_or(integer.len());
        let integer = &integer[start..];
        out.resize(out.len() + half.checked_sub(integer.len())?, 0);
        out.extend_from_slice(integer);
        rest = after;
    }
    rest.is_empty().then_some(out)
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::trust::pki::{Authority, Sans, Validity};

    fn federation(system: &str) -> (Anchors, Credentials) {
        let now = OffsetDateTime::now_utc();
        let mut root = Authority::create_root("KG", now).unwrap();
        let mut ca = root.issue_member_ca(&"KG/GOV/1".parse().unwrap(), now).unwrap();
        let issued = ca.issue(&system.parse().unwrap(), &Sans::default(), Validity::days(now, 1)).unwrap();
        let anchors = Anchors::from_pem(root.certificate_pem(), "").unwrap();
        (anchors, Credentials::from_pem(&issued.cert_pem, &issued.key_pem).unwrap())
    }

    #[test]
    fn proves_who_signed_what() {
        let (anchors, credentials) = federation("KG/GOV/1/desk");
        // Several, so that halves with leading zeros come by.
        for round in 0..300_u32 {
            let payload = round.to_string();
            let jws = sign(&credentials, "test", payload.as_bytes()).unwrap();
            let signer = verify(&jws, "test", payload.as_bytes(), &anchors, UnixTime::now()).unwrap();
            assert_eq!(signer.identity.to_string(), "KG/GOV/1/desk");
        }
        let jws = sign(&credentials, "test", b"text").unwrap();
        let judged = |jws: &str, typ, payload: &[u8]| verify(jws, typ, payload, &anchors, UnixTime::now());
        assert!(matches!(judged(&jws, "test", b"Text"), Err(JwsError::False)));
        assert!(matches!(judged(&jws, "other", b"text"), Err(JwsError::OtherType { .. })));
        for bad in ["", "..", "e30..AA", &jws.replacen("..", ".dGV4dA.", 1), &format!("{jws}="), &jws[1..]] {
            assert!(matches!(judged(bad, "test", b"text"), Err(JwsError::Malformed(_))), "{bad}");
        }
        let cut = &jws[..jws.len() - 2];
        assert!(matches!(judged(cut, "test", b"text"), Err(JwsError::False)));
    }

    #[test]
    fn another_federations_key_proves_nothing() {
        let (anchors, _) = federation("KG/GOV/1/desk");
        let (_, stranger) = federation("KG/GOV/1/desk");
        let jws = sign(&stranger, "test", b"text").unwrap();
        assert!(matches!(verify(&jws, "test", b"text", &anchors, UnixTime::now()), Err(JwsError::Certificate(_))));
    }

    #[test]
    fn the_header_says_nothing_but_what_is_judged() {
        let (anchors, credentials) = federation("KG/GOV/1/desk");
        let jws = sign(&credentials, "test", b"text").unwrap();
        let header = URL_SAFE_NO_PAD.decode(jws.split_once("..").unwrap().0).unwrap();
        let header = String::from_utf8(header).unwrap();
        let with = |header: &str| format!("{}..AAAA", URL_SAFE_NO_PAD.encode(header));
        for bad in [
            header.replacen('{', r#"{"crit":["b64"],"#, 1),
            header.replace("ES256", "none"),
            header.replace("ES256", "HS256"),
        ] {
            let judged = verify(&with(&bad), "test", b"text", &anchors, UnixTime::now());
            assert!(matches!(judged, Err(JwsError::Malformed(_))), "{bad}");
        }
        let other = header.replace("ES256", "PS256");
        assert!(matches!(verify(&with(&other), "test", b"text", &anchors, UnixTime::now()), Err(JwsError::False)));
    }
}
