//! Grants held against the types: may a method be called on this basis, do the paths lead anywhere, is what is published no more
//! than the author of the service lets be published. A grant that fails is left out whole: what its limits mean is not known, and
//! nothing may cross by a mistake.

use super::against::Facts;
use crate::config::document::{Problem, Severity, Step};
use crate::config::grants::Placed;
use crate::oversight::subject;
use crate::policy::{Allowed, Grant};
use crate::schema::plan::PlanError;
use crate::schema::{Method, MethodPlans};

const STRICTER: &str = "write that class or a stricter one, or leave publication out";

impl Facts<'_> {
    /// The grants that can be in force, and those that cannot. `known` are those that were read before: one that is new and
    /// does not fit is the writer's mistake, and the files are refused; one that was there has been overtaken by the
    /// directory, and goes.
    pub(super) fn fitting(
        &self,
        grants: Vec<Placed<Grant>>,
        known: Option<&dyn Fn(&Grant) -> bool>,
        problems: &mut Vec<Problem>,
    ) -> (Vec<Grant>, Vec<Grant>) {
        let (mut fit, mut left_out) = (Vec::new(), Vec::new());
        for placed in grants {
            let wrong = self.misfits(&placed);
            if wrong.is_empty() {
                fit.push(placed.value);
                continue;
            }
            let is_new = known.is_some_and(|known| !known(&placed.value));
            let severity = if is_new { Severity::Error } else { Severity::Mismatch };
            problems.extend(wrong.into_iter().map(|problem| problem.with(severity)));
            left_out.push(placed.value);
        }
        (fit, left_out)
    }

    fn misfits(&self, placed: &Placed<Grant>) -> Vec<Problem> {
        let grant = &placed.value;
        let code = &grant.legal_basis.code;
        let basis = [Step::Key("legal_basis"), Step::Key("code")];
        let mut problems = Vec::new();
        if !self.directory.purposes.is_empty() && self.directory.purpose(code).is_none() {
            let what = format!("the directory's register of purposes has no {code}");
            problems.push(placed.mismatch_at(&basis, what, "correct it, or have the council list it"));
        }
        if subject::methods(&grant.service).is_some() {
            if grant.allowed != Allowed::Everything {
                let what = format!("{} is answered by the node itself, whole", grant.service);
                let field = if matches!(grant.allowed, Allowed::Fields(_)) { "fields" } else { "categories" };
                problems.push(placed.mismatch(field, what, "remove it"));
            }
            return problems;
        }
        let Some(offer) = self.catalogue.service(&grant.service).and_then(|service| service.offer(&grant.provider))
        else {
            return problems;
        };
        let mut methods: Vec<_> =
            offer.methods().filter(|method| grant.methods.contains(method.descriptor.name())).collect();
        methods.sort_by(|a, b| a.path.cmp(&b.path));
        for method in methods {
            let name = method.descriptor.name();
            let purposes = &method.annotations.purposes;
            if !method.is_for(code) {
                let what =
                    format!("{name} may not be called on the basis {code}: its purposes are {}", purposes.join(", "));
                problems.push(placed.mismatch_at(&basis, what, "name one of them, or remove the method"));
            }
            let annotated = method.publication(None);
            if let Some(class) = grant.publication.filter(|class| !class.is_as_strict_as(&annotated)) {
                let what = format!("{class} shows more, or sooner, than {name}'s author lets be shown: {annotated}");
                problems.push(placed.mismatch("publication", what, STRICTER));
            }
            problems.extend(plan_problem(placed, method));
        }
        problems
    }
}

/// Why a grant makes no plans for a method's messages.
fn plan_problem(placed: &Placed<Grant>, method: &Method) -> Option<Problem> {
    let (grant, name) = (&placed.value, method.descriptor.name());
    let error = MethodPlans::granted(&method.descriptor, grant).err()?;
    let steps = match &grant.allowed {
        Allowed::Everything => vec![Step::Key("service")],
        Allowed::Fields(_) => vec![Step::Key("fields"), Step::Key(name)],
        Allowed::Categories(_) => vec![Step::Key("categories")],
    };
    let remedy = match &error {
        PlanError::NoSuchField { .. } => "write the names of the .proto, as kopuro catalogue shows them",
        PlanError::PathTooDeep { .. } => "end the path at that field",
        _ => "correct it",
    };
    Some(placed.mismatch_at(&steps, format!("{name}: {error}"), remedy))
}
