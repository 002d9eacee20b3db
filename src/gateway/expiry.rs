//! Tells the operator in time that something ends: a line in the log when a mark is passed, once, and at the start for what has passed one
//! already; from a week ahead also in health, and so in `kopuro status`.

use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use crate::telemetry::{Health, Status};
use crate::trust::expiry::{Expiry, Mark, Told, Warning, pause};

/// Looks when the next mark is due, at least once an hour, and after each reload.
pub(super) async fn watch(
    gateway: Arc<Gateway>,
    health: Health,
    mut reloaded: watch::Receiver<u64>,
    drain: CancellationToken,
) {
    let mut told = Told::default();
    loop {
        let all = gateway.view().expiries.clone();
        let now = OffsetDateTime::now_utc().unix_timestamp();
        for warning in told.due(&all, now) {
            tell(&warning);
        }
        health.set("expiry", standing(&all, now));
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(pause(&all, now)) => {}
            changed = reloaded.changed() => if changed.is_err() { return },
        }
    }
}

fn tell(warning: &Warning<'_>) {
    let Expiry { what, name, until_unix, .. } = warning.expiry;
    match warning.mark {
        Mark::Month | Mark::Week => tracing::warn!(what, name, until_unix, "{warning}"),
        Mark::Day | Mark::Ended => tracing::error!(what, name, until_unix, "{warning}"),
    }
}

/// The most urgent, from a week ahead.
fn standing(all: &[Expiry], now_unix: i64) -> Status {
    let near = all.iter().filter_map(|expiry| expiry.warning(now_unix)).filter(|warning| warning.mark >= Mark::Week);
    match near.min_by_key(|warning| warning.left) {
        Some(warning) => Status::Warning(warning.to_string()),
        None => Status::Ok,
    }
}
