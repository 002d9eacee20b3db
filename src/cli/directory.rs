//! `kopuro directory`: what a council does with the federation's signed list.

mod enrol;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::token::TokenArgs;
use crate::schema::{self, set};
use crate::trust::directory::{Directory, DirectoryError, Service, SignedDirectory};
use crate::trust::file::{Access, Existing, write};
use crate::trust::note::{Note, NoteError, Signer, Verifier};
use crate::trust::token::{self, KeyInToken, KeyKind};

/// The signed list of members, nodes, systems and services.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  A key for each member of the council; the printed line goes into directory.toml and every node.toml:
    kopuro directory keygen --name audit-chamber --out audit-chamber.key
  A log's key that never leaves its token:
    kopuro directory keygen --name gw.civil.kg/log --pkcs11 libsofthsm2.so --token kopuro --key-label log --pin-file pin
  The council signs, one after the other, each on their own machine; the file goes from one to the next:
    kopuro directory sign --source directory.toml --key audit-chamber.key --out directory
    kopuro directory sign --source directory.toml --key ombudsman.key --out directory
  The next version, for which the council of the version in force has to sign:
    kopuro directory diff directory.v6 directory.v7
    kopuro directory sign --source directory.toml --key ombudsman.key --previous directory.v6 --out directory.v7
    kopuro directory verify directory.v7 --previous directory.v6")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a signing key: for a member of the council, or for a node's log
    Keygen(Keygen),
    /// Add a member that wants to join to the directory's source, and certify its CA
    Enrol(enrol::Enrol),
    /// Make the directory from its source and sign it, or add signatures to it
    Sign(Sign),
    /// Check signatures, consistency and expiry; exit 0 only if a node would take it
    Verify(Verify),
    /// Print a directory for people
    Show(Show),
    /// Print what differs between two directories; exit 1 if anything does
    Diff(Diff),
}

#[derive(Debug, clap::Args)]
struct Keygen {
    /// Name of the key; for a node's log, the log's origin, as gw.civil.kg/log
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where the private key goes to (0600)
    #[arg(long, value_name = "FILE", required_unless_present = "pkcs11", conflicts_with = "pkcs11")]
    out: Option<PathBuf>,
    /// With --pkcs11: print the key that is in the token already, instead of making one
    #[arg(long, requires = "pkcs11")]
    existing: bool,
    #[command(flatten)]
    token: TokenArgs,
}

