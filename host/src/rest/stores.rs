//! Queries of a store: one key, or a page of a range or a prefix. An empty answer is given only where the host can
//! know that there is nothing: a store that is restoring or on another host is a problem, never an empty 200.

use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::query::{Availability, KeyAnswer, PartitionPosition, QueryError, QueryPage, ResumeKey, Role, ScanQuery};
use engine::state::{KeyRange, prefix_end};
use engine::topology::StoreSpec;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Problem, check_application, json_response, json_text};
use crate::formats::{self, DataFormat};
use crate::runtime::status::{Status, Wired};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

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
}

/// What a scan may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntriesQuery {
    key_format: Option<String>,
    value_format: Option<String>,
    partition: Option<i32>,
    from: Option<String>,
    to: Option<String>,
    prefix: Option<String>,
    #[serde(default)]
    reverse: bool,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// `GET /v1/apps/{app}/stores`
pub async fn list(
    State(status): State<Arc<Status>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(application) = path.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
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

/// `GET /v1/apps/{app}/stores/{store}/keys/{key}`
pub async fn get_key(
    State(status): State<Arc<Status>>,
    path: Result<Path<KeyPath>, PathRejection>,
    query: Result<Query<KeyQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path(KeyPath { app, store, key }) = path.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    check_application(&status, &app)?;
    blocking(move || {
        let wired = wired(&status)?;
        let formats = Formats::of(&wired, &store, query.key_format.as_deref(), query.value_format.as_deref())?;
        check_partition(&wired, &store, query.partition)?;
        let bytes = formats.key.read(&key).map_err(|error| Problem::bad_request(format!("key: {error}")))?;
        let answer = find_key(&wired, &store, &key, &bytes, query.partition)?;
        let Some(value) = answer.value else { return Err(no_key(&store, &key)) };
        let body = KeyBody {
            store: &store,
            key: formats.show("key", formats.key, &bytes)?,
            value: formats.show("value", formats.value, &value)?,
            position: position(&answer.position),
        };
        serialized(&body)
    })
    .await
}

/// `GET /v1/apps/{app}/stores/{store}/entries`
pub async fn entries(
    State(status): State<Arc<Status>>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<EntriesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path((application, store)) = path.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    check_application(&status, &application)?;
    blocking(move || {
        let wired = wired(&status)?;
        let formats = Formats::of(&wired, &store, query.key_format.as_deref(), query.value_format.as_deref())?;
        check_partition(&wired, &store, query.partition)?;
        let bounds = Bounds::of(&query, formats.key)?;
        let resume = query.cursor.as_deref().map(read_cursor).transpose()?;
        let scan = ScanQuery {
            store: &store,
            partition: query.partition,
            range: bounds.range(),
            reverse: query.reverse,
            limit: limit(query.limit)?,
            resume: resume.as_ref(),
            allow_standby: false,
        };
        let page = wired.queries.scan(scan).map_err(problem_of)?;
        if !page.restoring.is_empty() {
            let detail =
                format!("partitions {:?} of store {store} are being restored; ask for one partition", page.restoring);
            return Err(Problem::unavailable("restoring", "the store is being restored", detail));
        }
        page_response(&wired, &store, &formats, &page, query.partition)
    })
    .await
}

#[derive(Serialize)]
struct KeyBody<'a> {
    store: &'a str,
    key: Box<RawValue>,
    value: Box<RawValue>,
    position: Value,
}

#[derive(Serialize)]
struct EntryBody {
    key: Box<RawValue>,
    value: Box<RawValue>,
    partition: i32,
}

#[derive(Serialize)]
struct PageBody<'a> {
    store: &'a str,
    entries: Vec<EntryBody>,
    next_cursor: Option<String>,
    positions: Vec<Value>,
    /// Partitions that other hosts hold: this page says nothing about them.
    not_here: Vec<i32>,
}

