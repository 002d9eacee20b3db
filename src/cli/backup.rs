//! `kopuro backup`: an encrypted copy of a log, of a running node or a stopped one; and what there is to know of such a copy.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::NamedTempFile;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::config::{self, units};
use crate::gateway::backup::FromNode;
use crate::log::LogError;
use crate::log::backup::{Manifest, Part, verify_log, verify_shred};
use crate::log::closed::ClosedLog;
use crate::trust::age::{Decryptor, Encryptor, Identity, Recipient};
use crate::trust::file::{self, Access, Existing};
use crate::trust::note::Verifier;

/// Copied at once.
const PIECE: usize = 64 << 10;
/// How much of the beginning is looked at, to say what was copied.
const BEGINNING: usize = 8 << 10;

/// What `kopuro backup` takes.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Entries, sealed private halves and what is known of peers go to --to, a new file each time. The keys without which no private half
opens go to --shred-to, which is replaced each time: keep one, and what is erased after a backup is erased in all backups with the
next one. Both are age files: `age -d -i backup.key FILE | tar t` lists what is in them. Not in them are node.toml, the log's
key, the sealing key and certificates: keep those elsewhere.

Examples:
  kopuro backup keygen --out backup.key
  kopuro backup --config node.toml --recipient age1… --to civil-2026-11-25.log.age --shred-to civil.shred.age
  kopuro backup verify civil-2026-11-25.log.age --shred civil.shred.age --identity backup.key --vkey 'gw.civil.kg/log+…'"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The node's configuration, which names its data folder
    #[arg(long, value_name = "FILE", env = "KOPURO_CONFIG", default_value = "node.toml")]
    config: PathBuf,
    /// The data folder, without a configuration. Where a node runs on it, it is asked
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// The new file for entries and sealed halves
    #[arg(long, value_name = "FILE", required = true)]
    to: Option<PathBuf>,
    /// The file for the shred keys, replaced where it is there
    #[arg(long, value_name = "FILE", required = true)]
    shred_to: Option<PathBuf>,
    /// The public key to encrypt to, age1…; may be given several times
    #[arg(long, value_name = "KEY", required = true)]
    recipient: Vec<Recipient>,
    /// At most so much a second, as 20MiB
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    rate: Option<u64>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a key for backups: the file is secret and stays off the node, the public key is printed
    Keygen {
        /// The new file
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
    /// Read a backup to its end and compare all of it with what the log's key signed
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// The backup: entries and sealed halves
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    /// The shred keys
    #[arg(long, value_name = "FILE")]
    shred: Option<PathBuf>,
    /// The file of the key that it is encrypted to
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// The log's public key: name+hash+key. Once for each by which it has signed, where its key was changed
    #[arg(long, value_name = "KEY", required = true)]
    vkey: Vec<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(Command::Keygen { out }) => return keygen(&out),
        Some(Command::Verify(verify)) => return verify.run(),
        None => {}
    }
    let data = match args.data {
        Some(data) => data,
        None => config::load(&args.config)?.node.data,
    };
    let (Some(to), Some(shred_to)) = (&args.to, &args.shred_to) else { bail!("--to and --shred-to") };
    if to.exists() {
        bail!("{} is there already: a backup is a new file", to.display());
    }
    let manifest = copy(&data, Part::Log, &args.recipient, args.rate, to, Existing::Keep)?;
    let shred = copy(&data, Part::Shred, &args.recipient, args.rate, shred_to, Existing::Replace)
        .with_context(|| format!("{} is made, and has no use without the shred keys", to.display()))?;
    let from = if manifest.first > 0 { format!(" from entry {}", manifest.first) } else { String::new() };
    println!("backup: {} entries of {}{from}; shred keys of {}", manifest.size, manifest.origin, shred.size);
    Ok(ExitCode::SUCCESS)
}

fn keygen(out: &Path) -> anyhow::Result<ExitCode> {
    let identity = Identity::generate()?;
    let recipient = identity.recipient()?;
    let text = Zeroizing::new(format!("# public key: {recipient}\n{}\n", &*identity.to_encoded()));
    file::write(out, text.as_bytes(), Access::Secret, Existing::Keep).with_context(|| out.display().to_string())?;
    println!("{recipient}");
    Ok(ExitCode::SUCCESS)
}

