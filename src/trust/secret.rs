//! Secret texts (a key in hexadecimal, a PIN) and where they come from: a file, a credential that the service manager hands over, an
//! environment variable. Never a configuration's text.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// It is not there.
pub const MISSING: &str = "missing";

/// Where a secret text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that nobody but its owner can read.
    File(PathBuf),
    /// A credential of systemd (`LoadCredential=`, `LoadCredentialEncrypted=`): a file in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// An environment variable. It stays in the process's environment, which its user can read.
    Environment(String),
}

/// Why there is no secret. Never says anything of the secret itself.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Missing, or not as it should be.
    #[error("{path}: {what}")]
    Unusable {
        /// The file, or the name of the credential or environment variable.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl SecretSource {
    /// The secret as text, without white space at its end.
    pub fn text(&self) -> Result<Zeroizing<String>, SecretError> {
        let (from, text) = match self {
            Self::File(path) => (path.clone(), content(path)?),
            Self::Credential(name) => {
                let path = credential(name)?;
                let content = content(&path)?;
                (path, content)
            }
            Self::Environment(name) => {
                let value = std::env::var_os(name).ok_or_else(|| unusable(name, MISSING))?;
                (name.into(), Zeroizing::new(value.into_encoded_bytes()))
            }
        };
        let text = std::str::from_utf8(&text).map_err(|_| unusable(from, "not UTF-8"))?;
        Ok(Zeroizing::new(text.trim_end().to_owned()))
    }
}

/// Where a credential of systemd lies.
pub fn credential(name: &str) -> Result<PathBuf, SecretError> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
    let folder = folder.ok_or_else(|| unusable(name, "no credentials: CREDENTIALS_DIRECTORY is not set"))?;
    Ok(Path::new(&folder).join(name))
}

/// A secret file's bytes, if it is small and nobody else can read it.
pub fn content(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    const MOST: usize = 4_096;
    let io = |source| SecretError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => unusable(path, MISSING),
        _ => io(error),
    })?;
    let mode = file.metadata().map_err(io)?.permissions().mode();
    // systemd's credentials may have 0440, root's.
    if mode & 0o007 != 0 {
        return Err(unusable(path, "others can read it: chmod 600"));
    }
    // Reserved in full: growing would leave a copy behind.
    let mut content = Zeroizing::new(vec![0; MOST]);
    let mut length = 0;
    while length < MOST {
        match file.read(&mut content[length..]).map_err(io)? {
            0 => break,
            more => length += more,
        }
    }
    content.truncate(length);
    Ok(content)
}

fn unusable(path: impl Into<PathBuf>, what: &'static str) -> SecretError {
    SecretError::Unusable { path: path.into(), what }
}
