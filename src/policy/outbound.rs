//! The consumer's side: which of a member's own systems may call what.

use std::collections::HashMap;

use super::Denial;
use super::grant::{Methods, Publication};
use crate::trust::identity::{MemberId, SystemId};

/// One line of the outbound list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which own system.
    pub system: SystemId,
    /// Whose services.
    pub providers: Providers,
    /// Full service name; none: any.
    pub service: Option<String>,
    /// Which methods.
    pub methods: Methods,
    /// Legal basis to name where the call names none.
    pub purpose: Option<String>,
    /// How this side publishes the exchange; none: public. The stricter of the two sides' classes is for the caller
    /// of this room to choose.
    pub publication: Option<Publication>,
}

/// Whom a rule lets a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Providers {
    /// Anybody in the directory.
    Any,
    /// Every system of a member.
    Member(MemberId),
    /// One system.
    System(SystemId),
}

/// A member's outbound list. Empty, it allows nothing.
#[derive(Debug, Default)]
pub struct Outbound {
    by_system: HashMap<SystemId, Vec<Rule>>,
}

impl Outbound {
    /// A list; order matters: the first rule that fits decides.
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut by_system: HashMap<SystemId, Vec<Rule>> = HashMap::new();
        for rule in rules {
            by_system.entry(rule.system.clone()).or_default().push(rule);
        }
        Self { by_system }
    }

    /// The first rule that allows this call.
    pub fn decide(&self, system: &SystemId, provider: &SystemId, service: &str, method: &str) -> Result<&Rule, Denial> {
        self.rules_of(system)
            .iter()
            .find(|rule| rule.providers.contains(provider) && rule.covers(service) && rule.methods.contains(method))
            .ok_or(Denial::OutboundMissing)
    }

    /// Methods of a provider's service that a system may call, for reflection; none if it may call none.
    pub fn callable_by(&self, system: &SystemId, provider: &SystemId, service: &str) -> Option<Methods> {
        self.rules_of(system)
            .iter()
            .filter(|rule| rule.providers.contains(provider) && rule.covers(service))
            .map(|rule| rule.methods.clone())
            .reduce(|all, more| all.union(&more))
    }

    /// A system's rules, in order.
    pub fn rules_of(&self, system: &SystemId) -> &[Rule] {
        self.by_system.get(system).map_or(&[], Vec::as_slice)
    }

    /// All rules, in no order of systems.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.by_system.values().flatten()
    }
}

impl Rule {
    fn covers(&self, service: &str) -> bool {
        self.service.as_deref().is_none_or(|own| own == service)
    }
}

impl Providers {
    /// Whether a provider is among them.
    pub fn contains(&self, provider: &SystemId) -> bool {
        match self {
            Self::Any => true,
            Self::Member(member) => member == provider.member(),
            Self::System(system) => system == provider,
        }
    }
}
