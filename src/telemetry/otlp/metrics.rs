//! Metrics as Prometheus gets them, in OTLP: the same names, labels and values, read from the same text
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>), so that neither can tell what the other does not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::metrics::counter;
use metrics_exporter_prometheus::PrometheusHandle;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, Summary, SummaryDataPoint, metric, number_data_point, summary_data_point,
};
use tokio_util::sync::CancellationToken;

use super::{Collector, said, scope, text};
use crate::telemetry::metrics::OTLP_METRICS;

/// The condition of [`crate::telemetry::Health`].
const CONDITION: &str = "metrics";

/// Exports all metrics again and again until stopped, and then once more.
pub(super) async fn export(
    collector: Collector,
    metrics: PrometheusHandle,
    interval: Duration,
    node: String,
    stop: CancellationToken,
) {
    // Counters began with the process, or a moment before.
    let start = unix_nanos();
    let count = |result: &'static str| counter!(OTLP_METRICS, "node" => node.clone(), "result" => result);
    let (exported, failed) = (count("exported"), count("failed"));
    exported.increment(0);
    failed.increment(0);
    let mut client = MetricsServiceClient::new(collector.channel.clone());
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        stop.run_until_cancelled(ticks.tick()).await;
        let metrics = to_otlp(&metrics.render(), start, unix_nanos());
        let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
        let resource = Some(collector.resource.clone());
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
        let request = collector.request(ExportMetricsServiceRequest { resource_metrics });
        let sent = match tokio::time::timeout(collector.timeout, client.export(request)).await {
            Ok(sent) => sent.map_err(|status| said(&status)),
            Err(_) => Err(format!("not within {:?}", collector.timeout)),
        };
        collector.tell(CONDITION, &sent);
        if sent.is_ok() { exported.increment(1) } else { failed.increment(1) }
    }
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A sample: its name, its labels, its value.
type Sample<'a> = (&'a str, Vec<(&'a str, String)>, f64);

/// Every metric of a text. Lines that cannot be read are left out.
fn to_otlp(text: &str, start: u64, now: u64) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    let mut help = None;
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|said| said.split_once(' ')) {
            let description = help.filter(|(of, _)| *of == name).map_or("", |(_, said)| said);
            metrics.extend(data(kind).map(|data| Metric {
                name: name.to_owned(),
                description: unescaped(description),
                unit: unit(name).to_owned(),
                data: Some(data),
                ..Metric::default()
            }));
        } else if let (Some(metric), Some(sample)) = (metrics.last_mut(), sample(line)) {
            add(metric, sample, [start, now]);
        }
    }
    metrics
}

fn data(kind: &str) -> Option<metric::Data> {
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    Some(match kind {
        "counter" => metric::Data::Sum(Sum { aggregation_temporality, is_monotonic: true, data_points: Vec::new() }),
        "gauge" => metric::Data::Gauge(Gauge::default()),
        "histogram" => metric::Data::Histogram(Histogram { aggregation_temporality, data_points: Vec::new() }),
        "summary" => metric::Data::Summary(Summary::default()),
        _ => return None,
    })
}

/// As UCUM has it, by the name's ending.
fn unit(name: &str) -> &'static str {
    match name.strip_suffix("_total").unwrap_or(name) {
        name if name.ends_with("_seconds") => "s",
        name if name.ends_with("_bytes") => "By",
        _ => "1",
    }
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, value) = rest.split_once("=\"")?;
            let mut escaped = false;
            let end = value.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })?;
            labels.push((label, unescaped(&value[..end])));
            rest = value[end + 1..].trim_start_matches(',');
        }
        rest = &rest[1..];
    }
    Some((name, labels, rest.split_ascii_whitespace().next()?.parse().ok()?))
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    plain
}

