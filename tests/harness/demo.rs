//! The demo as it stays up: the real binary, stopped however the test ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// For a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A demo that has made its exchanges and waits.
pub(crate) struct StandingDemo {
    child: Child,
    /// What it has printed.
    pub(crate) text: String,
}

impl StandingDemo {
    /// Starts one in a folder that is not there yet; returns when it has said all that it says.
    pub(crate) fn start(folder: &Path, exchanges: u32) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_kopuro"))
            .args(["demo", "--exchanges", &exchanges.to_string(), "--dir"])
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut demo = Self { child, text: String::new() };
        let stdout = BufReader::new(demo.child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        while !demo.text.contains("until Ctrl-C") {
            demo.text += &lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{error} after {}", demo.text));
            demo.text.push('\n');
        }
        demo
    }

    /// Ctrl-C; it must end well.
    pub(crate) fn interrupt(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for StandingDemo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
