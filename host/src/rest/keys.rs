//! Queries for one key over all partitions: those of other hosts are asked there (`routed`). "No such key" is said only
//! where every partition was asked: one that is restoring, or that nobody answers for, is a problem that may be tried
//! again.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::Response;
use engine::query::{KeyAnswer, PartitionPosition};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::freshness::{Freshness, NOT_REACHED, is_running, not_reached};
use super::routed::{KeyFound, Sources};
use super::stores::{
    Asked, Formats, Position, blocking, check_partition, home_of, max_lag, may_be_elsewhere, partitions_of, position,
    problem_of, serialized, standby_query, sub_topology, wired,
};
use super::token::Token;
use super::{Problem, application_of, routed};
use crate::formats;
use crate::runtime::status::{Applications, Wired};

/// Where a key is. The empty key is a path that ends with `keys/`.
#[derive(Debug, Deserialize)]
pub struct KeyPath {
    pub app: String,
    pub store: String,
    #[serde(default)]
    pub key: String,
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
    /// The consistency token of an earlier answer, and how long to wait for a state as new as that.
    min_position: Option<String>,
    timeout_ms: Option<u64>,
}

/// A query for a key as it was asked.
struct KeyScan {
    application: String,
    store: String,
    key: Vec<u8>,
    formats: Formats,
    /// The partitions in which the key may be, the likeliest first.
    partitions: Vec<i32>,
    max_lag: Option<u64>,
    freshness: Freshness,
}

/// Where a look-up may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    InMemory,
    Anywhere,
}

/// What this host alone says to a query of a key.
enum Local {
    Found(Response),
    /// It may be on disk, and was not to be looked for there.
    OnDisk,
    /// None of these partitions, all of them here, has it; with how far they were.
    Absent(Token),
    /// This one is not new enough yet, and nobody else's copy is newer.
    Behind(PartitionPosition),
    /// These partitions are elsewhere, the one where the key should be first; the others do not have it. The problem is
    /// for whoever cannot ask there.
    Elsewhere {
        partitions: Vec<i32>,
        problem: Problem,
        token: Token,
    },
}

/// `GET /v1/apps/{app}/stores/{store}/keys/{key}`
pub async fn get(
    State(applications): State<Arc<Applications>>,
    headers: HeaderMap,
    uri: Uri,
    path: Result<Path<KeyPath>, PathRejection>,
    query: Result<Query<KeyQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path(path) = path?;
    let Query(query) = query?;
    let status = application_of(&applications, &path.app)?;
    answer(&wired(&status)?.by(&headers), uri.path(), path, query).await
}

/// Answers a query for a key, here or by the hosts that have its partitions. `path` is that of the request, for them.
///
/// # Errors
/// Why there is no answer.
pub async fn answer(
    wired: &Asked,
    uri_path: &str,
    KeyPath { app, store, key }: KeyPath,
    query: KeyQuery,
) -> Result<Response, Problem> {
    let (redirect, partition) = (query.redirect, query.partition);
    let scan = Arc::new(KeyScan::of(wired, app, store, &key, query)?);
    let (partitions, problem, mut token) = loop {
        // What is in memory is looked up at once: a change of threads costs more than that.
        let mut local = scan.local(wired, Look::InMemory)?;
        if matches!(local, Local::OnDisk) {
            let (wired, asked) = (wired.clone(), Arc::clone(&scan));
            local = blocking(move || asked.local(&wired, Look::Anywhere)).await?;
        }
        match local {
            Local::Found(response) => return Ok(response),
            Local::Absent(token) => return Err(no_key(&scan.store, &key, &token)),
            Local::OnDisk => return Err(Problem::internal("a look-up that may read the disk did not")),
            Local::Behind(position) => {
                if !scan.freshness.wait().await {
                    return Err(not_reached(&scan.store, &position));
                }
            }
            // Nobody else is asked, and a copy that follows gets newer too.
            Local::Elsewhere { problem, .. } if wired.routing().is_none() && problem.kind == NOT_REACHED => {
                if !scan.freshness.wait().await {
                    return Err(problem);
                }
            }
            Local::Elsewhere { partitions, problem, token } => break (partitions, problem, token),
        }
    };
    let Some(routing) = wired.routing() else { return Err(problem) };
    let path = format!("{uri_path}?{}", scan.query());
    let sources = scan.sources(wired);
    if redirect {
        let partition = partition.map(|partition| format!("&partition={partition}")).unwrap_or_default();
        let topics: Vec<&str> = sources.topics.iter().map(String::as_str).collect();
        let path = format!("{path}{partition}{}", scan.freshness.query(&scan.store, &topics, &scan.partitions));
        return routed::redirect(routing, &sources, &path, &partitions).await;
    }
    match routed::key(routing, &sources, &path, &partitions).await? {
        KeyFound::Value(response) => Ok(response),
        KeyFound::Nothing(tokens) => {
            for text in tokens {
                token.merge(&Token::read(&text, &scan.application)?);
            }
            Err(no_key(&scan.store, &key, &token))
        }
    }
}

