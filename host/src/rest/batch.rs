//! Queries for many keys at once. Each key is looked up where it should be first, and those that are not there in all
//! other partitions, so that "not found" is said on the same terms as for one key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use engine::query::{KeysAnswer, PartitionPosition};
use engine::routing::Route;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::freshness::{Freshness, is_running, not_reached};
use super::json::JsonObject;
use super::routed::{PositionAnswer, Question, Refused, Sources};
use super::stores::{
    Asked, Formats, Position, asked_partitions, blocking, home_of, max_lag, may_be_elsewhere, position, problem_of,
    serialized, standby_query, sub_topology, wired,
};
use super::token::Token;
use super::{Problem, application_of, routed};
use crate::formats::{self, DataFormat};
use crate::runtime::status::{Applications, Wired};

/// Keys of one request.
const KEYS_MAX: usize = 1_000;
/// Of them, as many as are looked up between two looks at the size.
const KEYS_AT_ONCE: usize = 20;
/// Bytes of all values of an answer.
const VALUES_BYTES_MAX: usize = 32 << 20;

/// The kind of `too_large`.
pub const TOO_LARGE: &str = "too-large";

/// The values would have more bytes than an answer may have.
pub fn too_large(detail: String) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the answer would be too large", detail)
}

/// What such a query may say beside its keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchQuery {
    key_format: Option<String>,
    value_format: Option<String>,
    /// The only partitions to look at, with commas between: what hosts ask each other for.
    partitions: Option<String>,
    #[serde(default)]
    standby: bool,
    max_lag: Option<u64>,
    min_position: Option<String>,
    timeout_ms: Option<u64>,
}

/// The keys, as JSON in the key format.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    keys: Vec<Box<RawValue>>,
}

/// A batch as it was asked for, and what is known of it so far.
struct Batch {
    application: String,
    store: String,
    keys: Arc<Vec<Vec<u8>>>,
    found: Vec<Option<(Bytes, i32)>>,
    positions: BTreeMap<i32, PartitionPosition>,
    /// Of the values so far.
    bytes: usize,
    token: Token,
    max_lag: Option<u64>,
    freshness: Freshness,
    path: String,
}

/// By partition, the keys to look up there, as their places in the batch.
type Places = BTreeMap<i32, Vec<usize>>;

/// What was found in one place: values by the places of their keys, and how far the partitions were.
#[derive(Default)]
struct Found {
    values: Vec<(usize, Bytes, i32)>,
    /// What the values are at least as new as, and what they are no newer than.
    positions: Vec<PartitionPosition>,
    seen: Vec<PartitionPosition>,
    token: Option<Token>,
}

impl Found {
    fn bytes(&self) -> usize {
        self.values.iter().map(|(_, value, _)| value.len()).sum()
    }
}

fn check_size(bytes: usize) -> Result<(), Problem> {
    if bytes <= VALUES_BYTES_MAX {
        return Ok(());
    }
    let detail = format!("the values have more than {VALUES_BYTES_MAX} bytes; ask for fewer keys at once");
    Err(too_large(detail))
}

/// `POST /v1/apps/{app}/stores/{store}/batch-get`
pub async fn get(
    State(applications): State<Arc<Applications>>,
    headers: HeaderMap,
    uri: Uri,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<BatchQuery>, QueryRejection>,
    body: Result<JsonObject<BatchBody>, Problem>,
) -> Result<Response, Problem> {
    let Path((application, store)) = path?;
    let Query(query) = query?;
    let status = application_of(&applications, &application)?;
    let wired = wired(&status)?.by(&headers);
    let JsonObject(BatchBody { keys }) = body?;
    let formats = Formats::of(&wired, &store, query.key_format.as_deref(), query.value_format.as_deref())?;
    let partitions = asked_partitions(&wired, &store, None, query.partitions.as_deref())?;
    let keys = read_keys(&keys, formats.key)?;
    let freshness = Freshness::of(&application, query.min_position.as_deref(), query.timeout_ms)?;
    let mut batch = Batch {
        found: vec![None; keys.len()],
        keys: Arc::new(keys),
        positions: BTreeMap::new(),
        bytes: 0,
        token: freshness.token(&application),
        max_lag: max_lag(query.standby, query.max_lag)?,
        freshness,
        path: format!("{}?{}", uri.path(), routed::PAGE_FORMATS),
        application,
        store,
    };
    let is_part = query.partitions.is_some();
    let first = if is_part { batch.everywhere(&partitions) } else { batch.at_home(&wired) };
    batch.look_up(&wired, first).await?;
    if !is_part {
        let others = batch.elsewhere(&partitions, &wired);
        batch.look_up(&wired, others).await?;
    }
    batch.response(&formats, is_part.then_some(&partitions))
}

