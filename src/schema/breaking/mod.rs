//! Breaking changes: what a new version of some types does to those who were built with the old one.
//!
//! In: two descriptor pools. Out: every [`Break`], by the rules of buf's categories `WIRE_JSON` and `PACKAGE` under buf's
//! own names (<https://buf.build/docs/breaking/rules>), and of annotations under names that begin with `KOPURO_`. Pure.
//!
//! What counts is what callers can see: packages that define a service, and every type that a method carries. Of a
//! package that only came along as an import (`google.protobuf`'s options, an import that nobody uses) nothing counts.
//! A set without any service is a library, and all of it counts.
//!
//! Adding is never breaking; a package that only the new version has (`kg.civil.v2` beside `kg.civil.v1`) is nothing but
//! added. Annotations may be added where there were none, since that protects more; what they have promised, to those whom
//! the data is about or to those who call, is not taken back:
//!
//! | rule | breaks |
//! |---|---|
//! | `KOPURO_FIELD_SAME_SUBJECT` | a subject that is none any more: exchanges would leave that person's journal |
//! | `KOPURO_FIELD_SAME_CATEGORY` | a category dropped or replaced: other grants would let the field through |
//! | `KOPURO_FIELD_SAME_COMMIT` | a commitment dropped: the field could not be opened alone any more |
//! | `KOPURO_METHOD_PURPOSE_NO_DELETE` | a code removed (whoever calls by it is refused), or all of them (any would do) |
//! | `KOPURO_METHOD_PUBLICATION_NOT_OPENER` | a class that shows more, or sooner |
//! | `KOPURO_SERVICE_SAME_BODY` | another body answers, or none |
//! | `KOPURO_REQUEST_RULE_NOT_STRICTER` | a rule of `buf.validate` on what callers send that is new, stricter, or not comparable |

mod added;
mod annotations;
mod enums;
mod fields;
mod files;
mod messages;
mod rules;
mod scope;
mod services;

use std::collections::HashSet;

use prost_reflect::{DescriptorPool, FileDescriptor};

pub use added::added;
use scope::Scope;

/// Most breaks, and most additions, that are told one by one; more are counted.
pub const MAX_TOLD: usize = 1_000;

/// One thing that the new version does to those who were built with the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The rule that it breaks.
    pub rule: &'static str,
    /// Where it is.
    pub place: Place,
    /// What has changed, in words.
    pub what: String,
}

impl Break {
    /// Whether it is of an annotation, and nothing on the wire.
    pub fn is_annotation(&self) -> bool {
        self.rule.starts_with("KOPURO_")
    }
}

/// Something that only the new version has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// Where it is.
    pub place: Place,
    /// What it is, in words.
    pub what: String,
}

/// Where in the new version; of what was deleted, where it was missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The `.proto` file.
    pub file: String,
    /// Its line, from 1, where the set has source information.
    pub line: Option<u32>,
    /// Full name of the element, `kg.civil.v1.Person.pin`.
    pub name: String,
}

/// What was found, at most [`MAX_TOLD`] of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<T> {
    /// In the order of the old set.
    pub list: Vec<T>,
    /// How many there are beyond the bound.
    pub beyond: usize,
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self { list: Vec::new(), beyond: 0 }
    }
}

impl<T> Told<T> {
    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn push(&mut self, found: impl FnOnce() -> T) {
        if self.list.len() < MAX_TOLD { self.list.push(found()) } else { self.beyond += 1 }
    }
}

/// What `new` breaks for those who were built with `old`.
pub fn breaking(old: &DescriptorPool, new: &DescriptorPool) -> Told<Break> {
    let mut judge = Judge { new, scope: Scope::of(old), packages: packages(new), found: Told::default() };
    files::judge(&mut judge, old);
    messages::judge(&mut judge, old);
    enums::judge(&mut judge, old);
    services::judge(&mut judge, old);
    judge.found
}

/// The new version, and what was found of it so far.
struct Judge<'a> {
    new: &'a DescriptorPool,
    scope: Scope,
    packages: HashSet<String>,
    found: Told<Break>,
}

impl Judge<'_> {
    /// A break in an element that the new version has.
    fn add(&mut self, rule: &'static str, file: &FileDescriptor, path: &[i32], name: &str, what: impl Into<String>) {
        self.found.push(|| Break { rule, place: Place::of(file, path, name), what: what.into() });
    }

    /// A break by what the new version lacks: where its old file is still there, that is the place.
    fn missing(&mut self, rule: &'static str, old: &FileDescriptor, name: &str, what: String) {
        let place = Place { file: old.name().to_owned(), line: None, name: name.to_owned() };
        self.found.push(|| Break { rule, place, what });
    }
}

impl Place {
    /// Of an element of a file, by its path in the descriptor.
    pub fn of(file: &FileDescriptor, path: &[i32], name: &str) -> Self {
        let info = file.file_descriptor_proto().source_code_info.as_ref();
        let location = info.and_then(|info| info.location.iter().find(|location| location.path == path));
        let line = location.and_then(|location| u32::try_from(*location.span.first()?).ok()?.checked_add(1));
        Self { file: file.name().to_owned(), line, name: name.to_owned() }
    }
}

impl Place {
    /// Of the service, method, message, field or oneof of this full name.
    pub fn find(pool: &DescriptorPool, name: &str) -> Option<Self> {
        if let Some(service) = pool.get_service_by_name(name) {
            return Some(Self::of(&service.parent_file(), service.path(), name));
        }
        if let Some(message) = pool.get_message_by_name(name) {
            return Some(Self::of(&message.parent_file(), message.path(), name));
        }
        let (outer, last) = name.rsplit_once('.')?;
        if let Some(service) = pool.get_service_by_name(outer) {
            let method = service.methods().find(|method| method.name() == last)?;
            return Some(Self::of(&service.parent_file(), method.path(), name));
        }
        let message = pool.get_message_by_name(outer)?;
        if let Some(field) = message.get_field_by_name(last) {
            return Some(Self::of(&message.parent_file(), field.path(), name));
        }
        let oneof = message.oneofs().find(|oneof| oneof.name() == last)?;
        Some(Self::of(&message.parent_file(), oneof.path(), name))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.name),
            None => write!(f, "{}: {}", self.file, self.name),
        }
    }
}

fn packages(pool: &DescriptorPool) -> HashSet<String> {
    pool.files().map(|file| file.package_name().to_owned()).collect()
}
