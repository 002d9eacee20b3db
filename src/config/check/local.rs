//! The node's own files and addresses.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::LoadedBackend;
use crate::config::document::{ConfigError, Problem, Severity, Step};
use crate::config::{NodeConfig, PrivateKey, Token};
use crate::log::Signers;
use crate::oversight::witness::{Cosigners, CosignersError};
use crate::trust::certificate::{Anchors, Usage};
use crate::trust::directory::{Mirror, SourceOptions};
use crate::trust::identity::SystemId;
use crate::trust::note::{Signer, Verifier};
use crate::trust::tls::{Credentials, TlsError, server_config};
use crate::trust::token::{KeyInToken, KeyKind, TlsKey};

const TOKEN_REMEDY: &str =
    "correct module, labels or PIN; `pkcs11-tool --module … --list-objects --login` shows what the token has";

pub(super) struct OwnTls {
    pub(super) credentials: Arc<Credentials>,
    pub(super) anchors: Arc<Anchors>,
    pub(super) server_tls: Arc<ServerConfig>,
    pub(super) until_unix: i64,
}

pub(super) fn check_addresses_and_data(config: &NodeConfig, problems: &mut Vec<Problem>) {
    let listen = &config.listen;
    let listeners = [("systems", listen.systems), ("nodes", listen.nodes), ("admin", listen.admin)];
    if let Some(address) = config.publish.as_ref().and_then(|publish| publish.listen)
        && let Some((other, _)) = listeners.iter().find(|(_, other)| collide(*other, address))
    {
        let what = format!("{address} is also listen.{other}'s");
        problems.push(config.problem(&steps("publish", "listen"), what, "give each listener its own port"));
    }
    crate::config::publish::check(config, problems);
    crate::config::telemetry::check(config, problems);
    for (index, (name, address)) in listeners.iter().enumerate() {
        if let Some((other, _)) = listeners[..index].iter().find(|(_, other)| collide(*other, *address)) {
            let what = format!("{address} is also listen.{other}'s");
            problems.push(config.problem(&steps("listen", name), what, "give each listener its own port"));
        }
    }
    if !listen.admin.ip().is_loopback() && !listen.admin_public {
        let what = format!("{} is reached from other machines, in the clear", listen.admin);
        let remedy = "use 127.0.0.1 or [::1], or set listen.admin_public = true";
        problems.push(config.problem(&steps("listen", "admin"), what, remedy));
    }
    if let Err(error) = writable(&config.node.data) {
        problems.extend(unwritable(config, &config.node.data, &error).problems);
    }
    if let Some(file) = config.log.key.file() {
        private(config, "log", "key", file, problems);
    }
    if let Some(file) = config.log.next_key.as_ref().and_then(PrivateKey::file) {
        private(config, "log", "next_key", file, problems);
    }
    problems.extend(config.retention_problem());
    if config.log.refuse_free > config.log.warn_free {
        let what = "is more than log.warn_free: the node would refuse before it warns";
        problems.push(config.problem(&steps("log", "refuse_free"), what, "make it less than log.warn_free"));
    }
}

