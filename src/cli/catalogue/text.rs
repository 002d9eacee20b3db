//! The catalogue for a terminal: a table, or the details of a service.

use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};

use super::model::plain;
use super::model::{Basis, FieldView, Granted, Method, Model, Service, State};

/// The table, or the details of all that is in the model.
pub(super) fn print(model: &Model, details: bool) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(out, "{} at {}, directory version {}", model.system, model.node, model.directory_version);
    for (member, reason) in &model.not_asked {
        let _ = writeln!(out, "not known: what {member} grants: its node could not be asked ({reason})");
    }
    if model.services.is_empty() {
        let _ = writeln!(out, "\nNothing may be called. --all tells what there is, and how to ask for it.");
    } else if details {
        model.services.iter().for_each(|service| of_service(&mut out, service));
    } else {
        out.push_str(&overview(model));
        let _ = writeln!(out, "\nDetails, fields and an example request: kopuro catalogue … SERVICE/METHOD");
    }
    out
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn overview(model: &Model) -> String {
    let mut table = table();
    table.set_header([
        "service",
        "provider",
        "method",
        "kind",
        "may I call it?",
        "legal basis",
        "fields",
        "until",
        "rate",
    ]);
    for service in &model.services {
        for method in &service.methods {
            let of_grants = |tell: fn(&Granted) -> String| {
                let told: Vec<String> = shown(method).map(tell).collect();
                told.join("\n")
            };
            table.add_row([
                service.service.clone(),
                service.provider.clone(),
                method.name.clone(),
                method.kind.unwrap_or("?").to_owned(),
                state(method.state).to_owned(),
                of_grants(|grant| grant.basis.code.clone()),
                of_grants(fields),
                of_grants(|grant| grant.until.clone().unwrap_or_else(|| "–".to_owned())),
                of_grants(rate),
            ]);
        }
    }
    format!("{table}\n")
}

/// Those that hold, or all where none does.
fn shown(method: &Method) -> impl Iterator<Item = &Granted> {
    let any = method.grants.iter().any(|grant| grant.in_force);
    method.grants.iter().filter(move |grant| grant.in_force || !any)
}

fn state(state: State) -> &'static str {
    match state {
        State::Callable => "yes",
        State::NotAsked => "not known: the provider's node was not reached",
        State::NotYet => "not yet: the grant has yet to begin",
        State::Ended => "no: the grant has ended",
        State::NoGrant => "no: no grant",
        State::NoOutbound => "no: granted, but the own node's outbound list has no rule",
        State::Neither => "no: no grant and no outbound rule",
    }
}

fn fields(grant: &Granted) -> String {
    match grant.allowed {
        "everything" => "all".to_owned(),
        "fields" if grant.named.is_empty() => "none".to_owned(),
        what => format!("{what}: {}", grant.named.join(", ")),
    }
}

fn rate(grant: &Granted) -> String {
    match (grant.per_second, grant.burst) {
        (Some(rate), Some(burst)) if burst != rate => format!("{rate}/s, {burst} at once"),
        (Some(rate), _) => format!("{rate}/s"),
        (None, _) => "no limit of its own".to_owned(),
    }
}

fn of_service(out: &mut String, service: &Service) {
    let _ = writeln!(out, "\n{} of {}", service.service, service.provider);
    for name in [&service.member.ky, &service.member.ru, &service.member.en] {
        if !name.is_empty() {
            let _ = writeln!(out, "  {name}");
        }
    }
    if service.of_node {
        let _ = writeln!(out, "  The node's own: called at that member's node, not through this one.");
    } else {
        let _ = writeln!(out, "  schema {}", service.schema);
    }
    if let Some(openapi) = &service.openapi {
        let _ = writeln!(out, "  OpenAPI {openapi}");
    }
    service.methods.iter().for_each(|method| of_method(out, method));
}

