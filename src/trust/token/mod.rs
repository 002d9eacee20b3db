//! Keys that stay in a PKCS#11 token (an HSM, a smart card, SoftHSM2): the node's TLS key, its log's key, its sealing key.
//!
//! In: where a key is ([`TokenKey`]). Out: signatures by it ([`KeyInToken`]), and new keys that never leave the token ([`generate()`]).
//!
//! A module is foreign code in this process. It is called on threads of its own, and whoever waits for it gives up in time; a thread that
//! the module never lets go stays behind. A module is loaded and initialised once in a process and not
//! finalised: finalising would close everybody's sessions. Nor does anybody log out, since a login is the process's and not a session's;
//! it ends with the last session. A PIN is read when it is needed and not kept. A token locks itself after a few wrong PINs, so a PIN
//! that was refused is not tried again, and the last try that a token allows is never taken.

mod generate;
mod key;
mod tls;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

use super::secret::SecretSource;

pub use generate::generate;
pub use key::{KeyInToken, KeyKind};
pub(super) use tls::Requester;
pub use tls::TlsKey;

/// How long a token may take to be opened.
const PATIENCE: Duration = Duration::from_secs(30);

/// A key in a PKCS#11 token, by the labels of both.
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

/// Why a token does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{module}: {what}")]
pub struct TokenError {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// What is wrong. Never says anything of the PIN.
    pub what: String,
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Using what is in the token.
    Read,
    /// Putting something into it.
    Write,
}

impl TokenKey {
    pub(crate) fn failed(&self, what: impl Into<String>) -> TokenError {
        TokenError { module: self.module.clone(), what: what.into() }
    }

    /// A session with the token, logged in. May take as long as the module likes: see [`in_time`].
    pub(crate) fn session(&self, access: Access) -> Result<Session, String> {
        let said = |error: Error| error.to_string();
        let module = loaded(&self.module)?;
        let slots = module.get_slots_with_initialized_token().map_err(said)?;
        let info_of = |slot| Some((slot, module.get_token_info(slot).ok()?));
        let ours = slots.into_iter().filter_map(info_of).find(|(_, info)| info.label().trim_end() == self.token);
        let (slot, info) = ours.ok_or_else(|| format!("has no token labelled {:?}", self.token))?;
        if info.user_pin_locked() {
            return Err(format!("the PIN of the token {:?} is locked: have its officer unlock it", self.token));
        }
        if info.user_pin_final_try() {
            let what = "one wrong PIN more locks the token";
            return Err(format!("{what} {:?}: correct the PIN, and log in by other means first", self.token));
        }
        let session = match access {
            Access::Read => module.open_ro_session(slot),
            Access::Write => module.open_rw_session(slot),
        };
        let session = session.map_err(said)?;
        self.log_in(&session)?;
        Ok(session)
    }

    fn log_in(&self, session: &Session) -> Result<(), String> {
        // One try at a time, and none after one that was refused.
        static REFUSED: Mutex<Vec<(PathBuf, String, SecretSource)>> = Mutex::new(Vec::new());
        let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
        let this = (self.module.clone(), self.token.clone(), self.pin.clone());
        if refused.contains(&this) {
            return Err(format!(
                "login: the token {:?} has refused this PIN: not tried again before a restart",
                self.token
            ));
        }
        let mut pin = self.pin.text().map_err(|error| format!("its PIN: {error}"))?;
        let pin = AuthPin::from(std::mem::take(&mut *pin));
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange | RvError::PinInvalid, _)) => {
                refused.push(this);
                Err(format!("login: the token {:?} refuses the PIN", self.token))
            }
            Err(error) => Err(format!("login: {error}")),
        }
    }
}

/// The module at this path, initialised.
fn loaded(path: &Path) -> Result<Pkcs11, String> {
    static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());
    let mut all = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = all.get(path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path).map_err(|error| format!("cannot be loaded: {error}"))?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(format!("cannot be initialised: {error}")),
    }
    all.insert(path.to_owned(), module.clone());
    Ok(module)
}

/// Has a token asked on a thread of its own, for at most [`PATIENCE`].
pub(crate) fn in_time<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    on_thread(move || drop(sender.send(ask())))?;
    answer(&receiver, PATIENCE)
}

fn on_thread(work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let running = Running::begin();
    let work = move || {
        work();
        drop(running);
    };
    std::thread::Builder::new().name("pkcs11".into()).spawn(work).map(drop).map_err(|error| error.to_string())
}

/// Waits until no thread uses a token any more, for so long at most: to be called before a process ends, for a module's own memory is
/// taken down then, under the feet of whoever still uses it.
pub fn wait_until_unused(patience: Duration) {
    let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    drop(ENDED.wait_timeout_while(threads, patience, |threads| *threads > 0));
}

static THREADS: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// A thread that uses a token.
struct Running;

impl Running {
    fn begin() -> Self {
        *THREADS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *THREADS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_all();
    }
}

/// Waits for what a token's thread says. On the runtime's threads others take over meanwhile what these had to do.
fn answer<T>(receiver: &mpsc::Receiver<Result<T, String>>, patience: Duration) -> Result<T, String> {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let wait = || receiver.recv_timeout(patience);
    let answer = match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    };
    answer.unwrap_or_else(|_| Err(format!("no answer within {} seconds", patience.as_secs())))
}
