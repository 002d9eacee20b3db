//! Which fields a grant lets through: `fields` or `categories`, and what becomes of fields that the types do not know.
//!
//! What can be judged without the types is judged here. Whether a path leads anywhere is for the types to say.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::super::document::Step;
use super::entry::EntryReader;
use crate::policy::{Allowed, Methods, UnknownFields, UnknownPolicy};
use crate::schema::annotations::{CORE_CATEGORIES, is_category};

/// The path that is the whole message.
const WHOLE: &str = "*";

/// For every method of the grant, or for each.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "fields are [\"person.surname\"] or { GetPerson = [\"person.surname\"], GetResidence = [\"*\"] }"
)]
pub(super) enum FieldsEntry {
    Alike(Vec<String>),
    Each(BTreeMap<String, Vec<String>>),
}

impl EntryReader<'_> {
    /// What of the responses crosses; nothing is let through by a mistake: then there is a problem and no grant.
    pub(super) fn allowed(
        &mut self,
        fields: Option<FieldsEntry>,
        categories: Option<Vec<String>>,
        methods: Option<&Methods>,
    ) -> Option<Allowed> {
        match (fields, categories) {
            (None, None) => Some(Allowed::Everything),
            (Some(_), Some(_)) => {
                self.problem("categories", "stands beside fields".to_owned(), "keep one of fields and categories");
                None
            }
            (None, Some(categories)) => self.categories(categories),
            (Some(fields), None) => match methods? {
                Methods::All => {
                    let what = "are for methods that are named, and methods is [\"*\"]".to_owned();
                    self.problem("fields", what, "name the methods, so that it is clear what crosses of each");
                    None
                }
                Methods::Named(names) => self.fields(fields, names),
            },
        }
    }

    fn categories(&mut self, categories: Vec<String>) -> Option<Allowed> {
        let mut good = true;
        for (index, category) in categories.iter().enumerate() {
            let what = if !is_category(category) {
                format!("{category:?} is not a category")
            } else if categories[..index].contains(category) {
                format!("{category:?} stands twice")
            } else {
                continue;
            };
            let core = CORE_CATEGORIES.join(", ");
            let remedy = format!("name some of {core}, or one with a dot in its name, as kg.tax-secret");
            self.problem_at(&[Step::Key("categories"), Step::Index(index)], what, &remedy);
            good = false;
        }
        good.then(|| Allowed::Categories(categories.into_iter().collect()))
    }

    fn fields(&mut self, fields: FieldsEntry, methods: &BTreeSet<String>) -> Option<Allowed> {
        match fields {
            FieldsEntry::Alike(paths) => {
                let paths = self.paths(&[Step::Key("fields")], paths)?;
                Some(Allowed::Fields(methods.iter().map(|method| (method.clone(), paths.clone())).collect()))
            }
            FieldsEntry::Each(by_method) => {
                let mut read = BTreeMap::new();
                let mut good = true;
                for (method, paths) in by_method {
                    let steps = [Step::Key("fields"), Step::Key(&method)];
                    if !methods.contains(&method) {
                        let what = "is not among the methods of this grant".to_owned();
                        self.problem_at(&steps, what, "add it to methods, or remove it here");
                        good = false;
                    }
                    match self.paths(&steps, paths) {
                        Some(paths) => drop(read.insert(method.clone(), paths)),
                        None => good = false,
                    }
                }
                for method in methods.iter().filter(|method| good && !read.contains_key(*method)) {
                    let remedy = format!("add {method} = [\"{WHOLE}\"] or the paths that it may answer");
                    self.problem("fields", format!("do not say what crosses of {method}"), &remedy);
                }
                (good && methods.iter().all(|method| read.contains_key(method))).then_some(Allowed::Fields(read))
            }
        }
    }

    fn paths(&mut self, steps: &[Step<'_>], paths: Vec<String>) -> Option<BTreeSet<String>> {
        if paths.is_empty() {
            self.problem_at(steps, "names no field".to_owned(), "name some, as \"person.surname\", or \"*\" for all");
            return None;
        }
        let mut good = true;
        for (index, path) in paths.iter().enumerate() {
            let holds = |outer: &String| {
                *outer == *path
                    || outer == WHOLE
                    || path.strip_prefix(outer.as_str()).is_some_and(|below| below.starts_with('.'))
            };
            let others = || paths.iter().enumerate().filter(move |(other, _)| *other != index);
            let (what, remedy) = if path != WHOLE && !path.split('.').all(is_field) {
                (format!("{path:?} is no path of fields"), "write their names with dots between, as \"person.surname\"")
            } else if let Some((_, outer)) =
                others().find(|(other, outer)| holds(outer) && (**outer != *path || *other < index))
            {
                (format!("{path:?} overlaps with {outer:?}, which holds all of it"), "keep one of them")
            } else {
                continue;
            };
            let mut steps = steps.to_vec();
            steps.push(Step::Index(index));
            self.problem_at(&steps, what, remedy);
            good = false;
        }
        good.then(|| paths.into_iter().collect())
    }

    /// What becomes of unknown fields. A response of which only some fields cross passes none that nobody knows.
    pub(super) fn unknown(
        &mut self,
        request: Option<&str>,
        response: Option<&str>,
        allowed: Option<&Allowed>,
    ) -> Option<UnknownPolicy> {
        let default = UnknownPolicy::default();
        let request = self.unknown_fields("unknown_fields", request, default.request);
        let response = self.unknown_fields("unknown_response_fields", response, default.response);
        let limited = matches!(allowed, Some(Allowed::Fields(_) | Allowed::Categories(_)));
        if limited && response == Some(UnknownFields::Pass) {
            let what = "would let through what nobody knows, and fields or categories limit what crosses".to_owned();
            self.problem("unknown_response_fields", what, "write \"strip\" or \"refuse\"");
            return None;
        }
        Some(UnknownPolicy { request: request?, response: response? })
    }

    fn unknown_fields(&mut self, key: &str, word: Option<&str>, default: UnknownFields) -> Option<UnknownFields> {
        match word {
            None => Some(default),
            Some("refuse") => Some(UnknownFields::Refuse),
            Some("strip") => Some(UnknownFields::Strip),
            Some("pass") => Some(UnknownFields::Pass),
            Some(other) => {
                let remedy = "write \"refuse\", \"strip\" or \"pass\"";
                self.problem(key, format!("{other:?} says nothing of unknown fields"), remedy);
                None
            }
        }
    }

    fn problem_at(&mut self, steps: &[Step<'_>], what: String, remedy: &str) {
        self.problems.push(self.place.problem(steps, what, remedy));
    }
}

fn is_field(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
