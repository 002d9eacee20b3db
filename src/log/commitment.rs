//! Commitments to what an entry does not publish: one hash in the entry, openable field by field.
//!
//! Pure. From the exchange's 32 random bytes K comes a salt for every slot, from salt and value the slot's commitment,
//! and the entry carries the RFC 6962 root over the slots. A slot without a value looks like one with: its commitment
//! is also derived from K. Without K nothing can be guessed from the root, however few the possible values, and once K
//! is destroyed nothing ever can.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::proof::{self, ProofError};
use super::tree::{Hash, Subtrees};

/// How many slots an entry commits to at least; those without a value are there all the same.
pub const SLOTS: u8 = 8;

/// The root over slots 0 to 7, or as far as values go, each given with its number; the last value of a slot counts.
pub fn root(key: &[u8; 32], fields: &[(u8, &[u8])]) -> Hash {
    Slots::new(key, fields).root()
}

/// The root, and the openings of those of `open` that have a value: as [`root`] and [`Opening::new`], in one go.
pub fn commit(key: &[u8; 32], fields: &[(u8, &[u8])], open: &[u8]) -> (Hash, Vec<Opening>) {
    let slots = Slots::new(key, fields);
    (slots.root(), open.iter().filter_map(|slot| slots.open(*slot)).collect())
}

/// What opens one slot of a commitment to whoever is shown it: value, salt, and the way to the root.
#[derive(Clone, PartialEq, Eq)]
pub struct Opening {
    /// Number of the slot.
    pub slot: u8,
    /// The slot's salt. Nothing about other slots follows from it.
    pub salt: [u8; 32],
    /// The value committed to.
    pub value: Vec<u8>,
    /// How many slots the commitment has.
    pub slots: u8,
    /// The audit path of the slot among the slots.
    pub path: Vec<Hash>,
}

impl Opening {
    /// Opens a slot; none where it has no value.
    pub fn new(key: &[u8; 32], fields: &[(u8, &[u8])], slot: u8) -> Option<Self> {
        Slots::new(key, fields).open(slot)
    }