impl KeyQuery {
    /// One that waits for what a token says, in these formats of key and value.
    pub fn at(formats: [Option<String>; 2], min_position: String, timeout_ms: Option<u64>) -> Self {
        let [key_format, value_format] = formats;
        Self { key_format, value_format, min_position: Some(min_position), timeout_ms, ..Self::default() }
    }
}

impl KeyScan {
    fn of(wired: &Wired, application: String, store: String, key: &str, query: KeyQuery) -> Result<Self, Problem> {
        let formats = Formats::of(wired, &store, query.key_format.as_deref(), query.value_format.as_deref())?;
        check_partition(wired, &store, query.partition)?;
        let key = formats.key.read(key).map_err(|error| Problem::bad_request(format!("key: {error}")))?;
        Ok(Self {
            partitions: in_order(wired, &store, &key, query.partition),
            max_lag: max_lag(query.standby, query.max_lag)?,
            freshness: Freshness::of(&application, query.min_position.as_deref(), query.timeout_ms)?,
            application,
            store,
            key,
            formats,
        })
    }

    /// Looks the key up in the partitions that are here.
    fn local(&self, wired: &Wired, look: Look) -> Result<Local, Problem> {
        let (_, topics) = sub_topology(wired, &self.store);
        let (mut elsewhere, mut problem) = (Vec::new(), None);
        let mut token = self.freshness.token(&self.application);
        for &partition in &self.partitions {
            let found = match look {
                Look::InMemory => wired.queries.get_in_memory(&self.store, partition, &self.key, self.max_lag),
                Look::Anywhere => wired.queries.get(&self.store, partition, &self.key, self.max_lag).map(Some),
            };
            let KeyAnswer { value, position: at, seen } = match found {
                Ok(None) => return Ok(Local::OnDisk),
                Ok(Some(answer)) => answer,
                Err(error) if may_be_elsewhere(&error) => {
                    elsewhere.push(partition);
                    problem = problem.or(Some(problem_of(error)));
                    continue;
                }
                Err(error) => return Err(problem_of(error)),
            };
            if !self.freshness.is_reached(&self.store, &topics, &at) {
                // An older copy of what is running elsewhere.
                if !is_running(&at) {
                    elsewhere.push(partition);
                    problem = problem.or(Some(not_reached(&self.store, &at)));
                    continue;
                }
                return Ok(Local::Behind(at));
            }
            token.add(&self.store, &seen);
            if let Some(value) = value {
                return self.found(&value, &at, &token).map(Local::Found);
            }
        }
        Ok(match problem {
            None => Local::Absent(token),
            Some(problem) => Local::Elsewhere { partitions: elsewhere, problem, token },
        })
    }

    fn found(&self, value: &[u8], at: &PartitionPosition, token: &Token) -> Result<Response, Problem> {
        let version = formats::version(value);
        let mut response = serialized(&KeyBody {
            store: &self.store,
            key: self.formats.show("key", self.formats.key, &self.key)?,
            value: self.formats.show("value", self.formats.value, value)?,
            version: &version,
            position: position(at),
            consistency_token: token.write(),
        })?;
        // Digits in quotation marks are a header in any case.
        if let Ok(tag) = format!("\"{version}\"").parse() {
            response.headers_mut().insert(header::ETAG, tag);
        }
        Ok(response)
    }

    /// The same query for another host, without a partition.
    fn query(&self) -> String {
        let (key_format, value_format) = (self.formats.key.name(), self.formats.value.name());
        format!("key_format={key_format}&value_format={value_format}{}", standby_query(self.max_lag))
    }

    fn sources(&self, wired: &Wired) -> Sources {
        Sources::of(wired, &self.store, self.max_lag.is_some(), self.freshness.clone())
    }
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

#[derive(Serialize)]
struct KeyBody<'a> {
    store: &'a str,
    key: Box<RawValue>,
    value: Box<RawValue>,
    version: &'a str,
    position: Position<'a>,
    consistency_token: Option<String>,
}

fn no_key(store: &str, key: &str, token: &Token) -> Problem {
    let detail = format!("store {store} has no entry with the key {key}");
    Problem { token: token.write(), ..Problem::not_found("key-not-found", "no such key", detail) }
}
