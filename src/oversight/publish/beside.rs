//! What lies beside the log: the grants in force, the directory, the form of an entry, the log's key.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{PublishOptions, Served, Store, StoreError};
use crate::log::Log;
use crate::oversight::portal::{self, Site};
use crate::policy::grant::{Allowed, Grant, Methods, Publication, UnknownFields};
use crate::schema::{Catalogue, Offer};

/// How others may read the entries.
const ENTRY_PROTO: &str = include_str!("../../../proto/kopuro/log/v1/entry.proto");

/// Pages written at once.
const AT_ONCE: usize = 16;

/// A directory is no larger.
const MOST_DIRECTORY: u64 = 64 << 20;

const TEXT: Served = Served { content_type: "text/plain; charset=utf-8", cache: "public, max-age=60" };
const JSON: Served = Served { content_type: "application/json", cache: "public, max-age=60" };

/// These files, as they are now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Beside {
    grants: Bytes,
    /// None where there is none to be read.
    directory: Option<Bytes>,
    vkey: Bytes,
}

impl Beside {
    /// Reads what is in force.
    pub(super) async fn now(options: &PublishOptions, log: &Log) -> Self {
        let grants = match (options.grants)() {
            Some((grants, catalogue)) => {
                grants_json(grants.iter().map(|grant| grant_json(grant, &catalogue)).collect())
            }
            None => grants_json(Vec::new()),
        };
        let size = tokio::fs::metadata(&options.directory).await.map_or(u64::MAX, |found| found.len());
        let directory = match size {
            0..=MOST_DIRECTORY => tokio::fs::read(&options.directory).await.ok().map(Bytes::from),
            _ => None,
        };
        let keys = log.keys();
        let vkey = keys.signing().first().map(|key| format!("{key}\n")).unwrap_or_default();
        Self { grants: grants.into(), directory, vkey: vkey.into() }
    }

    /// Name, content, and how it is served.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, Bytes, Served)> {
        let files = [
            ("grants.json", Some(self.grants.clone()), JSON),
            ("directory", self.directory.clone(), TEXT),
            ("entry.proto", Some(Bytes::from_static(ENTRY_PROTO.as_bytes())), TEXT),
            ("vkey", Some(self.vkey.clone()), TEXT),
        ];
        files.into_iter().filter_map(|(name, content, served)| Some((name, content?, served)))
    }
}

/// Writes the portal's pages where the store has others, or none.
pub(super) async fn put_portal(store: &Store, site: &Site) -> Result<(), StoreError> {
    let version = format!("portal/{}", portal::VERSION);
    let stored = store.get(&version, portal::MOST_VERSION).await;
    if matches!(stored, Ok(Some(stored)) if stored == site.version()) {
        return Ok(());
    }
    let put =
        async |(path, bytes, served): (&str, Bytes, Served)| store.put(&format!("portal/{path}"), bytes, served).await;
    futures_util::stream::iter(site.files()).map(put).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    // The last: what broke off is written again.
    store.put(&version, site.version(), portal::TEXT).await
}

/// Who may ask whom for what, on which law: sorted, so that the same grants are the same bytes.
fn grants_json(mut grants: Vec<Value>) -> String {
    grants.sort_by_cached_key(Value::to_string);
    let mut text = serde_json::to_string_pretty(&json!({ "grants": grants })).unwrap_or_default();
    text.push('\n');
    text
}

fn grant_json(grant: &Grant, catalogue: &Catalogue) -> Value {
    let methods: Vec<&str> = match &grant.methods {
        Methods::All => vec!["*"],
        Methods::Named(names) => names.iter().map(String::as_str).collect(),
    };
    let (fields, categories) = match &grant.allowed {
        Allowed::Everything => (None, None),
        Allowed::Fields(by_method) => (Some(by_method), None),
        Allowed::Categories(categories) => (None, Some(categories)),
    };
    json!({
        "consumer": grant.consumer.to_string(),
        "provider": grant.provider.to_string(),
        "service": grant.service,
        "methods": methods,
        "legal_basis": { "code": grant.legal_basis.code, "text": grant.legal_basis.text },
        "from": grant.from_unix_ms.and_then(timestamp),
        "until": grant.until_unix_ms.and_then(timestamp),
        "publication": publication_json(grant, catalogue),
        "fields": fields,
        "categories": categories,
        "unknown_fields": word(grant.unknown.request),
        "unknown_response_fields": word(grant.unknown.response),
        "name_withheld": grant.name_withheld,
    })
}

/// The class in which its exchanges are published; by method where the grant leaves it to the methods' authors and they
/// differ.
fn publication_json(grant: &Grant, catalogue: &Catalogue) -> Value {
    let class = |class: Publication| match class {
        Publication::Public => json!({ "class": "public" }),
        Publication::Delayed { days } => json!({ "class": "delayed", "days": days }),
        Publication::Sealed => json!({ "class": "sealed" }),
    };
    let offer = catalogue.service(&grant.service).and_then(|service| service.offer(&grant.provider));
    let methods =
        offer.into_iter().flat_map(Offer::methods).filter(|method| grant.methods.contains(method.descriptor.name()));
    let classes: BTreeMap<&str, Publication> =
        methods.map(|method| (method.descriptor.name(), method.publication(grant.publication))).collect();
    let first = classes.values().next().copied();
    match first.filter(|first| classes.values().any(|other| other != first)) {
        None => class(first.or(grant.publication).unwrap_or_default()),
        Some(_) => {
            let by_method: BTreeMap<&str, Value> = classes.iter().map(|(name, said)| (*name, class(*said))).collect();
            json!({ "class": "by-method", "methods": by_method })
        }
    }
}

fn word(unknown: UnknownFields) -> &'static str {
    match unknown {
        UnknownFields::Refuse => "refuse",
        UnknownFields::Strip => "strip",
        UnknownFields::Pass => "pass",
    }
}

fn timestamp(unix_ms: i64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok()?;
    time.format(&Rfc3339).ok()
}
