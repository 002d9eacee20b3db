//! The processes that a row is made of: starting this very binary in another role, and what `/proc` says a process has
//! spent and holds. A role ends when its standard input does, so nothing outlives the benchmark.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long a process may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(30);
/// `USER_HZ`, the unit of `/proc/PID/stat`: 100 on every Linux that Rust's standard library supports.
const TICKS_PER_SECOND: u64 = 100;

/// A process of a row, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) label: String,
    child: Child,
    _input: Option<ChildStdin>,
}

/// Memory of a process and its children, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// Since [`Process::reset_peak`].
    pub(crate) peak: u64,
}

/// CPU time by thread, so that a thread that ends in between does not make the sum shrink.
#[derive(Debug)]
pub(crate) struct Cpu(HashMap<OsString, u64>);

impl Cpu {
    /// What was spent between `earlier` and this.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let spent = self.0.iter().map(|(id, now)| now.saturating_sub(earlier.0.get(id).copied().unwrap_or_default()));
        Duration::from_nanos(spent.sum())
    }
}

impl Process {
    /// Starts this binary as `role` and waits until it says where it listens, one address per listener.
    pub(crate) fn role(label: &str, arguments: &[&str]) -> Result<(Self, Vec<SocketAddr>)> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {label}"))?;
        let output = child.stdout.take().context("no standard output")?;
        let input = child.stdin.take();
        let process = Self { label: label.to_owned(), child, _input: input };

        let (say, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = String::new();
            let _ = output.read_line(&mut line);
            let _ = say.send(line);
            // Whatever else it prints must not block it.
            let _ = std::io::copy(&mut output, &mut std::io::sink());
        });
        let line = heard.recv_timeout(START_LIMIT).with_context(|| format!("{label} does not listen"))?;
        let Some(addresses) = line.strip_prefix("listening ") else { bail!("{label} ended before it listened") };
        let addresses = addresses.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        Ok((process, addresses))
    }

    /// Starts a peer's program that stays in the foreground.
    pub(crate) fn peer(label: &str, command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("starting {label}"))?;
        Ok(Self { label: label.to_owned(), child, _input: None })
    }

    /// Whether it still runs.
    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// CPU time that the threads of it and its children (nginx's workers) have spent so far.
    pub(crate) fn cpu(&self) -> Cpu {
        let mut threads = HashMap::new();
        for id in self.family() {
            let Ok(tasks) = fs::read_dir(format!("/proc/{id}/task")) else { continue };
            for task in tasks.flatten() {
                if let Some(nanoseconds) = spent(&task.path()) {
                    threads.insert(task.file_name(), nanoseconds);
                }
            }
        }
        Cpu(threads)
    }

    /// Memory that it and its children hold. Pages that they share count for each.
    pub(crate) fn memory(&self) -> Memory {
        let mut sum = Memory::default();
        for id in self.family() {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            sum.resident += kilobytes(&status, "VmRSS:") * 1024;
            sum.peak += kilobytes(&status, "VmHWM:") * 1024;
        }
        sum
    }

    /// Lets the peak begin anew from what it holds now.
    pub(crate) fn reset_peak(&self) {
        for id in self.family() {
            let _ = fs::write(format!("/proc/{id}/clear_refs"), "5");
        }
    }

    fn family(&self) -> Vec<u32> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        std::iter::once(id).chain(children.split_whitespace().filter_map(|c| c.parse().ok())).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A SIGKILL to nginx's master would leave its workers behind; SIGTERM ends all of them.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        for _ in 0..100 {
            if !self.alive() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a role does beside its work: ends the process when the benchmark's is gone.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        let mut sink = [0; 64];
        while matches!(std::io::stdin().read(&mut sink), Ok(n) if n > 0) {}
        std::process::exit(0);
    });
}

/// Nanoseconds on a CPU, user and system: to the nanosecond from `schedstat`, where the kernel has none to the tick.
fn spent(task: &Path) -> Option<u64> {
    if let Ok(schedstat) = fs::read_to_string(task.join("schedstat")) {
        return schedstat.split_whitespace().next()?.parse().ok();
    }
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    // The second field, the command, may hold spaces: count from its closing parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks * 1_000_000_000 / TICKS_PER_SECOND)
}

fn kilobytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_default()
}
