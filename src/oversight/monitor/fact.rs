//! What an entry says of an exchange, as far as comparing two logs needs it. Pure.

use std::fmt;

use prost::Message;

use crate::log::entry::{Entry, Kind, Outcome, Publication, Side};

/// An exchange's id, the same in both logs.
pub(super) type ExchangeId = [u8; 16];

/// One entry's part in an exchange. Encoded as it is into the files of exchanges that wait for their other side.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Fact {
    /// Which of the monitor's logs has it.
    #[prost(uint32, tag = "1")]
    pub(super) log: u32,
    /// Its index there.
    #[prost(uint64, tag = "2")]
    pub(super) index: u64,
    /// When the log showed it, by its own clock: the entry's time, or that of the entry that opened it.
    #[prost(int64, tag = "3")]
    pub(super) shown_ms: i64,
    /// What happened.
    #[prost(enumeration = "Kind", tag = "4")]
    pub(super) kind: i32,
    /// How it ended.
    #[prost(enumeration = "Outcome", tag = "5")]
    pub(super) outcome: i32,
    /// gRPC status given to the caller.
    #[prost(uint32, tag = "6")]
    pub(super) grpc_status: u32,
    /// Which node refused or failed.
    #[prost(enumeration = "Side", tag = "7")]
    pub(super) side: i32,
    /// The asking system.
    #[prost(string, tag = "8")]
    pub(super) consumer: String,
    /// The asked system.
    #[prost(string, tag = "9")]
    pub(super) provider: String,
    /// Full service name.
    #[prost(string, tag = "10")]
    pub(super) service: String,
    /// Method name.
    #[prost(string, tag = "11")]
    pub(super) method: String,
    /// Code of the legal basis.
    #[prost(string, tag = "12")]
    pub(super) legal_basis: String,
    /// The entry's own time, whenever it was shown.
    #[prost(int64, tag = "13")]
    pub(super) made_ms: i64,
    /// First eight bytes of the digest of the schema by which it was checked; 0 where it names none.
    #[prost(fixed64, tag = "14")]
    pub(super) schema: u64,
}

/// What one entry is to a monitor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reading {
    /// It is of an exchange, and shows it.
    Fact(ExchangeId, Fact),
    /// It shows its class and a commitment; it is counted.
    Hidden(Publication),
    /// It accuses a peer's log, with two checkpoints that contradict each other.
    Evidence {
        /// Its index.
        index: u64,
        /// The checkpoints.
        notes: [String; 2],
    },
    /// It is of no exchange between two members: an auditor's look, an erasure; or it neither opens nor closes one, as the end
    /// of a streamed request and further subjects do not.
    Other,
    /// It is no entry that can be read, or opens something that it cannot.
    Unreadable {
        /// Its index.
        index: u64,
        /// Why.
        reason: String,
    },
}

impl Reading {
    /// Of an entry that stands at `index` of the log; one that opens another is the caller's to resolve.
    pub(super) fn of(log: u32, index: u64, entry: Entry) -> Self {
        let shown = entry.time_unix_ms;
        match entry.kind() {
            Kind::Unspecified if crate::log::hidden::hides(entry.publication()) => Self::Hidden(entry.publication()),
            Kind::Unspecified => Self::Unreadable { index, reason: "its kind is not known".into() },
            Kind::Evidence => Self::Evidence { index, notes: [entry.peer_checkpoint, entry.other_peer_checkpoint] },
            _ if is_of_exchange(&entry) => Self::of_exchange(log, index, shown, entry),
            _ => Self::Other,
        }
    }

    /// Of an entry of an exchange that was shown at this time.
    pub(super) fn of_exchange(log: u32, index: u64, shown_ms: i64, entry: Entry) -> Self {
        let Ok(id) = ExchangeId::try_from(entry.exchange_id.as_ref()) else {
            return Self::Unreadable { index, reason: "its exchange id has not 16 bytes".into() };
        };
        let fact = Fact {
            log,
            index,
            shown_ms,
            kind: entry.kind,
            outcome: entry.outcome,
            grpc_status: entry.grpc_status,
            side: entry.side,
            consumer: entry.consumer,
            provider: entry.provider,
            service: entry.service,
            method: entry.method,
            legal_basis: entry.legal_basis,
            made_ms: entry.time_unix_ms,
            schema: entry.schema.first_chunk().map_or(0, |first| u64::from_be_bytes(*first)),
        };
        Self::Fact(id, fact)
    }
}

impl Fact {
    /// Whether it opens its side of the exchange; else it closes it.
    pub(super) fn opens(&self) -> bool {
        matches!(self.kind(), Kind::RequestSent | Kind::RequestReceived)
    }

    pub(super) fn ending(&self) -> Ending {
        Ending { outcome: self.outcome(), grpc_status: self.grpc_status, side: self.side() }
    }

    /// Who asked whom for what: must be the same in both logs.
    pub(super) fn subject(&self) -> [&str; 4] {
        [&self.consumer, &self.provider, &self.service, &self.method]
    }
}

/// How an exchange, or a side of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) grpc_status: u32,
    pub(super) side: Side,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = crate::oversight::join::outcome_label(self.outcome);
        write!(f, "{outcome} (gRPC status {})", self.grpc_status)
    }
}

/// Whether it opens or closes an exchange. An auditor's look, an erasure, the end of a streamed request and further subjects do
/// not.
pub(super) fn is_of_exchange(entry: &Entry) -> bool {
    use Kind::{Failed, Refused, RequestReceived, RequestSent, ResponseReceived, ResponseSent};
    matches!(entry.kind(), RequestSent | RequestReceived | ResponseSent | ResponseReceived | Refused | Failed)
}

/// The member of a system, `KG/GOV/1` of `KG/GOV/1/desk`.
pub(super) fn member_of(system: &str) -> &str {
    system.rsplit_once('/').map_or(system, |(member, _)| member)
}
