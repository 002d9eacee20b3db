//! `kopuro schema show`: what a set defines, with what its author says of the data.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor};
use serde::Serialize;

use super::register::Register;
use super::source::{self, Source};
use super::{check, report};
use crate::schema::annotations::{FieldAnnotations, MethodAnnotations, body_of};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A descriptor set, .proto files, a folder of them; or with --directory a digest or how it begins
    #[arg(value_name = "SET")]
    set: PathBuf,
    /// The directory whose set it is
    #[arg(long, value_name = "PATH")]
    directory: Option<PathBuf>,
    /// Only these services; may be given several times
    #[arg(long = "service", value_name = "SERVICE")]
    services: Vec<String>,
    /// Where the imports of .proto files lie
    #[arg(short = 'I', long = "include", value_name = "FOLDER")]
    includes: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Service {
    name: String,
    body: Option<String>,
    methods: Vec<Method>,
    messages: Vec<Message>,
    enums: Vec<Enum>,
}

#[derive(Serialize)]
struct Method {
    name: String,
    request: String,
    request_streams: bool,
    response: String,
    response_streams: bool,
    purposes: Vec<String>,
    publication: Option<String>,
    idempotency_level: &'static str,
}

#[derive(Serialize)]
struct Message {
    name: String,
    fields: Vec<Field>,
}

#[derive(Serialize)]
struct Field {
    number: u32,
    r#type: String,
    name: String,
    subject: bool,
    category: Option<String>,
    commit: bool,
}

#[derive(Serialize)]
struct Enum {
    name: String,
    values: Vec<(String, i32)>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let pool = match &args.directory {
        Some(directory) => from_directory(directory, &args.set.to_string_lossy())?,
        None => {
            let source = Source { sets: vec![args.set.clone()], includes: args.includes.clone() };
            match source::read(&source)? {
                Ok(types) => types.pool,
                Err(findings) => return Ok(report::print(&findings)),
            }
        }
    };
    let services = check::services_of(&pool, &args.services)?;
    let found = services.iter().filter_map(|name| pool.get_service_by_name(name));
    let shown: Vec<Service> = found.map(|service| shown(&service)).collect();
    if args.json {
        report::json(&shown)?;
    } else if shown.is_empty() {
        println!("there is no service in it");
    } else {
        report::text(&shown.iter().map(text).collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn from_directory(directory: &std::path::Path, begins: &str) -> anyhow::Result<DescriptorPool> {
    let register = Register::open(directory)?;
    let mut keys: Vec<[u8; 32]> = register.directory.services.iter().map(|service| service.descriptors).collect();
    keys.retain(|key| hex::encode(key).starts_with(begins));
    keys.sort_unstable();
    keys.dedup();
    match keys[..] {
        [key] => Ok(register.pool(&key)?.1),
        [] => bail!("{}: no service has a set whose SHA-256 begins with {begins:?}", directory.display()),
        _ => bail!("{}: {} sets begin with {begins:?}: give more of it", directory.display(), keys.len()),
    }
}

/// Every message that a service's methods carry, in the order in which they are met.
pub(super) fn carried(service: &ServiceDescriptor) -> Vec<MessageDescriptor> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut open: std::collections::VecDeque<MessageDescriptor> =
        service.methods().flat_map(|method| [method.input(), method.output()]).collect();
    while let Some(message) = open.pop_front() {
        if seen.insert(message.full_name().to_owned()) {
            open.extend(message.fields().filter_map(|field| field.kind().as_message().cloned()));
            found.push(message);
        }
    }
    found
}

fn shown(service: &ServiceDescriptor) -> Service {
    let messages = carried(service);
    let mut enums: Vec<EnumDescriptor> = Vec::new();
    let mut seen = HashSet::new();
    for field in messages.iter().flat_map(|message| message.fields().collect::<Vec<_>>()) {
        if let Kind::Enum(of) = field.kind()
            && seen.insert(of.full_name().to_owned())
        {
            enums.push(of);
        }
    }
    let methods = service.methods().map(|method| {
        let MethodAnnotations { purposes, publication } = MethodAnnotations::of(&method);
        let options = method.method_descriptor_proto().options.as_ref();
        Method {
            name: method.name().to_owned(),
            request: method.input().full_name().to_owned(),
            request_streams: method.is_client_streaming(),
            response: method.output().full_name().to_owned(),
            response_streams: method.is_server_streaming(),
            purposes,
            publication,
            idempotency_level: options.map_or("IDEMPOTENCY_UNKNOWN", |o| o.idempotency_level().as_str_name()),
        }
    });
    Service {
        name: service.full_name().to_owned(),
        body: body_of(service),
        methods: methods.collect(),
        messages: messages
            .iter()
            .filter(|message| !message.is_map_entry())
            .map(|message| Message {
                name: message.full_name().to_owned(),
                fields: message.fields().map(|field| shown_field(&field)).collect(),
            })
            .collect(),
        enums: enums
            .iter()
            .map(|of| Enum {
                name: of.full_name().to_owned(),
                values: of.values().map(|value| (value.name().to_owned(), value.number())).collect(),
            })
            .collect(),
    }
}

fn shown_field(field: &FieldDescriptor) -> Field {
    let FieldAnnotations { subject, category, commit } = FieldAnnotations::of(field);
    let name = |kind: Kind| match kind {
        Kind::Message(of) => of.full_name().to_owned(),
        Kind::Enum(of) => of.full_name().to_owned(),
        scalar => format!("{scalar:?}"),
    };
    let r#type = match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            format!("map<{}, {}>", name(entry.map_entry_key_field().kind()), name(entry.map_entry_value_field().kind()))
        }
        kind if field.is_list() => format!("repeated {}", name(kind)),
        kind => name(kind),
    };
    Field { number: field.number(), r#type, name: field.name().to_owned(), subject, category, commit }
}

/// For people.
fn text(service: &Service) -> String {
    let mut lines = vec![
        format!("service {}", service.name),
        format!("  body {}", service.body.as_deref().unwrap_or("not named").escape_debug()),
    ];
    for method in &service.methods {
        let stream = |streams: bool| if streams { "stream " } else { "" };
        let (request, response) = (stream(method.request_streams), stream(method.response_streams));
        lines.push(format!("\n  {}({request}{}) -> {response}{}", method.name, method.request, method.response));
        let any = || "any that a grant has".to_owned();
        let purposes = if method.purposes.is_empty() { any() } else { method.purposes.join(", ") };
        lines.push(format!("    purposes    {}", purposes.escape_debug()));
        let publication = method.publication.as_deref().unwrap_or("public");
        lines.push(format!("    publication {}", publication.escape_debug()));
        if method.idempotency_level != "IDEMPOTENCY_UNKNOWN" {
            lines.push(format!("    {}", method.idempotency_level));
        }
    }
    for message in &service.messages {
        lines.push(format!("\nmessage {}", message.name));
        for field in &message.fields {
            let said = [
                field.subject.then(|| "subject".to_owned()),
                field.category.as_ref().map(|category| format!("category {}", category.escape_debug())),
                field.commit.then(|| "commit".to_owned()),
            ];
            let said: Vec<String> = said.into_iter().flatten().collect();
            let line = format!("  {:>5}  {} {}", field.number, field.r#type, field.name);
            lines.push(format!("{line:<56} {}", said.join(", ")).trim_end().to_owned());
        }
    }
    for of in &service.enums {
        lines.push(format!("\nenum {}", of.name));
        lines.extend(of.values.iter().map(|(name, number)| format!("  {number:>5}  {name}")));
    }
    lines.push("\n".to_owned());
    lines.join("\n")
}
