//! `kopuro call`: one gRPC call by hand, with JSON for messages.
//!
//! In: flags, `KOPURO_*` variables or `call.toml`; messages from `-d` or standard input. Out: each answer as JSON on
//! standard output; status, error details, headers and trailers on standard error. The exit code is 0 for OK, 64 plus
//! the gRPC code for another status, 1 where no call came about.

mod config;
pub(super) mod connection;
mod descriptors;
mod messages;
mod report;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use tonic::metadata::{Ascii, AsciiMetadataKey, Binary, BinaryMetadataKey, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use messages::{DynamicCodec, Input};

/// What `kopuro call` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kopuro call kg.civil.v1.CivilRegistry/GetPerson -d '{\"pin\":\"21403198502175\"}' \\
      --node https://127.0.0.1:7443 --cert tax.pem --key tax.key --ca root.pem
  kopuro call --config call.toml                            lists what may be called
  kopuro call --config call.toml kg.tax.v1.TaxService       lists its methods
  kopuro call kg.cadastre.v1.Cadastre/Reconcile -d @- < statements.jsonl

call.toml holds node, cert, key and ca (paths relative to it), and provider, purpose and user if wanted.")]
pub(super) struct Args {
    /// SERVICE/METHOD; SERVICE lists its methods, nothing lists services
    #[arg(value_name = "SERVICE/METHOD")]
    target: Option<String>,
    /// A message as JSON; again for each further one of a stream; @FILE or @- reads JSON documents one after another
    #[arg(short, long = "data", value_name = "JSON")]
    data: Vec<String>,
    /// The node, https://host:port
    #[arg(long, env = "KOPURO_NODE", value_name = "URL")]
    node: Option<String>,
    /// The system's certificate chain, PEM
    #[arg(long, env = "KOPURO_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The certificate's key, PEM
    #[arg(long, env = "KOPURO_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Root certificate of the federation, PEM
    #[arg(long, env = "KOPURO_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with node, cert, key and ca
    #[arg(long, env = "KOPURO_CALL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which system shall answer, where several offer the service
    #[arg(long, value_name = "MEMBER/SYSTEM")]
    provider: Option<String>,
    /// Code of the legal basis
    #[arg(long, value_name = "CODE")]
    purpose: Option<String>,
    /// The official acting
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Further metadata; the value of a name that ends in -bin is base64
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// How long to wait, as 5s, 500ms or 2m
    #[arg(long, value_parser = duration, value_name = "TIME")]
    deadline: Option<Duration>,
    /// Descriptor set to read types from, instead of the node's reflection
    #[arg(long, value_name = "FILE")]
    descriptors: Option<PathBuf>,
    /// Also show the headers of the answer
    #[arg(short, long)]
    verbose: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(call(args))
}

async fn call(mut args: Args) -> anyhow::Result<ExitCode> {
    let settings = config::settle(&mut args)?;
    let target = args.target.clone().unwrap_or_default();
    let (service, method) = target.split_once('/').unwrap_or((&target, ""));
    let node = settings.node.as_str();
    let channel = connection::connect(node, &settings.roots, settings.credentials.as_ref())
        .await
        .with_context(|| format!("connecting to {node}"))?;

    let types = match &args.descriptors {
        Some(file) => descriptors::from_file(file)?,
        None if service.is_empty() => return list(&descriptors::services(channel).await?),
        None => descriptors::reflected(channel.clone(), service).await?,
    };
    if service.is_empty() {
        return list(&types.services().map(|service| service.full_name().to_owned()).collect::<Vec<_>>());
    }
    if method.is_empty() {
        return list(&methods_of(&types, service)?);
    }
    let method = find(&types, service, method)?;
    exchange(channel, &method, &args).await
}

/// Sends the messages and prints the answers as they come.
async fn exchange(channel: Channel, method: &MethodDescriptor, args: &Args) -> anyhow::Result<ExitCode> {
    let (messages, mut failed) = Input::read(&args.data, method)?;
    let mut request = Request::new(messages);
    add_metadata(&mut request, args)?;
    let path: PathAndQuery = format!("/{}/{}", method.parent_service().full_name(), method.name()).try_into()?;

    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.context("the connection")?;
    let answered = async {
        let response = client.streaming(request, path, DynamicCodec::new(method)).await?;
        if args.verbose {
            report::metadata("header", response.metadata());
        } else {
            report::exchange(response.metadata());
        }
        print_all(response.into_inner()).await
    };
    let deadline = async {
        match args.deadline {
            // The server is told the deadline and should be the one to say so.
            Some(deadline) => tokio::time::sleep(deadline + Duration::from_millis(250)).await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        biased;
        Some(error) = failed.recv() => return Err(error),
        outcome = answered => outcome,
        () = deadline => Err(Status::deadline_exceeded("no answer within the deadline")),
        _ = tokio::signal::ctrl_c() => Err(Status::cancelled("interrupted")),
    };
    Ok(match outcome.map_err(connection::timed_out) {
        Ok(()) => {
            eprintln!("status: OK");
            ExitCode::SUCCESS
        }
        Err(status) => report::error(&status),
    })
}

async fn print_all(mut answers: Streaming<DynamicMessage>) -> Result<(), Status> {
    let pretty = std::io::stdout().is_terminal();
    while let Some(message) = answers.next().await {
        let line = messages::to_json(&message?, pretty).map_err(|error| Status::internal(error.to_string()))?;
        if let Err(error) = writeln!(std::io::stdout().lock(), "{line}") {
            // The reader of our output has gone: so do we.
            return Err(Status::cancelled(format!("standard output: {error}")));
        }
    }
    if let Some(trailers) = answers.trailers().await? {
        report::metadata("trailer", &trailers);
    }
    Ok(())
}

fn add_metadata<T>(request: &mut Request<T>, args: &Args) -> anyhow::Result<()> {
    let named = [("kopuro-provider", &args.provider), ("kopuro-purpose", &args.purpose), ("kopuro-user", &args.user)];
    for (name, value) in named {
        if let Some(value) = value {
            let value: MetadataValue<Ascii> = value.parse().with_context(|| format!("{name}: {value:?}"))?;
            request.metadata_mut().insert(name, value);
        }
    }
    for header in &args.headers {
        let (name, value) =
            header.split_once(':').with_context(|| format!("-H {header:?} is not of the form NAME: VALUE"))?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if name.ends_with("-bin") {
            use base64::Engine;
            let bytes = base64::engine::general_purpose::STANDARD.decode(value).context("a -bin value is base64")?;
            let key: BinaryMetadataKey = name.parse().with_context(|| format!("-H {header:?}"))?;
            request.metadata_mut().append_bin(key, MetadataValue::<Binary>::from_bytes(&bytes));
        } else {
            let key: AsciiMetadataKey = name.parse().with_context(|| format!("-H {header:?}"))?;
            request.metadata_mut().append(key, value.parse().with_context(|| format!("-H {header:?}"))?);
        }
    }
    if let Some(deadline) = args.deadline {
        request.set_timeout(deadline);
    }
    Ok(())
}

fn find(types: &DescriptorPool, service: &str, method: &str) -> anyhow::Result<MethodDescriptor> {
    let known = methods_of(types, service)?;
    let found = types.get_service_by_name(service).and_then(|s| s.methods().find(|m| m.name() == method));
    found.with_context(|| format!("{service} has no method {method}; it has {}", known.join(", ")))
}

fn methods_of(types: &DescriptorPool, service: &str) -> anyhow::Result<Vec<String>> {
    let Some(found) = types.get_service_by_name(service) else { bail!("no service {service} in the descriptors") };
    Ok(found.methods().map(|method| method.name().to_owned()).collect())
}

fn list(names: &[String]) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for name in names {
        writeln!(out, "{name}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `5s`, `500ms`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (amount, unit) = text.split_at(digits);
    let amount: u64 = amount.parse().map_err(|_| "is no time: 5s, 500ms, 2m".to_owned())?;
    let milliseconds = match unit {
        "ms" => Some(amount),
        "s" => amount.checked_mul(1_000),
        "m" => amount.checked_mul(60_000),
        "h" => amount.checked_mul(3_600_000),
        _ => None,
    };
    // gRPC carries at most eight digits of a unit; a day is longer than anybody waits.
    match milliseconds {
        Some(ms @ 1..=86_400_000) => Ok(Duration::from_millis(ms)),
        _ => Err("is no time from 1ms to 24h: 5s, 500ms, 2m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "5", "s", "0s", "-1s", "99999999999999999999s", "25h", "5 s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
