//! Whatever a node goes by is exchanged while it works: certificates, CRLs, grants, directories and the log's key. Each is seen to have
//! been taken up, no exchange fails, and what the logs have signed before and after is one history to whoever verifies it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use kopuro::gateway::Node;
use kopuro::gateway::status::NodeStatus;
use kopuro::log::LogError;
use kopuro::log::entry::Outcome;
use kopuro::log::verify::verify_folder;
use kopuro::trust::note::{Signer, Verifier};
use kopuro::trust::pki::{Issued, Sans, Validity};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::probe::{Probe, ProbeClient, blob};
use crate::harness::published::Published;
use crate::harness::raw::{client_config, ended};
use crate::harness::{CONSUMER, Federation, PROBE, PROVIDER, Running, admin, eventually, story, write_whole};

const MEMBERS: [&str; 2] = [CONSUMER, PROVIDER];
const PUBLISHED: &str = "[publish]\nstore = \"public\"\ninterval = \"100ms\"\nopen_data = false\n[limits]\nworkers = 2\nconnections_per_peer = 2\n";

/// Each worker has one, and so has what the node asks beside.
const CONNECTIONS: u64 = 3;

/// Callers that never stop, each reply looked at. A call that fails ends its caller, and [`Load::end`] tells.
struct Load {
    /// What callers call with, one after the other.
    clients: Vec<Arc<ArcSwap<ProbeClient>>>,
    /// Streams that began before this number changed end, and others begin.
    turn: watch::Sender<u64>,
    streams: Arc<[AtomicU64; 2]>,
    calls: Arc<AtomicU64>,
    messages: Arc<AtomicU64>,
    stop: tokio_util::sync::CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(clients: Vec<ProbeClient>) -> Self {
        let clients: Vec<_> = clients.into_iter().map(|client| Arc::new(ArcSwap::from_pointee(client))).collect();
        let mut load = Self {
            clients,
            turn: watch::Sender::new(0),
            streams: Arc::default(),
            calls: Arc::default(),
            messages: Arc::default(),
            stop: tokio_util::sync::CancellationToken::new(),
            tasks: Vec::new(),
        };
        for (number, client) in load.clients.clone().into_iter().enumerate() {
            for caller in 0..2 {
                load.tasks.push(tokio::spawn(call(load.part(&client), format!("{number}-{caller}"))));
            }
            load.tasks.push(tokio::spawn(count(load.part(&client))));
        }
        for (client, at) in load.clients.clone().iter().zip(0..2) {
            let turn = load.turn.subscribe();
            load.tasks.push(tokio::spawn(chat(load.part(client), turn, load.streams.clone(), at)));
        }
        load
    }

    fn part(&self, client: &Arc<ArcSwap<ProbeClient>>) -> Part {
        let (calls, messages) = (self.calls.clone(), self.messages.clone());
        Part { client: client.clone(), calls, messages, stop: self.stop.clone() }
    }

    /// So many more calls were answered, and messages on streams.
    async fn goes_on(&self) {
        let counts = || [&self.calls, &self.messages].map(|count| count.load(Ordering::SeqCst));
        let before = counts();
        eventually("calls and streams go on", async || {
            self.sound();
            let now = counts();
            (now[0] >= before[0] + 30 && now[1] >= before[1] + 10).then_some(())
        })
        .await;
    }

    /// Every stream that ran has ended as it should, and new ones run.
    async fn turned(&self) {
        let turn = self.turn.borrow().wrapping_add(1);
        self.turn.send_replace(turn);
        eventually("streams begin anew", async || {
            self.sound();
            self.streams.iter().all(|stream| stream.load(Ordering::SeqCst) == turn).then_some(())
        })
        .await;
    }

    /// None has failed so far.
    fn sound(&self) {
        assert!(!self.tasks.iter().any(JoinHandle::is_finished), "an exchange has failed: see above");
    }

    async fn end(self) {
        self.goes_on().await;
        self.stop.cancel();
        for task in self.tasks {
            task.await.expect("no exchange fails");
        }
    }
}

/// What one caller has of the load.
struct Part {
    client: Arc<ArcSwap<ProbeClient>>,
    calls: Arc<AtomicU64>,
    messages: Arc<AtomicU64>,
    stop: tokio_util::sync::CancellationToken,
}

