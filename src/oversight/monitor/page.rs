//! The report as a page for people: Kyrgyz, Russian or English, readable on a phone, without scripts.
//!
//! Everything that comes from a log is escaped. Dates and numbers are written here and not by the browser, some of which
//! know no Kyrgyz. Times are Bishkek's.

mod words;

use std::fmt::Write;

use time::{OffsetDateTime, UtcOffset};

use super::{Finding, LogReport, Report};
pub use words::Language;

/// Findings on the page; the report has more.
const SHOWN: usize = 100;

const STYLE: &str = "\
:root{color-scheme:light dark;--good:#17663a;--bad:#a3201d;--line:#8884}\
body{font:1rem/1.5 system-ui,sans-serif;max-width:46rem;margin:0 auto;padding:1rem}\
h1{font-size:1.4rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}\
nav{float:right}nav a{margin-left:.7rem}\
.verdict{font-size:1.25rem;font-weight:600;padding:.8rem 1rem;border-radius:.5rem;color:#fff;background:var(--bad)}\
.verdict.good{background:var(--good)}\
article{border:1px solid var(--line);border-left:.4rem solid var(--bad);border-radius:.4rem;padding:.6rem .9rem;margin:.6rem 0}\
article.good{border-left-color:var(--good)}article p{margin:.2rem 0}\
h3{font-size:1rem;margin:0}dl{display:grid;grid-template-columns:1fr auto;gap:.2rem 1rem;margin:0}\
dd{margin:0;text-align:right;font-variant-numeric:tabular-nums}\
code,.small{font-size:.85rem;overflow-wrap:anywhere}.small{opacity:.8}";

/// The whole page.
pub fn html(report: &Report, language: Language) -> String {
    let words = language.words();
    let mut page = String::with_capacity(8 << 10);
    let verdict = if report.ok { words.well } else { words.not_well };
    let code = language.code();
    // Writing to a String does not fail.
    let _ = write!(
        page,
        "<!doctype html><html lang=\"{code}\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{} · {verdict}</title>\
         <style>{STYLE}</style></head><body><header><nav>",
        words.title
    );
    for other in Language::ALL.into_iter().filter(|other| *other != language) {
        let (code, name) = (other.code(), other.name());
        let _ = write!(page, "<a href=\"?lang={code}\" lang=\"{code}\" hreflang=\"{code}\">{name}</a>");
    }
    let class = if report.ok { "verdict good" } else { "verdict" };
    let _ = write!(
        page,
        "</nav><h1>{}</h1></header><main><p>{}</p><p class=\"{class}\" role=\"status\">{verdict}</p>\
         <p class=\"small\">{} {}</p>",
        words.title,
        words.about,
        words.looked,
        date(report.at_unix_ms, language)
    );
    findings(&mut page, report, language);
    evidence(&mut page, report, language);
    let _ = write!(page, "<h2>{}</h2>", words.logs);
    report.logs.iter().for_each(|one| log(&mut page, one, language));
    counts(&mut page, report, language);
    let _ = write!(page, "<p class=\"small\"><a href=\"report.json\">JSON</a></p></main></body></html>");
    page
}

fn findings(page: &mut String, report: &Report, language: Language) {
    if report.findings.is_empty() {
        return;
    }
    let words = language.words();
    let _ = write!(page, "<h2>{}: {}</h2>", words.findings, number(report.exchanges.wrong, language));
    for finding in report.findings.iter().take(SHOWN) {
        let Finding { exchange, consumer, provider, service, method, .. } = finding;
        let _ = write!(
            page,
            "<article><h3>{}</h3><p>{} → {}</p><p><code>{}/{}</code></p><p>{} · {}</p><p class=\"small\">{} <code>{}</code></p>",
            words.problem(finding.problem),
            escape(consumer),
            escape(provider),
            escape(service),
            escape(method),
            date(finding.since_unix_ms, language),
            words.age(finding.age_seconds),
            words.exchange,
            escape(exchange),
        );
        let entries: Vec<String> =
            finding.entries.iter().map(|(origin, index)| format!("{} № {index}", escape(origin))).collect();
        let _ = write!(page, "<p class=\"small\">{}</p></article>", entries.join("; "));
    }
    let more = report.exchanges.wrong.saturating_sub(SHOWN as u64);
    if more > 0 {
        let _ = write!(page, "<p>{}: {}</p>", words.more, number(more, language));
    }
}

fn evidence(page: &mut String, report: &Report, language: Language) {
    let words = language.words();
    if !report.evidence.is_empty() {
        let _ = write!(page, "<h2>{}</h2>", words.evidence);
    }
    for file in &report.evidence {
        let name = file.rsplit('/').next().unwrap_or_default();
        let _ = write!(page, "<article><code>{}</code></article>", escape(name));
    }
}

