//! `kg.tax.v1.TaxService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{iso, month_text, months, person, som};
use crate::cli::demo::population::{Population, Rng};
use crate::proto::kg::tax::v1::tax_service_server::TaxService;
use crate::proto::kg::tax::v1::*;

/// The back-end.
#[derive(Debug)]
pub struct TaxBackend {
    population: Arc<Population>,
}

impl TaxBackend {
    /// Over a population.
    pub fn new(population: Arc<Population>) -> Self {
        Self { population }
    }
}

#[tonic::async_trait]
impl TaxService for TaxBackend {
    async fn get_taxpayer_status(
        &self,
        request: Request<GetTaxpayerStatusRequest>,
    ) -> Result<Response<GetTaxpayerStatusResponse>, Status> {
        let person = person(&self.population, "tin", &request.get_ref().tin)?;
        let mut rng = Rng::of(&format!("tax {}", person.pin));
        let kind = match rng.range(0, 99) {
            0..=84 => TaxpayerKind::Individual,
            85..=92 => TaxpayerKind::Entrepreneur,
            _ => TaxpayerKind::Patent,
        };
        let standing = match rng.range(0, 99) {
            0..=87 => Standing::Good,
            88..=95 => Standing::InDebt,
            _ => Standing::DeclarationOverdue,
        };
        let debt = if standing == Standing::InDebt { rng.range(3, 900) * 100 } else { 0 };
        let registered = person.born.replace_year(person.born.year() + 18).unwrap_or(person.born);
        let (region, district) = person.residence.place.code;
        Ok(Response::new(GetTaxpayerStatusResponse {
            tin: person.pin.to_string(),
            kind: kind.into(),
            standing: standing.into(),
            debt: Some(som(debt)),
            office: format!("УГНС {region}{district:02}, {}", person.residence.place.locality),
            registered_on: iso(registered),
        }))
    }

    async fn get_income(&self, request: Request<GetIncomeRequest>) -> Result<Response<GetIncomeResponse>, Status> {
        let GetIncomeRequest { tin, from_month, to_month } = request.get_ref();
        let period = months(from_month, to_month)?;
        let person = person(&self.population, "tin", tin)?;
        let mut total = 0;
        let mut declared = Vec::new();
        for (year, month) in period {
            let (Some(pay), Some(job)) = (person.paid(year, month), &person.job) else { continue };
            total += pay.gross;
            declared.push(MonthlyIncome {
                month: month_text((year, month)),
                payer_tin: job.employer().tin().to_string(),
                payer_name: job.employer().name.into(),
                gross: Some(som(pay.gross)),
                income_tax: Some(som(pay.tax)),
            });
        }
        Ok(Response::new(GetIncomeResponse { tin: tin.clone(), months: declared, total: Some(som(total)) }))
    }
}
