//! A request for a grant: a consumer's system asks, signed with its certificate's key; the provider's operator reviews, and the
//! same words become the grant.
//!
//! The file is TOML: `[request]` says when, why and who to talk to, `[[grant]]` is what is asked, written as in a grants file. Its last
//! line is a comment with the signature, a detached JWS ([`crate::trust::jws`]) over every byte before that line. What is not signed is not read.

mod entry;

use std::fmt::Write;
use std::num::NonZeroU32;
use std::path::Path;
use std::rc::Rc;

use rustls::pki_types::UnixTime;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::document::{ConfigError, Document, Problem, Severity, Step};
use super::grants::{GrantEntry, read_one};
use crate::policy::{Allowed, Consumer, Grant, LegalBasis, Methods, Rate, UnknownPolicy};
use crate::trust::certificate::{Anchors, PeerIdentity};
use crate::trust::identity::{Identity, MemberId, SystemId};
use crate::trust::jws::{self, JwsError};
use crate::trust::tls::Credentials;
use entry::quoted;
pub use entry::{bound_text, entry_text};

/// `typ` of the signature.
pub const TYPE: &str = "kopuro-grant-request";

/// How the last line begins.
const MARK: &str = "# signature: ";

/// Far larger than any that a person writes.
const MOST_BYTES: u64 = 1 << 20;

/// Longest reason and contact.
const LONGEST_TEXT: usize = 4_096;

/// What is asked, by whom, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRequest {
    /// What is asked for; the consumer is the system that signed.
    pub grant: Grant,
    /// When it was made, in whole seconds.
    pub made: OffsetDateTime,
    /// What the data is needed for.
    pub reason: String,
    /// Whom the provider's operator may ask.
    pub contact: String,
    /// SHA-256 of the descriptor set by which the fields were chosen.
    pub schema: [u8; 32],
}

/// A request whose signature holds.
#[derive(Debug)]
pub struct SignedRequest {
    /// What it says.
    pub request: GrantRequest,
    /// Who signed it.
    pub signer: PeerIdentity,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
}

/// What a system asks for, in words that are still to be read as a grants file's.
#[derive(Debug)]
pub struct Asked {
    /// Who asks.
    pub consumer: SystemId,
    /// Whom.
    pub provider: SystemId,
    /// Full service name.
    pub service: String,
    /// Which methods.
    pub methods: Methods,
    /// Code of the legal basis.
    pub code: String,
    /// The provision in words.
    pub law: String,
    /// First day or moment.
    pub from: Option<String>,
    /// Last day or moment.
    pub until: Option<String>,
    /// Calls per second.
    pub rate: Option<NonZeroU32>,
    /// Which fields of responses.
    pub allowed: Allowed,
}

impl Asked {
    /// The grant that this is, by the rules of a grants file.
    pub fn grant(&self) -> Result<Grant, ConfigError> {
        let grant = Grant {
            consumer: Consumer::System(self.consumer.clone()),
            provider: self.provider.clone(),
            service: self.service.clone(),
            methods: self.methods.clone(),
            legal_basis: LegalBasis { code: self.code.clone(), text: self.law.clone() },
            from_unix_ms: None,
            until_unix_ms: None,
            rate: self.rate.map(|rate| Rate { per_second: rate, burst: rate }),
            publication: None,
            allowed: self.allowed.clone(),
            unknown: UnknownPolicy::default(),
            name_withheld: false,
        };
        read_entry(&with_bounds(&grant, self.from.as_deref(), self.until.as_deref()), self.provider.member())
    }
}

/// A grant's entry with these bounds besides those that it has.
fn with_bounds(grant: &Grant, from: Option<&str>, until: Option<&str>) -> String {
    let mut text = entry_text(grant);
    for (name, bound) in [("from", from), ("until", until)] {
        if let Some(bound) = bound {
            let _ = writeln!(text, "{name} = {}", quoted(bound));
        }
    }
    text
}

fn read_entry(text: &str, member: &MemberId) -> Result<Grant, ConfigError> {
    #[derive(Deserialize)]
    struct One {
        grant: [GrantEntry; 1],
    }
    let document = Rc::new(Document::of(Path::new("grant"), text.to_owned()));
    let One { grant: [entry] } = document.parse()?;
    let mut problems = Vec::new();
    let grant = read_one(&document, entry, member, &mut problems);
    grant.filter(|_| problems.is_empty()).ok_or(ConfigError { problems })
}

/// A grant with narrower bounds: it ends no later and is no faster than it was.
pub fn narrowed(grant: &Grant, until: Option<&str>, rate: Option<NonZeroU32>) -> Result<Grant, NarrowError> {
    let mut narrow = grant.clone();
    if let Some(until) = until {
        narrow.until_unix_ms = None;
        narrow = read_entry(&with_bounds(&narrow, None, Some(until)), grant.provider.member())?;
        if grant.until_unix_ms.is_some_and(|asked| narrow.until_unix_ms.is_none_or(|given| given > asked)) {
            return Err(NarrowError::Longer);
        }
    }
    if let Some(rate) = rate {
        if grant.rate.is_some_and(|asked| rate > asked.per_second) {
            return Err(NarrowError::Faster);
        }
        let burst = grant.rate.map_or(rate, |asked| asked.burst.min(rate));
        narrow.rate = Some(Rate { per_second: rate, burst });
    }
    Ok(narrow)
}

