//! Everything that `node.toml` refers to, read and compared; all problems, not the first.

mod against;
mod descriptors;
mod expiries;
mod local;
mod typed;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use time::OffsetDateTime;

use super::document::{ConfigError, Problem, Severity, Step};
use super::grants::{read_grants, read_outbound};
use super::{Endpoint, NodeConfig, Protocol};
use crate::log::Signers;
use crate::policy::{Grant, Grants, Outbound};
use crate::schema::Catalogue;
use crate::trust::certificate::Anchors;
use crate::trust::directory::{Directory, Node, SignedDirectory, Source};
use crate::trust::expiry::Expiry;
use crate::trust::identity::SystemId;
use crate::trust::note::Verifier;
use crate::trust::tls::Credentials;

pub(super) use local::{log_signers, writable};

/// How long a start waits for the directory's mirrors.
const FIRST_POLL: Duration = Duration::from_secs(30);

/// What a node works with, from files that have been checked. Immutable: a reload makes a new one.
#[derive(Debug)]
pub struct Loaded {
    /// The node's certificate and key.
    pub credentials: Arc<Credentials>,
    /// Whom it trusts.
    pub anchors: Arc<Anchors>,
    /// For both TLS listeners.
    pub server_tls: Arc<ServerConfig>,
    /// The last second at which the node's own chain is valid.
    pub certificate_until_unix: i64,
    /// What it lives by and when that ends.
    pub expiries: Arc<[Expiry]>,
    /// What the log signs by.
    pub log_signers: Signers,
    /// The keys that the directory has of this node's log.
    pub listed_log_keys: Vec<Verifier>,
    /// The directory in force.
    pub directory: Arc<Directory>,
    /// Its services' types.
    pub catalogue: Arc<Catalogue>,
    /// What others may call here.
    pub grants: Arc<Grants>,
    /// Grants that are in the files and not in force: what they allow does not fit the directory or the types.
    pub left_out: Vec<Grant>,
    /// What own systems may call.
    pub outbound: Arc<Outbound>,
    /// Own systems, and where they listen.
    pub backends: HashMap<SystemId, LoadedBackend>,
    /// What does not fit but does not stop the node: to be logged.
    pub warnings: Vec<Problem>,
}

/// Where a back-end listens, and who vouches for it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedBackend {
    /// Its address.
    pub endpoint: Endpoint,
    /// What it speaks.
    pub protocol: Protocol,
    /// What its certificate is verified against.
    pub anchors: Arc<Anchors>,
}

/// Checks everything that a start would, asks the directory's mirrors too, and leaves nothing behind.
pub async fn check(config: &NodeConfig) -> Result<Loaded, ConfigError> {
    let mut problems = Vec::new();
    local::check_addresses_and_data(config, &mut problems);
    // The running node's last good directory is read, and never written, from here.
    let aside = tempfile::tempdir().map_err(|error| local::unwritable(config, &std::env::temp_dir(), &error))?;
    let last_good = aside.path().join("directory.note");
    if let Err(error) = std::fs::copy(config.last_good_directory(), &last_good)
        && error.kind() != ErrorKind::NotFound
    {
        problems.extend(local::unwritable(config, &config.last_good_directory(), &error).problems);
    }
    open_and_inspect(config, last_good, problems).await.map(|(_, loaded)| loaded)
}

/// Checks everything for a start: makes the data folder, opens the directory's source, asks its mirrors, compares.
pub async fn open(config: &NodeConfig) -> Result<(Source, Loaded), ConfigError> {
    let mut problems = Vec::new();
    let data = &config.node.data;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data);
    made.map_err(|error| local::unwritable(config, data, &error))?;
    local::check_addresses_and_data(config, &mut problems);
    open_and_inspect(config, config.last_good_directory(), problems).await
}

async fn open_and_inspect(
    config: &NodeConfig,
    last_good: PathBuf,
    mut problems: Vec<Problem>,
) -> Result<(Source, Loaded), ConfigError> {
    let last_good_folder = last_good.parent().unwrap_or_else(|| Path::new("")).to_owned();
    let source = open_source(config, last_good, &mut problems).await;
    let directory = source.as_ref().and_then(|source| source.current(OffsetDateTime::now_utc()));
    let fetched = last_good_folder.join(descriptors::FOLDER);
    if let (Some(source), Some(SignedDirectory { directory, .. })) = (&source, directory) {
        descriptors::fetch(config, source, directory, &fetched).await;
    }
    let loaded = inspect(config, directory, &fetched, None, problems)?;
    // Without a source there was a problem, and so no `loaded`.
    source.map(|source| (source, loaded)).ok_or(ConfigError { problems: Vec::new() })
}

/// Checks again what a running node takes up: certificates, CRLs, this directory, descriptors, grants, outbound list, log keys.
/// Grants that have not changed since `previous` keep their counts.
pub fn recheck(
    config: &NodeConfig,
    directory: &SignedDirectory,
    previous: Option<&Loaded>,
) -> Result<Loaded, ConfigError> {
    inspect(config, Some(directory), &fetched_descriptors(config), previous, Vec::new())
}

