//! Is it UTF-8? In blocks, for the scripts of one and two bytes a letter: ASCII, Latin, Greek, Cyrillic; the standard library
//! answers for the rest.
//!
//! With letters of one or two bytes, a text is UTF-8 if its first byte is no continuation, its last is no lead, and for every two
//! bytes that follow each other: the second is a continuation exactly if the first is a lead, and leads are from C2 to DF. Pairs may
//! be looked at in any order and twice, so the last block may overlap the one before. The loops over arrays become SIMD.

const BLOCK: usize = 32;
const HALF: usize = 16;
const WORD: usize = 8;

/// Whether bytes are UTF-8.
#[inline]
pub(super) fn is_utf8(mut text: &[u8]) -> bool {
    while let Some((block, rest)) = text.split_first_chunk()
        && is_ascii(block)
    {
        text = rest;
    }
    let Some((first, last)) = text.first().zip(text.last()) else { return true };
    let right = match text.len() {
        length if length <= WORD => false,
        length if length <= HALF => is_short_in_words(text),
        length if length <= BLOCK => is_short::<HALF>(text),
        _ => is_short::<BLOCK>(text),
    };
    let is_short = right && !is_continuation(*first) && *last < 0xc0;
    is_short || std::str::from_utf8(text).is_ok()
}

#[inline(always)]
fn is_ascii(block: &[u8; BLOCK]) -> bool {
    !any_is_high(block)
}

/// Whether any byte has its highest bit.
#[inline(always)]
fn any_is_high(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |any, byte| any | (*byte >= 0x80))
}

/// Whether any two bytes can follow each other in letters of at most two bytes. The text is longer than a block.
#[inline(always)]
fn is_short<const N: usize>(text: &[u8]) -> bool {
    let (befores, afters) = (&text[..text.len() - 1], &text[1..]);
    let (Some(last_before), Some(last_after)) = (befores.last_chunk::<N>(), afters.last_chunk::<N>()) else {
        return false;
    };
    let mut pairs = Pairs::<N>::new();
    for (before, after) in befores.as_chunks::<N>().0.iter().zip(afters.as_chunks::<N>().0) {
        pairs.add(before, after);
    }
    pairs.add(last_before, last_after);
    pairs.are_right()
}

/// What is known of pairs of bytes, in as many lanes as there are in a block.
struct Pairs<const N: usize> {
    /// The highest bit: a lead without a continuation or the other way round.
    odd: [u8; N],
    /// The greatest byte: none is the lead of a longer letter.
    most: [u8; N],
    /// The greatest, where [`C2`] is the least: none is a lead that no letter needs.
    most_from_c2: [u8; N],
}

const C2: u8 = 0xc2;

impl<const N: usize> Pairs<N> {
    #[inline(always)]
    fn new() -> Self {
        Self { odd: [0; N], most: [0; N], most_from_c2: [0; N] }
    }

    #[inline(always)]
    fn add(&mut self, before: &[u8; N], after: &[u8; N]) {
        for at in 0..N {
            let (before, after) = (before[at], after[at]);
            // Of a byte that is not ASCII and no continuation, the highest bit stays: it is a lead.
            self.odd[at] |= before ^ continuation(before) ^ continuation(after);
            self.most[at] = self.most[at].max(before);
            self.most_from_c2[at] = self.most_from_c2[at].max(before.wrapping_sub(C2));
        }
    }

    #[inline(always)]
    fn are_right(&self) -> bool {
        let mut wrong = self.odd;
        for (wrong, (most, most_from_c2)) in wrong.iter_mut().zip(self.most.iter().zip(&self.most_from_c2)) {
            let long = if *most >= 0xe0 { 0xff } else { 0 };
            let needless = if *most_from_c2 >= 0xfe { 0xff } else { 0 };
            *wrong |= long | needless;
        }
        !any_is_high(&wrong)
    }
}

/// The highest bit of each byte.
const HIGHEST: u64 = 0x8080_8080_8080_8080;

/// The same of a text that is longer than a word, and not than two.
#[inline(always)]
fn is_short_in_words(text: &[u8]) -> bool {
    let (befores, afters) = (&text[..text.len() - 1], &text[1..]);
    let first = befores.first_chunk().zip(afters.first_chunk());
    let last = befores.last_chunk().zip(afters.last_chunk());
    let Some(((b0, a0), (b1, a1))) = first.zip(last) else { return false };
    let wrong = |before: &[u8; WORD], after: &[u8; WORD]| {
        let (before, after) = (u64::from_le_bytes(*before), u64::from_le_bytes(*after));
        let lead = before & before << 1;
        let long = lead & before << 2;
        let needed = (before & 0x3e3e_3e3e_3e3e_3e3e) + 0x7e7e_7e7e_7e7e_7e7e;
        (lead ^ (after & !(after << 1))) | long | (lead & !needed)
    };
    (wrong(b0, a0) | wrong(b1, a1)) & HIGHEST == 0
}

/// All bits, of a continuation.
#[inline(always)]
fn continuation(byte: u8) -> u8 {
    if is_continuation(byte) { 0xff } else { 0 }
}

#[inline(always)]
fn is_continuation(byte: u8) -> bool {
    (byte as i8) < -64
}
