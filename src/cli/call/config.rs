//! `call.toml`, so that flags need not be repeated. Flags and variables win over it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use super::Args;
use crate::trust::tls::Credentials;

/// The file's contents.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    node: Option<String>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    provider: Option<String>,
    purpose: Option<String>,
    user: Option<String>,
}

/// What a connection needs.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) node: String,
    pub(super) roots: Vec<PathBuf>,
    pub(super) credentials: Option<Credentials>,
}

/// Fills in from the file what flags and variables left open, and loads the certificates.
pub(super) fn settle(args: &mut Args) -> anyhow::Result<Settings> {
    let file = match &args.config {
        Some(path) => read(path)?,
        None => File::default(),
    };
    let folder = args.config.as_deref().and_then(Path::parent).unwrap_or_else(|| Path::new("")).to_owned();
    let beside = |path: Option<PathBuf>| path.map(|path| folder.join(path));

    args.provider = args.provider.take().or(file.provider);
    args.purpose = args.purpose.take().or(file.purpose);
    args.user = args.user.take().or(file.user);
    let node = args.node.take().or(file.node).context("which node? --node https://host:port, or node in call.toml")?;
    let cert = args.cert.take().or_else(|| beside(file.cert));
    let key = args.key.take().or_else(|| beside(file.key));
    let root =
        args.ca.take().or_else(|| beside(file.ca)).context("whom to trust? --ca root.pem, or ca in call.toml")?;
    let credentials = match (cert, key) {
        (Some(cert), Some(key)) => Some(Credentials::load(&cert, &key)?),
        (None, None) => None,
        (Some(_), None) => anyhow::bail!("a certificate without its key: --key"),
        (None, Some(_)) => anyhow::bail!("a key without its certificate: --cert"),
    };
    Ok(Settings { node, roots: vec![root], credentials })
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}
