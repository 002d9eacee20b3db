//! Tiles and entry bundles as C2SP tlog-tiles has them: what they are called, and what is in them. Pure.
//!
//! ```text
//! tile/<L>/<N>[.p/<W>]         W hashes of 32 bytes (256 in a full tile): hash i is the root over leaves
//!                              [(N·256 + i)·256^L, (N·256 + i + 1)·256^L)
//! tile/entries/<N>[.p/<W>]     W entries (256), each u16 big-endian length ‖ bytes
//! N                            groups of three digits, all but the last prefixed with x: 1234067 is x001/x234/067
//! ```

use std::fmt;

use bytes::Bytes;

use super::tree::{Hash, TILE_LEAVES, TILE_LEVELS};

/// The highest tile level that a tree can have.
pub const MAX_LEVEL: u8 = 63;

/// Hashes in a full tile, and entries in a full bundle.
pub const FULL: u16 = 256;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Entries.
    Entries,
    /// Hashes of this tile level: 0 has leaves' hashes, 1 roots over 256 leaves each, and so on.
    Hashes(u8),
}

/// A tile or bundle, full or partial. `Display` prints its path below the log's URL prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// What it holds.
    pub kind: Kind,
    /// Its number at its level, from 0.
    pub number: u64,
    /// How many hashes or entries it has: 1 to 256.
    pub width: u16,
}

/// What is wrong with a bundle's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// An entry is announced as longer than what follows.
    #[error("the bundle ends in the middle of entry {0}")]
    Torn(usize),
    /// There are fewer or more entries than the tile's width.
    #[error("the bundle has {got} entries, not {want}")]
    Count {
        /// Entries found.
        got: usize,
        /// The width.
        want: usize,
    },
}

impl Tile {
    /// Reads a path below the log's URL prefix; none where it is no tile's, or not written as it must be.
    pub fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("tile/")?;
        let (level, rest) = rest.split_once('/')?;
        let kind = match level {
            "entries" => Kind::Entries,
            level => Kind::Hashes(decimal(level)?.try_into().ok().filter(|level| *level <= MAX_LEVEL)?),
        };
        let (number, width) = match rest.split_once(".p/") {
            None => (rest, FULL),
            Some((number, width)) => {
                let width = u16::try_from(decimal(width)?).ok().filter(|width| (1..FULL).contains(width))?;
                (number, width)
            }
        };
        let tile = Self { kind, number: parse_number(number)?, width };
        // One way to write each.
        (tile.to_string() == path).then_some(tile)
    }

    /// Whether it has all it can have, and never changes.
    pub fn is_full(&self) -> bool {
        self.width == FULL
    }

    /// The full tile of the same place.
    pub fn full(self) -> Self {
        Self { width: FULL, ..self }
    }

    /// How many leaves of the tree each of its hashes (or entries) spans; none where that is beyond 64 bits.
    pub fn span(&self) -> Option<u64> {
        match self.kind {
            Kind::Entries => Some(1),
            Kind::Hashes(level) => 1_u64.checked_shl(u32::from(level) * TILE_LEVELS),
        }
    }

    /// All tiles that a tree of `size` leaves has and one of `old` leaves had not, full before partial at each level,
    /// bundles first. With `old` 0, all.
    pub fn between(old: u64, size: u64) -> impl Iterator<Item = Self> {
        let levels = std::iter::once(Kind::Entries).chain((0..8).map(Kind::Hashes));
        levels.flat_map(move |kind| {
            let shift = match kind {
                Kind::Entries => 0,
                Kind::Hashes(level) => u32::from(level) * TILE_LEVELS,
            };
            let (had, has) = (old >> shift, size >> shift);
            let first = if had == has { has.div_ceil(TILE_LEAVES) } else { had / TILE_LEAVES };
            (first..has.div_ceil(TILE_LEAVES)).map(move |number| {
                let width = (has - number * TILE_LEAVES).min(TILE_LEAVES) as u16;
                Self { kind, number, width }
            })
        })
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Entries => f.write_str("tile/entries/")?,
            Kind::Hashes(level) => write!(f, "tile/{level}/")?,
        }
        let mut groups = vec![self.number % 1_000];
        let mut rest = self.number / 1_000;
        while rest > 0 {
            groups.push(rest % 1_000);
            rest /= 1_000;
        }
        for group in groups[1..].iter().rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups[0])?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

