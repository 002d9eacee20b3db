//! Where a node gets its directory from: a list of mirrors, and the last good copy on its own disk.
//!
//! A poll asks every mirror at once, each within `FETCH_TIME` and `MAX_NOTE` bytes, judges what they have by the rules
//! of the module above, and takes the highest good version. Before that version comes into force it is on the disk, so
//! that a restart never falls behind it. Whatever fails leaves the version in force as it is, until it expires; an
//! expired one is no longer given out, but still says which version and whose signatures must follow.
//!
//! The copy on the disk is the node's own data, like its keys: it was verified when it was written, by a council that
//! may be gone since, and is not verified again. To start from the configured keys, delete it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::io::AsyncReadExt;

use super::{Directory, DirectoryError, SignedDirectory};
use crate::trust::certificate::read_certificates;
use crate::trust::file::{Access, Existing, write};
use crate::trust::note::{Note, Verifier};
use crate::trust::tls::reasons;

/// How long a mirror may take for one file.
const FETCH_TIME: Duration = Duration::from_secs(15);
/// How large a directory's note, or a descriptor set, may be.
const MAX_NOTE: usize = 16 << 20;

/// One place where the directory is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mirror {
    /// A file, perhaps on a shared disk.
    File(PathBuf),
    /// `https://…`, the note itself.
    Https(Uri),
}

impl FromStr for Mirror {
    type Err = DirectoryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || DirectoryError::Mirror(text.into());
        match text.split_once("://") {
            Some(("https", _)) => {
                let uri: Uri = text.parse().map_err(|_| bad())?;
                if uri.host().is_some_and(|host| !host.is_empty()) { Ok(Self::Https(uri)) } else { Err(bad()) }
            }
            Some(_) => Err(bad()),
            None if text.is_empty() => Err(bad()),
            None => Ok(Self::File(text.into())),
        }
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Https(uri) => write!(f, "{uri}"),
        }
    }
}

impl Mirror {
    /// The file of this name beside the directory.
    fn beside(&self, name: &str) -> Self {
        match self {
            Self::File(path) => Self::File(path.with_file_name(name)),
            Self::Https(uri) => {
                let folder = uri.path().rsplit_once('/').map_or("", |(folder, _)| folder);
                let mut parts = uri.clone().into_parts();
                // A path of a URI, with hex and `.binpb` for its last segment, is a path of a URI.
                parts.path_and_query = format!("{folder}/{name}").parse().ok();
                Uri::from_parts(parts).map_or_else(|_| self.clone(), Self::Https)
            }
        }
    }
}

/// How a [`Source`] finds and trusts directories.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// Each poll asks all of them and takes the highest version.
    pub mirrors: Vec<Mirror>,
    /// Who signs as long as there is no directory in force; from then on its own council does.
    pub council: Vec<Verifier>,
    /// How many of `council` must have signed.
    pub threshold: usize,
    /// Where the last good note is kept.
    pub last_good: PathBuf,
    /// Roots for HTTPS mirrors besides the system's, PEM.
    pub extra_roots: Option<PathBuf>,
}

/// Polls the mirrors; holds the directory in force.
#[derive(Debug)]
pub struct Source {
    options: SourceOptions,
    /// The last good one, expired or not.
    last: Option<SignedDirectory>,
    web: Option<Web>,
    fetch_time: Duration,
}

type Web = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

impl Source {
    /// Reads the last good copy, if there is one; a damaged one is an error, for it alone knows which version is too old.
    pub fn open(options: SourceOptions, now: OffsetDateTime) -> Result<Self, DirectoryError> {
        super::check::check_council(&options.council, options.threshold)
            .map_err(|problem| DirectoryError::Inconsistent(problem.to_string()))?;
        let last = read_last_good(&options.last_good)?;
        if let Some(SignedDirectory { directory, .. }) = last.as_ref().filter(|last| !last.in_force(now)) {
            tracing::warn!(version = directory.version, expires = %directory.expires, "last good directory has expired");
        }
        let needs_web = options.mirrors.iter().any(|mirror| matches!(mirror, Mirror::Https(_)));
        let web = if needs_web { Some(web_client(options.extra_roots.as_deref())?) } else { None };
        Ok(Self { options, last, web, fetch_time: FETCH_TIME })
    }

