//! More subjects than one, and committed fields: what the messages of an exchange hold besides the first subject, gathered
//! as it is found and given to the entries of one side's record.
//!
//! Pure. The first subject is in SLOT_SUBJECT of the entries made after it is known; an exchange with one subject and no
//! committed fields costs nothing more. The others are in the slots without a name ([`super::entry::FurtherField`]), each
//! once in the record, whichever message it was in. Where they do not fit into the entry there is, entries of a kind of
//! their own hold them, KIND_SUBJECTS, between the opening and the closing entry:
//!
//! ```text
//! unary    fill(opening) ──▶ opening, SUBJECTS…         fill(closing) ──▶ SUBJECTS…, closing
//! stream   opening    (message: take(), full() ──▶ SUBJECTS, as often as there is one)…    fill(closing) ──▶ SUBJECTS…, closing
//! ```
//!
//! Everything is bounded. In memory: one batch, as long as [`FurtherFields::full`] is asked after each message, and 16 bytes for
//! each subject. In all: [`MAX_FOUND`] subjects and as many values of committed fields in each direction. What is beyond is not
//! refused here, and not passed over in silence either: the next entry commits to how many they were. So is a
//! subject that nobody could ask for (empty, or longer than [`MAX_SUBJECT`]). A value longer than [`MAX_VALUE`] is committed
//! to by its SHA-256, and says so.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use prost::encoding::{WireType, encode_key, encode_varint};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::entry::{Draft, ExchangeKey, Kind, MAX_FURTHER, Slot};
use crate::schema::plan::{Found, MAX_FOUND};

/// The longest subject, in bytes, as in `kopuro-subject` metadata.
pub const MAX_SUBJECT: usize = 256;

/// The longest value of a committed field that is committed to as it is, in bytes.
pub const MAX_VALUE: usize = 1_024;

/// The longest path of a committed field, in bytes.
pub const MAX_PATH: usize = 1_024;

/// Values of one path go together, up to so many bytes, into one slot.
const GROUP_BYTES: usize = 8 << 10;
/// So many bytes are a full entry.
const BATCH_BYTES: usize = 32 << 10;
/// How far back a group is looked for that a value can join: fields of repeated messages come in turns.
const LOOK_BACK: usize = 16;

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the consumer.
    Request,
    /// From the provider.
    Response,
}

/// What is to be committed to and is in no entry yet; and what is already, so that it is not again.
pub struct FurtherFields {
    key: ExchangeKey,
    first: Option<Zeroizing<Vec<u8>>>,
    /// Whether an entry names the first one.
    first_told: bool,
    /// Every other subject so far, hashed under the exchange's key.
    seen: HashSet<[u8; 16]>,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// Subjects and values taken of requests and of responses.
    taken: [Taken; 2],
    beyond: u64,
}

#[derive(Debug, Default)]
struct Taken {
    subjects: usize,
    values: usize,
}

/// One slot to be.
enum Pending {
    Subject(Zeroizing<Vec<u8>>),
    Committed {
        path: Arc<str>,
        response: bool,
        hashed: bool,
        /// `values` as they are in the encoded field.
        values: Zeroizing<Vec<u8>>,
    },
    Beyond(u64),
}

impl FurtherFields {
    /// Of an exchange with this key, of which nothing has been found yet.
    pub fn new(key: &ExchangeKey) -> Self {
        Self {
            key: key.clone(),
            first: None,
            first_told: false,
            seen: HashSet::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            taken: Default::default(),
            beyond: 0,
        }
    }

    /// Takes what was found in a message, and empties it of that: subjects, committed fields, and how many there were beyond
    /// the bound.
    pub fn take(&mut self, direction: Direction, found: &mut Found) {
        for subject in found.subjects.drain(..) {
            self.subject(direction, &subject);
        }
        for (path, value) in found.committed.drain(..) {
            self.committed(direction, &path, &value);
        }
        self.beyond(std::mem::take(&mut found.beyond));
    }

    /// Takes a subject; one that was there before changes nothing. The first one of all is that of SLOT_SUBJECT: call this with
    /// what metadata says before anything else.
    pub fn subject(&mut self, direction: Direction, subject: &[u8]) {
        if subject.is_empty() || subject.len() > MAX_SUBJECT {
            return self.beyond(1);
        }
        match &self.first {
            None => return self.first = Some(Zeroizing::new(subject.to_vec())),
            Some(first) if first.as_slice() == subject => return,
            Some(_) => {}
        }
        let hash = self.hashed(subject);
        if self.seen.contains(&hash) {
            return;
        }
        let taken = &mut self.taken[direction as usize].subjects;
        // The first one is not counted.
        if *taken + 1 >= MAX_FOUND {
            return self.beyond(1);
        }
        *taken += 1;
        self.seen.insert(hash);
        self.push(Pending::Subject(Zeroizing::new(subject.to_vec())));
    }

