//! The canonical text of a directory, which is the text of its note.
//!
//! UTF-8, one fact a line, every line ended by a newline, fields separated by one space:
//!
//! ```text
//! kopuro directory v1
//! federation KG
//! version 7
//! expires 2027-03-01T00:00:00Z
//! threshold 2
//! council audit-chamber+5f1a3c0e+AT…                                                   one per key
//! member KG/GOV/70000005 "Жарандык…" "ЗАГС…" "Civil Registry…"                         ky, ru, en
//! node KG/GOV/70000005 main gw.civil.kg:7444 gw.civil.kg/log+0a1b2c3d+AU…              member, name, endpoint, log key
//! log-key KG/GOV/70000005 main gw.civil.kg/log+5e6f7081+AW…                            member, name of a node, another key of its log
//! system KG/GOV/70000005/civil-registry
//! service kg.civil.v1.CivilRegistry KG/GOV/70000005/civil-registry 6f0b…               name, provider, descriptor set
//! auditor KG/NGO/10000003/_auditor/board
//! purpose NK-54-2 "Tax Code, article 54, part 2" "Салык…" "Сверка…" "To verify…"       code, law and article, ky, ru, en
//! ```
//!
//! - The lines come in this order. The first five stand once; of the others there are any number (of `council` one at
//!   least), and the lines of one kind are sorted by their bytes.
//! - Numbers are decimal without leading zeros. The expiry is UTC, in whole seconds, with `Z`.
//! - A key is a C2SP vkey. A node's log key is named for the log's origin, and so are the other keys of its log.
//! - A name, a law and a text are quoted; in it `"` is written `\"` and `\` is written `\\`, and nothing else is escaped. No control characters.
//! - A descriptor set is the SHA-256, in lower-case hex, of an encoded `google.protobuf.FileDescriptorSet`, which is
//!   published beside the directory as `<hex>.binpb`.
//! - Every member, node, system, service of a provider, auditor and purpose stands once, no key twice; members belong to the
//!   federation, nodes, systems and auditors to a listed member, and a service's provider is a listed system.
//!
//! There is one way to write a directory: a reader prints what it read and refuses the text if a byte differs.

use std::fmt::Write;
use std::str::FromStr;

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::check::{self, List, Problem};
use super::{Auditor, Directory, DirectoryError, Member, Node, Purpose, Service, System};

/// The first line.
pub const HEADER: &str = "kopuro directory v1";
/// Lines before the first council key.
const HEAD_LINES: usize = 5;
const TIME: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

pub(super) fn print(directory: &Directory) -> String {
    let mut out = format!("{HEADER}\n");
    // Writing to a string does not fail.
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = out.write_fmt(text);
        out.push('\n');
    };
    line(format_args!("federation {}", directory.federation));
    line(format_args!("version {}", directory.version));
    line(format_args!("expires {}", print_time(directory.expires)));
    line(format_args!("threshold {}", directory.threshold));
    for key in &directory.council {
        line(format_args!("council {key}"));
    }
    for Member { id, name_ky, name_ru, name_en } in &directory.members {
        line(format_args!("member {id} {} {} {}", quote(name_ky), quote(name_ru), quote(name_en)));
    }
    for Node { member, name, endpoint, log_key, .. } in &directory.nodes {
        line(format_args!("node {member} {name} {endpoint} {log_key}"));
    }
    for node in &directory.nodes {
        for key in &node.more_log_keys {
            line(format_args!("log-key {} {} {key}", node.member, node.name));
        }
    }
    for System { id } in &directory.systems {
        line(format_args!("system {id}"));
    }
    for Service { name, provider, descriptors } in &directory.services {
        line(format_args!("service {name} {provider} {}", hex::encode(descriptors)));
    }
    for Auditor { identity } in &directory.auditors {
        line(format_args!("auditor {identity}"));
    }
    for Purpose { code, law, ky, ru, en } in &directory.purposes {
        line(format_args!("purpose {code} {} {} {} {}", quote(law), quote(ky), quote(ru), quote(en)));
    }
    out
}

