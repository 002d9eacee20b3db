//! Where a publication is kept: a folder, or an object store behind S3's, Google's or Azure's protocol.
//!
//! Every operation ends within [`LIMIT`] for whoever waits for it. One that hangs all the same (a dead network file
//! system) keeps its place among [`PLACES`], so that only so many threads can ever hang. A file in a folder is durable
//! when it has been put, and appears whole.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientConfigKey, GetOptions, GetRange, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, RetryConfig,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Semaphore;

/// The longest wait for one operation.
const LIMIT: Duration = Duration::from_secs(30);

/// What bounds one request to a cloud; whatever else the environment says of its client stays.
const CLIENT: [(ClientConfigKey, &str); 2] =
    [(ClientConfigKey::Timeout, "20s"), (ClientConfigKey::ConnectTimeout, "5s")];

/// How many operations run at once.
const PLACES: usize = 32;

/// A file larger than this is uploaded in parts of this size.
const PART: usize = 8 << 20;

/// What went wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its location is none.
    #[error("{location:?} is no store: {reason}")]
    Location {
        /// As configured.
        location: String,
        /// Why not.
        reason: String,
    },
    /// It answered with an error.
    #[error("{path}: {source}")]
    Failed {
        /// Which file.
        path: String,
        /// What it said.
        source: object_store::Error,
    },
    /// It did not answer in time.
    #[error("{0}: no answer within {LIMIT:?}")]
    Silent(String),
    /// A file is larger than it can be.
    #[error("{path}: {size} bytes, where at most {limit} make sense")]
    TooLarge {
        /// Which file.
        path: String,
        /// Its size.
        size: u64,
        /// The most that it can have.
        limit: usize,
    },
    /// A file to upload cannot be read.
    #[error("reading what is to be published")]
    Read(#[from] std::io::Error),
}

/// What a file is told to be, where the store itself serves it.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `Cache-Control`.
    pub cache: &'static str,
}

/// A folder or a bucket. Clones share its places.
#[derive(Clone)]
pub struct Store {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    /// Whether it takes content types.
    attributes: bool,
    places: Arc<Semaphore>,
}

