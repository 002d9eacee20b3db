//! One walk over a message's bytes.

use bytes::Bytes;

use super::cut::{Cuts, Frame};
use super::seen::Seen;
use super::table::{
    COUNTED, FIXED32, FIXED64, Form, LENGTH, MAP, NO_BIT, NOTED, Node, ONCE, PACKABLE, Slot, VARINT, WITHHELD,
};
use super::utf8;
use super::wire::{self, What};
use super::{Found, MAX_DEPTH, Plan, Violation};
use crate::policy::UnknownFields;

const TOO_LONG: What = "a message of more than 2 GiB";
const TOO_DEEP: What = "messages nested more than 100 deep";
const WRONG_WIRE_TYPE: What = "its wire type is not that of the field";
pub(super) const NOT_UTF8: What = "it is not UTF-8";
const TWICE: What = "it comes more than once, or with another field of its oneof, and only one of them can count";

/// Walks `message` by `plan`.
pub(super) fn apply<'p>(plan: &'p Plan, message: &'p Bytes, found: &mut Found) -> Result<Option<Bytes>, Violation> {
    let mut walk = Walk { plan, message, found, cuts: Cuts::default(), unknown_named: (0, 0), entry_is_unknown: false };
    let Some(root) = plan.nodes.first() else { return Ok(None) };
    let frame = Frame::root();
    let walked = if i32::try_from(message.len()).is_ok() {
        walk.message(root, message, 0, MAX_DEPTH, &frame)
    } else {
        Err(Fault::malformed(TOO_LONG))
    };
    match walked {
        Ok(()) => Ok(walk.cuts.apply(message)),
        Err(fault) => Err(fault.violation(plan)),
    }
}

/// A violation on its way up: it learns the path as the walk returns.
#[derive(Debug)]
pub(super) struct Fault {
    kind: FaultKind,
    /// From the inside out, indices of fields.
    path: Vec<u32>,
}

#[derive(Debug)]
enum FaultKind {
    Malformed(What),
    Unknown(u32),
    UnknownType,
    Rule(String),
}

impl Fault {
    #[cold]
    pub(super) fn malformed(what: What) -> Box<Self> {
        Box::new(Self { kind: FaultKind::Malformed(what), path: Vec::new() })
    }

    #[cold]
    fn unknown(number: u32) -> Box<Self> {
        Box::new(Self { kind: FaultKind::Unknown(number), path: Vec::new() })
    }

    #[cold]
    fn unknown_type() -> Box<Self> {
        Box::new(Self { kind: FaultKind::UnknownType, path: Vec::new() })
    }

    #[cold]
    pub(super) fn rule(rule: String) -> Box<Self> {
        Box::new(Self { kind: FaultKind::Rule(rule), path: Vec::new() })
    }

    #[cold]
    pub(super) fn within(mut self: Box<Self>, field: u32) -> Box<Self> {
        self.path.push(field);
        self
    }

    #[cold]
    fn violation(self, plan: &Plan) -> Violation {
        let names: Vec<&str> =
            self.path.iter().rev().filter_map(|&field| Some(&*plan.fields.get(field as usize)?.name)).collect();
        let path = if names.is_empty() { plan.message.full_name().to_owned() } else { names.join(".") };
        match self.kind {
            FaultKind::Malformed(what) => Violation::Malformed { path, what },
            FaultKind::Unknown(number) => Violation::Unknown { path, number },
            FaultKind::UnknownType => Violation::UnknownType { path },
            FaultKind::Rule(rule) => Violation::Rule { path, rule },
        }
    }
}

pub(super) type Walked<T> = Result<T, Box<Fault>>;

/// The state of one walk.
pub(super) struct Walk<'p, 'f> {
    pub(super) plan: &'p Plan,
    /// All that is walked is part of it.
    pub(super) message: &'p Bytes,
    pub(super) found: &'f mut Found,
    pub(super) cuts: Cuts,
    /// The unknown field that was named last, and how many were.
    pub(super) unknown_named: (u32, u32),
    /// A map entry has come whose value is a number that its closed enum does not have.
    entry_is_unknown: bool,
}

