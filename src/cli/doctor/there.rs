//! Everybody whom the node has to reach: each peer's node by a real handshake and a health exchange, back-ends, witnesses, the
//! publication as the public sees it; and whose clock is off.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{ANSWER_LIMIT, Finding};
use crate::cli::call::connection;
use crate::config::{Loaded, NodeConfig};
use crate::log::checkpoint::Checkpoint;
use crate::telemetry::otlp;
use crate::trust::identity::Identity;
use crate::trust::policy::WitnessPolicy;
use crate::trust::tls;

/// How many are asked at once.
const AT_ONCE: usize = 16;

/// The most of an answer that is read.
const LARGEST_ANSWER: usize = 64 << 10;

/// Nodes refuse exchange ids whose time is further off.
const CLOCK_LIMIT: Duration = Duration::from_secs(30);
/// From here on somebody should look.
const CLOCK_WARN: Duration = Duration::from_secs(5);

/// Every other member's node of the directory.
pub(super) async fn peers(loaded: &Loaded) -> Vec<Finding> {
    let own = loaded.credentials.identity().ok();
    let own = own.as_ref().map(Identity::member);
    let others = loaded.directory.nodes.iter().filter(|node| Some(&node.member) != own);
    let asked = others.map(|node| async move {
        let check = format!("peer {}", node.identity());
        let config = match tls::client_config(&loaded.credentials, &loaded.anchors, node.identity()) {
            Ok(config) => config,
            Err(error) => return Finding::bad(check, error.to_string(), "see the configuration's problems first"),
        };
        let remedy = "ask that ministry's operator; firewalls must let port and TLS 1.3 through in both directions";
        reach(check, &node.endpoint, config, remedy).await
    });
    let mut findings: Vec<Finding> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    if findings.is_empty() {
        findings.push(Finding::warning(
            "peers",
            "the directory lists no other member's node",
            "nothing to do while you are alone",
        ));
    }
    findings
}