#[derive(Debug, clap::Args)]
struct Sign {
    /// directory.toml; descriptor sets that it names lie beside it
    #[arg(long, value_name = "FILE")]
    source: PathBuf,
    /// A private key that `keygen` made; may be given several times
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// The signed directory. If it is there with the same text, signatures are added to it. Descriptor sets are put
    /// beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The version in force, whose council has to sign
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// The signed directory
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    council: Council,
    /// Also look for every service's descriptor set in this folder
    #[arg(long, value_name = "FOLDER")]
    descriptors: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[group(required = true)]
struct Council {
    /// The version in force: its council and threshold count, and the version must be above it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["council", "threshold"])]
    previous: Option<PathBuf>,
    /// A council key, as `keygen` prints it; may be given several times
    #[arg(long, value_name = "VKEY", requires = "threshold")]
    council: Vec<Verifier>,
    /// How many of the council must have signed
    #[arg(long, value_name = "NUMBER", requires = "council")]
    threshold: Option<usize>,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The signed directory
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Diff {
    /// The older directory
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The newer directory
    #[arg(value_name = "NEW")]
    new: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let now = OffsetDateTime::now_utc();
    match args.command {
        Command::Keygen(keygen) => keygen.run(),
        Command::Enrol(enrol) => enrol.run(now),
        Command::Sign(sign) => sign.run(now),
        Command::Verify(verify) => verify.run(now),
        Command::Show(show) => show.run(now),
        Command::Diff(diff) => diff.run(),
    }
}

impl Keygen {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let signer = match (self.token.key()?, &self.out) {
            (Some(at), _) if self.existing => Signer::in_token(&self.name, KeyInToken::open(&at, KeyKind::Ed25519)?)?,
            (Some(at), _) => Signer::in_token(&self.name, token::generate(&at, KeyKind::Ed25519)?)?,
            (None, Some(out)) => {
                let signer = Signer::generate(&self.name)?;
                let mut encoded = signer.to_encoded();
                encoded.push('\n');
                write(out, encoded.as_bytes(), Access::Secret, Existing::Keep)
                    .with_context(|| out.display().to_string())?;
                signer
            }
            (None, None) => bail!("say where the key goes to: --out FILE, or --pkcs11 MODULE and its token"),
        };
        println!("{}", signer.verifier());
        Ok(ExitCode::SUCCESS)
    }
}

impl Sign {
    fn run(&self, now: OffsetDateTime) -> anyhow::Result<ExitCode> {
        let mut sets = DescriptorSets::beside(&self.source);
        let source = fs::read_to_string(&self.source).with_context(|| self.source.display().to_string())?;
        let directory = Directory::from_toml_with(&source, &mut |path| sets.look_up(path))
            .with_context(|| self.source.display().to_string())?;
        sets.check_services(&directory)?;
        if now >= directory.expires {
            bail!("{}: expires: {} has passed", self.source.display(), directory.expires);
        }
        let signers = self.keys.iter().map(|path| read_signer(path)).collect::<anyhow::Result<Vec<_>>>()?;

        // Who has to sign: the council in force, or for a first version its own.
        let (council, threshold) = match &self.previous {
            Some(path) => {
                let (_, previous) = read_note(path)?;
                if directory.version <= previous.version {
                    bail!(
                        "{}: version: {} is not above {}, which is in force",
                        self.source.display(),
                        directory.version,
                        previous.version
                    );
                }
                (previous.council, previous.threshold)
            }
            None => (directory.council.clone(), directory.threshold),
        };
        for signer in &signers {
            let is_ours = |council: &[Verifier]| council.contains(&signer.verifier());
            if !is_ours(&council) && !is_ours(&directory.council) {
                bail!("{} is not a key of the council", signer.verifier());
            }
        }

        let note = self.signed(&directory, &signers)?;
        let folder = self.out.parent().unwrap_or_else(|| Path::new(""));
        sets.put_into(folder)?;
        write(&self.out, note.to_string().as_bytes(), Access::Public, Existing::Replace)
            .with_context(|| self.out.display().to_string())?;
        let signed = count_signed(&note, &council)?;
        println!("directory          {} (version {})", self.out.display(), directory.version);
        match threshold.saturating_sub(signed) {
            0 => println!("signatures         {signed} of {}, enough", council.len()),
            missing => println!("signatures         {signed} of {}, {missing} more needed", council.len()),
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The note that is there with these signatures added, or a new one.
    fn signed(&self, directory: &Directory, signers: &[Signer]) -> anyhow::Result<Note> {
        let text = directory.to_text();
        let existing = if self.out.exists() { Some(read_note(&self.out)?) } else { None };
        let (mut note, rest) = match existing {
            Some((note, _)) if note.text() == text => (note, signers),
            Some((_, there)) if there.version >= directory.version => bail!(
                "{} has version {} with another text; the source's version is {}: raise it, or move the file away",
                self.out.display(),
                there.version,
                directory.version
            ),
            _ => {
                let (first, rest) = signers.split_first().context("no key given")?;
                (Note::parse(&first.sign(&text)?)?, rest)
            }
        };
        for signer in rest {
            note.add_signature(signer)?;
        }
        Ok(note)
    }
}

impl Verify {
    fn run(&self, now: OffsetDateTime) -> anyhow::Result<ExitCode> {
        let note = fs::read_to_string(&self.file).with_context(|| self.file.display().to_string())?;
        let (council, threshold, min_version) = match &self.council.previous {
            Some(path) => {
                let (_, previous) = read_note(path)?;
                (previous.council, previous.threshold, previous.version.saturating_add(1))
            }
            None => (self.council.council.clone(), self.council.threshold.unwrap_or_default(), 1),
        };
        let verified = SignedDirectory::verify(&note, &council, threshold, now, min_version)
            .with_context(|| self.file.display().to_string())?;
        let directory = verified.directory;
        if let Some(folder) = &self.descriptors {
            for service in &directory.services {
                let path = folder.join(set_name(&service.descriptors));
                let bytes = fs::read(&path).with_context(|| format!("{}: {}", service.name, path.display()))?;
                if Sha256::digest(&bytes)[..] != service.descriptors {
                    bail!("{}: {} has another SHA-256 than its name", service.name, path.display());
                }
                check_service(&bytes, service).map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))?;
            }
        }
        let signed = count_signed(&Note::parse(&note)?, &council)?;
        println!(
            "good: version {} of {}, signed by {signed} of {} ({threshold} needed), expires {}",
            directory.version,
            directory.federation,
            council.len(),
            expiry(&directory, now)
        );
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    fn run(&self, now: OffsetDateTime) -> anyhow::Result<ExitCode> {
        let (note, directory) = read_note(&self.file)?;
        println!(
            "federation {}, version {}, expires {}",
            directory.federation,
            directory.version,
            expiry(&directory, now)
        );
        println!("\ncouncil: {} of {} sign the next version", directory.threshold, directory.council.len());
        for key in &directory.council {
            println!("  {key}");
        }
        println!("\nsignatures (not verified here)");
        for signature in note.signatures() {
            println!("  {}+{}", signature.name, hex::encode(signature.key_id));
        }
        for member in &directory.members {
            println!("\n{}  {}", member.id, member.name_en);
            println!("  {}\n  {}", member.name_ky, member.name_ru);
            for node in directory.node_of(&member.id) {
                println!("  node     {} at {}, log {}", node.name, node.endpoint, node.log_key);
                node.more_log_keys.iter().for_each(|key| println!("           and its log by {key}"));
            }
            for system in directory.systems.iter().filter(|system| *system.id.member() == member.id) {
                println!("  system   {}", system.id.name());
                for service in directory.services.iter().filter(|service| service.provider == system.id) {
                    println!("    {}  {}", service.name, hex::encode(service.descriptors));
                }
            }
            for auditor in directory.auditors.iter().filter(|auditor| *auditor.identity.member() == member.id) {
                println!("  auditor  {}", auditor.identity);
            }
        }
        if !directory.purposes.is_empty() {
            println!("\npurposes");
        }
        for purpose in &directory.purposes {
            println!("  {}  {}", purpose.code, purpose.law);
            println!("    {}\n    {}\n    {}", purpose.ky, purpose.ru, purpose.en);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Diff {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let ((old, _), (new, _)) = (read_note(&self.old)?, read_note(&self.new)?);
        let (before, after): (BTreeSet<&str>, BTreeSet<&str>) =
            (old.text().lines().collect(), new.text().lines().collect());
        // In the order of the texts; every line of a directory stands once.
        for line in old.text().lines().filter(|line| !after.contains(line)) {
            println!("- {line}");
        }
        for line in new.text().lines().filter(|line| !before.contains(line)) {
            println!("+ {line}");
        }
        Ok(if old.text() == new.text() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Descriptor sets that a source names by path, by SHA-256.
struct DescriptorSets {
    folder: PathBuf,
    found: BTreeMap<[u8; 32], Vec<u8>>,
}

impl DescriptorSets {
    fn beside(source: &Path) -> Self {
        Self { folder: source.parent().unwrap_or_else(|| Path::new("")).into(), found: BTreeMap::new() }
    }

    fn look_up(&mut self, path: &str) -> Result<[u8; 32], String> {
        let path = self.folder.join(path);
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let digest = Sha256::digest(&bytes).into();
        self.found.insert(digest, bytes);
        Ok(digest)
    }

    fn check_services(&self, directory: &Directory) -> anyhow::Result<()> {
        for service in &directory.services {
            if let Some(bytes) = self.found.get(&service.descriptors) {
                check_service(bytes, service).map_err(|reason| anyhow::anyhow!("{}: {reason}", service.name))?;
            }
        }
        Ok(())
    }

    fn put_into(&self, folder: &Path) -> anyhow::Result<()> {
        for (digest, bytes) in &self.found {
            let path = folder.join(set_name(digest));
            write(&path, bytes, Access::Public, Existing::Replace).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

fn set_name(digest: &[u8; 32]) -> String {
    format!("{}.binpb", hex::encode(digest))
}

/// That the set defines the service, and that a node would serve it.
fn check_service(bytes: &[u8], service: &Service) -> Result<(), String> {
    let pool = set::read(bytes).map_err(|faults| format!("not a descriptor set: {}", set::words(&faults)))?;
    match pool.get_service_by_name(&service.name) {
        Some(found) => match schema::check_service(&found, &service.provider).first() {
            None => Ok(()),
            Some(error) => Err(error.to_string()),
        },
        None => Err(format!("the descriptor set has no service {}", service.name)),
    }
}

fn read_signer(path: &Path) -> anyhow::Result<Signer> {
    let encoded = Zeroizing::new(fs::read_to_string(path).with_context(|| path.display().to_string())?);
    Signer::from_encoded(&encoded).with_context(|| path.display().to_string())
}

/// A directory whose signatures are not looked at.
fn read_note(path: &Path) -> anyhow::Result<(Note, Directory)> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let read = || -> Result<(Note, Directory), DirectoryError> {
        let note = Note::parse(&text)?;
        let directory = Directory::parse_text(note.text())?;
        Ok((note, directory))
    };
    read().with_context(|| path.display().to_string())
}

fn count_signed(note: &Note, council: &[Verifier]) -> anyhow::Result<usize> {
    match note.verify(council) {
        Ok(signed) => Ok(signed.len()),
        Err(NoteError::Unsigned) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn expiry(directory: &Directory, now: OffsetDateTime) -> String {
    let left = directory.expires - now;
    let date = directory.expires.date();
    if left.is_positive() { format!("{date} ({} days left)", left.whole_days()) } else { format!("{date} (EXPIRED)") }
}
