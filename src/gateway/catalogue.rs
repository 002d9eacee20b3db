//! What a system may call: `kopuro.catalogue.v1.Catalogue` at the systems' listener.
//!
//! In: the view in force, and the grants that the providers' nodes tell when they are asked on the system's behalf. Out: services,
//! methods, grants and types as the calling system stands to them. A system hears of itself only. A provider's node that does not
//! answer in time is named, and what is known without it is told. Like reflection it is no exchange and makes no entry.
//!
//! Bounds: [`AT_ONCE`] questions at a time, each within the caller's rate; [`ASKED_AT_ONCE`] nodes asked at a time by each; answers
//! are kept for [`KEPT`], [`MOST_KEPT`] of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use prost_reflect::DescriptorPool;
use tokio::sync::Semaphore;
use tonic::{Extensions, Request, Response, Status};

use super::Gateway;
use super::node_grants::{self, to_wire};
use super::refusal::Refusal;
use super::view::View;
use crate::log::entry::Side;
use crate::oversight::subject;
use crate::proto::kopuro::catalogue::v1::catalogue_server::Catalogue;
use crate::proto::kopuro::catalogue::v1::{
    GetTypesRequest, GetTypesResponse, Grant, ListServicesRequest, ListServicesResponse, Member, NotAsked,
    OfferedMethod, OfferedService, Purpose,
};
use crate::schema::annotations::MethodAnnotations;
use crate::schema::{Offer, set_of};
use crate::trust::certificate::PeerIdentity;
use crate::trust::directory;
use crate::trust::identity::{Identity, MemberId, SystemId};

/// Questions answered at once.
const AT_ONCE: usize = 8;
/// Nodes asked at once, by one question.
const ASKED_AT_ONCE: usize = 16;
/// How long all of them together may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a node's answer counts.
const KEPT: Duration = Duration::from_secs(2);
/// The most answers kept.
const MOST_KEPT: usize = 1_024;

/// The service.
#[derive(Clone)]
pub(super) struct CatalogueService {
    gateway: Weak<Gateway>,
    /// Types of the services that nodes themselves answer.
    own: DescriptorPool,
    places: Arc<Semaphore>,
    kept: Arc<Mutex<Kept>>,
}

/// What a system was told by a member's node, and when.
type Kept = HashMap<(SystemId, MemberId), (Instant, Arc<Vec<Grant>>)>;

/// What the providers grant a system, by member; or why that is not known.
type Told = BTreeMap<MemberId, Result<Arc<Vec<Grant>>, String>>;

