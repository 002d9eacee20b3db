//! What nodes ask each other of their logs: `kopuro.node.v1.NodeLog`, answered here, and asked here of every peer whose checkpoints wait
//! for a proof. A contradiction that comes to light is kept, recorded and told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::Gateway;
use super::ask;
use super::exchange::unix_ms;
use super::peer_log::{Contradiction, PeerLog, SIZES};
use super::recorder::Recorder;
use super::view::Peer;
use crate::log::entry::{Draft, ExchangeKey, Kind, Publication};
use crate::log::entry_proof;
use crate::log::tree::{Hash, concatenated};
use crate::log::{Log, LogError};
use crate::proto::kopuro::node::v1::node_log_server::NodeLog;
use crate::proto::kopuro::node::v1::{
    ConsistencyProof, LatestCheckpointRequest, LatestCheckpointResponse, ProveConsistencyRequest,
    ProveConsistencyResponse,
};
use crate::telemetry::{self, Status as Condition};
use crate::trust::certificate::PeerIdentity;
use crate::trust::identity::Identity;

const PATH: &str = "/kopuro.node.v1.NodeLog/ProveConsistency";
const LATEST: &str = "/kopuro.node.v1.NodeLog/LatestCheckpoint";

/// Questions answered at once, for all peers together: each is a few hundred hashes.
const AT_ONCE: usize = 4;

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Before a question, so that those which come together are asked about together.
const GATHER: Duration = Duration::from_millis(100);

/// After an answer that proves nothing, before asking again; doubled up to the second.
const PAUSE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// The largest answer taken: as many proofs as can be asked for, of 64 hashes at the most.
const LARGEST_ANSWER: u32 = 65 * 2 * 64 * 32;

/// The largest answer to who asks for its own latest checkpoint: three notes.
const LARGEST_LATEST: u32 = 256 << 10;

/// The log of a caller that the directory in force lists as a node.
pub(super) type LogOf = Arc<dyn Fn(&Identity) -> Option<Arc<PeerLog>> + Send + Sync>;

/// The service.
#[derive(Clone)]
pub(super) struct NodeLogService {
    log: Log,
    log_of: LogOf,
    places: Arc<Semaphore>,
}

impl NodeLogService {
    pub(super) fn new(log: Log, log_of: LogOf) -> Self {
        Self { log, log_of, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The caller's log, where the caller is a node.
    fn caller<R>(&self, request: &Request<R>) -> Result<Arc<PeerLog>, Status> {
        let peer = request.extensions().get::<Arc<PeerIdentity>>();
        let log = peer.and_then(|peer| (self.log_of)(&peer.identity));
        log.ok_or_else(|| Status::permission_denied("this is for nodes that the directory lists"))
    }
}

#[tonic::async_trait]
impl NodeLog for NodeLogService {
    async fn prove_consistency(
        &self,
        request: Request<ProveConsistencyRequest>,
    ) -> Result<Response<ProveConsistencyResponse>, Status> {
        self.caller(&request)?;
        let sizes = request.into_inner().sizes;
        if !(2..=SIZES).contains(&sizes.len()) || !sizes.is_sorted() {
            return Err(Status::invalid_argument(format!("2 to {SIZES} sizes, ascending")));
        }
        let place = tokio::time::timeout(PATIENCE, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(Status::resource_exhausted("too many questions at once")) };
        let log = self.log.clone();
        let proving = tokio::task::spawn_blocking(move || {
            let _place = place;
            log.consistency_proofs(&sizes)
        });
        let proofs = proving.await.map_err(|_| Status::internal("the proofs could not be made"))?;
        let proofs = proofs.map_err(|error| match error {
            LogError::Beyond { .. } => Status::out_of_range(error.to_string()),
            // No wrong proof, but none: the asker goes on asking, and whoever wants to know has the published tiles.
            LogError::Pruned { .. } => Status::failed_precondition(error.to_string()),
            error => {
                tracing::error!(%error, "a peer's question could not be answered from the log");
                Status::internal("the log cannot be read")
            }
        })?;
        let proofs = proofs.iter().map(|hashes| ConsistencyProof { path: concatenated(hashes) }).collect();
        Ok(Response::new(ProveConsistencyResponse { proofs }))
    }

    async fn latest_checkpoint(
        &self,
        request: Request<LatestCheckpointRequest>,
    ) -> Result<Response<LatestCheckpointResponse>, Status> {
        let log = self.caller(&request)?;
        let place = tokio::time::timeout(PATIENCE, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(Status::resource_exhausted("too many questions at once")) };
        let answering = tokio::task::spawn_blocking(move || {
            let _place = place;
            let checkpoint = log.latest().map(|checkpoint| checkpoint.note.clone()).unwrap_or_default();
            LatestCheckpointResponse { checkpoint, contradicting: log.evidence() }
        });
        let answer = answering.await.map_err(|_| Status::internal("the checkpoint could not be looked up"))?;
        Ok(Response::new(answer))
    }
}

/// The checkpoints of this node's own log that a peer has been shown: the latest, and what it holds as evidence.
pub(super) async fn shown_to(gateway: &Gateway, peer: &Peer) -> Result<Vec<String>, String> {
    let request = LatestCheckpointRequest {};
    let answer: LatestCheckpointResponse = ask::ask(gateway, peer, LATEST, &request, LARGEST_LATEST, PATIENCE).await?;
    let latest = Some(answer.checkpoint).filter(|note| !note.is_empty());
    Ok(latest.into_iter().chain(answer.contradicting).collect())
}

/// Asks peers for the proofs that their checkpoints wait for, and sees to contradictions, until stopped.
pub(super) async fn follow(
    gateway: Arc<Gateway>,
    mut found: mpsc::Receiver<Contradiction>,
    health: telemetry::Health,
    stop: CancellationToken,
) {
    tell(&gateway, &health);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = gateway.peer_logs.changed() => {
                for log in gateway.peer_logs.to_ask() {
                    let (gateway, stop) = (gateway.clone(), stop.clone());
                    tokio::spawn(async move { stop.run_until_cancelled(ask_until_proven(&gateway, &log)).await });
                }
            }
            Some(contradiction) = found.recv() => {
                record(&gateway, contradiction).await;
                tell(&gateway, &health);
            }
        }
    }
}

