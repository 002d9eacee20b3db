//! The catalogue: every service of the directory, its providers and its methods.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};

use super::annotations::{self, MethodAnnotations};
use super::http::{Route, Routes, Rule};
use super::plan::{Allow, Plan, PlanError, PlanOptions};
use super::{MethodPlans, SchemaError, digest, set};
use crate::policy::{Publication, UnknownFields};
use crate::trust::directory::{self, Directory};
use crate::trust::identity::SystemId;

/// What the directory says of one service of one system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOffer {
    /// Full name, `kg.civil.v1.CivilRegistry`.
    pub service: String,
    /// The system that offers it.
    pub provider: SystemId,
    /// SHA-256 of its descriptor set.
    pub descriptors: [u8; 32],
}

impl From<&directory::Service> for ServiceOffer {
    fn from(listed: &directory::Service) -> Self {
        Self { service: listed.name.clone(), provider: listed.provider.clone(), descriptors: listed.descriptors }
    }
}

/// Every service of the directory whose types are known. Built once per directory and then only read.
#[derive(Debug, Default)]
pub struct Catalogue {
    services: HashMap<Box<str>, Arc<Service>>,
    routes: Routes,
    problems: Vec<SchemaError>,
}

/// A service and who offers it.
#[derive(Debug, Clone)]
pub struct Service {
    name: Arc<str>,
    offers: Vec<Offer>,
    methods: HashMap<Box<str>, Arc<Method>>,
}

/// One system's version of a service.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The system that offers it.
    pub provider: SystemId,
    /// The service in this system's descriptor set.
    pub descriptor: ServiceDescriptor,
    methods: HashMap<Box<str>, Arc<Method>>,
}

/// A method of a service.
#[derive(Debug)]
pub struct Method {
    /// The gRPC path, `/kg.civil.v1.CivilRegistry/GetPerson`.
    pub path: Box<str>,
    /// Whether the caller sends a stream.
    pub client_streaming: bool,
    /// Whether the provider answers with a stream.
    pub server_streaming: bool,
    /// The types of request and response.
    pub descriptor: MethodDescriptor,
    /// What its author says of it.
    pub annotations: MethodAnnotations,
    /// SHA-256 of the descriptor set that it is from.
    pub schema: [u8; 32],
    /// Compiled when it is first asked for.
    open: OnceLock<Result<Arc<MethodPlans>, PlanError>>,
}

impl Catalogue {
    /// Builds the catalogue of `offers` from descriptor sets by SHA-256. What cannot be used is in
    /// [`Catalogue::problems`], and only that is missing. Decoding takes some 6 ms per distinct set.
    pub fn new(offers: impl IntoIterator<Item = ServiceOffer>, sets: &HashMap<[u8; 32], Bytes>) -> Self {
        let mut catalogue = Builder { sets, pools: HashMap::new(), services: HashMap::new(), problems: Vec::new() };
        for offer in offers {
            for problem in catalogue.add(&offer).err().unwrap_or_default() {
                // A bad set is one problem, however many services name it.
                if !catalogue.problems.contains(&problem) {
                    catalogue.problems.push(problem);
                }
            }
        }
        let services: HashMap<_, _> =
            catalogue.services.into_iter().map(|(name, service)| (name, Arc::new(service))).collect();
        let mut problems = catalogue.problems;
        let routes = routes(services.values(), &mut problems);
        Self { services, routes, problems }
    }

    /// For services of the directory whose types are missing here, those that were known before: a mistake in a new set must not
    /// take away what worked. Which ones.
    pub fn keep(&mut self, previous: &Self, listed: &[directory::Service]) -> Vec<(String, SystemId)> {
        let mut kept = Vec::new();
        for directory::Service { name, provider, .. } in listed {
            let known = self.services.get(name.as_str());
            if known.is_some_and(|service| service.offer(provider).is_some()) {
                continue;
            }
            let Some(offer) = previous.service(name).and_then(|service| service.offer(provider)) else { continue };
            let mut service = match known {
                Some(known) if check_against(known, provider, &offer.methods).is_err() => continue,
                Some(known) => Service::clone(known),
                None => Service { name: name.as_str().into(), offers: Vec::new(), methods: HashMap::new() },
            };
            for (name, method) in &offer.methods {
                service.methods.entry(name.clone()).or_insert_with(|| method.clone());
            }
            service.offers.push(offer.clone());
            self.services.insert(name.as_str().into(), Arc::new(service));
            kept.push((name.clone(), provider.clone()));
        }
        if !kept.is_empty() {
            // What is wrong with a rule has been told of the set that it came with.
            self.routes = routes(self.services.values(), &mut Vec::new());
        }
        kept
    }

