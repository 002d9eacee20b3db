//! Everything that reloads together: directory, types, grants, outbound list, certificates, and the connections made with them. A
//! new view replaces the old one whole; calls under way keep the one they began with. Connections are taken over where nothing of
//! what they were made with has changed: address, own certificate, and by whom the other end's is judged.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Loaded, LoadedBackend, NodeConfig, Protocol};
use crate::oversight::subject::{self, NotPermitted};
use crate::policy::{Denial, Grant, Grants, Outbound};
use crate::schema::{Catalogue, Method};
use crate::trust::certificate::Anchors;
use crate::trust::directory::Directory;
use crate::trust::expiry::Expiry;
use crate::trust::identity::{Identity, MemberId, SystemId};
use crate::trust::tls::{self, Credentials};

use super::exchange::unix_ms;
use super::forward::Hop;
use super::grant_plans::GrantPlans;
use super::http_json::HttpJson;
use super::leg::Next;
use super::node::NodeError;
use super::peer_log::{PeerLog, PeerLogs};
use super::refusal::Refusal;
use super::upstream::{Connections, Upstream, UpstreamLimits};

/// What a proof may add to a call's headers between nodes.
pub(super) const PROOF_ROOM: u32 = 8 << 10;

/// What a node goes by.
#[derive(Debug)]
pub(crate) struct View {
    pub(super) member: MemberId,
    pub(super) directory: Arc<Directory>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) grants: Arc<Grants>,
    pub(super) plans: GrantPlans,
    pub(super) outbound: Arc<Outbound>,
    pub(super) credentials: Arc<Credentials>,
    pub(super) anchors: Arc<Anchors>,
    /// Of the nodes' listener.
    pub(super) server: Arc<rustls::ServerConfig>,
    /// Of the systems' listener.
    pub(super) systems_server: Arc<rustls::ServerConfig>,
    /// The last second at which the node's own chain is valid.
    pub(super) certificate_until_unix: i64,
    /// What the node lives by and when that ends.
    pub(super) expiries: Arc<[Expiry]>,
    peers: HashMap<MemberId, Vec<Peer>>,
    backends: HashMap<SystemId, (LoadedBackend, Backend)>,
}

/// A system of this member, by what it speaks.
#[derive(Debug, Clone)]
pub(super) enum Backend {
    Grpc(Arc<Upstream>),
    HttpJson(Arc<HttpJson>),
}

/// Another member's node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) identity: Identity,
    pub(super) upstream: Arc<Upstream>,
    pub(super) log: Arc<PeerLog>,
}

impl View {
    /// From what configuration has loaded and checked. Its connections are among `connections`, its peers' logs among `logs`. What
    /// goes on unchanged is `previous`'s, which was made with the same configuration.
    pub(super) fn new(
        config: &NodeConfig,
        loaded: &Loaded,
        connections: &Connections,
        logs: &PeerLogs,
        previous: Option<&Self>,
    ) -> Result<Self, NodeError> {
        let limits = UpstreamLimits {
            connections: config.limits.connections_per_peer.get(),
            workers: config.limits.workers.get(),
            connect_timeout: config.limits.connect_timeout,
            keepalive_interval: config.limits.keepalive_interval,
            keepalive_timeout: config.limits.keepalive_timeout,
            header_list: u32::try_from(config.limits.metadata).unwrap_or(u32::MAX),
        };
        // What a caller may send, and the proof besides.
        let with_proof = UpstreamLimits { header_list: limits.header_list.saturating_add(PROOF_ROOM), ..limits };
        let same_certificate = previous.filter(|previous| previous.credentials == loaded.credentials);
        let same_tls = same_certificate.filter(|previous| previous.anchors == loaded.anchors);
        let mut peers: HashMap<MemberId, Vec<Peer>> = HashMap::new();
        for node in loaded.directory.nodes.iter().filter(|node| node.member != config.node.member) {
            let known = same_tls.and_then(|previous| previous.node(&node.identity()));
            let known = known.filter(|peer| peer.upstream.address() == node.endpoint);
            let upstream = match known {
                Some(peer) => peer.upstream.clone(),
                None => {
                    let tls = tls::client_config(&loaded.credentials, &loaded.anchors, node.identity())?;
                    let (name, address) = (node.identity().to_string(), node.endpoint.clone());
                    Arc::new(Upstream::new(name, address, Some(tls), with_proof, connections.clone())?)
                }
            };
            let peer = Peer { identity: node.identity(), upstream, log: logs.of(node) };
            peers.entry(node.member.clone()).or_default().push(peer);
        }
        let mut backends = HashMap::new();
        for (system, backend) in &loaded.backends {
            let known = same_certificate.and_then(|previous| previous.backends.get(system));
            if let Some(same) = known.filter(|(made_of, _)| made_of == backend) {
                backends.insert(system.clone(), same.clone());
                continue;
            }
            let identity = Identity::System(system.clone());
            let tls = match backend.endpoint.tls {
                true => Some(tls::client_config(&loaded.credentials, &backend.anchors, identity)?),
                false => None,
            };
            let address = backend.endpoint.authority();
            let (name, all) = (system.to_string(), connections.clone());
            let made = match backend.protocol {
                Protocol::Grpc => Backend::Grpc(Arc::new(Upstream::new(name, address, tls, limits, all)?)),
                Protocol::HttpJson => {
                    Backend::HttpJson(Arc::new(HttpJson::new(name, &backend.endpoint, tls, limits, all)?))
                }
            };
            backends.insert(system.clone(), (backend.clone(), made));
        }
        Ok(Self {
            member: config.node.member.clone(),
            directory: loaded.directory.clone(),
            catalogue: loaded.catalogue.clone(),
            plans: GrantPlans::new(
                &loaded.grants,
                &loaded.catalogue,
                previous.map(|previous| (&*previous.grants, &previous.plans)),
            ),
            grants: loaded.grants.clone(),
            outbound: loaded.outbound.clone(),
            credentials: loaded.credentials.clone(),
            anchors: loaded.anchors.clone(),
            server: loaded.server_tls.clone(),
            systems_server: tls::with_http1(&loaded.server_tls),
            certificate_until_unix: loaded.certificate_until_unix,
            expiries: loaded.expiries.clone(),
            peers,
            backends,
        })
    }

