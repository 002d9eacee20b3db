//! A log put back from a backup goes on only where nobody has seen a newer one: a peer, a witness, the publication, its own head.

use std::path::PathBuf;
use std::time::Duration;

use kopuro::gateway::{Node, NodeError};
use kopuro::log::LogError;
use kopuro::log::restored::Marker;
use kopuro::log::verify::verify_folder;
use kopuro::oversight::witness::ServeOptions;

use crate::backup::kopuro;
use crate::harness::probe::{Probe, ProbeClient};
use crate::harness::{CONSUMER, DESK, Federation, PROVIDER, admin, eventually, reason};
use crate::witness::Station;

const PEER: &str = "KG/GOV/2/_node/main";

/// A consumer whose log is backed up and put back, and its provider.
struct Story {
    federation: Federation,
    consumer: Option<Node>,
    provider: Option<Node>,
    _probe: Probe,
    config: String,
    recipient: String,
}

impl Story {
    /// Both nodes run, some calls have passed.
    async fn begin(more: &str) -> Self {
        let mut federation = Federation::new();
        federation.write_files("");
        let config = federation.write_node(CONSUMER, more).to_str().unwrap().to_owned();
        let probe = federation.start_probe().await;
        let provider = Some(federation.start_node(PROVIDER).await);
        let consumer = Some(federation.start_node(CONSUMER).await);
        let identity = federation.path("backup.key");
        let (made, recipient) = kopuro(&["backup", "keygen", "--out", identity.to_str().unwrap()]).await;
        assert!(made);
        let recipient = recipient.trim().to_owned();
        let mut story = Self { federation, consumer, provider, _probe: probe, config, recipient };
        for _ in 0..3 {
            story.call().await.unwrap();
        }
        story
    }

    fn path(&self, name: &str) -> String {
        self.federation.path(name).to_str().unwrap().to_owned()
    }

    fn data(&self, name: &str) -> PathBuf {
        self.federation.member_path(CONSUMER, name)
    }

    fn consumer(&self) -> &Node {
        self.consumer.as_ref().unwrap()
    }

    fn size(&self) -> u64 {
        self.consumer().log().unwrap().checkpoint().size
    }

    async fn call(&mut self) -> Result<(), tonic::Status> {
        let desk = self.federation.issue(DESK);
        let channel = self.federation.channel(self.consumer().systems_addr(), &desk).await.unwrap();
        ProbeClient::new(channel).unary("hello").await.map(drop)
    }

    /// A backup of the running consumer; how many entries it must have.
    async fn backup(&self) -> u64 {
        let (to, shred) = (self.path("log.age"), self.path("shred.age"));
        let make =
            ["backup", "--config", &self.config, "--recipient", &self.recipient, "--to", &to, "--shred-to", &shred];
        let (made, said) = kopuro(&make).await;
        assert!(made, "{said}");
        self.size()
    }

    /// Stops the consumer and puts its folder aside.
    async fn lose(&mut self) {
        self.consumer.take().unwrap().stop().await;
        std::fs::rename(self.data("data"), self.data("data.old")).unwrap();
    }

    async fn restore(&self, more: &[&str]) -> (bool, String) {
        let (from, shred, identity) = (self.path("log.age"), self.path("shred.age"), self.path("backup.key"));
        let key = self.data("data.old/seal.key").to_str().unwrap().to_owned();
        let args = ["restore", &from, "--shred", &shred, "--identity", &identity, "--config", &self.config];
        kopuro(&[&args[..], &["--sealing-key", &key], more].concat()).await
    }

    async fn start(&mut self) {
        self.consumer = Some(self.federation.start_node(CONSUMER).await);
    }

    async fn start_fails(&self) -> NodeError {
        let config = kopuro::config::load(&self.data("node.toml")).unwrap();
        Node::start(config).await.expect_err("it does not start")
    }

