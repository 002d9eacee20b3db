//! From message types and options to the tables of a plan.
//!
//! A node is a message type with what goes on of it: all that its categories allow, a part by a mask, or nothing. Where paths
//! of fields will be named (withheld, committed), a type has a node for each path that leads to it, until it contains itself or
//! there are too many of them; else one node is shared by all who refer to the type. So compilation ends for any types.

use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::{EnumDescriptor, Kind, MessageDescriptor};

use super::declared::{self, Declared, Type, Types};
use super::draft::{self, Draft};
use super::mask::{Branch, Mask};
use super::rules::Rules;
use super::table::{
    COUNTED, End, FIXED32, FIXED64, Field, Form, LENGTH, MAP, NEVER, NO_BIT, NOTED, Numbers, PACKABLE, Part, Scalar,
    Slot, VARINT, WITHHELD,
};
use super::{Allow, MAX_FIELDS, MAX_NODES, Plan, PlanError, PlanOptions};
use crate::policy::UnknownFields;
use crate::schema::editions;

/// Most nodes that are made for the sake of paths; further ones are shared and name fields by their full names.
const MAX_ROUTED: usize = 1_024;

/// Compiles a plan.
pub(super) fn compile(message: &MessageDescriptor, options: &PlanOptions) -> Result<Plan, PlanError> {
    if options.allow != Allow::Everything && options.unknown == UnknownFields::Pass {
        return Err(PlanError::UnknownThroughMask { message: message.full_name().to_owned() });
    }
    let mask = match &options.allow {
        Allow::Paths(paths) => Mask::parse(message, paths)?,
        Allow::Everything | Allow::Categories(_) => None,
    };
    let types = declared::collect(message, options)?;
    let mut compiler = Compiler {
        root: message,
        unknown: options.unknown,
        types: &types,
        nodes: Vec::new(),
        fields: Vec::new(),
        enums: Vec::new(),
        enum_indices: HashMap::new(),
        shared: HashMap::new(),
        waiting: Vec::new(),
        routed: 0,
    };
    let goes = mask.as_ref().map_or(Goes::All, Goes::Part);
    compiler.node(Job { kind: 0, goes, prefix: Some("".into()), holders: Vec::new(), entry_rules: None })?;
    let mut any = HashMap::new();
    for &kind in &types.in_any {
        any.insert(types.types[kind].name.clone(), [compiler.shared(kind, true)?, compiler.shared(kind, false)?]);
    }
    while let Some((index, job)) = compiler.waiting.pop() {
        compiler.fill(index, &job)?;
    }
    let Compiler { mut nodes, mut fields, enums, .. } = compiler;
    draft::settle(&mut nodes, &mut fields);
    let nodes = nodes.into_iter().map(Draft::finish).collect();
    Ok(Plan { message: message.clone(), nodes, fields, enums, any })
}

/// What goes on of a message.
#[derive(Debug, Clone, Copy)]
enum Goes<'m> {
    /// All that its fields' categories allow.
    All,
    /// What a mask names.
    Part(&'m Mask),
    /// Nothing.
    Nothing,
}

/// A node to be made.
struct Job<'m> {
    /// Index of its type.
    kind: usize,
    goes: Goes<'m>,
    /// What stands before its fields' names; none: the type's full name.
    prefix: Option<Arc<str>>,
    /// The types on the path to it.
    holders: Vec<usize>,
    /// Of an entry: the rules of its map.
    entry_rules: Option<Arc<Rules>>,
}

struct Compiler<'a> {
    root: &'a MessageDescriptor,
    unknown: UnknownFields,
    types: &'a Types,
    nodes: Vec<Draft>,
    fields: Vec<Field>,
    enums: Vec<Numbers>,
    enum_indices: HashMap<String, u32>,
    /// Nodes by type and whether they go on.
    shared: HashMap<(usize, bool), u32>,
    waiting: Vec<(usize, Job<'a>)>,
    routed: usize,
}

