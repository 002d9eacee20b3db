//! A private key in a token, at work. One thread holds the session and signs, in turn, what is handed to it; a few may wait, and whoever
//! waits gives up in time. A session that is lost (a token unplugged, an HSM restarted) is opened again, once for each signature.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::{Access, PATIENCE, TokenError, TokenKey, answer, on_thread};

/// How long a signature may take, with those before it.
const SIGN_PATIENCE: Duration = Duration::from_secs(4);

/// How many signatures may wait for one key. So many of the runtime's threads, and no more, can be held up by a token that hangs.
const QUEUE: usize = 32;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA P-256, for certificates.
    EcdsaP256,
    /// Ed25519, for a log.
    Ed25519,
}

/// A private key that stays in its token, and its public half. Clones are handles to the same session, which ends with the last.
#[derive(Clone)]
pub struct KeyInToken {
    asks: SyncSender<Ask>,
    at: Arc<TokenKey>,
    public: Arc<[u8]>,
}

/// Something to sign.
struct Ask {
    data: Vec<u8>,
    since: Instant,
    answer: SyncSender<Result<Vec<u8>, String>>,
}

impl KeyKind {
    pub(super) fn key_type(self) -> KeyType {
        match self {
            Self::EcdsaP256 => KeyType::EC,
            Self::Ed25519 => KeyType::EC_EDWARDS,
        }
    }

    /// `CKA_EC_PARAMS`: the curve's OID.
    pub(super) fn parameters(self) -> &'static [u8] {
        match self {
            Self::EcdsaP256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::Ed25519 => &[0x06, 0x03, 0x2b, 0x65, 0x70],
        }
    }

    /// Bytes of a public key: an uncompressed point, or an encoded one.
    fn public_length(self) -> usize {
        match self {
            Self::EcdsaP256 => 65,
            Self::Ed25519 => 32,
        }
    }

    fn mechanism(self) -> Mechanism<'static> {
        match self {
            Self::EcdsaP256 => Mechanism::Ecdsa,
            Self::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)),
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::Ed25519 => "Ed25519",
        })
    }
}

impl fmt::Debug for KeyInToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyInToken({})", self)
    }
}

/// The key's label, and the token's.
impl fmt::Display for KeyInToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in the token {:?}", self.at.key, self.at.token)
    }
}

impl KeyInToken {
    /// Opens a session and finds the key.
    pub fn open(at: &TokenKey, kind: KeyKind) -> Result<Self, TokenError> {
        let at = Arc::new(at.clone());
        let (opened, is_open) = mpsc::sync_channel(1);
        let (asks, asked) = mpsc::sync_channel(QUEUE);
        let on_its_thread = at.clone();
        let work = move || match Held::open(on_its_thread, kind) {
            Ok(mut held) => {
                let public = held.public.clone();
                if opened.send(Ok(public)).is_ok() {
                    held.serve(&asked);
                }
            }
            Err(what) => drop(opened.send(Err(what))),
        };
        let public = on_thread(work).and_then(|()| answer(&is_open, PATIENCE)).map_err(|what| at.failed(what))?;
        Ok(Self { asks, at, public: public.into() })
    }

    /// The public half: for ECDSA the uncompressed point, for Ed25519 the 32 bytes of RFC 8032.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Where it is.
    pub fn at(&self) -> &TokenKey {
        &self.at
    }

    /// Signs a message (Ed25519) or its digest (ECDSA: r ‖ s).
    pub fn sign(&self, data: &[u8]) -> Result<Vec<u8>, TokenError> {
        let (sender, signed) = mpsc::sync_channel(1);
        let ask = Ask { data: data.to_owned(), since: Instant::now(), answer: sender };
        self.asks.try_send(ask).map_err(|error| match error {
            TrySendError::Full(_) => self.at.failed(format!("{QUEUE} signatures wait for the token already")),
            TrySendError::Disconnected(_) => self.at.failed("the thread that has the token's session is gone"),
        })?;
        answer(&signed, SIGN_PATIENCE).map_err(|what| self.at.failed(what))
    }
}

/// What the thread has.
struct Held {
    at: Arc<TokenKey>,
    kind: KeyKind,
    public: Vec<u8>,
    /// None once it was lost.
    open: Option<Open>,
}

/// A session, and the key in it.
struct Open {
    session: Session,
    private: ObjectHandle,
}

impl Held {
    fn open(at: Arc<TokenKey>, kind: KeyKind) -> Result<Self, String> {
        let (open, public) = Open::new(&at, kind)?;
        Ok(Self { at, kind, public, open: Some(open) })
    }

