//! Keys: `age1…` (32 bytes of an X25519 public key in Bech32) and `AGE-SECRET-KEY-1…` (the private one).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::AgeError;

const PUBLIC: &str = "age";
const SECRET: &str = "age-secret-key-";

/// A public key to encrypt to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Recipient(pub(super) [u8; 32]);

/// A private key. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Identity(Box<[u8; 32]>);

impl Identity {
    /// A new key.
    pub fn generate() -> Result<Self, AgeError> {
        let mut bytes = Box::new([0; 32]);
        aws_lc_rs::rand::fill(&mut bytes[..]).map_err(|_| AgeError::Cipher)?;
        Ok(Self(bytes))
    }

    /// The identities of a file as `age-keygen` writes it: one a line, lines that begin with `#` are comments.
    pub fn parse_file(text: &str) -> Result<Vec<Self>, AgeError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let identities: Vec<Self> = lines.map(str::parse).collect::<Result<_, _>>()?;
        if identities.is_empty() { Err(AgeError::Identity) } else { Ok(identities) }
    }

    /// The public key.
    pub fn recipient(&self) -> Result<Recipient, AgeError> {
        let key = PrivateKey::from_private_key(&X25519, &self.0[..]).map_err(|_| AgeError::Cipher)?;
        let public = key.compute_public_key().map_err(|_| AgeError::Cipher)?;
        Ok(Recipient(public.as_ref().try_into().map_err(|_| AgeError::Cipher)?))
    }

    /// The key as a line of a file.
    pub fn to_encoded(&self) -> Zeroizing<String> {
        let hrp = Hrp::parse(SECRET).map(|hrp| bech32::encode_upper::<Bech32>(hrp, &self.0[..]).unwrap_or_default());
        Zeroizing::new(hrp.unwrap_or_default())
    }

    /// What it has in common with the holder of a public key; none where that is no public key.
    pub(super) fn shared_with(&self, public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let key = PrivateKey::from_private_key(&X25519, &self.0[..]).ok()?;
        agreement::agree(&key, UnparsedPublicKey::new(&X25519, public), (), |shared| {
            let mut bytes = Zeroizing::new([0; 32]);
            bytes.copy_from_slice(shared.get(..32).ok_or(())?);
            Ok(bytes)
        })
        .ok()
    }
}

impl FromStr for Recipient {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = decoded(text, PUBLIC).map(|bytes| Self(*bytes));
        bytes.ok_or_else(|| AgeError::Recipient(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hrp = Hrp::parse(PUBLIC).map_err(|_| fmt::Error)?;
        f.write_str(&bech32::encode::<Bech32>(hrp, &self.0).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Identity {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decoded(text, SECRET).map(|bytes| Self(Box::new(*bytes))).ok_or(AgeError::Identity)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// 32 bytes in Bech32 behind this prefix.
fn decoded(text: &str, prefix: &str) -> Option<Zeroizing<[u8; 32]>> {
    let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
    if !checked.hrp().to_lowercase().eq(prefix) {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    let mut found = checked.byte_iter();
    bytes.iter_mut().try_for_each(|byte| found.next().map(|next| *byte = next))?;
    found.next().is_none().then_some(bytes)
}
