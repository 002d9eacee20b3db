//! C2SP signed notes: a text, and under it the signatures of whoever vouches for it.
//!
//! ```text
//! note        text "\n" signature lines          text: UTF-8, ends in "\n", no character below U+0020 but "\n"
//! line        "— " name " " base64(key id ‖ signature) "\n"
//! key id      the first 4 bytes of SHA-256(name ‖ 0A ‖ type ‖ public key)
//! vkey        name "+" hex(key id) "+" base64(type ‖ public key)
//! ```
//!
//! A signature of an unknown key is ignored; a bad signature of a known key refuses the whole note, and so does having
//! none of a known key. Parsing is strict: what was parsed prints as the same bytes. Two types of key sign and verify:
//! 01 (Ed25519, [`Signer`]) signs the text itself, 04 (a witness's cosignature, [`Cosigner`]) the text and the time at
//! which it was seen. Lines of other types are unknown keys'.

mod cosignature;
mod key;

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};

pub use cosignature::Cosigner;
use key::check_name;
pub use key::{Signer, Verifier};

const LINE_PREFIX: &str = "— ";
/// As many signatures as a note may carry; the specification asks for at least 16.
const MAX_SIGNATURES: usize = 100;

/// Which rule a note or key breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text has a control character or does not end in a newline.
    #[error("the text of a note must end in a newline and hold no control character but newlines")]
    Text,
    /// There is no empty line, or nothing behind it.
    #[error("no signature: a note ends with an empty line and signature lines")]
    NoSignatures,
    /// A signature line is not `— name base64`.
    #[error("signature line {0} is malformed: expected \"— name base64\"")]
    SignatureLine(usize),
    /// More signatures than a note may carry.
    #[error("more than {MAX_SIGNATURES} signatures")]
    TooMany,
    /// A known key's signature does not verify.
    #[error("the signature of {0} is not of this text")]
    BadSignature(String),
    /// No signature is of a known key.
    #[error("no signature of a known key")]
    Unsigned,
    /// Two different known keys have one name and one key id.
    #[error("two different keys are named {0} and have the same key id")]
    Ambiguous(String),
    /// A key name is empty or has a space, a plus or a control character.
    #[error("{0:?} is not a key name: not empty, without spaces and plus signs")]
    Name(String),
    /// A verifier key is not `name+hex+base64`.
    #[error("not a verifier key: expected name+8 hex digits+base64")]
    VerifierKey,
    /// A private key is not `PRIVATE+KEY+name+hex+base64`. Its text is a secret and is not repeated.
    #[error("not a signing key: expected PRIVATE+KEY+name+8 hex digits+base64")]
    SigningKey,
    /// The key's type is not one that this program knows.
    #[error("key type {0:#04x} is not known (01 is Ed25519, 04 an Ed25519 cosignature)")]
    KeyType(u8),
    /// A witness's private key where a log's or council member's is needed, or the other way round.
    #[error(
        "a key of type {kind:#04x} where one of type {wanted:#04x} is needed (01 signs notes, 04 cosigns as a witness)"
    )]
    KeyUse {
        /// The key's type.
        kind: u8,
        /// The type that signs what is to be signed.
        wanted: u8,
    },
    /// The key id that is written is not that of the key.
    #[error("the key id of {name} is {written}, and its key's is {computed}")]
    KeyId {
        /// The key's name.
        name: String,
        /// As written.
        written: String,
        /// As computed.
        computed: String,
    },
    /// A cosignature's time does not fit its format.
    #[error("{0} is no time for a cosignature: more than 2^63 - 1")]
    Time(u64),
    /// The token that has the key does not sign.
    #[error("{0}")]
    Token(String),
    /// The system's random generator failed.
    #[error("no random bytes from the system: {0}")]
    Random(String),
}

/// A text and its signatures, not verified by having been parsed. `Display` prints the note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The name of the key.
    pub name: String,
    /// The id of the key.
    pub key_id: [u8; 4],
    /// What follows the key id: for Ed25519, 64 bytes; for a cosignature, the time in 8 bytes and 64.
    pub bytes: Vec<u8>,
}

