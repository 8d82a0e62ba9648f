//! The stores of the application, how many entries they have, and what every query of a store needs: formats,
//! partitions, the form of positions. Reads what is committed and nothing else.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use engine::query::{ANY_FOLLOWING, Availability, PartitionPosition, QueryError, Role, SourcePosition};
use engine::record::Offset;
use engine::routing::Route;
use engine::state::StoreError;
use engine::topology::StoreSpec;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::freshness::Freshness;
use super::routed::{Question, Sources};
use super::{Problem, application_of, json_response, json_text, peers, routed};
use crate::formats::{self, DataFormat};
use crate::runtime::status::{Applications, Routing, Status, Wired};

/// `GET /v1/apps/{app}/stores`
pub async fn list(
    State(applications): State<Arc<Applications>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(application) = path?;
    let status = application_of(&applications, &application)?;
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

/// Which partitions are to be counted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountQuery {
    partition: Option<i32>,
    /// Several, with commas between: what hosts ask each other for.
    partitions: Option<String>,
}

/// How many entries the partitions have, as their stores guess.
#[derive(Debug, Deserialize, Serialize)]
struct CountBody {
    store: String,
    approximate_entries: u64,
    positions: Vec<PartitionCount>,
}

#[derive(Debug, Deserialize, Serialize)]
struct PartitionCount {
    partition: i32,
    approximate_entries: u64,
}

/// `GET /v1/apps/{app}/stores/{store}/count`
pub async fn count(
    State(applications): State<Arc<Applications>>,
    headers: HeaderMap,
    uri: Uri,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<CountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path((application, store)) = path?;
    let Query(query) = query?;
    let status = application_of(&applications, &application)?;
    let wired = wired(&status)?.by(&headers);
    Formats::of(&wired, &store, None, None)?;
    let partitions = asked_partitions(&wired, &store, query.partition, query.partitions.as_deref())?;
    let registrations = wired.queries.registrations();
    let here: Vec<PartitionCount> = { registrations.iter() }
        .filter(|one| *one.store == *store && one.role == Role::Active && one.availability == Availability::Running)
        .filter(|one| partitions.contains(&one.task.partition))
        .map(|one| PartitionCount {
            partition: one.task.partition,
            approximate_entries: one.view.approximate_entries(),
        })
        .collect();
    let is_here = |partition: &i32| here.iter().any(|count| count.partition == *partition);
    let missing: Vec<i32> = partitions.iter().copied().filter(|partition| !is_here(partition)).collect();
    let mut counts = here;
    if let Some(&first) = missing.first() {
        let routing = wired.routing();
        let not_here = QueryError::NotAssigned { store: store.clone(), partition: Some(first) };
        let routing = routing.ok_or_else(|| problem_of(not_here))?;
        let freshness = Freshness::of(&application, None, None)?;
        let sources = Sources::of(&wired, &store, false, freshness);
        let ask = |route: Route, partitions: Vec<i32>| {
            let question = Question::large(&format!("{}?", uri.path()), None, &sources, &partitions);
            let routing = routing.clone();
            async move { routed::document::<CountBody>(&routing, &route, &partitions, question).await }
        };
        let answers = routed::scatter(routing, &sources, &missing, ask).await?;
        counts.extend(answers.into_iter().flat_map(|answer| answer.positions));
    }
    counts.sort_by_key(|count| count.partition);
    let approximate_entries = counts.iter().map(|count| count.approximate_entries).sum();
    serialized(&CountBody { store, approximate_entries, positions: counts })
}

/// How much a copy that answers may lack; `None` where only active tasks that run may answer.
pub(super) fn max_lag(standby: bool, max_lag: Option<u64>) -> Result<Option<u64>, Problem> {
    match (standby, max_lag) {
        (true, asked) => Ok(Some(asked.unwrap_or(ANY_FOLLOWING))),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(Problem::bad_request("max_lag needs standby=true")),
    }
}

