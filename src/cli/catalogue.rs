//! `kopuro catalogue`: what a system may call, asked of its own node.
//!
//! In: the client configuration of `kopuro call`. Out: services, methods, legal bases, fields and an example of each request: as a table
//! and details, as JSON, or as a page. What comes from nodes is shown as text and never taken for more.

mod model;
mod page;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use prost_reflect::DescriptorPool;
use time::OffsetDateTime;
use tonic::transport::Channel;

use super::call::connection;
use super::connect::Connect;
use crate::proto::kopuro::catalogue::v1::catalogue_client::CatalogueClient;
use crate::proto::kopuro::catalogue::v1::{GetTypesRequest, ListServicesRequest, ListServicesResponse, OfferedService};
use crate::schema::set;
use crate::trust::file::{Access, Existing, write};

pub(super) use model::plain;

/// The node asks others for at most eight seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than any federation's list, or any service's types.
const LARGEST: usize = 64 << 20;

/// What `kopuro catalogue` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kopuro catalogue --config call.toml                                   a table of what may be called
  kopuro catalogue --config call.toml kg.civil.v1.CivilRegistry         its methods: bases, fields, an example request
  kopuro catalogue --config call.toml kg.civil.v1.CivilRegistry/GetPerson
  kopuro catalogue --config call.toml --all                             also what may not be called yet, and how to ask
  kopuro catalogue --config call.toml --all --html catalogue.html

The file is the one of `kopuro call`.")]
pub(super) struct Args {
    /// SERVICE or SERVICE/METHOD: its details instead of the table
    #[arg(value_name = "SERVICE/METHOD")]
    target: Option<String>,
    /// Also what the system may not call yet, and how to ask for it
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// Write a page for people in three languages
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    connect: Connect,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(show(args))
}

async fn show(args: Args) -> anyhow::Result<ExitCode> {
    let destination = args.connect.destination()?;
    let channel = destination.connect(&destination.credentials()?).await?;
    let target = args.target.as_deref().map(|target| target.split_once('/').unwrap_or((target, "")));
    // A service that is asked for by name is told whether it may be called or not.
    let listed = list(&channel, args.all || target.is_some()).await?;
    let at = OffsetDateTime::now_utc();
    let mut model = model::Model::new(&listed, &destination, at);
    for offered in &listed.services {
        if target.is_none_or(|(service, _)| service == offered.service) {
            let types = types(&channel, offered).await?;
            model.add(offered, types.as_ref(), &listed);
        }
    }
    if let Some((service, method)) = target {
        if model.services.is_empty() {
            bail!("the directory lists no service {service}");
        }
        if !method.is_empty() {
            model.services.iter_mut().for_each(|service| service.methods.retain(|known| known.name == method));
            model.services.retain(|service| !service.methods.is_empty());
            if model.services.is_empty() {
                bail!("{service} has no method {method}");
            }
        }
    }
    match &args.html {
        Some(file) => {
            let page = page::html(&model);
            write(file, page.as_bytes(), Access::Public, Existing::Replace)
                .with_context(|| file.display().to_string())?;
            println!("{}: {} services", file.display(), model.services.len());
        }
        None if args.json => println!("{}", serde_json::to_string_pretty(&model)?),
        None => print!("{}", text::print(&model, target.is_some())),
    }
    Ok(ExitCode::SUCCESS)
}

/// What the node lists.
pub(super) async fn list(channel: &Channel, all: bool) -> anyhow::Result<ListServicesResponse> {
    let mut client = CatalogueClient::new(channel.clone()).max_decoding_message_size(LARGEST);
    let asking = client.list_services(ListServicesRequest { all });
    let answer = tokio::time::timeout(PATIENCE, asking).await.context("the node does not answer")?;
    Ok(answer.map_err(refused)?.into_inner())
}

/// A service's types; none where the node does not have them.
pub(super) async fn types(channel: &Channel, offered: &OfferedService) -> anyhow::Result<Option<DescriptorPool>> {
    let mut client = CatalogueClient::new(channel.clone()).max_decoding_message_size(LARGEST);
    let asking =
        client.get_types(GetTypesRequest { service: offered.service.clone(), provider: offered.provider.clone() });
    match tokio::time::timeout(PATIENCE, asking).await.context("the node does not answer")? {
        Ok(answer) => {
            let set = answer.into_inner().descriptors;
            let pool = set::read(&set).map_err(|faults| {
                anyhow::anyhow!("the types of {}: {}", plain(&offered.service), plain(&set::words(&faults)))
            });
            pool.map(Some)
        }
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(refused(status)),
    }
}

fn refused(status: tonic::Status) -> anyhow::Error {
    let status = connection::timed_out(status);
    anyhow::anyhow!("the node: {:?}: {}", status.code(), plain(status.message()))
}
