//! Own files compared with the directory in force and the services' types.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use bytes::Bytes;

use super::descriptors;
use crate::config::document::{Problem, Severity, Step};
use crate::config::grants::Placed;
use crate::config::{NodeConfig, Protocol};
use crate::oversight::subject;
use crate::policy::{Consumer, Grant, Methods, Providers, Rule};
use crate::schema::set::MAX_BYTES;
use crate::schema::{Catalogue, ServiceOffer};
use crate::trust::directory::Directory;
use crate::trust::identity::{MemberId, SystemId};
use crate::trust::note::Verifier;

/// This node must be in the directory, with a log key that it has: the others do not take what no listed key signed.
pub(super) fn check_this_node(
    config: &NodeConfig,
    directory: &Directory,
    log_keys: &[Verifier],
    problems: &mut Vec<Problem>,
) {
    let Some(node) = directory.node(&config.node.member, &config.node.name) else {
        let what = format!("directory version {} does not list {}", directory.version, config.identity());
        let remedy = "correct node.member or node.name, or have the council list this node";
        problems.push(config.problem(&[Step::Key("node"), Step::Key("name")], what, remedy));
        return;
    };
    let listed = node.log_keys();
    let version = directory.version;
    if !log_keys.is_empty() && !log_keys.iter().any(|key| listed.contains(key)) {
        let [own, theirs] = [log_keys, &listed].map(|keys| keys.iter().map(ToString::to_string).collect::<Vec<_>>());
        let what = format!(
            "its public key is {}, and directory version {version} has {}",
            own.join(" and "),
            theirs.join(" and ")
        );
        let remedy = "use the key that belongs to the listed one, or have the council list this one";
        problems.push(config.problem(&[Step::Key("log"), Step::Key("key")], what, remedy));
        return;
    }
    for (key, field) in log_keys.iter().zip(["key", "next_key"]).filter(|(key, _)| !listed.contains(key)) {
        let what = format!("directory version {version} does not list {key}, by which the log signs too");
        let remedy = match field {
            "key" => "put the listed one, next_key's, in its place, once nobody goes by an older directory",
            _ => "have the council list it (log_key, with the old one in more_log_keys)",
        };
        let problem = config.problem(&[Step::Key("log"), Step::Key(field)], what, remedy);
        problems.push(problem.with(Severity::Notice));
    }
}

/// The types of all services of the directory whose descriptor sets are there.
/// Of a service whose set cannot be used, a running node goes on with the types that it had.
pub(super) fn read_catalogue(
    config: &NodeConfig,
    directory: &Directory,
    fetched: &Path,
    previous: Option<&Catalogue>,
    problems: &mut Vec<Problem>,
) -> Catalogue {
    let field = [Step::Key("directory"), Step::Key("descriptors")];
    let folder = &config.directory.descriptors;
    let mut sets: HashMap<[u8; 32], Bytes> = HashMap::new();
    for digest in directory.services.iter().map(|service| service.descriptors).collect::<BTreeSet<_>>() {
        let file = descriptors::find(config, fetched, &digest);
        // One that is not there is the catalogue's to tell.
        let Ok(size) = std::fs::metadata(&file).map(|metadata| metadata.len()) else { continue };
        let bytes = if size > MAX_BYTES as u64 {
            Err(format!("has {size} bytes, more than {MAX_BYTES}"))
        } else {
            std::fs::read(&file).map_err(|error| format!("cannot be read: {error}"))
        };
        match bytes {
            Ok(bytes) => drop(sets.insert(digest, bytes.into())),
            Err(what) => {
                let what = format!("{} {what}", file.display());
                problems.push(config.problem(&field, what, "fetch it again").with(Severity::Mismatch));
            }
        }
    }
    let mut catalogue = Catalogue::new(directory.services.iter().map(ServiceOffer::from), &sets);
    for problem in catalogue.problems() {
        problems.push(config.problem(&field, problem.to_string(), problem.remedy(folder)).with(Severity::Mismatch));
    }
    if let Some(previous) = previous {
        for (service, provider) in catalogue.keep(previous, &directory.services) {
            let what = format!("{service} of {provider}: the types that the node had stay in force");
            let remedy = "bring in the set that the directory names";
            problems.push(config.problem(&field, what, remedy).with(Severity::Notice));
        }
    }
    catalogue
}

/// What the federation knows.
pub(super) struct Facts<'a> {
    pub(super) directory: &'a Directory,
    pub(super) catalogue: &'a Catalogue,
}

/// A service of the node's own: the provider is the node itself, the methods are known.
fn check_own_service(placed: &Placed<Grant>, methods: &[&str], problems: &mut Vec<Problem>) {
    let grant = &placed.value;
    if grant.provider.name() != subject::PROVIDER {
        let what = format!("{} is the node's own service, not one of {}", grant.service, grant.provider);
        let remedy = format!("write provider = {:?}", subject::PROVIDER);
        problems.push(placed.mismatch("provider", what, &remedy));
    }
    if let Methods::Named(names) = &grant.methods {
        for name in names.iter().filter(|name| !methods.contains(&name.as_str())) {
            let what = format!("{} has no method {name}", grant.service);
            problems.push(placed.mismatch("methods", what, "correct its name, or remove it"));
        }
    }
}

