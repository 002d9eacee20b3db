//! A publication of a log, written plainly: whole tiles from whole entries, and a small web server over the folder.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use kopuro::log::Checkpoint;
use kopuro::log::Log;
use kopuro::log::tile::{self, Kind, Tile};
use kopuro::log::tree::{Hash, RightEdge};
use kopuro::trust::note::Signer;

/// Writes what a tree of these entries has and one of the first `old` of them had not, and then the checkpoint.
pub(crate) fn publish(folder: &Path, entries: &[Bytes], old: usize, signer: &Signer) -> Checkpoint {
    let mut edge = RightEdge::default();
    entries.iter().for_each(|entry| edge.push(Hash::of_leaf(entry)));
    let checkpoint = Checkpoint::sign(signer, &edge).unwrap();
    write_tiles(folder, entries, old);
    write_checkpoint(folder, &checkpoint);
    checkpoint
}

/// Publishes all that a log has, under its own checkpoint.
pub(crate) fn publish_log(folder: &Path, log: &Log, old: u64) -> Checkpoint {
    let checkpoint = log.checkpoint();
    let mut entries = Vec::new();
    while (entries.len() as u64) < checkpoint.size {
        let wanted = checkpoint.size as usize - entries.len();
        entries.extend(log.read(entries.len() as u64, wanted).unwrap());
    }
    write_tiles(folder, &entries, old as usize);
    write_checkpoint(folder, &checkpoint);
    (*checkpoint).clone()
}

pub(crate) fn write_checkpoint(folder: &Path, checkpoint: &Checkpoint) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("checkpoint"), &checkpoint.note).unwrap();
}

/// Writes tiles and bundles, computed level by level.
pub(crate) fn write_tiles(folder: &Path, entries: &[Bytes], old: usize) {
    let mut levels: Vec<Vec<Hash>> = vec![entries.iter().map(|entry| Hash::of_leaf(entry)).collect()];
    while let Some(full) = levels.last().map(|level| level.len() / 256).filter(|full| *full > 0) {
        let below = levels.last().unwrap();
        let above = (0..full).map(|number| {
            let mut edge = RightEdge::default();
            below[number * 256..(number + 1) * 256].iter().for_each(|hash| edge.push(*hash));
            edge.root()
        });
        levels.push(above.collect());
    }
    for tile in Tile::between(old as u64, entries.len() as u64) {
        let range = tile.number as usize * 256..tile.number as usize * 256 + usize::from(tile.width);
        let mut content = Vec::new();
        match tile.kind {
            Kind::Entries => entries[range].iter().for_each(|entry| tile::push_entry(&mut content, entry)),
            Kind::Hashes(level) => levels[usize::from(level)][range].iter().for_each(|hash| content.extend(hash.0)),
        }
        let path = folder.join(tile.to_string());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// `count` small entries that differ.
pub(crate) fn small_entries(count: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(format!("entry {n}"))).collect()
}

/// What a web server does besides serving its folder.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Answers 503 this many times per path before it answers.
    pub(crate) unavailable: usize,
    /// Sends everything gzipped.
    pub(crate) gzip: bool,
    /// Answers this, whatever is asked for a path.
    pub(crate) instead: HashMap<String, Vec<u8>>,
    pub(crate) asked: HashMap<String, usize>,
}

/// A web server over a folder.
pub(crate) struct WebServer {
    pub(crate) address: SocketAddr,
    pub(crate) faults: Arc<Mutex<Faults>>,
    task: tokio::task::JoinHandle<()>,
}

impl WebServer {
    pub(crate) async fn start(folder: PathBuf, faults: Faults) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Mutex::new(faults));
        let served = Arc::clone(&faults);
        let router = axum::Router::new().fallback(move |uri: http::Uri| {
            let answer = answer(&folder, uri.path(), &mut served.lock().unwrap());
            async move { answer }
        });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper_util::service::TowerToHyperService::new(router.clone());
                let stream = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
            }
        });
        Self { address, faults, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(folder: &Path, path: &str, faults: &mut Faults) -> (StatusCode, HeaderMap, Vec<u8>) {
    let path = path.trim_start_matches('/');
    let mut headers = HeaderMap::new();
    let asked = faults.asked.entry(path.into()).or_default();
    *asked += 1;
    if *asked <= faults.unavailable {
        return (StatusCode::SERVICE_UNAVAILABLE, headers, Vec::new());
    }
    let content = faults.instead.get(path).cloned().or_else(|| std::fs::read(folder.join(path)).ok());
    let Some(mut content) = content else { return (StatusCode::NOT_FOUND, headers, Vec::new()) };
    if faults.gzip {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&content).unwrap();
        content = encoder.finish().unwrap();
        headers.insert("content-encoding", "gzip".parse().unwrap());
    }
    (StatusCode::OK, headers, content)
}
