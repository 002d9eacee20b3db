//! `kopuro log`: query, watch and verify a node's log, as an auditor over the network or on a stopped node's folder; and
//! verify a log as it is published, as anybody.

mod erase;
mod fsck;
mod opening;
mod print;
mod proof;
mod published;
mod source;
mod subject;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};

use super::connect::Connect;
use crate::log::entry::{Outcome, Publication};
use crate::oversight::published::Place;
use crate::proto::kopuro::audit::v1::{Filter, Order, QueryExchangesRequest, Records};
use print::{Format, Printer};
use source::Source;

/// What `kopuro log` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kopuro log query --node https://127.0.0.1:7443 --cert auditor.pem --key auditor.key --ca root.pem --outcome refused
  kopuro log query --data data --from 2026-11-24T00:00:00+06:00 --consumer KG/GOV/70000006 --format csv
  kopuro log show --data data 0193…  |  kopuro log tail --config auditor.toml -f
  kopuro log verify --data data --vkey 'gw.civil.kg/log+…'
  kopuro log open --data data --index 7 --field subject -o opening.json
  kopuro log check-opening opening.json --vkey 'gw.civil.kg/log+…'
  kopuro log subject --data data --subject 20109198714151
  kopuro log verify https://gw.civil.kg/log --vkey 'gw.civil.kg/log+…' --state seen
  kopuro log proof 1234 https://gw.civil.kg/log --vkey 'gw.civil.kg/log+…' -o 1234.tlog-proof --entry 1234.entry")]
pub(super) struct Args {
    #[command(flatten)]
    connect: Connect,
    /// The data folder of a node that is not running, instead of --node
    #[arg(long, value_name = "FOLDER", global = true, conflicts_with = "node")]
    data: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table, global = true)]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find exchanges
    Query(QueryArgs),
    /// Show one exchange or entry with all public fields
    Show {
        /// An exchange id, or an entry's index
        what: String,
    },
    /// Print entries as they are, and with -f as they come
    Tail {
        /// First entry; the last ten where it is left out
        #[arg(long, value_name = "INDEX")]
        since: Option<u64>,
        /// Wait for more
        #[arg(short, long)]
        follow: bool,
    },
    /// Count exchanges by day, pair, service, outcome and reason
    Stats(FilterArgs),
    /// Destroy private values for good; the log says so and still verifies
    Erase(erase::Args),
    /// Recompute the whole log and compare it with what was signed
    Verify {
        /// Where the log is published, instead of --node or --data: a URL or a folder (C2SP tlog-tiles)
        #[arg(value_name = "URL|FOLDER")]
        place: Option<Place>,
        #[command(flatten)]
        flags: published::Flags,
    },
    /// Make a file that opens fields of one entry to somebody outside
    Open(opening::OpenArgs),
    /// Verify such a file
    CheckOpening(opening::CheckArgs),
    /// Find the exchanges that concerned a person
    Subject(subject::SubjectArgs),
    /// Write the proof that an entry is in the log: a .tlog-proof (C2SP)
    Proof(proof::Args),
    /// Compare a stopped node's store, head, index and publication, and repair what is derived
    Fsck(fsck::Args),
    /// Check a .tlog-proof against an entry and the log's key
    CheckProof(proof::CheckArgs),
}

#[derive(Debug, clap::Args)]
struct QueryArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many exchanges
    #[arg(long, short = 'n', default_value_t = 100, value_name = "N")]
    limit: usize,
    /// The oldest first
    #[arg(long)]
    oldest_first: bool,
}

