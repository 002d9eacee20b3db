//! A key in a PKCS#11 token, as commands are told of it.

use std::path::PathBuf;

use anyhow::Context;

use crate::trust::secret::SecretSource;
use crate::trust::token::TokenKey;

/// For a key that is in a token and not in a file.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "A key in a PKCS#11 token")]
pub(super) struct TokenArgs {
    /// The token's PKCS#11 module, a shared library
    #[arg(long, value_name = "FILE", requires_all = ["token", "key_label"])]
    pkcs11: Option<PathBuf>,
    /// Label of the token
    #[arg(long, value_name = "LABEL", requires = "pkcs11")]
    token: Option<String>,
    /// Label of the key
    #[arg(long, value_name = "LABEL", requires = "pkcs11")]
    key_label: Option<String>,
    /// File with the token's PIN, that nobody but its owner can read
    #[arg(long, value_name = "FILE", requires = "pkcs11", conflicts_with = "pin_env")]
    pin_file: Option<PathBuf>,
    /// Environment variable with the token's PIN
    #[arg(long, value_name = "NAME", requires = "pkcs11")]
    pin_env: Option<String>,
}

impl TokenArgs {
    /// The key, if one is named.
    pub(super) fn key(&self) -> anyhow::Result<Option<TokenKey>> {
        let Some(module) = &self.pkcs11 else { return Ok(None) };
        let pin = match (&self.pin_file, &self.pin_env) {
            (Some(path), _) => SecretSource::File(path.clone()),
            (None, Some(name)) => SecretSource::Environment(name.clone()),
            (None, None) => anyhow::bail!("say where the token's PIN is: --pin-file FILE or --pin-env NAME"),
        };
        let token = self.token.clone().context("give --token")?;
        let key = self.key_label.clone().context("give --key-label")?;
        Ok(Some(TokenKey { module: module.clone(), token, key, pin }))
    }
}
