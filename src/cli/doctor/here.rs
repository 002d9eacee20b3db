//! What is on this machine: disk, ports, and how long certificates and directory are good for.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::Finding;
use crate::config::{Loaded, NodeConfig};
use crate::trust::expiry::{Expiry, Mark, span};

/// Above this, every exchange feels the disk.
const SLOW_SYNC: Duration = Duration::from_millis(50);

/// How many syncs are timed.
const SYNCS: usize = 8;

/// Free space against the node's own marks, and how long a sync takes.
pub(super) fn disk(config: &NodeConfig) -> Vec<Finding> {
    let data = config.node.data.as_path();
    let folder = data.ancestors().find(|folder| folder.is_dir()).unwrap_or_else(|| Path::new("."));
    vec![free_space(config, folder), sync_time(folder)]
}

fn free_space(config: &NodeConfig, folder: &Path) -> Finding {
    let free = match rustix::fs::statvfs(folder) {
        Ok(at) => at.f_bavail.saturating_mul(at.f_frsize),
        Err(error) => {
            let says = format!("{}: cannot tell the free space: {error}", folder.display());
            return Finding::bad("disk", says, "name a folder on a working disk in node.data");
        }
    };
    let says = format!("{} free in {}", size(free), folder.display());
    if free < config.log.refuse_free {
        let mark = size(config.log.refuse_free);
        let remedy = format!(
            "below {mark} the log takes no entries and no exchange passes: free space, set [retention], or move node.data"
        );
        Finding::bad("disk", says, remedy)
    } else if free < config.log.warn_free {
        Finding::warning(
            "disk",
            says,
            format!("below {} the log refuses: set [retention], or give it more room", size(config.log.refuse_free)),
        )
    } else {
        Finding::good("disk", says)
    }
}

/// The median of a few small writes, each synced: every exchange waits for one.
fn sync_time(folder: &Path) -> Finding {
    let timed = || -> std::io::Result<Duration> {
        let mut file = tempfile::tempfile_in(folder)?;
        let mut took = Vec::with_capacity(SYNCS);
        for _ in 0..SYNCS {
            let began = Instant::now();
            file.write_all(&[0; 4_096])?;
            file.sync_data()?;
            took.push(began.elapsed());
        }
        took.sort_unstable();
        Ok(took[SYNCS / 2])
    };
    match timed() {
        Ok(took) if took > SLOW_SYNC => {
            let says = format!("a sync in {} takes {} ms", folder.display(), took.as_millis());
            Finding::warning(
                "disk",
                says,
                "every exchange waits for one: use a local disk, not a network one, and see what else uses it",
            )
        }
        Ok(took) => Finding::good("disk", format!("a sync takes {:.1} ms", took.as_secs_f64() * 1_000.0)),
        Err(error) => {
            let says = format!("{} cannot be written: {error}", folder.display());
            Finding::bad("disk", says, "make it a folder that the node's user may write, or correct node.data")
        }
    }
}

/// Each listener's address is free, or this very node has it.
pub(super) async fn ports(config: &NodeConfig) -> Vec<Finding> {
    let running = is_running(config.listen.admin).await;
    let publication = config.publish.as_ref().and_then(|publish| publish.listen);
    let listeners = [
        ("listen.systems", Some(config.listen.systems)),
        ("listen.nodes", Some(config.listen.nodes)),
        ("listen.admin", Some(config.listen.admin)),
        ("publish.listen", publication),
    ];
    let told = listeners.into_iter().filter_map(|(field, address)| Some(port(field, address?, running)));
    let mut findings: Vec<Finding> = told.collect();
    if running {
        findings.insert(0, Finding::good("node", format!("it runs: http://{}/healthz answers", config.listen.admin)));
    }
    findings
}

fn port(field: &str, address: SocketAddr, running: bool) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) if running => {
            let says = format!("{address} is free, though the node runs");
            Finding::warning(
                field,
                says,
                "the node that runs has another configuration: restart it, or name its own with --config",
            )
        }
        Ok(_) => Finding::good(field, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && running => {
            Finding::good(field, format!("{address} is the running node's"))
        }
        Err(error) => {
            let remedy = match error.kind() {
                ErrorKind::AddrInUse => format!(
                    "another process has it: `ss -ltnp 'sport = :{}'` says which; stop it or choose another port",
                    address.port()
                ),
                ErrorKind::PermissionDenied => {
                    "choose a port above 1023, or give the service CAP_NET_BIND_SERVICE".into()
                }
                ErrorKind::AddrNotAvailable => {
                    "this machine does not have that address: correct it, or use 0.0.0.0".into()
                }
                _ => "choose another address".into(),
            };
            Finding::bad(field, format!("{address}: {error}"), remedy)
        }
    }
}

/// Whether the admin address answers as a node does.
async fn is_running(admin: SocketAddr) -> bool {
    let mut address = admin;
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    super::there::get(&format!("http://{address}/healthz"), None).await.is_ok()
}

/// Certificates, CRLs and directory.
pub(super) fn expiries(loaded: &Loaded) -> Vec<Finding> {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let mut findings: Vec<Finding> = loaded.expiries.iter().map(|expiry| finding(expiry, now)).collect();
    if loaded.anchors.crls().is_empty() {
        let remedy =
            "name the root's and every member's list in tls.crls: without them a revoked certificate goes on working";
        findings.push(Finding::warning("revocation lists", "none is configured", remedy));
    }
    findings
}

fn finding(expiry: &Expiry, now: i64) -> Finding {
    match expiry.warning(now) {
        None => Finding::good(expiry.what, format!("{} is good for {}", expiry.name, span(expiry.until_unix - now))),
        Some(warning) if warning.mark < Mark::Day => Finding::warning(expiry.what, warning.says(), &expiry.remedy),
        Some(warning) => Finding::bad(expiry.what, warning.says(), &expiry.remedy),
    }
}

fn size(bytes: u64) -> String {
    if bytes >= 1 << 30 {
        format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}
