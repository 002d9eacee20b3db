//! Keys that sign notes, and the text that each half is written as.

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Note, NoteError, cosignature};
use crate::trust::token::KeyInToken;

const TYPE_ED25519: u8 = 0x01;
pub(super) const TYPE_COSIGNATURE: u8 = 0x04;
const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";

/// A named private key, in memory (wiped when dropped, never printed) or in a token.
#[derive(Clone)]
pub struct Signer {
    name: String,
    key: PrivateKey,
}

#[derive(Clone)]
enum PrivateKey {
    Memory(SigningKey),
    Token(KeyInToken, VerifyingKey),
}

impl Signer {
    /// A new key from the system's random generator.
    pub fn generate(name: &str) -> Result<Self, NoteError> {
        Ok(Self { name: name.into(), key: PrivateKey::Memory(generate(name)?) })
    }

    /// Reads `PRIVATE+KEY+name+hex+base64(01 ‖ seed)`; white space around it is allowed, as in a file.
    pub fn from_encoded(encoded: &str) -> Result<Self, NoteError> {
        let (name, id, key) = decode_private(encoded, TYPE_ED25519)?;
        let signer = Self { name: name.into(), key: PrivateKey::Memory(key) };
        check_key_id(name, id, signer.verifier().key_id)?;
        Ok(signer)
    }

    /// The Ed25519 key in a token, under this name.
    pub fn in_token(name: &str, key: KeyInToken) -> Result<Self, NoteError> {
        check_name(name)?;
        let public = key.public().try_into().ok().and_then(|public| VerifyingKey::from_bytes(public).ok());
        let public = public.ok_or_else(|| NoteError::Token(format!("{key} is no Ed25519 key")))?;
        Ok(Self { name: name.into(), key: PrivateKey::Token(key, public) })
    }

    /// The private key as text, for a file that only its owner reads. Empty for a key in a token, which never leaves it.
    pub fn to_encoded(&self) -> Zeroizing<String> {
        match &self.key {
            PrivateKey::Memory(key) => encode_private(&self.verifier(), TYPE_ED25519, key),
            PrivateKey::Token(..) => Zeroizing::default(),
        }
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The signature alone, without its key id. A token's is verified before anybody gets it.
    pub(super) fn signature_of(&self, text: &str) -> Result<Vec<u8>, NoteError> {
        match &self.key {
            PrivateKey::Memory(key) => Ok(key.sign(text.as_bytes()).to_bytes().to_vec()),
            PrivateKey::Token(key, _) => {
                let signature = key.sign(text.as_bytes()).map_err(|error| NoteError::Token(error.to_string()))?;
                if !self.verifier().verifies(text, &signature) {
                    return Err(NoteError::Token(format!("{key} gave a signature that does not verify")));
                }
                Ok(signature)
            }
        }
    }

    /// The public half.
    pub fn verifier(&self) -> Verifier {
        let public = match &self.key {
            PrivateKey::Memory(key) => key.verifying_key(),
            PrivateKey::Token(_, public) => *public,
        };
        Verifier::new(self.name.clone(), PublicKey::Ed25519(public))
    }

    /// A note of this text with this key's signature alone. The text must end in a newline.
    pub fn sign(&self, text: &str) -> Result<String, NoteError> {
        let mut note = Note::unsigned(text)?;
        note.add_signature(self)?;
        Ok(note.to_string())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.verifier())
    }
}

/// A named public key. Printed and parsed as a vkey.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    key_id: [u8; 4],
    key: PublicKey,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum PublicKey {
    Ed25519(VerifyingKey),
    /// A witness's, for cosignatures: see `cosignature`.
    Cosignature(VerifyingKey),
}

impl Verifier {
    /// The key's name; a log's is its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first 4 bytes of SHA-256 over name and key.
    pub fn key_id(&self) -> [u8; 4] {
        self.key_id
    }

    /// Whether `signature` is this key's of `text`.
    pub fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        match &self.key {
            PublicKey::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(text.as_bytes(), &signature).is_ok()),
            PublicKey::Cosignature(key) => cosignature::verify(key, text, signature).is_some(),
        }
    }

    /// Whether this is a witness's key (type 04), whose signatures are C2SP cosignatures.
    pub fn is_cosigner(&self) -> bool {
        matches!(self.key, PublicKey::Cosignature(_))
    }

    /// When this witness cosigned `text`, in Unix seconds; none where `signature` is not its cosignature of it.
    pub fn cosigned_at(&self, text: &str, signature: &[u8]) -> Option<u64> {
        match &self.key {
            PublicKey::Ed25519(_) => None,
            PublicKey::Cosignature(key) => cosignature::verify(key, text, signature),
        }
    }

    /// The bare public key: what makes two vkeys duplicates of each other for C2SP, whatever their names and types.
    pub fn public_key(&self) -> [u8; 32] {
        match &self.key {
            PublicKey::Ed25519(key) | PublicKey::Cosignature(key) => key.to_bytes(),
        }
    }

    /// Type and public key, without the name: what tells two keys apart.
    pub fn key_bytes(&self) -> Vec<u8> {
        self.key.encode()
    }

    pub(super) fn new(name: String, key: PublicKey) -> Self {
        let mut hash = Sha256::new();
        hash.update(name.as_bytes());
        hash.update(b"\n");
        hash.update(key.encode());
        let digest = hash.finalize();
        Self { name, key_id: [digest[0], digest[1], digest[2], digest[3]], key }
    }
}

