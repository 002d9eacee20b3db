//! A node's configuration: `node.toml`, grants and the outbound list, read, checked, and watched for changes.
//!
//! In: files. Out: [`NodeConfig`], what the files say with every default filled in; [`Loaded`], what the node works
//! with, made by [`open`]; or every [`Problem`] at once, each with file, line, field and what to do. [`watch()`] tells
//! when to check again. Unknown fields are refused. Paths are relative to the file they stand in. A running node takes
//! up what [`recheck`] makes (certificates, CRLs, directory, descriptors, grants, outbound list, back-ends' CAs, the log's keys);
//! everything else in `node.toml` needs a restart.

mod check;
mod document;
mod grants;
mod limits;
mod private;
mod private_key;
mod publish;
pub mod request;
mod telemetry;
pub(crate) mod units;
mod watch;
mod witness;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

pub use check::{Loaded, LoadedBackend, check, fetch_descriptors, open, recheck};
pub use document::{ConfigError, Document, Problem, Severity};
pub use grants::{load_grants, load_outbound};
pub use limits::{Drain, Limits};
pub use private::{Private, Retention, SealingKey, Secret, Token};
pub use private_key::PrivateKey;
pub use publish::{Portal, Publish, RequestRate};
pub use telemetry::{Otlp, Telemetry};
pub use watch::{Change, Watch, watch};
pub use witness::{LoadedWitness, Witness, WitnessConfig, WitnessLimits, WitnessTls, load_witness};

use document::Step;

use crate::log::Signers;
use crate::trust::identity::{Identity, MemberId};

/// What `node.toml` says, defaults filled in and paths made absolute or relative to the working folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Whose node, and where its data is.
    pub node: Node,
    /// Where it listens.
    #[serde(default)]
    pub listen: Listen,
    /// Its certificate, and whom it trusts.
    pub tls: Tls,
    /// Where the directory comes from.
    pub directory: DirectorySource,
    /// Its log.
    #[serde(default)]
    pub log: Log,
    /// Where the key comes from that seals private values.
    #[serde(default)]
    pub private: Private,
    /// What is kept for how long.
    #[serde(default)]
    pub retention: Retention,
    /// How the log is published; not at all where this is missing.
    #[serde(default)]
    pub publish: Option<Publish>,
    /// Grants and outbound list.
    #[serde(default)]
    pub policy: Policy,
    /// Who cosigns its checkpoints before they are published. Default nobody.
    #[serde(default)]
    pub witness: Option<Witness>,
    /// Where traces and metrics go besides. Default nowhere.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Its member's back-ends, by system name.
    #[serde(default)]
    pub backends: BTreeMap<String, Backend>,
    /// What bounds memory and waits.
    #[serde(default)]
    pub limits: Limits,
    /// How it stops.
    #[serde(default)]
    pub drain: Drain,
    /// The file, to say where in it something is wrong.
    #[serde(skip)]
    document: Document,
}

/// `[node]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The member whose gateway this is.
    pub member: MemberId,
    /// The node's name, as in its certificate (`KG/GOV/70000005/_node/main`) and the directory. Default `main`.
    #[serde(default = "main_name")]
    pub name: String,
    /// Folder of the log and of the last good directory; made where missing. Default `data`.
    #[serde(default = "data_folder")]
    pub data: PathBuf,
}

/// `[listen]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// For the member's own systems and for auditors. Default `0.0.0.0:7443`.
    pub systems: SocketAddr,
    /// For other nodes. Default `0.0.0.0:7444`.
    pub nodes: SocketAddr,
    /// Plain HTTP: health and metrics. Default `127.0.0.1:7445`.
    pub admin: SocketAddr,
    /// Lets `admin` be an address that other machines reach. Default false.
    pub admin_public: bool,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            systems: SocketAddr::from(([0, 0, 0, 0], 7443)),
            nodes: SocketAddr::from(([0, 0, 0, 0], 7444)),
            admin: SocketAddr::from(([127, 0, 0, 1], 7445)),
            admin_public: false,
        }
    }
}