/// A file being read.
pub struct Reading {
    /// How many bytes the whole file has.
    pub size: u64,
    /// Changes when the file does.
    pub tag: Option<String>,
    /// The bytes that were asked for.
    pub bytes: BoxStream<'static, object_store::Result<Bytes>>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Store {
    /// The store at a location: a path, or a URL. Asks it nothing and makes nothing.
    pub fn open(location: &str) -> Result<Self, StoreError> {
        let wrong = |reason: String| StoreError::Location { location: location.to_owned(), reason };
        let other = |error: object_store::Error| wrong(error.to_string());
        let (scheme, rest) = location.split_once("://").unwrap_or(("file", location));
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: 3, retry_timeout: Duration::from_secs(15) };
        let bucket_prefix = rest.split_once('/').map_or("", |(_, prefix)| prefix);
        let parse =
            |prefix: &str| ObjectPath::parse(prefix.trim_matches('/')).map_err(|error| wrong(error.to_string()));
        let (store, prefix): (Arc<dyn ObjectStore>, ObjectPath) = match scheme {
            "file" => {
                let folder = std::path::absolute(rest).map_err(|error| wrong(error.to_string()))?;
                let prefix = ObjectPath::from_absolute_path(folder).map_err(|error| wrong(error.to_string()))?;
                (Arc::new(LocalFileSystem::new().with_fsync(true)), prefix)
            }
            "s3" => {
                let mut builder = AmazonS3Builder::from_env().with_url(location).with_retry(retry);
                for (key, value) in CLIENT {
                    builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
                }
                let store = builder.build().map_err(other)?;
                (Arc::new(store), parse(bucket_prefix)?)
            }
            "gs" => {
                let mut builder = GoogleCloudStorageBuilder::from_env().with_url(location).with_retry(retry);
                for (key, value) in CLIENT {
                    builder = builder.with_config(GoogleConfigKey::Client(key), value);
                }
                let store = builder.build().map_err(other)?;
                (Arc::new(store), parse(bucket_prefix)?)
            }
            "az" => {
                let mut builder = MicrosoftAzureBuilder::from_env().with_url(location).with_retry(retry);
                for (key, value) in CLIENT {
                    builder = builder.with_config(AzureConfigKey::Client(key), value);
                }
                let store = builder.build().map_err(other)?;
                (Arc::new(store), parse(bucket_prefix)?)
            }
            _ => return Err(wrong("its scheme is not file, s3, gs or az".into())),
        };
        let attributes = scheme != "file";
        Ok(Self { store, prefix, attributes, places: Arc::new(Semaphore::new(PLACES)) })
    }

    /// A file of at most `limit` bytes; none where there is none.
    pub async fn get(&self, path: &str, limit: usize) -> Result<Option<Bytes>, StoreError> {
        let (store, at) = (self.store.clone(), self.at(path));
        let get = async move {
            let found = match store.get_opts(&at, GetOptions::default()).await {
                Ok(found) => found,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let size = found.meta.size;
            if size > limit as u64 {
                return Ok(Some(Err(size)));
            }
            found.bytes().await.map(|bytes| Some(Ok(bytes)))
        };
        match self.run(path, get).await? {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(size)) => Err(StoreError::TooLarge { path: path.to_owned(), size, limit }),
        }
    }

    /// Begins to read a file of any size, or a part of it; none where there is none. The waits for its parts are the reader's
    /// to bound.
    pub async fn read(&self, path: &str, part: Option<Range<u64>>) -> Result<Option<Reading>, StoreError> {
        let options = GetOptions { range: part.map(GetRange::Bounded), ..GetOptions::default() };
        self.read_with(path, options).await
    }

    /// A file's size and tag, as [`Self::read`] gives them, and none of its bytes.
    pub async fn head(&self, path: &str) -> Result<Option<Reading>, StoreError> {
        self.read_with(path, GetOptions { head: true, ..GetOptions::default() }).await
    }

    async fn read_with(&self, path: &str, options: GetOptions) -> Result<Option<Reading>, StoreError> {
        let (store, at) = (self.store.clone(), self.at(path));
        let get = async move {
            match store.get_opts(&at, options).await {
                Ok(found) => {
                    let (size, tag) = (found.meta.size, found.meta.e_tag.clone());
                    Ok(Some(Reading { size, tag, bytes: found.into_stream() }))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.run(path, get).await
    }

    /// Writes a file, in the place of one that is there.
    pub async fn put(&self, path: &str, bytes: Bytes, served: Served) -> Result<(), StoreError> {
        let (store, at) = (self.store.clone(), self.at(path));
        let options = PutOptions { attributes: self.attributes(served), ..PutOptions::default() };
        self.run(path, async move { store.put_opts(&at, bytes.into(), options).await.map(drop) }).await
    }

    /// Writes a file of any size, which appears whole when all of it is there.
    pub async fn upload(&self, path: &str, mut from: impl AsyncRead + Unpin, served: Served) -> Result<(), StoreError> {
        let mut part = next_part(&mut from).await?;
        if part.len() < PART {
            return self.put(path, part, served).await;
        }
        let (store, at) = (self.store.clone(), self.at(path));
        let options = PutMultipartOptions { attributes: self.attributes(served), ..PutMultipartOptions::default() };
        let mut upload = self.run(path, async move { store.put_multipart_opts(&at, options).await }).await?;
        let sent = async {
            while !part.is_empty() {
                self.run(path, upload.put_part(part.into())).await?;
                part = next_part(&mut from).await?;
            }
            Ok::<_, StoreError>(())
        };
        let sent = sent.await;
        self.run(path, async move {
            match sent {
                Ok(()) => upload.complete().await.map(|_| Ok(())),
                Err(error) => {
                    // What was sent is of no use; a store that cannot be told so drops it in its own time.
                    let _ = upload.abort().await;
                    Ok(Err(error))
                }
            }
        })
        .await?
    }

    /// Removes every file whose path begins with this folder's, at most `most`.
    pub async fn clear(&self, folder: &str, most: usize) -> Result<(), StoreError> {
        let (store, at) = (self.store.clone(), self.at(folder));
        let clear = async move {
            let mut listed = store.list(Some(&at)).take(most);
            while let Some(found) = listed.next().await {
                match store.delete(&found?.location).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        self.run(folder, clear).await
    }

    fn attributes(&self, served: Served) -> Attributes {
        if !self.attributes {
            return Attributes::new();
        }
        Attributes::from_iter([(Attribute::ContentType, served.content_type), (Attribute::CacheControl, served.cache)])
    }

    fn at(&self, path: &str) -> ObjectPath {
        path.split('/').fold(self.prefix.clone(), |at, part| at.join(part))
    }

    /// Runs an operation in one of the places, which it keeps until it has really ended.
    async fn run<T: Send + 'static>(
        &self,
        path: &str,
        operation: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let silent = || StoreError::Silent(path.to_owned());
        let running = async {
            let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| silent())?;
            let operation = tokio::spawn(async move {
                let result = operation.await;
                drop(place);
                result
            });
            let result = operation.await.map_err(|_| silent())?;
            result.map_err(|source| StoreError::Failed { path: path.to_owned(), source })
        };
        tokio::time::timeout(LIMIT, running).await.unwrap_or_else(|_| Err(silent()))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({}/{})", self.store, self.prefix)
    }
}

async fn next_part(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Bytes> {
    let mut part = Vec::new();
    from.take(PART as u64).read_to_end(&mut part).await?;
    Ok(part.into())
}
