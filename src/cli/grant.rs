//! `kopuro grant`: asking for a grant, reviewing such a request, and what is granted.
//!
//! A consumer's system asks: `request` writes a signed file. The provider's operator decides: `review` shows what the request would
//! open that is not open yet, and signs it in as a file of the grants folder, which the running node takes up by itself.

mod request;
mod review;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use comfy_table::{ContentArrangement, Table, presets};

use super::catalogue::plain;
use crate::config::request::{bound_text, entry_text};
use crate::config::{self, ConfigError};
use crate::policy::{Allowed, Grant, Methods};

/// What `kopuro grant` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  A system asks (its client configuration is that of `kopuro call`):
    kopuro grant request --config call.toml --service kg.civil.v1.CivilRegistry --methods GetPerson \\
        --categories identity --purpose tax-code-52 --reason 'To address tax notices' --contact 'A. Asanova, +996 …'
  The provider's operator reviews the file, and signs it in:
    kopuro grant review grant-request.toml --config node.toml
    kopuro grant review grant-request.toml --config node.toml --until 2027-12-31 --rate 20 --sign-in
  What is granted:
    kopuro grant list --config node.toml
    kopuro grant show KG/GOV/70000006/tax-service --config node.toml")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a signed request for a grant, for the provider's operator
    Request(Box<request::Args>),
    /// Show what a request would open, and sign it in
    Review(review::Args),
    /// List the grants of a node
    List(List),
    /// Show the grants of one consumer, as they are written
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct List {
    /// The node's configuration
    #[arg(long, value_name = "FILE", env = "KOPURO_CONFIG", default_value = "node.toml")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// A system or a member
    #[arg(value_name = "CONSUMER")]
    consumer: String,
    /// The node's configuration
    #[arg(long, value_name = "FILE", env = "KOPURO_CONFIG", default_value = "node.toml")]
    config: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Request(args) => request::run(*args),
        Command::Review(args) => review::run(args),
        Command::List(args) => list(&args.config),
        Command::Show(args) => show(&args),
    }
}

fn list(config: &Path) -> anyhow::Result<ExitCode> {
    let mut grants = granted(config)?;
    grants.sort_by(|a, b| (&a.service, &a.consumer).cmp(&(&b.service, &b.consumer)));
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "consumer",
        "service",
        "provider",
        "methods",
        "legal basis",
        "opens",
        "from",
        "until",
        "rate",
        "published",
    ]);
    for grant in &grants {
        table.add_row([
            grant.consumer.to_string(),
            grant.service.clone(),
            grant.provider.to_string(),
            methods(&grant.methods),
            plain(&grant.legal_basis.code),
            opens(&grant.allowed),
            grant.from_unix_ms.map_or_else(|| "–".to_owned(), |from| bound_text(from, false)),
            grant.until_unix_ms.map_or_else(|| "–".to_owned(), |until| bound_text(until, true)),
            grant.rate.map_or_else(|| "–".to_owned(), |rate| format!("{}/s", rate.per_second)),
            grant.publication.map_or_else(|| "as the method says".to_owned(), |class| class.to_string()),
        ]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

fn show(args: &Show) -> anyhow::Result<ExitCode> {
    let grants = granted(&args.config)?;
    let of_consumer: Vec<&Grant> = grants
        .iter()
        .filter(|grant| {
            grant.consumer.to_string() == args.consumer || grant.consumer.member().as_str() == args.consumer
        })
        .collect();
    if of_consumer.is_empty() {
        anyhow::bail!("nothing is granted to {}", plain(&args.consumer));
    }
    for grant in of_consumer {
        println!("{}", entry_text(grant));
    }
    Ok(ExitCode::SUCCESS)
}

fn granted(config: &Path) -> Result<Vec<Grant>, ConfigError> {
    let config = config::load(config)?;
    config::load_grants(&config.policy.grants, &config.node.member)
}

/// In a word.
fn methods(methods: &Methods) -> String {
    match methods {
        Methods::All => "all".to_owned(),
        Methods::Named(names) => names.iter().cloned().collect::<Vec<_>>().join(", "),
    }
}

/// In a word.
fn opens(allowed: &Allowed) -> String {
    match allowed {
        Allowed::Everything => "everything".to_owned(),
        Allowed::Categories(categories) => {
            let named: Vec<String> = categories.iter().map(|category| plain(category)).collect();
            format!("categories {}", named.join(", "))
        }
        Allowed::Fields(by_method) => {
            let named = by_method.iter().map(|(method, paths)| {
                format!("{method}: {}", paths.iter().map(|path| plain(path)).collect::<Vec<_>>().join(", "))
            });
            named.collect::<Vec<_>>().join("; ")
        }
    }
}
