//! Which logs are known, which witnesses, and how many of them must have cosigned: C2SP tlog-policy. Pure.
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

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::note::{Note, NoteError, Verifier};

/// As large as a policy's text may be.
const MAX_BYTES: usize = 1 << 20;
/// As many logs, as many witnesses and as many groups as a policy may have; the specification asks for 32.
const MAX_EACH: usize = 256;

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
}

#[derive(Default)]
struct Reader {
    logs: Vec<KnownLog>,
    witnesses: Vec<KnownWitness>,
    groups: Vec<Group>,
    quorum: Option<Option<Member>>,
    names: HashMap<Name, Member>,
    members: HashSet<Name>,
    log_keys: HashSet<[u8; 32]>,
    witness_keys: HashSet<[u8; 32]>,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), PolicyProblem> {
        if line.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(PolicyProblem::Control);
        }
        let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        let Some(keyword) = words.next().filter(|word| !word.starts_with(b"#")) else { return Ok(()) };
        let words: Vec<&[u8]> = words.collect();
        match keyword {
            b"log" => self.log(&words),
            b"witness" => self.witness(&words),
            b"group" => self.group(&words),
            b"quorum" => self.quorum(&words),
            other => Err(PolicyProblem::Keyword(String::from_utf8_lossy(other).into())),
        }
    }

    fn log(&mut self, words: &[&[u8]]) -> Result<(), PolicyProblem> {
        let (key, url) = match words {
            [key] => (key, None),
            [key, url] => (key, Some(url)),
            _ => return Err(PolicyProblem::Fields("log VKEY [URL]")),
        };
        let key = vkey(key)?;
        if key.is_cosigner() {
            return Err(PolicyProblem::KeyType("a witness's key (type 04) where a log's (type 01) is expected"));
        }
        if !self.log_keys.insert(key.public_key()) {
            return Err(PolicyProblem::DuplicateKey);
        }
        let url = url.map(|url| read_url(url)).transpose()?;
        room(&self.logs, "logs")?;
        self.logs.push(KnownLog { key, url });
        Ok(())
    }

    fn witness(&mut self, words: &[&[u8]]) -> Result<(), PolicyProblem> {
        let (name, key, url) = match words {
            [name, key] => (name, key, None),
            [name, key, url] => (name, key, Some(url)),
            _ => return Err(PolicyProblem::Fields("witness NAME VKEY [URL]")),
        };
        let (name, key) = (Name((*name).into()), vkey(key)?);
        if !key.is_cosigner() {
            return Err(PolicyProblem::KeyType("a key of type 01 where a witness's (type 04) is expected"));
        }
        if !self.witness_keys.insert(key.public_key()) {
            return Err(PolicyProblem::DuplicateKey);
        }
        let url = url.map(|url| read_url(url)).transpose()?;
        room(&self.witnesses, "witnesses")?;
        self.define(&name, Member::Witness(self.witnesses.len()))?;
        self.witnesses.push(KnownWitness { name, key, url });
        Ok(())
    }

    fn group(&mut self, words: &[&[u8]]) -> Result<(), PolicyProblem> {
        let [name, threshold, names @ ..] = words else { return Err(GROUP_FIELDS) };
        if names.is_empty() {
            return Err(GROUP_FIELDS);
        }
        let mut members = Vec::with_capacity(names.len());
        for member in names {
            let member = Name((*member).into());
            members.push(self.find(&member)?);
            if !self.members.insert(member.clone()) {
                return Err(PolicyProblem::MemberTwice(member));
            }
        }
        let threshold = match *threshold {
            b"all" => members.len(),
            b"any" => 1,
            number => std::str::from_utf8(number)
                .ok()
                .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0'))
                .and_then(|number| number.parse().ok())
                .filter(|threshold| *threshold <= members.len())
                .ok_or_else(|| PolicyProblem::Threshold(String::from_utf8_lossy(number).into()))?,
        };
        room(&self.groups, "groups")?;
        self.define(&Name((*name).into()), Member::Group(self.groups.len()))?;
        self.groups.push(Group { threshold, members });
        Ok(())
    }

    fn quorum(&mut self, words: &[&[u8]]) -> Result<(), PolicyProblem> {
        let [name] = words else { return Err(PolicyProblem::Fields("quorum NAME, or quorum none")) };
        let quorum = if *name == b"none" { None } else { Some(self.find(&Name((*name).into()))?) };
        if self.quorum.replace(quorum).is_some() {
            return Err(PolicyProblem::SecondQuorum);
        }
        Ok(())
    }

    fn define(&mut self, name: &Name, member: Member) -> Result<(), PolicyProblem> {
        if *name.0 == *b"none" || self.names.contains_key(name) {
            return Err(PolicyProblem::NameTaken(name.clone()));
        }
        self.names.insert(name.clone(), member);
        Ok(())
    }

    fn find(&self, name: &Name) -> Result<Member, PolicyProblem> {
        self.names.get(name).copied().ok_or_else(|| PolicyProblem::Unknown(name.clone()))
    }
}

const GROUP_FIELDS: PolicyProblem = PolicyProblem::Fields("group NAME K|all|any MEMBER…");

fn room<T>(list: &[T], what: &'static str) -> Result<(), PolicyProblem> {
    if list.len() < MAX_EACH { Ok(()) } else { Err(PolicyProblem::TooMany(what)) }
}

fn vkey(word: &[u8]) -> Result<Verifier, PolicyProblem> {
    let text = std::str::from_utf8(word).map_err(|_| NoteError::VerifierKey)?;
    Ok(text.parse()?)
}

fn read_url(word: &[u8]) -> Result<String, PolicyProblem> {
    let shown = String::from_utf8_lossy(word);
    let good = std::str::from_utf8(word).ok().filter(|url| {
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        host.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
    });
    good.map(Into::into).ok_or_else(|| PolicyProblem::Url(shown.into()))
}

#[cfg(test)]
mod tests;
