//! What a directory must not contradict itself in.

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};

use rustls::pki_types::DnsName;

use super::Directory;
use crate::trust::identity::{Identity, MemberId};
use crate::trust::note::Verifier;

/// Longest name of a member, law or text, in bytes.
const MAX_NAME: usize = 512;

/// The lists of a directory, in the order of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Council,
    Members,
    Nodes,
    LogKeys,
    Systems,
    Services,
    Auditors,
    Purposes,
}

/// One contradiction and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// The list and position in it; none for the head.
    pub(super) place: Option<(List, usize)>,
    /// The field at fault.
    pub(super) field: &'static str,
    pub(super) reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((list, index)) => write!(f, "{} {}: {}: {}", list.item(), index + 1, self.field, self.reason),
            None => write!(f, "{}: {}", self.field, self.reason),
        }
    }
}

impl List {
    fn item(self) -> &'static str {
        match self {
            Self::Council => "council key",
            Self::Members => "member",
            Self::Nodes => "node",
            Self::LogKeys => "log key",
            Self::Systems => "system",
            Self::Services => "service",
            Self::Auditors => "auditor",
            Self::Purposes => "purpose",
        }
    }
}

type Checked = Result<(), Problem>;

/// The first contradiction, in the order of the text.
pub(super) fn check(directory: &Directory) -> Checked {
    check_head(directory)?;
    check_council(&directory.council, directory.threshold)?;
    let members = check_members(directory)?;
    check_nodes(directory, &members)?;
    check_systems(directory, &members)?;
    check_services(directory)?;
    check_auditors(directory, &members)?;
    check_purposes(directory)
}

/// Also for the keys of a configuration.
pub(super) fn check_council(council: &[Verifier], threshold: usize) -> Checked {
    let mut keys = HashSet::new();
    for (index, verifier) in council.iter().enumerate() {
        if verifier.is_cosigner() {
            return at(List::Council, index, "council", format!("the key of {} is a witness's", verifier.name()));
        }
        // The key itself, not its name: one key under two names would count twice.
        if !keys.insert(verifier.key_bytes()) {
            return at(List::Council, index, "council", format!("the key of {} is listed twice", verifier.name()));
        }
    }
    if threshold == 0 || threshold > council.len() {
        let reason = format!("{threshold} of {} council keys: must be at least 1 and at most all", council.len());
        return head("threshold", reason);
    }
    Ok(())
}

fn check_head(directory: &Directory) -> Checked {
    if format!("{}/x/x", directory.federation).parse::<MemberId>().is_err() {
        return head("federation", format!("{:?} is not a name", directory.federation));
    }
    if directory.version == 0 {
        return head("version", "versions begin with 1".into());
    }
    if directory.expires.nanosecond() != 0 || !directory.expires.offset().is_utc() {
        return head("expires", "must be in UTC and whole seconds".into());
    }
    if !(1970..=9999).contains(&directory.expires.year()) {
        return head("expires", "the year must have four digits".into());
    }
    Ok(())
}

fn check_members(directory: &Directory) -> Result<HashSet<&MemberId>, Problem> {
    let mut members = HashSet::new();
    for (index, member) in directory.members.iter().enumerate() {
        if member.id.instance() != directory.federation {
            let reason = format!("{} does not belong to the federation {}", member.id, directory.federation);
            at(List::Members, index, "id", reason)?;
        }
        if !members.insert(&member.id) {
            at(List::Members, index, "id", format!("{} is listed twice", member.id))?;
        }
        for (field, name) in [("ky", &member.name_ky), ("ru", &member.name_ru), ("en", &member.name_en)] {
            if !is_text(name) {
                let reason = format!(
                    "{name:?} is not a name: 1 to {MAX_NAME} bytes, no control characters, no space at the ends"
                );
                at(List::Members, index, field, reason)?;
            }
        }
    }
    Ok(members)
}

fn check_nodes(directory: &Directory, members: &HashSet<&MemberId>) -> Checked {
    let mut names = HashSet::new();
    let (mut origins, mut keys) = (HashSet::new(), HashSet::new());
    for (index, node) in directory.nodes.iter().enumerate() {
        let wrong = |field, reason| at(List::Nodes, index, field, reason);
        if !members.contains(&node.member) {
            wrong("member", format!("{} is not a listed member", node.member))?;
        }
        if node.identity().to_string().parse::<Identity>().ok() != Some(node.identity()) {
            wrong("name", format!("{:?} is not a name", node.name))?;
        }
        if !names.insert((&node.member, &node.name)) {
            wrong("name", format!("{} is listed twice", node.identity()))?;
        }
        if !is_endpoint(&node.endpoint) {
            wrong("endpoint", format!("{:?} is not host:port or [address]:port", node.endpoint))?;
        }
        if !origins.insert(node.log_key.name()) || !keys.insert(node.log_key.key_bytes()) {
            wrong("log_key", format!("{} is another node's too", node.log_key))?;
        }
        if node.log_key.is_cosigner() {
            wrong("log_key", format!("{} is a witness's key, not a log's", node.log_key))?;
        }
    }
    // As they follow each other in the text: node by node.
    let more = directory.nodes.iter().flat_map(|node| node.more_log_keys.iter().map(move |key| (node, key)));
    for (index, (node, key)) in more.enumerate() {
        let wrong = |reason| at(List::LogKeys, index, "more_log_keys", reason);
        if key.name() != node.log_key.name() {
            wrong(format!("{key} is not named for the log, {}", node.log_key.name()))?;
        }
        if key.is_cosigner() {
            wrong(format!("{key} is a witness's key, not a log's"))?;
        }
        if !keys.insert(key.key_bytes()) {
            wrong(format!("{key} is listed twice"))?;
        }
    }
    Ok(())
}

