use std::borrow::Cow;

use proptest::prelude::*;
use prost::Message;
use prost_reflect::DescriptorPool;

use super::*;
use crate::schema::json;

fn rules(service: &str, method: &str) -> Vec<Rule> {
    let pool = DescriptorPool::decode(crate::proto::DESCRIPTORS).unwrap();
    let service = pool.get_service_by_name(service).unwrap();
    let method = service.methods().find(|known| known.name() == method).unwrap();
    Rule::of(&method).unwrap()
}

fn query<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn json_of(message: &DynamicMessage) -> String {
    String::from_utf8(json::write(message, 1 << 16).unwrap()).unwrap()
}

#[test]
fn templates() {
    let matches = |template: &str, path: &str| Template::parse(template).unwrap().matches(path);
    let one = |text: &str| Some(vec![text.to_owned()]);
    assert_eq!(matches("/v1/persons/{pin}", "/v1/persons/123"), one("123"));
    assert_eq!(matches("/v1/persons/{pin}", "/v1/persons/a%2Fb%20c"), one("a/b c"));
    assert_eq!(matches("/v1/persons/{pin}", "/v1/persons/"), None);
    assert_eq!(matches("/v1/persons/{pin}", "/v1/persons/1/2"), None);
    assert_eq!(matches("/v1/persons/{pin}", "/v1/persons/%ff"), None, "not UTF-8");
    assert_eq!(matches("/v1/{name=shelves/*/books/*}", "/v1/shelves/1/books/a%2Fb"), one("shelves/1/books/a%2Fb"));
    assert_eq!(matches("/v1/{name=shelves/**}:read", "/v1/shelves/1/2/3:read"), one("shelves/1/2/3"));
    assert_eq!(matches("/v1/{name=shelves/**}:read", "/v1/shelves/1/2/3"), None);
    assert_eq!(matches("/v1/{name=shelves/**}", "/v1/shelves"), one("shelves"));
    assert_eq!(matches("/v1/changes:watch", "/v1/changes:watch"), Some(vec![]));
    assert_eq!(matches("/v1/{a}/x/{b.c}", "/v1/1/x/2"), Some(vec!["1".into(), "2".into()]));
    for (wrong, why) in [
        ("v1", TemplateError::Slash),
        ("/v1/", TemplateError::Literal),
        ("/v1//x", TemplateError::Literal),
        ("/v1/{pin", TemplateError::Brace),
        ("/v1/{pin}x", TemplateError::Brace),
        ("/v1/{a={b}}", TemplateError::Brace),
        ("/v1/**/x", TemplateError::Many),
        ("/v1/{a}/{a}", TemplateError::Twice),
        ("/v1/a?b", TemplateError::Literal),
        ("/v1/x:", TemplateError::Literal),
    ] {
        assert_eq!(Template::parse(wrong), Err(why), "{wrong}");
    }
}

proptest! {
    #[test]
    fn what_is_filled_in_is_found_again(text in "\\PC{1,12}") {
        prop_assume!(!matches!(text.as_str(), "." | ".."));
        let template = Template::parse("/v1/{a}/x:go").unwrap();
        let path = template.fill(std::slice::from_ref(&text)).unwrap();
        prop_assert!(path.is_ascii());
        prop_assert_eq!(template.matches(&path), Some(vec![text]));
    }

    #[test]
    fn no_text_panics(template in "[/{}*=a.:%]{0,16}", path in "[/%a:2Ff]{0,16}") {
        if let Ok(template) = Template::parse(&template) {
            let _ = template.matches(&path);
            let _ = template.to_string();
            let _ = template.fill(&vec![path; 4]);
        }
    }
}

