//! The signed list of members, nodes, systems, services and auditors of a federation, and of the purposes that its laws know.
//!
//! In: a note from a mirror, or a council's `directory.toml`. Out: a [`Directory`] that is consistent in itself and that
//! enough of the council signed, or the rule that it breaks. How it is written is in [`text`], where a node gets it from
//! in [`Source`].
//!
//! A note is a valid directory at a time, for somebody who has version v in force, when
//!
//! - at least m of the n council keys *of the version in force* signed it (threshold and keys from the configuration as
//!   long as there is none), and no signature of one of those keys is false;
//! - its text is canonical and consistent;
//! - its version is above v, or it is v, byte for byte;
//! - its expiry lies ahead.
//!
//! So a council changes by its predecessors' signatures, and a node that slept through several changes needs a version
//! that its own last council still signed, or fresh keys in its configuration.

mod check;
mod source;
pub mod text;
mod toml_source;

use time::OffsetDateTime;

use crate::trust::identity::{Identity, MemberId, SystemId};
use crate::trust::note::{Note, NoteError, Verifier};

pub use check::is_purpose_code;
pub use source::{Mirror, Source, SourceOptions};
pub use toml_source::DescriptorLookup;

/// Everything a node knows of the others. Sorted and checked when it comes from [`Directory::parse_text`] or
/// [`Directory::from_toml`]; whoever makes or changes one by hand calls [`Directory::sort`] and [`Directory::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The federation (first segment of every member), `KG`.
    pub federation: String,
    /// Only rises.
    pub version: u64,
    /// From when on it is void, to the second, UTC.
    pub expires: OffsetDateTime,
    /// How many of the council must sign the next version.
    pub threshold: usize,
    /// Who signs the next version.
    pub council: Vec<Verifier>,
    /// State bodies, by id.
    pub members: Vec<Member>,
    /// Their gateways, by member and name.
    pub nodes: Vec<Node>,
    /// Their back-end systems, by id.
    pub systems: Vec<System>,
    /// Which system provides which service, by service and provider.
    pub services: Vec<Service>,
    /// Who may query logs, by identity.
    pub auditors: Vec<Auditor>,
    /// The legal bases on which calls are made, by code. Empty: no register is kept, and a grant may have any.
    pub purposes: Vec<Purpose>,
}

/// A state body and its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// `KG/GOV/70000005`.
    pub id: MemberId,
    /// Name in Kyrgyz.
    pub name_ky: String,
    /// Name in Russian.
    pub name_ru: String,
    /// Name in English.
    pub name_en: String,
}

/// A member's gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Whose.
    pub member: MemberId,
    /// Which one, as in its certificate: `KG/GOV/70000005/_node/main`.
    pub name: String,
    /// Where other nodes reach it: `host:port`, `[address]:port`.
    pub endpoint: String,
    /// Verifies its log's checkpoints; the key's name is the log's origin.
    pub log_key: Verifier,
    /// Other keys that its log signs by, or has signed by, sorted: while the key is changed, and of what was signed before.
    pub more_log_keys: Vec<Verifier>,
}

impl Node {
    /// What its certificate must say.
    pub fn identity(&self) -> Identity {
        Identity::Node { member: self.member.clone(), name: self.name.as_str().into() }
    }

    /// Every key of its log. A checkpoint is the log's if one of them signed it.
    pub fn log_keys(&self) -> Vec<Verifier> {
        std::iter::once(&self.log_key).chain(&self.more_log_keys).cloned().collect()
    }
}

/// A member's back-end system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// `KG/GOV/70000005/civil-registry`.
    pub id: SystemId,
}

/// A service and one system that provides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Full protobuf name, `kg.civil.v1.CivilRegistry`.
    pub name: String,
    /// Who provides it.
    pub provider: SystemId,
    /// SHA-256 of the encoded `FileDescriptorSet`, which lies beside the directory as `<hex>.binpb`.
    pub descriptors: [u8; 32],
}

/// Somebody who may query logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auditor {
    /// Always [`Identity::Auditor`].
    pub identity: Identity,
}