fn page_response(
    wired: &Wired,
    store: &str,
    formats: &Formats,
    page: &QueryPage,
    partition: Option<i32>,
) -> Result<Response, Problem> {
    let entry = |entry: &engine::query::QueryEntry| {
        let key = formats.show("key", formats.key, &entry.key)?;
        let value = formats.show("value", formats.value, &entry.value)?;
        Ok(EntryBody { key, value, partition: entry.partition })
    };
    let read = |number: &i32| page.positions.iter().any(|position| position.partition == *number);
    let not_here = match partition {
        Some(_) => Vec::new(),
        None => (0..partitions_of(wired, store)).filter(|number| !read(number)).collect(),
    };
    serialized(&PageBody {
        store,
        entries: page.entries.iter().map(entry).collect::<Result<_, Problem>>()?,
        next_cursor: page.resume.as_ref().map(write_cursor),
        positions: page.positions.iter().map(position).collect(),
        not_here,
    })
}

/// Looks a key up in the partition that was named, or in all that are here, the one of Kafka's default partitioner
/// first. Nothing found is an answer only when every partition was asked.
fn find_key(wired: &Wired, store: &str, key: &str, bytes: &[u8], partition: Option<i32>) -> Result<KeyAnswer, Problem> {
    if let Some(partition) = partition {
        return wired.queries.get(store, partition, bytes, false).map_err(problem_of);
    }
    let count = partitions_of(wired, store);
    let home = engine::partitioner::partition_for_key(bytes, count.max(1));
    let mut nothing = None;
    let mut unknown = None;
    for partition in std::iter::once(home).chain((0..count).filter(|partition| *partition != home)) {
        match wired.queries.get(store, partition, bytes, false) {
            Ok(answer) if answer.value.is_some() => return Ok(answer),
            Ok(answer) => nothing = Some(answer),
            Err(error @ (QueryError::NotAssigned { .. } | QueryError::Restoring { .. })) => {
                unknown = unknown.or(Some(error));
            }
            Err(error) => return Err(problem_of(error)),
        }
    }
    match (unknown, nothing) {
        (Some(error), _) => Err(problem_of(error)),
        (None, Some(answer)) => Ok(answer),
        (None, None) => Err(no_key(store, key)),
    }
}

fn no_key(store: &str, key: &str) -> Problem {
    let detail = format!("store {store} has no entry with the key {key}");
    Problem::not_found("key-not-found", "no such key", detail)
}

fn problem_of(error: QueryError) -> Problem {
    let detail = error.to_string();
    match error {
        QueryError::UnknownStore { .. } => Problem::not_found("store-not-found", "no such store", detail),
        QueryError::NotAssigned { .. } => {
            Problem::unavailable("not-here", "another host may hold this partition", detail)
        }
        QueryError::Restoring { .. } => Problem::unavailable("restoring", "the store is being restored", detail),
        QueryError::Store(_) => Problem::internal(detail),
    }
}

fn wired(status: &Status) -> Result<Wired, Problem> {
    status.wired().ok_or_else(|| {
        let detail = format!("{} is starting; its stores are not open yet", status.application_id);
        Problem::unavailable("starting", "the application is starting", detail)
    })
}

fn spec<'a>(wired: &'a Wired, store: &str) -> Option<(usize, &'a StoreSpec)> {
    let parts = wired.topology.sub_topologies.iter().enumerate();
    parts
        .flat_map(|(index, part)| part.stores.iter().map(move |spec| (index, spec)))
        .find(|(_, spec)| &*spec.name == store)
}

/// How many partitions a store has, on all hosts together.
fn partitions_of(wired: &Wired, store: &str) -> i32 {
    spec(wired, store).map_or(0, |(index, _)| wired.topology.task_count(index as u32, &wired.partition_counts))
}

/// A partition that no host has is a mistake of the request, and no reason to ask elsewhere or again.
fn check_partition(wired: &Wired, store: &str, partition: Option<i32>) -> Result<(), Problem> {
    let count = partitions_of(wired, store);
    match partition {
        Some(partition) if !(0..count).contains(&partition) => Err(Problem::bad_request(format!(
            "partition: store {store} has {count} partitions from 0, found {partition}"
        ))),
        _ => Ok(()),
    }
}