/// This member's back-ends.
pub(super) async fn backends(loaded: &Loaded) -> Vec<Finding> {
    let mut backends: Vec<_> = loaded.backends.iter().collect();
    backends.sort_by_key(|(system, _)| (*system).clone());
    let asked = backends.into_iter().map(|(system, backend)| async move {
        let check = format!("back-end {system}");
        let address = backend.endpoint.authority();
        let remedy = "start it, or correct its endpoint; its certificate must carry the system's identity";
        if !backend.endpoint.tls {
            let connected = tokio::time::timeout(ANSWER_LIMIT, tokio::net::TcpStream::connect(&address)).await;
            return match connected {
                Ok(Ok(_)) => Finding::good(check, format!("{address} accepts connections, without TLS")),
                Ok(Err(error)) => Finding::bad(check, format!("{address}: {error}"), remedy),
                Err(_) => Finding::bad(check, format!("{address}: no answer within {ANSWER_LIMIT:?}"), remedy),
            };
        }
        match tls::client_config(&loaded.credentials, &backend.anchors, Identity::System(system.clone())) {
            Ok(config) => reach(check, &address, config, remedy).await,
            Err(error) => Finding::bad(check, error.to_string(), "see the configuration's problems first"),
        }
    });
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

/// A handshake under this configuration, and `grpc.health.v1` over it.
async fn reach(check: String, address: &str, config: Arc<ClientConfig>, remedy: &str) -> Finding {
    let began = Instant::now();
    let asked = async {
        let channel = connection::connect_as(address, config).await.map_err(|error| tls::reasons(&*error))?;
        let shaken = began.elapsed();
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        Ok::<_, String>((shaken, answer))
    };
    match tokio::time::timeout(ANSWER_LIMIT, asked).await {
        Err(_) => Finding::bad(check, format!("{address}: no answer within {ANSWER_LIMIT:?}"), remedy),
        Ok(Err(error)) => Finding::bad(check, format!("{address}: {error}"), remedy),
        Ok(Ok((shaken, answer))) => {
            let took = began.elapsed().as_secs_f64() * 1_000.0;
            let shaken = shaken.as_secs_f64() * 1_000.0;
            match answer {
                Ok(answer) if answer.get_ref().status() == ServingStatus::Serving => {
                    Finding::good(check, format!("{address}: handshake {shaken:.1} ms, healthy after {took:.1} ms"))
                }
                Ok(_) => Finding::warning(
                    check,
                    format!("{address}: reached, and it says that it lets no exchange pass"),
                    "its /readyz says why",
                ),
                // Back-ends need not have a health service.
                Err(status) if status.code() == tonic::Code::Unimplemented => {
                    Finding::good(check, format!("{address}: handshake {shaken:.1} ms; it has no health service"))
                }
                Err(status) => {
                    Finding::bad(check, format!("{address}: {:?}: {}", status.code(), status.message()), remedy)
                }
            }
        }
    }
}

/// The policy's witnesses, and whether those that answer are a quorum.
pub(super) async fn witnesses(config: &NodeConfig) -> Vec<Finding> {
    let Some(witness) = &config.witness else {
        let remedy = "set [witness]: without witnesses a log could show different histories to different people";
        return vec![Finding::warning("witnesses", "nobody cosigns this node's checkpoints", remedy)];
    };
    let policy = match WitnessPolicy::read(&witness.policy) {
        Ok(policy) => policy,
        Err(error) => return vec![Finding::bad("witnesses", error.to_string(), "correct the policy file")],
    };
    let roots = witness.roots.as_deref();
    let asked = policy.witnesses().iter().map(|known| async move {
        let check = format!("witness {}", known.name);
        let Some(url) = &known.url else {
            return (Finding::warning(check, "the policy has no URL for it", "it cannot be asked: add its URL"), false);
        };
        match get(url, roots).await {
            Ok((_, _, took)) => {
                (Finding::good(check, format!("{url} answers in {:.1} ms", took.as_secs_f64() * 1_000.0)), true)
            }
            Err(error) => (
                Finding::bad(
                    check,
                    format!("{url}: {error}"),
                    "ask who runs it; below the quorum nothing is published",
                ),
                false,
            ),
        }
    });
    let told: Vec<(Finding, bool)> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    let answers: Vec<bool> = told.iter().map(|(_, answers)| *answers).collect();
    let mut findings: Vec<Finding> = told.into_iter().map(|(finding, _)| finding).collect();
    let quorum = policy.is_quorum_none() || policy.is_quorum(|index| answers.get(index).copied().unwrap_or_default());
    // One that is down is bad for nobody while the quorum stands.
    if quorum {
        findings
            .iter_mut()
            .filter(|finding| finding.verdict == super::Verdict::Bad)
            .for_each(|finding| finding.verdict = super::Verdict::Warning);
        findings.push(Finding::good("witnesses", "those that answer are a quorum"));
    } else {
        findings.push(Finding::bad(
            "witnesses",
            "those that answer are no quorum",
            "nothing is published until they are: exchanges go on",
        ));
    }
    findings
}

/// What the public sees at `publish.url`.
pub(super) async fn publication(config: &NodeConfig, loaded: &Loaded) -> Vec<Finding> {
    let Some(publish) = &config.publish else {
        return vec![Finding::warning("publication", "the log is not published", "set [publish]")];
    };
    let Some(url) = &publish.url else {
        return vec![Finding::warning(
            "publication",
            "publish.url is not set: cannot look as the public does",
            "set it",
        )];
    };
    let address = format!("{}/checkpoint", url.trim_end_matches('/'));
    let own = loaded.directory.node(&config.node.member, &config.node.name);
    let remedy = "see that the store is written, and that the web server in front of it serves it";
    let finding = match get(&address, None).await {
        Err(error) => Finding::bad("publication", format!("{address}: {error}"), remedy),
        Ok((_, body, _)) => {
            let note = String::from_utf8_lossy(&body);
            match own.map(|node| Checkpoint::verify(&note, &node.log_keys())) {
                Some(Ok(checkpoint)) => Finding::good("publication", format!("{address}: {} entries", checkpoint.size)),
                Some(Err(error)) => Finding::bad(
                    "publication",
                    format!("{address}: {error}"),
                    "this is not this node's checkpoint: correct publish.url, or what is served there",
                ),
                None => Finding::good("publication", format!("{address} answers")),
            }
        }
    };
    vec![finding]
}

/// The collector of traces and metrics, where there is to be one.
pub(super) async fn collector(config: &NodeConfig) -> Vec<Finding> {
    // What is wrong with the configuration of it has been told.
    let Ok(Some(options)) = config.otlp() else { return Vec::new() };
    let endpoint = &options.endpoint;
    let remedy = "start it, or correct [telemetry.otlp]; exchanges go on without it";
    let asked = tokio::time::timeout(ANSWER_LIMIT, otlp::ask(&options)).await;
    vec![match asked.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_LIMIT:?}"))) {
        Ok(took) => Finding::good("collector", format!("{endpoint} answers in {:.1} ms", took.as_secs_f64() * 1_000.0)),
        Err(error) => Finding::warning("collector", format!("{endpoint}: {error}"), remedy),
    }]
}

