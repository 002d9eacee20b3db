//! `kg.civil.v1.CivilRegistry`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use prost_types::Timestamp;
use time::macros::date;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Answers, address, day, invalid, iso, not_found, patience, person};
use crate::cli::demo::population::{self, Person as Resident, PersonIndex, Population, Rng};
use crate::proto::kg::civil::v1::civil_registry_server::CivilRegistry;
use crate::proto::kg::civil::v1::*;

/// Acts before this day are on paper, and finding one takes [`PAPER_ARCHIVE`].
const ON_PAPER_BEFORE: time::Date = date!(1996 - 01 - 01);

/// How long the paper archive takes.
const PAPER_ARCHIVE: Duration = Duration::from_secs(3);

/// How often the running registry records an act.
const NEW_ACT_EVERY: Duration = Duration::from_millis(200);

/// The back-end.
#[derive(Debug)]
pub struct CivilBackend {
    population: Arc<Population>,
    recorded: Arc<[population::Change]>,
    started: Instant,
}

impl CivilBackend {
    /// Over a population.
    pub fn new(population: Arc<Population>) -> Self {
        let recorded = population.changes().into();
        Self { population, recorded, started: Instant::now() }
    }

    fn family(&self, person: &population::Person) -> Vec<FamilyMember> {
        let children = person.children.iter().map(|child| (Relation::Child, *child));
        person
            .spouse
            .map(|spouse| (Relation::Spouse, spouse))
            .into_iter()
            .chain(person.mother.map(|mother| (Relation::Mother, mother)))
            .chain(person.father.map(|father| (Relation::Father, father)))
            .chain(children)
            .map(|(relation, index)| FamilyMember { relation: relation.into(), person: self.describe(index) })
            .collect()
    }

    fn describe(&self, index: PersonIndex) -> Option<Person> {
        self.population.people.get(index).map(|person| describe(&self.population, person))
    }
}

#[tonic::async_trait]
impl CivilRegistry for CivilBackend {
    async fn get_person(&self, request: Request<GetPersonRequest>) -> Result<Response<GetPersonResponse>, Status> {
        let person = person(&self.population, "pin", &request.get_ref().pin)?;
        Ok(Response::new(GetPersonResponse {
            person: Some(describe(&self.population, person)),
            residence: Some(address(&person.residence)),
            family: self.family(person),
        }))
    }

    async fn get_residence(
        &self,
        request: Request<GetResidenceRequest>,
    ) -> Result<Response<GetResidenceResponse>, Status> {
        let on = day("on", &request.get_ref().on)?;
        let person = person(&self.population, "pin", &request.get_ref().pin)?;
        if on < ON_PAPER_BEFORE {
            from_paper(patience(request.metadata())).await?;
        }
        if on < person.residence.since {
            return Err(not_found("RESIDENCE_UNKNOWN", "no registered address on that day", "on"));
        }
        Ok(Response::new(GetResidenceResponse {
            address: Some(address(&person.residence)),
            since: iso(person.residence.since),
        }))
    }

    async fn get_family(&self, request: Request<GetFamilyRequest>) -> Result<Response<GetFamilyResponse>, Status> {
        let person = person(&self.population, "pin", &request.get_ref().pin)?;
        Ok(Response::new(GetFamilyResponse { members: self.family(person) }))
    }

    type ListChangesStream = Answers<ListChangesResponse>;

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<Self::ListChangesStream>, Status> {
        let ListChangesRequest { from_sequence, limit, kinds } = request.into_inner();
        check_kinds(&kinds)?;
        let recorded = self.recorded.clone();
        let limit = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
        let numbers = from_sequence.max(1)..=recorded.len() as u64;
        let changes = numbers
            .filter_map(move |number| {
                let change = recorded.get(usize::try_from(number - 1).ok()?)?;
                wanted(&kinds, change.kind).then(|| ListChangesResponse { change: Some(act(number, change)) })
            })
            .take(limit)
            .map(Ok);
        Ok(Response::new(Box::pin(stream::iter(changes))))
    }

    type WatchChangesStream = Answers<WatchChangesResponse>;

