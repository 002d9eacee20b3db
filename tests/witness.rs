//! A witness: what it answers, and that it never signs two histories of one log, whatever happens to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kopuro::log::tree::{Hash, RightEdge, Subtrees};
use kopuro::log::{Checkpoint, proof};
use kopuro::oversight::witness::{
    AddCheckpoint, Answer, ServeOptions, State, Witness, WitnessError, parse_size, serve,
};
use kopuro::trust::note::{Cosigner, Note, Signature, Signer, Verifier};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::eventually;

pub(crate) const ORIGIN: &str = "gw.civil.kg/log";
const NOW: u64 = 1_790_000_000;

/// A log as a witness sees it: its key and its leaves.
pub(crate) struct Leaves {
    pub(crate) signer: Signer,
    pub(crate) leaves: Vec<Hash>,
}

impl Leaves {
    pub(crate) fn new(origin: &str, size: u64) -> Self {
        let leaves = (0..size).map(|index| Hash::of_leaf(&index.to_be_bytes())).collect();
        Self { signer: Signer::generate(origin).unwrap(), leaves }
    }

    /// Another history under the same key, the same up to `at`.
    pub(crate) fn forked(&self, at: usize) -> Self {
        let mut leaves = self.leaves.clone();
        for leaf in &mut leaves[at..] {
            *leaf = Hash::of_leaf(&leaf.0);
        }
        Self { signer: Signer::from_encoded(&self.signer.to_encoded()).unwrap(), leaves }
    }

    pub(crate) fn checkpoint(&self, size: u64) -> Checkpoint {
        let mut edge = RightEdge::default();
        self.leaves[..size as usize].iter().for_each(|leaf| edge.push(*leaf));
        Checkpoint::sign(&self.signer, &edge).unwrap()
    }

    pub(crate) fn request(&self, old: u64, new: u64) -> AddCheckpoint {
        let proof = proof::consistency(&mut Tree(&self.leaves), old, new).unwrap();
        AddCheckpoint { old, proof, checkpoint: self.checkpoint(new).note }
    }
}

struct Tree<'a>(&'a [Hash]);

impl Subtrees for Tree<'_> {
    type Error = String;

    fn complete(&mut self, level: u32, index: u64) -> Result<Hash, String> {
        if level == 0 {
            return Ok(self.0[index as usize]);
        }
        let (left, right) = (self.complete(level - 1, 2 * index)?, self.complete(level - 1, 2 * index + 1)?);
        Ok(Hash::of_node(&left, &right))
    }
}

/// A witness's folder: key and state.
pub(crate) struct Station {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) key: Verifier,
    secret: String,
}

impl Station {
    pub(crate) fn new(name: &str) -> Self {
        let (folder, cosigner) = (tempfile::tempdir().unwrap(), Cosigner::generate(name).unwrap());
        State::create(&folder.path().join("state"), &cosigner.verifier()).unwrap();
        Self { folder, key: cosigner.verifier(), secret: cosigner.to_encoded().to_string() }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn open(&self, logs: &[Verifier]) -> Result<Witness, WitnessError> {
        let (state, seen) = State::open(&self.state(), &self.key)?;
        Witness::new(Cosigner::from_encoded(&self.secret).unwrap(), logs, state, seen)
    }

    /// Serves it until the test ends.
    pub(crate) async fn serve(&self, logs: &[Verifier], options: ServeOptions) -> SocketAddr {
        let witness = Arc::new(self.open(logs).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, None, witness, options, std::future::pending()));
        address
    }
}

