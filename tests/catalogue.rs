//! What a system may call, as it is told; and how it comes to be granted more: a request, its review, and the running node.

use std::path::PathBuf;
use std::process::Output;
use std::time::Instant;

use kopuro::config::request::GrantRequest;
use kopuro::policy::{Allowed, Consumer, Grant, LegalBasis, Methods, UnknownPolicy};
use kopuro::proto::kopuro::catalogue::v1::catalogue_client::CatalogueClient;
use kopuro::proto::kopuro::catalogue::v1::{GetTypesRequest, ListServicesRequest, ListServicesResponse};
use kopuro::proto::kopuro::node::v1::ListGrantsRequest;
use kopuro::proto::kopuro::node::v1::node_grants_client::NodeGrantsClient;
use kopuro::trust::tls::Credentials;
use serde_json::Value;
use time::OffsetDateTime;
use tonic::Code;

use super::harness::probe::{self, ProbeClient};
use super::harness::{AUDITOR, CLERK, CONSUMER, DESK, Federation, MUTE, PROBE, PROVIDER, Running, eventually, reason};

/// The client configuration of a system, beside its certificate.
fn client(federation: &mut Federation, system: &str, port: u16) -> PathBuf {
    let issued = federation.issue(system);
    let name = system.replace('/', "-");
    std::fs::write(federation.path(&format!("{name}.pem")), &issued.cert_pem).unwrap();
    std::fs::write(federation.path(&format!("{name}.key")), &*issued.key_pem).unwrap();
    let text = format!(
        "node = \"https://127.0.0.1:{port}\"\ncert = \"{name}.pem\"\nkey = \"{name}.key\"\nca = \"root.pem\"\n"
    );
    let file = federation.path(&format!("{name}.toml"));
    std::fs::write(&file, text).unwrap();
    file
}