/// Credentials and anchors that fit together and are this node's.
pub(super) fn read_tls(
    config: &NodeConfig,
    now: OffsetDateTime,
    previous: Option<&Credentials>,
    problems: &mut Vec<Problem>,
) -> Option<OwnTls> {
    let anchors = match Anchors::load(&config.tls.roots, &config.tls.crls) {
        Ok(anchors) => Some(Arc::new(anchors)),
        Err(error) => {
            let remedy = "give PEM files: root certificates, and the CRLs of the CAs under them";
            problems.push(config.problem(&steps("tls", "roots"), error.to_string(), remedy));
            None
        }
    };
    for crl in anchors.iter().flat_map(|anchors| anchors.crls()) {
        if crl.next_update_unix <= now.unix_timestamp() {
            let what = format!("the CRL of {} has expired: nobody under that CA is let in", crl.issuer);
            let problem = config.problem(&steps("tls", "crls"), what, "fetch the CA's current CRL");
            problems.push(problem.with(Severity::Mismatch));
        }
    }
    let credentials = read_credentials(config, previous)
        .map_err(|error| {
            let (field, remedy) = match error {
                TlsError::Certificate(_) => ("certificate", "give the node's chain, leaf first, in PEM"),
                TlsError::KeyMismatch { .. } => ("key", "give the key with which the certificate was issued"),
                TlsError::Token(_) => ("key", TOKEN_REMEDY),
                TlsError::Key { .. } | TlsError::Tls(_) => ("key", "give the certificate's private key, in PEM"),
            };
            problems.push(config.problem(&steps("tls", field), error.to_string(), remedy));
        })
        .ok();
    if let Some(file) = config.tls.key.file() {
        private(config, "tls", "key", file, problems);
    }
    let (credentials, anchors) = (credentials?, anchors?);

    let certificate = steps("tls", "certificate");
    let mut until_unix = None;
    for usage in [Usage::Server, Usage::Client] {
        match anchors.verify_peer(credentials.chain(), usage, UnixTime::now()) {
            Ok(peer) if peer.identity != config.identity() => {
                let what = format!("speaks for {}, and this node is {}", peer.identity, config.identity());
                let remedy = "use this node's certificate, or correct node.member and node.name";
                problems.push(config.problem(&certificate, what, remedy));
                return None;
            }
            Ok(peer) => until_unix = Some(peer.not_after_unix),
            Err(error) => {
                let what = format!("does not hold under tls.roots and tls.crls: {error}");
                let remedy = "have the member's CA issue a current node certificate (kopuro pki issue)";
                problems.push(config.problem(&certificate, what, remedy));
                return None;
            }
        }
    }
    let until_unix = until_unix?;
    let credentials = Arc::new(credentials);
    match server_config(&credentials, &anchors) {
        Ok(server_tls) => Some(OwnTls { credentials, anchors, server_tls, until_unix }),
        Err(error) => {
            problems.push(config.problem(&certificate, error.to_string(), "have a new one issued"));
            None
        }
    }
}

/// The node's chain and key. A running node goes on with the session that it has with a token, so that what it takes up does not hang on
/// the token; unless the chain is another key's.
fn read_credentials(config: &NodeConfig, previous: Option<&Credentials>) -> Result<Credentials, TlsError> {
    let certificate = &config.tls.certificate;
    match (&config.tls.key, previous) {
        (PrivateKey::File(path), _) => Credentials::load(certificate, path),
        (PrivateKey::Pkcs11(token), previous) => match previous.map(|previous| previous.with_chain(certificate)) {
            None | Some(Err(TlsError::KeyMismatch { .. })) => {
                let key = TlsKey::open(&token.clone().into())?;
                Credentials::load_with_token(certificate, key, &config.tls.key.to_string())
            }
            Some(other) => other,
        },
    }
}

/// The witnesses' policy: whether it can be met, and whether it knows this log.
pub(super) fn check_witness(config: &NodeConfig, log_keys: &[Verifier], problems: &mut Vec<Problem>) {
    let Some(witness) = &config.witness else { return };
    match Cosigners::from_config(witness) {
        Ok(cosigners) => {
            let logs = cosigners.policy().logs();
            let ours = log_keys.is_empty() || logs.iter().any(|log| log_keys.contains(&log.key));
            if !logs.is_empty() && !ours {
                let what = format!("{} lists other logs, and not this node's", witness.policy.display());
                let remedy = "add a line: log, and the key that kopuro directory keygen printed for log.key";
                problems.push(config.problem(&steps("witness", "policy"), what, remedy));
            }
        }
        Err(error @ CosignersError::Roots(_)) => {
            let remedy = "give a PEM file of root certificates";
            problems.push(config.problem(&steps("witness", "roots"), error.to_string(), remedy));
        }
        Err(error) => {
            let remedy = "correct the policy (https://c2sp.org/tlog-policy); witnesses need their URL";
            problems.push(config.problem(&steps("witness", "policy"), error.to_string(), remedy));
        }
    }
}