/// Fetches from the mirrors what is missing of the descriptor sets that the directory in force names. How many came.
pub async fn fetch_descriptors(config: &NodeConfig, source: &Source) -> usize {
    match source.current(OffsetDateTime::now_utc()) {
        Some(in_force) => descriptors::fetch(config, source, &in_force.directory, &fetched_descriptors(config)).await,
        None => 0,
    }
}

fn fetched_descriptors(config: &NodeConfig) -> PathBuf {
    config.last_good_directory().with_file_name(descriptors::FOLDER)
}

fn inspect(
    config: &NodeConfig,
    directory: Option<&SignedDirectory>,
    fetched: &Path,
    previous: Option<&Loaded>,
    mut problems: Vec<Problem>,
) -> Result<Loaded, ConfigError> {
    let now = OffsetDateTime::now_utc();
    let own = local::read_tls(config, now, previous.map(|previous| &*previous.credentials), &mut problems);
    let signers = log_signers(config, previous.map(|previous| &previous.log_signers));
    let signers = signers.map_err(|error| problems.extend(error.problems)).ok();
    let log_keys = signers.as_ref().map_or_else(Vec::new, Signers::verifiers);
    local::check_witness(config, &log_keys, &mut problems);
    let grants = read_grants(&config.policy.grants, &config.node.member, &mut problems);
    let rules = read_outbound(&config.policy.outbound, &config.node.member, &mut problems);

    let mut catalogue = Catalogue::default();
    let (mut in_force, mut left_out) = (Vec::new(), Vec::new());
    if let Some(SignedDirectory { directory, .. }) = directory {
        against::check_this_node(config, directory, &log_keys, &mut problems);
        catalogue = against::read_catalogue(
            config,
            directory,
            fetched,
            previous.map(|loaded| &*loaded.catalogue),
            &mut problems,
        );
        let facts = against::Facts { directory, catalogue: &catalogue };
        facts.check_grants(&grants, &mut problems);
        facts.check_outbound(&rules, &mut problems);
        facts.check_backends(config, &mut problems);
        let was_known = previous.map(|previous| {
            move |grant: &Grant| previous.left_out.contains(grant) || previous.grants.iter().any(|known| known == grant)
        });
        let was_known = was_known.as_ref().map(|known| known as &dyn Fn(&Grant) -> bool);
        (in_force, left_out) = facts.fitting(grants, was_known, &mut problems);
    }
    let anchors = own.as_ref().map(|own| Arc::clone(&own.anchors));
    let backends = local::read_backends(config, anchors.as_ref(), &mut problems);

    problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    let broken = problems.first().is_some_and(|worst| worst.severity == Severity::Error);
    let (Some(own), Some(log_signers), Some(directory), false) = (own, signers, directory, broken) else {
        return Err(ConfigError { problems });
    };
    let this_node = directory.directory.node(&config.node.member, &config.node.name);
    Ok(Loaded {
        expiries: expiries::expiries(config, &own.credentials, &own.anchors, &directory.directory).into(),
        log_signers,
        listed_log_keys: this_node.map_or_else(Vec::new, Node::log_keys),
        credentials: own.credentials,
        anchors: own.anchors,
        server_tls: own.server_tls,
        certificate_until_unix: own.until_unix,
        directory: Arc::new(directory.directory.clone()),
        catalogue: Arc::new(catalogue),
        grants: Arc::new(match previous {
            Some(previous) => previous.grants.succeeded_by(in_force),
            None => Grants::new(in_force),
        }),
        left_out,
        outbound: Arc::new(Outbound::new(rules.into_iter().map(|placed| placed.value).collect())),
        backends,
        warnings: problems,
    })
}

/// The directory's source, its mirrors asked once. Mirrors that fail are a problem only where there is no last good
/// directory to go on with.
async fn open_source(config: &NodeConfig, last_good: PathBuf, problems: &mut Vec<Problem>) -> Option<Source> {
    let options = local::source_options(config, last_good, problems)?;
    let wrong = |what: String| {
        let remedy = "correct the mirrors, the council keys or the threshold, or get a directory that they verify";
        config.problem(&[Step::Key("directory"), Step::Key("mirrors")], what, remedy)
    };
    let now = OffsetDateTime::now_utc();
    let mut source = match Source::open(options, now) {
        Ok(source) => source,
        Err(error) => {
            problems.push(wrong(error.to_string()));
            return None;
        }
    };
    let failed = match tokio::time::timeout(FIRST_POLL, source.poll(now)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no mirror answered within {} s", FIRST_POLL.as_secs())),
    };
    let current = source.current(now);
    match failed {
        Some(what) if current.is_some() => {
            problems.push(wrong(format!("{what}; going on with the last good directory")).with(Severity::Mismatch));
        }
        Some(what) => problems.push(wrong(what)),
        None if current.is_none() => problems.push(wrong("no mirror has a directory in force".to_owned())),
        None => {}
    }
    Some(source)
}
