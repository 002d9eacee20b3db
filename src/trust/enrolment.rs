//! What a member that wants to join hands to the federation's council: who it is, where its node will be reached, the key of
//! its log, its systems, and the request of its certificate authority.
//!
//! A C2SP signed note whose text is TOML and whose one signature is by the log's own key: nobody can enrol with another's log
//! key. The request is PKCS #10 and so proves the authority's key. Who really stands behind it is for the council to find out
//! before it signs: by the fingerprint, over another way than the one by which the file came.

use std::fmt::Write;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::trust::identity::{Identity, MemberId, SystemId};
use crate::trust::note::{Note, NoteError, Signer, Verifier};

/// Longest enrolment that is read, in bytes.
pub const MAX_ENROLMENT: u64 = 256 << 10;

/// A member that wants to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// `KG/GOV/70000008`.
    pub member: MemberId,
    /// Names in Kyrgyz, Russian and English.
    pub names: [String; 3],
    /// Name of its node.
    pub node: String,
    /// Where other nodes will reach it, `host:port`.
    pub endpoint: String,
    /// Verifies its log's checkpoints.
    pub log_key: Verifier,
    /// Its back-end systems.
    pub systems: Vec<SystemId>,
    /// The request of its certificate authority, PKCS #10 in PEM.
    pub authority_request: String,
}

/// Why something is no enrolment.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// It is no signed note, or its signature is not by the key that it names.
    #[error("the enrolment's note: {0}")]
    Note(#[from] NoteError),
    /// Its text is not what it should be.
    #[error("the enrolment's text: {0}")]
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    format: String,
    member: String,
    ky: String,
    ru: String,
    en: String,
    node: String,
    endpoint: String,
    log_key: String,
    systems: Vec<String>,
    authority_request: String,
}

const FORMAT: &str = "kopuro enrolment v1";

impl Enrolment {
    /// The note, signed by the log's key.
    pub fn to_note(&self, log_key: &Signer) -> Result<String, EnrolmentError> {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let systems: Vec<String> = self.systems.iter().map(|system| quoted(system.as_str())).collect();
        let [ky, ru, en] = &self.names;
        let mut text = String::new();
        let mut line = |key: &str, value: String| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{key} = {value}");
        };
        line("format", quoted(FORMAT));
        line("member", quoted(self.member.as_str()));
        for (key, value) in [("ky", ky), ("ru", ru), ("en", en), ("node", &self.node), ("endpoint", &self.endpoint)] {
            line(key, quoted(value));
        }
        line("log_key", quoted(&self.log_key.to_string()));
        line("systems", format!("[{}]", systems.join(", ")));
        line("authority_request", format!("'''\n{}'''", self.authority_request.replace('\r', "")));
        Ok(log_key.sign(&text)?)
    }

    /// Reads a note and checks that the log key that it names has signed it, and that all in it is of one member.
    pub fn from_note(note: &str) -> Result<Self, EnrolmentError> {
        let note = Note::parse(note)?;
        let raw: Raw = toml::from_str(note.text()).map_err(|error| EnrolmentError::Text(error.to_string()))?;
        let wrong = |field: &str, why: &dyn std::fmt::Display| EnrolmentError::Text(format!("{field}: {why}"));
        if raw.format != FORMAT {
            return Err(wrong("format", &format!("{:?} is not known", raw.format)));
        }
        let member: MemberId = raw.member.parse().map_err(|error| wrong("member", &error))?;
        let log_key: Verifier = raw.log_key.parse().map_err(|error| wrong("log_key", &error))?;
        note.verify(std::slice::from_ref(&log_key))?;
        let mut systems = Vec::new();
        for system in &raw.systems {
            let system: SystemId = system.parse().map_err(|error| wrong("systems", &error))?;
            if *system.member() != member {
                return Err(wrong("systems", &format!("{system} is not one of {member}")));
            }
            systems.push(system);
        }
        let identity: Identity =
            format!("{member}/_node/{}", raw.node).parse().map_err(|error| wrong("node", &error))?;
        let Identity::Node { name, .. } = identity else { return Err(wrong("node", &"not a node's name")) };
        Ok(Self {
            member,
            names: [raw.ky, raw.ru, raw.en],
            node: name.to_string(),
            endpoint: raw.endpoint,
            log_key,
            systems,
            authority_request: raw.authority_request,
        })
    }

    /// What the council reads to the member over another way: SHA-256 of log key and request, in groups of four.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::new_with_prefix(self.log_key.to_string())
            .chain_update([0])
            .chain_update(self.authority_request.trim())
            .finalize();
        let hex = hex::encode(&digest[..16]);
        hex.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group)).collect::<Vec<_>>().join(" ")
    }
}
