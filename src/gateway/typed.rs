//! The messages of an exchange, judged by their types as they pass: each is well formed, says whose data it is, and goes on as
//! the grant has it. What is found goes into the exchange's record; what breaks a rule ends the exchange.
//!
//! A [`Judge`] has one direction of one call. A unary call's message is judged whole; of a stream each message is collected under the
//! limit and the budget, judged, and sent on, what did not change as the bytes that came.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};

use super::body::{Budget, CollectError, Held, Whole};
use super::framing::PREFIX;
use super::refusal::Refusal;
use crate::log::further::{Direction, FurtherFields};
use crate::schema::MethodPlans;
use crate::schema::plan::{Found, Plan};

/// What a peer and a back-end are told that we can read.
pub(super) const ENCODINGS: &str = "identity,deflate,gzip";

/// The longest list of withheld fields' names that a caller is told, in bytes.
const MOST_NAMES: usize = 2 << 10;

/// What is gathered of an exchange at this node, by both directions.
pub(super) type Gathered = Arc<Mutex<FurtherFields>>;

/// By which plans, and how the caller is told what was withheld.
#[derive(Debug, Clone)]
pub(super) struct Types {
    pub(super) plans: Arc<MethodPlans>,
    /// Whether the names of withheld fields are told too.
    pub(super) name_withheld: bool,
}

/// Judges one direction of one call.
pub(super) struct Judge {
    types: Types,
    direction: Direction,
    encoding: Encoding,
    limit: u32,
    found: Found,
    gathered: Gathered,
    /// What `kopuro-subject` says, until a message has confirmed it.
    claimed: Option<String>,
    /// Whether some message named somebody.
    named: bool,
}

/// How compressed messages of a direction are compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Deflate,
    Other(String),
}

/// What was withheld of a response, to be told in its trailers.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    pub(super) count: u64,
    names: Option<String>,
}

// === impl Judge ===

impl Judge {
    /// For messages of this direction that come with these headers.
    pub(super) fn new(
        types: &Types,
        direction: Direction,
        headers: &HeaderMap,
        limit: u32,
        gathered: &Gathered,
        claimed: Option<String>,
    ) -> Self {
        Self {
            types: types.clone(),
            direction,
            encoding: Encoding::of(headers),
            limit,
            found: Found::default(),
            gathered: gathered.clone(),
            claimed,
            named: false,
        }
    }

    /// A collected message, framed; none where it goes on as it came.
    pub(super) fn whole(&mut self, whole: &Whole, budget: &Budget) -> Result<Option<Whole>, Refusal> {
        let framed = whole.joined();
        if framed.is_empty() {
            return Ok(None);
        }
        let changed = self.framed(&framed, budget)?;
        self.finish()?;
        Ok(changed.map(|message| Whole::counted(message, budget)))
    }

    /// All messages have passed.
    pub(super) fn finish(&self) -> Result<(), Refusal> {
        match &self.claimed {
            Some(_) if self.named => Err(Refusal::subject_mismatch()),
            _ => Ok(()),
        }
    }

    /// What was withheld so far.
    pub(super) fn withheld(&self) -> Withheld {
        Withheld { count: self.found.withheld, names: self.types.name_withheld.then(|| joined_names(&self.found)) }
    }

