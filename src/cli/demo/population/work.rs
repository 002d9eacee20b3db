//! Employers, jobs, and what a person earns in a month.

use time::{Date, Month, macros::date};

use super::pin::Pin;
use super::{Person, Rng, TODAY, years_between};

/// Who employs.
#[derive(Debug, PartialEq, Eq)]
pub struct Employer {
    /// Name as registered.
    pub name: &'static str,
    /// Day of registration: its number is made of it.
    pub registered: Date,
    /// What it pays for.
    pub posts: &'static [Post],
}

/// A post and its usual monthly pay, in som.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Post {
    /// Title.
    pub title: &'static str,
    /// Usual gross pay.
    pub pay: i64,
}

/// Somebody's work.
#[derive(Debug, Clone)]
pub struct Job {
    /// Index in [`EMPLOYERS`].
    pub employer: usize,
    /// The post.
    pub post: Post,
    /// Since when.
    pub since: Date,
    /// Gross pay in an ordinary month, in som.
    pub pay: i64,
}

/// One month's pay, in tyiyn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pay {
    /// Gross.
    pub gross: i64,
    /// Income tax, 10 % of what is left after the employee's contribution.
    pub tax: i64,
    /// Withheld for social insurance, 10 %.
    pub employee_part: i64,
    /// Paid by the employer for social insurance, 17.25 %.
    pub employer_part: i64,
}

macro_rules! posts {
    ($($title:literal $pay:literal),* $(,)?) => { &[$(Post { title: $title, pay: $pay }),*] };
}

/// All employers. Fictional.
pub const EMPLOYERS: &[Employer] = &[
    Employer {
        name: "«Ак-Босого Курулуш» ЖЧКсы",
        registered: date!(2009 - 04 - 17),
        posts: posts!["Прораб" 62_000, "Кранчы" 48_000, "Ширетүүчү" 45_000, "Эсепчи" 39_000],
    },
    Employer {
        name: "«Тулпар Авто» ЖЧКсы",
        registered: date!(2014 - 09 - 02),
        posts: posts!["Айдоочу" 41_000, "Механик" 44_000, "Диспетчер" 30_000],
    },
    Employer {
        name: "№ 112 мектеп-гимназия",
        registered: date!(1998 - 08 - 25),
        posts: posts!["Мугалим" 36_000, "Директордун орун басары" 44_000, "Китепканачы" 23_000],
    },
    Employer {
        name: "Шаардык № 7 клиникалык оорукана",
        registered: date!(1997 - 01 - 14),
        posts: posts!["Дарыгер" 52_000, "Медайым" 33_000, "Лаборант" 29_000],
    },
    Employer {
        name: "«Ала-Тоо Банк» ААКсы",
        registered: date!(2003 - 03 - 11),
        posts: posts!["Кредит адиси" 58_000, "Кассир" 37_000, "Аналитик" 84_000],
    },
    Employer {
        name: "«Кумтөр Софт» ЖЧКсы",
        registered: date!(2018 - 05 - 30),
        posts: posts!["Программист" 165_000, "Тестировщик" 98_000, "Дизайнер" 92_000],
    },
    Employer {
        name: "«Жайлоо Сүт» айыл чарба кооперативи",
        registered: date!(2011 - 10 - 06),
        posts: posts!["Зоотехник" 34_000, "Технолог" 42_000, "Жүк ташуучу" 27_000],
    },
    Employer {
        name: "«Береке Соода» ЖЧКсы",
        registered: date!(2016 - 12 - 19),
        posts: posts!["Сатуучу" 28_000, "Дүкөн башчысы" 46_000, "Кампачы" 31_000],
    },
    Employer {
        name: "Айыл өкмөтүнүн аппараты",
        registered: date!(2001 - 06 - 08),
        posts: posts!["Башкы адис" 38_000, "Жер маселелери боюнча адис" 34_000, "Катчы" 26_000],
    },
];

impl Employer {
    /// Its taxpayer's number.
    pub fn tin(&self) -> Pin {
        let serial = u32::from(self.registered.ordinal()) * 7;
        Pin::new(None, self.registered, serial)
    }
}

impl Job {
    /// The employer.
    pub fn employer(&self) -> &'static Employer {
        &EMPLOYERS[self.employer % EMPLOYERS.len()]
    }

    pub(super) fn draw(rng: &mut Rng, born: Date) -> Self {
        let employer = usize::try_from(rng.range(0, EMPLOYERS.len() as i64 - 1)).unwrap_or(0);
        let post = rng.pick(EMPLOYERS[employer].posts);
        let grown_up = born.year() + 21;
        let since_year = i32::try_from(rng.range(grown_up.max(2005).into(), TODAY.year().into())).unwrap_or(2026);
        let month = Month::try_from(u8::try_from(rng.range(1, 10)).unwrap_or(1)).unwrap_or(Month::January);
        let since = Date::from_calendar_date(since_year.min(2026), month, 1).unwrap_or(TODAY);
        Self { employer, post, since, pay: post.pay * rng.range(85, 130) / 100 / 100 * 100 }
    }
}

impl Person {
    /// What the person was paid for a month that is over; `None` without work, before it or in the future.
    pub fn paid(&self, year: i32, month: Month) -> Option<Pay> {
        let job = self.job.as_ref()?;
        let first = Date::from_calendar_date(year, month, 1).ok()?;
        if first < job.since.replace_day(1).ok()? || first >= TODAY || self.died.is_some_and(|died| first > died) {
            return None;
        }
        let mut rng = Rng::of(&format!("{} {year} {month}", self.pin));
        // Wages were lower in the past, a little irregular, and December brings a bonus.
        let past = 100 - 6 * i64::from(years_between(first, TODAY)).min(12);
        let bonus = if month == Month::December && rng.chance(60) { 130 } else { 100 };
        let gross = job.pay * past * rng.range(96, 104) / 100 * bonus / 100;
        Some(Pay {
            gross,
            tax: (gross - gross / 10) / 10,
            employee_part: gross / 10,
            employer_part: gross * 1_725 / 10_000,
        })
    }

    /// Months of insured service up to [`TODAY`].
    pub fn insured_months(&self) -> u32 {
        let Some(job) = &self.job else {
            // Those who have retired have worked.
            let years = if self.age() >= 60 { 24 + self.pin.as_str().len() as u32 % 9 } else { 0 };
            return years * 12;
        };
        let months = (TODAY.year() - job.since.year()) * 12 + i32::from(u8::from(TODAY.month()))
            - i32::from(u8::from(job.since.month()));
        u32::try_from(months).unwrap_or(0)
    }

    /// Monthly old-age pension in som: women from 58, men from 63, as the law has it.
    pub fn pension(&self) -> Option<i64> {
        let from = if self.pin.as_str().starts_with('1') { 58 } else { 63 };
        (self.died.is_none() && self.age() >= from)
            .then(|| Rng::of(&format!("pension {}", self.pin)).range(74, 240) * 100)
    }
}
