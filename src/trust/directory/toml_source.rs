//! `directory.toml`: what a council's secretary writes and reviews, and from which the text is made.
//!
//! ```toml
//! federation = "KG"
//! version = 7
//! expires = 2027-03-01T00:00:00Z
//! threshold = 2
//! council = ["audit-chamber+5f1a3c0e+AT…", "ombudsman+…", "ministry+…"]
//!
//! [[members]]
//! id = "KG/GOV/70000005"
//! ky = "Жарандык абалдын актыларын каттоо"
//! ru = "Запись актов гражданского состояния"
//! en = "Civil Registry"
//!
//! [[nodes]]
//! member = "KG/GOV/70000005"
//! name = "main"
//! endpoint = "gw.civil.kg:7444"
//! log_key = "gw.civil.kg/log+0a1b2c3d+AU…"
//! more_log_keys = ["gw.civil.kg/log+5e6f7081+AW…"]     # others that it signs or has signed by; may be left out
//!
//! [[systems]]
//! id = "KG/GOV/70000005/civil-registry"
//!
//! [[services]]
//! name = "kg.civil.v1.CivilRegistry"
//! provider = "KG/GOV/70000005/civil-registry"
//! descriptors = "civil.binpb"          # a FileDescriptorSet beside this file, or its SHA-256 in hex
//!
//! [[auditors]]
//! identity = "KG/NGO/10000003/_auditor/board"
//!
//! [[purposes]]
//! code = "NK-54-2"
//! law = "Tax Code, article 54, part 2"
//! ky = "Салык төлөөчүнү текшерүү"
//! ru = "Сверка сведений о налогоплательщике"
//! en = "To verify what is known of a taxpayer"
//! ```
//!
//! In any order; every other field is needed, and one that is not known is an error.

use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

use serde::Deserialize;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use toml::Spanned;

use super::check::{self, List};
use super::text::parse_digest;
use super::{Auditor, Directory, DirectoryError, Member, Node, Purpose, Service, System};

