//! Commands to paste: a call by `kopuro call` and by curl, and a request for a grant.

use prost_reflect::MethodDescriptor;

use super::super::super::connect::Destination;
use super::{Example, plain};
use crate::proto::kopuro::catalogue::v1 as wire;
use crate::schema::annotations::MethodAnnotations;
use crate::schema::fields::Fields;

/// How commands reach the node.
#[derive(Debug)]
pub(in super::super) struct Client {
    /// `--config call.toml`, or the flags.
    kopuro: String,
    curl: String,
    node: String,
}

impl Client {
    pub(super) fn new(destination: &Destination) -> Self {
        let file = |path: &std::path::Path| quoted(&path.display().to_string());
        let (cert, key, root) = (file(&destination.cert), file(&destination.key), file(&destination.root));
        let kopuro = match &destination.config {
            Some(config) => format!("--config {}", file(config)),
            None => format!("--node {} --cert {cert} --key {key} --ca {root}", quoted(&destination.node)),
        };
        Self { kopuro, curl: format!("--cert {cert} --key {key} --cacert {root}"), node: destination.node.clone() }
    }

    pub(super) fn example(
        &self,
        offered: &wire::OfferedService,
        method: &MethodDescriptor,
        request: serde_json::Value,
        purpose: Option<&str>,
    ) -> Example {
        let path = format!("{}/{}", offered.service, method.name());
        let (mut flags, mut headers) = (String::new(), String::new());
        let mut name = |flag: &str, value: &str| {
            flags.push_str(&format!(" --{flag} {}", quoted(value)));
            headers.push_str(&format!(" -H {}", quoted(&format!("kopuro-{flag}: {value}"))));
        };
        if offered.several {
            name("provider", &offered.provider);
        }
        if let Some(code) = purpose {
            name("purpose", code);
        }
        let data = quoted(&request.to_string());
        let unary = !method.is_client_streaming() && !method.is_server_streaming();
        let curl = unary.then(|| {
            let url = quoted(&format!("{}/{path}", self.node.trim_end_matches('/')));
            format!("curl {} -H 'content-type: application/json'{headers} -d {data} {url}", self.curl)
        });
        Example { kopuro: format!("kopuro call {} {path}{flags} -d {data}", self.kopuro), curl, breaks: None, request }
    }

    pub(super) fn how_to_ask(
        &self,
        offered: &wire::OfferedService,
        method: &str,
        annotations: &MethodAnnotations,
        descriptor: Option<&MethodDescriptor>,
    ) -> String {
        let purpose = annotations.purposes.first().map_or("CODE", String::as_str);
        let categories = descriptor.map(|method| Fields::of(&method.output())).unwrap_or_default();
        let categories: Vec<&str> = categories.categories().into_iter().collect();
        let what = if categories.is_empty() {
            "--everything".to_owned()
        } else {
            format!("--categories {}", quoted(&categories.join(",")))
        };
        format!(
            "kopuro grant request {} --service {} --provider {} --methods {} {what} --purpose {} --reason '…' --contact '…'",
            self.kopuro,
            quoted(&offered.service),
            quoted(&offered.provider),
            quoted(method),
            quoted(purpose),
        )
    }
}

/// For a POSIX shell.
fn quoted(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !text.is_empty() && text.chars().all(safe) {
        plain(text)
    } else {
        format!("'{}'", plain(text).replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_are_safe() {
        assert_eq!(quoted("kg.civil.v1/Get"), "kg.civil.v1/Get");
        assert_eq!(quoted("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("a\u{1b}[2Jb"), "'a\u{fffd}[2Jb'");
    }
}