pub(super) fn parse(text: &str) -> Result<Directory, DirectoryError> {
    let mut directory = parse_head(text)?;
    for (index, line) in text.split_terminator('\n').enumerate().skip(HEAD_LINES) {
        parse_item(line, &mut directory).map_err(|reason| DirectoryError::Line { line: index + 1, reason })?;
    }
    check::check(&directory).map_err(|problem| locate(&problem, &directory))?;
    directory.sort();
    let canonical = print(&directory);
    if canonical == text {
        return Ok(directory);
    }
    let differs =
        canonical.split_terminator('\n').zip(text.split_terminator('\n')).position(|(ours, theirs)| ours != theirs);
    let line = differs.unwrap_or_else(|| text.split_terminator('\n').count()) + 1;
    let reason = match canonical.split_terminator('\n').nth(line - 1) {
        Some(expected) => format!("not canonical: expected {expected:?} here"),
        None => "not canonical: something follows the last line".into(),
    };
    Err(DirectoryError::Line { line, reason })
}

/// The five lines that stand once, in their order.
fn parse_head(text: &str) -> Result<Directory, DirectoryError> {
    let mut lines = text.split_terminator('\n').enumerate();
    let mut next = |keyword: &str| match lines.next() {
        Some((index, line)) => match line.strip_prefix(keyword).and_then(|rest| rest.strip_prefix(' ')) {
            Some(value) => Ok((index + 1, value)),
            None => Err(DirectoryError::Line { line: index + 1, reason: format!("expected {keyword}") }),
        },
        None => Err(DirectoryError::Line {
            line: text.split_terminator('\n').count() + 1,
            reason: format!("expected {keyword}"),
        }),
    };
    let (line, version_of_format) = next("kopuro directory")?;
    if version_of_format != "v1" {
        return Err(DirectoryError::Line { line, reason: format!("format {version_of_format:?} is not known") });
    }
    let (_, federation) = next("federation")?;
    let (line, version) = next("version")?;
    let version = value(line, "version", version)?;
    let (line, expires) = next("expires")?;
    let expires = parse_time(expires)
        .ok_or_else(|| DirectoryError::Line { line, reason: "expires: expected 2027-03-01T00:00:00Z".into() })?;
    let (line, threshold) = next("threshold")?;
    let threshold = value(line, "threshold", threshold)?;
    Ok(Directory {
        federation: federation.into(),
        version,
        expires,
        threshold,
        council: Vec::new(),
        members: Vec::new(),
        nodes: Vec::new(),
        systems: Vec::new(),
        services: Vec::new(),
        auditors: Vec::new(),
        purposes: Vec::new(),
    })
}

fn value<T: FromStr>(line: usize, field: &str, text: &str) -> Result<T, DirectoryError> {
    text.parse().map_err(|_| DirectoryError::Line { line, reason: format!("{field}: {text:?} is not a number") })
}

