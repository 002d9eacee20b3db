//! Names common in the Kyrgyz Republic, and how surnames and patronymics are made of them.

use crate::proto::kg::civil::v1::Sex;

/// A tradition of naming: given names and surnames that go together.
#[derive(Debug)]
pub struct Tradition {
    /// Men's given names; all end in a consonant, so that `-ович` and `-овна` are right, or in `й` (`-евич`).
    pub men: &'static [&'static str],
    /// Women's given names.
    pub women: &'static [&'static str],
    /// Surnames in the masculine.
    pub surnames: &'static [&'static str],
    /// Whether the `уулу`/`кызы` form is in use.
    pub uulu: bool,
    /// In how many of a hundred families.
    pub weight: u32,
}

/// All traditions.
pub const TRADITIONS: &[Tradition] = &[
    Tradition {
        men: &[
            "Бакыт",
            "Кубанычбек",
            "Азамат",
            "Нурлан",
            "Айбек",
            "Эркин",
            "Талант",
            "Улан",
            "Данияр",
            "Темирлан",
            "Мирлан",
            "Чынгыз",
            "Жаныбек",
            "Канат",
            "Марат",
            "Бектур",
            "Алмаз",
            "Кайрат",
            "Тилек",
            "Нурбек",
            "Жоомарт",
            "Аскар",
            "Болот",
            "Суюнбек",
            "Замир",
            "Максат",
            "Арстан",
            "Асан",
            "Эмилбек",
            "Омурбек",
            "Таалайбек",
            "Бекзат",
            "Эрлан",
            "Сыймык",
            "Актан",
            "Адилет",
            "Ырысбек",
            "Байэл",
        ],
        women: &[
            "Айгүл",
            "Айнура",
            "Гүлнара",
            "Жылдыз",
            "Нурзат",
            "Бермет",
            "Чолпон",
            "Айжан",
            "Мээрим",
            "Асель",
            "Бегимай",
            "Каныкей",
            "Перизат",
            "Айзада",
            "Назгүл",
            "Жибек",
            "Сайкал",
            "Алтынай",
            "Нургүл",
            "Эльнура",
            "Айпери",
            "Гүлзат",
            "Динара",
            "Тахмина",
            "Уулкан",
            "Рахат",
            "Салтанат",
            "Аида",
            "Жаркынай",
            "Нурайым",
        ],
        surnames: &[
            "Асанов",
            "Абдыкадыров",
            "Токтогулов",
            "Жумабаев",
            "Осмонов",
            "Мамытов",
            "Исаков",
            "Сыдыков",
            "Орозбаков",
            "Кадыров",
            "Эсенов",
            "Турдубаев",
            "Чекиров",
            "Алымкулов",
            "Бекболотов",
            "Дуйшеев",
            "Касымалиев",
            "Муратов",
            "Ниязалиев",
            "Сатыбалдиев",
            "Тологонов",
            "Усенов",
            "Шаршенов",
            "Ысманов",
            "Кожомкулов",
            "Байтемиров",
            "Кенжебаев",
            "Молдокулов",
            "Акунов",
            "Жолдошев",
            "Абдраимов",
            "Толомушев",
        ],
        uulu: true,
        weight: 76,
    },
    Tradition {
        men: &[
            "Александр",
            "Сергей",
            "Иван",
            "Андрей",
            "Виктор",
            "Владимир",
            "Максим",
            "Роман",
            "Артём",
            "Денис",
            "Олег",
            "Антон",
            "Пётр",
            "Николай",
        ],
        women: &[
            "Анна",
            "Елена",
            "Ольга",
            "Наталья",
            "Мария",
            "Светлана",
            "Татьяна",
            "Ирина",
            "Екатерина",
            "Дарья",
            "Юлия",
            "Вера",
        ],
        surnames: &[
            "Иванов",
            "Кузнецов",
            "Смирнов",
            "Попов",
            "Морозов",
            "Павлов",
            "Ковалёв",
            "Соколов",
            "Голубев",
            "Никитин",
            "Фролов",
            "Зайцев",
        ],
        uulu: false,
        weight: 10,
    },
    Tradition {
        men: &["Рустам", "Фарход", "Шавкат", "Улугбек", "Жамшид", "Дилшод", "Акрам", "Илхом", "Равшан", "Бахтиёр"],
        women: &["Дилноза", "Гулнора", "Нигора", "Мадина", "Зулфия", "Нодира", "Барно", "Феруза", "Шахло", "Озода"],
        surnames: &[
            "Юсупов",
            "Рахимов",
            "Каримов",
            "Абдуллаев",
            "Мирзаев",
            "Хакимов",
            "Ибрагимов",
            "Турсунов",
            "Халилов",
        ],
        uulu: false,
        weight: 14,
    },
];

/// A surname in the gender of its bearer.
pub fn surname(masculine: &str, sex: Sex) -> String {
    if sex == Sex::Female { format!("{masculine}а") } else { masculine.to_owned() }
}

/// The patronymic of a child of `father`.
pub fn patronymic(father: &str, sex: Sex) -> String {
    // Names whose stem changes, as the passport office writes them.
    let (stem, soft) = match father {
        "Пётр" => ("Петр", false),
        _ => father.strip_suffix('й').map_or((father, false), |stem| (stem, true)),
    };
    let ending = match (sex, soft) {
        (Sex::Female, false) => "овна",
        (Sex::Female, true) => "евна",
        (_, false) => "ович",
        (_, true) => "евич",
    };
    format!("{stem}{ending}")
}

/// The Kyrgyz form that stands for surname and patronymic: `Асан уулу`, `Асан кызы`.
pub fn uulu(father: &str, sex: Sex) -> String {
    format!("{father} {}", if sex == Sex::Female { "кызы" } else { "уулу" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_the_gender_of_their_bearer() {
        assert_eq!(surname("Асанов", Sex::Female), "Асанова");
        assert_eq!(patronymic("Кубанычбек", Sex::Male), "Кубанычбекович");
        assert_eq!(patronymic("Сергей", Sex::Female), "Сергеевна");
        assert_eq!(patronymic("Николай", Sex::Male), "Николаевич");
        assert_eq!(patronymic("Пётр", Sex::Male), "Петрович");
        assert_eq!(uulu("Асан", Sex::Female), "Асан кызы");
    }

    #[test]
    fn every_father_has_a_patronymic_and_every_surname_a_feminine() {
        for tradition in TRADITIONS {
            for name in tradition.men {
                assert!(!name.ends_with(['а', 'я', 'о', 'ы', 'и', 'ь', 'у', 'е', 'ш', 'ж', 'ч', 'ц', 'щ']), "{name}");
            }
            for name in tradition.surnames {
                assert!(["ов", "ев", "ёв", "ин"].iter().any(|end| name.ends_with(end)), "{name}");
            }
        }
    }
}