impl CatalogueService {
    pub(super) fn new(gateway: &Arc<Gateway>, own: DescriptorPool) -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Self { gateway: Arc::downgrade(gateway), own, places, kept: Arc::default() }
    }

    /// The node as it stands, and the system that asks, if it may.
    fn admit(&self, extensions: &Extensions) -> Result<(Arc<Gateway>, Arc<View>, SystemId), Status> {
        let gateway = self.gateway.upgrade().ok_or_else(|| Status::unavailable("the node is going down"))?;
        let view = gateway.view();
        let peer = extensions.get::<Arc<PeerIdentity>>().ok_or_else(|| Status::unauthenticated("no identity"))?;
        let refused = |refusal: &Refusal| refusal.to_status(Side::Consumer);
        let system = match &peer.identity {
            Identity::System(system) if system.member() == &view.member => system.clone(),
            other => {
                let text = "the catalogue is for the member's own systems";
                return Err(refused(&Refusal::wrong_listener(other, text)));
            }
        };
        if !view.directory.has_system(&system) {
            return Err(refused(&Refusal::not_in_directory(&system)));
        }
        gateway.callers.check(&system).map_err(|denial| refused(&Refusal::denied(&denial, &system, SERVICE, "")))?;
        Ok((gateway, view, system))
    }

    /// Asks the members' nodes, those of which the answer is not known.
    async fn ask(&self, gateway: &Gateway, view: &View, system: &SystemId, members: BTreeSet<MemberId>) -> Told {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let questions = members.into_iter().map(|member| async move {
            let asking = tokio::time::timeout_at(deadline, self.ask_one(gateway, view, system, &member));
            let told = asking.await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
            (member, told)
        });
        futures_util::stream::iter(questions).buffer_unordered(ASKED_AT_ONCE).collect().await
    }

    async fn ask_one(
        &self,
        gateway: &Gateway,
        view: &View,
        system: &SystemId,
        member: &MemberId,
    ) -> Result<Arc<Vec<Grant>>, String> {
        if *member == view.member {
            return Ok(Arc::new(view.grants.concerning(system).into_iter().map(to_wire).collect()));
        }
        let key = (system.clone(), member.clone());
        if let Some((when, told)) = self.kept().get(&key)
            && when.elapsed() < KEPT
        {
            return Ok(told.clone());
        }
        let peer = view.peer(member).ok_or("the directory lists no node of this member")?;
        let mut grants = node_grants::list(gateway, peer, system).await?;
        // A node speaks for its own member's grants to this system, whatever it says.
        grants.retain(|grant| {
            let consumer = grant.consumer == system.as_str() || grant.consumer == system.member().as_str();
            consumer && grant.provider.parse::<SystemId>().is_ok_and(|provider| provider.member() == member)
        });
        let told = Arc::new(grants);
        let mut kept = self.kept();
        if kept.len() >= MOST_KEPT {
            kept.retain(|_, (when, _)| when.elapsed() < KEPT);
        }
        if kept.len() < MOST_KEPT {
            kept.insert(key, (Instant::now(), told.clone()));
        }
        Ok(told)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The service's full name.
pub(super) const SERVICE: &str = "kopuro.catalogue.v1.Catalogue";

#[tonic::async_trait]
impl Catalogue for CatalogueService {
    async fn list_services(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        let (gateway, view, system) = self.admit(request.extensions())?;
        let all = request.into_inner().all;
        let full = |_| Refusal::overloaded("questions about the catalogue").to_status(Side::Consumer);
        let _place = self.places.try_acquire().map_err(full)?;
        let offered = offered(&view, &system, all);
        let mut members: BTreeSet<MemberId> = offered.iter().map(|(provider, _)| provider.member().clone()).collect();
        members.insert(view.member.clone());
        if all {
            // Every node may grant services of its own, subject access and openings.
            members.extend(view.directory.nodes.iter().map(|node| node.member.clone()));
        }
        let told = self.ask(&gateway, &view, &system, members).await;

        let mut services: Vec<OfferedService> = Vec::new();
        for (provider, mut service) in offered {
            let granted = told.get(provider.member());
            if let Some(Ok(granted)) = granted {
                let of_this = |grant: &&Grant| grant.service == service.service && grant.provider == service.provider;
                service.grants = granted.iter().filter(of_this).cloned().collect();
            }
            let asked = granted.is_some_and(Result::is_ok);
            if all || !asked || service.grants.iter().any(|grant| concerns(grant, &service.methods)) {
                services.push(service);
            }
        }
        for (member, granted) in &told {
            services.extend(granted.iter().flat_map(|granted| own_services(&view, member, granted)));
        }
        services.sort_by(|a, b| (&a.service, &a.provider).cmp(&(&b.service, &b.provider)));
        let not_asked = told
            .into_iter()
            .filter_map(|(member, told)| Some(NotAsked { member: member.to_string(), reason: told.err()? }));
        Ok(Response::new(ListServicesResponse {
            system: system.to_string(),
            not_asked: not_asked.collect(),
            purposes: match all {
                true => view.directory.purposes.iter().map(registered).collect(),
                false => purposes(&view, &services),
            },
            directory_version: view.directory.version,
            services,
        }))
    }

    async fn get_types(&self, request: Request<GetTypesRequest>) -> Result<Response<GetTypesResponse>, Status> {
        let (_gateway, view, _system) = self.admit(request.extensions())?;
        let GetTypesRequest { service, provider } = request.into_inner();
        let descriptor = match view.catalogue.service(&service) {
            Some(known) => {
                let offer = match (provider.is_empty(), known.offers()) {
                    (true, [only]) => Some(only),
                    (true, _) => return Err(Status::invalid_argument("several systems offer it: name the provider")),
                    (false, offers) => offers.iter().find(|offer| offer.provider.as_str() == provider),
                };
                offer.map(|offer| offer.descriptor.clone())
            }
            None => self.own.get_service_by_name(&service).filter(|_| subject::methods(&service).is_some()),
        };
        let descriptor = descriptor.ok_or_else(|| {
            Status::not_found("the directory lists no such service of this provider, or its types are not known")
        })?;
        Ok(Response::new(GetTypesResponse { descriptors: set_of(&descriptor).into() }))
    }
}

/// The directory's services, as the own outbound list stands to them: all, or those of which it allows something.
fn offered(view: &View, system: &SystemId, all: bool) -> Vec<(SystemId, OfferedService)> {
    let mut offered = Vec::new();
    for service in view.catalogue.services() {
        for offer in service.offers() {
            let methods = methods(view, system, service.name(), offer);
            if all || methods.iter().any(|method| method.outbound) {
                let mut of_provider = about(view, service.name(), &offer.provider);
                of_provider.methods = methods;
                offered.push((offer.provider.clone(), of_provider));
            }
        }
    }
    offered
}

fn methods(view: &View, system: &SystemId, service: &str, offer: &Offer) -> Vec<OfferedMethod> {
    let methods = offer.descriptor.methods().map(|method| {
        let rule = view.outbound.decide(system, &offer.provider, service, method.name()).ok();
        OfferedMethod {
            name: method.name().to_owned(),
            outbound: rule.is_some(),
            purpose: rule.and_then(|rule| rule.purpose.clone()).unwrap_or_default(),
            publication: rule.map(|rule| rule.publication.unwrap_or_default().to_string()).unwrap_or_default(),
        }
    });
    methods.collect()
}

/// A service of one provider, without its methods.
fn about(view: &View, service: &str, provider: &SystemId) -> OfferedService {
    let listed = view.directory.offers_of(service).iter().find(|listed| listed.provider == *provider);
    let member = view.directory.member(provider.member()).map(|member| Member {
        id: member.id.to_string(),
        name_ky: member.name_ky.clone(),
        name_ru: member.name_ru.clone(),
        name_en: member.name_en.clone(),
    });
    OfferedService {
        service: service.to_owned(),
        provider: provider.to_string(),
        member,
        schema: listed.map(|listed| listed.descriptors.to_vec().into()).unwrap_or_default(),
        several: view.directory.offers_of(service).len() > 1,
        ..OfferedService::default()
    }
}

/// Services of a member's node itself that it grants the system: they stand in no directory and need no outbound rule.
fn own_services(view: &View, member: &MemberId, granted: &[Grant]) -> Vec<OfferedService> {
    let Ok(provider) = member.system(subject::PROVIDER) else { return Vec::new() };
    let of_node = |service: &'static str| {
        let grants: Vec<Grant> = granted.iter().filter(|grant| grant.service == service).cloned().collect();
        let mut of_provider = about(view, service, &provider);
        let names = subject::methods(service).unwrap_or_default();
        let method =
            |name: &&str| OfferedMethod { name: (*name).to_owned(), outbound: true, ..OfferedMethod::default() };
        of_provider.methods = names.iter().map(method).collect();
        (of_provider.grants, of_provider.of_node) = (grants, true);
        (!of_provider.grants.is_empty()).then_some(of_provider)
    };
    [subject::SERVICE, subject::OPENINGS].into_iter().filter_map(of_node).collect()
}

