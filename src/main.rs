//! The `kopuro` binary: parses the command line, nothing else.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match kopuro::cli::run(kopuro::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kopuro: {error:#}");
            ExitCode::FAILURE
        }
    }
}
