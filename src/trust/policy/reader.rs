//! The lines of a policy, one after the other.

use std::collections::{HashMap, HashSet};

use super::{Group, KnownLog, KnownWitness, MAX_EACH, Member, Name, PolicyProblem};
use crate::trust::note::{NoteError, Verifier};

#[derive(Default)]
pub(super) struct Reader {
    pub(super) logs: Vec<KnownLog>,
    pub(super) witnesses: Vec<KnownWitness>,
    pub(super) groups: Vec<Group>,
    pub(super) quorum: Option<Option<Member>>,
    names: HashMap<Name, Member>,
    members: HashSet<Name>,
    log_keys: HashSet<[u8; 32]>,
    witness_keys: HashSet<[u8; 32]>,
}

impl Reader {
    /// Takes the next line.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), PolicyProblem> {
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