/// The key that signs the log's checkpoints, and the one that is to take its place where there is one. Keys in a token are those of
/// `previous`, so that what a running node takes up does not hang on the token.
pub(in crate::config) fn log_signers(config: &NodeConfig, previous: Option<&Signers>) -> Result<Signers, ConfigError> {
    let first = match &config.log.key {
        PrivateKey::File(path) => log_signer(config, "key", path)?,
        PrivateKey::Pkcs11(token) => match previous.map(Signers::first) {
            Some(previous) => previous.clone(),
            None => log_signer_in_token(config, "key", token)?,
        },
    };
    let second = match &config.log.next_key {
        None => return Ok(first.into()),
        Some(PrivateKey::File(path)) if !path.try_exists().unwrap_or(true) => return Ok(first.into()),
        Some(PrivateKey::File(path)) => log_signer(config, "next_key", path)?,
        Some(PrivateKey::Pkcs11(token)) => match previous.and_then(Signers::second) {
            Some(previous) => previous.clone(),
            None => log_signer_in_token(config, "next_key", token)?,
        },
    };
    if second.name() != first.name() {
        let what = format!("has a key of {}, and the log is {}", second.name(), first.name());
        let remedy = format!("make it with kopuro directory keygen --name {}", first.name());
        return Err(config.problem(&steps("log", "next_key"), what, remedy).into());
    }
    Ok(Signers::new(first, Some(second)))
}

fn log_signer(config: &NodeConfig, field: &str, path: &Path) -> Result<Signer, ConfigError> {
    let remedy = "give the file that `kopuro directory keygen` wrote for this node's log";
    let problem = |what: String| ConfigError::from(config.problem(&steps("log", field), what, remedy));
    let text = std::fs::read_to_string(path)
        .map_err(|error| problem(format!("{} cannot be read: {error}", path.display())))?;
    let text = Zeroizing::new(text);
    let signer = Signer::from_encoded(&text).map_err(|error| problem(format!("{}: {error}", path.display())))?;
    match &config.log.origin {
        Some(origin) if origin != signer.name() => {
            let what = format!("{} has the key of {}, and log.origin is {origin}", path.display(), signer.name());
            Err(config.problem(&steps("log", "origin"), what, "remove log.origin: the key's file says it").into())
        }
        _ => Ok(signer),
    }
}

fn log_signer_in_token(config: &NodeConfig, field: &str, token: &Token) -> Result<Signer, ConfigError> {
    let problem = |what: String, remedy| ConfigError::from(config.problem(&steps("log", field), what, remedy));
    let Some(origin) = &config.log.origin else {
        let remedy = "add log.origin, the name that the directory has in the log's key before its first +";
        return Err(problem("is in a token, which does not say which log's it is".into(), remedy));
    };
    let key = KeyInToken::open(&token.clone().into(), KeyKind::Ed25519);
    let key = key.map_err(|error| problem(error.to_string(), TOKEN_REMEDY))?;
    Signer::in_token(origin, key).map_err(|error| problem(error.to_string(), "correct log.origin"))
}

