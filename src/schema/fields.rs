//! Every field of a message, for people: its path, its kind, its annotations, and whether a grant opens it.
//!
//! In: a message type. Out: its leaves, down to scalars, in the order of the type; bounded, so that no type, however nested or
//! recursive, makes it long. A field whose type is one of those above it is told as a leaf that goes on ([`Field::recursive`]).
//! Pure. What a plan does to a message on the wire is in [`super::plan`]; both follow the same rules.

use std::collections::BTreeSet;

use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};

use super::annotations::FieldAnnotations;
use crate::policy::Allowed;

/// Most leaves that are told of one message.
pub const MAX_LEAVES: usize = 2_048;

/// How deep messages in messages are followed.
const MAX_DEPTH: usize = 24;

/// The leaves of a message type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// In the order of the type.
    pub leaves: Vec<Field>,
    /// Whether there are more than [`MAX_LEAVES`].
    pub truncated: bool,
}

/// A field that holds a value, or a whole message that is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// `person.surname`. Inside the values of a map, `documents{}.number`.
    pub path: String,
    /// The longest path of a mask that leads to it: the path itself, or that of the map it is in.
    pub mask: String,
    /// `string`, `uint64`, `kg.civil.v1.Sex`, `map<string, bool>`.
    pub kind: String,
    /// Whether there may be several of it, itself or what it is in.
    pub repeated: bool,
    /// Every category on the way to it, each once. None: not personal.
    pub categories: Vec<String>,
    /// It identifies the data subject.
    pub subject: bool,
    /// It has a commitment of its own.
    pub commit: bool,
    /// It is a message of a type that it is itself in, and goes on.
    pub recursive: bool,
}

/// How much of a field a grant opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opening {
    /// Nothing.
    Withheld,
    /// Some of what is inside.
    Partly,
    /// All of it.
    Open,
}

impl Fields {
    /// Of a message type.
    pub fn of(message: &MessageDescriptor) -> Self {
        let mut walk = Walk { found: Self::default(), above: vec![message.full_name().to_owned()] };
        walk.message(message, &Way::default());
        walk.found
    }

    /// The categories of all of them.
    pub fn categories(&self) -> BTreeSet<&str> {
        self.leaves.iter().flat_map(|field| &field.categories).map(String::as_str).collect()
    }
}

impl Field {
    /// What of it crosses under a grant, in responses of this method. The grant must be of the method.
    pub fn opening(&self, allowed: &Allowed, method: &str) -> Opening {
        match allowed {
            Allowed::Everything => Opening::Open,
            Allowed::Categories(allowed) if self.categories.iter().all(|category| allowed.contains(category)) => {
                Opening::Open
            }
            Allowed::Categories(_) => Opening::Withheld,
            Allowed::Fields(by_method) => by_method
                .get(method)
                .into_iter()
                .flatten()
                .map(|path| self.opening_by(path))
                .max()
                .unwrap_or(Opening::Withheld),
        }
    }

    fn opening_by(&self, path: &str) -> Opening {
        if path == "*" || is_within(&self.mask, path) {
            Opening::Open
        } else if is_within(path, &self.mask) {
            Opening::Partly
        } else {
            Opening::Withheld
        }
    }
}

