//! A grant as what plans are compiled with.

use std::collections::BTreeSet;

use super::plan::{Allow, PlanOptions};
use crate::policy::{Allowed, Grant};

impl PlanOptions {
    /// For the requests of a grant, at the provider's node: whole, by the rules of their types.
    pub fn of_requests(grant: &Grant) -> Self {
        Self { allow: Allow::Everything, unknown: grant.unknown.request, rules: true }
    }

    /// For the responses of a method under a grant, at the provider's node. Rules are for requests.
    pub fn of_responses(grant: &Grant, method: &str) -> Self {
        Self { allow: Allow::of(&grant.allowed, method), unknown: grant.unknown.response, rules: false }
    }
}

impl Allow {
    /// What of a method's responses a grant lets through; of a method that its paths do not name, nothing.
    pub fn of(allowed: &Allowed, method: &str) -> Self {
        match allowed {
            Allowed::Everything => Self::Everything,
            Allowed::Fields(by_method) => Self::Paths(by_method.get(method).map_or_else(BTreeSet::new, Clone::clone)),
            Allowed::Categories(categories) => Self::Categories(categories.clone()),
        }
    }
}
