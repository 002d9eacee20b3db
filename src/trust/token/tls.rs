//! A token's ECDSA key as rustls and rcgen want it: for handshakes of both sides, and for certificate requests.

use std::sync::OnceLock;

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{SubjectPublicKeyInfoDer, alg_id};
use rustls::sign::{Signer, SigningKey, public_key_to_spki};
use rustls::{SignatureAlgorithm, SignatureScheme};
use sha2::{Digest, Sha256};

use super::{KeyInToken, KeyKind, TokenError, TokenKey};

const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

/// An ECDSA P-256 key in a token. Signing waits for the token; see [`KeyInToken`] for how long.
#[derive(Debug, Clone)]
pub struct TlsKey(KeyInToken);

impl TlsKey {
    /// Opens the key.
    pub fn open(at: &TokenKey) -> Result<Self, TokenError> {
        KeyInToken::open(at, KeyKind::EcdsaP256).map(Self)
    }

    /// Makes the key, which must not be there yet.
    pub fn generate(at: &TokenKey) -> Result<Self, TokenError> {
        super::generate(at, KeyKind::EcdsaP256).map(Self)
    }

    /// Signs a message: ECDSA over its SHA-256, in DER.
    fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let raw = self.0.sign(&Sha256::digest(message))?;
        in_der(&raw).ok_or_else(|| self.0.at().failed("gave an ECDSA signature of another length than 64 bytes"))
    }
}

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SCHEME).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(public_key_to_spki(&alg_id::ECDSA_P256, self.0.public()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.sign_message(message).map_err(|error| {
            // The peer sees a handshake that breaks off; why is the operator's to see.
            tracing::error!(%error, "the token does not sign: no TLS connection is made");
            rustls::Error::General(format!("the token does not sign: {error}"))
        })
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}

/// A request in the making: rcgen's errors have no room for a token's.
pub(in crate::trust) struct Requester<'k> {
    key: &'k TlsKey,
    failed: OnceLock<TokenError>,
}

impl<'k> Requester<'k> {
    pub(in crate::trust) fn new(key: &'k TlsKey) -> Self {
        Self { key, failed: OnceLock::new() }
    }

    /// What the token said, if it was the token.
    pub(in crate::trust) fn failed(self) -> Option<TokenError> {
        self.failed.into_inner()
    }
}

impl PublicKeyData for Requester<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.0.public()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Requester<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign_message(message).map_err(|error| {
            let _ = self.failed.set(error);
            rcgen::Error::RemoteKeyError
        })
    }
}

/// `r ‖ s`, as tokens give it, as `SEQUENCE { INTEGER, INTEGER }`, as X.509 and TLS write it.
fn in_der(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() != 64 {
        return None;
    }
    let (r, s) = raw.split_at(32);
    let integers = [integer(r), integer(s)].concat();
    // At most 70 bytes: lengths fit a byte.
    Some([&[0x30, u8::try_from(integers.len()).ok()?], &integers[..]].concat())
}

/// A number as a DER INTEGER: no zeros before it but one where the first bit would be taken for a sign.
fn integer(number: &[u8]) -> Vec<u8> {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len() - 1);
    let number = &number[start..];
    let sign: &[u8] = if number[0] & 0x80 == 0 { &[] } else { &[0] };
    let length = u8::try_from(sign.len() + number.len()).unwrap_or(u8::MAX);
    [&[0x02, length], sign, number].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_in_der() {
        let mut raw = [0; 64];
        raw[31] = 0x7f;
        raw[63] = 0x80;
        assert_eq!(in_der(&raw).unwrap(), [0x30, 7, 2, 1, 0x7f, 2, 2, 0, 0x80]);
        assert_eq!(in_der(&[0; 64]).unwrap(), [0x30, 6, 2, 1, 0, 2, 1, 0]);
        let long = in_der(&[0xff; 64]).unwrap();
        assert_eq!((long.len(), &long[..5]), (72, &[0x30, 70, 2, 33, 0][..]));
        assert!(in_der(&[1; 63]).is_none() && in_der(&[]).is_none());
    }

    /// What another implementation signs, taken apart and put together again, it verifies.
    #[test]
    fn another_implementation_reads_them() {
        use aws_lc_rs::rand::SystemRandom;
        use aws_lc_rs::signature::{
            ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
        };
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref());
        // Enough of them that some have a short r or s.
        for message in 0..600_u32 {
            let raw = pair.sign(&SystemRandom::new(), &message.to_be_bytes()).unwrap();
            public.verify(&message.to_be_bytes(), &in_der(raw.as_ref()).unwrap()).unwrap();
        }
    }
}
