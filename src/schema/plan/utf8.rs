//! Is it UTF-8? In blocks, for the scripts of one and two bytes a letter: ASCII, Latin, Greek, Cyrillic; the standard library
//! answers for the rest.
//!
//! With letters of one or two bytes, a text is UTF-8 if its first byte is no continuation, its last is no lead, and for every two
//! bytes that follow each other: the second is a continuation exactly if the first is a lead, and leads are from C2 to DF. Pairs may
//! be looked at in any order and twice, so the last block may overlap the one before. The loops over arrays become SIMD.

const BLOCK: usize = 16;
const SMALL: usize = 8;

/// Whether bytes are UTF-8.
#[inline]
pub(super) fn is_utf8(text: &[u8]) -> bool {
    let Some((first, last)) = text.first().zip(text.last()) else { return true };
    if text.len() <= SMALL {
        return std::str::from_utf8(text).is_ok();
    }
    let wrong = if text.len() <= BLOCK { wrong::<SMALL>(text) } else { wrong::<BLOCK>(text) };
    let is_short = !wrong && !is_continuation(*first) && *last < 0xc0;
    is_short || std::str::from_utf8(text).is_ok()
}

/// Whether any two bytes cannot follow each other in letters of at most two bytes. The text is longer than a block.
#[inline(always)]
fn wrong<const N: usize>(text: &[u8]) -> bool {
    let mut wrong = [false; N];
    let mut at = 0;
    let last = text.len() - 1 - N;
    loop {
        at = at.min(last);
        let (Some(before), Some(after)) = (text[at..].first_chunk::<N>(), text[at + 1..].first_chunk::<N>()) else {
            return true;
        };
        for index in 0..N {
            wrong[index] |= is_wrong(before[index], after[index]);
        }
        if at == last {
            return wrong.contains(&true);
        }
        at += N;
    }
}

#[inline(always)]
fn is_wrong(before: u8, after: u8) -> bool {
    let is_lead = before >= 0xc0;
    let is_good = before.wrapping_sub(0xc2) < 0x1e;
    (is_lead != is_continuation(after)) | (is_lead & !is_good)
}

#[inline(always)]
fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}