fn parse_item(line: &str, directory: &mut Directory) -> Result<(), String> {
    let (keyword, rest) = line.split_once(' ').ok_or_else(|| format!("{line:?} is not a line of a directory"))?;
    match keyword {
        "council" => directory.council.push(field("council", rest)?),
        "member" => {
            let (id, names) = rest.split_once(' ').ok_or("expected member ID \"ky\" \"ru\" \"en\"")?;
            let [name_ky, name_ru, name_en] = unquote_all(names).ok_or("names: expected \"ky\" \"ru\" \"en\"")?;
            directory.members.push(Member { id: field("id", id)?, name_ky, name_ru, name_en });
        }
        "node" => {
            let [member, name, endpoint, log_key] = fields(rest, "node MEMBER NAME ENDPOINT LOG-KEY")?;
            let (name, endpoint) = (name.into(), endpoint.into());
            let (member, log_key) = (field("member", member)?, field("log key", log_key)?);
            directory.nodes.push(Node { member, name, endpoint, log_key, more_log_keys: Vec::new() });
        }
        "log-key" => {
            let [member, name, key] = fields(rest, "log-key MEMBER NAME LOG-KEY")?;
            let member = field("member", member)?;
            let node = directory.nodes.iter_mut().find(|node| node.member == member && node.name == name);
            let node = node.ok_or_else(|| format!("{member} has no node {name} above"))?;
            node.more_log_keys.push(field("log key", key)?);
        }
        "system" => directory.systems.push(System { id: field("system", rest)? }),
        "service" => {
            let [name, provider, digest] = fields(rest, "service NAME PROVIDER SHA-256")?;
            let descriptors = parse_digest(digest).ok_or("descriptor set: expected a SHA-256 in lower-case hex")?;
            let provider = field("provider", provider)?;
            directory.services.push(Service { name: name.into(), provider, descriptors });
        }
        "auditor" => directory.auditors.push(Auditor { identity: field("auditor", rest)? }),
        "purpose" => {
            let (code, texts) = rest.split_once(' ').ok_or("expected purpose CODE \"law\" \"ky\" \"ru\" \"en\"")?;
            let [law, ky, ru, en] = unquote_all(texts).ok_or("texts: expected \"law\" \"ky\" \"ru\" \"en\"")?;
            directory.purposes.push(Purpose { code: code.into(), law, ky, ru, en });
        }
        _ => return Err(format!("{keyword:?} is not known here")),
    }
    Ok(())
}

/// Problems are found by list and position; a person looks for a line.
fn locate(problem: &Problem, directory: &Directory) -> DirectoryError {
    let lists = [
        (List::Council, directory.council.len()),
        (List::Members, directory.members.len()),
        (List::Nodes, directory.nodes.len()),
        (List::LogKeys, directory.nodes.iter().map(|node| node.more_log_keys.len()).sum()),
        (List::Systems, directory.systems.len()),
        (List::Services, directory.services.len()),
        (List::Auditors, directory.auditors.len()),
        (List::Purposes, directory.purposes.len()),
    ];
    let Some((list, index)) = problem.place else { return DirectoryError::Inconsistent(problem.to_string()) };
    let before: usize = lists.iter().take_while(|(other, _)| *other != list).map(|(_, length)| length).sum();
    DirectoryError::Line {
        line: HEAD_LINES + before + index + 1,
        reason: format!("{}: {}", problem.field, problem.reason),
    }
}

fn fields<'a, const N: usize>(text: &'a str, expected: &str) -> Result<[&'a str; N], String> {
    let fields: Vec<&str> = text.split(' ').collect();
    fields.try_into().map_err(|_| format!("expected {expected}"))
}

fn field<T: FromStr<Err: ToString>>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| format!("{name}: {}", error.to_string()))
}

pub(super) fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let digest: [u8; 32] = hex::decode(text).ok()?.try_into().ok()?;
    (hex::encode(digest) == text).then_some(digest)
}

pub(super) fn print_time(time: OffsetDateTime) -> String {
    // A checked directory's expiry has four digits of year and is UTC, and that always formats.
    time.format(TIME).unwrap_or_else(|_| time.to_string())
}

fn parse_time(text: &str) -> Option<OffsetDateTime> {
    Some(PrimitiveDateTime::parse(text, TIME).ok()?.assume_utc())
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// `"a" "b" "c"`, so many and nothing behind them.
fn unquote_all<const N: usize>(text: &str) -> Option<[String; N]> {
    let mut rest = text;
    let mut all = Vec::with_capacity(N);
    while all.len() < N {
        let quoted = if all.is_empty() { rest } else { rest.strip_prefix(' ')? };
        let (one, behind) = unquote(quoted)?;
        all.push(one);
        rest = behind;
    }
    if rest.is_empty() { all.try_into().ok() } else { None }
}

/// One quoted string at the beginning, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut chars = text.strip_prefix('"')?.chars();
    let mut out = String::new();
    loop {
        match chars.next()? {
            '"' => return Some((out, chars.as_str())),
            '\\' => out.push(chars.next()?),
            c => out.push(c),
        }
    }
}
