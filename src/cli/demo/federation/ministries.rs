//! The demo's four ministries. Names are those of real bodies; member codes, grants and legal bases are made up, and
//! what they exchange here is synthetic.

use bytes::Bytes;

use super::{Allow, Grant, LegalBasis, Ministry, Plan, Rate, purposes};
use crate::cli::demo::backends::Backend;
use crate::proto::DESCRIPTORS;

const REGISTRY: &str = "KG/GOV/70000001";
const TAX: &str = "KG/GOV/70000002";
const SOCIAL: &str = "KG/GOV/70000003";
const CADASTRE: &str = "KG/GOV/70000004";

pub(in crate::cli::demo) const CIVIL_REGISTRY: &str = "KG/GOV/70000001/civil-registry";
pub(in crate::cli::demo) const SERVICE_CENTRE: &str = "KG/GOV/70000001/service-centre";
pub(in crate::cli::demo) const TAX_SERVICE: &str = "KG/GOV/70000002/tax-service";
pub(in crate::cli::demo) const SOCIAL_FUND: &str = "KG/GOV/70000003/social-fund";
pub(in crate::cli::demo) const CADASTRE_SYSTEM: &str = "KG/GOV/70000004/cadastre";

/// Four ministries, each with one system that offers a service and asks the others for theirs; and an auditor.
pub fn kyrgyz_republic() -> anyhow::Result<Plan> {
    Ok(Plan {
        federation: "KG".into(),
        ministries: vec![registry()?, tax()?, social()?, cadastre()?],
        auditors: vec![(REGISTRY.parse()?, "inspection".into())],
        purposes: purposes::register(),
        descriptors: Bytes::from_static(DESCRIPTORS),
        council: (3, 2),
    })
}

fn registry() -> anyhow::Result<Ministry> {
    let civil = Backend::Civil.service();
    let grant = |consumer, methods, code, text| grant(consumer, "civil-registry", civil, methods, code, text);
    let mut desk =
        grant(CADASTRE_SYSTEM, &["GetPerson"], "ZR-12-4", "«О государственной регистрации прав», ст. 12 ч. 4");
    // One that the law keeps out of the public's sight: its entries show that they are there, and nothing else.
    desk.publication = Some("sealed".into());
    desk.categories = words(&["identity"]);
    let mut tax = grant(TAX_SERVICE, &["GetPerson", "GetResidence"], "NK-54-2", "Салык кодекси, 54-берене, 2-бөлүк");
    tax.categories = words(&["identity", "contact"]);
    // A name and an address, and no family: what else the registry answers does not leave its node.
    let insurance = "«О государственном социальном страховании», ст. 8 ч. 1";
    let mut person = grant(SOCIAL_FUND, &["GetPerson"], "ZSS-8-1", insurance);
    person.fields = words(&["person.pin", "person.surname", "person.given_name", "person.patronymic", "residence"]);
    person.name_withheld = true;
    Ok(Ministry {
        member: REGISTRY.parse()?,
        folder: "registry".into(),
        names: [
            "Кыргыз Республикасынын Санариптик өнүктүрүү жана инновациялык технологиялар министрлиги".into(),
            "Министерство цифрового развития и инновационных технологий Кыргызской Республики".into(),
            "Ministry of Digital Development and Innovative Technologies of the Kyrgyz Republic".into(),
        ],
        systems: vec![("civil-registry".into(), vec![civil.into()]), ("service-centre".into(), vec![])],
        grants: vec![
            tax,
            person,
            grant(SOCIAL_FUND, &["GetFamily", "ListChanges", "WatchChanges"], "ZSS-8-1", insurance),
            desk,
        ],
        outbound: vec![
            allow("civil-registry", CADASTRE_SYSTEM, Backend::Cadastre, &["*"]),
            allow("service-centre", SOCIAL_FUND, Backend::Social, &["GetPension"]),
        ],
    })
}