/// This machine's clock against those of mirrors, witnesses and publication, as their HTTP answers have it.
pub(super) async fn clock(config: &NodeConfig) -> Vec<Finding> {
    let mut sources: Vec<(String, Option<&Path>)> = Vec::new();
    let mirrors =
        config.directory.mirrors.iter().map(ToString::to_string).filter(|mirror| mirror.starts_with("https://"));
    sources.extend(mirrors.map(|mirror| (mirror, config.directory.roots.as_deref())));
    if let Some(witness) = &config.witness
        && let Ok(policy) = WitnessPolicy::read(&witness.policy)
    {
        sources
            .extend(policy.witnesses().iter().filter_map(|known| Some((known.url.clone()?, witness.roots.as_deref()))));
    }
    sources.extend(config.publish.as_ref().and_then(|publish| Some((publish.url.clone()?, None))));
    let asked = sources.iter().map(|(url, roots)| async move {
        let sent = OffsetDateTime::now_utc();
        let (headers, _, _) = get(url, *roots).await.ok()?;
        let received = OffsetDateTime::now_utc();
        let date = OffsetDateTime::parse(headers.get("date")?.to_str().ok()?, &Rfc2822).ok()?;
        // A date is cut to the second, and was said somewhere between.
        let (early, late) = (date - received, date + Duration::from_secs(1) - sent);
        let off = if early.is_positive() {
            early
        } else if late.is_negative() {
            late
        } else {
            time::Duration::ZERO
        };
        Some((url.clone(), off))
    });
    let told: Vec<Option<(String, time::Duration)>> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    let mut told: Vec<(String, time::Duration)> = told.into_iter().flatten().collect();
    told.sort_by_key(|(_, off)| *off);
    // The median: one wrong clock elsewhere is not ours.
    let Some((url, off)) = told.get(told.len() / 2) else {
        let says = "no mirror, witness or publication over HTTP to compare it with";
        return vec![Finding::warning("clock", says, "see that this machine follows NTP: `timedatectl`")];
    };
    let says = format!(
        "{} s {} of {url}'s ({} compared)",
        off.abs().whole_seconds(),
        if off.is_negative() { "ahead" } else { "behind" },
        told.len()
    );
    let remedy = "set it, and have this machine follow NTP: nodes refuse calls whose time is more than 30 s off";
    let finding = match off.unsigned_abs() {
        off if off >= CLOCK_LIMIT => Finding::bad("clock", says, remedy),
        off if off >= CLOCK_WARN => Finding::warning("clock", says, remedy),
        _ => Finding::good("clock", format!("agrees with {url} ({} compared)", told.len())),
    };
    vec![finding]
}

/// Asks for a page; whoever answers at all is there.
pub(in crate::cli) async fn get(url: &str, roots: Option<&Path>) -> Result<(HeaderMap, Bytes, Duration), String> {
    let uri: Uri = url.parse().map_err(|error| format!("no address: {error}"))?;
    let config = tls::web_client_config(roots).map_err(|error| error.to_string())?;
    let connector =
        hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::get(uri).body(Empty::new()).map_err(|error| error.to_string())?;
    let began = Instant::now();
    let answered = async {
        let response = client.request(request).await.map_err(|error| tls::reasons(&error))?;
        let (head, body) = response.into_parts();
        if head.status == StatusCode::BAD_GATEWAY || head.status == StatusCode::SERVICE_UNAVAILABLE {
            return Err(format!("HTTP status {}", head.status.as_u16()));
        }
        let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| error.to_string())?;
        Ok((head.headers, body.to_bytes(), began.elapsed()))
    };
    tokio::time::timeout(ANSWER_LIMIT, answered)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {ANSWER_LIMIT:?}")))
}
