//! The `kopuro` binary: parses the command line, nothing else.

use std::process::ExitCode;

use clap::Parser;

/// Calls make and drop many small pieces of memory: with the system's allocator that is a sixth of a node's CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match kopuro::cli::run(kopuro::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kopuro: {error:#}");
            ExitCode::FAILURE
        }
    }
}
