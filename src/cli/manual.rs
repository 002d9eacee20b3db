//! `kopuro completions` and `kopuro manual`: what packages install beside the binary, made from the command line's own
//! definition, so that it cannot differ from it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

/// What `kopuro completions` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// For which shell
    shell: Shell,
}

/// What `kopuro manual` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Manual {
    /// Folder for kopuro.1, kopuro-node.1, …; made where it is missing
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// Prints the completions.
pub(super) fn completions(args: &Completions) -> anyhow::Result<std::process::ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kopuro", &mut text);
    std::io::stdout().write_all(&text).context("standard output")?;
    Ok(std::process::ExitCode::SUCCESS)
}

/// Writes a page for every command.
pub(super) fn manual(args: &Manual) -> anyhow::Result<std::process::ExitCode> {
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    clap_mangen::generate_to(Cli::command(), &args.out).with_context(|| args.out.display().to_string())?;
    Ok(std::process::ExitCode::SUCCESS)
}
