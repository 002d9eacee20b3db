//! What a system may call, put together from what the node lists and the services' types. This is the JSON.

mod client;

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, MethodDescriptor};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::connect::Destination;
use crate::config::request::bound_text;
use crate::policy::Allowed;
use crate::proto::kopuro::catalogue::v1::{self as wire, grant};
use crate::schema::annotations::MethodAnnotations;
use crate::schema::example;
use crate::schema::fields::{Field, Fields, Opening};
use client::Client;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Model {
    /// Who asked.
    pub(super) system: String,
    /// Whom.
    pub(super) node: String,
    /// When, RFC 3339.
    pub(super) at: String,
    pub(super) directory_version: u64,
    pub(super) services: Vec<Service>,
    /// Members whose nodes could not be asked what they grant, and why.
    pub(super) not_asked: BTreeMap<String, String>,
    #[serde(skip)]
    pub(super) client: Client,
    #[serde(skip)]
    now_unix_ms: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct Service {
    pub(super) service: String,
    pub(super) provider: String,
    pub(super) member: Names,
    /// SHA-256 of the descriptor set; empty where it is a node's own.
    pub(super) schema: String,
    /// A node's own service: called at that member's node, not through the system's own.
    pub(super) of_node: bool,
    /// Where its node describes what may be called for clients that speak JSON over HTTPS.
    pub(super) openapi: Option<String>,
    pub(super) methods: Vec<Method>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Names {
    pub(super) id: String,
    pub(super) ky: String,
    pub(super) ru: String,
    pub(super) en: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Method {
    pub(super) name: String,
    pub(super) state: State,
    /// `unary`, `client-streaming`, `server-streaming`, `bidirectional`; absent where the types are not known.
    pub(super) kind: Option<&'static str>,
    pub(super) request: Option<String>,
    pub(super) response: Option<String>,
    /// Legal bases that the method's author allows; none: any that a grant has.
    pub(super) purposes: Vec<Basis>,
    /// What is published where a grant does not say, by the method's author.
    pub(super) publication: Option<String>,
    /// How the own node's outbound list allows it.
    pub(super) outbound: Option<Outbound>,
    pub(super) grants: Vec<Granted>,
    pub(super) request_fields: Vec<FieldView>,
    pub(super) response_fields: Vec<FieldView>,
    pub(super) example: Option<Example>,
    /// The command that asks for it, where it may not be called.
    pub(super) how_to_ask: Option<String>,
}

/// Whether a method may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// It may.
    Callable,
    /// The own node allows it; the provider's node could not be asked.
    NotAsked,
    /// The grant has yet to begin.
    NotYet,
    /// The grant has ended.
    Ended,
    /// The provider grants nothing.
    NoGrant,
    /// The provider grants it, the own node's outbound list does not allow it.
    NoOutbound,
    /// Neither.
    Neither,
}

#[derive(Debug, Serialize)]
pub(super) struct Outbound {
    /// The legal basis where the call names none.
    pub(super) purpose: Option<String>,
    pub(super) publication: String,
}

/// A legal basis, as the directory registers it or as the grant cites it.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Basis {
    pub(super) code: String,
    /// Law and article.
    pub(super) law: String,
    pub(super) ky: String,
    pub(super) ru: String,
    pub(super) en: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Granted {
    /// The system, or its member.
    pub(super) consumer: String,
    pub(super) basis: Basis,
    /// In force now.
    pub(super) in_force: bool,
    /// First and last day, or moment; absent: always has, never ends.
    pub(super) from: Option<String>,
    pub(super) until: Option<String>,
    pub(super) per_second: Option<u32>,
    pub(super) burst: Option<u32>,
    pub(super) publication: Option<String>,
    pub(super) name_withheld: bool,
    /// `everything`, `fields` or `categories`.
    pub(super) allowed: &'static str,
    /// Which fields or categories.
    pub(super) named: Vec<String>,
    #[serde(skip)]
    what: Allowed,
    #[serde(skip)]
    times: (Option<i64>, Option<i64>),
}

#[derive(Debug, Serialize)]
pub(super) struct FieldView {
    pub(super) path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) repeated: bool,
    pub(super) categories: Vec<String>,
    pub(super) subject: bool,
    pub(super) commit: bool,
    /// By legal basis of the grants in force: `open`, `partly` or `withheld`. Of a request's fields, none.
    pub(super) crosses: BTreeMap<String, &'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct Example {
    /// A message that fits the type.
    pub(super) request: serde_json::Value,
    /// A rule of the type that it breaks: something in it is to be replaced before it passes.
    pub(super) breaks: Option<String>,
    pub(super) kopuro: String,
    /// Of methods without streams.
    pub(super) curl: Option<String>,
}

impl Model {
    pub(super) fn new(listed: &wire::ListServicesResponse, destination: &Destination, at: OffsetDateTime) -> Self {
        let not_asked = listed.not_asked.iter().map(|one| (plain(&one.member), plain(&one.reason)));
        Self {
            system: plain(&listed.system),
            node: destination.node.clone(),
            at: at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default(),
            directory_version: listed.directory_version,
            services: Vec::new(),
            not_asked: not_asked.collect(),
            client: Client::new(destination),
            now_unix_ms: at.unix_timestamp() * 1_000,
        }
    }

    /// Adds a service with its types, if they are known.
    pub(super) fn add(
        &mut self,
        offered: &wire::OfferedService,
        types: Option<&DescriptorPool>,
        listed: &wire::ListServicesResponse,
    ) {
        let member = offered.member.clone().unwrap_or_default();
        let unknown = self.not_asked.contains_key(&member.id);
        let descriptor = types.and_then(|pool| pool.get_service_by_name(&offered.service));
        let methods = offered.methods.iter().map(|method| {
            let descriptor =
                descriptor.as_ref().and_then(|service| service.methods().find(|m| m.name() == method.name));
            let making = Making { offered, method, listed, unknown, now_unix_ms: self.now_unix_ms };
            making.method(descriptor.as_ref(), &self.client)
        });
        let methods: Vec<Method> = methods.collect();
        let callable = !offered.of_node && methods.iter().any(|method| method.state == State::Callable);
        self.services.push(Service {
            service: plain(&offered.service),
            provider: plain(&offered.provider),
            member: Names {
                id: plain(&member.id),
                ky: plain(&member.name_ky),
                ru: plain(&member.name_ru),
                en: plain(&member.name_en),
            },
            schema: hex::encode(&offered.schema),
            of_node: offered.of_node,
            openapi: callable
                .then(|| format!("{}/openapi/{}.json", self.node.trim_end_matches('/'), plain(&offered.service))),
            methods,
        });
    }
}

/// What one method is told from.
struct Making<'a> {
    offered: &'a wire::OfferedService,
    method: &'a wire::OfferedMethod,
    listed: &'a wire::ListServicesResponse,
    /// The provider's node could not be asked.
    unknown: bool,
    now_unix_ms: i64,
}

