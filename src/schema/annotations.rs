//! The annotations of `kopuro/options/v1/options.proto`, read from a descriptor pool. A type that was compiled without that
//! file has none. [`check()`] finds what a service's annotations say that cannot be meant: who reads them afterwards can rely on
//! them.

mod check;

use prost_reflect::{DynamicMessage, FieldDescriptor, MethodDescriptor, ReflectMessage, ServiceDescriptor, Value};

pub use check::{AnnotationError, check, check_set, is_category};

/// The registered categories of personal data. Others must have a dot in their name.
pub const CORE_CATEGORIES: [&str; 11] = [
    "identity",
    "contact",
    "family",
    "health",
    "income",
    "property",
    "criminal-record",
    "biometric",
    "education",
    "employment",
    "location",
];

/// What a field's author says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldAnnotations {
    /// It identifies the data subject.
    pub subject: bool,
    /// Which kind of personal data it is; none: not personal.
    pub category: Option<String>,
    /// It gets a commitment of its own.
    pub commit: bool,
}

/// What a method's author says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MethodAnnotations {
    /// Codes of the legal bases on which it may be called; empty: any.
    pub purposes: Vec<String>,
    /// What is published where the grant does not say, as it is written; none: nothing is said.
    pub publication: Option<String>,
}

impl FieldAnnotations {
    /// Of a field.
    pub fn of(field: &FieldDescriptor) -> Self {
        Self::of_options(&field.options())
    }

    /// Of a field or an extension, from its `google.protobuf.FieldOptions`.
    pub fn of_options(options: &DynamicMessage) -> Self {
        Self {
            subject: extension(options, "subject").and_then(|value| value.as_bool()).unwrap_or_default(),
            category: extension(options, "category").and_then(|value| Some(value.as_str()?.to_owned())),
            commit: extension(options, "commit").and_then(|value| value.as_bool()).unwrap_or_default(),
        }
    }
}

impl MethodAnnotations {
    /// Of a method.
    pub fn of(method: &MethodDescriptor) -> Self {
        let options = method.options();
        let purposes = extension(&options, "purposes");
        let purposes = purposes.as_ref().and_then(Value::as_list).unwrap_or_default();
        Self {
            purposes: purposes.iter().filter_map(|code| Some(code.as_str()?.to_owned())).collect(),
            publication: extension(&options, "publication").and_then(|value| Some(value.as_str()?.to_owned())),
        }
    }
}

/// The member that answers for a service's definition, as it is written.
pub fn body_of(service: &ServiceDescriptor) -> Option<String> {
    extension(&service.options(), "body")?.as_str().map(str::to_owned)
}

/// One of our extensions, where it is set.
fn extension(options: &DynamicMessage, name: &str) -> Option<Value> {
    let pool = options.descriptor().parent_pool().clone();
    let extension = pool.get_extension_by_name(&format!("kopuro.options.v1.{name}"))?;
    (extension.containing_message() == options.descriptor() && options.has_extension(&extension))
        .then(|| options.get_extension(&extension).into_owned())
}
