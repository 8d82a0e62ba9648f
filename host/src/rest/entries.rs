//! Scans of a store: a page of a range or a prefix in key order, over all partitions. Those of other hosts are asked there
//! (`routed`), and the pages become one. A page with a partition missing is never given.

use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::query::{QueryError, QueryPage, ResumeKey, ScanQuery, merge_pages};
use engine::state::{KeyRange, prefix_end};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::routed::Sources;
use super::stores::{
    Formats, blocking, check_partition, max_lag, partitions_of, position, problem_of, serialized, spec, standby_query,
    wired,
};
use super::{Problem, check_application, peers, routed};
use crate::formats::{self, DataFormat};
use crate::runtime::status::{Status, Wired};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

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
    #[serde(default)]
    standby: bool,
    max_lag: Option<u64>,
    /// Several partitions, with commas between: what hosts ask each other for.
    partitions: Option<String>,
}

/// A scan as it was asked for.
struct Scan {
    store: String,
    formats: Formats,
    partitions: Vec<i32>,
    bounds: Bounds,
    reverse: bool,
    limit: NonZeroUsize,
    cursor: Option<String>,
    resume: Option<ResumeKey>,
    max_lag: Option<u64>,
}

/// `GET /v1/apps/{app}/stores/{store}/entries`
pub async fn list(
    State(status): State<Arc<Status>>,
    headers: HeaderMap,
    uri: Uri,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<EntriesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path((application, store)) = path?;
    let Query(query) = query?;
    check_application(&status, &application)?;
    let wired = wired(&status)?;
    let routing = wired.routing.clone().filter(|_| !peers::is_forwarded(&headers));
    let scan = Arc::new(Scan::of(&wired, store, query)?);
    let (local, asked) = (wired.clone(), Arc::clone(&scan));
    let mut page = blocking(move || asked.local_page(&local)).await?;
    let read = |partition: i32| page.positions.iter().any(|position| position.partition == partition);
    let missing: Vec<i32> = scan.partitions.iter().copied().filter(|&partition| !read(partition)).collect();
    if !missing.is_empty() {
        let Some(routing) = routing else { return Err(scan.not_here(missing[0])) };
        let sub_topology = spec(&wired, &scan.store).map_or(0, |(index, _)| index as u32);
        let path = format!("{}?{}", uri.path(), scan.query());
        let sources = Sources { sub_topology, standby: scan.max_lag.is_some() };
        let mut pages = routed::pages(&routing, sources, &path, &missing).await?;
        pages.push(page);
        let asked = Arc::clone(&scan);
        page = blocking(move || Ok(merge_pages(pages, asked.reverse, asked.limit))).await?;
    }
    blocking(move || scan.response(&page)).await
}

impl Scan {
    fn of(wired: &Wired, store: String, query: EntriesQuery) -> Result<Self, Problem> {
        let formats = Formats::of(wired, &store, query.key_format.as_deref(), query.value_format.as_deref())?;
        let partitions = asked_partitions(wired, &store, &query)?;
        Ok(Self {
            bounds: Bounds::of(&query, formats.key)?,
            resume: query.cursor.as_deref().map(read_cursor).transpose()?,
            limit: limit(query.limit)?,
            max_lag: max_lag(query.standby, query.max_lag)?,
            reverse: query.reverse,
            cursor: query.cursor,
            store,
            formats,
            partitions,
        })
    }

    /// The page of the partitions that are here. One that is being restored here has no other host to ask, but for
    /// standbys.
    fn local_page(&self, wired: &Wired) -> Result<QueryPage, Problem> {
        let scan = ScanQuery {
            store: &self.store,
            partitions: Some(&self.partitions),
            range: self.bounds.range(),
            reverse: self.reverse,
            limit: self.limit,
            resume: self.resume.as_ref(),
            max_lag: self.max_lag,
        };
        match wired.queries.scan(scan) {
            Ok(page) if page.restoring.is_empty() || self.max_lag.is_some() => Ok(page),
            Ok(page) => {
                let detail = format!(
                    "partitions {:?} of store {} are being restored; ask for one partition",
                    page.restoring, self.store
                );
                Err(Problem::unavailable("restoring", "the store is being restored", detail))
            }
            Err(QueryError::NotAssigned { .. }) => {
                Ok(QueryPage { entries: Vec::new(), resume: None, positions: Vec::new(), restoring: Vec::new() })
            }
            Err(error) => Err(problem_of(error)),
        }
    }

    fn not_here(&self, partition: i32) -> Problem {
        problem_of(QueryError::NotAssigned { store: self.store.clone(), partition: Some(partition) })
    }

    /// The same scan for another host, without its partitions.
    fn query(&self) -> String {
        let mut query = format!("{}&reverse={}&limit={}", routed::PAGE_FORMATS, self.reverse, self.limit);
        let mut bound = |name: &str, bound: &Bound<Vec<u8>>| {
            if let Bound::Included(key) | Bound::Excluded(key) = bound {
                query.push_str(&format!("&{name}={}", formats::hex(key)));
            }
        };
        bound("from", &self.bounds.lower);
        bound("to", &self.bounds.upper);
        query.push_str(&standby_query(self.max_lag));
        if let Some(cursor) = &self.cursor {
            query.push_str(&format!("&cursor={cursor}"));
        }
        query
    }

    fn response(&self, page: &QueryPage) -> Result<Response, Problem> {
        let entry = |entry: &engine::query::QueryEntry| {
            let key = self.formats.show("key", self.formats.key, &entry.key)?;
            let value = self.formats.show("value", self.formats.value, &entry.value)?;
            Ok(EntryBody { key, value, partition: entry.partition })
        };
        serialized(&PageBody {
            store: &self.store,
            entries: page.entries.iter().map(entry).collect::<Result<_, Problem>>()?,
            next_cursor: page.resume.as_ref().map(write_cursor),
            positions: page.positions.iter().map(position).collect(),
        })
    }
}

/// The partitions that a scan is about, in order.
fn asked_partitions(wired: &Wired, store: &str, query: &EntriesQuery) -> Result<Vec<i32>, Problem> {
    let mut partitions: Vec<i32> = match (&query.partitions, query.partition) {
        (Some(_), Some(_)) => return Err(Problem::bad_request("partition cannot be combined with partitions")),
        (None, Some(partition)) => vec![partition],
        (None, None) => (0..partitions_of(wired, store)).collect(),
        (Some(list), None) => {
            let numbers = list.split(',').map(str::parse).collect::<Result<_, _>>();
            numbers
                .map_err(|_| Problem::bad_request(format!("partitions: expected numbers with commas, found {list}")))?
        }
    };
    partitions.sort_unstable();
    partitions.dedup();
    partitions.iter().try_for_each(|&partition| check_partition(wired, store, Some(partition)))?;
    Ok(partitions)
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

pub(super) fn read_cursor(text: &str) -> Result<ResumeKey, Problem> {
    let refuse = || Problem::bad_request("cursor: expected the next_cursor of an earlier page");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refuse())?;
    let (partition, key) = bytes.split_first_chunk::<4>().ok_or_else(refuse)?;
    Ok(ResumeKey { key: key.to_vec().into(), partition: i32::from_be_bytes(*partition) })
}
