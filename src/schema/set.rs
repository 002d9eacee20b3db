//! Descriptor sets that somebody else made: read with their faults told one by one, before a directory names them.
//!
//! In: the bytes of a `google.protobuf.FileDescriptorSet`. Out: its types, or every [`SetFault`]. Recursive types are
//! fine. A set is refused that is huge, holds a file twice, misses an import, imports in a circle, names things as no
//! `.proto` could, or contradicts itself. Pure.

use std::collections::{HashMap, HashSet};

use prost::Message;
use prost_reflect::DescriptorPool;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    UninterpretedOption,
};

use super::editions;

/// Most bytes of a set. A large ministry's services with all their comments are some hundred kilobytes.
pub const MAX_BYTES: usize = 16 << 20;
/// Most files of a set.
pub const MAX_FILES: usize = 2_000;
/// Most messages, fields, enums, values and methods of a set, together.
pub const MAX_ELEMENTS: usize = 200_000;
/// Most faults that are told of one set.
const MAX_FAULTS: usize = 50;

/// What is wrong with a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetFault {
    /// More bytes than [`MAX_BYTES`].
    #[error("{0} bytes, and at most {MAX_BYTES} are taken")]
    TooLarge(usize),
    /// More files than [`MAX_FILES`].
    #[error("{0} files, and at most {MAX_FILES} are taken")]
    TooManyFiles(usize),
    /// More elements than [`MAX_ELEMENTS`].
    #[error("{0} messages, fields, values and methods, and at most {MAX_ELEMENTS} are taken")]
    TooManyElements(usize),
    /// No `FileDescriptorSet`.
    #[error("not a google.protobuf.FileDescriptorSet: {0}")]
    NotASet(String),
    /// No file in it.
    #[error("it holds no file: compile with --include_imports --descriptor_set_out, or give the .proto files")]
    Empty,
    /// A file stands in it twice.
    #[error("{0}: the file stands in it twice")]
    Twice(String),
    /// An import is missing.
    #[error("{file}: its import {import} is not in the set: compile with --include_imports")]
    MissingImport {
        /// Whose.
        file: String,
        /// Which.
        import: String,
    },
    /// Imports go round in a circle.
    #[error("{0}: its imports come back to it")]
    Circle(String),
    /// A file of an edition that is not known: see [`editions`].
    #[error("{0}: editions 2023 and 2024 are known here, and this is another")]
    Edition(String),
    /// A file of no known syntax.
    #[error("{file}: the syntax {syntax:?} is not known: write syntax = \"proto3\" or \"proto2\"")]
    Syntax {
        /// Which file.
        file: String,
        /// What it says.
        syntax: String,
    },
    /// A name that no `.proto` could give.
    #[error("{file}: {name:?} is no name")]
    Name {
        /// Where.
        file: String,
        /// Which.
        name: String,
    },
    /// It contradicts itself.
    #[error("{0}")]
    Contradiction(String),
}

impl SetFault {
    /// The rule's name, stable.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::TooLarge(_) | Self::TooManyFiles(_) | Self::TooManyElements(_) => "SET_TOO_LARGE",
            Self::NotASet(_) | Self::Empty => "SET_UNREADABLE",
            Self::Twice(_) => "SET_FILE_TWICE",
            Self::MissingImport { .. } => "SET_IMPORT_MISSING",
            Self::Circle(_) => "SET_IMPORT_CIRCLE",
            Self::Edition(_) => "SET_EDITION",
            Self::Syntax { .. } => "SET_SYNTAX",
            Self::Name { .. } => "SET_NAME",
            Self::Contradiction(_) => "SET_CONTRADICTORY",
        }
    }
}