impl<'a> Compiler<'a> {
    /// Takes on a node; its fields come later.
    fn node(&mut self, job: Job<'a>) -> Result<u32, PlanError> {
        if self.nodes.len() >= MAX_NODES {
            return Err(self.too_large("message types", MAX_NODES));
        }
        let index = self.nodes.len();
        let kind = &self.types.types[job.kind];
        let silent = matches!(job.goes, Goes::Nothing);
        self.nodes.push(Draft {
            prefix: job.prefix.clone().unwrap_or_else(|| format!("{}.", kind.name).into()),
            // Of what does not go on, unknown fields need not be stripped.
            unknown: match self.unknown {
                UnknownFields::Strip if silent => UnknownFields::Pass,
                unknown => unknown,
            },
            silent,
            any: kind.any,
            entry: kind.entry,
            slots: Vec::new(),
            oneofs: Vec::new(),
            required: Vec::new(),
            strict: kind.any,
            ends: Vec::new(),
            bits: 0,
            counts: 0,
        });
        self.waiting.push((index, job));
        Ok(index as u32)
    }

    /// The one node of a type that all may refer to.
    fn shared(&mut self, kind: usize, goes_on: bool) -> Result<u32, PlanError> {
        if let Some(index) = self.shared.get(&(kind, goes_on)) {
            return Ok(*index);
        }
        let goes = if goes_on { Goes::All } else { Goes::Nothing };
        let index = self.node(Job { kind, goes, prefix: None, holders: Vec::new(), entry_rules: None })?;
        self.shared.insert((kind, goes_on), index);
        Ok(index)
    }

    fn fill(&mut self, index: usize, job: &Job<'a>) -> Result<(), PlanError> {
        let types = self.types;
        let kind = &types.types[job.kind];
        let mut oneofs: Vec<_> =
            kind.oneofs.iter().map(|(name, required)| (name.clone(), *required, Vec::new())).collect();
        for (at, field) in kind.fields.iter().enumerate() {
            if let Some((_, _, members)) = field.oneof.and_then(|oneof| oneofs.get_mut(oneof)) {
                members.push(at);
            }
            let slot = self.slot(index, job, kind, field)?;
            let draft = &mut self.nodes[index];
            draft.slots.push((field.number, slot));
            if field.required {
                draft.required.push(at);
            }
        }
        self.nodes[index].oneofs = oneofs;
        Ok(())
    }

    fn slot(&mut self, node: usize, job: &Job<'a>, kind: &Type, field: &'a Declared) -> Result<Slot, PlanError> {
        if self.fields.len() >= MAX_FIELDS {
            return Err(self.too_large("fields", MAX_FIELDS));
        }
        let silent = self.nodes[node].silent;
        let (withheld, goes) = match job.goes {
            Goes::Nothing => (false, Goes::Nothing),
            Goes::All if field.withheld => (true, Goes::Nothing),
            Goes::All => (false, Goes::All),
            Goes::Part(mask) => match mask.fields.get(&field.number) {
                None => (true, Goes::Nothing),
                Some(Branch::Whole) => (false, Goes::All),
                Some(Branch::Part(inner)) => (false, Goes::Part(inner)),
            },
        };
        if withheld && field.required {
            return Err(PlanError::RequiredWithheld { message: kind.name.to_string(), field: field.name.to_string() });
        }
        let here = !silent && !withheld;
        let scalar = Scalar::of(&field.kind);
        let (subject, commit) = (here && field.subject, here && field.commit);
        let rules = rules_of(job, field);
        let path: Arc<str> = if here && !commit && field.message.is_none() {
            field.name.clone()
        } else {
            format!("{}{}", self.nodes[node].prefix, field.name).into()
        };
        let child = match &field.kind {
            Kind::Message(_) if field.group => 0,
            Kind::Message(_) => self.child(job, field, goes, &path)?,
            Kind::Enum(numbers) if editions::is_closed(numbers) => self.closed(numbers),
            _ => 0,
        };
        let mut flags = 0;
        let mut set = |flag, when| flags |= if when { flag } else { 0 };
        set(WITHHELD, withheld);
        set(PACKABLE, field.repeated && scalar.is_some_and(|scalar| scalar.wire() != LENGTH));
        set(NOTED, subject || commit || rules.is_some());
        set(COUNTED, rules.is_some() && field.repeated);
        set(MAP, field.map);
        let needs_text = subject || rules.is_some();
        let form = match (&field.kind, scalar) {
            _ if field.group => Form::Group,
            (Kind::Enum(numbers), _) if editions::is_closed(numbers) => Form::Closed,
            (_, Some(Scalar::Text)) if field.utf8 || needs_text => Form::Text,
            (_, Some(Scalar::Bytes)) if kind.any && field.number == 2 => Form::AnyValue,
            (_, Some(scalar)) => match scalar.wire() {
                VARINT => Form::Varint,
                FIXED32 => Form::Fixed32,
                FIXED64 => Form::Fixed64,
                _ => Form::Bytes,
            },
            (_, None) => Form::Message,
        };
        let draft = &mut self.nodes[node];
        draft.strict |= rules.is_some() || field.required || (!field.repeated && (subject || commit));
        let mut count = 0;
        if rules.is_some() && field.repeated {
            count = draft.counts;
            draft.counts += 1;
            draft.ends.push(End::Count { field: self.fields.len() as u32 });
        }
        let wire = match form {
            Form::Group => NEVER,
            _ => scalar.map_or(LENGTH, Scalar::wire),
        };
        let at = self.fields.len() as u32;
        let list = field.repeated;
        let name = field.name.clone();
        self.fields.push(Field { name, path, scalar, list, subject, commit, rules, count, own_bit: NO_BIT });
        Ok(Slot { form, wire, flags, bit: NO_BIT, child, field: at })
    }

