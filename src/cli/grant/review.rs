//! `kopuro grant review`: what a request would open, for the provider's operator; and signing it in.
//!
//! The entry that is written opens nothing that was not asked and signed; it may end earlier and be slower. It is checked with
//! everything else that the node reads, as `kopuro node --check` does, before it is put in place, whole.

use std::io::{IsTerminal, Write as _};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::catalogue::plain;
use super::super::node::BAD_CONFIGURATION;
use crate::config::request::{GrantRequest, NarrowError, SignedRequest, entry_text, narrowed};
use crate::config::{self, ConfigError, Loaded, NodeConfig, Problem, Severity};
use crate::policy::Grant;
use crate::trust::file::{Access, Existing, write};

mod findings;

use findings::Findings;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file that `kopuro grant request` wrote
    #[arg(value_name = "REQUEST")]
    request: PathBuf,
    /// The node's configuration
    #[arg(long, value_name = "FILE", env = "KOPURO_CONFIG", default_value = "node.toml")]
    config: PathBuf,
    /// Last day, or moment: no later than was asked
    #[arg(long, value_name = "DATE")]
    until: Option<String>,
    /// Calls per second: no more than was asked
    #[arg(long, value_name = "NUMBER")]
    rate: Option<NonZeroU32>,
    /// Write the grant without asking first
    #[arg(long)]
    sign_in: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(review(args))
}

async fn review(args: Args) -> anyhow::Result<ExitCode> {
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return Ok(refuse(&error)),
    };
    let loaded = match config::check(&config).await {
        Ok(loaded) => loaded,
        Err(error) => return Ok(refuse(&error)),
    };
    let signed = GrantRequest::open(&args.request, &loaded.anchors)?;
    let grant = match narrowed(&signed.request.grant, args.until.as_deref(), args.rate) {
        Ok(grant) => grant,
        Err(NarrowError::Bound(error)) => return Ok(refuse(&error)),
        Err(error) => return Err(error.into()),
    };
    if grant.provider.member() != &config.node.member {
        bail!("it asks {} for a service, and this is the node of {}", grant.provider.member(), config.node.member);
    }
    let findings = Findings::of(&signed, &grant, &loaded);
    print!("{findings}");
    let entry = entry(&signed, &grant);
    println!("\nThe entry:\n\n{entry}");
    if !findings.obstacles.is_empty() {
        eprintln!("kopuro: it cannot be signed in as it is: see above");
        return Ok(ExitCode::from(BAD_CONFIGURATION));
    }
    if !args.sign_in && !confirmed()? {
        println!("Nothing was written. --sign-in writes the grant; to refuse the request, do nothing.");
        return Ok(ExitCode::SUCCESS);
    }
    let file = config.policy.grants.join(file_name(&signed, &grant));
    if let Err(error) = would_hold(&config, &loaded, &file, &entry).await? {
        return Ok(refuse(&error));
    }
    std::fs::create_dir_all(&config.policy.grants).with_context(|| config.policy.grants.display().to_string())?;
    match write(&file, entry.as_bytes(), Access::Public, Existing::Keep) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{}: this request has been signed in already", file.display())
        }
        written => written.with_context(|| file.display().to_string())?,
    }
    println!("{}: written; a running node takes it up by itself", file.display());
    println!("{} may need a rule in the outbound list of its own node, too.", grant.consumer);
    Ok(ExitCode::SUCCESS)
}

/// On a terminal a person is asked; without one nothing is assumed.
fn confirmed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Ok(false);
    }
    print!("Sign it in? Type yes: ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// The grant, and where it comes from.
fn entry(signed: &SignedRequest, grant: &Grant) -> String {
    let now = OffsetDateTime::now_utc();
    let now = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
    format!(
        "# On the request of {}, SHA-256 {},\n# signed with the certificate {}; signed in {now}.\n{}",
        signed.signer.identity,
        hex::encode(signed.digest),
        signed.signer.serial_hex,
        entry_text(grant)
    )
}

/// The same request has the same name, so that it is not signed in twice.
fn file_name(signed: &SignedRequest, grant: &Grant) -> String {
    let consumer = grant.consumer.to_string().replace('/', "-");
    let service = grant.service.rsplit('.').next().unwrap_or_default();
    format!("{consumer}_{service}_{}.toml", &hex::encode(signed.digest)[..12])
}

/// Whether the node would take all its grants with this one among them: checked in a copy of the folder.
async fn would_hold(
    config: &NodeConfig,
    loaded: &Loaded,
    file: &Path,
    entry: &str,
) -> anyhow::Result<Result<(), ConfigError>> {
    let copy = tempfile::tempdir().context("a folder to check the grants in")?;
    if let Ok(files) = std::fs::read_dir(&config.policy.grants) {
        for file in files {
            let path = file?.path();
            let toml = path.extension().is_some_and(|extension| extension == "toml");
            if let Some(name) = path.file_name().filter(|_| toml) {
                std::fs::copy(&path, copy.path().join(name)).with_context(|| path.display().to_string())?;
            }
        }
    }
    let placed = copy.path().join(file.file_name().unwrap_or_default());
    std::fs::write(&placed, entry).with_context(|| placed.display().to_string())?;
    let mut with_it = config.clone();
    with_it.policy.grants = copy.path().to_owned();
    let problems = match config::check(&with_it).await {
        Err(error) => error.problems,
        Ok(with_it) => with_it.warnings,
    };
    // What was wrong before is told by the node; what this brings must not be.
    let known =
        |problem: &Problem| loaded.warnings.iter().any(|old| old.what == problem.what && old.field == problem.field);
    let mut new: Vec<Problem> = problems
        .into_iter()
        .filter(|problem| problem.severity > Severity::Notice && (problem.file == placed || !known(problem)))
        .collect();
    for problem in &mut new {
        if problem.file.starts_with(copy.path()) {
            problem.file = config.policy.grants.join(problem.file.file_name().unwrap_or_default());
        }
    }
    Ok(if new.is_empty() { Ok(()) } else { Err(ConfigError { problems: new }) })
}

fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("{}", error.problems.iter().map(|problem| plain(&problem.to_string())).collect::<Vec<_>>().join("\n"));
    ExitCode::from(BAD_CONFIGURATION)
}
