//! Cosignatures of type 04 (C2SP tlog-cosignature, `cosignature/v1`): a witness's statement that at that time the
//! checkpoint was the largest one consistent with all that it had seen of the log.
//!
//! ```text
//! signature   time(u64, Unix seconds, ≤ 2^63 − 1) ‖ Ed25519 over the message
//! message     "cosignature/v1\n" "time " time "\n" ‖ text of the checkpoint
//! ```
//!
//! The time is an argument: this room has no clock. The header keeps a cosignature from being taken for an ordinary
//! signature; a witness's key has its own type all the same, and none signs both.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use super::key::{PublicKey, TYPE_COSIGNATURE, check_key_id, decode_private, encode_private, generate};
use super::{NoteError, Signature, Verifier, check_text};

/// Its bytes before the Ed25519 signature.
const TIME_BYTES: usize = 8;

/// A witness's named private key. Wiped from memory when dropped; never printed.
pub struct Cosigner {
    name: String,
    key: SigningKey,
}

impl Cosigner {
    /// A new key from the system's random generator.
    pub fn generate(name: &str) -> Result<Self, NoteError> {
        Ok(Self { name: name.into(), key: generate(name)? })
    }

    /// Reads `PRIVATE+KEY+name+hex+base64(04 ‖ seed)`; white space around it is allowed, as in a file.
    pub fn from_encoded(encoded: &str) -> Result<Self, NoteError> {
        let (name, id, key) = decode_private(encoded, TYPE_COSIGNATURE)?;
        let cosigner = Self { name: name.into(), key };
        check_key_id(name, id, cosigner.verifier().key_id())?;
        Ok(cosigner)
    }

    /// The private key as text, for a file that only its owner reads.
    pub fn to_encoded(&self) -> Zeroizing<String> {
        encode_private(&self.verifier(), TYPE_COSIGNATURE, &self.key)
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public half.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.name.clone(), PublicKey::Cosignature(self.key.verifying_key()))
    }

    /// The cosignature of a checkpoint's text, seen at `time` (Unix seconds).
    pub fn cosign(&self, text: &str, time: u64) -> Result<Signature, NoteError> {
        check_text(text)?;
        let message = message(text, time).ok_or(NoteError::Time(time))?;
        let bytes = [&time.to_be_bytes(), &self.key.sign(message.as_bytes()).to_bytes()[..]].concat();
        Ok(Signature { name: self.name.clone(), key_id: self.verifier().key_id(), bytes })
    }
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosigner({})", self.verifier())
    }
}

/// The time of a good cosignature of `text`.
pub(super) fn verify(key: &VerifyingKey, text: &str, signature: &[u8]) -> Option<u64> {
    let (time, signature) = signature.split_first_chunk::<TIME_BYTES>()?;
    let time = u64::from_be_bytes(*time);
    let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
    key.verify_strict(message(text, time)?.as_bytes(), &signature).ok()?;
    Some(time)
}

