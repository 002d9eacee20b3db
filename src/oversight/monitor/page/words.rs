//! What the page says, in three languages.

use super::super::{Condition, Problem};

/// A language of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Кыргызча.
    Kyrgyz,
    /// Русский.
    Russian,
    /// English.
    English,
}

impl Language {
    pub(crate) const ALL: [Self; 3] = [Self::Kyrgyz, Self::Russian, Self::English];

    /// By `lang=` in the query of a URL, else by the first that an `Accept-Language` header names and we have.
    pub fn choose(query: Option<&str>, accepts: Option<&str>) -> Self {
        let of = |code: &str| {
            Self::ALL.into_iter().find(|language| code.trim().to_ascii_lowercase().starts_with(language.code()))
        };
        let asked = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("lang=")).and_then(of);
        asked.or_else(|| accepts.unwrap_or_default().split(',').find_map(of)).unwrap_or(Self::Kyrgyz)
    }

    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Kyrgyz => "ky",
            Self::Russian => "ru",
            Self::English => "en",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kyrgyz => "Кыргызча",
            Self::Russian => "Русский",
            Self::English => "English",
        }
    }

    pub(super) fn words(self) -> &'static Words {
        match self {
            Self::Kyrgyz => &KYRGYZ,
            Self::Russian => &RUSSIAN,
            Self::English => &ENGLISH,
        }
    }
}

