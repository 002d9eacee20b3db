//! A new version of some types against what there is: a set, or all that a directory has of the same packages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost_reflect::DescriptorPool;

use super::register::Register;
use super::report::{self, Finding};
use super::source::{self, Source};
use crate::schema::breaking::{Break, breaking};
use crate::schema::extract;
use crate::trust::identity::SystemId;

/// What `new` breaks of what is at `path`.
pub(super) fn path(
    path: &Path,
    new: &source::Types,
    services: &[String],
    provider: Option<&SystemId>,
    includes: &[std::path::PathBuf],
) -> anyhow::Result<Vec<Finding>> {
    if Register::is_at(path) {
        return register(&Register::open(path)?, new, services, provider);
    }
    let old = Source { sets: vec![path.to_owned()], includes: includes.to_owned() };
    match source::read(&old)? {
        Ok(old) => Ok(report::breaks(breaking(&old.pool, &new.pool), Some(&path.display().to_string()))),
        Err(faults) => {
            let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
            anyhow::bail!("{}: {}", path.display(), words.join("; "))
        }
    }
}

/// What `services` of `new` break of what a register has: of these services, whoever offers them, and of others of the
/// same packages.
///
/// Two providers may be one version apart in either direction: of another provider's version buf's rules count only if
/// neither can be the newer one. What is annotated counts in any case: it must not depend on who is asked. Without
/// `provider` every offer is taken for an older version of this one.
pub(super) fn register(
    register: &Register,
    new: &source::Types,
    services: &[String],
    provider: Option<&SystemId>,
) -> anyhow::Result<Vec<Finding>> {
    let packages: BTreeSet<&str> = services.iter().map(|name| package(name)).collect();
    // One comparison for each set, however many services name it.
    let mut sets: BTreeMap<[u8; 32], Offers<'_>> = BTreeMap::new();
    for offer in &register.directory.services {
        if packages.contains(package(&offer.name)) {
            let offers = sets.entry(offer.descriptors).or_default();
            let list = if services.contains(&offer.name) { &mut offers.same } else { &mut offers.others };
            list.insert(&offer.name);
            offers.providers.insert(&offer.provider);
        }
    }
    let mut findings = Vec::new();
    for (key, offers) in sets {
        let partly = offers.same.is_empty();
        let theirs: Vec<&str> = if partly { &offers.others } else { &offers.same }.iter().copied().collect();
        let touched = |name: &&str| theirs.iter().any(|their| package(their) == package(name));
        let ours: Vec<&str> = services.iter().map(String::as_str).filter(touched).collect();
        let (bytes, _) = register.pool(&key)?;
        let (old, new) = (read_part(&bytes, &theirs)?, read_part(&new.bytes, &ours)?);

        let mut found = breaking(&old, &new);
        let is_ours = provider.is_none_or(|provider| offers.providers.contains(provider));
        if !is_ours && breaking(&new, &old).list.iter().all(Break::is_annotation) {
            found.list.retain(Break::is_annotation);
        }
        if partly {
            // Another part of the package: what it defines alone was not deleted.
            found.list.retain(|found| !found.rule.starts_with("PACKAGE_"));
        }
        let whose: Vec<&str> = offers.providers.iter().map(|provider| provider.as_str()).collect();
        let name = format!("{} of {} ({})", theirs.join(", "), whose.join(", "), &hex::encode(key)[..12]);
        findings.extend(report::breaks(found, Some(&name)));
    }
    Ok(findings)
}

#[derive(Default)]
struct Offers<'a> {
    same: BTreeSet<&'a str>,
    others: BTreeSet<&'a str>,
    providers: BTreeSet<&'a SystemId>,
}

fn read_part(set: &[u8], services: &[&str]) -> anyhow::Result<DescriptorPool> {
    source::read_set(&extract(set, services)?, &services.join(", "))
}

/// `kg.civil.v1` of `kg.civil.v1.CivilRegistry`.
pub(super) fn package(service: &str) -> &str {
    service.rsplit_once('.').map_or("", |(package, _)| package)
}