/// Copies one part into a file that is there whole or not at all.
fn copy(
    data: &Path,
    part: Part,
    recipients: &[Recipient],
    rate: Option<u64>,
    to: &Path,
    existing: Existing,
) -> anyhow::Result<Manifest> {
    let named = || to.display().to_string();
    let folder = to.parent().filter(|folder| *folder != Path::new("")).unwrap_or_else(|| Path::new("."));
    let file = NamedTempFile::new_in(folder).with_context(named)?;
    let handle = file.as_file().try_clone().with_context(named)?;
    let output = Encryptor::new(recipients, io::BufWriter::with_capacity(PIECE, handle))?;
    let mut output = Copied { output, rate, started: Instant::now(), bytes: 0, beginning: Zeroizing::default() };
    match FromNode::ask(data, part).with_context(|| data.display().to_string())? {
        Some(mut from) => {
            let mut piece = Zeroizing::new(vec![0; PIECE]);
            loop {
                match from.read(&mut piece)? {
                    0 => break,
                    read => output.write_all(&piece[..read]).with_context(named)?,
                }
            }
        }
        None => {
            let log = ClosedLog::open(data).map_err(explained)?;
            let now = i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000)?;
            log.backup(data, part, &mut output, now).with_context(named)?;
        }
    }
    let manifest = manifest(&output.beginning).context("what was copied does not begin as a backup does")?;
    let Copied { output, .. } = output;
    output.finish().with_context(named)?;
    file.as_file().sync_all().with_context(named)?;
    match existing {
        Existing::Keep => file.persist_noclobber(to).map(drop).map_err(|error| error.error),
        Existing::Replace => file.persist(to).map(drop).map_err(|error| error.error),
    }
    .with_context(named)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(named)?;
    Ok(manifest)
}

fn manifest(beginning: &[u8]) -> anyhow::Result<Manifest> {
    let mut tar = tar::Archive::new(beginning);
    let first = tar.entries()?.next().context("it is empty")??;
    Ok(serde_json::from_reader(first)?)
}

/// What passes on the way to the file, no faster than asked.
struct Copied<W: Write> {
    output: Encryptor<W>,
    rate: Option<u64>,
    started: Instant,
    bytes: u64,
    beginning: Zeroizing<Vec<u8>>,
}

impl<W: Write> Write for Copied<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        let room = BEGINNING.saturating_sub(self.beginning.len());
        self.beginning.extend_from_slice(&bytes[..written.min(room)]);
        self.bytes += written as u64;
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.bytes as f64 / rate.max(1) as f64);
            // Below the time after which the node gives up on whoever reads.
            std::thread::sleep(due.saturating_sub(self.started.elapsed()).min(Duration::from_secs(30)));
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

fn explained(error: LogError) -> anyhow::Error {
    let locked = matches!(error, LogError::Locked(_));
    let error = anyhow::Error::new(error);
    if locked {
        error.context("a node runs on this folder and hands out no backup: its own log says why")
    } else {
        error
    }
}

/// A log's public keys.
pub(super) fn log_keys(vkeys: &[String]) -> anyhow::Result<Vec<Verifier>> {
    let read = |vkey: &String| vkey.parse().with_context(|| format!("{vkey:?} is no verifier key (name+hash+key)"));
    vkeys.iter().map(read).collect()
}

/// Opens a backup's file with the identities of another.
pub(super) fn open(path: &Path, identities: &[Identity]) -> anyhow::Result<Decryptor<File>> {
    let named = || path.display().to_string();
    let file = File::open(path).with_context(named)?;
    Decryptor::new(identities, file).with_context(named)
}

/// The identities of a file.
pub(super) fn identities(path: &Path) -> anyhow::Result<Vec<Identity>> {
    let named = || path.display().to_string();
    let text = Zeroizing::new(std::fs::read_to_string(path).with_context(named)?);
    Identity::parse_file(&text).with_context(named)
}

impl Verify {
    fn run(self) -> anyhow::Result<ExitCode> {
        let log = log_keys(&self.vkey)?;
        let identities = identities(&self.identity)?;
        let named = |path: &Path| path.display().to_string();
        let kept = verify_log(open(&self.backup, &identities)?, &log).with_context(|| named(&self.backup))?;
        let manifest = &kept.manifest;
        let made = OffsetDateTime::from_unix_timestamp(manifest.time_unix_ms.div_euclid(1_000))?.format(&Rfc3339)?;
        println!("log     {}, {} entries, root {}", manifest.origin, kept.checkpoint.size, kept.checkpoint.root);
        println!("made    {made}, by kopuro {}", manifest.kopuro);
        if manifest.first > 0 {
            println!("first   entry {}: those before were pruned", manifest.first);
        }
        println!("good    {} commits, each signed; {} sealed private halves", kept.commits, kept.halves);
        if let Some(shred) = &self.shred {
            let keys = verify_shred(open(shred, &identities)?, &log).with_context(|| named(shred))?;
            if keys < kept.checkpoint.size {
                bail!("{}: of {keys} entries only: take those made with this backup, or later", named(shred));
            }
            println!("shred   keys of {keys} entries");
        }
        Ok(ExitCode::SUCCESS)
    }
}
