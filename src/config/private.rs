//! `[private]` and `[retention]`: where the key that seals private values comes from, and what is kept for how long.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::document::{Problem, Step};
use super::{NodeConfig, units};
use crate::log::retention;
use crate::log::sealing_key::SealingKeySource;
use crate::trust::secret::SecretSource;

/// `[private]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Private {
    /// Where the sealing key comes from. Default `seal.key` in the data folder, made at the first start.
    pub key: Option<SealingKey>,
}

/// `private.key`: one of these.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SealingKey {
    /// A file of 32 bytes or 64 hexadecimal digits; made where there is none and nothing is sealed yet.
    File(PathBuf),
    /// A systemd credential with the same.
    Credential(String),
    /// An environment variable with the 64 digits.
    Environment(String),
    /// A secret key in a PKCS#11 token.
    Pkcs11(Token),
}

/// `pkcs11` of `private.key`, `tls.key` and `log.key`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// Label of the key.
    pub key: String,
    /// Where the PIN comes from.
    pub pin: Secret,
}

/// Where a secret text comes from: one of these.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Secret {
    /// A file.
    File(PathBuf),
    /// A systemd credential.
    Credential(String),
    /// An environment variable.
    Environment(String),
}

/// `[retention]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// K and private values are erased when their entry is this old. Default: kept.
    #[serde(deserialize_with = "units::age")]
    pub private_values: Option<Duration>,
    /// Code of the law that sets this term; published in the entries that say what was erased.
    pub legal_basis: String,
    /// Published entries leave the data folder when they are this old. Default: kept.
    #[serde(deserialize_with = "units::age")]
    pub entries: Option<Duration>,
    /// Published entries leave the data folder, oldest first, while all in it have more bytes than this. Default: kept.
    #[serde(deserialize_with = "units::optional_size")]
    pub entries_size: Option<u64>,
    /// How often to look. Default `1h`.
    #[serde(deserialize_with = "units::wait")]
    pub every: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            private_values: None,
            legal_basis: String::new(),
            entries: None,
            entries_size: None,
            every: Duration::from_secs(3_600),
        }
    }
}

impl Private {
    pub(super) fn resolve(&mut self, base: &Path) {
        match &mut self.key {
            Some(SealingKey::File(path)) => *path = base.join(&path),
            Some(SealingKey::Pkcs11(token)) => token.resolve(base),
            _ => {}
        }
    }
}

impl Token {
    /// The module is looked for by the system's rules where it is a bare name.
    pub(super) fn resolve(&mut self, base: &Path) {
        if let Secret::File(path) = &mut self.pin {
            *path = base.join(&path);
        }
    }
}

impl From<Secret> for SecretSource {
    fn from(secret: Secret) -> Self {
        match secret {
            Secret::File(path) => Self::File(path),
            Secret::Credential(name) => Self::Credential(name),
            Secret::Environment(name) => Self::Environment(name),
        }
    }
}

impl NodeConfig {
    /// Where the sealing key comes from.
    pub fn sealing_key(&self) -> SealingKeySource {
        match self.private.key.clone() {
            None => SealingKeySource::in_folder(&self.node.data),
            Some(SealingKey::File(path)) => SealingKeySource::Secret(SecretSource::File(path)),
            Some(SealingKey::Credential(name)) => SealingKeySource::Secret(SecretSource::Credential(name)),
            Some(SealingKey::Environment(name)) => SealingKeySource::Secret(SecretSource::Environment(name)),
            Some(SealingKey::Pkcs11(token)) => SealingKeySource::Token(token.into()),
        }
    }

    /// What the log keeps for how long.
    pub fn log_retention(&self) -> retention::Retention {
        let Retention { private_values, legal_basis, entries, entries_size, every } = self.retention.clone();
        retention::Retention { private_values, entries, entries_size, legal_basis, every }
    }

    pub(super) fn retention_problem(&self) -> Option<Problem> {
        let is_wrong = self.retention.private_values.is_some() && self.retention.legal_basis.is_empty();
        let steps = [Step::Key("retention"), Step::Key("private_values")];
        let what = "erases by a term, and retention.legal_basis does not say which law sets it";
        is_wrong.then(|| self.problem(&steps, what, "add retention.legal_basis, the code that the log will show"))
    }
}
