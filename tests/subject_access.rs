//! Subject access: a portal's system with a grant of its own is told which exchanges concerned a person, with openings that
//! hold, except what the law delays or seals; nobody else is; and every look is itself an entry.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kopuro::gateway::Node;
use kopuro::log::Log;
use kopuro::log::checkpoint::Checkpoint;
use kopuro::log::commitment::Opening;
use kopuro::log::entry::{Draft, Entry, ExchangeKey, Kind, OpenedEntry, Outcome, Publication, Slot};
use kopuro::log::hidden::{self, Private};
use kopuro::log::index::{Index, IndexError, IndexOptions};
use kopuro::log::proof;
use kopuro::log::tree::Hash;
use kopuro::proto::kopuro::audit::v1::openings_client::OpeningsClient;
use kopuro::proto::kopuro::audit::v1::subject_access_client::SubjectAccessClient;
use kopuro::proto::kopuro::audit::v1::*;
use kopuro::trust::note::Verifier;
use prost::Message;
use tonic::Code;
use tonic::transport::Channel;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use uuid::Uuid;

use crate::harness::probe::ProbeClient;
use crate::harness::{
    AUDITOR, CLERK, DESK, Federation, MUTE, PROBE, PROVIDER, Running, eventually, reason, write_whole,
};
use crate::log_support::open;

const ALICE: &str = "20101199912345";
const BERMET: &str = "20101199954321";
const DAY_MS: i64 = 86_400_000;

/// Grants of the probe on three bases, each with its class, and of subject access for the portal, which is the other
/// member's system `clerk`.
fn federation() -> Federation {
    let mut federation = Federation::new();
    let public = federation.grants.clone();
    let grant = |basis: &str, class: &str| format!("{}publication = {class}\n", public.replace("law-1", basis));
    let portal = format!(
        "[[grant]]\nconsumer = \"{CLERK}\"\nprovider = \"node\"\nservice = \"kopuro.audit.v1.SubjectAccess\"\n\
         methods = [\"ListExchanges\"]\nlegal_basis = {{ code = \"data-law-5\", text = \"Law on personal data\" }}\n"
    );
    federation.grants =
        [public.clone(), grant("law-2", "\"sealed\""), grant("law-3", "{ delayed_days = 30 }"), portal].join("\n");
    federation.outbound = federation.outbound.replacen("\n\n", "\npublication = \"sealed\"\n\n", 1);
    federation
}

async fn client(running: &mut Running, who: &str) -> SubjectAccessClient<Channel> {
    let certificate = running.federation.issue(who);
    let channel = running.federation.channel(running.provider.systems_addr(), &certificate).await.unwrap();
    SubjectAccessClient::new(channel)
}

fn question(subject: &str) -> ListExchangesRequest {
    ListExchangesRequest { subject: subject.into(), ..ListExchangesRequest::default() }
}

/// Asks until the index has come to where the log was.
async fn answered(
    portal: &mut SubjectAccessClient<Channel>,
    node: &Node,
    question: &ListExchangesRequest,
) -> ListExchangesResponse {
    let size = node.log().unwrap().checkpoint().size;
    eventually("the index is up", async || {
        let answer = portal.list_exchanges(question.clone()).await.unwrap().into_inner();
        (answer.indexed_size >= size).then_some(answer)
    })
    .await
}

fn hash(bytes: &Bytes) -> Hash {
    Hash(bytes.as_ref().try_into().unwrap())
}

