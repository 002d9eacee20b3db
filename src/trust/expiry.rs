//! What ends, and when its operator is told beforehand: 30, 7 and 1 days ahead, and when it has ended. Pure: time is an argument.
//!
//! A mark at which more than half of something's whole life is still before it is left out, since it would be told of everything that is
//! fresh: a revocation list good for a week is told of a day ahead, a certificate of 90 days at all marks. The last mark is never left
//! out; it comes nearer to the end.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const DAY: i64 = 86_400;

/// The longest time between two looks, so that a clock that was set or stood still is noticed.
const LONGEST_PAUSE: i64 = 3_600;

/// Something that ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expiry {
    /// What kind of thing: `certificate`, `revocation list`, `directory`.
    pub what: &'static str,
    /// Which one, for people: a name, and the file that it is in.
    pub name: String,
    /// From when it counts; none where it does not say.
    pub from_unix: Option<i64>,
    /// When it ends.
    pub until_unix: i64,
    /// What to do before.
    pub remedy: String,
}

/// How near the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// 30 days or less.
    Month,
    /// 7 days or less.
    Week,
    /// A day or less.
    Day,
    /// It has ended.
    Ended,
}

/// Something that ends soon, to be told.
#[derive(Debug, Clone, Copy)]
pub struct Warning<'e> {
    /// What ends.
    pub expiry: &'e Expiry,
    /// Which mark it has come to.
    pub mark: Mark,
    /// In how many seconds; negative where it has ended.
    pub left: i64,
}

/// What has been told. Something renewed has another end, and is told of anew.
#[derive(Debug, Default)]
pub struct Told(HashMap<Expiry, Mark>);

impl Expiry {
    /// The mark that it has come to; none where its end is far.
    pub fn mark(&self, now_unix: i64) -> Option<Mark> {
        self.marks().filter(|(at, _)| *at <= now_unix).map(|(_, mark)| mark).last()
    }

    /// As a warning, if there is anything to warn of.
    pub fn warning(&self, now_unix: i64) -> Option<Warning<'_>> {
        let left = self.until_unix.saturating_sub(now_unix);
        self.mark(now_unix).map(|mark| Warning { expiry: self, mark, left })
    }

    /// Its marks, from when on each counts, the earliest first.
    fn marks(&self) -> impl Iterator<Item = (i64, Mark)> {
        let half = self.from_unix.map_or(i64::MAX, |from| self.until_unix.saturating_sub(from).max(0) / 2);
        let ahead =
            [(30 * DAY, Mark::Month), (7 * DAY, Mark::Week)].into_iter().filter(move |(ahead, _)| *ahead <= half);
        let until = self.until_unix;
        let last = [(DAY.min(half), Mark::Day), (0, Mark::Ended)];
        ahead.chain(last).map(move |(ahead, mark)| (until.saturating_sub(ahead), mark))
    }
}

impl Told {
    /// What has come to a new mark since it was last told, the most urgent first.
    pub fn due<'e>(&mut self, all: &'e [Expiry], now_unix: i64) -> Vec<Warning<'e>> {
        self.0.retain(|expiry, _| all.contains(expiry));
        let mut due: Vec<Warning<'e>> = all.iter().filter_map(|expiry| expiry.warning(now_unix)).collect();
        due.retain(|warning| self.0.insert(warning.expiry.clone(), warning.mark) != Some(warning.mark));
        due.sort_by_key(|warning| warning.left);
        due
    }
}

/// How long to wait before anything can come to its next mark; at most an hour, at least a second.
pub fn pause(all: &[Expiry], now_unix: i64) -> Duration {
    let next = all.iter().flat_map(Expiry::marks).map(|(at, _)| at.saturating_sub(now_unix)).filter(|left| *left > 0);
    let seconds = next.min().unwrap_or(LONGEST_PAUSE).clamp(1, LONGEST_PAUSE);
    Duration::from_secs(seconds.unsigned_abs())
}

impl Warning<'_> {
    /// Which one, and when.
    pub fn says(&self) -> String {
        let Expiry { name, until_unix, .. } = self.expiry;
        let until = OffsetDateTime::from_unix_timestamp(*until_unix).ok().and_then(|until| until.format(&Rfc3339).ok());
        let until = until.unwrap_or_else(|| format!("{until_unix} s after 1970"));
        match self.left {
            ..=0 => format!("{name} has ended, at {until}"),
            left => format!("{name} ends in {}, at {until}", span(left)),
        }
    }
}

