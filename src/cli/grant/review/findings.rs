//! What an operator has to know before signing a request in: who asks, what would be open that is not, and what to think twice about.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use comfy_table::{ContentArrangement, Table, presets};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::super::catalogue::plain;
use super::super::methods;
use crate::config::Loaded;
use crate::config::request::{SignedRequest, bound_text};
use crate::policy::{Allowed, Consumer, Grant, Methods, UnknownFields};
use crate::schema::Method;
use crate::schema::annotations::MethodAnnotations;
use crate::schema::fields::{Field, Fields, MAX_LEAVES, Opening, has_path};

/// A request older than this is looked at twice.
const OLD_DAYS: i64 = 30;

/// All of it, to be printed.
pub(super) struct Findings {
    who: Vec<(&'static str, String)>,
    methods: Vec<OfMethod>,
    /// Why it cannot be signed in.
    pub(super) obstacles: Vec<String>,
    warnings: Vec<String>,
}

struct OfMethod {
    title: String,
    fields: Vec<OfField>,
    truncated: bool,
}

struct OfField {
    field: Field,
    today: Opening,
    then: Opening,
}

impl Findings {
    /// Of a request, as it would be granted.
    pub(super) fn of(signed: &SignedRequest, grant: &Grant, loaded: &Loaded) -> Self {
        let mut this = Self { who: Vec::new(), methods: Vec::new(), obstacles: Vec::new(), warnings: Vec::new() };
        this.who(signed, grant, loaded);
        this.parties(grant, loaded);
        if let Some(service) = loaded.catalogue.service(&grant.service)
            && let Some(offer) = service.offer(&grant.provider)
        {
            let names: BTreeSet<String> = match &grant.methods {
                Methods::All => offer.descriptor.methods().map(|method| method.name().to_owned()).collect(),
                Methods::Named(names) => names.clone(),
            };
            for name in names {
                match offer.method(&name) {
                    Some(method) => this.method(&name, method, grant, loaded),
                    None => this.obstacles.push(format!("{} has no method {name}", grant.service)),
                }
            }
        }
        this.categories(grant);
        this.warn(signed, grant, loaded);
        this
    }

    fn who(&mut self, signed: &SignedRequest, grant: &Grant, loaded: &Loaded) {
        let request = &signed.request;
        let until = OffsetDateTime::from_unix_timestamp(signed.signer.not_after_unix);
        let until = until.map(|until| until.date().to_string()).unwrap_or_default();
        let member = loaded.directory.member(grant.consumer.member());
        let mut tell = |what, text: String| self.who.push((what, plain(&text)));
        tell("request of", grant.consumer.to_string());
        if let Some(member) = member {
            tell("", format!("{} · {} · {}", member.name_ky, member.name_ru, member.name_en));
        }
        tell(
            "signed by",
            format!("{}, certificate {}, good until {until}", signed.signer.identity, signed.signer.serial_hex),
        );
        tell("made", request.made.format(&Rfc3339).unwrap_or_default());
        tell("SHA-256", hex::encode(signed.digest));
        tell("reason", request.reason.clone());
        tell("contact", request.contact.clone());
        tell("asks for", format!("{} of {}", grant.service, grant.provider));
        tell("methods", methods(&grant.methods));
        tell("legal basis", format!("{} · {}", grant.legal_basis.code, grant.legal_basis.text));
        let from = grant.from_unix_ms.map_or_else(|| "now".to_owned(), |from| bound_text(from, false));
        let until = grant.until_unix_ms.map_or_else(|| "no end".to_owned(), |until| bound_text(until, true));
        tell("valid", format!("{from} to {until}"));
        let rate = grant.rate.map(|rate| format!("{}/s, {} at once", rate.per_second, rate.burst));
        tell("rate", rate.unwrap_or_else(|| "no limit".to_owned()));
        let class = grant.publication.map(|class| class.to_string());
        tell("published", class.unwrap_or_else(|| "as each method says".to_owned()));
    }

