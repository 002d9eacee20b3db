//! The four nodes and their back-ends, in this process, over real sockets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::backends::{Backend, Tls};
use super::federation::{
    CADASTRE_SYSTEM, CIVIL_REGISTRY, Federation, SERVICE_CENTRE, SOCIAL_FUND, SystemFiles, TAX_SERVICE,
};
use super::oversight::PublicCouncil;
use super::population::Population;
use super::traffic::JsonClient;
use crate::cli::call::connection;
use crate::config;
use crate::gateway::Node;
use crate::log::Checkpoint;
use crate::trust::tls::{Credentials, client_config_by_name, only_http1};

/// How long back-ends have to finish once their nodes are gone.
const BACKENDS_LIMIT: Duration = Duration::from_secs(5);

/// What runs.
pub(super) struct Running {
    nodes: Vec<(String, Node)>,
    council: PublicCouncil,
    backends: JoinSet<anyhow::Result<()>>,
    stop_backends: CancellationToken,
}

impl Running {
    /// Starts the back-ends and then the nodes, each of which checks its whole configuration first.
    pub(super) async fn start(federation: &Federation, population: &Arc<Population>) -> anyhow::Result<Self> {
        let stop_backends = CancellationToken::new();
        let mut backends = JoinSet::new();
        let roots = std::fs::read_to_string(federation.root_pem())?;
        for system in federation.members.iter().flat_map(|member| &member.systems) {
            let Some(backend) = Backend::ALL.into_iter().find(|b| system.services.iter().any(|s| s == b.service()))
            else {
                continue;
            };
            let listener = TcpListener::bind(system.backend_address)
                .await
                .with_context(|| format!("{} at {}", system.id, system.backend_address))?;
            let tls = tls(system, &roots)?;
            let (population, stop) = (population.clone(), stop_backends.clone().cancelled_owned());
            backends.spawn(async move { Ok(backend.serve(listener, tls, &population, stop).await?) });
        }
        let council = PublicCouncil::start(federation).await?;
        let mut nodes = Vec::new();
        for member in &federation.members {
            let path = member.node_toml();
            let node = Node::start(config::load(&path)?).await.with_context(|| path.display().to_string())?;
            nodes.push((member.id.to_string(), node));
        }
        Ok(Self { nodes, council, backends, stop_backends })
    }

    /// A connection of each system that asks to its own node.
    pub(super) async fn connect(&self, federation: &Federation) -> anyhow::Result<HashMap<&'static str, Channel>> {
        let mut channels = HashMap::new();
        for name in [CIVIL_REGISTRY, SERVICE_CENTRE, TAX_SERVICE, SOCIAL_FUND, CADASTRE_SYSTEM] {
            let found = federation.system(&name.parse()?);
            let (member, system) = found.with_context(|| format!("{name} is not in the federation"))?;
            let credentials = Credentials::load(&system.pair.certificate, &system.pair.key)?;
            let channel = connection::connect(&member.url(), &[federation.root_pem()], Some(&credentials))
                .await
                .with_context(|| format!("{name} to its node at {}", member.url()))?;
            channels.insert(name, channel);
        }
        Ok(channels)
    }

    /// How the tax service calls its node without gRPC.
    pub(super) fn json_clients(federation: &Federation) -> anyhow::Result<HashMap<&'static str, JsonClient>> {
        let found = federation.system(&TAX_SERVICE.parse()?);
        let (member, system) = found.with_context(|| format!("{TAX_SERVICE} is not in the federation"))?;
        let credentials = Credentials::load(&system.pair.certificate, &system.pair.key)?;
        let tls = client_config_by_name(&[federation.root_pem()], Some(&credentials))?;
        let client = JsonClient { node: member.systems_address, tls: only_http1(&tls) };
        Ok(HashMap::from([(TAX_SERVICE, client)]))
    }

    /// Where the logs stand.
    pub(super) fn checkpoints(&self) -> Vec<(&str, Checkpoint)> {
        let logs = self.nodes.iter().filter_map(|(member, node)| Some((member.as_str(), node.log()?)));
        logs.map(|(member, log)| (member, log.checkpoint().as_ref().clone())).collect()
    }

    /// Waits, for at most so long, until everything that is in the logs now is published.
    pub(super) async fn published(&self, limit: Duration) {
        let all = self.nodes.iter().filter_map(|(_, node)| Some((node.log()?, node.publication()?)));
        let all = all.map(|(log, publication)| async {
            let size = log.checkpoint().size;
            let done = |published: &Option<Arc<Checkpoint>>| published.as_ref().is_some_and(|at| at.size >= size);
            let _ = publication.published().wait_for(done).await;
        });
        let _ = tokio::time::timeout(limit, futures_util::future::join_all(all)).await;
    }

    /// Nodes first, so that what they have under way is answered; they publish their last checkpoints, which the witness cosigns.
    pub(super) async fn stop(mut self) {
        futures_util::future::join_all(self.nodes.into_iter().map(|(_, node)| node.stop())).await;
        self.council.stop().await;
        self.stop_backends.cancel();
        let all = async { while self.backends.join_next().await.is_some() {} };
        if tokio::time::timeout(BACKENDS_LIMIT, all).await.is_err() {
            self.backends.shutdown().await;
        }
    }
}

fn tls(system: &SystemFiles, roots: &str) -> anyhow::Result<Tls> {
    let read = |path: &std::path::Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
    Ok(Tls {
        certificate: read(&system.pair.certificate)?,
        key: read(&system.pair.key)?.into(),
        roots: roots.to_owned(),
    })
}