impl Making<'_> {
    fn method(&self, descriptor: Option<&MethodDescriptor>, client: &Client) -> Method {
        let name = &self.method.name;
        let of_method = |grant: &&wire::Grant| grant.methods.iter().any(|named| named == "*" || named == name);
        let grants: Vec<Granted> =
            self.offered.grants.iter().filter(of_method).map(|grant| self.granted(grant)).collect();
        let annotations = descriptor.map(MethodAnnotations::of).unwrap_or_default();
        let state = self.state(&grants);
        let purposes = annotations.purposes.iter().map(|code| self.basis(code, "")).collect();
        let response_fields = descriptor.map(|method| response_fields(method, &grants)).unwrap_or_default();
        let how_to_ask = (state != State::Callable && state != State::NotAsked && state != State::NoOutbound)
            .then(|| client.how_to_ask(self.offered, name, &annotations, descriptor));
        Method {
            name: plain(name),
            state,
            kind: descriptor.map(kind),
            request: descriptor.map(|method| method.input().full_name().to_owned()),
            response: descriptor.map(|method| method.output().full_name().to_owned()),
            purposes,
            publication: annotations.publication.as_deref().map(plain),
            outbound: (self.method.outbound && !self.offered.of_node).then(|| Outbound {
                purpose: Some(plain(&self.method.purpose)).filter(|purpose| !purpose.is_empty()),
                publication: plain(&self.method.publication),
            }),
            request_fields: descriptor
                .map(|method| views(Fields::of(&method.input()), |_| BTreeMap::new()))
                .unwrap_or_default(),
            response_fields,
            example: descriptor
                .filter(|_| matches!(state, State::Callable | State::NotAsked) && !self.offered.of_node)
                .and_then(|method| self.example(method, &grants, client)),
            grants,
            how_to_ask,
        }
    }

    fn state(&self, grants: &[Granted]) -> State {
        let outbound = self.method.outbound;
        if grants.iter().any(|grant| grant.in_force) {
            return if outbound { State::Callable } else { State::NoOutbound };
        }
        let later = grants.iter().any(|grant| grant.times.1.is_none_or(|until| until > self.now_unix_ms));
        match (outbound, grants.is_empty()) {
            (true, _) if self.unknown => State::NotAsked,
            (false, true) => State::Neither,
            (false, false) => State::NoOutbound,
            (true, true) => State::NoGrant,
            (true, false) if later => State::NotYet,
            (true, false) => State::Ended,
        }
    }

    fn granted(&self, grant: &wire::Grant) -> Granted {
        let begun = grant.from_unix_ms.is_none_or(|from| from <= self.now_unix_ms);
        let ended = grant.until_unix_ms.is_some_and(|until| until <= self.now_unix_ms);
        let (allowed, named, what) = allowed(grant, &self.method.name);
        Granted {
            consumer: plain(&grant.consumer),
            basis: self.basis(&grant.legal_basis, &grant.legal_basis_text),
            in_force: begun && !ended,
            from: grant.from_unix_ms.map(|from| bound_text(from, false)),
            until: grant.until_unix_ms.map(|until| bound_text(until, true)),
            per_second: grant.rate.map(|rate| rate.per_second),
            burst: grant.rate.map(|rate| rate.burst),
            publication: Some(plain(&grant.publication)).filter(|class| !class.is_empty()),
            name_withheld: grant.name_withheld,
            allowed,
            named,
            what,
            times: (grant.from_unix_ms, grant.until_unix_ms),
        }
    }

    /// As the register has it; else what the grant says.
    fn basis(&self, code: &str, cited: &str) -> Basis {
        let registered = self.listed.purposes.iter().find(|purpose| purpose.code == code);
        let registered = registered.map(|purpose| Basis {
            code: plain(code),
            law: plain(&purpose.law),
            ky: plain(&purpose.text_ky),
            ru: plain(&purpose.text_ru),
            en: plain(&purpose.text_en),
        });
        registered.unwrap_or_else(|| Basis { code: plain(code), law: plain(cited), ..Basis::default() })
    }

    fn example(&self, method: &MethodDescriptor, grants: &[Granted], client: &Client) -> Option<Example> {
        let made = example::of(&method.input());
        let request = serde_json::to_value(&made).ok()?;
        let mut codes: Vec<&str> =
            grants.iter().filter(|grant| grant.in_force).map(|grant| grant.basis.code.as_str()).collect();
        codes.dedup();
        // Where several bases are possible, the call names one.
        let purpose = (self.method.purpose.is_empty() && codes.len() > 1).then(|| codes[0]);
        Some(Example { breaks: example::unfit(&made), ..client.example(self.offered, method, request, purpose) })
    }
}