/// `[tls]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The node's certificate chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// Its private key: a PEM file, or a key in a PKCS#11 token.
    pub key: PrivateKey,
    /// The federation's root certificates, PEM.
    pub roots: Vec<PathBuf>,
    /// Revocation lists, PEM. An expired list refuses everybody it speaks of. Default none.
    #[serde(default)]
    pub crls: Vec<PathBuf>,
}

/// `[directory]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectorySource {
    /// Where the signed directory is published: files or `https://` addresses; the highest version counts.
    pub mirrors: Vec<String>,
    /// Keys (`name+hash+key`) that sign the first directory; each directory names the keys for the next.
    pub council: Vec<String>,
    /// How many of these must have signed the first.
    pub threshold: usize,
    /// How often mirrors are asked. Default `60s`.
    #[serde(default = "poll", deserialize_with = "units::wait")]
    pub poll: Duration,
    /// Folder of descriptor sets, `<SHA-256 in hex>.binpb`. Default `descriptors`.
    #[serde(default = "descriptors_folder")]
    pub descriptors: PathBuf,
    /// Roots, PEM, for HTTPS mirrors, besides the system's. Default none.
    #[serde(default)]
    pub roots: Option<PathBuf>,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The key that signs checkpoints: a file that `kopuro directory keygen` wrote, or a key in a PKCS#11 token. Default
    /// `log.key`.
    #[serde(default = "log_key")]
    pub key: PrivateKey,
    /// The log's name, where its key is in a token; a key's file has it. Default none.
    #[serde(default)]
    pub origin: Option<String>,
    /// While the key is changed, the new one: checkpoints are signed by both. A file counts as long as it is there; default `key`
    /// and `.next` behind it, where `key` is a file.
    #[serde(default)]
    pub next_key: Option<PrivateKey>,
    /// Below this free space on the data folder's disk the node warns. Default `2GiB`.
    #[serde(default = "warn_free", deserialize_with = "units::size")]
    pub warn_free: u64,
    /// Below this it refuses exchanges. Default `512MiB`.
    #[serde(default = "refuse_free", deserialize_with = "units::size")]
    pub refuse_free: u64,
    /// How long an exchange waits for room in the log's queue before it is refused. Default `2s`.
    #[serde(default = "append_timeout", deserialize_with = "units::wait")]
    pub append_timeout: Duration,
    /// How many entries may wait in that queue. Default 8192.
    #[serde(default = "log_queue")]
    pub queue: std::num::NonZeroUsize,
    /// The most entries in one commit. Default 1024.
    #[serde(default = "log_batch")]
    pub batch: std::num::NonZeroUsize,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            key: log_key(),
            origin: None,
            next_key: None,
            warn_free: warn_free(),
            refuse_free: refuse_free(),
            append_timeout: append_timeout(),
            queue: log_queue(),
            batch: log_batch(),
        }
    }
}

/// `[policy]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Folder of grants, every `*.toml` in it; missing, nothing is granted. Default `grants`.
    pub grants: PathBuf,
    /// Which own systems may call what; missing, none may call anything. Default `outbound.toml`.
    pub outbound: PathBuf,
}

impl Default for Policy {
    fn default() -> Self {
        Self { grants: "grants".into(), outbound: "outbound.toml".into() }
    }
}

/// `[backends.<system>]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Where the system listens.
    pub endpoint: Endpoint,
    /// What it speaks. Default `grpc`.
    #[serde(default)]
    pub protocol: Protocol,
    /// Roots, PEM, for its certificate instead of the federation's. Default none.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// What a back-end speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// gRPC, over HTTP/2.
    #[default]
    Grpc,
    /// JSON over HTTP/1.1, by `google.api.http`, or by POST to a method's own path where it has no such annotation.
    HttpJson,
}

/// A back-end's address: `https://host:port` (mutual TLS, its certificate carries the system's identity), or
/// `http://127.0.0.1:port`, in the clear and therefore only on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether TLS is used.
    pub tls: bool,
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What the command line and the environment put in the place of the file's values.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `node.data`
    pub data: Option<PathBuf>,
    /// `listen.systems`
    pub systems: Option<SocketAddr>,
    /// `listen.nodes`
    pub nodes: Option<SocketAddr>,
    /// `listen.admin`
    pub admin: Option<SocketAddr>,
}

