//! How much each client may ask of the publication: requests a second, and connections at once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::HeaderMap;

use crate::policy::Rate;

/// So many clients are counted one by one; those beyond share one allowance.
const MOST_CLIENTS: usize = 1 << 16;

/// After so many requests those who have been quiet are forgotten.
const FORGET_EVERY: u64 = 1 << 14;

/// The limits.
pub(super) struct Clients {
    each: DefaultKeyedRateLimiter<IpAddr>,
    others: DefaultDirectRateLimiter,
    requests: std::sync::atomic::AtomicU64,
    proxies: Vec<IpAddr>,
    connections: Mutex<HashMap<IpAddr, usize>>,
    most_connections: usize,
}

/// A connection that is counted, until it is dropped.
pub(super) struct Counted {
    clients: Arc<Clients>,
    client: Option<IpAddr>,
}

impl Clients {
    pub(super) fn new(rate: Rate, most_connections: usize, proxies: Vec<IpAddr>) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self {
            each: RateLimiter::keyed(quota),
            others: RateLimiter::direct(quota),
            requests: 0.into(),
            proxies,
            connections: Mutex::default(),
            most_connections,
        }
    }

    /// Counts a connection; none where its client has as many as it may. A proxy's are not counted.
    pub(super) fn connect(self: &Arc<Self>, peer: SocketAddr) -> Option<Counted> {
        if self.is_proxy(peer.ip()) {
            return Some(Counted { clients: self.clone(), client: None });
        }
        let client = subnet(peer.ip());
        let mut connections = self.connections();
        let count = connections.entry(client).or_default();
        if *count >= self.most_connections {
            return None;
        }
        *count += 1;
        Some(Counted { clients: self.clone(), client: Some(client) })
    }

    /// Counts a request, or says when to come again.
    pub(super) fn request(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Duration> {
        if self.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.each.retain_recent();
        }
        let client = subnet(self.client(peer, headers));
        let now = DefaultClock::default().now();
        let wait = |until: governor::NotUntil<_>| until.wait_time_from(now);
        if self.each.len() >= MOST_CLIENTS {
            return self.others.check().map_err(wait);
        }
        self.each.check_key(&client).map_err(wait)
    }

    /// Whose request it is: the last address in `X-Forwarded-For` that is no proxy's, where a proxy brings it.
    fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        if !self.is_proxy(peer.ip()) {
            return peer.ip();
        }
        let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
        let named: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
        let mut addresses = named.iter().rev().map_while(|address| address.parse().ok());
        addresses.find(|address| !self.is_proxy(*address)).unwrap_or_else(|| peer.ip())
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.iter().any(|proxy| proxy.to_canonical() == address)
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Counts only.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(client) = self.client else { return };
        let mut connections = self.clients.connections();
        if let Some(count) = connections.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&client);
            }
        }
    }
}

/// Who has one IPv6 address has its /64.
fn subnet(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn clients(burst: u32) -> Arc<Clients> {
        let rate = Rate { per_second: NonZeroU32::MIN, burst: NonZeroU32::new(burst).unwrap() };
        Arc::new(Clients::new(rate, 2, vec!["127.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]))
    }

    #[test]
    fn each_has_its_own_allowance_and_a_proxy_speaks_for_others() {
        let clients = clients(1);
        let peer = |address: &str| SocketAddr::new(address.parse().unwrap(), 1);
        let none = HeaderMap::new();
        assert!(clients.request(peer("192.0.2.1"), &none).is_ok());
        assert!(clients.request(peer("192.0.2.1"), &none).unwrap_err() <= Duration::from_secs(1));
        assert!(clients.request(peer("::ffff:192.0.2.1"), &none).is_err());
        assert!(clients.request(peer("2001:db8::1"), &none).is_ok());
        assert!(clients.request(peer("2001:db8::2"), &none).is_err(), "the same /64");
        assert!(clients.request(peer("2001:db8:0:1::1"), &none).is_ok());

        let mut forwarded = HeaderMap::new();
        forwarded.insert("x-forwarded-for", "203.0.113.9, 198.51.100.7, 10.0.0.2".parse().unwrap());
        assert_eq!(clients.client(peer("127.0.0.1"), &forwarded), "198.51.100.7".parse::<IpAddr>().unwrap());
        assert_eq!(clients.client(peer("192.0.2.1"), &forwarded), "192.0.2.1".parse::<IpAddr>().unwrap());
        forwarded.insert("x-forwarded-for", "203.0.113.9, nonsense".parse().unwrap());
        assert_eq!(clients.client(peer("127.0.0.1"), &forwarded), "127.0.0.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn connections_are_counted_and_given_back() {
        let clients = clients(1);
        let peer = "192.0.2.1:1".parse().unwrap();
        let held = [clients.connect(peer).unwrap(), clients.connect(peer).unwrap()];
        assert!(clients.connect(peer).is_none());
        assert!(clients.connect("192.0.2.2:1".parse().unwrap()).is_some());
        drop(held);
        assert!(clients.connections().is_empty());
        assert!(clients.connect(peer).is_some());
    }
}