    fn serve(&mut self, asks: &Receiver<Ask>) {
        while let Ok(ask) = asks.recv() {
            // Nobody waits for it any more.
            if ask.since.elapsed() < SIGN_PATIENCE {
                let _ = ask.answer.try_send(self.sign(&ask.data));
            }
        }
    }

    fn sign(&mut self, data: &[u8]) -> Result<Vec<u8>, String> {
        // Closed, if it failed, before another is opened: a module may give the same number again.
        let failed = match self.open.take().map(|open| (open.sign(self.kind, data), open)) {
            Some((Ok(signature), open)) => {
                self.open = Some(open);
                return Ok(signature);
            }
            Some((Err(failed), open)) => {
                drop(open);
                failed
            }
            None => "the token was lost".to_owned(),
        };
        let again = Open::new(&self.at, self.kind);
        let (open, public) = again.map_err(|what| format!("{failed}; opening the token again: {what}"))?;
        if public != self.public {
            return Err(format!("{failed}; opening the token again: the key labelled {:?} is another", self.at.key));
        }
        tracing::warn!(token = self.at.token, failed, "the token was lost, and is open again");
        let signature = open.sign(self.kind, data).map_err(|error| format!("{error}, twice"))?;
        self.open = Some(open);
        Ok(signature)
    }
}

impl Open {
    fn new(at: &TokenKey, kind: KeyKind) -> Result<(Self, Vec<u8>), String> {
        let session = at.session(Access::Read)?;
        let (private, public) = find(&session, at, kind)?;
        Ok((Self { session, private }, public))
    }

    fn sign(&self, kind: KeyKind, data: &[u8]) -> Result<Vec<u8>, String> {
        self.session.sign(&kind.mechanism(), self.private, data).map_err(|error| error.to_string())
    }
}

/// The private key with this label, and the public half that the token has beside it.
fn find(session: &Session, at: &TokenKey, kind: KeyKind) -> Result<(ObjectHandle, Vec<u8>), String> {
    let said = |error: Error| error.to_string();
    let label = Attribute::Label(at.key.clone().into_bytes());
    let one = |class, named: &str| {
        let wanted = [Attribute::Class(class), Attribute::KeyType(kind.key_type()), label.clone()];
        let keys = session.find_objects(&wanted).map_err(said)?;
        match keys[..] {
            [key] => Ok(key),
            _ => Err(format!("has {} {kind} {named} keys labelled {:?} in the token", keys.len(), at.key)),
        }
    };
    let private = one(ObjectClass::PRIVATE_KEY, "private")?;
    let public = one(ObjectClass::PUBLIC_KEY, "public")?;
    let wanted = [AttributeType::EcParams, AttributeType::EcPoint];
    let (mut parameters, mut point) = (None, None);
    for attribute in session.get_attributes(public, &wanted).map_err(said)? {
        match attribute {
            Attribute::EcParams(bytes) => parameters = Some(bytes),
            Attribute::EcPoint(bytes) => point = Some(bytes),
            _ => {}
        }
    }
    // Ed25519's curve is also written by its name; the length of the point tells it from Ed448.
    if kind == KeyKind::EcdsaP256 && parameters.as_deref() != Some(kind.parameters()) {
        return Err(format!("the key labelled {:?} in the token is on another curve than P-256", at.key));
    }
    let point = point.and_then(|point| bare(point, kind.public_length()));
    let point = point.ok_or_else(|| format!("the public key labelled {:?} in the token is no {kind} key", at.key))?;
    Ok((private, point))
}

/// A point without the OCTET STRING around it, which some tokens leave out.
fn bare(point: Vec<u8>, length: usize) -> Option<Vec<u8>> {
    match point[..] {
        [0x04, inner, ref rest @ ..] if usize::from(inner) == length && rest.len() == length => Some(rest.to_vec()),
        _ => (point.len() == length).then_some(point),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_come_wrapped_or_bare() {
        assert_eq!(bare([&[4, 32], &[7; 32][..]].concat(), 32), Some(vec![7; 32]));
        assert_eq!(bare(vec![7; 32], 32), Some(vec![7; 32]));
        // An uncompressed point begins with 04 itself.
        let point = [&[4], &[7; 64][..]].concat();
        assert_eq!(bare(point.clone(), 65), Some(point.clone()));
        assert_eq!(bare([&[4, 65], &point[..]].concat(), 65), Some(point));
        for wrong in [vec![], vec![4], vec![4, 32], vec![4; 33], [&[4, 32], &[7; 31][..]].concat()] {
            assert_eq!(bare(wrong.clone(), 32), None, "{wrong:?}");
        }
    }
}