/// Reads `node.toml`; nothing that it refers to is looked at yet.
pub fn load(path: &Path) -> Result<NodeConfig, ConfigError> {
    let document = Document::read(path)?;
    let mut config: NodeConfig = document.parse()?;
    config.resolve(path.parent().unwrap_or_else(|| Path::new("")));
    config.document = document;
    Ok(config)
}

impl NodeConfig {
    /// Puts overrides in force.
    pub fn overridden(mut self, overrides: Overrides) -> Self {
        self.node.data = overrides.data.unwrap_or(self.node.data);
        self.listen.systems = overrides.systems.unwrap_or(self.listen.systems);
        self.listen.nodes = overrides.nodes.unwrap_or(self.listen.nodes);
        self.listen.admin = overrides.admin.unwrap_or(self.listen.admin);
        self
    }

    /// The file that it was read from.
    pub fn path(&self) -> &Path {
        self.document.path()
    }

    /// Whom the node's certificate must speak for.
    pub fn identity(&self) -> Identity {
        Identity::Node { member: self.node.member.clone(), name: self.node.name.as_str().into() }
    }

    /// Where the last good directory is kept.
    pub fn last_good_directory(&self) -> PathBuf {
        self.node.data.join("directory.note")
    }

    /// Reads the key that signs the log's checkpoints, and the next one where it is there.
    pub fn log_signers(&self) -> Result<Signers, ConfigError> {
        check::log_signers(self, None)
    }

    fn problem(&self, steps: &[Step<'_>], what: impl Into<String>, remedy: impl Into<String>) -> Problem {
        self.document.problem(steps, what, remedy)
    }

    fn resolve(&mut self, base: &Path) {
        if let (None, Some(key)) = (&self.log.next_key, self.log.key.file()) {
            let mut beside = key.to_owned().into_os_string();
            beside.push(".next");
            self.log.next_key = Some(PrivateKey::File(beside.into()));
        }
        let files = [
            &mut self.node.data,
            &mut self.tls.certificate,
            &mut self.directory.descriptors,
            &mut self.policy.grants,
            &mut self.policy.outbound,
        ];
        self.private.resolve(base);
        self.telemetry.resolve(base);
        self.tls.key.resolve(base);
        self.log.key.resolve(base);
        if let Some(next) = &mut self.log.next_key {
            next.resolve(base);
        }
        let optional = self.backends.values_mut().filter_map(|backend| backend.ca.as_mut());
        let witness = self.witness.iter_mut().flat_map(Witness::paths);
        let lists = self.tls.roots.iter_mut().chain(&mut self.tls.crls).chain(&mut self.directory.roots);
        for path in files.into_iter().chain(lists).chain(optional).chain(witness) {
            *path = base.join(&path);
        }
        if let Some(publish) = &mut self.publish {
            publish.resolve(base);
        }
        for mirror in &mut self.directory.mirrors {
            if !mirror.contains("://") {
                *mirror = base.join(&mirror).to_string_lossy().into_owned();
            }
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not an endpoint: write https://host:port, or http://127.0.0.1:port");
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let (Some(host), Some(port), "" | "/", None) = (uri.host(), uri.port_u16(), uri.path(), uri.query()) else {
            return Err(wrong());
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || port == 0 || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong());
        }
        let local = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if !tls && !local {
            return Err(format!("{text:?}: http:// is only for a loopback address (127.0.0.1, [::1]); use https://"));
        }
        Ok(Self { tls, host, port })
    }
}

impl Endpoint {
    /// `host:port`, an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn main_name() -> String {
    "main".into()
}

fn data_folder() -> PathBuf {
    "data".into()
}

fn descriptors_folder() -> PathBuf {
    "descriptors".into()
}

fn log_key() -> PrivateKey {
    "log.key".into()
}

fn poll() -> Duration {
    Duration::from_secs(60)
}

fn warn_free() -> u64 {
    2 << 30
}

fn refuse_free() -> u64 {
    512 << 20
}

fn append_timeout() -> Duration {
    Duration::from_secs(2)
}

fn log_queue() -> std::num::NonZeroUsize {
    const { std::num::NonZeroUsize::new(8_192).unwrap() }
}

fn log_batch() -> std::num::NonZeroUsize {
    const { std::num::NonZeroUsize::new(1_024).unwrap() }
}
