//! A grant, written as a grants file has it.

use std::collections::BTreeSet;
use std::fmt::Write;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::policy::{Allowed, Grant, Methods, Publication, UnknownFields, UnknownPolicy};

/// A grant as a grants file has it: read back, it is the same.
pub fn entry_text(grant: &Grant) -> String {
    let mut text = String::from("[[grant]]\n");
    // Writing to a String does not fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name} = {value}");
    };
    line("consumer", quoted(&grant.consumer.to_string()));
    line("provider", quoted(grant.provider.as_str()));
    line("service", quoted(&grant.service));
    line(
        "methods",
        match &grant.methods {
            Methods::All => list(["*"]),
            Methods::Named(names) => list(names.iter().map(String::as_str)),
        },
    );
    let basis = &grant.legal_basis;
    line("legal_basis", format!("{{ code = {}, text = {} }}", quoted(&basis.code), quoted(&basis.text)));
    if let Some(from) = grant.from_unix_ms {
        line("from", quoted(&bound_text(from, false)));
    }
    if let Some(until) = grant.until_unix_ms {
        line("until", quoted(&bound_text(until, true)));
    }
    if let Some(rate) = grant.rate {
        line("rate", format!("{{ per_second = {}, burst = {} }}", rate.per_second, rate.burst));
    }
    match grant.publication {
        None => {}
        Some(Publication::Delayed { days }) => line("publication", format!("{{ delayed_days = {days} }}")),
        Some(class) => line("publication", quoted(&class.to_string())),
    }
    match &grant.allowed {
        Allowed::Everything => {}
        Allowed::Categories(categories) => line("categories", list(categories.iter().map(String::as_str))),
        Allowed::Fields(by_method) => {
            let of_method = |(method, paths): (&String, &BTreeSet<String>)| {
                format!("{method} = {}", list(paths.iter().map(String::as_str)))
            };
            let methods: Vec<String> = by_method.iter().map(of_method).collect();
            line("fields", format!("{{ {} }}", methods.join(", ")));
        }
    }
    let usual = UnknownPolicy::default();
    for (name, policy, usual) in [
        ("unknown_fields", grant.unknown.request, usual.request),
        ("unknown_response_fields", grant.unknown.response, usual.response),
    ] {
        if policy != usual {
            let word = match policy {
                UnknownFields::Refuse => "refuse",
                UnknownFields::Strip => "strip",
                UnknownFields::Pass => "pass",
            };
            line(name, quoted(word));
        }
    }
    if grant.name_withheld {
        line("name_withheld", "true".to_owned());
    }
    text
}

/// A bound of validity as a grants file has it: whole days as days, the last one included; else the moment.
pub fn bound_text(unix_ms: i64, end: bool) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000);
    let Ok(at) = at else { return unix_ms.to_string() };
    if at.time() != time::Time::MIDNIGHT {
        return at.format(&Rfc3339).unwrap_or_else(|_| unix_ms.to_string());
    }
    let day = if end { at.checked_sub(Duration::days(1)).unwrap_or(at) } else { at };
    day.date().to_string()
}

fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<String> = items.into_iter().map(quoted).collect();
    format!("[{}]", items.join(", "))
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(more: &str) -> Grant {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[[grant]]\nconsumer = \"KG/GOV/1/desk\"\nprovider = \"registry\"\nservice = \"t.S\"\nmethods = [\"B\", \"A\"]\n\
             legal_basis = {{ code = \"law-1\", text = \"a \\\"quoted\\\"\\nline\" }}\n{more}"
        );
        std::fs::write(folder.path().join("g.toml"), text).unwrap();
        crate::config::load_grants(folder.path(), &"KG/GOV/2".parse().unwrap()).unwrap().remove(0)
    }

    #[test]
    fn a_grant_is_written_as_it_is_read() {
        for more in [
            "",
            "from = \"2026-01-01\"\nuntil = \"2026-12-31\"\nrate = { per_second = 5, burst = 9 }\npublication = \"sealed\"",
            "fields = { A = [\"p.name\", \"since\"], B = [\"*\"] }\nname_withheld = true\nunknown_fields = \"strip\"",
            "categories = [\"identity\", \"kg.tax-secret\"]\nunknown_fields = \"pass\"\nunknown_response_fields = \"refuse\"",
            "from = \"2026-01-01T09:30:00+06:00\"\nuntil = \"2027-01-01T00:00:01Z\"\npublication = { delayed_days = 30 }",
        ] {
            let grant = grant(more);
            let text = entry_text(&grant);
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("g.toml"), &text).unwrap();
            let read = crate::config::load_grants(folder.path(), &"KG/GOV/2".parse().unwrap()).unwrap();
            assert_eq!(read, [grant], "{text}");
        }
    }

    #[test]
    fn bounds_are_days_where_they_are_whole() {
        let midnight = 1_767_225_600_000;
        assert_eq!(bound_text(midnight, false), "2026-01-01");
        assert_eq!(bound_text(midnight, true), "2025-12-31");
        assert_eq!(bound_text(midnight + 3_600_000, true), "2026-01-01T01:00:00Z");
        assert_eq!(bound_text(i64::MAX, true), i64::MAX.to_string());
    }
}
