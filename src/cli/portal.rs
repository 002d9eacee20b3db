//! `kopuro portal`: writes the oversight portal of any number of published logs as a static site.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};

use crate::oversight::portal::{INDEX, LogSource, Site, Sources, public_policy};
use crate::trust::note::Verifier;
use crate::trust::policy::WitnessPolicy;

/// Write the oversight portal: pages for people that show published logs, and check them in the browser.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder goes to any web server. Logs of other hosts must allow to be read by pages of this one (nodes do).

Examples:
  kopuro portal --out site/portal --log 'https://gw.civil.kg/log#gw.civil.kg/log+0a1b2c3d+AU…' \\
      --log 'https://gw.tax.kg/log#gw.tax.kg/log+5f1a3c0e+AT…' --policy witnesses.policy --monitor report.json
  kopuro monitor … --report site/portal/report.json")]
pub(super) struct Args {
    /// The folder to write
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// A published log: a URL, or a path relative to the portal, and behind # its key
    #[arg(long, value_name = "URL#VKEY", required = true, value_parser = parse_log)]
    log: Vec<LogSource>,
    /// Who cosigns: a C2SP tlog-policy
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where the monitor's report is: a URL, or a path relative to the portal
    #[arg(long, value_name = "URL")]
    monitor: Option<String>,
}

fn parse_log(text: &str) -> Result<LogSource, String> {
    let (url, vkey) = text.split_once('#').ok_or("its key is missing: URL#VKEY")?;
    vkey.parse::<Verifier>().map_err(|error| error.to_string())?;
    Ok(LogSource { url: format!("{}/", url.trim_end_matches('/')), vkey: vkey.to_owned() })
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let policy = match &args.policy {
        None => None,
        Some(path) => {
            WitnessPolicy::read(path)?;
            Some(public_policy(&std::fs::read_to_string(path).with_context(|| path.display().to_string())?))
        }
    };
    ensure!(!args.out.is_file(), "{} is a file", args.out.display());
    let site = Site::new(&Sources { logs: args.log, policy, monitor: args.monitor });
    site.write(&args.out).with_context(|| args.out.display().to_string())?;
    println!("{}", args.out.join(INDEX).display());
    Ok(ExitCode::SUCCESS)
}
