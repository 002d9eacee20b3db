//! SplitMix64: small, seeded, the same everywhere. For synthetic data only, never for secrets.

/// A stream of numbers from a seed.
#[derive(Debug, Clone)]
pub(in crate::cli::demo) struct Rng(u64);

impl Rng {
    pub(in crate::cli::demo) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From a text: what is said of somebody is the same whenever it is asked.
    pub(in crate::cli::demo) fn of(text: &str) -> Self {
        // FNV-1a, 64 bits.
        Self(text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)))
    }

    pub(in crate::cli::demo) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included; `low` where the range is empty.
    pub(in crate::cli::demo) fn range(&mut self, low: i64, high: i64) -> i64 {
        let width = u64::try_from(high.saturating_sub(low)).unwrap_or(0).saturating_add(1);
        // Below 2^63, as the width came from a positive i64 plus one: the sum cannot leave [low, high].
        low + i64::try_from(self.next() % width).unwrap_or(0)
    }

    /// True in `percent` of cases.
    pub(in crate::cli::demo) fn chance(&mut self, percent: u8) -> bool {
        self.next() % 100 < u64::from(percent)
    }

    /// One of a list that is not empty.
    pub(in crate::cli::demo) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        let index = usize::try_from(self.next() % list.len() as u64).unwrap_or(0);
        list[index]
    }
}