    fn parties(&mut self, grant: &Grant, loaded: &Loaded) {
        if let Consumer::System(system) = &grant.consumer
            && !loaded.directory.has_system(system)
        {
            self.obstacles.push(format!("the directory does not list {system}"));
        }
        if !loaded.directory.providers_of(&grant.service).contains(&&grant.provider) {
            self.obstacles.push(format!("{} does not offer {}", grant.provider, grant.service));
        } else if loaded.catalogue.service(&grant.service).and_then(|known| known.offer(&grant.provider)).is_none() {
            self.obstacles.push(format!("the types of {} are not known: its descriptor set is missing", grant.service));
        }
    }

    fn method(&mut self, name: &str, method: &Method, grant: &Grant, loaded: &Loaded) {
        let descriptor = &method.descriptor;
        if let Allowed::Fields(by_method) = &grant.allowed {
            for path in by_method.get(name).into_iter().flatten() {
                if !has_path(&descriptor.output(), path) {
                    let message = descriptor.output();
                    self.obstacles.push(format!("{name}: {} has no field {}", message.full_name(), plain(path)));
                }
            }
        }
        let lawful = MethodAnnotations::of(descriptor).purposes;
        let code = &grant.legal_basis.code;
        if !lawful.is_empty() && !lawful.contains(code) {
            self.obstacles.push(format!("{name} may be called on {} only, not on {code}", lawful.join(", ")));
        }
        let streams = match (method.client_streaming, method.server_streaming) {
            (false, false) => "one request, one response",
            (true, false) => "a STREAM of requests",
            (false, true) => "a STREAM of responses",
            (true, true) => "STREAMS both ways",
        };
        if !method.is_unary() {
            self.warnings
                .push(format!("{name} streams: one call may bring any number of messages; the rate counts calls"));
        }
        let present: Vec<&Grant> = present(grant, loaded).filter(|present| present.methods.contains(name)).collect();
        let told = Fields::of(&descriptor.output());
        let fields = told.leaves.into_iter().map(|field| OfField {
            today: present.iter().map(|one| field.opening(&one.allowed, name)).max().unwrap_or(Opening::Withheld),
            then: field.opening(&grant.allowed, name),
            field,
        });
        let on: BTreeSet<&str> = present.iter().map(|one| one.legal_basis.code.as_str()).collect();
        let on = match on.is_empty() {
            true => "not granted today".to_owned(),
            false => format!("granted today on {}", on.into_iter().map(plain).collect::<Vec<_>>().join(", ")),
        };
        self.methods.push(OfMethod {
            title: format!("{name}: {streams}, {} ({on})", descriptor.output().full_name()),
            fields: fields.collect(),
            truncated: told.truncated,
        });
    }

    /// A category that no field has is a mistake.
    fn categories(&mut self, grant: &Grant) {
        let Allowed::Categories(asked) = &grant.allowed else { return };
        let known: BTreeSet<&String> =
            self.methods.iter().flat_map(|method| &method.fields).flat_map(|field| &field.field.categories).collect();
        for category in asked.iter().filter(|category| !known.contains(category)) {
            self.obstacles.push(format!("no field of these responses is of the category {}", plain(category)));
        }
    }

