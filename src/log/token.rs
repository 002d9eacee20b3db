//! The sealing key from a PKCS#11 token: HMAC-SHA256 by the token, under a secret key that never leaves it, over
//! `"kopuro/seal/v1" ‖ 00 ‖ origin`. One key in the token serves any number of logs; each has a sealing key of its own.
//!
//! The token is asked once, when the log is opened, and need not stay connected. The module is foreign code in this
//! process: it is called on a thread of its own and given up when it takes too long.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use zeroize::{Zeroize, Zeroizing};

use super::error::LogError;
use super::sealing_key::{SealingKey, SecretSource};

/// How long a token may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A secret key in a PKCS#11 token (`CKK_GENERIC_SECRET`, `CKA_SIGN`), by the labels of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    /// The token's PKCS#11 module, a shared library.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// Label of the key.
    pub key: String,
    /// The user's PIN.
    pub pin: SecretSource,
}

impl TokenKey {
    /// Has the token derive the sealing key for the log with this origin.
    pub(super) fn derive(&self, origin: &str) -> Result<SealingKey, LogError> {
        let failed = |what: String| LogError::Token { module: self.module.clone(), what };
        let mut pin = self.pin.text()?;
        let pin = AuthPin::from(std::mem::take(&mut *pin));
        let (sender, receiver) = mpsc::channel();
        let (key, origin) = (self.clone(), origin.to_owned());
        let ask = move || drop(sender.send(key.ask(&pin, &origin)));
        std::thread::Builder::new().name("pkcs11".into()).spawn(ask).map_err(|error| failed(error.to_string()))?;
        match receiver.recv_timeout(PATIENCE) {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(failed(format!("no answer within {} seconds", PATIENCE.as_secs()))),
        }
    }

    fn ask(&self, pin: &AuthPin, origin: &str) -> Result<SealingKey, String> {
        // A module is initialised once in a process, and its login is the process's too.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let module = Pkcs11::new(&self.module).map_err(|error| format!("cannot be loaded: {error}"))?;
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(format!("cannot be initialised: {error}")),
        }
        let derived = self.sign(&module, pin, origin);
        // Others in this process that use the module find it closed; the log has no more use for it.
        let _ = module.finalize();
        derived
    }

    fn sign(&self, module: &Pkcs11, pin: &AuthPin, origin: &str) -> Result<SealingKey, String> {
        let said = |error: Error| error.to_string();
        let slots = module.get_slots_with_initialized_token().map_err(said)?;
        let is_ours = |slot: &cryptoki::slot::Slot| {
            module.get_token_info(*slot).is_ok_and(|token| token.label().trim_end() == self.token)
        };
        let slot = slots.into_iter().find(is_ours).ok_or_else(|| format!("has no token labelled {:?}", self.token))?;
        let session = module.open_ro_session(slot).map_err(said)?;
        match session.login(UserType::User, Some(pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => return Err(format!("login: {error}")),
        }
        let wanted = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Label(self.key.clone().into_bytes())];
        let keys = session.find_objects(&wanted).map_err(said)?;
        let [key] = keys[..] else {
            return Err(format!("has {} secret keys labelled {:?} in the token", keys.len(), self.key));
        };
        let message = [b"kopuro/seal/v1\0", origin.as_bytes()].concat();
        let mut mac = Zeroizing::new(session.sign(&Mechanism::Sha256Hmac, key, &message).map_err(said)?);
        let bytes: [u8; 32] = mac.as_slice().try_into().map_err(|_| "gave an HMAC of another length".to_owned())?;
        mac.zeroize();
        let _ = session.logout();
        Ok(SealingKey::from_bytes(bytes))
    }
}
