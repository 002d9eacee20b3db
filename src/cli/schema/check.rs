//! `kopuro schema check`: what is wrong with some types, before anybody signs for them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use prost_reflect::{DescriptorPool, ServiceDescriptor};
use serde::Serialize;

use super::against;
use super::report::{self, Finding};
use super::source::{self, Source};
use crate::policy::UnknownFields;
use crate::schema::annotations::{self, AnnotationError};
use crate::schema::breaking::Place;
use crate::schema::plan::{Allow, Plan, PlanError, PlanOptions};
use crate::trust::identity::SystemId;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// What must not break: directory.toml, a signed directory (its sets beside it), a descriptor set, or .proto files
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// Whose version this is, where a directory has several providers of a service
    #[arg(long, value_name = "SYSTEM", requires = "against")]
    provider: Option<SystemId>,
    /// Only these services of the set; may be given several times
    #[arg(long = "service", value_name = "SERVICE")]
    services: Vec<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Checked<'a> {
    ok: bool,
    services: &'a [String],
    findings: &'a [Finding],
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (services, findings) = match source::read(&args.source)? {
        Err(findings) => (Vec::new(), findings),
        Ok(types) => {
            let services = services_of(&types.pool, &args.services)?;
            let mut findings = problems(&types.pool, &services);
            if let Some(path) = &args.against {
                let includes = &args.source.includes;
                findings.extend(against::path(path, &types, &services, args.provider.as_ref(), includes)?);
            }
            (services, findings)
        }
    };
    if args.json {
        report::json(&Checked { ok: findings.is_empty(), services: &services, findings: &findings })?;
        return Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let code = report::print(&findings);
    match (findings.len(), services.len()) {
        (0, 0) => println!("good: no service in it"),
        (0, _) => println!("good: {}", services.join(", ")),
        (1, _) => println!("1 problem"),
        (many, _) => println!("{many} problems"),
    }
    Ok(code)
}

/// The services that were asked for, or all.
pub(super) fn services_of(pool: &DescriptorPool, wanted: &[String]) -> anyhow::Result<Vec<String>> {
    let all: Vec<String> = pool.services().map(|service| service.full_name().to_owned()).collect();
    if let Some(absent) = wanted.iter().find(|service| !all.contains(service)) {
        match all.is_empty() {
            true => bail!("--service {absent}: there is no service in it"),
            false => bail!("--service {absent}: there is {}", all.join(", ")),
        }
    }
    Ok(if wanted.is_empty() { all } else { wanted.to_vec() })
}

/// What is wrong with the types by themselves. Of a library, which has no service, the annotations of all its messages.
pub(super) fn problems(pool: &DescriptorPool, services: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |finding: Finding| {
        // Services share types.
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    };
    if services.is_empty() {
        annotations::check_set(pool).iter().map(|error| annotation(pool, error)).for_each(&mut add);
    }
    for service in services.iter().filter_map(|name| pool.get_service_by_name(name)) {
        annotations::check(&service).iter().map(|error| annotation(pool, error)).for_each(&mut add);
        plans(&service).into_iter().for_each(&mut add);
    }
    findings
}

fn annotation(pool: &DescriptorPool, error: &AnnotationError) -> Finding {
    use AnnotationError as Wrong;
    let (element, what) = (element(error), error.to_string());
    let rule = match error {
        Wrong::Definition { .. } => "ANNOTATION_DEFINITION",
        Wrong::Undefined { .. } => "ANNOTATION_UNDEFINED",
        Wrong::SubjectType { .. } => "ANNOTATION_SUBJECT",
        Wrong::CommitType { .. } => "ANNOTATION_COMMIT",
        Wrong::Category { .. } => "ANNOTATION_CATEGORY",
        Wrong::Purpose { .. } => "ANNOTATION_PURPOSES",
        Wrong::Publication { .. } => "ANNOTATION_PUBLICATION",
        Wrong::Body { .. } => "ANNOTATION_BODY",
    };
    match element.and_then(|name| Some((Place::find(pool, name)?, name))) {
        // The text begins with the element, as the place does.
        Some((place, name)) => Finding::at(rule, place, what.trim_start_matches(name).trim_start().to_owned()),
        None => Finding::of_set(rule, what),
    }
}

fn element(error: &AnnotationError) -> Option<&str> {
    match error {
        AnnotationError::Definition { .. } => None,
        AnnotationError::Undefined { element, .. } => Some(element),
        AnnotationError::SubjectType { field, .. }
        | AnnotationError::CommitType { field, .. }
        | AnnotationError::Category { field, .. } => Some(field),
        AnnotationError::Purpose { method, .. } | AnnotationError::Publication { method, .. } => Some(method),
        AnnotationError::Body { service, .. } => Some(service),
    }
}

/// A node refuses a service whose messages it cannot check.
fn plans(service: &ServiceDescriptor) -> Vec<Finding> {
    // Rules bind callers: those of an answer bind nobody.
    let options = |rules| PlanOptions { allow: Allow::Everything, unknown: UnknownFields::Refuse, rules };
    let mut findings = Vec::new();
    for method in service.methods() {
        for (message, rules) in [(method.input(), true), (method.output(), false)] {
            if let Err(error) = Plan::compile(&message, &options(rules)) {
                // These are told with their place already.
                if matches!(error, PlanError::WrongAnnotation { .. } | PlanError::WrongCategory { .. }) {
                    continue;
                }
                let place = Place::of(&method.parent_file(), method.path(), method.full_name());
                findings.push(Finding::at("PLAN", place, error.to_string()));
            }
        }
    }
    findings
}