    fn warn(&mut self, signed: &SignedRequest, grant: &Grant, loaded: &Loaded) {
        let mut warn = |text: String| self.warnings.push(text);
        match &grant.allowed {
            Allowed::Everything => warn("it opens whole responses, also fields that the service gets later".to_owned()),
            Allowed::Fields(by_method) => {
                for (method, _) in by_method.iter().filter(|(_, paths)| paths.contains("*")) {
                    warn(format!("it opens whole responses of {method}, also fields that it gets later"));
                }
            }
            Allowed::Categories(_) => {}
        }
        if [grant.unknown.request, grant.unknown.response].contains(&UnknownFields::Pass) {
            warn("it lets fields cross that the types do not know".to_owned());
        }
        if grant.methods == Methods::All {
            warn("it is for all methods, also those that the service gets later".to_owned());
        }
        if grant.until_unix_ms.is_none() {
            warn("it has no end: --until sets one".to_owned());
        }
        if grant.rate.is_none() {
            warn("it has no rate: --rate sets one".to_owned());
        }
        let now = OffsetDateTime::now_utc();
        if grant.until_unix_ms.is_some_and(|until| until <= now.unix_timestamp() * 1_000) {
            warn("it has ended already".to_owned());
        }
        let age = (now - signed.request.made).whole_days();
        if age > OLD_DAYS || signed.request.made > now + time::Duration::hours(1) {
            warn(format!("it was made {age} days ago: ask whether it still stands"));
        }
        let listed = loaded.directory.offers_of(&grant.service).iter().find(|one| one.provider == grant.provider);
        if listed.is_some_and(|listed| listed.descriptors != signed.request.schema) {
            warn(
                "it was made by other types than those of the directory in force: compare the fields below".to_owned(),
            );
        }
        let broader = present(grant, loaded).filter(|one| matches!(one.consumer, Consumer::Member(_))).count();
        if broader > 0 {
            warn(format!("{broader} grants to its whole member are in force besides"));
        }
    }

    fn opened(&self) -> (usize, BTreeMap<String, usize>) {
        let mut by_category = BTreeMap::new();
        let opened = self.methods.iter().flat_map(|method| &method.fields).filter(|field| field.then > field.today);
        let mut count = 0;
        for field in opened {
            count += 1;
            for category in field.field.categories.iter().collect::<BTreeSet<_>>() {
                *by_category.entry(plain(category)).or_default() += 1;
            }
        }
        (count, by_category)
    }
}

/// What the consumer is granted of this service now.
fn present<'a>(grant: &'a Grant, loaded: &'a Loaded) -> impl Iterator<Item = &'a Grant> {
    let now = OffsetDateTime::now_utc().unix_timestamp() * 1_000;
    loaded.grants.iter().filter(move |one| {
        let covered = match &grant.consumer {
            Consumer::System(system) => one.consumer.covers(system),
            member @ Consumer::Member(_) => one.consumer == *member,
        };
        covered && one.provider == grant.provider && one.service == grant.service && one.is_valid_at(now)
    })
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, text) in &self.who {
            writeln!(f, "{what:<12}  {text}")?;
        }
        for method in &self.methods {
            writeln!(f, "\n{}", plain(&method.title))?;
            writeln!(f, "{}", table(&method.fields))?;
            if method.truncated {
                writeln!(f, "  and further fields, beyond {MAX_LEAVES}")?;
            }
        }
        let (count, by_category) = self.opened();
        let personal: Vec<String> = by_category.iter().map(|(category, count)| format!("{category} {count}")).collect();
        match (count, personal.is_empty()) {
            (0, _) => writeln!(f, "\nIt opens no field that is not open to this consumer today.")?,
            (count, true) => writeln!(f, "\nIt opens {count} fields more; none of them is marked as personal.")?,
            (count, false) => writeln!(f, "\nIt opens {count} fields more; personal: {}.", personal.join(", "))?,
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        for obstacle in &self.obstacles {
            writeln!(f, "NOT POSSIBLE: {obstacle}")?;
        }
        Ok(())
    }
}

fn table(fields: &[OfField]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["field", "type", "personal", "marks", "today", "with it", ""]);
    let word = |opening| match opening {
        Opening::Open => "open",
        Opening::Partly => "partly",
        Opening::Withheld => "–",
    };
    for OfField { field, today, then } in fields {
        let mut marks = Vec::new();
        for (set, mark) in [
            (field.repeated, "repeated"),
            (field.subject, "subject"),
            (field.commit, "committed"),
            (field.recursive, "goes on in itself"),
        ] {
            if set {
                marks.push(mark);
            }
        }
        table.add_row([
            field.path.clone(),
            field.kind.clone(),
            plain(&field.categories.join(", ")),
            marks.join(", "),
            word(*today).to_owned(),
            word(*then).to_owned(),
            if then > today { "NEW".to_owned() } else { String::new() },
        ]);
    }
    table
}
