//! What the page says, in three languages.

use super::super::model::State;
use crate::oversight::monitor::page::Language;

pub(super) struct Words {
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) made: &'static str,
    pub(super) directory: &'static str,
    pub(super) nothing: &'static str,
    pub(super) not_asked: &'static str,
    pub(super) services: &'static str,
    pub(super) of_node: &'static str,
    pub(super) provider: &'static str,
    pub(super) basis: &'static str,
    pub(super) validity: &'static str,
    pub(super) no_end: &'static str,
    pub(super) not_in_force: &'static str,
    pub(super) rate: &'static str,
    /// With `#` for the number.
    pub(super) per_second: &'static str,
    pub(super) no_rate: &'static str,
    pub(super) fields: &'static str,
    pub(super) all_fields: &'static str,
    pub(super) publication: &'static str,
    pub(super) purposes: &'static str,
    pub(super) request: &'static str,
    pub(super) response: &'static str,
    pub(super) field: &'static str,
    pub(super) personal: &'static str,
    pub(super) open: &'static str,
    pub(super) partly: &'static str,
    pub(super) withheld: &'static str,
    pub(super) repeated: &'static str,
    pub(super) subject: &'static str,
    pub(super) committed: &'static str,
    pub(super) example: &'static str,
    pub(super) how_to_ask: &'static str,
    /// Public, delayed (with `#` for the days), sealed.
    classes: [&'static str; 3],
    /// Unary, client-streaming, server-streaming, bidirectional.
    kinds: [&'static str; 4],
    /// As [`State`].
    states: [&'static str; 7],
    /// As [`crate::schema::annotations::CORE_CATEGORIES`].
    categories: [&'static str; 11],
}

pub(super) fn of(language: Language) -> &'static Words {
    match language {
        Language::Kyrgyz => &KYRGYZ,
        Language::Russian => &RUSSIAN,
        Language::English => &ENGLISH,
    }
}

impl Words {
    pub(super) fn state(&self, state: State) -> &'static str {
        self.states[match state {
            State::Callable => 0,
            State::NotAsked => 1,
            State::NotYet => 2,
            State::Ended => 3,
            State::NoGrant => 4,
            State::NoOutbound => 5,
            State::Neither => 6,
        }]
    }

    pub(super) fn kind(&self, kind: &str) -> &'static str {
        self.kinds[match kind {
            "unary" => 0,
            "client-streaming" => 1,
            "server-streaming" => 2,
            _ => 3,
        }]
    }

    pub(super) fn class(&self, class: &str) -> String {
        match class.strip_prefix("delayed ") {
            Some(days) => self.classes[1].replace('#', days),
            None if class == "sealed" => self.classes[2].to_owned(),
            None => self.classes[0].to_owned(),
        }
    }

    /// A category of the core; others as they are.
    pub(super) fn category<'a>(&self, category: &'a str) -> &'a str {
        let core = crate::schema::annotations::CORE_CATEGORIES.iter().position(|one| *one == category);
        core.map_or(category, |at| self.categories[at])
    }
}

static KYRGYZ: Words = Words {
    title: "Көпүрө: кызматтардын каталогу",
    about: "Бул система кайсы кызматтарга кайрыла алат, кандай мыйзамдуу негизде жана кайсы маалыматты алат.",
    made: "Түзүлгөн убакыт:",
    directory: "Реестрдин версиясы:",
    nothing: "Бул система кайрыла ала турган кызмат жок.",
    not_asked: "Бул органдардын түйүндөрү жооп берген жок, ошондуктан алардын уруксаттары белгисиз:",
    services: "Кызматтар",
    of_node: "Ошол органдын түйүнүнүн өз кызматы: ага түз кайрылышат.",
    provider: "Маалымат берүүчү",
    basis: "Мыйзамдуу негиз",
    validity: "Мөөнөтү",
    no_end: "мөөнөтсүз",
    not_in_force: "күчүндө эмес",
    rate: "Жыштыгы",
    per_second: "секундасына #",
    no_rate: "өзүнчө чек жок",
    fields: "Талаалар",
    all_fields: "баары",
    publication: "Жарыялоо",
    purposes: "Мыйзамдуу максаттар",
    request: "Суроо",
    response: "Жооп",
    field: "Талаа",
    personal: "Жеке маалымат",
    open: "өтөт",
    partly: "жарым-жартылай",
    withheld: "өтпөйт",
    repeated: "кайталанат",
    subject: "маалымат ээси",
    committed: "өзүнчө бекитилет",
    example: "Мисал",
    how_to_ask: "Кантип суроо керек",
    classes: ["ачык", "# күндөн кийин", "жабык"],
    kinds: ["бир суроо, бир жооп", "суроолордун агымы", "жооптордун агымы", "эки тараптуу агым"],
    states: [
        "Кайрылууга болот",
        "Белгисиз: маалымат берүүчүнүн түйүнү жооп берген жок",
        "Уруксат али күчүнө кире элек",
        "Уруксаттын мөөнөтү бүткөн",
        "Уруксат жок",
        "Уруксат бар, бирок өз түйүнүңүздө эреже жок",
        "Уруксат да, өз түйүнүңүздө эреже да жок",
    ],
    categories: [
        "инсандыгы",
        "байланыш",
        "үй-бүлө",
        "ден соолук",
        "киреше",
        "мүлк",
        "соттуулук",
        "биометрия",
        "билими",
        "иши",
        "турган жери",
    ],
};

