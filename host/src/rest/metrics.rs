//! `GET /metrics`: the engine's table of metrics, and lag and state by partition, in Prometheus' text format. Names
//! and help come from the engine's table; a series exists as long as its task does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use engine::metrics::{DURATION_BUCKETS_MS, DURATIONS, EngineMetrics, METRICS, MetricKind};
use engine::standby::StandbyReport;
use engine::stream_thread::PartitionReport;
use sandbox::Usage;

use super::apps;
use crate::runtime::status::{Readiness, Status};

/// Answers with the whole text.
pub async fn text(State(status): State<Arc<Status>>) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let ready = apps::readiness(&status).await == Readiness::Ready;
    (content_type, render(&status, ready)).into_response()
}

/// The text; a function of the status, and of whether the host is ready.
pub fn render(status: &Status, ready: bool) -> String {
    let mut page = Page { text: String::new(), application: &status.application_id };
    page.head("sandbar_ready", "gauge", "1 when the host is ready, as /readyz says");
    page.sample("sandbar_ready", &[], u64::from(ready));
    let Some(wired) = status.wired() else { return page.text };
    let mut metrics = wired.metrics.clone();
    metrics.extend(wired.standby.iter().map(|standby| Arc::clone(&standby.metrics)));
    engine_metrics(&mut page, &metrics);
    durations(&mut page, &wired.metrics);
    let reports = wired.reports();
    let partitions: Vec<&PartitionReport> =
        reports.iter().flat_map(|report| &report.tasks).flat_map(|task| &task.partitions).collect();
    partition_gauge(&mut page, &partitions, "sandbar_consumer_lag_records", "Records not yet processed", |partition| {
        partition.lag()
    });
    partition_gauge(&mut page, &partitions, "sandbar_committed_offset", "The committed offset", |partition| {
        partition.committed_offset.map(|offset| offset.max(0).unsigned_abs())
    });
    if let Some(usage) = &wired.usage {
        module_usage(&mut page, usage);
    }
    if let Some(standby) = &wired.standby {
        standby_lag(&mut page, &standby.report.read());
    }
    page.text
}

fn standby_lag(page: &mut Page<'_>, report: &StandbyReport) {
    let name = "sandbar_standby_lag_offsets";
    page.head(name, "gauge", "Changelog offsets that a standby store has not read yet");
    for store in report.tasks.iter().flat_map(|task| &task.stores) {
        let partition = store.changelog.partition.to_string();
        page.sample(name, &[("topic", &store.changelog.topic), ("partition", &partition)], store.lag());
    }
}

/// What the instances of the module have used together, and where they came to a limit.
fn module_usage(page: &mut Page<'_>, usage: &Usage) {
    let name = "sandbar_limit_hits_total";
    page.head(name, "counter", "Calls and starts of the module that came to a limit, by the key of the limit");
    for (key, hits) in usage.limit_hits() {
        page.sample(name, &[("key", key)], hits);
    }
    let used = usage.snapshot();
    let name = "sandbar_module_memory_bytes";
    page.head(name, "gauge", "Linear memory of all living instances of the module");
    page.sample(name, &[], used.memory_bytes);
    let name = "sandbar_module_cpu_seconds_total";
    page.head(name, "counter", "CPU time inside calls of the module; of small calls a sample stands for all");
    page.sample(name, &[], seconds(used.cpu_ns / NS_PER_MS));
}

const NS_PER_MS: u64 = 1_000_000;

fn engine_metrics(page: &mut Page<'_>, threads: &[Arc<EngineMetrics>]) {
    let mut last = "";
    for spec in METRICS {
        if spec.name != last {
            let kind = match spec.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
            };
            page.head(spec.name, kind, spec.help);
            last = spec.name;
        }
        for (number, thread) in threads.iter().enumerate() {
            let number = number.to_string();
            let mut labels = vec![("thread", number.as_str())];
            labels.extend(spec.label);
            page.sample(spec.name, &labels, thread.get(spec.metric));
        }
    }
}

fn durations(page: &mut Page<'_>, threads: &[Arc<EngineMetrics>]) {
    for (metric, name, help) in DURATIONS {
        page.head(name, "histogram", help);
        for (number, thread) in threads.iter().enumerate() {
            let number = number.to_string();
            let snapshot = thread.histogram(metric);
            let bounds = DURATION_BUCKETS_MS.iter().map(|ms| seconds(*ms)).chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(snapshot.cumulative) {
                page.sample(&format!("{name}_bucket"), &[("thread", &number), ("le", &bound)], count);
            }
            let total = snapshot.cumulative.last().copied().unwrap_or_default();
            page.sample(&format!("{name}_sum"), &[("thread", &number)], seconds(snapshot.sum_ms));
            page.sample(&format!("{name}_count"), &[("thread", &number)], total);
        }
    }
}

fn partition_gauge(
    page: &mut Page<'_>,
    partitions: &[&PartitionReport],
    name: &str,
    help: &str,
    value: impl Fn(&PartitionReport) -> Option<u64>,
) {
    page.head(name, "gauge", help);
    // A partition that moves between threads is in two reports for a moment; a series may be there only once.
    let values: BTreeMap<(&str, i32), u64> = partitions
        .iter()
        .filter_map(|report| Some(((&*report.partition.topic, report.partition.partition), value(report)?)))
        .collect();
    for ((topic, partition), value) in values {
        page.sample(name, &[("topic", topic), ("partition", &partition.to_string())], value);
    }
}

fn seconds(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct Page<'a> {
    text: String,
    application: &'a str,
}

// Writing to a String cannot fail.
impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.text, "{name}{{app=\"{}\"", escape(self.application));
        for (label, text) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", escape(text));
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
