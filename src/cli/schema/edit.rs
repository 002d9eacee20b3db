//! `directory.toml` with other descriptor sets in it: only the values that change are touched, and new services are put
//! behind the last one. Comments, order and spaces stay as the secretary wrote them.

use std::ops::Range;

use anyhow::{Context, bail};
use serde::Deserialize;
use toml::Spanned;

/// What is needed of a source to edit it. Other fields are the directory's own matter.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    services: Vec<RawService>,
}

#[derive(Deserialize)]
struct RawService {
    name: Spanned<String>,
    provider: Spanned<String>,
    descriptors: Spanned<String>,
}

/// One service, and the set that it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) service: String,
    pub(super) provider: String,
    /// File name of the set.
    pub(super) descriptors: String,
}

/// The source with these entries, and nothing else changed.
pub(super) fn with(source: &str, entries: &[Entry]) -> anyhow::Result<String> {
    let raw: Raw = toml::from_str(source)?;
    let mut changes: Vec<(Range<usize>, String)> = Vec::new();
    let mut behind = String::new();
    let newline = if source.contains("\r\n") { "\r\n" } else { "\n" };
    for entry in entries {
        let known = raw
            .services
            .iter()
            .find(|service| *service.name.get_ref() == entry.service && *service.provider.get_ref() == entry.provider);
        match known {
            Some(known) => changes.push((known.descriptors.span(), quoted(&entry.descriptors))),
            None => {
                let lines = [
                    String::new(),
                    "[[services]]".to_owned(),
                    format!("name = {}", quoted(&entry.service)),
                    format!("provider = {}", quoted(&entry.provider)),
                    format!("descriptors = {}", quoted(&entry.descriptors)),
                ];
                lines.iter().for_each(|line| behind.extend([line, newline]));
            }
        }
    }
    if !behind.is_empty() {
        let at = end_of_services(source, &raw);
        if at > 0 && !source[..at].ends_with('\n') {
            behind.insert_str(0, newline);
        }
        changes.push((at..at, behind));
    }
    // From the end, so that what comes before keeps its place.
    changes.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    let mut edited = source.to_owned();
    for (span, text) in changes {
        edited.replace_range(span, &text);
    }
    check(&edited, source, entries).context(
        "directory.toml is written so that it cannot be edited here (services in one line, or an entry with more in it): \
         add the [[services]] by hand, or write each as [[services]] with its three fields",
    )?;
    Ok(edited)
}

/// Behind the line that ends the last service, or the end of the source.
fn end_of_services(source: &str, raw: &Raw) -> usize {
    let ends = raw
        .services
        .iter()
        .flat_map(|service| [service.name.span().end, service.provider.span().end, service.descriptors.span().end]);
    match ends.max() {
        Some(end) => source[end..].find('\n').map_or(source.len(), |at| end + at + 1),
        None => source.len(),
    }
}

/// What was edited says what it should, and all else says what it did.
fn check(edited: &str, source: &str, entries: &[Entry]) -> anyhow::Result<()> {
    let mut before: toml::Table = toml::from_str(source)?;
    let mut after: toml::Table = toml::from_str(edited)?;
    let services = |table: &mut toml::Table| match table.remove("services") {
        Some(toml::Value::Array(services)) => services,
        _ => Vec::new(),
    };
    let (mut expected, found) = (services(&mut before), services(&mut after));
    for entry in entries {
        let key = |service: &toml::Value| {
            let text = |key| service.get(key).and_then(toml::Value::as_str).map(str::to_owned);
            text("name").as_ref() == Some(&entry.service) && text("provider").as_ref() == Some(&entry.provider)
        };
        let descriptors = toml::Value::from(entry.descriptors.clone());
        match expected.iter_mut().find(|service| key(service)).and_then(toml::Value::as_table_mut) {
            Some(known) => drop(known.insert("descriptors".into(), descriptors)),
            None => {
                let mut table = toml::Table::new();
                table.insert("name".into(), entry.service.clone().into());
                table.insert("provider".into(), entry.provider.clone().into());
                table.insert("descriptors".into(), descriptors);
                expected.push(table.into());
            }
        }
    }
    if before != after || expected != found {
        bail!("it would say something else");
    }
    Ok(())
}

/// None of the texts has anything to escape: names, identities and file names of digests.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(service: &str, provider: &str, descriptors: &str) -> Entry {
        Entry { service: service.into(), provider: provider.into(), descriptors: descriptors.into() }
    }

    const SOURCE: &str = r#"# The federation.
version = 7 # raised in March

[[services]]
name = "a.v1.A"       # the first
provider = "KG/GOV/1/a"
descriptors = 'a.binpb' # by hand

[[services]]
provider = "KG/GOV/2/a"
descriptors = "a.binpb"
name = "a.v1.A" # the second

# Who looks.
[[auditors]]
identity = "KG/GOV/1/_auditor/x"
"#;

    #[test]
    fn only_what_changes_is_touched() {
        let edited = with(SOURCE, &[entry("a.v1.A", "KG/GOV/1/a", "new.binpb")]).unwrap();
        assert_eq!(edited, SOURCE.replace("'a.binpb'", "\"new.binpb\""));
        let edited =
            with(SOURCE, &[entry("a.v2.A", "KG/GOV/1/a", "v2.binpb"), entry("a.v1.A", "KG/GOV/2/a", "new.binpb")])
                .unwrap();
        let added = "[[services]]\nname = \"a.v2.A\"\nprovider = \"KG/GOV/1/a\"\ndescriptors = \"v2.binpb\"\n";
        let expected = SOURCE
            .replace("descriptors = \"a.binpb\"", "descriptors = \"new.binpb\"")
            .replace("# the second\n", &format!("# the second\n\n{added}"));
        assert_eq!(edited, expected);
        assert_eq!(with(SOURCE, &[]).unwrap(), SOURCE);
    }

    #[test]
    fn the_first_service_goes_to_the_end() {
        let edited = with("version = 1", &[entry("a.v1.A", "KG/GOV/1/a", "a.binpb")]).unwrap();
        assert!(edited.starts_with("version = 1\n\n[[services]]\nname = \"a.v1.A\"\n"), "{edited}");
        let edited = with("version = 1\r\n", &[entry("a.v1.A", "KG/GOV/1/a", "a.binpb")]).unwrap();
        assert!(edited.ends_with("\r\ndescriptors = \"a.binpb\"\r\n"), "{edited:?}");
    }

    #[test]
    fn what_cannot_be_edited_is_left_alone() {
        let inline = "services = [{ name = \"a.v1.A\", provider = \"KG/GOV/1/a\", descriptors = \"a\" }]\n";
        assert!(with(inline, &[entry("a.v2.A", "KG/GOV/1/a", "b")]).is_err());
        // The value alone can be replaced there too.
        let edited = with(inline, &[entry("a.v1.A", "KG/GOV/1/a", "b")]).unwrap();
        assert_eq!(edited, inline.replace("descriptors = \"a\"", "descriptors = \"b\""));
    }
}
