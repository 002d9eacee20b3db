//! What is done to the messages of one method: on the consumer's side by its types alone, on the provider's by a grant too.

use std::sync::Arc;

use prost_reflect::MethodDescriptor;

use super::plan::{Allow, Plan, PlanError, PlanOptions};
use crate::policy::{Allowed, Grant, UnknownFields};

/// The plans of one method, in both directions.
#[derive(Debug)]
pub struct MethodPlans {
    /// For its requests.
    pub request: Arc<Plan>,
    /// For its responses.
    pub response: Arc<Plan>,
}

impl MethodPlans {
    /// On the consumer's side: well formed for their types, and whose data they are. What the types do not know passes: what of it
    /// crosses is the provider's to say, whose types may be newer.
    pub fn open(method: &MethodDescriptor) -> Result<Self, PlanError> {
        let options = PlanOptions { allow: Allow::Everything, unknown: UnknownFields::Pass, rules: false };
        Ok(Self {
            request: Arc::new(Plan::compile(&method.input(), &options)?),
            response: Arc::new(Plan::compile(&method.output(), &options)?),
        })
    }

    /// On the provider's side, under this grant: requests also by their rules, responses cut down to what is granted.
    pub fn granted(method: &MethodDescriptor, grant: &Grant) -> Result<Self, PlanError> {
        let allow = match &grant.allowed {
            Allowed::Everything => Allow::Everything,
            Allowed::Categories(categories) => Allow::Categories(categories.clone()),
            Allowed::Fields(methods) => match methods.get(method.name()) {
                Some(paths) if paths.contains("*") => Allow::Everything,
                Some(paths) => Allow::Paths(paths.clone()),
                None => Allow::Paths(Default::default()),
            },
        };
        let request = PlanOptions { allow: Allow::Everything, unknown: grant.unknown.request, rules: true };
        let response = PlanOptions { allow, unknown: grant.unknown.response, rules: false };
        Ok(Self {
            request: Arc::new(Plan::compile(&method.input(), &request)?),
            response: Arc::new(Plan::compile(&method.output(), &response)?),
        })
    }
}