async fn kopuro(args: &[&str]) -> (Output, String, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_kopuro"))
        .args(args)
        .env_remove("KOPURO_CONFIG")
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

async fn list(running: &mut Running, who: &str, all: bool) -> Result<ListServicesResponse, tonic::Status> {
    let issued = running.federation.issue(who);
    let channel = running.federation.channel(running.consumer.systems_addr(), &issued).await.unwrap();
    let answer = CatalogueClient::new(channel).list_services(ListServicesRequest { all }).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_system_is_told_what_concerns_itself() {
    let mut running = Running::start().await;
    let desk = list(&mut running, DESK, false).await.unwrap();
    assert_eq!((desk.system.as_str(), desk.services.len(), desk.not_asked.len()), (DESK, 1, 0));
    let probe = &desk.services[0];
    assert_eq!((probe.service.as_str(), probe.provider.as_str(), probe.several), (probe::SERVICE, PROBE, false));
    assert_eq!(probe.member.as_ref().unwrap().name_ru, "Министерство KG/GOV/2");
    assert_eq!(probe.schema.len(), 32);
    assert!(probe.methods.len() == 4 && probe.methods.iter().all(|method| method.outbound));
    let [grant] = &probe.grants[..] else { panic!("{probe:?}") };
    assert_eq!((grant.legal_basis.as_str(), grant.methods.as_slice()), ("law-1", &["*".to_owned()][..]));

    // The clerk may ask whomever it likes, and nobody grants it anything; the mute may not even ask.
    for (who, outbound) in [(CLERK, true), (MUTE, false)] {
        assert!(list(&mut running, who, false).await.unwrap().services.is_empty(), "{who}");
        let all = list(&mut running, who, true).await.unwrap();
        let [probe] = &all.services[..] else { panic!("{all:?}") };
        assert!(probe.grants.is_empty(), "another system's grant is nobody's business: {probe:?}");
        assert!(probe.methods.iter().all(|method| method.outbound == outbound), "{who}");
    }

    let refused = list(&mut running, AUDITOR, false).await.unwrap_err();
    assert_eq!(reason(&refused).unwrap().0, "WRONG_LISTENER");
    let refused = list(&mut running, "KG/GOV/1/unlisted", false).await.unwrap_err();
    assert_eq!(reason(&refused).unwrap().0, "NOT_IN_DIRECTORY");
    let refused = list(&mut running, PROBE, false).await.unwrap_err();
    assert_eq!(reason(&refused).unwrap().0, "WRONG_LISTENER");

    // The types are the directory's, whether the system may call or not; others there are none.
    let clerk = running.federation.issue(CLERK);
    let channel = running.federation.channel(running.consumer.systems_addr(), &clerk).await.unwrap();
    let mut clerk = CatalogueClient::new(channel);
    let ask = |service: &str| GetTypesRequest { service: service.to_owned(), provider: String::new() };
    let types = clerk.get_types(ask(probe::SERVICE)).await.unwrap().into_inner();
    assert!(
        prost_reflect::DescriptorPool::decode(types.descriptors).unwrap().get_service_by_name(probe::SERVICE).is_some()
    );
    for none in ["kopuro.test.v1.Other", "kopuro.audit.v1.AuditLog", ""] {
        assert_eq!(clerk.get_types(ask(none)).await.unwrap_err().code(), Code::NotFound, "{none}");
    }

    assert!(Running::entries(&running.consumer).is_empty(), "no exchange, no entry");
    assert!(Running::entries(&running.provider).is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_node_tells_a_node_of_that_nodes_own_systems_only() {
    let mut running = Running::start().await;
    let node = running.federation.issue(&format!("{CONSUMER}/_node/main"));
    let channel = running.federation.channel(running.provider.nodes_addr(), &node).await.unwrap();
    let mut grants = NodeGrantsClient::new(channel);
    let ask = |consumer: &str| ListGrantsRequest { consumer: consumer.to_owned() };
    assert_eq!(grants.list_grants(ask(DESK)).await.unwrap().into_inner().grants.len(), 1);
    assert!(grants.list_grants(ask(CLERK)).await.unwrap().into_inner().grants.is_empty());
    assert_eq!(grants.list_grants(ask(PROBE)).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(grants.list_grants(ask("desk")).await.unwrap_err().code(), Code::InvalidArgument);

    // A node that the directory does not list, and a system: neither is told anything.
    for who in [format!("{CONSUMER}/_node/spare"), DESK.to_owned()] {
        let issued = running.federation.issue(&who);
        let channel = running.federation.channel(running.provider.nodes_addr(), &issued).await.unwrap();
        let refused = NodeGrantsClient::new(channel).list_grants(ask(DESK)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{who}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_provider_that_cannot_be_asked_is_named() {
    let mut federation = Federation::new();
    federation.write_files("");
    let consumer = federation.start_node(CONSUMER).await;
    let desk = client(&mut federation, DESK, consumer.systems_addr().port());
    let started = Instant::now();
    let (output, out, err) = kopuro(&["catalogue", "--json", "--config", desk.to_str().unwrap()]).await;
    assert!(output.status.success(), "{err}");
    assert!(started.elapsed().as_secs() < 15);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert!(!told["not_asked"][PROVIDER].as_str().unwrap().is_empty(), "{out}");
    let method = &told["services"][0]["methods"][0];
    assert_eq!((&method["state"], &method["grants"]), (&"not-asked".into(), &Value::Array(Vec::new())), "{out}");
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_a_request_is_one_that_passes() {
    let mut running = Running::start().await;
    let port = running.consumer.systems_addr().port();
    let desk = client(&mut running.federation, DESK, port);
    let desk = desk.to_str().unwrap();

    let (output, out, err) = kopuro(&["catalogue", "--config", desk]).await;
    assert!(output.status.success(), "{err}");
    for part in [DESK, probe::SERVICE, PROBE, "Unary", "law-1", "yes"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (output, out, err) = kopuro(&["catalogue", "--config", desk, &format!("{}/Unary", probe::SERVICE)]).await;
    assert!(output.status.success(), "{err}");
    assert!(out.contains("Мыйзам № 1") && out.contains("kopuro.test.v1.Blob") && !out.contains("Collect"), "{out}");

    let (_, out, _) = kopuro(&["catalogue", "--json", "--config", desk]).await;
    let told: Value = serde_json::from_str(&out).unwrap();
    let methods = told["services"][0]["methods"].as_array().unwrap();
    let unary = methods.iter().find(|method| method["name"] == "Unary").unwrap();
    assert_eq!((&unary["state"], &unary["kind"]), (&"callable".into(), &"unary".into()));
    assert_eq!(unary["response_fields"][0]["crosses"]["law-1"], "open");
    assert_eq!(unary["example"]["request"], serde_json::json!({ "value": "AA==" }));
    let command = unary["example"]["kopuro"].as_str().unwrap();
    let command = command.replacen("kopuro", env!("CARGO_BIN_EXE_kopuro"), 1);
    let called = tokio::process::Command::new("sh").args(["-c", &command]).output().await.unwrap();
    assert!(called.status.success(), "{command}: {}", String::from_utf8_lossy(&called.stderr));
    assert!(methods.iter().all(|method| method["kind"] == "unary" || method["example"]["curl"].is_null()));

    let page = running.federation.path("catalogue.html");
    let (output, _, err) = kopuro(&["catalogue", "--config", desk, "--html", page.to_str().unwrap()]).await;
    assert!(output.status.success(), "{err}");
    let page = std::fs::read_to_string(page).unwrap();
    for part in ["Министрлик KG/GOV/2", "Министерство KG/GOV/2", "Ministry KG/GOV/2", "kopuro call", "</html>"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("src="), "it stands by itself");

    let (output, _, err) = kopuro(&["catalogue", "--config", desk, "kg.no.v1.Such"]).await;
    assert!(!output.status.success() && err.contains("kg.no.v1.Such"), "{err}");
    running.stop().await;
}

/// A running federation, and the clerk that asks for more.
struct Asking {
    running: Running,
    clerk: PathBuf,
    request: PathBuf,
    node: PathBuf,
}

impl Asking {
    async fn start() -> Self {
        let mut running = Running::start().await;
        let port = running.consumer.systems_addr().port();
        let clerk = client(&mut running.federation, CLERK, port);
        let request = running.federation.path("grant-request.toml");
        let node = running.federation.member_path(PROVIDER, "node.toml");
        Self { running, clerk, request, node }
    }

    async fn request(&self, more: &[&str]) -> (Output, String, String) {
        let mut args = vec!["grant", "request", "--config", self.clerk.to_str().unwrap()];
        args.extend(["--out", self.request.to_str().unwrap(), "--force", "--service", probe::SERVICE]);
        args.extend(["--reason", "To \"address\" notices\n# signature: none"]);
        if !more.contains(&"--purpose") {
            args.extend(["--purpose", "law-3"]);
        }
        args.extend(["--contact", "A. Asanova, +996 555 123456"]);
        args.extend(more);
        kopuro(&args).await
    }

    async fn review(&self, more: &[&str]) -> (Output, String, String) {
        let mut args = vec!["grant", "review", self.request.to_str().unwrap(), "--config", self.node.to_str().unwrap()];
        args.extend(more);
        kopuro(&args).await
    }

    fn grants(&self) -> Vec<String> {
        let folder = self.running.federation.member_path(PROVIDER, "grants");
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A request that the command would not write.
    fn make_by_hand(&mut self, consumer: &str, signer: &str, method: &str) {
        let issued = self.running.federation.issue(signer);
        let credentials = Credentials::from_pem(&issued.cert_pem, &issued.key_pem).unwrap();
        let request = GrantRequest {
            grant: Grant {
                consumer: Consumer::System(consumer.parse().unwrap()),
                provider: PROBE.parse().unwrap(),
                service: probe::SERVICE.to_owned(),
                methods: Methods::Named([method.to_owned()].into()),
                legal_basis: LegalBasis { code: "law-3".into(), text: "Мыйзам № 3".into() },
                from_unix_ms: None,
                until_unix_ms: None,
                rate: None,
                publication: None,
                allowed: Allowed::Everything,
                unknown: UnknownPolicy::default(),
                name_withheld: false,
            },
            made: OffsetDateTime::now_utc(),
            reason: "a reason".into(),
            contact: "a contact".into(),
            schema: [0; 32],
        };
        std::fs::write(&self.request, request.sign(&credentials).unwrap()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_reviewed_signed_in_and_taken_up() {
    let mut asking = Asking::start().await;
    let issued = asking.running.federation.issue(CLERK);
    let address = asking.running.consumer.systems_addr();
    let channel = asking.running.federation.channel(address, &issued).await.unwrap();
    let clerk = ProbeClient::new(channel);
    let refused = clerk.unary("clerk").await.unwrap_err();
    assert_eq!(reason(&refused).unwrap().0, "GRANT_MISSING");

    let (output, out, err) =
        asking.request(&["--methods", "Unary,Expand", "--fields", "value", "--until", "2099-12-31"]).await;
    assert!(output.status.success(), "{err}");
    assert!(out.contains(PROVIDER) && out.contains("Министрлик KG/GOV/2"), "{out}");

    // Looking changes nothing.
    let (output, out, err) = asking.review(&[]).await;
    assert!(output.status.success(), "{err}");
    for part in [
        CLERK,
        "Министрлик KG/GOV/1",
        "Мыйзам № 3, 1-берене",
        "A. Asanova",
        "Unary: one request, one response",
        "Expand: a STREAM of responses",
        "not granted today",
        "NEW",
        "It opens 2 fields more",
        "warning: it has no rate",
        "[[grant]]",
        "Nothing was written",
    ] {
        assert!(out.contains(part), "{part}:\n{out}");
    }
    assert_eq!(asking.grants(), ["probe.toml"]);

    // Only less than was asked can be given.
    let (output, _, err) = asking.review(&["--until", "2100-06-01", "--sign-in"]).await;
    assert!(!output.status.success() && err.contains("only less can be given"), "{err}");
    assert_eq!(asking.grants(), ["probe.toml"]);

    let (output, out, err) = asking.review(&["--until", "2098-12-31", "--rate", "1000", "--sign-in"]).await;
    assert!(output.status.success(), "{err}");
    let [file, _] = &asking.grants()[..] else { panic!("{:?}", asking.grants()) };
    assert!(out.contains(file) && file.starts_with("KG-GOV-1-clerk_Probe_"), "{out}");
    let written = asking.running.federation.member_path(PROVIDER, "grants").join(file);
    let written = std::fs::read_to_string(written).unwrap();
    assert!(written.contains("fields = { Expand = [\"value\"], Unary = [\"value\"] }"), "{written}");
    assert!(written.contains("until = \"2098-12-31\"") && written.contains("per_second = 1000"), "{written}");

    // The running node takes it up by itself: the call passes, and the catalogue tells it.
    eventually("the grant is in force", async || clerk.unary("clerk").await.ok()).await;
    let refused = clerk.unary_at("/kopuro.test.v1.Probe/Collect", "clerk").await;
    assert_eq!(reason(&refused.unwrap_err()).unwrap().0, "METHOD_NOT_GRANTED");
    // What the provider's node said last counts for a moment.
    let told = eventually("the catalogue tells it", async || {
        let (_, out, _) = kopuro(&["catalogue", "--json", "--config", asking.clerk.to_str().unwrap()]).await;
        out.contains("law-3").then_some(out)
    });
    assert!(!told.await.contains("law-1"));
    let (output, _, err) = asking.review(&["--until", "2098-12-31", "--rate", "1000", "--sign-in"]).await;
    assert!(!output.status.success() && err.contains("signed in already"), "{err}");
    let (_, out, _) = asking.review(&[]).await;
    assert!(
        out.contains("It opens no field that is not open to this consumer today")
            && out.contains("granted today on law-3"),
        "{out}"
    );
    let config = asking.node.to_str().unwrap();
    let (_, out, _) = kopuro(&["grant", "list", "--config", config]).await;
    assert!(out.contains(CLERK) && out.contains(DESK), "{out}");
    let (_, out, _) = kopuro(&["grant", "show", CLERK, "--config", config]).await;
    assert!(out.contains("law-3") && !out.contains("law-1"), "{out}");
    asking.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_changed_or_asks_for_what_is_not_there_is_refused() {
    let mut asking = Asking::start().await;
    let (_, _, err) = asking.request(&["--methods", "Nothing", "--everything"]).await;
    assert!(err.contains("has no method Nothing; it has"), "{err}");
    let (_, _, err) = asking.request(&["--methods", "Unary", "--fields", "nothing.at_all"]).await;
    assert!(err.contains("kopuro.test.v1.Blob has no field nothing.at_all"), "{err}");
    let (_, _, err) = asking.request(&["--methods", "Unary,Expand", "--fields", "Unary:value"]).await;
    assert!(err.contains("names nothing of Expand"), "{err}");
    let (_, _, err) = asking.request(&["--methods", "Unary", "--fields", "*,value"]).await;
    assert!(err.contains("overlap"), "{err}");
    let (_, _, err) = asking.request(&["--methods", "Unary", "--categories", "helth"]).await;
    assert!(err.contains("of the category helth"), "{err}");
    let (_, _, err) = asking.request(&["--methods", "Unary", "--everything", "--purpose", "law-77"]).await;
    assert!(err.contains("law-77 is not in the directory's register"), "{err}");
    assert!(!asking.request.exists(), "nothing was written");

    let (output, _, err) = asking.request(&["--methods", "Unary", "--everything"]).await;
    assert!(output.status.success(), "{err}");
    let (_, out, _) = asking.review(&[]).await;
    for part in ["warning: it opens whole responses", "warning: it has no end", "warning: it has no rate"] {
        assert!(out.contains(part), "{part}:\n{out}");
    }
    let good = std::fs::read_to_string(&asking.request).unwrap();
    let last = good.trim_end().lines().last().unwrap();
    for (bad, why) in [
        (good.replacen("[\"Unary\"]", "[\"*\"]", 1), "the document was changed"),
        (good.replacen("KG/GOV/1/clerk", "KG/GOV/1/other", 1), "the document was changed"),
        (format!("{good}\n[[grant]]\n"), "the last line is no signature"),
        (format!("{good}# more\n"), "the last line is no signature"),
        (good.replace(last, ""), "the last line is no signature"),
        (format!("{last}\n"), "the document was changed"),
    ] {
        std::fs::write(&asking.request, &bad).unwrap();
        let (output, out, err) = asking.review(&["--sign-in"]).await;
        assert!(!output.status.success() && err.contains(why), "{why}: {err}\n{out}");
    }

    // Signed by whoever has a key, for whatever cannot be had.
    for (consumer, signer, method, why) in [
        (CLERK, "KG/GOV/1/other", "Unary", "a system asks for itself"),
        (CLERK, "KG/GOV/1/_node/main", "Unary", "a system asks for itself"),
        (CLERK, CLERK, "Nothing", "NOT POSSIBLE: kopuro.test.v1.Probe has no method Nothing"),
        (
            "KG/GOV/1/unlisted",
            "KG/GOV/1/unlisted",
            "Unary",
            "NOT POSSIBLE: the directory does not list KG/GOV/1/unlisted",
        ),
    ] {
        asking.make_by_hand(consumer, signer, method);
        let (output, out, err) = asking.review(&["--sign-in"]).await;
        assert!(!output.status.success() && (err.contains(why) || out.contains(why)), "{why}: {err}\n{out}");
    }
    assert_eq!(asking.grants(), ["probe.toml"], "nothing was signed in");
    asking.running.stop().await;
}
