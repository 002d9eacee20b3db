//! What of a set counts: see the module's own words.

use std::collections::HashSet;

use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

/// The part of a set that callers of its services can see.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// It defines no service: all of it counts.
    library: bool,
    /// Packages that define a service.
    packages: HashSet<String>,
    /// Messages and enums that a method carries.
    carried: HashSet<String>,
    /// Messages that are carried to the provider.
    sent: HashSet<String>,
}

impl Scope {
    pub(super) fn of(pool: &DescriptorPool) -> Self {
        let mut scope = Self { library: pool.services().len() == 0, ..Self::default() };
        let mut answered = HashSet::new();
        for service in pool.services() {
            scope.packages.insert(service.package_name().to_owned());
            for method in service.methods() {
                carry(method.input(), &mut scope.sent);
                carry(method.output(), &mut answered);
            }
        }
        scope.carried = scope.sent.union(&answered).cloned().collect();
        scope
    }

    /// Whether a message, enum, extension or service counts.
    pub(super) fn has(&self, package: &str, name: &str) -> bool {
        self.library || self.packages.contains(package) || self.carried.contains(name)
    }

    /// Whether a message may be part of what callers send. In a library every one may.
    pub(super) fn is_sent(&self, name: &str) -> bool {
        self.library || self.sent.contains(name)
    }
}

/// Adds a message and all that it may hold. Not recursive: a hostile set may be as deep as it is long.
fn carry(message: MessageDescriptor, carried: &mut HashSet<String>) {
    let mut open = vec![message];
    while let Some(message) = open.pop() {
        if !carried.insert(message.full_name().to_owned()) {
            continue;
        }
        let kinds = message.fields().map(|field| field.kind()).chain(message.extensions().map(|field| field.kind()));
        for kind in kinds {
            match kind {
                Kind::Message(inner) => open.push(inner),
                Kind::Enum(inner) => {
                    carried.insert(inner.full_name().to_owned());
                }
                _ => {}
            }
        }
    }
}