    /// One message with its prefix, whole; none where it goes on as it came.
    fn framed(&mut self, framed: &Bytes, budget: &Budget) -> Result<Option<Bytes>, Refusal> {
        // The meter has seen that the framing is right.
        let (flag, message) = (framed[0], framed.slice(PREFIX..));
        let mut held = Held::new(budget);
        let message = match flag {
            0 => message,
            _ => self.decompress(&message, &mut held)?,
        };
        let plan = self.plan();
        let result = plan.apply(&message, &mut self.found);
        self.named |= !self.found.subjects.is_empty();
        if let Some(claimed) = &self.claimed
            && self.found.subjects.iter().any(|subject| **subject == *claimed.as_bytes())
        {
            self.claimed = None;
        }
        if !self.found.subjects.is_empty() || !self.found.committed.is_empty() || self.found.beyond > 0 {
            self.gathered.lock().unwrap_or_else(PoisonError::into_inner).take(self.direction, &mut self.found);
            // It lasts as long as the stream: what it remembers of subjects is remembered, within bounds, where they went.
            self.found.by_hash.clear();
        }
        let passed = result.map_err(|violation| Refusal::violation(&violation, self.direction))?;
        let Some(passed) = passed else { return Ok(None) };
        let mut out = BytesMut::with_capacity(PREFIX + passed.len());
        out.put_u8(0);
        out.put_u32(u32::try_from(passed.len()).unwrap_or(u32::MAX));
        out.put(passed);
        Ok(Some(out.freeze()))
    }

    fn plan(&self) -> Arc<Plan> {
        match self.direction {
            Direction::Request => self.types.plans.request.clone(),
            Direction::Response => self.types.plans.response.clone(),
        }
    }

    /// Stops at the limit, however little there was to decompress.
    fn decompress(&self, message: &Bytes, held: &mut Held) -> Result<Bytes, Refusal> {
        match &self.encoding {
            Encoding::Gzip => {
                let mut decoder = flate2::bufread::GzDecoder::new(&message[..]);
                let plain = self.inflate(&mut decoder, held)?;
                self.ended(decoder.into_inner())?;
                Ok(plain)
            }
            Encoding::Deflate => {
                let mut decoder = flate2::bufread::ZlibDecoder::new(&message[..]);
                let plain = self.inflate(&mut decoder, held)?;
                self.ended(decoder.into_inner())?;
                Ok(plain)
            }
            Encoding::Identity => {
                Err(Refusal::compression(self.direction, "it is compressed, and grpc-encoding names no encoding"))
            }
            Encoding::Other(name) => Err(Refusal::encoding_unknown(self.direction, name)),
        }
    }

    /// Nothing follows what was compressed: some receivers read on, others do not, and it would cross as it came.
    fn ended(&self, rest: &[u8]) -> Result<(), Refusal> {
        if rest.is_empty() { Ok(()) } else { Err(Refusal::compression(self.direction, "something follows its end")) }
    }

    fn inflate(&self, reader: &mut impl Read, held: &mut Held) -> Result<Bytes, Refusal> {
        const STEP: usize = 16 << 10;
        let mut out = BytesMut::new();
        loop {
            let at = out.len();
            if at > self.limit as usize {
                return Err(Refusal::decompressed_too_large(self.direction, self.limit));
            }
            held.add(STEP).map_err(|error| budget(&error))?;
            out.resize(at + STEP, 0);
            let read = reader
                .read(&mut out[at..])
                .map_err(|error| Refusal::compression(self.direction, &error.to_string()))?;
            out.truncate(at + read);
            if read == 0 {
                return Ok(out.freeze());
            }
        }
    }
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge").field("direction", &self.direction).finish_non_exhaustive()
    }
}

// === impl Encoding ===

impl Encoding {
    fn of(headers: &HeaderMap) -> Self {
        match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Self::Identity,
            Some(b"gzip") => Self::Gzip,
            Some(b"deflate") => Self::Deflate,
            // A name in a message to the caller, who sent it.
            Some(other) => Self::Other(String::from_utf8_lossy(&other[..other.len().min(64)]).into_owned()),
        }
    }
}

// === impl Withheld ===

impl Withheld {
    /// Tells the caller, in an answer's trailers.
    pub(super) fn tell(&self, trailers: &mut HeaderMap) {
        if self.count == 0 {
            return;
        }
        super::metadata::put(trailers, super::metadata::WITHHELD, &self.count.to_string());
        if let Some(names) = self.names.as_deref().filter(|names| !names.is_empty()) {
            super::metadata::put(trailers, super::metadata::WITHHELD_FIELDS, names);
        }
    }

