//! The rows that are Kopuro's: real nodes, each in a process of its own, set up as an operator would set them up, from
//! files. Their federation has two members, one service, one grant and one line in the outbound list.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use http::HeaderValue;
use kopuro::trust::directory::{Directory, Member, Node, Service, System};
use kopuro::trust::file::{self, Access, Existing};
use kopuro::trust::note::Signer;
use kopuro::{config, gateway};
use prost::Message;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::certs::{ASKER, CONSUMER, CONSUMER_NODE, Certificates, ECHO, PROVIDER, PROVIDER_NODE};
use crate::load::Decorate;
use crate::process::Process;
use crate::{echo, peers};

/// A node that runs: for its systems, and for other nodes.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) systems: SocketAddr,
    pub(crate) nodes: SocketAddr,
}

/// The files of both members' nodes.
#[derive(Debug)]
pub(crate) struct Federation {
    folder: PathBuf,
    certificates: Certificates,
    backend: SocketAddr,
    council: String,
}

impl Federation {
    /// Writes directory, descriptors, grant and outbound list.
    pub(crate) fn make(folder: &Path, certificates: &Certificates, backend: SocketAddr) -> Result<Self> {
        let folder = folder.join("federation");
        fs::create_dir_all(folder.join("descriptors"))?;
        fs::create_dir_all(folder.join("grants"))?;
        let descriptors = echo::descriptors().encode_to_vec();
        let digest: [u8; 32] = Sha256::digest(&descriptors).into();
        fs::write(folder.join(format!("descriptors/{}.binpb", hex::encode(digest))), descriptors)?;

        let council = Signer::generate("benchmark-council")?;
        let consumer = member(&folder, CONSUMER)?;
        let provider = member(&folder, PROVIDER)?;
        let directory = Directory {
            federation: "KG".into(),
            version: 1,
            expires: (OffsetDateTime::now_utc() + time::Duration::days(2)).replace_nanosecond(0)?,
            threshold: 1,
            council: vec![council.verifier()],
            members: vec![provider.0, consumer.0],
            nodes: vec![provider.1, consumer.1],
            systems: vec![System { id: ECHO.parse()? }, System { id: ASKER.parse()? }],
            services: vec![Service { name: echo::SERVICE.into(), provider: ECHO.parse()?, descriptors: digest }],
            auditors: Vec::new(),
            purposes: Vec::new(),
        };
        directory.check()?;
        fs::write(folder.join("directory"), council.sign(&directory.to_text())?)?;

        let service = echo::SERVICE;
        fs::write(
            folder.join("grants/echo.toml"),
            format!(
                "[[grant]]\nconsumer = \"{ASKER}\"\nprovider = \"echo\"\nservice = \"{service}\"\nmethods = [\"*\"]\n\
                 legal_basis = {{ code = \"benchmark\", text = \"To be measured\" }}\n"
            ),
        )?;
        fs::write(
            folder.join("outbound.toml"),
            format!(
                "[[allow]]\nsystem = \"asker\"\nprovider = \"{ECHO}\"\nservice = \"{service}\"\nmethods = [\"*\"]\n"
            ),
        )?;
        let council = council.verifier().to_string();
        Ok(Self { folder, certificates: certificates.clone(), backend, council })
    }

    /// The provider's node with its log off: one hop, as the peers are. It is not the one in the directory.
    pub(crate) fn unlogged(&self) -> Result<Running> {
        self.start("unlogged", "node (log off)", "unlogged-node", PROVIDER, "127.0.0.1:0")
    }

    /// The consumer's node and the provider's, in this order, both logging.
    pub(crate) fn both(&self) -> Result<[Running; 2]> {
        let provider = self.start("provider", "provider's node", "node", PROVIDER, &self.endpoint(PROVIDER)?)?;
        let consumer = self.start("consumer", "consumer's node", "node", CONSUMER, &self.endpoint(CONSUMER)?)?;
        Ok([consumer, provider])
    }