fn check_systems(directory: &Directory, members: &HashSet<&MemberId>) -> Checked {
    let mut systems = HashSet::new();
    for (index, system) in directory.systems.iter().enumerate() {
        if !members.contains(system.id.member()) {
            at(List::Systems, index, "id", format!("{} is not a listed member", system.id.member()))?;
        }
        if !systems.insert(&system.id) {
            at(List::Systems, index, "id", format!("{} is listed twice", system.id))?;
        }
    }
    Ok(())
}

fn check_services(directory: &Directory) -> Checked {
    let systems: HashSet<_> = directory.systems.iter().map(|system| &system.id).collect();
    let mut offers = HashSet::new();
    for (index, service) in directory.services.iter().enumerate() {
        if !is_service_name(&service.name) {
            let reason = format!("{:?} is not a full service name, as kg.civil.v1.CivilRegistry", service.name);
            at(List::Services, index, "name", reason)?;
        }
        if !systems.contains(&service.provider) {
            at(List::Services, index, "provider", format!("{} is not a listed system", service.provider))?;
        }
        if !offers.insert((&service.name, &service.provider)) {
            at(List::Services, index, "provider", format!("{} by {} twice", service.name, service.provider))?;
        }
    }
    Ok(())
}

fn check_auditors(directory: &Directory, members: &HashSet<&MemberId>) -> Checked {
    let mut auditors = HashSet::new();
    for (index, auditor) in directory.auditors.iter().enumerate() {
        let identity = &auditor.identity;
        if !matches!(identity, Identity::Auditor { .. }) {
            at(List::Auditors, index, "identity", format!("{identity} is not MEMBER/_auditor/NAME"))?;
        }
        if !members.contains(identity.member()) {
            at(List::Auditors, index, "identity", format!("{} is not a listed member", identity.member()))?;
        }
        if !auditors.insert(identity) {
            at(List::Auditors, index, "identity", format!("{identity} is listed twice"))?;
        }
    }
    Ok(())
}

fn check_purposes(directory: &Directory) -> Checked {
    let mut codes = HashSet::new();
    for (index, purpose) in directory.purposes.iter().enumerate() {
        let wrong = |field, reason| at(List::Purposes, index, field, reason);
        if !is_purpose_code(&purpose.code) {
            wrong("code", format!("{:?} is not a code: 1 to 64 of A-Z a-z 0-9 . _ -", purpose.code))?;
        }
        if !codes.insert(&purpose.code) {
            wrong("code", format!("{} is listed twice", purpose.code))?;
        }
        for (field, text) in [("law", &purpose.law), ("ky", &purpose.ky), ("ru", &purpose.ru), ("en", &purpose.en)] {
            if !is_text(text) {
                let reason =
                    format!("{text:?} is no text: 1 to {MAX_NAME} bytes, no control characters, no space at the ends");
                wrong(field, reason)?;
            }
        }
    }
    Ok(())
}

/// Whether this can be the code of a legal basis: 1 to 64 of `A-Z a-z 0-9 . _ -`.
pub fn is_purpose_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// A name or a sentence, on one line.
fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.trim() == text && !text.chars().any(char::is_control)
}

fn at(list: List, index: usize, field: &'static str, reason: String) -> Checked {
    Err(Problem { place: Some((list, index)), field, reason })
}

fn head(field: &'static str, reason: String) -> Checked {
    Err(Problem { place: None, field, reason })
}

/// `host:port`, `1.2.3.4:port` or `[::1]:port`, the port without leading zeros and not 0.
fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port_is_good = port.parse::<u16>().is_ok_and(|number| number != 0 && number.to_string() == port);
    let host_is_good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None if text.parse::<SocketAddr>().is_ok() => true,
        // A last label of digits only would be an address, and it was none.
        None => {
            DnsName::try_from(host).is_ok()
                && !host.rsplit('.').next().unwrap_or_default().chars().all(|c| c.is_ascii_digit())
        }
    };
    port_is_good && host_is_good
}

/// Dotted protobuf identifiers, a package and a service at least.
fn is_service_name(text: &str) -> bool {
    let identifier = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    text.len() <= 256 && text.contains('.') && text.split('.').all(identifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for good in ["gw.civil.kg:7444", "10.0.0.1:1", "[2001:db8::1]:65535", "localhost:80"] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in [
            "",
            "gw",
            "gw:",
            ":1",
            "gw:0",
            "gw:07444",
            "gw:65536",
            "gw:+1",
            "::1:80",
            "[::1]",
            "a b:1",
            "1.2.3:80",
            "https://gw:1",
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }

    #[test]
    fn service_names() {
        assert!(is_service_name("kg.civil.v1.CivilRegistry"));
        for bad in ["", "CivilRegistry", "kg..x", ".kg.x", "kg.x.", "kg.1x", "kg.x/y", "kg.х"] {
            assert!(!is_service_name(bad), "{bad}");
        }
    }
}
