//! `kopuro node init`: everything that a ministry needs to join a federation, from a few answers: a commented configuration, keys,
//! certificate requests, and the enrolment that the federation's council signs in.

use std::io::{BufRead, IsTerminal, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::template::{self, Answers};
use crate::trust::enrolment::Enrolment;
use crate::trust::file::{Access, Existing, write};
use crate::trust::identity::{Identity, MemberId, SystemId};
use crate::trust::note::{Signer, Verifier};
use crate::trust::pki::{Sans, request};

/// Answers come from flags; on a terminal, what is missing is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kopuro node init --out /etc/kopuro --data /var/lib/kopuro --store /var/lib/kopuro-public --member KG/GOV/70000008 --en 'Ministry of Justice' --ru 'Министерство юстиции' \\
      --ky 'Юстиция министрлиги' --endpoint gw.justice.example:7444 --system notary \\
      --roots federation-root.pem --mirror https://directory.kg.example/directory.note --council 'audit-chamber+…' --threshold 2")]
pub(in crate::cli) struct Init {
    /// Folder for node.toml, keys and requests
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,
    /// The node's data folder, for node.toml: beside it where this is not given
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
    /// Where the log is published, for node.toml: a folder or bucket; `public` beside it where this is not given
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// The member whose node it is, as INSTANCE/CLASS/CODE
    #[arg(long, value_name = "MEMBER")]
    member: Option<MemberId>,
    /// The member's name in Kyrgyz
    #[arg(long, value_name = "NAME")]
    ky: Option<String>,
    /// The member's name in Russian
    #[arg(long, value_name = "NAME")]
    ru: Option<String>,
    /// The member's name in English
    #[arg(long, value_name = "NAME")]
    en: Option<String>,
    /// Where other nodes will reach this one
    #[arg(long, value_name = "HOST:PORT")]
    endpoint: Option<String>,
    /// Name of the node
    #[arg(long, value_name = "NAME", default_value = "main")]
    name: String,
    /// The log's origin, by which it is known for good; by default the endpoint's host and /log
    #[arg(long, value_name = "NAME")]
    origin: Option<String>,
    /// A back-end system of the member; may be given several times
    #[arg(long = "system", value_name = "NAME")]
    systems: Vec<String>,
    /// Where a system's back-end listens, NAME=https://HOST:PORT: only of systems that provide a service
    #[arg(long = "backend", value_name = "NAME=URL")]
    backends: Vec<String>,
    /// The federation's root certificate, which its council gives out
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// Where the signed directory is had: https://… or a file; may be given several times
    #[arg(long = "mirror", value_name = "MIRROR")]
    mirrors: Vec<String>,
    /// A key of the council, as `kopuro directory keygen` prints it; may be given several times
    #[arg(long = "council", value_name = "VKEY")]
    council: Vec<Verifier>,
    /// How many of the council must have signed the directory
    #[arg(long, value_name = "NUMBER")]
    threshold: Option<usize>,
    /// A further DNS name by which the member's systems reach the node
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An address by which the member's systems reach the node
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
}

impl Init {
    pub(in crate::cli) fn run(mut self) -> anyhow::Result<ExitCode> {
        self.ask()?;
        let (answers, enrolment_parts) = self.check()?;
        let out = &self.out;
        let made = |name: &str| out.join(name);
        for name in ["node.toml", "node.key", "log.key", "ca/ca.key", "ca/ca.pem", "enrolment"] {
            if made(name).exists() {
                bail!("{} exists: init starts from nothing, and overwrites nothing", made(name).display());
            }
        }
        for folder in [out.clone(), made("ca"), made("grants"), made("systems")] {
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let Parts { names, endpoint, origin, sans } = enrolment_parts;
        let member = &answers.member;

        let log_key = Signer::generate(&origin)?;
        put(&made("log.key"), format!("{}\n", *log_key.to_encoded()).as_bytes(), Access::Secret)?;
        let authority = request(&Identity::Member(member.clone()), &Sans::default())?;
        put(&made("ca/ca.key"), authority.key_pem.as_bytes(), Access::Secret)?;
        put(&made("ca/ca.csr"), authority.csr_pem.as_bytes(), Access::Public)?;
        let node = request(&answers.identity()?, &sans)?;
        put(&made("node.key"), node.key_pem.as_bytes(), Access::Secret)?;
        put(&made("node.csr"), node.csr_pem.as_bytes(), Access::Public)?;
        if let Some(roots) = &self.roots {
            let text = std::fs::read(roots).with_context(|| roots.display().to_string())?;
            put(&made("root.pem"), &text, Access::Public)?;
        }
        put(&made("outbound.toml"), template::OUTBOUND.as_bytes(), Access::Public)?;
        put(&made("node.toml"), template::node_toml(&answers)?.as_bytes(), Access::Public)?;
        let enrolment = Enrolment {
            member: member.clone(),
            names,
            node: answers.name.clone(),
            endpoint,
            log_key: log_key.verifier(),
            systems: answers.systems.clone(),
            authority_request: authority.csr_pem,
        };
        put(&made("enrolment"), enrolment.to_note(&log_key)?.as_bytes(), Access::Public)?;
        tell_next(out, &answers, &enrolment);
        Ok(ExitCode::SUCCESS)
    }

    /// Asks for what no flag gave, where there is somebody to ask.
    fn ask(&mut self) -> anyhow::Result<()> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(());
        }
        let mut lines = stdin.lock().lines();
        let mut question = |text: &str| -> anyhow::Result<String> {
            eprint!("{text}: ");
            std::io::stderr().flush()?;
            Ok(lines.next().transpose()?.unwrap_or_default().trim().to_owned())
        };
        if self.member.is_none() {
            self.member = Some(question("Member, as KG/GOV/70000008")?.parse()?);
        }
        for (name, asked) in [
            (&mut self.ky, "Its name in Kyrgyz"),
            (&mut self.ru, "Its name in Russian"),
            (&mut self.en, "Its name in English"),
            (&mut self.endpoint, "Where other nodes will reach this one, host:port"),
        ] {
            if name.is_none() {
                *name = Some(question(asked)?);
            }
        }
        if self.systems.is_empty() {
            let systems = question("Its back-end systems, separated by spaces (may be empty)")?;
            self.systems = systems.split_whitespace().map(str::to_owned).collect();
        }
        if self.mirrors.is_empty() {
            let mirrors = question("Where the signed directory is had, https://… or a file")?;
            self.mirrors = mirrors.split_whitespace().map(str::to_owned).collect();
        }
        if self.council.is_empty() {
            let keys = question("The council's keys, separated by spaces")?;
            self.council = keys.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    fn check(&self) -> anyhow::Result<(Answers, Parts)> {
        let missing: Vec<&str> = [
            ("--member", self.member.is_none()),
            ("--ky", self.ky.is_none()),
            ("--ru", self.ru.is_none()),
            ("--en", self.en.is_none()),
            ("--endpoint", self.endpoint.is_none()),
            ("--mirror", self.mirrors.is_empty()),
            ("--council", self.council.is_empty()),
        ]
        .iter()
        .filter_map(|(flag, missing)| missing.then_some(*flag))
        .collect();
        let (Some(member), Some(ky), Some(ru), Some(en), Some(endpoint), true) = (
            self.member.clone(),
            self.ky.clone(),
            self.ru.clone(),
            self.en.clone(),
            self.endpoint.clone(),
            missing.is_empty(),
        ) else {
            bail!("give {}, or run it on a terminal to be asked", missing.join(", "));
        };
        let host = host_of(&endpoint).with_context(|| format!("--endpoint: {endpoint:?} is not host:port"))?;
        let threshold = self.threshold.unwrap_or(self.council.len() / 2 + 1);
        if threshold == 0 || threshold > self.council.len() {
            bail!("--threshold: {threshold} of {} council keys cannot be", self.council.len());
        }
        let systems = self.systems.iter().map(|name| member.system(name)).collect::<Result<Vec<SystemId>, _>>()?;
        let mut backends = Vec::new();
        for backend in &self.backends {
            let (name, url) =
                backend.split_once('=').with_context(|| format!("--backend: {backend:?} is not NAME=URL"))?;
            if !self.systems.iter().any(|system| system == name) {
                bail!("--backend: {name} is not among the systems given by --system");
            }
            backends.push((name.to_owned(), url.to_owned()));
        }
        let mut sans = Sans { dns: self.dns.clone(), ips: self.ip.clone() };
        match host.parse::<IpAddr>() {
            Ok(address) => sans.ips.push(address),
            Err(_) => sans.dns.push(host.clone()),
        }
        let origin = self.origin.clone().unwrap_or_else(|| format!("{host}/log"));
        let answers = Answers {
            member,
            name: self.name.clone(),
            systems,
            backends,
            mirrors: self.mirrors.clone(),
            council: self.council.clone(),
            threshold,
            data: self.data.clone(),
            store: self.store.clone(),
        };
        answers.identity()?;
        Ok((answers, Parts { names: [ky, ru, en], endpoint, origin, sans }))
    }
}

/// What goes into keys, requests and enrolment only.
struct Parts {
    names: [String; 3],
    endpoint: String,
    origin: String,
    sans: Sans,
}

fn host_of(endpoint: &str) -> Option<String> {
    let (host, port) = endpoint.rsplit_once(':')?;
    port.parse::<u16>().ok().filter(|port| *port > 0)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty() && !host.contains(char::is_whitespace)).then(|| host.to_owned())
}

fn put(path: &Path, content: &[u8], access: Access) -> anyhow::Result<()> {
    write(path, content, access, Existing::Keep).with_context(|| path.display().to_string())
}

fn tell_next(out: &Path, answers: &Answers, enrolment: &Enrolment) {
    let show = |name: &str| out.join(name).display().to_string();
    let (member, roots) = (&answers.member, out.join("root.pem").exists());
    println!("configuration      {}", show("node.toml"));
    println!("keys               {}, {}, {} (stay here)", show("node.key"), show("log.key"), show("ca/ca.key"));
    println!("enrolment          {}", show("enrolment"));
    println!("its fingerprint    {}", enrolment.fingerprint());
    println!("\nNext:");
    println!(
        "  1. Send {} to the federation's council, and read them the fingerprint over another way.",
        show("enrolment")
    );
    println!("     They enrol it (`kopuro directory enrol`), sign the directory, and send back your CA's certificate:");
    println!(
        "     put it at {}{}.",
        show("ca/ca.pem"),
        if roots { "" } else { ", and the federation's root at root.pem beside node.toml" }
    );
    println!("  2. Certify the node, and write the CA's first revocation list:");
    println!("       kopuro pki sign --ca {} --csr {} --out {}", show("ca"), show("node.csr"), show("node.pem"));
    println!("       kopuro pki crl --ca {}", show("ca"));
    for system in &answers.systems {
        let home = out.join("systems").join(system.name());
        println!("       kopuro pki issue --ca {} --identity {system} --out {}", show("ca"), home.display());
    }
    println!("  3. Check, and start:");
    println!("       kopuro node --config {} --check", show("node.toml"));
    println!("       kopuro node --config {}", show("node.toml"));
    println!("\nThen keep {} somewhere safe and offline: whoever has it can certify as {member}.", show("ca/ca.key"));
}
