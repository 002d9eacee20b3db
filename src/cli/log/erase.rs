//! `kopuro log erase`: destroys private values, in the folder of a stopped node or by way of the one that runs on it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::config;
use crate::log::erasure_request::Request;
use crate::log::index::{Index, IndexOptions};
use crate::log::{Log, LogError, LogOptions};
use crate::trust::note::Signer;

/// How long a running node may take to answer.
const PATIENCE: Duration = Duration::from_secs(300);

/// What `kopuro log erase` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The key K and the private values of the chosen entries are destroyed for good, and an ERASURE entry in the log says so.
The entries stay, and the log verifies. Where a node runs on the folder it is asked to do it. Copies of the folder are
not reached.

Examples:
  kopuro log erase --node-config node.toml --exchange 0193… --basis KG-LAW-58-9
  kopuro log erase --data data --log-key log.key --older-than 1825 --basis KG-LAW-58-12 --reason TERM_OVER")]
#[group(skip)]
pub(super) struct Args {
    /// The node's configuration: its data folder, log key and sealing key
    #[arg(long, value_name = "FILE", conflicts_with = "log_key", required_unless_present = "log_key")]
    node_config: Option<PathBuf>,
    /// The log's key, where there is no configuration; the sealing key is then seal.key in the folder of --data
    #[arg(long, value_name = "FILE")]
    log_key: Option<PathBuf>,
    #[command(flatten)]
    whose: Whose,
    /// Code of the legal basis, shown in the log
    #[arg(long, value_name = "CODE")]
    basis: String,
    /// Reason, shown in the log
    #[arg(long, value_name = "REASON", default_value = "REQUESTED", value_parser = reason)]
    reason: String,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Whose {
    /// All entries of this exchange; may be given several times
    #[arg(long, value_name = "ID")]
    exchange: Vec<Uuid>,
    /// Entries made before this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    before: Option<i64>,
    /// Entries older than so many days
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
}

pub(super) async fn run(args: Args, data: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let now = i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000)?;
    let request = match args.whose {
        Whose { before: Some(before), .. } => Request::before(before, args.basis, args.reason),
        Whose { older_than: Some(days), .. } => {
            Request::before(now - i64::from(days) * 86_400_000, args.basis, args.reason)
        }
        Whose { exchange, .. } => Request::exchanges(exchange, args.basis, args.reason),
    };
    let options = match (args.node_config, args.log_key) {
        (Some(path), _) => {
            let config = config::load(&path)?;
            let folder = data.unwrap_or_else(|| config.node.data.clone());
            LogOptions { sealing_key: config.sealing_key(), ..LogOptions::new(folder, config.log_signers()?) }
        }
        (None, Some(path)) => {
            let Some(folder) = data else { bail!("name the folder with --data") };
            let key = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            LogOptions::new(folder, Signer::from_encoded(&Zeroizing::new(key))?)
        }
        (None, None) => bail!("name the node's configuration, or its log key and folder"),
    };
    let folder = options.folder.clone();
    if !folder.join("head").exists() {
        return Err(LogError::Missing(folder).into());
    }
    let erased = tokio::task::spawn_blocking(move || match Log::open(options) {
        Ok((log, _)) => {
            let index = Index::open(IndexOptions::new(&folder), Arc::new(log.clone()))?;
            index.catch_up()?;
            anyhow::Ok(request.carry_out(&log, &index, now)?)
        }
        Err(LogError::Locked(_)) => Ok(request.ask(&folder, PATIENCE)?),
        Err(error) => Err(error.into()),
    });
    let erased = erased.await??;
    let recorded: Vec<String> = erased.recorded.iter().map(ToString::to_string).collect();
    if recorded.is_empty() {
        println!("nothing to erase: no such entry, or its private values are destroyed already");
    } else {
        println!("erased: private values of {} entries, said in entry {}", erased.entries, recorded.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

fn reason(text: &str) -> Result<String, String> {
    let is_code = !text.is_empty() && text.len() <= 64;
    let is_code =
        is_code && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    if is_code { Ok(text.into()) } else { Err("write it in capitals, digits and _, as REQUESTED".into()) }
}