async fn call(part: Part, name: String) {
    let mut number = 0;
    while !part.stop.is_cancelled() {
        number += 1;
        let said = format!("{name}-{number}");
        let answer = part.client.load_full().unary(said.clone()).await;
        let answer = answer.unwrap_or_else(|status| panic!("call {said}: {status:?}"));
        assert_eq!(answer.into_inner().value, said);
        part.calls.fetch_add(1, Ordering::SeqCst);
    }
}

/// Streams of fifty answers.
async fn count(part: Part) {
    while !part.stop.is_cancelled() {
        let answers = part.client.load_full().expand(Some(50)).await;
        let mut answers = answers.unwrap_or_else(|status| panic!("a stream: {status:?}")).into_inner();
        for number in 0..50 {
            let answer = answers.message().await.unwrap_or_else(|status| panic!("answer {number}: {status:?}"));
            assert_eq!(answer.expect("fifty answers").value, number.to_string());
            part.messages.fetch_add(1, Ordering::SeqCst);
        }
        assert!(answers.message().await.unwrap_or_else(|status| panic!("the end: {status:?}")).is_none());
    }
}

/// Long streams, in both directions at once.
async fn chat(part: Part, mut turn: watch::Receiver<u64>, streams: Arc<[AtomicU64; 2]>, at: usize) {
    while !part.stop.is_cancelled() {
        let this = *turn.borrow_and_update();
        let (say, said) = mpsc::channel(1);
        say.send(blob("0")).await.unwrap();
        let heard = part.client.load_full().chat(ReceiverStream::new(said)).await;
        let mut heard = heard.unwrap_or_else(|status| panic!("a long stream: {status:?}")).into_inner();
        let mut number = 0;
        loop {
            let echo = heard.message().await.unwrap_or_else(|status| panic!("message {number}: {status:?}"));
            assert_eq!(echo.expect("an echo").value, number.to_string());
            part.messages.fetch_add(1, Ordering::SeqCst);
            streams[at].store(this, Ordering::SeqCst);
            // A pace, not a wait: long streams say something now and then.
            let _ = tokio::time::timeout(Duration::from_millis(20), turn.changed()).await;
            if *turn.borrow() != this || part.stop.is_cancelled() {
                break;
            }
            number += 1;
            say.send(blob(&number.to_string())).await.unwrap();
        }
        drop(say);
        assert!(heard.message().await.unwrap_or_else(|status| panic!("a long stream's end: {status:?}")).is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_exchanged_under_load_and_no_exchange_fails() {
    let mut running = Federation::new().start(PUBLISHED).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(ProbeClient::new(running.desk().await));
    }
    let load = Load::start(clients);
    load.goes_on().await;
    let seen = running.federation.path("seen");
    let old_keys = MEMBERS.map(|member| running.federation.log_key(member).clone());
    verified_by(&running.federation, PROVIDER, &[&old_keys[1]], &seen);

    let replaced = certificates(&mut running, &load).await;
    revocations(&mut running, &load, replaced).await;
    grants(&mut running, &load).await;
    directories(&mut running, &load).await;
    let new_keys = log_keys(&mut running, &load).await;
    load.end().await;

    for node in [&running.consumer, &running.provider] {
        let entries = Running::entries(node);
        assert!(entries.iter().all(|entry| [Outcome::Ok, Outcome::Unspecified].contains(&entry.outcome())), "{}", {
            story(&entries)
        });
    }
    let federation = running.stop().await;
    for (member, [old, new]) in MEMBERS.into_iter().zip([0, 1].map(|at| [&old_keys[at], &new_keys[at]])) {
        let data = federation.member_path(member, "data");
        let verified = verify_folder(&data, &[old.clone(), new.clone()][..]).unwrap();
        assert_eq!((verified.first, verified.ahead_of_head), (0, 0));
        // One key alone did not sign all of it.
        for key in [old, new] {
            assert!(matches!(verify_folder(&data, key), Err(LogError::Signature { .. })), "{member}");
        }
    }
    verified_by(&federation, PROVIDER, &[&old_keys[1], &new_keys[1]], &seen);
    monitored(&federation);

    // With the new key alone, and the directory, a node goes on where it was.
    let provider = federation.start_node(PROVIDER).await;
    assert_eq!(status(&provider).await.log.unwrap().keys, [new_keys[1].to_string()]);
    provider.stop().await;
}

/// New certificates and keys for both nodes, by watching and by being told to, and for the system that calls. Gives the serial
/// numbers of those that the nodes had.
async fn certificates(running: &mut Running, load: &Load) -> [String; 2] {
    let old = MEMBERS.map(|member| running.federation.node_serials[member].clone());
    for member in MEMBERS {
        running.federation.write_node_certificate(member);
        let new = running.federation.node_serials[member].clone();
        let node = running.node(member);
        if member == PROVIDER {
            node.reload().await.unwrap();
        }
        let spare = running.federation.issue("KG/GOV/1/other");
        let address = running.node(member).nodes_addr();
        eventually("the new certificate is shown", async || {
            load.sound();
            (crate::reload::serial_at(&running.federation, address, &spare).await == new).then_some(())
        })
        .await;
        load.goes_on().await;
    }
    for client in &load.clients {
        client.store(Arc::new(ProbeClient::new(running.desk().await)));
    }
    load.goes_on().await;
    // Only streams that had begun before are on connections of the old certificates; after them, nothing is.
    load.turned().await;
    for member in MEMBERS {
        let node = running.node(member);
        eventually("connections of the old certificates are gone", async || {
            load.sound();
            (connections(node, member).await <= CONNECTIONS).then_some(())
        })
        .await;
    }
    old
}

/// CRLs that revoke somebody else's certificate and those that the nodes no longer use.
async fn revocations(running: &mut Running, load: &Load, [consumer, provider]: [String; 2]) {
    for (member, system, old) in [(CONSUMER, "KG/GOV/1/other", consumer), (PROVIDER, "KG/GOV/2/spare", provider)] {
        let stranger: Issued = running.federation.issue(system);
        running.federation.revoke(member, &old);
        running.federation.revoke(member, &stranger.serial_hex);
        for node in [&running.consumer, &running.provider] {
            eventually("the list counts", async || {
                load.sound();
                let config = client_config(&running.federation, Some(&stranger));
                // Who is not revoked is waited for, and closed on in the end: only the refusal is looked for.
                let said =
                    tokio::time::timeout(Duration::from_millis(500), ended(config, node.nodes_addr(), b"")).await;
                said.is_ok_and(|said| said.contains("CertificateRevoked")).then_some(())
            })
            .await;
        }
        load.goes_on().await;
    }
}

/// A grant with other words, an end, a rate, and other fields.
async fn grants(running: &mut Running, load: &Load) {
    let file = running.federation.member_path(PROVIDER, "grants/probe.toml");
    let base = running.federation.grants.clone();
    let basis = "text = \"Мыйзам № 1";
    let named = base.replace("[\"*\"]", "[\"Unary\", \"Expand\", \"Chat\"]");
    let changes = [
        (base.replace(basis, "text = \"Жаңы сөз"), "Жаңы сөз"),
        (base.clone() + "until = 2099-01-01\n", "\"until\": \"20"),
        (base.clone() + "rate = { per_second = 1000000, burst = 1000000 }\nfrom = 2020-02-02\n", "\"from\": \"20"),
        (named.clone() + "fields = { Unary = [\"value\"], Expand = [\"value\"], Chat = [\"value\"] }\n", "\"value\""),
        (base, "\"fields\": null"),
    ];
    for (grant, sign) in changes {
        write_whole(&file, grant.as_bytes());
        let shown = running.federation.member_path(PROVIDER, "public/grants.json");
        eventually("the grant is published as it is now", async || {
            load.sound();
            std::fs::read_to_string(&shown).ok()?.contains(sign).then_some(())
        })
        .await;
        load.goes_on().await;
    }
}

/// A directory with something else in it, and one in which nodes are reached by another name.
async fn directories(running: &mut Running, load: &Load) {
    let more = "KG/GOV/2/archive".parse().unwrap();
    running.federation.directory.systems.push(kopuro::trust::directory::System { id: more });
    running.federation.directory.sort();
    in_force(running, load).await;
    for node in &mut running.federation.directory.nodes {
        node.endpoint = node.endpoint.replace("127.0.0.1", "localhost");
    }
    in_force(running, load).await;
    for node in [&running.consumer, &running.provider] {
        eventually("peers are called at their new address", async || {
            load.sound();
            let peers = status(node).await.peers;
            peers.iter().all(|peer| peer.address.starts_with("localhost:") && peer.connections > 0).then_some(())
        })
        .await;
    }
}

/// A new key for each log: both sign, then the directory has the new one, then the old one is gone.
async fn log_keys(running: &mut Running, load: &Load) -> [Verifier; 2] {
    let mut new_keys = Vec::new();
    for member in MEMBERS {
        let old = running.federation.log_key(member).clone();
        let next = Signer::generate(old.name()).unwrap();
        let new = next.verifier();
        let file = |name: &str| running.federation.member_path(member, name);
        write_whole(&file("log.key.next"), next.to_encoded().as_bytes());
        signs_by(running, load, member, &[&old, &new]).await;
        load.goes_on().await;

        let nodes = &mut running.federation.directory.nodes;
        let node = nodes.iter_mut().find(|node| node.member.as_str() == member).unwrap();
        node.log_key = new.clone();
        node.more_log_keys = vec![old.clone()];
        in_force(running, load).await;

        let file = |name: &str| running.federation.member_path(member, name);
        std::fs::rename(file("log.key.next"), file("log.key")).unwrap();
        signs_by(running, load, member, &[&new]).await;
        load.goes_on().await;
        new_keys.push(new);
    }
    new_keys.try_into().unwrap()
}

/// The node says that it signs by these keys, and what it publishes is signed so.
async fn signs_by(running: &Running, load: &Load, member: &str, keys: &[&Verifier]) {
    let names: Vec<_> = keys.iter().map(ToString::to_string).collect();
    let node = running.node(member);
    eventually("the log signs by these keys", async || {
        load.sound();
        (status(node).await.log.unwrap().keys == names).then_some(())
    })
    .await;
    let public = Published::folder(running.federation.member_path(member, "public"));
    eventually("what is published is signed so", async || {
        let note = String::from_utf8(public.read("checkpoint").await?.to_vec()).unwrap();
        let note = kopuro::trust::note::Note::parse(&note).unwrap();
        (note.signatures().len() == keys.len() && keys.iter().all(|key| note.verify(&[(*key).clone()]).is_ok()))
            .then_some(())
    })
    .await;
    eventually("the key beside it is the log's own", async || {
        (public.read("vkey").await? == format!("{}\n", keys[0])).then_some(())
    })
    .await;
}

/// Publishes the directory as it is now, and waits until both nodes go by it.
async fn in_force(running: &mut Running, load: &Load) {
    let version = running.federation.directory.version;
    running.federation.publish_directory();
    for node in [&running.consumer, &running.provider] {
        eventually("the directory is in force", async || {
            load.sound();
            (status(node).await.directory.version == version).then_some(())
        })
        .await;
    }
    load.goes_on().await;
}

async fn status(node: &Node) -> NodeStatus {
    let (code, answer) = admin(node.admin_addr(), "/status").await.unwrap();
    assert_eq!(code, 200, "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// How many connections other nodes have to this one.
async fn connections(node: &Node, member: &str) -> u64 {
    let (_, metrics) = admin(node.admin_addr(), "/metrics").await.unwrap();
    let name = format!("kopuro_connections{{node=\"{member}/_node/main\",listener=\"nodes\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("the metric").parse().unwrap()
}

fn public(federation: &Federation, member: &str) -> String {
    federation.member_path(member, "public").display().to_string()
}

/// `kopuro log verify` of what is published, going on from what was seen before.
fn verified_by(federation: &Federation, member: &str, keys: &[&Verifier], seen: &PathBuf) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kopuro"));
    command.args(["log", "verify", &public(federation, member), "--state"]).arg(seen);
    keys.iter().for_each(|key| _ = command.args(["--vkey", &key.to_string()]));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A monitor that has only the directory finds nothing wrong, and both sides telling the same of every exchange.
fn monitored(federation: &Federation) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kopuro"));
    command.arg("monitor").arg("--directory").arg(federation.path("directory"));
    MEMBERS.iter().for_each(|member| _ = command.args(["--log", &public(federation, member)]));
    command.arg("--state").arg(federation.path("state"));
    let output = command.args(["--once", "--grace", "0s", "--format", "jsonl"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let round: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let logs = round["logs"].as_array().unwrap();
    assert!(logs.len() == 2 && logs.iter().all(|log| log["state"] == "GOOD"), "{text}");
    assert!(round["exchanges"]["agreed"].as_u64().unwrap() > 200, "{text}");
}

/// A grant or a directory with something else in it leaves the connections to peers and back-ends as they are.
#[tokio::test(flavor = "multi_thread")]
async fn connections_outlive_what_they_were_not_made_with() {
    let mut running = Running::start().await;
    let desk = ProbeClient::new(running.desk().await);
    desk.unary("x").await.unwrap();
    let open = async |running: &Running| {
        let [consumer, provider] = [status(&running.consumer).await, status(&running.provider).await];
        [consumer.peers[0].connections, provider.backends[0].connections]
    };
    assert_eq!(open(&running).await, [1, 1]);
    running.federation.publish_directory();
    for node in [&running.consumer, &running.provider] {
        node.reload().await.unwrap();
    }
    assert_eq!(open(&running).await, [1, 1], "a directory");
    // Nobody's certificate is judged by an old list.
    let now = time::OffsetDateTime::now_utc();
    running.federation.write_crl(CONSUMER, now + time::Duration::days(2));
    for node in [&running.consumer, &running.provider] {
        node.reload().await.unwrap();
    }
    assert_eq!(open(&running).await, [0, 0], "a CRL");
    desk.unary("x").await.unwrap();
    running.federation.write_node_certificate(PROVIDER);
    running.provider.reload().await.unwrap();
    assert_eq!(open(&running).await[1], 0, "the node's own certificate");
    desk.unary("x").await.unwrap();
    running.stop().await;
}

/// A back-end whose certificate is about to end is connected to anew for each look, so that its successor is seen, and what runs goes on.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_new_goes_on_a_connection_whose_certificate_is_about_to_end() {
    let mut federation = Federation::new();
    federation.poll = "1s";
    federation.write_files("");
    let now = time::OffsetDateTime::now_utc();
    let short = Validity { not_before: now - time::Duration::HOUR, not_after: now + time::Duration::minutes(5) };
    let sans = Sans { dns: vec!["localhost".into()], ips: vec!["127.0.0.1".parse().unwrap()] };
    let issued = federation.cas.get_mut(PROVIDER).unwrap().issue(&PROBE.parse().unwrap(), &sans, short).unwrap();
    let address = ([127, 0, 0, 1], federation.probe_port).into();
    let probe = Probe::start(address, &issued.cert_pem, &issued.key_pem, federation.root.certificate_pem()).await;
    let provider = federation.start_node(PROVIDER).await;
    let consumer = federation.start_node(CONSUMER).await;
    let mut running = Running { federation, consumer, provider, probe };

    let desk = ProbeClient::new(running.desk().await);
    let (say, said) = mpsc::channel(1);
    say.send(blob("salam")).await.unwrap();
    let mut heard = desk.chat(ReceiverStream::new(said)).await.unwrap().into_inner();
    heard.message().await.unwrap().expect("an echo");
    eventually("the connection takes no new calls", async || {
        (status(&running.provider).await.backends[0].connections == 0).then_some(())
    })
    .await;
    desk.unary("x").await.unwrap();
    say.send(blob("more")).await.unwrap();
    assert_eq!(heard.message().await.unwrap().expect("an echo").value, "more");
    drop(say);
    assert!(heard.message().await.unwrap().is_none());
    running.stop().await;
}

/// A log without room takes no entries and no new key; all else is taken up, and the key once there is none to take.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_room_still_takes_up_its_certificate() {
    let mut federation = Federation::new();
    federation.space.insert(PROVIDER.to_owned(), ["1024TiB", "1024TiB"]);
    let mut running = federation.start("").await;
    running.federation.write_node_certificate(PROVIDER);
    running.provider.reload().await.unwrap();

    let next = Signer::generate(running.federation.log_key(PROVIDER).name()).unwrap();
    let file = running.federation.member_path(PROVIDER, "log.key.next");
    write_whole(&file, next.to_encoded().as_bytes());
    running.provider.reload().await.unwrap_err();
    let old = running.federation.log_key(PROVIDER).to_string();
    assert_eq!(status(&running.provider).await.log.unwrap().keys, [old]);
    std::fs::remove_file(&file).unwrap();
    running.provider.reload().await.unwrap();
    running.stop().await;
}
