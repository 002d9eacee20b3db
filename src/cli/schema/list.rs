//! `kopuro schema list`: the services of a directory, whose they are, and by which sets.

use std::path::PathBuf;
use std::process::ExitCode;

use prost_reflect::ServiceDescriptor;
use serde::Serialize;

use super::register::Register;
use super::show::carried;
use super::{report, source};
use crate::schema::annotations::{FieldAnnotations, MethodAnnotations, body_of};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// directory.toml, or a signed directory with its descriptor sets beside it
    #[arg(long, value_name = "PATH")]
    directory: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    service: String,
    provider: String,
    /// SHA-256 of its set.
    set: String,
    /// None: no file has the set, or it does not define the service.
    #[serde(flatten)]
    contents: Option<Contents>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct Contents {
    methods: usize,
    body: Option<String>,
    subjects: usize,
    categories: usize,
    commits: usize,
    purposes: usize,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let register = Register::open(&args.directory)?;
    let mut listed = Vec::new();
    for offer in &register.directory.services {
        let contents = contents(&register, &offer.descriptors, &offer.name);
        listed.push(Listed {
            service: offer.name.clone(),
            provider: offer.provider.to_string(),
            set: hex::encode(offer.descriptors),
            problem: contents.as_ref().err().cloned(),
            contents: contents.ok(),
        });
    }
    let whole = listed.iter().all(|listed| listed.problem.is_none());
    let code = if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if args.json {
        report::json(&listed)?;
        return Ok(code);
    }
    for service in &listed {
        println!("{}\n  of       {}\n  set      {}", service.service, service.provider, service.set);
        match (&service.contents, &service.problem) {
            (Some(contents), _) => {
                println!("  methods  {}", contents.methods);
                let Contents { subjects, categories, commits, purposes, body, .. } = contents;
                println!(
                    "  says     {subjects} subject, {categories} category, {commits} commit; {purposes} methods with purposes; body {}",
                    body.as_deref().unwrap_or("not named")
                );
            }
            (None, problem) => println!("  PROBLEM  {}", problem.as_deref().unwrap_or_default()),
        }
    }
    Ok(code)
}

fn contents(register: &Register, key: &[u8; 32], name: &str) -> Result<Contents, String> {
    let bytes = register.bytes(key).map_err(|error| format!("{error:#}"))?;
    let bytes = bytes.ok_or("no file beside the directory has this set")?;
    let pool = source::read_set(&bytes, "the set").map_err(|error| format!("{error:#}"))?;
    let service = pool.get_service_by_name(name).ok_or("the set does not define it")?;
    Ok(count(&service))
}

fn count(service: &ServiceDescriptor) -> Contents {
    let mut contents = Contents {
        methods: service.methods().len(),
        body: body_of(service),
        subjects: 0,
        categories: 0,
        commits: 0,
        purposes: service.methods().filter(|method| !MethodAnnotations::of(method).purposes.is_empty()).count(),
    };
    for field in carried(service).iter().flat_map(|message| message.fields().collect::<Vec<_>>()) {
        let said = FieldAnnotations::of(&field);
        contents.subjects += usize::from(said.subject);
        contents.categories += usize::from(said.category.is_some());
        contents.commits += usize::from(said.commit);
    }
    contents
}
