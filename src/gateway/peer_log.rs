//! What this node knows of another node's log: which of its checkpoints it has seen, and whether they are of one history.
//!
//! A checkpoint comes with every message of a peer. Its signature is verified once; then it waits, off the hot path, for the peer to
//! prove it consistent with the last one that was proven ([`super::node_log`]). Two checkpoints of one size with two roots, or a proof that does
//! not hold, are a contradiction: both are kept in the data folder as evidence, written to this node's own log, and the peer is refused
//! from then on, after a restart too, until somebody who has looked into it removes the file.
//!
//! ```text
//!   note ──▶ known? ──yes──▶ taken                              proven: the latest one proven; kept in `<log>.checkpoint`
//!              │no
//!        signature, size ──bad──▶ refused                       `<log>.evidence`: both notes
//!              │
//!           pending ──▶ the peer's proof ──▶ proven, or a contradiction
//! ```
//!
//! A log is known by its origin, whatever keys the directory lists for it: a checkpoint is the log's if one of them signed it, and one
//! history has to hold across a change of the key.
//!
//! Bounds: [`KNOWN`] checkpoints are remembered and [`PENDING`] may wait; where more wait, or one longer than [`PATIENCE`], the peer
//! is refused until it has caught up.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::{Notify, mpsc};

use crate::log::Checkpoint;
use crate::log::proof::verify_consistency;
use crate::log::tree::Hash;
use crate::trust::directory::Node;
use crate::trust::file::{self, Access, Existing};
use crate::trust::identity::Identity;
use crate::trust::note::Verifier;

/// Checkpoints of a peer that are remembered.
const KNOWN: usize = 2_048;
/// Checkpoints of a peer that may wait for its proof.
const PENDING: usize = 1_024;
/// How long one may wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most sizes in one question to a peer.
pub(super) const SIZES: usize = 65;
/// How often what is proven is kept on disk.
const KEEP_EVERY: Duration = Duration::from_secs(30);
/// Wrong proofs in a row that are taken for a contradiction: a peer whose log is whole never sends one.
const WRONG_PROOFS: u32 = 2;
/// Contradictions that may wait to be recorded; a log has one at most.
const EVIDENCE_QUEUE: usize = 256;

/// Why a peer's checkpoint is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    /// It is no checkpoint signed by a key that the directory has for that log.
    #[error("its checkpoint is not one of its log's: {0}")]
    Checkpoint(String),
    /// Its log contradicts itself.
    #[error("its log contradicts itself: this node holds two checkpoints that cannot both be of one history")]
    Contradicts,
    /// It has not shown for too long, or of too many checkpoints, that they are of one history.
    #[error("it has not proven for {0} s that its log's checkpoints are of one history")]
    Unproven(u64),
}

/// Two checkpoints of one log that contradict each other.
#[derive(Debug, Clone)]
pub(super) struct Contradiction {
    /// Whose log.
    pub(super) node: Identity,
    /// Signed notes.
    pub(super) notes: [String; 2],
}

/// The logs of all peers, whatever became of the directory under which they were first met.
#[derive(Debug)]
pub(super) struct PeerLogs {
    folder: PathBuf,
    by_origin: Mutex<HashMap<(Identity, String), Arc<PeerLog>>>,
    wake: Arc<Notify>,
    found: mpsc::Sender<Contradiction>,
}

/// One peer's log.
#[derive(Debug)]
pub(super) struct PeerLog {
    node: Identity,
    keys: Mutex<Arc<[Verifier]>>,
    file: PathBuf,
    state: Mutex<State>,
    wake: Arc<Notify>,
    found: mpsc::Sender<Contradiction>,
}

#[derive(Debug, Default)]
struct State {
    proven: Option<Arc<Checkpoint>>,
    /// The largest that is in this node's own log since before it started.
    before: Option<Arc<Checkpoint>>,
    by_note: HashMap<Box<str>, Arc<Checkpoint>>,
    by_size: HashMap<u64, Arc<Checkpoint>>,
    order: VecDeque<Arc<Checkpoint>>,
    pending: BTreeMap<u64, Arc<Checkpoint>>,
    /// Since when something has been pending without any proof coming.
    waiting: Option<Instant>,
    wrong_proofs: u32,
    /// When the latest proven checkpoint was last kept.
    kept: Option<Instant>,
    contradicts: bool,
    asking: bool,
}

