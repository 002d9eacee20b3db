//! `kopuro schema`: the types of services as a register. Descriptor sets enter a directory by digest, versions side by
//! side, and what would break those who were built with an older version is refused.

mod add;
mod against;
mod check;
mod diff;
mod edit;
mod list;
mod register;
mod report;
mod show;
mod source;

use std::process::ExitCode;

use clap::Subcommand;

/// The types of services: check them, compare them, put them into a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code: 0 all is well (for diff: nothing breaks), 1 something is wrong or breaks, 2 a file or flag cannot be used.

Examples:
  Before an agency sends its types to the council; .proto files are compiled here, without protoc:
    kopuro schema check proto/kg/civil/v1/civil_registry.proto --against directory.toml
    kopuro schema diff old.binpb proto/
  The council's secretary puts them into the directory's source, and the council signs it:
    kopuro schema add proto/ --directory directory.toml --provider KG/GOV/70000005/civil-registry
    kopuro directory sign --source directory.toml --key ombudsman.key --previous directory.v6 --out directory.v7
  What a directory has:
    kopuro schema list --directory directory.v7
    kopuro schema show 6f0b1c2d --directory directory.v7 --service kg.civil.v1.CivilRegistry")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check types: well formed, annotated rightly, and nothing broken of what there is
    Check(check::Args),
    /// Put services into directory.toml, or new versions of them
    Add(add::Args),
    /// The services of a directory
    List(list::Args),
    /// What a descriptor set defines
    Show(show::Args),
    /// What a new version adds and breaks
    Diff(diff::Args),
}

pub(super) fn run(args: Args) -> ExitCode {
    let done = match args.command {
        Command::Check(args) => check::run(&args),
        Command::Add(args) => add::run(&args),
        Command::List(args) => list::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Diff(args) => diff::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("kopuro: {error:#}");
        ExitCode::from(2)
    })
}