/// Asks one peer until nothing of it waits.
async fn ask_until_proven(gateway: &Gateway, log: &Arc<PeerLog>) {
    let mut pause = PAUSE[0];
    loop {
        if log.pending() < SIZES {
            tokio::time::sleep(GATHER).await;
        }
        let Some(asked) = log.question() else { return };
        let sizes = asked.iter().map(|checkpoint| checkpoint.size).collect();
        let proven = match prove(gateway, log.node(), sizes).await {
            Ok(proofs) => log.answer(&asked, &proofs),
            Err(error) => {
                tracing::warn!(peer = %log.node(), %error, "a peer does not prove its log's consistency");
                false
            }
        };
        gateway.metrics.peer_proofs(proven, log.pending());
        if proven {
            pause = PAUSE[0];
            if log.is_to_keep() {
                let log = log.clone();
                tell_kept(tokio::task::spawn_blocking(move || log.keep()).await);
            }
        } else {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE[1]);
        }
    }
}

async fn prove(gateway: &Gateway, node: &Identity, sizes: Vec<u64>) -> Result<Vec<Vec<Hash>>, String> {
    let view = gateway.view();
    let peer = view.node(node).ok_or("the directory lists no such node any more")?;
    let request = ProveConsistencyRequest { sizes };
    let answer: ProveConsistencyResponse = ask::ask(gateway, peer, PATH, &request, LARGEST_ANSWER, PATIENCE).await?;
    let proofs = answer.proofs.iter().map(|proof| entry_proof::hashes(&proof.path));
    proofs.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// Keeps what is proven of all peers' logs, for the next start.
pub(super) async fn keep(gateway: &Arc<Gateway>) {
    let gateway = gateway.clone();
    tell_kept(tokio::task::spawn_blocking(move || gateway.peer_logs.keep()).await);
}

fn tell_kept(kept: Result<std::io::Result<()>, tokio::task::JoinError>) {
    if let Ok(Err(error)) = kept {
        tracing::warn!(%error, "a peer's checkpoint could not be kept for the next start");
    }
}

/// A contradiction is kept on disk, and an entry of this node's own log says so.
async fn record(gateway: &Arc<Gateway>, contradiction: Contradiction) {
    let node = contradiction.node.clone();
    let [first, second] = contradiction.notes.clone();
    let kept = {
        let gateway = gateway.clone();
        tokio::task::spawn_blocking(move || PeerLog::keep_evidence(&gateway.peer_logs, &contradiction)).await
    };
    match kept {
        Ok(Ok(file)) => tracing::error!(peer = %node, evidence = %file.display(),
            "a peer's log contradicts itself: the peer is refused until the evidence file is removed"),
        other => {
            tracing::error!(peer = %node, ?other, "a peer's log contradicts itself, and the evidence could not be kept");
        }
    }
    let mut draft = Draft::new(Kind::Evidence, Uuid::now_v7(), unix_ms(), &ExchangeKey::generate());
    draft.provider = node.to_string();
    draft.reason = "PEER_LOG_CONTRADICTS".to_owned();
    draft.publication = Publication::Public;
    draft.peer_checkpoint = first;
    draft.other_peer_checkpoint = second;
    let recorder: &Recorder = &gateway.recorder;
    if let Err(refusal) = recorder.append(draft, None).await {
        tracing::error!(peer = %node, error = %refusal.message, "the contradiction could not be recorded");
    }
}

fn tell(gateway: &Gateway, health: &telemetry::Health) {
    let contradicting = gateway.peer_logs.contradicting();
    gateway.metrics.peer_contradictions(contradicting.len());
    health.set(
        "peers",
        match contradicting.as_slice() {
            [] => Condition::Ok,
            some => Condition::Warning(format!("refused, since their logs contradict themselves: {}", some.join(", "))),
        },
    );
}
