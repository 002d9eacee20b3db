//! One file of a publication at a time, from a folder or over HTTP.
//!
//! Every answer is bounded in size and time. A connection that fails, and a server that says 429 or 5xx, are asked
//! again a few times; 404 is an answer. Requests in flight are bounded per publication.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;

use super::PublishedError;
use crate::log::entry::MAX_ENTRY;
use crate::log::tile::{Kind, Tile};
use crate::trust::certificate::read_certificates;
use crate::trust::tls::reasons;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(20);
/// How often a file is asked for; the wait between doubles.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Requests in flight to one publication.
const IN_FLIGHT: usize = 16;
/// The largest checkpoint: a hundred signatures and names.
const MAX_CHECKPOINT: usize = 64 << 10;

/// Where a log is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder with `checkpoint` and `tile/` in it.
    Folder(PathBuf),
    /// A URL prefix, `https://` or `http://`, without a slash at its end.
    Url(String),
}

impl FromStr for Place {
    type Err = PublishedError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || PublishedError::Place(text.into());
        match text.split_once("://") {
            Some(("http" | "https", _)) => {
                let prefix = text.trim_end_matches('/');
                let uri: Uri = prefix.parse().map_err(|_| bad())?;
                // Without its slashes `https://` would be read as a host named https.
                let good =
                    uri.scheme().is_some() && uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none();
                if good { Ok(Self::Url(prefix.into())) } else { Err(bad()) }
            }
            Some(_) => Err(bad()),
            None if text.is_empty() => Err(bad()),
            None => Ok(Self::Folder(text.into())),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(url),
        }
    }
}

type Web = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// A published log's files. Clones share connections and the bound on requests.
#[derive(Clone, Debug)]
pub struct Publication {
    place: Place,
    web: Option<Web>,
    room: Arc<Semaphore>,
}

impl Publication {
    /// Prepares to read; fetches nothing yet. `extra_roots` (PEM) are trusted for HTTPS besides the system's.
    pub fn new(place: Place, extra_roots: Option<&Path>) -> Result<Self, PublishedError> {
        let web = match &place {
            Place::Folder(_) => None,
            Place::Url(url) => Some(web_client(url, extra_roots)?),
        };
        Ok(Self { place, web, room: Arc::new(Semaphore::new(IN_FLIGHT)) })
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The signed note at `checkpoint`, not verified.
    pub async fn checkpoint(&self) -> Result<String, PublishedError> {
        let bytes = self.get("checkpoint", MAX_CHECKPOINT).await?;
        let bytes = bytes.ok_or_else(|| PublishedError::Missing(self.address("checkpoint")))?;
        String::from_utf8(bytes.into()).map_err(|_| self.failed("checkpoint", "not UTF-8"))
    }

    /// A tile's or bundle's bytes, as published and not verified. Of a partial one that is gone, the full one: the caller cuts it.
    pub async fn tile(&self, tile: Tile) -> Result<(Bytes, Tile), PublishedError> {
        if let Some(bytes) = self.get(&tile.to_string(), largest(tile)).await? {
            return Ok((bytes, tile));
        }
        // A partial tile may go once the full one is there.
        let full = tile.full();
        if !tile.is_full()
            && let Some(bytes) = self.get(&full.to_string(), largest(full)).await?
        {
            return Ok((bytes, full));
        }
        Err(PublishedError::Missing(self.address(&tile.to_string())))
    }

    /// One file; none where there is none.
    async fn get(&self, path: &str, max: usize) -> Result<Option<Bytes>, PublishedError> {
        match (&self.place, &self.web) {
            // A local disk's read is as short as the hashing that follows it on the same thread.
            (Place::Folder(folder), _) => read(&folder.join(path), max).map_err(|reason| self.failed(path, reason)),
            (Place::Url(_), Some(web)) => self.fetch(web, path, max).await,
            (Place::Url(_), None) => Err(self.failed(path, "no HTTP client")),
        }
    }

    async fn fetch(&self, web: &Web, path: &str, max: usize) -> Result<Option<Bytes>, PublishedError> {
        let _place = self.room.acquire().await.map_err(|_| self.failed(path, "closed"))?;
        let uri: Uri = self.address(path).parse().map_err(|_| self.failed(path, "no address"))?;
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let answer = tokio::time::timeout(ATTEMPT, get(web, uri.clone(), max)).await;
            let reason = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Failure::Final(reason))) => return Err(self.failed(path, reason)),
                Ok(Err(Failure::Passing(reason))) => reason,
                Err(_) => format!("no answer within {ATTEMPT:?}"),
            };
            if attempt == ATTEMPTS {
                return Err(self.failed(path, format!("{reason} ({ATTEMPTS} attempts)")));
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Ok(None)
    }

    fn address(&self, path: &str) -> String {
        format!("{}/{path}", self.place)
    }

    fn failed(&self, path: &str, reason: impl Into<String>) -> PublishedError {
        PublishedError::Fetch { what: self.address(path), reason: reason.into() }
    }
}