impl PublicKey {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => [&[TYPE_ED25519], &key.as_bytes()[..]].concat(),
            Self::Cosignature(key) => [&[TYPE_COSIGNATURE], &key.as_bytes()[..]].concat(),
        }
    }

    fn decode(data: &[u8]) -> Result<Self, NoteError> {
        let point = |key: &[u8]| {
            let key = key.try_into().map_err(|_| NoteError::VerifierKey)?;
            VerifyingKey::from_bytes(key).map_err(|_| NoteError::VerifierKey)
        };
        match data.split_first() {
            Some((&TYPE_ED25519, key)) => point(key).map(Self::Ed25519),
            Some((&TYPE_COSIGNATURE, key)) => point(key).map(Self::Cosignature),
            Some((&kind, _)) => Err(NoteError::KeyType(kind)),
            None => Err(NoteError::VerifierKey),
        }
    }
}

/// Where a list of keys is taken, one will do.
impl AsRef<[Self]> for Verifier {
    fn as_ref(&self) -> &[Self] {
        std::slice::from_ref(self)
    }
}

impl FromStr for Verifier {
    type Err = NoteError;

    fn from_str(vkey: &str) -> Result<Self, Self::Err> {
        let (name, id, data) = split_key(vkey).ok_or(NoteError::VerifierKey)?;
        check_name(name)?;
        let data = BASE64_STANDARD.decode(data).map_err(|_| NoteError::VerifierKey)?;
        let verifier = Self::new(name.into(), PublicKey::decode(&data)?);
        check_key_id(name, id, verifier.key_id)?;
        Ok(verifier)
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.name, hex::encode(self.key_id), BASE64_STANDARD.encode(self.key.encode()))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Verifier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Verifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

pub(super) fn generate(name: &str) -> Result<SigningKey, NoteError> {
    check_name(name)?;
    let mut seed = Zeroizing::new([0u8; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| NoteError::Random(error.to_string()))?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Name, key id as written, and key of `PRIVATE+KEY+name+hex+base64(type ‖ seed)`.
pub(super) fn decode_private(encoded: &str, kind: u8) -> Result<(&str, &str, SigningKey), NoteError> {
    let rest = encoded.trim().strip_prefix(PRIVATE_PREFIX).ok_or(NoteError::SigningKey)?;
    let (name, id, data) = split_key(rest).ok_or(NoteError::SigningKey)?;
    check_name(name)?;
    let data = Zeroizing::new(BASE64_STANDARD.decode(data).map_err(|_| NoteError::SigningKey)?);
    let (&written, seed) = data.split_first().ok_or(NoteError::SigningKey)?;
    if written != kind {
        return Err(match written {
            TYPE_ED25519 | TYPE_COSIGNATURE => NoteError::KeyUse { kind: written, wanted: kind },
            other => NoteError::KeyType(other),
        });
    }
    let seed = Zeroizing::new(<[u8; 32]>::try_from(seed).map_err(|_| NoteError::SigningKey)?);
    Ok((name, id, SigningKey::from_bytes(&seed)))
}

pub(super) fn encode_private(verifier: &Verifier, kind: u8, key: &SigningKey) -> Zeroizing<String> {
    let mut data = Zeroizing::new([0u8; 33]);
    data[0] = kind;
    data[1..].copy_from_slice(key.as_bytes());
    // Room for all of it at once: growing would leave copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(PRIVATE_PREFIX.len() + verifier.name.len() + 64));
    text.push_str(PRIVATE_PREFIX);
    text.push_str(&verifier.name);
    text.push('+');
    text.push_str(&hex::encode(verifier.key_id));
    text.push('+');
    BASE64_STANDARD.encode_string(data.as_ref(), &mut text);
    text
}

pub(super) fn check_name(name: &str) -> Result<(), NoteError> {
    let good = !name.is_empty() && name.chars().all(|c| !c.is_whitespace() && c != '+' && c >= ' ');
    if good { Ok(()) } else { Err(NoteError::Name(name.into())) }
}

/// `name+hex+base64` in three; base64 may itself hold a plus.
fn split_key(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_once('+')?;
    let (id, data) = rest.split_once('+')?;
    Some((name, id, data))
}

pub(super) fn check_key_id(name: &str, written: &str, computed: [u8; 4]) -> Result<(), NoteError> {
    let computed = hex::encode(computed);
    if written == computed {
        return Ok(());
    }
    Err(NoteError::KeyId { name: name.into(), written: written.into(), computed })
}
