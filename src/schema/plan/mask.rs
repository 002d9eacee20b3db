//! The paths of a `google.protobuf.FieldMask` as a tree beside the message type.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{Kind, MessageDescriptor};

use super::PlanError;
use super::table::Scalar;

/// The path that means the whole message.
const WHOLE: &str = "*";
/// Deeper than any message can be.
const MAX_DEPTH: usize = 100;

/// What goes on of one message: fields by number, each whole or in part.
#[derive(Debug, Default)]
pub(super) struct Mask {
    pub(super) fields: BTreeMap<u32, Branch>,
}

/// What goes on of one field.
#[derive(Debug)]
pub(super) enum Branch {
    /// All of it.
    Whole,
    /// Part of the message that it is.
    Part(Mask),
}

impl Mask {
    /// Reads paths against a type. `None`: the whole message goes on.
    pub(super) fn parse(message: &MessageDescriptor, paths: &BTreeSet<String>) -> Result<Option<Self>, PlanError> {
        if paths.contains(WHOLE) {
            return match paths.iter().find(|path| *path != WHOLE) {
                Some(inner) => Err(overlapping(message, WHOLE, inner)),
                None => Ok(None),
            };
        }
        let mut mask = Self::default();
        // In order, a path comes before those that it contains.
        for path in paths {
            mask.add(message, path)?;
        }
        Ok(Some(mask))
    }

    fn add(&mut self, root: &MessageDescriptor, path: &str) -> Result<(), PlanError> {
        let mut mask = self;
        let mut message = root.clone();
        let mut rest = path;
        for _ in 0..MAX_DEPTH {
            let (name, below) = match rest.split_once('.') {
                Some((name, below)) => (name, Some(below)),
                None => (rest, None),
            };
            if name.is_empty() {
                return Err(PlanError::EmptyPath { message: root.full_name().to_owned(), path: path.to_owned() });
            }
            let Some(field) = message.get_field_by_name(name) else { return Err(no_such_field(root, path)) };
            let Some(below) = below else {
                if mask.fields.insert(field.number(), Branch::Whole).is_some() {
                    return Err(overlapping(root, path, path));
                }
                return Ok(());
            };
            let into = |kind| PlanError::PathTooDeep {
                message: root.full_name().to_owned(),
                path: path.to_owned(),
                field: path[..path.len() - below.len() - 1].to_owned(),
                kind,
            };
            let inner = match field.kind() {
                _ if field.is_map() => return Err(into("a map, which goes on whole or not at all")),
                Kind::Message(inner) if inner.full_name() == super::ANY => {
                    return Err(into("a google.protobuf.Any, which goes on whole or not at all"));
                }
                Kind::Message(inner) => inner,
                kind => return Err(into(Scalar::of(&kind).map_or("no message", Scalar::name))),
            };
            let branch = mask.fields.entry(field.number()).or_insert_with(|| Branch::Part(Self::default()));
            let Branch::Part(next) = branch else {
                return Err(overlapping(root, &path[..path.len() - below.len() - 1], path));
            };
            (mask, message, rest) = (next, inner, below);
        }
        Err(no_such_field(root, path))
    }
}

fn no_such_field(message: &MessageDescriptor, path: &str) -> PlanError {
    PlanError::NoSuchField { message: message.full_name().to_owned(), path: path.to_owned() }
}

fn overlapping(message: &MessageDescriptor, path: &str, inner: &str) -> PlanError {
    PlanError::OverlappingPaths {
        message: message.full_name().to_owned(),
        path: path.to_owned(),
        inner: inner.to_owned(),
    }
}