/// A legal basis on which calls may be made, as the federation's register has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purpose {
    /// Short and stable: what calls carry in `kopuro-purpose`, grants in `legal_basis.code`, and entries show.
    pub code: String,
    /// The law and its article, as lawyers cite it.
    pub law: String,
    /// What it allows, in Kyrgyz.
    pub ky: String,
    /// In Russian.
    pub ru: String,
    /// In English.
    pub en: String,
}

impl Directory {
    /// The canonical text: what the council signs. Made from a directory that [`Directory::check`] passes.
    pub fn to_text(&self) -> String {
        text::print(self)
    }

    /// Reads the canonical text; anything that would print differently is refused.
    pub fn parse_text(text: &str) -> Result<Self, DirectoryError> {
        text::parse(text)
    }

    /// Reads `directory.toml`. Descriptor sets are given by their SHA-256.
    pub fn from_toml(source: &str) -> Result<Self, DirectoryError> {
        toml_source::parse(source, &mut |path| Err(format!("{path:?} is not a SHA-256 in hex")))
    }

    /// Reads `directory.toml`, in which a descriptor set may also be given by its file: `lookup` gives the SHA-256.
    pub fn from_toml_with(source: &str, lookup: &mut DescriptorLookup<'_>) -> Result<Self, DirectoryError> {
        toml_source::parse(source, lookup)
    }

    /// A `directory.toml` that reads as this directory.
    pub fn to_toml(&self) -> String {
        toml_source::print(self)
    }

    /// Whether it is consistent in itself: everything refers to what is listed, nothing is listed twice.
    pub fn check(&self) -> Result<(), DirectoryError> {
        check::check(self).map_err(|problem| DirectoryError::Inconsistent(problem.to_string()))
    }

    /// Puts every list into the order of the text, which look-ups rely on.
    pub fn sort(&mut self) {
        self.council.sort_by_cached_key(ToString::to_string);
        self.members.sort_by(|a, b| a.id.cmp(&b.id));
        self.nodes.sort_by(|a, b| (&a.member, &a.name).cmp(&(&b.member, &b.name)));
        self.nodes.iter_mut().for_each(|node| node.more_log_keys.sort_by_cached_key(ToString::to_string));
        self.systems.sort_by(|a, b| a.id.cmp(&b.id));
        self.services.sort_by(|a, b| (&a.name, &a.provider).cmp(&(&b.name, &b.provider)));
        self.auditors.sort_by_cached_key(|auditor| auditor.identity.to_string());
        self.purposes.sort_by(|a, b| a.code.cmp(&b.code));
    }

    /// A member by id.
    pub fn member(&self, id: &MemberId) -> Option<&Member> {
        let position = self.members.binary_search_by(|member| member.id.cmp(id)).ok()?;
        self.members.get(position)
    }

    /// All nodes of a member, by name.
    pub fn node_of(&self, member: &MemberId) -> &[Node] {
        let start = self.nodes.partition_point(|node| node.member < *member);
        let end = self.nodes.partition_point(|node| node.member <= *member);
        &self.nodes[start..end]
    }

    /// The node of this certificate.
    pub fn node(&self, member: &MemberId, name: &str) -> Option<&Node> {
        self.node_of(member).iter().find(|node| node.name == name)
    }

    /// Whether the system is listed.
    pub fn has_system(&self, id: &SystemId) -> bool {
        self.systems.binary_search_by(|system| system.id.cmp(id)).is_ok()
    }

    /// Every system that provides the service.
    pub fn providers_of(&self, service: &str) -> Vec<&SystemId> {
        self.offers_of(service).iter().map(|offer| &offer.provider).collect()
    }

    /// The service as each of its providers offers it, by provider.
    pub fn offers_of(&self, service: &str) -> &[Service] {
        let start = self.services.partition_point(|offer| offer.name.as_str() < service);
        let end = self.services.partition_point(|offer| offer.name.as_str() <= service);
        &self.services[start..end]
    }