/// Status, content type and body of an answer.
pub(crate) async fn send(to: SocketAddr, request: &str, body: &[u8]) -> std::io::Result<(u16, String, String)> {
    let asking = async {
        let mut stream = TcpStream::connect(to).await?;
        let length = body.len();
        let head = format!("{request} HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        // A server that has refused already may not take the rest.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            return Err(read.err().unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into()));
        };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
        Ok((status, kind.to_owned(), body.to_owned()))
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

pub(crate) async fn post(to: SocketAddr, request: &AddCheckpoint) -> (u16, String, String) {
    send(to, "POST /add-checkpoint", request.to_string().as_bytes()).await.unwrap()
}

/// The time of the one good cosignature in an answer.
pub(crate) fn cosigned(key: &Verifier, request: &AddCheckpoint, lines: &str) -> Option<u64> {
    let lines = Signature::parse_lines(lines).ok()?;
    let [line] = lines.as_slice() else { return None };
    let note = Note::parse(&request.checkpoint).ok()?;
    if line.is_of(key) { key.cosigned_at(note.text(), &line.bytes) } else { None }
}

#[tokio::test]
async fn every_status_code() {
    let log = Leaves::new(ORIGIN, 20);
    let (stranger, same_name) = (Leaves::new("other.kg/log", 3), Leaves::new(ORIGIN, 20));
    let station = Station::new("w.example/1");
    let at = station.serve(&[log.signer.verifier()], ServeOptions::default()).await;
    let status = async |request: &AddCheckpoint| post(at, request).await.0;

    // 404, 403, 400, in the specification's order.
    assert_eq!(status(&stranger.request(0, 3)).await, 404);
    assert_eq!(status(&same_name.request(0, 3)).await, 403);
    let mut altered = log.request(0, 3);
    altered.checkpoint = altered.checkpoint.replacen("\n3\n", "\n4\n", 1);
    assert_eq!(status(&altered).await, 403);
    assert_eq!(status(&AddCheckpoint { old: 4, ..log.request(0, 3) }).await, 400);
    assert_eq!(status(&AddCheckpoint { checkpoint: "x".into(), ..log.request(0, 3) }).await, 400);
    assert_eq!(send(at, "POST /add-checkpoint", b"old 00\n\nx").await.unwrap().0, 400);
    assert_eq!(send(at, "POST /add-checkpoint", &[b'x'; 70_000]).await.unwrap().0, 413);
    assert_eq!(send(at, "GET /add-checkpoint", b"").await.unwrap().0, 405);
    assert_eq!(send(at, "POST /elsewhere", b"").await.unwrap().0, 404);

    // The first: no proof, whatever the size; a proof where none belongs is a bad one.
    let first = log.request(0, 5);
    let proof = log.request(2, 5).proof;
    assert_eq!(status(&AddCheckpoint { proof, ..first.clone() }).await, 422);
    let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(ORIGIN));
    assert_eq!(send(at, &format!("GET /{hash}/checkpoint"), b"").await.unwrap().0, 404);
    let (code, _, line) = post(at, &first).await;
    assert_eq!((code, cosigned(&station.key, &first, &line).is_some()), (200, true));

    // 409 says where it stands, exactly so.
    for old in [0, 3, 6] {
        let request = AddCheckpoint { old, ..log.request(5, 9) };
        assert_eq!(post(at, &request).await, (409, "text/x.tlog.size".into(), "5\n".into()));
    }
    // 422: a proof cut short, or of another pair of sizes; the witness stays where it was.
    let mut short = log.request(5, 9);
    short.proof.pop();
    assert_eq!(status(&short).await, 422);
    assert_eq!(status(&AddCheckpoint { proof: log.request(4, 9).proof, ..log.request(5, 9) }).await, 422);
    assert_eq!(status(&log.request(5, 9)).await, 200);
    // The same again is cosigned again; an older one is not.
    assert_eq!(status(&log.request(9, 9)).await, 200);
    assert_eq!(status(&log.request(5, 9)).await, 409);
    assert_eq!(status(&AddCheckpoint { old: 9, ..log.request(5, 8) }).await, 400);

    // What it has seen, for anybody: the log's signature and its own.
    let (code, _, note) = send(at, &format!("GET /{hash}/checkpoint"), b"").await.unwrap();
    let keys = [log.signer.verifier(), station.key.clone()];
    assert_eq!((code, Note::parse(&note).unwrap().verify(&keys).unwrap().len()), (200, 2));
    let (code, _, page) = send(at, "GET /", b"").await.unwrap();
    assert!(code == 200 && page.contains(ORIGIN) && page.contains("size 9"), "{page}");
}

#[tokio::test]
async fn a_fork_is_refused_and_kept_as_evidence() {
    let log = Leaves::new(ORIGIN, 20);
    let fork = log.forked(7);
    let station = Station::new("w.example/1");
    let at = station.serve(&[log.signer.verifier()], ServeOptions::default()).await;
    assert_eq!(post(at, &log.request(0, 10)).await.0, 200);
    // The other history: at the same size, beyond, and under an old size that it does not have.
    assert_eq!(post(at, &fork.request(10, 10)).await.0, 422);
    assert_eq!(post(at, &fork.request(10, 15)).await.0, 422);
    assert_eq!(post(at, &AddCheckpoint { old: 7, ..fork.request(7, 10) }).await.0, 409);
    // One of the two is proof by itself, whoever reads it; it is kept once.
    let evidence = State::evidence(&station.state()).unwrap();
    assert_eq!(evidence.len(), 1);
    let kept = std::fs::read_to_string(&evidence[0]).unwrap();
    assert!(
        kept.contains(&log.checkpoint(10).note) || kept.contains(log.checkpoint(10).note.split_once("\n\n").unwrap().0)
    );
    assert!(kept.contains(fork.checkpoint(10).note.as_str()), "{kept}");
    assert_eq!(post(at, &log.request(10, 20)).await.0, 200);

    // An empty log has one root only.
    let empty = Leaves::new("empty.kg/log", 0);
    let wrong = empty.signer.sign(&format!("empty.kg/log\n0\n{}=\n", "A".repeat(43))).unwrap();
    let station = Station::new("w.example/2");
    let at = station.serve(&[empty.signer.verifier()], ServeOptions::default()).await;
    assert_eq!(post(at, &AddCheckpoint { old: 0, proof: vec![], checkpoint: wrong }).await.0, 422);
    assert_eq!(post(at, &empty.request(0, 0)).await.0, 200);
}

#[tokio::test]
async fn of_two_at_once_one_is_told_where_the_other_got_to() {
    let log = Leaves::new(ORIGIN, 200);
    let fork = log.forked(100);
    let station = Station::new("w.example/1");
    let at = station.serve(&[log.signer.verifier()], ServeOptions::default()).await;
    assert_eq!(post(at, &log.request(0, 100)).await.0, 200);
    let mut size = 100;
    // Both extend what the witness has; were they not judged one by one, both would be signed.
    for _ in 0..10 {
        let (one, other) = (log.request(size, size + 10), log.request(size, size + 7));
        let (one, other) = tokio::join!(post(at, &one), post(at, &other));
        let (won, lost, new) = if one.0 == 200 { (one, other, size + 10) } else { (other, one, size + 7) };
        assert_eq!((won.0, lost.0, parse_size(lost.2.as_bytes())), (200, 409, Some(new)));
        size = new;
    }
    // Two histories at once, from the point where both are true.
    let station = Station::new("w.example/2");
    let at = station.serve(&[log.signer.verifier()], ServeOptions::default()).await;
    assert_eq!(post(at, &log.request(0, 100)).await.0, 200);
    let (one, other) = (log.request(100, 150), fork.request(100, 150));
    let (one, other) = tokio::join!(post(at, &one), post(at, &other));
    assert_eq!([one.0, other.0].iter().filter(|status| **status == 200).count(), 1, "{one:?} {other:?}");
}

#[test]
fn kept_before_it_is_answered() {
    let log = Leaves::new(ORIGIN, 20);
    let keys = [log.signer.verifier()];
    let station = Station::new("w.example/1");
    // What is judged and not answered, because the process ends there, has been kept.
    for (old, new) in [(0, 5), (5, 12)] {
        let witness = station.open(&keys).unwrap();
        assert!(matches!(
            witness.add_checkpoint(log.request(old, new).to_string().as_bytes(), NOW),
            Answer::Cosigned(_)
        ));
    }
    let witness = station.open(&keys).unwrap();
    let judge = |request: AddCheckpoint, now| witness.add_checkpoint(request.to_string().as_bytes(), now);
    assert_eq!(judge(log.request(5, 12), NOW), Answer::Conflict(12));
    assert!(matches!(judge(log.forked(6).request(12, 12), NOW), Answer::Inconsistent(_)));
    // Within the same second the same line, later a new one, and never an earlier time.
    let Answer::Cosigned(again) = judge(log.request(12, 12), NOW) else { panic!() };
    let Answer::Cosigned(later) = judge(log.request(12, 12), NOW + 1) else { panic!() };
    assert_ne!(again, later);
    assert_eq!(cosigned(&station.key, &log.request(12, 12), &later), Some(NOW + 1));
    assert_eq!(judge(log.request(12, 12), NOW - 3), Answer::Cosigned(later));
    assert!(matches!(judge(log.request(12, 20), NOW - 60), Answer::Unavailable(_)));
    let Answer::Cosigned(slack) = judge(log.request(12, 20), NOW) else { panic!() };
    assert_eq!(cosigned(&station.key, &log.request(12, 20), &slack), Some(NOW + 1));
    // Where nothing can be kept nothing is signed, and it goes on from where it was.
    drop(witness);
    let witness = station.open(&keys).unwrap();
    let aside = station.folder.path().join("aside");
    std::fs::rename(station.state(), &aside).unwrap();
    let more = Leaves { signer: Signer::from_encoded(&log.signer.to_encoded()).unwrap(), ..Leaves::new(ORIGIN, 30) };
    let request = more.request(20, 30).to_string();
    assert!(matches!(witness.add_checkpoint(request.as_bytes(), NOW + 2), Answer::Unavailable(_)));
    std::fs::rename(&aside, station.state()).unwrap();
    assert!(matches!(witness.add_checkpoint(request.as_bytes(), NOW + 2), Answer::Cosigned(_)));
}

#[test]
fn damaged_state_is_refused_not_forgotten() {
    let log = Leaves::new(ORIGIN, 20);
    let keys = [log.signer.verifier()];
    let station = Station::new("w.example/1");
    let state = station.state();
    let sign = |old, new| {
        let answer = station.open(&keys).unwrap().add_checkpoint(log.request(old, new).to_string().as_bytes(), NOW);
        assert!(matches!(answer, Answer::Cosigned(_)), "{answer:?}");
    };
    let list = std::fs::read(state.join("witness")).unwrap();
    sign(0, 5);
    // A crash between a log's first checkpoint and the list leaves the older list: the checkpoint counts.
    std::fs::write(state.join("witness"), &list).unwrap();
    sign(5, 9);
    let list = std::fs::read(state.join("witness")).unwrap();
    let file = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
    let file =
        file.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "checkpoint")).unwrap();
    let good = std::fs::read(&file).unwrap();

    let refused = |says: &str| {
        let error = station.open(&keys).unwrap_err().to_string();
        assert!(error.contains(says), "{error} should say {says}");
    };
    // Whatever byte of either file is damaged, or whichever file is gone.
    for (path, content) in [(&file, &good), (&state.join("witness"), &list)] {
        for at in (0..content.len()).step_by(7) {
            let mut bad = content.clone();
            bad[at] ^= 1;
            std::fs::write(path, bad).unwrap();
            if let Ok(witness) = station.open(&keys) {
                // A byte of the log's own signature: what this witness signed is untouched.
                assert_eq!((path, witness.seen()[0].1.as_ref().unwrap().checkpoint.size), (&file, 9), "byte {at}");
            }
        }
        std::fs::write(path, &content[..content.len() / 2]).unwrap();
        refused("must not go on");
        std::fs::remove_file(path).unwrap();
        refused(if *path == file { "it is gone" } else { "no witness's state" });
        assert!(State::create(&state, &station.key).is_err());
        std::fs::write(path, content).unwrap();
    }
    // Another log's file in its place; another key; two processes.
    let other = state.join("00").with_extension("checkpoint");
    std::fs::copy(&file, &other).unwrap();
    refused("it is of the log");
    std::fs::remove_file(&other).unwrap();
    assert!(State::open(&state, &Cosigner::generate("w.example/1").unwrap().verifier()).is_err());
    let held = station.open(&keys).unwrap();
    refused("in use by another process");
    drop(held);
    assert!(State::create(&state, &station.key).is_err());
    // A log that is followed no longer is not forgotten either.
    drop(station.open(&[Signer::generate("else.kg/log").unwrap().verifier()]).unwrap());
    sign(9, 20);
}