    /// The directory in force, if it has not expired.
    pub fn current(&self, now: OffsetDateTime) -> Option<&SignedDirectory> {
        self.last.as_ref().filter(|last| last.in_force(now))
    }

    /// Asks the mirrors. `Some` when a newer directory came into force by this poll; `None` when nothing changed. An
    /// error leaves the one in force.
    pub async fn poll(&mut self, now: OffsetDateTime) -> Result<Option<SignedDirectory>, DirectoryError> {
        let answers = join_all(self.options.mirrors.iter().map(|mirror| self.fetch(mirror))).await;
        let (mut newest, mut unchanged, mut refusals, mut conflict) =
            (None::<SignedDirectory>, false, Vec::new(), None);
        for (mirror, answer) in self.options.mirrors.iter().zip(answers) {
            match answer.and_then(|note| self.judge(&note, now)) {
                Ok(None) => unchanged = true,
                Ok(Some(candidate)) => {
                    if newest.as_ref().is_none_or(|other| candidate.directory.version > other.directory.version) {
                        newest = Some(candidate);
                    }
                }
                Err(error) => {
                    tracing::warn!(%mirror, %error, "directory refused");
                    refusals.push(format!("{mirror}: {error}"));
                    if matches!(error, DirectoryError::Conflict(_)) {
                        conflict = Some(error);
                    }
                }
            }
        }
        match (newest, conflict) {
            (Some(newest), _) => {
                self.keep(&newest).await?;
                self.last = Some(newest.clone());
                Ok(Some(newest))
            }
            (None, Some(conflict)) => Err(conflict),
            (None, None) if unchanged => Ok(None),
            (None, None) => Err(DirectoryError::NoMirror(refusals.join("; "))),
        }
    }

    /// A descriptor set from the first mirror that has it beside the directory; its SHA-256 is verified.
    pub async fn descriptor_set(&self, sha256: &[u8; 32]) -> Result<Vec<u8>, DirectoryError> {
        let name = format!("{}.binpb", hex::encode(sha256));
        let mut refusals = Vec::new();
        for mirror in &self.options.mirrors {
            match self.fetch_bytes(&mirror.beside(&name)).await {
                Ok(bytes) if Sha256::digest(&bytes)[..] == sha256[..] => return Ok(bytes),
                Ok(_) => refusals.push(format!("{mirror}: {name} has another SHA-256 than its name")),
                Err(error) => refusals.push(error.to_string()),
            }
        }
        Err(DirectoryError::NoMirror(refusals.join("; ")))
    }

    /// `None` for the version that is in force already.
    fn judge(&self, note: &str, now: OffsetDateTime) -> Result<Option<SignedDirectory>, DirectoryError> {
        let Some(last) = &self.last else {
            let options = &self.options;
            return SignedDirectory::verify(note, &options.council, options.threshold, now, 1).map(Some);
        };
        let in_force = &last.directory;
        if Note::parse(note)?.text() == in_force.to_text() {
            // Its own predecessors' council signed it, perhaps nobody of its own: it needs no verifying again.
            return if last.in_force(now) {
                Ok(None)
            } else {
                Err(DirectoryError::Expired { version: in_force.version, expires: in_force.expires })
            };
        }
        let candidate = SignedDirectory::verify(note, &in_force.council, in_force.threshold, now, in_force.version)?;
        if candidate.directory.version == in_force.version {
            return Err(DirectoryError::Conflict(in_force.version));
        }
        if candidate.directory.federation != in_force.federation {
            let reason = format!("of the federation {}, not {}", candidate.directory.federation, in_force.federation);
            return Err(DirectoryError::Inconsistent(reason));
        }
        Ok(Some(candidate))
    }

    async fn keep(&self, newest: &SignedDirectory) -> Result<(), DirectoryError> {
        let (path, note) = (self.options.last_good.clone(), newest.note.clone());
        let written = tokio::task::spawn_blocking(move || {
            // A node's first start: its data folder is made with the first thing that goes into it.
            std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
            write(&path, note.as_bytes(), Access::Public, Existing::Replace)
        });
        let failed = |reason: String| last_good_error(&self.options.last_good, reason);
        written.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }

