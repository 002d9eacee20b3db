//! What is cut out of a message: ranges, and the lengths of the messages around them. Kept in the order of the bytes, so that
//! what remains is copied once, in as few pieces as there are.

use std::cell::Cell;

use bytes::Bytes;

use super::wire::{put_varint, varint_len};

/// Cuts of one message.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    edits: Vec<Edit>,
    /// How many bytes there will be fewer.
    removed: u32,
}

/// Bytes that are replaced: by nothing, or by a length.
#[derive(Debug, Clone, Copy)]
struct Edit {
    start: u32,
    end: u32,
    length: Option<u32>,
}

/// Who drops one field, mostly drops several.
const FEW: usize = 16;

const NONE: usize = usize::MAX;

/// A message within the message, while it is walked.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// What holds it; nothing holds the root.
    holder: Option<&'a Self>,
    /// Where its length stands, and where it begins.
    at: u32,
    start: u32,
    removed_before: u32,
    /// Which edit is that of its length, once something in it was cut.
    edit: Cell<usize>,
}

impl<'a> Frame<'a> {
    pub(super) fn root() -> Self {
        Self { holder: None, at: 0, start: 0, removed_before: 0, edit: Cell::new(NONE) }
    }

    /// A message whose length stands at `at` and that begins at `start`.
    #[inline]
    pub(super) fn within(holder: &'a Self, at: usize, start: usize, cuts: &Cuts) -> Self {
        Self {
            holder: Some(holder),
            at: at as u32,
            start: start as u32,
            removed_before: cuts.removed,
            edit: Cell::new(NONE),
        }
    }

    /// Makes room for its length and those around it.
    fn open(&self, cuts: &mut Cuts) {
        let Some(holder) = self.holder else { return };
        if self.edit.get() == NONE {
            holder.open(cuts);
            self.edit.set(cuts.edits.len());
            cuts.edits.push(Edit { start: self.at, end: self.start, length: Some(0) });
        }
    }
}

impl Cuts {
    /// Drops what is between two places of the message that `frame` is.
    pub(super) fn cut(&mut self, frame: &Frame<'_>, start: usize, end: usize) {
        frame.open(self);
        let (start, end) = (start as u32, end as u32);
        if self.edits.capacity() == 0 {
            self.edits.reserve(FEW);
        }
        // What was cut inside goes with it.
        while let Some(inner) = self.edits.pop_if(|edit| edit.start >= start) {
            self.removed -= inner.end - inner.start - inner.length.map_or(0, varint_len);
        }
        self.removed += end - start;
        match self.edits.last_mut() {
            Some(last) if last.length.is_none() && last.end == start => last.end = end,
            _ => self.edits.push(Edit { start, end, length: None }),
        }
    }

    /// A frame's message has ended: its length is known.
    #[inline]
    pub(super) fn close(&mut self, frame: &Frame<'_>, end: usize) {
        if frame.edit.get() != NONE {
            self.set_length(frame, end);
        }
    }

    fn set_length(&mut self, frame: &Frame<'_>, end: usize) {
        let length = end as u32 - frame.start - (self.removed - frame.removed_before);
        self.removed += frame.start - frame.at - varint_len(length);
        if let Some(edit) = self.edits.get_mut(frame.edit.get()) {
            edit.length = Some(length);
        }
    }

    /// What remains of the message; none where that is all of it.
    #[inline]
    pub(super) fn apply(&self, message: &[u8]) -> Option<Bytes> {
        if self.edits.is_empty() { None } else { Some(self.apply_edits(message)) }
    }

    fn apply_edits(&self, message: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(message.len() - self.removed as usize);
        let mut copied = 0;
        for edit in &self.edits {
            out.extend_from_slice(&message[copied..edit.start as usize]);
            copied = edit.end as usize;
            if let Some(length) = edit.length {
                put_varint(length, &mut out);
            }
        }
        out.extend_from_slice(&message[copied..]);
        out.into()
    }
}
