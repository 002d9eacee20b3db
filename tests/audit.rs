//! The auditor's view over mutual TLS on a loopback socket, against a real log: what auditors see, that each look is an
//! entry, who is refused, and that proofs hold.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kopuro::log::entry::{Draft, Entry, ExchangeKey, Kind, Outcome, PrivateFields, Slot};
use kopuro::log::index::{Follower, Index, IndexOptions};
use kopuro::log::tree::Hash;
use kopuro::log::{Log, checkpoint::Checkpoint, proof};
use kopuro::oversight::audit::{AuditLimits, AuditService};
use kopuro::proto::kopuro::audit::v1::audit_log_client::AuditLogClient;
use kopuro::proto::kopuro::audit::v1::audit_log_server::AuditLogServer;
use kopuro::proto::kopuro::audit::v1::*;
use kopuro::trust::certificate::{Anchors, PeerIdentity, Usage};
use kopuro::trust::identity::Identity;
use kopuro::trust::pki::{Authority, Sans, Validity};
use kopuro::trust::tls::{Credentials, client_config_by_name, server_config};
use prost::Message;
use rustls::pki_types::{ServerName, UnixTime};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::log_support;

const AUDITOR: &str = "kopuro://KG/GOV/70000001/_auditor/inspection";
const OTHER: &str = "kopuro://KG/GOV/70000005/_auditor/self-appointed";
const NODE: &str = "kopuro://KG/GOV/70000005/_node/main";

/// A log with its index and the audit service on a socket.
struct Served {
    log: Log,
    index: Index,
    _follower: Follower,
    stop: CancellationToken,
    address: std::net::SocketAddr,
    folder: tempfile::TempDir,
}

/// Certificates of one federation in a folder: `root.pem`, and NAME.pem and NAME.key for each identity.
fn issue(folder: &Path) {
    let now = time::OffsetDateTime::now_utc();
    let mut root = Authority::create_root("KG", now).unwrap();
    std::fs::write(folder.join("root.pem"), root.certificate_pem()).unwrap();
    for (name, uri) in [("auditor", AUDITOR), ("other", OTHER), ("node", NODE)] {
        let identity = Identity::from_uri(uri).unwrap();
        let mut authority = root.issue_member_ca(identity.member(), now).unwrap();
        let sans = Sans { dns: vec!["localhost".into()], ips: vec![[127, 0, 0, 1].into()] };
        let issued = authority.issue(&identity, &sans, Validity::days(now, 2)).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), &issued.cert_pem).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), issued.key_pem.as_bytes()).unwrap();
    }
}

