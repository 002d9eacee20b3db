//! The commands of the binary, one file each.

use clap::{Parser, Subcommand};

mod backup;
mod call;
mod catalogue;
mod connect;
pub mod demo;
mod directory;
mod doctor;
mod grant;
mod log;
mod manual;
mod monitor;
mod node;
mod pki;
mod portal;
mod restore;
mod schema;
mod status;
mod token;
mod trusted;
mod witness;

/// Interoperability gateway between state bodies: typed gRPC over mutual TLS, every exchange in a verifiable log.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a ministry's node, or check its configuration
    Node(node::Args),
    /// Show a running node at a glance
    Status(status::Args),
    /// Say what ails a node, and what to do
    Doctor(doctor::Args),
    /// Start four ministries with synthetic data and show them exchange
    Demo(demo::Args),
    /// Call a service through a node by hand
    Call(Box<call::Args>),
    /// What a system may call, with fields, legal bases and example requests
    Catalogue(Box<catalogue::Args>),
    /// Ask for a grant, review such a request, list what is granted
    Grant(grant::Args),
    /// Make an encrypted backup of a node's log, or verify one
    Backup(Box<backup::Args>),
    /// Put a backup back
    Restore(Box<restore::Args>),
    /// Query, watch and verify a node's log
    Log(Box<log::Args>),
    /// Follow published logs and report what does not match
    Monitor(Box<monitor::Args>),
    /// Write the public's portal of published logs as a static site
    Portal(portal::Args),
    /// Keys and certificates of a federation
    Pki(pki::Args),
    /// The signed list of members, nodes, systems and services
    Directory(directory::Args),
    /// The types of services, as a register
    Schema(schema::Args),
    /// Cosign the checkpoints of logs, as an independent body
    Witness(witness::Args),
    /// Print completions for a shell
    Completions(manual::Completions),
    /// Write manual pages
    Manual(manual::Manual),
}

/// How long a process that is done waits for a token that does not answer.
const TOKEN_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// Runs the command; the error is what to tell the person who gave it.
pub fn run(cli: Cli) -> anyhow::Result<std::process::ExitCode> {
    let ended = command(cli.command);
    crate::trust::token::wait_until_unused(TOKEN_PATIENCE);
    ended
}

fn command(command: Command) -> anyhow::Result<std::process::ExitCode> {
    match command {
        Command::Node(args) => node::run(args),
        Command::Status(args) => status::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Call(args) => call::run(*args),
        Command::Catalogue(args) => catalogue::run(*args),
        Command::Grant(args) => grant::run(args),
        Command::Backup(args) => backup::run(*args),
        Command::Restore(args) => restore::run(*args),
        Command::Log(args) => log::run(*args),
        Command::Monitor(args) => monitor::run(*args),
        Command::Portal(args) => portal::run(args),
        Command::Pki(args) => pki::run(args),
        Command::Directory(args) => directory::run(args),
        Command::Schema(args) => Ok(schema::run(args)),
        Command::Witness(args) => witness::run(args),
        Command::Completions(args) => manual::completions(&args),
        Command::Manual(args) => manual::manual(&args),
    }
}
