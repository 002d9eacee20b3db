//! Which logs are known, which witnesses, and how many of them must have cosigned: C2SP tlog-policy.
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> <k | all | any> <member> …        a member is a witness or group of an earlier line
//! quorum <witness | group | none>                 once
//! ```
//!
//! Fields are separated by spaces and tabs; empty lines and lines that begin with `#` say nothing. Names are bytes, not
//! text. A name is a member of one group at most, so that every witness counts once. The last line must end in a
//! newline: a file that was cut short must not pass for a weaker policy. Keys of types that this program cannot verify
//! are refused, not skipped: whoever wrote the policy counts on them.

mod reader;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use reader::Reader;

use super::note::{Note, NoteError, Verifier};

/// As large as a policy's text may be.
const MAX_BYTES: usize = 1 << 20;
/// As many logs, as many witnesses and as many groups as a policy may have; the specification asks for 32.
const MAX_EACH: usize = 256;

/// Why a policy's file gives no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It breaks a rule.
    #[error("{path}: {source}")]
    Policy {
        /// Which file.
        path: PathBuf,
        /// Which rule, in which line.
        source: PolicyError,
    },
}

/// Why a note's cosignatures are not what a policy asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoQuorum {
    /// Too few.
    #[error("the witnesses' quorum is not met: cosigned by {}", names(.cosigned))]
    Missing {
        /// The known witnesses that did cosign, by their names in the policy.
        cosigned: Vec<Name>,
    },
    /// A bad cosignature of a known witness.
    #[error(transparent)]
    Note(#[from] NoteError),
}