static RUSSIAN: Words = Words {
    title: "Көпүрө: каталог сервисов",
    about: "Какие сервисы может вызывать эта система, на каких правовых основаниях и какие данные она получает.",
    made: "Составлено:",
    directory: "Версия реестра:",
    nothing: "Этой системе нечего вызывать.",
    not_asked: "Узлы этих органов не ответили, поэтому их разрешения неизвестны:",
    services: "Сервисы",
    of_node: "Собственный сервис узла этого органа: вызывается у него напрямую.",
    provider: "Поставщик",
    basis: "Правовое основание",
    validity: "Срок действия",
    no_end: "бессрочно",
    not_in_force: "не действует",
    rate: "Частота",
    per_second: "# в секунду",
    no_rate: "без отдельного ограничения",
    fields: "Поля",
    all_fields: "все",
    publication: "Публикация",
    purposes: "Законные цели",
    request: "Запрос",
    response: "Ответ",
    field: "Поле",
    personal: "Персональные данные",
    open: "передаётся",
    partly: "частично",
    withheld: "не передаётся",
    repeated: "повторяется",
    subject: "субъект данных",
    committed: "фиксируется отдельно",
    example: "Пример",
    how_to_ask: "Как запросить",
    classes: ["открыто", "через # дн.", "закрыто"],
    kinds: ["один запрос, один ответ", "поток запросов", "поток ответов", "двусторонний поток"],
    states: [
        "Можно вызывать",
        "Неизвестно: узел поставщика не ответил",
        "Разрешение ещё не вступило в силу",
        "Срок разрешения истёк",
        "Нет разрешения",
        "Разрешение есть, но на собственном узле нет правила",
        "Нет ни разрешения, ни правила на собственном узле",
    ],
    categories: [
        "личность",
        "контакты",
        "семья",
        "здоровье",
        "доходы",
        "имущество",
        "судимость",
        "биометрия",
        "образование",
        "работа",
        "местонахождение",
    ],
};

static ENGLISH: Words = Words {
    title: "Kopuro: catalogue of services",
    about: "Which services this system may call, on which legal bases, and which data it gets.",
    made: "Made:",
    directory: "Directory version:",
    nothing: "There is nothing that this system may call.",
    not_asked: "The nodes of these bodies did not answer, so what they grant is not known:",
    services: "Services",
    of_node: "That body's node's own service: called there directly.",
    provider: "Provider",
    basis: "Legal basis",
    validity: "Validity",
    no_end: "without end",
    not_in_force: "not in force",
    rate: "Rate",
    per_second: "# per second",
    no_rate: "no limit of its own",
    fields: "Fields",
    all_fields: "all",
    publication: "Publication",
    purposes: "Lawful purposes",
    request: "Request",
    response: "Response",
    field: "Field",
    personal: "Personal data",
    open: "crosses",
    partly: "partly",
    withheld: "withheld",
    repeated: "repeated",
    subject: "data subject",
    committed: "committed by itself",
    example: "Example",
    how_to_ask: "How to ask",
    classes: ["public", "after # days", "sealed"],
    kinds: ["one request, one response", "stream of requests", "stream of responses", "streams both ways"],
    states: [
        "May be called",
        "Not known: the provider's node did not answer",
        "The grant is not in force yet",
        "The grant has ended",
        "No grant",
        "Granted, but your own node has no rule for it",
        "Neither a grant nor a rule of your own node",
    ],
    categories: [
        "identity",
        "contact",
        "family",
        "health",
        "income",
        "property",
        "criminal record",
        "biometric",
        "education",
        "employment",
        "location",
    ],
};
