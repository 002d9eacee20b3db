//! What the civil registry has recorded of the population, as a numbered list of acts.

use time::{Date, Duration};

use super::{Pin, Population, Rng, TODAY};
use crate::proto::kg::civil::v1::ChangeKind;

/// One recorded act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When it was recorded.
    pub on: Date,
    /// What.
    pub kind: ChangeKind,
    /// Of whom.
    pub pin: Pin,
}

impl Population {
    /// All acts up to [`TODAY`], oldest first: births, marriages, deaths, moves.
    pub fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::with_capacity(self.people.len() * 2);
        for person in &self.people {
            let mut add = |on: Date, kind| changes.push(Change { on: on.min(TODAY), kind, pin: person.pin });
            add(person.born + Duration::days(12), ChangeKind::Birth);
            if person.residence.since > person.born {
                add(person.residence.since, ChangeKind::Residence);
            }
            if let (Some(married), Some(spouse)) = (person.married, person.spouse) {
                // One act for the couple: under the one who comes first.
                if self.people.get(spouse).is_some_and(|spouse| spouse.pin > person.pin) {
                    add(married, ChangeKind::Marriage);
                }
            }
            if let Some(died) = person.died {
                add(died + Duration::days(2), ChangeKind::Death);
            }
        }
        changes.sort_by_key(|change| (change.on, change.pin, change.kind as i32));
        changes
    }

    /// The act that follows the recorded ones by `number`: the demo's registry goes on working.
    pub fn next_change(&self, number: u64) -> Option<Change> {
        let mut rng = Rng::of(&format!("change {number}"));
        let kind = rng.pick(&[ChangeKind::Passport, ChangeKind::Passport, ChangeKind::Residence]);
        let living: usize = usize::try_from(rng.next() % self.people.len().max(1) as u64).ok()?;
        let person = self.people.iter().cycle().skip(living).take(self.people.len()).find(|p| p.died.is_none())?;
        Some(Change { on: TODAY, kind, pin: person.pin })
    }
}
