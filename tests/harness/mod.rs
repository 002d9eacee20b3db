//! Two ministries with real nodes, certificates and sockets, for the tests to tell their stories with.
//!
//! `KG/GOV/1` has the system `desk`, which asks; `KG/GOV/2` has the system `probe`, which answers ([`probe::Probe`]). All files are
//! those that an operator writes, in a folder that goes when the test ends.

pub(crate) mod collector;
pub(crate) mod demo;
pub(crate) mod http_backend;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod proof;
pub(crate) mod published;
pub(crate) mod publisher;
pub(crate) mod raw;
pub(crate) mod stand_in;
pub(crate) mod web;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kopuro::config;
use kopuro::gateway::Node;
use kopuro::log::entry::{Entry, Kind, Outcome};
use kopuro::trust::directory::{self, Directory};
use kopuro::trust::identity::{Identity, MemberId, SystemId};
use kopuro::trust::note::{Signer, Verifier};
use kopuro::trust::pki::{Authority, Issued, Sans, Validity};
use prost::Message;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use time::OffsetDateTime;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_types::StatusExt;

use probe::{Probe, ProbeClient};

/// Who asks.
pub(crate) const CONSUMER: &str = "KG/GOV/1";
/// Who answers.
pub(crate) const PROVIDER: &str = "KG/GOV/2";
/// The asking system.
pub(crate) const DESK: &str = "KG/GOV/1/desk";
/// The answering system.
pub(crate) const PROBE: &str = "KG/GOV/2/probe";

/// A system of the asking member that may ask whomever it likes and has no grant.
pub(crate) const CLERK: &str = "KG/GOV/1/clerk";
/// A system that is on no list.
pub(crate) const MUTE: &str = "KG/GOV/1/mute";
/// A system of the asking member that answers as the probe does, where [`Federation::with_registry`] put it there.
pub(crate) const REGISTRY: &str = "KG/GOV/1/registry";
/// The auditor of the directory.
pub(crate) const AUDITOR: &str = "KG/GOV/1/_auditor/inspection";

/// A federation's folder and authorities.
pub(crate) struct Federation {
    folder: TempDir,
    pub(crate) root: Authority,
    pub(crate) cas: HashMap<String, Authority>,
    council: Signer,
    pub(crate) directory: Directory,
    log_keys: HashMap<String, String>,
    pub(crate) ports: HashMap<String, Ports>,
    pub(crate) probe_port: u16,
    registry_port: Option<u16>,
    /// What each node wants free on its disk: where it warns, where it refuses.
    pub(crate) space: HashMap<String, [&'static str; 2]>,
    /// What the provider's node grants, and what the consumer's lets its systems call.
    pub(crate) grants: String,
    pub(crate) outbound: String,
    /// How often nodes ask for a new directory.
    pub(crate) poll: &'static str,
    /// Serial numbers of the nodes' certificates, by member.
    pub(crate) node_serials: HashMap<String, String>,
}

/// A node's ports, known before it starts because the directory names them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) systems: u16,
    pub(crate) nodes: u16,
    pub(crate) admin: u16,
}

/// Both nodes and the back-end, running.
pub(crate) struct Running {
    pub(crate) federation: Federation,
    pub(crate) consumer: Node,
    pub(crate) provider: Node,
    pub(crate) probe: Probe,
}

