//! A whole federation under one folder, made in a second or two: certificate authorities, council keys, the signed
//! directory with its descriptor sets, and for each ministry a node's configuration, grants, and its systems'
//! certificates. The demo and the tests start nodes from it; nothing in it is meant to outlive them.
//!
//! ```text
//! root/  root.pem            the root CA          council-1.key …      the council's keys
//! directory/directory.note   signed               directory/descriptors/<sha-256>.binpb
//! auditors/<name>.pem .key   auditors' certificates, and .toml for `kopuro log --config`
//! witness/policy             who must cosign   witness/witness.key state/   the public council's witness
//! published/<member code>/   each log as the public has it: checkpoint, tile/, vkey, grants.json, open-data/
//! <ministry>/node.toml       with node.pem node.key log.key ca.crl grants/ outbound.toml data/ ca/
//! <ministry>/systems/<system>.pem .key, and .toml for `kopuro call --config`
//! ```
//!
//! Ports are those that were free while the folder was made; a node that comes too late to its port says so.

mod files;
mod ministries;
mod purposes;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use time::{Duration, OffsetDateTime};

pub use files::{Allow, Grant, LegalBasis, Rate};
pub use ministries::kyrgyz_republic;
pub(in crate::cli::demo) use ministries::{CADASTRE_SYSTEM, CIVIL_REGISTRY, SERVICE_CENTRE, SOCIAL_FUND, TAX_SERVICE};

use crate::oversight::witness::State;
use crate::schema;
use crate::trust::directory::{Auditor, Directory, Member, Node, Purpose, Service, System};
use crate::trust::file::{Access, Existing, write};
use crate::trust::identity::{Identity, MemberId, SystemId};
use crate::trust::note::{Cosigner, Note, Signer, Verifier};
use crate::trust::pki::{Authority, Sans, Validity};

/// How long certificates and directory are good for.
const VALID_DAYS: u32 = 30;

/// What to make.
#[derive(Debug, Clone)]
pub struct Plan {
    /// First segment of every member, `KG`.
    pub federation: String,
    /// The members.
    pub ministries: Vec<Ministry>,
    /// Auditors, by the member that sends them and their name.
    pub auditors: Vec<(MemberId, String)>,
    /// The register of legal bases, by code.
    pub purposes: Vec<Purpose>,
    /// A descriptor set that defines every service that is offered.
    pub descriptors: Bytes,
    /// How many sit on the council, and how many of them must sign.
    pub council: (usize, usize),
}

/// A member and what it brings.
#[derive(Debug, Clone)]
pub struct Ministry {
    /// `KG/GOV/70000001`.
    pub member: MemberId,
    /// Name of its folder.
    pub folder: String,
    /// Names in Kyrgyz, Russian and English.
    pub names: [String; 3],
    /// Its back-end systems, by name, and the services that each offers.
    pub systems: Vec<(String, Vec<String>)>,
    /// What it grants.
    pub grants: Vec<Grant>,
    /// What its systems may call.
    pub outbound: Vec<Allow>,
}

/// What was made.
#[derive(Debug)]
pub struct Federation {
    /// Where everything is.
    pub folder: PathBuf,
    /// What the directory says.
    pub directory: Directory,
    /// The members, in the plan's order.
    pub members: Vec<MemberFiles>,
    /// Auditors' certificates and keys, in the plan's order.
    pub auditors: Vec<KeyPair>,
    /// The public council's witness.
    pub witness: WitnessFiles,
    council: Vec<Signer>,
}

/// The witness's part.
#[derive(Debug, Clone)]
pub struct WitnessFiles {
    /// Where it takes checkpoints.
    pub address: SocketAddr,
    /// Its key.
    pub key: PathBuf,
    /// What it has cosigned.
    pub state: PathBuf,
    /// The policy by which nodes and monitors require it.
    pub policy: PathBuf,
}

