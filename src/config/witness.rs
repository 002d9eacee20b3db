//! `[witness]` of a node, and `witness.toml` of whoever runs a witness.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::document::{ConfigError, Document, Problem, Step};
use super::units;
use crate::oversight::witness::ServeOptions;
use crate::trust::note::{Cosigner, Verifier};
use crate::trust::policy::WitnessPolicy;
use crate::trust::tls::{Credentials, web_server_config};

/// `[witness]`: who cosigns this node's checkpoints.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// A C2SP tlog-policy; the witnesses in it that have a URL are asked. A checkpoint without its quorum is not
    /// published.
    pub policy: PathBuf,
    /// How long a checkpoint waits for the quorum. Default `10s`.
    #[serde(default = "timeout", deserialize_with = "units::wait")]
    pub timeout: Duration,
    /// How long it waits for the other witnesses once the quorum is met. Default `1s`.
    #[serde(default = "grace", deserialize_with = "units::duration")]
    pub grace: Duration,
    /// Roots, PEM, for witnesses' HTTPS, besides the system's. Default none.
    #[serde(default)]
    pub roots: Option<PathBuf>,
}

impl Witness {
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        std::iter::once(&mut self.policy).chain(&mut self.roots)
    }
}

/// What `witness.toml` says, defaults filled in and paths made absolute or relative to the working folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// The witness's key, as `kopuro witness keygen` wrote it. Default `witness.key`.
    #[serde(default = "witness_key")]
    pub key: PathBuf,
    /// Folder of what it has cosigned, made with the key. Default `state`.
    #[serde(default = "state_folder")]
    pub state: PathBuf,
    /// Where it takes checkpoints. Default `0.0.0.0:7446`.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// Plain HTTP: health and metrics. Default `127.0.0.1:7447`.
    #[serde(default = "admin")]
    pub admin: SocketAddr,
    /// Lets `admin` be an address that other machines reach. Default false.
    #[serde(default)]
    pub admin_public: bool,
    /// The path before `/add-checkpoint`: empty, or as `/kg`. Default empty.
    #[serde(default)]
    pub prefix: String,
    /// The logs that it follows, by their public keys.
    #[serde(default)]
    pub logs: Vec<String>,
    /// A C2SP tlog-policy whose logs it follows too. Default none.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// For HTTPS. Default none: what a witness hears and says is signed.
    #[serde(default)]
    pub tls: Option<WitnessTls>,
    /// What bounds its work.
    #[serde(default)]
    pub limits: WitnessLimits,
    /// The file, to say where in it something is wrong.
    #[serde(skip)]
    document: Document,
}

/// `[tls]` of `witness.toml`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessTls {
    /// The certificate chain, leaf first, PEM; any CA's that the nodes trust.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// `[limits]` of `witness.toml`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WitnessLimits {
    /// Open connections; more wait, and one address has at most half. Default 256.
    pub connections: NonZeroUsize,
    /// Requests a second from one address; more are answered 429. Default 20.
    pub per_second: NonZeroU32,
    /// How many of these may come at once. Default 100.
    pub burst: NonZeroU32,
}

impl Default for WitnessLimits {
    fn default() -> Self {
        let ServeOptions { connections, per_second, burst, .. } = ServeOptions::default();
        Self { connections, per_second, burst }
    }
}

/// What a witness works with, from files that have been checked.
#[derive(Debug)]
pub struct LoadedWitness {
    /// Its key.
    pub cosigner: Cosigner,
    /// The logs that it follows.
    pub logs: Vec<Verifier>,
    /// For its listener.
    pub tls: Option<Arc<ServerConfig>>,
    /// How it is served.
    pub options: ServeOptions,
}

/// Reads `witness.toml`; nothing that it refers to is looked at yet.
pub fn load_witness(path: &Path) -> Result<WitnessConfig, ConfigError> {
    let document = Document::read(path)?;
    let mut config: WitnessConfig = document.parse()?;
    let base = path.parent().unwrap_or_else(|| Path::new(""));
    let tls = config.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]);
    for path in [&mut config.key, &mut config.state].into_iter().chain(&mut config.policy).chain(tls) {
        *path = base.join(&path);
    }
    config.document = document;
    Ok(config)
}

