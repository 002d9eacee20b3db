//! `kopuro pki`: a federation's root, members' CAs, certificates and revocation lists.

mod csr;
mod renew;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use time::{Duration, OffsetDateTime};

use crate::trust::certificate::read_certificates;
use crate::trust::file::{Access, Existing, write};
use crate::trust::identity::{Identity, MemberId};
use crate::trust::pki::{Authority, Sans, Validity, describe_certificate, describe_crl};

/// Keys and certificates of a federation.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  A federation with two members, for development:
    kopuro pki init --out pki --federation KG --member KG/GOV/70000005 --member KG/GOV/70000007
  A node, reachable by name and address, and a system of the first member:
    kopuro pki issue --ca pki/members/KG/GOV/70000005 --identity KG/GOV/70000005/_node/main \\
        --dns gw.civil.example --ip 127.0.0.1 --out node
    kopuro pki issue --ca pki/members/KG/GOV/70000005 --identity KG/GOV/70000005/civil-registry --out civil-registry
  The key made where it is used, and only certified by the CA:
    kopuro pki csr --identity KG/GOV/70000005/tax --out tax
    kopuro pki sign --ca pki/members/KG/GOV/70000005 --csr tax.csr --out tax.pem
  For a node whose key stays in a PKCS#11 token, made there:
    kopuro pki csr --identity KG/GOV/70000005/_node/main --out node --make-key \\
        --pkcs11 /usr/lib/softhsm/libsofthsm2.so --token kopuro --key-label node --pin-file pin
  To renew where the CA is elsewhere, for the key and the names that are in use:
    kopuro pki csr --like node.pem --key node.key --out node
  Renewed by a timer, when less than 30 days are left:
    kopuro pki renew --ca pki/members/KG/GOV/70000005 --certificate node.pem --key node.key
  Out of force:
    kopuro pki revoke --ca pki/members/KG/GOV/70000005 --certificate tax.pem")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a federation's root and one issuing CA per member, or add members to an existing root
    Init(Init),
    /// Make a key and a certificate for a node, a system or an auditor
    Issue(Issue),
    /// Make a key, and a request that its CA can sign; for a member, the request of its CA
    Csr(Box<csr::Csr>),
    /// Certify the key of a request
    Sign(Sign),
    /// Make a new certificate with the same names, and a new key where that is in a file, when the old one's end is near
    Renew(Box<renew::Renew>),
    /// Put a certificate out of force and write the new revocation list
    Revoke(Revoke),
    /// Write a fresh revocation list: do it before the last one is out of date
    Crl(Crl),
    /// Print certificates and revocation lists for people
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Init {
    /// Folder for the CAs: root/ and members/INSTANCE/CLASS/CODE/ in it
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// The federation: the first segment of every member
    #[arg(long, value_name = "NAME")]
    federation: String,
    /// A member that gets an issuing CA; give it once per member. One that has a CA keeps it
    #[arg(long = "member", value_name = "MEMBER")]
    members: Vec<MemberId>,
    /// How long the first revocation lists are good for
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=366))]
    crl_days: u32,
}

#[derive(Debug, clap::Args)]
struct Issue {
    /// The member's CA: a folder that `init` made
    #[arg(long, value_name = "FOLDER")]
    ca: PathBuf,
    #[command(flatten)]
    subject: Subject,
    /// How long the certificate is good for
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=1825))]
    days: u32,
    /// Where to: OUT.pem (certificate and its CA's) and OUT.key (0600)
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    /// Overwrite OUT.key and OUT.pem
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Subject {
    /// Who: MEMBER/SYSTEM, MEMBER/_node/NAME or MEMBER/_auditor/NAME
    #[arg(long, value_name = "IDENTITY")]
    identity: Identity,
    /// A DNS name for clients that check host names; may be given several times
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An address for clients that check host names; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
}

#[derive(Debug, clap::Args)]
struct Sign {
    /// The CA: a member's for its nodes, systems and auditors, the root for members' CAs
    #[arg(long, value_name = "FOLDER")]
    ca: PathBuf,
    /// The request, PEM
    #[arg(long, value_name = "FILE")]
    csr: PathBuf,
    /// How long the certificate is good for
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=1826))]
    days: u32,
    /// Where the certificate and its CA's go to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Revoke {
    /// The CA that issued it
    #[arg(long, value_name = "FOLDER")]
    ca: PathBuf,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Serial number in hex, as `show` prints it and issued.csv lists it
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,
    /// The certificate itself
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Crl {
    /// The CA whose list is renewed; may be given several times
    #[arg(long, value_name = "FOLDER", required = true)]
    ca: Vec<PathBuf>,
    /// How long the list is good for
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=366))]
    days: u32,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// PEM files with certificates or revocation lists
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let now = OffsetDateTime::now_utc();
    match args.command {
        Command::Init(init) => init.run(now),
        Command::Issue(issue) => issue.run(now),
        Command::Csr(csr) => csr.run(),
        Command::Sign(sign) => sign.run(now),
        Command::Renew(renew) => renew.run(now),
        Command::Revoke(revoke) => revoke.run(now),
        Command::Crl(crl) => crl.run(now),
        Command::Show(show) => show.run(now),
    }?;
    Ok(ExitCode::SUCCESS)
}

