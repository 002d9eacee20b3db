//! A TOML file and what is wrong with it, where.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; everything works.
    Notice,
    /// Own files do not agree with what others publish (the directory, descriptor sets, CRLs). That is not this
    /// member's to change, so a node runs without what does not fit; `--check` refuses it.
    Mismatch,
    /// The node does not start with it, and a running node keeps what it had.
    Error,
}

/// One thing that is wrong: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// The file that says so.
    pub file: PathBuf,
    /// Line and column in it, from 1, where there is one.
    pub position: Option<(usize, usize)>,
    /// The field, `listen.systems`; empty where the file is no TOML.
    pub field: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        match self.severity {
            Severity::Error => f.write_str(": ")?,
            Severity::Mismatch => f.write_str(": mismatch: ")?,
            Severity::Notice => f.write_str(": notice: ")?,
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Everything that is wrong with a configuration, not only the first thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct ConfigError {
    /// At least one of them is a [`Severity::Error`].
    pub problems: Vec<Problem>,
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A step on the way to a value: a key of a table, or an index of an array.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// A file's text, kept to say where in it a value stands.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Document {
    path: PathBuf,
    text: String,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Document").field(&self.path).finish()
    }
}

impl Document {
    /// Larger than any that a person writes; so that a wrong path cannot fill the memory.
    const MOST_BYTES: u64 = 16 << 20;

    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let problem = |what: String| {
            ConfigError::from(Problem {
                severity: Severity::Error,
                file: path.to_owned(),
                position: None,
                field: String::new(),
                what,
                remedy: "name a readable TOML file in UTF-8".into(),
            })
        };
        let size = std::fs::metadata(path).map_err(|error| problem(format!("cannot be read: {error}")))?.len();
        if size > Self::MOST_BYTES {
            return Err(problem(format!("has {size} bytes, more than {}", Self::MOST_BYTES)));
        }
        let text = std::fs::read_to_string(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Of a text that was read from there.
    pub(super) fn of(path: &Path, text: String) -> Self {
        Self { path: path.to_owned(), text }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| {
            let message = error.message().trim();
            let remedy = if message.starts_with("unknown field") {
                "correct its name or remove it"
            } else if message.starts_with("missing field") {
                "add it"
            } else if message.starts_with("duplicate key") {
                "keep one"
            } else {
                "correct it"
            };
            ConfigError::from(Problem {
                severity: Severity::Error,
                file: self.path.clone(),
                position: error.span().map(|span| self.line_and_column(span.start)),
                field: error.span().map(|span| self.field_at(span.start)).unwrap_or_default(),
                what: message.replace('\n', ", "),
                remedy: remedy.into(),
            })
        })
    }

    /// A problem with the value that these steps lead to, or with the nearest one above that is written in the file.
    pub(super) fn problem(&self, steps: &[Step<'_>], what: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Error,
            file: self.path.clone(),
            position: self.offset_of(steps).map(|offset| self.line_and_column(offset)),
            field: field_name(steps),
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    fn offset_of(&self, steps: &[Step<'_>]) -> Option<usize> {
        let root = DeTable::parse(&self.text).ok()?;
        let (first, rest) = steps.split_first()?;
        let Step::Key(key) = first else { return None };
        let mut found = root.get_ref().iter().find(|(name, _)| name.get_ref() == *key).map(|(_, value)| value)?;
        for step in rest {
            let next = match (step, found.get_ref()) {
                (Step::Key(key), DeValue::Table(table)) => {
                    table.iter().find(|(name, _)| name.get_ref() == *key).map(|(_, value)| value)
                }
                (Step::Index(index), DeValue::Array(array)) => array.get(*index),
                _ => None,
            };
            match next {
                Some(next) => found = next,
                None => break,
            }
        }
        Some(found.span().start)
    }

    /// The dotted name of the innermost key or value that covers an offset.
    fn field_at(&self, offset: usize) -> String {
        fn descend(table: &DeTable<'_>, offset: usize, name: &mut Vec<String>) -> bool {
            table.iter().any(|(key, value)| {
                name.push(key.get_ref().to_string());
                let found = key.span().contains(&offset)
                    || inside(value.get_ref(), value.span().contains(&offset), offset, name);
                if !found {
                    name.pop();
                }
                found
            })
        }
        // A `[table]`'s own span is its header only, so its entries are looked at whether or not the span covers them.
        fn inside(value: &DeValue<'_>, covered: bool, offset: usize, name: &mut Vec<String>) -> bool {
            match value {
                DeValue::Table(table) => descend(table, offset, name) || covered,
                DeValue::Array(array) => {
                    let found = array.iter().enumerate().any(|(index, value)| {
                        name.push(format!("[{index}]"));
                        let found = inside(value.get_ref(), value.span().contains(&offset), offset, name);
                        if !found {
                            name.pop();
                        }
                        found
                    });
                    found || covered
                }
                _ => covered,
            }
        }
        let mut name = Vec::new();
        if let Ok(root) = DeTable::parse(&self.text) {
            descend(root.get_ref(), offset, &mut name);
        }
        name.join(".").replace(".[", "[")
    }

    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
    }
}

impl Problem {
    pub(super) fn with(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
}

fn field_name(steps: &[Step<'_>]) -> String {
    let mut name = String::new();
    for step in steps {
        match step {
            Step::Key(key) => {
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(key);
            }
            Step::Index(index) => name.push_str(&format!("[{index}]")),
        }
    }
    name
}