impl Facts<'_> {
    /// Grants to unknown parties, for unknown services and methods.
    pub(super) fn check_grants(&self, grants: &[Placed<Grant>], problems: &mut Vec<Problem>) {
        for placed in grants {
            let grant = &placed.value;
            match &grant.consumer {
                Consumer::System(system) => self.check_system(placed, "consumer", system, problems),
                Consumer::Member(member) => self.check_member(placed, "consumer", member, problems),
            }
            if let Some(methods) = subject::methods(&grant.service) {
                check_own_service(placed, methods, problems);
                continue;
            }
            self.check_system(placed, "provider", &grant.provider, problems);
            if !self.directory.providers_of(&grant.service).contains(&&grant.provider) {
                let what = format!("{} does not provide {}", grant.provider, grant.service);
                problems.push(placed.mismatch("service", what, "correct it, or have the council list the service"));
            } else {
                let providers = Providers::System(grant.provider.clone());
                self.check_methods(placed, &providers, &grant.service, &grant.methods, problems);
            }
        }
    }

    /// Outbound rules for unknown systems, providers, services and methods.
    pub(super) fn check_outbound(&self, rules: &[Placed<Rule>], problems: &mut Vec<Problem>) {
        for placed in rules {
            let rule = &placed.value;
            self.check_system(placed, "system", &rule.system, problems);
            match &rule.providers {
                Providers::Any => {}
                Providers::Member(member) => self.check_member(placed, "provider", member, problems),
                Providers::System(system) => self.check_system(placed, "provider", system, problems),
            }
            let Some(service) = &rule.service else { continue };
            if !self.directory.providers_of(service).iter().any(|provider| rule.providers.contains(provider)) {
                let what = format!("no such provider offers {service}");
                problems.push(placed.mismatch("service", what, "correct it, or remove the rule"));
            } else {
                self.check_methods(placed, &rule.providers, service, &rule.methods, problems);
            }
        }
    }

    /// A back-end for each system of this member that provides something, and none for others.
    pub(super) fn check_backends(&self, config: &NodeConfig, problems: &mut Vec<Problem>) {
        self.check_http_json(config, problems);
        let own = self.directory.services.iter().map(|service| &service.provider);
        let providing: BTreeSet<&str> =
            own.filter(|provider| *provider.member() == config.node.member).map(SystemId::name).collect();
        for name in &providing {
            if !config.backends.contains_key(*name) {
                let what =
                    format!("the directory lists services of {}/{name}, and there is no back-end", config.node.member);
                let remedy = format!("add [backends.{name}] with its endpoint");
                problems.push(config.problem(&[Step::Key("backends")], what, remedy).with(Severity::Mismatch));
            }
        }
        for name in config.backends.keys().filter(|name| !providing.contains(name.as_str())) {
            let what = format!("the directory lists no service of {}/{name}", config.node.member);
            let problem = config.problem(
                &[Step::Key("backends"), Step::Key(name)],
                what,
                "correct the name, remove it, or have the council list its services",
            );
            problems.push(problem.with(Severity::Mismatch));
        }
    }

    /// A back-end that speaks HTTP and JSON takes no stream of requests.
    fn check_http_json(&self, config: &NodeConfig, problems: &mut Vec<Problem>) {
        let backends = config.backends.iter().filter(|(_, backend)| backend.protocol == Protocol::HttpJson);
        for (name, _) in backends {
            let Ok(system) = config.node.member.system(name) else { continue };
            let offers = self.catalogue.services().filter_map(|service| service.offer(&system));
            let methods = offers.flat_map(|offer| offer.descriptor.methods());
            let mut streamed: Vec<String> = methods
                .filter(prost_reflect::MethodDescriptor::is_client_streaming)
                .map(|method| method.full_name().to_owned())
                .collect();
            streamed.sort();
            if !streamed.is_empty() {
                let field = [Step::Key("backends"), Step::Key(name), Step::Key("protocol")];
                let what = format!("http-json carries no stream of requests, and {} has one", streamed.join(", "));
                let remedy = "serve gRPC, or have these methods offered by another system";
                problems.push(config.problem(&field, what, remedy).with(Severity::Mismatch));
            }
        }
    }

    fn check_system<T>(&self, placed: &Placed<T>, field: &str, system: &SystemId, problems: &mut Vec<Problem>) {
        if !self.directory.has_system(system) {
            let what = format!("the directory does not list the system {system}");
            problems.push(placed.mismatch(field, what, "correct it, or have the council list the system"));
        }
    }

    fn check_member<T>(&self, placed: &Placed<T>, field: &str, member: &MemberId, problems: &mut Vec<Problem>) {
        if self.directory.member(member).is_none() {
            let what = format!("the directory does not list the member {member}");
            problems.push(placed.mismatch(field, what, "correct it, or have the council list the member"));
        }
    }

    /// Named methods must be among those of a provider whose types are known.
    fn check_methods<T>(
        &self,
        placed: &Placed<T>,
        providers: &Providers,
        service: &str,
        methods: &Methods,
        problems: &mut Vec<Problem>,
    ) {
        let Methods::Named(names) = methods else { return };
        let Some(known) = self.catalogue.service(service) else { return };
        let offers: Vec<_> = known.offers().iter().filter(|offer| providers.contains(&offer.provider)).collect();
        for name in names {
            if !offers.is_empty() && !offers.iter().any(|offer| offer.method(name).is_some()) {
                let what = format!("{service} has no method {name}");
                problems.push(placed.mismatch("methods", what, "correct its name, or remove it"));
            }
        }
    }
}
