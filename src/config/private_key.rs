//! Where a private key of the node is: `key = "node.key"`, a file, or `key = { pkcs11 = { … } }`, a PKCS#11 token.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Token;
use crate::trust::token::TokenKey;

/// `tls.key`, `log.key`.
#[derive(Debug, Clone)]
pub enum PrivateKey {
    /// A file.
    File(PathBuf),
    /// A key in a token, which does not leave it.
    Pkcs11(Token),
}

impl PrivateKey {
    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Pkcs11(_) => None,
        }
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        match self {
            Self::File(path) => *path = base.join(&path),
            Self::Pkcs11(token) => token.resolve(base),
        }
    }
}

impl From<&str> for PrivateKey {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

impl From<Token> for TokenKey {
    fn from(Token { module, token, key, pin }: Token) -> Self {
        Self { module, token, key, pin: pin.into() }
    }
}

/// The file's path, or the labels of key and token.
impl fmt::Display for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Pkcs11(Token { token, key, .. }) => write!(f, "{key:?} in the token {token:?}"),
        }
    }
}

// By hand: what serde says of an untagged enum does not say which field is wrong.
impl<'de> Deserialize<'de> for PrivateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            pkcs11: Token,
        }

        impl<'de> Visitor<'de> for Key {
            type Value = PrivateKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file's path, or { pkcs11 = { module, token, key, pin } }")
            }

            fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<PrivateKey, E> {
                Ok(path.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PrivateKey, A::Error> {
                let Table { pkcs11 } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(PrivateKey::Pkcs11(pkcs11))
            }
        }

        deserializer.deserialize_any(Key)
    }
}
