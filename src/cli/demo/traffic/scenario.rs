//! What the ministries ask of one another.

use std::time::Duration;

use prost::Message;
use time::macros::date;
use tokio_stream::StreamExt;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use super::{Ending, World};
use crate::cli::demo::federation::{CADASTRE_SYSTEM, CIVIL_REGISTRY, SERVICE_CENTRE, SOCIAL_FUND, TAX_SERVICE};
use crate::cli::demo::population::{Person, Pin, Population, Property, Rng};
use crate::proto::kg::cadastre::v1::cadastre_client::CadastreClient;
use crate::proto::kg::cadastre::v1::{GetPropertyRequest, ReconcileRequest, SearchPropertiesRequest};
use crate::proto::kg::civil::v1::civil_registry_client::CivilRegistryClient;
use crate::proto::kg::civil::v1::{
    GetFamilyRequest, GetPersonRequest, GetPersonResponse, GetResidenceRequest, ListChangesRequest, Sex,
    WatchChangesRequest,
};
use crate::proto::kg::common::v1::Som;
use crate::proto::kg::social::v1::social_fund_client::SocialFundClient;
use crate::proto::kg::social::v1::upload_report_request::Part;
use crate::proto::kg::social::v1::{
    GetContributionsRequest, GetPensionRequest, ReportHeader, ReportLine, UploadReportRequest,
};
use crate::proto::kg::tax::v1::tax_service_client::TaxServiceClient;
use crate::proto::kg::tax::v1::{GetIncomeRequest, GetTaxpayerStatusRequest};

/// Nobody waits longer for anything here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Too little for the registry's paper archive.
const IMPATIENCE: Duration = Duration::from_millis(150);

macro_rules! scenarios {
    ($($(#[doc = $doc:literal])* $name:ident $weight:literal $consumer:ident $provider:ident $title:literal,)*) => {
        /// One kind of exchange.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(in crate::cli::demo) enum Scenario { $($(#[doc = $doc])* $name),* }

        impl Scenario {
            const ALL: &[(Self, i64)] = &[$((Self::$name, $weight)),*];

            /// The system that asks.
            pub(in crate::cli::demo) fn consumer(self) -> &'static str {
                match self { $(Self::$name => $consumer),* }
            }

            /// The system that is asked.
            pub(in crate::cli::demo) fn provider(self) -> &'static str {
                match self { $(Self::$name => $provider),* }
            }

            /// The method, and what is special about this call of it.
            pub(in crate::cli::demo) fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }
        }
    };
}

