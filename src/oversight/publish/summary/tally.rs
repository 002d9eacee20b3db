//! What a summary counts, and how it is written. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::open_data::days;
use super::super::open_data::row::{Row, Seen};

/// Groups of the whole log, of one day, and strings of one file; days, months, and members of one day.
const MOST_GROUPS: usize = 2_000;
const MOST_OF_DAY: usize = 500;
const MOST_DAYS: usize = 92;
const MOST_MONTHS: usize = 240;
const MOST_PAIRS: usize = 128;

/// A longer name is cut.
const LONGEST: usize = 128;

/// What is too much to be told apart.
const OTHER: &str = "…";

/// A refused call of what nobody offers can name anything: it is not told by name.
const NAMELESS: [&str; 5] =
    ["SERVICE_UNKNOWN", "METHOD_UNKNOWN", "PROVIDER_UNKNOWN", "PROVIDER_NOT_HERE", "MALFORMED_CALL"];

const COLUMNS: [&str; 9] =
    ["as", "consumer", "provider", "service", "method", "legal_basis", "publication", "outcome", "reason"];

/// All that is counted, and what is kept between two starts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    format: String,
    member: String,
    /// The first entry counted, and the first that is not.
    from: u64,
    pub(super) entries: u64,
    time_unix_ms: i64,
    day: Option<i64>,
    /// Entries before the first that shows a time, and how many of them are delayed and sealed.
    early: [u64; 3],
    groups: Groups,
    days: Vec<Span>,
    months: Vec<Span>,
    month: Vec<DayGroups>,
}

const FORMAT: &str = "kopuro-summary-state/v1";

/// A day or month: which entries, and how much passed between this member and each other.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Span {
    name: String,
    first: u64,
    entries: u64,
    delayed: u64,
    sealed: u64,
    pairs: Vec<Pair>,
}

/// As what, with whom, and how often it ended OK, with an error, refused, failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pair(String, String, [u64; 4]);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct DayGroups {
    day: i64,
    first: u64,
    entries: u64,
    delayed: u64,
    sealed: u64,
    groups: Groups,
}

type Names = [u32; COLUMNS.len()];

/// How often, and where first and last: days in the whole, entries in a day.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Counted(u64, u64, u64);

/// Groups of equal rows. Strings stand once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Groups {
    strings: Vec<String>,
    counted: Vec<(Names, Counted)>,
    #[serde(skip)]
    numbers: BTreeMap<String, u32>,
    #[serde(skip)]
    places: BTreeMap<Names, usize>,
}

impl Tally {
    pub(super) fn new(member: &str, from: u64) -> Self {
        Self { format: FORMAT.into(), member: member.into(), from, entries: from, ..Self::default() }
    }

    pub(super) fn goes_on(&self, member: &str) -> bool {
        self.format == FORMAT && self.member == member
    }

    /// Turns to the day of the next entry, where that is a later one. False where it is of a later month: [`Self::next_month`]
    /// comes first.
    pub(super) fn begins(&mut self, day: Option<i64>) -> bool {
        let day = match (self.day, day) {
            (Some(present), Some(day)) if day > present => day,
            (Some(_), _) => return true,
            // What shows no time counts with its neighbours: before all others, with what comes.
            (None, None) => return true,
            (None, Some(day)) => day,
        };
        let turns = |present: i64| days::name(present)[..7] != days::name(day)[..7];
        if self.day.is_some_and(turns) && !self.month.is_empty() {
            return false;
        }
        self.day = Some(day);
        true
    }

    pub(super) fn next_month(&mut self) {
        self.month.clear();
    }

