//! Against the example services' own descriptors.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use prost_types::FileDescriptorSet;

use super::*;
use crate::proto::DESCRIPTORS;

const CIVIL: &str = "kg.civil.v1.CivilRegistry";
const CADASTRE: &str = "kg.cadastre.v1.Cadastre";

fn system(text: &str) -> SystemId {
    text.parse().unwrap()
}

fn set_of(service: &str) -> Bytes {
    extract(DESCRIPTORS, &[service]).unwrap().into()
}

fn offer(service: &str, provider: &str, set: &[u8]) -> ServiceOffer {
    ServiceOffer { service: service.into(), provider: system(provider), descriptors: digest(set) }
}

fn sets<'a>(list: impl IntoIterator<Item = &'a Bytes>) -> HashMap<[u8; 32], Bytes> {
    list.into_iter().map(|set| (digest(set), set.clone())).collect()
}

#[test]
fn knows_how_each_method_streams() {
    let (civil, cadastre) = (set_of(CIVIL), set_of(CADASTRE));
    let catalogue = Catalogue::new(
        [offer(CIVIL, "KG/GOV/1/registry", &civil), offer(CADASTRE, "KG/GOV/2/cadastre", &cadastre)],
        &sets([&civil, &cadastre]),
    );
    assert_eq!(catalogue.problems(), []);
    let kind = |service, method| {
        catalogue.method(service, method).map(|m| (m.client_streaming, m.server_streaming, m.path.to_string()))
    };
    assert_eq!(kind(CIVIL, "GetPerson"), Some((false, false, format!("/{CIVIL}/GetPerson"))));
    assert_eq!(kind(CIVIL, "ListChanges"), Some((false, true, format!("/{CIVIL}/ListChanges"))));
    assert_eq!(kind(CADASTRE, "Reconcile"), Some((true, true, format!("/{CADASTRE}/Reconcile"))));
    assert_eq!(kind(CIVIL, "Reconcile"), None);
    assert_eq!(kind("kg.civil.v1.Nothing", "GetPerson"), None);
    assert!(catalogue.method_of(&system("KG/GOV/1/registry"), CIVIL, "GetPerson").is_some());
    assert!(catalogue.method_of(&system("KG/GOV/2/cadastre"), CIVIL, "GetPerson").is_none());
    assert!(catalogue.method(CIVIL, "GetPerson").unwrap().is_unary());
}

#[test]
fn an_extract_holds_only_what_the_service_needs_and_is_the_same_each_time() {
    let set = set_of(CIVIL);
    let names: Vec<String> =
        FileDescriptorSet::decode(&set[..]).unwrap().file.iter().map(|f| f.name().to_owned()).collect();
    assert_eq!(
        names,
        [
            "google/protobuf/descriptor.proto",
            "google/protobuf/duration.proto",
            "google/protobuf/field_mask.proto",
            "google/protobuf/timestamp.proto",
            "buf/validate/validate.proto",
            "google/api/http.proto",
            "google/api/annotations.proto",
            "kg/common/v1/common.proto",
            "kopuro/options/v1/options.proto",
            "kg/civil/v1/civil_registry.proto",
        ]
    );
    assert_eq!(set, set_of(CIVIL));
    assert_eq!(extract(DESCRIPTORS, &["kg.No"]), Err(SchemaError::NotDefined("kg.No".into())));
}