/// The same as part of a query.
pub(super) fn standby_query(max_lag: Option<u64>) -> String {
    max_lag.map_or_else(String::new, |max_lag| format!("&standby=true&max_lag={max_lag}"))
}

/// The partition that Kafka's default partitioner gives a key.
pub(super) fn home_of(wired: &Wired, store: &str, key: &[u8]) -> i32 {
    engine::partitioner::partition_for_key(key, partitions_of(wired, store).max(1))
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

/// What an application has, for one request.
#[derive(Clone)]
pub(super) struct Asked {
    wired: Arc<Wired>,
    is_forwarded: bool,
}

impl Asked {
    /// A request that came from another host is answered from what is here.
    pub fn by(self, headers: &HeaderMap) -> Self {
        Self { is_forwarded: peers::is_forwarded(headers), ..self }
    }

    /// How other hosts are asked, where they may be.
    pub fn routing(&self) -> Option<&Routing> {
        self.wired.routing.as_ref().filter(|_| !self.is_forwarded)
    }
}

impl Deref for Asked {
    type Target = Wired;

    fn deref(&self) -> &Wired {
        &self.wired
    }
}

pub(super) fn wired(status: &Status) -> Result<Asked, Problem> {
    if let (true, Some(reason)) = (status.is_released(), status.failure()) {
        let detail = format!("{} has failed, and nothing of it runs here: {reason}", status.application_id);
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "failed", "the application has failed", detail));
    }
    let wired = status.wired().map(|wired| Asked { wired, is_forwarded: false });
    wired.ok_or_else(|| {
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

/// How far a partition is, as it is shown.
#[derive(Serialize)]
pub(super) struct Position<'a> {
    partition: i32,
    role: &'static str,
    changelog_offset: Option<Offset>,
    lag: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_offsets: Option<SourceOffsets<'a>>,
}

/// Offsets by topic.
struct SourceOffsets<'a>(&'a [SourcePosition]);

impl Serialize for SourceOffsets<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(source, offset)| (&*source.topic, offset)))
    }
}

pub(super) fn position(position: &PartitionPosition) -> Position<'_> {
    Position {
        partition: position.partition,
        role: role(position.role),
        changelog_offset: position.changelog_offset,
        lag: position.lag,
        source_offsets: position.sources.as_deref().map(SourceOffsets),
    }
}

/// Whether another host may have what this one has not.
pub(super) fn may_be_elsewhere(error: &QueryError) -> bool {
    matches!(
        error,
        QueryError::NotAssigned { .. }
            | QueryError::Opened { .. }
            | QueryError::Restoring { .. }
            | QueryError::Store(StoreError::Closed { .. })
    )
}

/// The part of the topology that a store is in, and its source topics.
pub(super) fn sub_topology<'a>(wired: &'a Wired, store: &str) -> (u32, Vec<&'a str>) {
    let index = spec(wired, store).map_or(0, |(index, _)| index);
    let part = wired.topology.sub_topologies.get(index);
    let topics = part.into_iter().flat_map(|part| &part.sources).map(|source| &*source.topic).collect();
    (index as u32, topics)
}

/// The partitions that a query is about, in order: those it lists, the one it names, or all.
pub(super) fn asked_partitions(
    wired: &Wired,
    store: &str,
    partition: Option<i32>,
    partitions: Option<&str>,
) -> Result<Vec<i32>, Problem> {
    let mut asked: Vec<i32> = match (partitions, partition) {
        (Some(_), Some(_)) => return Err(Problem::bad_request("partition cannot be combined with partitions")),
        (None, Some(partition)) => vec![partition],
        (None, None) => (0..partitions_of(wired, store)).collect(),
        (Some(list), None) => {
            let numbers = list.split(',').map(str::parse).collect::<Result<_, _>>();
            numbers
                .map_err(|_| Problem::bad_request(format!("partitions: expected numbers with commas, found {list}")))?
        }
    };
    asked.sort_unstable();
    asked.dedup();
    asked.iter().try_for_each(|&partition| check_partition(wired, store, Some(partition)))?;
    Ok(asked)
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
