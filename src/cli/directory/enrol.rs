//! `kopuro directory enrol`: a new member's enrolment into the directory's source, and its CA's request under the root.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use time::OffsetDateTime;

use crate::trust::directory::Directory;
use crate::trust::enrolment::{Enrolment, MAX_ENROLMENT};
use crate::trust::file::{Access, Existing, write};
use crate::trust::pki::{Authority, Validity};

/// As long as a member's CA is made for by `pki init`: five years.
const CA_DAYS: u32 = 1826;

#[derive(Debug, clap::Args)]
pub(super) struct Enrol {
    /// What `kopuro node init` made for the council
    #[arg(value_name = "ENROLMENT")]
    enrolment: PathBuf,
    /// directory.toml, to which the member is added
    #[arg(long, value_name = "FILE")]
    source: PathBuf,
    /// The fingerprint that the member has read out: another one is refused
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<String>,
    /// The federation's root, to certify the member's CA too
    #[arg(long, value_name = "FOLDER", requires = "certificate")]
    root: Option<PathBuf>,
    /// Where the certificate of the member's CA goes to
    #[arg(long, value_name = "FILE", requires = "root")]
    certificate: Option<PathBuf>,
}

impl Enrol {
    pub(super) fn run(&self, now: OffsetDateTime) -> anyhow::Result<ExitCode> {
        let path = self.enrolment.display().to_string();
        let size = fs::metadata(&self.enrolment).with_context(|| path.clone())?.len();
        if size > MAX_ENROLMENT {
            bail!("{path}: {size} bytes, more than an enrolment has");
        }
        let note = fs::read_to_string(&self.enrolment).with_context(|| path.clone())?;
        let enrolment = Enrolment::from_note(&note).with_context(|| path.clone())?;
        let fingerprint = enrolment.fingerprint();
        if let Some(given) = &self.fingerprint
            && given.split_whitespace().collect::<String>() != fingerprint.replace(' ', "")
        {
            bail!("{path}: its fingerprint is {fingerprint}: this is not what the member has read out");
        }

        let source_name = self.source.display().to_string();
        let source = fs::read_to_string(&self.source).with_context(|| source_name.clone())?;
        let before = read(&source).with_context(|| source_name.clone())?;
        if before.member(&enrolment.member).is_some() {
            bail!("{source_name}: {} is a member already", enrolment.member);
        }
        if enrolment.member.instance() != before.federation {
            bail!("{path}: {} is not of the federation {}", enrolment.member, before.federation);
        }
        let grown = raised(&source, before.version).with_context(|| source_name.clone())? + &entries(&enrolment);
        // What it would be is checked before anything is written.
        let after = read(&grown).with_context(|| format!("{source_name}, with {}", enrolment.member))?;

        let certificate = match (&self.root, &self.certificate) {
            (Some(root), Some(out)) => {
                let signed = Authority::load(root)?.sign(&enrolment.authority_request, Validity::days(now, CA_DAYS));
                Some((out, signed.with_context(|| format!("{path}: authority_request"))?))
            }
            _ => None,
        };
        if let Some((out, certificate)) = &certificate {
            write(out, certificate.as_bytes(), Access::Public, Existing::Keep)
                .with_context(|| out.display().to_string())?;
        }
        write(&self.source, grown.as_bytes(), Access::Public, Existing::Replace)
            .with_context(|| source_name.clone())?;

        println!("enrolled           {} ({})", enrolment.member, enrolment.names[2]);
        println!("fingerprint        {fingerprint}");
        println!("node               {} at {}, log {}", enrolment.node, enrolment.endpoint, enrolment.log_key);
        for system in &enrolment.systems {
            println!("system             {system}");
        }
        println!("directory          {source_name} is now version {}, to be signed by the council", after.version);
        match &certificate {
            Some((out, _)) => println!("CA certificate     {} (send it to the member)", out.display()),
            None => println!("CA certificate     not made: --root FOLDER --certificate FILE certifies the request"),
        }
        if self.fingerprint.is_none() {
            println!(
                "\nBefore you sign: have the member read the fingerprint to you over another way than the one by which this came."
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Of the descriptor sets only that they are named matters here.
fn read(source: &str) -> anyhow::Result<Directory> {
    Ok(Directory::from_toml_with(source, &mut |_| Ok([0; 32]))?)
}

/// The source with its version raised by one; nothing else of it changes.
fn raised(source: &str, version: u64) -> anyhow::Result<String> {
    let next = version.checked_add(1).context("the version cannot be raised")?;
    let mut out = String::with_capacity(source.len() + 1);
    let mut done = false;
    for line in source.split_inclusive('\n') {
        let number = line.strip_prefix("version").map(str::trim_start).and_then(|rest| rest.strip_prefix('='));
        match number.filter(|_| !done) {
            Some(rest) => {
                let after = rest.trim_start().trim_start_matches(|c: char| c.is_ascii_digit() || c == '_');
                let _ = write!(out, "version = {next}{after}");
                done = true;
            }
            None => out.push_str(line),
        }
    }
    if !done {
        bail!("no line begins with `version =`");
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    Ok(out)
}

/// The tables that a member adds; tables of one kind may stand anywhere in TOML.
fn entries(enrolment: &Enrolment) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let [ky, ru, en] = &enrolment.names;
    let member = quoted(enrolment.member.as_str());
    let mut out = format!(
        "\n[[members]]\nid = {member}\nky = {}\nru = {}\nen = {}\n\n[[nodes]]\nmember = {member}\nname = {}\nendpoint = {}\nlog_key = {}\n",
        quoted(ky),
        quoted(ru),
        quoted(en),
        quoted(&enrolment.node),
        quoted(&enrolment.endpoint),
        quoted(&enrolment.log_key.to_string()),
    );
    for system in &enrolment.systems {
        let _ = write!(out, "\n[[systems]]\nid = {}\n", quoted(system.as_str()));
    }
    out
}
