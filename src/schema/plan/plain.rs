//! Fields of which nothing is of note: any value of theirs is right if it is well formed, and goes on or does not. Most fields of
//! most messages are such, and the walk skips them here, many at once. What is not such a field, or not as short as fields mostly
//! are, or malformed, is left to the walk, which looks at everything.
//!
//! Texts are not checked one by one, but in runs: where only ASCII stands between them (tags, lengths and numbers of one byte),
//! texts are UTF-8 exactly if all of the run is, since ASCII is part of no longer letter.

use super::cut::Frame;
use super::table::{FIXED32, FIXED64, Form, LENGTH, NO_BIT, Node, PACKABLE, Slot, VARINT, WITHHELD};
use super::utf8;
use super::walk::{Fault, NOT_UTF8, Walk, Walked};
use super::wire;

/// What a tag begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    /// What is not skipped here.
    Not,
    /// A text that goes on.
    Text,
    /// A varint that goes on.
    Varint,
    /// Another such field.
    Other,
}

impl Plain {
    fn of(slot: Slot) -> Self {
        let is_plain = slot.flags & !(PACKABLE | WITHHELD) == 0 && slot.bit == NO_BIT;
        match slot.form {
            Form::Text if is_plain && !slot.has(WITHHELD) => Self::Text,
            Form::Varint if is_plain && !slot.has(WITHHELD) => Self::Varint,
            Form::Text | Form::Varint | Form::Bytes | Form::Fixed32 | Form::Fixed64 if is_plain => Self::Other,
            _ => Self::Not,
        }
    }

    /// By tag, of fields by number; empty where there are none.
    pub(super) fn table(dense: &[Slot]) -> Box<[Self]> {
        let mut tags = Vec::new();
        for (number, slot) in dense.iter().enumerate() {
            let plain = Self::of(*slot);
            if plain != Self::Not {
                tags.resize(number << 3 | usize::from(slot.wire), Self::Not);
                tags.push(plain);
            }
        }
        tags.into()
    }
}

impl Walk<'_, '_> {
    /// Skips such fields, from that at `pos` on, of the message that is `buf` from `begin` to its end. Returns where the first
    /// field begins that is none, or its end.
    #[inline(never)]
    pub(super) fn skip(
        &mut self,
        node: &Node,
        buf: &[u8],
        begin: usize,
        pos: usize,
        frame: &Frame<'_>,
    ) -> Walked<usize> {
        let mut rest = buf.get(pos..).unwrap_or_default();
        // How much was left where the run of texts began; nothing if there is none.
        let mut run = 0;
        loop {
            (rest, run) = skip_short(&node.plain, rest, run);
            let Some((tag, length, value)) = head(rest) else { break };
            if node.plain.get(tag).is_none_or(|plain| *plain == Plain::Not) {
                break;
            }
            let slot = node.slot(tag as u32 >> 3);
            let bytes = match slot.form {
                Form::Varint => 0,
                Form::Fixed32 => 3,
                Form::Fixed64 => 7,
                _ => length,
            };
            let Some(next) = value.get(bytes..) else { break };
            // Between texts of a run there is nothing but ASCII.
            let is_text = slot.form == Form::Text;
            if !(is_text && rest.len() - value.len() == 2) {
                if !is_right(buf, run, rest) {
                    return Err(not_utf8(node, buf, begin));
                }
                run = 0;
            }
            if is_text {
                run = run.max(value.len());
            }
            if slot.has(WITHHELD) {
                self.withhold(slot, frame, buf.len() - rest.len(), buf.len() - next.len());
            }
            rest = next;
        }
        if is_right(buf, run, rest) { Ok(buf.len() - rest.len()) } else { Err(not_utf8(node, buf, begin)) }
    }
}

/// Skips texts and numbers that go on, whose tags and lengths, and numbers, have one byte. Returns what follows them, and `run` as
/// it is then.
#[inline(always)]
fn skip_short<'b>(tags: &[Plain], mut rest: &'b [u8], mut run: usize) -> (&'b [u8], usize) {
    while let [tag, length, value @ ..] = rest
        && tag | length < 0x80
    {
        match tags.get(usize::from(*tag)) {
            Some(Plain::Text) => {
                let Some(next) = value.get(usize::from(*length)..) else { break };
                run = run.max(value.len());
                rest = next;
            }
            Some(Plain::Varint) => rest = value,
            _ => break,
        }
    }
    (rest, run)
}

/// Whether the run of texts that ends before `rest` is UTF-8.
#[inline(always)]
fn is_right(buf: &[u8], run: usize, rest: &[u8]) -> bool {
    // A text without a byte begins no run.
    run <= rest.len() || buf.get(buf.len().wrapping_sub(run)..buf.len() - rest.len()).is_some_and(utf8::is_utf8)
}

/// Which text is not UTF-8, of the fields of the message from `begin` on.
#[cold]
fn not_utf8(node: &Node, buf: &[u8], mut pos: usize) -> Box<Fault> {
    let mut field = || {
        let (number, wire) = wire::tag(buf, &mut pos)?;
        Ok::<_, wire::What>((node.slot(number), wire, wire::value(wire, buf, &mut pos)?..pos))
    };
    while let Ok((slot, wire, value)) = field() {
        if slot.form == Form::Text && wire == LENGTH && !utf8::is_utf8(&buf[value]) {
            return Fault::malformed(NOT_UTF8).within(slot.field);
        }
    }
    Fault::malformed(NOT_UTF8)
}

/// A field's tag, the length that follows it, and what follows that; of a varint, what follows the field, and of a fixed number
/// what follows its first byte. None where they are longer than mostly.
#[inline(always)]
fn head(field: &[u8]) -> Option<(usize, usize, &[u8])> {
    let (tag, after) = match field {
        [tag, after @ ..] if *tag < 0x80 => (usize::from(*tag), after),
        [low, high, after @ ..] if *high < 0x80 => (two(*low, *high), after),
        _ => return None,
    };
    match (tag as u8 & 7, after) {
        // With nine bytes it has less than 64 bits.
        (VARINT, _) => {
            let last = after.iter().take(9).position(|byte| *byte < 0x80)?;
            Some((tag, 0, after.get(last + 1..)?))
        }
        (LENGTH, [length, value @ ..]) if *length < 0x80 => Some((tag, usize::from(*length), value)),
        (LENGTH, [low, high, value @ ..]) if *high < 0x80 => Some((tag, two(*low, *high), value)),
        (FIXED32 | FIXED64, [_, value @ ..]) => Some((tag, 0, value)),
        _ => None,
    }
}

/// A varint of two bytes.
fn two(low: u8, high: u8) -> usize {
    usize::from(low & 0x7f) | usize::from(high) << 7
}