fn read_keys(keys: &[Box<RawValue>], format: DataFormat) -> Result<Vec<Vec<u8>>, Problem> {
    if keys.is_empty() || keys.len() > KEYS_MAX {
        let detail = format!("keys: expected 1 to {KEYS_MAX}, found {}", keys.len());
        return Err(Problem::bad_request(detail));
    }
    let read = |(number, key): (usize, &RawValue)| {
        format.read_json(key).map_err(|error| Problem::bad_request(format!("keys[{number}]: {error}")))
    };
    keys.iter().map(|key| &**key).enumerate().map(read).collect()
}

impl Batch {
    fn everywhere(&self, partitions: &[i32]) -> Places {
        partitions.iter().map(|&partition| (partition, (0..self.keys.len()).collect())).collect()
    }

    /// Each key where Kafka's default partitioner puts it.
    fn at_home(&self, wired: &Wired) -> Places {
        let mut places = Places::new();
        for (place, key) in self.keys.iter().enumerate() {
            places.entry(home_of(wired, &self.store, key)).or_default().push(place);
        }
        places
    }

    /// The keys that are not at home, in all other partitions.
    fn elsewhere(&self, partitions: &[i32], wired: &Wired) -> Places {
        let mut places = Places::new();
        for place in (0..self.keys.len()).filter(|&place| self.found[place].is_none()) {
            let home = home_of(wired, &self.store, &self.keys[place]);
            for &partition in partitions.iter().filter(|&&partition| partition != home) {
                places.entry(partition).or_default().push(place);
            }
        }
        places
    }

    async fn look_up(&mut self, wired: &Asked, mut here: Places) -> Result<(), Problem> {
        let (_, topics) = sub_topology(wired, &self.store);
        let mut elsewhere = Places::new();
        loop {
            let is_reached = |at: &PartitionPosition| self.freshness.is_reached(&self.store, &topics, at);
            let partitions: Vec<i32> = here.keys().copied().collect();
            let positions = wired.queries.positions(&self.store, &partitions, self.max_lag).map_err(problem_of)?;
            let mut behind: Vec<PartitionPosition> = positions.into_iter().filter(|at| !is_reached(at)).collect();
            if behind.is_empty() {
                let (found, missing) = self.read_here(wired, here.clone()).await?;
                behind = found.positions.iter().filter(|at| !is_reached(at)).cloned().collect();
                if behind.is_empty() {
                    self.add(found)?;
                    elsewhere.extend(missing);
                    return self.ask(wired, elsewhere).await;
                }
            }
            let before = here.len();
            // Older copies of what is running elsewhere are asked for there.
            if wired.routing().is_some() {
                for copy in behind.iter().filter(|at| !is_running(at)) {
                    elsewhere.extend(here.remove_entry(&copy.partition));
                }
            }
            if here.len() == before && !self.freshness.wait().await {
                return behind.first().map_or(Ok(()), |first| Err(not_reached(&self.store, first)));
            }
        }
    }

    /// Looks up what is here; what is not comes back.
    async fn read_here(&self, wired: &Asked, places: Places) -> Result<(Found, Places), Problem> {
        let (wired, store, keys, max_lag) = (wired.clone(), self.store.clone(), Arc::clone(&self.keys), self.max_lag);
        blocking(move || {
            let mut found = Found::default();
            let mut missing = Places::new();
            for (partition, places) in places {
                for some in places.chunks(KEYS_AT_ONCE) {
                    let of_partition: Vec<&[u8]> = some.iter().map(|&place| keys[place].as_slice()).collect();
                    match wired.queries.get_many(&store, partition, &of_partition, max_lag) {
                        Ok(KeysAnswer { values, position, seen }) => {
                            let values = some.iter().zip(values);
                            found.values.extend(values.filter_map(|(&at, value)| Some((at, value?, partition))));
                            found.positions.push(position);
                            found.seen.push(seen);
                        }
                        Err(error) if may_be_elsewhere(&error) && wired.routing().is_some() => {
                            // With the keys before it, if the partition has gone in between.
                            missing.insert(partition, places);
                            break;
                        }
                        Err(error) => return Err(problem_of(error)),
                    }
                    check_size(found.bytes())?;
                }
            }
            Ok((found, missing))
        })
        .await
    }