    /// Where the directory says that a member's node is.
    fn endpoint(&self, member: &str) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join(format!("{}.endpoint", code(member))))?)
    }

    fn start(&self, name: &str, label: &str, role: &str, member: &str, nodes: &str) -> Result<Running> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        let (party, backends) = match member {
            CONSUMER => (CONSUMER_NODE, String::new()),
            _ => (PROVIDER_NODE, format!("[backends.echo]\nendpoint = \"https://{}\"\n", self.backend)),
        };
        let common = self.folder.display();
        let text = format!(
            "[node]
member = \"{member}\"
name = \"main\"
data = \"data\"
[listen]
systems = \"127.0.0.1:0\"
nodes = \"{nodes}\"
admin = \"127.0.0.1:0\"
[tls]
certificate = \"{certificate}\"
key = \"{key}\"
roots = [\"{root}\"]
[directory]
mirrors = [\"{common}/directory\"]
council = [\"{council}\"]
threshold = 1
descriptors = \"{common}/descriptors\"
[log]
key = \"{common}/{code}.log.key\"
[policy]
grants = \"{common}/{grants}\"
outbound = \"{common}/{outbound}\"
{backends}
[limits]
calls_per_second = 1000000
calls_burst = 1000000
",
            certificate = self.certificates.certificate(party).display(),
            key = self.certificates.key(party).display(),
            root = self.certificates.root().display(),
            council = self.council,
            code = code(member),
            grants = if member == PROVIDER { "grants" } else { "no-grants" },
            outbound = if member == CONSUMER { "outbound.toml" } else { "no-outbound.toml" },
        );
        fs::write(folder.join("node.toml"), text)?;
        let arguments = ["--role", role, "--folder", folder.to_str().context("a folder in UTF-8")?];
        let (process, addresses) = Process::role(label, &arguments)?;
        let [systems, nodes] = addresses[..] else { anyhow::bail!("{label} listens twice") };
        Ok(Running { process, systems, nodes })
    }
}

/// A member with its node, whose log key and address are put beside the directory.
fn member(folder: &Path, id: &str) -> Result<(Member, Node)> {
    let signer = Signer::generate(&format!("{id}/_node/main"))?;
    let key = folder.join(format!("{}.log.key", code(id)));
    file::write(&key, signer.to_encoded().as_bytes(), Access::Secret, Existing::Keep)?;
    let endpoint = peers::free_address()?.to_string();
    fs::write(folder.join(format!("{}.endpoint", code(id))), &endpoint)?;
    let name = format!("Benchmark {id}");
    let member = Member { id: id.parse()?, name_ky: name.clone(), name_ru: name.clone(), name_en: name };
    let (log_key, more_log_keys) = (signer.verifier(), Vec::new());
    Ok((member, Node { member: id.parse()?, name: "main".into(), endpoint, log_key, more_log_keys }))
}

fn code(member: &str) -> &str {
    member.rsplit('/').next().unwrap_or(member)
}

/// What a node says to another with each call: how the load generator speaks to a lone provider's node.
pub(crate) fn as_peer_node() -> Decorate {
    Arc::new(|headers, _| {
        let exchange = uuid::Uuid::now_v7().to_string();
        if let Ok(value) = HeaderValue::from_str(&exchange) {
            headers.insert("kopuro-exchange", value);
        }
        headers.insert("kopuro-consumer", HeaderValue::from_static(ASKER));
        headers.insert("kopuro-provider", HeaderValue::from_static(ECHO));
    })
}

/// Is a node until the process ends.
pub(crate) async fn serve(folder: &Path, log: bool, bound: impl FnOnce([SocketAddr; 2])) -> Result<()> {
    let config = config::load(&folder.join("node.toml"))?;
    let node = if log { gateway::Node::start(config).await? } else { gateway::Node::start_without_log(config).await? };
    bound([node.systems_addr(), node.nodes_addr()]);
    std::future::pending().await
}
