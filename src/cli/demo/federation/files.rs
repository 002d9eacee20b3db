//! The files of one ministry's node, as its operator would write them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::{Federation, KeyPair, MemberFiles, Ministry};

/// A `[[grant]]`.
#[derive(Debug, Clone, Serialize)]
pub struct Grant {
    /// Who may ask: a system or a whole member.
    pub consumer: String,
    /// Name of the own system that is asked.
    pub provider: String,
    /// Full name of the service.
    pub service: String,
    /// Methods, or `*`.
    pub methods: Vec<String>,
    /// Why it is lawful.
    pub legal_basis: LegalBasis,
    /// First day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Last day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Publication class, `public` or `sealed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publication: Option<String>,
    /// Which fields of the answers may cross; empty: as `categories` says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Of which categories; empty: all fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
    /// Whether the caller is told the names of withheld fields.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub name_withheld: bool,
}

/// The provision that a grant rests on.
#[derive(Debug, Clone, Serialize)]
pub struct LegalBasis {
    /// What callers put in `kopuro-purpose`.
    pub code: String,
    /// The provision in words.
    pub text: String,
}

/// A grant's rate limit.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rate {
    /// On average.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// An `[[allow]]` of the outbound list.
#[derive(Debug, Clone, Serialize)]
pub struct Allow {
    /// Name of the own system.
    pub system: String,
    /// A system, a member, or `*`.
    pub provider: String,
    /// Full name of the service, or `*`.
    pub service: String,
    /// Methods, or `*`.
    pub methods: Vec<String>,
    /// Publication class, at least as strict as the grant's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publication: Option<String>,
}

#[derive(Serialize)]
struct NodeToml {
    node: NodeSection,
    listen: Listen,
    tls: Tls,
    directory: DirectorySection,
    log: LogSection,
    publish: Publish,
    witness: WitnessSection,
    backends: BTreeMap<String, Backend>,
}

#[derive(Serialize)]
struct NodeSection {
    member: String,
    name: &'static str,
    data: &'static str,
}

#[derive(Serialize)]
struct Listen {
    systems: SocketAddr,
    nodes: SocketAddr,
    admin: SocketAddr,
}

#[derive(Serialize)]
struct Tls {
    certificate: &'static str,
    key: &'static str,
    roots: [&'static str; 1],
    crls: Vec<String>,
}

#[derive(Serialize)]
struct DirectorySection {
    mirrors: [&'static str; 1],
    council: Vec<String>,
    threshold: usize,
    poll: &'static str,
    descriptors: &'static str,
}

#[derive(Serialize)]
struct LogSection {
    key: &'static str,
    warn_free: &'static str,
    refuse_free: &'static str,
}

#[derive(Serialize)]
struct Publish {
    store: PathBuf,
    interval: &'static str,
}

#[derive(Serialize)]
struct WitnessSection {
    policy: &'static str,
}

#[derive(Serialize)]
struct Backend {
    endpoint: String,
}

#[derive(Serialize)]
struct CallToml {
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

pub(super) fn write_node(
    federation: &Federation,
    member: &MemberFiles,
    ministry: &Ministry,
    threshold: usize,
) -> anyhow::Result<()> {
    let offering = member.systems.iter().filter(|system| !system.services.is_empty());
    let crls = federation.members.iter().filter_map(|other| other.folder.file_name());
    let node = NodeToml {
        node: NodeSection { member: member.id.to_string(), name: "main", data: "data" },
        listen: Listen { systems: member.systems_address, nodes: member.nodes_address, admin: member.admin_address },
        tls: Tls {
            certificate: "node.pem",
            key: "node.key",
            roots: ["../root.pem"],
            crls: crls.map(|name| format!("../{}/ca.crl", name.to_string_lossy())).collect(),
        },
        directory: DirectorySection {
            mirrors: ["../directory/directory.note"],
            council: federation.council_keys().iter().map(ToString::to_string).collect(),
            threshold,
            poll: "5s",
            descriptors: "../directory/descriptors",
        },
        // A demo is at home on a small disk too.
        log: LogSection { key: "log.key", warn_free: "256MiB", refuse_free: "64MiB" },
        publish: Publish { store: member.published.clone(), interval: "1s" },
        witness: WitnessSection { policy: "../witness/policy" },
        backends: offering
            .map(|system| {
                (system.id.name().to_owned(), Backend { endpoint: format!("https://{}", system.backend_address) })
            })
            .collect(),
    };
    write_toml(&member.node_toml(), &node)?;
    let grants = member.folder.join("grants");
    std::fs::create_dir_all(&grants)?;
    write_toml(&grants.join("grants.toml"), &BTreeMap::from([("grant", &ministry.grants)]))?;
    write_toml(&member.folder.join("outbound.toml"), &BTreeMap::from([("allow", &ministry.outbound)]))?;
    for system in &member.systems {
        write_call(&system.pair.config(), Some(member.url()), &system.pair, federation.root_pem())?;
    }
    Ok(())
}

/// For `kopuro call --config` and `kopuro log --config`.
pub(super) fn write_call(path: &Path, node: Option<String>, pair: &KeyPair, ca: PathBuf) -> anyhow::Result<()> {
    write_toml(path, &CallToml { node, cert: pair.certificate.clone(), key: pair.key.clone(), ca })
}

fn write_toml(path: &Path, content: &impl Serialize) -> anyhow::Result<()> {
    std::fs::write(path, toml::to_string_pretty(content)?).with_context(|| path.display().to_string())
}