impl Federation {
    /// Makes everything but the running nodes. `desk` may call every method of the probe on the basis `law-1`.
    pub(crate) fn new() -> Self {
        let now = OffsetDateTime::now_utc();
        let mut root = Authority::create_root("KG", now).unwrap();
        let mut cas = HashMap::new();
        let mut ports = HashMap::new();
        let mut log_keys = HashMap::new();
        let council = Signer::generate("council.kg").unwrap();
        let mut directory = Directory {
            federation: "KG".into(),
            version: 1,
            expires: now.replace_nanosecond(0).unwrap() + time::Duration::days(30),
            threshold: 1,
            council: vec![council.verifier()],
            members: Vec::new(),
            nodes: Vec::new(),
            systems: Vec::new(),
            services: Vec::new(),
            auditors: Vec::new(),
            purposes: Vec::new(),
        };
        for member in [CONSUMER, PROVIDER] {
            let id: MemberId = member.parse().unwrap();
            cas.insert(member.to_owned(), root.issue_member_ca(&id, now).unwrap());
            let own = Ports { systems: free_port(), nodes: free_port(), admin: free_port() };
            ports.insert(member.to_owned(), own);
            let key = Signer::generate(&format!("log.example/{member}")).unwrap();
            directory.members.push(directory::Member {
                id: id.clone(),
                name_ky: format!("Министрлик {member}"),
                name_ru: format!("Министерство {member}"),
                name_en: format!("Ministry {member}"),
            });
            directory.nodes.push(directory::Node {
                member: id.clone(),
                name: "main".into(),
                endpoint: format!("127.0.0.1:{}", own.nodes),
                log_key: key.verifier(),
                more_log_keys: Vec::new(),
            });
            log_keys.insert(member.to_owned(), key.to_encoded().to_string());
        }
        for system in [DESK, PROBE, "KG/GOV/1/other", CLERK, MUTE] {
            directory.systems.push(directory::System { id: system.parse().unwrap() });
        }
        let descriptors = probe::descriptors();
        directory.services.push(directory::Service {
            name: probe::SERVICE.into(),
            provider: PROBE.parse().unwrap(),
            descriptors: Sha256::digest(&descriptors).into(),
        });
        directory.auditors.push(directory::Auditor { identity: AUDITOR.parse().unwrap() });
        directory.purposes = purposes();
        directory.sort();

        let federation = Self {
            folder: tempfile::tempdir().unwrap(),
            root,
            cas,
            council,
            directory,
            log_keys,
            ports,
            probe_port: free_port(),
            registry_port: None,
            space: HashMap::new(),
            grants: GRANTS.to_owned(),
            outbound: OUTBOUND.to_owned(),
            poll: "60s",
            node_serials: HashMap::new(),
        };
        federation.write_all(&descriptors);
        federation
    }

    /// With a back-end of the asking member's own: the system `registry`, with a grant for `desk` on the basis `law-2`.
    pub(crate) fn with_registry(mut self) -> Self {
        let registry: SystemId = REGISTRY.parse().unwrap();
        let same = &self.directory.services[0];
        let service =
            directory::Service { name: same.name.clone(), provider: registry.clone(), descriptors: same.descriptors };
        self.directory.services.push(service);
        self.directory.systems.push(directory::System { id: registry });
        self.directory.sort();
        self.registry_port = Some(free_port());
        self
    }

    /// Lists one more service of a system, which is listed too.
    pub(crate) fn add_service(&mut self, system: &str, service: &str, descriptors: &[u8]) {
        let id: SystemId = system.parse().unwrap();
        if !self.directory.has_system(&id) {
            self.directory.systems.push(directory::System { id: id.clone() });
        }
        let descriptors_digest = Sha256::digest(descriptors).into();
        self.directory.services.push(directory::Service {
            name: service.into(),
            provider: id,
            descriptors: descriptors_digest,
        });
        self.directory.sort();
        self.write_all(descriptors);
    }

    /// Starts the back-end of [`Self::with_registry`].
    pub(crate) async fn start_registry(&mut self) -> Probe {
        let port = self.registry_port.unwrap();
        self.start_backend(REGISTRY, port).await
    }

    fn write_all(&self, descriptors: &[u8]) {
        std::fs::create_dir_all(self.path("descriptors")).unwrap();
        let name = format!("descriptors/{}.binpb", hex::encode(Sha256::digest(descriptors)));
        std::fs::write(self.path(&name), descriptors).unwrap();
        std::fs::write(self.path("root.pem"), self.root.certificate_pem()).unwrap();
    }

    /// Signs the directory as it now is, with the next version if it was written before.
    pub(crate) fn publish_directory(&mut self) {
        self.directory.check().unwrap();
        let note = self.council.sign(&self.directory.to_text()).unwrap();
        write_whole(&self.path("directory"), note.as_bytes());
        self.directory.version += 1;
    }

