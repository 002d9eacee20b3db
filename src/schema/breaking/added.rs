//! What only the new version has, or says of what both have.

use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor, MethodDescriptor, ServiceDescriptor};

use super::scope::Scope;
use super::{Addition, Place, Told};
use crate::schema::annotations::{FieldAnnotations, MethodAnnotations, body_of};

/// What `new` has beyond `old`: services, methods, messages, fields, enums, values, and annotations. Of a service or message
/// that is all new, only itself.
pub fn added(old: &DescriptorPool, new: &DescriptorPool) -> Told<Addition> {
    let mut all = Told::default();
    let scope = Scope::of(new);
    for service in new.services() {
        match old.get_service_by_name(service.full_name()) {
            None => all.push(|| at_service(&service, format!("service {}", service.name()))),
            Some(before) => of_service(&mut all, &before, &service),
        }
    }
    for message in new.all_messages().filter(|message| !message.is_map_entry()) {
        if !scope.has(message.package_name(), message.full_name()) {
            continue;
        }
        match old.get_message_by_name(message.full_name()) {
            // Of a message within a new message only the outer one is told.
            None if message
                .parent_message()
                .is_none_or(|outer| old.get_message_by_name(outer.full_name()).is_some()) =>
            {
                let what = format!("message {}", message.name());
                let place = Place::of(&message.parent_file(), message.path(), message.full_name());
                all.push(|| Addition { place, what });
            }
            None => {}
            Some(before) => of_message(&mut all, &before, &message),
        }
    }
    for list in new.all_enums() {
        if !scope.has(list.package_name(), list.full_name()) {
            continue;
        }
        let place = |path: &[i32], name: &str| Place::of(&list.parent_file(), path, name);
        match old.get_enum_by_name(list.full_name()) {
            None => all.push(|| Addition {
                place: place(list.path(), list.full_name()),
                what: format!("enum {}", list.name()),
            }),
            Some(before) => {
                for value in list.values().filter(|value| before.get_value_by_name(value.name()).is_none()) {
                    let what = format!("value {} = {}", value.name(), value.number());
                    all.push(|| Addition { place: place(value.path(), value.full_name()), what });
                }
            }
        }
    }
    all
}

fn of_service(all: &mut Told<Addition>, before: &ServiceDescriptor, after: &ServiceDescriptor) {
    if let (None, Some(body)) = (body_of(before), body_of(after)) {
        all.push(|| at_service(after, format!("annotation body {body}")));
    }
    for method in after.methods() {
        let at = |what: String| Addition {
            place: Place::of(&method.parent_file(), method.path(), method.full_name()),
            what,
        };
        let Some(old) = before.methods().find(|old| old.name() == method.name()) else {
            all.push(|| at(format!("method {}", method.name())));
            continue;
        };
        for what in of_method(&old, &method) {
            all.push(|| at(what));
        }
    }
}

fn of_method(before: &MethodDescriptor, after: &MethodDescriptor) -> Vec<String> {
    let (was, is) = (MethodAnnotations::of(before), MethodAnnotations::of(after));
    let mut found = Vec::new();
    let further = is.purposes.iter().filter(|code| !was.purposes.contains(code));
    // The first purposes limit what was open; further ones open it to more.
    let word = if was.purposes.is_empty() { "the first purposes: only by" } else { "a further purpose:" };
    found.extend(further.map(|code| format!("{word} {code}")));
    if was.publication != is.publication
        && let Some(class) = is.publication
    {
        found.push(format!("annotation publication {class:?}"));
    }
    found
}

fn of_message(all: &mut Told<Addition>, before: &MessageDescriptor, after: &MessageDescriptor) {
    for field in after.fields() {
        let found = match before.get_field(field.number()) {
            None => vec![format!("field {} = {}", field.name(), field.number())],
            Some(old) => of_field(&old, &field),
        };
        for what in found {
            let place = Place::of(&field.parent_file(), field.path(), field.full_name());
            all.push(|| Addition { place, what });
        }
    }
}

fn of_field(before: &FieldDescriptor, after: &FieldDescriptor) -> Vec<String> {
    let (was, is) = (FieldAnnotations::of(before), FieldAnnotations::of(after));
    let mut found = Vec::new();
    if is.subject && !was.subject {
        found.push("annotation subject".to_owned());
    }
    if let (None, Some(category)) = (was.category, is.category) {
        found.push(format!("annotation category {category}"));
    }
    if is.commit && !was.commit {
        found.push("annotation commit".to_owned());
    }
    found
}

fn at_service(service: &ServiceDescriptor, what: String) -> Addition {
    Addition { place: Place::of(&service.parent_file(), service.path(), service.full_name()), what }
}
