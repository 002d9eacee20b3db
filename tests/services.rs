//! The example services: a population that agrees with itself, and back-ends that answer from it as registers do.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kopuro::cli::demo::backends::Backend;
use kopuro::cli::demo::population::{Person, Pin, Population, TODAY};
use kopuro::proto::kg::cadastre::v1::cadastre_client::CadastreClient;
use kopuro::proto::kg::cadastre::v1::{Finding, ReconcileRequest, SearchPropertiesRequest};
use kopuro::proto::kg::civil::v1::civil_registry_client::CivilRegistryClient;
use kopuro::proto::kg::civil::v1::*;
use kopuro::proto::kg::social::v1::social_fund_client::SocialFundClient;
use kopuro::proto::kg::social::v1::{
    GetContributionsRequest, ReportHeader, ReportLine, UploadReportRequest, upload_report_request::Part,
};
use kopuro::proto::kg::tax::v1::GetIncomeRequest;
use kopuro::proto::kg::tax::v1::tax_service_client::TaxServiceClient;
use time::macros::date;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Server, server::TcpIncoming};
use tonic::{Code, Request};
use tonic_types::StatusExt;

const SEED: u64 = 1;

fn population() -> Arc<Population> {
    Arc::new(Population::new(SEED, 300))
}

/// A back-end on a loopback port, without TLS, for as long as the test's runtime lives.
async fn serve(backend: Backend, population: &Arc<Population>) -> Channel {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_routes(backend.routes(population));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

fn worker(population: &Population) -> &Person {
    population.adults().find(|p| p.job.as_ref().is_some_and(|job| job.since < date!(2024 - 01 - 01))).unwrap()
}

#[test]
fn the_population_agrees_with_itself() {
    let population = population();
    let mut pins = HashSet::new();
    assert!(population.people.len() > 900, "{}", population.people.len());
    for (index, person) in population.people.iter().enumerate() {
        let who = format!("{index} {} {}", person.full_name(), person.pin);
        assert_eq!(person.pin.as_str().parse::<Pin>(), Ok(person.pin), "{who}");
        assert!(pins.insert(person.pin), "{who}");
        assert!(person.born < TODAY, "{who}");
        let woman = person.sex == Sex::Female;
        assert_eq!(person.pin.as_str().starts_with('1'), woman, "{who}");
        if person.patronymic.is_empty() {
            assert!(person.surname.ends_with(if woman { " кызы" } else { " уулу" }), "{who}");
        } else {
            assert!(person.patronymic.ends_with(if woman { "на" } else { "ич" }), "{who}");
            assert_eq!(person.surname.ends_with('а'), woman, "{who}");
        }
        if let Some(spouse) = person.spouse {
            assert_eq!(population.people[spouse].spouse, Some(index), "{who}");
            assert_eq!(population.people[spouse].married, person.married, "{who}");
            let married = person.married.unwrap();
            assert!(married.year() - person.born.year() >= 17, "{who} married {married}");
        }
        for parent in [person.mother, person.father].into_iter().flatten() {
            let parent = &population.people[parent];
            assert!(parent.children.contains(&index), "{who}");
            let age = (person.born - parent.born).whole_days() / 365;
            assert!((18..=46).contains(&age), "{who}: parent was {age}");
        }
        if let Some(father) = person.father {
            let name = population.people[father].given_name;
            let stem: String = name.chars().take(3).collect::<String>().replace('ё', "е");
            assert!(person.patronymic.starts_with(&stem) || person.surname.starts_with(name), "{who} of {name}");
        }
        if let Some(job) = &person.job {
            assert!(person.age() >= 18 && person.died.is_none() && job.pay > 15_000, "{who}");
            assert!(!job.employer().tin().is_person());
        }
    }
    let numbers: HashSet<_> = population.properties.iter().map(|p| &p.cadastral_number).collect();
    assert_eq!(numbers.len(), population.properties.len());
    assert!(population.properties.iter().all(|p| !p.owners.is_empty()));
}

#[test]
fn the_same_seed_gives_the_same_people() {
    let (one, two) = (Population::new(7, 40), Population::new(7, 40));
    assert_eq!(format!("{:?}", one.people), format!("{:?}", two.people));
    assert_ne!(format!("{:?}", one.people), format!("{:?}", Population::new(8, 40).people));
}

#[tokio::test]
async fn the_civil_registry_answers_and_says_what_is_wrong() {
    let population = population();
    let mut civil = CivilRegistryClient::new(serve(Backend::Civil, &population).await);
    let known = population.people.iter().find(|p| p.spouse.is_some() && p.children.len() > 1).unwrap();
    let pin = known.pin.to_string();

    let person = civil.get_person(GetPersonRequest { pin: pin.clone() }).await.unwrap().into_inner().person.unwrap();
    assert_eq!((person.pin.as_str(), person.surname.as_str()), (pin.as_str(), known.surname.as_str()));
    let family = civil.get_family(GetFamilyRequest { pin: pin.clone() }).await.unwrap().into_inner().members;
    assert_eq!(family.iter().filter(|m| m.relation() == Relation::Child).count(), known.children.len());

    let unknown = Pin::new(Some(Sex::Male), date!(1901 - 01 - 01), 1).to_string();
    let status = civil.get_person(GetPersonRequest { pin: unknown }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("PIN_UNKNOWN", "registers.kg"));

    let status = civil.get_person(GetPersonRequest { pin: "12345".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "pin");

    let mut old = Request::new(GetResidenceRequest { pin, on: "1990-05-01".into() });
    old.set_timeout(Duration::from_millis(200));
    let asked = Instant::now();
    let status = civil.get_residence(old).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn changes_are_listed_and_go_on() {
    let population = population();
    let mut civil = CivilRegistryClient::new(serve(Backend::Civil, &population).await);
    let recorded = population.changes().len() as u64;

    let births = vec![ChangeKind::Birth.into()];
    let request = ListChangesRequest { from_sequence: 1, limit: 25, kinds: births };
    let listed: Vec<_> =
        civil.list_changes(request).await.unwrap().into_inner().collect::<Result<_, _>>().await.unwrap();
    assert_eq!(listed.len(), 25);
    assert!(listed.iter().all(|l| l.change.as_ref().unwrap().kind() == ChangeKind::Birth));

    let request = WatchChangesRequest { from_sequence: recorded - 1, kinds: vec![] };
    let watched = civil.watch_changes(request).await.unwrap().into_inner().take(5);
    let watched: Vec<_> = watched.collect::<Result<_, _>>().await.unwrap();
    let numbers: Vec<u64> = watched.iter().map(|w| w.change.as_ref().unwrap().sequence).collect();
    assert_eq!(numbers, (recorded - 1..recorded + 4).collect::<Vec<_>>());
}

#[tokio::test]
async fn tax_and_social_fund_agree_on_what_was_earned() {
    let population = population();
    let mut tax = TaxServiceClient::new(serve(Backend::Tax, &population).await);
    let mut social = SocialFundClient::new(serve(Backend::Social, &population).await);
    let pin = worker(&population).pin.to_string();
    let (from_month, to_month) = ("2025-01".to_owned(), "2025-12".to_owned());

    let request = GetIncomeRequest { tin: pin.clone(), from_month: from_month.clone(), to_month: to_month.clone() };
    let income = tax.get_income(request).await.unwrap().into_inner();
    let request = GetContributionsRequest { pin: pin.clone(), from_month: from_month.clone(), to_month };
    let paid = social.get_contributions(request).await.unwrap().into_inner();
    assert_eq!((income.months.len(), paid.contributions.len()), (12, 12));
    let bases: i64 = paid.contributions.iter().map(|c| c.base.unwrap().units).sum();
    assert_eq!(income.total.unwrap().units, bases);

    let request = GetIncomeRequest { tin: pin, from_month, to_month: "2031-01".into() };
    assert_eq!(tax.get_income(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_report_is_taken_as_a_whole() {
    let population = population();
    let mut social = SocialFundClient::new(serve(Backend::Social, &population).await);
    let worker = worker(&population);
    let header = UploadReportRequest {
        part: Some(Part::Header(ReportHeader {
            employer_tin: worker.job.as_ref().unwrap().employer().tin().to_string(),
            employer_name: worker.job.as_ref().unwrap().employer().name.into(),
            month: "2026-10".into(),
        })),
    };
    let line = |pin: Pin| UploadReportRequest {
        part: Some(Part::Line(ReportLine { pin: pin.to_string(), gross: None, days_worked: 21 })),
    };
    let stranger = Pin::new(Some(Sex::Female), date!(1902 - 02 - 02), 2);
    let report = vec![header, line(worker.pin), line(stranger), line(worker.pin)];
    let receipt = social.upload_report(tokio_stream::iter(report)).await.unwrap().into_inner();
    assert_eq!((receipt.accepted_lines, receipt.unknown_pins), (2, vec![stranger.to_string()]));

    let headless = vec![line(worker.pin)];
    assert_eq!(social.upload_report(tokio_stream::iter(headless)).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_cadastre_searches_and_reconciles() {
    let population = population();
    let mut cadastre = CadastreClient::new(serve(Backend::Cadastre, &population).await);
    let property = &population.properties[0];
    let owner = population.people[property.owners[0]].pin;
    let other = population.people.iter().enumerate().find(|(i, _)| !property.owners.contains(i)).unwrap().1.pin;

    let request = SearchPropertiesRequest { owner_pin: owner.to_string(), ..Default::default() };
    let found = cadastre.search_properties(request).await.unwrap().into_inner().properties;
    assert!(found.iter().any(|p| p.cadastral_number == property.cadastral_number));

    let mut seen = 0;
    let mut request =
        SearchPropertiesRequest { region: "Бишкек шаары".into(), page_size: 7, ..Default::default() };
    loop {
        let page = cadastre.search_properties(request.clone()).await.unwrap().into_inner();
        seen += page.properties.len();
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, population.properties.iter().filter(|p| p.residence.place.region == "Бишкек шаары").count());

    let statement = |statement_id, number: &str, owner: Pin| ReconcileRequest {
        statement_id,
        cadastral_number: number.into(),
        owner_pin: owner.to_string(),
    };
    let number = &property.cadastral_number;
    let statements = vec![statement(1, number, owner), statement(2, number, other), statement(3, "9-99", owner)];
    let findings = cadastre.reconcile(tokio_stream::iter(statements)).await.unwrap().into_inner();
    let findings: Vec<_> =
        findings.map(|f| f.map(|f| (f.statement_id, f.finding()))).collect::<Result<_, _>>().await.unwrap();
    assert_eq!(findings, [(1, Finding::Match), (2, Finding::OwnerDiffers), (3, Finding::UnknownProperty)]);
}

#[tokio::test]
async fn health_follows_the_node() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;

    let (ready, is_ready) = tokio::sync::watch::channel(false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(kopuro::gateway::ordinary::Health::new(is_ready).server());
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);

    let whole = HealthCheckRequest { service: String::new() };
    assert_eq!(client.check(whole.clone()).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    let mut watch = client.watch(whole.clone()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    ready.send(true).unwrap();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(client.check(whole).await.unwrap().into_inner().status(), ServingStatus::Serving);
    let other = HealthCheckRequest { service: "kg.civil.v1.CivilRegistry".into() };
    assert_eq!(client.check(other).await.unwrap_err().code(), Code::NotFound);
}