#[derive(Debug, clap::Args)]
struct FilterArgs {
    /// Begun at this time or later, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Begun before this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
    /// The asking system or member
    #[arg(long, value_name = "ID")]
    consumer: Option<String>,
    /// The asked system or member
    #[arg(long, value_name = "ID")]
    provider: Option<String>,
    /// Full service name
    #[arg(long)]
    service: Option<String>,
    /// Method name
    #[arg(long)]
    method: Option<String>,
    /// How it ended
    #[arg(long, value_enum)]
    outcome: Option<Ended>,
    /// Reason of a refusal or failure, as GRANT_MISSING
    #[arg(long)]
    reason: Option<String>,
    /// Code of the legal basis
    #[arg(long, value_name = "CODE")]
    basis: Option<String>,
    /// Publication class
    #[arg(long, value_enum)]
    publication: Option<Class>,
    /// Auditors' looks instead of exchanges
    #[arg(long)]
    audits: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ended {
    Ok,
    Error,
    Refused,
    Failed,
    Open,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Class {
    Public,
    Delayed,
    Sealed,
}

impl FilterArgs {
    fn filter(self) -> Filter {
        let outcome = match self.outcome {
            None | Some(Ended::Open) => Outcome::Unspecified,
            Some(Ended::Ok) => Outcome::Ok,
            Some(Ended::Error) => Outcome::Error,
            Some(Ended::Refused) => Outcome::Refused,
            Some(Ended::Failed) => Outcome::Failed,
        };
        let publication = match self.publication {
            None => Publication::Unspecified,
            Some(Class::Public) => Publication::Public,
            Some(Class::Delayed) => Publication::Delayed,
            Some(Class::Sealed) => Publication::Sealed,
        };
        Filter {
            from_unix_ms: self.from.unwrap_or_default(),
            until_unix_ms: self.until.unwrap_or_default(),
            consumer: self.consumer.unwrap_or_default(),
            provider: self.provider.unwrap_or_default(),
            service: self.service.unwrap_or_default(),
            method: self.method.unwrap_or_default(),
            outcome: outcome.into(),
            legal_basis: self.basis.unwrap_or_default(),
            exchange_id: bytes::Bytes::new(),
            records: if self.audits { Records::Audits.into() } else { Records::Exchanges.into() },
            open: matches!(self.outcome, Some(Ended::Open)),
            reason: self.reason.unwrap_or_default(),
            publication: publication.into(),
        }
    }
}

fn time(text: &str) -> Result<i64, String> {
    use time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::parse(text, &Rfc3339);
    let time = time.map_err(|error| format!("{error}; write it as 2026-11-24T00:00:00+06:00"))?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).map_err(|error| error.to_string())
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(log(args))
}

async fn log(args: Args) -> anyhow::Result<ExitCode> {
    let command = match (args.command, &args.data) {
        (Command::Erase(erase), _) => return erase::run(erase, args.data).await,
        (Command::Verify { place: Some(place), flags }, _) => return published::verify(&place, flags).await,
        (Command::Verify { place: None, flags }, Some(folder)) => return verify::folder(folder, &flags.keys()?),
        (Command::Proof(proof), _) if proof.place.is_some() => return proof::of_published(proof).await,
        (Command::CheckProof(check), _) => return proof::check(&check),
        (Command::Fsck(fsck), folder) => {
            let folder = folder.as_ref();
            let folder = folder.context("whose log? --data with the data folder of a node that is not running")?;
            return fsck::run(folder, &fsck).await;
        }
        (Command::CheckOpening(check), _) => return opening::check(&check, args.format),
        (Command::Open(open), Some(folder)) => return opening::open(folder, &open),
        (Command::Open(open), None) => return opening::open_at_node(args.connect.connect().await?, &open).await,
        (Command::Subject(subject), Some(folder)) => {
            subject::folder(folder, &subject, &mut Printer::new(args.format))?;
            return Ok(ExitCode::SUCCESS);
        }
        (Command::Subject(subject), None) => {
            let channel = args.connect.connect().await?;
            subject::node(channel, &subject, &mut Printer::new(args.format)).await?;
            return Ok(ExitCode::SUCCESS);
        }
        (command, _) => command,
    };
    let mut source = match &args.data {
        Some(folder) => Source::folder(folder)?,
        None => Source::node(args.connect.connect().await?),
    };
    let mut printer = Printer::new(args.format);
    match command {
        Command::Query(query) => {
            let order = if query.oldest_first { Order::OldestFirst } else { Order::NewestFirst };
            let mut left = query.limit;
            let mut request = QueryExchangesRequest {
                filter: Some(query.filter.filter()),
                order: order.into(),
                ..QueryExchangesRequest::default()
            };
            while left > 0 {
                request.page_size = u32::try_from(left.min(1_000))?;
                let page = source.query(request.clone()).await?;
                left -= page.exchanges.len().min(left);
                page.exchanges.iter().try_for_each(|exchange| printer.exchange(exchange))?;
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            printer.finish()?;
        }
        Command::Show { what } => {
            let entries = match what.parse::<u64>() {
                Ok(index) => vec![source.entry(index).await?],
                Err(_) => {
                    let id = uuid::Uuid::parse_str(&what).context("neither an exchange id nor an index")?;
                    source.exchange(id.into_bytes()).await?
                }
            };
            entries.iter().try_for_each(|(index, entry)| printer.whole_entry(*index, entry))?;
            printer.finish()?;
        }
        Command::Tail { since, follow } => {
            if follow && args.data.is_some() {
                bail!("a folder that no node writes to has nothing to wait for: leave out --follow, or use --node");
            }
            let since = match since {
                Some(since) => since,
                None => source.checkpoint().await?.size.saturating_sub(10),
            };
            let mut entries = source.entries(since, follow).await?;
            while let Some((index, entry)) = entries.next().await? {
                printer.entry(index, &entry)?;
                if follow {
                    printer.flush()?;
                }
            }
            printer.finish()?;
        }
        Command::Stats(filter) => printer.stats(&source.stats(filter.filter()).await?)?,
        Command::Verify { flags, .. } => return verify::node(&mut source, &flags.keys()?).await,
        Command::Proof(proof) => return proof::of_log(&mut source, proof).await,
        // Done above: they need no source, or another.
        Command::Open(_)
        | Command::CheckOpening(_)
        | Command::Subject(_)
        | Command::CheckProof(_)
        | Command::Erase(_)
        | Command::Fsck(_) => bail!("nothing to ask a log for"),
    }
    Ok(ExitCode::SUCCESS)
}