/// Options of the directory's source; none where a mirror, key or threshold is wrong.
pub(super) fn source_options(
    config: &NodeConfig,
    last_good: PathBuf,
    problems: &mut Vec<Problem>,
) -> Option<SourceOptions> {
    let before = problems.len();
    let source = &config.directory;
    let mut mirrors = Vec::new();
    for (index, mirror) in source.mirrors.iter().enumerate() {
        match mirror.parse::<Mirror>() {
            Ok(mirror) => mirrors.push(mirror),
            Err(error) => {
                let field = [Step::Key("directory"), Step::Key("mirrors"), Step::Index(index)];
                problems.push(config.problem(&field, error.to_string(), "write a file's path or https://host/path"));
            }
        }
    }
    if source.mirrors.is_empty() {
        let remedy = "name at least one file or https:// address";
        problems.push(config.problem(&steps("directory", "mirrors"), "is empty", remedy));
    }
    let mut council: Vec<Verifier> = Vec::new();
    for (index, key) in source.council.iter().enumerate() {
        let field = [Step::Key("directory"), Step::Key("council"), Step::Index(index)];
        match key.parse::<Verifier>() {
            Ok(key) if council.contains(&key) => {
                problems.push(config.problem(&field, format!("{} is listed twice", key.name()), "keep one"));
            }
            Ok(key) => council.push(key),
            Err(error) => {
                let remedy = "write a public key, as `kopuro directory keygen` prints it";
                problems.push(config.problem(&field, error.to_string(), remedy));
            }
        }
    }
    if source.threshold == 0 || source.threshold > source.council.len() {
        let what = format!("{} of {} council keys", source.threshold, source.council.len());
        let remedy = "write at least 1 and at most as many as there are keys";
        problems.push(config.problem(&steps("directory", "threshold"), what, remedy));
    }
    (problems.len() == before).then(|| SourceOptions {
        mirrors,
        council,
        threshold: source.threshold,
        last_good,
        extra_roots: source.roots.clone(),
    })
}

pub(super) fn read_backends(
    config: &NodeConfig,
    anchors: Option<&Arc<Anchors>>,
    problems: &mut Vec<Problem>,
) -> HashMap<SystemId, LoadedBackend> {
    let mut backends = HashMap::new();
    for (name, backend) in &config.backends {
        let table = [Step::Key("backends"), Step::Key(name)];
        let system = match config.node.member.system(name) {
            Ok(system) => system,
            Err(error) => {
                let remedy = "name the table after the system, as [backends.civil-registry]";
                problems.push(config.problem(&table, error.to_string(), remedy));
                continue;
            }
        };
        let anchors = match &backend.ca {
            None => anchors.cloned(),
            Some(ca) => match Anchors::load(std::slice::from_ref(ca), &[]) {
                Ok(anchors) => Some(Arc::new(anchors)),
                Err(error) => {
                    let field = [table[0], table[1], Step::Key("ca")];
                    problems.push(config.problem(&field, error.to_string(), "give a PEM file of root certificates"));
                    None
                }
            },
        };
        if let Some(anchors) = anchors {
            let loaded = LoadedBackend { endpoint: backend.endpoint.clone(), protocol: backend.protocol, anchors };
            backends.insert(system, loaded);
        }
    }
    backends
}

pub(super) fn unwritable(config: &NodeConfig, path: &Path, error: &std::io::Error) -> ConfigError {
    let what = format!("{} cannot be used: {error}", path.display());
    config.problem(&steps("node", "data"), what, "name a folder that the node may read and write").into()
}

/// Tells where a key file can be read by others. Not an error: some orchestrators mount secrets so.
fn private(config: &NodeConfig, table: &str, field: &str, file: &Path, problems: &mut Vec<Problem>) {
    let open = std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
    if open {
        let what = format!("{} can be read by others on this machine", file.display());
        let problem = config.problem(&steps(table, field), what, format!("chmod 600 {}", file.display()));
        problems.push(problem.with(Severity::Notice));
    }
}

/// Whether the folder, or where it is yet to be made the one above it, takes a file. Leaves nothing behind.
pub(in crate::config) fn writable(folder: &Path) -> std::io::Result<()> {
    let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or_else(|| Path::new("."));
    tempfile::tempfile_in(existing).map(drop)
}

fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_ip
}

fn steps<'a>(table: &'a str, field: &'a str) -> [Step<'a>; 2] {
    [Step::Key(table), Step::Key(field)]
}