    /// A member's node: of several, one that is connected, or else one that did not just fail.
    pub(super) fn peer(&self, member: &MemberId) -> Option<&Peer> {
        let nodes = self.peers.get(member)?;
        nodes
            .iter()
            .find(|node| node.upstream.open_connections() > 0)
            .or_else(|| nodes.iter().find(|node| !node.upstream.has_just_failed()))
            .or_else(|| nodes.first())
    }

    /// The node with this identity.
    pub(super) fn node(&self, identity: &Identity) -> Option<&Peer> {
        self.peers.get(identity.member())?.iter().find(|node| node.identity == *identity)
    }

    /// That node's log.
    pub(super) fn log_of(&self, identity: &Identity) -> Option<&Arc<PeerLog>> {
        self.node(identity).map(|node| &node.log)
    }

    /// The grant that lets a caller call a service of the node's own: subject access, openings.
    pub(super) fn own_grant(
        &self,
        caller: &Identity,
        service: &str,
        method: &str,
        purpose: Option<&str>,
    ) -> Result<Grant, NotPermitted> {
        let Identity::System(system) = caller else { return Err(Denial::NoGrant.into()) };
        if !self.directory.has_system(system) {
            let text = format!("{system} is not listed in the directory");
            return Err(NotPermitted { code: tonic::Code::Unauthenticated, reason: "NOT_IN_DIRECTORY", text });
        }
        let node = self.member.system(subject::PROVIDER).map_err(|_| Denial::NoGrant)?;
        Ok(self.grants.decide(system, &node, service, method, purpose, unix_ms()).cloned()?)
    }

    /// For which of them it has such a grant now.
    pub(super) fn own_callable(&self, system: &SystemId) -> Vec<String> {
        let granted = self.grants.callable_by(system, unix_ms());
        granted.into_keys().filter(|name| subject::methods(name).is_some()).map(str::to_owned).collect()
    }

    /// All other members' nodes, in no order.
    pub(super) fn all_peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().flatten()
    }

    /// All systems of this member that calls go to, in no order.
    pub(super) fn all_backends(&self) -> impl Iterator<Item = (&SystemId, &Backend)> {
        self.backends.iter().map(|(system, (_, backend))| (system, backend))
    }

    /// A system of this member.
    pub(super) fn backend(&self, system: &SystemId) -> Option<&Backend> {
        self.backends.get(system).map(|(_, backend)| backend)
    }
}

impl Backend {
    /// Address, open connections, and whether it could be reached when that was last tried.
    pub(super) fn standing(&self) -> (&str, usize, Option<bool>) {
        match self {
            Self::Grpc(upstream) => upstream.standing(),
            Self::HttpJson(backend) => backend.standing(),
        }
    }

    /// Tries to connect where it was connected, or was to be, and is not.
    pub(super) async fn look(&self) {
        match self {
            Self::Grpc(upstream) => upstream.look().await,
            Self::HttpJson(backend) => backend.look().await,
        }
    }

    /// As the next hop of a call of this method.
    pub(super) fn next(&self, method: &Method, hop: Hop) -> Result<Next, Refusal> {
        match self {
            Self::Grpc(upstream) => Ok(Next::Remote(upstream.clone(), hop)),
            Self::HttpJson(_) if method.client_streaming => Err(Refusal::backend_cannot_stream(&method.path)),
            Self::HttpJson(backend) => Ok(Next::HttpJson(backend.clone(), hop)),
        }
    }
}
