//! A published log, read as a stranger reads it: by HTTP or from a folder, with nothing of the node's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use kopuro::log::Checkpoint;
use kopuro::log::tile::{self, Kind, Tile};
use kopuro::log::tree::{Hash, RightEdge};
use kopuro::trust::note::Verifier;

/// What a web server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// One request of its own connection.
pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let asking = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: log\r\nconnection: close\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), asking).await.expect("an answer in time");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let body = Bytes::from(answer).slice(end + 4..);
    if method != "HEAD"
        && let Some(length) = headers.get("content-length")
    {
        assert_eq!(length.parse(), Ok(body.len()), "{path} came whole");
    }
    Answer { status, headers, body }
}

/// GET, nothing special.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, &[]).await
}

/// Where a published log is read from.
#[derive(Clone, Debug)]
pub(crate) enum Published {
    Web(SocketAddr),
    Folder(PathBuf),
}

impl Published {
    pub(crate) fn folder(path: impl AsRef<Path>) -> Self {
        Self::Folder(path.as_ref().to_owned())
    }

    pub(crate) async fn read(&self, path: &str) -> Option<Bytes> {
        match self {
            Self::Web(address) => {
                let answer = get(*address, &format!("/{path}")).await;
                (answer.status == 200).then_some(answer.body)
            }
            Self::Folder(folder) => std::fs::read(folder.join(path)).ok().map(Bytes::from),
        }
    }

    /// The published checkpoint, signed by this log.
    pub(crate) async fn checkpoint(&self, key: &Verifier) -> Option<Checkpoint> {
        let note = self.read("checkpoint").await?;
        Some(Checkpoint::verify(std::str::from_utf8(&note).unwrap(), key).unwrap())
    }

    /// Everything that a tree of the published size has is there and right: the root from the bundles alone, and every hash
    /// of every tile against the bundles' leaves. Gives the checkpoint and the entries.
    pub(crate) async fn verify(&self, key: &Verifier) -> (Checkpoint, Vec<Bytes>) {
        let checkpoint = self.checkpoint(key).await.expect("a checkpoint");
        let mut entries = Vec::new();
        for tile in Tile::between(0, checkpoint.size).filter(|tile| tile.kind == Kind::Entries) {
            let bundle = self.read(&tile.to_string()).await.unwrap_or_else(|| panic!("{tile} is missing"));
            entries.extend(tile::entries(&bundle, tile.width).unwrap());
        }
        assert_eq!(entries.len() as u64, checkpoint.size);
        let leaves: Vec<Hash> = entries.iter().map(|entry| Hash::of_leaf(entry)).collect();
        assert_eq!(root(&leaves), checkpoint.root, "the root over the published entries is the signed one");
        for tile in Tile::between(0, checkpoint.size) {
            let Kind::Hashes(level) = tile.kind else { continue };
            let stored = self.read(&tile.to_string()).await.unwrap_or_else(|| panic!("{tile} is missing"));
            let hashes = tile::hashes(&stored, tile.width).unwrap();
            let span = 1_usize << (8 * u32::from(level));
            for (at, hash) in hashes.into_iter().enumerate() {
                let first = (tile.number as usize * 256 + at) * span;
                assert_eq!(hash, root(&leaves[first..first + span]), "hash {at} of {tile}");
            }
        }
        (checkpoint, entries)
    }
}

/// The root over leaves.
pub(crate) fn root(leaves: &[Hash]) -> Hash {
    let mut edge = RightEdge::default();
    leaves.iter().for_each(|leaf| edge.push(*leaf));
    edge.root()
}
