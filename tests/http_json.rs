//! A provider's system that speaks plain HTTP and JSON stands behind a gRPC service: by `google.api.http` where the service has that,
//! for callers in gRPC and in JSON alike.

use std::sync::Arc;
use std::time::Duration;

use kopuro::config;
use kopuro::log::entry::{Kind, Outcome};
use kopuro::proto::kg::civil::v1::civil_registry_client::CivilRegistryClient;
use kopuro::proto::kg::civil::v1::{
    ChangeKind, GetFamilyRequest, GetPersonRequest, GetResidenceRequest, ListChangesRequest,
};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::json;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::harness::http_backend::{Asked, HttpBackend, Says};
use crate::harness::probe::ProbeClient;
use crate::harness::web::Web;
use crate::harness::{CLERK, CONSUMER, DESK, Federation, PROVIDER, Running, free_port, reason, told};

const PEOPLE: &str = "KG/GOV/2/people";
const CIVIL: &str = "kg.civil.v1.CivilRegistry";

/// As a register answers that was written long before this gateway.
fn register(asked: &Asked) -> Says {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    match path.strip_prefix("/v1/persons/").unwrap_or(path) {
        "123" => {
            let mut says =
                Says::json(200, r#"{"person":{"pin":"123","surname":"Асанов","sex":"SEX_MALE","internalId":7}}"#);
            says.headers.push(("x-register", "7".into()));
            says.headers.push(("trailer-x-last", "yes".into()));
            says.headers.push(("kopuro-refused", "failed FORGED".into()));
            says
        }
        "123/residence" => Says::json(200, json!({ "since": query }).to_string()),
        "missing" => Says::json(
            404,
            r#"{"error":{"code":404,"status":"NOT_FOUND","message":"no such person",
                "details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"NO_PERSON","domain":"register"}]}}"#,
        ),
        "html" => Says { headers: vec![("content-type", "text/html".into())], ..Says::json(200, "<html>") },
        "wrong" => Says::json(200, r#"{"person":{"pin":{}}}"#),
        "not-json" => Says::json(200, r#"{"person":"#),
        "empty" => Says { headers: vec![], ..Says::json(204, "") },
        "large" => Says::json(200, vec![b' '; 3 << 20]),
        "hang" => Says { hangs: true, ..Says::json(200, "{") },
        "down" => Says { headers: vec![("content-type", "text/html".into())], ..Says::json(503, "<html>") },
        "a%2Fb%20..%3F" => Says::json(200, "{}"),
        "/v1/changes" if query.contains("limit=2") => Says {
            headers: vec![("content-type", "application/x-ndjson".into())],
            ..Says::json(
                200,
                "{\"change\":{\"sequence\":\"1\",\"kind\":\"CHANGE_KIND_BIRTH\"}}\n\n{\"change\":{\"sequence\":2}}",
            )
        },
        "/v1/changes" => Says {
            headers: vec![("content-type", "application/x-ndjson".into())],
            ..Says::json(200, "{\"change\":{}}\n{\"change\":7}\n")
        },
        _ => Says::json(501, r#"{"code":"unimplemented","message":"what?"}"#),
    }
}

/// The service's types with no annotation but google.api.http: what else is checked of a call is not what is tested here.
fn plain(set: &[u8]) -> Vec<u8> {
    let pool = DescriptorPool::decode(set).unwrap();
    let kind = pool.get_message_by_name("google.protobuf.FileDescriptorSet").unwrap();
    let mut set = DynamicMessage::decode(kind, set).unwrap();
    let list = |message: &mut DynamicMessage, name: &str, each: &mut dyn FnMut(&mut DynamicMessage)| {
        let list = message.get_field_by_name_mut(name).unwrap().as_list_mut().unwrap();
        list.iter_mut().for_each(|value| each(value.as_message_mut().unwrap()));
    };
    list(&mut set, "file", &mut |file| {
        let name = file.get_field_by_name("name").unwrap().as_str().unwrap().to_owned();
        if !name.starts_with("kg/") {
            return;
        }
        list(file, "message_type", &mut |message| {
            list(message, "field", &mut |field| field.clear_field_by_name("options"));
        });
        list(file, "service", &mut |service| {
            service.clear_field_by_name("options");
            list(service, "method", &mut |method| {
                let options = method.get_field_by_name_mut("options").unwrap().as_message_mut().unwrap();
                let others: Vec<_> = options.extensions().map(|(extension, _)| extension).collect();
                for other in others.iter().filter(|other| other.full_name() != "google.api.http") {
                    options.clear_extension(other);
                }
            });
        });
    });
    set.encode_to_vec()
}

async fn start(limits: &str) -> (Running, HttpBackend) {
    let mut federation = Federation::new();
    let set = plain(&kopuro::schema::extract(kopuro::proto::DESCRIPTORS, &[CIVIL]).unwrap());
    federation.add_service(PEOPLE, CIVIL, &set);
    federation.grants.push_str(&format!(
        "[[grant]]\nconsumer = \"{DESK}\"\nprovider = \"people\"\nservice = \"{CIVIL}\"\nmethods = [\"*\"]\n\
         legal_basis = {{ code = \"law-1\", text = \"Мыйзам № 1\" }}\n"
    ));
    federation.grants.push_str(&format!(
        "[[grant]]\nconsumer = \"{CLERK}\"\nprovider = \"people\"\nservice = \"{CIVIL}\"\nmethods = [\"GetPerson\"]\n\
         fields = [\"person.pin\"]\nlegal_basis = {{ code = \"law-1\", text = \"Мыйзам № 1\" }}\n"
    ));
    federation.write_files(limits);
    let port = free_port();
    let backend =
        format!("[backends.people]\nendpoint = \"https://127.0.0.1:{port}\"\nprotocol = \"http-json\"\n{limits}");
    federation.write_node(PROVIDER, &backend);
    let register = HttpBackend::start(&mut federation, PEOPLE, port, Arc::new(register)).await;
    let probe = federation.start_probe().await;
    let provider = federation.start_node(PROVIDER).await;
    let consumer = federation.start_node(CONSUMER).await;
    (Running { federation, consumer, provider, probe }, register)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_grpc_does_not_see_the_difference() {
    let (mut running, register) = start("").await;
    let mut client = CivilRegistryClient::new(running.desk().await);
    let mut asked = Request::new(GetPersonRequest { pin: "123".into() });
    asked.metadata_mut().insert("x-case", "7".parse().unwrap());
    // What would mean something else to a service of HTTP than to one of gRPC.
    for misleading in ["x-http-method-override", "expect", "range", "cookie", "content-encoding", "x-forwarded-for"] {
        asked.metadata_mut().insert(misleading, "100-continue".parse().unwrap());
    }
    asked.set_timeout(Duration::from_secs(5));
    let answer = client.get_person(asked).await.unwrap();
    assert_eq!(answer.metadata().get("x-register").unwrap(), "7");
    let person = answer.into_inner().person.unwrap();
    assert_eq!((person.pin.as_str(), person.surname.as_str(), person.sex), ("123", "Асанов", 2));

    let seen = register.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.body.len()), ("GET", "/v1/persons/123", 0));
    let header =
        |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    assert_eq!(
        (header("kopuro-consumer").as_str(), header("kopuro-purpose").as_str(), header("x-case").as_str()),
        (DESK, "law-1", "7")
    );
    assert!((1..=5_000).contains(&header("connect-timeout-ms").parse::<u64>().unwrap()));
    let of_http = ["host", "accept", "connect-timeout-ms", "user-agent"];
    let others = seen.headers.keys().filter(|name| !of_http.contains(&name.as_str()));
    let mut others: Vec<&str> = others.map(http::HeaderName::as_str).collect();
    others.sort_unstable();
    assert_eq!(others, ["kopuro-consumer", "kopuro-exchange", "kopuro-provider", "kopuro-purpose", "x-case"]);
    for node in [&running.consumer, &running.provider] {
        assert_eq!(Running::entries(node).last().unwrap().outcome(), Outcome::Ok);
    }

    let asked = GetResidenceRequest { pin: "123".into(), on: "2026-01-01".into() };
    assert_eq!(client.get_residence(asked).await.unwrap().into_inner().since, "on=2026%2D01%2D01");
    // Sent into the path as it is, and nowhere else.
    client.get_person(GetPersonRequest { pin: "a/b ..?".into() }).await.unwrap();
    assert!(client.get_person(GetPersonRequest { pin: "empty".into() }).await.unwrap().into_inner().person.is_none());

    let asked = ListChangesRequest { limit: 2, kinds: vec![ChangeKind::Birth.into()], ..Default::default() };
    let mut changes = client.list_changes(asked).await.unwrap().into_inner();
    let first = changes.message().await.unwrap().unwrap().change.unwrap();
    assert_eq!((first.sequence, first.kind()), (1, ChangeKind::Birth));
    assert_eq!(changes.message().await.unwrap().unwrap().change.unwrap().sequence, 2);
    assert!(changes.message().await.unwrap().is_none());
    assert_eq!(register.last().target, "/v1/changes?limit=2&kinds=CHANGE%5FKIND%5FBIRTH");
    assert_eq!(*register.connections.lock().unwrap(), 1, "one connection does for calls one after the other");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_told_in_grpc() {
    let (mut running, register) = start("[limits]\nmessage = \"512KiB\"\n").await;
    let mut client = CivilRegistryClient::new(running.desk().await);
    let mut failed = async |pin: &str| {
        let mut asked = Request::new(GetPersonRequest { pin: pin.into() });
        asked.set_timeout(Duration::from_secs(1));
        client.get_person(asked).await.unwrap_err()
    };
    let missing = failed("missing").await;
    assert_eq!((missing.code(), missing.message()), (Code::NotFound, "no such person"));
    assert_eq!(missing.get_details_error_info().unwrap().reason, "NO_PERSON");
    assert_eq!(failed("down").await.code(), Code::Unavailable);
    // tonic's own clock may be the first.
    assert!(matches!(failed("hang").await.code(), Code::DeadlineExceeded | Code::Cancelled));
    for (pin, code, why) in [
        ("html", Code::Internal, "RESPONSE_MALFORMED"),
        ("wrong", Code::Internal, "RESPONSE_MALFORMED"),
        ("not-json", Code::Internal, "RESPONSE_MALFORMED"),
        ("large", Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
        ("..", Code::InvalidArgument, "MESSAGE_MALFORMED"),
        ("", Code::InvalidArgument, "MESSAGE_MALFORMED"),
    ] {
        let status = failed(pin).await;
        assert_eq!((status.code(), reason(&status)), (code, Some((why.into(), "provider".into()))), "{pin} {status:?}");
    }
    let mut changes = client.list_changes(ListChangesRequest::default()).await.unwrap().into_inner();
    changes.message().await.unwrap().unwrap();
    let status = changes.message().await.unwrap_err();
    assert_eq!(reason(&status), Some(("RESPONSE_MALFORMED".into(), "provider".into())), "{status:?}");
    let entries = Running::entries(&running.provider);
    assert_eq!(told(&entries).last(), Some(&(Kind::Failed, Outcome::Failed, "RESPONSE_MALFORMED")));

    // Its neighbour is unharmed; and gone is gone.
    ProbeClient::new(running.desk().await).unary("still there").await.unwrap();
    drop(register);
    let status = client.get_family(GetFamilyRequest { pin: "123".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_on_both_sides() {
    let (mut running, _register) = start("").await;
    let desk = running.federation.issue(DESK);
    let address = running.consumer.systems_addr();
    let federation = &running.federation;
    for mut web in [Web::http1(federation, address, &desk).await, Web::http2(federation, address, &desk).await] {
        let answer = web.get("/v1/persons/123", &[]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json(), json!({ "person": { "pin": "123", "surname": "Асанов", "sex": "SEX_MALE" } }));
        assert_eq!((answer.header("x-register"), answer.header("trailer-x-last")), ("7", "yes"));
        assert!(answer.headers.get("kopuro-refused").is_none());
        let by_own_path = web.post(&format!("/{CIVIL}/GetPerson"), &[], r#"{"pin":"123"}"#).await;
        assert_eq!(by_own_path.body, answer.body);

        let answer = web.get("/v1/persons/missing", &[]).await;
        assert_eq!((answer.status, answer.json()["details"][0]["debug"]["reason"].as_str()), (404, Some("NO_PERSON")));
        for (path, status, why) in [
            ("/v1/persons/123?no=1", 400, "UNKNOWN_FIELD"),
            ("/v1/changes?limit=-1", 400, "MESSAGE_MALFORMED"),
            ("/v1/changes?limit=%ff", 400, "MALFORMED_CALL"),
            ("/v1/persons/", 404, "ROUTE_UNKNOWN"),
            ("/v1/persons/123?kopuro-provider=x", 400, "UNKNOWN_FIELD"),
        ] {
            let answer = web.get(path, &[]).await;
            assert_eq!((answer.status, answer.reason().0.as_str()), (status, why), "{path}");
        }
        let answer = web.get("/v1/persons/hang", &[("connect-timeout-ms", "300")]).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (504, Some("deadline_exceeded")), "{answer:?}");
        let answer = web.send("DELETE", "/v1/persons/123", &[], crate::harness::raw::whole("")).await;
        assert_eq!((answer.status, answer.reason().0.as_str()), (404, "ROUTE_UNKNOWN"));

        let answer = web.get("/v1/changes?limit=2", &[]).await;
        assert_eq!(answer.header("content-type"), "application/x-ndjson");
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..2],
            [
                r#"{"result":{"change":{"sequence":"1","kind":"CHANGE_KIND_BIRTH"}}}"#,
                r#"{"result":{"change":{"sequence":"2"}}}"#
            ]
        );
        assert!(lines.len() == 3 && lines[2].starts_with(r#"{"end":{"#), "{lines:?}");
        let text = web.get("/v1/changes", &[]).await.body;
        assert!(String::from_utf8_lossy(&text).contains(r#""code":"internal""#), "{text:?}");

        let told = web.get(&format!("/openapi/{CIVIL}.json"), &[]).await.json();
        assert_eq!(told["paths"]["/v1/persons/{pin}"]["get"]["operationId"], "GetPerson_1");
    }
    // What the grant does not open does not come in JSON either, and the caller is told.
    let clerk = running.federation.issue(CLERK);
    let mut web = Web::http1(&running.federation, address, &clerk).await;
    let answer = web.get("/v1/persons/123", &[]).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "person": { "pin": "123" } })), "{answer:?}");
    assert_eq!(answer.header("trailer-kopuro-withheld"), "2", "{answer:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_system_itself_answers() {
    let (mut running, register) = start("").await;
    let port = running.federation.member_path(PROVIDER, "node.toml");
    let text = std::fs::read_to_string(port).unwrap();
    let port: u16 = text.split("[backends.people]").nth(1).unwrap().split(['"', ':']).nth(3).unwrap().parse().unwrap();
    drop(register);
    let _other =
        crate::harness::eventually("the port", async || std::net::TcpListener::bind(("127.0.0.1", port)).ok()).await;
    drop(_other);
    let _impostor = HttpBackend::start(&mut running.federation, "KG/GOV/2/probe", port, Arc::new(register_says)).await;
    let status = CivilRegistryClient::new(running.desk().await)
        .get_person(GetPersonRequest { pin: "123".into() })
        .await
        .unwrap_err();
    assert_eq!(reason(&status), Some(("BACKEND_UNREACHABLE".into(), "provider".into())), "{status:?}");
    running.stop().await;
}

fn register_says(asked: &Asked) -> Says {
    register(asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_requests_is_refused_at_check() {
    let mut federation = Federation::new();
    federation.write_files("");
    let file = federation.member_path(PROVIDER, "node.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("[backends.probe]", "[backends.probe]\nprotocol = \"http-json\"")).unwrap();
    let loaded = config::check(&config::load(&file).unwrap()).await.unwrap();
    let said = loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(said.contains("backends.probe.protocol: http-json carries no stream of requests, and kopuro.test.v1.Probe.Chat, kopuro.test.v1.Probe.Collect has one"), "{said}");
    std::fs::write(&file, text.replace("[backends.probe]", "[backends.probe]\nprotocol = \"soap\"")).unwrap();
    let said = config::load(&file).unwrap_err().to_string();
    assert!(said.contains("backends.probe.protocol") && said.contains("http-json"), "{said}");
}