    pub(super) fn count(&mut self, seen: Seen) {
        let index = self.entries;
        self.entries += 1;
        let Some(day) = self.day else {
            let [entries, delayed, sealed] = &mut self.early;
            *entries += 1;
            *delayed += u64::from(matches!(seen, Seen::Delayed));
            *sealed += u64::from(matches!(seen, Seen::Sealed));
            return;
        };
        let (name, early) = (days::name(day), std::mem::take(&mut self.early));
        let index_of_first = index - early[0];
        if self.month.last().is_none_or(|last| last.day != day) {
            self.month.push(DayGroups { day, first: index_of_first, ..DayGroups::default() });
        }
        for (spans, name, most) in [(&mut self.days, &name[..], MOST_DAYS), (&mut self.months, &name[..7], MOST_MONTHS)]
        {
            if spans.last().is_none_or(|last| last.name != name) {
                spans.push(Span { name: name.into(), first: index_of_first, ..Span::default() });
                spans.drain(..spans.len().saturating_sub(most));
            }
        }
        let [of_day, of_month] = [&mut self.days, &mut self.months].map(|spans| spans.last_mut());
        let (Some(of_day), Some(of_month), Some(groups)) = (of_day, of_month, self.month.last_mut()) else { return };
        for (to, [entries, delayed, sealed]) in [(&mut *of_day, early), (&mut *of_month, early)] {
            (to.entries, to.delayed, to.sealed) = (to.entries + 1 + entries, to.delayed + delayed, to.sealed + sealed);
        }
        groups.entries += 1 + early[0];
        groups.delayed += early[1];
        groups.sealed += early[2];
        let row = match seen {
            Seen::Delayed => {
                of_day.delayed += 1;
                of_month.delayed += 1;
                groups.delayed += 1;
                return;
            }
            Seen::Sealed => {
                of_day.sealed += 1;
                of_month.sealed += 1;
                groups.sealed += 1;
                return;
            }
            Seen::Row(row) => row,
        };
        self.time_unix_ms = self.time_unix_ms.max(row.time_unix_ms);
        let Some(role) = role(&row, &self.member) else { return };
        let names = names(&row, role);
        groups.groups.add(&names, index, MOST_OF_DAY);
        self.groups.add(&names, u64::try_from(day).unwrap_or_default(), MOST_GROUPS);
        if role != "look" {
            let with = member_of(if role == "asked" { names[2] } else { names[1] });
            of_day.add(role, with, row.outcome);
            of_month.add(role, with, row.outcome);
        }
    }

    /// The month that is being counted.
    pub(super) fn month_name(&self) -> Option<String> {
        self.month.last().map(|last| days::name(last.day)[..7].to_owned())
    }

    /// `summary-YYYY-MM.json`
    pub(super) fn month_json(&self) -> String {
        let days: Vec<Value> = self
            .month
            .iter()
            .map(|day| {
                json!({ "day": days::name(day.day), "first": day.first, "entries": day.entries, "delayed": day.delayed,
                    "sealed": day.sealed, "strings": day.groups.strings, "groups": day.groups.rows() })
            })
            .collect();
        let month = self.month_name();
        json!({ "format": "kopuro-summary-month/v1", "member": self.member, "month": month, "entries": self.entries,
            "columns": COLUMNS, "days": days })
        .to_string()
    }

    /// `summary.json`
    pub(super) fn json(&self, origin: &str) -> String {
        let spans = |spans: &[Span]| -> Vec<Value> {
            let pairs = |span: &Span| -> Vec<Value> {
                span.pairs.iter().map(|Pair(role, with, ends)| json!([role, with, ends])).collect()
            };
            let span =
                |span: &Span| json!([span.name, span.first, span.entries, span.delayed, span.sealed, pairs(span)]);
            spans.iter().map(span).collect()
        };
        json!({ "format": "kopuro-summary/v1", "origin": origin, "member": self.member, "from": self.from,
            "entries": self.entries, "time_unix_ms": self.time_unix_ms, "columns": COLUMNS, "strings": self.groups.strings,
            "groups": self.groups.rows(), "days": spans(&self.days), "months": spans(&self.months) })
        .to_string()
    }
}

impl Span {
    fn add(&mut self, role: &str, with: &str, outcome: &str) {
        let place = match outcome {
            "OK" => 0,
            "ERROR" => 1,
            "REFUSED" => 2,
            _ => 3,
        };
        let full = self.pairs.len() >= MOST_PAIRS;
        let at = |pairs: &[Pair], with: &str| pairs.iter().position(|pair| pair.0 == role && pair.1 == with);
        let with = if full && at(&self.pairs, with).is_none() { OTHER } else { with };
        let found = at(&self.pairs, with).unwrap_or_else(|| {
            self.pairs.push(Pair(role.into(), with.into(), [0; 4]));
            self.pairs.len() - 1
        });
        self.pairs[found].2[place] += 1;
    }
}