    /// The catalogue of a directory.
    pub fn of(directory: &Directory, sets: &HashMap<[u8; 32], Bytes>) -> Self {
        Self::new(directory.services.iter().map(ServiceOffer::from), sets)
    }

    /// A method of a service, whoever offers it: where several do, the first in the directory that has it. All agree
    /// on how it streams. Does not allocate.
    pub fn method(&self, service: &str, method: &str) -> Option<&Arc<Method>> {
        self.services.get(service)?.methods.get(method)
    }

    /// A method as one system defines it. Does not allocate.
    pub fn method_of(&self, provider: &SystemId, service: &str, method: &str) -> Option<&Arc<Method>> {
        self.services.get(service)?.offer(provider)?.method(method)
    }

    /// A service by its full name.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// All services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The HTTP requests that stand for methods, by `google.api.http`.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What of the directory is left out, and why.
    pub fn problems(&self) -> &[SchemaError] {
        &self.problems
    }
}

impl Service {
    /// Full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who offers it, in the directory's order; never empty.
    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }

    /// One system's version.
    pub fn offer(&self, provider: &SystemId) -> Option<&Offer> {
        self.offers.iter().find(|offer| offer.provider == *provider)
    }

    /// The names of its methods.
    pub fn method_names(&self) -> impl Iterator<Item = &str> {
        self.methods.keys().map(|name| &**name)
    }
}

impl Offer {
    /// A method of this version.
    pub fn method(&self, name: &str) -> Option<&Arc<Method>> {
        self.methods.get(name)
    }

    /// All methods of this version, in no particular order.
    pub fn methods(&self) -> impl Iterator<Item = &Arc<Method>> {
        self.methods.values()
    }

    /// Every type of this system's descriptor set.
    pub fn pool(&self) -> &DescriptorPool {
        self.descriptor.parent_pool()
    }
}

impl Method {
    fn new(descriptor: MethodDescriptor, schema: [u8; 32]) -> Self {
        Self {
            schema,
            open: OnceLock::new(),
            path: format!("/{}/{}", descriptor.parent_service().full_name(), descriptor.name()).into(),
            client_streaming: descriptor.is_client_streaming(),
            server_streaming: descriptor.is_server_streaming(),
            annotations: MethodAnnotations::of(&descriptor),
            descriptor,
        }
    }

    /// The plans by which a consumer's node judges its messages, compiled once.
    pub fn open_plans(&self) -> Result<&Arc<MethodPlans>, &PlanError> {
        self.open.get_or_init(|| MethodPlans::open(&self.descriptor).map(Arc::new)).as_ref()
    }

    /// Whether its author lets it be called on this legal basis.
    pub fn is_for(&self, purpose: &str) -> bool {
        self.annotations.purposes.is_empty() || self.annotations.purposes.iter().any(|code| code == purpose)
    }

    /// What of its exchanges is published, and when: as a grant or an outbound rule says, else as its author does, else
    /// everything at once.
    pub fn publication(&self, said: Option<Publication>) -> Publication {
        let annotated = || self.annotations.publication.as_deref().and_then(|class| class.parse().ok());
        said.or_else(annotated).unwrap_or_default()
    }

    /// Whether one message goes and one comes back.
    pub fn is_unary(&self) -> bool {
        !self.client_streaming && !self.server_streaming
    }
}

struct Builder<'a> {
    sets: &'a HashMap<[u8; 32], Bytes>,
    pools: HashMap<[u8; 32], Result<DescriptorPool, SchemaError>>,
    services: HashMap<Box<str>, Service>,
    problems: Vec<SchemaError>,
}

