//! A log's side: asking witnesses, and what a witness that is slow, down or wrong can and cannot do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kopuro::log::Log;
use kopuro::oversight::witness::{
    AddCheckpoint, Cosigners, CosignersError, CosignersOptions, QuorumError, ServeOptions, WitnessFault, serve,
};
use kopuro::trust::note::{Cosigner, Note, Verifier};
use kopuro::trust::pki::{Authority, Sans, Validity};
use kopuro::trust::policy::WitnessPolicy;
use kopuro::trust::tls::{Credentials, web_server_config};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::log_support::{open, record, signer};
use crate::witness::Station;

const TIMEOUT: Duration = Duration::from_millis(1_500);

async fn grow(log: &Log, entries: u64) {
    for _ in 0..entries {
        log.append(record(Uuid::now_v7())).await.unwrap();
    }
}

/// Two of these witnesses must cosign; the names are w0, w1, ….
fn two_of(witnesses: &[(Verifier, String)]) -> Cosigners {
    asking(&policy(witnesses, 2), None).unwrap()
}

fn policy(witnesses: &[(Verifier, String)], threshold: usize) -> String {
    let mut text = String::new();
    for (number, (key, url)) in witnesses.iter().enumerate() {
        text.push_str(&format!("witness w{number} {key} {url}\n"));
    }
    let names: Vec<String> = (0..witnesses.len()).map(|number| format!("w{number}")).collect();
    text.push_str(&format!("group all-of-them {threshold} {}\nquorum all-of-them\n", names.join(" ")));
    text
}

fn asking(policy: &str, extra_roots: Option<std::path::PathBuf>) -> Result<Cosigners, CosignersError> {
    let policy = WitnessPolicy::parse(policy.as_bytes()).unwrap();
    Cosigners::new(CosignersOptions { policy, timeout: TIMEOUT, grace: Duration::from_millis(200), extra_roots })
}

/// A good witness of the tests' log.
async fn good(name: &str) -> (Station, (Verifier, String)) {
    let station = Station::new(name);
    let at = station.serve(&[signer(1).verifier()], ServeOptions::default()).await;
    let listed = (station.key.clone(), format!("http://{at}"));
    (station, listed)
}