    /// As another node told it.
    pub(super) fn told(trailers: &HeaderMap) -> Self {
        let text = |name| trailers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        Self {
            count: text(super::metadata::WITHHELD).and_then(|count| count.parse().ok()).unwrap_or_default(),
            names: text(super::metadata::WITHHELD_FIELDS).filter(|names| names.len() <= MOST_NAMES).map(str::to_owned),
        }
    }
}

fn joined_names(found: &Found) -> String {
    let mut names = String::new();
    for name in &found.withheld_paths {
        if names.len() + name.len() + 1 > MOST_NAMES {
            break;
        }
        if !names.is_empty() {
            names.push(',');
        }
        names.push_str(name);
    }
    names
}

fn budget(_: &CollectError) -> Refusal {
    Refusal::overloaded("bytes held in messages")
}

// === Streams ===

/// A stream's messages: taken in as they come, given out whole and judged.
pub(super) struct JudgedStream {
    pub(super) judge: Judge,
    budget: Budget,
    /// The message that is not whole yet, with its prefix.
    partial: BytesMut,
    held: Held,
    /// What may go on, and how much of it the budget counts.
    ready: VecDeque<(Bytes, usize)>,
}

impl JudgedStream {
    pub(super) fn new(judge: Judge, budget: &Budget) -> Self {
        Self {
            judge,
            budget: budget.clone(),
            partial: BytesMut::new(),
            held: Held::new(budget),
            ready: VecDeque::new(),
        }
    }

    /// Takes the next bytes, cut anywhere, that a meter has found to be framed within the limit.
    pub(super) fn push(&mut self, mut data: Bytes) -> Result<(), Refusal> {
        // What is left of the message that began before.
        if !self.partial.is_empty() {
            let wanted = self.wanted().min(data.len());
            self.keep(&data.split_to(wanted))?;
            // The prefix may only now have said how long it is.
            let wanted = self.wanted().min(data.len());
            self.keep(&data.split_to(wanted))?;
            if self.wanted() > 0 {
                return Ok(());
            }
            let framed = self.partial.split().freeze();
            self.held.release(framed.len());
            match self.judge.framed(&framed, &self.budget)? {
                Some(changed) => self.give_changed(changed)?,
                None => self.give(framed),
            }
        }
        // Whole messages, passed on together while they do not change.
        let mut same = 0;
        while let Some(length) = framed_length(&data[same..]).filter(|length| *length <= data.len() - same) {
            let framed = data.slice(same..same + length);
            match self.judge.framed(&framed, &self.budget)? {
                None => same += length,
                Some(changed) => {
                    self.give(data.split_to(same));
                    data.advance(length);
                    same = 0;
                    self.give_changed(changed)?;
                }
            }
        }
        self.give(data.split_to(same));
        self.keep(&data)
    }

    /// What may go on now.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let (bytes, counted) = self.ready.pop_front()?;
        self.held.release(counted);
        Some(bytes)
    }

    /// One that was made here, perhaps much larger than what came.
    fn give_changed(&mut self, changed: Bytes) -> Result<(), Refusal> {
        self.held.add(changed.len()).map_err(|error| budget(&error))?;
        let counted = changed.len();
        self.ready.push_back((changed, counted));
        Ok(())
    }

    fn give(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.ready.push_back((bytes, 0));
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.held.add(bytes.len()).map_err(|error| budget(&error))?;
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// How many bytes the partial message still lacks: of its prefix, or of all of it.
    fn wanted(&self) -> usize {
        framed_length(&self.partial).unwrap_or(PREFIX) - self.partial.len()
    }
}

impl std::fmt::Debug for JudgedStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JudgedStream").field("judge", &self.judge).finish_non_exhaustive()
    }
}

/// The length of the message that begins here, prefix included, where that is said yet.
fn framed_length(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.first_chunk::<PREFIX>()?;
    let [_, length @ ..] = *prefix;
    Some(PREFIX + u32::from_be_bytes(length) as usize)
}