/// Checks everything that the answer proves of an exchange; the whole entries.
fn proved(answer: &ListExchangesResponse, exchange: &SubjectExchange, subject: &str, key: &Verifier) -> Vec<Entry> {
    let checkpoint = Checkpoint::verify(&answer.checkpoint, key).unwrap();
    let shown = exchange.exchange.as_ref().unwrap();
    assert_eq!(shown.indices, exchange.entries.iter().map(|entry| entry.index).collect::<Vec<_>>());
    let prove = |shown: &ShownEntry| {
        let path: Vec<Hash> = shown.inclusion.iter().map(hash).collect();
        let leaf = Hash::of_leaf(&shown.entry);
        proof::verify_inclusion(leaf, shown.index, checkpoint.size, &path, checkpoint.root).unwrap();
        let entry = Entry::decode(shown.entry.clone()).unwrap();
        let of_subject = &shown.openings[0];
        assert_eq!((of_subject.slot(), &of_subject.value[..]), (Slot::Subject, subject.as_bytes()));
        let opening = Opening {
            slot: Slot::Subject as u8,
            salt: hash(&of_subject.salt).0,
            value: of_subject.value.to_vec(),
            slots: u8::try_from(of_subject.slots).unwrap(),
            path: of_subject.path.iter().map(hash).collect(),
        };
        opening.verify(hash(&entry.commitment)).unwrap();
        match shown.openings.get(1) {
            None => entry,
            Some(rest) => {
                assert_eq!(rest.slot(), Slot::Hidden);
                let FieldOpening { value: hidden, salt, slots, path, .. } = rest.clone();
                hidden::verify_opened(&OpenedEntry { index: shown.index, hidden, salt, slots, path }, &shown.entry)
                    .unwrap()
            }
        }
    };
    exchange.entries.iter().map(prove).collect()
}