/// A witness that answers as it likes: status, content type and body to a request.
async fn wrong(
    name: &str,
    answer: impl Fn(&Cosigner, AddCheckpoint) -> (u16, &'static str, String) + Send + 'static,
) -> (Verifier, String) {
    let cosigner = Cosigner::generate(name).unwrap();
    let key = cosigner.verifier();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let body = loop {
                let mut more = [0; 4_096];
                let read = stream.read(&mut more).await.unwrap();
                request.extend_from_slice(&more[..read]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if body.len() >= length.parse().unwrap() || read == 0 {
                    break body.to_owned();
                }
            };
            let (status, kind, body) = answer(&cosigner, AddCheckpoint::parse(body.as_bytes()).unwrap());
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (key, format!("http://{at}/"))
}

/// Accepts, and never says a word.
async fn silent() -> (Verifier, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    (Cosigner::generate("silent.example").unwrap().verifier(), url)
}

/// Nobody listens there.
fn down() -> (Verifier, String) {
    let at = SocketAddr::from(([127, 0, 0, 1], crate::harness::free_port()));
    (Cosigner::generate("down.example").unwrap().verifier(), format!("http://{at}"))
}

fn cosigned_by(cosigners: &Cosigners, note: &str) -> Vec<String> {
    let note = Note::parse(note).unwrap();
    let cosigned = cosigners.policy().judge(&note).unwrap();
    assert!(cosigned.quorum);
    assert!(note.verify(&[signer(1).verifier()]).is_ok());
    cosigned.by.iter().map(|(witness, _)| witness.name.to_string()).collect()
}

#[tokio::test]
async fn checkpoints_are_cosigned_as_the_log_grows() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    let [(_a, one), (_b, two), (_c, three)] =
        [good("a.example").await, good("b.example").await, good("c.example").await];
    let listed = [one, two, three];
    let cosigners = two_of(&listed);
    for entries in [0, 1, 6, 300, 0] {
        grow(&log, entries).await;
        let checkpoint = log.checkpoint();
        let note = cosigners.cosign(&log, &checkpoint).await.unwrap();
        assert_eq!(cosigned_by(&cosigners, &note), ["w0", "w1", "w2"], "size {}", checkpoint.size);
    }
    // Another process that knows nothing of where the witnesses stand learns it from them.
    grow(&log, 40).await;
    let fresh = two_of(&listed);
    let note = fresh.cosign(&log, &log.checkpoint()).await.unwrap();
    assert_eq!(cosigned_by(&fresh, &note).len(), 3);
    // The first still believes what it saw, and is corrected.
    grow(&log, 3).await;
    let old = log.checkpoint();
    assert!(cosigners.cosign(&log, &old).await.is_ok());
    // Behind the witnesses nothing is cosigned, and that is said.
    grow(&log, 1).await;
    assert!(cosigners.cosign(&log, &log.checkpoint()).await.is_ok());
    let error = cosigners.cosign(&log, &old).await.unwrap_err();
    assert!(matches!(error.faults[0].1, WitnessFault::Ahead(_)), "{error}");
    log.close().await;
}

#[tokio::test]
async fn a_quorum_of_two_with_one_down_and_with_two() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    grow(&log, 5).await;
    let [(_a, one), (_b, two)] = [good("a.example").await, good("b.example").await];
    for broken in [down(), silent().await] {
        let cosigners = two_of(&[one.clone(), broken, two.clone()]);
        let started = Instant::now();
        let note = cosigners.cosign(&log, &log.checkpoint()).await.unwrap();
        assert_eq!(cosigned_by(&cosigners, &note), ["w0", "w2"]);
        assert!(started.elapsed() < TIMEOUT, "waited beyond the grace: {:?}", started.elapsed());
    }
    let cosigners = two_of(&[one, down(), silent().await]);
    let started = Instant::now();
    let error = cosigners.cosign(&log, &log.checkpoint()).await.unwrap_err();
    assert!(started.elapsed() < TIMEOUT + Duration::from_secs(1), "{:?}", started.elapsed());
    let QuorumError { cosigned, faults, .. } = &error;
    assert_eq!((cosigned.as_slice(), faults.len()), (&["w0".to_owned()][..], 2), "{error}");
    assert!(matches!(faults[0], (_, WitnessFault::Unreachable(_))), "{error}");
    assert!(matches!(faults[1], (_, WitnessFault::Silent(_))), "{error}");
    assert!(error.to_string().contains("only w0 cosigned; w1 not reached"), "{error}");
    log.close().await;
}

