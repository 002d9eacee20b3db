//! Certificates, CRLs, directory and grants change under a running node: what is new counts at once, what is revoked stops on open
//! connections too, what is bad is refused and the old stays, and nobody else's stream is dropped.

use std::net::SocketAddr;
use std::time::Duration;

use kopuro::gateway::Node;
use kopuro::log::entry::Kind;
use kopuro::trust::pki::{Issued, Sans, Validity};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::harness::probe::{self, Blob, ProbeClient, SERVICE, blob};
use crate::harness::raw::{client_config, ended, tls};
use crate::harness::{
    CONSUMER, DESK, Federation, PROVIDER, Running, admin, eventually, issue, reason, story, write_whole,
};

const OTHER: &str = "KG/GOV/1/other";

/// A bidirectional stream that is used now and then.
struct Chat {
    say: mpsc::Sender<Blob>,
    hear: Streaming<Blob>,
}

impl Chat {
    async fn start(channel: Channel) -> Self {
        Self::try_start(channel).await.unwrap()
    }

    async fn try_start(channel: Channel) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(1);
        say.send(blob("salam")).await.unwrap();
        let hear = ProbeClient::new(channel).chat(ReceiverStream::new(said)).await?.into_inner();
        let mut chat = Self { say, hear };
        assert_eq!(&chat.heard().await?.expect("an echo").value[..], b"salam");
        Ok(chat)
    }

    /// There and back.
    async fn goes_on(&mut self) {
        self.say.send(blob("more")).await.unwrap();
        assert_eq!(&self.heard().await.unwrap().unwrap().value[..], b"more");
    }

    async fn heard(&mut self) -> Result<Option<Blob>, Status> {
        tokio::time::timeout(Duration::from_secs(10), self.hear.message()).await.expect("an answer, or an error")
    }
}

/// A federation in which `other` may do what `desk` may.
fn two_callers() -> Federation {
    let mut federation = Federation::new();
    federation.grants += &federation.grants.replace(DESK, OTHER);
    federation.outbound = federation.outbound.replace("\"Unary\"", "\"*\"");
    federation
}