impl PeerLogs {
    /// What is known is kept in `folder`; contradictions come out of the receiver.
    pub(super) fn new(folder: PathBuf) -> (Self, mpsc::Receiver<Contradiction>) {
        let (found, contradictions) = mpsc::channel(EVIDENCE_QUEUE);
        (Self { folder, by_origin: Mutex::default(), wake: Arc::default(), found }, contradictions)
    }

    /// The log of a node, with the keys that the directory has for it now.
    pub(super) fn of(&self, node: &Node) -> Arc<PeerLog> {
        let known = (node.identity(), node.log_key.name().to_owned());
        let log = self.all().entry(known).or_insert_with(|| Arc::new(PeerLog::open(self, node))).clone();
        log.set_keys(node);
        log
    }

    /// Returns when a checkpoint has come that is to be proven.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Those with something to prove that nobody is asking about yet; the caller asks.
    pub(super) fn to_ask(&self) -> Vec<Arc<PeerLog>> {
        self.all().values().filter(|log| log.begin_asking()).cloned().collect()
    }

    /// Keeps what is proven of all of them. Blocks shortly.
    pub(super) fn keep(&self) -> std::io::Result<()> {
        let all: Vec<_> = self.all().values().cloned().collect();
        all.iter().try_for_each(|log| log.keep())
    }

