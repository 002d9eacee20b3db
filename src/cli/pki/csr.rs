//! `kopuro pki csr`: a request that a CA can sign, for a new key or one that is there, in a file or in a token.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use zeroize::Zeroizing;

use super::{put, refuse_existing, suffixed};
use crate::cli::token::TokenArgs;
use crate::trust::certificate::read_certificates;
use crate::trust::file::Access;
use crate::trust::identity::Identity;
use crate::trust::pki::{Sans, names_of, request, request_by_token, request_for};
use crate::trust::token::TlsKey;

#[derive(Debug, clap::Args)]
pub(super) struct Csr {
    /// Who: MEMBER/SYSTEM, MEMBER/_node/NAME or MEMBER/_auditor/NAME; for a CA's own request, MEMBER
    #[arg(long, value_name = "IDENTITY", required_unless_present = "like")]
    identity: Option<Identity>,
    /// A DNS name for clients that check host names; may be given several times
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An address for clients that check host names; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// Identity and names of this certificate, which is to be renewed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["identity", "dns", "ip"])]
    like: Option<PathBuf>,
    /// For the key in this file, instead of a new one
    #[arg(long, value_name = "FILE", conflicts_with = "pkcs11")]
    key: Option<PathBuf>,
    /// With --pkcs11: make the key in the token; it never leaves it
    #[arg(long, requires = "pkcs11")]
    make_key: bool,
    /// Where to: OUT.csr (for the CA), and for a new key that is in no token OUT.key (0600; stays here)
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    /// Overwrite OUT.key and OUT.csr
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    token: TokenArgs,
}

impl Csr {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let (identity, sans) = self.names()?;
        let csr = suffixed(&self.out, "csr");
        match (self.token.key()?, &self.key) {
            (Some(at), _) => {
                refuse_existing(&[&csr], self.force)?;
                let key = if self.make_key { TlsKey::generate(&at)? } else { TlsKey::open(&at)? };
                put(&csr, request_by_token(&key, &identity, &sans)?.as_bytes(), Access::Public, self.force)?;
                println!("key                {:?} in the token {:?} (stays there)", at.key, at.token);
            }
            (None, Some(path)) => {
                refuse_existing(&[&csr], self.force)?;
                let key = fs::read_to_string(path).with_context(|| path.display().to_string())?;
                let key = Zeroizing::new(key);
                let request = request_for(&key, &identity, &sans).with_context(|| path.display().to_string())?;
                put(&csr, request.as_bytes(), Access::Public, self.force)?;
                println!("key                {} (stays here)", path.display());
            }
            (None, None) => {
                let key = suffixed(&self.out, "key");
                refuse_existing(&[&key, &csr], self.force)?;
                let made = request(&identity, &sans)?;
                put(&key, made.key_pem.as_bytes(), Access::Secret, self.force)?;
                put(&csr, made.csr_pem.as_bytes(), Access::Public, self.force)?;
                println!("key                {} (stays here)", key.display());
            }
        }
        println!("request            {} (for the CA)", csr.display());
        Ok(())
    }

    fn names(&self) -> anyhow::Result<(Identity, Sans)> {
        match (&self.like, &self.identity) {
            (Some(path), _) => {
                let chain = read_certificates(path)?;
                let leaf = chain.first().with_context(|| format!("{}: no certificate in it", path.display()))?;
                let (identity, sans, _) = names_of(leaf).with_context(|| path.display().to_string())?;
                Ok((identity, sans))
            }
            (None, Some(identity)) => Ok((identity.clone(), Sans { dns: self.dns.clone(), ips: self.ip.clone() })),
            (None, None) => bail!("name whom the certificate is for: --identity, or --like CERTIFICATE"),
        }
    }
}
