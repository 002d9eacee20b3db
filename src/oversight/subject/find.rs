//! Exchanges that concerned a person, out of the index and the private halves. Blocking.

use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Status;
use zeroize::Zeroizing;

use crate::log::Log;
use crate::log::entry::{Entry, Kind, Publication};
use crate::log::further::MAX_SUBJECT;
use crate::log::hidden::{Private, Seen, due_unix_ms};
use crate::log::index::{EntrySource, Index};
use crate::oversight::join::{JoinError, join};
use crate::oversight::status::invalid;
use crate::proto::kopuro::audit::v1::{Exchange, ListExchangesRequest};

/// The most exchanges of a page, and how many where the request does not say.
const MAX_PAGE: u32 = 50;
const USUAL_PAGE: u32 = 20;

/// Which classes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classes {
    /// What a person may see at this time (Unix milliseconds): public ones, and delayed ones that are due.
    Due(i64),
    /// All: for an officer who holds the keys of the log.
    All,
}

/// What is wanted.
#[derive(Clone)]
pub struct Wanted {
    /// The person.
    pub subject: Zeroizing<Vec<u8>>,
    /// Opened at this time or later, Unix milliseconds.
    pub from_unix_ms: i64,
    /// Opened before this time.
    pub until_unix_ms: i64,
    /// Look-ups too.
    pub looks: bool,
    /// Of which classes.
    pub classes: Classes,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted").field("classes", &self.classes).finish_non_exhaustive()
    }
}

/// An exchange, and its entries with their indices and private halves.
pub struct FoundExchange {
    /// The exchange.
    pub exchange: Exchange,
    /// Its entries, ascending; of those that hold nothing but subjects (KIND_SUBJECTS), the ones that name the person.
    pub entries: Vec<(u64, Bytes, Zeroizing<Vec<u8>>)>,
}

impl std::fmt::Debug for FoundExchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FoundExchange").field("indices", &self.exchange.indices).finish_non_exhaustive()
    }
}

/// A page of them, the newest first.
#[derive(Debug, Default)]
pub struct Found {
    /// The exchanges.
    pub exchanges: Vec<FoundExchange>,
    /// Where the next page goes on, where there may be one.
    pub next: Option<u64>,
    /// The answer covers entries below this index.
    pub indexed_size: u64,
}

/// A page of the exchanges that are wanted, before the index `before`; at most `limit` and about `bytes`.
pub fn find(
    source: &impl EntrySource,
    index: &Index,
    wanted: &Wanted,
    mut before: Option<u64>,
    limit: usize,
    bytes: usize,
    deadline: Instant,
) -> Result<Found, JoinError> {
    let (mut found, mut taken) = (Found::default(), 0);
    loop {
        let page = index.of_subject(&wanted.subject, before, limit - found.exchanges.len(), deadline)?;
        found.indexed_size = page.indexed_size;
        for opening in page.openings {
            let Some(exchange) = exchange(source, index, wanted, opening)? else { continue };
            taken += exchange.entries.iter().map(|(_, entry, private)| entry.len() + private.len()).sum::<usize>();
            found.exchanges.push(exchange);
            if taken >= bytes {
                found.next = Some(opening);
                return Ok(found);
            }
        }
        found.next = page.next;
        before = page.next;
        // What was left out is made up for from further back: a short page would tell that there was something.
        if before.is_none() || found.exchanges.len() >= limit || Instant::now() >= deadline {
            return Ok(found);
        }
    }
}

/// The exchange with this opening; none where it is not wanted or may not be shown.
fn exchange(
    source: &impl EntrySource,
    index: &Index,
    wanted: &Wanted,
    opening: u64,
) -> Result<Option<FoundExchange>, JoinError> {
    let (mut seen, mut entries, mut concerns) = (Vec::new(), Vec::new(), false);
    for at in index.entries_of(opening)? {
        if at < source.first() {
            // Pruned: the published log has the entry, and it cannot be shown from here.
            return Ok(None);
        }
        let read = source.read_with_private(at, 1).map_err(JoinError::Source)?;
        let Some((entry, private)) = read.into_iter().next() else { return Ok(None) };
        let whole = Seen::new(entry.clone(), private.as_ref().map(|private| private.as_slice()));
        let decoded = Entry::decode(whole.whole()).ok().filter(|entry| wanted.may_show(entry));
        let Some(decoded) = decoded.filter(|_| !whole.stays_hidden()) else { return Ok(None) };
        seen.push((at, whole));
        let Some(private) = private else { continue };
        // The index goes by a short hash: the private half has the last word.
        let named = Private::read(&private).is_some_and(|private| !slots_of(&private, &wanted.subject).is_empty());
        concerns |= named;
        // Entries that are about others only are none of this person's business.
        if named || decoded.kind() != Kind::Subjects {
            entries.push((at, entry, private));
        }
    }
    let Some(exchange) = join(seen.iter().map(|(at, seen)| (*at, seen))).filter(|_| concerns) else { return Ok(None) };
    let when = wanted.from_unix_ms..wanted.until_unix_ms;
    let is_meant = when.contains(&exchange.time_unix_ms) && (wanted.looks || exchange.kind() != Kind::Audit);
    Ok(is_meant.then_some(FoundExchange { exchange, entries }))
}

