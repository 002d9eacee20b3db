//! What annotations must not say. Everything that a service's calls can carry is looked at: a wrong annotation is an error
//! where the types enter, not a surprise in an exchange.

use std::collections::HashSet;
use std::fmt;

use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage, ServiceDescriptor};

use super::{CORE_CATEGORIES, FieldAnnotations, MethodAnnotations, body_of};
use crate::policy::Publication;
use crate::trust::directory::is_purpose_code;
use crate::trust::identity::MemberId;

/// Our extensions: name, number, of what, scalar type, whether repeated.
const DEFINED: [(&str, u32, &str, Kind, bool); 6] = [
    ("subject", 50740, "google.protobuf.FieldOptions", Kind::Bool, false),
    ("category", 50741, "google.protobuf.FieldOptions", Kind::String, false),
    ("commit", 50742, "google.protobuf.FieldOptions", Kind::Bool, false),
    ("purposes", 50740, "google.protobuf.MethodOptions", Kind::String, true),
    ("publication", 50741, "google.protobuf.MethodOptions", Kind::String, false),
    ("body", 50740, "google.protobuf.ServiceOptions", Kind::String, false),
];

/// The extension of `buf.validate` for fields, messages and oneofs.
const BUF_VALIDATE: u32 = 1159;

/// What is wrong with an annotation: on which element, by its full name, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// The set defines an annotation otherwise than `kopuro/options/v1/options.proto` does.
    #[error(
        "kopuro.options.v1.{name} is defined as {found}, and must be {expected}: compile with Kopuro's own options.proto"
    )]
    Definition {
        /// The annotation.
        name: String,
        /// How the set defines it.
        found: String,
        /// How it is defined.
        expected: String,
    },
    /// An element has an annotation that the set does not define, so that nobody could read it.
    #[error("{element} has the option {number}, which the set does not define: compile it with its imports")]
    Undefined {
        /// The field, message, oneof, method or service.
        element: String,
        /// The number of the extension.
        number: u32,
    },
    /// `subject` on what holds no personal number.
    #[error("{field} is annotated as subject and is {kind}: a subject is a string, bytes or integer field")]
    SubjectType {
        /// The field.
        field: String,
        /// What it is.
        kind: String,
    },
    /// `commit` on a message or a map.
    #[error("{field} is annotated with commit and is {kind}: commit to the single fields that are to be opened alone")]
    CommitType {
        /// The field.
        field: String,
        /// What it is.
        kind: String,
    },
    /// A category that is neither registered nor one's own.
    #[error("{field} has the category {category:?}, which is not registered ({}): a category of your own has a dot in its name, as kg.tax-secret", CORE_CATEGORIES.join(", "))]
    Category {
        /// The field.
        field: String,
        /// As it is written.
        category: String,
    },
    /// A purpose that is no code.
    #[error("{method} has the purpose {code:?}: a code is 1 to 64 of A-Z a-z 0-9 . _ -, and stands once")]
    Purpose {
        /// The method.
        method: String,
        /// As it is written.
        code: String,
    },
    /// A publication class that there is not.
    #[error("{method} has the publication {found:?}: write public, delayed 30 (days) or sealed")]
    Publication {
        /// The method.
        method: String,
        /// As it is written.
        found: String,
    },
    /// A body that is no member.
    #[error("{service} has the body {found:?}: name a member, as KG/GOV/70000005")]
    Body {
        /// The service.
        service: String,
        /// As it is written.
        found: String,
    },
}

/// Whether a category is registered, or one of somebody's own, with a dot in its name.
pub fn is_category(name: &str) -> bool {
    let of_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let own = || name.contains('.') && name.split('.').all(|part| !part.is_empty() && part.bytes().all(of_word));
    CORE_CATEGORIES.contains(&name) || own()
}

/// What is wrong with the annotations of a service, of its methods and of every type that they can carry; in the order of
/// the service, each once.
pub fn check(service: &ServiceDescriptor) -> Vec<AnnotationError> {
    let mut checker = Checker::new(service.parent_pool());
    checker.service(service);
    checker.errors
}

/// The same for every service of a set and for every message that no service uses.
pub fn check_set(pool: &DescriptorPool) -> Vec<AnnotationError> {
    let mut checker = Checker::new(pool);
    for service in pool.services() {
        checker.service(&service);
    }
    for message in pool.all_messages() {
        checker.messages(message);
    }
    checker.errors
}

struct Checker {
    seen: HashSet<String>,
    errors: Vec<AnnotationError>,
}

impl Checker {
    fn new(pool: &DescriptorPool) -> Self {
        let mut checker = Self { seen: HashSet::new(), errors: Vec::new() };
        checker.definitions(pool);
        checker
    }