    async fn watch_changes(
        &self,
        request: Request<WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        let WatchChangesRequest { from_sequence, kinds } = request.into_inner();
        check_kinds(&kinds)?;
        let past = self.recorded.len() as u64;
        // Numbers rise with time, the same for every watcher.
        let so_far = past + u64::try_from(self.started.elapsed().as_millis() / NEW_ACT_EVERY.as_millis()).unwrap_or(0);
        let first = if from_sequence == 0 { so_far + 1 } else { from_sequence };
        if first > so_far + 1 {
            return Err(invalid("from_sequence", "is in the future"));
        }
        let (recorded, population, started) = (self.recorded.clone(), self.population.clone(), self.started);
        let changes = stream::unfold(first, move |number| {
            let (recorded, population) = (recorded.clone(), population.clone());
            async move {
                let change = match usize::try_from(number - 1).ok().and_then(|index| recorded.get(index)) {
                    Some(change) => *change,
                    None => {
                        let ticks = u32::try_from(number - past).unwrap_or(u32::MAX);
                        tokio::time::sleep_until(started + NEW_ACT_EVERY.saturating_mul(ticks)).await;
                        population.next_change(number)?
                    }
                };
                Some(((number, change), number + 1))
            }
        });
        let answers = changes.filter_map(move |(number, change)| {
            let answer =
                wanted(&kinds, change.kind).then(|| Ok(WatchChangesResponse { change: Some(act(number, &change)) }));
            std::future::ready(answer)
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Waits for the paper archive, but no longer than the caller does.
async fn from_paper(patience: Option<Duration>) -> Result<(), Status> {
    match patience {
        Some(patience) if patience < PAPER_ARCHIVE => {
            tokio::time::sleep(patience).await;
            Err(Status::deadline_exceeded("the paper archive needs more time than the caller gave"))
        }
        _ => {
            tokio::time::sleep(PAPER_ARCHIVE).await;
            Ok(())
        }
    }
}

fn describe(population: &Population, person: &Resident) -> Person {
    let widowed = person.spouse.and_then(|spouse| population.people.get(spouse)).is_some_and(|s| s.died.is_some());
    let marital_status = match person.spouse {
        None => MaritalStatus::Single,
        Some(_) if widowed => MaritalStatus::Widowed,
        Some(_) => MaritalStatus::Married,
    };
    let status = if person.died.is_some() { PersonStatus::Deceased } else { PersonStatus::Active };
    Person {
        pin: person.pin.to_string(),
        surname: person.surname.clone(),
        given_name: person.given_name.into(),
        patronymic: person.patronymic.clone(),
        sex: person.sex.into(),
        birth_date: iso(person.born),
        birth_place: person.birth_place.into(),
        status: status.into(),
        marital_status: marital_status.into(),
        passport: (status == PersonStatus::Active && person.age() >= 16).then(|| passport(person)),
    }
}

fn passport(person: &Resident) -> Passport {
    let mut rng = Rng::of(&format!("passport {}", person.pin));
    // Issued within the last ten years, for ten.
    let issued = population::TODAY - time::Duration::days(rng.range(30, 3_500));
    let (region, district) = person.residence.place.code;
    Passport {
        number: format!("ID{:07}", rng.range(0, 9_999_999)),
        issued_on: iso(issued),
        valid_until: iso(issued.replace_year(issued.year() + 10).unwrap_or(issued)),
        issuer: format!("SRS 21{region}{district:02}1"),
    }
}

fn act(number: u64, change: &population::Change) -> Change {
    let at = change.on.with_hms(9, 0, 0).map(|at| at.assume_utc().unix_timestamp()).unwrap_or_default();
    Change {
        sequence: number,
        recorded_at: Some(Timestamp { seconds: at, nanos: 0 }),
        kind: change.kind.into(),
        pin: change.pin.to_string(),
        act_number: format!("АГС-{}-{number:06}", change.on.year()),
    }
}

fn wanted(kinds: &[i32], kind: ChangeKind) -> bool {
    kinds.is_empty() || kinds.contains(&kind.into())
}

fn check_kinds(kinds: &[i32]) -> Result<(), Status> {
    if kinds.iter().all(|kind| ChangeKind::try_from(*kind).is_ok_and(|kind| kind != ChangeKind::Unspecified)) {
        Ok(())
    } else {
        Err(invalid("kinds", "names no kind of change"))
    }
}
