//! Descriptor sets that the directory names and nobody has put into `directory.descriptors`: fetched from beside the directory at its
//! mirrors, verified by their names, and kept in the data folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;

use crate::config::NodeConfig;
use crate::trust::directory::{Directory, Source};
use crate::trust::file::{self, Access, Existing};

/// Where they are kept, beside the last good directory.
pub(super) const FOLDER: &str = "descriptors";
/// As many are fetched at once.
const AT_ONCE: usize = 8;
/// For all of them; what is missing then is asked for again at the next poll.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the set with this digest is, or would be: among the operator's own, else among those that were fetched.
pub(super) fn find(config: &NodeConfig, fetched: &Path, digest: &[u8; 32]) -> PathBuf {
    let name = format!("{}.binpb", hex::encode(digest));
    let own = config.directory.descriptors.join(&name);
    let other = fetched.join(name);
    if !own.exists() && other.exists() { other } else { own }
}

/// Fetches what is missing, and forgets what was fetched for earlier directories. How many came.
pub(super) async fn fetch(config: &NodeConfig, source: &Source, directory: &Directory, fetched: &Path) -> usize {
    let named: BTreeSet<_> = directory.services.iter().map(|service| service.descriptors).collect();
    forget_others(fetched, &named);
    let missing: Vec<[u8; 32]> =
        named.iter().filter(|digest| !find(config, fetched, digest).exists()).copied().collect();
    if missing.is_empty() {
        return 0;
    }
    let mut came = 0;
    let fetching = async {
        let mut sets = futures_util::stream::iter(missing)
            .map(|digest| async move { (digest, source.descriptor_set(&digest).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((digest, set)) = sets.next().await {
            let kept = match set {
                Ok(set) => keep(fetched, &digest, &set).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match kept {
                Ok(()) => came += 1,
                Err(error) => tracing::warn!(set = hex::encode(digest), %error, "a descriptor set is not there"),
            }
        }
    };
    if tokio::time::timeout(PATIENCE, fetching).await.is_err() {
        tracing::warn!(patience = ?PATIENCE, "descriptor sets did not come in time");
    }
    came
}

fn keep(folder: &Path, digest: &[u8; 32], set: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}.binpb", hex::encode(digest)));
    file::write(&path, set, Access::Public, Existing::Replace).map_err(std::io::Error::other)
}

fn forget_others(folder: &Path, named: &BTreeSet<[u8; 32]>) {
    let Ok(files) = std::fs::read_dir(folder) else { return };
    for path in files.flatten().map(|file| file.path()) {
        let digest = path.file_stem().and_then(|stem| hex::decode(stem.as_encoded_bytes()).ok());
        let is_named =
            digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok()).is_some_and(|digest| named.contains(&digest));
        if !is_named {
            // What cannot be removed is in nobody's way.
            let _ = std::fs::remove_file(path);
        }
    }
}
