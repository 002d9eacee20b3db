//! `kopuro schema diff`: what a new version adds, and what it breaks.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::report::{self, Added, Finding};
use super::source::{self, Source, Types};
use crate::schema::breaking::{added, breaking};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The old version: a descriptor set, a .proto file, or a folder of them
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The new version
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Where the imports of .proto files lie
    #[arg(short = 'I', long = "include", value_name = "FOLDER")]
    includes: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Differences {
    added: Vec<Added>,
    breaking: Vec<Finding>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (old, new) = (read(args, &args.old)?, read(args, &args.new)?);
    let news = added(&old.pool, &new.pool);
    let beyond = news.beyond;
    let differences = Differences {
        added: news.list.into_iter().map(Added::from).collect(),
        breaking: report::breaks(breaking(&old.pool, &new.pool), None),
    };
    let code = if differences.breaking.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if args.json {
        report::json(&differences)?;
        return Ok(code);
    }
    for addition in &differences.added {
        println!("+ {addition}");
    }
    if beyond > 0 {
        println!("+ and {beyond} more");
    }
    for broken in &differences.breaking {
        println!("! {broken}");
    }
    if differences.breaking.is_empty() {
        println!("{}", if differences.added.is_empty() { "no difference" } else { "nothing breaks" });
    } else {
        println!("it breaks what is built with the old version: give it a package of its own");
    }
    Ok(code)
}

fn read(args: &Args, path: &std::path::Path) -> anyhow::Result<Types> {
    let source = Source { sets: vec![path.to_owned()], includes: args.includes.clone() };
    source::read(&source)?.map_err(|faults| {
        let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}: {}", path.display(), words.join("; "))
    })
}