fn tax() -> anyhow::Result<Ministry> {
    let service = Backend::Tax.service();
    let mut old = grant(
        CADASTRE_SYSTEM,
        "tax-service",
        service,
        &["GetTaxpayerStatus"],
        "PP-114",
        "Постановление № 114 о пилотном обмене, до конца 2025 года",
    );
    (old.from, old.until) = (Some("2025-01-01".into()), Some("2025-12-31".into()));
    Ok(Ministry {
        member: TAX.parse()?,
        folder: "tax".into(),
        names: [
            "Кыргыз Республикасынын Министрлер Кабинетине караштуу Мамлекеттик салык кызматы".into(),
            "Государственная налоговая служба при Кабинете Министров Кыргызской Республики".into(),
            "State Tax Service under the Cabinet of Ministers of the Kyrgyz Republic".into(),
        ],
        systems: vec![("tax-service".into(), vec![service.into()])],
        grants: vec![
            grant(
                SOCIAL_FUND,
                "tax-service",
                service,
                &["GetIncome", "GetTaxpayerStatus"],
                "ZSS-14-3",
                "«О государственном социальном страховании», ст. 14 ч. 3",
            ),
            old,
        ],
        outbound: vec![
            allow("tax-service", CIVIL_REGISTRY, Backend::Civil, &["GetPerson", "GetResidence", "GetFamily"]),
            allow("tax-service", SOCIAL_FUND, Backend::Social, &["GetContributions", "UploadReport"]),
            allow("tax-service", CADASTRE_SYSTEM, Backend::Cadastre, &["*"]),
        ],
    })
}

fn social() -> anyhow::Result<Ministry> {
    let service = Backend::Social.service();
    Ok(Ministry {
        member: SOCIAL.parse()?,
        folder: "social".into(),
        names: [
            "Кыргыз Республикасынын Министрлер Кабинетине караштуу Социалдык фонд".into(),
            "Социальный фонд при Кабинете Министров Кыргызской Республики".into(),
            "Social Fund under the Cabinet of Ministers of the Kyrgyz Republic".into(),
        ],
        systems: vec![("social-fund".into(), vec![service.into()])],
        grants: vec![grant(
            TAX_SERVICE,
            "social-fund",
            service,
            &["GetContributions", "UploadReport"],
            "NK-188-1",
            "Салык кодекси, 188-берене, 1-бөлүк",
        )],
        outbound: vec![
            allow("social-fund", CIVIL_REGISTRY, Backend::Civil, &["*"]),
            allow("social-fund", TAX_SERVICE, Backend::Tax, &["*"]),
        ],
    })
}

fn cadastre() -> anyhow::Result<Ministry> {
    let service = Backend::Cadastre.service();
    let mut single = grant(
        CIVIL_REGISTRY,
        "cadastre",
        service,
        &["GetProperty"],
        "ZMU-21",
        "«О местном самоуправлении», ст. 21: проверка адреса при регистрации",
    );
    single.rate = Some(Rate { per_second: 2, burst: 5 });
    Ok(Ministry {
        member: CADASTRE.parse()?,
        folder: "cadastre".into(),
        names: [
            "Кыргыз Республикасынын Министрлер Кабинетине караштуу Жер ресурстары, кадастр, геодезия жана картография боюнча мамлекеттик агенттик".into(),
            "Государственное агентство по земельным ресурсам, кадастру, геодезии и картографии при Кабинете Министров Кыргызской Республики".into(),
            "State Agency for Land Resources, Cadastre, Geodesy and Cartography under the Cabinet of Ministers of the Kyrgyz Republic".into(),
        ],
        systems: vec![("cadastre".into(), vec![service.into()])],
        grants: vec![
            grant(
                TAX_SERVICE,
                "cadastre",
                service,
                &["SearchProperties", "Reconcile"],
                "NK-323-5",
                "Салык кодекси, 323-берене, 5-бөлүк: кыймылсыз мүлккө салык",
            ),
            single,
        ],
        outbound: vec![
            Allow {
                publication: Some("sealed".into()),
                ..allow("cadastre", CIVIL_REGISTRY, Backend::Civil, &["GetPerson"])
            },
            allow("cadastre", TAX_SERVICE, Backend::Tax, &["GetTaxpayerStatus"]),
        ],
    })
}

fn grant(consumer: &str, provider: &str, service: &str, methods: &[&str], code: &str, text: &str) -> Grant {
    Grant {
        consumer: consumer.into(),
        provider: provider.into(),
        service: service.into(),
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        legal_basis: LegalBasis { code: code.into(), text: text.into() },
        from: None,
        until: None,
        rate: None,
        publication: None,
        fields: Vec::new(),
        categories: Vec::new(),
        name_withheld: false,
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn allow(system: &str, provider: &str, backend: Backend, methods: &[&str]) -> Allow {
    Allow {
        system: system.into(),
        provider: provider.into(),
        service: backend.service().into(),
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        publication: None,
    }
}