    /// Writes a member's folder: certificate, keys, node.toml with `more` at its end, grants and outbound list.
    pub(crate) fn write_node(&mut self, member: &str, more: &str) -> PathBuf {
        let folder = self.path(&member.replace('/', "-"));
        std::fs::create_dir_all(folder.join("grants")).unwrap();
        self.write_node_certificate(member);
        write_whole(&folder.join("log.key"), self.log_keys[member].as_bytes());
        self.write_crl(member, OffsetDateTime::now_utc() + time::Duration::days(1));
        let Ports { systems, nodes, admin } = self.ports[member];
        let (council, poll) = (self.council.verifier(), self.poll);
        let backend = |name, port| format!("[backends.{name}]\nendpoint = \"https://127.0.0.1:{port}\"\n");
        let backend = match (member, self.registry_port) {
            (PROVIDER, _) => backend("probe", self.probe_port),
            (_, Some(port)) => backend("registry", port),
            (_, None) => String::new(),
        };
        let [warn, refuse] = self.space.get(member).copied().unwrap_or(["2MiB", "1MiB"]);
        let crls: Vec<String> =
            [CONSUMER, PROVIDER].iter().map(|m| format!("\"../{}.crl\"", m.replace('/', "-"))).collect();
        let text = format!(
            r#"[node]
member = "{member}"
name = "main"
data = "data"
[listen]
systems = "127.0.0.1:{systems}"
nodes = "127.0.0.1:{nodes}"
admin = "127.0.0.1:{admin}"
[tls]
certificate = "node.pem"
key = "node.key"
roots = ["../root.pem"]
crls = [{}]
[directory]
mirrors = ["../directory"]
council = ["{council}"]
threshold = 1
poll = "{poll}"
descriptors = "../descriptors"
[log]
key = "log.key"
warn_free = "{warn}"
refuse_free = "{refuse}"
{backend}{more}"#,
            crls.join(", ")
        );
        std::fs::write(folder.join("node.toml"), text).unwrap();
        let (grants, outbound) = match member {
            PROVIDER => (self.grants.clone(), ""),
            _ if self.registry_port.is_some() => {
                (GRANTS.replace("probe", "registry").replace("law-1", "law-2"), self.outbound.as_str())
            }
            _ => (String::new(), self.outbound.as_str()),
        };
        write_whole(&folder.join("grants/probe.toml"), grants.as_bytes());
        write_whole(&folder.join("outbound.toml"), outbound.as_bytes());
        folder.join("node.toml")
    }

    /// A new certificate and key of a member's node.
    pub(crate) fn write_node_certificate(&mut self, member: &str) {
        let node = self.issue(&format!("{member}/_node/main"));
        write_whole(&self.member_path(member, "node.pem"), node.cert_pem.as_bytes());
        write_whole(&self.member_path(member, "node.key"), node.key_pem.as_bytes());
        self.node_serials.insert(member.to_owned(), node.serial_hex);
    }

    /// A member's CRL as its CA has it now.
    pub(crate) fn write_crl(&mut self, member: &str, until: OffsetDateTime) {
        let crl = self.cas.get_mut(member).unwrap().crl(OffsetDateTime::now_utc(), until).unwrap();
        write_whole(&self.path(&format!("{}.crl", member.replace('/', "-"))), crl.as_bytes());
    }

    /// A certificate for 30 days from the CA of the identity's own member.
    pub(crate) fn issue(&mut self, identity: &str) -> Issued {
        let identity: Identity = identity.parse().unwrap();
        let member = identity.member().to_string();
        issue(self.cas.get_mut(&member).unwrap(), &identity)
    }

    /// Revokes a certificate and publishes its CA's new CRL.
    pub(crate) fn revoke(&mut self, member: &str, serial_hex: &str) {
        let now = OffsetDateTime::now_utc();
        self.cas.get_mut(member).unwrap().revoke(serial_hex, now).unwrap();
        self.write_crl(member, now + time::Duration::days(1));
    }

    /// Starts the back-end, with the certificate of the system `probe`.
    pub(crate) async fn start_probe(&mut self) -> Probe {
        self.start_backend(PROBE, self.probe_port).await
    }