/// The types of a set, or all that is wrong with it; never an empty list.
pub fn read(bytes: &[u8]) -> Result<DescriptorPool, Vec<SetFault>> {
    if bytes.len() > MAX_BYTES {
        return Err(vec![SetFault::TooLarge(bytes.len())]);
    }
    let bytes = &editions::lower(bytes)[..];
    let set = FileDescriptorSet::decode(bytes).map_err(|error| vec![SetFault::NotASet(error.to_string())])?;
    if set.file.is_empty() {
        return Err(vec![SetFault::Empty]);
    }
    if set.file.len() > MAX_FILES {
        return Err(vec![SetFault::TooManyFiles(set.file.len())]);
    }
    let elements = set.file.iter().map(|file| Survey::of(file).elements).sum();
    if elements > MAX_ELEMENTS {
        return Err(vec![SetFault::TooManyElements(elements)]);
    }
    let mut faults = faults(&set.file);
    if !faults.is_empty() {
        faults.truncate(MAX_FAULTS);
        return Err(faults);
    }
    let pool = decode(bytes).map_err(|what| vec![SetFault::Contradiction(what)])?;
    match extended_twice(&pool) {
        None => Ok(pool),
        Some(what) => Err(vec![SetFault::Contradiction(what)]),
    }
}

/// prost-reflect panics on some sets that no compiler writes, an unknown syntax among them. Those that are known are found
/// before; what is left must not end a node either.
fn decode(bytes: &[u8]) -> Result<DescriptorPool, String> {
    match std::panic::catch_unwind(|| DescriptorPool::decode(bytes)) {
        Ok(decoded) => decoded.map_err(|error| format!("{error:?}")),
        Err(_) => Err("it contradicts itself in a way that cannot be told".to_owned()),
    }
}