/// Why a grant cannot be narrowed so.
#[derive(Debug, thiserror::Error)]
pub enum NarrowError {
    /// The bound is not one.
    #[error(transparent)]
    Bound(#[from] ConfigError),
    /// It would end later than was asked.
    #[error("--until is later than what was asked and signed: only less can be given")]
    Longer,
    /// It would be faster than was asked.
    #[error("--rate is more than what was asked and signed: only less can be given")]
    Faster,
}

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The file cannot be read, or says what it may not.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// Its last line is no signature.
    #[error(
        "{0}: the last line is no signature: the file is cut off, or something follows it; ask for the file as it was made"
    )]
    Unsigned(String),
    /// The signature is not good.
    #[error("{file}: {source}")]
    Signature {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: JwsError,
    },
    /// Somebody asks for somebody else.
    #[error("{file}: signed by {signer}, and it asks for {consumer}: a system asks for itself")]
    OtherConsumer {
        /// The file.
        file: String,
        /// Who signed.
        signer: Identity,
        /// For whom.
        consumer: Consumer,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    request: About,
    grant: Vec<GrantEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    made: String,
    reason: String,
    contact: String,
    schema: String,
}

impl GrantRequest {
    /// The file, signed by the consumer.
    pub fn sign(&self, credentials: &Credentials) -> Result<String, JwsError> {
        let mut text = self.to_toml();
        let signature = jws::sign(credentials, TYPE, text.as_bytes())?;
        let _ = writeln!(text, "{MARK}{signature}");
        Ok(text)
    }

    /// Reads a file and verifies who made it.
    pub fn open(path: &Path, anchors: &Anchors) -> Result<SignedRequest, RequestError> {
        let text = read(path)?;
        let file = path.display().to_string();
        let body = text.strip_suffix('\n').unwrap_or(&text);
        let at = body.rfind('\n').map_or(0, |at| at + 1);
        let (payload, last) = body.split_at(at);
        let signature = last.strip_prefix(MARK).ok_or_else(|| RequestError::Unsigned(file.clone()))?;
        let signer = jws::verify(signature, TYPE, payload.as_bytes(), anchors, UnixTime::now())
            .map_err(|source| RequestError::Signature { file: file.clone(), source })?;
        let request = Self::parse(path, payload)?;
        match (&request.grant.consumer, &signer.identity) {
            (Consumer::System(asked), Identity::System(signed)) if asked == signed => {}
            (consumer, signer) => {
                let (signer, consumer) = (signer.clone(), consumer.clone());
                return Err(RequestError::OtherConsumer { file, signer, consumer });
            }
        }
        Ok(SignedRequest { digest: crate::schema::digest(text.as_bytes()), request, signer })
    }

    fn to_toml(&self) -> String {
        let made = self.made.format(&Rfc3339).unwrap_or_default();
        let mut text = String::from(
            "# A request for a grant. The provider's operator reads it with `kopuro grant review FILE`.\n\
             # It is signed by the asking system: whoever changes a byte makes it void.\n[request]\n",
        );
        for (name, value) in [
            ("made", &made),
            ("reason", &self.reason),
            ("contact", &self.contact),
            ("schema", &hex::encode(self.schema)),
        ] {
            let _ = writeln!(text, "{name} = {}", quoted(value));
        }
        let _ = write!(text, "\n{}", entry_text(&self.grant));
        text
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let document = Rc::new(Document::of(path, text.to_owned()));
        let file: File = document.parse()?;
        let mut problems = Vec::new();
        let problem = |field: &'static str, what: &str, remedy: &str| {
            document.problem(&[Step::Key("request"), Step::Key(field)], what, remedy)
        };
        let made = OffsetDateTime::parse(&file.request.made, &Rfc3339);
        if made.is_err() {
            problems.push(problem("made", "is no moment", "write 2026-01-31T09:00:00Z"));
        }
        let schema = hex::decode(&file.request.schema).ok().and_then(|bytes| bytes.try_into().ok());
        if schema.is_none() {
            problems.push(problem("schema", "is no SHA-256 in hexadecimal", "give the descriptor set's digest"));
        }
        for (field, text) in [("reason", &file.request.reason), ("contact", &file.request.contact)] {
            if text.trim().is_empty() || text.len() > LONGEST_TEXT {
                problems.push(problem(field, "is empty or too long", "say it in 1 to 4096 bytes"));
            }
        }
        let [entry] = <[GrantEntry; 1]>::try_from(file.grant).map_err(|entries| {
            let what = format!("has {} grants", entries.len());
            document.problem(&[Step::Key("grant")], what, "ask for one grant in one request")
        })?;
        // The provider is written in full, and so tells whose system it is.
        let grant = match entry.provider().parse::<SystemId>() {
            Ok(provider) => read_one(&document, entry, provider.member(), &mut problems),
            Err(error) => {
                let steps = [Step::Key("grant"), Step::Index(0), Step::Key("provider")];
                problems.push(document.problem(&steps, error.to_string(), "name it in full, as KG/GOV/1/registry"));
                None
            }
        };
        match (grant, made, schema) {
            (Some(grant), Ok(made), Some(schema)) if problems.is_empty() => {
                Ok(Self { grant, made, reason: file.request.reason, contact: file.request.contact, schema })
            }
            _ => Err(ConfigError { problems }),
        }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let problem = |what: String| {
        ConfigError::from(Problem {
            severity: Severity::Error,
            file: path.to_owned(),
            position: None,
            field: String::new(),
            what,
            remedy: "name the file that `kopuro grant request` wrote".into(),
        })
    };
    let size = std::fs::metadata(path).map_err(|error| problem(format!("cannot be read: {error}")))?.len();
    if size > MOST_BYTES {
        return Err(problem(format!("has {size} bytes, more than {MOST_BYTES}")));
    }
    std::fs::read_to_string(path).map_err(|error| problem(format!("cannot be read: {error}")))
}