    async fn start_backend(&mut self, system: &str, port: u16) -> Probe {
        let issued = self.issue(system);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Probe::start(address, &issued.cert_pem, &issued.key_pem, self.root.certificate_pem()).await
    }

    /// Starts everything; `more` goes to the end of both node.toml.
    pub(crate) async fn start(mut self, more: &str) -> Running {
        self.write_files(more);
        let probe = self.start_probe().await;
        let provider = self.start_node(PROVIDER).await;
        let consumer = self.start_node(CONSUMER).await;
        Running { federation: self, consumer, provider, probe }
    }

    /// Everything that the nodes read.
    pub(crate) fn write_files(&mut self, more: &str) {
        self.publish_directory();
        for member in [CONSUMER, PROVIDER] {
            self.write_crl(member, OffsetDateTime::now_utc() + time::Duration::days(1));
        }
        for member in [CONSUMER, PROVIDER] {
            self.write_node(member, more);
        }
    }

    /// Starts a node in this process, with the files that are there.
    pub(crate) async fn start_node(&self, member: &str) -> Node {
        Node::start(config::load(&self.member_path(member, "node.toml")).unwrap()).await.unwrap()
    }

    /// The private half of a node's log key.
    pub(crate) fn log_signer(&self, member: &str) -> Signer {
        Signer::from_encoded(&self.log_keys[member]).unwrap()
    }

    /// A node's log key, as the directory has it.
    pub(crate) fn log_key(&self, member: &str) -> &Verifier {
        &self.directory.nodes.iter().find(|node| node.member.as_str() == member).unwrap().log_key
    }

    /// Lists another key as a node's log's.
    pub(crate) fn list_log_key(&mut self, member: &str, key: Verifier) {
        let node = self.directory.nodes.iter_mut().find(|node| node.member.as_str() == member).unwrap();
        node.log_key = key;
    }

    /// A file of the federation's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A member's folder.
    pub(crate) fn member_path(&self, member: &str, name: &str) -> PathBuf {
        self.path(&member.replace('/', "-")).join(name)
    }

    /// A channel to a listener with this certificate.
    pub(crate) async fn channel(&self, address: SocketAddr, with: &Issued) -> Result<Channel, tonic::transport::Error> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.root.certificate_pem()))
            .identity(tonic::transport::Identity::from_pem(&with.cert_pem, &*with.key_pem));
        Endpoint::from_shared(format!("https://{address}"))?
            .tls_config(tls)?
            // A reader that stalls must not make h2 on this side close the connection for too many small frames.
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(64 << 20)
            .connect_timeout(Duration::from_secs(5))
            .connect()
            .await
    }
}

impl Running {
    /// Both nodes and the back-end, as they come.
    pub(crate) async fn start() -> Self {
        Federation::new().start("").await
    }

    /// A member's node.
    pub(crate) fn node(&self, member: &str) -> &Node {
        if member == PROVIDER { &self.provider } else { &self.consumer }
    }

    /// A channel of the system `desk` to its own node.
    pub(crate) async fn desk(&mut self) -> Channel {
        let desk = self.federation.issue(DESK);
        self.federation.channel(self.consumer.systems_addr(), &desk).await.unwrap()
    }

    /// The entries of a node's log.
    pub(crate) fn entries(node: &Node) -> Vec<Entry> {
        let log = node.log().unwrap();
        let mut entries = Vec::new();
        loop {
            let read = log.read(entries.len() as u64, 1_000).unwrap();
            if read.is_empty() {
                return entries;
            }
            entries.extend(read.into_iter().map(|bytes| Entry::decode(bytes).unwrap()));
        }
    }

    /// Waits, for at most ten seconds, until a node's log has entries of which this holds, and gives them.
    pub(crate) async fn entries_until(node: &Node, holds: impl Fn(&[Entry]) -> bool) -> Vec<Entry> {
        let mut commits = node.log().unwrap().subscribe();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let entries = Self::entries(node);
            if holds(&entries) {
                return entries;
            }
            let waited = tokio::time::timeout_at(deadline, commits.changed()).await;
            assert!(waited.is_ok(), "the log never came to it: {}", story(&entries));
        }
    }

    /// Stops both nodes and verifies that both logs closed whole.
    pub(crate) async fn stop(self) -> Federation {
        let Self { federation, consumer, provider, probe } = self;
        consumer.stop().await;
        provider.stop().await;
        drop(probe);
        federation
    }
}

