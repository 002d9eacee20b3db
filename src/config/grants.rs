//! `grants/*.toml` and `outbound.toml`: files into [`Grant`]s and [`Rule`]s. Every entry is read to its end, so that all
//! that is wrong with it is told at once.

mod entry;
mod limits;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;

use super::document::{ConfigError, Document, Problem, Severity, Step};
use crate::policy::{Grant, Rule};
use crate::trust::identity::MemberId;
pub(super) use entry::GrantEntry;
use entry::{EntryReader, RuleEntry};

/// Reads every `*.toml` of a folder, by name, as this member's grants. A folder that is not there grants nothing.
pub fn load_grants(folder: &Path, member: &MemberId) -> Result<Vec<Grant>, ConfigError> {
    let mut problems = Vec::new();
    let grants = read_grants(folder, member, &mut problems);
    finish(grants, problems)
}

/// Reads the outbound list. A file that is not there allows nothing.
pub fn load_outbound(file: &Path, member: &MemberId) -> Result<Vec<Rule>, ConfigError> {
    let mut problems = Vec::new();
    let rules = read_outbound(file, member, &mut problems);
    finish(rules, problems)
}

fn finish<T>(read: Vec<Placed<T>>, problems: Vec<Problem>) -> Result<Vec<T>, ConfigError> {
    if problems.is_empty() {
        Ok(read.into_iter().map(|placed| placed.value).collect())
    } else {
        Err(ConfigError { problems })
    }
}

/// An entry and where it stands.
pub(super) struct Placed<T> {
    pub(super) value: T,
    place: Place,
}

#[derive(Clone)]
struct Place {
    document: Rc<Document>,
    table: &'static str,
    index: usize,
}

impl<T> Placed<T> {
    pub(super) fn mismatch(&self, field: &str, what: String, remedy: &str) -> Problem {
        self.mismatch_at(&[Step::Key(field)], what, remedy)
    }

    pub(super) fn mismatch_at(&self, steps: &[Step<'_>], what: String, remedy: &str) -> Problem {
        self.place.problem(steps, what, remedy).with(Severity::Mismatch)
    }
}

impl Place {
    fn problem(&self, steps: &[Step<'_>], what: impl Into<String>, remedy: impl Into<String>) -> Problem {
        let mut path = vec![Step::Key(self.table), Step::Index(self.index)];
        path.extend_from_slice(steps);
        self.document.problem(&path, what, remedy)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantFile {
    #[serde(default)]
    grant: Vec<GrantEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutboundFile {
    #[serde(default)]
    allow: Vec<RuleEntry>,
}

pub(super) fn read_grants(folder: &Path, member: &MemberId, problems: &mut Vec<Problem>) -> Vec<Placed<Grant>> {
    let files = match toml_files(folder) {
        Ok(files) => files,
        Err(error) => {
            problems.push(Problem {
                severity: Severity::Error,
                file: folder.to_owned(),
                position: None,
                field: String::new(),
                what: format!("cannot be read: {error}"),
                remedy: "policy.grants names a folder of *.toml files".into(),
            });
            return Vec::new();
        }
    };
    let mut grants = Vec::new();
    for file in files {
        let read = Document::read(&file).and_then(|document| Ok((document.parse::<GrantFile>()?, document)));
        match read {
            Ok((parsed, document)) => {
                let document = Rc::new(document);
                for (index, entry) in parsed.grant.into_iter().enumerate() {
                    let mut reader = EntryReader::new(&document, "grant", index, member, problems);
                    if let Some(grant) = reader.grant(entry) {
                        grants.push(Placed { value: grant, place: reader.place });
                    }
                }
            }
            Err(error) => problems.extend(error.problems),
        }
    }
    grants
}

/// Reads the one grant of a request.
pub(super) fn read_one(
    document: &Rc<Document>,
    entry: GrantEntry,
    member: &MemberId,
    problems: &mut Vec<Problem>,
) -> Option<Grant> {
    EntryReader::new(document, "grant", 0, member, problems).grant(entry)
}

pub(super) fn read_outbound(file: &Path, member: &MemberId, problems: &mut Vec<Problem>) -> Vec<Placed<Rule>> {
    if !file.exists() {
        return Vec::new();
    }
    let read = Document::read(file).and_then(|document| Ok((document.parse::<OutboundFile>()?, document)));
    let (parsed, document) = match read {
        Ok((parsed, document)) => (parsed, Rc::new(document)),
        Err(error) => {
            problems.extend(error.problems);
            return Vec::new();
        }
    };
    let mut rules = Vec::new();
    for (index, entry) in parsed.allow.into_iter().enumerate() {
        let mut reader = EntryReader::new(&document, "allow", index, member, problems);
        if let Some(rule) = reader.rule(entry) {
            rules.push(Placed { value: rule, place: reader.place });
        }
    }
    rules
}

fn toml_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        // Kubernetes keeps the real files in a hidden folder, editors keep hidden copies.
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
