//! The sealing key from a PKCS#11 token: HMAC-SHA256 by the token, under a secret key that never leaves it, over
//! `"kopuro/seal/v1" ‖ 00 ‖ origin`. One key in the token serves any number of logs; each has a sealing key of its own.
//!
//! The token is asked once, when the log is opened, and need not stay connected for this.

use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use zeroize::{Zeroize, Zeroizing};

use super::error::LogError;
use super::sealing_key::SealingKey;
use crate::trust::token::{Access, TokenKey, in_time};

/// Has the token derive the sealing key for the log with this origin.
pub(super) fn derive(key: &TokenKey, origin: &str) -> Result<SealingKey, LogError> {
    let (asked, origin) = (key.clone(), origin.to_owned());
    let derived = in_time(move || sign(&asked, &origin));
    Ok(derived.map_err(|what| key.failed(what))?)
}

fn sign(key: &TokenKey, origin: &str) -> Result<SealingKey, String> {
    let said = |error: Error| error.to_string();
    let session = key.session(Access::Read)?;
    let wanted = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Label(key.key.clone().into_bytes())];
    let keys = session.find_objects(&wanted).map_err(said)?;
    let [object] = keys[..] else {
        return Err(format!("has {} secret keys labelled {:?} in the token", keys.len(), key.key));
    };
    let message = [b"kopuro/seal/v1\0", origin.as_bytes()].concat();
    let mut mac = Zeroizing::new(session.sign(&Mechanism::Sha256Hmac, object, &message).map_err(said)?);
    let bytes: [u8; 32] = mac.as_slice().try_into().map_err(|_| "gave an HMAC of another length".to_owned())?;
    mac.zeroize();
    Ok(SealingKey::from_bytes(bytes))
}