scenarios! {
    TaxAsksPerson 18 TAX_SERVICE CIVIL_REGISTRY "CivilRegistry/GetPerson",
    TaxAsksResidence 10 TAX_SERVICE CIVIL_REGISTRY "CivilRegistry/GetResidence",
    FundAsksFamily 10 SOCIAL_FUND CIVIL_REGISTRY "CivilRegistry/GetFamily",
    FundAsksIncome 14 SOCIAL_FUND TAX_SERVICE "TaxService/GetIncome",
    TaxAsksContributions 10 TAX_SERVICE SOCIAL_FUND "SocialFund/GetContributions",
    CadastreAsksOwner 8 CADASTRE_SYSTEM CIVIL_REGISTRY "CivilRegistry/GetPerson",
    TaxSearchesProperties 5 TAX_SERVICE CADASTRE_SYSTEM "Cadastre/SearchProperties",
    /// Server stream.
    FundListsChanges 3 SOCIAL_FUND CIVIL_REGISTRY "CivilRegistry/ListChanges",
    /// Client stream.
    TaxUploadsReport 2 TAX_SERVICE SOCIAL_FUND "SocialFund/UploadReport",
    /// Both.
    TaxReconciles 2 TAX_SERVICE CADASTRE_SYSTEM "Cadastre/Reconcile",
    /// A stream without end, from which the caller walks away.
    FundWatchesChanges 1 SOCIAL_FUND CIVIL_REGISTRY "CivilRegistry/WatchChanges",
    UnknownPin 5 TAX_SERVICE CIVIL_REGISTRY "CivilRegistry/GetPerson, unknown PIN",
    MistypedPin 2 CADASTRE_SYSTEM CIVIL_REGISTRY "CivilRegistry/GetPerson, mistyped PIN",
    TooImpatient 1 TAX_SERVICE CIVIL_REGISTRY "CivilRegistry/GetResidence, 150 ms for the paper archive",
    GrantExpired 2 CADASTRE_SYSTEM TAX_SERVICE "TaxService/GetTaxpayerStatus, grant expired",
    NoGrant 2 SERVICE_CENTRE SOCIAL_FUND "SocialFund/GetPension, no grant",
    MethodNotGranted 1 TAX_SERVICE CIVIL_REGISTRY "CivilRegistry/GetFamily, method not granted",
    NotAllowedOut 1 CADASTRE_SYSTEM SOCIAL_FUND "SocialFund/GetContributions, own node forbids",
    /// Name and address cross, family does not.
    FundAsksPerson 8 SOCIAL_FUND CIVIL_REGISTRY "CivilRegistry/GetPerson, name and address only",
    PurposeRefused 2 SOCIAL_FUND CIVIL_REGISTRY "CivilRegistry/GetPerson, for a purpose that is not its own",
    MalformedMessage 2 TAX_SERVICE CIVIL_REGISTRY "CivilRegistry/GetPerson, bytes that are no request",
    UnknownField 2 TAX_SERVICE CIVIL_REGISTRY "CivilRegistry/GetPerson, a field that the type does not have",
    /// As `curl` does it.
    JsonCall 4 TAX_SERVICE CIVIL_REGISTRY "CivilRegistry/GetPerson, JSON over HTTPS",
    /// More often than the grant allows.
    TooOften 3 CIVIL_REGISTRY CADASTRE_SYSTEM "Cadastre/GetProperty, at most 2 a second",
}

impl Scenario {
    /// One by its weight.
    pub(in crate::cli::demo) fn draw(rng: &mut Rng) -> Self {
        let total: i64 = Self::ALL.iter().map(|(_, weight)| weight).sum();
        let mut left = rng.range(0, total - 1);
        for (scenario, weight) in Self::ALL {
            left -= weight;
            if left < 0 {
                return *scenario;
            }
        }
        Self::TaxAsksPerson
    }

    /// Whether one message goes and one comes back.
    pub(super) fn is_unary(self) -> bool {
        !matches!(
            self,
            Self::FundListsChanges | Self::TaxUploadsReport | Self::TaxReconciles | Self::FundWatchesChanges
        )
    }

    /// Whether the caller ends it before the provider does.
    pub(super) fn hangs_up(self) -> bool {
        self == Self::FundWatchesChanges
    }

    /// Whether it should end so.
    pub(super) fn may_end(self, ending: &Ending) -> bool {
        let refused = |expected: &str| matches!(ending, Ending::Refused { reason, .. } if reason == expected);
        match self {
            Self::FundWatchesChanges => *ending == Ending::Failed(Code::Cancelled as i32),
            Self::UnknownPin => *ending == Ending::Error(Code::NotFound as i32),
            Self::MistypedPin => *ending == Ending::Error(Code::InvalidArgument as i32),
            Self::TooImpatient => *ending == Ending::Failed(Code::DeadlineExceeded as i32),
            Self::GrantExpired => refused("GRANT_EXPIRED"),
            Self::NoGrant => refused("GRANT_MISSING"),
            Self::MethodNotGranted => refused("METHOD_NOT_GRANTED"),
            Self::NotAllowedOut => refused("OUTBOUND_NOT_ALLOWED"),
            Self::PurposeRefused => refused("PURPOSE_NOT_ALLOWED"),
            Self::MalformedMessage => refused("MESSAGE_MALFORMED"),
            Self::UnknownField => refused("UNKNOWN_FIELD"),
            Self::TooOften => *ending == Ending::Answered || refused("RATE_LIMITED"),
            _ => *ending == Ending::Answered,
        }
    }