/// Whether a path is another or leads into it.
pub fn is_within(path: &str, other: &str) -> bool {
    path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a path of a mask names a field of a message: through messages, also repeated ones, and not into a map.
pub fn has_path(message: &MessageDescriptor, path: &str) -> bool {
    if path == "*" {
        return true;
    }
    let mut inside = Some(message.clone());
    path.split('.').all(|name| {
        let field = inside.take().and_then(|message| message.get_field_by_name(name));
        let Some(field) = field else { return false };
        if let Kind::Message(next) = field.kind()
            && !field.is_map()
        {
            inside = Some(next);
        }
        true
    })
}

/// The way to a field.
#[derive(Default, Clone)]
struct Way {
    path: String,
    /// The path of the map that it leads through.
    map: Option<String>,
    repeated: bool,
    categories: Vec<String>,
}

struct Walk {
    found: Fields,
    /// Types of the messages above.
    above: Vec<String>,
}

impl Walk {
    fn message(&mut self, message: &MessageDescriptor, way: &Way) {
        for field in message.fields() {
            if self.found.truncated {
                return;
            }
            self.field(&field, way);
        }
    }

    fn field(&mut self, field: &FieldDescriptor, way: &Way) {
        let annotations = FieldAnnotations::of(field);
        let mut to = way.clone();
        if !to.path.is_empty() {
            to.path.push('.');
        }
        to.path.push_str(field.name());
        to.repeated |= field.cardinality() == Cardinality::Repeated;
        to.categories.extend(annotations.category.clone().filter(|category| !way.categories.contains(category)));

        let inside = match field.kind() {
            Kind::Message(entry) if field.is_map() => match entry.map_entry_value_field().kind() {
                Kind::Message(value) => {
                    to.map.get_or_insert_with(|| to.path.clone());
                    to.path.push_str("{}");
                    Some(value)
                }
                _ => None,
            },
            Kind::Message(message) => Some(message),
            _ => None,
        };
        let followed = inside.filter(|message| message.fields().len() > 0 && !is_well_known(message));
        let recursive = followed.as_ref().is_some_and(|message| self.above.iter().any(|up| up == message.full_name()));
        match followed {
            Some(message) if !recursive && self.above.len() < MAX_DEPTH => {
                self.above.push(message.full_name().to_owned());
                self.message(&message, &to);
                self.above.pop();
            }
            _ => self.leaf(field, to, &annotations, recursive),
        }
    }

    fn leaf(&mut self, field: &FieldDescriptor, way: Way, annotations: &FieldAnnotations, recursive: bool) {
        if self.found.leaves.len() >= MAX_LEAVES {
            self.found.truncated = true;
            return;
        }
        self.found.leaves.push(Field {
            mask: way.map.unwrap_or_else(|| way.path.clone()),
            path: way.path,
            kind: kind(field),
            repeated: way.repeated,
            categories: way.categories,
            subject: annotations.subject,
            commit: annotations.commit,
            recursive,
        });
    }
}

/// Timestamps, wrappers, `Any` and the like are values to people.
fn is_well_known(message: &MessageDescriptor) -> bool {
    message.full_name().starts_with("google.protobuf.")
}

/// As a `.proto` writes it.
fn kind(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            format!(
                "map<{}, {}>",
                name(&entry.map_entry_key_field().kind()),
                name(&entry.map_entry_value_field().kind())
            )
        }
        kind => name(&kind),
    }
}

