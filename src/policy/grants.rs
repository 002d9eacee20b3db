//! The grants of one member, and the decision.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::Denial;
use super::grant::{Consumer, Grant, Methods, Rate};
use crate::trust::identity::{MemberId, SystemId};

/// A member's grants, by service and consumer.
///
/// Of several grants that allow a call on the same legal basis, those to the system come before those to its member,
/// then in the order of the files; the first whose rate is not used up is the one.
#[derive(Debug, Default)]
pub struct Grants {
    services: HashMap<String, ServiceGrants>,
    count: usize,
}

#[derive(Debug, Default)]
struct ServiceGrants {
    by_system: HashMap<SystemId, Vec<Held>>,
    by_member: HashMap<MemberId, Vec<Held>>,
}

/// A grant and what it has left.
#[derive(Debug)]
struct Held {
    /// Its place among the grants as they were given.
    number: usize,
    grant: Grant,
    limiter: Option<Arc<DefaultDirectRateLimiter>>,
}

impl Grants {
    /// Grants with fresh rate limits.
    pub fn new(grants: Vec<Grant>) -> Self {
        Self::default().succeeded_by(grants)
    }

    /// New grants in the place of these; a grant that is in both keeps what its rate limit has counted.
    pub fn succeeded_by(&self, grants: Vec<Grant>) -> Self {
        let kept: HashMap<&Grant, &Arc<DefaultDirectRateLimiter>> =
            self.held().filter_map(|held| Some((&held.grant, held.limiter.as_ref()?))).collect();
        let count = grants.len();
        let mut services: HashMap<String, ServiceGrants> = HashMap::new();
        for (number, grant) in grants.into_iter().enumerate() {
            let limiter = match kept.get(&grant) {
                Some(limiter) => Some(Arc::clone(limiter)),
                None => grant.rate.map(|rate| Arc::new(limiter(rate))),
            };
            let service = services.entry(grant.service.clone()).or_default();
            let list = match &grant.consumer {
                Consumer::System(system) => service.by_system.entry(system.clone()).or_default(),
                Consumer::Member(member) => service.by_member.entry(member.clone()).or_default(),
            };
            list.push(Held { number, grant, limiter });
        }
        Self { services, count }
    }

    /// The grant that allows this call now, or why none does. Counts against the grant's rate.
    ///
    /// With a purpose, only grants on that legal basis are looked at; without one, those valid now must agree on one.
    pub fn decide(
        &self,
        consumer: &SystemId,
        provider: &SystemId,
        service: &str,
        method: &str,
        purpose: Option<&str>,
        now_unix_ms: i64,
    ) -> Result<&Grant, Denial> {
        self.decide_numbered(consumer, provider, service, method, purpose, now_unix_ms).map(|(_, grant)| grant)
    }

    /// The same, with the grant's number: its place among those that [`Grants::iter_numbered`] gives.
    pub fn decide_numbered(
        &self,
        consumer: &SystemId,
        provider: &SystemId,
        service: &str,
        method: &str,
        purpose: Option<&str>,
        now_unix_ms: i64,
    ) -> Result<(usize, &Grant), Denial> {
        let given: Vec<&Held> =
            self.for_consumer(consumer, service).filter(|held| held.grant.provider == *provider).collect();
        if given.is_empty() {
            return Err(Denial::NoGrant);
        }
        let mut fitting: Vec<&Held> = given.into_iter().filter(|held| held.grant.methods.contains(method)).collect();
        if fitting.is_empty() {
            return Err(Denial::MethodNotGranted);
        }
        if let Some(purpose) = purpose {
            fitting.retain(|held| held.grant.legal_basis.code == purpose);
            if fitting.is_empty() {
                return Err(Denial::PurposeNotAllowed);
            }
        }
        let valid: Vec<&Held> = fitting.iter().copied().filter(|held| held.grant.is_valid_at(now_unix_ms)).collect();
        let Some(first) = valid.first() else { return Err(out_of_time(&fitting, now_unix_ms)) };
        if valid.iter().any(|held| held.grant.legal_basis.code != first.grant.legal_basis.code) {
            let mut possible: Vec<String> = valid.iter().map(|held| held.grant.legal_basis.code.clone()).collect();
            possible.sort();
            possible.dedup();
            return Err(Denial::PurposeRequired { possible });
        }
        take_one(&valid).map(|held| (held.number, &held.grant))
    }

    /// What a consumer may call at this node now, by service: for reflection.
    pub fn callable_by(&self, consumer: &SystemId, now_unix_ms: i64) -> BTreeMap<&str, Methods> {
        let mut callable = BTreeMap::new();
        for service in self.services.keys() {
            let methods = self
                .for_consumer(consumer, service)
                .filter(|held| held.grant.is_valid_at(now_unix_ms))
                .map(|held| held.grant.methods.clone())
                .reduce(|all, more| all.union(&more));
            if let Some(methods) = methods {
                callable.insert(service.as_str(), methods);
            }
        }
        callable
    }

    /// The grants that concern a consumer: those given to it and to its member, valid now or not. By service, then as they are judged.
    pub fn concerning(&self, consumer: &SystemId) -> Vec<&Grant> {
        let mut services: Vec<&str> = self.services.keys().map(String::as_str).collect();
        services.sort_unstable();
        services.into_iter().flat_map(|service| self.for_consumer(consumer, service)).map(|held| &held.grant).collect()
    }

    /// All grants, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.held().map(|held| &held.grant)
    }

    /// All grants with their numbers, which are below [`Grants::len`], in no order.
    pub fn iter_numbered(&self) -> impl Iterator<Item = (usize, &Grant)> {
        self.held().map(|held| (held.number, &held.grant))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none: everything is denied.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn for_consumer(&self, consumer: &SystemId, service: &str) -> impl Iterator<Item = &Held> {
        self.services.get(service).into_iter().flat_map(move |service| {
            let to_system = service.by_system.get(consumer);
            let to_member = service.by_member.get(consumer.member());
            to_system.into_iter().chain(to_member).flatten()
        })
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        self.services
            .values()
            .flat_map(|service| service.by_system.values().chain(service.by_member.values()).flatten())
    }
}

/// None of these is valid now: begins later if one does (waiting helps), else has ended.
fn out_of_time(held: &[&Held], now_unix_ms: i64) -> Denial {
    let to_come = held.iter().filter(|held| !held.grant.has_begun(now_unix_ms) && !held.grant.has_ended(now_unix_ms));
    match to_come.filter_map(|held| held.grant.from_unix_ms).min() {
        Some(from_unix_ms) => Denial::NotYetValid { from_unix_ms },
        None => Denial::Expired {
            until_unix_ms: held.iter().filter_map(|held| held.grant.until_unix_ms).max().unwrap_or(now_unix_ms),
        },
    }
}

/// The first of these grants that has something left.
fn take_one<'a>(valid: &[&'a Held]) -> Result<&'a Held, Denial> {
    let mut soonest = Duration::MAX;
    for held in valid {
        match held.limiter.as_deref().map_or(Ok(()), check) {
            Ok(()) => return Ok(held),
            Err(wait) => soonest = soonest.min(wait),
        }
    }
    Err(Denial::RateLimited { retry_after: soonest })
}

pub(super) fn limiter(rate: Rate) -> DefaultDirectRateLimiter {
    RateLimiter::direct(Quota::per_second(rate.per_second).allow_burst(rate.burst))
}

pub(super) fn check(limiter: &DefaultDirectRateLimiter) -> Result<(), Duration> {
    limiter.check().map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
}
