//! `kg.social.v1.SocialFund`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use super::{invalid, iso, month, month_text, months, not_found, person, pin, som};
use crate::cli::demo::population::{Population, Rng};
use crate::proto::kg::social::v1::social_fund_server::SocialFund;
use crate::proto::kg::social::v1::upload_report_request::Part;
use crate::proto::kg::social::v1::*;

/// Longer reports must be split.
const MAX_LINES: u32 = 100_000;

/// The back-end.
#[derive(Debug)]
pub struct SocialBackend {
    population: Arc<Population>,
}

impl SocialBackend {
    /// Over a population.
    pub fn new(population: Arc<Population>) -> Self {
        Self { population }
    }
}

#[tonic::async_trait]
impl SocialFund for SocialBackend {
    async fn get_contributions(
        &self,
        request: Request<GetContributionsRequest>,
    ) -> Result<Response<GetContributionsResponse>, Status> {
        let GetContributionsRequest { pin, from_month, to_month } = request.get_ref();
        let period = months(from_month, to_month)?;
        let person = person(&self.population, "pin", pin)?;
        let contributions = period
            .into_iter()
            .filter_map(|(year, month)| {
                let (pay, job) = (person.paid(year, month)?, person.job.as_ref()?);
                Some(Contribution {
                    month: month_text((year, month)),
                    employer_tin: job.employer().tin().to_string(),
                    base: Some(som(pay.gross)),
                    employer_part: Some(som(pay.employer_part)),
                    employee_part: Some(som(pay.employee_part)),
                })
            })
            .collect();
        Ok(Response::new(GetContributionsResponse {
            pin: pin.clone(),
            contributions,
            insured_months: person.insured_months(),
        }))
    }

    async fn get_pension(&self, request: Request<GetPensionRequest>) -> Result<Response<GetPensionResponse>, Status> {
        let person = person(&self.population, "pin", &request.get_ref().pin)?;
        let monthly =
            person.pension().ok_or_else(|| not_found("NO_PENSION", "the fund pays this person no pension", "pin"))?;
        let since = person.born.replace_year(person.born.year() + 63).unwrap_or(person.born);
        Ok(Response::new(GetPensionResponse {
            kind: PensionKind::OldAge.into(),
            monthly: Some(som(monthly)),
            since: iso(since),
        }))
    }

    async fn upload_report(
        &self,
        request: Request<Streaming<UploadReportRequest>>,
    ) -> Result<Response<UploadReportResponse>, Status> {
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|message| message.part) else {
            return Err(invalid("header", "must be the first message"));
        };
        pin("header.employer_tin", &header.employer_tin)?;
        month("header.month", &header.month)?;

        let (mut accepted, mut total, mut unknown_pins) = (0, 0_i64, Vec::new());
        while let Some(message) = parts.message().await? {
            let Some(Part::Line(line)) = message.part else {
                return Err(invalid("line", "is missing: only the first message is a header"));
            };
            if accepted == MAX_LINES {
                return Err(invalid("line", "a report has at most 100,000 lines"));
            }
            match self.population.person(&pin("line.pin", &line.pin)?) {
                Some(_) => {
                    accepted += 1;
                    total = total.saturating_add(line.gross.map_or(0, |gross| gross.units));
                }
                None => unknown_pins.push(line.pin),
            }
        }
        let number = Rng::of(&format!("{} {} {accepted}", header.employer_tin, header.month)).next() % 1_000_000;
        Ok(Response::new(UploadReportResponse {
            receipt: format!("СФ-{}-{number:06}", header.month),
            accepted_lines: accepted,
            unknown_pins,
            total_base: Some(som(total)),
        }))
    }
}
