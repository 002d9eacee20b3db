//! What was found: medians over the rounds, ratios to the direct connection and to nginx, as JSON and as a table.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::load::Measured;
use crate::peers;
use crate::plan::Plan;
use crate::process::Memory;
use crate::proofs::ProofCost;
use crate::publish::PublicRates;
use crate::rows::{DIRECT, NGINX, Rows};
use crate::targets::Verdict;
use crate::typed::TypedCost;

/// One window of one row, or the median of several.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Sample {
    /// Exchanges (messages of a stream) per second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Per exchange (message), of each process of the row, then of the back-end.
    pub(crate) cpu_us: Vec<f64>,
    /// Of the same processes, at the end of the window and at its highest.
    pub(crate) resident_bytes: Vec<f64>,
    pub(crate) peak_bytes: Vec<f64>,
    pub(crate) failures: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_failure: Option<String>,
}

impl Sample {
    pub(crate) fn new(measured: &Measured, cpu: &[Duration], memory: &[Memory]) -> Self {
        let done = measured.done.max(1) as f64;
        let quantile = |share| measured.quantile(share).map_or(0.0, microseconds);
        Self {
            rate: measured.rate(),
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: quantile(1.0),
            cpu_us: cpu.iter().map(|&spent| microseconds(spent) / done).collect(),
            resident_bytes: memory.iter().map(|memory| memory.resident as f64).collect(),
            peak_bytes: memory.iter().map(|memory| memory.peak as f64).collect(),
            failures: measured.failures,
            first_failure: measured.first_failure.clone(),
        }
    }

    /// The median of each figure; failures are added up.
    fn median(samples: &[Self]) -> Self {
        let figure = |of: fn(&Self) -> f64| median(samples.iter().map(of).collect());
        let each = |of: fn(&Self) -> &Vec<f64>| {
            let length = samples.iter().map(|sample| of(sample).len()).min().unwrap_or_default();
            (0..length).map(|index| median(samples.iter().map(|sample| of(sample)[index]).collect())).collect()
        };
        Self {
            rate: figure(|s| s.rate),
            p50_us: figure(|s| s.p50_us),
            p90_us: figure(|s| s.p90_us),
            p99_us: figure(|s| s.p99_us),
            p999_us: figure(|s| s.p999_us),
            max_us: figure(|s| s.max_us),
            cpu_us: each(|s| &s.cpu_us),
            resident_bytes: each(|s| &s.resident_bytes),
            peak_bytes: each(|s| &s.peak_bytes),
            failures: samples.iter().map(|s| s.failures).sum(),
            first_failure: samples.iter().find_map(|s| s.first_failure.clone()),
        }
    }

    /// CPU of the row's own processes, without the back-end's.
    pub(crate) fn own_cpu(&self) -> &[f64] {
        self.cpu_us.split_last().map_or(&[], |(_, own)| own)
    }
}

/// A row under a scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) row: &'static str,
    pub(crate) median: Sample,
    /// To the direct connection's.
    pub(crate) rate_to_direct: Option<f64>,
    pub(crate) p50_to_direct: Option<f64>,
    pub(crate) rate_to_nginx: Option<f64>,
    pub(crate) p50_to_nginx: Option<f64>,
    /// Of all the row's processes together, without the back-end.
    pub(crate) cpu_to_nginx: Option<f64>,
    rounds: Vec<Sample>,
}

/// All rows under a scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) scenario: String,
    pub(crate) in_flight: Option<usize>,
    pub(crate) lines: Vec<Line>,
}

/// What a row held before any load.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) row: &'static str,
    pub(crate) processes: Vec<String>,
    pub(crate) resident_bytes: Vec<u64>,
}

/// Names of [`LogLine`]s.
pub(crate) const LOG: &str = "log";
pub(crate) const PUBLICATION: &str = "publication";
pub(crate) const PROOFS: &str = "proofs";
pub(crate) const TYPED: &str = "typed";
pub(crate) const PLAIN_FILE: &str = "plain file";

/// Appends that wait for durability, with nothing of a gateway around them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LogLine {
    /// The log, or the plain file with `fdatasync` beside it.
    pub(crate) what: &'static str,
    /// How many appends wait at a time.
    pub(crate) waiting: usize,
    /// Appends per second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl LogLine {
    /// The median of each figure.
    pub(crate) fn median(samples: &[Self]) -> Option<Self> {
        let first = samples.first()?;
        let figure = |of: fn(&Self) -> f64| median(samples.iter().map(of).collect());
        let (rate, p50_us, p99_us) = (figure(|s| s.rate), figure(|s| s.p50_us), figure(|s| s.p99_us));
        Some(Self { rate, p50_us, p99_us, ..*first })
    }
}

