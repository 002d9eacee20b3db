//! `kopuro pki renew`: a new key and certificate for the same identity and names, when the old one's end is near. To be run by a
//! timer beside the CA; a node takes the new files up by itself.

use std::path::PathBuf;

use anyhow::{Context, bail};
use time::OffsetDateTime;

use super::{put, suffixed};
use crate::trust::certificate::read_certificates;
use crate::trust::file::Access;
use crate::trust::pki::{Authority, Validity, names_of};

#[derive(Debug, clap::Args)]
pub(super) struct Renew {
    /// The member's CA: a folder that `init` made
    #[arg(long, value_name = "FOLDER")]
    ca: PathBuf,
    /// The certificate to renew; replaced together with its key
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Only when it ends within so many days; 0: now
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=1825))]
    within: u32,
    /// How long the new certificate is good for
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=1825))]
    days: u32,
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
        if !self.key.exists() {
            bail!("{}: there is no key to replace", self.key.display());
        }
        let issued = Authority::load(&self.ca)?.issue(&identity, &sans, Validity::days(now, self.days))?;
        // Both are written whole before either is put in place, so that they differ for as short as can be.
        let (key, certificate) = (suffixed(&self.key, "new"), suffixed(&self.certificate, "new"));
        put(&key, issued.key_pem.as_bytes(), Access::Secret, true)?;
        put(&certificate, issued.cert_pem.as_bytes(), Access::Public, true)?;
        for (new, old) in [(&key, &self.key), (&certificate, &self.certificate)] {
            std::fs::rename(new, old).with_context(|| old.display().to_string())?;
        }
        println!("renewed            {path} (serial {}, {} days)", issued.serial_hex, self.days);
        Ok(())
    }
}
