//! `kopuro restore`: a data folder from a backup, whole or not at all, that signs nothing until it is known to be the newest.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use time::OffsetDateTime;

use crate::config;
use crate::log::Checkpoint;
use crate::log::backup::{Restoring, head_of};
use crate::log::restored::{Beyond, Marker};
use crate::log::sealing_key::SealingKeySource;
use crate::oversight::published::{self, Place, Publication, PublishedTree};
use crate::trust::file::{self, Access, Existing};
use crate::trust::note::Verifier;
use crate::trust::secret::SecretSource;

use super::backup::{identities, log_keys, open};

/// Bundles fetched ahead.
const AHEAD: usize = 8;

/// What `kopuro restore` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder must not be there, or be empty: keep the old one aside, and name it with --remains, so that it can still tell how far the log
had come. The node then starts as usual, and takes nothing until every peer, its publication and its witnesses have said that they
have seen no newer log; /readyz tells who is still to answer.

Examples:
  kopuro restore civil-2026-11-25.log.age --shred civil.shred.age --identity backup.key --config node.toml --sealing-key seal.key
  kopuro restore civil-2026-11-25.log.age --shred civil.shred.age --identity backup.key --config node.toml \\
      --published https://gw.civil.kg/log --remains data.broken
  kopuro restore --config node.toml --without KG/GOV/70000009/_node/main")]
pub(super) struct Args {
    /// The backup: entries and sealed halves
    #[arg(value_name = "FILE", required_unless_present = "without")]
    backup: Option<PathBuf>,
    /// The shred keys: those made with the backup, or later
    #[arg(long, value_name = "FILE", required_unless_present_any = ["without_private_values", "without"])]
    shred: Option<PathBuf>,
    /// Give up all private values: there are no shred keys any more
    #[arg(long, conflicts_with = "shred")]
    without_private_values: bool,
    /// The file of the key that the backup is encrypted to
    #[arg(long, value_name = "FILE", required_unless_present = "without")]
    identity: Option<PathBuf>,
    /// The node's configuration: its data folder, log key and sealing key
    #[arg(long, value_name = "FILE", env = "KOPURO_CONFIG", default_value = "node.toml")]
    config: PathBuf,
    /// The folder to restore to, without a configuration
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// A public key of the log, name+hash+key: without a configuration, and each one by which it has signed before its key was changed
    #[arg(long, value_name = "KEY")]
    vkey: Vec<String>,
    /// The sealing key, to check every private half; it is put into the folder
    #[arg(long, value_name = "FILE")]
    sealing_key: Option<PathBuf>,
    /// Where the log is published: entries that the backup lacks are taken from there
    #[arg(long, value_name = "URL|FOLDER")]
    published: Option<Place>,
    /// Root certificates for HTTPS besides the system's, PEM
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// What is left of the old data folder
    #[arg(long, value_name = "FOLDER")]
    remains: Option<PathBuf>,
    /// Do not wait for the answer of this node (KG/GOV/…/_node/main) or witness (by its name in the policy); of a folder that is
    /// restored already where no FILE is given
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,
    /// Restore although entries are lost: to be read, never to go on
    #[arg(long)]
    accept_loss: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    runtime.block_on(async move { tokio::task::spawn_blocking(move || args.restore(&handle)).await? })
}

/// Where to, whose log, and where the sealing key is, if it is known.
struct Target {
    data: PathBuf,
    log: Vec<Verifier>,
    sealing_key: Option<SealingKeySource>,
}

impl Args {
    fn target(&self) -> anyhow::Result<Target> {
        if let (Some(data), false) = (&self.data, self.vkey.is_empty()) {
            return Ok(Target { data: data.clone(), log: log_keys(&self.vkey)?, sealing_key: self.sealing_key() });
        }
        let config = config::load(&self.config)?;
        let data = self.data.clone().unwrap_or_else(|| config.node.data.clone());
        let mut log = log_keys(&self.vkey)?;
        match config.log_signers() {
            Ok(signers) => log.extend(signers.verifiers()),
            Err(error) if log.is_empty() => return Err(error.into()),
            Err(_) => {}
        }
        // The usual one is in the folder that is still to be made.
        let configured =
            Some(config.sealing_key()).filter(|key| *key != SealingKeySource::in_folder(&config.node.data));
        Ok(Target { data, log, sealing_key: self.sealing_key().or(configured) })
    }

    fn sealing_key(&self) -> Option<SealingKeySource> {
        self.sealing_key.clone().map(|path| SealingKeySource::Secret(SecretSource::File(path)))
    }

