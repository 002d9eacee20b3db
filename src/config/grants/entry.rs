//! One `[[grant]]` or `[[allow]]`: as it is written, and as what it says.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::rc::Rc;

use serde::Deserialize;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime};

use super::super::document::{Document, Problem, Step};
use super::Place;
use super::limits::FieldsEntry;
use crate::policy::{Consumer, Grant, LegalBasis, Methods, Providers, Publication, Rate, Rule};
use crate::trust::directory::is_purpose_code;
use crate::trust::identity::{MemberId, SystemId};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct GrantEntry {
    consumer: String,
    provider: String,
    service: String,
    methods: Vec<String>,
    legal_basis: BasisEntry,
    from: Option<When>,
    until: Option<When>,
    rate: Option<RateEntry>,
    publication: Option<PublicationEntry>,
    fields: Option<FieldsEntry>,
    categories: Option<Vec<String>>,
    unknown_fields: Option<String>,
    unknown_response_fields: Option<String>,
    #[serde(default)]
    name_withheld: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleEntry {
    system: String,
    provider: String,
    service: String,
    methods: Vec<String>,
    purpose: Option<String>,
    publication: Option<PublicationEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BasisEntry {
    code: String,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateEntry {
    per_second: NonZeroU32,
    burst: Option<NonZeroU32>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a publication is \"public\", \"sealed\" or { delayed_days = 30 }")]
enum PublicationEntry {
    Word(String),
    Delayed(DelayedEntry),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DelayedEntry {
    delayed_days: NonZeroU32,
}

/// A date or date-time, quoted or as TOML's own.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a time is written 2026-01-31 or 2026-01-31T09:00:00+06:00")]
enum When {
    Text(String),
    Native(toml::value::Datetime),
}

impl GrantEntry {
    /// Whose service it is, as it is written.
    pub(in crate::config) fn provider(&self) -> &str {
        &self.provider
    }
}

/// Reads one entry: each part gives its value, or a problem and nothing.
pub(super) struct EntryReader<'a> {
    pub(super) place: Place,
    member: &'a MemberId,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl<'a> EntryReader<'a> {
    pub(super) fn new(
        document: &Rc<Document>,
        table: &'static str,
        index: usize,
        member: &'a MemberId,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self { place: Place { document: Rc::clone(document), table, index }, member, problems }
    }

    pub(super) fn grant(&mut self, entry: GrantEntry) -> Option<Grant> {
        let consumer = entry.consumer.parse::<Consumer>();
        let consumer =
            self.or_problem("consumer", consumer, "name a system, as KG/GOV/1/tax, or a member, as KG/GOV/1");
        let provider = self.own_system("provider", &entry.provider);
        let service = self.service(entry.service);
        let methods = self.methods(entry.methods);
        let allowed = self.allowed(entry.fields, entry.categories, methods.as_ref());
        let unknown =
            self.unknown(entry.unknown_fields.as_deref(), entry.unknown_response_fields.as_deref(), allowed.as_ref());
        let legal_basis = self.legal_basis(entry.legal_basis);
        let from = self.time("from", entry.from.as_ref(), Bound::From);
        let until = self.time("until", entry.until.as_ref(), Bound::Until);
        let publication = self.publication(entry.publication);
        let rate =
            entry.rate.map(|rate| Rate { per_second: rate.per_second, burst: rate.burst.unwrap_or(rate.per_second) });
        if let (Some(Some(from)), Some(Some(until))) = (from, until)
            && from >= until
        {
            self.problem("until", "ends before it begins".to_owned(), "correct from or until");
            return None;
        }
        Some(Grant {
            consumer: consumer?,
            provider: provider?,
            service: service?,
            methods: methods?,
            legal_basis: legal_basis?,
            from_unix_ms: from?,
            until_unix_ms: until?,
            rate,
            publication: publication?,
            allowed: allowed?,
            unknown: unknown?,
            name_withheld: entry.name_withheld,
        })
    }

    pub(super) fn rule(&mut self, entry: RuleEntry) -> Option<Rule> {
        let system = self.own_system("system", &entry.system);
        let providers = if entry.provider == "*" {
            Some(Providers::Any)
        } else {
            let providers = entry.provider.parse::<Consumer>().map(|party| match party {
                Consumer::System(system) => Providers::System(system),
                Consumer::Member(member) => Providers::Member(member),
            });
            self.or_problem("provider", providers, "name a system, as KG/GOV/1/tax, a member, as KG/GOV/1, or \"*\"")
        };
        let service = if entry.service == "*" { Some(None) } else { self.service(entry.service).map(Some) };
        let methods = self.methods(entry.methods);
        let purpose = match entry.purpose {
            Some(code) if !is_purpose_code(&code) => {
                self.problem("purpose", format!("{code:?} is not a legal basis code"), CODE_REMEDY);
                None
            }
            purpose => Some(purpose),
        };
        let publication = self.publication(entry.publication);
        Some(Rule {
            system: system?,
            providers: providers?,
            service: service?,
            methods: methods?,
            purpose: purpose?,
            publication: publication?,
        })
    }

    fn own_system(&mut self, field: &str, text: &str) -> Option<SystemId> {
        let system = if text.contains('/') { text.parse() } else { self.member.system(text) };
        let remedy = "name a system of this member, as civil-registry";
        let system: SystemId = self.or_problem(field, system, remedy)?;
        if system.member() == self.member {
            Some(system)
        } else {
            self.problem(field, format!("{system} is not a system of {}", self.member), remedy);
            None
        }
    }

    fn service(&mut self, name: String) -> Option<String> {
        if is_service(&name) {
            return Some(name);
        }
        self.problem(
            "service",
            format!("{name:?} is not a service"),
            "write its full name, as kg.civil.v1.CivilRegistry",
        );
        None
    }

    fn methods(&mut self, names: Vec<String>) -> Option<Methods> {
        if names.is_empty() {
            self.problem("methods", "names no method".to_owned(), "name some, or write [\"*\"] for all");
            return None;
        }
        if names == ["*"] {
            return Some(Methods::All);
        }
        match names.iter().position(|name| !is_word(name)) {
            Some(index) => {
                let what = format!("{:?} is not a method", names[index]);
                let remedy = "write its name only, as GetPerson, or [\"*\"] alone for all";
                let steps = [Step::Key("methods"), Step::Index(index)];
                self.problems.push(self.place.problem(&steps, what, remedy));
                None
            }
            None => Some(Methods::Named(names.into_iter().collect::<BTreeSet<_>>())),
        }
    }

    fn legal_basis(&mut self, entry: BasisEntry) -> Option<LegalBasis> {
        let steps = |field| [Step::Key("legal_basis"), Step::Key(field)];
        if !is_purpose_code(&entry.code) {
            let what = format!("{:?} is not a code", entry.code);
            self.problems.push(self.place.problem(&steps("code"), what, CODE_REMEDY));
            return None;
        }
        if entry.text.trim().is_empty() {
            self.problems.push(self.place.problem(&steps("text"), "is empty", "cite the provision in words"));
            return None;
        }
        Some(LegalBasis { code: entry.code, text: entry.text })
    }

    fn publication(&mut self, entry: Option<PublicationEntry>) -> Option<Option<Publication>> {
        match entry {
            None => Some(None),
            Some(PublicationEntry::Delayed(delayed)) => {
                Some(Some(Publication::Delayed { days: delayed.delayed_days.get() }))
            }
            Some(PublicationEntry::Word(word)) => match word.as_str() {
                "public" => Some(Some(Publication::Public)),
                "sealed" => Some(Some(Publication::Sealed)),
                _ => {
                    let remedy = "write \"public\", \"sealed\" or { delayed_days = 30 }";
                    self.problem("publication", format!("{word:?} is not a publication class"), remedy);
                    None
                }
            },
        }
    }

    fn time(&mut self, field: &str, when: Option<&When>, bound: Bound) -> Option<Option<i64>> {
        let text = match when {
            None => return Some(None),
            Some(When::Text(text)) => text.clone(),
            Some(When::Native(native)) => native.to_string(),
        };
        if let Some(time) = unix_ms(&text, bound) {
            return Some(Some(time));
        }
        let remedy = "write 2026-01-31 (whole days in UTC, the last one included) or 2026-01-31T09:00:00+06:00";
        self.problem(field, format!("{text:?} is no date or date-time with its offset"), remedy);
        None
    }

    fn or_problem<T, E: std::fmt::Display>(&mut self, field: &str, result: Result<T, E>, remedy: &str) -> Option<T> {
        result.map_err(|error| self.problem(field, error.to_string(), remedy)).ok()
    }

    pub(super) fn problem(&mut self, field: &str, what: String, remedy: &str) {
        self.problems.push(self.place.problem(&[Step::Key(field)], what, remedy));
    }
}

const CODE_REMEDY: &str = "write 1 to 64 of A-Z a-z 0-9 . _ - (callers put it in kopuro-purpose)";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    From,
    Until,
}

fn unix_ms(text: &str, bound: Bound) -> Option<i64> {
    let time = match Date::parse(text, format_description!("[year]-[month]-[day]")) {
        Ok(date) => {
            // "Until the 31st" includes the 31st.
            let days = if bound == Bound::Until { 1 } else { 0 };
            date.midnight().assume_utc().checked_add(Duration::days(days))?
        }
        // TOML and people also put a space for the T.
        Err(_) => OffsetDateTime::parse(&text.replacen(' ', "T", 1), &Rfc3339).ok()?,
    };
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

fn is_service(name: &str) -> bool {
    name.len() <= 255 && name.split('.').all(is_word)
}

fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