    async fn fetch(&self, mirror: &Mirror) -> Result<String, DirectoryError> {
        let bytes = self.fetch_bytes(mirror).await?;
        String::from_utf8(bytes).map_err(|_| fetch_error(mirror, "not UTF-8"))
    }

    async fn fetch_bytes(&self, mirror: &Mirror) -> Result<Vec<u8>, DirectoryError> {
        let fetching = async {
            match (mirror, &self.web) {
                (Mirror::File(path), _) => read_file(path).await,
                (Mirror::Https(uri), Some(web)) => get(web, uri.clone()).await,
                (Mirror::Https(_), None) => Err("no HTTPS client".into()),
            }
        };
        match tokio::time::timeout(self.fetch_time, fetching).await {
            Ok(result) => result.map_err(|reason| fetch_error(mirror, reason)),
            Err(_) => Err(fetch_error(mirror, format!("no answer within {:?}", self.fetch_time))),
        }
    }
}

fn read_last_good(path: &Path) -> Result<Option<SignedDirectory>, DirectoryError> {
    let note = match std::fs::read_to_string(path) {
        Ok(note) => note,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(last_good_error(path, error)),
    };
    let parsed = Note::parse(&note).map_err(|error| last_good_error(path, error))?;
    let directory = Directory::parse_text(parsed.text()).map_err(|error| last_good_error(path, error))?;
    Ok(Some(SignedDirectory { note, directory }))
}

async fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let file = tokio::fs::File::open(path).await.map_err(|error| error.to_string())?;
    let mut content = Vec::new();
    file.take(MAX_NOTE as u64 + 1).read_to_end(&mut content).await.map_err(|error| error.to_string())?;
    if content.len() > MAX_NOTE {
        return Err(format!("larger than {MAX_NOTE} bytes"));
    }
    Ok(content)
}

async fn get(web: &Web, uri: Uri) -> Result<Vec<u8>, String> {
    let response = web.get(uri).await.map_err(|error| reasons(&error))?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("answered {}", response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_NOTE).collect().await.map_err(|error| reasons(error.as_ref()))?;
    Ok(body.to_bytes().into())
}

fn web_client(extra_roots: Option<&Path>) -> Result<Web, DirectoryError> {
    let mut roots = RootCertStore::empty();
    // A system without a root store is no error as long as there are roots of our own.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = extra_roots {
        let extra = read_certificates(path).map_err(|error| DirectoryError::Roots(error.to_string()))?;
        for root in extra {
            roots.add(root).map_err(|error| DirectoryError::Roots(format!("{}: {error}", path.display())))?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| DirectoryError::Roots(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

fn fetch_error(mirror: &Mirror, reason: impl Into<String>) -> DirectoryError {
    DirectoryError::Fetch { mirror: mirror.to_string(), reason: reason.into() }
}

fn last_good_error(path: &Path, reason: impl fmt::Display) -> DirectoryError {
    DirectoryError::LastGood { path: path.display().to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_mirror_is_given_up() {
        // Accepts, and never says a word.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mirror: Mirror = format!("https://{}/directory", listener.local_addr().unwrap()).parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let key = crate::trust::note::Signer::generate("one").unwrap().verifier();
        let options = SourceOptions {
            mirrors: vec![mirror],
            council: vec![key],
            threshold: 1,
            last_good: folder.path().join("last-good"),
            extra_roots: None,
        };
        let mut source = Source::open(options, OffsetDateTime::UNIX_EPOCH).unwrap();
        source.fetch_time = Duration::from_millis(50);
        let refused = source.poll(OffsetDateTime::UNIX_EPOCH).await.unwrap_err().to_string();
        assert!(refused.contains("no answer within 50ms"), "{refused}");
    }

    #[test]
    fn descriptor_sets_lie_beside_the_directory() {
        for (mirror, beside) in [
            ("https://a.example/kg/directory", "https://a.example/kg/x.binpb"),
            ("https://a.example/directory?x=1", "https://a.example/x.binpb"),
            ("https://a.example", "https://a.example/x.binpb"),
            ("/srv/directory", "/srv/x.binpb"),
            ("directory", "x.binpb"),
        ] {
            assert_eq!(mirror.parse::<Mirror>().unwrap().beside("x.binpb").to_string(), beside);
        }
    }
}
