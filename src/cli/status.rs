//! `kopuro status`: a running node at a glance, from its admin address.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use time::OffsetDateTime;
use time::macros::format_description;

use super::doctor::there;
use crate::config;
use crate::gateway::status::{DestinationStatus, NodeStatus};
use crate::telemetry::RefusalSeen;

/// How many refusals are shown.
const SHOWN: usize = 8;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The node's configuration, which names its admin address
    #[arg(long, value_name = "FILE", env = "KOPURO_CONFIG", default_value = "node.toml")]
    config: PathBuf,
    /// The admin address itself, without a configuration
    #[arg(long, value_name = "ADDRESS", env = "KOPURO_ADMIN")]
    admin: Option<SocketAddr>,
    /// Print the JSON that the node tells
    #[arg(long)]
    json: bool,
}

/// Exits 0 where the node is ready, 1 where it is not.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let address = reachable(match args.admin {
        Some(address) => address,
        None => config::load(&args.config)?.listen.admin,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let url = format!("http://{address}/status");
    let (_, body, _) = match runtime.block_on(there::get(&url, None)) {
        Ok(answer) => answer,
        Err(error) => bail!("{url}: {error}; is the node running? `kopuro doctor` says more"),
    };
    let mut out = std::io::stdout().lock();
    let status: NodeStatus = serde_json::from_slice(&body).with_context(|| format!("{url}: no status of a node"))?;
    if args.json {
        writeln!(out, "{}", String::from_utf8_lossy(&body))?;
    } else {
        out.write_all(glance(&status, OffsetDateTime::now_utc()).as_bytes())?;
    }
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An address that listens on all interfaces is asked on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { IpAddr::V6(Ipv6Addr::LOCALHOST) });
    }
    address
}

fn glance(status: &NodeStatus, now: OffsetDateTime) -> String {
    let ready = if status.ready { "ready" } else { "NOT READY: no exchange passes" };
    let mut out = format!("{}  {ready}, up {}, kopuro {}\n", status.node, span(status.up_seconds), status.version);
    for (name, reason) in &status.conditions {
        out += &format!("  ! {name}: {reason}\n");
    }
    let mut line = |name: &str, text: String| out += &format!("{name:<12} {text}\n");
    if let Some(log) = &status.log {
        let pruned = if log.first > 0 { format!(", the first {} pruned", log.first) } else { String::new() };
        line(
            "log",
            format!("{} entries{pruned}, root {}…  {}", log.entries, &log.root[..log.root.len().min(16)], log.origin),
        );
        if log.keys.len() > 1 {
            line("log keys", format!("{}: the key is being changed", log.keys.join(" and ")));
        }
        if let Some(published) = &status.published {
            line(
                "published",
                format!("{} entries, {} to go", published.entries, log.entries.saturating_sub(published.entries)),
            );
        }
    }
    let left = |until: i64| until - now.unix_timestamp();
    line("certificate", ends(left(status.certificate_until_unix)));
    if let Some(until) = status.crl_until_unix {
        line("revocation", format!("the first list: {}", ends(left(until))));
    }
    line("directory", format!("version {}, {}", status.directory.version, ends(left(status.directory.until_unix))));
    line("exchanges", format!("{} running, {} grants in force", status.in_flight, status.grants));
    out += &destinations("peer", &status.peers);
    out += &destinations("back-end", &status.backends);
    out += &refusals(&status.refusals);
    out
}

fn destinations(kind: &str, destinations: &[DestinationStatus]) -> String {
    if destinations.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([kind, "address", "connections", "state"]);
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for destination in destinations {
        let state = match destination {
            DestinationStatus { contradicts: true, .. } => "REFUSED: its log contradicts itself",
            DestinationStatus { failing: true, .. } => "unreachable just now",
            DestinationStatus { connections: 0, .. } => "not connected (nothing to carry)",
            _ => "connected",
        };
        let connections = destination.connections.to_string();
        table.add_row([destination.name.as_str(), destination.address.as_str(), connections.as_str(), state]);
    }
    format!("\n{table}\n")
}

fn refusals(refusals: &[RefusalSeen]) -> String {
    if refusals.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "last refusals",
        "reason",
        "asked by",
        "asked for",
        "of",
    ]);
    let time = format_description!("[hour]:[minute]:[second]");
    for refusal in refusals.iter().rev().take(SHOWN) {
        let at = OffsetDateTime::from_unix_timestamp(refusal.time_unix_ms / 1_000).ok();
        let at = at.and_then(|at| at.format(&time).ok()).unwrap_or_default();
        table.add_row([at.as_str(), &refusal.reason, &refusal.consumer, &refusal.method, &refusal.provider]);
    }
    format!("\n{table}\n")
}

fn ends(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(left) => format!("{} left", span(left)),
        Err(_) => "ENDED".into(),
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        172_800.. => format!("{} days", seconds / 86_400),
        7_200.. => format!("{} h", seconds / 3_600),
        120.. => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}
