//! `kopuro pki renew`: a new certificate for the same identity and names, when the old one's end is near; with a new key where that is in a
//! file, for the same key where it is in a token. To be run by a timer beside the CA; a node takes the new files up by itself.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use time::OffsetDateTime;

use super::{leaf_serial, put, suffixed};
use crate::cli::token::TokenArgs;
use crate::trust::certificate::read_certificates;
use crate::trust::file::Access;
use crate::trust::identity::Identity;
use crate::trust::pki::{Authority, Sans, Validity, names_of, request_by_token};
use crate::trust::token::TlsKey;

#[derive(Debug, clap::Args)]
pub(super) struct Renew {
    /// The member's CA: a folder that `init` made
    #[arg(long, value_name = "FOLDER")]
    ca: PathBuf,
    /// The certificate to renew; replaced together with its key
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its key
    #[arg(long, value_name = "FILE", required_unless_present = "pkcs11", conflicts_with = "pkcs11")]
    key: Option<PathBuf>,
    /// Only when it ends within so many days; 0: now
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=1825))]
    within: u32,
    /// How long the new certificate is good for
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=1825))]
    days: u32,
    #[command(flatten)]
    token: TokenArgs,
}

impl Renew {
    pub(super) fn run(&self, now: OffsetDateTime) -> anyhow::Result<()> {
        let path = self.certificate.display();
        let chain = read_certificates(&self.certificate).with_context(|| path.to_string())?;
        let leaf = chain.first().with_context(|| format!("{path}: no certificate in it"))?;
        let (identity, sans, not_after) = names_of(leaf).with_context(|| path.to_string())?;
        let left = (not_after - now).whole_days();
        if self.within > 0 && left >= i64::from(self.within) {
            println!("kept               {path} ({left} days left, renewed at {})", self.within);
            return Ok(());
        }
        let validity = Validity::days(now, self.days);
        let serial = match (self.token.key()?, &self.key) {
            // The key stays where it is.
            (Some(at), _) => {
                let csr = request_by_token(&TlsKey::open(&at)?, &identity, &sans)?;
                let chain = Authority::load(&self.ca)?.sign(&csr, validity)?;
                put(&self.certificate, chain.as_bytes(), Access::Public, true)?;
                leaf_serial(&self.certificate)?
            }
            (None, Some(key)) => self.replace_both(key, &identity, &sans, validity)?,
            (None, None) => bail!("name the key: --key FILE, or --pkcs11 MODULE and its token"),
        };
        println!("renewed            {path} (serial {serial}, {} days)", self.days);
        Ok(())
    }

    fn replace_both(
        &self,
        old_key: &Path,
        identity: &Identity,
        sans: &Sans,
        validity: Validity,
    ) -> anyhow::Result<String> {
        if !old_key.exists() {
            bail!("{}: there is no key to replace", old_key.display());
        }
        let issued = Authority::load(&self.ca)?.issue(identity, sans, validity)?;
        // Both are written whole before either is put in place, so that they differ for as short as can be.
        let key = put_beside(old_key, issued.key_pem.as_bytes(), Access::Secret)?;
        let certificate = put_beside(&self.certificate, issued.cert_pem.as_bytes(), Access::Public)?;
        for (new, old) in [(&*key, old_key), (&*certificate, &*self.certificate)] {
            std::fs::rename(new, old).with_context(|| old.display().to_string())?;
        }
        Ok(issued.serial_hex)
    }
}

/// Writes what is to take a file's place, under another name, with the same owner: whoever renews may be another than who runs the node.
fn put_beside(old: &Path, content: &[u8], access: Access) -> anyhow::Result<PathBuf> {
    let new = suffixed(old, "new");
    put(&new, content, access, true)?;
    let owner = |path: &Path| std::fs::metadata(path).map(|file| (file.uid(), file.gid()));
    let own = || -> std::io::Result<()> {
        let (uid, gid) = owner(old)?;
        if owner(&new)? == (uid, gid) { Ok(()) } else { chown(&new, Some(uid), Some(gid)) }
    };
    own().with_context(|| format!("{}: giving it the owner of {}", new.display(), old.display()))?;
    Ok(new)
}
