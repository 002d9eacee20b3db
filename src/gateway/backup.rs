//! A running node hands out copies of its log, on a socket in its data folder: whoever may write there may have them, and nobody else.
//!
//! ```text
//! asked      one line, "kopuro-backup/v1 log" or "kopuro-backup/v1 shred"
//! answered   pieces: length(u32, big-endian) ‖ bytes; a length of 0 is the end, ff ff ff ff an error, told to the end of the stream
//! ```
//!
//! The answer is what [`Log::backup`] writes, in the clear: whoever asks encrypts it. The node waits for a slow reader within bounds, on a
//! thread of its own that its end does not wait for, and serves one at a time.

use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::exchange::unix_ms;
use crate::log::Log;
use crate::log::backup::{BackupError, Part};
use crate::telemetry::metrics::NodeMetrics;

/// The socket's name in the data folder.
const SOCKET: &str = "backup.sock";
const ASK: &str = "kopuro-backup/v1";
const PIECE: usize = 256 << 10;
const ERROR: u32 = u32::MAX;
/// How long the other side may take for one piece, and to ask.
const PATIENCE: Duration = Duration::from_secs(60);
const ASK_PATIENCE: Duration = Duration::from_secs(5);

/// Serves until stopped.
pub(super) async fn serve(log: Log, data: PathBuf, metrics: Arc<NodeMetrics>, stop: CancellationToken) {
    let path = data.join(SOCKET);
    // Nobody else has this folder: what is left there is of a node that was killed.
    let _ = std::fs::remove_file(&path);
    let bound = UnixListener::bind(&path).and_then(|listener| {
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok((listener, std::fs::metadata(&path)?.uid()))
    });
    let (listener, owner) = match bound {
        Ok(bound) => bound,
        Err(error) => {
            tracing::warn!(socket = %path.display(), %error, "no backup can be made while the node runs");
            return;
        }
    };
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = stream else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Until the permissions were set others could connect.
        if !stream.peer_cred().is_ok_and(|peer| [0, owner].contains(&peer.uid())) {
            continue;
        }
        let Ok(stream) = stream.into_std() else { continue };
        let (log, metrics) = (log.clone(), metrics.clone());
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        let answering = std::thread::Builder::new().name("backup".into()).spawn(move || {
            match answer(&log, &stream) {
                Ok(part) => {
                    tracing::info!(?part, entries = log.checkpoint().size, "a backup was handed out");
                    if part == Part::Log {
                        metrics.backed_up(unix_ms() / 1_000);
                    }
                }
                Err(error) => tracing::warn!(%error, "a backup was broken off"),
            }
            drop(done);
        });
        if answering.is_ok() {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = is_done => {}
            }
        }
    }
    let _ = std::fs::remove_file(&path);
}

fn answer(log: &Log, stream: &UnixStream) -> Result<Part, BackupError> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ASK_PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut asked = String::new();
    BufReader::new(stream).take(64).read_line(&mut asked)?;
    let part = match asked.trim_end().strip_prefix(ASK) {
        Some(" log") => Part::Log,
        Some(" shred") => Part::Shred,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("asked for {asked:?}")).into()),
    };
    let written = log.backup(part, BufWriter::with_capacity(PIECE, Pieces(stream)), unix_ms());
    let mut stream = stream;
    match written {
        Ok(()) => stream.write_all(&0_u32.to_be_bytes())?,
        Err(error) => {
            stream.write_all(&ERROR.to_be_bytes())?;
            stream.write_all(error.to_string().as_bytes())?;
            return Err(error);
        }
    }
    Ok(part)
}

/// Each write is a piece.
struct Pieces<'a>(&'a UnixStream);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let piece = &bytes[..bytes.len().min(PIECE)];
        self.0.write_all(&(piece.len() as u32).to_be_bytes())?;
        self.0.write_all(piece)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A part of a backup as a running node gives it. Ends where the node says that it is whole; any other end is an error.
#[derive(Debug)]
pub struct FromNode {
    stream: BufReader<UnixStream>,
    /// Bytes left of the piece that is being read.
    left: usize,
    ended: bool,
}

impl FromNode {
    /// Asks the node that runs on this data folder; none where none does.
    pub fn ask(data: &Path, part: Part) -> io::Result<Option<Self>> {
        let stream = match UnixStream::connect(data.join(SOCKET)) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let part = match part {
            Part::Log => "log",
            Part::Shred => "shred",
        };
        (&stream).write_all(format!("{ASK} {part}\n").as_bytes())?;
        Ok(Some(Self { stream: BufReader::with_capacity(PIECE, stream), left: 0, ended: false }))
    }
}

impl Read for FromNode {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            let mut length = [0; 4];
            self.stream.read_exact(&mut length)?;
            match u32::from_be_bytes(length) {
                0 => self.ended = true,
                ERROR => {
                    let mut told = String::new();
                    (&mut self.stream).take(4_096).read_to_string(&mut told)?;
                    return Err(io::Error::other(format!("the node says: {told}")));
                }
                length => self.left = length as usize,
            }
        }
        let most = into.len().min(self.left);
        if most == 0 {
            return Ok(0);
        }
        let read = self.stream.read(&mut into[..most])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the node broke off"));
        }
        self.left -= read;
        Ok(read)
    }
}