fn message(text: &str, time: u64) -> Option<String> {
    (time <= i64::MAX as u64).then(|| format!("cosignature/v1\ntime {time}\n{text}"))
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use proptest::prelude::*;

    use super::*;
    use crate::trust::note::{Note, Signer};

    // Made with PyPI's aics-tlog 0.2.1 from the seed 00 01 … 1f, over the example of C2SP tlog-cosignature.
    const VKEY: &str = "witness.example/w1+e75f6532+BAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";
    const LINE: &str = "— witness.example/w1 519lMgAAAABkGFDLBuRDazBLVac2NE+Y+IjbjQOcXLfF9CSDZVUIoS83rE1nFZsVE8YiWV6Ngr7lV8H6bdoBQGP/l73euDMQ9k+bBQ==\n";
    const TEXT: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    const TIME: u64 = 1_679_315_147;

    fn example() -> Cosigner {
        let seed: Vec<u8> = [TYPE_COSIGNATURE].into_iter().chain(0..32).collect();
        Cosigner::from_encoded(&format!("PRIVATE+KEY+witness.example/w1+e75f6532+{}", BASE64_STANDARD.encode(seed)))
            .unwrap()
    }

    #[test]
    fn foreign_vector() {
        let verifier: Verifier = VKEY.parse().unwrap();
        assert_eq!((verifier.to_string().as_str(), verifier.is_cosigner()), (VKEY, true));
        let note = Note::parse(&format!("{TEXT}\n{LINE}")).unwrap();
        assert_eq!(note.verify(std::slice::from_ref(&verifier)).unwrap(), [&verifier]);
        assert_eq!(verifier.cosigned_at(TEXT, &note.signatures()[0].bytes), Some(TIME));
        // Ed25519 is deterministic: ours is the same to the byte.
        let cosigner = example();
        assert_eq!(cosigner.verifier(), verifier);
        assert_eq!(cosigner.cosign(TEXT, TIME).unwrap().to_string(), LINE);
        assert_eq!(Cosigner::from_encoded(&cosigner.to_encoded()).unwrap().verifier(), verifier);
    }

    #[test]
    fn the_specifications_example_is_read() {
        // C2SP tlog-cosignature publishes no key for it; its time is known.
        let note = Note::parse(&format!("{TEXT}\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n")).unwrap();
        let bytes = &note.signatures()[1].bytes;
        assert_eq!((bytes.len(), u64::from_be_bytes(bytes[..8].try_into().unwrap())), (72, TIME));
        assert_eq!(note.verify(&[VKEY.parse().unwrap()]), Err(NoteError::Unsigned));
    }

    #[test]
    fn keys_keep_to_their_use() {
        let (cosigner, signer) = (Cosigner::generate("w").unwrap(), Signer::generate("w").unwrap());
        assert!(matches!(Signer::from_encoded(&cosigner.to_encoded()), Err(NoteError::KeyUse { kind: 4, wanted: 1 })));
        assert!(matches!(Cosigner::from_encoded(&signer.to_encoded()), Err(NoteError::KeyUse { kind: 1, wanted: 4 })));
        // The same public key under the other type is another key, and a signature of one is none of the other.
        let as_signer = Verifier::new("w".into(), PublicKey::Ed25519(cosigner.key.verifying_key()));
        let bytes = cosigner.cosign(TEXT, TIME).unwrap().bytes;
        assert_ne!(as_signer.key_id(), cosigner.verifier().key_id());
        assert!(!as_signer.verifies(TEXT, &bytes) && !as_signer.verifies(TEXT, &bytes[8..]));
        assert!(as_signer.cosigned_at(TEXT, &bytes).is_none());
        assert!(!cosigner.verifier().verifies(TEXT, &cosigner.key.sign(TEXT.as_bytes()).to_bytes()));
        assert!(cosigner.cosign("no newline", TIME).is_err());
        assert_eq!(cosigner.cosign(TEXT, 1 << 63), Err(NoteError::Time(1 << 63)));
    }

    proptest! {
        #[test]
        fn a_cosignature_is_of_its_text_and_time(text in "[a-z]{1,9}\n[0-9]{1,4}\n", time in 0..=i64::MAX as u64, at in 0usize..72) {
            let cosigner = example();
            let good = cosigner.cosign(&text, time).unwrap();
            let verifier = cosigner.verifier();
            prop_assert_eq!(verifier.cosigned_at(&text, &good.bytes), Some(time));
            prop_assert_eq!(verifier.cosigned_at(&format!("{text}x\n"), &good.bytes), None);
            let mut bad = good.bytes.clone();
            bad[at] ^= 1;
            prop_assert_eq!(verifier.cosigned_at(&text, &bad), None);
            prop_assert_eq!(verifier.cosigned_at(&text, &good.bytes[..at]), None);
            prop_assert_eq!(Signature::parse_lines(&good.to_string()).unwrap(), vec![good]);
        }
    }
}