fn names(names: &[Name]) -> String {
    match names {
        [] => "nobody known".into(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// What is wrong with a policy's text, and in which line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct PolicyError {
    /// The line, from 1.
    pub line: usize,
    /// Which rule it breaks.
    pub problem: PolicyProblem,
}

/// Which rule of tlog-policy a line breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyProblem {
    /// Longer than a policy may be.
    #[error("the policy is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// The last line has no newline.
    #[error("the last line does not end in a newline: the file may have been cut short")]
    CutShort,
    /// A control character other than tab and newline.
    #[error("a control character; only tabs and newlines are allowed")]
    Control,
    /// The first word is none of the four.
    #[error("{0:?} is none of log, witness, group and quorum")]
    Keyword(String),
    /// Too few or too many words.
    #[error("expected {0}")]
    Fields(&'static str),
    /// The key is not one.
    #[error("{0}")]
    Key(#[from] NoteError),
    /// A log's key of a witness's type, or the other way round.
    #[error("{0}")]
    KeyType(&'static str),
    /// The same public key again.
    #[error("its public key is listed before")]
    DuplicateKey,
    /// A URL is no text, or no URL.
    #[error("{0:?} is not a URL: expected http:// or https:// and a host")]
    Url(String),
    /// A name is taken already, or is `none`.
    #[error("the name {0} is taken")]
    NameTaken(Name),
    /// A name that no earlier line defines.
    #[error("no witness or group {0} on an earlier line")]
    Unknown(Name),
    /// A name is listed as a member a second time.
    #[error("{0} is already a member of a group")]
    MemberTwice(Name),
    /// The threshold is not one that the group's members can meet.
    #[error("{0:?} is no threshold: expected all, any, or a number from 1 to the number of members")]
    Threshold(String),
    /// A second quorum.
    #[error("a second quorum")]
    SecondQuorum,
    /// No quorum at all.
    #[error("no quorum line: expected quorum NAME, or quorum none")]
    NoQuorum,
    /// More of something than a policy may have.
    #[error("more than {MAX_EACH} {0}")]
    TooMany(&'static str),
}

/// A name of a witness or group within a policy: bytes, printed as text where they are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Box<[u8]>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// A `log` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLog {
    /// Its key; the key's name is its origin.
    pub key: Verifier,
    /// Where it is published.
    pub url: Option<String>,
}

/// A `witness` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownWitness {
    /// Its name within the policy.
    pub name: Name,
    /// Its key, of type 04.
    pub key: Verifier,
    /// Where it takes checkpoints: the prefix before `/add-checkpoint`.
    pub url: Option<String>,
}

/// A group, its members by their place among witnesses and earlier groups.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    threshold: usize,
    members: Vec<Member>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Witness(usize),
    Group(usize),
}

/// A trust policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessPolicy {
    logs: Vec<KnownLog>,
    witnesses: Vec<KnownWitness>,
    groups: Vec<Group>,
    /// None for `quorum none`.
    quorum: Option<Member>,
}

/// Who cosigned a note, and whether that is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned<'p> {
    /// The witnesses with a good cosignature, in the policy's order, and the time each says (Unix seconds).
    pub by: Vec<(&'p KnownWitness, u64)>,
    /// Whether the quorum is met.
    pub quorum: bool,
}

impl WitnessPolicy {
    /// Reads a policy.
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        let at = |line, problem| PolicyError { line, problem };
        if text.len() > MAX_BYTES {
            return Err(at(1, PolicyProblem::TooLong));
        }
        let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        // What is behind the last newline: nothing, where the text is whole.
        if lines.pop().is_some_and(|rest| !rest.is_empty()) {
            return Err(at(lines.len() + 1, PolicyProblem::CutShort));
        }
        let mut reader = Reader::default();
        for (index, line) in lines.iter().enumerate() {
            reader.line(line).map_err(|problem| at(index + 1, problem))?;
        }
        let Reader { logs, witnesses, groups, quorum, .. } = reader;
        let quorum = quorum.ok_or_else(|| at(lines.len().max(1), PolicyProblem::NoQuorum))?;
        Ok(Self { logs, witnesses, groups, quorum })
    }

    /// Reads a policy's file.
    pub fn read(path: &Path) -> Result<Self, PolicyFileError> {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut text = Vec::new();
            // One byte more than may be, for the parser to see.
            File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|source| PolicyFileError::Read { path: path.into(), source })?;
        Self::parse(&text).map_err(|source| PolicyFileError::Policy { path: path.into(), source })
    }

    /// The known logs, in the order of the text. Any of them counts; there may be none where the log is known otherwise.
    pub fn logs(&self) -> &[KnownLog] {
        &self.logs
    }

    /// The known witnesses, in the order of the text.
    pub fn witnesses(&self) -> &[KnownWitness] {
        &self.witnesses
    }

    /// Whether it asks for no cosignature at all.
    pub fn is_quorum_none(&self) -> bool {
        self.quorum.is_none()
    }

    /// Whether the quorum is met where exactly the witnesses have cosigned for which `cosigned` is true, by their
    /// place in [`Self::witnesses`].
    pub fn is_quorum(&self, cosigned: impl Fn(usize) -> bool) -> bool {
        let mut groups: Vec<bool> = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            // Members are of earlier lines, so their answer is there.
            let has = |member: &&Member| match **member {
                Member::Witness(index) => cosigned(index),
                Member::Group(index) => groups.get(index).copied().unwrap_or(false),
            };
            let count = group.members.iter().filter(has).count();
            groups.push(count >= group.threshold);
        }
        match self.quorum {
            None => true,
            Some(Member::Witness(index)) => cosigned(index),
            Some(Member::Group(index)) => groups.get(index).copied().unwrap_or(false),
        }
    }

    /// Who of the known witnesses cosigned. Lines of other keys are ignored; a bad cosignature of a known witness
    /// refuses the note. Whether a known log signed it is for the caller to check, who knows which it must be.
    pub fn judge(&self, note: &Note) -> Result<Cosigned<'_>, NoteError> {
        let mut cosigned = vec![None; self.witnesses.len()];
        for (witness, time) in self.witnesses.iter().zip(&mut cosigned) {
            for signature in note.signatures().iter().filter(|signature| signature.is_of(&witness.key)) {
                let at = witness.key.cosigned_at(note.text(), &signature.bytes);
                *time = Some(at.ok_or_else(|| NoteError::BadSignature(witness.key.name().into()))?);
            }
        }
        let quorum = self.is_quorum(|index| cosigned.get(index).is_some_and(Option::is_some));
        let by = self.witnesses.iter().zip(cosigned).filter_map(|(witness, time)| Some((witness, time?))).collect();
        Ok(Cosigned { by, quorum })
    }

    /// As [`Self::judge`], for those who only go on where the quorum is met.
    pub fn require(&self, note: &Note) -> Result<Cosigned<'_>, NoQuorum> {
        let cosigned = self.judge(note)?;
        if cosigned.quorum {
            return Ok(cosigned);
        }
        Err(NoQuorum::Missing { cosigned: cosigned.by.iter().map(|(witness, _)| witness.name.clone()).collect() })
    }
}

#[cfg(test)]
mod tests;