    /// Makes the call; what came back.
    pub(super) async fn play(self, world: &World, rng: &mut Rng) -> Result<Came, Status> {
        let Some(channel) = world.channels.get(self.consumer()).cloned() else {
            return Err(Status::internal(format!("{} has no connection", self.consumer())));
        };
        let mut civil = CivilRegistryClient::new(channel.clone());
        let mut tax = TaxServiceClient::new(channel.clone());
        let mut social = SocialFundClient::new(channel.clone());
        let mut cadastre = CadastreClient::new(channel);
        let population = &*world.population;
        let pin = someone(population, rng).pin.to_string();
        let (from_month, to_month) = period(rng);
        match self {
            Self::TaxAsksPerson | Self::CadastreAsksOwner => {
                one(civil.get_person(call(GetPersonRequest { pin })).await)
            }
            Self::FundAsksPerson => {
                let answer = civil.get_person(call(GetPersonRequest { pin })).await?;
                limited(answer.get_ref())?;
                one(Ok(answer))
            }
            Self::PurposeRefused => {
                let mut request = call(GetPersonRequest { pin });
                request.metadata_mut().insert("kopuro-purpose", MetadataValue::from_static("NK-54-2"));
                one(civil.get_person(request).await)
            }
            Self::MalformedMessage => {
                // The PIN's field, and fewer bytes than it announces.
                world.raw(self.consumer(), vec![0x0a, 14, b'2', b'0']).await
            }
            Self::UnknownField => {
                let mut message = GetPersonRequest { pin }.encode_to_vec();
                message.extend([0xfa, 0x3e, 1, b'?']);
                world.raw(self.consumer(), message).await
            }
            Self::JsonCall => world.json(self.consumer(), &pin).await,
            Self::TaxAsksResidence => {
                one(civil.get_residence(call(GetResidenceRequest { pin, on: String::new() })).await)
            }
            Self::FundAsksFamily | Self::MethodNotGranted => {
                one(civil.get_family(call(GetFamilyRequest { pin })).await)
            }
            Self::FundAsksIncome => {
                one(tax.get_income(call(GetIncomeRequest { tin: pin, from_month, to_month })).await)
            }
            Self::TaxAsksContributions | Self::NotAllowedOut => {
                one(social.get_contributions(call(GetContributionsRequest { pin, from_month, to_month })).await)
            }
            Self::TaxSearchesProperties => {
                let owner_pin = owner(population, property(population, rng)).to_string();
                let request = SearchPropertiesRequest { owner_pin, ..Default::default() };
                one(cadastre.search_properties(call(request)).await)
            }
            Self::FundListsChanges => {
                let from_sequence = rng.range(1, 800).unsigned_abs();
                let request = ListChangesRequest { from_sequence, limit: 40, kinds: vec![] };
                all(civil.list_changes(call(request)).await?.into_inner(), None).await
            }
            Self::FundWatchesChanges => {
                let from_sequence = rng.range(1, 800).unsigned_abs();
                let request = WatchChangesRequest { from_sequence, kinds: vec![] };
                all(civil.watch_changes(call(request)).await?.into_inner(), Some(5)).await
            }
            Self::TaxUploadsReport => {
                one(social.upload_report(call(tokio_stream::iter(report(population, rng)))).await)
            }
            Self::TaxReconciles => {
                let statements = statements(population, rng);
                all(cadastre.reconcile(call(tokio_stream::iter(statements))).await?.into_inner(), None).await
            }
            Self::UnknownPin => {
                // Nobody in the population was born so long ago.
                let serial = u32::try_from(rng.range(0, 9_999)).unwrap_or(0);
                let stranger = Pin::new(Some(Sex::Female), date!(1899 - 12 - 31), serial);
                one(civil.get_person(call(GetPersonRequest { pin: stranger.to_string() })).await)
            }
            Self::MistypedPin => one(civil.get_person(call(GetPersonRequest { pin: mistyped(&pin) })).await),
            Self::TooImpatient => {
                let mut request = call(GetResidenceRequest { pin, on: "1990-05-01".into() });
                request.set_timeout(IMPATIENCE);
                one(civil.get_residence(request).await)
            }
            Self::GrantExpired => one(tax.get_taxpayer_status(call(GetTaxpayerStatusRequest { tin: pin })).await),
            Self::NoGrant => one(social.get_pension(call(GetPensionRequest { pin })).await),
            Self::TooOften => {
                let cadastral_number = property(population, rng).cadastral_number.clone();
                one(cadastre.get_property(call(GetPropertyRequest { cadastral_number })).await)
            }
        }
    }
}

fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request.metadata_mut().insert("kopuro-user", MetadataValue::from_static("inspector-14"));
    request
}

/// What came back of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Came {
    /// Messages.
    pub(super) messages: u64,
    /// Fields that were withheld.
    pub(super) withheld: u64,
}

fn one<T>(result: Result<tonic::Response<T>, Status>) -> Result<Came, Status> {
    let answer = result?;
    let withheld = answer.metadata().get("kopuro-withheld").and_then(|count| count.to_str().ok()?.parse().ok());
    Ok(Came { messages: 1, withheld: withheld.unwrap_or_default() })
}

/// That an answer has what the fund is granted, and no more.
fn limited(answer: &GetPersonResponse) -> Result<(), Status> {
    let person = answer.person.clone().unwrap_or_default();
    let named = !person.surname.is_empty() && !person.given_name.is_empty() && answer.residence.is_some();
    let more = !answer.family.is_empty() || person.passport.is_some() || !person.birth_date.is_empty();
    if named && !more { Ok(()) } else { Err(Status::data_loss("not name and address alone came")) }
}

async fn all<T>(mut answers: tonic::Streaming<T>, at_most: Option<u64>) -> Result<Came, Status> {
    let mut received = 0;
    while at_most.is_none_or(|most| received < most) && answers.next().await.transpose()?.is_some() {
        received += 1;
    }
    Ok(Came { messages: received, withheld: 0 })
}

fn someone<'a>(population: &'a Population, rng: &mut Rng) -> &'a Person {
    &population.people[index(rng, population.people.len())]
}

fn property<'a>(population: &'a Population, rng: &mut Rng) -> &'a Property {
    &population.properties[index(rng, population.properties.len())]
}

fn owner(population: &Population, property: &Property) -> Pin {
    population.people[property.owners[0]].pin
}

fn index(rng: &mut Rng, length: usize) -> usize {
    usize::try_from(rng.next() % length.max(1) as u64).unwrap_or(0)
}

fn period(rng: &mut Rng) -> (String, String) {
    let first = rng.range(1, 6);
    (format!("2026-{first:02}"), format!("2026-{:02}", first + rng.range(0, 3)))
}

fn mistyped(pin: &str) -> String {
    let wrong = if pin.ends_with('0') { '1' } else { '0' };
    format!("{}{wrong}", &pin[..pin.len() - 1])
}

fn report(population: &Population, rng: &mut Rng) -> Vec<UploadReportRequest> {
    let mut workers = population.adults().filter(|person| person.job.is_some()).skip(index(rng, 60));
    let lines = usize::try_from(rng.range(10, 40)).unwrap_or(10);
    let first = workers.next().and_then(|person| person.job.as_ref().map(|job| job.employer()));
    let header = first.map(|employer| {
        Part::Header(ReportHeader {
            employer_tin: employer.tin().to_string(),
            employer_name: employer.name.into(),
            month: "2026-10".into(),
        })
    });
    let lines = workers.take(lines).map(|person| {
        let pay = person.job.as_ref().map_or(0, |job| job.pay);
        Part::Line(ReportLine {
            pin: person.pin.to_string(),
            gross: Some(Som { units: pay, tyiyn: 0 }),
            days_worked: 22,
        })
    });
    header.into_iter().chain(lines).map(|part| UploadReportRequest { part: Some(part) }).collect()
}

fn statements(population: &Population, rng: &mut Rng) -> Vec<ReconcileRequest> {
    (1..=rng.range(8, 20).unsigned_abs())
        .map(|statement_id| {
            let property = property(population, rng);
            // One in eight is out of date.
            let believed = if rng.chance(12) { someone(population, rng).pin } else { owner(population, property) };
            ReconcileRequest {
                statement_id,
                cadastral_number: property.cadastral_number.clone(),
                owner_pin: believed.to_string(),
            }
        })
        .collect()
}