impl Init {
    fn run(&self, now: OffsetDateTime) -> anyhow::Result<()> {
        let next_update = now + Duration::days(self.crl_days.into());
        let root_folder = self.out.join("root");
        let mut root = if root_folder.join("ca.pem").exists() {
            let root = Authority::load(&root_folder)?;
            if root.federation() != self.federation {
                bail!("{} is the root of the federation {}", root_folder.display(), root.federation());
            }
            println!("root kept          {}", root_folder.display());
            root
        } else {
            let mut root = Authority::create_root(&self.federation, now)?;
            root.save(&root_folder)?;
            println!("root made          {}", root_folder.display());
            root
        };
        root.crl(now, next_update)?;
        for member in &self.members {
            let folder = self.out.join("members").join(member.as_str());
            if folder.join("ca.pem").exists() {
                println!("CA kept            {}", folder.display());
                continue;
            }
            let mut ca = root.issue_member_ca(member, now)?;
            ca.save(&folder)?;
            ca.crl(now, next_update)?;
            println!("CA made            {}", folder.display());
        }
        println!("nodes trust        {}", root_folder.join("ca.pem").display());
        println!("nodes check        {} and the ca.crl of every member", root_folder.join("ca.crl").display());
        Ok(())
    }
}

impl Issue {
    fn run(&self, now: OffsetDateTime) -> anyhow::Result<()> {
        let (key, certificate) = (suffixed(&self.out, "key"), suffixed(&self.out, "pem"));
        refuse_existing(&[&key, &certificate], self.force)?;
        let mut ca = Authority::load(&self.ca)?;
        let issued = ca.issue(&self.subject.identity, &self.subject.sans(), Validity::days(now, self.days))?;
        put(&key, issued.key_pem.as_bytes(), Access::Secret, self.force)?;
        put(&certificate, issued.cert_pem.as_bytes(), Access::Public, self.force)?;
        println!("certificate        {} (serial {}, {} days)", certificate.display(), issued.serial_hex, self.days);
        println!("key                {}", key.display());
        Ok(())
    }
}

impl Sign {
    fn run(&self, now: OffsetDateTime) -> anyhow::Result<()> {
        refuse_existing(&[&self.out], self.force)?;
        let csr = fs::read_to_string(&self.csr).with_context(|| self.csr.display().to_string())?;
        let mut ca = Authority::load(&self.ca)?;
        let certificate =
            ca.sign(&csr, Validity::days(now, self.days)).with_context(|| self.csr.display().to_string())?;
        put(&self.out, certificate.as_bytes(), Access::Public, self.force)?;
        println!("certificate        {} ({} days)", self.out.display(), self.days);
        Ok(())
    }
}

impl Revoke {
    fn run(&self, now: OffsetDateTime) -> anyhow::Result<()> {
        let serial = match (&self.which.serial, &self.which.certificate) {
            (Some(serial), _) => serial.clone(),
            (None, Some(path)) => leaf_serial(path)?,
            (None, None) => bail!("give --serial or --certificate"),
        };
        Authority::load(&self.ca)?.revoke(&serial, now)?;
        println!("revoked            {serial}");
        println!("revocation list    {} (give it to every node)", self.ca.join("ca.crl").display());
        Ok(())
    }
}

impl Crl {
    fn run(&self, now: OffsetDateTime) -> anyhow::Result<()> {
        for folder in &self.ca {
            Authority::load(folder)?.crl(now, now + Duration::days(self.days.into()))?;
            println!("revocation list    {} ({} days)", folder.join("ca.crl").display(), self.days);
        }
        Ok(())
    }
}

impl Show {
    fn run(&self, now: OffsetDateTime) -> anyhow::Result<()> {
        for path in &self.files {
            let text = fs::read(path).with_context(|| path.display().to_string())?;
            let mut shown = 0;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let certificate = certificate.with_context(|| path.display().to_string())?;
                println!("{}: certificate\n{}", path.display(), describe_certificate(&certificate, now)?);
                shown += 1;
            }
            for crl in CertificateRevocationListDer::pem_slice_iter(&text) {
                let crl = crl.with_context(|| path.display().to_string())?;
                println!("{}: revocation list\n{}", path.display(), describe_crl(&crl, now)?);
                shown += 1;
            }
            if shown == 0 {
                bail!("{}: neither a certificate nor a revocation list in it", path.display());
            }
        }
        Ok(())
    }
}

impl Subject {
    fn sans(&self) -> Sans {
        Sans { dns: self.dns.clone(), ips: self.ip.clone() }
    }
}

fn leaf_serial(path: &Path) -> anyhow::Result<String> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let chain = read_certificates(path)?;
    let leaf = chain.first().context("no certificate")?;
    let (_, parsed) = X509Certificate::from_der(leaf).with_context(|| path.display().to_string())?;
    Ok(hex::encode(parsed.raw_serial()))
}

/// Adds the ending to the whole name: `gw.civil` becomes `gw.civil.pem`.
fn suffixed(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// Before anything is made or recorded; writing itself checks again.
fn refuse_existing(paths: &[&PathBuf], force: bool) -> anyhow::Result<()> {
    match paths.iter().find(|path| !force && path.exists()) {
        Some(path) => bail!("{} exists; --force overwrites it", path.display()),
        None => Ok(()),
    }
}

fn put(path: &Path, content: &[u8], access: Access, force: bool) -> anyhow::Result<()> {
    let existing = if force { Existing::Replace } else { Existing::Keep };
    write(path, content, access, existing).with_context(|| path.display().to_string())
}