impl Served {
    async fn start(limits: AuditLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        issue(folder.path());
        let data = folder.path().join("data");
        let (log, _) = log_support::open(&data).unwrap();
        let options = IndexOptions { segment_entries: 64, ..IndexOptions::new(&data) };
        let (index, follower) = Index::follow(options, &log).unwrap();
        let stop = CancellationToken::new();
        let auditor = Identity::from_uri(AUDITOR).unwrap();
        let is_auditor = Arc::new(move |peer: &PeerIdentity| peer.identity == auditor);
        let member = "KG/GOV/70000005".parse().unwrap();
        let service = AuditService::new(log.clone(), index.clone(), member, is_auditor, limits, stop.clone());

        let anchors = Arc::new(Anchors::load(&[folder.path().join("root.pem")], &[]).unwrap());
        let credentials = Credentials::load(&folder.path().join("node.pem"), &folder.path().join("node.key")).unwrap();
        let acceptor = TlsAcceptor::from(server_config(&credentials, &anchors).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // As the gateway does: who the peer is comes from its connection's certificate, once.
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, anchors, service) = (acceptor.clone(), anchors.clone(), service.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
                    let peer = Arc::new(anchors.verify_peer(chain, Usage::Client, UnixTime::now()).unwrap());
                    let service = AuditLogServer::with_interceptor(service, move |mut request: tonic::Request<()>| {
                        request.extensions_mut().insert(peer.clone());
                        Ok(request)
                    });
                    let one = tokio_stream::once(Ok::<_, std::io::Error>(tls));
                    let _ = Server::builder().add_service(service).serve_with_incoming(one).await;
                });
            }
        });
        Self { log, index, _follower: follower, stop, address, folder }
    }

    async fn client(&self, name: &str) -> AuditLogClient<Channel> {
        let file = |suffix: &str| self.folder.path().join(format!("{name}.{suffix}"));
        let credentials = Credentials::load(&file("pem"), &file("key")).unwrap();
        let config = client_config_by_name(&[self.folder.path().join("root.pem")], Some(&credentials)).unwrap();
        let (connector, address) = (TlsConnector::from(config), self.address);
        let connect = tower::service_fn(move |_: http::Uri| {
            let connector = connector.clone();
            async move {
                let tcp = TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").unwrap();
                std::io::Result::Ok(hyper_util::rt::TokioIo::new(connector.connect(name, tcp).await?))
            }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        AuditLogClient::new(endpoint.connect_with_connector(connect).await.unwrap())
    }

    /// Appends an exchange: its opening, and its end where it has one.
    async fn exchange(&self, id: Uuid, method: &str, outcome: Outcome) {
        let mut opening = log_support::draft(Kind::RequestSent, id);
        opening.method = method.into();
        self.log.append(opening.seal()).await.unwrap();
        if outcome != Outcome::Unspecified {
            let key = ExchangeKey::generate();
            let mut closing = Draft::new(Kind::ResponseReceived, id, 1_790_000_000_250, &key);
            closing.outcome = outcome;
            if outcome == Outcome::Refused {
                (closing.grpc_status, closing.reason) = (7, "GRANT_MISSING".into());
            }
            self.log.append(closing.seal()).await.unwrap();
        }
        self.indexed().await;
    }

    async fn indexed(&self) {
        let size = self.log.checkpoint().size;
        within(async {
            while self.index.indexed_size() < size {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    fn last_entry(&self) -> Entry {
        let size = self.log.checkpoint().size;
        Entry::decode(self.log.read(size - 1, 1).unwrap().remove(0)).unwrap()
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("not done in 30 s")
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, "kopuro");
    info.reason
}

fn hash(bytes: &Bytes) -> Hash {
    Hash(bytes.as_ref().try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn auditors_find_exchanges_page_by_page_and_each_look_is_an_entry() {
    let served = Served::start(AuditLimits::default()).await;
    let ids: Vec<Uuid> = (0..60).map(|_| Uuid::now_v7()).collect();
    for (n, id) in ids.iter().enumerate() {
        let outcome = [Outcome::Ok, Outcome::Refused, Outcome::Unspecified][n % 3];
        served.exchange(*id, ["GetPerson", "GetFamily"][n % 2], outcome).await;
    }
    let mut client = served.client("auditor").await;

    let filter = Filter { method: "GetPerson".into(), outcome: Outcome::Refused.into(), ..Filter::default() };
    let mut request =
        QueryExchangesRequest { filter: Some(filter.clone()), page_size: 4, ..QueryExchangesRequest::default() };
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let before = served.log.checkpoint().size;
        let page = client.query_exchanges(request.clone()).await.unwrap().into_inner();
        let look = served.last_entry();
        assert_eq!(served.log.checkpoint().size, before + 1);
        assert_eq!((look.kind(), look.method.as_str()), (Kind::Audit, "QueryExchanges"));
        assert_eq!(look.consumer, "KG/GOV/70000001/_auditor/inspection");
        let private = PrivateFields::decode(&served.log.read_private(before).unwrap()[..]).unwrap();
        let query = private.fields.iter().find(|field| field.slot() == Slot::Query).unwrap();
        assert_eq!(QueryExchangesRequest::decode(query.value.clone()).unwrap(), request);

        found.extend(page.exchanges);
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        // The log grows between pages.
        served.exchange(Uuid::now_v7(), "GetPerson", Outcome::Refused).await;
    }
    let expected: Vec<&Uuid> = ids.iter().enumerate().filter(|(n, _)| n % 6 == 4).map(|(_, id)| id).rev().collect();
    assert!(pages > 2);
    assert_eq!(
        found.iter().map(|e| Uuid::from_slice(&e.exchange_id).unwrap()).collect::<Vec<_>>(),
        expected.into_iter().copied().collect::<Vec<_>>()
    );
    let first = &found[0];
    assert_eq!((first.outcome(), first.reason.as_str(), first.grpc_status), (Outcome::Refused, "GRANT_MISSING", 7));
    assert_eq!((first.indices.len(), first.duration_ms), (2, 250));

    // A token of another query.
    request.filter = Some(Filter { method: "GetFamily".into(), ..filter });
    let refused = client.query_exchanges(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);

    let id = Bytes::copy_from_slice(ids[0].as_bytes());
    let got = client.get_exchange(GetExchangeRequest { exchange_id: id }).await.unwrap().into_inner();
    assert_eq!(got.exchange.unwrap().indices, [0, 1]);
    assert_eq!(got.entries[1].entry, served.log.read(1, 1).unwrap()[0]);
    let unknown = GetExchangeRequest { exchange_id: Bytes::copy_from_slice(Uuid::now_v7().as_bytes()) };
    assert_eq!(client.get_exchange(unknown).await.unwrap_err().code(), Code::NotFound);

    served.indexed().await;
    let stats = client.stats(StatsRequest { filter: None }).await.unwrap().into_inner();
    let of =
        |label: &str| stats.by_outcome.iter().find(|count| count.label == label).map_or(0, |count| count.exchanges);
    assert_eq!((of("OK"), of("OPEN"), of("REFUSED")), (20, 20, stats.exchanges - 40));
    assert_eq!(stats.by_day.len(), 1);
    let looks = Filter { records: Records::Audits.into(), ..Filter::default() };
    let looks = client.stats(StatsRequest { filter: Some(looks) }).await.unwrap().into_inner();
    assert!(looks.exchanges >= 7, "auditors see auditors' looks");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_auditor_is_refused_and_logged() {
    let served = Served::start(AuditLimits::default()).await;
    let mut client = served.client("other").await;
    let refused = client.get_checkpoint(GetCheckpointRequest {}).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_AN_AUDITOR"));
    let look = served.last_entry();
    assert_eq!((look.kind(), look.outcome(), look.reason.as_str()), (Kind::Audit, Outcome::Refused, "NOT_AN_AUDITOR"));
    assert_eq!(look.consumer, "KG/GOV/70000005/_auditor/self-appointed");

    // No log, no answer.
    let mut client = served.client("auditor").await;
    client.get_checkpoint(GetCheckpointRequest {}).await.unwrap();
    served.log.clone().close().await;
    let refused = client.get_checkpoint(GetCheckpointRequest {}).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "LOG_UNAVAILABLE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_hold_under_the_signed_checkpoint() {
    let served = Served::start(AuditLimits::default()).await;
    for _ in 0..20 {
        served.exchange(Uuid::now_v7(), "GetPerson", Outcome::Ok).await;
    }
    let mut client = served.client("auditor").await;
    let key = log_support::signer(1).verifier();
    let old = client.get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner();
    let old = Checkpoint::verify(&old.checkpoint, &key).unwrap();

    let request = GetInclusionProofRequest { index: 7, tree_size: 0 };
    let proved = client.get_inclusion_proof(request).await.unwrap().into_inner();
    let checkpoint = Checkpoint::verify(&proved.checkpoint, &key).unwrap();
    let path: Vec<Hash> = proved.hashes.iter().map(hash).collect();
    assert_eq!(proved.tree_size, checkpoint.size);
    proof::verify_inclusion(Hash::of_leaf(&proved.entry), 7, checkpoint.size, &path, checkpoint.root).unwrap();

    let request = GetConsistencyProofRequest { old_size: old.size, new_size: checkpoint.size };
    let proved = client.get_consistency_proof(request).await.unwrap().into_inner();
    let path: Vec<Hash> = proved.hashes.iter().map(hash).collect();
    proof::verify_consistency(old.size, old.root, checkpoint.size, checkpoint.root, &path).unwrap();

    let beyond = GetInclusionProofRequest { index: 1_000_000, tree_size: 0 };
    assert_eq!(client.get_inclusion_proof(beyond).await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_follows_the_log_within_limits_and_ends_with_the_node() {
    let served = Served::start(AuditLimits { tails_per_auditor: 1, ..AuditLimits::default() }).await;
    for _ in 0..5 {
        served.exchange(Uuid::now_v7(), "GetPerson", Outcome::Ok).await;
    }
    let mut client = served.client("auditor").await;
    let ended = client.tail_entries(TailEntriesRequest { from: 2, follow: false }).await.unwrap().into_inner();
    let indices: Vec<u64> = within(tokio_stream::StreamExt::collect::<Vec<_>>(ended))
        .await
        .into_iter()
        .map(|entry| entry.unwrap().index)
        .collect();
    assert_eq!(indices, (2..11).collect::<Vec<u64>>(), "to the checkpoint's size, the auditor's look included");

    let mut tail = within(async {
        loop {
            // The place of the stream that ended is free as soon as its task is.
            match client.tail_entries(TailEntriesRequest { from: 11, follow: true }).await {
                Ok(tail) => return tail.into_inner(),
                Err(status) => assert_eq!(reason(&status), "AUDIT_LIMIT"),
            }
        }
    })
    .await;
    let look = within(tail.message()).await.unwrap().unwrap();
    assert_eq!(look.index, 11);
    let second = client.tail_entries(TailEntriesRequest { from: 0, follow: true }).await.unwrap_err();
    assert_eq!((second.code(), reason(&second).as_str()), (Code::ResourceExhausted, "AUDIT_LIMIT"));

    let size = served.log.checkpoint().size;
    served.exchange(Uuid::now_v7(), "GetPerson", Outcome::Ok).await;
    let mut last = look.index;
    while last < size + 1 {
        let next = within(tail.message()).await.unwrap().unwrap();
        assert_eq!(next.index, last + 1);
        assert_eq!(next.entry, served.log.read(next.index, 1).unwrap()[0]);
        last = next.index;
    }
    served.stop.cancel();
    let end = within(tail.message()).await;
    assert_eq!(end.unwrap_err().code(), Code::Unavailable);
}

/// Runs `kopuro log` with these arguments: whether it ended well, what it printed, what it complained of.
async fn kopuro_log(arguments: &[&str]) -> (bool, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kopuro"));
    let output = within(command.arg("log").args(arguments).output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_says_the_same_of_a_node_and_of_its_folder() {
    let served = Served::start(AuditLimits::default()).await;
    let id = Uuid::now_v7();
    served.exchange(id, "GetPerson", Outcome::Refused).await;
    served.exchange(Uuid::now_v7(), "GetPerson", Outcome::Ok).await;
    let path = |name: &str| served.folder.path().join(name).to_str().unwrap().to_owned();
    let url = format!("https://127.0.0.1:{}", served.address.port());
    let (cert, key, ca, data) = (path("auditor.pem"), path("auditor.key"), path("root.pem"), path("data"));
    let node = ["--node", &url, "--cert", &cert, "--key", &key, "--ca", &ca];
    let vkey = log_support::signer(1).verifier().to_string();
    let other = log_support::signer(2).verifier().to_string();
    let shown = id.to_string();
    let questions: [&[&str]; 4] = [
        &["query", "--format", "jsonl", "--outcome", "refused", "--consumer", "KG/GOV/70000006"],
        &["query", "--format", "csv", "--from", "2026-09-21T00:00:00+06:00"],
        &["show", "--format", "table", &shown],
        &["stats", "--format", "csv"],
    ];
    let mut answers = Vec::new();
    for question in questions {
        let (ok, answer, complaint) = kopuro_log(&[&node[..], question].concat()).await;
        assert!(ok, "{question:?}: {complaint}");
        answers.push(answer);
    }
    assert_eq!(answers[0].lines().count(), 1);
    assert!(answers[0].contains("GRANT_MISSING") && answers[0].contains(&shown), "{}", answers[0]);
    assert_eq!(answers[1].lines().count(), 3, "{}", answers[1]);
    assert!(answers[2].contains("RESPONSE_RECEIVED"), "{}", answers[2]);

    let (ok, answer, complaint) = kopuro_log(&[&node[..], &["verify", "--vkey", &vkey]].concat()).await;
    assert!(ok && answer.starts_with("verified: "), "{answer}{complaint}");
    let (ok, _, complaint) = kopuro_log(&[&node[..], &["verify", "--vkey", &other]].concat()).await;
    assert!(!ok && complaint.contains("not signed by"), "{complaint}");
    let (ok, _, complaint) = kopuro_log(&["--data", &data, "stats"]).await;
    assert!(!ok && complaint.contains("--node"), "{complaint}");

    served.log.clone().close().await;
    let mut again = Vec::new();
    for question in questions {
        let (ok, answer, complaint) = kopuro_log(&[&["--data", &data], question].concat()).await;
        assert!(ok, "{question:?}: {complaint}");
        again.push(answer);
    }
    assert_eq!(again, answers);
    let (ok, answer, complaint) = kopuro_log(&["--data", &data, "verify", "--vkey", &vkey]).await;
    assert!(ok && answer.starts_with("verified: "), "{answer}{complaint}");
    let (ok, answer, _) = kopuro_log(&["--data", &data, "tail", "--since", "2", "--format", "jsonl"]).await;
    assert!(ok && answer.lines().next().is_some_and(|line| line.contains("\"index\":2")), "{answer}");
}

#[tokio::test]
async fn what_was_pruned_is_refused_with_where_it_is_published() {
    let served = Served::start(AuditLimits::default()).await;
    for _ in 0..20 {
        served.exchange(Uuid::now_v7(), "GetPerson", Outcome::Ok).await;
    }
    served.log.set_published(20);
    let rule = kopuro::log::Prune { before_unix_ms: Some(i64::MAX), most_bytes: None, until: 20 };
    assert!(served.log.prune(&rule, 0).unwrap() > 0);
    let first = served.log.first();
    let mut auditor = served.client("auditor").await;
    let tail = |from| TailEntriesRequest { from, follow: false };
    let mut entries = auditor.tail_entries(tail(0)).await.unwrap().into_inner();
    let refused = [
        entries.message().await.unwrap_err(),
        auditor.get_inclusion_proof(GetInclusionProofRequest { index: 0, tree_size: 0 }).await.unwrap_err(),
        auditor.query_exchanges(QueryExchangesRequest { page_size: 100, ..Default::default() }).await.unwrap_err(),
    ];
    for status in refused {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::OutOfRange, "ENTRY_PRUNED"), "{status:?}");
        assert!(status.message().contains("https://kg.example/log/"), "{status:?}");
    }
    let mut entries = auditor.tail_entries(tail(first)).await.unwrap().into_inner();
    assert_eq!(entries.message().await.unwrap().unwrap().index, first);
}