/// The most bytes that a tile of this width can have.
fn largest(tile: Tile) -> usize {
    let each = match tile.kind {
        Kind::Entries => MAX_ENTRY + 2,
        Kind::Hashes(_) => 32,
    };
    usize::from(tile.width) * each
}

fn read(path: &Path, max: usize) -> Result<Option<Bytes>, String> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let expected = file.metadata().map_or(0, |metadata| metadata.len()).min(max as u64) as usize;
    let mut content = Vec::with_capacity(expected + 1);
    file.take(max as u64 + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    if content.len() > max { Err(too_large(max)) } else { Ok(Some(content.into())) }
}

/// Why an attempt failed, and whether another one may succeed.
enum Failure {
    Passing(String),
    Final(String),
}

async fn get(web: &Web, uri: Uri, max: usize) -> Result<Option<Bytes>, Failure> {
    let request = Request::get(uri).header(ACCEPT_ENCODING, "gzip").body(Empty::new());
    let request = request.map_err(|error| Failure::Final(error.to_string()))?;
    let response = web.request(request).await.map_err(|error| Failure::Passing(reasons(&error)))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
        status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
            return Err(Failure::Passing(format!("answered {status}")));
        }
        status => return Err(Failure::Final(format!("answered {status}"))),
    }
    let encoding = response.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    // What does not compress is a little longer gzipped.
    let body = Limited::new(response.into_body(), max + max / 64 + 1_024).collect().await;
    let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => Failure::Final(too_large(max)),
        None => Failure::Passing(reasons(error.as_ref())),
    });
    let body = body?.to_bytes();
    match encoding.as_deref() {
        None | Some(b"identity") if body.len() > max => Err(Failure::Final(too_large(max))),
        None | Some(b"identity") => Ok(Some(body)),
        Some(b"gzip" | b"x-gzip") => gunzip(&body, max).map(Some).map_err(Failure::Final),
        Some(other) => Err(Failure::Final(format!("encoded as {}", String::from_utf8_lossy(other)))),
    }
}

fn gunzip(body: &[u8], max: usize) -> Result<Bytes, String> {
    let mut content = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(body).take(max as u64 + 1);
    decoder.read_to_end(&mut content).map_err(|error| format!("gzip: {error}"))?;
    if content.len() > max { Err(too_large(max)) } else { Ok(content.into()) }
}

fn too_large(max: usize) -> String {
    format!("larger than {max} bytes, the most that it can have")
}

fn web_client(url: &str, extra_roots: Option<&Path>) -> Result<Web, PublishedError> {
    let failed = |reason: String| PublishedError::Fetch { what: url.into(), reason };
    let mut roots = RootCertStore::empty();
    if url.starts_with("https") {
        // A system without a root store is no error as long as there are roots of our own.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if let Some(path) = extra_roots {
        for root in read_certificates(path).map_err(|error| failed(error.to_string()))? {
            roots.add(root).map_err(|error| failed(format!("{}: {error}", path.display())))?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(ATTEMPT / 2));
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1();
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(IN_FLIGHT).build(connector.wrap_connector(tcp)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn places() {
        for (text, place) in [
            ("https://log.civil.example/log/", Place::Url("https://log.civil.example/log".into())),
            ("http://127.0.0.1:8080", Place::Url("http://127.0.0.1:8080".into())),
            ("published/civil", Place::Folder("published/civil".into())),
        ] {
            assert_eq!(text.parse::<Place>().unwrap(), place);
        }
        for text in ["", "ftp://a/b", "https://", "http:///log", "https://a.example/log?x=1"] {
            assert!(matches!(text.parse::<Place>(), Err(PublishedError::Place(_))), "{text}");
        }
    }

    #[test]
    fn gzip_is_bounded() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        let small = encoder.finish().unwrap();
        assert_eq!(gunzip(&small, 1 << 20).unwrap().len(), 1 << 20);
        assert!(gunzip(&small, (1 << 20) - 1).unwrap_err().contains("larger"));
        assert!(gunzip(&small[..20], 1 << 20).is_err());
    }
}