#[tokio::test]
async fn what_anybody_may_send_is_bounded() {
    let log = Leaves::new(ORIGIN, 3);
    let station = Station::new("w.example/1");
    let options = ServeOptions {
        prefix: "/kg/w1".into(),
        per_second: 1.try_into().unwrap(),
        burst: 4.try_into().unwrap(),
        connections: 3.try_into().unwrap(),
        ..ServeOptions::default()
    };
    let at = station.serve(&[log.signer.verifier()], options).await;
    let request = log.request(0, 3).to_string();
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(send(at, "POST /kg/w1/add-checkpoint", request.as_bytes()).await.unwrap().0);
    }
    assert_eq!((statuses[0], statuses.last().copied()), (200, Some(429)), "{statuses:?}");
    // One address has two of the three: of more one is closed at once, and there is room again when the others end.
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        held.spawn(async move { stream.read(&mut [0]).await });
    }
    let closed = tokio::time::timeout(Duration::from_secs(5), held.join_next()).await.unwrap().unwrap().unwrap();
    assert!(closed.is_err() || closed.is_ok_and(|read| read == 0));
    assert_eq!(held.len(), 2);
    drop(held);
    eventually("room again", async || send(at, "GET /kg/w1/none", b"").await.ok()).await;
    // A body that does not come is not waited for.
    let at = Station::new("w.example/2");
    let options = ServeOptions { request_time: Duration::from_millis(100), ..ServeOptions::default() };
    let at = at.serve(&[log.signer.verifier()], options).await;
    let mut slow = TcpStream::connect(at).await.unwrap();
    slow.write_all(b"POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ncontent-length: 9\r\n\r\nold").await.unwrap();
    let mut status = [0; 12];
    tokio::time::timeout(Duration::from_secs(5), slow.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 408");
    assert_eq!(send(at, "POST /elsewhere", b"").await.unwrap().0, 404);
}
