//! `GET /metrics`: the engine's table of metrics, and lag and state by partition, in Prometheus' text format. Names
//! and help come from the engine's table; a series exists as long as its task does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use engine::metrics::{DURATION_BUCKETS_MS, DURATIONS, EngineMetrics, HistogramSnapshot, METRICS, MetricKind};
use engine::standby::StandbyReport;
use engine::stream_thread::{PartitionReport, ThreadReport};

use super::apps;
use crate::runtime::status::{Applications, Readiness, Status, Wired};

/// Answers with the whole text.
pub async fn text(State(applications): State<Arc<Applications>>) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let all = applications.all();
    let ready = apps::readiness_of_each(&all).await;
    let seen = all.iter().zip(ready).map(|(status, ready)| Seen::of(status, ready == Readiness::Ready));
    let seen: Vec<Seen<'_>> = seen.collect();
    (content_type, render(&seen)).into_response()
}

/// An application as it was when it was asked for.
struct Seen<'a> {
    application: &'a str,
    is_ready: bool,
    /// Whether it has tasks and stores, of which gauges tell.
    is_held: bool,
    wired: Option<Arc<Wired>>,
    reports: Vec<ThreadReport>,
    standby: Option<StandbyReport>,
}

impl<'a> Seen<'a> {
    fn of(status: &'a Status, is_ready: bool) -> Self {
        Self {
            application: &status.application_id,
            is_ready,
            is_held: !status.is_released(),
            wired: status.wired(),
            reports: status.reports(),
            standby: status.standby(),
        }
    }

    /// Those of the stream threads, and of the standby thread after them.
    fn metrics(&self) -> impl Iterator<Item = &Arc<EngineMetrics>> {
        let wired = self.wired.iter();
        wired.flat_map(|wired| wired.metrics.iter().chain(wired.standby.iter().map(|standby| &standby.metrics)))
    }

    fn partitions(&self) -> impl Iterator<Item = &PartitionReport> {
        self.reports.iter().flat_map(|report| &report.tasks).flat_map(|task| &task.partitions)
    }
}

/// The text. A metric comes once, with the series of all applications.
fn render(seen: &[Seen<'_>]) -> String {
    let mut page = Page { text: String::new() };
    page.head("sandbar_ready", "gauge", "1 when the application is ready, as /readyz says");
    for one in seen {
        page.sample("sandbar_ready", one.application, &[], u64::from(one.is_ready));
    }
    if seen.iter().all(|one| one.wired.is_none()) {
        return page.text;
    }
    engine_metrics(&mut page, seen);
    durations(&mut page, seen);
    partition_gauge(&mut page, seen, "sandbar_consumer_lag_records", "Records not yet processed", |partition| {
        partition.lag()
    });
    partition_gauge(&mut page, seen, "sandbar_committed_offset", "The committed offset", |partition| {
        partition.committed_offset.map(|offset| offset.max(0).unsigned_abs())
    });
    module_usage(&mut page, seen);
    if seen.iter().any(|one| one.standby.is_some()) {
        standby_lag(&mut page, seen);
    }
    page.text
}

fn standby_lag(page: &mut Page, seen: &[Seen<'_>]) {
    let name = "sandbar_standby_lag_offsets";
    page.head(name, "gauge", "Changelog offsets that a standby store has not read yet");
    for one in seen {
        for store in one.standby.iter().flat_map(|report| &report.tasks).flat_map(|task| &task.stores) {
            let partition = store.changelog.partition.to_string();
            let labels = [("topic", &*store.changelog.topic), ("partition", &*partition)];
            page.sample(name, one.application, &labels, store.lag());
        }
    }
}

/// What the instances of modules have used together, and where they came to a limit.
fn module_usage(page: &mut Page, seen: &[Seen<'_>]) {
    let used = || seen.iter().filter_map(|one| Some((one.application, one.wired.as_ref()?.usage.as_ref()?)));
    if used().next().is_none() {
        return;
    }
    let name = "sandbar_limit_hits_total";
    page.head(name, "counter", "Calls and starts of the module that came to a limit, by the key of the limit");
    for (application, usage) in used() {
        for (key, hits) in usage.limit_hits() {
            page.sample(name, application, &[("key", key)], hits);
        }
    }
    let name = "sandbar_module_memory_bytes";
    page.head(name, "gauge", "Linear memory of all living instances of the module");
    for (application, usage) in used() {
        page.sample(name, application, &[], usage.snapshot().memory_bytes);
    }
    let name = "sandbar_module_cpu_seconds_total";
    page.head(name, "counter", "CPU time inside calls of the module; of small calls a sample stands for all");
    for (application, usage) in used() {
        page.sample(name, application, &[], seconds(usage.snapshot().cpu_ns / NS_PER_MS));
    }
}

const NS_PER_MS: u64 = 1_000_000;

fn engine_metrics(page: &mut Page, seen: &[Seen<'_>]) {
    let mut last = "";
    for spec in METRICS {
        let (kind, is_gauge) = match spec.kind {
            MetricKind::Counter => ("counter", false),
            MetricKind::Gauge => ("gauge", true),
        };
        if spec.name != last {
            page.head(spec.name, kind, spec.help);
            last = spec.name;
        }
        for one in seen.iter().filter(|one| one.is_held || !is_gauge) {
            for (number, thread) in one.metrics().enumerate() {
                let number = number.to_string();
                let mut labels = vec![("thread", number.as_str())];
                labels.extend(spec.label);
                page.sample(spec.name, one.application, &labels, thread.get(spec.metric));
            }
        }
    }
}

fn durations(page: &mut Page, seen: &[Seen<'_>]) {
    for (metric, name, help) in DURATIONS {
        page.head(name, "histogram", help);
        for one in seen {
            for (number, thread) in one.wired.iter().flat_map(|wired| &wired.metrics).enumerate() {
                histogram(page, one.application, name, &number.to_string(), &thread.histogram(metric));
            }
        }
    }
}

fn histogram(page: &mut Page, application: &str, name: &str, thread: &str, snapshot: &HistogramSnapshot) {
    let bounds = DURATION_BUCKETS_MS.iter().map(|ms| seconds(*ms)).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(snapshot.cumulative) {
        page.sample(&format!("{name}_bucket"), application, &[("thread", thread), ("le", &bound)], count);
    }
    let total = snapshot.cumulative.last().copied().unwrap_or_default();
    page.sample(&format!("{name}_sum"), application, &[("thread", thread)], seconds(snapshot.sum_ms));
    page.sample(&format!("{name}_count"), application, &[("thread", thread)], total);
}

fn partition_gauge(
    page: &mut Page,
    seen: &[Seen<'_>],
    name: &str,
    help: &str,
    value: impl Fn(&PartitionReport) -> Option<u64>,
) {
    page.head(name, "gauge", help);
    for one in seen {
        // A partition that moves between threads is in two reports for a moment; a series may be there only once.
        let values: BTreeMap<(&str, i32), u64> = one
            .partitions()
            .filter_map(|report| Some(((&*report.partition.topic, report.partition.partition), value(report)?)))
            .collect();
        for ((topic, partition), value) in values {
            page.sample(name, one.application, &[("topic", topic), ("partition", &partition.to_string())], value);
        }
    }
}

fn seconds(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct Page {
    text: String,
}

// Writing to a String cannot fail.
impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, application: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.text, "{name}{{app=\"{}\"", escape(application));
        for (label, text) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", escape(text));
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