/// Finds a descriptor set by the path that the source gives, and says its SHA-256 or what is wrong with it.
pub type DescriptorLookup<'a> = dyn FnMut(&str) -> Result<[u8; 32], String> + 'a;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDirectory {
    federation: Spanned<String>,
    version: Spanned<u64>,
    expires: Spanned<toml::Value>,
    threshold: Spanned<usize>,
    council: Vec<Text>,
    #[serde(default)]
    members: Vec<Spanned<RawMember>>,
    #[serde(default)]
    nodes: Vec<Spanned<RawNode>>,
    #[serde(default)]
    systems: Vec<Spanned<RawSystem>>,
    #[serde(default)]
    services: Vec<Spanned<RawService>>,
    #[serde(default)]
    auditors: Vec<Spanned<RawAuditor>>,
    #[serde(default)]
    purposes: Vec<Spanned<RawPurpose>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMember {
    id: Text,
    ky: Text,
    ru: Text,
    en: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    member: Text,
    name: Text,
    endpoint: Text,
    log_key: Text,
    #[serde(default)]
    more_log_keys: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSystem {
    id: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    name: Text,
    provider: Text,
    descriptors: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuditor {
    identity: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPurpose {
    code: Text,
    law: Text,
    ky: Text,
    ru: Text,
    en: Text,
}

type Text = Spanned<String>;

pub(super) fn parse(source: &str, lookup: &mut DescriptorLookup<'_>) -> Result<Directory, DirectoryError> {
    let raw: RawDirectory = toml::from_str(source).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(source, &span));
        DirectoryError::Toml { line, reason: error.message().into() }
    })?;
    let mut directory = raw.convert(source, lookup)?;
    check::check(&directory).map_err(|problem| DirectoryError::Toml {
        line: raw.line_of_problem(source, problem.place, problem.field),
        reason: format!("{}: {}", problem.field, problem.reason),
    })?;
    directory.sort();
    Ok(directory)
}

/// The source of a directory, in the order of its text: what a secretary would have written, without the comments.
pub(super) fn print(directory: &Directory) -> String {
    let quoted = |text: &dyn Display| toml::Value::String(text.to_string()).to_string();
    let council: Vec<String> = directory.council.iter().map(|key| format!("  {},\n", quoted(key))).collect();
    let mut out = format!(
        "federation = {}\nversion = {}\nexpires = {}\nthreshold = {}\ncouncil = [\n{}]\n",
        quoted(&directory.federation),
        directory.version,
        super::text::print_time(directory.expires),
        directory.threshold,
        council.concat()
    );
    let table = |out: &mut String, name: &str, fields: &[(&str, &dyn Display)]| {
        *out += &format!("\n[[{name}]]\n");
        for (field, value) in fields {
            *out += &format!("{field} = {}\n", quoted(value));
        }
    };
    for Member { id, name_ky, name_ru, name_en } in &directory.members {
        table(&mut out, "members", &[("id", id), ("ky", name_ky), ("ru", name_ru), ("en", name_en)]);
    }
    for Node { member, name, endpoint, log_key, more_log_keys } in &directory.nodes {
        table(&mut out, "nodes", &[("member", member), ("name", name), ("endpoint", endpoint), ("log_key", log_key)]);
        if !more_log_keys.is_empty() {
            let keys: Vec<String> = more_log_keys.iter().map(|key| quoted(key)).collect();
            out += &format!("more_log_keys = [{}]\n", keys.join(", "));
        }
    }
    for System { id } in &directory.systems {
        table(&mut out, "systems", &[("id", id)]);
    }
    for Service { name, provider, descriptors } in &directory.services {
        let digest = hex::encode(descriptors);
        table(&mut out, "services", &[("name", name), ("provider", provider), ("descriptors", &digest)]);
    }
    for Auditor { identity } in &directory.auditors {
        table(&mut out, "auditors", &[("identity", identity)]);
    }
    for Purpose { code, law, ky, ru, en } in &directory.purposes {
        table(&mut out, "purposes", &[("code", code), ("law", law), ("ky", ky), ("ru", ru), ("en", en)]);
    }
    out
}

impl RawDirectory {
    fn convert(&self, source: &str, lookup: &mut DescriptorLookup<'_>) -> Result<Directory, DirectoryError> {
        let mut services = Vec::new();
        for service in &self.services {
            let RawService { name, provider, descriptors } = service.get_ref();
            let digest = match parse_digest(descriptors.get_ref()) {
                Some(digest) => digest,
                None => {
                    lookup(descriptors.get_ref()).map_err(|reason| wrong(source, descriptors, "descriptors", reason))?
                }
            };
            let provider = value(source, provider, "provider")?;
            services.push(Service { name: name.get_ref().clone(), provider, descriptors: digest });
        }
        Ok(Directory {
            federation: self.federation.get_ref().clone(),
            version: *self.version.get_ref(),
            expires: expiry(self.expires.get_ref())
                .map_err(|reason| wrong(source, &self.expires, "expires", reason))?,
            threshold: *self.threshold.get_ref(),
            council: all(&self.council, |key| value(source, key, "council"))?,
            members: all(&self.members, |member| {
                let RawMember { id, ky, ru, en } = member.get_ref();
                let [name_ky, name_ru, name_en] = [ky, ru, en].map(|name| name.get_ref().clone());
                Ok(Member { id: value(source, id, "id")?, name_ky, name_ru, name_en })
            })?,
            nodes: all(&self.nodes, |node| {
                let RawNode { member, name, endpoint, log_key, more_log_keys } = node.get_ref();
                Ok(Node {
                    member: value(source, member, "member")?,
                    name: name.get_ref().clone(),
                    endpoint: endpoint.get_ref().clone(),
                    log_key: value(source, log_key, "log_key")?,
                    more_log_keys: all(more_log_keys, |key| value(source, key, "more_log_keys"))?,
                })
            })?,
            systems: all(&self.systems, |system| Ok(System { id: value(source, &system.get_ref().id, "id")? }))?,
            services,
            auditors: all(&self.auditors, |auditor| {
                Ok(Auditor { identity: value(source, &auditor.get_ref().identity, "identity")? })
            })?,
            purposes: all(&self.purposes, |purpose| {
                let RawPurpose { code, law, ky, ru, en } = purpose.get_ref();
                let [code, law, ky, ru, en] = [code, law, ky, ru, en].map(|text| text.get_ref().clone());
                Ok(Purpose { code, law, ky, ru, en })
            })?,
        })
    }

    fn line_of_problem(&self, source: &str, place: Option<(List, usize)>, field: &str) -> usize {
        let span = match place {
            Some((list, index)) => self.span_of(list, index, field),
            None => match field {
                "federation" => Some(self.federation.span()),
                "version" => Some(self.version.span()),
                "expires" => Some(self.expires.span()),
                _ => Some(self.threshold.span()),
            },
        };
        span.map_or(1, |span| line_of(source, &span))
    }

    fn span_of(&self, list: List, index: usize, field: &str) -> Option<Range<usize>> {
        Some(match list {
            List::Council => self.council.get(index)?.span(),
            List::Members => {
                let member = self.members.get(index)?.get_ref();
                match field {
                    "ky" => member.ky.span(),
                    "ru" => member.ru.span(),
                    "en" => member.en.span(),
                    _ => member.id.span(),
                }
            }
            List::Nodes => {
                let node = self.nodes.get(index)?.get_ref();
                match field {
                    "member" => node.member.span(),
                    "endpoint" => node.endpoint.span(),
                    "log_key" => node.log_key.span(),
                    _ => node.name.span(),
                }
            }
            List::LogKeys => {
                let mut keys = self.nodes.iter().flat_map(|node| &node.get_ref().more_log_keys);
                keys.nth(index)?.span()
            }
            List::Systems => self.systems.get(index)?.get_ref().id.span(),
            List::Services => {
                let service = self.services.get(index)?.get_ref();
                if field == "provider" { service.provider.span() } else { service.name.span() }
            }
            List::Auditors => self.auditors.get(index)?.get_ref().identity.span(),
            List::Purposes => {
                let purpose = self.purposes.get(index)?.get_ref();
                match field {
                    "law" => purpose.law.span(),
                    "ky" => purpose.ky.span(),
                    "ru" => purpose.ru.span(),
                    "en" => purpose.en.span(),
                    _ => purpose.code.span(),
                }
            }
        })
    }
}

/// A TOML date-time, or the same in quotes.
fn expiry(value: &toml::Value) -> Result<OffsetDateTime, String> {
    let text = match value {
        toml::Value::Datetime(time) => time.to_string(),
        toml::Value::String(text) => text.clone(),
        _ => return Err("expected a time, as 2027-03-01T00:00:00Z".into()),
    };
    let time = OffsetDateTime::parse(&text, &Rfc3339)
        .map_err(|_| format!("{text:?} is not a time with its zone, as 2027-03-01T00:00:00Z"))?;
    Ok(time.to_offset(UtcOffset::UTC))
}

fn value<T: FromStr<Err: Display>>(source: &str, text: &Text, field: &str) -> Result<T, DirectoryError> {
    text.get_ref().parse().map_err(|error: T::Err| wrong(source, text, field, error))
}

fn wrong<T>(source: &str, place: &Spanned<T>, field: &str, reason: impl Display) -> DirectoryError {
    DirectoryError::Toml { line: line_of(source, &place.span()), reason: format!("{field}: {reason}") }
}

fn all<R, T>(raw: &[R], convert: impl FnMut(&R) -> Result<T, DirectoryError>) -> Result<Vec<T>, DirectoryError> {
    raw.iter().map(convert).collect()
}

fn line_of(source: &str, span: &Range<usize>) -> usize {
    source.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
}
