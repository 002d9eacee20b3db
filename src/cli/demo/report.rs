//! What a person sees of the demo: progress while it runs, and then who asked whom, what was refused and why, where
//! the logs stand, and what to try next.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use super::federation::{CIVIL_REGISTRY, Federation, TAX_SERVICE};
use super::population::Population;
use super::traffic::Tally;
use crate::log::Checkpoint;
use crate::oversight::monitor::Report;

/// A bar on a terminal, a line for every tenth elsewhere.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
}

impl Progress {
    pub(super) fn new(total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:32} {pos}/{len} exchanges, {per_sec}  {msg}");
            ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, total }
    }

    pub(super) fn show(&self, tally: &Tally) {
        let counts = tally.total();
        let told = || format!("{} answered, {} refused", counts.answered, counts.refused);
        match &self.bar {
            Some(bar) => {
                bar.set_position(tally.exchanges);
                bar.set_message(told());
            }
            None if tally.exchanges.is_multiple_of((self.total / 10).max(1)) => {
                eprintln!("{} of {} exchanges: {}", tally.exchanges, self.total, told());
            }
            None => {}
        }
    }

    pub(super) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Who is there, in the directory's words.
pub(super) fn members(federation: &Federation) -> String {
    let lines = federation.members.iter().map(|member| {
        let listed = federation.directory.member(&member.id);
        let name = listed.map(|listed| listed.name_en.as_str()).unwrap_or_default();
        format!("  {}  {}  {name}\n", member.id, member.url())
    });
    lines.collect()
}

/// Everything that happened, for a person.
pub(super) fn summary(tally: &Tally, checkpoints: &[(&str, Checkpoint)]) -> String {
    let total = tally.total();
    let seconds = tally.took.as_secs_f64().max(0.001);
    let mut out = format!(
        "\n{} exchanges in {seconds:.1} s ({:.0} a second), {} messages back; half of the answered unary calls took \
         {} or less, 99 % {} or less.\n{} fields were withheld, because no grant allows them to cross; {} calls were JSON over \
         HTTPS.\n\nWho asked whom\n",
        tally.exchanges,
        tally.exchanges as f64 / seconds,
        tally.messages,
        milliseconds(tally.quantile(0.5)),
        milliseconds(tally.quantile(0.99)),
        tally.withheld_fields,
        tally.json_calls,
    );
    let mut table = table(["asked by", "asked", "answered", "error", "refused", "no answer"], 2);
    for ((consumer, provider), counts) in &tally.pairs {
        table.add_row([
            (*consumer).to_owned(),
            (*provider).to_owned(),
            counts.answered.to_string(),
            counts.errors.to_string(),
            counts.refused.to_string(),
            counts.failed.to_string(),
        ]);
    }
    let numbers = [total.answered, total.errors, total.refused, total.failed].map(|number| number.to_string());
    table.add_row(["all".to_owned(), String::new()].into_iter().chain(numbers));
    out += &format!("{table}\n\nRefused, and why\n");

    let mut table = self::table(["reason", "refused by the node of the", "asked for", "times"], 3);
    for ((reason, side, what), times) in &tally.refusals {
        table.add_row([reason.clone(), side.clone(), (*what).to_owned(), times.to_string()]);
    }
    out += &format!("{table}\n\nThe logs\n");

    let mut table = self::table(["log", "member", "root of the tree", "entries"], 3);
    for (member, checkpoint) in checkpoints {
        let root = hex::encode(checkpoint.root.0);
        let entries = checkpoint.size.to_string();
        table.add_row([checkpoint.origin.clone(), (*member).to_owned(), root[..32].to_owned() + "…", entries]);
    }
    out += &format!("{table}\n");
    out
}

/// What anybody finds who reads the published logs and nothing else.
pub(super) fn watched(federation: &Federation, report: &Report) -> String {
    let folder = federation.folder.join("published");
    format!(
        "What the public sees\n\nEvery log is published under {}, its checkpoints cosigned by a witness of the public council. \
         A monitor that read\nthese files alone, and compared both sides of every exchange, reports:\n\n{report}",
        folder.display()
    )
}

/// Three commands that work while the demo runs, and one that works for good.
pub(super) fn commands(federation: &Federation, population: &Population) -> anyhow::Result<String> {
    let binary = std::env::current_exe()?;
    let binary = quoted(&binary);
    let (tax, system) = system(federation, TAX_SERVICE)?;
    let (registry, _) = self::system(federation, CIVIL_REGISTRY)?;
    let pin = population.adults().next().map(|person| person.pin.to_string()).unwrap_or_default();
    let auditor = federation.auditors.first().ok_or_else(|| anyhow::anyhow!("no auditor"))?;
    let auditor = quoted(&auditor.config());
    Ok(format!(
        "Try, while this runs:\n\n\
         a call from the tax service to the civil registry\n  \
         {binary} call --config {} \\\n    kg.civil.v1.CivilRegistry/GetPerson -d '{{\"pin\":\"{pin}\"}}'\n\n\
         a query of the registry's log, as the auditor\n  \
         {binary} log query --config {auditor} --node {} \\\n    --outcome refused\n\n\
         a verification of the tax service's log\n  \
         {binary} log verify --config {auditor} --node {} \\\n    --vkey '{}'\n\n\
         and what anybody can do without a certificate: verify what it has published\n  \
         {binary} log verify {} \\\n    --policy {} --vkey '{}'\n",
        quoted(&system.pair.config()),
        registry.url(),
        tax.url(),
        tax.log_key,
        quoted(&tax.published),
        quoted(&federation.witness.policy),
        tax.log_key,
    ))
}

fn system<'a>(
    federation: &'a Federation,
    id: &str,
) -> anyhow::Result<(&'a super::federation::MemberFiles, &'a super::federation::SystemFiles)> {
    federation.system(&id.parse()?).ok_or_else(|| anyhow::anyhow!("{id} is not in the federation"))
}

fn table<const N: usize>(header: [&str; N], first_number: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header);
    for column in table.column_iter_mut().skip(first_number) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c)) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