pub(super) struct Words {
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) well: &'static str,
    pub(super) not_well: &'static str,
    pub(super) looked: &'static str,
    pub(super) findings: &'static str,
    pub(super) more: &'static str,
    pub(super) evidence: &'static str,
    pub(super) logs: &'static str,
    pub(super) exchange: &'static str,
    pub(super) exchanges: &'static str,
    pub(super) entries: &'static str,
    pub(super) last_entry: &'static str,
    pub(super) delayed: &'static str,
    pub(super) sealed: &'static str,
    pub(super) unreadable: &'static str,
    pub(super) accusations: &'static str,
    pub(super) agreed: &'static str,
    pub(super) wrong: &'static str,
    pub(super) waiting: &'static str,
    pub(super) never_arrived: &'static str,
    pub(super) hidden: &'static str,
    pub(super) other_schemas: &'static str,
    pub(super) unchecked: &'static str,
    pub(super) months: [&'static str; 12],
    /// Good, new, unreachable, bad, forked.
    conditions: [&'static str; 5],
    /// As [`Problem::ALL`].
    problems: [&'static str; 9],
    /// Days, hours, minutes, seconds.
    units: [&'static str; 4],
}

impl Words {
    pub(super) fn condition(&self, condition: &Condition) -> &'static str {
        self.conditions[match condition {
            Condition::Good => 0,
            Condition::New => 1,
            Condition::Unreachable(_) => 2,
            Condition::Bad(_) => 3,
            Condition::Forked(_) => 4,
        }]
    }

    pub(super) fn problem(&self, problem: Problem) -> &'static str {
        Problem::ALL.iter().zip(self.problems).find(|(one, _)| **one == problem).map_or("", |(_, words)| words)
    }

    pub(super) fn age(&self, seconds: i64) -> String {
        let (number, unit) = match seconds {
            ..60 => (seconds, 3),
            60..3_600 => (seconds / 60, 2),
            3_600..86_400 => (seconds / 3_600, 1),
            _ => (seconds / 86_400, 0),
        };
        format!("{number} {}", self.units[unit])
    }
}

static KYRGYZ: Words = Words {
    title: "Көпүрө: журналдарды көзөмөлдөө",
    about: "Мамлекеттик органдар маалымат алмашканда, ар бир алмашууну эки тарап тең өз журналына жазат. Бул бет \
            жарыяланган журналдарды салыштырат: өзгөртүлгөн жокпу, эки тарап бирдей жазганбы.",
    well: "Баары жайында",
    not_well: "Дал келбеген нерсе бар",
    looked: "Текшерилген убакыт:",
    findings: "Дал келбеген алмашуулар",
    more: "Дагы",
    evidence: "Бири-бирине карама-каршы кол коюлган күбөлүктөр",
    logs: "Журналдар",
    exchange: "Алмашуу",
    exchanges: "Алмашуулар",
    entries: "Жазуулар",
    last_entry: "Акыркы жазуу",
    delayed: "Кийинчерээк ачылат",
    sealed: "Жабык",
    unreadable: "Окулбаган",
    accusations: "Башка журналга айып",
    agreed: "Эки тарап бирдей жазган",
    wrong: "Дал келбейт",
    waiting: "Күтүлүүдө",
    never_arrived: "Жеткен эмес",
    hidden: "Салыштырууга болбойт: экинчи тарап жашырган",
    other_schemas: "Бирдей, бирок типтердин ар башка версиясы менен текшерилген",
    unchecked: "Бир гана журнал бар",
    months: [
        "январы",
        "февралы",
        "марты",
        "апрели",
        "майы",
        "июну",
        "июлу",
        "августу",
        "сентябры",
        "октябры",
        "ноябры",
        "декабры",
    ],
    conditions: [
        "Текшерилди: бүтүн, өзгөртүлгөн эмес",
        "Али текшериле элек",
        "Жеткиликсиз",
        "Текшерүүдөн өткөн жок",
        "Журнал эки башка тарыхты көрсөттү",
    ],
    problems: [
        "Сураган тараптын журналында жок",
        "Жооп берген тараптын журналында жок",
        "Сураган тарап аягын жазган эмес",
        "Жооп берген тарап аягын жазган эмес",
        "Эки тарап аягын ар башка жазган",
        "Эки тарап ким эмнени сураганын ар башка жазган",
        "Четке кагылган, бирок жөнөтүлгөн",
        "Бир эле алмашуу кайталап жазылган",
        "Тиешеси жок журналда жазылган",
    ],
    units: ["күн", "саат", "мүнөт", "секунд"],
};

static RUSSIAN: Words = Words {
    title: "Көпүрө: наблюдение за журналами",
    about: "Когда государственные органы обмениваются данными, каждый обмен записывают в свой журнал обе стороны. Эта \
            страница сравнивает опубликованные журналы: не изменены ли они и одинаково ли рассказывают обе стороны.",
    well: "Всё в порядке",
    not_well: "Есть расхождения",
    looked: "Проверено:",
    findings: "Обмены, в которых журналы расходятся",
    more: "Ещё",
    evidence: "Подписанные свидетельства, противоречащие друг другу",
    logs: "Журналы",
    exchange: "Обмен",
    exchanges: "Обмены",
    entries: "Записей",
    last_entry: "Последняя запись",
    delayed: "Откроются позже",
    sealed: "Закрытых",
    unreadable: "Нечитаемых",
    accusations: "Обвинений другого журнала",
    agreed: "Обе стороны записали одинаково",
    wrong: "Расходятся",
    waiting: "Ожидаются",
    never_arrived: "Не дошли",
    hidden: "Сравнить нельзя: другая сторона скрывает",
    other_schemas: "Одинаково, но проверено по разным версиям типов",
    unchecked: "Есть только один журнал",
    months: [
        "января",
        "февраля",
        "марта",
        "апреля",
        "мая",
        "июня",
        "июля",
        "августа",
        "сентября",
        "октября",
        "ноября",
        "декабря",
    ],
    conditions: [
        "Проверен: цел, не изменён",
        "Ещё не проверен",
        "Недоступен",
        "Не прошёл проверку",
        "Журнал показал две разные истории",
    ],
    problems: [
        "Нет в журнале запросившей стороны",
        "Нет в журнале ответившей стороны",
        "Запросившая сторона не записала окончание",
        "Ответившая сторона не записала окончание",
        "Стороны записали разное окончание",
        "Стороны по-разному записали, кто и что запросил",
        "Отказано, но всё же отправлено",
        "Один обмен записан несколько раз",
        "Записано в журнале посторонней стороны",
    ],
    units: ["дн.", "ч", "мин", "с"],
};

static ENGLISH: Words = Words {
    title: "Kopuro: the logs, monitored",
    about: "When state bodies exchange data, both sides write each exchange to their own log. This page compares the \
            logs as they are published: whether they have been changed, and whether both sides tell the same.",
    well: "All is well",
    not_well: "Something does not match",
    looked: "Checked:",
    findings: "Exchanges of which the logs do not tell the same",
    more: "More",
    evidence: "Signed statements that contradict each other",
    logs: "Logs",
    exchange: "Exchange",
    exchanges: "Exchanges",
    entries: "Entries",
    last_entry: "Last entry",
    delayed: "Opened later",
    sealed: "Sealed",
    unreadable: "Unreadable",
    accusations: "Accusations of another log",
    agreed: "Both sides tell the same",
    wrong: "Do not match",
    waiting: "Waited for",
    never_arrived: "Never arrived",
    hidden: "Cannot be compared: the other side hides",
    other_schemas: "The same, checked by different versions of the types",
    unchecked: "Only one log is there",
    months: [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    conditions: [
        "Verified: whole, and never changed",
        "Not looked at yet",
        "Out of reach",
        "Does not verify",
        "The log has shown two different histories",
    ],
    problems: [
        "Missing in the asking side's log",
        "Missing in the answering side's log",
        "The asking side has not written how it ended",
        "The answering side has not written how it ended",
        "The two sides wrote different ends",
        "The two sides wrote differently who asked for what",
        "Refused, and sent all the same",
        "One exchange written more than once",
        "Written in the log of somebody who has no part in it",
    ],
    units: ["days", "h", "min", "s"],
};