impl Groups {
    fn add(&mut self, names: &[&str; COLUMNS.len()], at: u64, most: usize) {
        if self.places.len() != self.counted.len() {
            // Read from what was kept.
            self.numbers = self.strings.iter().cloned().zip(0..).collect();
            self.places = self.counted.iter().enumerate().map(|(place, (names, _))| (*names, place)).collect();
        }
        let known = names.iter().map(|name| self.numbers.get(*name).copied()).collect::<Option<Vec<u32>>>();
        let known = known.and_then(|known| self.places.get(&Names::try_from(known).ok()?).copied());
        let place = match known {
            Some(place) => place,
            None if self.counted.len() >= most => {
                let other = [OTHER; COLUMNS.len()];
                self.place(&other)
            }
            None => self.place(names),
        };
        let Counted(count, first, last) = &mut self.counted[place].1;
        if *count == 0 {
            *first = at;
        }
        (*count, *last) = (*count + 1, at);
    }

    fn place(&mut self, names: &[&str; COLUMNS.len()]) -> usize {
        let numbers = names.map(|name| match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.strings.len()).unwrap_or(u32::MAX);
                self.strings.push(name.to_owned());
                self.numbers.insert(name.to_owned(), number);
                number
            }
        });
        *self.places.entry(numbers).or_insert_with(|| {
            self.counted.push((numbers, Counted(0, 0, 0)));
            self.counted.len() - 1
        })
    }

    fn rows(&self) -> Vec<Vec<u64>> {
        let row = |(names, Counted(count, first, last)): &(Names, Counted)| {
            names.iter().map(|name| u64::from(*name)).chain([*count, *first, *last]).collect()
        };
        self.counted.iter().map(row).collect()
    }
}

/// As what this log's member took part; none of what ends nothing.
fn role(row: &Row, member: &str) -> Option<&'static str> {
    let own = |system: &str| member_of(system) == member;
    match row.kind {
        "RESPONSE_RECEIVED" => Some("asked"),
        "RESPONSE_SENT" => Some("answered"),
        // Between two systems of this member both sides are here.
        "REFUSED" | "FAILED" if own(&row.consumer) && own(&row.provider) => {
            Some(if row.side == "PROVIDER" && row.kind == "REFUSED" { "answered" } else { "asked" })
        }
        "REFUSED" | "FAILED" => Some(if own(&row.consumer) { "asked" } else { "answered" }),
        "AUDIT" => Some("look"),
        _ => None,
    }
}

fn names<'a>(row: &'a Row, role: &'static str) -> [&'a str; COLUMNS.len()] {
    let nameless = row.outcome == "REFUSED" && NAMELESS.contains(&row.reason.as_str());
    let named = |name: &'a str| if nameless { OTHER } else { cut(name) };
    [
        role,
        cut(&row.consumer),
        named(&row.provider),
        named(&row.service),
        named(&row.method),
        cut(&row.legal_basis),
        row.publication,
        row.outcome,
        cut(&row.reason),
    ]
}

fn cut(name: &str) -> &str {
    if name.len() <= LONGEST { name } else { OTHER }
}