/// The slots of an entry that name this person.
pub(super) fn slots_of(private: &Private<'_>, subject: &[u8]) -> Vec<u8> {
    private.subjects().into_iter().filter(|(_, who)| *who == subject).map(|(slot, _)| slot).collect()
}

impl Wanted {
    fn may_show(&self, entry: &Entry) -> bool {
        match (self.classes, entry.publication()) {
            (Classes::All, _) | (_, Publication::Public | Publication::Unspecified) => true,
            (Classes::Due(now), Publication::Delayed) => due_unix_ms(entry).is_some_and(|due| due <= now),
            (Classes::Due(_), Publication::Sealed) => false,
        }
    }
}

// === Requests and page tokens ===

pub(super) fn wanted(request: &ListExchangesRequest, now_unix_ms: i64) -> Result<Wanted, Status> {
    if !is_subject(request.subject.as_bytes()) {
        return Err(invalid("a subject is 1 to 256 bytes of text"));
    }
    let until = request.until_unix_ms;
    Ok(Wanted {
        subject: Zeroizing::new(request.subject.clone().into_bytes()),
        from_unix_ms: request.from_unix_ms,
        until_unix_ms: if until == 0 { i64::MAX } else { until },
        looks: request.looks,
        classes: Classes::Due(now_unix_ms),
    })
}

/// Whom one may ask about: what `kopuro-subject` takes, and what an annotated field may hold besides.
pub(super) fn is_subject(subject: &[u8]) -> bool {
    let text = std::str::from_utf8(subject).ok().filter(|text| (1..=MAX_SUBJECT).contains(&text.len()));
    text.is_some_and(|text| !text.chars().any(char::is_control))
}

pub(super) fn page_size(size: u32) -> Result<usize, Status> {
    match size {
        0 => Ok(USUAL_PAGE as usize),
        1..=MAX_PAGE => Ok(size as usize),
        _ => Err(invalid("a page has at most 50 exchanges")),
    }
}

/// A page token: a nonce, then where to go on and a check of the question, masked. In the clear it could name an entry
/// that was left out.
pub(super) fn write_token(log: &Log, request: &ListExchangesRequest, next: u64) -> String {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).expect("the kernel's random source does not fail once it has started");
    let mut plain = [0; 16];
    plain[..8].copy_from_slice(&next.to_be_bytes());
    plain[8..].copy_from_slice(&binding(request));
    BASE64_URL_SAFE_NO_PAD.encode([nonce, masked(log, nonce, plain)].concat())
}

pub(super) fn read_token(log: &Log, request: &ListExchangesRequest) -> Result<Option<u64>, Status> {
    if request.page_token.is_empty() {
        return Ok(None);
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&request.page_token).ok();
    let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let (Some((nonce, body)), true) = (bytes.as_ref().and_then(|b| b.split_first_chunk::<16>()), bytes.is_some())
    else {
        return Err(invalid("no page token of this service"));
    };
    let plain = masked(log, *nonce, body.try_into().unwrap_or_default());
    let (next, bound) = plain.split_at(8);
    if bound != binding(request) {
        return Err(invalid("the page token is of another question"));
    }
    Ok(next.try_into().ok().map(u64::from_be_bytes))
}

fn masked(log: &Log, nonce: [u8; 16], bytes: [u8; 16]) -> [u8; 16] {
    // No subject begins with a zero byte.
    let mask = log.pseudonym(&[b"\0page token", nonce.as_slice()].concat());
    std::array::from_fn(|at| bytes[at] ^ mask[at])
}

fn binding(request: &ListExchangesRequest) -> [u8; 8] {
    let question = ListExchangesRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    let digest = Sha256::digest(question.encode_to_vec());
    std::array::from_fn(|at| digest[at])
}