fn kind(method: &MethodDescriptor) -> &'static str {
    match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => "unary",
        (true, false) => "client-streaming",
        (false, true) => "server-streaming",
        (true, true) => "bidirectional",
    }
}

/// What of a method's responses a grant lets through: in a word, by name, and to judge fields by.
fn allowed(grant: &wire::Grant, method: &str) -> (&'static str, Vec<String>, Allowed) {
    match &grant.allowed {
        None => ("everything", Vec::new(), Allowed::Everything),
        Some(grant::Allowed::Categories(categories)) => (
            "categories",
            categories.categories.iter().map(|category| plain(category)).collect(),
            Allowed::Categories(categories.categories.iter().cloned().collect()),
        ),
        Some(grant::Allowed::Fields(fields)) => {
            let paths: Vec<String> = fields.methods.get(method).map(|paths| paths.paths.clone()).unwrap_or_default();
            let named = paths.iter().map(|path| plain(path)).collect();
            ("fields", named, Allowed::Fields([(method.to_owned(), paths.into_iter().collect())].into()))
        }
    }
}

/// Of several grants on one basis the first is the one that decides.
fn response_fields(method: &MethodDescriptor, grants: &[Granted]) -> Vec<FieldView> {
    views(Fields::of(&method.output()), |field| {
        let mut crosses = BTreeMap::new();
        for grant in grants.iter().filter(|grant| grant.in_force) {
            let opening = match field.opening(&grant.what, method.name()) {
                Opening::Open => "open",
                Opening::Partly => "partly",
                Opening::Withheld => "withheld",
            };
            crosses.entry(grant.basis.code.clone()).or_insert(opening);
        }
        crosses
    })
}

fn views(fields: Fields, crosses: impl Fn(&Field) -> BTreeMap<String, &'static str>) -> Vec<FieldView> {
    let view = |field: Field| FieldView {
        crosses: crosses(&field),
        kind: if field.recursive { format!("{} …", field.kind) } else { field.kind },
        path: field.path,
        repeated: field.repeated,
        categories: field.categories.iter().map(|category| plain(category)).collect(),
        subject: field.subject,
        commit: field.commit,
    };
    fields.leaves.into_iter().map(view).collect()
}

/// Text from elsewhere, without what would steer a terminal or turn the direction of what follows.
pub(in crate::cli) fn plain(text: &str) -> String {
    let steers = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_safe() {
        assert_eq!(plain("a\nb\u{202e}c"), "a\u{fffd}b\u{fffd}c");
    }
}