fn member_of(system: &str) -> &str {
    let mut segments = system.match_indices('/');
    segments.nth(2).map_or(system, |(end, _)| &system[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(time_unix_ms: i64, method: &str, outcome: &'static str, reason: &str) -> Seen {
        Seen::Row(Box::new(Row {
            entry: 0,
            opened_by: None,
            time_unix_ms,
            kind: if outcome == "REFUSED" { "REFUSED" } else { "RESPONSE_SENT" },
            exchange_id: String::new(),
            consumer: "KG/GOV/1/desk".into(),
            provider: "KG/GOV/2/probe".into(),
            service: "a.B".into(),
            method: method.into(),
            legal_basis: "law".into(),
            publication: "PUBLIC",
            outcome,
            grpc_status: None,
            reason: reason.into(),
            side: "PROVIDER",
            schema: String::new(),
        }))
    }

    fn count(tally: &mut Tally, day: i64, seen: Seen) {
        if !tally.begins(Some(day)) {
            tally.next_month();
            assert!(tally.begins(Some(day)));
        }
        tally.count(seen);
    }

    #[test]
    fn days_and_months_and_groups_are_counted() {
        let mut tally = Tally::new("KG/GOV/2", 0);
        for (day, method, outcome) in [(20_000, "Get", "OK"), (20_000, "Get", "OK"), (20_001, "Get", "ERROR")] {
            count(&mut tally, day, row(1, method, outcome, ""));
        }
        count(&mut tally, 20_001, Seen::Sealed);
        let month: Value = serde_json::from_str(&tally.month_json()).unwrap();
        assert_eq!(month["month"], "2024-10");
        assert_eq!(month["days"][0]["groups"][0].as_array().unwrap()[9..], [2, 0, 1].map(Value::from));
        assert_eq!((&month["days"][1]["sealed"], &month["days"][1]["first"]), (&1.into(), &2.into()));
        // Kept and read again, it goes on.
        let mut tally: Tally = serde_json::from_slice(&serde_json::to_vec(&tally).unwrap()).unwrap();
        count(&mut tally, 20_030, row(2, "Get", "OK", ""));
        count(&mut tally, 20_029, row(3, "Get", "OK", ""));
        let whole: Value = serde_json::from_str(&tally.json("a/log")).unwrap();
        assert_eq!((&whole["entries"], &whole["time_unix_ms"]), (&6.into(), &3.into()));
        assert_eq!(whole["groups"][0].as_array().unwrap()[9..], [4, 20_000, 20_030].map(Value::from));
        assert_eq!(whole["days"][0], json!(["2024-10-04", 0, 2, 0, 0, [["answered", "KG/GOV/1", [2, 0, 0, 0]]]]));
        assert_eq!(whole["months"].as_array().unwrap().len(), 2);
        let month: Value = serde_json::from_str(&tally.month_json()).unwrap();
        assert_eq!((&month["month"], month["days"].as_array().unwrap().len()), (&"2024-11".into(), 1));
    }

    #[test]
    fn what_shows_no_time_before_all_others_counts_with_what_comes() {
        let mut tally = Tally::new("KG/GOV/2", 3);
        for seen in [Seen::Sealed, Seen::Delayed] {
            assert!(tally.begins(None));
            tally.count(seen);
        }
        assert_eq!((tally.month_name(), tally.entries), (None, 5));
        count(&mut tally, 20_000, row(1, "Get", "OK", ""));
        count(&mut tally, 20_000, Seen::Sealed);
        let whole: Value = serde_json::from_str(&tally.json("a/log")).unwrap();
        let first = json!(["2024-10-04", 3, 4, 1, 2, [["answered", "KG/GOV/1", [1, 0, 0, 0]]]]);
        assert_eq!((&whole["days"], &whole["entries"]), (&json!([first]), &7.into()));
        let month: Value = serde_json::from_str(&tally.month_json()).unwrap();
        let day = &month["days"][0];
        assert_eq!([&day["first"], &day["entries"], &day["sealed"]], [3, 4, 2].map(Value::from).each_ref());
        assert_eq!(day["groups"][0].as_array().unwrap()[9..], [1, 5, 5].map(Value::from));
    }

    #[test]
    fn callers_cannot_make_it_grow() {
        let mut tally = Tally::new("KG/GOV/2", 0);
        for call in 0..3_000 {
            count(&mut tally, 20_000, row(1, &format!("M{call}"), "REFUSED", "METHOD_NOT_GRANTED"));
            count(&mut tally, 20_000, row(1, &format!("M{call}"), "REFUSED", "METHOD_UNKNOWN"));
        }
        let month: Value = serde_json::from_str(&tally.month_json()).unwrap();
        let groups = month["days"][0]["groups"].as_array().unwrap();
        assert!(groups.len() <= MOST_OF_DAY + 1, "{}", groups.len());
        let counted: u64 = groups.iter().map(|group| group[9].as_u64().unwrap()).sum();
        assert_eq!(counted, 6_000);
        let whole = tally.json("a/log");
        assert!(whole.len() < 300_000 && whole.contains("METHOD_UNKNOWN"), "{}", whole.len());
    }
}
