//! The ministries' back-end systems: ordinary tonic servers that answer from the synthetic [`Population`], one file
//! per service. They know nothing of Kopuro; a node calls them as it would call any gRPC server over mutual TLS.
//!
//! What a handler does it does in the caller's future or stream, so that a cancelled call stops costing at once.

mod cadastre;
mod civil;
mod social;
mod tax;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin as BoxPin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use time::{Date, Month};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt};

pub use cadastre::CadastreBackend;
pub use civil::CivilBackend;
pub use social::SocialBackend;
pub use tax::TaxBackend;

use super::population::{Person, Pin, Population, Residence, TODAY};
use crate::proto::kg::cadastre::v1::cadastre_server::CadastreServer;
use crate::proto::kg::civil::v1::civil_registry_server::CivilRegistryServer;
use crate::proto::kg::common::v1::{Address, Som};
use crate::proto::kg::social::v1::social_fund_server::SocialFundServer;
use crate::proto::kg::tax::v1::tax_service_server::TaxServiceServer;

/// One of the four services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// `kg.civil.v1.CivilRegistry`.
    Civil,
    /// `kg.tax.v1.TaxService`.
    Tax,
    /// `kg.social.v1.SocialFund`.
    Social,
    /// `kg.cadastre.v1.Cadastre`.
    Cadastre,
}

/// A back-end's certificate and whom it trusts, PEM.
#[derive(Clone)]
pub struct Tls {
    /// Chain, leaf first.
    pub certificate: String,
    /// The leaf's key.
    pub key: zeroize::Zeroizing<String>,
    /// Roots under which callers' certificates must be.
    pub roots: String,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// A stream of answers.
type Answers<T> = BoxPin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Backend {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Civil, Self::Tax, Self::Social, Self::Cadastre];

    /// Full name of the service.
    pub fn service(self) -> &'static str {
        match self {
            Self::Civil => "kg.civil.v1.CivilRegistry",
            Self::Tax => "kg.tax.v1.TaxService",
            Self::Social => "kg.social.v1.SocialFund",
            Self::Cadastre => "kg.cadastre.v1.Cadastre",
        }
    }

    /// The service over a population, to be served by whoever wants to.
    pub fn routes(self, population: &Arc<Population>) -> Routes {
        let population = population.clone();
        match self {
            Self::Civil => Routes::new(CivilRegistryServer::new(CivilBackend::new(population))),
            Self::Tax => Routes::new(TaxServiceServer::new(TaxBackend::new(population))),
            Self::Social => Routes::new(SocialFundServer::new(SocialBackend::new(population))),
            Self::Cadastre => Routes::new(CadastreServer::new(CadastreBackend::new(population))),
        }
    }

    /// Serves on a bound listener until `stop` resolves.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Tls,
        population: &Arc<Population>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let tls_config = ServerTlsConfig::new()
            .identity(Identity::from_pem(tls.certificate, tls.key.as_bytes()))
            .client_ca_root(Certificate::from_pem(tls.roots));
        Server::builder()
            .tls_config(tls_config)?
            .max_concurrent_streams(1_024)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .add_routes(self.routes(population))
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop)
            .await
    }
}

/// Reads a PIN of `field`, or says what is wrong with it.
fn pin(field: &str, text: &str) -> Result<Pin, Status> {
    text.parse().map_err(|error: super::population::pin::PinError| invalid(field, &error.to_string()))
}

/// Finds a living or dead person. The number itself is kept out of the message: messages end up in logs.
fn person<'a>(population: &'a Population, field: &str, text: &str) -> Result<&'a Person, Status> {
    population.person(&pin(field, text)?).ok_or_else(|| not_found("PIN_UNKNOWN", "no person has this PIN", field))
}

/// `INVALID_ARGUMENT` that names the field, with `google.rpc.BadRequest`.
fn invalid(field: &str, description: &str) -> Status {
    Status::with_error_details(
        Code::InvalidArgument,
        format!("{field}: {description}"),
        ErrorDetails::with_bad_request_violation(field, description),
    )
}

/// `NOT_FOUND` with `google.rpc.ErrorInfo`.
fn not_found(reason: &str, message: &str, field: &str) -> Status {
    let metadata = HashMap::from([("field".to_owned(), field.to_owned())]);
    Status::with_error_details(Code::NotFound, message, ErrorDetails::with_error_info(reason, "registers.kg", metadata))
}

fn address(residence: &Residence) -> Address {
    Address {
        region: residence.place.region.into(),
        district: residence.place.district.into(),
        locality: residence.place.locality.into(),
        street: residence.street.into(),
        house: residence.house.to_string(),
        apartment: residence.apartment.map(|number| number.to_string()).unwrap_or_default(),
    }
}

fn som(units: i64) -> Som {
    Som { units, tyiyn: 0 }
}

fn iso(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

/// The months from one `YYYY-MM` to another, both included, at most 36.
fn months(from: &str, to: &str) -> Result<Vec<(i32, Month)>, Status> {
    let (first, last) = (month("from_month", from)?, month("to_month", to)?);
    let count = |(year, month): (i32, Month)| year * 12 + i32::from(u8::from(month)) - 1;
    let span = count(last) - count(first);
    if span < 0 {
        return Err(invalid("to_month", "is before from_month"));
    }
    if span >= 36 {
        return Err(invalid("to_month", "is more than 36 months after from_month"));
    }
    (count(first)..=count(last))
        .map(|n| {
            let month = u8::try_from(n % 12 + 1).ok().and_then(|m| Month::try_from(m).ok());
            month.map(|month| (n / 12, month)).ok_or_else(|| invalid("from_month", "is no month"))
        })
        .collect()
}

fn month(field: &str, text: &str) -> Result<(i32, Month), Status> {
    let parsed = text.split_once('-').filter(|(year, month)| year.len() == 4 && month.len() == 2).and_then(|parts| {
        let year: u16 = parts.0.parse().ok()?;
        let month: u8 = parts.1.parse().ok()?;
        Some((i32::from(year), Month::try_from(month).ok()?))
    });
    parsed.ok_or_else(|| invalid(field, "is no month: YYYY-MM, as 2026-03"))
}

fn month_text((year, month): (i32, Month)) -> String {
    format!("{year:04}-{:02}", u8::from(month))
}

/// A day `YYYY-MM-DD`; empty is today.
fn day(field: &str, text: &str) -> Result<Date, Status> {
    if text.is_empty() {
        return Ok(TODAY);
    }
    let format = time::macros::format_description!("[year]-[month]-[day]");
    Date::parse(text, format).map_err(|_| invalid(field, "is no day: YYYY-MM-DD, as 2026-03-14"))
}

/// How long the caller will wait, from `grpc-timeout`, less a little for the way back.
fn patience(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let unit = text.chars().last()?;
    let amount: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let whole = match unit {
        'H' => Duration::from_secs(amount.checked_mul(3_600)?),
        'M' => Duration::from_secs(amount.checked_mul(60)?),
        'S' => Duration::from_secs(amount),
        'm' => Duration::from_millis(amount),
        'u' => Duration::from_micros(amount),
        'n' => Duration::from_nanos(amount),
        _ => return None,
    };
    Some(whole * 9 / 10)
}