    fn definitions(&mut self, pool: &DescriptorPool) {
        for (name, number, extendee, kind, list) in DEFINED {
            let Some(found) = pool.get_extension_by_name(&format!("kopuro.options.v1.{name}")) else { continue };
            let said = |number, list, kind: &Kind, extendee: &str| {
                let list = if list { "repeated " } else { "" };
                format!("{list}{} {number} of {extendee}", Words(kind))
            };
            let extended = found.containing_message();
            let expected = said(number, list, &kind, extendee);
            let found = said(found.number(), found.is_list(), &found.kind(), extended.full_name());
            if found != expected {
                self.errors.push(AnnotationError::Definition { name: name.to_owned(), found, expected });
            }
        }
    }

    fn service(&mut self, service: &ServiceDescriptor) {
        let options = service.options();
        self.undefined(&options, service.full_name(), &[50740]);
        if let Some(found) = body_of(service)
            && found.parse::<MemberId>().is_err()
        {
            self.errors.push(AnnotationError::Body { service: service.full_name().to_owned(), found });
        }
        for method in service.methods() {
            self.undefined(&method.options(), method.full_name(), &[50740, 50741]);
            let said = MethodAnnotations::of(&method);
            let name = || method.full_name().to_owned();
            for (index, code) in said.purposes.iter().enumerate() {
                if !is_purpose_code(code) || said.purposes[..index].contains(code) {
                    self.errors.push(AnnotationError::Purpose { method: name(), code: code.clone() });
                }
            }
            if let Some(found) = said.publication.filter(|class| class.parse::<Publication>().is_err()) {
                self.errors.push(AnnotationError::Publication { method: name(), found });
            }
            self.messages(method.input());
            self.messages(method.output());
        }
    }

    /// A message and everything inside it; types may contain themselves.
    fn messages(&mut self, root: MessageDescriptor) {
        let mut open = vec![root];
        while let Some(message) = open.pop() {
            if !self.seen.insert(message.full_name().to_owned()) {
                continue;
            }
            self.undefined(&message.options(), message.full_name(), &[BUF_VALIDATE]);
            for oneof in message.oneofs() {
                self.undefined(&oneof.options(), oneof.full_name(), &[BUF_VALIDATE]);
            }
            for field in message.fields() {
                let said = FieldAnnotations::of(&field);
                self.field(field.full_name(), &field.options(), &said, &field.kind(), field.is_map());
                if let Kind::Message(inner) = field.kind() {
                    open.push(inner);
                }
            }
            for field in message.extensions() {
                let options = field.options();
                let said = FieldAnnotations::of_options(&options);
                self.field(field.full_name(), &options, &said, &field.kind(), field.is_map());
                if let Kind::Message(inner) = field.kind() {
                    open.push(inner);
                }
            }
        }
    }

    fn field(&mut self, name: &str, options: &DynamicMessage, said: &FieldAnnotations, kind: &Kind, map: bool) {
        self.undefined(options, name, &[50740, 50741, 50742, BUF_VALIDATE]);
        let what = if map { "a map".to_owned() } else { Words(kind).to_string() };
        let holds_a_number =
            !matches!(kind, Kind::Message(_) | Kind::Enum(_) | Kind::Bool | Kind::Float | Kind::Double);
        if said.subject && !holds_a_number {
            self.errors.push(AnnotationError::SubjectType { field: name.to_owned(), kind: what.clone() });
        }
        if said.commit && matches!(kind, Kind::Message(_)) {
            self.errors.push(AnnotationError::CommitType { field: name.to_owned(), kind: what });
        }
        if let Some(category) = said.category.as_ref().filter(|category| !is_category(category)) {
            self.errors.push(AnnotationError::Category { field: name.to_owned(), category: category.clone() });
        }
    }

    /// Numbers of ours, or of `buf.validate`, that are there and that the set does not define.
    fn undefined(&mut self, options: &DynamicMessage, element: &str, numbers: &[u32]) {
        let extended = options.descriptor();
        for number in options.unknown_fields().map(prost_reflect::UnknownField::number) {
            if numbers.contains(&number) && extended.get_extension(number).is_none() {
                let error = AnnotationError::Undefined { element: element.to_owned(), number };
                if !self.errors.contains(&error) {
                    self.errors.push(error);
                }
            }
        }
    }
}

/// A field's type, as a `.proto` has it.
struct Words<'a>(&'a Kind);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Message(message) => write!(f, "message {}", message.full_name()),
            Kind::Enum(values) => write!(f, "enum {}", values.full_name()),
            Kind::Double => f.write_str("double"),
            Kind::Float => f.write_str("float"),
            Kind::Int32 => f.write_str("int32"),
            Kind::Int64 => f.write_str("int64"),
            Kind::Uint32 => f.write_str("uint32"),
            Kind::Uint64 => f.write_str("uint64"),
            Kind::Sint32 => f.write_str("sint32"),
            Kind::Sint64 => f.write_str("sint64"),
            Kind::Fixed32 => f.write_str("fixed32"),
            Kind::Fixed64 => f.write_str("fixed64"),
            Kind::Sfixed32 => f.write_str("sfixed32"),
            Kind::Sfixed64 => f.write_str("sfixed64"),
            Kind::Bool => f.write_str("bool"),
            Kind::String => f.write_str("string"),
            Kind::Bytes => f.write_str("bytes"),
        }
    }
}
