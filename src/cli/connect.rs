//! The flags by which a command reaches a node, and the connection they make.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use tonic::transport::Channel;

use super::call::connection;
use crate::trust::tls::Credentials;

/// Where a node is and with which certificate to go there.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Connect {
    /// The node, https://host:port
    #[arg(long, env = "KOPURO_NODE", value_name = "URL", global = true)]
    pub(super) node: Option<String>,
    /// The certificate chain to show, PEM
    #[arg(long, env = "KOPURO_CERT", value_name = "FILE", global = true)]
    cert: Option<PathBuf>,
    /// The certificate's key, PEM
    #[arg(long, env = "KOPURO_KEY", value_name = "FILE", global = true)]
    key: Option<PathBuf>,
    /// Root certificate of the federation, PEM
    #[arg(long, env = "KOPURO_CA", value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// File with node, cert, key and ca (paths relative to it)
    #[arg(long, env = "KOPURO_CALL_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

/// The file's contents; what else `call.toml` may hold does not matter here.
#[derive(Debug, Default, Deserialize)]
struct File {
    node: Option<String>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
}

/// Where a node is and with which files to go there.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) node: String,
    pub(super) root: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    /// The file that says so, if one does.
    pub(super) config: Option<PathBuf>,
}

impl Connect {
    /// Connects as flags, variables and then the file say.
    pub(super) async fn connect(self) -> anyhow::Result<Channel> {
        let destination = self.destination()?;
        destination.connect(&destination.credentials()?).await
    }

    /// What flags, variables and then the file say.
    pub(super) fn destination(self) -> anyhow::Result<Destination> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let folder = self.config.as_deref().and_then(Path::parent).unwrap_or_else(|| Path::new("")).to_owned();
        let beside = |path: Option<PathBuf>| path.map(|path| folder.join(path));
        let node = self
            .node
            .or(file.node)
            .context("which node? --node https://host:port or --config FILE; for a log also --data FOLDER")?;
        let root = self.ca.or_else(|| beside(file.ca)).context("whom to trust? --ca root.pem")?;
        let cert = self.cert.or_else(|| beside(file.cert)).context("as whom? --cert auditor.pem")?;
        let key = self.key.or_else(|| beside(file.key)).context("a certificate without its key: --key")?;
        Ok(Destination { node, root, cert, key, config: self.config })
    }
}

impl Destination {
    /// The certificate and its key.
    pub(super) fn credentials(&self) -> anyhow::Result<Credentials> {
        Ok(Credentials::load(&self.cert, &self.key)?)
    }

    /// Connects.
    pub(super) async fn connect(&self, credentials: &Credentials) -> anyhow::Result<Channel> {
        let channel = connection::connect(&self.node, std::slice::from_ref(&self.root), Some(credentials)).await;
        channel.with_context(|| format!("connecting to {}", self.node))
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}
