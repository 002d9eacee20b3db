//! `kopuro doctor`: what ails a node, and what to do. It looks with the node's own files and certificate, whether the node runs or
//! not, and changes nothing: first what is on this machine ([`here`]), then everybody whom the node has to reach ([`there`]).

mod here;
pub(super) mod there;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::config::{self, ConfigError, Severity};

/// How long anybody may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The node's configuration
    #[arg(long, value_name = "FILE", env = "KOPURO_CONFIG", default_value = "node.toml")]
    config: PathBuf,
    /// The node's data folder, instead of node.data
    #[arg(long, value_name = "FOLDER", env = "KOPURO_DATA")]
    data: Option<PathBuf>,
    /// Print one JSON object a line: check, verdict, says, remedy
    #[arg(long)]
    json: bool,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Warning,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    /// What: `disk`, `peer KG/GOV/70000006/_node/main`.
    check: String,
    verdict: Verdict,
    says: String,
    /// What to do; empty where all is good.
    remedy: String,
}

impl Finding {
    fn good(check: impl Into<String>, says: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Good, says: says.into(), remedy: String::new() }
    }

    fn warning(check: impl Into<String>, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Warning, says: says.into(), remedy: remedy.into() }
    }

    fn bad(check: impl Into<String>, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Bad, says: says.into(), remedy: remedy.into() }
    }
}

/// Exits 0 where nothing is bad, 1 where something is.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let mut findings = Findings { json: args.json, worst: Verdict::Good };
        examine(args, &mut findings).await?;
        Ok(if findings.worst == Verdict::Bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

async fn examine(args: &Args, findings: &mut Findings) -> anyhow::Result<()> {
    let config = match config::load(&args.config) {
        Ok(config) => config.overridden(config::Overrides { data: args.data.clone(), ..Default::default() }),
        Err(error) => return findings.tell_all(problems(&error)),
    };
    findings.tell_all(here::disk(&config))?;
    findings.tell_all(here::ports(&config).await)?;
    // Told while they are found: a peer that does not answer takes its time.
    findings.tell_all(there::clock(&config).await)?;
    let loaded = match config::check(&config).await {
        Ok(loaded) => loaded,
        Err(error) => return findings.tell_all(problems(&error)),
    };
    findings.tell_all(loaded.warnings.iter().map(finding))?;
    if loaded.warnings.iter().all(|warning| warning.severity == Severity::Notice) {
        findings.tell(&Finding::good("configuration", format!("{} fits the directory", args.config.display())))?;
    }
    findings.tell_all(here::expiries(&loaded))?;
    findings.tell_all(there::peers(&loaded).await)?;
    findings.tell_all(there::backends(&loaded).await)?;
    findings.tell_all(there::witnesses(&config).await)?;
    findings.tell_all(there::publication(&config, &loaded).await)?;
    findings.tell_all(there::collector(&config).await)
}

fn problems(error: &ConfigError) -> Vec<Finding> {
    error.problems.iter().map(finding).collect()
}

fn finding(problem: &config::Problem) -> Finding {
    let verdict = match problem.severity {
        Severity::Error => Verdict::Bad,
        Severity::Mismatch | Severity::Notice => Verdict::Warning,
    };
    let place = match problem.position {
        Some((line, column)) => format!("{}:{line}:{column}: ", problem.file.display()),
        None => format!("{}: ", problem.file.display()),
    };
    let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
    let says = format!("{place}{field}{}", problem.what);
    Finding { check: "configuration".into(), verdict, says, remedy: problem.remedy.clone() }
}

/// Where findings go, and the worst of them.
struct Findings {
    json: bool,
    worst: Verdict,
}

impl Findings {
    fn tell_all(&mut self, findings: impl IntoIterator<Item = Finding>) -> anyhow::Result<()> {
        findings.into_iter().try_for_each(|finding| self.tell(&finding))
    }

    fn tell(&mut self, finding: &Finding) -> anyhow::Result<()> {
        self.worst = self.worst.max(finding.verdict);
        if self.json {
            println!("{}", serde_json::to_string(finding)?);
            return Ok(());
        }
        let mark = match finding.verdict {
            Verdict::Good => "good",
            Verdict::Warning => "WARN",
            Verdict::Bad => "BAD ",
        };
        println!("{mark}  {}: {}", finding.check, finding.says);
        if !finding.remedy.is_empty() {
            println!("      -> {}", finding.remedy);
        }
        Ok(())
    }
}
