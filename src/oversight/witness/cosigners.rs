//! The witnesses of a log's policy, asked together for each checkpoint that is to be published.
//!
//! All are asked at once and each within the same bound. When the quorum is met, the others have a short grace to join;
//! then the note goes out with all good cosignatures. Where it is not met, there is no note, and the error says of each
//! witness what was wrong. A witness that is slow, down or wrong costs the bound, and never makes a checkpoint pass.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use http::Uri;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, timeout_at};

use super::ask::{Remote, Web, WitnessFault};
use crate::config;
use crate::log::{Checkpoint, Log};
use crate::trust::note::{Note, NoteError, Signature};
use crate::trust::policy::{PolicyFileError, WitnessPolicy};
use crate::trust::tls::{TlsError, web_client_config};

const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// Why a policy's witnesses cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum CosignersError {
    /// The policy.
    #[error(transparent)]
    Policy(#[from] PolicyFileError),
    /// A witness's URL cannot be asked.
    #[error("the URL of witness {0} is no http:// or https:// address")]
    Url(String),
    /// Even with every witness that has a URL the quorum is not met.
    #[error("the witnesses with a URL are too few for the quorum: it can never be met")]
    OutOfReach,
    /// The roots for HTTPS.
    #[error(transparent)]
    Roots(#[from] TlsError),
}

/// How witnesses are asked.
#[derive(Debug, Clone)]
pub struct CosignersOptions {
    /// Who must cosign; those with a URL are asked.
    pub policy: WitnessPolicy,
    /// How long a checkpoint waits for its quorum.
    pub timeout: Duration,
    /// How long it waits for the others once the quorum is met.
    pub grace: Duration,
    /// Roots for HTTPS besides the system's, PEM.
    pub extra_roots: Option<PathBuf>,
}

/// The quorum that a checkpoint needed and did not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumError {
    /// The size of the checkpoint.
    pub size: u64,
    /// The witnesses that cosigned, by their names in the policy.
    pub cosigned: Vec<String>,
    /// The others, and what was wrong with each.
    pub faults: Vec<(String, WitnessFault)>,
    /// The checkpoint itself is no note, or carries a bad cosignature of a witness already.
    pub note: Option<NoteError>,
}

impl std::error::Error for QuorumError {}

impl fmt::Display for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the checkpoint of size {} has no quorum of witnesses: ", self.size)?;
        if let Some(error) = &self.note {
            return write!(f, "{error}");
        }
        match self.cosigned.as_slice() {
            [] => write!(f, "none cosigned")?,
            some => write!(f, "only {} cosigned", some.join(", "))?,
        }
        self.faults.iter().try_for_each(|(name, fault)| write!(f, "; {name} {fault}"))
    }
}

/// The witnesses of a log. One for each log: it remembers how far each witness has seen it.
pub struct Cosigners {
    policy: WitnessPolicy,
    remotes: Vec<Remote>,
    web: Web,
    timeout: Duration,
    grace: Duration,
}

impl Cosigners {
    /// Of a node's `[witness]`.
    pub fn from_config(config: &config::Witness) -> Result<Self, CosignersError> {
        Self::new(CosignersOptions {
            policy: WitnessPolicy::read(&config.policy)?,
            timeout: config.timeout,
            grace: config.grace,
            extra_roots: config.roots.clone(),
        })
    }