#[tokio::test]
async fn a_wrong_answer_is_that_witness_s_fault_and_counts_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    grow(&log, 5).await;
    const TEXT: &str = "text/plain";
    const SIZE: &str = "text/x.tlog.size";
    fn text(request: &AddCheckpoint) -> String {
        Note::parse(&request.checkpoint).unwrap().text().to_owned()
    }
    let (_station, good) = good("good.example").await;
    let other_text = |cosigner: &Cosigner, _| (200, TEXT, cosigner.cosign("another\n", 9).unwrap().to_string());
    let other_key = |_: &Cosigner, request: AddCheckpoint| {
        let stranger = Cosigner::generate("stranger.example").unwrap();
        (200, TEXT, stranger.cosign(&text(&request), 9).unwrap().to_string())
    };
    // Good and bad lines of one key: a note with both would be refused by everybody.
    let both = |cosigner: &Cosigner, request: AddCheckpoint| {
        let (good, bad) = (cosigner.cosign(&text(&request), 9).unwrap(), cosigner.cosign("another\n", 9).unwrap());
        (200, TEXT, format!("{good}{bad}"))
    };
    let cases: Vec<(_, &str)> = vec![
        (wrong("w.example", other_text).await, "not of this checkpoint"),
        (wrong("w.example", both).await, "not of this checkpoint"),
        (wrong("w.example", other_key).await, "no cosignature of its key"),
        (wrong("w.example", |_, _| (200, TEXT, "yes".into())).await, "is no cosignature"),
        (wrong("w.example", |_, _| (200, TEXT, String::new())).await, "is no cosignature"),
        (wrong("w.example", |_, _| (200, TEXT, "x".repeat(70_000))).await, "length limit exceeded"),
        (wrong("w.example", |_, _| (500, TEXT, "oh\r\n\u{7}no".into())).await, "answered 500: oh   no"),
        (wrong("w.example", |_, _| (302, TEXT, String::new())).await, "answered 302: nothing more"),
        (wrong("w.example", |_, _| (409, TEXT, "3\n".into())).await, "409 without a size"),
        (wrong("w.example", |_, _| (409, SIZE, "03\n".into())).await, "409 without a size"),
        (wrong("w.example", |_, _| (409, SIZE, "3\n".into())).await, "and 409 again"),
        (wrong("w.example", |_, _| (409, SIZE, "99\n".into())).await, "has seen 99 entries"),
    ];
    for (listed, says) in cases {
        let cosigners = two_of(&[good.clone(), listed.clone()]);
        let error = cosigners.cosign(&log, &log.checkpoint()).await.unwrap_err().to_string();
        assert!(error.contains("only w0 cosigned") && error.contains(says), "{error} should say {says}");
        // Where the others are enough it does no harm.
        let cosigners = asking(&policy(&[listed, good.clone()], 1), None).unwrap();
        let note = cosigners.cosign(&log, &log.checkpoint()).await.unwrap();
        assert_eq!(cosigned_by(&cosigners, &note), ["w1"]);
    }
    log.close().await;
}

#[tokio::test]
async fn a_log_that_forked_gets_no_quorum() {
    let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (log, _) = open(one.path()).unwrap();
    let (fork, _) = open(other.path()).unwrap();
    grow(&log, 5).await;
    grow(&fork, 8).await;
    let [(_a, a), (_b, b)] = [good("a.example").await, good("b.example").await];
    let cosigners = two_of(&[a, b]);
    cosigners.cosign(&log, &log.checkpoint()).await.unwrap();
    let error = cosigners.cosign(&fork, &fork.checkpoint()).await.unwrap_err();
    assert_eq!(error.cosigned.len(), 0);
    assert!(
        error.faults.iter().all(|(_, fault)| matches!(fault, WitnessFault::Refused { status: 422, .. })),
        "{error}"
    );
    // As a publisher calls it.
    let cosign = cosigners.for_log(log.clone());
    assert!(cosign(log.checkpoint()).await.is_ok());
    assert!(cosign(fork.checkpoint()).await.unwrap_err().contains("none cosigned"));
    log.close().await;
    fork.close().await;
}

#[tokio::test]
async fn policies_that_can_never_be_met_are_refused() {
    let (key, url) = down();
    let out_of_reach = format!("witness w0 {key}\nquorum w0\n");
    assert!(matches!(asking(&out_of_reach, None), Err(CosignersError::OutOfReach)));
    for bad in ["http://127.0.0.1:1/x?y", "https://[::1"] {
        let policy = format!("witness w0 {key} {bad}\nquorum w0\n");
        assert!(matches!(asking(&policy, None), Err(CosignersError::Url(_))), "{bad}");
    }
    assert!(asking(&format!("witness w0 {key} {url}\nquorum w0\n"), Some("/none".into())).is_err());
    // Nobody is needed: whoever is quick enough joins, and nobody can hold the checkpoint up.
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    let (_station, (good, good_url)) = good("good.example").await;
    let (mute, mute_url) = silent().await;
    let none = format!("witness a {mute} {mute_url}\nwitness b {good} {good_url}\nquorum none\n");
    let cosigners = asking(&none, None).unwrap();
    let started = Instant::now();
    let note = cosigners.cosign(&log, &log.checkpoint()).await.unwrap();
    assert_eq!(cosigned_by(&cosigners, &note), ["b"]);
    assert!(started.elapsed() < TIMEOUT);
    log.close().await;
}