    /// Those that contradict themselves.
    pub(super) fn contradicting(&self) -> Vec<String> {
        self.all().values().filter(|log| log.state().contradicts).map(|log| log.node.to_string()).collect()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(Identity, String), Arc<PeerLog>>> {
        self.by_origin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeerLog {
    fn open(logs: &PeerLogs, node: &Node) -> Self {
        let keys = node.log_keys();
        let file = file_of(&logs.folder, &keys);
        let mut state = State { contradicts: file.with_extension("evidence").exists(), ..State::default() };
        let kept = std::fs::read_to_string(file.with_extension("checkpoint")).ok();
        if let Some(checkpoint) = kept.and_then(|note| Checkpoint::verify(&note, &keys).ok()) {
            let checkpoint = Arc::new(checkpoint);
            state.remember(&checkpoint);
            state.proven = Some(checkpoint);
        }
        Self {
            node: node.identity(),
            keys: Mutex::new(keys.into()),
            file,
            state: Mutex::new(state),
            wake: logs.wake.clone(),
            found: logs.found.clone(),
        }
    }

    /// Whose log it is.
    pub(super) fn node(&self) -> &Identity {
        &self.node
    }

    /// Goes by these keys from now on. What was verified by one that is gone is verified again when it comes again.
    fn set_keys(&self, node: &Node) {
        let now = node.log_keys();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys[..] == now[..] {
            return;
        }
        *keys = now.into();
        drop(keys);
        self.state().by_note.clear();
    }

    fn keys(&self) -> Arc<[Verifier]> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a checkpoint that came with a message: verified, and consistent as far as is known.
    pub(super) fn take(&self, note: &str) -> Result<Arc<Checkpoint>, Distrust> {
        {
            let state = self.state();
            state.trusted()?;
            if let Some(known) = state.by_note.get(note) {
                return Ok(known.clone());
            }
        }
        // Without the lock: this is the one signature check that a checkpoint costs.
        let checkpoint =
            Checkpoint::verify(note, &self.keys()).map_err(|error| Distrust::Checkpoint(error.to_string()))?;
        let checkpoint = Arc::new(checkpoint);
        let mut state = self.state();
        state.trusted()?;
        match state.by_size.get(&checkpoint.size).map(|known| (known.root == checkpoint.root, known.note.clone())) {
            Some((true, _)) => {}
            Some((false, other)) => {
                self.contradict(&mut state, [other, checkpoint.note.clone()]);
                return Err(Distrust::Contradicts);
            }
            // The first of all is believed; every later one has to be of the same history.
            None if state.proven.is_none() => state.proven = Some(checkpoint.clone()),
            None => {
                if state.pending.len() >= PENDING {
                    return Err(Distrust::Unproven(state.waited().as_secs()));
                }
                state.pending.insert(checkpoint.size, checkpoint.clone());
                state.waiting.get_or_insert_with(Instant::now);
                self.wake.notify_one();
            }
        }
        state.remember(&checkpoint);
        Ok(checkpoint)
    }

    /// Checkpoints to be proven now, ascending, the last proven among them. None where there is nothing to ask: then nobody is
    /// asking any more.
    pub(super) fn question(&self) -> Option<Vec<Arc<Checkpoint>>> {
        let mut state = self.state();
        let proven = state.proven.clone().filter(|_| !state.pending.is_empty() && !state.contradicts);
        let Some(proven) = proven else {
            state.asking = false;
            return None;
        };
        let mut asked: Vec<_> = state.pending.values().take(SIZES - 1).cloned().chain([proven]).collect();
        asked.sort_by_key(|checkpoint| checkpoint.size);
        Some(asked)
    }

    /// Takes the peer's answer to [`Self::question`]: one proof for each checkpoint but the first. True where it held.
    pub(super) fn answer(&self, asked: &[Arc<Checkpoint>], proofs: &[Vec<Hash>]) -> bool {
        let held = asked.windows(2).enumerate().find_map(|(at, pair)| {
            let proof = proofs.get(at).map_or(&[][..], Vec::as_slice);
            let (old, new) = (&pair[0], &pair[1]);
            let holds = verify_consistency(old.size, old.root, new.size, new.root, proof);
            holds.err().map(|_| [old.note.clone(), new.note.clone()])
        });
        let mut state = self.state();
        if let Some(notes) = held {
            state.wrong_proofs += 1;
            if state.wrong_proofs >= WRONG_PROOFS && !state.contradicts {
                self.contradict(&mut state, notes);
            }
            return false;
        }
        state.wrong_proofs = 0;
        for checkpoint in asked {
            state.pending.remove(&checkpoint.size);
        }
        state.waiting = (!state.pending.is_empty()).then(Instant::now);
        state.proven = asked.last().cloned().or_else(|| state.proven.take());
        true
    }

    /// Whether it is time to [`Self::keep`] what is proven: seldom, since a new file makes the log's next `fdatasync` wait for the
    /// file system's journal.
    pub(super) fn is_to_keep(&self) -> bool {
        let mut state = self.state();
        let due = state.kept.is_none_or(|kept| kept.elapsed() >= KEEP_EVERY);
        if due {
            state.kept = Some(Instant::now());
        }
        due
    }

    /// Keeps the latest proven checkpoint for the next start. Blocks shortly. A loss is none: an older one proves as much.
    pub(super) fn keep(&self) -> std::io::Result<()> {
        let Some(note) = self.state().proven.as_ref().map(|checkpoint| checkpoint.note.clone()) else { return Ok(()) };
        keep_file(&self.file.with_extension("checkpoint"), &note)
    }

    /// Keeps the two notes of a contradiction. Blocks until they are durable.
    pub(super) fn keep_evidence(logs: &PeerLogs, contradiction: &Contradiction) -> std::io::Result<PathBuf> {
        let is_it = |log: &&Arc<Self>| log.node == contradiction.node && log.state().contradicts;
        let log = logs.all().values().find(is_it).cloned();
        let log = log.ok_or_else(|| std::io::Error::other("no such log"))?;
        let file = log.file.with_extension("evidence");
        keep_file(&file, &contradiction.notes.join("\n"))?;
        Ok(file)
    }

    /// The largest checkpoint that came, proven or not.
    pub(super) fn latest(&self) -> Option<Arc<Checkpoint>> {
        let state = self.state();
        let known = state.by_size.values().chain(&state.proven).chain(&state.before);
        known.max_by_key(|checkpoint| checkpoint.size).cloned()
    }

    /// Takes note of a checkpoint that came before this process began: for [`Self::latest`] alone, nothing is to be proven.
    pub(super) fn came_before(&self, note: &str) {
        if let Ok(checkpoint) = Checkpoint::verify(note, &self.keys()) {
            self.state().before = Some(Arc::new(checkpoint));
        }
    }

    /// The log's name.
    pub(super) fn origin(&self) -> String {
        self.keys().first().map_or_else(String::new, |key| key.name().to_owned())
    }

    /// The evidence of a contradiction, where there is any. Blocks shortly.
    pub(super) fn evidence(&self) -> Vec<String> {
        let kept = std::fs::read_to_string(self.file.with_extension("evidence")).unwrap_or_default();
        let notes = kept.split("\n\n").collect::<Vec<_>>();
        match notes[..] {
            // Two notes, one after the other with an empty line between: each has one empty line of its own.
            [first, signed, second, other] => {
                vec![format!("{first}\n\n{signed}\n"), format!("{second}\n\n{other}")]
            }
            _ => Vec::new(),
        }
    }

    /// How many checkpoints wait for a proof.
    pub(super) fn pending(&self) -> usize {
        self.state().pending.len()
    }

    fn begin_asking(&self) -> bool {
        let mut state = self.state();
        let begin = !state.asking && !state.pending.is_empty() && !state.contradicts;
        state.asking |= begin;
        begin
    }

    fn contradict(&self, state: &mut State, notes: [String; 2]) {
        state.contradicts = true;
        state.pending.clear();
        // The queue has room for one of each log.
        let _ = self.found.try_send(Contradiction { node: self.node.clone(), notes });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn trusted(&self) -> Result<(), Distrust> {
        if self.contradicts {
            return Err(Distrust::Contradicts);
        }
        match self.waited() {
            waited if waited > PATIENCE => Err(Distrust::Unproven(waited.as_secs())),
            _ => Ok(()),
        }
    }

    fn waited(&self) -> Duration {
        self.waiting.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn remember(&mut self, checkpoint: &Arc<Checkpoint>) {
        self.by_note.insert(checkpoint.note.as_str().into(), checkpoint.clone());
        self.by_size.insert(checkpoint.size, checkpoint.clone());
        self.order.push_back(checkpoint.clone());
        if self.order.len() > KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_note.remove(oldest.note.as_str());
            self.by_size.remove(&oldest.size);
        }
    }
}

/// Where what is known of a log is kept, without the ending: by the log's origin, so that it outlives a key. Files named for a key's id,
/// as they once were, are renamed.
fn file_of(folder: &Path, keys: &[Verifier]) -> PathBuf {
    let origin = keys.first().map_or("", Verifier::name);
    let file = folder.join(hex::encode(&Sha256::digest(origin)[..8]));
    for (key, ending) in keys.iter().flat_map(|key| [(key, "evidence"), (key, "checkpoint")]) {
        let (old, new) = (folder.join(hex::encode(key.key_id())).with_extension(ending), file.with_extension(ending));
        if !new.exists() && old.exists() {
            // Where it fails, the log is believed anew, as after a loss of the folder; evidence is looked for again at each start.
            if let Err(error) = std::fs::rename(&old, &new) {
                tracing::error!(file = %old.display(), %error, "what is known of a peer's log cannot be renamed");
            }
        }
    }
    file
}

/// In a folder that is made where it is missing.
fn keep_file(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new(".")))?;
    file::write(path, text.as_bytes(), Access::Secret, Existing::Replace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::proof::consistency;
    use crate::log::tree::{RightEdge, Subtrees};
    use crate::trust::note::Signer;

    /// A log's leaves, as a source of proofs.
    struct Leaves(Vec<Hash>);

    impl Subtrees for Leaves {
        type Error = std::convert::Infallible;

        fn complete(&mut self, level: u32, index: u64) -> Result<Hash, Self::Error> {
            let from = (index << level) as usize;
            Ok(edge(&self.0[from..from + (1 << level)]).root())
        }
    }

    fn edge(leaves: &[Hash]) -> RightEdge {
        let mut edge = RightEdge::default();
        leaves.iter().for_each(|leaf| edge.push(*leaf));
        edge
    }

    fn leaves(count: u8, last: u8) -> Leaves {
        Leaves((0..count).map(|n| Hash::of_leaf(&[if n + 1 == count { last } else { n }])).collect())
    }

    fn note(signer: &Signer, leaves: &Leaves, size: usize) -> String {
        Checkpoint::sign(signer, &edge(&leaves.0[..size])).unwrap().note
    }

    fn peer(folder: &Path, signer: &Signer) -> (PeerLogs, mpsc::Receiver<Contradiction>, Arc<PeerLog>) {
        let (logs, found) = PeerLogs::new(folder.into());
        let log = logs.of(&Node {
            member: "KG/GOV/1".parse().unwrap(),
            name: "main".into(),
            endpoint: "127.0.0.1:1".into(),
            log_key: signer.verifier(),
            more_log_keys: Vec::new(),
        });
        (logs, found, log)
    }

    fn proofs(leaves: &mut Leaves, asked: &[Arc<Checkpoint>]) -> Vec<Vec<Hash>> {
        asked.windows(2).map(|pair| consistency(leaves, pair[0].size, pair[1].size).unwrap()).collect()
    }

    #[test]
    fn checkpoints_of_one_history_are_proven_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::generate("kg.example/log").unwrap();
        let mut all = leaves(40, 39);
        let (logs, _found, log) = peer(folder.path(), &signer);
        for size in [7, 20, 3, 33, 20, 40] {
            assert_eq!(log.take(&note(&signer, &all, size)).unwrap().size, size as u64);
        }
        assert_eq!(log.pending(), 4);
        assert_eq!(logs.to_ask().len(), 1);
        assert!(logs.to_ask().is_empty(), "one question at a time");
        let asked = log.question().unwrap();
        assert_eq!(asked.iter().map(|checkpoint| checkpoint.size).collect::<Vec<_>>(), [3, 7, 20, 33, 40]);
        let answer = proofs(&mut all, &asked);
        assert!(log.answer(&asked, &answer));
        assert_eq!((log.pending(), log.question().is_none()), (0, true));
        log.keep().unwrap();

        // After a restart the last one proven still counts.
        let (_logs, _found, log) = peer(folder.path(), &signer);
        log.take(&note(&signer, &all, 12)).unwrap();
        assert_eq!(log.latest().unwrap().size, 40);
        let asked = log.question().unwrap();
        assert_eq!(asked.iter().map(|checkpoint| checkpoint.size).collect::<Vec<_>>(), [12, 40]);
    }

    #[test]
    fn one_history_holds_across_a_change_of_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = [0; 2].map(|_| Signer::generate("kg.example/log").unwrap());
        let (mut all, other) = (leaves(20, 19), leaves(20, 77));
        let (logs, mut found, log) = peer(folder.path(), &old);
        log.take(&note(&old, &all, 9)).unwrap();
        assert!(matches!(log.take(&note(&new, &all, 12)), Err(Distrust::Checkpoint(_))));
        let node = |log_key: Verifier, more: &[Verifier]| Node {
            member: "KG/GOV/1".parse().unwrap(),
            name: "main".into(),
            endpoint: "127.0.0.1:1".into(),
            log_key,
            more_log_keys: more.to_vec(),
        };

        // The directory lists both: either counts, and the new key's checkpoints have to extend the old one's.
        let same = logs.of(&node(new.verifier(), &[old.verifier()]));
        assert!(Arc::ptr_eq(&same, &log));
        log.take(&note(&new, &all, 12)).unwrap();
        log.take(&note(&old, &all, 15)).unwrap();
        let asked = log.question().unwrap();
        assert_eq!(asked.iter().map(|checkpoint| checkpoint.size).collect::<Vec<_>>(), [9, 12, 15]);
        let answer = proofs(&mut all, &asked);
        assert!(log.answer(&asked, &answer));
        log.keep().unwrap();

        // The old key is off the list: what it signed counts no more, not even what was known.
        logs.of(&node(new.verifier(), &[]));
        assert!(matches!(log.take(&note(&old, &all, 15)), Err(Distrust::Checkpoint(_))));
        log.take(&note(&new, &all, 12)).unwrap();
        assert_eq!(log.take(&note(&new, &other, 20)).map(|taken| taken.size), Ok(20), "waits for its proof");
        assert_eq!(log.take(&note(&new, &all, 20)).unwrap_err(), Distrust::Contradicts);
        PeerLog::keep_evidence(&logs, &found.try_recv().unwrap()).unwrap();

        // After a restart with yet another key the log is the one that contradicted itself.
        let (_logs, _found, log) = peer(folder.path(), &Signer::generate("kg.example/log").unwrap());
        assert_eq!(log.take("").unwrap_err(), Distrust::Contradicts);
    }

    #[test]
    fn what_was_kept_by_a_keys_id_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::generate("kg.example/log").unwrap();
        let old = folder.path().join(hex::encode(signer.verifier().key_id())).with_extension("evidence");
        std::fs::write(&old, "two notes").unwrap();
        let (_logs, _found, log) = peer(folder.path(), &signer);
        assert_eq!(log.take("").unwrap_err(), Distrust::Contradicts);
        assert!(!old.exists());
    }

