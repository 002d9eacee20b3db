//! What a node grants another member's systems: `kopuro.node.v1.NodeGrants`, answered here and asked from here.
//!
//! A node tells a listed node which of its grants concern a system of that node's own member, and nobody else's. It is no exchange and
//! makes no entry: there is no personal data in it, and nothing that the published `grants.json` does not tell the world.

use std::sync::{Arc, Weak};
use std::time::Duration;

use prost::Message;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::Gateway;
use super::ask::ask;
use super::view::Peer;
use crate::policy::{self, Allowed, Methods};
use crate::proto::kopuro::catalogue::v1::{self as wire, grant};
use crate::proto::kopuro::node::v1::node_grants_server::NodeGrants;
use crate::proto::kopuro::node::v1::{ListGrantsRequest, ListGrantsResponse};
use crate::trust::certificate::PeerIdentity;
use crate::trust::identity::SystemId;

const PATH: &str = "/kopuro.node.v1.NodeGrants/ListGrants";

/// Questions answered at once, for all peers together.
const AT_ONCE: usize = 16;

/// How long a peer may take to answer, connecting included.
const PATIENCE: Duration = Duration::from_secs(3);

/// The grants of one answer take about so many bytes at most; of more their number is told.
const MOST_BYTES: usize = 1 << 20;

/// The largest answer taken: those, and the framing of each.
const LARGEST_ANSWER: u32 = 2 << 20;

/// The service.
#[derive(Clone)]
pub(super) struct NodeGrantsService {
    gateway: Weak<Gateway>,
    places: Arc<Semaphore>,
}

impl NodeGrantsService {
    pub(super) fn new(gateway: &Arc<Gateway>) -> Self {
        Self { gateway: Arc::downgrade(gateway), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

#[tonic::async_trait]
impl NodeGrants for NodeGrantsService {
    async fn list_grants(&self, request: Request<ListGrantsRequest>) -> Result<Response<ListGrantsResponse>, Status> {
        let gateway = self.gateway.upgrade().ok_or_else(|| Status::unavailable("the node is going down"))?;
        let peer = request.extensions().get::<Arc<PeerIdentity>>().cloned();
        let view = gateway.view();
        let Some(peer) = peer.filter(|peer| view.node(&peer.identity).is_some()) else {
            return Err(Status::permission_denied("this is for nodes that the directory lists"));
        };
        let consumer: SystemId = request
            .into_inner()
            .consumer
            .parse()
            .map_err(|error| Status::invalid_argument(format!("the consumer is no system: {error}")))?;
        if consumer.member() != peer.identity.member() {
            return Err(Status::permission_denied("a node asks for systems of its own member"));
        }
        let _place = self.places.try_acquire().map_err(|_| Status::resource_exhausted("too many questions at once"))?;
        Ok(Response::new(bounded(view.grants.concerning(&consumer).into_iter().map(to_wire))))
    }
}

/// As many as one answer holds.
fn bounded(grants: impl Iterator<Item = wire::Grant>) -> ListGrantsResponse {
    let mut answer = ListGrantsResponse::default();
    let mut bytes = 0;
    for grant in grants {
        bytes += grant.encoded_len();
        if bytes > MOST_BYTES {
            answer.beyond += 1;
        } else {
            answer.grants.push(grant);
        }
    }
    answer
}

/// Asks a provider's node what it grants a system of ours.
pub(super) async fn list(gateway: &Gateway, peer: &Peer, consumer: &SystemId) -> Result<Vec<wire::Grant>, String> {
    let question = ListGrantsRequest { consumer: consumer.to_string() };
    let answer: ListGrantsResponse = ask(gateway, peer, PATH, &question, LARGEST_ANSWER, PATIENCE).await?;
    if answer.beyond > 0 {
        tracing::warn!(peer = %peer.identity, beyond = answer.beyond, "a node has more grants for one system than it tells");
    }
    Ok(answer.grants)
}

/// A grant, as it is told.
pub(super) fn to_wire(grant: &policy::Grant) -> wire::Grant {
    wire::Grant {
        consumer: grant.consumer.to_string(),
        provider: grant.provider.to_string(),
        service: grant.service.clone(),
        methods: match &grant.methods {
            Methods::All => vec!["*".to_owned()],
            Methods::Named(names) => names.iter().cloned().collect(),
        },
        legal_basis: grant.legal_basis.code.clone(),
        legal_basis_text: grant.legal_basis.text.clone(),
        from_unix_ms: grant.from_unix_ms,
        until_unix_ms: grant.until_unix_ms,
        rate: grant.rate.map(|rate| wire::Rate { per_second: rate.per_second.get(), burst: rate.burst.get() }),
        publication: grant.publication.map(|class| class.to_string()).unwrap_or_default(),
        allowed: match &grant.allowed {
            Allowed::Everything => None,
            Allowed::Fields(by_method) => {
                let paths =
                    |paths: &std::collections::BTreeSet<String>| wire::Paths { paths: paths.iter().cloned().collect() };
                let methods = by_method.iter().map(|(method, of)| (method.clone(), paths(of))).collect();
                Some(grant::Allowed::Fields(wire::FieldsByMethod { methods }))
            }
            Allowed::Categories(categories) => {
                Some(grant::Allowed::Categories(wire::Categories { categories: categories.iter().cloned().collect() }))
            }
        },
        name_withheld: grant.name_withheld,
    }
}