impl Note {
    /// Reads a note. Says nothing about whether its signatures are good.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        let split = note.rfind("\n\n").ok_or(NoteError::NoSignatures)?;
        let (text, lines) = (&note[..=split], &note[split + 2..]);
        check_text(text)?;
        Ok(Self { text: text.into(), signatures: Signature::parse_lines(lines)? })
    }

    /// What is signed, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All signatures, known keys' or not.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Those of `known` that signed, each once, in the order of `known`.
    pub fn verify<'k>(&self, known: &'k [Verifier]) -> Result<Vec<&'k Verifier>, NoteError> {
        let mut signed = Vec::new();
        for (position, verifier) in known.iter().enumerate() {
            let earlier = known[..position]
                .iter()
                .find(|other| other.name() == verifier.name() && other.key_id() == verifier.key_id());
            match earlier {
                Some(other) if other == verifier => continue,
                Some(_) => return Err(NoteError::Ambiguous(verifier.name().into())),
                None => {}
            }
            let mut of_this_key = self.signatures.iter().filter(|signature| signature.is_of(verifier)).peekable();
            if of_this_key.peek().is_none() {
                continue;
            }
            if !of_this_key.all(|signature| verifier.verifies(&self.text, &signature.bytes)) {
                return Err(NoteError::BadSignature(verifier.name().into()));
            }
            signed.push(verifier);
        }
        if signed.is_empty() { Err(NoteError::Unsigned) } else { Ok(signed) }
    }

    /// Adds this key's signature, in place of an earlier one of the same key.
    pub fn add_signature(&mut self, signer: &Signer) -> Result<(), NoteError> {
        let verifier = signer.verifier();
        let bytes = signer.signature_of(&self.text)?;
        self.add(Signature { name: verifier.name().into(), key_id: verifier.key_id(), bytes })
    }

    /// Adds a signature made elsewhere, in place of an earlier one of the same key. It is not looked at.
    pub fn add(&mut self, signature: Signature) -> Result<(), NoteError> {
        self.signatures.retain(|earlier| earlier.name != signature.name || earlier.key_id != signature.key_id);
        if self.signatures.len() == MAX_SIGNATURES {
            return Err(NoteError::TooMany);
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// The same text with the signatures of these keys alone.
    pub fn only_of(&self, known: &[Verifier]) -> Self {
        let is_known = |signature: &&Signature| known.iter().any(|verifier| signature.is_of(verifier));
        Self { text: self.text.clone(), signatures: self.signatures.iter().filter(is_known).cloned().collect() }
    }

    fn unsigned(text: &str) -> Result<Self, NoteError> {
        check_text(text)?;
        Ok(Self { text: text.into(), signatures: Vec::new() })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| signature.fmt(f))
    }
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, Self::Err> {
        Self::parse(note)
    }
}

impl fmt::Display for Signature {
    /// The signature line, with its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = [&self.key_id, self.bytes.as_slice()].concat();
        writeln!(f, "{LINE_PREFIX}{} {}", self.name, BASE64_STANDARD.encode(data))
    }
}

impl Signature {
    /// Reads lines of signatures, each ending in a newline, as a witness answers with them.
    pub fn parse_lines(lines: &str) -> Result<Vec<Self>, NoteError> {
        let lines = lines.strip_suffix('\n').ok_or(NoteError::NoSignatures)?;
        let mut signatures = Vec::new();
        for (number, line) in lines.split('\n').enumerate() {
            if number == MAX_SIGNATURES {
                return Err(NoteError::TooMany);
            }
            signatures.push(Self::parse(line).ok_or(NoteError::SignatureLine(number + 1))?);
        }
        Ok(signatures)
    }

    fn parse(line: &str) -> Option<Self> {
        let (name, data) = line.strip_prefix(LINE_PREFIX)?.split_once(' ')?;
        check_name(name).ok()?;
        let data = BASE64_STANDARD.decode(data).ok()?;
        let (key_id, bytes) = data.split_first_chunk::<4>()?;
        if bytes.is_empty() {
            return None;
        }
        Some(Self { name: name.into(), key_id: *key_id, bytes: bytes.into() })
    }

    /// Whether it says that it is this key's; what it is worth, [`Verifier::verifies`] says.
    pub fn is_of(&self, verifier: &Verifier) -> bool {
        self.name == verifier.name() && self.key_id == verifier.key_id()
    }
}

