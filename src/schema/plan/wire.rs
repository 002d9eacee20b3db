//! Reading protobuf's wire format from a slice: varints, tags, lengths.

use super::table::{FIXED32, FIXED64, LENGTH, VARINT};

/// What is wrong with bytes, in words.
pub(super) type What = &'static str;

pub(super) const TRUNCATED: What = "it ends in the middle of a field";
pub(super) const LONG_VARINT: What = "a varint of more than 64 bits";
pub(super) const BAD_TAG: What = "a field tag with a number or wire type that protobuf does not have";
pub(super) const OVERRUN: What = "a length that goes beyond what holds it";
pub(super) const GROUP: What = "a group, which is refused: use a message field";
pub(super) const PACKED_OVERRUN: What = "packed values that end in the middle of one";

/// A tag is a varint of 32 bits. Values and lengths may have more bytes than they need, tags may not have more than these.
const MAX_TAG_BYTES: usize = 5;

/// A varint of up to ten bytes and 64 bits.
#[inline(always)]
pub(super) fn varint(buf: &[u8], pos: &mut usize) -> Result<u64, What> {
    match buf.get(*pos) {
        Some(&byte) if byte < 0x80 => {
            *pos += 1;
            Ok(u64::from(byte))
        }
        _ => long_varint(buf, pos),
    }
}

fn long_varint(buf: &[u8], pos: &mut usize) -> Result<u64, What> {
    let mut value = 0;
    let mut shift = 0;
    while let Some(&byte) = buf.get(*pos) {
        // The tenth byte has the 64th bit, and nothing else.
        if shift == 63 && byte > 1 {
            return Err(LONG_VARINT);
        }
        *pos += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
        shift += 7;
    }
    Err(TRUNCATED)
}

/// A field's tag: its number and wire type.
#[inline(always)]
pub(super) fn tag(buf: &[u8], pos: &mut usize) -> Result<(u32, u8), What> {
    let start = *pos;
    let tag = u32::try_from(varint(buf, pos)?).map_err(|_| BAD_TAG)?;
    if tag < 8 || *pos - start > MAX_TAG_BYTES {
        return Err(BAD_TAG);
    }
    Ok((tag >> 3, (tag & 7) as u8))
}

/// Skips a value of a wire type; what is returned is where the value begins, after its length if it has one.
#[inline(always)]
pub(super) fn value(wire: u8, buf: &[u8], pos: &mut usize) -> Result<usize, What> {
    let start = *pos;
    let (start, end) = match wire {
        VARINT => {
            varint(buf, pos)?;
            return Ok(start);
        }
        LENGTH => {
            let length = varint(buf, pos)?;
            let end = usize::try_from(length).ok().and_then(|length| pos.checked_add(length)).ok_or(OVERRUN)?;
            (*pos, end)
        }
        FIXED64 => (start, start + 8),
        FIXED32 => (start, start + 4),
        3 | 4 => return Err(GROUP),
        _ => return Err(BAD_TAG),
    };
    if end > buf.len() {
        return Err(if wire == LENGTH { OVERRUN } else { TRUNCATED });
    }
    *pos = end;
    Ok(start)
}

/// How many bytes a number takes as a varint.
pub(super) fn varint_len(value: u32) -> u32 {
    ((31 - (value | 1).leading_zeros()) * 9 + 73) / 64
}

/// Writes a varint.
pub(super) fn put_varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
