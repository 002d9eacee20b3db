//! Which method an HTTP request is for.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method as Verb;

use super::{Captures, Rule};
use crate::schema::Method;
use crate::trust::identity::SystemId;

/// Every rule of a catalogue's services.
#[derive(Debug, Default)]
pub struct Routes {
    /// By HTTP method and first part; those that begin with a variable are under none.
    by_start: HashMap<(Verb, Option<Box<str>>), Vec<Route>>,
}

/// A rule, whose it is, and for what.
#[derive(Debug, Clone)]
pub struct Route {
    /// The system that offers the method with this rule.
    pub provider: SystemId,
    /// The method.
    pub method: Arc<Method>,
    /// The rule.
    pub rule: Arc<Rule>,
}

/// A request's route, and what its path says.
#[derive(Debug)]
pub struct Found<'a> {
    /// The route.
    pub route: &'a Route,
    /// The texts of the path's variables.
    pub captures: Captures,
}

impl Routes {
    /// Adds a rule.
    pub fn add(&mut self, route: Route) {
        let start = (route.rule.verb.clone(), route.rule.template.first().map(Into::into));
        self.by_start.entry(start).or_default().push(route);
    }

    /// What a request may be for: of all that match, those that say most. Of several, all are of one method and differ in their
    /// provider, unless services contradict each other.
    pub fn find(&self, verb: &Verb, path: &str) -> Vec<Found<'_>> {
        let first = path.strip_prefix('/').and_then(|path| path.split(['/', ':']).next()).map(Box::from);
        let starts = [(verb.clone(), first), (verb.clone(), None)];
        let routes = starts.iter().filter_map(|start| self.by_start.get(start)).flatten();
        let matching = routes.filter_map(|route| Some(Found { route, captures: route.rule.template.matches(path)? }));
        let mut found: Vec<Found<'_>> = matching.collect();
        found.sort_by(|one, other| one.route.rule.template.order(&other.route.rule.template));
        if let Some(best) = found.first().map(|best| best.route.rule.clone()) {
            found.retain(|other| best.template.order(&other.route.rule.template).is_eq());
        }
        found
    }
}