fn of_method(out: &mut String, method: &Method) {
    let _ = writeln!(out, "\n{}", method.name);
    let _ = writeln!(out, "  may I call it?  {}", state(method.state));
    if let (Some(kind), Some(request), Some(response)) = (method.kind, &method.request, &method.response) {
        let _ = writeln!(out, "  kind            {kind}: {request} → {response}");
    } else {
        let _ = writeln!(out, "  types           not known at this node");
    }
    if let Some(outbound) = &method.outbound {
        let purpose = outbound.purpose.as_deref().map(|code| format!(", on {code} where the call names none"));
        let purpose = purpose.unwrap_or_default();
        let _ = writeln!(out, "  own node        allows it{purpose}; publishes it as {}", outbound.publication);
    }
    for basis in &method.purposes {
        let _ = writeln!(out, "  lawful purpose  {}", lawful(basis));
    }
    if let Some(class) = &method.publication {
        let _ = writeln!(out, "  publication     {class}, where the grant does not say");
    }
    method.grants.iter().for_each(|grant| of_grant(out, grant, method.publication.as_deref()));
    if !method.request_fields.is_empty() {
        let _ = writeln!(out, "\n  Request\n{}", of_fields(&method.request_fields, &[]));
    }
    if !method.response_fields.is_empty() {
        let codes: Vec<&str> = method.response_fields[0].crosses.keys().map(String::as_str).collect();
        let _ = writeln!(out, "\n  Response\n{}", of_fields(&method.response_fields, &codes));
    }
    if let Some(example) = &method.example {
        let _ = writeln!(out, "\n  Example\n    {}", example.kopuro);
        if let Some(rule) = &example.breaks {
            let _ = writeln!(out, "    (replace in it: {})", plain(rule));
        }
        if let Some(curl) = &example.curl {
            let _ = writeln!(out, "    {curl}");
        }
    }
    if let Some(ask) = &method.how_to_ask {
        let _ = writeln!(out, "\n  How to ask\n    {ask}");
    }
}

fn of_grant(out: &mut String, grant: &Granted, by_method: Option<&str>) {
    let force = if grant.in_force { "" } else { " (not in force)" };
    let _ = writeln!(out, "  grant{force}  to {} on {}", grant.consumer, lawful(&grant.basis));
    let valid = match (&grant.from, &grant.until) {
        (None, None) => "without end".to_owned(),
        (Some(from), None) => format!("from {from}, without end"),
        (None, Some(until)) => format!("until {until}"),
        (Some(from), Some(until)) => format!("{from} to {until}"),
    };
    // Where neither says anything, all is published.
    let class = grant.publication.as_deref().or(by_method).unwrap_or("public");
    let (rate, fields) = (rate(grant), fields(grant));
    let _ = writeln!(out, "    valid {valid}; {rate}; published: {class}; fields: {fields}");
}

fn lawful(basis: &Basis) -> String {
    let mut told = basis.code.clone();
    for part in [&basis.law, &basis.ky, &basis.ru, &basis.en] {
        if !part.is_empty() {
            let _ = write!(told, " · {part}");
        }
    }
    told
}

fn of_fields(fields: &[FieldView], codes: &[&str]) -> String {
    let mut table = table();
    let header = ["field", "type", "personal", "marks"].into_iter().map(str::to_owned);
    table.set_header(header.chain(codes.iter().map(|code| format!("on {code}"))));
    for field in fields {
        let mut marks = Vec::new();
        for (set, mark) in [(field.repeated, "repeated"), (field.subject, "subject"), (field.commit, "committed")] {
            if set {
                marks.push(mark);
            }
        }
        let row = [field.path.clone(), field.kind.clone(), field.categories.join(", "), marks.join(", ")];
        let crosses = codes.iter().map(|code| field.crosses.get(*code).copied().unwrap_or_default().to_owned());
        table.add_row(row.into_iter().chain(crosses));
    }
    table.to_string()
}
