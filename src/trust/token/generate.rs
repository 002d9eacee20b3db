//! New keys, made in the token: sensitive and not extractable, so that no one, not even with the PIN, gets them out of it.

use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use sha2::{Digest, Sha256};

use super::{Access, KeyInToken, KeyKind, TokenError, TokenKey, in_time};

/// Makes a key pair with the label `at.key`, which must be free.
pub fn generate(at: &TokenKey, kind: KeyKind) -> Result<KeyInToken, TokenError> {
    let asked = at.clone();
    in_time(move || make(&asked, kind)).map_err(|what| at.failed(what))?;
    KeyInToken::open(at, kind)
}

fn make(at: &TokenKey, kind: KeyKind) -> Result<(), String> {
    let said = |error: Error| error.to_string();
    let session = at.session(Access::Write)?;
    let label = Attribute::Label(at.key.clone().into_bytes());
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        if !session.find_objects(&[Attribute::Class(class), label.clone()]).map_err(said)?.is_empty() {
            return Err(format!("has a key labelled {:?} in the token already: use that, or another label", at.key));
        }
    }
    let mechanism = match kind {
        KeyKind::EcdsaP256 => Mechanism::EccKeyPairGen,
        KeyKind::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
    };
    // Other tools pair the halves by their id.
    let id = Attribute::Id(Sha256::digest(at.key.as_bytes())[..8].to_vec());
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        label.clone(),
        id.clone(),
        Attribute::EcParams(kind.parameters().to_vec()),
        Attribute::Verify(true),
    ];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        label,
        id,
        Attribute::Sign(true),
    ];
    session.generate_key_pair(&mechanism, &public, &private).map(drop).map_err(|error| match error {
        Error::Pkcs11(cryptoki::error::RvError::MechanismInvalid, _) => format!("the token makes no {kind} keys"),
        error => error.to_string(),
    })
}
