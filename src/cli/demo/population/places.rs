//! Towns and villages of the Kyrgyz Republic with streets that they might have. Codes are the demo's own.

/// A town, village or city.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Oblast, or city of republican significance.
    pub region: &'static str,
    /// District; empty for towns of their oblast.
    pub district: &'static str,
    /// Town or village.
    pub locality: &'static str,
    /// Oblast and district in cadastral numbers.
    pub code: (u8, u8),
    /// Streets.
    pub streets: &'static [&'static str],
    /// Whether homes are mostly flats.
    pub urban: bool,
    /// Thousands of people, roughly: how often it is picked.
    pub weight: u32,
}

const fn place(
    region: &'static str,
    district: &'static str,
    locality: &'static str,
    code: (u8, u8),
    urban: bool,
    weight: u32,
    streets: &'static [&'static str],
) -> Place {
    Place { region, district, locality, code, streets, urban, weight }
}

const CHUI: &str = "Чүй облусу";
const ISSYK_KUL: &str = "Ысык-Көл облусу";
const NARYN: &str = "Нарын облусу";
const TALAS: &str = "Талас облусу";
const JALAL_ABAD: &str = "Жалал-Абад облусу";
const OSH: &str = "Ош облусу";
const BATKEN: &str = "Баткен облусу";

const VILLAGE: &[&str] =
    &["Ленин көчөсү", "Жаштык көчөсү", "Мектеп көчөсү", "Ынтымак көчөсү", "Достук көчөсү", "Ак-Тилек көчөсү"];

/// All places.
pub const PLACES: &[Place] = &[
    place(
        "Бишкек шаары",
        "",
        "Бишкек",
        (1, 4),
        true,
        1_000,
        &[
            "Чүй проспектиси",
            "Манас проспектиси",
            "Токтогул көчөсү",
            "Киев көчөсү",
            "Боконбаев көчөсү",
            "Жибек Жолу проспектиси",
            "Ахунбаев көчөсү",
            "Ибраимов көчөсү",
            "Байтик Баатыр көчөсү",
            "Тыныстанов көчөсү",
        ],
    ),
    place(
        "Ош шаары",
        "",
        "Ош",
        (2, 1),
        true,
        320,
        &["Курманжан Датка көчөсү", "Ленин көчөсү", "Масалиев проспектиси", "Гапар Айтиев көчөсү", "Навои көчөсү"],
    ),
    place(CHUI, "", "Токмок", (8, 1), true, 70, &["Ленин көчөсү", "Фрунзе көчөсү", "Шамсинская көчөсү"]),
    place(
        CHUI,
        "Жайыл району",
        "Кара-Балта",
        (8, 2),
        true,
        50,
        &["Жайыл Баатыр көчөсү", "Труд көчөсү", "Калинин көчөсү"],
    ),
    place(CHUI, "Сокулук району", "Сокулук", (8, 5), false, 40, VILLAGE),
    place(CHUI, "Аламүдүн району", "Лебединовка", (8, 6), false, 45, VILLAGE),
    place(CHUI, "Ысык-Ата району", "Кант", (8, 7), true, 30, &["Ленин көчөсү", "Мир көчөсү", "Гагарин көчөсү"]),
    place(ISSYK_KUL, "", "Каракол", (6, 1), true, 85, &["Токтогул көчөсү", "Жамансариев көчөсү", "Гебзе көчөсү"]),
    place(ISSYK_KUL, "", "Балыкчы", (6, 2), true, 50, &["Фрунзе көчөсү", "Олимпийская көчөсү", "Аманбаев көчөсү"]),
    place(
        ISSYK_KUL,
        "Ысык-Көл району",
        "Чолпон-Ата",
        (6, 3),
        false,
        15,
        &["Совет көчөсү", "Горный көчөсү", "Акматбай Ата көчөсү"],
    ),
    place(ISSYK_KUL, "Тоң району", "Бөкөнбаев", (6, 5), false, 12, VILLAGE),
    place(NARYN, "", "Нарын", (5, 1), true, 40, &["Ленин көчөсү", "Тоголок Молдо көчөсү", "Чаначев көчөсү"]),
    place(NARYN, "Ат-Башы району", "Ат-Башы", (5, 2), false, 15, VILLAGE),
    place(NARYN, "Кочкор району", "Кочкор", (5, 4), false, 12, VILLAGE),
    place(TALAS, "", "Талас", (7, 1), true, 42, &["Бердике Баатыр көчөсү", "Сарыгулов көчөсү", "Манас көчөсү"]),
    place(TALAS, "Кара-Буура району", "Кызыл-Адыр", (7, 3), false, 12, VILLAGE),
    place(
        JALAL_ABAD,
        "",
        "Жалал-Абад",
        (3, 1),
        true,
        125,
        &["Ленин көчөсү", "Эркиндик көчөсү", "Токтогул көчөсү", "Курманбек көчөсү"],
    ),
    place(JALAL_ABAD, "", "Таш-Көмүр", (3, 3), true, 25, &["Алгыбай көчөсү", "Ленин көчөсү"]),
    place(JALAL_ABAD, "Аксы району", "Кербен", (3, 7), false, 20, VILLAGE),
    place(OSH, "Кара-Суу району", "Кара-Суу", (2, 4), false, 30, VILLAGE),
    place(OSH, "Өзгөн району", "Өзгөн", (2, 5), true, 62, &["Манас көчөсү", "Жалал-Абад көчөсү", "Гагарин көчөсү"]),
    place(OSH, "Ноокат району", "Ноокат", (2, 6), false, 18, VILLAGE),
    place(BATKEN, "", "Баткен", (4, 1), false, 28, &["Раззаков көчөсү", "Садыков көчөсү", "Нургазиев көчөсү"]),
    place(BATKEN, "", "Кызыл-Кыя", (4, 2), true, 45, &["Асаналиев көчөсү", "Манас көчөсү", "Достук көчөсү"]),
];
