//! The rows that are compared: each is a place to send load to and the processes that stand between it and the back-end.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::certs::{CONSUMER_NODE, CONSUMER_SYSTEM, Certificates};
use crate::load::{self, Target};
use crate::nodes::{self, Federation};
use crate::peers;
use crate::process::Process;

pub(crate) const DIRECT: &str = "direct";
pub(crate) const NGINX: &str = "nginx";
pub(crate) const HAPROXY: &str = "haproxy";
pub(crate) const ONE_NODE: &str = "one node";
pub(crate) const TWO_NODES: &str = "two nodes";

/// What is measured beside what.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) target: Target,
    /// What TLS the load generator and the row agree on.
    pub(crate) tls: String,
    /// None for the direct connection.
    pub(crate) processes: Vec<Process>,
}

/// All rows that can run here, the back-end behind them, and why others cannot.
pub(crate) struct Rows {
    pub(crate) rows: Vec<Row>,
    pub(crate) backend: Process,
    pub(crate) skipped: Vec<String>,
}

/// Which rows are asked for: those whose name contains one of these, or all.
#[derive(Debug)]
pub(crate) struct Selection(pub(crate) Vec<String>);

impl Selection {
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|part| name.contains(part))
    }
}

impl Row {
    fn new(name: &'static str, target: Target, processes: Vec<Process>) -> Self {
        Self { name, target, tls: String::new(), processes }
    }
}

impl Rows {
    /// Makes certificates in `folder`, starts what `selection` asks for, and sees each row work.
    pub(crate) async fn start(folder: &Path, selection: &Selection) -> Result<Self> {
        let certificates = Certificates::make(&folder.join("certificates"))?;
        let path = certificates.folder().to_str().context("a folder in UTF-8")?;
        let (backend, addresses) = Process::role("back-end", &["--role", "backend", "--folder", path])?;
        let address = *addresses.first().context("the back-end's address")?;
        let consumer = certificates.client(CONSUMER_SYSTEM)?;
        let as_consumer = |address: SocketAddr| Target { address, tls: consumer.clone(), decorate: None };

        let mut rows = Vec::new();
        let mut skipped = Vec::new();
        if selection.holds(DIRECT) {
            rows.push(Row::new(DIRECT, as_consumer(address), Vec::new()));
        }
        if selection.holds(ONE_NODE) || selection.holds(TWO_NODES) {
            let federation = Federation::make(folder, &certificates, address)?;
            if selection.holds(ONE_NODE) {
                let node = federation.unlogged()?;
                let tls = certificates.client(CONSUMER_NODE)?;
                let target = Target { address: node.nodes, tls, decorate: Some(nodes::as_peer_node()) };
                rows.push(Row::new(ONE_NODE, target, vec![node.process]));
            }
            if selection.holds(TWO_NODES) {
                let [consumer, provider] = federation.both()?;
                let target = as_consumer(consumer.systems);
                rows.push(Row::new(TWO_NODES, target, vec![consumer.process, provider.process]));
            }
        }
        for (name, start) in [(NGINX, peers::nginx as peers::Start), (HAPROXY, peers::haproxy)] {
            if selection.holds(name) {
                match start(folder, &certificates, address)? {
                    Some(peer) => rows.push(Row::new(name, as_consumer(peer.address), vec![peer.process])),
                    None => skipped.push(format!("{name}: not installed here")),
                }
            }
        }
        for row in &mut rows {
            row.tls = load::probe(&row.target).await.with_context(|| format!("{} does not answer", row.name))?;
            let stranger = Target { tls: certificates.stranger()?, ..row.target.clone() };
            ensure!(load::probe(&stranger).await.is_err(), "{} admits a client without a certificate", row.name);
        }
        Ok(Self { rows, backend, skipped })
    }
}
