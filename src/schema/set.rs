//! Descriptor sets that somebody else made: read with their faults told one by one, before a directory names them.
//!
//! In: the bytes of a `google.protobuf.FileDescriptorSet`. Out: its types, or every [`SetFault`]. Recursive types are
//! fine. A set is refused that is huge, holds a file twice, misses an import, imports in a circle, names things as no
//! `.proto` could, or contradicts itself. Pure.

use std::collections::{HashMap, HashSet};

use prost::Message;
use prost_reflect::DescriptorPool;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

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
    /// A file of an edition.
    #[error("{0}: editions are not understood here: write syntax = \"proto3\" or \"proto2\"")]
    Edition(String),
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
    let set = FileDescriptorSet::decode(bytes).map_err(|error| vec![SetFault::NotASet(error.to_string())])?;
    if set.file.is_empty() {
        return Err(vec![SetFault::Empty]);
    }
    if set.file.len() > MAX_FILES {
        return Err(vec![SetFault::TooManyFiles(set.file.len())]);
    }
    let elements = set.file.iter().map(|file| Counted::of(file).elements).sum();
    if elements > MAX_ELEMENTS {
        return Err(vec![SetFault::TooManyElements(elements)]);
    }
    let mut faults = faults(&set.file);
    if !faults.is_empty() {
        faults.truncate(MAX_FAULTS);
        return Err(faults);
    }
    DescriptorPool::decode(bytes).map_err(|error| vec![SetFault::Contradiction(format!("{error:?}"))])
}

fn faults(files: &[FileDescriptorProto]) -> Vec<SetFault> {
    let mut faults = Vec::new();
    let mut by_name = HashMap::new();
    for file in files {
        if by_name.insert(file.name(), file).is_some() {
            faults.push(SetFault::Twice(file.name().to_owned()));
        }
        if file.syntax() == "editions" {
            faults.push(SetFault::Edition(file.name().to_owned()));
        }
        let is_path = !file.name().is_empty() && !file.name().chars().any(|c| c.is_control() || c == '\\');
        let counted = Counted::of(file);
        let wrong = counted.wrong.or_else(|| (!is_path).then_some(file.name()));
        if let Some(name) = wrong {
            faults.push(SetFault::Name { file: file.name().escape_debug().to_string(), name: name.to_owned() });
        }
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

/// How much a file defines, and the first name in it that is none.
#[derive(Default)]
struct Counted<'a> {
    elements: usize,
    wrong: Option<&'a str>,
}

impl<'a> Counted<'a> {
    fn of(file: &'a FileDescriptorProto) -> Self {
        let mut counted = Self::default();
        if !file.package().is_empty() {
            file.package().split('.').for_each(|part| counted.name(part));
        }
        // Nested at most a hundred deep: prost decodes no deeper.
        file.message_type.iter().for_each(|message| counted.message(message));
        file.enum_type.iter().for_each(|of| counted.list(of));
        file.extension.iter().for_each(|field| counted.name(field.name()));
        for service in &file.service {
            counted.name(service.name());
            service.method.iter().for_each(|method| counted.name(method.name()));
        }
        counted
    }

    fn message(&mut self, message: &'a DescriptorProto) {
        self.name(message.name());
        message.field.iter().chain(&message.extension).for_each(|field| self.name(field.name()));
        message.oneof_decl.iter().for_each(|oneof| self.name(oneof.name()));
        message.nested_type.iter().for_each(|inner| self.message(inner));
        message.enum_type.iter().for_each(|of| self.list(of));
    }

    fn list(&mut self, of: &'a EnumDescriptorProto) {
        self.name(of.name());
        of.value.iter().for_each(|value| self.name(value.name()));
    }

    fn name(&mut self, name: &'a str) {
        self.elements += 1;
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if self.wrong.is_none() && !(begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) {
            self.wrong = Some(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, imports: &[&str]) -> FileDescriptorProto {
        FileDescriptorProto {
            name: Some(name.into()),
            package: Some("t.v1".into()),
            syntax: Some("proto3".into()),
            dependency: imports.iter().map(|import| (*import).to_owned()).collect(),
            ..Default::default()
        }
    }

    fn message(name: &str) -> DescriptorProto {
        DescriptorProto { name: Some(name.into()), ..Default::default() }
    }

    fn faults_of(file: Vec<FileDescriptorProto>) -> Vec<&'static str> {
        let faults = read(&FileDescriptorSet { file }.encode_to_vec()).err().unwrap_or_default();
        faults.iter().map(SetFault::rule).collect()
    }

    #[test]
    fn hostile_sets_are_told_apart() {
        assert_eq!(faults_of(vec![file("a", &["b"]), file("b", &[])]), [""; 0]);
        assert_eq!(faults_of(vec![]), ["SET_UNREADABLE"]);
        assert_eq!(read(b"\xff\xff").unwrap_err()[0].rule(), "SET_UNREADABLE");
        assert_eq!(read(&vec![0; MAX_BYTES + 1]).unwrap_err(), [SetFault::TooLarge(MAX_BYTES + 1)]);
        assert_eq!(faults_of(vec![file("a", &[]); MAX_FILES + 1]), ["SET_TOO_LARGE"]);
        assert_eq!(faults_of(vec![file("a", &[]), file("a", &[])]), ["SET_FILE_TWICE"]);
        assert_eq!(faults_of(vec![file("a", &["b", "c"])]), ["SET_IMPORT_MISSING"; 2]);
        assert_eq!(faults_of(vec![file("a", &["a"])]), ["SET_IMPORT_CIRCLE"]);
        assert_eq!(faults_of(vec![file("a", &["b"]), file("b", &["c"]), file("c", &["a"])]), ["SET_IMPORT_CIRCLE"]);
        assert_eq!(
            faults_of(vec![FileDescriptorProto { syntax: Some("editions".into()), ..file("a", &[]) }]),
            ["SET_EDITION"]
        );
        for name in ["", "a b", "a\u{1b}[2J", "ы", "1a"] {
            let file = FileDescriptorProto { message_type: vec![message(name)], ..file("a", &[]) };
            assert_eq!(faults_of(vec![file]), ["SET_NAME"], "{name:?}");
        }
        assert_eq!(faults_of(vec![file("a\n", &[])]), ["SET_NAME"]);
        let twice = FileDescriptorProto { message_type: vec![message("M"), message("M")], ..file("a", &[]) };
        assert_eq!(faults_of(vec![twice]), ["SET_CONTRADICTORY"]);
        let many = FileDescriptorProto { message_type: vec![message("M"); MAX_ELEMENTS], ..file("a", &[]) };
        assert_eq!(faults_of(vec![many]), ["SET_TOO_LARGE"]);
    }

    #[test]
    fn a_long_chain_of_imports_is_no_circle_and_no_deep_stack() {
        let name = |at: usize| format!("f{at}");
        let chain = (0..MAX_FILES).map(|at| match at {
            0 => file(&name(0), &[]),
            at => file(&name(at), &[&name(at - 1)]),
        });
        assert_eq!(faults_of(chain.rev().collect()), [""; 0]);
    }
}
