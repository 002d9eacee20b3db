//! `[limits]` and `[drain]`: what bounds memory and waits. Every field has a default.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::Deserialize;

use super::units;
use crate::policy::Rate;

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Threads that carry exchanges, each with its own connections. Default: as many as the cores that the process may use.
    pub workers: NonZeroUsize,
    /// Largest message, compressed as it crosses; a larger one is `RESOURCE_EXHAUSTED`. Default `4MiB`, as gRPC's.
    #[serde(deserialize_with = "units::memory_size")]
    pub message: usize,
    /// Largest header block of a request or response. Default `16KiB`.
    #[serde(deserialize_with = "units::memory_size")]
    pub metadata: usize,
    /// Open connections at the systems' listener; one more is closed at once. As many again may be in their handshake; of
    /// those, one more pushes out the oldest. Default 1024.
    pub systems_connections: NonZeroUsize,
    /// Open connections at the nodes' listener. Default 1024.
    pub nodes_connections: NonZeroUsize,
    /// Connections kept to each peer node and each back-end, shared out among the workers: at least one for each. Default 4.
    pub connections_per_peer: NonZeroUsize,
    /// Concurrent calls on one connection, in both directions; a client queues what goes beyond. Default 256.
    pub streams_per_connection: NonZeroU32,
    /// Exchanges running at once in the whole node; one more is `RESOURCE_EXHAUSTED`. Default 4096.
    pub in_flight: NonZeroUsize,
    /// Message bytes held in memory at once by all exchanges; beyond, new ones are `RESOURCE_EXHAUSTED`. Default `256MiB`.
    #[serde(deserialize_with = "units::memory_size")]
    pub buffered_bytes: usize,
    /// How long a new connection may take to finish its TLS handshake. Default `5s`.
    #[serde(deserialize_with = "units::wait")]
    pub handshake_timeout: Duration,
    /// How long reaching a peer or back-end may take, TLS included. Default `2s`.
    #[serde(deserialize_with = "units::wait")]
    pub connect_timeout: Duration,
    /// Deadline of a unary call that names none. A caller's own is used as it is, where shorter than `stream_timeout`.
    /// Default `60s`.
    #[serde(deserialize_with = "units::wait")]
    pub unary_timeout: Duration,
    /// Longest life of any call. Default `24h`.
    #[serde(deserialize_with = "units::wait")]
    pub stream_timeout: Duration,
    /// A stream on which nothing moves for so long, in either direction, is ended. Default `5m`.
    #[serde(deserialize_with = "units::wait")]
    pub stream_idle: Duration,
    /// How long the one message of a unary request may take to arrive whole; a client that does not take the one of an
    /// answer within that time to twice that time loses its connection. Over HTTP/1.1 also how long a request's head may take, from the last answer on.
    /// Default `30s`.
    #[serde(deserialize_with = "units::wait")]
    pub request_body_timeout: Duration,
    /// A connection on which nothing came for so long is pinged. Default `20s`.
    #[serde(deserialize_with = "units::wait")]
    pub keepalive_interval: Duration,
    /// A ping not answered for so long ends the connection. Default `10s`.
    #[serde(deserialize_with = "units::wait")]
    pub keepalive_timeout: Duration,
    /// Calls a second from each calling system, over all services; more are `RESOURCE_EXHAUSTED`. Default 20000.
    pub calls_per_second: NonZeroU32,
    /// How many of these may come at once. Default 20000.
    pub calls_burst: NonZeroU32,
    /// How many systems are counted one by one; those beyond share one allowance. Default 10000.
    pub callers: NonZeroUsize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            message: 4 << 20,
            metadata: 16 << 10,
            systems_connections: const { NonZeroUsize::new(1_024).unwrap() },
            nodes_connections: const { NonZeroUsize::new(1_024).unwrap() },
            connections_per_peer: const { NonZeroUsize::new(4).unwrap() },
            streams_per_connection: const { NonZeroU32::new(256).unwrap() },
            in_flight: const { NonZeroUsize::new(4_096).unwrap() },
            buffered_bytes: 256 << 20,
            handshake_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            unary_timeout: Duration::from_secs(60),
            stream_timeout: Duration::from_secs(24 * 3_600),
            stream_idle: Duration::from_secs(5 * 60),
            request_body_timeout: Duration::from_secs(30),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            calls_per_second: const { NonZeroU32::new(20_000).unwrap() },
            calls_burst: const { NonZeroU32::new(20_000).unwrap() },
            callers: const { NonZeroUsize::new(10_000).unwrap() },
        }
    }
}

impl Limits {
    /// The rate of each calling system, for [`crate::policy::CallerLimits`].
    pub fn caller_rate(&self) -> Rate {
        Rate { per_second: self.calls_per_second, burst: self.calls_burst }
    }
}

/// `[drain]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long running exchanges may go on after SIGTERM. Default `30s`.
    #[serde(deserialize_with = "units::duration")]
    pub limit: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { limit: Duration::from_secs(30) }
    }
}