async fn channel_of(running: &mut Running, identity: &str) -> (Issued, Channel) {
    let issued = running.federation.issue(identity);
    let channel = running.federation.channel(running.consumer.systems_addr(), &issued).await.unwrap();
    (issued, channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_stops_on_open_connections_and_others_go_on() {
    let mut running = two_callers().start("").await;
    let (desk, desk_channel) = channel_of(&mut running, DESK).await;
    let (_, other_channel) = channel_of(&mut running, OTHER).await;
    let mut desk_chat = Chat::start(desk_channel.clone()).await;
    let mut other_chat = Chat::start(other_channel.clone()).await;
    let probe = ProbeClient::new(desk_channel);
    probe.unary("x").await.unwrap();

    running.federation.revoke(CONSUMER, &desk.serial_hex);
    // The open connection is cut, its stream with it; the channel's attempts to connect again are refused.
    desk_chat.heard().await.unwrap_err();
    probe.unary("x").await.unwrap_err();
    let config = client_config(&running.federation, Some(&desk));
    let said = ended(config, running.consumer.systems_addr(), b"").await;
    assert!(said.contains("CertificateRevoked"), "{said}");
    probe.unary("x").await.unwrap_err();

    other_chat.goes_on().await;
    ProbeClient::new(other_channel).unary("x").await.unwrap();
    let entries = Running::entries_until(&running.consumer, |entries| {
        entries.iter().any(|entry| entry.kind() == Kind::Failed && entry.method == "Chat")
    })
    .await;
    let failed: Vec<_> = entries.iter().filter(|entry| entry.kind() == Kind::Failed).collect();
    assert!(failed.iter().all(|entry| entry.consumer == DESK), "{}", story(&entries));
    drop(other_chat);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_stops_on_open_connections() {
    let mut federation = two_callers();
    federation.poll = "1s";
    let mut running = federation.start("").await;
    let (_, other_channel) = channel_of(&mut running, OTHER).await;
    let mut other_chat = Chat::start(other_channel).await;
    // A busy machine may not get as far as a call in three seconds; then with a certificate that lasts longer.
    let mut lasts = 3;
    let (channel, mut desk_chat) = loop {
        let now = time::OffsetDateTime::now_utc();
        let short =
            Validity { not_before: now - time::Duration::HOUR, not_after: now + time::Duration::seconds(lasts) };
        let ca = running.federation.cas.get_mut(CONSUMER).unwrap();
        let desk = ca.issue(&DESK.parse().unwrap(), &Sans::default(), short).unwrap();
        if let Ok(channel) = running.federation.channel(running.consumer.systems_addr(), &desk).await
            && let Ok(chat) = Chat::try_start(channel.clone()).await
        {
            break (channel, chat);
        }
        lasts *= 2;
        assert!(lasts < 60, "no call within the life of its certificate");
    };
    let cut = tokio::time::timeout(Duration::from_secs(lasts.unsigned_abs() + 10), desk_chat.hear.message());
    cut.await.expect("the stream is cut").unwrap_err();
    ProbeClient::new(channel).unary("x").await.unwrap_err();
    other_chat.goes_on().await;
    drop(other_chat);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_is_cut_off_whatever_was_reloaded_since() {
    let mut running = Running::start().await;
    let channel = running.desk().await;
    let mut chat = Chat::start(channel.clone()).await;
    // The stream's connection belongs to a view before the last.
    for _ in 0..2 {
        running.consumer.reload().await.unwrap();
    }
    chat.goes_on().await;
    let serial = running.federation.node_serials[PROVIDER].clone();
    running.federation.revoke(PROVIDER, &serial);
    let status = chat.heard().await.unwrap_err();
    assert!([Code::Unavailable, Code::Cancelled].contains(&status.code()), "{status:?}");
    let probe = ProbeClient::new(channel);
    let status = eventually("the revoked node is not called", async || probe.unary("x").await.err()).await;
    assert_eq!((status.code(), reason(&status).unwrap().0.as_str()), (Code::Unavailable, "PEER_UNREACHABLE"));
    // That node itself says what is wrong, and keeps what it has.
    let health = eventually("the node tells", async || told(&running.provider, "configuration").await).await;
    assert!(health.contains("tls.certificate"), "{health}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificates_grants_and_directories_count_and_streams_go_on() {
    let mut running = Running::start().await;
    let (_, desk) = channel_of(&mut running, DESK).await;
    let (other_certificate, other) = channel_of(&mut running, OTHER).await;
    let (desk, other) = (ProbeClient::new(desk.clone()), (ProbeClient::new(other), Chat::start(desk).await));
    let (other, mut chat) = other;

    // A new grant, and its end.
    assert_eq!(reason(&other.unary("x").await.unwrap_err()).unwrap().0, "GRANT_MISSING");
    let grants = running.federation.member_path(PROVIDER, "grants/other.toml");
    write_whole(&grants, running.federation.grants.replace(DESK, OTHER).as_bytes());
    eventually("the grant counts", async || other.unary("x").await.ok()).await;
    std::fs::remove_file(&grants).unwrap();
    let status = eventually("the grant is gone", async || other.unary("x").await.err()).await;
    assert_eq!(reason(&status).unwrap().0, "GRANT_MISSING");
    chat.goes_on().await;

    // Certificates of both nodes.
    for (member, address) in [(CONSUMER, running.consumer.systems_addr()), (PROVIDER, running.provider.nodes_addr())] {
        let old = running.federation.node_serials[member].clone();
        assert_eq!(serial_at(&running.federation, address, &other_certificate).await, old);
        running.federation.write_node_certificate(member);
        let new = running.federation.node_serials[member].clone();
        eventually("the new certificate is shown", async || {
            let shown = serial_at(&running.federation, address, &other_certificate).await;
            assert!([&old, &new].contains(&&shown));
            (shown == new).then_some(())
        })
        .await;
    }
    desk.unary("x").await.unwrap();
    chat.goes_on().await;

    // A directory without the service, and one with it.
    let services = std::mem::take(&mut running.federation.directory.services);
    running.federation.publish_directory();
    let status = eventually("the service is gone", async || desk.unary("x").await.err()).await;
    assert_eq!((status.code(), reason(&status).unwrap().0.as_str()), (Code::Unimplemented, "SERVICE_UNKNOWN"));
    assert!(status.message().contains(SERVICE));
    chat.goes_on().await;
    running.federation.directory.services = services;
    running.federation.publish_directory();
    eventually("the service is back", async || desk.unary("x").await.ok()).await;
    chat.goes_on().await;
    drop(chat);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_bad_is_refused_and_the_old_stays() {
    let mut running = Running::start().await;
    let desk = ProbeClient::new(running.desk().await);
    desk.unary("x").await.unwrap();
    let grants = running.federation.member_path(PROVIDER, "grants/probe.toml");
    let certificate = running.federation.member_path(PROVIDER, "node.pem");
    let good_certificate = std::fs::read(&certificate).unwrap();
    let somebody_else = {
        let other = "KG/GOV/2/_node/other".parse().unwrap();
        issue(running.federation.cas.get_mut(PROVIDER).unwrap(), &other).cert_pem
    };
    for (file, bad, good, word) in [
        (&grants, "[[grant]]\nconsumer = \"nobody\"\n", running.federation.grants.as_bytes(), "probe.toml"),
        (&grants, "no TOML at all", running.federation.grants.as_bytes(), "probe.toml"),
        (&certificate, "no certificate", &good_certificate, "tls.certificate"),
        (&certificate, &somebody_else, &good_certificate, "tls.key"),
    ] {
        write_whole(file, bad.as_bytes());
        let health = eventually("health tells", async || told(&running.provider, "configuration").await).await;
        assert!(health.contains(word), "{health}");
        assert!(running.provider.reload().await.unwrap_err().to_string().contains(word));
        desk.unary("x").await.unwrap();
        write_whole(file, good);
        eventually("all is well again", async || is_quiet(&running.provider).await).await;
    }

    // A directory that has expired when it comes.
    let expires = running.federation.directory.expires;
    running.federation.directory.expires = time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
    running.federation.publish_directory();
    let health = eventually("health tells", async || told(&running.provider, "directory").await).await;
    assert!(health.contains("expired"), "{health}");
    desk.unary("x").await.unwrap();
    running.federation.directory.expires = expires;
    running.federation.publish_directory();
    eventually("all is well again", async || is_quiet(&running.provider).await).await;
    desk.unary("x").await.unwrap();
    running.stop().await;
}

/// What `/readyz` says of a condition; the node is ready all the same.
async fn told(node: &Node, condition: &str) -> Option<String> {
    let (status, text) = admin(node.admin_addr(), "/readyz").await.unwrap();
    assert_eq!(status, 200, "{text}");
    text.contains(&format!("\n{condition}: ")).then_some(text)
}

async fn is_quiet(node: &Node) -> Option<()> {
    let quiet = told(node, "configuration").await.is_none() && told(node, "directory").await.is_none();
    quiet.then_some(())
}

/// Serial number of the certificate that a listener shows.
pub(crate) async fn serial_at(federation: &Federation, address: SocketAddr, with: &Issued) -> String {
    let stream = tls(client_config(federation, Some(with)), address).await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    hex::encode(leaf.raw_serial())
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_nobody_has_put_there_come_from_beside_the_directory() {
    let mut federation = two_callers();
    federation.write_files("");
    // As at a mirror: the sets lie beside the directory, and in no folder of a node's.
    for set in std::fs::read_dir(federation.path("descriptors")).unwrap() {
        let set = set.unwrap();
        std::fs::rename(set.path(), federation.path(set.file_name().to_str().unwrap())).unwrap();
    }
    let probe = federation.start_probe().await;
    let provider = federation.start_node(PROVIDER).await;
    let mut running = Running { consumer: federation.start_node(CONSUMER).await, provider, federation, probe };
    let (_, desk) = channel_of(&mut running, DESK).await;
    let desk = ProbeClient::new(desk);
    desk.unary("x").await.unwrap();

    // The next version's set is at the mirror a moment after the directory: the node asks again.
    let fetched = running.federation.member_path(CONSUMER, "data/descriptors");
    let names = || {
        let files = std::fs::read_dir(&fetched).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let first = names();
    assert_eq!(first.len(), 1);
    let mut next = probe::descriptors();
    // Another set of the same types: an unknown field at its end.
    next.extend([0xfa, 0x3f, 0x01, b'x']);
    let digest = <[u8; 32]>::from(Sha256::digest(&next));
    running.federation.directory.services[0].descriptors = digest;
    running.federation.publish_directory();
    let name = format!("{}.binpb", hex::encode(digest));
    std::fs::write(running.federation.path(&name), next).unwrap();
    let came = async || {
        running.consumer.reload().await.unwrap();
        names().contains(&name).then_some(())
    };
    eventually("the set comes", came).await;
    assert_eq!(names(), [name], "the earlier one is forgotten");
    desk.unary("x").await.unwrap();
    running.stop().await;
}
