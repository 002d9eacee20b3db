//! Nodes while a plan is compiled: when all are there, it is known which fields must come once, and each node gets its seen bits.

use std::sync::Arc;

use super::plain::Plain;
use super::table::{DENSE, End, Field, Form, NO_BIT, Node, ONCE, Slot, WITHHELD};
use crate::policy::UnknownFields;

/// A node while it is made.
pub(super) struct Draft {
    pub(super) prefix: Arc<str>,
    pub(super) unknown: UnknownFields,
    pub(super) silent: bool,
    pub(super) any: bool,
    pub(super) entry: bool,
    pub(super) slots: Vec<(u32, Slot)>,
    /// Slots of the fields of each oneof, and whether one of them must be set.
    pub(super) oneofs: Vec<(Arc<str>, bool, Vec<usize>)>,
    /// Slots of required fields.
    pub(super) required: Vec<usize>,
    /// Something hangs on how often its fields come, here or below.
    pub(super) strict: bool,
    pub(super) ends: Vec<End>,
    pub(super) bits: u16,
    pub(super) counts: u16,
}

/// Gives seen bits where something hangs on whether or how often a field comes.
pub(super) fn settle(nodes: &mut [Draft], fields: &mut [Field]) {
    for node in nodes.iter_mut() {
        let withheld = |&at: &usize| node.slots[at].1.has(WITHHELD);
        // Which field of a oneof counts, decides what is kept, if only some are.
        node.strict |= node
            .oneofs
            .iter()
            .any(|(_, required, members)| *required || (members.iter().any(withheld) && !members.iter().all(withheld)));
    }
    let mut holders: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        for (_, slot) in node.slots.iter().filter(|(_, slot)| slot.form == Form::Message) {
            holders[slot.child as usize].push(index);
        }
    }
    let mut strict = vec![false; nodes.len()];
    let mut waiting: Vec<usize> = (0..nodes.len()).filter(|&index| nodes[index].strict).collect();
    while let Some(index) = waiting.pop() {
        if !std::mem::replace(&mut strict[index], true) {
            waiting.extend(&holders[index]);
        }
    }
    for node in nodes {
        node.settle(fields, &strict);
    }
}

impl Draft {
    fn bit(&mut self) -> u16 {
        let bit = self.bits;
        self.bits += 1;
        bit
    }

    fn settle(&mut self, fields: &mut [Field], strict: &[bool]) {
        let once: Vec<bool> = self
            .slots
            .iter()
            .map(|(_, slot)| {
                let field = &fields[slot.field as usize];
                let of_note = field.subject || field.commit || field.rules.is_some();
                let held = slot.form == Form::Message && strict[slot.child as usize];
                !field.list && (self.any || of_note || held)
            })
            .collect();
        for at in (0..self.slots.len()).filter(|&at| once[at]) {
            self.slots[at].1.bit = self.bit();
            self.slots[at].1.flags |= ONCE;
        }
        for (name, required, members) in std::mem::take(&mut self.oneofs) {
            let withheld = |&at: &usize| self.slots[at].1.has(WITHHELD);
            let mixed = members.iter().any(withheld) && !members.iter().all(withheld);
            if !(mixed || required || members.iter().any(|&at| once[at])) {
                continue;
            }
            let shared = self.bit();
            for at in members {
                let slot = &mut self.slots[at].1;
                fields[slot.field as usize].own_bit = slot.bit;
                slot.bit = shared;
                slot.flags |= ONCE;
            }
            if required {
                self.ends.push(End::Oneof { bit: shared, name });
            }
        }
        for at in std::mem::take(&mut self.required) {
            if self.slots[at].1.bit == NO_BIT {
                self.slots[at].1.bit = self.bit();
            }
            let slot = self.slots[at].1;
            self.ends.push(End::Required { bit: slot.bit, field: slot.field });
        }
        for (_, slot) in &self.slots {
            let field = &fields[slot.field as usize];
            if field.rules.is_some() && !field.list {
                let bit = if field.own_bit == NO_BIT { slot.bit } else { field.own_bit };
                self.ends.push(End::Absent { bit, field: slot.field });
            }
        }
    }

    /// With its slots by number.
    pub(super) fn finish(self) -> Node {
        let mut dense = Vec::new();
        let mut sparse = Vec::new();
        for (number, slot) in self.slots {
            if number < DENSE {
                dense.resize(number as usize, Slot::ABSENT);
                dense.push(slot);
            } else {
                sparse.push((number, slot));
            }
        }
        Node {
            plain: Plain::table(&dense),
            dense: dense.into(),
            sparse: sparse.into(),
            prefix: self.prefix,
            unknown: self.unknown,
            silent: self.silent,
            any: self.any,
            entry: self.entry,
            counts: self.counts,
            ends: self.ends.into(),
        }
    }
}
