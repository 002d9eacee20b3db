//! The real binary is told to stop: running exchanges end or are cut at the limit, new ones are not taken, the log closes whole, and
//! the next start goes on with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kopuro::config;
use kopuro::gateway::Node;
use kopuro::log::entry::{Kind, Outcome};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::probe::{Blob, Probe, ProbeClient, blob};
use crate::harness::{CONSUMER, DESK, Federation, PROVIDER, Running, admin, eventually, story};

/// The consumer's node as a process; back-end and provider's node as ever.
struct Process {
    child: Child,
    federation: Federation,
    provider: Node,
    probe: Probe,
    config: PathBuf,
}

impl Process {
    async fn start(drain: &str) -> Self {
        let mut federation = Federation::new();
        federation.publish_directory();
        for member in [CONSUMER, PROVIDER] {
            let until = time::OffsetDateTime::now_utc() + time::Duration::days(1);
            federation.write_crl(member, until);
        }
        let probe = federation.start_probe().await;
        let provider = federation.write_node(PROVIDER, "");
        let provider = Node::start(config::load(&provider).unwrap()).await.unwrap();
        let config = federation.write_node(CONSUMER, &format!("[drain]\nlimit = \"{drain}\"\n"));
        let child = spawn(&config);
        let process = Self { child, federation, provider, probe, config };
        process.ready().await;
        process
    }

    /// Starts it again on its folder.
    async fn restart(&mut self) {
        self.child = spawn(&self.config);
        self.ready().await;
    }

    async fn ready(&self) {
        eventually("the node is ready", async || (self.readyz().await == Some(200)).then_some(())).await;
    }

    async fn readyz(&self) -> Option<u16> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.federation.ports[CONSUMER].admin));
        admin(address, "/readyz").await.ok().map(|(status, _)| status)
    }

    async fn desk(&mut self) -> Result<Channel, tonic::transport::Error> {
        let desk = self.federation.issue(DESK);
        let address = SocketAddr::from(([127, 0, 0, 1], self.federation.ports[CONSUMER].systems));
        self.federation.channel(address, &desk).await
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    async fn exit(&mut self) -> ExitStatus {
        tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await.expect("it ends").unwrap()
    }

    /// `kopuro log verify` of its folder.
    fn verify(&self) -> String {
        let node = self.federation.directory.nodes.iter().find(|node| node.member.as_str() == CONSUMER).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_kopuro"))
            .args(["log", "verify", "--vkey", &node.log_key.to_string(), "--data"])
            .arg(self.federation.member_path(CONSUMER, "data"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn stop(self) {
        self.provider.stop().await;
        drop(self.probe);
    }
}

/// The next message of a stream, its end or its error: within ten seconds.
async fn heard(chat: &mut tonic::Streaming<Blob>) -> Result<Option<Blob>, tonic::Status> {
    tokio::time::timeout(Duration::from_secs(10), chat.message()).await.expect("an answer, or an error")
}

fn spawn(config: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kopuro"));
    command.env("RUST_LOG", "error");
    command.args(["node", "--config"]).arg(config).stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn running_exchanges_end_and_new_ones_are_not_taken() {
    let mut process = Process::start("20s").await;
    let channel = process.desk().await.unwrap();
    let probe = ProbeClient::new(channel.clone());
    probe.unary("x").await.unwrap();
    // Somebody who watches the node's health must not keep it from ending.
    let mut watching =
        HealthClient::new(channel.clone()).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watching.message().await.unwrap().unwrap().status, 1);
    let (say, said) = mpsc::channel(1);
    say.send(blob("before")).await.unwrap();
    let mut chat = probe.chat(ReceiverStream::new(said)).await.unwrap().into_inner();
    assert_eq!(&heard(&mut chat).await.unwrap().unwrap().value[..], b"before");
    let slow = ProbeClient::new(channel).with("x-do", "slow");
    let calls = process.probe.seen.calls.load(Ordering::SeqCst);
    let slow = tokio::spawn(async move { slow.unary("slow").await });
    let arrived = |seen: &crate::harness::probe::Seen| seen.calls.load(Ordering::SeqCst) > calls;
    process.probe.seen.until("the slow call arrives", arrived).await;

    let began = Instant::now();
    process.signal("-TERM");
    eventually("it says that it is not ready", async || (process.readyz().await == Some(503)).then_some(())).await;
    assert_eq!(&slow.await.unwrap().unwrap().get_ref().value[..], b"slow");
    say.send(blob("during")).await.unwrap();
    assert_eq!(&heard(&mut chat).await.unwrap().unwrap().value[..], b"during");
    // A stub tells its own end of the connection's last words as it pleases; tonic's says CANCELLED.
    let refused = tokio::time::timeout(Duration::from_secs(5), probe.unary("new")).await.expect("an answer");
    assert!([Code::Unavailable, Code::Cancelled].contains(&refused.unwrap_err().code()));
    assert!(process.desk().await.is_err(), "nobody listens any more");
    assert_eq!(process.probe.seen.calls.load(Ordering::SeqCst), calls + 1, "nothing new arrived");
    drop(say);
    assert!(heard(&mut chat).await.unwrap().is_none());
    assert!(process.exit().await.success());
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    assert!(process.verify().starts_with("verified: "));

    // It goes on where it was; with nothing to do it ends at once.
    process.restart().await;
    let probe = ProbeClient::new(process.desk().await.unwrap());
    probe.unary("again").await.unwrap();
    process.signal("-HUP");
    probe.unary("after SIGHUP").await.unwrap();
    let began = Instant::now();
    process.signal("-TERM");
    assert!(process.exit().await.success());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(process.verify().starts_with("verified: "));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_is_cut_at_the_limit_and_recorded() {
    let mut process = Process::start("1s").await;
    let channel = process.desk().await.unwrap();
    let (say, said) = mpsc::channel(1);
    say.send(blob("before")).await.unwrap();
    let mut chat = ProbeClient::new(channel.clone()).chat(ReceiverStream::new(said)).await.unwrap().into_inner();
    heard(&mut chat).await.unwrap().unwrap();
    let hanging = ProbeClient::new(channel.clone()).with("x-do", "hang");
    let calls = process.probe.seen.calls.load(Ordering::SeqCst);
    let hanging = tokio::spawn(async move { hanging.unary("hang").await });
    let arrived = |seen: &crate::harness::probe::Seen| seen.calls.load(Ordering::SeqCst) > calls;
    process.probe.seen.until("the call arrives", arrived).await;

    let began = Instant::now();
    process.signal("-TERM");
    assert!(process.exit().await.success());
    let took = began.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(8), "{took:?}");
    heard(&mut chat).await.unwrap_err();
    hanging.await.unwrap().unwrap_err();
    assert!(process.verify().starts_with("verified: "));

    // Closed by the node itself, not by its next start.
    let node = Node::start(config::load(&process.config).unwrap()).await.unwrap();
    let entries = Running::entries(&node);
    let failed: Vec<_> = entries.iter().filter(|entry| entry.kind() == Kind::Failed).collect();
    assert_eq!(failed.len(), 2, "{}", story(&entries));
    for entry in failed {
        assert_eq!(entry.outcome(), Outcome::Failed);
        // Which of the two halves of a cut connection is seen first is a matter of chance.
        assert!(["CANCELLED", "REQUEST_INTERRUPTED"].contains(&entry.reason.as_str()), "{}", entry.reason);
    }
    node.stop().await;
    drop(say);
    process.stop().await;
}
