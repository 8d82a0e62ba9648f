//! `/v1/apps`: the applications of this host, each with its topology, tasks, restores and lag, or why it failed.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use engine::standby::StandbyReport;
use engine::stream_thread::{TaskReport, ThreadReport};
use engine::topology::{StoreBackend, SubTopology, Topology};
use serde_json::{Value, json};

use super::{Problem, application_of, json_response};
use crate::runtime::deployments::Deployments;
use crate::runtime::status::{Applications, Migrating, Phase, Readiness, Restoring, Status};

/// `GET /v1/apps`
pub async fn list(State(applications): State<Arc<Applications>>) -> Response {
    let apps: Vec<Value> = applications.all().iter().map(|status| listed(status)).collect();
    json_response(&json!({ "apps": apps }))
}

fn listed(status: &Status) -> Value {
    let mut app = json!({ "id": status.application_id, "state": state(status) });
    if let Some(reason) = status.failure() {
        app["error"] = reason.into();
    }
    app
}

fn deployments_of(status: &Status) -> Option<Arc<Deployments>> {
    status.wired()?.deployments.clone()
}

/// `GET /v1/apps/{app}`
pub async fn show(
    State(applications): State<Arc<Applications>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(application) = path?;
    let status = application_of(&applications, &application)?;
    let wired = status.wired();
    let reports = status.reports();
    let lag: Option<u64> = reports.iter().map(ThreadReport::lag).sum();
    let restoring = Restoring::of(&reports);
    let deployments = deployments_of(&status);
    Ok(json_response(&json!({
        "id": status.application_id,
        "state": state(&status),
        "error": status.failure(),
        "not_ready": match readiness(&status).await {
            Readiness::Ready => Value::Null,
            Readiness::NotReady(reason) => reason.into(),
        },
        "module": wired.as_ref().and_then(|wired| wired.module_digest.as_deref()),
        "version": deployments.as_ref().and_then(|deployments| deployments.target_number()),
        "on_probation": deployments.as_ref().is_some_and(|deployments| deployments.is_on_probation()),
        "paused": deployments.as_ref().is_some_and(|deployments| deployments.is_paused()),
        "given_up": status.given_up(),
        "table": wired.as_ref().map(|wired| wired.module_digest.is_none()),
        "topology": wired.as_ref().map(|wired| topology(&wired.topology)),
        "lag": lag,
        "records_processed": reports.iter().map(|report| report.records_processed).sum::<u64>(),
        "records_sent": reports.iter().map(|report| report.records_sent).sum::<u64>(),
        "commits": reports.iter().map(|report| report.commits).sum::<u64>(),
        "restoring": {
            "tasks_ready": restoring.tasks_running,
            "tasks": restoring.tasks,
            "records_restored": restoring.records_restored,
            "offsets_left": restoring.offsets_left,
        },
        "standby": status.standby().map(|report| standby(&report)),
        "threads": reports.iter().map(thread).collect::<Vec<_>>(),
    })))
}

/// Whether the host can do its work now. One without tasks has nothing that could be unready by itself: until its group
/// has agreed on who has what, they may be about to come, and queries of what others have cannot be sent on.
pub async fn readiness(status: &Status) -> Readiness {
    let readiness = status.readiness();
    let Some(wired) = status.wired().filter(|_| readiness == Readiness::Ready) else { return readiness };
    let (Some(routing), false) = (&wired.routing, wired.reports().iter().any(|report| !report.tasks.is_empty())) else {
        return readiness;
    };
    match routing.finder.routes().await {
        Ok(_) => Readiness::Ready,
        Err(why) => Readiness::NotReady(format!("waiting for the group to assign partitions: {why}")),
    }
}

/// As `readiness`, of several at once: one whose broker does not answer does not add to the time of another.
pub async fn readiness_of_each(applications: &[Arc<Status>]) -> Vec<Readiness> {
    let asked: Vec<_> = { applications.iter() }
        .map(|status| {
            let status = Arc::clone(status);
            tokio::spawn(async move { readiness(&status).await })
        })
        .collect();
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(answer.await.unwrap_or_else(|error| Readiness::NotReady(error.to_string())));
    }
    answers
}

/// The state in one word, as programs compare it.
pub fn state(status: &Status) -> &'static str {
    match status.phase() {
        Phase::Starting(_) => "starting",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
        Phase::Failed(_) => status.failed_word(),
        Phase::Running if status.given_up().is_some() => "given-up",
        Phase::Running if deployments_of(status).is_some_and(|deployments| deployments.is_paused()) => "paused",
        Phase::Running => {
            let reports = status.reports();
            let restoring = Restoring::of(&reports);
            match Migrating::of(&reports) {
                _ if restoring.tasks_running < restoring.tasks => "restoring",
                Some(_) => "migrating",
                None => "running",
            }
        }
    }
}

fn thread(report: &ThreadReport) -> Value {
    json!({
        "thread": report.thread,
        "state": format!("{:?}", report.state),
        "recycles": report.recycles,
        "trouble": report.trouble.as_ref().map(|(trouble, _)| trouble),
        "tasks": report.tasks.iter().map(task).collect::<Vec<_>>(),
    })
}

fn standby(report: &StandbyReport) -> Value {
    json!({
        "trouble": report.trouble,
        "records": report.records,
        "lag": report.lag(),
        "tasks": report.tasks.iter().map(|task| json!({
            "task": task.task.to_string(),
            "state": task.state.name(),
            "error": task.error,
            "stores": task.stores.iter().map(|store| json!({
                "store": store.store,
                "changelog": store.changelog.to_string(),
                "position": store.position,
                "end": store.end,
                "lag": store.lag(),
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

fn task(report: &TaskReport) -> Value {
    json!({
        "task": report.task.to_string(),
        "state": report.state.to_string(),
        "version": report.version,
        "promoted_with": report.promoted_with,
        "stream_time": report.stream_time,
        "uncommitted_bytes": report.uncommitted_bytes,
        "partitions": report.partitions.iter().map(|partition| json!({
            "topic": &*partition.partition.topic,
            "partition": partition.partition.partition,
            "next_offset": partition.next_offset,
            "committed_offset": partition.committed_offset,
            "end_offset": partition.end_offset,
            "lag": partition.lag(),
            "buffered": partition.buffered,
        })).collect::<Vec<_>>(),
        "migration": report.migration.map(|migration| json!({
            "rows": migration.rows,
            "rows_expected": migration.rows_expected,
        })),
        "restores": report.restores.iter().map(|restore| json!({
            "store": restore.store,
            "changelog": restore.changelog.to_string(),
            "position": restore.position,
            "target": restore.target,
            "records": restore.records,
        })).collect::<Vec<_>>(),
    })
}

fn topology(topology: &Topology) -> Value {
    Value::Array(topology.sub_topologies.iter().map(sub_topology).collect())
}

fn sub_topology(part: &SubTopology) -> Value {
    json!({
        "sources": part.sources.iter().map(|s| json!({ "name": &*s.name, "topic": &*s.topic })).collect::<Vec<_>>(),
        "stores": part.stores.iter().map(|store| json!({
            "name": &*store.name,
            "backend": match store.backend {
                StoreBackend::Persistent => "rocksdb",
                StoreBackend::InMemory => "memory",
            },
            "logging_enabled": store.is_logged(),
            "source_backed": store.is_source_backed(),
            "key_format": &*store.key_format,
            "value_format": &*store.value_format,
            "version": store.version,
        })).collect::<Vec<_>>(),
        "sinks": part.sinks.iter().map(|s| json!({ "name": &*s.name, "topic": &*s.topic })).collect::<Vec<_>>(),
    })
}