impl<'p> Walk<'p, '_> {
    /// Walks the message that is `buf` from `pos` to its end.
    fn message(&mut self, node: &'p Node, buf: &[u8], mut pos: usize, depth: u32, frame: &Frame<'_>) -> Walked<()> {
        let begin = pos;
        let mut seen = Seen::default();
        let mut counts: Vec<usize> = vec![0; usize::from(node.counts)];
        let held = if node.any { self.held_by_any(node, buf, pos)? } else { Held::Nothing };
        if matches!(held, Held::Stripped) {
            self.strip(node, frame, 2, begin, buf.len());
            return Ok(());
        }
        let skips = !node.plain.is_empty();
        while pos < buf.len() {
            if skips {
                pos = self.skip(node, buf, begin, pos, frame)?;
                if pos >= buf.len() {
                    break;
                }
            }
            let start = pos;
            let (number, wire) = wire::tag(buf, &mut pos).map_err(Fault::malformed)?;
            let slot = node.slot(number);
            let after_tag = pos;
            if slot.wire != wire {
                let at = Place { start, after_tag };
                pos = self.other(node, slot, buf, at, (number, wire), frame, &mut counts)?;
                continue;
            }
            let value = match slot.form {
                Form::Varint => wire::value(VARINT, buf, &mut pos),
                Form::Fixed32 => wire::value(FIXED32, buf, &mut pos),
                Form::Fixed64 => wire::value(FIXED64, buf, &mut pos),
                Form::Closed => match wire::value(VARINT, buf, &mut pos) {
                    Ok(value) if !self.is_in_enum(slot, buf, value) => {
                        let at = Place { start, after_tag };
                        self.not_in_enum(node, slot, at, pos, number, frame)?;
                        continue;
                    }
                    value => value,
                },
                _ => wire::value(LENGTH, buf, &mut pos),
            };
            let value = value.map_err(|what| Fault::malformed(what).within(slot.field))?;
            match slot.form {
                Form::Text if !utf8::is_utf8(&buf[value..pos]) => {
                    return Err(Fault::malformed(NOT_UTF8).within(slot.field));
                }
                Form::Message => {
                    if let Some(child) = self.plan.nodes.get(slot.child as usize) {
                        self.inner(child, slot, &buf[..pos], after_tag, value, depth, frame)?;
                    }
                    if self.entry_is_unknown && slot.has(MAP) {
                        self.entry_is_unknown = false;
                        if !slot.has(WITHHELD) {
                            self.unknown(node, frame, number, start, pos)?;
                            continue;
                        }
                    }
                }
                Form::AnyValue => {
                    if let Held::Message(child) = held {
                        self.inner(child, slot, &buf[..pos], after_tag, value, depth, frame)?;
                    }
                }
                _ => {}
            }
            if slot.flags != 0 || slot.bit != NO_BIT {
                if slot.bit != NO_BIT && seen.insert(slot.bit) && slot.has(ONCE) {
                    return Err(Fault::malformed(TWICE).within(slot.field));
                }
                if slot.has(NOTED | COUNTED) {
                    self.special(slot, &buf[value..pos], &mut seen, &mut counts)?;
                }
                if slot.has(WITHHELD) {
                    self.withhold(slot, frame, start, pos);
                }
            }
        }
        if let Held::Message(child) = held
            && !seen.has(node.slot(ANY_VALUE).bit)
        {
            self.message(child, &[], 0, depth, frame).map_err(|fault| fault.within(node.slot(ANY_VALUE).field))?;
        }
        if node.ends.is_empty() { Ok(()) } else { self.ends(node, &seen, &counts) }
    }

    /// Walks a message in this one, whose length stands at `at` and whose bytes go from `value` to the end of `buf`.
    #[allow(clippy::too_many_arguments, reason = "what the loop knows of the field")]
    fn inner(
        &mut self,
        node: &'p Node,
        slot: Slot,
        buf: &[u8],
        at: usize,
        value: usize,
        depth: u32,
        frame: &Frame<'_>,
    ) -> Walked<()> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Fault::malformed(TOO_DEEP).within(slot.field));
        };
        let inner = Frame::within(frame, at, value, &self.cuts);
        self.message(node, buf, value, depth, &inner).map_err(|fault| fault.within(slot.field))?;
        self.cuts.close(&inner, buf.len());
        Ok(())
    }

    /// A field whose wire type is not that of one value: it is unknown, or a packed list, or wrong. Returns where it ends.
    #[allow(clippy::too_many_arguments, reason = "what the loop knows of the field")]
    #[inline(never)]
    fn other(
        &mut self,
        node: &Node,
        slot: Slot,
        buf: &[u8],
        at: Place,
        (number, wire): (u32, u8),
        frame: &Frame<'_>,
        counts: &mut [usize],
    ) -> Walked<usize> {
        let mut end = at.after_tag;
        let value = wire::value(wire, buf, &mut end).map_err(|what| match slot.form {
            Form::Absent => Fault::malformed(what),
            _ => Fault::malformed(what).within(slot.field),
        })?;
        if slot.form == Form::Absent {
            self.unknown(node, frame, number, at.start, end)?;
        } else if wire == LENGTH && slot.has(PACKABLE) {
            self.packed(node, slot, &buf[..end], at, value, number, frame, counts)?;
        } else {
            return Err(Fault::malformed(WRONG_WIRE_TYPE).within(slot.field));
        }
        Ok(end)
    }

    /// A list of numbers that came packed.
    #[allow(clippy::too_many_arguments, reason = "what the loop knows of the field")]
    fn packed(
        &mut self,
        node: &Node,
        slot: Slot,
        buf: &[u8],
        at: Place,
        value: usize,
        number: u32,
        frame: &Frame<'_>,
        counts: &mut [usize],
    ) -> Walked<()> {
        let payload = Frame::within(frame, at.after_tag, value, &self.cuts);
        let mut pos = value;
        let mut count = 0;
        while pos < buf.len() {
            let start = pos;
            wire::value(slot.wire, buf, &mut pos)
                .map_err(|_| Fault::malformed(wire::PACKED_OVERRUN).within(slot.field))?;
            if slot.form == Form::Closed && !self.is_in_enum(slot, buf, start) {
                if !slot.has(WITHHELD) {
                    self.unknown(node, &payload, number, start, pos)?;
                }
                continue;
            }
            if slot.has(NOTED) {
                self.note(slot, &buf[start..pos])?;
            }
            count += 1;
        }
        self.cuts.close(&payload, pos);
        if slot.has(COUNTED) {
            self.count(slot, count, counts);
        }
        if slot.has(WITHHELD) {
            self.withhold(slot, frame, at.start, pos);
        }
        Ok(())
    }

    fn is_in_enum(&self, slot: Slot, buf: &[u8], mut at: usize) -> bool {
        let numbers = self.plan.enums.get(slot.child as usize);
        wire::varint(buf, &mut at).is_ok_and(|number| numbers.is_some_and(|numbers| numbers.has(number as i32)))
    }

    /// A closed enum's field has a number that the enum does not: as if the field were unknown. In the entry of a map, the
    /// whole entry is.
    #[inline(never)]
    fn not_in_enum(
        &mut self,
        node: &Node,
        slot: Slot,
        at: Place,
        end: usize,
        number: u32,
        frame: &Frame<'_>,
    ) -> Walked<()> {
        if slot.has(WITHHELD) {
            self.withhold(slot, frame, at.start, end);
        } else if node.entry {
            self.entry_is_unknown = true;
        } else {
            self.unknown(node, frame, number, at.start, end)?;
        }
        Ok(())
    }

    /// A field that the type does not know.
    #[inline(never)]
    fn unknown(&mut self, node: &Node, frame: &Frame<'_>, number: u32, start: usize, end: usize) -> Walked<()> {
        match node.unknown {
            UnknownFields::Refuse => return Err(Fault::unknown(number)),
            UnknownFields::Strip => self.strip(node, frame, number, start, end),
            UnknownFields::Pass => {}
        }
        Ok(())
    }

    /// What a `google.protobuf.Any` holds, by the name in it.
    #[inline(never)]
    fn held_by_any(&self, node: &Node, buf: &[u8], mut pos: usize) -> Walked<Held<'p>> {
        let (mut url, mut is_empty): (&[u8], _) = (&[], true);
        while pos < buf.len() {
            // What is malformed, the walk finds.
            let Ok((number, wire)) = wire::tag(buf, &mut pos) else { return Ok(Held::Nothing) };
            let Ok(start) = wire::value(wire, buf, &mut pos) else { return Ok(Held::Nothing) };
            match (number, wire) {
                (ANY_TYPE, LENGTH) => url = &buf[start..pos],
                (ANY_VALUE, LENGTH) => is_empty = start == pos,
                _ => {}
            }
        }
        if url.is_empty() && is_empty {
            return Ok(Held::Nothing);
        }
        let name = std::str::from_utf8(url).ok().and_then(|url| Some(url.rsplit_once('/')?.1));
        let child = name.and_then(|name| self.plan.any.get(name)).map(|nodes| nodes[usize::from(node.silent)]);
        match (child.and_then(|child| self.plan.nodes.get(child as usize)), node.unknown) {
            (Some(child), _) => Ok(Held::Message(child)),
            (None, UnknownFields::Refuse) => Err(Fault::unknown_type()),
            (None, UnknownFields::Strip) => Ok(Held::Stripped),
            (None, UnknownFields::Pass) => Ok(Held::Nothing),
        }
    }
}

/// The fields of `google.protobuf.Any`.
const ANY_TYPE: u32 = 1;
const ANY_VALUE: u32 = 2;

/// What a `google.protobuf.Any` holds.
#[derive(Debug, Clone, Copy)]
enum Held<'p> {
    /// Nothing that is looked into.
    Nothing,
    /// A message of this node.
    Message(&'p Node),
    /// A message of a type that is not known, and stripped.
    Stripped,
}

/// Where a field begins, and where its tag ends.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    after_tag: usize,
}