impl fmt::Display for Warning<'_> {
    /// What, which, when, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {}; {}", self.expiry.what, self.says(), self.expiry.remedy)
    }
}

/// So many seconds in the largest unit that fits at least once.
pub fn span(seconds: i64) -> String {
    let (number, unit) = match seconds {
        ..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..DAY => (seconds / 3_600, "hour"),
        _ => (seconds / DAY, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Good for so many days, which end at `until`.
    fn lasting(days: i64, until: i64) -> Expiry {
        let (name, remedy) = (format!("{days} days"), "renew it".to_owned());
        Expiry { what: "certificate", name, from_unix: Some(until - days * DAY), until_unix: until, remedy }
    }

    /// Seconds before the end at which each mark is told, looking every ten minutes.
    fn told(expiry: &Expiry) -> Vec<(i64, Mark)> {
        let mut told = Told::default();
        let mut marks = Vec::new();
        let from = expiry.from_unix.unwrap_or(expiry.until_unix - 40 * DAY);
        for now in (from..expiry.until_unix + DAY).step_by(600) {
            let all = [expiry.clone()];
            marks.extend(told.due(&all, now).iter().map(|warning| (warning.left, warning.mark)));
        }
        marks
    }

    #[test]
    fn each_mark_is_told_once_and_on_time() {
        let [month, week, day, end] =
            [(30 * DAY, Mark::Month), (7 * DAY, Mark::Week), (DAY, Mark::Day), (0, Mark::Ended)];
        assert_eq!(told(&lasting(90, 1_800_000_000)), [month, week, day, end]);
        // Fresh ones of a short life are not complained of.
        assert_eq!(told(&lasting(30, 1_800_000_000)), [week, day, end]);
        assert_eq!(told(&lasting(7, 1_800_000_000)), [day, end]);
        assert_eq!(told(&lasting(1, 1_800_000_000)), [(DAY / 2, Mark::Day), end]);
        let directory = Expiry { from_unix: None, ..lasting(90, 1_800_000_000) };
        assert_eq!(told(&directory), [month, week, day, end]);
    }

    #[test]
    fn one_renewed_is_told_of_anew_and_the_others_are_not() {
        let (one, other) = (lasting(90, 1_800_000_000), lasting(365, 1_800_000_000 + 2 * DAY));
        let mut told = Told::default();
        let now = one.until_unix - 5 * DAY;
        let both = [one.clone(), other.clone()];
        let names: Vec<_> = told.due(&both, now).iter().map(|warning| (&warning.expiry.name, warning.mark)).collect();
        assert_eq!(names, [(&one.name, Mark::Week), (&other.name, Mark::Week)]);
        assert!(told.due(&both, now + 60).is_empty());

        let renewed = [Expiry { until_unix: one.until_unix + DAY / 2, ..one }, other];
        let [again] = told.due(&renewed, now + 60)[..] else { panic!() };
        assert_eq!(again.expiry, &renewed[0]);
        assert!(told.due(&renewed, now - 60 * DAY).is_empty(), "a clock that is set back");
    }

    #[test]
    fn it_looks_again_in_time() {
        let one = [lasting(90, 1_800_000_000)];
        assert_eq!(pause(&one, one[0].until_unix - 31 * DAY), Duration::from_secs(3_600));
        assert_eq!(pause(&one, one[0].until_unix - 7 * DAY - 100), Duration::from_secs(100));
        assert_eq!(pause(&one, one[0].until_unix - 7 * DAY), Duration::from_secs(3_600));
        assert_eq!(pause(&one, one[0].until_unix + DAY), Duration::from_secs(3_600));
        assert_eq!(pause(&[], 0), Duration::from_secs(3_600));
    }

    #[test]
    fn a_warning_says_what_when_and_what_to_do() {
        let one = lasting(90, 1_800_000_000);
        let said = one.warning(one.until_unix - 5 * DAY - 7).unwrap().to_string();
        assert_eq!(said, "the certificate 90 days ends in 5 days, at 2027-01-15T08:00:00Z; renew it");
        let said = one.warning(one.until_unix - 3_700).unwrap().to_string();
        assert!(said.contains("ends in 61 minutes"), "{said}");
        let said = one.warning(one.until_unix + 1).unwrap().to_string();
        assert!(said.contains("has ended, at 2027"), "{said}");
        assert!(one.warning(one.until_unix - 31 * DAY).is_none());
    }
}