#[test]
fn names_what_it_leaves_out_and_keeps_the_rest() {
    let (civil, cadastre) = (set_of(CIVIL), set_of(CADASTRE));
    let garbage = Bytes::from_static(b"\xff\xff no descriptors");
    let mut known = sets([&civil, &cadastre, &garbage]);
    known.insert([7; 32], cadastre.clone());
    let mut lying = offer(CADASTRE, "KG/GOV/5/a", &cadastre);
    lying.descriptors = [7; 32];
    let catalogue = Catalogue::new(
        [
            offer(CIVIL, "KG/GOV/1/a", &civil),
            offer(CIVIL, "KG/GOV/1/a", &civil),
            offer(CIVIL, "KG/GOV/2/a", b"never read"),
            offer(CIVIL, "KG/GOV/3/a", &cadastre),
            offer(CIVIL, "KG/GOV/4/a", &garbage),
            lying,
        ],
        &known,
    );
    let problems = catalogue.problems();
    assert!(matches!(problems[0], SchemaError::OfferedTwice { .. }), "{problems:?}");
    assert!(matches!(problems[1], SchemaError::MissingSet { .. }), "{problems:?}");
    assert!(matches!(problems[2], SchemaError::ServiceAbsent { .. }), "{problems:?}");
    assert!(matches!(problems[3], SchemaError::BadSet { .. }), "{problems:?}");
    assert!(matches!(problems[4], SchemaError::DigestMismatch { .. }), "{problems:?}");
    assert_eq!(problems.len(), 5);
    assert_eq!(catalogue.service(CIVIL).unwrap().offers().len(), 1);
    assert!(catalogue.service(CADASTRE).is_none());
}

#[test]
fn two_providers_must_stream_alike() {
    let first = set_of(CIVIL);
    let mut changed = FileDescriptorSet::decode(&first[..]).unwrap();
    for method in changed.file.iter_mut().flat_map(|f| &mut f.service).flat_map(|s| &mut s.method) {
        method.server_streaming = Some(true);
    }
    let second = Bytes::from(changed.encode_to_vec());
    let catalogue = Catalogue::new(
        [offer(CIVIL, "KG/GOV/1/a", &first), offer(CIVIL, "KG/GOV/2/a", &second), offer(CIVIL, "KG/GOV/3/a", &first)],
        &sets([&first, &second]),
    );
    assert!(
        matches!(catalogue.problems(), [SchemaError::KindsDiffer { provider, .. }] if *provider == system("KG/GOV/2/a"))
    );
    let providers: Vec<_> = catalogue.service(CIVIL).unwrap().offers().iter().map(|o| o.provider.as_str()).collect();
    assert_eq!(providers, ["KG/GOV/1/a", "KG/GOV/3/a"]);
}

#[test]
fn reflection_shows_only_the_files_of_the_given_services() {
    let (civil, cadastre) = (set_of(CIVIL), set_of(CADASTRE));
    let catalogue = Catalogue::new(
        [offer(CIVIL, "KG/GOV/1/a", &civil), offer(CADASTRE, "KG/GOV/2/a", &cadastre)],
        &sets([&civil, &cadastre]),
    );
    let index = FileIndex::new(&catalogue, &prost_reflect::DescriptorPool::new(), [CIVIL, "kg.Unknown"]);
    assert_eq!(index.services(), [CIVIL]);
    let first_file = |files: Option<Vec<Bytes>>| {
        files.map(|files| prost_types::FileDescriptorProto::decode(files[0].clone()).unwrap().name().to_owned())
    };
    let civil_file = Some("kg/civil/v1/civil_registry.proto".to_owned());
    for symbol in [
        CIVIL,
        "kg.civil.v1.CivilRegistry.GetPerson",
        "kg.civil.v1.Person",
        "kg.civil.v1.Person.pin",
        "kg.civil.v1.Sex",
        "kg.civil.v1.SEX_MALE",
        ".kg.civil.v1.Person",
    ] {
        assert_eq!(first_file(index.file_of_symbol(symbol)), civil_file, "{symbol}");
    }
    assert_eq!(first_file(index.file_of_symbol("kg.common.v1.Som")), Some("kg/common/v1/common.proto".into()));
    assert_eq!(index.file_of_symbol(CADASTRE), None);
    assert_eq!(index.file_of_symbol("nonsense"), None);
    assert_eq!(index.file_of_symbol(""), None);
    assert_eq!(index.file("kg/cadastre/v1/cadastre.proto"), None);
    assert!(index.file("kg/common/v1/common.proto").is_some());
    assert_eq!(index.extension_numbers("kg.civil.v1.Person"), Some(vec![]));
    assert_eq!(index.extension_numbers("kg.cadastre.v1.Property"), None);
}
