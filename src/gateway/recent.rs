//! Exchange ids seen lately, so that a node cannot be made to act twice on one exchange. A UUIDv7 carries its time: ids older or
//! newer than the window are refused, so only those within it need be kept. Pure; time is an argument.

use std::collections::HashSet;

use uuid::Uuid;

/// How far an id's time may be from the node's clock, in milliseconds: two nodes' clocks, and the id's way.
pub(super) const WINDOW_MS: i64 = 30_000;

/// Ids kept at most: ids stay for two to four windows, so 8,000 exchanges a second pass for ever. 16 bytes each and the table's slack.
const MOST: usize = 1_000_000;

/// Why an id is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecentError {
    #[error("an exchange with this id was here before")]
    Seen,
    #[error("the exchange's id is {0} s away from this node's clock: check both nodes' clocks")]
    Time(i64),
    #[error("too many exchanges in the last minutes to tell new ones from old")]
    Full,
}

/// Two generations: the older is forgotten when all its ids are past the window.
#[derive(Debug, Default)]
pub(super) struct RecentExchanges {
    current: HashSet<Uuid>,
    older: HashSet<Uuid>,
    since_ms: i64,
}

impl RecentExchanges {
    /// Takes note of an id, once.
    pub(super) fn admit(&mut self, id: Uuid, now_ms: i64) -> Result<(), RecentError> {
        let away = time_of(id) - now_ms;
        if away.abs() > WINDOW_MS {
            return Err(RecentError::Time(away / 1000));
        }
        // An id noted at t may come again until t + 2 windows (its time may be one window ahead of the clock).
        if now_ms - self.since_ms > 2 * WINDOW_MS {
            self.older = std::mem::take(&mut self.current);
            self.since_ms = now_ms;
        }
        if self.older.contains(&id) {
            return Err(RecentError::Seen);
        }
        if self.current.len() + self.older.len() >= MOST {
            return Err(RecentError::Full);
        }
        if self.current.insert(id) { Ok(()) } else { Err(RecentError::Seen) }
    }
}

/// Milliseconds since the Unix epoch, the first 48 bits of a UUIDv7.
fn time_of(id: Uuid) -> i64 {
    (id.as_u128() >> 80) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: i64, n: u64) -> Uuid {
        uuid::Builder::from_unix_timestamp_millis(ms as u64, &(u128::from(n)).to_be_bytes()[6..].try_into().unwrap())
            .into_uuid()
    }

    #[test]
    fn once_only_for_as_long_as_it_could_pass() {
        let start = 1_700_000_000_000;
        let mut recent = RecentExchanges::default();
        let first = id(start + WINDOW_MS, 1);
        recent.admit(first, start).unwrap();
        for later in (0..=2 * WINDOW_MS).step_by(1000) {
            assert_eq!(recent.admit(first, start + later), Err(RecentError::Seen), "{later}");
            recent.admit(id(start + later, 2 + later as u64), start + later).unwrap();
        }
        assert!(matches!(recent.admit(first, start + 2 * WINDOW_MS + 1000), Err(RecentError::Time(_))));
        assert_eq!(recent.admit(id(start - WINDOW_MS - 1000, 9), start), Err(RecentError::Time(-31)));
    }

    #[test]
    fn forgets_what_cannot_come_again() {
        let mut recent = RecentExchanges::default();
        for minute in 0..60 {
            let now = 1_700_000_000_000 + minute * 60_000;
            recent.admit(id(now, 0), now).unwrap();
        }
        assert!(recent.current.len() + recent.older.len() < 12);
    }
}