#[test]
fn a_request_is_read() {
    let [rule] = &rules("kg.civil.v1.CivilRegistry", "GetResidence")[..] else { panic!() };
    let captures = rule.template.matches("/v1/persons/123/residence").unwrap();
    let read = rule.read_request(&captures, &query(&[("on", "2026-01-01")]), b"", 1000).unwrap();
    assert_eq!(json_of(&read), r#"{"pin":"123","on":"2026-01-01"}"#);
    for name in ["pin", "no", "on.x", ""] {
        let error = rule.read_request(&captures, &query(&[(name, "1")]), b"", 1000).unwrap_err();
        assert!(matches!(error, json::JsonError::UnknownField { .. }), "{name}: {error}");
    }

    let [rule] = &rules("kg.civil.v1.CivilRegistry", "ListChanges")[..] else { panic!() };
    let asked = [("fromSequence", "7"), ("kinds", "CHANGE_KIND_BIRTH"), ("kinds", "6")];
    let read = rule.read_request(&vec![], &query(&asked), b"", 1000).unwrap();
    assert_eq!(json_of(&read), r#"{"fromSequence":"7","kinds":["CHANGE_KIND_BIRTH","CHANGE_KIND_DEATH"]}"#);
    let error = rule.read_request(&vec![], &query(&[("limit", "secret")]), b"", 1000).unwrap_err().to_string();
    assert!(error.contains("limit") && !error.contains("secret"), "{error}");

    let [_, rule] = &rules("kg.cadastre.v1.Cadastre", "SearchProperties")[..] else { panic!() };
    let read = rule.read_request(&vec![], &[], br#"{"region":"Ysyk-Kol","pageSize":5}"#, 1000).unwrap();
    assert_eq!(json_of(&read), r#"{"region":"Ysyk-Kol","pageSize":5}"#);
    assert!(rule.read_request(&vec![], &query(&[("region", "x")]), b"{}", 1000).is_err());
}

#[test]
fn what_is_written_is_read_again() {
    let [rule] = &rules("kg.civil.v1.CivilRegistry", "ListChanges")[..] else { panic!() };
    let asked =
        crate::proto::kg::civil::v1::ListChangesRequest { from_sequence: u64::MAX, limit: 3, kinds: vec![1, 6] };
    let message = DynamicMessage::decode(rule.input.clone(), asked.encode_to_vec().as_slice()).unwrap();
    let written = rule.write_request(&message, 1000).unwrap();
    assert_eq!(
        written.target,
        "/v1/changes?fromSequence=18446744073709551615&limit=3&kinds=CHANGE_KIND_BIRTH&kinds=CHANGE_KIND_DEATH"
            .replace('_', "%5F")
    );
    assert_eq!(written.body, None);

    let [rule] = &rules("kg.civil.v1.CivilRegistry", "GetPerson")[..] else { panic!() };
    for pin in ["", ".", ".."] {
        let asked = crate::proto::kg::civil::v1::GetPersonRequest { pin: pin.into() };
        let message = DynamicMessage::decode(rule.input.clone(), asked.encode_to_vec().as_slice()).unwrap();
        assert!(rule.write_request(&message, 1000).is_err(), "{pin:?}");
    }
    let asked = crate::proto::kg::civil::v1::GetPersonRequest { pin: "../admin?x=1#".into() };
    let message = DynamicMessage::decode(rule.input.clone(), asked.encode_to_vec().as_slice()).unwrap();
    assert_eq!(rule.write_request(&message, 1000).unwrap().target, "/v1/persons/..%2Fadmin%3Fx%3D1%23");
}

#[test]
fn a_route_is_found_by_what_says_most() {
    use std::collections::HashMap;

    use crate::schema::{Catalogue, ServiceOffer, digest};

    let set = bytes::Bytes::from_static(crate::proto::DESCRIPTORS);
    let descriptors = digest(&set);
    let offer = |service: &str, provider: &str| ServiceOffer {
        service: service.into(),
        provider: provider.parse().unwrap(),
        descriptors,
    };
    let offers = [
        offer("kg.civil.v1.CivilRegistry", "KG/GOV/1/a"),
        offer("kg.civil.v1.CivilRegistry", "KG/GOV/2/b"),
        offer("kg.social.v1.SocialFund", "KG/GOV/3/c"),
    ];
    let catalogue = Catalogue::new(offers, &HashMap::from([(descriptors, set)]));
    assert!(catalogue.problems().is_empty(), "{:?}", catalogue.problems());
    let found = |verb: &Verb, path: &str| {
        let found = catalogue.routes().find(verb, path);
        let mut names: Vec<String> =
            found.iter().map(|f| format!("{} {}", f.route.provider, f.route.method.descriptor.name())).collect();
        names.sort();
        names
    };
    assert_eq!(found(&Verb::GET, "/v1/persons/1"), ["KG/GOV/1/a GetPerson", "KG/GOV/2/b GetPerson"]);
    assert_eq!(found(&Verb::GET, "/v1/persons/1/pension"), ["KG/GOV/3/c GetPension"]);
    assert_eq!(found(&Verb::GET, "/v1/changes:watch"), ["KG/GOV/1/a WatchChanges", "KG/GOV/2/b WatchChanges"]);
    assert_eq!(found(&Verb::GET, "/v1/changes"), ["KG/GOV/1/a ListChanges", "KG/GOV/2/b ListChanges"]);
    assert!(found(&Verb::POST, "/v1/persons/1").is_empty());
    assert!(found(&Verb::GET, "v1/persons/1").is_empty() && found(&Verb::GET, "").is_empty());

    // Two that match: the literal one counts, whichever came first; and a rule alike is no better than its like.
    let routes = |paths: &[&str]| {
        let mut routes = Routes::default();
        let some = &catalogue.routes().find(&Verb::GET, "/v1/persons/1")[0];
        for path in paths {
            let rule =
                Rule { template: Template::parse(path).unwrap(), variables: Vec::new(), ..(*some.route.rule).clone() };
            routes.add(Route { rule: std::sync::Arc::new(rule), ..some.route.clone() });
        }
        let found = routes.find(&Verb::GET, "/v1/x/y");
        found.iter().map(|found| found.route.rule.template.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(routes(&["/v1/{a}/y", "/v1/x/y", "/{b=**}"]), ["/v1/x/y"]);
    assert_eq!(routes(&["/{b=**}", "/v1/{a=**}", "/v1/{a}/y"]), ["/v1/{a}/y"]);
    assert_eq!(routes(&["/v1/{a}/y", "/v1/{b}/y"]).len(), 2);
}