/// Somebody else, who calls again and again while a test does its worst.
pub(crate) struct Companion {
    stop: tokio_util::sync::CancellationToken,
    calling: tokio::task::JoinHandle<u32>,
}

impl Companion {
    pub(crate) fn start(probe: ProbeClient) -> Self {
        let stop = tokio_util::sync::CancellationToken::new();
        let stopped = stop.clone();
        let calling = tokio::spawn(async move {
            let mut calls = 0;
            while !stopped.is_cancelled() {
                let answer = tokio::time::timeout(Duration::from_secs(5), probe.unary("companion")).await;
                answer.expect("an answer in time").expect("an answer");
                calls += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            calls
        });
        Self { stop, calling }
    }

    /// Every call was answered, each within seconds.
    pub(crate) async fn unharmed(self) {
        self.stop.cancel();
        assert!(self.calling.await.expect("unharmed") > 0);
    }
}

/// What a node's admin listener says: status and text.
pub(crate) async fn admin(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let asking = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Ok((status, answer))
    };
    tokio::time::timeout(Duration::from_secs(5), asking)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

/// Tries again until it gives something, for at most ten seconds.
pub(crate) async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Entries in a line each, for a failing test to show.
pub(crate) fn story(entries: &[Entry]) -> String {
    entries.iter().map(|e| format!("\n{:?} {:?} {}", e.kind(), e.outcome(), e.reason)).collect()
}

/// The refusal's reason and side, if it is one of a node.
pub(crate) fn reason(status: &tonic::Status) -> Option<(String, String)> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == "kopuro")?;
    Some((info.reason.clone(), info.metadata.get("side").cloned().unwrap_or_default()))
}

/// Kind, outcome and reason of each entry.
pub(crate) fn told(entries: &[Entry]) -> Vec<(Kind, Outcome, &str)> {
    entries.iter().map(|e| (e.kind(), e.outcome(), e.reason.as_str())).collect()
}

/// A certificate for 30 days.
pub(crate) fn issue(ca: &mut Authority, identity: &Identity) -> Issued {
    let sans = Sans { dns: vec!["localhost".into()], ips: vec!["127.0.0.1".parse().unwrap()] };
    ca.issue(identity, &sans, Validity::days(OffsetDateTime::now_utc(), 30)).unwrap()
}

/// As an operator's tools replace a file: whole, by rename.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// A port that nobody listens on, below those from which connections go out, and given to no other test of this process.
pub(crate) fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = (std::process::id() as u16).wrapping_mul(211);
        let port = 12_000 + start.wrapping_add(step) % 20_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The register of legal bases, with all that the tests' grants name.
fn purposes() -> Vec<directory::Purpose> {
    [
        ("courts-law-1", "Закон о судах, ст. 1"),
        ("data-law-5", "Закон об информации персонального характера, ст. 5"),
        ("law-1", "Мыйзам № 1, 1-берене"),
        ("law-2", "Мыйзам № 2, 1-берене"),
        ("law-3", "Мыйзам № 3, 1-берене"),
        ("law-9", "Мыйзам № 9, 1-берене"),
    ]
    .map(|(code, law)| directory::Purpose {
        code: code.into(),
        law: law.into(),
        ky: "Сыноо".into(),
        ru: "Проверка".into(),
        en: "To test".into(),
    })
    .into()
}

const GRANTS: &str = r#"[[grant]]
consumer = "KG/GOV/1/desk"
provider = "probe"
service = "kopuro.test.v1.Probe"
methods = ["*"]
legal_basis = { code = "law-1", text = "Мыйзам № 1" }
"#;

const OUTBOUND: &str = r#"[[allow]]
system = "desk"
provider = "*"
service = "*"
methods = ["*"]

[[allow]]
system = "clerk"
provider = "*"
service = "*"
methods = ["*"]

[[allow]]
system = "other"
provider = "KG/GOV/2"
service = "kopuro.test.v1.Probe"
methods = ["Unary"]
"#;
