//! Message types as the compiler of plans sees them: fields and extensions alike, annotations checked, everything that can be
//! reached from the root and, where there is a `google.protobuf.Any`, every type of the pool.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use prost_reflect::{Cardinality, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use super::rules::{self, RuleError, Rules};
use super::table::Scalar;
use super::{ANY, Allow, MAX_FIELDS, MAX_MESSAGE_FIELDS, MAX_NODES, PlanError, PlanOptions};
use crate::schema::annotations::{FieldAnnotations, is_category};
use crate::schema::editions;

/// A field or an extension.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) number: u32,
    /// An extension's is its full name in brackets.
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    pub(super) required: bool,
    pub(super) group: bool,
    pub(super) map: bool,
    /// Whether strings must be UTF-8: not in proto2.
    pub(super) utf8: bool,
    /// Its real oneof, by index.
    pub(super) oneof: Option<usize>,
    pub(super) subject: bool,
    pub(super) commit: bool,
    /// Its category is not among those that go on.
    pub(super) withheld: bool,
    pub(super) rules: Option<Arc<Rules>>,
    /// Index of the message type that it is.
    pub(super) message: Option<usize>,
}

/// A message type.
#[derive(Debug)]
pub(super) struct Type {
    pub(super) name: Arc<str>,
    pub(super) any: bool,
    pub(super) entry: bool,
    pub(super) fields: Vec<Declared>,
    /// Names of its real oneofs, and whether one of their fields must be set.
    pub(super) oneofs: Vec<(Arc<str>, bool)>,
    /// Whether names of fields are needed of it or of what is in it: fields are withheld or committed.
    pub(super) named: bool,
}

/// All types of a plan; the root is the first.
#[derive(Debug)]
pub(super) struct Types {
    pub(super) types: Vec<Type>,
    /// Which of them an `Any` may hold; empty where there is no `Any`.
    pub(super) in_any: Vec<usize>,
}

/// Collects the types of a plan.
pub(super) fn collect(root: &MessageDescriptor, options: &PlanOptions) -> Result<Types, PlanError> {
    let categories = match &options.allow {
        Allow::Categories(categories) => Some(categories),
        Allow::Everything | Allow::Paths(_) => None,
    };
    if let Some(wrong) = categories.iter().flat_map(|all| all.iter()).find(|category| !is_category(category)) {
        return Err(PlanError::NoSuchCategory { message: root.full_name().to_owned(), category: wrong.clone() });
    }
    let mut collector =
        Collector { root, options, categories, indices: HashMap::new(), waiting: Vec::new(), by_any: false };
    collector.index(root);
    let (mut types, mut in_any, mut fields): (Vec<Type>, Vec<usize>, usize) = (Vec::new(), Vec::new(), 0);
    loop {
        let Some(message) = collector.waiting.get(types.len()).cloned() else {
            // All that the root's fields lead to; and now, what an `Any` among it may hold.
            if collector.by_any || !types.iter().any(|found| found.any) {
                break;
            }
            collector.by_any = true;
            let all = root.parent_pool().all_messages().filter(|message| !message.is_map_entry());
            in_any = all.map(|message| collector.index(&message)).collect();
            continue;
        };
        let declared = collector.declare(&message)?;
        fields += declared.fields.len();
        if collector.waiting.len() > MAX_NODES {
            return Err(collector.too_large("message types", MAX_NODES));
        }
        if fields > MAX_FIELDS {
            return Err(collector.too_large("fields", MAX_FIELDS));
        }
        types.push(declared);
    }
    mark_named(&mut types);
    Ok(Types { types, in_any })
}

struct Collector<'a> {
    root: &'a MessageDescriptor,
    options: &'a PlanOptions,
    categories: Option<&'a BTreeSet<String>>,
    indices: HashMap<String, usize>,
    /// By index.
    waiting: Vec<MessageDescriptor>,
    /// Only an `Any` leads to what comes now.
    by_any: bool,
}

