//! The catalogue: every service of the directory, its providers and its methods.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};

use super::{SchemaError, digest, editions};
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
    problems: Vec<SchemaError>,
}

/// A service and who offers it.
#[derive(Debug)]
pub struct Service {
    name: Arc<str>,
    offers: Vec<Offer>,
    methods: HashMap<Box<str>, Arc<Method>>,
}

/// One system's version of a service.
#[derive(Debug)]
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
}

impl Catalogue {
    /// Builds the catalogue of `offers` from descriptor sets by SHA-256. What cannot be used is in
    /// [`Catalogue::problems`], and only that is missing. Decoding takes some 6 ms per distinct set.
    pub fn new(offers: impl IntoIterator<Item = ServiceOffer>, sets: &HashMap<[u8; 32], Bytes>) -> Self {
        let mut catalogue = Builder { sets, pools: HashMap::new(), services: HashMap::new(), problems: Vec::new() };
        for offer in offers {
            if let Err(problem) = catalogue.add(&offer) {
                // A bad set is one problem, however many services name it.
                if !catalogue.problems.contains(&problem) {
                    catalogue.problems.push(problem);
                }
            }
        }
        let services = catalogue.services.into_iter().map(|(name, service)| (name, Arc::new(service))).collect();
        Self { services, problems: catalogue.problems }
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

    /// Every type of this system's descriptor set.
    pub fn pool(&self) -> &DescriptorPool {
        self.descriptor.parent_pool()
    }
}

impl Method {
    fn new(descriptor: MethodDescriptor) -> Self {
        Self {
            path: format!("/{}/{}", descriptor.parent_service().full_name(), descriptor.name()).into(),
            client_streaming: descriptor.is_client_streaming(),
            server_streaming: descriptor.is_server_streaming(),
            descriptor,
        }
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
    fn add(&mut self, offered: &ServiceOffer) -> Result<(), SchemaError> {
        let (service, provider) = (&offered.service, &offered.provider);
        let Some(bytes) = self.sets.get(&offered.descriptors) else {
            return Err(SchemaError::MissingSet {
                service: service.clone(),
                provider: provider.clone(),
                digest: hex::encode(offered.descriptors),
            });
        };
        let pool =
            self.pools.entry(offered.descriptors).or_insert_with(|| decode(&offered.descriptors, bytes)).clone()?;
        let Some(descriptor) = pool.get_service_by_name(service) else {
            return Err(SchemaError::ServiceAbsent {
                service: service.clone(),
                provider: provider.clone(),
                digest: hex::encode(offered.descriptors),
            });
        };
        let methods: HashMap<Box<str>, Arc<Method>> =
            descriptor.methods().map(|method| (method.name().into(), Arc::new(Method::new(method)))).collect();

        if let Some(known) = self.services.get(service.as_str()) {
            check_against(known, provider, &methods)?;
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

fn decode(expected: &[u8; 32], bytes: &Bytes) -> Result<DescriptorPool, SchemaError> {
    let found = digest(bytes);
    if found != *expected {
        return Err(SchemaError::DigestMismatch { expected: hex::encode(expected), found: hex::encode(found) });
    }
    editions::pool(bytes)
        .map_err(|error| SchemaError::BadSet { digest: hex::encode(expected), reason: error.to_string() })
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