    /// A purpose of the register.
    pub fn purpose(&self, code: &str) -> Option<&Purpose> {
        let position = self.purposes.binary_search_by(|purpose| purpose.code.as_str().cmp(code)).ok()?;
        self.purposes.get(position)
    }

    /// Whether this identity is a listed auditor.
    pub fn is_auditor(&self, identity: &Identity) -> bool {
        self.auditors.iter().any(|auditor| auditor.identity == *identity)
    }
}

/// A directory and the note that proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDirectory {
    /// The whole note, as it was read.
    pub note: String,
    /// What it says.
    pub directory: Directory,
}

impl SignedDirectory {
    /// Reads a note that at least `threshold` of `council` signed, that has not expired and whose version is at least
    /// `min_version`.
    pub fn verify(
        note: &str,
        council: &[Verifier],
        threshold: usize,
        now: OffsetDateTime,
        min_version: u64,
    ) -> Result<Self, DirectoryError> {
        check::check_council(council, threshold)
            .map_err(|problem| DirectoryError::Inconsistent(problem.to_string()))?;
        let parsed = Note::parse(note)?;
        let signed = match parsed.verify(council) {
            Ok(signed) => signed.len(),
            Err(NoteError::Unsigned) => 0,
            Err(error) => return Err(error.into()),
        };
        if signed < threshold {
            return Err(DirectoryError::Threshold { signed, threshold, council: council.len() });
        }
        let directory = Directory::parse_text(parsed.text())?;
        if directory.version < min_version {
            return Err(DirectoryError::Older { version: directory.version, in_force: min_version });
        }
        if now >= directory.expires {
            return Err(DirectoryError::Expired { version: directory.version, expires: directory.expires });
        }
        Ok(Self { note: note.into(), directory })
    }

    /// Whether it is still in force.
    pub fn in_force(&self, now: OffsetDateTime) -> bool {
        now < self.directory.expires
    }
}

/// Which rule a directory breaks.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The note around it is not good.
    #[error("directory: {0}")]
    Note(#[from] NoteError),
    /// A line of the text is not what it should be.
    #[error("directory, line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// `directory.toml` is not what it should be.
    #[error("directory.toml:{line}: {reason}")]
    Toml {
        /// Counted from 1.
        line: usize,
        /// Which field, and what is wrong with it.
        reason: String,
    },
    /// It contradicts itself.
    #[error("directory: {0}")]
    Inconsistent(String),
    /// Too few of the council signed.
    #[error("directory signed by {signed} of the {council} council keys in force; {threshold} are needed")]
    Threshold {
        /// How many did.
        signed: usize,
        /// How many must.
        threshold: usize,
        /// How many keys there are.
        council: usize,
    },
    /// Its version is below the one in force.
    #[error("directory version {version} is older than version {in_force}, which is in force")]
    Older {
        /// Its version.
        version: u64,
        /// The one in force.
        in_force: u64,
    },
    /// The version in force, with another text: the council, or somebody with its keys, signed two.
    #[error("directory version {0} is in force with another text: the council signed two of one version")]
    Conflict(u64),
    /// It is past its expiry.
    #[error("directory version {version} expired at {expires}")]
    Expired {
        /// Its version.
        version: u64,
        /// When.
        expires: OffsetDateTime,
    },
    /// A mirror is neither `https://…` nor a path.
    #[error("{0:?} is not a mirror: https://… or the path of a file")]
    Mirror(String),
    /// A mirror did not answer, or not with what was asked.
    #[error("{mirror}: {reason}")]
    Fetch {
        /// Which one.
        mirror: String,
        /// Why not.
        reason: String,
    },
    /// No mirror had a directory that can be taken.
    #[error("no mirror has a directory that can be taken: {0}")]
    NoMirror(String),
    /// The last good copy cannot be read or written.
    #[error("last good directory {path}: {reason}")]
    LastGood {
        /// Where it is.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The roots for HTTPS mirrors cannot be read.
    #[error("roots for mirrors: {0}")]
    Roots(String),
}
