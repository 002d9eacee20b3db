//! `kopuro log subject`: which exchanges concerned a person, from a node that has granted the question, or by hand from a
//! stopped node's folder.

use std::path::Path;
use std::time::{Duration, Instant};

use tonic::transport::Channel;
use zeroize::Zeroizing;

use super::print::Printer;
use super::source::{Source, refused};
use crate::oversight::subject::{Classes, Wanted, find};
use crate::proto::kopuro::audit::v1::ListExchangesRequest;
use crate::proto::kopuro::audit::v1::subject_access_client::SubjectAccessClient;

/// Nobody waits behind us: on a folder, it takes what it takes.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What `kopuro log subject` takes.
#[derive(Debug, clap::Args)]
pub(super) struct SubjectArgs {
    /// Whom the exchanges concerned, as in `kopuro-subject`
    #[arg(long, value_name = "PIN")]
    subject: String,
    /// Begun at this time or later, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    from: Option<i64>,
    /// Begun before this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    until: Option<i64>,
    /// Look-ups by subject access too
    #[arg(long)]
    looks: bool,
    /// At most so many exchanges
    #[arg(long, short = 'n', default_value_t = 100, value_name = "N")]
    limit: usize,
    /// The legal basis claimed, where the grant has several (`kopuro-purpose`)
    #[arg(long, value_name = "CODE")]
    purpose: Option<String>,
    /// The official acting (`kopuro-user`): goes into the node's entry of this question
    #[arg(long, value_name = "WHO")]
    user: Option<String>,
}

/// All classes: whoever has the folder and its key sees them anyway.
pub(super) fn folder(folder: &Path, args: &SubjectArgs, printer: &mut Printer) -> anyhow::Result<()> {
    let Source::Folder { log, index } = Source::folder(folder)? else {
        anyhow::bail!("{} is no folder", folder.display())
    };
    let wanted = Wanted {
        subject: Zeroizing::new(args.subject.clone().into_bytes()),
        from_unix_ms: args.from.unwrap_or(i64::MIN),
        until_unix_ms: args.until.unwrap_or(i64::MAX),
        looks: args.looks,
        classes: Classes::All,
    };
    let (mut left, mut before) = (args.limit, None);
    while left > 0 {
        let deadline = Instant::now() + PATIENCE;
        let found = find(&*log, &index, &wanted, before, left.min(1_000), usize::MAX, deadline)?;
        found.exchanges.iter().try_for_each(|found| printer.exchange(&found.exchange))?;
        left -= found.exchanges.len().min(left);
        before = found.next;
        if before.is_none() {
            break;
        }
    }
    printer.finish()
}

/// With the certificate of a system that has a grant.
pub(super) async fn node(channel: Channel, args: &SubjectArgs, printer: &mut Printer) -> anyhow::Result<()> {
    let mut client = SubjectAccessClient::new(channel);
    let mut question = ListExchangesRequest {
        subject: args.subject.clone(),
        from_unix_ms: args.from.unwrap_or_default(),
        until_unix_ms: args.until.unwrap_or_default(),
        looks: args.looks,
        ..ListExchangesRequest::default()
    };
    let mut left = args.limit;
    while left > 0 {
        question.page_size = u32::try_from(left.min(50))?;
        let mut request = tonic::Request::new(question.clone());
        for (name, value) in [("kopuro-purpose", &args.purpose), ("kopuro-user", &args.user)] {
            if let Some(value) = value {
                request.metadata_mut().insert(name, value.parse()?);
            }
        }
        let answer = client.list_exchanges(request).await.map_err(refused)?.into_inner();
        let exchanges = answer.exchanges.iter().filter_map(|shown| shown.exchange.as_ref());
        exchanges.clone().try_for_each(|exchange| printer.exchange(exchange))?;
        left -= answer.exchanges.len().min(left);
        if answer.next_page_token.is_empty() {
            break;
        }
        question.page_token = answer.next_page_token;
    }
    printer.finish()
}