    /// Takes a value of a committed field.
    pub fn committed(&mut self, direction: Direction, path: &Arc<str>, value: &[u8]) {
        let taken = &mut self.taken[direction as usize].values;
        if *taken >= MAX_FOUND || path.len() > MAX_PATH {
            return self.beyond(1);
        }
        *taken += 1;
        let of_response = direction == Direction::Response;
        let digest;
        let (is_hashed, value) = if value.len() > MAX_VALUE {
            digest = Sha256::digest(value);
            (true, digest.as_slice())
        } else {
            (false, value)
        };
        let group = self.pending.iter_mut().rev().take(LOOK_BACK).find_map(|pending| match pending {
            Pending::Committed { path: other, response, hashed, values }
                if *other == *path && *response == of_response && *hashed == is_hashed =>
            {
                Some(values)
            }
            _ => None,
        });
        match group {
            Some(values) if values.len() + value.len() < GROUP_BYTES => {
                self.pending_bytes += value.len();
                put_value(values, value);
            }
            _ => {
                let mut values = Zeroizing::new(Vec::new());
                put_value(&mut values, value);
                let path = Arc::clone(path);
                self.push(Pending::Committed { path, response: of_response, hashed: is_hashed, values });
            }
        }
    }

    /// Counts subjects and values that are not committed to.
    pub fn beyond(&mut self, count: u64) {
        self.beyond = self.beyond.saturating_add(count);
    }

    /// Whom SLOT_SUBJECT names.
    pub fn first(&self) -> Option<&[u8]> {
        self.first.as_ref().map(|first| first.as_slice())
    }

    /// Where a whole entry's worth waits, an entry that takes it, of the same exchange as `of`: to be appended at once, after the
    /// opening entry. To be asked again until there is none.
    pub fn full(&mut self, of: &Draft, now_unix_ms: i64) -> Option<Draft> {
        if self.pending.len() < usize::from(MAX_FURTHER) && self.pending_bytes < BATCH_BYTES {
            return None;
        }
        let mut draft = of.for_subjects(now_unix_ms);
        if !self.first_told {
            self.tell_first(&mut draft);
        }
        self.move_into(&mut draft).then_some(draft)
    }

    /// Fills an entry of the exchange: the first subject, and of what waits as much as fits. The entries returned take the
    /// rest. They belong behind an opening entry and before any other, in their order: see [`super::Log::append_all`].
    pub fn fill(&mut self, draft: &mut Draft) -> Vec<Draft> {
        self.tell_first(draft);
        if self.beyond > 0 {
            let beyond = std::mem::take(&mut self.beyond);
            self.push(Pending::Beyond(beyond));
        }
        let opens = matches!(draft.kind, Kind::RequestSent | Kind::RequestReceived);
        if opens {
            self.move_into(draft);
        }
        let mut more = Vec::new();
        while !self.pending.is_empty() && (opens || !draft.has_room_for(self.pending.len(), self.pending_bytes)) {
            let mut next = draft.for_subjects(draft.time_unix_ms);
            if !self.move_into(&mut next) {
                // Names so long that an entry with them has no room for anything: such an entry cannot be appended either.
                break;
            }
            more.push(next);
        }
        self.move_into(draft);
        more
    }

    fn tell_first(&mut self, draft: &mut Draft) {
        if let Some(first) = &self.first {
            draft.set(Slot::Subject, first.to_vec());
            self.first_told = true;
        }
    }

    /// Moves what waits into a draft, in order; whether any of it fitted.
    fn move_into(&mut self, draft: &mut Draft) -> bool {
        let mut moved = false;
        while let Some(pending) = self.pending.front() {
            if draft.add_encoded(pending.encoded()).is_err() {
                break;
            }
            self.pending_bytes = self.pending_bytes.saturating_sub(pending.len());
            self.pending.pop_front();
            moved = true;
        }
        moved
    }

    fn push(&mut self, pending: Pending) {
        self.pending_bytes += pending.len();
        self.pending.push_back(pending);
    }

    /// What a subject is remembered by: without the exchange's key, no dictionary finds it.
    fn hashed(&self, subject: &[u8]) -> [u8; 16] {
        let digest = Sha256::new().chain_update(self.key.as_bytes()).chain_update(subject).finalize();
        std::array::from_fn(|at| digest[at])
    }
}

impl std::fmt::Debug for FurtherFields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FurtherFields").field("waiting", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Pending {
    fn len(&self) -> usize {
        match self {
            Self::Subject(value) => value.len(),
            Self::Committed { path, values, .. } => path.len() + values.len(),
            Self::Beyond(_) => 8,
        }
    }

    /// As an encoded FurtherField; written here, so that no copy is left behind unwiped.
    fn encoded(&self) -> Zeroizing<Vec<u8>> {
        let mut field = Zeroizing::new(Vec::with_capacity(self.len() + 32));
        match self {
            Self::Subject(value) => put(&mut field, 1, value),
            Self::Committed { path, response, hashed, values } => {
                let mut inner = Zeroizing::new(Vec::with_capacity(self.len() + 16));
                if !path.is_empty() {
                    put(&mut inner, 1, path.as_bytes());
                }
                if *response {
                    put_number(&mut inner, 2, 1);
                }
                inner.extend_from_slice(values);
                if *hashed {
                    put_number(&mut inner, 4, 1);
                }
                put(&mut field, 2, &inner);
            }
            Self::Beyond(count) => put_number(&mut field, 3, *count),
        }
        field
    }
}

/// One more of `values`. The buffer grows by way of another one: what it leaves is wiped.
fn put_value(values: &mut Zeroizing<Vec<u8>>, value: &[u8]) {
    let needed = values.len() + value.len() + 16;
    if needed > values.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * values.len())));
        larger.extend_from_slice(values);
        *values = larger;
    }
    put(values, 3, value);
}

fn put(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn put_number(out: &mut Vec<u8>, tag: u32, number: u64) {
    encode_key(tag, WireType::Varint, out);
    encode_varint(number, out);
}

#[cfg(test)]
mod tests;