    fn restore(self, runtime: &tokio::runtime::Handle) -> anyhow::Result<ExitCode> {
        let Some(backup) = &self.backup else { return self.amend() };
        let identity = self.identity.as_ref().context("the key that the backup is encrypted to: --identity FILE")?;
        if self.shred.is_none() && !self.without_private_values {
            bail!("the shred keys: --shred FILE; or --without-private-values, which gives all private values up");
        }
        let Target { data, log, sealing_key } = self.target()?;
        let identities = identities(identity)?;
        let named = || backup.display().to_string();
        let mut restoring = Restoring::begin(&data, &log, open(backup, &identities)?).with_context(named)?;
        let made = restoring.kept().manifest.time_unix_ms;
        let had = restoring.checkpoint().size;
        if let Some(place) = &self.published {
            self.extend(&mut restoring, place, &log, runtime)?;
        }
        match &self.shred {
            Some(shred) => {
                let keys = open(shred, &identities)?;
                restoring.shred_keys(keys).with_context(|| shred.display().to_string())?;
            }
            None => restoring.without_private_values()?,
        }
        let now = i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000)?;
        let mut marker = Marker::new(restoring.checkpoint().size, made, now);
        marker.without.clone_from(&self.without);
        marker.beyond = self.look_at_remains(&restoring, &log)?;
        let restored = restoring.finish(sealing_key.as_ref(), &marker).with_context(named)?;
        if let Some(path) = &self.sealing_key {
            let key = zeroize::Zeroizing::new(std::fs::read(path).with_context(|| path.display().to_string())?);
            let place = data.join("seal.key");
            file::write(&place, &key, Access::Secret, Existing::Keep).with_context(|| place.display().to_string())?;
        }
        println!(
            "restored  {}: {} entries, root {}",
            data.display(),
            restored.checkpoint.size,
            restored.checkpoint.root
        );
        if restored.checkpoint.size > had {
            println!(
                "published {} of them were published after the backup; their private values are lost",
                restored.checkpoint.size - had
            );
        }
        match restored.opened {
            Some(opened) => println!("private   {opened} halves open, {} are lost", restored.lost),
            None => println!("private   not opened: no --sealing-key; {} are lost", restored.lost),
        }
        match &marker.beyond {
            Some(beyond) => println!("to read   entries are lost ({}): no node opens it any more", beyond.seen_by),
            None => println!(
                "waiting   the node takes nothing until peers, publication and witnesses have seen no newer log"
            ),
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Says of a folder that is restored already whose answer is not waited for.
    fn amend(&self) -> anyhow::Result<ExitCode> {
        let data = match &self.data {
            Some(data) => data.clone(),
            None => config::load(&self.config)?.node.data,
        };
        let Some(mut marker) = Marker::read(&data)? else {
            bail!("{}: it does not wait for anybody: not restored, or confirmed already", data.display());
        };
        marker
            .without
            .extend(self.without.iter().filter(|name| !marker.without.contains(name)).cloned().collect::<Vec<_>>());
        marker.write(&data)?;
        println!("not waited for: {}", marker.without.join(", "));
        Ok(ExitCode::SUCCESS)
    }

    /// Takes what was published after the backup.
    fn extend(
        &self,
        restoring: &mut Restoring,
        place: &Place,
        log: &[Verifier],
        runtime: &tokio::runtime::Handle,
    ) -> anyhow::Result<()> {
        let publication = Publication::new(place.clone(), self.roots.as_deref())?;
        let checkpoint =
            Checkpoint::verify(&runtime.block_on(publication.checkpoint())?, log).with_context(|| place.to_string())?;
        let had = restoring.checkpoint().clone();
        if checkpoint.size <= had.size {
            if let Some(root) = restoring.root_at(checkpoint.size)?.filter(|root| *root != checkpoint.root) {
                bail!(
                    "{place}: root {} published for {} entries, the backup's is {root}: two histories",
                    checkpoint.root,
                    checkpoint.size
                );
            }
            println!("published {place} has {} entries, no more than the backup", checkpoint.size);
            return Ok(());
        }
        let tree = Arc::new(runtime.block_on(PublishedTree::open(publication, checkpoint.clone()))?);
        runtime.block_on(tree.extends(&had)).with_context(|| place.to_string())?;
        let mut bundles = published::bundles(&tree, had.size, AHEAD);
        restoring.extend::<anyhow::Error>(&checkpoint, |_| match runtime.block_on(bundles.next()) {
            Some(bundle) => Ok(bundle?.1),
            None => Ok(Vec::new()),
        })
    }

    /// What the old data folder still tells: how far the log had come.
    fn look_at_remains(&self, restoring: &Restoring, log: &[Verifier]) -> anyhow::Result<Option<Beyond>> {
        let Some(remains) = &self.remains else { return Ok(None) };
        let size = restoring.checkpoint().size;
        let published = std::fs::read_to_string(remains.join("published")).ok();
        let published = published.and_then(|note| Checkpoint::verify(&note, log).ok());
        let head = head_of(remains, log)?;
        if head.is_none() && published.is_none() {
            bail!("{}: neither `head` nor `published` of this log can be read there", remains.display());
        }
        for (file, seen) in [("head", head), ("published", published)] {
            let Some(seen) = seen else { continue };
            let is_other = seen.size <= size && restoring.root_at(seen.size)?.is_some_and(|root| root != seen.root);
            if seen.size <= size && !is_other {
                continue;
            }
            let seen_by = remains.join(file).display().to_string();
            if self.accept_loss {
                return Ok(Some(Beyond { seen_by, checkpoint: seen.note }));
            }
            if is_other {
                bail!("{seen_by}: of {} entries, and not those of the backup: two histories", seen.size);
            }
            bail!(
                "{seen_by}: {} entries were acknowledged, and there are {size}: entries {size} to {} are lost. Take them from where the log is \
                 published (--published), or from a later backup; --accept-loss restores what there is, to be read and never to go on",
                seen.size,
                seen.size - 1
            );
        }
        Ok(None)
    }
}
