//! A node as operators run it: the real binary, a process of its own, to be killed and started again.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Federation, admin};

/// How long a node may take to be ready, or to stop.
const LIMIT: Duration = Duration::from_secs(20);

/// A node's process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: PathBuf,
    pub(crate) systems: SocketAddr,
    pub(crate) nodes: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Process {
    /// Starts `kopuro node` with a member's files and returns when it says that it is ready.
    pub(crate) async fn start(federation: &Federation, member: &str) -> Self {
        Self::start_with(federation, member, &[]).await
    }

    /// The same, with more in its environment.
    pub(crate) async fn start_with(federation: &Federation, member: &str, environment: &[(&str, &Path)]) -> Self {
        let mut this = Self::spawn(federation, member, environment);
        this.ready().await;
        this
    }

    /// Starts a node that aborts at a point (`tile:2`: where it comes there a second time), which may be before it is ready.
    pub(crate) async fn start_to_fail(federation: &Federation, member: &str, failpoint: &str) -> Self {
        let mut this = Self::spawn(federation, member, &[("KOPURO_FAILPOINT", Path::new(failpoint))]);
        let deadline = Instant::now() + LIMIT;
        while !this.has_aborted() && admin(this.admin, "/readyz").await.is_err() {
            assert!(Instant::now() < deadline, "the node did not start:\n{}", this.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        this
    }

    /// Whether it has died where it was to; any other end is a failure.
    pub(crate) fn has_aborted(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        let Some(status) = self.child.try_wait().unwrap() else { return false };
        assert_eq!(status.signal(), Some(6), "{status}\n{}", self.said());
        true
    }

    fn spawn(federation: &Federation, member: &str, environment: &[(&str, &Path)]) -> Self {
        let output = federation.member_path(member, "node.out");
        let to = OpenOptions::new().create(true).append(true).open(&output).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kopuro"))
            .args(["node", "--config"])
            .arg(federation.member_path(member, "node.toml"))
            .env("KOPURO_LOG", "info")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(to)
            .spawn()
            .unwrap();
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let ports = federation.ports[member];
        Self { child, output, systems: at(ports.systems), nodes: at(ports.nodes), admin: at(ports.admin) }
    }

    async fn ready(&mut self) {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Ok((200, _)) = admin(self.admin, "/readyz").await {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "the node did not start: {ended:?}\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "the node died by itself:\n{}", self.said());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the node must drain and end well.
    pub(crate) async fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}\n{}", self.said());
                return;
            }
            assert!(Instant::now() < deadline, "the node does not stop:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The last of what it wrote to standard error.
    pub(crate) fn said(&self) -> String {
        let all = std::fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<&str> = all.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
