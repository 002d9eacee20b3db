//! A commented node.toml: the example of `deploy/`, which documents every field, with a ministry's own answers in it.

use anyhow::{Context, bail};

use crate::trust::identity::{Identity, MemberId, SystemId};
use crate::trust::note::Verifier;

const EXAMPLE: &str = include_str!("../../../deploy/node.example.toml");

/// An outbound list that allows nothing yet.
pub(super) const OUTBOUND: &str = "\
# Which of this member's systems may call what; everything else is refused. For example:
#
# [[allow]]
# system = \"case-management\"
# provider = \"KG/GOV/70000005\"
# service = \"kg.civil.v1.CivilRegistry\"
# methods = [\"GetPerson\"]
";

/// What stands in a node's configuration.
pub(super) struct Answers {
    pub(super) member: MemberId,
    pub(super) name: String,
    pub(super) systems: Vec<SystemId>,
    /// System and address of its back-end.
    pub(super) backends: Vec<(String, String)>,
    pub(super) mirrors: Vec<String>,
    pub(super) council: Vec<Verifier>,
    pub(super) threshold: usize,
    /// Where the log and the publication are to be, if not beside the configuration.
    pub(super) data: Option<String>,
    pub(super) store: Option<String>,
}

impl Answers {
    /// The node's identity.
    pub(super) fn identity(&self) -> anyhow::Result<Identity> {
        Ok(format!("{}/_node/{}", self.member, self.name).parse()?)
    }
}

/// The example with these answers. Every line that is replaced must be there: the example is ours.
pub(super) fn node_toml(answers: &Answers) -> anyhow::Result<String> {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let list = |items: &mut dyn Iterator<Item = String>| {
        let items: Vec<String> = items.map(|item| format!("  {},\n", quoted(&item))).collect();
        format!("[\n{}]", items.concat())
    };
    let mut out = String::with_capacity(EXAMPLE.len());
    let mut lines = EXAMPLE.lines();
    let mut replaced = 0;
    let Answers { data, store, .. } = answers;
    while let Some(line) = lines.next() {
        let comment = line.find(" #").map_or("", |at| &line[at..]);
        let new = match line.split(" = ").next().unwrap_or_default() {
            "# A node of the State Registration Service. Every field is here; those that are commented out show their default." =>
            {
                format!(
                    "# The node of {}. Every field is here; those that are commented out show their default.",
                    answers.member
                )
            }
            "member" => format!("member = {}{comment}", quoted(answers.member.as_str())),
            "# name" if answers.name != "main" => format!("name = {}{comment}", quoted(&answers.name)),
            "# data" if data.is_some() => format!("data = {}{comment}", quoted(data.as_deref().unwrap_or_default())),
            "store" if store.is_some() => format!("store = {}{comment}", quoted(store.as_deref().unwrap_or_default())),
            "mirrors" => format!("mirrors = {}{comment}", list(&mut answers.mirrors.iter().cloned())),
            "council" => {
                // The example's keys, to the closing bracket.
                while lines.next().context("the example's council has no end")? != "]" {}
                format!("council = {}", list(&mut answers.council.iter().map(ToString::to_string)))
            }
            "threshold" => format!("threshold = {}{comment}", answers.threshold),
            "# crls" => format!("crls = [\"ca/ca.crl\"]{comment}"),
            "# grants" => format!("grants = \"grants\"{comment}"),
            "# outbound" => format!("outbound = \"outbound.toml\"{comment}"),
            "[backends.civil-registry]" => {
                // The example's one table, to the blank line after it.
                for line in lines.by_ref().take_while(|line| !line.is_empty()) {
                    let _ = line;
                }
                replaced += 1;
                out.push_str(&backends(answers));
                continue;
            }
            _ => {
                out.push_str(line);
                out.push('\n');
                continue;
            }
        };
        replaced += 1;
        out.push_str(&new);
        out.push('\n');
    }
    // Header, member, mirrors, council, threshold, crls, grants, outbound, back-ends; and what is not the default.
    let others = [answers.name != "main", data.is_some(), store.is_some()];
    let expected = 9 + others.into_iter().filter(|other| *other).count();
    if replaced != expected {
        bail!("the built-in example of node.toml has changed its shape: {replaced} of {expected} places found");
    }
    Ok(out)
}

fn backends(answers: &Answers) -> String {
    let mut out = String::new();
    for system in &answers.systems {
        let name = system.name();
        match answers.backends.iter().find(|(of, _)| of == name) {
            Some((_, url)) => {
                let url = toml::Value::String(url.clone());
                out += &format!(
                    "[backends.{name}]\nendpoint = {url}  # mutual TLS, the system's identity in its certificate\n\n"
                );
            }
            None => {
                out += &format!(
                    "# [backends.{name}]                 # only if it provides a service\n# endpoint = \"https://127.0.0.1:9001\"\n\n"
                );
            }
        }
    }
    out
}