impl Builder<'_> {
    fn add(&mut self, offered: &ServiceOffer) -> Result<(), Vec<SchemaError>> {
        let (service, provider) = (&offered.service, &offered.provider);
        let Some(bytes) = self.sets.get(&offered.descriptors) else {
            return Err(vec![SchemaError::MissingSet {
                service: service.clone(),
                provider: provider.clone(),
                digest: hex::encode(offered.descriptors),
            }]);
        };
        let pool = self.pools.entry(offered.descriptors).or_insert_with(|| decode(&offered.descriptors, bytes)).clone();
        let Some(descriptor) = pool.map_err(|error| vec![error])?.get_service_by_name(service) else {
            return Err(vec![SchemaError::ServiceAbsent {
                service: service.clone(),
                provider: provider.clone(),
                digest: hex::encode(offered.descriptors),
            }]);
        };
        let problems = check_service(&descriptor, provider);
        if !problems.is_empty() {
            return Err(problems);
        }
        let methods: HashMap<Box<str>, Arc<Method>> = descriptor
            .methods()
            .map(|method| (method.name().into(), Arc::new(Method::new(method, offered.descriptors))))
            .collect();

        if let Some(known) = self.services.get(service.as_str()) {
            check_against(known, provider, &methods).map_err(|error| vec![error])?;
        }
        let entry = self.services.entry(service.as_str().into()).or_insert_with(|| Service {
            name: service.as_str().into(),
            offers: Vec::new(),
            methods: HashMap::new(),
        });
        for (name, method) in &methods {
            entry.methods.entry(name.clone()).or_insert_with(|| method.clone());
        }
        entry.offers.push(Offer { provider: provider.clone(), descriptor, methods });
        Ok(())
    }
}

fn routes<'a>(services: impl Iterator<Item = &'a Arc<Service>>, problems: &mut Vec<SchemaError>) -> Routes {
    let mut routes = Routes::default();
    for service in services {
        for offer in &service.offers {
            for method in offer.methods.values() {
                match Rule::of(&method.descriptor) {
                    Ok(rules) => {
                        for rule in rules {
                            let (provider, method) = (offer.provider.clone(), method.clone());
                            routes.add(Route { provider, method, rule: Arc::new(rule) });
                        }
                    }
                    Err(reason) => problems.push(SchemaError::HttpRule {
                        service: service.name.to_string(),
                        method: method.descriptor.name().to_owned(),
                        provider: offer.provider.clone(),
                        reason: Box::new(reason),
                    }),
                }
            }
        }
    }
    routes
}

fn decode(expected: &[u8; 32], bytes: &Bytes) -> Result<DescriptorPool, SchemaError> {
    let found = digest(bytes);
    if found != *expected {
        return Err(SchemaError::DigestMismatch { expected: hex::encode(expected), found: hex::encode(found) });
    }
    set::read(bytes)
        .map_err(|faults| SchemaError::BadSet { digest: hex::encode(expected), reason: set::words(&faults) })
}

/// What is wrong with a service's types: its annotations, and rules, masks or limits for which no plan can be made. A service
/// whose types cannot be held to is not served.
pub fn check_service(service: &ServiceDescriptor, provider: &SystemId) -> Vec<SchemaError> {
    let name = || service.full_name().to_owned();
    let annotated = annotations::check(service).into_iter().map(|error| SchemaError::Annotation {
        service: name(),
        provider: provider.clone(),
        error: Box::new(error),
    });
    let mut problems: Vec<SchemaError> = annotated.collect();
    if !problems.is_empty() {
        return problems;
    }
    for method in service.methods() {
        let options = |rules| PlanOptions { allow: Allow::Everything, unknown: UnknownFields::Refuse, rules };
        for (message, rules) in [(method.input(), true), (method.output(), false)] {
            if let Err(error) = Plan::compile(&message, &options(rules)) {
                let (method, provider, error) = (method.name().to_owned(), provider.clone(), Box::new(error));
                problems.push(SchemaError::Plan { service: name(), method, provider, error });
            }
        }
    }
    problems
}

/// A further provider must stream every method it shares with the earlier ones as they do.
fn check_against(
    known: &Service,
    provider: &SystemId,
    methods: &HashMap<Box<str>, Arc<Method>>,
) -> Result<(), SchemaError> {
    if known.offer(provider).is_some() {
        return Err(SchemaError::OfferedTwice { service: known.name.to_string(), provider: provider.clone() });
    }
    for (name, method) in methods {
        let kind = (method.client_streaming, method.server_streaming);
        let differs = |other: &Method| (other.client_streaming, other.server_streaming) != kind;
        if let Some(other) = known.offers.iter().find(|o| o.method(name).is_some_and(|m| differs(m))) {
            return Err(SchemaError::KindsDiffer {
                service: known.name.to_string(),
                method: name.to_string(),
                provider: provider.clone(),
                other: other.provider.clone(),
            });
        }
    }
    Ok(())
}
