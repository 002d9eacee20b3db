//! `kopuro witness` as its operators run it: a process, killed at any moment, stopped, started again.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kopuro::log::Checkpoint;
use kopuro::oversight::witness::{State, parse_size};
use kopuro::trust::note::Verifier;

use crate::harness::{admin, eventually};
use crate::witness::{Leaves, ORIGIN, cosigned, post, send};

/// `kopuro witness run`, a process of its own.
struct Process {
    child: Child,
    at: SocketAddr,
    admin: SocketAddr,
}

impl Process {
    async fn start(folder: &Path) -> Self {
        let [at, operators] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], crate::harness::free_port())));
        let child = Command::new(env!("CARGO_BIN_EXE_kopuro"))
            .args(["witness", "run", "--config"])
            .arg(folder.join("witness.toml"))
            .args(["--listen", &at.to_string(), "--admin", &operators.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::options().create(true).append(true).open(folder.join("out")).unwrap())
            .spawn()
            .unwrap();
        let this = Self { child, at, admin: operators };
        eventually("the witness is ready", async || {
            admin(operators, "/readyz").await.ok().filter(|(code, _)| *code == 200)
        })
        .await;
        this
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kopuro(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kopuro")).current_dir(folder).args(arguments).output().unwrap()
}

#[tokio::test]
async fn killed_at_any_moment_it_signs_one_history() {
    let folder = tempfile::tempdir().unwrap();
    let keygen = ["witness", "keygen", "--name", "w.example/1", "--out", "witness.key", "--state", "state"];
    let made = kopuro(&keygen, folder.path());
    let key: Verifier = String::from_utf8(made.stdout).unwrap().trim().parse().unwrap();
    let log = Leaves::new(ORIGIN, 400);
    let fork = log.forked(1);
    std::fs::write(folder.path().join("witness.toml"), format!("logs = [\"{}\"]\n", log.signer.verifier())).unwrap();

    let mut signed = std::collections::BTreeMap::new();
    let mut sizes = vec![0];
    for round in 0..4 {
        let mut process = Process::start(folder.path()).await;
        let at = process.at;
        // Both histories press on, each from whatever size it is told.
        let answered = Arc::new(AtomicUsize::new(0));
        let press = |history: Leaves| {
            let answered = Arc::clone(&answered);
            async move {
                let (mut old, mut got) = (0, Vec::new());
                for new in (1..400).cycle().step_by(3).take(600) {
                    let request = if old <= new { history.request(old, new) } else { continue };
                    match send(at, "POST /add-checkpoint", request.to_string().as_bytes()).await {
                        Ok((200, _, line)) => {
                            got.push((request, line));
                            answered.fetch_add(1, Ordering::Relaxed);
                            old = new;
                        }
                        Ok((409, _, size)) => old = parse_size(size.as_bytes()).unwrap(),
                        Ok(_) => {}
                        Err(_) => break,
                    }
                }
                got
            }
        };
        let histories = if round % 2 == 0 { [&log, &fork] } else { [&fork, &log] };
        let [one, other] = histories.map(|history| tokio::spawn(press(history.forked(history.leaves.len()))));
        // In the midst of it: some have been answered, others are on their way.
        while answered.load(Ordering::Relaxed) < 5 + 3 * round && !(one.is_finished() && other.is_finished()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        for (request, line) in one.await.unwrap().into_iter().chain(other.await.unwrap()) {
            assert!(cosigned(&key, &request, &line).is_some(), "{line}");
            let checkpoint = Checkpoint::parse(&request.checkpoint).unwrap();
            let root = signed.entry(checkpoint.size).or_insert(checkpoint.root);
            assert_eq!(*root, checkpoint.root, "two roots for the size {}", checkpoint.size);
        }
        let (_, seen) = State::read(&folder.path().join("state")).unwrap();
        let largest = seen.first().map_or(0, |seen| seen.checkpoint.size);
        // What was answered is on the disk, and it never went back.
        assert!(Some(&largest) >= signed.keys().last() && largest >= *sizes.last().unwrap(), "{largest} {signed:?}");
        sizes.push(largest);
    }
    assert!(signed.len() > 3, "hardly anything was signed: {signed:?}");
    let histories: Vec<bool> = [&log, &fork]
        .iter()
        .map(|history| {
            signed.iter().filter(|(size, _)| **size > 1).any(|(size, root)| history.checkpoint(*size).root == *root)
        })
        .collect();
    assert_eq!(histories.iter().filter(|signed| **signed).count(), 1, "{histories:?}");
}

#[tokio::test]
async fn the_command() {
    let folder = tempfile::tempdir().unwrap();
    let keygen = ["witness", "keygen", "--name", "w.example/1", "--out", "witness.key", "--state", "state"];
    let made = kopuro(&keygen, folder.path());
    assert!(made.status.success(), "{made:?}");
    let key: Verifier = String::from_utf8(made.stdout).unwrap().trim().parse().unwrap();
    assert!(key.is_cosigner());
    // Neither key nor state is ever made over another.
    assert!(!kopuro(&keygen, folder.path()).status.success());
    let second = ["witness", "keygen", "--name", "w.example/2", "--out", "second.key", "--state", "state"];
    assert!(!kopuro(&second, folder.path()).status.success() && !folder.path().join("second.key").exists());

    let log = Leaves::new(ORIGIN, 9);
    let told = |toml: &str| {
        std::fs::write(folder.path().join("witness.toml"), toml).unwrap();
        let output = kopuro(&["witness", "run", "--check"], folder.path());
        (output.status.code(), String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned())
    };
    let own = key.to_string();
    for (toml, says) in [
        ("", "no log to follow"),
        ("logs = [\"x\"]\n", "witness.toml:1:9: logs[0]: not a verifier key"),
        (&format!("logs = [\"{own}\"]\n"), "is a witness's key, not a log's"),
        ("policy = \"none.policy\"\n", "none.policy"),
        ("lugs = []\n", "unknown field"),
        ("key = \"log.key\"\n", "log.key"),
        (&format!("prefix = \"kg/\"\nlogs = [\"{}\"]\n", log.signer.verifier()), "no prefix of a path"),
        (&format!("admin = \"0.0.0.0:1\"\nlogs = [\"{}\"]\n", log.signer.verifier()), "in the clear"),
    ] {
        let (code, said) = told(toml);
        assert!(code == Some(64) && said.contains(says), "{toml}: {code:?} {said}");
    }
    std::fs::write(folder.path().join("policy"), format!("log {}\nquorum none\n", log.signer.verifier())).unwrap();
    let (code, said) = told("policy = \"policy\"\n");
    assert_eq!(code, Some(0), "{said}");

    let mut process = Process::start(folder.path()).await;
    assert_eq!(post(process.at, &log.request(0, 4)).await.0, 200);
    assert_eq!(post(process.at, &log.request(0, 9)).await.0, 409);
    let (_, metrics) = admin(process.admin, "/metrics").await.unwrap();
    for line in ["kopuro_witness_size{log=\"gw.civil.kg/log\"} 4", "kopuro_witness_requests_total{status=\"409\"} 1"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    let shown = kopuro(&["witness", "show", "--state", "state"], folder.path());
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(ORIGIN) && shown.contains("size     4"), "{shown}");
    // SIGTERM ends it well, and it goes on from there.
    let pid = process.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = eventually("the witness stops", async || process.child.try_wait().unwrap()).await;
    assert!(ended.success());
    let process = Process::start(folder.path()).await;
    assert_eq!(post(process.at, &log.request(4, 9)).await.0, 200);
    drop(process);
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    let refused = kopuro(&["witness", "run"], folder.path());
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("no witness's state"));
}
