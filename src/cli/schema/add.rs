//! `kopuro schema add`: services, or new versions of them, into the source of a directory.
//!
//! Order: all is judged, then the sets are written, then `directory.toml` in one step. A set that nobody names yet does
//! no harm; a directory that names a set which is not there would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::edit::{self, Entry};
use super::register::Register;
use super::report::{self, Finding};
use super::source::{self, Source, Types};
use super::{against, check};
use crate::schema::{breaking, digest, extract};
use crate::trust::directory::Directory;
use crate::trust::file::{Access, Existing, write};
use crate::trust::identity::SystemId;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// The directory's source; the sets are put beside it
    #[arg(long, value_name = "FILE")]
    directory: PathBuf,
    /// Which system offers the services
    #[arg(long, value_name = "SYSTEM")]
    provider: SystemId,
    /// Only these services of the set; may be given several times
    #[arg(long = "service", value_name = "SERVICE")]
    services: Vec<String>,
}

/// A service and the set that it gets.
struct Version {
    service: String,
    set: Vec<u8>,
    key: [u8; 32],
    /// The set that it has.
    old: Option<[u8; 32]>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let register = Register::open(&args.directory)?;
    if args.directory.extension().is_none_or(|extension| extension != "toml") {
        bail!("{}: only directory.toml can be changed; a signed directory is made from it", args.directory.display());
    }
    if !register.directory.has_system(&args.provider) {
        bail!(
            "--provider {}: it is not listed: add [[systems]] id = \"{}\" to {}",
            args.provider,
            args.provider,
            args.directory.display()
        );
    }
    let types = match source::read(&args.source)? {
        Ok(types) => types,
        Err(findings) => return Ok(refuse(&findings)),
    };
    let services = check::services_of(&types.pool, &args.services)?;
    if services.is_empty() {
        bail!("there is no service in it");
    }
    let mut findings = check::problems(&types.pool, &services);
    findings.extend(against::register(&register, &types, &services, Some(&args.provider))?);
    if !findings.is_empty() {
        return Ok(refuse(&findings));
    }

    let versions = versions(&register, &types, services, &args.provider)?;
    put(&args.directory, &versions, &args.provider)?;
    tell(args, &register, &types, &versions)?;
    Ok(ExitCode::SUCCESS)
}

fn refuse(findings: &[Finding]) -> ExitCode {
    let code = report::print(findings);
    if findings.iter().any(|finding| finding.against.is_some()) {
        println!(
            "refused: give the new version a package of its own (kg.civil.v2 beside kg.civil.v1), or undo the change"
        );
    } else {
        println!("refused");
    }
    code
}

fn versions(
    register: &Register,
    types: &Types,
    services: Vec<String>,
    provider: &SystemId,
) -> anyhow::Result<Vec<Version>> {
    let version = |service: String| {
        let set = extract(&types.bytes, &[&service])?;
        let offers = register.directory.offers_of(&service);
        let old = offers.iter().find(|offer| offer.provider == *provider).map(|offer| offer.descriptors);
        Ok(Version { key: digest(&set), service, set, old })
    };
    services.into_iter().map(version).collect()
}

/// Writes the sets, then the source, if it then says what it should.
fn put(path: &Path, versions: &[Version], provider: &SystemId) -> anyhow::Result<()> {
    let source = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let changed = versions.iter().filter(|version| version.old != Some(version.key));
    let entries: Vec<Entry> = changed
        .map(|version| Entry {
            service: version.service.clone(),
            provider: provider.to_string(),
            descriptors: set_name(&version.key),
        })
        .collect();
    let edited = edit::with(&source, &entries).with_context(|| path.display().to_string())?;
    for version in versions {
        let file = folder.join(set_name(&version.key));
        write(&file, &version.set, Access::Public, Existing::Replace).with_context(|| file.display().to_string())?;
    }
    // As `directory sign` will read it.
    Directory::from_toml_with(&edited, &mut |name| {
        let bytes = source::bounded(&folder.join(name)).map_err(|error| format!("{error:#}"))?;
        Ok(digest(&bytes))
    })
    .with_context(|| path.display().to_string())?;
    if edited != source {
        write(path, edited.as_bytes(), Access::Public, Existing::Replace)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn tell(args: &Args, register: &Register, types: &Types, versions: &[Version]) -> anyhow::Result<()> {
    for version in versions {
        let Version { service, key, old, .. } = version;
        match old {
            None => println!("added    {service}  {}", hex::encode(key)),
            Some(old) if old == key => println!("as it is {service}  {}", hex::encode(key)),
            Some(old) => {
                println!("changed  {service}  {} -> {}", hex::encode(old), hex::encode(key));
                let (_, before) = register.pool(old)?;
                for addition in breaking::added(&before, &types.pool).list {
                    println!("  + {}: {}", addition.place.name, addition.what);
                }
            }
        }
    }
    let source = args.directory.display();
    if versions.iter().all(|version| version.old == Some(version.key)) {
        println!("{source} has it all already");
    } else {
        println!(
            "\nTo be signed: {source} with the lines above for {}. Raise its version (it is {}), then each of the council:\n  \
             kopuro directory sign --source {source} --key KEY --previous DIRECTORY-IN-FORCE --out NEXT\n\
             Sets of older versions stay beside it: nodes ask for them while a directory in force names them.",
            args.provider, register.directory.version
        );
    }
    Ok(())
}

fn set_name(key: &[u8; 32]) -> String {
    format!("{}.binpb", hex::encode(key))
}
