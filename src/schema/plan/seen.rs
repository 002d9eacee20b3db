//! Which fields of a message have come.

/// Which fields of a message have come, by seen bit.
#[derive(Debug, Default)]
pub(super) struct Seen {
    first: u64,
    more: Vec<u64>,
}

impl Seen {
    #[inline]
    pub(super) fn has(&self, bit: u16) -> bool {
        match bit.checked_sub(64) {
            None => self.first >> bit & 1 == 1,
            Some(bit) => self.more.get(usize::from(bit / 64)).is_some_and(|word| word >> (bit % 64) & 1 == 1),
        }
    }

    /// Whether it had been seen before.
    #[inline]
    pub(super) fn insert(&mut self, bit: u16) -> bool {
        let had = self.has(bit);
        match bit.checked_sub(64) {
            None => self.first |= 1 << bit,
            Some(bit) => {
                let word = usize::from(bit / 64);
                if self.more.len() <= word {
                    self.more.resize(word + 1, 0);
                }
                self.more[word] |= 1 << (bit % 64);
            }
        }
        had
    }
}
