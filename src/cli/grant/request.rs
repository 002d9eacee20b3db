//! `kopuro grant request`: what a system asks for, checked against the service's types and signed with the system's key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use prost_reflect::ServiceDescriptor;
use time::OffsetDateTime;

use super::super::catalogue;
use super::super::connect::Connect;
use crate::config::request::{Asked, GrantRequest};
use crate::policy::{Allowed, Methods};
use crate::proto::kopuro::catalogue::v1::{ListServicesResponse, OfferedService};
use crate::schema::annotations::MethodAnnotations;
use crate::schema::fields::{Fields, has_path};
use crate::trust::file::{Access, Existing, write};
use crate::trust::identity::Identity;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Full name of the service, as `kopuro catalogue --all` lists it
    #[arg(long, value_name = "SERVICE")]
    service: String,
    /// Which system offers it, where several do
    #[arg(long, value_name = "MEMBER/SYSTEM")]
    provider: Option<String>,
    /// Methods, with commas between them
    #[arg(long, value_name = "METHODS", value_delimiter = ',', required = true)]
    methods: Vec<String>,
    /// Response fields, with commas between them: PATH for every method, METHOD:PATH for one
    #[arg(long, value_name = "PATHS", value_delimiter = ',', required_unless_present_any = ["categories", "everything"])]
    fields: Vec<String>,
    /// Categories of personal data, with commas between them; what has no category crosses too
    #[arg(long, value_name = "CATEGORIES", value_delimiter = ',', conflicts_with_all = ["fields", "everything"])]
    categories: Vec<String>,
    /// Whole responses
    #[arg(long, conflicts_with = "fields")]
    everything: bool,
    /// Code of the legal basis
    #[arg(long, value_name = "CODE")]
    purpose: String,
    /// The provision in words; where it is missing, as the directory's register has it
    #[arg(long, value_name = "TEXT")]
    law: Option<String>,
    /// What the data is needed for
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Whom the provider's operator may ask: name, telephone, address
    #[arg(long, value_name = "TEXT")]
    contact: String,
    /// First day, or moment
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// Last day, or moment
    #[arg(long, value_name = "DATE")]
    until: Option<String>,
    /// Calls per second
    #[arg(long, value_name = "NUMBER")]
    rate: Option<std::num::NonZeroU32>,
    /// Where to
    #[arg(long, value_name = "FILE", default_value = "grant-request.toml")]
    out: PathBuf,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(ask(args))
}