    /// Of a policy. Nobody is asked yet.
    pub fn new(options: CosignersOptions) -> Result<Self, CosignersError> {
        let CosignersOptions { policy, timeout, grace, extra_roots } = options;
        let mut remotes = Vec::new();
        for (index, witness) in policy.witnesses().iter().enumerate() {
            let Some(url) = &witness.url else { continue };
            let name = witness.name.to_string();
            let url: Uri = format!("{}/add-checkpoint", url.trim_end_matches('/'))
                .parse()
                .map_err(|_| CosignersError::Url(name.clone()))?;
            if url.query().is_some() || url.host().is_none_or(str::is_empty) {
                return Err(CosignersError::Url(name));
            }
            remotes.push(Remote {
                index,
                name,
                key: witness.key.clone(),
                url,
                last: Mutex::default(),
                at_fault: AtomicBool::default(),
            });
        }
        if !policy.is_quorum(|index| remotes.iter().any(|remote| remote.index == index)) {
            return Err(CosignersError::OutOfReach);
        }
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(web_client_config(extra_roots.as_deref())?)
            .https_or_http()
            .enable_http1()
            .build();
        let web = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self { policy, remotes, web, timeout, grace })
    }

    /// The policy whose quorum is needed.
    pub fn policy(&self) -> &WitnessPolicy {
        &self.policy
    }

    /// The checkpoint's note with all good cosignatures, once they are a quorum. `log` is where the consistency proofs
    /// come from. Takes no longer than the timeout.
    pub async fn cosign(&self, log: &Log, checkpoint: &Checkpoint) -> Result<String, QuorumError> {
        let mut tally = Tally::default();
        self.ask_all(log, checkpoint, &mut tally).await;
        for remote in &self.remotes {
            let fault = (!tally.good.contains_key(&remote.index))
                .then(|| &*tally.faults.entry(remote.index).or_insert(WitnessFault::Silent(tally.waited)));
            remote.tell(&checkpoint.origin, checkpoint.size, fault);
        }
        self.note(checkpoint, &tally).map_err(|note| self.no_quorum(checkpoint, tally, note))
    }

    /// [`Self::cosign`] over this log, for a publisher to call with each checkpoint.
    pub fn for_log(
        self,
        log: Log,
    ) -> impl Fn(Arc<Checkpoint>) -> BoxFuture<'static, Result<String, String>> + Send + Sync + 'static {
        let this = Arc::new(self);
        move |checkpoint| {
            let (this, log) = (Arc::clone(&this), log.clone());
            async move { this.cosign(&log, &checkpoint).await.map_err(|error| error.to_string()) }.boxed()
        }
    }

    /// Asks every witness where it stands, by offering it this checkpoint: those that know no more of the log than it has, and the
    /// others with what was said. The second is whether those others could by themselves have cosigned a checkpoint that nobody
    /// else has seen.
    pub async fn standing(
        &self,
        log: &Log,
        checkpoint: &Checkpoint,
    ) -> (Vec<(String, Result<(), WitnessFault>)>, bool) {
        let asked = self.remotes.iter().map(|remote| async move {
            let answer = tokio::time::timeout(self.timeout, remote.ask(&self.web, log, checkpoint)).await;
            let answer = match answer.unwrap_or(Err(WitnessFault::Silent(self.timeout))) {
                Ok(_) => Ok(()),
                // It has named a size that this checkpoint reaches; or it does not follow the log at all.
                Err(WitnessFault::NoProof(_) | WitnessFault::Refused { status: 404, .. }) => Ok(()),
                Err(fault) => Err(fault),
            };
            (remote.index, remote.name.clone(), answer)
        });
        let answers = futures_util::future::join_all(asked).await;
        let unknown = |index: usize| !answers.iter().any(|(at, _, answer)| *at == index && answer.is_ok());
        let may_hide = !self.policy.is_quorum_none() && self.policy.is_quorum(unknown);
        (answers.into_iter().map(|(_, name, answer)| (name, answer)).collect(), may_hide)
    }

    /// Asks every witness, until the quorum is met and the grace over, or the time is.
    async fn ask_all(&self, log: &Log, checkpoint: &Checkpoint, tally: &mut Tally) {
        let start = Instant::now();
        let deadline = start + self.timeout;
        let mut asked: FuturesUnordered<_> = self
            .remotes
            .iter()
            .map(|remote| async move { (remote.index, remote.ask(&self.web, log, checkpoint).await) })
            .collect();
        let (mut until, mut met) = (deadline, false);
        loop {
            if !met && self.policy.is_quorum(|index| tally.good.contains_key(&index)) {
                met = true;
                until = deadline.min(Instant::now() + self.grace);
            }
            match timeout_at(until, asked.next()).await {
                Ok(Some((index, Ok(cosignature)))) => drop(tally.good.insert(index, cosignature)),
                Ok(Some((index, Err(fault)))) => drop(tally.faults.insert(index, fault)),
                // All have answered, or those that have not are not waited for.
                Ok(None) | Err(_) => break,
            }
        }
        tally.waited = start.elapsed();
    }

    /// The note with what was gathered, if the policy takes it. It is judged anew, from its bytes.
    fn note(&self, checkpoint: &Checkpoint, tally: &Tally) -> Result<String, Option<NoteError>> {
        let mut note = Note::parse(&checkpoint.note)?;
        for cosignature in tally.good.values() {
            note.add(cosignature.clone())?;
        }
        if self.policy.judge(&note)?.quorum { Ok(note.to_string()) } else { Err(None) }
    }

    fn no_quorum(&self, checkpoint: &Checkpoint, mut tally: Tally, note: Option<NoteError>) -> QuorumError {
        let name = |index: usize| self.policy.witnesses().get(index).map(|witness| witness.name.to_string());
        let cosigned = tally.good.keys().filter_map(|index| name(*index)).collect();
        let faults = std::mem::take(&mut tally.faults).into_iter();
        let faults = faults.filter_map(|(index, fault)| Some((name(index)?, fault))).collect();
        QuorumError { size: checkpoint.size, cosigned, faults, note }
    }
}

impl fmt::Debug for Cosigners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cosigners").field("witnesses", &self.remotes).finish_non_exhaustive()
    }
}

/// What came of asking, by the witnesses' places in the policy.
#[derive(Default)]
struct Tally {
    good: BTreeMap<usize, Signature>,
    faults: BTreeMap<usize, WitnessFault>,
    waited: Duration,
}