fn log(page: &mut String, log: &LogReport, language: Language) {
    let words = language.words();
    let good = log.condition.is_good() && log.unreadable == 0 && log.accusations == 0;
    let class = if good { " class=\"good\"" } else { "" };
    let name = log.member.as_deref().filter(|member| !member.is_empty()).unwrap_or(&log.place);
    let _ = write!(
        page,
        "<article{class}><h3>{}</h3><p class=\"small\">{}</p><p>{}</p><dl>",
        escape(name),
        escape(if log.origin.is_empty() { &log.place } else { &log.origin }),
        words.condition(&log.condition),
    );
    let mut row = |name: &str, value: String| {
        let _ = write!(page, "<dt>{name}</dt><dd>{value}</dd>");
    };
    row(words.entries, number(log.size, language));
    if log.time_unix_ms > 0 {
        row(words.last_entry, date(log.time_unix_ms, language));
    }
    for (name, count) in [
        (words.delayed, log.delayed),
        (words.sealed, log.sealed),
        (words.unreadable, log.unreadable),
        (words.accusations, log.accusations),
    ] {
        if count > 0 {
            row(name, number(count, language));
        }
    }
    page.push_str("</dl>");
    if !log.condition.why().is_empty() {
        let _ = write!(page, "<p class=\"small\" lang=\"en\">{}</p>", escape(log.condition.why()));
    }
    for (index, told) in &log.accused {
        let _ = write!(page, "<p class=\"small\">№ {index}: {}</p>", escape(told));
    }
    page.push_str("</article>");
}

fn counts(page: &mut String, report: &Report, language: Language) {
    let (words, exchanges) = (language.words(), &report.exchanges);
    let _ = write!(page, "<h2>{}</h2><dl>", words.exchanges);
    for (name, count) in [
        (words.agreed, exchanges.agreed),
        (words.wrong, exchanges.wrong),
        (words.waiting, exchanges.waiting),
        (words.never_arrived, exchanges.never_arrived),
        (words.hidden, exchanges.hidden),
        (words.other_schemas, exchanges.other_schemas),
        (words.unchecked, exchanges.unchecked),
    ] {
        let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", number(count, language));
    }
    page.push_str("</dl>");
}

/// Bishkek's time, as each language writes dates.
pub(crate) fn date(unix_ms: i64, language: Language) -> String {
    let bishkek = UtcOffset::from_hms(6, 0, 0).unwrap_or(UtcOffset::UTC);
    let Ok(time) = OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1_000)) else { return unix_ms.to_string() };
    let Some(time) = time.checked_to_offset(bishkek) else { return unix_ms.to_string() };
    let month = language.words().months[usize::from(u8::from(time.month())) - 1];
    let (year, day, hour, minute) = (time.year(), time.day(), time.hour(), time.minute());
    match language {
        Language::Kyrgyz => format!("{year}-жылдын {day}-{month}, {hour:02}:{minute:02}"),
        Language::Russian => format!("{day} {month} {year} г., {hour:02}:{minute:02}"),
        Language::English => format!("{day} {month} {year}, {hour:02}:{minute:02} (Bishkek)"),
    }
}

/// Digits in threes.
fn number(number: u64, language: Language) -> String {
    let digits = number.to_string();
    let mark = if language == Language::English { ',' } else { '\u{a0}' };
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(mark);
        }
        text.push(digit);
    }
    text
}

/// Text as text, whatever is in it.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Marks that turn the direction of what follows would let a log rewrite the page.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::exchanges::{Saved, Waiting};
    use super::super::state::LogState;
    use super::super::{Condition, Problem};
    use super::*;

    fn report() -> Report {
        let mut report = Report::new(1_795_605_840_000, 0, &Saved::default(), &[]);
        report.exchanges.wrong = 1_234_567;
        let mut fact = super::super::fact::Fact { log: 0, index: 7, shown_ms: 1_795_600_000_000, ..Default::default() };
        fact.consumer = "KG/GOV/1/<script>alert('1')</script>".into();
        fact.method = "\u{202e}dlrow".into();
        let waiting = Waiting { id: vec![7; 16], facts: vec![fact], reported: false };
        let logs = [LogState { origin: "a\"b".into(), ..LogState::default() }];
        report.add_finding(Finding::new(&waiting, Problem::MissingAtProvider, "told", 1_795_605_840_000, &logs));
        report.settle();
        report
    }

    #[test]
    fn nothing_from_a_log_is_markup() {
        for language in Language::ALL {
            let page = html(&report(), language);
            assert!(!page.contains("<script") && !page.contains("a\"b") && !page.contains('\u{202e}'), "{page}");
            assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"), "{page}");
        }
    }

    #[test]
    fn dates_numbers_and_languages() {
        let at = 1_795_605_840_000;
        assert_eq!(date(at, Language::Kyrgyz), "2026-жылдын 25-ноябры, 17:24");
        assert_eq!(date(at, Language::Russian), "25 ноября 2026 г., 17:24");
        assert_eq!(date(at, Language::English), "25 November 2026, 17:24 (Bishkek)");
        assert_eq!(date(i64::MAX, Language::English), i64::MAX.to_string());
        assert_eq!(number(1_234_567, Language::English), "1,234,567");
        assert_eq!(number(67, Language::Kyrgyz), "67");
        assert_eq!(number(1_000, Language::Russian), "1\u{a0}000");
        let mut good = report();
        good.exchanges.wrong = 0;
        good.settle();
        assert!(html(&good, Language::English).contains("class=\"verdict good\""));
        assert!(html(&report(), Language::Russian).contains("lang=\"ru\""));
        assert_eq!(Condition::New.name(), "NEW");
    }

    #[test]
    fn the_reader_chooses_the_language() {
        let choose = |query, accepts| Language::choose(query, accepts);
        assert_eq!(choose(Some("lang=ru"), Some("en")), Language::Russian);
        assert_eq!(choose(Some("x=1"), Some("de-DE, en;q=0.8, ru;q=0.5")), Language::English);
        assert_eq!(choose(None, Some("ky-KG,ru;q=0.8")), Language::Kyrgyz);
        assert_eq!(choose(Some("lang=de"), None), Language::Kyrgyz);
    }
}
