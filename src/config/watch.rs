//! When to look at the files again: one of them changed, or SIGHUP came.
//!
//! Folders are watched, not files, because editors and Kubernetes put a new file in the place of the old one. Changes
//! that come close together are told once. One change waits at most; more that come meanwhile are that same one. What
//! counts is whether a file is another than before (its place, inode, size or time of change), so that the node's own
//! reading and watching, and what else happens in those folders, is no change.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{NodeConfig, PrivateKey};

/// How long nothing must have changed before a change is told, and the longest that it is put off.
const QUIET: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(5);

/// Why to check again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Something changed in a watched folder.
    Files,
    /// SIGHUP.
    Hangup,
}

/// Tells changes for as long as it lives.
#[derive(Debug)]
pub struct Watch {
    changed: mpsc::Receiver<()>,
    hangup: Signal,
    /// Dropping it ends the watching.
    watcher: notify::RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
    read: Read,
    /// The files as they were when last told.
    seen: BTreeSet<Stamp>,
    /// Something has happened that has not been looked at yet.
    pending: bool,
}

/// What tells one state of a file from another: where, inode, size, time of change in seconds and nanoseconds.
type Stamp = (PathBuf, u64, u64, i64, i64);

/// Watches everything that [`super::recheck`] reads. Needs a tokio runtime.
pub fn watch(config: &NodeConfig) -> Result<Watch, std::io::Error> {
    let (tell, changed) = mpsc::channel(1);
    let on_event = move |event: notify::Result<notify::Event>| {
        // Our own reading of the files must not look like a change. Errors (a queue overflowed) may hide one.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            // Full: a change is already waiting to be told.
            let _ = tell.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(on_event).map_err(std::io::Error::other)?;
    let hangup = signal(SignalKind::hangup())?;
    let read = Read::of(config);
    let above = read.files.iter().chain(&read.folders).map(|path| parent(path));
    let folders = above.chain(read.folders.iter().cloned()).collect();
    let mut watch = Watch { changed, hangup, watcher, folders, read, seen: BTreeSet::new(), pending: false };
    watch.watch_folders();
    watch.seen = watch.read.stamps();
    Ok(watch)
}

impl Watch {
    /// Waits for the next change. May be dropped and called again without losing one.
    pub async fn next(&mut self) -> Change {
        loop {
            if !self.pending {
                tokio::select! {
                    Some(()) = self.hangup.recv() => return Change::Hangup,
                    Some(()) = self.changed.recv() => self.pending = true,
                    else => std::future::pending().await,
                }
            }
            self.settle().await;
            self.watch_folders();
            self.pending = false;
            let now = self.read.stamps();
            if now != self.seen {
                self.seen = now;
                return Change::Files;
            }
        }
    }

    /// Watches all folders: again after each change, because one may have been put in the place of another, or be new.
    /// One that is not there is told by the folder above it, where that is watched, and by SIGHUP.
    fn watch_folders(&mut self) {
        for folder in &self.folders {
            if let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::debug!(folder = %folder.display(), %error, "folder not watched: a change there is seen at SIGHUP");
            }
        }
    }

    /// Waits until nothing has changed for a moment: files are often written one after the other.
    async fn settle(&mut self) {
        let patience = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < patience {
            match tokio::time::timeout(QUIET, self.changed.recv()).await {
                Ok(Some(())) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// What is read again: files by name, and folders of which every file counts.
#[derive(Debug)]
struct Read {
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Read {
    fn of(config: &NodeConfig) -> Self {
        let files = [&config.tls.certificate, &config.policy.outbound].map(PathBuf::as_path);
        let next_key = config.log.next_key.as_ref().and_then(PrivateKey::file);
        let keys = [config.tls.key.file(), config.log.key.file(), next_key].into_iter().flatten();
        let mirrors = config.directory.mirrors.iter().filter(|mirror| !mirror.contains("://")).map(Path::new);
        let backend_roots = config.backends.values().filter_map(|backend| backend.ca.as_deref());
        let lists = config.tls.roots.iter().chain(&config.tls.crls).map(PathBuf::as_path);
        let files = files
            .into_iter()
            .chain(keys)
            .chain(lists)
            .chain(mirrors)
            .chain(backend_roots)
            .map(Path::to_owned)
            .collect();
        let folders = [&config.policy.grants, &config.directory.descriptors];
        Self { files, folders: folders.into_iter().cloned().collect() }
    }

    /// How they are now; links are followed, for that is how Kubernetes swaps them.
    fn stamps(&self) -> BTreeSet<Stamp> {
        let entries = self.folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        let entries = entries.map(|entry| entry.path());
        entries.chain(self.files.iter().cloned()).filter_map(stamp).collect()
    }
}

fn stamp(path: PathBuf) -> Option<Stamp> {
    let file = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
    Some((path, file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
}

fn parent(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_does_not_read_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("grants")).unwrap();
        std::fs::write(at("root.pem"), "one").unwrap();
        let read = Read { files: BTreeSet::from([at("root.pem")]), folders: BTreeSet::from([at("grants")]) };
        let before = read.stamps();
        assert_eq!(before.len(), 1);
        std::fs::write(at("events.log"), "beside it").unwrap();
        assert_eq!(read.stamps(), before);
        std::fs::write(at("grants/tax.toml"), "new").unwrap();
        assert_eq!(read.stamps().len(), 2);
        std::fs::write(at("root.pem"), "longer").unwrap();
        assert!(read.stamps().is_disjoint(&before));
    }
}
