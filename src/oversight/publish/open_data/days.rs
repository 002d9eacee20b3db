//! The list of days: which run of the log each is, what is in it, and its files' digests.

use sha2::{Digest, Sha256};
use time::{Date, Month};

const HEADER: &str = "day,first_entry,entries,rows,delayed,sealed,csv_sha256,parquet_sha256";

/// One day's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Day {
    /// Days since 1970.
    pub(super) day: i64,
    pub(super) first: u64,
    pub(super) entries: u64,
    pub(super) rows: u64,
    pub(super) delayed: u64,
    pub(super) sealed: u64,
    pub(super) csv: [u8; 32],
    pub(super) parquet: [u8; 32],
}

/// All days, in order, without a gap in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Days(Vec<Day>);

impl Days {
    /// The first entry that is in none of them.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(0, |last| last.first + last.entries)
    }

    /// The last day; one before all others where there is none.
    pub(super) fn last_day(&self) -> i64 {
        self.0.last().map_or(i64::MIN, |last| last.day)
    }

    pub(super) fn push(&mut self, day: Day) {
        self.0.push(day);
    }

    pub(super) fn to_csv(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for Day { day, first, entries, rows, delayed, sealed, csv, parquet } in &self.0 {
            let (day, csv, parquet) = (name(*day), hex::encode(csv), hex::encode(parquet));
            text.push_str(&format!("{day},{first},{entries},{rows},{delayed},{sealed},{csv},{parquet}\n"));
        }
        text
    }

    /// Reads what [`Self::to_csv`] wrote; none where a byte is other.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut days = Self::default();
        for line in text.strip_prefix(HEADER)?.strip_prefix('\n')?.lines() {
            let fields: Vec<&str> = line.split(',').collect();
            let [day, first, entries, rows, delayed, sealed, csv, parquet] = fields[..] else { return None };
            let digest = |text: &str| <[u8; 32]>::try_from(hex::decode(text).ok()?).ok();
            let read = Day {
                day: parse_day(day)?,
                first: first.parse().ok()?,
                entries: entries.parse().ok()?,
                rows: rows.parse().ok()?,
                delayed: delayed.parse().ok()?,
                sealed: sealed.parse().ok()?,
                csv: digest(csv)?,
                parquet: digest(parquet)?,
            };
            let follows = read.first == days.end() && read.day > days.last_day();
            let ends = read.first.checked_add(read.entries);
            if !follows || ends.is_none() {
                return None;
            }
            days.push(read);
        }
        (days.to_csv() == text).then_some(days)
    }

    /// What `sha256sum -c` checks: these files, and each day's.
    pub(super) fn sums(&self, others: &[(&str, &[u8])]) -> String {
        let others = others.iter().map(|(name, bytes)| (hex::encode(Sha256::digest(bytes)), (*name).to_owned()));
        let days = self.0.iter().flat_map(|day| {
            let name = name(day.day);
            [(hex::encode(day.csv), format!("{name}.csv")), (hex::encode(day.parquet), format!("{name}.parquet"))]
        });
        others.chain(days).map(|(digest, name)| format!("{digest}  {name}\n")).collect()
    }
}

/// `2026-11-25` as days since 1970; none where it is not written so, or there is no such day.
pub(super) fn parse_day(text: &str) -> Option<i64> {
    let fields: Vec<&str> = text.split('-').collect();
    let [year, month, day] = fields[..] else { return None };
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    let date = Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
    let days = i64::from(date.to_julian_day()) - i64::from(time::OffsetDateTime::UNIX_EPOCH.to_julian_day());
    (name(days) == text).then_some(days)
}

/// A day as `2026-11-25`.
pub(in crate::oversight::publish) fn name(day: i64) -> String {
    let epoch = i64::from(time::OffsetDateTime::UNIX_EPOCH.to_julian_day());
    let date = i32::try_from(day + epoch).ok().and_then(|day| Date::from_julian_day(day).ok()).unwrap_or(Date::MAX);
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_as_it_was_written_and_nothing_else_does() {
        let mut days = Days::default();
        assert_eq!(Days::parse(&days.to_csv()), Some(Days::default()));
        for (day, first, entries) in [(20_000, 0, 7), (20_003, 7, 1)] {
            let (csv, parquet) = ([day as u8; 32], [1; 32]);
            days.push(Day { day, first, entries, rows: entries, delayed: 0, sealed: 0, csv, parquet });
        }
        let text = days.to_csv();
        assert_eq!(Days::parse(&text), Some(days.clone()));
        assert_eq!((days.end(), days.last_day()), (8, 20_003));
        assert!(text.contains("\n2024-10-04,0,7,"), "{text}");
        for wrong in [
            text.replace("2024-10-07,7", "2024-10-07,8"),
            text.replace("2024-10-07", "2024-10-01"),
            text.replace("2024-10-07", "2024-10-7"),
            text.replace(",7,1,1,", ",7,18446744073709551615,1,"),
            text[..text.len() - 1].to_owned(),
            String::new(),
        ] {
            assert_eq!(Days::parse(&wrong), None, "{wrong}");
        }
        assert_eq!(parse_day("2023-02-29"), None);
        assert_eq!(parse_day("1970-01-01"), Some(0));
    }
}
