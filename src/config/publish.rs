//! `[publish]`: where the log is published, and how. Without the table nothing is published.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::document::{Problem, Severity, Step};
use super::{NodeConfig, PrivateKey, units};
use crate::oversight::portal::LogSource;
use crate::oversight::publish::Store;
use crate::policy::Rate;
use crate::trust::note::Verifier;

/// `[publish]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Publish {
    /// Where tiles, checkpoint and open data are written: a folder, or `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix` with credentials from the environment (`AWS_…`, `GOOGLE_…`, `AZURE_…`). Default none.
    pub store: Option<String>,
    /// Plain HTTP: serves the publication, also without a store. Default none.
    pub listen: Option<SocketAddr>,
    /// Where the public finds it, `https://…`. Only to compare with the log's origin. Default none.
    pub url: Option<String>,
    /// How often what is new is published. Default `2s`.
    #[serde(deserialize_with = "units::wait")]
    pub interval: Duration,
    /// Requests a second from each client address (IPv6: from each /64). Default 200, 2000 at once.
    pub rate: RequestRate,
    /// How long others may keep the checkpoint before they ask again. Default `5s`.
    #[serde(deserialize_with = "units::duration")]
    pub cache: Duration,
    /// Whether daily files of the public fields are made. Default true.
    pub open_data: bool,
    /// Addresses of proxies in front of `listen`: theirs is the last word on whom they ask for (`X-Forwarded-For`).
    /// Default none.
    pub proxies: Vec<IpAddr>,
    /// The oversight portal, published below `portal/`.
    pub portal: Portal,
}

/// `[publish.portal]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Portal {
    /// Whether it is published. Default true.
    pub enabled: bool,
    /// Other published logs that it shows besides this one. Default none.
    pub logs: Vec<LogSource>,
    /// Where a monitor's report is, `https://…/report.json`. Default none.
    pub monitor: Option<String>,
}

impl Default for Portal {
    fn default() -> Self {
        Self { enabled: true, logs: Vec::new(), monitor: None }
    }
}

/// `publish.rate`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRate {
    /// Sustained requests a second.
    pub per_second: NonZeroU32,
    /// Requests that may come at once.
    pub burst: NonZeroU32,
}

impl Default for Publish {
    fn default() -> Self {
        Self {
            store: None,
            listen: None,
            url: None,
            interval: Duration::from_secs(2),
            rate: RequestRate {
                per_second: const { NonZeroU32::new(200).unwrap() },
                burst: const { NonZeroU32::new(2_000).unwrap() },
            },
            cache: Duration::from_secs(5),
            open_data: true,
            proxies: Vec::new(),
            portal: Portal::default(),
        }
    }
}

impl From<RequestRate> for Rate {
    fn from(rate: RequestRate) -> Self {
        Self { per_second: rate.per_second, burst: rate.burst }
    }
}

impl Publish {
    /// A folder is relative to the file that names it.
    pub(super) fn resolve(&mut self, base: &Path) {
        if let Some(store) = &mut self.store
            && !store.contains("://")
        {
            *store = base.join(&store).to_string_lossy().into_owned();
        }
    }
}

/// What can be said of `[publish]` without asking the store anything.
pub(super) fn check(config: &NodeConfig, problems: &mut Vec<Problem>) {
    let Some(publish) = &config.publish else { return };
    let at = |field| [Step::Key("publish"), Step::Key(field)];
    if publish.store.is_none() && publish.listen.is_none() {
        let what = "names neither a store nor an address: nothing would be published";
        problems.push(config.problem(&[Step::Key("publish")], what, "set store, listen, or both; or remove [publish]"));
    }
    if let Some(store) = &publish.store {
        let remedy =
            "name a folder that the node may write, or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix";
        if let Err(error) = Store::open(store) {
            problems.push(config.problem(&at("store"), error.to_string(), remedy));
        } else if !store.contains("://")
            && let Err(error) = super::check::writable(Path::new(store))
        {
            problems.push(config.problem(&at("store"), format!("{store} cannot be used: {error}"), remedy));
        }
    }
    check_portal(config, &publish.portal, problems);
    if let Some(url) = &publish.url {
        let parsed = url.parse::<http::Uri>().ok();
        let good = parsed.as_ref().is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none()
        });
        if !good || url.ends_with('/') {
            let what = format!("{url:?} is no prefix of addresses");
            problems.push(config.problem(&at("url"), what, "write https://host/path without a slash at the end"));
        } else if let Some(origin) = log_origin(config)
            && url.split_once("://").is_some_and(|(_, rest)| rest != origin)
        {
            let what = format!("the log's origin is {origin}, which is not this prefix without its scheme");
            let remedy = "verifiers that go by C2SP look there; publish there, or ignore this";
            problems.push(config.problem(&at("url"), what, remedy).with(Severity::Notice));
        }
    }
}

/// The log's name. A token is not opened for it: it does not know it.
fn log_origin(config: &NodeConfig) -> Option<String> {
    match &config.log.key {
        PrivateKey::Pkcs11(_) => config.log.origin.clone(),
        PrivateKey::File(_) => config.log_signers().ok().map(|signers| signers.name().to_owned()),
    }
}

/// Browsers fetch from these: a URL that is none, or a key that is none, shows only there.
fn check_portal(config: &NodeConfig, portal: &Portal, problems: &mut Vec<Problem>) {
    let at = |field| [Step::Key("publish"), Step::Key("portal"), Step::Key(field)];
    let is_url = |url: &str| {
        url.parse::<http::Uri>()
            .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
    };
    for log in &portal.logs {
        if !is_url(&log.url) {
            let what = format!("{:?} is no address of a published log", log.url);
            problems.push(config.problem(&at("logs"), what, "write url = \"https://host/path\""));
        }
        if let Err(error) = log.vkey.parse::<Verifier>() {
            let what = format!("{:?} is no key: {error}", log.vkey);
            problems.push(config.problem(&at("logs"), what, "take the log's vkey from the directory"));
        }
    }
    if let Some(monitor) = portal.monitor.as_ref().filter(|url| !is_url(url)) {
        let what = format!("{monitor:?} is no address of a monitor's report");
        problems.push(config.problem(&at("monitor"), what, "write https://host/report.json"));
    }
}