#[tokio::test]
async fn over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(&folder.path().join("log")).unwrap();
    let now = OffsetDateTime::now_utc();
    let mut root = Authority::create_root("KG", now).unwrap();
    let mut ca = root.issue_member_ca(&"KG/NGO/1".parse().unwrap(), now).unwrap();
    let sans = Sans { dns: vec![], ips: vec!["127.0.0.1".parse().unwrap()] };
    let issued = ca.issue(&"KG/NGO/1/witness".parse().unwrap(), &sans, Validity::days(now, 1)).unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, root.certificate_pem()).unwrap();

    let station = Station::new("w.example");
    let tls = web_server_config(&Credentials::from_pem(&issued.cert_pem, &issued.key_pem).unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let witness = Arc::new(station.open(&[signer(1).verifier()]).unwrap());
    tokio::spawn(serve(listener, Some(tls), witness, ServeOptions::default(), std::future::pending()));

    let policy = format!("witness w0 {} https://{at}\nquorum w0\n", station.key);
    let cosigners = asking(&policy, Some(roots)).unwrap();
    let note = cosigners.cosign(&log, &log.checkpoint()).await.unwrap();
    assert_eq!(cosigned_by(&cosigners, &note), ["w0"]);
    // Without that root the witness is nobody.
    let error = asking(&policy, None).unwrap().cosign(&log, &log.checkpoint()).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    log.close().await;
}

/// PyPI's aics-witness, a process of its own; killed when dropped.
struct Foreign(std::process::Child);

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "needs PyPI's aics-witness: tests/interop/witness.py fetches it and runs this"]
async fn a_foreign_witness_cosigns_our_log() {
    let folder = tempfile::tempdir().unwrap();
    let python = std::env::var("KOPURO_FOREIGN_WITNESS").expect("a Python that can import aics_witness");
    let config = folder.path().join("witness.json");
    let command = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&python);
        command.args(["-m", "aics_witness"]).args(arguments).arg("--config").arg(&config);
        command
    };
    let run = |arguments: &[&str]| {
        let output = command(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = run(&["init", "--name", "foreign.example/w1"]);
    let key: Verifier = said.split_whitespace().find_map(|word| word.parse().ok()).expect("its key");
    run(&["add-log", "--origin", signer(1).name(), "--vkey", &signer(1).verifier().to_string()]);
    let at = SocketAddr::from(([127, 0, 0, 1], crate::harness::free_port()));
    let start = async || {
        let child =
            command(&["serve", "--listen", &at.to_string()]).stderr(std::process::Stdio::null()).spawn().unwrap();
        crate::harness::eventually("the foreign witness is up", async || tokio::net::TcpStream::connect(at).await.ok())
            .await;
        Foreign(child)
    };
    let foreign = start().await;

    let (log, _) = open(&folder.path().join("log")).unwrap();
    let cosigners = asking(&format!("witness w0 {key} http://{at}\nquorum w0\n"), None).unwrap();
    for entries in [0, 1, 7, 500] {
        grow(&log, entries).await;
        let note = cosigners.cosign(&log, &log.checkpoint()).await.unwrap();
        assert_eq!(cosigned_by(&cosigners, &note), ["w0"]);
    }
    // Its database survives it; ours knows nothing of where it stands and is told.
    drop(foreign);
    assert!(cosigners.cosign(&log, &log.checkpoint()).await.is_err());
    let _foreign = start().await;
    grow(&log, 5).await;
    let fresh = asking(&format!("witness w0 {key} http://{at}\nquorum w0\n"), None).unwrap();
    fresh.cosign(&log, &log.checkpoint()).await.unwrap();
    // Another history of the same log is refused by it, and so by us.
    let (fork, _) = open(&folder.path().join("fork")).unwrap();
    grow(&fork, 600).await;
    let error = fresh.cosign(&fork, &fork.checkpoint()).await.unwrap_err();
    assert!(matches!(error.faults[0].1, WitnessFault::Refused { status: 422, .. }), "{error}");
    log.close().await;
    fork.close().await;
}
