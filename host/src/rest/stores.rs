//! The stores of the application, and queries for one key over all partitions: those of other hosts are asked there
//! (`routed`). "No such key" is said only where every partition was asked: one that is restoring, or that nobody answers for, is
//! a problem that may be tried again. What every query of a store needs is here too: formats and partitions.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use engine::query::{Availability, KeyAnswer, PartitionPosition, QueryError, Role};
use engine::state::StoreError;
use engine::topology::StoreSpec;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::routed::Sources;
use super::{Problem, check_application, json_response, json_text, peers, routed};
use crate::formats::{self, DataFormat};
use crate::runtime::status::{Status, Wired};

/// Where a key is. The empty key is a path that ends with `keys/`.
#[derive(Debug, Deserialize)]
pub struct KeyPath {
    app: String,
    store: String,
    #[serde(default)]
    key: String,
}

/// What a key query may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyQuery {
    key_format: Option<String>,
    value_format: Option<String>,
    partition: Option<i32>,
    /// Whether copies may answer that are not quite up to date, and how much they may lack.
    #[serde(default)]
    standby: bool,
    max_lag: Option<u64>,
    /// Whether to be sent to the host that has the key, in place of its answer.
    #[serde(default)]
    redirect: bool,
}

/// `GET /v1/apps/{app}/stores`
pub async fn list(
    State(status): State<Arc<Status>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(application) = path?;
    check_application(&status, &application)?;
    let wired = wired(&status)?;
    let registrations = wired.queries.registrations();
    let stores: Vec<Value> = wired
        .topology
        .sub_topologies
        .iter()
        .flat_map(|part| &part.stores)
        .map(|store| {
            let partitions = registrations.iter().filter(|registration| registration.store == store.name);
            json!({
                "name": &*store.name,
                "key_format": &*store.key_format,
                "value_format": &*store.value_format,
                "partitions": partitions.map(|registration| json!({
                    "partition": registration.task.partition,
                    "role": role(registration.role),
                    "available": registration.availability == Availability::Running,
                    "approximate_entries": registration.view.approximate_entries(),
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(json_response(&json!({ "stores": stores })))
}

/// What this host alone says to a query of a key.
enum Local {
    Found(Response),
    /// None of these partitions, all of them here, has it.
    Absent,
    /// These partitions are elsewhere, the one where the key should be first; the others do not have it.
    Elsewhere(Elsewhere),
}

struct Elsewhere {
    sub_topology: u32,
    partitions: Vec<i32>,
    /// The query without a partition, for another host.
    query: String,
    /// Whether standbys may be asked too.
    standby: bool,
    /// What to answer when nobody can be asked.
    problem: Problem,
}

/// `GET /v1/apps/{app}/stores/{store}/keys/{key}`
pub async fn get_key(
    State(status): State<Arc<Status>>,
    headers: HeaderMap,
    uri: Uri,
    path: Result<Path<KeyPath>, PathRejection>,
    query: Result<Query<KeyQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path(KeyPath { app, store, key }) = path?;
    let Query(query) = query?;
    check_application(&status, &app)?;
    let wired = wired(&status)?;
    let routing = wired.routing.clone().filter(|_| !peers::is_forwarded(&headers));
    let (redirect, partition) = (query.redirect, query.partition);
    let nothing = no_key(&store, &key);
    match blocking(move || local_key(&wired, &store, &key, &query)).await? {
        Local::Found(response) => Ok(response),
        Local::Absent => Err(nothing),
        Local::Elsewhere(elsewhere) => {
            let Some(routing) = routing else { return Err(elsewhere.problem) };
            let path = format!("{}?{}", uri.path(), elsewhere.query);
            if redirect {
                let path = partition.map_or(path.clone(), |partition| format!("{path}&partition={partition}"));
                return routed::redirect(&routing, elsewhere.sub_topology, &path, &elsewhere.partitions).await;
            }
            let sources = Sources { sub_topology: elsewhere.sub_topology, standby: elsewhere.standby };
            let found = routed::key(&routing, sources, &path, &elsewhere.partitions).await?;
            found.ok_or(nothing)
        }
    }
}

/// Looks a key up in the partition that was named, or in all that are here, the one of Kafka's default partitioner
/// first.
fn local_key(wired: &Wired, store: &str, key: &str, query: &KeyQuery) -> Result<Local, Problem> {
    let formats = Formats::of(wired, store, query.key_format.as_deref(), query.value_format.as_deref())?;
    check_partition(wired, store, query.partition)?;
    let max_lag = max_lag(query.standby, query.max_lag)?;
    let bytes = formats.key.read(key).map_err(|error| Problem::bad_request(format!("key: {error}")))?;
    let mut elsewhere = None;
    let mut partitions = Vec::new();
    for partition in in_order(wired, store, &bytes, query.partition) {
        match wired.queries.get(store, partition, &bytes, max_lag) {
            Ok(KeyAnswer { value: Some(value), position: at }) => {
                let body = KeyBody {
                    store,
                    key: formats.show("key", formats.key, &bytes)?,
                    value: formats.show("value", formats.value, &value)?,
                    position: position(&at),
                };
                return serialized(&body).map(Local::Found);
            }
            Ok(_) => {}
            Err(
                error @ (QueryError::NotAssigned { .. }
                | QueryError::Opened { .. }
                | QueryError::Restoring { .. }
                | QueryError::Store(StoreError::Closed { .. })),
            ) => {
                partitions.push(partition);
                elsewhere = elsewhere.or(Some(problem_of(error)));
            }
            Err(error) => return Err(problem_of(error)),
        }
    }
    let Some(problem) = elsewhere else { return Ok(Local::Absent) };
    let (key_format, value_format) = (formats.key.name(), formats.value.name());
    let query = format!("key_format={key_format}&value_format={value_format}{}", standby_query(max_lag));
    let sub_topology = spec(wired, store).map_or(0, |(index, _)| index as u32);
    Ok(Local::Elsewhere(Elsewhere { sub_topology, partitions, query, standby: max_lag.is_some(), problem }))
}

/// How much a copy that answers may lack; `None` where only active tasks that run may answer.
pub(super) fn max_lag(standby: bool, max_lag: Option<u64>) -> Result<Option<u64>, Problem> {
    match (standby, max_lag) {
        (true, asked) => Ok(Some(asked.unwrap_or(u64::MAX))),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(Problem::bad_request("max_lag needs standby=true")),
    }
}

/// The same as part of a query.
pub(super) fn standby_query(max_lag: Option<u64>) -> String {
    max_lag.map_or_else(String::new, |max_lag| format!("&standby=true&max_lag={max_lag}"))
}

/// The partitions in which a key may be, the likeliest first.
fn in_order(wired: &Wired, store: &str, key: &[u8], partition: Option<i32>) -> Vec<i32> {
    if let Some(partition) = partition {
        return vec![partition];
    }
    let count = partitions_of(wired, store);
    let home = home_of(wired, store, key);
    std::iter::once(home).chain((0..count).filter(|partition| *partition != home)).collect()
}

/// The partition that Kafka's default partitioner gives a key.
pub(super) fn home_of(wired: &Wired, store: &str, key: &[u8]) -> i32 {
    engine::partitioner::partition_for_key(key, partitions_of(wired, store).max(1))
}

#[derive(Serialize)]
struct KeyBody<'a> {
    store: &'a str,
    key: Box<RawValue>,
    value: Box<RawValue>,
    position: Value,
}

fn no_key(store: &str, key: &str) -> Problem {
    let detail = format!("store {store} has no entry with the key {key}");
    Problem::not_found("key-not-found", "no such key", detail)
}

pub(super) fn problem_of(error: QueryError) -> Problem {
    let detail = error.to_string();
    match error {
        QueryError::UnknownStore { .. } => Problem::not_found("store-not-found", "no such store", detail),
        QueryError::NotAssigned { .. } => {
            Problem::unavailable("not-here", "another host may hold this partition", detail)
        }
        QueryError::Opened { .. } | QueryError::Restoring { .. } => {
            Problem::unavailable("restoring", "the store is being restored", detail)
        }
        QueryError::Store(StoreError::Closed { .. }) => {
            Problem::unavailable("not-here", "another host may hold this partition", detail)
        }
        QueryError::Store(_) => Problem::internal(detail),
    }
}

pub(super) fn wired(status: &Status) -> Result<Wired, Problem> {
    status.wired().ok_or_else(|| {
        let detail = format!("{} is starting; its stores are not open yet", status.application_id);
        Problem::unavailable("starting", "the application is starting", detail)
    })
}

pub(super) fn spec<'a>(wired: &'a Wired, store: &str) -> Option<(usize, &'a StoreSpec)> {
    let parts = wired.topology.sub_topologies.iter().enumerate();
    parts
        .flat_map(|(index, part)| part.stores.iter().map(move |spec| (index, spec)))
        .find(|(_, spec)| &*spec.name == store)
}

/// How many partitions a store has, on all hosts together.
pub(super) fn partitions_of(wired: &Wired, store: &str) -> i32 {
    spec(wired, store).map_or(0, |(index, _)| wired.topology.task_count(index as u32, &wired.partition_counts))
}

/// A partition that no host has is a mistake of the request, and no reason to ask elsewhere or again.
pub(super) fn check_partition(wired: &Wired, store: &str, partition: Option<i32>) -> Result<(), Problem> {
    let count = partitions_of(wired, store);
    match partition {
        Some(partition) if !(0..count).contains(&partition) => Err(Problem::bad_request(format!(
            "partition: store {store} has {count} partitions from 0, found {partition}"
        ))),
        _ => Ok(()),
    }
}

/// How keys and values are read and shown.
pub(super) struct Formats {
    pub key: DataFormat,
    pub value: DataFormat,
}

impl Formats {
    pub fn of(wired: &Wired, store: &str, key: Option<&str>, value: Option<&str>) -> Result<Self, Problem> {
        let Some((_, spec)) = spec(wired, store) else {
            let declared: Vec<&str> = wired.queries.declared_stores().map(|name| &**name).collect();
            let detail = format!("store {store} is not declared; declared are: {}", declared.join(", "));
            return Err(Problem::not_found("store-not-found", "no such store", detail));
        };
        let asked = |what: &str, name: Option<&str>, declared: &str| match name {
            Some(name) => DataFormat::from_name(name).ok_or_else(|| {
                Problem::bad_request(format!("{what}: expected one of {}, found {name:?}", formats::NAMES))
            }),
            None => Ok(DataFormat::from_name(declared).unwrap_or(DataFormat::Base64)),
        };
        let key = asked("key_format", key, &spec.key_format)?;
        Ok(Self { key, value: asked("value_format", value, &spec.value_format)? })
    }

    pub fn show(&self, what: &str, format: DataFormat, bytes: &[u8]) -> Result<Box<RawValue>, Problem> {
        format.show(bytes).map_err(|error| {
            let detail = format!("a {what} is not {}: {error}; ask for {what}_format=base64", format.name());
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "format", "the stored bytes have another format", detail)
        })
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Active => "active",
        Role::Standby => "standby",
    }
}

pub(super) fn position(position: &PartitionPosition) -> Value {
    json!({
        "partition": position.partition,
        "role": role(position.role),
        "changelog_offset": position.changelog_offset,
        "lag": position.lag,
    })
}

pub(super) fn serialized(body: &impl Serialize) -> Result<Response, Problem> {
    serde_json::to_string(body).map(json_text).map_err(|error| Problem::internal(error.to_string()))
}

/// Reads of a store may wait for the disk, so they leave the threads that serve connections.
pub(super) async fn blocking<T: Send + 'static>(
    query: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(query).await {
        Ok(answer) => answer,
        Err(error) => Err(Problem::internal(format!("the query ended early: {error}"))),
    }
}