    /// Waits until the consumer says that it is ready, or that it is not with these words.
    async fn says(&self, words: &str) {
        let address = self.consumer().admin_addr();
        let status = if words.is_empty() { 200 } else { 503 };
        let mut last = String::new();
        let said = eventually(words, async || {
            let (found, said) = admin(address, "/readyz").await.ok()?;
            last.clone_from(&said);
            (found == status && said.contains(words)).then_some(())
        });
        let said = tokio::time::timeout(Duration::from_secs(9), said).await.is_ok();
        assert!(said, "{words:?} was never said: {last}");
    }

    /// Nothing passes, and nothing was signed beyond what was restored.
    async fn signs_nothing(&mut self, size: u64) {
        let refused = self.call().await.unwrap_err();
        assert_eq!(reason(&refused).unwrap().0, "LOG_UNAVAILABLE", "{refused}");
        assert!(refused.message().contains("restored"), "{refused}");
        assert_eq!(self.size(), size);
    }

    async fn stop(mut self) -> Federation {
        for node in [self.consumer.take(), self.provider.take()].into_iter().flatten() {
            node.stop().await;
        }
        self.federation
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_current_backup_goes_on_once_everybody_has_answered_or_is_not_waited_for() {
    let mut story = Story::begin("").await;
    let size = story.backup().await;
    story.lose().await;
    let remains = story.data("data.old").to_str().unwrap().to_owned();
    let (restored, said) = story.restore(&["--remains", &remains]).await;
    assert!(restored && said.contains(&format!("{size} entries")) && said.contains("0 are lost"), "{said}");
    let (again, said) = story.restore(&[]).await;
    assert!(!again && said.contains("is not empty"), "{said}");

    // The only peer is down: nobody can say that it has seen no newer log.
    story.provider.take().unwrap().stop().await;
    story.start().await;
    story.says(&format!("{PEER} does not answer")).await;
    story.signs_nothing(size).await;
    assert!(admin(story.consumer().admin_addr(), "/healthz").await.unwrap().0 == 200, "no reason to restart it");
    let (waived, said) = kopuro(&["restore", "--config", &story.config, "--without", PEER]).await;
    assert!(waived && said.contains(PEER), "{said}");
    story.says("").await;
    assert_eq!(Marker::read(&story.data("data")).unwrap(), None);
    story.provider = Some(story.federation.start_node(PROVIDER).await);
    eventually("a call through both nodes", async || story.call().await.ok()).await;
    assert!(story.size() > size);
    let federation = story.stop().await;
    let (waived, said) = kopuro(&[
        "restore",
        "--config",
        federation.member_path(CONSUMER, "node.toml").to_str().unwrap(),
        "--without",
        PEER,
    ])
    .await;
    assert!(!waived && said.contains("does not wait"), "{said}");
    for member in [CONSUMER, PROVIDER] {
        verify_folder(&federation.member_path(member, "data"), federation.log_key(member)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_backup_is_known_by_the_head_that_is_left_and_by_a_peer_and_never_goes_on() {
    let mut story = Story::begin("").await;
    let size = story.backup().await;
    for _ in 0..2 {
        story.call().await.unwrap();
    }
    let newer = story.size();
    story.lose().await;

    // Its own head.
    let remains = story.data("data.old").to_str().unwrap().to_owned();
    let (restored, said) = story.restore(&["--remains", &remains]).await;
    let lost = format!("entries {size} to {} are lost", newer - 1);
    assert!(!restored && said.contains(&lost) && said.contains("--published"), "{said}");
    assert!(!story.data("data").exists());
    let left = std::fs::read_dir(story.data(""))
        .unwrap()
        .filter(|found| found.as_ref().unwrap().file_name().to_string_lossy().contains("restoring"));
    assert_eq!(left.count(), 0);
    let (restored, said) = story.restore(&["--remains", &remains, "--accept-loss"]).await;
    assert!(restored && said.contains("to read"), "{said}");
    let error = story.start_fails().await;
    assert!(
        matches!(&error, NodeError::Log(LogError::Continued { size: at, seen, .. }) if (*at, *seen) == (size, newer))
    );
    assert_eq!(
        verify_folder(&story.data("data"), story.federation.log_key(CONSUMER)).unwrap().size,
        size,
        "it can be read"
    );
    std::fs::remove_dir_all(story.data("data")).unwrap();

    // The peer, also one that was killed and started again: what it was shown is in its own log.
    let (restored, said) = story.restore(&[]).await;
    assert!(restored, "{said}");
    story.provider.take().unwrap().stop().await;
    std::fs::remove_dir_all(story.federation.member_path(PROVIDER, "data/peers")).unwrap();
    story.provider = Some(story.federation.start_node(PROVIDER).await);
    story.start().await;
    story.says(&format!("{PEER} has a checkpoint of this log with")).await;
    story.signs_nothing(size).await;
    let beyond = Marker::read(&story.data("data")).unwrap().unwrap().beyond.unwrap();
    assert_eq!(beyond.seen_by, PEER);
    story.consumer.take().unwrap().stop().await;
    let error = story.start_fails().await;
    assert!(matches!(error, NodeError::Log(LogError::Continued { .. })), "{error}");
    let provider = story.provider.as_ref().unwrap();
    assert_eq!(admin(provider.admin_addr(), "/readyz").await.unwrap().0, 200, "and no contradiction came to light");
    story.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_and_the_publication_know_an_older_backup_and_what_was_published_completes_it() {
    let station = Station::new("w0");
    let mut story = Story::begin("").await;
    let at = station.serve(&[story.federation.log_key(CONSUMER).clone()], ServeOptions::default()).await;
    std::fs::write(story.data("policy"), format!("witness w0 {} http://{at}\nquorum w0\n", station.key)).unwrap();
    story.consumer.take().unwrap().stop().await;
    let more = "[publish]\nstore = \"public\"\ninterval = \"50ms\"\n[witness]\npolicy = \"policy\"\n";
    story.federation.write_node(CONSUMER, more);
    story.start().await;
    story.call().await.unwrap();
    let size = story.backup().await;
    for _ in 0..2 {
        story.call().await.unwrap();
    }
    let newer = story.size();
    story.lose().await;
    let public = story.data("public");
    assert!(public.join("checkpoint").exists());

    // The publication.
    let (restored, said) = story.restore(&[]).await;
    assert!(restored, "{said}");
    let error = story.start_fails().await;
    assert!(error.to_string().contains("the log is an older copy"), "{error}");

    // The witness alone: the peer is gone for good, and so is the publication.
    let away = story.data("public.away");
    std::fs::rename(&public, &away).unwrap();
    let provider = story.provider.take().unwrap();
    provider.stop().await;
    let (waived, said) = kopuro(&["restore", "--config", &story.config, "--without", PEER]).await;
    assert!(waived, "{said}");
    story.start().await;
    story.says(&format!("witness w0 has seen {newer} entries")).await;
    story.signs_nothing(size).await;
    story.consumer.take().unwrap().stop().await;
    std::fs::remove_dir_all(story.data("data")).unwrap();
    std::fs::remove_dir_all(&public).unwrap();
    std::fs::rename(&away, &public).unwrap();

    // What was published completes it, and then all agree.
    story.provider = Some(story.federation.start_node(PROVIDER).await);
    let (published, remains) = (public.to_str().unwrap(), story.data("data.old").to_str().unwrap().to_owned());
    let (restored, said) = story.restore(&["--published", published, "--remains", &remains]).await;
    let told = format!("{} of them were published after the backup", newer - size);
    assert!(restored && said.contains(&told) && said.contains(&format!("{} are lost", newer - size)), "{said}");
    story.start().await;
    story.says("").await;
    assert_eq!(story.size(), newer);
    let log = story.consumer().log().unwrap();
    assert!(log.read_private(0).is_ok());
    assert!(matches!(log.read_private(newer - 1), Err(LogError::PrivateLost { .. })));
    story.call().await.unwrap();
    let federation = story.stop().await;
    let verified = verify_folder(&federation.member_path(CONSUMER, "data"), federation.log_key(CONSUMER)).unwrap();
    assert!(verified.size > newer);
}