/// The value of a slot of an entry.
fn private(log: &Log, index: u64, slot: Slot) -> Option<Vec<u8>> {
    let private = log.read_private(index).unwrap();
    Private::read(&private).unwrap().value(slot).map(<[u8]>::to_vec)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_is_told_what_concerned_a_person_and_its_look_is_an_entry() {
    let mut running = federation().start("").await;
    let desk = ProbeClient::new(running.desk().await).with("kopuro-user", "official-7");
    let calls = [
        (ALICE, "law-1", "echo"),
        (ALICE, "law-2", "echo"),
        (BERMET, "law-1", "echo"),
        (ALICE, "law-3", "echo"),
        (ALICE, "law-1", "fail"),
    ];
    for (subject, basis, act) in calls {
        let call = desk.clone().with("kopuro-subject", subject).with("kopuro-purpose", basis).with("x-do", act);
        assert_eq!(call.unary("x").await.is_ok(), act != "fail");
    }
    // One that was delayed and is due, and one that will be tomorrow.
    let log = running.provider.log().unwrap().clone();
    let now = i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap();
    for age in [31 * DAY_MS, 29 * DAY_MS] {
        let mut draft = Draft::new(Kind::Refused, Uuid::now_v7(), now - age, &ExchangeKey::generate());
        (draft.publication, draft.delay_days) = (Publication::Delayed, 30);
        (draft.consumer, draft.provider, draft.outcome) = (DESK.into(), PROBE.into(), Outcome::Refused);
        draft.reason = "RATE_LIMITED".into();
        draft.set(Slot::Subject, ALICE);
        log.append(draft.seal()).await.unwrap();
    }

    let mut portal = client(&mut running, CLERK).await;
    let before = log.checkpoint().size;
    let answer = answered(&mut portal, &running.provider, &question(ALICE)).await;
    let key = running.federation.log_key(PROVIDER);
    let told: Vec<(Vec<u64>, Outcome, String, String)> = answer
        .exchanges
        .iter()
        .map(|found| {
            let exchange = found.exchange.clone().unwrap();
            assert_eq!((exchange.consumer.as_str(), exchange.provider.as_str()), (DESK, PROBE));
            let entries = proved(&answer, found, ALICE, key);
            assert!(entries.iter().all(|entry| entry.consumer == DESK && entry.exchange_id == exchange.exchange_id));
            (exchange.indices.clone(), exchange.outcome(), exchange.legal_basis, exchange.method)
        })
        .collect();
    // Not the sealed one, not those that are not due, not the other person's.
    let expected = [
        (vec![10], Outcome::Refused, String::new(), String::new()),
        (vec![8, 9], Outcome::Error, "law-1".into(), "Unary".into()),
        (vec![0, 1], Outcome::Ok, "law-1".into(), "Unary".into()),
    ];
    assert_eq!(told, expected);
    assert!(answer.next_page_token.is_empty());

    // Each look is an entry, with whom it was about and the basis of the grant.
    let entries = Running::entries(&running.provider);
    let look = &entries[before as usize];
    assert_eq!((look.kind(), look.outcome(), look.method.as_str()), (Kind::Audit, Outcome::Ok, "ListExchanges"));
    assert_eq!((look.consumer.as_str(), look.provider.as_str()), (CLERK, PROVIDER));
    assert_eq!((look.service.as_str(), look.legal_basis.as_str()), ("kopuro.audit.v1.SubjectAccess", "data-law-5"));
    assert_eq!(private(&log, before, Slot::Subject).as_deref(), Some(ALICE.as_bytes()));
    let looks =
        answered(&mut portal, &running.provider, &ListExchangesRequest { looks: true, ..question(ALICE) }).await;
    let kinds: Vec<Kind> = looks.exchanges.iter().map(|found| found.exchange.as_ref().unwrap().kind()).collect();
    assert!(kinds.contains(&Kind::Audit) && kinds.contains(&Kind::RequestReceived), "{kinds:?}");

    // The reader may narrow the time, and is told what is wrong with a question.
    let early = ListExchangesRequest { until_unix_ms: now - 30 * DAY_MS, ..question(ALICE) };
    assert_eq!(answered(&mut portal, &running.provider, &early).await.exchanges.len(), 1);
    for wrong in [
        question(""),
        question(&"1".repeat(257)),
        ListExchangesRequest { page_size: 51, ..question(ALICE) },
        ListExchangesRequest { page_token: "AAAA".into(), ..question(ALICE) },
    ] {
        assert_eq!(portal.list_exchanges(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_a_grant_is_told_anything() {
    let mut running = federation().start("").await;
    for (who, expected) in [
        (DESK, "GRANT_MISSING"),
        (MUTE, "GRANT_MISSING"),
        (AUDITOR, "GRANT_MISSING"),
        ("KG/GOV/1/unlisted", "NOT_IN_DIRECTORY"),
    ] {
        let refused = client(&mut running, who).await.list_exchanges(question(ALICE)).await.unwrap_err();
        assert_eq!(reason(&refused), Some((expected.into(), "provider".into())), "{who}: {refused:?}");
        let log = running.provider.log().unwrap();
        let index = log.checkpoint().size - 1;
        let entry = Entry::decode(log.read(index, 1).unwrap().remove(0)).unwrap();
        assert_eq!((entry.kind(), entry.outcome(), entry.reason.as_str()), (Kind::Audit, Outcome::Refused, expected));
        assert_eq!(entry.consumer, who);
        assert_eq!(private(log, index, Slot::Subject).as_deref(), Some(ALICE.as_bytes()));
    }
    // Another legal basis than the granted one; and the listener of nodes does not know the service.
    let mut request = tonic::Request::new(question(ALICE));
    request.metadata_mut().insert("kopuro-purpose", "another".parse().unwrap());
    let refused = client(&mut running, CLERK).await.list_exchanges(request).await.unwrap_err();
    assert_eq!(reason(&refused).unwrap().0, "PURPOSE_NOT_ALLOWED");
    let certificate = running.federation.issue(CLERK);
    let channel = running.federation.channel(running.provider.nodes_addr(), &certificate).await.unwrap();
    let refused = SubjectAccessClient::new(channel).list_exchanges(question(ALICE)).await.unwrap_err();
    assert_eq!(reason(&refused).unwrap().0, "WRONG_LISTENER");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_full_whatever_was_left_out_and_come_to_an_end() {
    let mut running = federation().start("").await;
    let log = running.provider.log().unwrap().clone();
    let mut shown = HashSet::new();
    for number in 0..40 {
        let mut draft = Draft::new(Kind::Refused, Uuid::now_v7(), 1_790_000_000_000, &ExchangeKey::generate());
        draft.publication = if number % 4 == 0 { Publication::Public } else { Publication::Sealed };
        draft.set(Slot::Subject, ALICE);
        let appended = log.append(draft.seal()).await.unwrap();
        shown.extend((number % 4 == 0).then_some(appended.index));
    }
    let mut portal = client(&mut running, CLERK).await;
    let mut page = ListExchangesRequest { page_size: 3, ..question(ALICE) };
    let (mut sizes, mut found, mut tokens) = (Vec::new(), HashSet::new(), HashSet::new());
    loop {
        let answer = answered(&mut portal, &running.provider, &page).await;
        sizes.push(answer.exchanges.len());
        found.extend(answer.exchanges.iter().flat_map(|found| found.exchange.clone().unwrap().indices));
        if answer.next_page_token.is_empty() {
            break;
        }
        assert!(tokens.insert(answer.next_page_token.clone()));
        page.page_token = answer.next_page_token;
    }
    assert_eq!(sizes, [3, 3, 3, 1], "as if there were nothing else");
    assert_eq!(found, shown);
    let other = ListExchangesRequest { subject: BERMET.into(), ..page.clone() };
    assert_eq!(
        portal.list_exchanges(other).await.unwrap_err().code(),
        Code::InvalidArgument,
        "a token of another question"
    );

    // The command line: over the network with the grant, and by hand on the stopped node's folder, every class.
    let about = ["subject", "--subject", ALICE, "--format", "jsonl"].map(str::to_owned);
    let asked = succeeded(kopuro(&[&about[..], &as_clerk(&mut running)].concat()).await);
    assert_eq!(asked.lines().count(), 10, "{asked}");
    let federation = running.stop().await;
    let data = federation.member_path(PROVIDER, "data");
    let folder = ["--data", data.to_str().unwrap()].map(str::to_owned);
    let by_hand = succeeded(kopuro(&[&about[..], &folder].concat()).await);
    assert_eq!(by_hand.lines().count(), 40, "{by_hand}");
}

/// Flags that reach the provider's node with a certificate of the system `clerk`.
fn as_clerk(running: &mut Running) -> Vec<String> {
    let certificate = running.federation.issue(CLERK);
    let file = |name: &str| running.federation.path(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (file("clerk.pem"), file("clerk.key"), file("root.pem"));
    write_whole(cert.as_ref(), certificate.cert_pem.as_bytes());
    write_whole(key.as_ref(), certificate.key_pem.as_bytes());
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let node = format!("https://{}", running.provider.systems_addr());
    ["--node", &node, "--cert", &cert, "--key", &key, "--ca", &ca].map(str::to_owned).to_vec()
}

/// `kopuro log …`
async fn kopuro(arguments: &[impl AsRef<std::ffi::OsStr>]) -> std::process::Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kopuro"));
    command.arg("log").args(arguments);
    tokio::time::timeout(Duration::from_secs(20), command.kill_on_drop(true).output()).await.unwrap().unwrap()
}

fn succeeded(output: std::process::Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officer_opens_a_field_at_the_running_node_and_the_person_can_learn_of_it() {
    let mut federation = federation();
    federation.grants.push_str(&format!(
        "\n[[grant]]\nconsumer = \"{CLERK}\"\nprovider = \"node\"\nservice = \"kopuro.audit.v1.Openings\"\n\
         methods = [\"*\"]\nlegal_basis = {{ code = \"courts-law-1\", text = \"Law on courts\" }}\n"
    ));
    let mut running = federation.start("").await;
    let desk = ProbeClient::new(running.desk().await);
    desk.clone().with("kopuro-purpose", "law-2").with("kopuro-subject", ALICE).unary("x").await.unwrap();
    let out = running.federation.path("opening.json").to_str().unwrap().to_owned();
    let open = ["open", "--index", "1", "--field", "subject", "--field", "hidden", "-o", &out, "--user", "judge-3"];
    let flags = as_clerk(&mut running);
    let with = |arguments: &[&str]| [arguments.iter().map(|a| (*a).to_owned()).collect(), flags.clone()].concat();
    succeeded(kopuro(&with(&open)).await);
    let vkey = running.federation.log_key(PROVIDER).to_string();
    let shown = succeeded(kopuro(&["check-opening", &out, "--vkey", &vkey]).await);
    assert!(shown.contains(&format!("subject {ALICE}")) && shown.contains("RESPONSE_SENT"), "{shown}");

    let log = running.provider.log().unwrap().clone();
    // The entry is sealed, and so is the look.
    assert!(hidden::is_hidden(&log.read(2, 1).unwrap()[0]));
    let look = Entry::decode(log.read_seen(2, 1).unwrap()[0].whole()).unwrap();
    assert_eq!((look.kind(), look.outcome(), look.consumer.as_str()), (Kind::Audit, Outcome::Ok, CLERK));
    assert_eq!((look.service.as_str(), look.legal_basis.as_str()), ("kopuro.audit.v1.Openings", "courts-law-1"));
    for (slot, value) in [(Slot::Subject, ALICE), (Slot::User, "judge-3")] {
        assert_eq!(private(&log, 2, slot).as_deref(), Some(value.as_bytes()));
    }
    let looks = ListExchangesRequest { looks: true, ..question(ALICE) };
    let mut portal = client(&mut running, CLERK).await;
    let opened = |answer: ListExchangesResponse| -> Vec<u64> {
        let looks = answer.exchanges.into_iter().filter_map(|found| found.exchange);
        looks.filter(|look| look.service == "kopuro.audit.v1.Openings").flat_map(|look| look.indices).collect()
    };
    assert!(opened(answered(&mut portal, &running.provider, &looks).await).is_empty());
    // Of a public exchange the person can learn who has opened it.
    let desk = desk.with("kopuro-purpose", "law-1").with("kopuro-subject", ALICE);
    desk.unary("x").await.unwrap();
    let at = log.checkpoint().size;
    succeeded(kopuro(&with(&["open", "--index", &(at - 1).to_string(), "--field", "address"])).await);
    assert_eq!(opened(answered(&mut portal, &running.provider, &looks).await), [at]);

    // A field without a value, an entry that is not there, nothing asked for; and whoever has no grant for it.
    let complaint = async |arguments: &[&str]| {
        let output = kopuro(&with(arguments)).await;
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(complaint(&["open", "--index", "1", "--field", "case"]).await.contains("the entry has no case"));
    assert!(complaint(&["open", "--index", "999", "--field", "user"]).await.contains("OutOfRange"));
    for (who, request, expected) in [
        (CLERK, OpenFieldsRequest { index: 1, ..Default::default() }, "AUDIT_REQUEST"),
        (DESK, OpenFieldsRequest { index: 1, slots: vec![Slot::User.into()], tree_size: 0 }, "GRANT_MISSING"),
    ] {
        let certificate = running.federation.issue(who);
        let channel = running.federation.channel(running.provider.systems_addr(), &certificate).await.unwrap();
        let refused = OpeningsClient::new(channel).open_fields(request).await.unwrap_err();
        assert_eq!(reason(&refused).unwrap().0, expected);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_for_it_names_the_node_and_reflection_shows_it_to_its_holder() {
    let mut running = federation().start("").await;
    for (who, sees) in [(CLERK, true), (DESK, false)] {
        let certificate = running.federation.issue(who);
        let channel = running.federation.channel(running.provider.systems_addr(), &certificate).await.unwrap();
        let list = MessageRequest::ListServices(String::new());
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
        let mut reflection = ServerReflectionClient::new(channel);
        let answers = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        let answer = answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
        let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
        let shown = list.service.iter().any(|service| service.name == "kopuro.audit.v1.SubjectAccess");
        assert_eq!(shown, sees, "{who}");
    }
    let federation = running.stop().await;
    let check = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kopuro"));
        let file = federation.member_path(PROVIDER, "node.toml");
        let output = command.args(["node", "--check", "--config"]).arg(file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    // The data folder's disk and the probe's port are this machine's: only what is said of the grants counts.
    let grants = federation.member_path(PROVIDER, "grants/probe.toml");
    let right = std::fs::read_to_string(&grants).unwrap();
    assert_eq!(check().0, Some(0), "{}", check().1);
    let of_probe = right.replace("provider = \"node\"", "provider = \"probe\"");
    write_whole(&grants, of_probe.as_bytes());
    assert!(check().1.contains("write provider = \"node\""), "{}", check().1);
    write_whole(&grants, right.replace("ListExchanges", "ListEverything").as_bytes());
    assert!(check().1.contains("has no method ListEverything"), "{}", check().1);
}

// === The index of subjects ===

fn small(folder: &Path) -> IndexOptions {
    IndexOptions { folder: folder.join("index"), segment_entries: 7, cache_bytes: 100_000 }
}

/// All openings of a subject, in pages of three.
fn openings(index: &Index, subject: &str) -> Result<Vec<u64>, IndexError> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = index.of_subject(subject.as_bytes(), before, 3, Instant::now() + Duration::from_secs(10))?;
        found.extend(page.openings);
        match page.next {
            Some(next) => before = Some(next),
            None => return Ok(found),
        }
    }
}

#[tokio::test]
async fn subjects_are_found_by_a_keyed_pseudonym_and_the_files_name_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path()).unwrap();
    let (index, follower) = Index::follow(small(folder.path()), &log).unwrap();
    let mut expected: [Vec<u64>; 2] = Default::default();
    for number in 0..50_usize {
        let (key, id) = (ExchangeKey::generate(), Uuid::now_v7());
        for kind in [Kind::RequestReceived, Kind::ResponseSent] {
            let mut draft = Draft::new(kind, id, 1_790_000_000_000, &key);
            draft.publication = [Publication::Public, Publication::Sealed, Publication::Delayed][number % 3];
            if number % 5 < 2 {
                draft.set(Slot::Subject, [ALICE, BERMET][number % 5]);
            }
            let appended = log.append(draft.seal()).await.unwrap();
            if number % 5 < 2 && kind == Kind::RequestReceived {
                expected[number % 5].insert(0, appended.index);
            }
        }
        if number % 9 == 0 {
            // Asked while the log grows: as far as it has come.
            let found = openings(&index, ALICE).unwrap();
            assert!(expected[0].ends_with(&found), "{found:?} of {:?}", expected[0]);
        }
    }
    eventually("the index is up", async || (index.indexed_size() == 100).then_some(())).await;
    for (subject, expected) in [ALICE, BERMET].iter().zip(&expected) {
        assert_eq!(openings(&index, subject).unwrap(), *expected);
    }
    assert!(openings(&index, "nobody").unwrap().is_empty());

    // Sealed segments have their files, which hold no subject, in the clear or hashed without the key.
    let files = || -> Vec<std::path::PathBuf> {
        let all = std::fs::read_dir(folder.path().join("index")).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.extension().is_some_and(|extension| extension == "sub")).collect()
    };
    assert_eq!(files().len(), 14);
    for file in files() {
        let bytes = std::fs::read(file).unwrap();
        let plain: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(ALICE).into();
        for needle in [ALICE.as_bytes(), &plain[..8]] {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle));
        }
    }
    // Damaged, gone or another key's: made again.
    let mut damaged = files();
    damaged.sort();
    std::fs::write(&damaged[0], b"kopuro index 2\nnonsense").unwrap();
    std::fs::remove_file(&damaged[1]).unwrap();
    std::fs::copy(&damaged[3], &damaged[2]).unwrap();
    assert_eq!(openings(&index, ALICE).unwrap(), expected[0]);
    index.forget_subjects(0, 15).unwrap();
    assert_eq!(files().len(), 11, "the segments of entries 0 to 14");
    assert_eq!(openings(&index, BERMET).unwrap(), expected[1]);
    drop(follower);
    log.close().await;

    let (log, _) = open(folder.path()).unwrap();
    let (index, _follower) = Index::follow(small(folder.path()), &log).unwrap();
    eventually("the index is up", async || (index.indexed_size() == 100).then_some(())).await;
    assert_eq!(openings(&index, ALICE).unwrap(), expected[0]);
    // Time is up before it begins: a step is made all the same, and where to go on is told.
    let page = index.of_subject(ALICE.as_bytes(), None, 100, Instant::now()).unwrap();
    assert_eq!(page.next, Some(98));
    log.close().await;
}