impl Collector<'_> {
    fn index(&mut self, message: &MessageDescriptor) -> usize {
        if let Some(index) = self.indices.get(message.full_name()) {
            return *index;
        }
        let index = self.waiting.len();
        self.indices.insert(message.full_name().to_owned(), index);
        self.waiting.push(message.clone());
        index
    }

    fn too_large(&self, what: &'static str, limit: usize) -> PlanError {
        PlanError::TooLarge { message: self.root.full_name().to_owned(), what, limit }
    }

    fn declare(&mut self, message: &MessageDescriptor) -> Result<Type, PlanError> {
        if self.options.rules {
            rules::check_message(message)
                .map_err(|error| PlanError::MessageRule { message: message.full_name().to_owned(), error })?;
        }
        let mut oneofs = Vec::new();
        let mut real = HashMap::new();
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            let required = self.options.rules
                && rules::oneof_is_required(&oneof).map_err(|error| PlanError::Rule {
                    message: message.full_name().to_owned(),
                    field: oneof.name().to_owned(),
                    error,
                })?;
            real.insert(oneof.full_name().to_owned(), oneofs.len());
            oneofs.push((Arc::from(oneof.name()), required));
        }
        let mut fields = Vec::with_capacity(message.fields().len());
        for field in message.fields() {
            let oneof = field.containing_oneof().and_then(|oneof| real.get(oneof.full_name()).copied());
            fields.push(self.field(message, &field, oneof)?);
        }
        for extension in message.extensions() {
            fields.push(self.extension(message, &extension)?);
        }
        fields.sort_by_key(|field| field.number);
        if fields.len() > MAX_MESSAGE_FIELDS {
            return Err(PlanError::TooLarge {
                message: message.full_name().to_owned(),
                what: "fields of its own",
                limit: MAX_MESSAGE_FIELDS,
            });
        }
        if let Some(pair) = fields.windows(2).find(|pair| pair[0].number == pair[1].number) {
            return Err(PlanError::NumberTwice {
                message: message.full_name().to_owned(),
                number: pair[0].number,
                field: pair[0].name.to_string(),
                other: pair[1].name.to_string(),
            });
        }
        Ok(Type {
            name: message.full_name().into(),
            any: message.full_name() == ANY && is_any(message),
            entry: message.is_map_entry(),
            fields,
            oneofs,
            named: false,
        })
    }

    fn field(
        &mut self,
        message: &MessageDescriptor,
        field: &FieldDescriptor,
        oneof: Option<usize>,
    ) -> Result<Declared, PlanError> {
        let rules = if self.options.rules { rules::compile(field) } else { Ok(None) };
        let rules = rules.map_err(|error| PlanError::Rule {
            message: message.full_name().to_owned(),
            field: field.name().to_owned(),
            error,
        })?;
        let declared = Declared {
            number: field.number(),
            name: field.name().into(),
            kind: field.kind(),
            repeated: field.cardinality() == Cardinality::Repeated,
            required: field.is_required(),
            group: field.is_group(),
            map: field.is_map(),
            utf8: editions::verifies_utf8(&field.options(), message.parent_file().syntax()),
            oneof,
            subject: false,
            commit: false,
            withheld: false,
            rules: rules.map(Arc::new),
            message: None,
        };
        self.annotated(message, declared, &FieldAnnotations::of(field))
    }

    fn extension(
        &mut self,
        message: &MessageDescriptor,
        extension: &ExtensionDescriptor,
    ) -> Result<Declared, PlanError> {
        let name = format!("[{}]", extension.full_name());
        let options = extension.options();
        if self.options.rules && has_rules(&options) {
            return Err(PlanError::Rule {
                message: message.full_name().to_owned(),
                field: name,
                error: RuleError::Unsupported { rule: "of an extension".to_owned() },
            });
        }
        let declared = Declared {
            number: extension.number(),
            name: name.into(),
            kind: extension.kind(),
            repeated: extension.cardinality() == Cardinality::Repeated,
            required: extension.cardinality() == Cardinality::Required,
            group: extension.is_group(),
            map: extension.is_map(),
            utf8: editions::verifies_utf8(&options, extension.parent_file().syntax()),
            oneof: None,
            subject: false,
            commit: false,
            withheld: false,
            rules: None,
            message: None,
        };
        self.annotated(message, declared, &FieldAnnotations::of_options(&options))
    }

    /// With its annotations, which must fit it, and the type that it refers to.
    fn annotated(
        &mut self,
        message: &MessageDescriptor,
        mut field: Declared,
        annotations: &FieldAnnotations,
    ) -> Result<Declared, PlanError> {
        let scalar = Scalar::of(&field.kind);
        let kind = match scalar {
            Some(scalar) => scalar.name(),
            None if field.map => "a map",
            None if field.group => "a group",
            None => "a message",
        };
        let wrong = |annotation, allowed| PlanError::WrongAnnotation {
            message: message.full_name().to_owned(),
            field: field.name.to_string(),
            annotation,
            kind,
            allowed,
        };
        if annotations.subject && !scalar.is_some_and(Scalar::identifies) {
            return Err(wrong("subject", "annotate the string, bytes or integer that holds the personal number"));
        }
        if annotations.commit && scalar.is_none() {
            return Err(wrong("commit", "annotate the single fields that are to be opened alone"));
        }
        if let Some(category) = &annotations.category {
            if !is_category(category) {
                return Err(PlanError::WrongCategory {
                    message: message.full_name().to_owned(),
                    field: field.name.to_string(),
                    category: category.clone(),
                });
            }
            field.withheld = self.categories.is_some_and(|allowed| !allowed.contains(category));
        }
        if field.group && field.required && !self.by_any {
            return Err(PlanError::RequiredGroup {
                message: message.full_name().to_owned(),
                field: field.name.to_string(),
            });
        }
        (field.subject, field.commit) = (annotations.subject, annotations.commit);
        if let Kind::Message(inner) = &field.kind {
            field.message = Some(self.index(inner));
        }
        Ok(field)
    }
}

/// Whether it has the shape that its name promises; a type that only has the name is an ordinary message.
fn is_any(message: &MessageDescriptor) -> bool {
    let is = |number, kind| message.get_field(number).is_some_and(|field| field.kind() == kind);
    // Its fields may be stripped, all of them.
    let optional = message.fields().all(|field| field.cardinality() == Cardinality::Optional);
    is(1, Kind::String) && is(2, Kind::Bytes) && optional && message.extensions().len() == 0
}

fn has_rules(options: &DynamicMessage) -> bool {
    options.extensions().any(|(extension, _)| extension.full_name().starts_with("buf.validate."))
}

/// From the types with withheld or committed fields up to whatever holds them.
fn mark_named(types: &mut [Type]) {
    let mut holders: Vec<Vec<usize>> = vec![Vec::new(); types.len()];
    for (index, holder) in types.iter().enumerate() {
        for held in holder.fields.iter().filter(|field| !field.withheld).filter_map(|field| field.message) {
            holders[held].push(index);
        }
    }
    let named = |t: &Type| t.fields.iter().any(|field| field.withheld || field.commit);
    let mut waiting: Vec<usize> = (0..types.len()).filter(|&index| named(&types[index])).collect();
    while let Some(index) = waiting.pop() {
        if !std::mem::replace(&mut types[index].named, true) {
            waiting.extend(&holders[index]);
        }
    }
}
