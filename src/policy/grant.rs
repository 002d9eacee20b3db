//! A grant: a provider's permission, with its legal basis.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use super::Denial;
use crate::trust::identity::{IdentityError, MemberId, SystemId};

/// A provider's permission: this consumer may call these methods, on this legal basis, within these bounds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Who may call.
    pub consumer: Consumer,
    /// Whose service it is: a system of the member that gives the grant.
    pub provider: SystemId,
    /// Full service name, `kg.civil.v1.CivilRegistry`.
    pub service: String,
    /// Which of its methods.
    pub methods: Methods,
    /// By what law.
    pub legal_basis: LegalBasis,
    /// First millisecond (Unix) at which it holds; none: always has.
    pub from_unix_ms: Option<i64>,
    /// First millisecond (Unix) at which it no longer holds; none: never ends.
    pub until_unix_ms: Option<i64>,
    /// How fast; the systems of a granted member share one allowance. None: no limit of its own.
    pub rate: Option<Rate>,
    /// What of its exchanges is published, and when; none: as the method's type says, or else at once.
    pub publication: Option<Publication>,
    /// Which fields of the responses may cross.
    pub allowed: Allowed,
    /// What becomes of fields that the types do not know.
    pub unknown: UnknownPolicy,
    /// Whether the caller is told the names of withheld fields, besides their number.
    pub name_withheld: bool,
}

/// Which fields of responses a grant lets through.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Allowed {
    /// All of them.
    #[default]
    Everything,
    /// These, by method: paths as in `google.protobuf.FieldMask`, `person.surname`; of a method that is not named, nothing.
    /// `*` is the whole message.
    Fields(BTreeMap<String, BTreeSet<String>>),
    /// Those that are annotated with none but these categories.
    Categories(BTreeSet<String>),
}

/// What becomes of fields that a message's type does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnknownFields {
    /// The message is refused.
    Refuse,
    /// They are dropped.
    Strip,
    /// They cross.
    Pass,
}

/// The same for both directions of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnknownPolicy {
    /// Of requests.
    pub request: UnknownFields,
    /// Of responses.
    pub response: UnknownFields,
}

impl Default for UnknownPolicy {
    /// What a caller sends beyond the types is refused; what a back-end answers beyond them does not cross.
    fn default() -> Self {
        Self { request: UnknownFields::Refuse, response: UnknownFields::Strip }
    }
}

/// To whom a grant is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Consumer {
    /// One system.
    System(SystemId),
    /// Every system of a member.
    Member(MemberId),
}

/// Methods of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Methods {
    /// All of them, also those that the service gets later.
    All,
    /// These, by name (`GetPerson`).
    Named(BTreeSet<String>),
}

/// The law on which a grant rests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LegalBasis {
    /// Short and stable: what callers put in `kopuro-purpose` and what the log publishes.
    pub code: String,
    /// The provision, in words.
    pub text: String,
}

/// Calls per second, with bursts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Sustained calls per second.
    pub per_second: NonZeroU32,
    /// Calls that may come at once.
    pub burst: NonZeroU32,
}

/// What of an exchange is published, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Publication {
    /// Its entry, at once.
    #[default]
    Public,
    /// Its entry, so many days later.
    Delayed {
        /// Days after the exchange.
        days: u32,
    },
    /// Never; its leaf still counts.
    Sealed,
}

impl Publication {
    /// Whether it shows nothing sooner than the other: sealed before delayed, more days before fewer, public last.
    pub fn is_as_strict_as(&self, other: &Self) -> bool {
        self.rank() >= other.rank()
    }

    /// The one of the two that shows nothing sooner.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        if self.is_as_strict_as(&other) { self } else { other }
    }

    /// That the consumer's node has recorded its side under a class that shows nothing sooner than this one, which was
    /// granted: its opening entry was made before the grant was known.
    pub fn check_recorded(self, recorded: Self) -> Result<(), Denial> {
        if recorded.is_as_strict_as(&self) {
            Ok(())
        } else {
            Err(Denial::PublicationTooOpen { recorded, granted: self })
        }
    }

    fn rank(&self) -> (u8, u32) {
        match self {
            Self::Public => (0, 0),
            Self::Delayed { days } => (1, *days),
            Self::Sealed => (2, 0),
        }
    }
}

/// As it crosses between nodes in `kopuro-publication`: `public`, `sealed` or `delayed <days>`.
impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::Delayed { days } => write!(f, "delayed {days}"),
            Self::Sealed => f.write_str("sealed"),
        }
    }
}

/// No publication class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a publication class is public, sealed or delayed <days>")]
pub struct PublicationError;

impl FromStr for Publication {
    type Err = PublicationError;

    fn from_str(text: &str) -> Result<Self, PublicationError> {
        match (text, text.strip_prefix("delayed ")) {
            ("public", _) => Ok(Self::Public),
            ("sealed", _) => Ok(Self::Sealed),
            (_, Some(days)) => Ok(Self::Delayed { days: days.parse().map_err(|_| PublicationError)? }),
            _ => Err(PublicationError),
        }
    }
}

impl Grant {
    /// Whether it holds at this time.
    pub fn is_valid_at(&self, now_unix_ms: i64) -> bool {
        self.has_begun(now_unix_ms) && !self.has_ended(now_unix_ms)
    }

    pub(super) fn has_begun(&self, now_unix_ms: i64) -> bool {
        self.from_unix_ms.is_none_or(|from| from <= now_unix_ms)
    }

    pub(super) fn has_ended(&self, now_unix_ms: i64) -> bool {
        self.until_unix_ms.is_some_and(|until| until <= now_unix_ms)
    }
}

impl Consumer {
    /// Whether a system's call falls under it.
    pub fn covers(&self, system: &SystemId) -> bool {
        match self {
            Self::System(granted) => granted == system,
            Self::Member(member) => member == system.member(),
        }
    }

    /// The member it is, or belongs to.
    pub fn member(&self) -> &MemberId {
        match self {
            Self::System(system) => system.member(),
            Self::Member(member) => member,
        }
    }
}

impl FromStr for Consumer {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.split('/').count() == 3 { text.parse().map(Self::Member) } else { text.parse().map(Self::System) }
    }
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(system) => write!(f, "{system}"),
            Self::Member(member) => write!(f, "{member}"),
        }
    }
}

impl Methods {
    /// Whether the method is among them.
    pub fn contains(&self, method: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(method),
        }
    }

    /// These and those.
    pub fn union(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Named(mut names), Self::Named(more)) => {
                names.extend(more.iter().cloned());
                Self::Named(names)
            }
            _ => Self::All,
        }
    }
}