    fn add(&mut self, found: Found) -> Result<(), Problem> {
        self.bytes += found.bytes();
        check_size(self.bytes)?;
        for (place, value, partition) in found.values {
            self.found[place].get_or_insert((value, partition));
        }
        found.seen.iter().for_each(|seen| self.token.add(&self.store, seen));
        for position in found.positions {
            self.positions.entry(position.partition).or_insert(position);
        }
        if let Some(token) = found.token {
            self.token.merge(&token);
        }
        Ok(())
    }

    /// Asks other hosts for what is not here.
    async fn ask(&mut self, wired: &Asked, places: Places) -> Result<(), Problem> {
        let (Some(routing), false) = (wired.routing(), places.is_empty()) else { return Ok(()) };
        let sources = Sources::of(wired, &self.store, self.max_lag.is_some(), self.freshness.clone());
        let partitions: Vec<i32> = places.keys().copied().collect();
        let ask = |route: Route, partitions: Vec<i32>| {
            let wanted: BTreeSet<usize> =
                partitions.iter().filter_map(|at| places.get(at)).flatten().copied().collect();
            let wanted: Vec<usize> = wanted.into_iter().collect();
            let keys: Vec<String> = wanted.iter().map(|&place| formats::hex(&self.keys[place])).collect();
            let path = format!("{}{}", self.path, standby_query(self.max_lag));
            let question = Question::large(&path, Some(json!({ "keys": keys }).to_string()), &sources, &partitions);
            let (routing, application) = (routing.clone(), self.application.clone());
            async move {
                let answer: BatchAnswer = routed::document(&routing, &route, &partitions, question).await?;
                answer.read(&wanted, &application).map_err(Refused::Unavailable)
            }
        };
        for found in routed::scatter(routing, &sources, &partitions, ask).await? {
            self.add(found)?;
        }
        Ok(())
    }

    /// In the order of the keys. A part of a batch says for which partitions it speaks.
    fn response(&self, formats: &Formats, part: Option<&Vec<i32>>) -> Result<Response, Problem> {
        let entry = |(key, found): (&Vec<u8>, &Option<(Bytes, i32)>)| {
            let value = found.as_ref().map(|(value, _)| formats.show("value", formats.value, value)).transpose()?;
            Ok(EntryBody {
                key: formats.show("key", formats.key, key)?,
                found: found.is_some(),
                value,
                partition: found.as_ref().map(|(_, partition)| *partition),
            })
        };
        let is_asked = |partition: i32| part.is_none_or(|part| part.contains(&partition));
        serialized(&ResponseBody {
            store: &self.store,
            entries: self.keys.iter().zip(&self.found).map(entry).collect::<Result<_, Problem>>()?,
            positions: self.positions.values().filter(|at| is_asked(at.partition)).map(position).collect(),
            consistency_token: self.token.write(),
        })
    }
}

#[derive(Serialize)]
struct EntryBody {
    key: Box<RawValue>,
    found: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
}

#[derive(Serialize)]
struct ResponseBody<'a> {
    store: &'a str,
    entries: Vec<EntryBody>,
    positions: Vec<Position<'a>>,
    consistency_token: Option<String>,
}

/// The same from another host.
#[derive(Deserialize)]
struct BatchAnswer {
    entries: Vec<EntryAnswer>,
    positions: Vec<PositionAnswer>,
    consistency_token: Option<String>,
}

#[derive(Deserialize)]
struct EntryAnswer {
    value: Option<String>,
    partition: Option<i32>,
}

impl BatchAnswer {
    fn read(self, places: &[usize], application: &str) -> Result<Found, String> {
        if self.entries.len() != places.len() {
            return Err(format!("it answered {} keys, asked for {}", self.entries.len(), places.len()));
        }
        let mut values = Vec::new();
        for (entry, &place) in self.entries.into_iter().zip(places) {
            if let (Some(value), Some(partition)) = (entry.value, entry.partition) {
                values.push((place, DataFormat::Base64.read(&value)?.into(), partition));
            }
        }
        let token = routed::read_token(self.consistency_token.as_deref(), application)?;
        let positions = self.positions.into_iter().map(PositionAnswer::position).collect();
        Ok(Found { values, positions, seen: Vec::new(), token: Some(token) })
    }
}
