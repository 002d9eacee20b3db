//! How long a commit gathers before it is written. Pure.
//!
//! A commit costs the same few hundred microseconds of CPU and the same time of the disk whether it has one entry or hundreds,
//! and those who wait are woken for less where more are woken together. So where many are about to append, a commit waits for
//! half of them, for no longer than two commits take; whoever appends alone never waits.

use std::time::Duration;

/// The longest that a commit waits for those to come back whom the last one acknowledged.
const LONGEST_RETURN: Duration = Duration::from_micros(500);

/// The longest that a commit waits for those who are expected.
const LONGEST_WAIT: Duration = Duration::from_millis(3);

/// How often it looks meanwhile. Asleep, the writer is not woken for each entry that comes.
const LOOK: Duration = Duration::from_micros(200);

/// So many commits do not wait after one that waited for too few.
const NOT_AGAIN: u32 = 16;

/// What a writer that has all that has queued does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Writes it.
    Write,
    /// Takes the next entry, if it comes within this time.
    Take(Duration),
    /// Sleeps for so long and looks again.
    Sleep(Duration),
}

/// What the last commits were like, by which the next is judged.
#[derive(Debug, Default)]
pub(super) struct Pace {
    entries: usize,
    took: Duration,
    /// So many commits more do not wait.
    hurried: u32,
}

impl Pace {
    /// What to do with `gathered` entries, gathered for `elapsed`, while so many are `expected`, those gathered included.
    pub(super) fn next(&self, gathered: usize, elapsed: Duration, expected: usize) -> Next {
        let returning = (self.took / 4).min(LONGEST_RETURN);
        if gathered < self.entries && elapsed < returning {
            return Next::Take(returning - elapsed);
        }
        let wait = (2 * self.took).min(LONGEST_WAIT);
        if gathered < expected / 2 && self.hurried == 0 && elapsed < wait {
            return Next::Sleep(LOOK.min(wait - elapsed));
        }
        Next::Write
    }

    /// Learns from a commit: how many entries it had, how many of them before it slept, where it did, and how long it took.
    pub(super) fn committed(&mut self, before_sleep: Option<usize>, entries: usize, took: Duration) {
        self.hurried = match before_sleep {
            // Fewer than a quarter more: those who are expected are busy elsewhere.
            Some(before) if entries - before < before.div_ceil(4) => NOT_AGAIN,
            _ => self.hurried.saturating_sub(1),
        };
        (self.entries, self.took) = (entries, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const US: Duration = Duration::from_micros(1);

    #[test]
    fn waits_for_half_of_those_who_are_expected_and_no_longer_than_two_commits() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(1, Duration::ZERO, 64), Next::Write, "nothing is known of how long a commit takes");
        pace.committed(None, 1, MS);
        assert_eq!(pace.next(1, Duration::ZERO, 1), Next::Write);
        assert_eq!(pace.next(1, Duration::ZERO, 0), Next::Write);
        assert_eq!(pace.next(31, MS, 64), Next::Sleep(LOOK));
        assert_eq!(pace.next(31, 2 * MS - 50 * US, 64), Next::Sleep(50 * US));
        assert_eq!(pace.next(31, 2 * MS, 64), Next::Write);
        assert_eq!(pace.next(32, MS, 64), Next::Write);
        pace.committed(None, 1, Duration::from_secs(1));
        assert_eq!(pace.next(1, LONGEST_WAIT, 64), Next::Write);
    }

    #[test]
    fn waits_a_little_for_as_many_as_the_last_time() {
        let mut pace = Pace::default();
        pace.committed(None, 16, MS);
        assert_eq!(pace.next(15, 100 * US, 0), Next::Take(150 * US));
        assert_eq!(pace.next(16, 100 * US, 0), Next::Write);
        assert_eq!(pace.next(15, 250 * US, 0), Next::Write);
    }

    #[test]
    fn does_not_go_on_waiting_for_those_who_do_not_come() {
        let mut pace = Pace::default();
        pace.committed(Some(8), 9, MS);
        for _ in 0..NOT_AGAIN {
            assert_eq!(pace.next(8, MS, 1_000), Next::Write);
            pace.committed(None, 8, MS);
        }
        assert_eq!(pace.next(8, MS, 1_000), Next::Sleep(LOOK));
        pace.committed(Some(8), 10, MS);
        assert_eq!(pace.next(8, MS, 1_000), Next::Sleep(LOOK), "a quarter more was worth it");
    }
}