async fn ask(mut args: Args) -> anyhow::Result<ExitCode> {
    let destination = std::mem::take(&mut args.connect).destination()?;
    let credentials = destination.credentials()?;
    let Identity::System(consumer) = credentials.identity()? else {
        bail!("{}: not a system's certificate; a system asks for itself", destination.cert.display());
    };
    let channel = destination.connect(&credentials).await?;
    let listed = catalogue::list(&channel, true).await?;
    let offered = args.offered(&listed)?;
    let types = catalogue::types(&channel, offered).await?;
    let service = types.and_then(|types| types.get_service_by_name(&args.service));
    let service = service.with_context(|| format!("the node does not have the types of {}", args.service))?;
    let allowed = args.allowed(&service)?;
    args.check_purpose(&service, &listed)?;

    let asked = Asked {
        consumer,
        provider: offered.provider.parse()?,
        service: args.service.clone(),
        methods: Methods::Named(args.methods.iter().cloned().collect()),
        code: args.purpose.clone(),
        law: args.law(&listed)?,
        from: args.from.clone(),
        until: args.until.clone(),
        rate: args.rate,
        allowed,
    };
    let made = OffsetDateTime::now_utc();
    let request = GrantRequest {
        grant: asked.grant()?,
        made: made.replace_nanosecond(0).unwrap_or(made),
        reason: args.reason.clone(),
        contact: args.contact.clone(),
        schema: <[u8; 32]>::try_from(&offered.schema[..]).context("the node does not tell the schema's digest")?,
    };
    let text = request.sign(&credentials)?;
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    write(&args.out, text.as_bytes(), Access::Public, existing)
        .with_context(|| format!("{} (--force overwrites it)", args.out.display()))?;
    let member = offered.member.clone().unwrap_or_default();
    println!("{}: give it to the operator of {}'s node", args.out.display(), catalogue::plain(&member.id));
    for name in [&member.name_ky, &member.name_ru, &member.name_en] {
        println!("  {}", catalogue::plain(name));
    }
    if !args.methods.iter().all(|method| offered.methods.iter().any(|known| known.name == *method && known.outbound)) {
        println!("Your own node's outbound list does not allow all of these methods yet: ask its operator for a rule.");
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn offered<'a>(&self, listed: &'a ListServicesResponse) -> anyhow::Result<&'a OfferedService> {
        let mut of_name = listed.services.iter().filter(|offered| offered.service == self.service && !offered.of_node);
        if let Some(provider) = &self.provider {
            let found = of_name.find(|offered| offered.provider == *provider);
            return found
                .with_context(|| format!("{provider} does not offer {} (kopuro catalogue --all)", self.service));
        }
        match (of_name.next(), of_name.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => bail!("the directory lists no service {} (kopuro catalogue --all)", self.service),
            _ => bail!("several systems offer {}: name one with --provider", self.service),
        }
    }

    /// Methods, paths and categories that the types know.
    fn allowed(&self, service: &ServiceDescriptor) -> anyhow::Result<Allowed> {
        let mut outputs = BTreeMap::new();
        for name in &self.methods {
            let method = service.methods().find(|method| method.name() == name);
            let Some(method) = method else {
                let known: Vec<String> = service.methods().map(|method| method.name().to_owned()).collect();
                bail!("{} has no method {name}; it has {}", self.service, known.join(", "));
            };
            outputs.insert(name.clone(), method.output());
        }
        if self.everything {
            return Ok(Allowed::Everything);
        }
        if !self.categories.is_empty() {
            let fields: Vec<Fields> = outputs.values().map(Fields::of).collect();
            let known: BTreeSet<&str> = fields.iter().flat_map(Fields::categories).collect();
            for category in &self.categories {
                if !known.contains(category.as_str()) {
                    let known: Vec<&str> = known.into_iter().collect();
                    bail!("no field of these responses is of the category {category}; there are: {}", known.join(", "));
                }
            }
            return Ok(Allowed::Categories(self.categories.iter().cloned().collect()));
        }
        let mut by_method: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for named in &self.fields {
            let (only, path) =
                named.split_once(':').map_or((None, named.as_str()), |(method, path)| (Some(method), path));
            if let Some(method) = only
                && !outputs.contains_key(method)
            {
                bail!("--fields {named}: {method} is not among --methods");
            }
            for (method, output) in outputs.iter().filter(|(method, _)| only.is_none_or(|only| only == *method)) {
                if !has_path(output, path) {
                    bail!(
                        "{} has no field {path}: kopuro catalogue {}/{method} lists them",
                        output.full_name(),
                        self.service
                    );
                }
                by_method.entry(method.clone()).or_default().insert(path.to_owned());
            }
        }
        if let Some(method) = outputs.keys().find(|method| !by_method.contains_key(*method)) {
            bail!(
                "--fields names nothing of {method}: its responses would be empty; name some, or leave the method out"
            );
        }
        Ok(Allowed::Fields(by_method))
    }

    /// The legal basis must be one of the register, where there is one, and one that the methods' author allows.
    fn check_purpose(&self, service: &ServiceDescriptor, listed: &ListServicesResponse) -> anyhow::Result<()> {
        let register = &listed.purposes;
        if !register.is_empty() && !register.iter().any(|purpose| purpose.code == self.purpose) {
            bail!("{} is not in the directory's register of purposes (kopuro directory show lists it)", self.purpose);
        }
        for method in service.methods().filter(|method| self.methods.iter().any(|name| name == method.name())) {
            let lawful = MethodAnnotations::of(&method).purposes;
            if !lawful.is_empty() && !lawful.contains(&self.purpose) {
                bail!("{} may be called on {} only, not on {}", method.name(), lawful.join(", "), self.purpose);
            }
        }
        Ok(())
    }

    fn law(&self, listed: &ListServicesResponse) -> anyhow::Result<String> {
        let registered = listed.purposes.iter().find(|purpose| purpose.code == self.purpose);
        self.law
            .clone()
            .or_else(|| registered.map(|purpose| purpose.law.clone()))
            .with_context(|| format!("the node knows no text of {}: cite the provision with --law", self.purpose))
    }
}