fn name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost_reflect::DescriptorPool;

    use super::*;

    fn message(proto: &str) -> MessageDescriptor {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("kopuro/options/v1")).unwrap();
        let options = include_str!("../../proto/kopuro/options/v1/options.proto");
        std::fs::write(folder.path().join("kopuro/options/v1/options.proto"), options).unwrap();
        let header = "syntax = \"proto3\"; package t; import \"kopuro/options/v1/options.proto\"; \
                      import \"google/protobuf/timestamp.proto\";";
        std::fs::write(folder.path().join("t.proto"), format!("{header}{proto}")).unwrap();
        let mut compiler = protox::Compiler::new([folder.path()]).unwrap();
        compiler.include_imports(true).open_file("t.proto").unwrap();
        let bytes = compiler.encode_file_descriptor_set();
        DescriptorPool::decode(&bytes[..]).unwrap().get_message_by_name("t.M").unwrap()
    }

    fn told(fields: &Fields) -> Vec<String> {
        fields.leaves.iter().map(|field| format!("{} {} {:?}", field.path, field.kind, field.categories)).collect()
    }

    fn set(paths: &[&str]) -> BTreeSet<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn leaves_have_the_categories_of_all_that_they_are_in() {
        let fields = Fields::of(&message(
            "message M { string pin = 1 [(kopuro.options.v1.subject) = true, (kopuro.options.v1.category) = \"identity\"]; \
             P person = 2 [(kopuro.options.v1.category) = \"identity\"]; google.protobuf.Timestamp at = 3; \
             map<string, P> by_name = 4; map<string, uint32> counts = 5; repeated P more = 6; E empty = 7; } \
             message P { string name = 1; string phone = 2 [(kopuro.options.v1.category) = \"contact\"]; } message E {}",
        ));
        assert_eq!(
            told(&fields),
            [
                "pin string [\"identity\"]",
                "person.name string [\"identity\"]",
                "person.phone string [\"identity\", \"contact\"]",
                "at google.protobuf.Timestamp []",
                "by_name{}.name string []",
                "by_name{}.phone string [\"contact\"]",
                "counts map<string, uint32> []",
                "more.name string []",
                "more.phone string [\"contact\"]",
                "empty t.E []",
            ]
        );
        assert_eq!((fields.leaves[0].subject, fields.leaves[1].subject), (true, false));
        assert_eq!((fields.leaves[7].repeated, fields.leaves[1].repeated), (true, false));

        let opened = |allowed: &Allowed| -> Vec<&str> {
            let open = fields.leaves.iter().filter(|field| field.opening(allowed, "Get") == Opening::Open);
            open.map(|field| field.path.as_str()).collect()
        };
        let all: Vec<&str> = fields.leaves.iter().map(|field| field.path.as_str()).collect();
        assert_eq!(opened(&Allowed::Everything), all);
        assert_eq!(
            opened(&Allowed::Categories(set(&["identity"]))),
            ["pin", "person.name", "at", "by_name{}.name", "counts", "more.name", "empty"]
        );
        let by = |method: &str, paths: &[&str]| Allowed::Fields(BTreeMap::from([(method.to_owned(), set(paths))]));
        assert_eq!(
            opened(&by("Get", &["person", "by_name"])),
            ["person.name", "person.phone", "by_name{}.name", "by_name{}.phone"]
        );
        assert_eq!(opened(&by("Get", &["*"])), all);
        assert!(opened(&by("Other", &["*"])).is_empty());
        let inside = by("Get", &["at.seconds", "per"]);
        assert_eq!(fields.leaves[3].opening(&inside, "Get"), Opening::Partly);
        assert_eq!(fields.leaves[1].opening(&inside, "Get"), Opening::Withheld, "a name is not its beginning");
    }

    #[test]
    fn recursive_and_huge_types_end() {
        let fields = Fields::of(&message(
            "message M { string name = 1; repeated M parts = 2; N n = 3; } message N { M back = 1; }",
        ));
        assert_eq!(told(&fields), ["name string []", "parts t.M []", "n.back t.M []"]);
        assert!(fields.leaves[1].recursive && !fields.leaves[0].recursive);
        // Sixteen levels of four fields each would have 4^16 leaves.
        let mut proto = String::from("message M { L0 l = 1; }");
        for level in 0..16 {
            let next = if level == 15 { "string".to_owned() } else { format!("L{}", level + 1) };
            proto.push_str(&format!("message L{level} {{ {next} a = 1; {next} b = 2; {next} c = 3; {next} d = 4; }}"));
        }
        let fields = Fields::of(&message(&proto));
        assert_eq!((fields.leaves.len(), fields.truncated), (MAX_LEAVES, true));
    }

    #[test]
    fn paths_of_masks() {
        let message = message(
            "message M { P p = 1; repeated P many = 2; map<string, P> by = 3; } message P { string name = 1; M m = 2; }",
        );
        for good in ["*", "p", "p.name", "many.name", "by", "p.m.p.m.many.name"] {
            assert!(has_path(&message, good), "{good}");
        }
        for bad in ["", "q", "p.q", "p.name.x", "by.name", "by{}.name", ".p", "p.", "p.*", "P"] {
            assert!(!has_path(&message, bad), "{bad}");
        }
    }
}