/// All of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: String,
    cores: usize,
    load_average_before: String,
    load_average_after: String,
    peers: Vec<String>,
    rounds: usize,
    window_seconds: f64,
    pub(crate) skipped: Vec<String>,
    /// What each row's TLS is towards the load generator.
    tls: Vec<String>,
    pub(crate) idle: Vec<Idle>,
    pub(crate) tables: Vec<Table>,
    pub(crate) log: Vec<LogLine>,
    pub(crate) public: Option<PublicRates>,
    pub(crate) proofs: Option<ProofCost>,
    pub(crate) typed: Option<TypedCost>,
}

impl Report {
    pub(crate) fn new(plan: &Plan, rows: &Rows) -> Self {
        let lines = || rows.rows.iter().map(|row| Line::new(row.name)).collect();
        let tables = plan.scenarios.iter().map(|scenario| Table {
            scenario: scenario.name(),
            in_flight: scenario.in_flight(),
            lines: lines(),
        });
        let idle = rows.rows.iter().map(|row| Idle {
            row: row.name,
            processes: row.processes.iter().map(|process| process.label.clone()).collect(),
            resident_bytes: row.processes.iter().map(|process| process.memory().resident).collect(),
        });
        Self {
            machine: machine(),
            cores: crate::cores(),
            load_average_before: load_average(),
            load_average_after: String::new(),
            peers: ["nginx", "haproxy"].into_iter().filter_map(peers::version).collect(),
            rounds: plan.rounds,
            window_seconds: plan.window.as_secs_f64(),
            skipped: rows.skipped.clone(),
            tls: rows.rows.iter().map(|row| format!("{}: {}", row.name, row.tls)).collect(),
            idle: idle.collect(),
            tables: tables.collect(),
            log: Vec::new(),
            public: None,
            proofs: None,
            typed: None,
        }
    }

    /// Adds a round's window of a row under a scenario.
    pub(crate) fn add(&mut self, scenario: usize, row: usize, sample: Sample) {
        self.tables[scenario].lines[row].rounds.push(sample);
    }

    /// Works out medians and ratios.
    pub(crate) fn finish(&mut self) {
        self.load_average_after = load_average();
        for table in &mut self.tables {
            for line in &mut table.lines {
                line.median = Sample::median(&line.rounds);
            }
            let of = |name| table.lines.iter().find(|line| line.row == name).map(|line| line.median.clone());
            let (direct, nginx) = (of(DIRECT), of(NGINX));
            for line in &mut table.lines {
                line.compare(direct.as_ref(), nginx.as_ref());
            }
        }
    }

    /// The medians of `row` under `scenario`, unless it failed or was not run.
    pub(crate) fn median(&self, scenario: &str, row: &str) -> Option<&Sample> {
        let table = self.tables.iter().find(|table| table.scenario == scenario)?;
        let median = &table.lines.iter().find(|line| line.row == row)?.median;
        (median.failures == 0 && median.rate > 0.0).then_some(median)
    }

    /// A line of the log alone.
    pub(crate) fn log(&self, what: &str, waiting: usize) -> Option<&LogLine> {
        self.log.iter().find(|line| line.what == what && line.waiting == waiting)
    }

