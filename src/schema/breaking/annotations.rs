//! Annotations of two versions of the same element. What breaks, and why, is in the module's table.

use prost_reflect::{MethodDescriptor, ServiceDescriptor};

use super::Judge;
use super::fields::Field;
use crate::policy::Publication;
use crate::schema::annotations::{FieldAnnotations, MethodAnnotations, body_of};

pub(super) fn field(judge: &mut Judge<'_>, before: &Field, after: &Field) {
    // Extensions are annotated by nobody: what they extend carries its own.
    let (Field::Plain(old), Field::Plain(new)) = (before, after) else { return };
    let (was, is) = (FieldAnnotations::of(old), FieldAnnotations::of(new));
    let mut add = |rule, what: String| judge.add(rule, &new.parent_file(), new.path(), new.full_name(), what);
    if was.subject && !is.subject {
        add("KOPURO_FIELD_SAME_SUBJECT", "it is not annotated as the subject any more".into());
    }
    match (&was.category, &is.category) {
        (Some(was), None) => add("KOPURO_FIELD_SAME_CATEGORY", format!("its category {was:?} was dropped")),
        (Some(was), Some(is)) if was != is => {
            add("KOPURO_FIELD_SAME_CATEGORY", format!("its category changed from {was:?} to {is:?}"));
        }
        _ => {}
    }
    if was.commit && !is.commit {
        add("KOPURO_FIELD_SAME_COMMIT", "it has no commitment of its own any more".into());
    }
}

pub(super) fn method(judge: &mut Judge<'_>, before: &MethodDescriptor, after: &MethodDescriptor) {
    let (was, is) = (MethodAnnotations::of(before), MethodAnnotations::of(after));
    let mut add = |rule, what: String| judge.add(rule, &after.parent_file(), after.path(), after.full_name(), what);
    if is.purposes.is_empty() && !was.purposes.is_empty() {
        add("KOPURO_METHOD_PURPOSE_NO_DELETE", "its purposes were dropped: any would do".into());
    } else {
        for code in was.purposes.iter().filter(|code| !is.purposes.contains(code)) {
            add("KOPURO_METHOD_PURPOSE_NO_DELETE", format!("purpose {code:?} was removed"));
        }
    }
    let class = |publication: &Option<String>| publication.clone().unwrap_or_else(|| "public".into());
    let (was, is) = (class(&was.publication), class(&is.publication));
    let opener = match (was.parse::<Publication>(), is.parse::<Publication>()) {
        (Ok(was), Ok(is)) => !is.is_as_strict_as(&was),
        // What cannot be read is judged by `annotations::check`; here it is another word.
        _ => was != is,
    };
    if opener {
        let what = format!("what is published of it changed from {was:?} to {is:?}");
        add("KOPURO_METHOD_PUBLICATION_NOT_OPENER", what);
    }
}

pub(super) fn service(judge: &mut Judge<'_>, before: &ServiceDescriptor, after: &ServiceDescriptor) {
    let Some(was) = body_of(before) else { return };
    let what = match body_of(after) {
        Some(is) if is == was => return,
        Some(is) => format!("the body that answers for it changed from {was} to {is}"),
        None => format!("the body that answers for it, {was}, was dropped"),
    };
    judge.add("KOPURO_SERVICE_SAME_BODY", &after.parent_file(), after.path(), after.full_name(), what);
}
