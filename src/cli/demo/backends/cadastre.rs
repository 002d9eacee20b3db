//! `kg.cadastre.v1.Cadastre`.

use std::sync::Arc;

use futures_util::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, address, invalid, iso, not_found, pin, som};
use crate::cli::demo::population::{self, Population};
use crate::proto::kg::cadastre::v1::cadastre_server::Cadastre;
use crate::proto::kg::cadastre::v1::*;

/// The back-end.
#[derive(Debug)]
pub struct CadastreBackend {
    population: Arc<Population>,
}

impl CadastreBackend {
    /// Over a population.
    pub fn new(population: Arc<Population>) -> Self {
        Self { population }
    }
}

#[tonic::async_trait]
impl Cadastre for CadastreBackend {
    async fn search_properties(
        &self,
        request: Request<SearchPropertiesRequest>,
    ) -> Result<Response<SearchPropertiesResponse>, Status> {
        let SearchPropertiesRequest { owner_pin, region, kind, page_size, page_token } = request.get_ref();
        let kind = PropertyKind::try_from(*kind).map_err(|_| invalid("kind", "is no kind of property"))?;
        let page_size = match page_size {
            0 => 20,
            1..=100 => *page_size as usize,
            _ => return Err(invalid("page_size", "is at most 100")),
        };
        let skip: usize = match page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| invalid("page_token", "is not from an earlier answer"))?,
        };
        let candidates: Box<dyn Iterator<Item = &population::Property> + Send> = match owner_pin.as_str() {
            "" if region.is_empty() => return Err(invalid("owner_pin", "or region must be given")),
            "" => Box::new(self.population.properties.iter()),
            owner => Box::new(self.population.properties_of(pin("owner_pin", owner)?)),
        };
        let mut found: Vec<Property> = candidates
            .filter(|property| region.is_empty() || property.residence.place.region == region)
            .filter(|property| kind == PropertyKind::Unspecified || kind_of(property) == kind)
            .skip(skip)
            .take(page_size + 1)
            .map(|property| describe(&self.population, property))
            .collect();
        let more = found.len() > page_size;
        found.truncate(page_size);
        let next_page_token = if more { skip.saturating_add(page_size).to_string() } else { String::new() };
        Ok(Response::new(SearchPropertiesResponse { properties: found, next_page_token }))
    }

    async fn get_property(
        &self,
        request: Request<GetPropertyRequest>,
    ) -> Result<Response<GetPropertyResponse>, Status> {
        let property = self
            .population
            .property(&request.get_ref().cadastral_number)
            .ok_or_else(|| not_found("PROPERTY_UNKNOWN", "no property has this number", "cadastral_number"))?;
        Ok(Response::new(GetPropertyResponse { property: Some(describe(&self.population, property)) }))
    }

    type ReconcileStream = Answers<ReconcileResponse>;

    async fn reconcile(
        &self,
        request: Request<Streaming<ReconcileRequest>>,
    ) -> Result<Response<Self::ReconcileStream>, Status> {
        let population = self.population.clone();
        // A finding for each statement as it comes: the caller's pace is ours.
        let findings = request.into_inner().map(move |statement| compare(&population, &statement?));
        Ok(Response::new(Box::pin(findings)))
    }
}

fn compare(population: &Population, statement: &ReconcileRequest) -> Result<ReconcileResponse, Status> {
    let believed = pin("owner_pin", &statement.owner_pin)?;
    let property = population.property(&statement.cadastral_number);
    let owners = property.into_iter().flat_map(|property| &property.owners);
    let is_owner = owners.filter_map(|owner| population.people.get(*owner)).any(|owner| owner.pin == believed);
    let finding = match property {
        None => Finding::UnknownProperty,
        Some(_) if is_owner => Finding::Match,
        Some(_) => Finding::OwnerDiffers,
    };
    let differing = property.filter(|_| finding == Finding::OwnerDiffers);
    Ok(ReconcileResponse {
        statement_id: statement.statement_id,
        finding: finding.into(),
        property: differing.map(|property| describe(population, property)),
    })
}

fn kind_of(property: &population::Property) -> PropertyKind {
    match property.kind {
        population::PropertyKind::Apartment => PropertyKind::Apartment,
        population::PropertyKind::House => PropertyKind::House,
        population::PropertyKind::Land => PropertyKind::Land,
    }
}

fn describe(population: &Population, property: &population::Property) -> Property {
    let denominator = u32::try_from(property.owners.len()).unwrap_or(1);
    let owners = property.owners.iter().filter_map(|owner| population.people.get(*owner));
    let rights = owners.map(|owner| Right {
        owner_pin: owner.pin.to_string(),
        numerator: 1,
        denominator,
        registered_on: iso(property.registered),
    });
    let encumbrances = property.mortgage.map(|bank| Encumbrance {
        kind: EncumbranceKind::Mortgage.into(),
        in_favour_of: bank.into(),
        registered_on: iso(property.registered),
    });
    Property {
        cadastral_number: property.cadastral_number.clone(),
        kind: kind_of(property).into(),
        address: Some(address(&property.residence)),
        area_dm2: property.area_dm2,
        rights: rights.collect(),
        encumbrances: encumbrances.into_iter().collect(),
        cadastral_value: Some(som(property.value)),
    }
}