    /// Checks that this value is what the commitment with this root holds in the slot.
    pub fn verify(&self, root: Hash) -> Result<(), ProofError> {
        let leaf = Hash::of_leaf(&committed(self.slot, &self.salt, &self.value));
        proof::verify_inclusion(leaf, self.slot.into(), self.slots.into(), &self.path, root)
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// The slots of one commitment, hashed.
struct Slots<'f> {
    key: Hmac<Sha256>,
    values: Vec<Option<&'f [u8]>>,
    /// Complete subtrees: the leaves, the nodes above two of them, and so on.
    levels: Vec<Vec<Hash>>,
}

impl<'f> Slots<'f> {
    fn new(key: &[u8; 32], fields: &[(u8, &'f [u8])]) -> Self {
        let key = keyed(key);
        let count = fields.iter().map(|(slot, _)| slot.saturating_add(1)).fold(SLOTS, u8::max);
        let mut values = vec![None; count.into()];
        for (slot, value) in fields {
            // There is no slot 255: a commitment has at most 255.
            if let Some(place) = values.get_mut(usize::from(*slot)) {
                *place = Some(*value);
            }
        }
        let leaf = |(slot, value): (u8, &Option<&[u8]>)| {
            Hash::of_leaf(&match value {
                Some(value) => committed(slot, &salt(&key, slot), value),
                None => derived(&key, b"kopuro/absent/v1", slot),
            })
        };
        let mut levels = vec![(0..count).zip(&values).map(leaf).collect::<Vec<_>>()];
        while let Some(below) = levels.last().filter(|below| below.len() > 1) {
            let above = below.as_chunks::<2>().0.iter().map(|[left, right]| Hash::of_node(left, right)).collect();
            levels.push(above);
        }
        Self { key, values, levels }
    }

    fn root(&self) -> Hash {
        let Ok(root) = Levels(&self.levels).root_of(0, self.values.len() as u64);
        root
    }

    fn open(&self, slot: u8) -> Option<Opening> {
        let value = (*self.values.get(usize::from(slot))?)?.to_vec();
        let count = self.values.len();
        let path = proof::inclusion(&mut Levels(&self.levels), slot.into(), count as u64).ok()?;
        // At most 255, by the slots' numbers.
        Some(Opening { slot, salt: salt(&self.key, slot), value, slots: count as u8, path })
    }
}

/// HMAC under the exchange's key, which costs half of each HMAC and is the same for all slots.
fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn salt(key: &Hmac<Sha256>, slot: u8) -> [u8; 32] {
    derived(key, b"kopuro/salt/v1", slot)
}

fn derived(key: &Hmac<Sha256>, label: &[u8], slot: u8) -> [u8; 32] {
    key.clone().chain_update(label).chain_update([slot]).finalize().into_bytes().into()
}

fn committed(slot: u8, salt: &[u8; 32], value: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(b"kopuro/field/v1");
    hasher.update([0, slot]);
    hasher.update(salt);
    hasher.update(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    hasher.update(value);
    hasher.finalize().into()
}

/// Complete subtrees, level by level, as a source of roots and proofs.
struct Levels<'a>(&'a [Vec<Hash>]);

impl Subtrees for Levels<'_> {
    type Error = std::convert::Infallible;

    fn complete(&mut self, level: u32, index: u64) -> Result<Hash, Self::Error> {
        Ok(self.0[level as usize][index as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_it_committed_to_and_nothing_else() {
        let key = [7; 32];
        let fields: [(u8, &[u8]); 3] = [(0, b"digest"), (2, b"20101199912345"), (7, b"")];
        let root = root(&key, &fields);
        for (slot, value) in fields {
            let opening = Opening::new(&key, &fields, slot).unwrap();
            assert_eq!(opening.value, value);
            opening.verify(root).unwrap();
            let other = Opening { value: b"another".to_vec(), ..opening.clone() };
            assert!(other.verify(root).is_err());
            let moved = Opening { slot: (slot + 1) % 8, ..opening };
            assert!(moved.verify(root).is_err());
        }
        assert_eq!(Opening::new(&key, &fields, 1), None);
        assert_ne!(root, super::root(&[8; 32], &fields), "another key");
        assert_ne!(root, super::root(&key, &fields[..2]), "an empty value is not an absent one");
    }

    #[test]
    fn every_number_of_slots_has_the_root_of_its_tree() {
        use crate::log::tree::RightEdge;
        let key = [7; 32];
        for count in SLOTS..=u8::MAX {
            let fields: Vec<(u8, &[u8])> =
                (0..count).filter(|slot| slot % 3 > 0).map(|slot| (slot, &b"x"[..])).collect();
            let last = fields.last().map_or(SLOTS, |(slot, _)| SLOTS.max(slot + 1));
            let (root, openings) = commit(&key, &fields, &[1, 2, last - 1, 254, 255]);
            let mut edge = RightEdge::default();
            for slot in 0..last {
                edge.push(Hash::of_leaf(&match slot % 3 {
                    0 => derived(&keyed(&key), b"kopuro/absent/v1", slot),
                    _ => committed(slot, &salt(&keyed(&key), slot), b"x"),
                }));
            }
            assert_eq!(root, edge.root());
            assert!(openings.len() >= 2);
            openings.iter().for_each(|opening| opening.verify(root).unwrap());
        }
        assert_eq!(commit(&key, &[(255, b"x")], &[]).0, commit(&key, &[(255, b"y")], &[]).0, "there is no such slot");
    }

    #[test]
    fn is_what_the_design_says_byte_by_byte() {
        let hmac = |label: &[u8], slot: u8| -> [u8; 32] {
            // HMAC written out: K is shorter than a block.
            let pad = |with: u8| [[7 ^ with; 32], [with; 32]].concat();
            let inner = Sha256::digest([&pad(0x36)[..], label, &[slot]].concat());
            Sha256::digest([&pad(0x5c)[..], &inner[..]].concat()).into()
        };
        let mut leaves = Vec::new();
        for slot in 0..8 {
            let commitment = if slot == 3 {
                let salt = hmac(b"kopuro/salt/v1", 3);
                Sha256::digest([b"kopuro/field/v1\0\x03", &salt[..], &[0, 0, 0, 5], b"value"].concat()).to_vec()
            } else {
                hmac(b"kopuro/absent/v1", slot).to_vec()
            };
            leaves.push(Sha256::digest([&[0][..], &commitment].concat()).to_vec());
        }
        while leaves.len() > 1 {
            leaves = leaves.chunks(2).map(|p| Sha256::digest([&[1][..], &p[0], &p[1]].concat()).to_vec()).collect();
        }
        assert_eq!(root(&[7; 32], &[(3, b"value")]).0.to_vec(), leaves[0]);
    }
}