    /// The node of a field's messages.
    fn child(&mut self, job: &Job<'a>, field: &Declared, goes: Goes<'a>, path: &str) -> Result<u32, PlanError> {
        let kind = field.message.unwrap_or_default();
        let entry_rules = if field.map { field.rules.clone() } else { None };
        let named = match goes {
            Goes::All => self.types.types[kind].named && !job.holders.contains(&kind) && kind != job.kind,
            Goes::Part(_) => true,
            Goes::Nothing => false,
        };
        let routed = named && job.prefix.is_some() && (self.routed < MAX_ROUTED || matches!(goes, Goes::Part(_)));
        if !routed && entry_rules.is_none() {
            return self.shared(kind, !matches!(goes, Goes::Nothing));
        }
        let mut holders = Vec::new();
        let mut prefix = None;
        if routed {
            self.routed += 1;
            holders.clone_from(&job.holders);
            holders.push(job.kind);
            prefix = Some(format!("{path}.").into());
        }
        self.node(Job { kind, goes, prefix, holders, entry_rules })
    }

    fn closed(&mut self, descriptor: &EnumDescriptor) -> u32 {
        if let Some(index) = self.enum_indices.get(descriptor.full_name()) {
            return *index;
        }
        let mut numbers: Vec<i32> = descriptor.values().map(|value| value.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let index = self.enums.len() as u32;
        self.enums.push(Numbers(numbers.into()));
        self.enum_indices.insert(descriptor.full_name().to_owned(), index);
        index
    }

    fn too_large(&self, what: &'static str, limit: usize) -> PlanError {
        PlanError::TooLarge { message: self.root.full_name().to_owned(), what, limit }
    }
}

/// A field's rules, or as the key or value of an entry those of the map.
fn rules_of(job: &Job<'_>, field: &Declared) -> Option<(Part, Arc<Rules>)> {
    let own = || {
        let part = match field {
            Declared { map: true, .. } => Part::Map,
            Declared { repeated: true, .. } => Part::Item,
            _ => Part::Value,
        };
        Some((part, field.rules.clone()?))
    };
    match (&job.entry_rules, field.number) {
        (Some(rules), 1) => Some((Part::Key, rules.clone())),
        (Some(rules), 2) => Some((Part::MapValue, rules.clone())),
        _ => own(),
    }
}