/// Whether a grant is of one of the methods that the outbound list allows.
fn concerns(grant: &Grant, methods: &[OfferedMethod]) -> bool {
    let granted = |name: &String| grant.methods.iter().any(|method| method == "*" || method == name);
    methods.iter().any(|method| method.outbound && granted(&method.name))
}

/// The legal bases that are named, as the directory registers them.
fn purposes(view: &View, services: &[OfferedService]) -> Vec<Purpose> {
    let mut codes: BTreeSet<String> = BTreeSet::new();
    for service in services {
        codes.extend(service.grants.iter().map(|grant| grant.legal_basis.clone()));
        codes.extend(service.methods.iter().map(|method| method.purpose.clone()));
        let provider = service.provider.parse::<SystemId>().ok();
        let offer = view.catalogue.service(&service.service);
        let offer = offer.zip(provider.as_ref()).and_then(|(known, provider)| known.offer(provider));
        let methods = offer.into_iter().flat_map(|offer| offer.descriptor.methods().collect::<Vec<_>>());
        codes.extend(methods.flat_map(|method| MethodAnnotations::of(&method).purposes));
    }
    codes.into_iter().filter_map(|code| view.directory.purpose(&code)).map(registered).collect()
}

fn registered(purpose: &directory::Purpose) -> Purpose {
    Purpose {
        code: purpose.code.clone(),
        law: purpose.law.clone(),
        text_ky: purpose.ky.clone(),
        text_ru: purpose.ru.clone(),
        text_en: purpose.en.clone(),
    }
}