    /// Writes `target/bench/gateway.json`.
    pub(crate) fn write(&self, targets: &[Verdict]) -> Result<()> {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            report: &'a Report,
            targets: &'a [Verdict],
        }
        let text = serde_json::to_string_pretty(&Whole { report: self, targets })?;
        Ok(fs::write(crate::output()?.join("gateway.json"), text)?)
    }

    /// The tables, for people.
    pub(crate) fn print(&self) {
        println!(
            "{}, {} cores; load average {} before, {} after",
            self.machine, self.cores, self.load_average_before, self.load_average_after
        );
        println!("{}; medians of {} rounds of {} s", self.peers.join("; "), self.rounds, self.window_seconds);
        println!("CPU and memory are those of the gateway's processes (two for two nodes), the back-end's apart");
        for table in self.tables.iter().filter(|table| !table.lines.is_empty()) {
            println!("\n{}", table.scenario);
            println!(
                "  {:<10} {:>9} {:>8} {:>9} {:>9} {:>9} {:>15} {:>8} {:>9} {:>9} {:>9}",
                "",
                "per s",
                "×direct",
                "p50 µs",
                "p99 µs",
                "p99.9 µs",
                "CPU µs",
                "×nginx",
                "back-end",
                "peak MB",
                "×p50 dir."
            );
            for line in &table.lines {
                println!("  {}", line.text());
            }
        }
        println!("\nthe log alone: appends that wait until they are durable");
        println!("  {:<10} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "waiting", "per s", "×file", "p50 µs", "p99 µs");
        for line in &self.log {
            let file = self.log(PLAIN_FILE, line.waiting).map_or(f64::NAN, |file| file.rate);
            println!(
                "  {:<10} {:>9} {:>9.0} {:>9.2} {:>9.0} {:>9.0}",
                line.what,
                line.waiting,
                line.rate,
                line.rate / file,
                line.p50_us,
                line.p99_us
            );
        }
        if let Some(PublicRates { published, verified, monitored }) = self.public {
            println!(
                "\nentries per s: {published:.0} published to a folder, {verified:.0} verified there, {monitored:.0} monitored"
            );
        }
        if let Some(proofs) = self.proofs {
            println!(
                "\nproofs, CPU per exchange at a node: {:.1} µs (making one {:.1}, checking one {:.1}, its share of a signature {:.1})",
                proofs.exchange_us(),
                proofs.make_us,
                proofs.check_us,
                proofs.checkpoint_us
            );
        }
        if let Some(typed) = self.typed {
            println!(
                "\na message of {} bytes by its plan, one thread: {:.0} ns checked ({:.2} GB/s), {:.0} ns masked by half ({:.2} GB/s); \
                 decoded to a DynamicMessage {:.0} ns",
                typed.bytes,
                typed.check_ns,
                typed.gb_per_s(typed.check_ns),
                typed.mask_ns,
                typed.gb_per_s(typed.mask_ns),
                typed.decode_ns
            );
        }
        println!("\nidle memory");
        for idle in &self.idle {
            let held: Vec<String> = idle
                .processes
                .iter()
                .zip(&idle.resident_bytes)
                .map(|(process, &bytes)| format!("{process} {:.1} MB", bytes as f64 / 1e6))
                .collect();
            println!("  {:<10} {}", idle.row, held.join(", "));
        }
        println!();
    }
}

impl Line {
    fn new(row: &'static str) -> Self {
        Self {
            row,
            median: Sample::default(),
            rate_to_direct: None,
            p50_to_direct: None,
            rate_to_nginx: None,
            p50_to_nginx: None,
            cpu_to_nginx: None,
            rounds: Vec::new(),
        }
    }

    fn compare(&mut self, direct: Option<&Sample>, nginx: Option<&Sample>) {
        let own = &self.median;
        let to = |of: fn(&Sample) -> f64, other: Option<&Sample>| ratio(of(own), other.map(of));
        self.rate_to_direct = to(|s| s.rate, direct);
        self.p50_to_direct = to(|s| s.p50_us, direct);
        self.rate_to_nginx = to(|s| s.rate, nginx);
        self.p50_to_nginx = to(|s| s.p50_us, nginx);
        self.cpu_to_nginx = to(|s| s.own_cpu().iter().sum(), nginx);
    }

    fn text(&self) -> String {
        let sample = &self.median;
        if sample.failures > 0 {
            let why = sample.first_failure.as_deref().unwrap_or_default();
            return format!("{:<10} failed: {} calls, {why}", self.row, sample.failures);
        }
        let times = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let each = |figures: &[f64], unit: f64| {
            figures.iter().map(|figure| format!("{:.1}", figure / unit)).collect::<Vec<_>>().join(" + ")
        };
        let own = sample.peak_bytes.split_last().map_or(&[][..], |(_, own)| own);
        format!(
            "{:<10} {:>9.0} {:>8} {:>9.0} {:>9.0} {:>9.0} {:>15} {:>8} {:>9.1} {:>9} {:>9}",
            self.row,
            sample.rate,
            times(self.rate_to_direct),
            sample.p50_us,
            sample.p99_us,
            sample.p999_us,
            each(sample.own_cpu(), 1.0),
            times(self.cpu_to_nginx.filter(|_| !sample.own_cpu().is_empty())),
            sample.cpu_us.last().copied().unwrap_or_default(),
            each(own, 1e6),
            times(self.p50_to_direct),
        )
    }
}

fn ratio(own: f64, other: Option<f64>) -> Option<f64> {
    other.filter(|&other| other > 0.0).map(|other| own / other)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.get(middle) {
        None => 0.0,
        Some(&upper) if figures.len() % 2 == 1 => upper,
        Some(&upper) => (figures[middle - 1] + upper) / 2.0,
    }
}

/// As a figure of the report.
pub(crate) fn microseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{}, Linux {}", model.map_or("unknown processor", |(_, model)| model), kernel.trim())
}
