//! The sealing key of a data folder, and where it comes from: a file beside the log, a credential that the service
//! manager hands over, an environment variable, or a PKCS#11 token.
//!
//! However it comes it is read once, when the log is opened, and wiped when the log is closed. A file is made where
//! there is none and nothing is sealed yet; the other sources have to be there.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::error::LogError;
use super::token;
pub use crate::trust::secret::SecretSource;
use crate::trust::secret::{MISSING, content, credential};
pub use crate::trust::token::TokenKey;

/// The key file's name in the data folder.
const KEY_FILE: &str = "seal.key";

/// 32 bytes under which private halves are sealed. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SealingKey(Box<[u8; 32]>);

impl SealingKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Box::new(bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

/// Where the sealing key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealingKeySource {
    /// As it is: 32 bytes, or 64 hexadecimal digits (which an environment variable must have).
    Secret(SecretSource),
    /// A secret key in a PKCS#11 token, which does not leave it.
    Token(TokenKey),
}

impl SealingKeySource {
    /// The usual one: `seal.key` in the data folder.
    pub fn in_folder(data: &Path) -> Self {
        Self::Secret(SecretSource::File(data.join(KEY_FILE)))
    }

    /// Gets the key for the log with this origin. A key file is made where there is none and `may_create`, that is
    /// while nothing is sealed yet; the caller syncs its folder.
    pub(super) fn read(&self, origin: &str, may_create: bool) -> Result<SealingKey, LogError> {
        match self {
            Self::Secret(SecretSource::File(path)) => match read_key(path) {
                // Torn while it was made, before anything was sealed with it; or not there.
                Err(LogError::SealingKey { what: MISSING | NOT_A_KEY, .. }) if may_create => create(path),
                other => other,
            },
            Self::Secret(SecretSource::Credential(name)) => read_key(&credential(name)?),
            Self::Secret(source @ SecretSource::Environment(name)) => {
                let text = source.text()?;
                key(text.as_bytes()).ok_or_else(|| failed(name, "not 64 hexadecimal digits"))
            }
            Self::Token(key) => token::derive(key, origin),
        }
    }
}

const NOT_A_KEY: &str = "neither 32 bytes nor 64 hexadecimal digits";

fn read_key(path: &Path) -> Result<SealingKey, LogError> {
    key(&content(path)?).ok_or_else(|| failed(path, NOT_A_KEY))
}

fn key(content: &[u8]) -> Option<SealingKey> {
    if let Ok(bytes) = <[u8; 32]>::try_from(content) {
        return Some(SealingKey::from_bytes(bytes));
    }
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(content.trim_ascii_end(), &mut *bytes).ok()?;
    Some(SealingKey::from_bytes(*bytes))
}

fn create(path: &Path) -> Result<SealingKey, LogError> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *key).map_err(|error| LogError::io(path)(std::io::Error::other(error.to_string())))?;
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = open.and_then(|mut file| file.write_all(&*key).and_then(|()| file.sync_all()));
    written.map_err(LogError::io(path))?;
    Ok(SealingKey::from_bytes(*key))
}

pub(super) fn failed(from: impl Into<PathBuf>, what: &'static str) -> LogError {
    LogError::SealingKey { path: from.into(), what }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_made_once_and_kept_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let source = SealingKeySource::in_folder(folder.path());
        let path = folder.path().join(KEY_FILE);
        let what = |may_create| match source.read("kg.example/log", may_create) {
            Err(LogError::SealingKey { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(what(false), MISSING);
        let made = source.read("kg.example/log", true).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(source.read("kg.example/log", false).unwrap().as_bytes(), made.as_bytes());
        std::fs::write(&path, format!("{}\n", hex::encode(made.as_bytes()))).unwrap();
        assert_eq!(source.read("kg.example/log", false).unwrap().as_bytes(), made.as_bytes());

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
        assert!(what(true).starts_with("others can read it"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(what(false), NOT_A_KEY);
    }

    #[test]
    fn the_environment_has_it_in_hexadecimal() {
        // PATH is there and no key; what is not there is said to be missing.
        let source = |name: &str| SealingKeySource::Secret(SecretSource::Environment(name.into()));
        for (name, expected) in [("PATH", "not 64 hexadecimal digits"), ("KOPURO_NOT_SET", MISSING)] {
            let error = source(name).read("kg.example/log", true).unwrap_err();
            assert!(matches!(error, LogError::SealingKey { what, .. } if what == expected), "{error}");
        }
        assert!(key(&[b'a'; 64]).is_some() && key(&[b'g'; 64]).is_none());
    }
}
