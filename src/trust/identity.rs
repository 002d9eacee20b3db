//! Identities as they stand in certificates (URI SAN), the directory, grants and log entries.
//!
//! A member is `KG/GOV/70000005` (instance / class / code, as on X-Road). Under it: systems `KG/GOV/70000005/tax`,
//! nodes `KG/GOV/70000005/_node/main` and auditors `KG/GOV/70000005/_auditor/inspection`. A certificate carries the
//! same text behind `kopuro://`. Segments are `[A-Za-z0-9][A-Za-z0-9.-]*`, at most 64 bytes, so that a segment that
//! begins with an underscore can never be a system's name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Scheme of the identity URI in a certificate's subject alternative name.
pub const URI_SCHEME: &str = "kopuro://";

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text has the wrong number of segments.
    #[error("{0:?} is not {1}")]
    Shape(String, &'static str),
    /// A segment is empty, too long or has a character outside `[A-Za-z0-9.-]`.
    #[error("{text:?}: {segment:?} is not a name: 1 to 64 of A-Z a-z 0-9 . - beginning with a letter or digit")]
    Segment {
        /// The whole text.
        text: String,
        /// The segment at fault.
        segment: String,
    },
    /// A certificate's URI does not begin with `kopuro://`.
    #[error("{0:?} does not begin with kopuro://")]
    Scheme(String),
}

/// A state body: `KG/GOV/70000005`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(Arc<str>);

/// A member's back-end system: `KG/GOV/70000005/civil-registry`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SystemId {
    text: Arc<str>,
    member: MemberId,
}

/// Whom a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A member itself: only a CA certificate carries this.
    Member(MemberId),
    /// A member's back-end system.
    System(SystemId),
    /// A member's gateway.
    Node {
        /// Whose gateway.
        member: MemberId,
        /// Which one.
        name: Arc<str>,
    },
    /// Somebody who may query logs.
    Auditor {
        /// The body that sends the auditor.
        member: MemberId,
        /// Which one.
        name: Arc<str>,
    },
}

impl MemberId {
    /// The text, `KG/GOV/70000005`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The federation (X-Road: instance), `KG`.
    pub fn instance(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The member code, `70000005`.
    pub fn code(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// A system of this member.
    pub fn system(&self, name: &str) -> Result<SystemId, IdentityError> {
        format!("{self}/{name}").parse()
    }
}

impl FromStr for MemberId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if segments(text)? == 3 {
            Ok(Self(text.into()))
        } else {
            Err(IdentityError::Shape(text.into(), "a member: INSTANCE/CLASS/CODE, as KG/GOV/70000005"))
        }
    }
}

impl SystemId {
    /// The text, `KG/GOV/70000005/civil-registry`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose system it is.
    pub fn member(&self) -> &MemberId {
        &self.member
    }

    /// The name within its member, `civil-registry`.
    pub fn name(&self) -> &str {
        self.text.rsplit('/').next().unwrap_or_default()
    }
}

impl FromStr for SystemId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if segments(text)? != 4 {
            return Err(IdentityError::Shape(
                text.into(),
                "a system: INSTANCE/CLASS/CODE/SYSTEM, as KG/GOV/70000005/civil-registry",
            ));
        }
        let end = text.rfind('/').unwrap_or(text.len());
        Ok(Self { text: text.into(), member: MemberId(text[..end].into()) })
    }
}

impl Identity {
    /// The member it belongs to.
    pub fn member(&self) -> &MemberId {
        match self {
            Self::Member(member) | Self::Node { member, .. } | Self::Auditor { member, .. } => member,
            Self::System(system) => system.member(),
        }
    }

    /// The URI that a certificate carries, `kopuro://KG/GOV/70000005/civil-registry`.
    pub fn to_uri(&self) -> String {
        format!("{URI_SCHEME}{self}")
    }

    /// Reads the URI of a certificate.
    pub fn from_uri(uri: &str) -> Result<Self, IdentityError> {
        uri.strip_prefix(URI_SCHEME).ok_or_else(|| IdentityError::Scheme(uri.into()))?.parse()
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [_, _, _] => Ok(Self::Member(text.parse()?)),
            [_, _, _, _] => Ok(Self::System(text.parse()?)),
            [instance, class, code, role @ ("_node" | "_auditor"), name] => {
                let member: MemberId = format!("{instance}/{class}/{code}").parse()?;
                segments(name)?;
                let name = name.into();
                Ok(if role == "_node" { Self::Node { member, name } } else { Self::Auditor { member, name } })
            }
            _ => Err(IdentityError::Shape(
                text.into(),
                "an identity: MEMBER, MEMBER/SYSTEM, MEMBER/_node/NAME or MEMBER/_auditor/NAME",
            )),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(member) => write!(f, "{member}"),
            Self::System(system) => write!(f, "{system}"),
            Self::Node { member, name } => write!(f, "{member}/_node/{name}"),
            Self::Auditor { member, name } => write!(f, "{member}/_auditor/{name}"),
        }
    }
}

/// How many segments there are, all of them good.
fn segments(text: &str) -> Result<usize, IdentityError> {
    let mut count = 0;
    for part in text.split('/') {
        let good = (1..=64).contains(&part.len())
            && part.as_bytes()[0].is_ascii_alphanumeric()
            && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'.');
        if !good {
            return Err(IdentityError::Segment { text: text.into(), segment: part.into() });
        }
        count += 1;
    }
    Ok(count)
}

macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(MemberId, SystemId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for uri in [
            "kopuro://KG/GOV/70000005",
            "kopuro://KG/GOV/70000005/civil-registry",
            "kopuro://KG/GOV/70000005/_node/main",
            "kopuro://KG/NGO/1/_auditor/board",
        ] {
            assert_eq!(Identity::from_uri(uri).unwrap().to_uri(), uri);
        }
        let system: SystemId = "KG/GOV/70000005/civil-registry".parse().unwrap();
        assert_eq!(system.member().as_str(), "KG/GOV/70000005");
        assert_eq!(
            (system.name(), system.member().code(), system.member().instance()),
            ("civil-registry", "70000005", "KG")
        );
    }

    #[test]
    fn refuses_what_is_no_identity() {
        for text in [
            "",
            "KG",
            "KG/GOV",
            "KG/GOV/1/_node",
            "KG/GOV/1/_node/",
            "KG/GOV/1/_ca/x",
            "KG/GOV/1/a/b",
            "KG//1/a",
            "KG/GOV/1/a b",
            "KG/GOV/1/-a",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
        assert!(Identity::from_uri("https://KG/GOV/1").is_err());
    }
}
