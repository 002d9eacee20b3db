//! The plans of every grant in force, compiled when the view is made: on the data path they are only looked up.

use std::collections::HashMap;
use std::sync::Arc;

use crate::policy::{Grant, Grants};
use crate::schema::plan::PlanError;
use crate::schema::{Catalogue, MethodPlans};

/// By the grant's number, then by method.
#[derive(Debug, Default)]
pub(super) struct GrantPlans(Vec<HashMap<Box<str>, Compiled>>);

#[derive(Debug, Clone)]
struct Compiled {
    schema: [u8; 32],
    plans: Result<Arc<MethodPlans>, PlanError>,
}

/// Why there is no plan: nothing passes.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPlan {
    /// It could not be compiled.
    #[error(transparent)]
    Plan(PlanError),
    /// The types are not there.
    #[error("its types are not known here")]
    Types,
}

impl GrantPlans {
    /// Of these grants over these types. A grant that was in force over the same types keeps its plans.
    pub(super) fn new(grants: &Grants, catalogue: &Catalogue, previous: Option<(&Grants, &Self)>) -> Self {
        let kept: HashMap<&Grant, &HashMap<Box<str>, Compiled>> = previous
            .into_iter()
            .flat_map(|(grants, plans)| {
                grants.iter_numbered().filter_map(|(number, grant)| Some((grant, plans.0.get(number)?)))
            })
            .collect();
        let mut all = vec![HashMap::new(); grants.len()];
        for (number, grant) in grants.iter_numbered() {
            let Some(offer) = catalogue.service(&grant.service).and_then(|service| service.offer(&grant.provider))
            else {
                continue;
            };
            for method in offer.methods() {
                let name = method.descriptor.name();
                if !grant.methods.contains(name) {
                    continue;
                }
                let known = kept.get(grant).and_then(|methods| methods.get(name));
                let compiled = known.filter(|known| known.schema == method.schema).cloned().unwrap_or_else(|| {
                    let plans = MethodPlans::granted(&method.descriptor, grant).map(Arc::new);
                    if let Err(error) = &plans {
                        tracing::error!(service = grant.service, method = name, consumer = %grant.consumer, %error, "a grant cannot be used: it allows nothing");
                    }
                    Compiled { schema: method.schema, plans }
                });
                if let Some(methods) = all.get_mut(number) {
                    methods.insert(name.into(), compiled);
                }
            }
        }
        Self(all)
    }

    /// The plans of a method under the grant with this number.
    pub(super) fn of(&self, number: usize, method: &str) -> Result<&Arc<MethodPlans>, NoPlan> {
        let compiled = self.0.get(number).and_then(|methods| methods.get(method)).ok_or(NoPlan::Types)?;
        compiled.plans.as_ref().map_err(|error| NoPlan::Plan(error.clone()))
    }
}
