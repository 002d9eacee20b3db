//! What was found, for people and as JSON.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use crate::schema::breaking::{Addition, Break, Place, Told};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The rule: buf's, or one of ours.
    pub(super) rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    /// Full name of the element.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    what: String,
    /// The version that it breaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) against: Option<String>,
}

impl Finding {
    /// Of a set as a whole.
    pub(super) fn of_set(rule: &str, what: String) -> Self {
        Self { rule: rule.to_owned(), file: None, line: None, name: None, what, against: None }
    }

    /// Of an element of it.
    pub(super) fn at(rule: &str, place: Place, what: String) -> Self {
        let Place { file, line, name } = place;
        Self { file: Some(file), line, name: Some(name), ..Self::of_set(rule, what) }
    }

    /// `file:line:column: what`, as the compiler says it.
    pub(super) fn at_source(rule: &str, said: &str) -> Self {
        let mut parts = said.splitn(4, ':');
        let place = (parts.next(), parts.next().and_then(|line| line.parse().ok()), parts.next(), parts.next());
        match place {
            (Some(file), Some(line), Some(_), Some(what)) => {
                Self { file: Some(file.to_owned()), line: Some(line), ..Self::of_set(rule, what.trim().to_owned()) }
            }
            _ => Self::of_set(rule, said.to_owned()),
        }
    }

    /// A break of what callers of `against` were built with.
    pub(super) fn of_break(found: Break, against: Option<&str>) -> Self {
        Self { against: against.map(str::to_owned), ..Self::at(found.rule, found.place, found.what) }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        if let Some(name) = &self.name {
            write!(f, "{name}: ")?;
        }
        write!(f, "{} ({})", self.what, self.rule)
    }
}

/// Of many breaks, those that are told, and how many more there are.
pub(super) fn breaks(told: Told<Break>, against: Option<&str>) -> Vec<Finding> {
    let beyond = told.beyond;
    let mut findings: Vec<Finding> = told.list.into_iter().map(|found| Finding::of_break(found, against)).collect();
    if beyond > 0 {
        findings.push(Finding::of_set("MORE", format!("and {beyond} more")));
    }
    findings
}

/// Something new, as JSON.
#[derive(Debug, Serialize)]
pub(super) struct Added {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    name: String,
    what: String,
}

impl From<Addition> for Added {
    fn from(addition: Addition) -> Self {
        let Addition { place: Place { file, line, name }, what } = addition;
        Self { file, line, name, what }
    }
}

/// Prints findings under a heading for each version that they break, and says how the command ends.
pub(super) fn print(findings: &[Finding]) -> ExitCode {
    let mut against = None;
    for finding in findings {
        if finding.against.is_some() && finding.against != against {
            against.clone_from(&finding.against);
            println!("breaks what is built with {}:", finding.against.as_deref().unwrap_or_default());
        }
        let indent = if finding.against.is_some() { "  " } else { "" };
        println!("{indent}{finding}");
    }
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints what may be long. Who reads only its beginning (`| head`) has what they want.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

impl std::fmt::Display for Added {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}: {}", self.file, self.name, self.what),
            None => write!(f, "{}: {}: {}", self.file, self.name, self.what),
        }
    }
}