/// One member's part.
#[derive(Debug, Clone)]
pub struct MemberFiles {
    /// The member.
    pub id: MemberId,
    /// Its folder.
    pub folder: PathBuf,
    /// Where its node listens for its systems.
    pub systems_address: SocketAddr,
    /// Where its node listens for other nodes.
    pub nodes_address: SocketAddr,
    /// Where its node tells health and metrics.
    pub admin_address: SocketAddr,
    /// Verifies its log.
    pub log_key: Verifier,
    /// Where its log is published.
    pub published: PathBuf,
    /// Its systems.
    pub systems: Vec<SystemFiles>,
}

/// One system's part.
#[derive(Debug, Clone)]
pub struct SystemFiles {
    /// The system.
    pub id: SystemId,
    /// The services that it offers.
    pub services: Vec<String>,
    /// Where the node expects its back-end; nobody listens there until a back-end is started.
    pub backend_address: SocketAddr,
    /// Its certificate and key, for calls and for its back-end.
    pub pair: KeyPair,
}

/// A certificate chain and its key, both PEM files.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// Leaf and issuing CA.
    pub certificate: PathBuf,
    /// The leaf's key.
    pub key: PathBuf,
}

impl KeyPair {
    /// The file beside them for `--config`.
    pub fn config(&self) -> PathBuf {
        self.certificate.with_extension("toml")
    }
}

impl Federation {
    /// Makes everything under `folder`, which must be empty or missing.
    pub fn create(folder: &Path, plan: &Plan) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        if std::fs::read_dir(folder)?.next().is_some() {
            anyhow::bail!("{} is not empty", folder.display());
        }
        let folder = folder.canonicalize()?;
        let now = OffsetDateTime::now_utc();
        let mut root = Authority::create_root(&plan.federation, now)?;
        root.save(&folder.join("root"))?;
        public(&folder.join("root.pem"), root.certificate_pem())?;

        let council = council(&folder, plan)?;
        let mut ports = Ports::default();
        let mut members = Vec::new();
        for ministry in &plan.ministries {
            members.push(member(&folder, ministry, &mut root, &mut ports, now)?);
        }
        let mut auditors = Vec::new();
        for (sender, name) in &plan.auditors {
            let ca_folder = members.iter().find(|m| m.id == *sender).map(|m| m.folder.join("ca"));
            let mut authority = Authority::load(&ca_folder.with_context(|| format!("{sender} is not in the plan"))?)?;
            let identity = Identity::Auditor { member: sender.clone(), name: name.as_str().into() };
            let pair = issue(&mut authority, &identity, &folder.join("auditors"), name, now)?;
            files::write_call(&pair.config(), None, &pair, folder.join("root.pem"))?;
            auditors.push(pair);
        }
        let directory = directory(&folder, plan, &members, &council, now)?;
        let witness = witness(&folder, &plan.federation, &mut ports)?;
        let mut federation = Self { folder, directory, members, auditors, witness, council };
        federation.publish(|_| {})?;
        for (ministry, files) in plan.ministries.iter().zip(&federation.members) {
            files::write_node(&federation, files, ministry, plan.council.1)?;
        }
        // Held until here, so that no two of ours are the same.
        drop(ports);
        Ok(federation)
    }

    /// Changes the directory, signs it with all of the council, and puts it where the nodes look for it.
    pub fn publish(&mut self, change: impl FnOnce(&mut Directory)) -> anyhow::Result<()> {
        change(&mut self.directory);
        self.directory.check()?;
        let [first, others @ ..] = &self.council[..] else { anyhow::bail!("a council has at least one key") };
        let mut note = Note::parse(&first.sign(&self.directory.to_text())?)?;
        for signer in others {
            note.add_signature(signer)?;
        }
        // The council's source, for who wants to change it.
        let source = self.folder.join("directory/directory.toml");
        write(&source, self.directory.to_toml().as_bytes(), Access::Public, Existing::Replace)
            .with_context(|| source.display().to_string())?;
        let path = self.directory_note();
        write(&path, note.to_string().as_bytes(), Access::Public, Existing::Replace)
            .with_context(|| path.display().to_string())
    }

    /// The signed directory.
    pub fn directory_note(&self) -> PathBuf {
        self.folder.join("directory/directory.note")
    }

    /// The root certificate.
    pub fn root_pem(&self) -> PathBuf {
        self.folder.join("root.pem")
    }

    /// The council's public keys.
    pub fn council_keys(&self) -> Vec<Verifier> {
        self.council.iter().map(Signer::verifier).collect()
    }

    /// A member's part.
    pub fn member(&self, id: &MemberId) -> Option<&MemberFiles> {
        self.members.iter().find(|member| member.id == *id)
    }

    /// A system's part, and its member's.
    pub fn system(&self, id: &SystemId) -> Option<(&MemberFiles, &SystemFiles)> {
        let member = self.member(id.member())?;
        Some((member, member.systems.iter().find(|system| system.id == *id)?))
    }
}