/// How keys and values are read and shown.
struct Formats {
    key: DataFormat,
    value: DataFormat,
}

impl Formats {
    fn of(wired: &Wired, store: &str, key: Option<&str>, value: Option<&str>) -> Result<Self, Problem> {
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

    fn show(&self, what: &str, format: DataFormat, bytes: &[u8]) -> Result<Box<RawValue>, Problem> {
        format.show(bytes).map_err(|error| {
            let detail = format!("a {what} is not {}: {error}; ask for {what}_format=base64", format.name());
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "format", "the stored bytes have another format", detail)
        })
    }
}

/// The ends of a scan, as bytes.
struct Bounds {
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
}

impl Bounds {
    fn of(query: &EntriesQuery, format: DataFormat) -> Result<Self, Problem> {
        let read = |what: &str, text: &str| {
            format.read(text).map_err(|error| Problem::bad_request(format!("{what}: {error}")))
        };
        if let Some(prefix) = &query.prefix {
            if query.from.is_some() || query.to.is_some() {
                return Err(Problem::bad_request("prefix cannot be combined with from or to"));
            }
            // Part of a JSON document is no JSON document; its bytes are its text.
            let prefix = match format {
                DataFormat::Json => prefix.as_bytes().to_vec(),
                _ => read("prefix", prefix)?,
            };
            let upper = prefix_end(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
            return Ok(Self { lower: Bound::Included(prefix), upper });
        }
        let lower = query.from.as_deref().map(|text| read("from", text)).transpose()?;
        let upper = query.to.as_deref().map(|text| read("to", text)).transpose()?;
        Ok(Self {
            lower: lower.map_or(Bound::Unbounded, Bound::Included),
            upper: upper.map_or(Bound::Unbounded, Bound::Excluded),
        })
    }

    fn range(&self) -> KeyRange<'_> {
        KeyRange { lower: self.lower.as_ref().map(Vec::as_slice), upper: self.upper.as_ref().map(Vec::as_slice) }
    }
}

fn limit(asked: Option<usize>) -> Result<NonZeroUsize, Problem> {
    let asked = asked.unwrap_or(DEFAULT_LIMIT);
    NonZeroUsize::new(asked)
        .filter(|limit| limit.get() <= MAX_LIMIT)
        .ok_or_else(|| Problem::bad_request(format!("limit: expected 1 to {MAX_LIMIT}, found {asked}")))
}

/// A cursor is the partition and the key of the last entry.
fn write_cursor(resume: &ResumeKey) -> String {
    let mut bytes = resume.partition.to_be_bytes().to_vec();
    bytes.extend_from_slice(&resume.key);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_cursor(text: &str) -> Result<ResumeKey, Problem> {
    let refuse = || Problem::bad_request("cursor: expected the next_cursor of an earlier page");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refuse())?;
    let (partition, key) = bytes.split_first_chunk::<4>().ok_or_else(refuse)?;
    Ok(ResumeKey { key: key.to_vec().into(), partition: i32::from_be_bytes(*partition) })
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Active => "active",
        Role::Standby => "standby",
    }
}

fn position(position: &PartitionPosition) -> Value {
    json!({
        "partition": position.partition,
        "role": role(position.role),
        "changelog_offset": position.changelog_offset,
    })
}

fn serialized(body: &impl Serialize) -> Result<Response, Problem> {
    serde_json::to_string(body).map(json_text).map_err(|error| Problem::internal(error.to_string()))
}

/// Reads of a store may wait for the disk, so they leave the threads that serve connections.
async fn blocking(query: impl FnOnce() -> Result<Response, Problem> + Send + 'static) -> Result<Response, Problem> {
    match tokio::task::spawn_blocking(query).await {
        Ok(answer) => answer,
        Err(error) => Err(Problem::internal(format!("the query ended early: {error}"))),
    }
}