/// Adds an entry to a bundle. An entry has at most 65,535 bytes: the log takes no longer one.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    debug_assert!(entry.len() <= super::entry::MAX_ENTRY);
    bundle.extend_from_slice(&(entry.len() as u16).to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// The entries of a bundle, without copying.
pub fn entries(bundle: &Bytes, width: u16) -> Result<Vec<Bytes>, BundleError> {
    let want = usize::from(width);
    let mut entries = Vec::with_capacity(want);
    let mut at = 0;
    while at < bundle.len() {
        let torn = BundleError::Torn(entries.len());
        let length = bundle.get(at..at + 2).ok_or(torn)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        at += 2;
        if bundle.len() - at < length {
            return Err(torn);
        }
        entries.push(bundle.slice(at..at + length));
        at += length;
        if entries.len() > want {
            break;
        }
    }
    if entries.len() == want { Ok(entries) } else { Err(BundleError::Count { got: entries.len(), want }) }
}

/// The hashes of a tile; none where it has not exactly `width`.
pub fn hashes(tile: &[u8], width: u16) -> Option<Vec<Hash>> {
    let (hashes, rest) = tile.as_chunks::<32>();
    (rest.is_empty() && hashes.len() == usize::from(width)).then(|| hashes.iter().map(|hash| Hash(*hash)).collect())
}

fn parse_number(text: &str) -> Option<u64> {
    let mut number = 0_u64;
    let mut groups = text.split('/').peekable();
    while let Some(group) = groups.next() {
        let digits = if groups.peek().is_some() { group.strip_prefix('x')? } else { group };
        if digits.len() != 3 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        number = number.checked_mul(1_000)?.checked_add(digits.parse().ok()?)?;
    }
    Some(number)
}

/// Decimal digits without a leading zero or sign.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_of_the_specification() {
        let tile = |kind, number, width| Tile { kind, number, width };
        for (tile, path) in [
            (tile(Kind::Hashes(0), 0, 256), "tile/0/000"),
            (tile(Kind::Hashes(1), 1_234_067, 256), "tile/1/x001/x234/067"),
            (tile(Kind::Entries, 999, 7), "tile/entries/999.p/7"),
            (tile(Kind::Entries, 1_000, 256), "tile/entries/x001/000"),
            (tile(Kind::Hashes(63), 5, 255), "tile/63/005.p/255"),
        ] {
            assert_eq!(tile.to_string(), path);
            assert_eq!(Tile::parse(path), Some(tile));
        }
        for path in [
            "tile/0/0",
            "tile/00/000",
            "tile/64/000",
            "tile/0/x000/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/07",
            "tile/0/1000",
            "tile/0/x01/000",
            "tile/-1/000",
            "tile/+1/000",
            "tile/data/000",
            "tile/0/000/",
            "/tile/0/000",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
            "checkpoint",
        ] {
            assert_eq!(Tile::parse(path), None, "{path}");
        }
    }

    #[test]
    fn bundles_hold_what_was_put_in() {
        let mut bundle = Vec::new();
        for entry in [&b"one"[..], b"", &[7; 65_535]] {
            push_entry(&mut bundle, entry);
        }
        let bundle = Bytes::from(bundle);
        assert_eq!(entries(&bundle, 3).unwrap(), [&b"one"[..], b"", &[7; 65_535]]);
        assert_eq!(entries(&bundle, 2), Err(BundleError::Count { got: 3, want: 2 }));
        assert_eq!(entries(&bundle, 4), Err(BundleError::Count { got: 3, want: 4 }));
        assert_eq!(entries(&bundle.slice(..bundle.len() - 1), 3), Err(BundleError::Torn(2)));
        assert_eq!(entries(&bundle.slice(..1), 1), Err(BundleError::Torn(0)));
    }

    proptest! {
        #[test]
        fn growing_step_by_step_makes_all_tiles(sizes in proptest::collection::vec(0_u64..70_000, 1..6)) {
            let mut sizes = sizes;
            sizes.sort_unstable();
            let mut made = std::collections::BTreeSet::new();
            let mut old = 0;
            for size in sizes {
                made.extend(Tile::between(old, size));
                old = size;
            }
            // Every tile of the last size is there, and none is empty.
            for tile in Tile::between(0, old) {
                prop_assert!(tile.width > 0);
                prop_assert!(made.contains(&tile), "{tile}");
                prop_assert_eq!(Tile::parse(&tile.to_string()), Some(tile));
            }
        }
    }
}