impl MemberFiles {
    /// The node's configuration.
    pub fn node_toml(&self) -> PathBuf {
        self.folder.join("node.toml")
    }

    /// The node's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The member's CA, for more certificates: [`Authority::load`].
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca")
    }

    /// What the member's systems call, `https://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("https://{}", self.systems_address)
    }
}

fn council(folder: &Path, plan: &Plan) -> anyhow::Result<Vec<Signer>> {
    (1..=plan.council.0)
        .map(|number| {
            let name = format!("council-{number}.{}.example", plan.federation.to_ascii_lowercase());
            let signer = Signer::generate(&name)?;
            secret(&folder.join(format!("council-{number}.key")), &signer.to_encoded())?;
            Ok(signer)
        })
        .collect()
}

/// A member's folder, CA, certificates and ports. The node's configuration comes later, when all ports are known.
fn member(
    folder: &Path,
    ministry: &Ministry,
    root: &mut Authority,
    ports: &mut Ports,
    now: OffsetDateTime,
) -> anyhow::Result<MemberFiles> {
    let id = &ministry.member;
    let own = folder.join(&ministry.folder);
    std::fs::create_dir_all(own.join("data"))?;
    let mut authority = root.issue_member_ca(id, now)?;
    authority.save(&own.join("ca"))?;
    public(&own.join("ca.crl"), &authority.crl(now, now + Duration::days(VALID_DAYS.into()))?)?;
    let node = Identity::Node { member: id.clone(), name: "main".into() };
    issue(&mut authority, &node, &own, "node", now)?;

    let origin = format!("{}.log.example/{}", ministry.folder, id.as_str().to_ascii_lowercase());
    let log = Signer::generate(&origin)?;
    secret(&own.join("log.key"), &log.to_encoded())?;

    let mut systems = Vec::new();
    for (name, services) in &ministry.systems {
        let system = id.system(name)?;
        let home = own.join("systems");
        let pair = issue(&mut authority, &Identity::System(system.clone()), &home, name, now)?;
        systems.push(SystemFiles { id: system, services: services.clone(), backend_address: ports.free()?, pair });
    }
    Ok(MemberFiles {
        id: id.clone(),
        folder: own,
        systems_address: ports.free()?,
        nodes_address: ports.free()?,
        admin_address: ports.free()?,
        log_key: log.verifier(),
        published: folder.join("published").join(code(id)),
        systems,
    })
}

/// The last segment of a member's id.
fn code(member: &MemberId) -> &str {
    member.as_str().rsplit('/').next().unwrap_or_default()
}

fn witness(folder: &Path, federation: &str, ports: &mut Ports) -> anyhow::Result<WitnessFiles> {
    let home = folder.join("witness");
    std::fs::create_dir_all(&home)?;
    let files = WitnessFiles {
        address: ports.free()?,
        key: home.join("witness.key"),
        state: home.join("state"),
        policy: home.join("policy"),
    };
    let cosigner = Cosigner::generate(&format!("witness.public-council.{}.example", federation.to_ascii_lowercase()))?;
    secret(&files.key, &cosigner.to_encoded())?;
    State::create(&files.state, &cosigner.verifier())?;
    let (key, address) = (cosigner.verifier(), files.address);
    public(&files.policy, &format!("witness public-council {key} http://{address}\nquorum public-council\n"))?;
    Ok(files)
}