/// Adds a sample to its metric. Those of one histogram or summary follow each other.
fn add(metric: &mut Metric, (name, mut labels, value): Sample<'_>, [start, now]: [u64; 2]) {
    let of = name.strip_prefix(metric.name.as_str());
    let (Some(part), Some(data)) = (of, &mut metric.data) else { return };
    let bound = labels.iter().position(|(label, _)| matches!(*label, "le" | "quantile")).map(|at| labels.remove(at));
    let bound = bound.and_then(|(_, bound)| bound.parse::<f64>().ok());
    let attributes: Vec<KeyValue> = labels.into_iter().map(|(label, value)| text(label, value)).collect();
    match data {
        metric::Data::Sum(Sum { data_points, .. }) | metric::Data::Gauge(Gauge { data_points }) => {
            data_points.push(NumberDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: now,
                value: Some(number_data_point::Value::AsDouble(value)),
                ..NumberDataPoint::default()
            });
        }
        metric::Data::Histogram(histogram) => {
            if histogram.data_points.last().is_none_or(|point| point.attributes != attributes) {
                histogram.data_points.push(HistogramDataPoint {
                    attributes,
                    start_time_unix_nano: start,
                    time_unix_nano: now,
                    ..HistogramDataPoint::default()
                });
            }
            let Some(point) = histogram.data_points.last_mut() else { return };
            match (part, bound) {
                // Prometheus counts all below a bound, OTLP those since the bound before.
                ("_bucket", Some(bound)) => {
                    let below: u64 = point.bucket_counts.iter().sum();
                    point.bucket_counts.push((value as u64).saturating_sub(below));
                    if bound.is_finite() {
                        point.explicit_bounds.push(bound);
                    }
                }
                ("_sum", _) => point.sum = Some(value),
                ("_count", _) => point.count = value as u64,
                _ => {}
            }
        }
        metric::Data::Summary(summary) => {
            if summary.data_points.last().is_none_or(|point| point.attributes != attributes) {
                summary.data_points.push(SummaryDataPoint {
                    attributes,
                    start_time_unix_nano: start,
                    time_unix_nano: now,
                    ..SummaryDataPoint::default()
                });
            }
            let Some(point) = summary.data_points.last_mut() else { return };
            match (part, bound) {
                ("", Some(quantile)) => {
                    point.quantile_values.push(summary_data_point::ValueAtQuantile { quantile, value });
                }
                ("_sum", _) => point.sum = value,
                ("_count", _) => point.count = value as u64,
                _ => {}
            }
        }
        metric::Data::ExponentialHistogram(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_reads_is_what_otlp_tells() {
        let read = r#"# HELP kopuro_refused_total Calls refused,\nby reason
# TYPE kopuro_refused_total counter
kopuro_refused_total{node="KG/GOV/5",reason="A \"quoted\", one\\"} 7

# TYPE kopuro_log_free_bytes gauge
kopuro_log_free_bytes 1.5e9

# TYPE kopuro_stage_seconds histogram
kopuro_stage_seconds_bucket{stage="check",le="0.5"} 2
kopuro_stage_seconds_bucket{stage="check",le="1"} 5
kopuro_stage_seconds_bucket{stage="check",le="+Inf"} 6
kopuro_stage_seconds_sum{stage="check"} 4.5
kopuro_stage_seconds_count{stage="check"} 6
kopuro_stage_seconds_bucket{stage="peer",le="+Inf"} 1
kopuro_stage_seconds_sum{stage="peer"} 9
kopuro_stage_seconds_count{stage="peer"} 1

# TYPE kopuro_log_commit_entries summary
kopuro_log_commit_entries{quantile="0.5"} 3
kopuro_log_commit_entries_sum 12
kopuro_log_commit_entries_count 4
a line that is none
"#;
        let metrics = to_otlp(read, 1, 2);
        let names: Vec<_> = metrics.iter().map(|metric| (metric.name.as_str(), metric.unit.as_str())).collect();
        let units = [
            ("kopuro_refused_total", "1"),
            ("kopuro_log_free_bytes", "By"),
            ("kopuro_stage_seconds", "s"),
            ("kopuro_log_commit_entries", "1"),
        ];
        assert_eq!(names, units);
        assert_eq!(metrics[0].description, "Calls refused,\nby reason");
        let Some(metric::Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:?}") };
        assert!(sum.is_monotonic && sum.data_points.len() == 1);
        let labels = [text("node", "KG/GOV/5"), text("reason", "A \"quoted\", one\\")];
        assert_eq!(sum.data_points[0].attributes, labels);
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(7.0)));
        let Some(metric::Data::Histogram(histogram)) = &metrics[2].data else { panic!("{metrics:?}") };
        let [check, peer] = histogram.data_points.as_slice() else { panic!("{histogram:?}") };
        assert_eq!((&check.bucket_counts[..], &check.explicit_bounds[..]), (&[2, 3, 1][..], &[0.5, 1.0][..]));
        assert_eq!((check.count, check.sum, peer.count, peer.sum), (6, Some(4.5), 1, Some(9.0)));
        let Some(metric::Data::Summary(summary)) = &metrics[3].data else { panic!("{metrics:?}") };
        assert_eq!((summary.data_points[0].count, summary.data_points[0].sum), (4, 12.0));
        assert_eq!(summary.data_points[0].quantile_values[0].value, 3.0);
    }
}