fn check_text(text: &str) -> Result<(), NoteError> {
    let good = text.ends_with('\n') && text.chars().all(|c| c >= ' ' || c == '\n');
    if good { Ok(()) } else { Err(NoteError::Text) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The example in the documentation of Go's golang.org/x/mod/sumdb/note.
    const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const SKEY: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const TEXT: &str =
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    const SIGNATURE: &str =
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn go_sumdb_example() {
        let verifier: Verifier = VKEY.parse().unwrap();
        assert_eq!((verifier.name(), verifier.to_string().as_str()), ("PeterNeumann", VKEY));
        let note = format!("{TEXT}\n{SIGNATURE}");
        assert_eq!(Note::parse(&note).unwrap().verify(std::slice::from_ref(&verifier)).unwrap(), [&verifier]);

        let signer = Signer::from_encoded(SKEY).unwrap();
        assert_eq!(signer.to_encoded().as_str(), SKEY);
        assert_eq!(signer.verifier(), verifier);
        assert_eq!(signer.sign(TEXT).unwrap(), note);
    }

    #[test]
    fn rules_of_verification() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Signer::generate(name).unwrap());
        let mut note = Note::parse(&a.sign("text\n").unwrap()).unwrap();
        note.add_signature(&b).unwrap();
        let (va, vb, vc) = (a.verifier(), b.verifier(), c.verifier());

        // Unknown keys are ignored; a verifier listed twice counts once.
        assert_eq!(note.verify(&[vc.clone(), vb.clone(), vb.clone()]).unwrap(), [&vb]);
        assert_eq!(note.verify(&[vc]), Err(NoteError::Unsigned));
        // Signing again changes nothing.
        let before = note.to_string();
        note.add_signature(&b).unwrap();
        assert_eq!(note.to_string(), before);
        // A known key's bad signature refuses, even beside a good one.
        let altered = Note::parse(&before.replace("text", "next")).unwrap();
        assert_eq!(altered.verify(&[va, vb]), Err(NoteError::BadSignature("a".into())));
    }

    #[test]
    fn refuses_malformed() {
        let good = format!("{TEXT}\n{SIGNATURE}");
        for bad in [
            String::new(),
            TEXT.into(),
            format!("{TEXT}\n"),
            good.trim_end().into(),
            good.replace("— ", "- "),
            good.replace("x08go", "x08g!"),
            good.replace("PeterNeumann", "Peter+Neumann"),
            good.replace("If you", "If\tyou"),
            format!("{TEXT}\n— a AAAA\n"),
            format!("{TEXT}\n{}", SIGNATURE.repeat(101)),
        ] {
            assert!(Note::parse(&bad).is_err(), "{bad:?}");
        }
        for bad in
            ["", "a", "a+b+c", &VKEY.replace("c74f20a3", "c74f20a4"), &VKEY.replace("+ARpc", "+BBpc"), &VKEY[..60]]
        {
            assert!(bad.parse::<Verifier>().is_err(), "{bad:?}");
        }
        assert!(Signer::from_encoded(&SKEY.replace("c74f20a3", "00000000")).is_err());
        assert!(Signer::generate("with space").is_err());
        assert!(Signer::generate("a").unwrap().sign("no newline").is_err());
    }

    proptest! {
        #[test]
        fn signed_notes_parse_print_and_verify(text in "([^\\x00-\\x1f]{0,20}\n){1,6}", name in "[a-z./а-я]{1,30}") {
            let signer = Signer::generate(&name).unwrap();
            let printed = signer.sign(&text).unwrap();
            let note = Note::parse(&printed).unwrap();
            prop_assert_eq!(note.text(), &text);
            prop_assert_eq!(note.to_string(), printed);
            prop_assert!(note.verify(&[signer.verifier()]).is_ok());
            let again = Signer::from_encoded(&signer.to_encoded()).unwrap();
            prop_assert_eq!(again.verifier().to_string().parse::<Verifier>().unwrap(), signer.verifier());
        }

        #[test]
        fn whatever_parses_prints_the_same(garbage in "(.|\n|— ){0,120}", tail in "(— [a-c+ ]{1,3} [A-Za-z0-9+/=]{0,16}\n){0,3}") {
            let note = format!("{garbage}\n\n{tail}");
            if let Ok(parsed) = Note::parse(&note) {
                prop_assert_eq!(parsed.to_string(), note);
            }
        }
    }
}