fn issue(
    authority: &mut Authority,
    identity: &Identity,
    folder: &Path,
    name: &str,
    now: OffsetDateTime,
) -> anyhow::Result<KeyPair> {
    std::fs::create_dir_all(folder)?;
    let sans = Sans { dns: vec!["localhost".into()], ips: vec![Ipv4Addr::LOCALHOST.into()] };
    let issued = authority.issue(identity, &sans, Validity::days(now, VALID_DAYS))?;
    let pair = KeyPair { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
    public(&pair.certificate, &issued.cert_pem)?;
    secret(&pair.key, &issued.key_pem)?;
    Ok(pair)
}

/// The directory, and the descriptor sets beside it.
fn directory(
    folder: &Path,
    plan: &Plan,
    members: &[MemberFiles],
    council: &[Signer],
    now: OffsetDateTime,
) -> anyhow::Result<Directory> {
    let sets = folder.join("directory/descriptors");
    std::fs::create_dir_all(&sets)?;
    let mut services = Vec::new();
    for system in members.iter().flat_map(|member| &member.systems) {
        for name in &system.services {
            let set = schema::extract(&plan.descriptors, &[name])?;
            let descriptors = schema::digest(&set);
            std::fs::write(sets.join(format!("{}.binpb", hex::encode(descriptors))), set)?;
            services.push(Service { name: name.clone(), provider: system.id.clone(), descriptors });
        }
    }
    services.sort_by(|a, b| (&a.name, &a.provider).cmp(&(&b.name, &b.provider)));
    let names = plan.ministries.iter().map(|ministry| {
        let [name_ky, name_ru, name_en] = ministry.names.clone();
        Member { id: ministry.member.clone(), name_ky, name_ru, name_en }
    });
    let mut listed: Vec<Member> = names.collect();
    listed.sort_by(|a, b| a.id.cmp(&b.id));
    let nodes = members.iter().map(|member| Node {
        member: member.id.clone(),
        name: "main".into(),
        endpoint: member.nodes_address.to_string(),
        log_key: member.log_key.clone(),
        more_log_keys: Vec::new(),
    });
    let mut nodes: Vec<Node> = nodes.collect();
    nodes.sort_by(|a, b| a.member.cmp(&b.member));
    let mut systems: Vec<System> =
        members.iter().flat_map(|m| &m.systems).map(|system| System { id: system.id.clone() }).collect();
    systems.sort_by(|a, b| a.id.cmp(&b.id));
    let auditor = |(member, name): &(MemberId, String)| Auditor {
        identity: Identity::Auditor { member: member.clone(), name: name.as_str().into() },
    };
    let mut auditors: Vec<Auditor> = plan.auditors.iter().map(auditor).collect();
    auditors.sort_by_key(|auditor| auditor.identity.to_string());
    let expires = now + Duration::days(VALID_DAYS.into());
    let mut keys: Vec<Verifier> = council.iter().map(Signer::verifier).collect();
    keys.sort_by_key(ToString::to_string);
    Ok(Directory {
        federation: plan.federation.clone(),
        version: 1,
        expires: expires.replace_nanosecond(0)?,
        threshold: plan.council.1,
        council: keys,
        members: listed,
        nodes,
        systems,
        services,
        auditors,
        purposes: plan.purposes.clone(),
    })
}

/// Free loopback ports, held until this is dropped.
#[derive(Debug, Default)]
struct Ports(Vec<TcpListener>);

impl Ports {
    fn free(&mut self) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        self.0.push(listener);
        Ok(address)
    }
}

fn public(path: &Path, text: &str) -> anyhow::Result<()> {
    write(path, text.as_bytes(), Access::Public, Existing::Keep).with_context(|| path.display().to_string())
}

fn secret(path: &Path, text: &str) -> anyhow::Result<()> {
    write(path, text.as_bytes(), Access::Secret, Existing::Keep).with_context(|| path.display().to_string())
}