/// Faults in one line.
pub fn words(faults: &[SetFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Two extensions of one message with one number.
fn extended_twice(pool: &DescriptorPool) -> Option<String> {
    let mut seen = HashMap::new();
    pool.all_extensions().find_map(|extension| {
        let key = (extension.containing_message().full_name().to_owned(), extension.number());
        let name = extension.full_name().to_owned();
        let file = extension.parent_file();
        let what = format!("{}: {name} extends {} with the number {} of", file.name(), key.0, key.1);
        seen.insert(key, name).map(|other| format!("{what} {other}"))
    })
}

fn faults(files: &[FileDescriptorProto]) -> Vec<SetFault> {
    let mut faults = Vec::new();
    let mut by_name = HashMap::new();
    for file in files {
        if by_name.insert(file.name(), file).is_some() {
            faults.push(SetFault::Twice(file.name().to_owned()));
        }
        match file.syntax() {
            "" | "proto2" | "proto3" => {}
            "editions" => faults.push(SetFault::Edition(file.name().to_owned())),
            other => faults.push(SetFault::Syntax { file: file.name().to_owned(), syntax: other.to_owned() }),
        }
        // What is told on a terminal must be safe to print.
        let name = file.name().escape_debug().to_string();
        if file.name().is_empty() || name != file.name() {
            faults.push(SetFault::Name { file: name.clone(), name: file.name().to_owned() });
        }
        Survey::of(file).faults(&name, &mut faults);
    }
    for file in files {
        for import in file.dependency.iter().filter(|import| !by_name.contains_key(import.as_str())) {
            faults.push(SetFault::MissingImport { file: file.name().to_owned(), import: import.clone() });
        }
    }
    faults.extend(circle(files, &by_name).map(|name| SetFault::Circle(name.to_owned())));
    faults
}

/// A file whose imports come back to it. Not recursive: imports may be as deep as there are files.
fn circle<'a>(files: &'a [FileDescriptorProto], by_name: &HashMap<&str, &'a FileDescriptorProto>) -> Option<&'a str> {
    let mut done = HashSet::new();
    for start in files {
        let mut way = vec![(start, 0)];
        let mut on_the_way = HashSet::from([start.name()]);
        while let Some((file, next)) = way.last_mut() {
            let Some(import) = file.dependency.get(*next) else {
                on_the_way.remove(file.name());
                done.insert(file.name());
                way.pop();
                continue;
            };
            *next += 1;
            let Some(import) = by_name.get(import.as_str()).copied() else { continue };
            if done.contains(import.name()) {
                continue;
            }
            if !on_the_way.insert(import.name()) {
                return Some(import.name());
            }
            way.push((import, 0));
        }
    }
    None
}

/// How much a file defines, and the first that no compiler would have written.
#[derive(Default)]
struct Survey<'a> {
    elements: usize,
    /// A name that is none.
    misnamed: Option<&'a str>,
    /// Whose options a compiler has left as they were spelt.
    unread: Option<&'a str>,
    /// A map's entry that is none.
    entry: Option<&'a str>,
}

impl<'a> Survey<'a> {
    fn of(file: &'a FileDescriptorProto) -> Self {
        let mut survey = Self::default();
        if !file.package().is_empty() {
            file.package().split('.').for_each(|part| survey.name(part));
        }
        survey.options(file.name(), file.options.as_ref().map(|options| &options.uninterpreted_option));
        // Nested at most a hundred deep: prost decodes no deeper.
        file.message_type.iter().for_each(|message| survey.message(message));
        file.enum_type.iter().for_each(|of| survey.list(of));
        file.extension.iter().for_each(|field| survey.field(field));
        for service in &file.service {
            survey.name(service.name());
            survey.options(service.name(), service.options.as_ref().map(|options| &options.uninterpreted_option));
            for method in &service.method {
                survey.name(method.name());
                survey.options(method.name(), method.options.as_ref().map(|options| &options.uninterpreted_option));
            }
        }
        survey
    }

    fn message(&mut self, message: &'a DescriptorProto) {
        self.name(message.name());
        message.field.iter().chain(&message.extension).for_each(|field| self.field(field));
        for oneof in &message.oneof_decl {
            self.name(oneof.name());
            self.options(oneof.name(), oneof.options.as_ref().map(|options| &options.uninterpreted_option));
        }
        for range in &message.extension_range {
            self.options(message.name(), range.options.as_ref().map(|options| &options.uninterpreted_option));
        }
        self.options(message.name(), message.options.as_ref().map(|options| &options.uninterpreted_option));
        message.nested_type.iter().for_each(|inner| self.message(inner));
        message.enum_type.iter().for_each(|of| self.list(of));
        if message.options.as_ref().is_some_and(|options| options.map_entry()) && !is_entry(message) {
            self.entry.get_or_insert_with(|| message.name());
        }
    }

    fn field(&mut self, field: &'a FieldDescriptorProto) {
        self.name(field.name());
        self.options(field.name(), field.options.as_ref().map(|options| &options.uninterpreted_option));
    }

    fn list(&mut self, of: &'a EnumDescriptorProto) {
        self.name(of.name());
        self.options(of.name(), of.options.as_ref().map(|options| &options.uninterpreted_option));
        for value in &of.value {
            self.name(value.name());
            self.options(value.name(), value.options.as_ref().map(|options| &options.uninterpreted_option));
        }
    }

    fn name(&mut self, name: &'a str) {
        self.elements += 1;
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !(begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) {
            self.misnamed.get_or_insert(name);
        }
    }

    fn options(&mut self, name: &'a str, left: Option<&Vec<UninterpretedOption>>) {
        if left.is_some_and(|left| !left.is_empty()) {
            self.unread.get_or_insert(name);
        }
    }

    fn faults(&self, file: &str, faults: &mut Vec<SetFault>) {
        if let Some(name) = self.misnamed {
            faults.push(SetFault::Name { file: file.to_owned(), name: name.to_owned() });
        }
        if let Some(name) = self.unread {
            let what = format!("{file}: the options of {name} were never resolved: compile it whole");
            faults.push(SetFault::Contradiction(what));
        }
        if let Some(name) = self.entry {
            let what = format!("{file}: {name} is said to be a map's entry, and has no key 1 and value 2 as one has");
            faults.push(SetFault::Contradiction(what));
        }
    }
}

/// A key and a value, single, and nothing else; a key is an integer, a string or a bool.
fn is_entry(message: &DescriptorProto) -> bool {
    let [key, value] = &message.field[..] else { return false };
    let is_single = |field: &FieldDescriptorProto, number| {
        field.number() == number && field.label() == Label::Optional && field.oneof_index.is_none()
    };
    let no_key =
        matches!(key.r#type(), Type::Double | Type::Float | Type::Bytes | Type::Message | Type::Group | Type::Enum);
    is_single(key, 1) && is_single(value, 2) && !no_key && message.nested_type.is_empty()
}

#[cfg(test)]
mod tests;