    #[test]
    fn another_history_is_a_contradiction_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::generate("kg.example/log").unwrap();
        let (one, other) = (leaves(9, 8), leaves(9, 77));
        let (logs, mut found, log) = peer(folder.path(), &signer);
        log.take(&note(&signer, &one, 9)).unwrap();
        assert_eq!(log.take(&note(&signer, &other, 9)).unwrap_err(), Distrust::Contradicts);
        assert_eq!(
            log.take(&note(&signer, &one, 9)).unwrap_err(),
            Distrust::Contradicts,
            "and is refused from then on"
        );
        let contradiction = found.try_recv().unwrap();
        let file = PeerLog::keep_evidence(&logs, &contradiction).unwrap();
        let kept = std::fs::read_to_string(file).unwrap();
        assert!(kept.contains(&note(&signer, &one, 9)) && kept.contains(&note(&signer, &other, 9)));
        assert_eq!(log.evidence(), [note(&signer, &one, 9), note(&signer, &other, 9)]);
        let (_logs, _found, log) = peer(folder.path(), &signer);
        assert_eq!(log.take(&note(&signer, &one, 9)).unwrap_err(), Distrust::Contradicts, "after a restart too");
    }

    #[test]
    fn sizes_that_differ_need_a_proof_that_holds() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::generate("kg.example/log").unwrap();
        let (one, mut other) = (leaves(9, 8), leaves(20, 19));
        other.0[3] = Hash::of_leaf(b"rewritten");
        let (logs, mut found, log) = peer(folder.path(), &signer);
        log.take(&note(&signer, &one, 9)).unwrap();
        log.take(&note(&signer, &other, 20)).unwrap();
        assert_eq!(logs.to_ask().len(), 1);
        for _ in 0..WRONG_PROOFS {
            let asked = log.question().unwrap();
            let answer = proofs(&mut other, &asked);
            assert!(!log.answer(&asked, &answer));
        }
        assert_eq!(log.question().map(|_| ()), None);
        assert_eq!(log.take(&note(&signer, &other, 20)).unwrap_err(), Distrust::Contradicts);
        let [first, second] = found.try_recv().unwrap().notes;
        assert_eq!((first, second), (note(&signer, &one, 9), note(&signer, &other, 20)));
    }

    #[test]
    fn what_the_log_did_not_sign_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::generate("kg.example/log").unwrap();
        let stranger = Signer::generate("kg.example/log").unwrap();
        let (_logs, _found, log) = peer(folder.path(), &signer);
        assert!(matches!(log.take(&note(&stranger, &leaves(4, 3), 4)), Err(Distrust::Checkpoint(_))));
        assert!(matches!(log.take("no note"), Err(Distrust::Checkpoint(_))));
        // More than may wait: refused, and the memory stays bounded.
        let all = Leaves((0..1_200_u32).map(|n| Hash::of_leaf(&n.to_be_bytes())).collect());
        let results: Vec<_> = (1..1_200).map(|size| log.take(&note(&signer, &all, size))).collect();
        assert_eq!(results.iter().filter(|taken| taken.is_ok()).count(), PENDING + 1);
        assert!(matches!(results.last(), Some(Err(Distrust::Unproven(_)))));
    }
}