impl WitnessConfig {
    /// Reads all that it refers to but the state; all problems, not the first.
    pub fn check(&self) -> Result<LoadedWitness, ConfigError> {
        let mut problems = Vec::new();
        if !self.admin.ip().is_loopback() && !self.admin_public {
            let what = format!("{} is reached from other machines, in the clear", self.admin);
            let remedy = "use 127.0.0.1 or [::1], or set admin_public = true";
            problems.push(self.problem("admin", what, remedy));
        }
        if !is_prefix(&self.prefix) {
            let what = format!("{:?} is no prefix of a path", self.prefix);
            problems.push(self.problem(
                "prefix",
                what,
                "leave it empty, or write it as /kg, of letters, digits, - and _",
            ));
        }
        let cosigner = self.read_key(&mut problems);
        let logs = self.read_logs(&mut problems);
        if let Some(cosigner) = &cosigner
            && logs.iter().any(|log| log.public_key() == cosigner.verifier().public_key())
        {
            problems.push(self.problem("key", "is also the key of a log", "make one: kopuro witness keygen"));
        }
        let tls = self.tls.as_ref().and_then(|tls| {
            let config = Credentials::load(&tls.certificate, &tls.key).and_then(|loaded| web_server_config(&loaded));
            let remedy = "give a certificate chain, leaf first, and its key, in PEM";
            config.map_err(|error| problems.push(self.problem("tls", error.to_string(), remedy))).ok()
        });
        match cosigner {
            Some(cosigner) if problems.is_empty() => {
                let WitnessLimits { connections, per_second, burst } = self.limits;
                let prefix = self.prefix.clone();
                let options = ServeOptions { prefix, connections, per_second, burst, ..ServeOptions::default() };
                Ok(LoadedWitness { cosigner, logs, tls, options })
            }
            _ => Err(ConfigError { problems }),
        }
    }

    fn read_key(&self, problems: &mut Vec<Problem>) -> Option<Cosigner> {
        let path = self.key.display();
        let read = std::fs::read_to_string(&self.key).map(Zeroizing::new).map_err(|error| error.to_string());
        let cosigner = read.and_then(|text| Cosigner::from_encoded(&text).map_err(|error| error.to_string()));
        let remedy = "give the file that `kopuro witness keygen` wrote";
        cosigner.map_err(|error| problems.push(self.problem("key", format!("{path}: {error}"), remedy))).ok()
    }

    fn read_logs(&self, problems: &mut Vec<Problem>) -> Vec<Verifier> {
        let mut logs: Vec<Verifier> = Vec::new();
        for (index, text) in self.logs.iter().enumerate() {
            let field = [Step::Key("logs"), Step::Index(index)];
            let remedy = "write a log's public key, as `kopuro directory keygen` prints it";
            match text.parse::<Verifier>() {
                Ok(log) if log.is_cosigner() => {
                    problems.push(self.document.problem(&field, "is a witness's key, not a log's", remedy));
                }
                Ok(log) if logs.contains(&log) => {
                    problems.push(self.document.problem(&field, format!("{log} is listed twice"), "keep one"));
                }
                Ok(log) => logs.push(log),
                Err(error) => problems.push(self.document.problem(&field, error.to_string(), remedy)),
            }
        }
        if let Some(path) = &self.policy {
            match WitnessPolicy::read(path) {
                Ok(policy) => {
                    let more = policy.logs().iter().map(|log| log.key.clone());
                    logs.extend(more.filter(|log| !logs.contains(log)).collect::<Vec<_>>());
                }
                Err(error) => {
                    problems.push(self.problem(
                        "policy",
                        error.to_string(),
                        "correct it (https://c2sp.org/tlog-policy)",
                    ));
                }
            }
        }
        if logs.is_empty() && problems.is_empty() {
            problems.push(self.problem("logs", "no log to follow", "list logs' keys, or name a policy that does"));
        }
        logs
    }

    fn problem(&self, field: &str, what: impl Into<String>, remedy: impl Into<String>) -> Problem {
        self.document.problem(&[Step::Key(field)], what, remedy)
    }
}

fn is_prefix(prefix: &str) -> bool {
    let segment = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    prefix.is_empty() || prefix.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
}

fn timeout() -> Duration {
    Duration::from_secs(10)
}

fn grace() -> Duration {
    Duration::from_secs(1)
}

fn witness_key() -> PathBuf {
    "witness.key".into()
}

fn state_folder() -> PathBuf {
    "state".into()
}

fn listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 7446))
}

fn admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7447))
}
