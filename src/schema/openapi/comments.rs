//! Comments of the `.proto`, where the descriptor set has source info.

use prost_reflect::{
    EnumDescriptor, FieldDescriptor, FileDescriptor, MessageDescriptor, MethodDescriptor, ServiceDescriptor,
};

/// Longest comment that is told, in characters.
const LONGEST: usize = 4_096;

pub(super) fn of_service(service: &ServiceDescriptor) -> Option<String> {
    comment(&service.parent_file(), service.path())
}

pub(super) fn of_method(method: &MethodDescriptor) -> Option<String> {
    comment(&method.parent_service().parent_file(), method.path())
}

pub(super) fn of_message(message: &MessageDescriptor) -> Option<String> {
    comment(&message.parent_file(), message.path())
}

pub(super) fn of_field(field: &FieldDescriptor) -> Option<String> {
    comment(&field.parent_file(), field.path())
}

pub(super) fn of_enum(kind: &EnumDescriptor) -> Option<String> {
    comment(&kind.parent_file(), kind.path())
}

fn comment(file: &FileDescriptor, path: &[i32]) -> Option<String> {
    let info = file.file_descriptor_proto().source_code_info.as_ref()?;
    let location = info.location.iter().find(|location| location.path == path)?;
    let text = location.leading_comments.as_deref().or(location.trailing_comments.as_deref())?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let text = lines.join("\n").trim().chars().take(LONGEST).collect::<String>();
    (!text.is_empty()).then_some(text)
}
