//! What operators see: structured logs, metrics, traces, health.
//!
//! In: events, measurements and conditions from every room. Out: lines on standard error, Prometheus text and health
//! on the admin listener, OTLP to a collector. Never payloads, never personal data: labels are members, outcomes and reasons, whose number
//! the directory and this crate bound.

pub mod admin;
mod health;
pub mod metrics;
pub mod otlp;
mod refusals;
pub mod trace;

use tracing_subscriber::EnvFilter;

pub use health::{Health, Snapshot, Status};
pub use refusals::{RecentRefusals, RefusalSeen};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For collectors: one JSON object a line.
    Json,
}

/// Why telemetry does not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `KOPURO_LOG` or `RUST_LOG` is no filter.
    #[error("{variable}: {reason}; write info, or info,kopuro::gateway=debug")]
    Filter {
        /// Which variable.
        variable: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else in this process already collects log lines.
    #[error("log lines already go elsewhere: {0}")]
    Tracing(String),
    /// Something else in this process already records metrics.
    #[error("metrics already go elsewhere: {0}")]
    Metrics(String),
}

/// Sends log lines to standard error, filtered by `KOPURO_LOG`, else `RUST_LOG`, else `info`. Once per process.
pub fn init_tracing(format: Format) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt().with_env_filter(filter()?).with_writer(std::io::stderr);
    match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| TelemetryError::Tracing(error.to_string()))
}

fn filter() -> Result<EnvFilter, TelemetryError> {
    for variable in ["KOPURO_LOG", "RUST_LOG"] {
        if let Some(text) = std::env::var_os(variable).filter(|text| !text.is_empty()) {
            return EnvFilter::try_new(text.to_string_lossy())
                .map_err(|error| TelemetryError::Filter { variable, reason: error.to_string() });
        }
    }
    Ok(EnvFilter::new("info"))
}
