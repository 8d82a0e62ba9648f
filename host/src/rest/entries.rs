//! Scans of a store: a page of a range or a prefix in key order, over all partitions. Those of other hosts are asked
//! there (`routed`), and the pages become one. A page with a partition missing is never given.

use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::query::{Filter, PartitionPosition, QueryEntry, QueryError, QueryPage, ResumeKey, ScanQuery, merge_pages};
use engine::state::{KeyRange, prefix_end};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::filter::{Condition, SCANNED_BYTES_MAX, SCANNED_MAX};
use super::freshness::{Freshness, is_running, not_reached};
use super::routed::Sources;
use super::stores::{
    Asked, Formats, Position, asked_partitions, blocking, max_lag, position, problem_of, serialized, standby_query,
    sub_topology, wired,
};
use super::token::Token;
use super::{Problem, application_of, routed};
use crate::formats::{self, DataFormat};
use crate::runtime::status::{Applications, Wired};

mod ndjson;

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
    /// Only entries whose value has this at that place.
    r#where: Option<String>,
    /// The consistency token of an earlier answer, and how long to wait for a state as new as that.
    min_position: Option<String>,
    timeout_ms: Option<u64>,
}

/// A scan as it was asked for.
struct Scan {
    application: String,
    store: String,
    formats: Formats,
    partitions: Vec<i32>,
    bounds: Bounds,
    reverse: bool,
    /// Of the whole answer; a streamed one may have none.
    limit: Option<usize>,
    cursor: Option<ResumeKey>,
    max_lag: Option<u64>,
    condition: Option<Condition>,
    freshness: Freshness,
    /// The path without its query, for other hosts.
    path: String,
}

/// A page and how far the state was of which it is.
type PageAndToken = (QueryPage, Token);

/// `GET /v1/apps/{app}/stores/{store}/entries`
pub async fn list(
    State(applications): State<Arc<Applications>>,
    headers: HeaderMap,
    uri: Uri,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<EntriesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path((application, store)) = path?;
    let Query(query) = query?;
    let status = application_of(&applications, &application)?;
    let wired = wired(&status)?.by(&headers);
    let is_streamed = ndjson::is_asked_for(&headers)?;
    let mut scan = Scan::of(&wired, application, store, query, uri.path())?;
    if is_streamed {
        if scan.limit == Some(0) {
            return Err(Problem::bad_request("limit: expected 1 or more, found 0"));
        }
        let page = scan.page(&wired, scan.streamed_limit(0)).await?;
        return ndjson::stream(wired, scan, page);
    }
    let limit = scan.checked_limit()?;
    let (page, token) = scan.page(&wired, limit).await?;
    scan.limit = Some(limit.get());
    blocking(move || scan.response(&page, &token)).await
}

impl Scan {
    fn of(wired: &Wired, application: String, store: String, query: EntriesQuery, path: &str) -> Result<Self, Problem> {
        let formats = Formats::of(wired, &store, query.key_format.as_deref(), query.value_format.as_deref())?;
        let declared = Formats::of(wired, &store, None, None)?.value;
        let bounds = Bounds::of(&query, formats.key)?;
        Ok(Self {
            partitions: asked_partitions(wired, &store, query.partition, query.partitions.as_deref())?,
            bounds,
            cursor: query.cursor.as_deref().map(read_cursor).transpose()?,
            limit: query.limit,
            max_lag: max_lag(query.standby, query.max_lag)?,
            reverse: query.reverse,
            condition: query.r#where.as_deref().map(|text| Condition::read(text, declared)).transpose()?,
            freshness: Freshness::of(&application, query.min_position.as_deref(), query.timeout_ms)?,
            path: path.to_owned(),
            application,
            store,
            formats,
        })
    }

    fn checked_limit(&self) -> Result<NonZeroUsize, Problem> {
        let asked = self.limit.unwrap_or(DEFAULT_LIMIT);
        NonZeroUsize::new(asked)
            .filter(|limit| limit.get() <= MAX_LIMIT)
            .ok_or_else(|| Problem::bad_request(format!("limit: expected 1 to {MAX_LIMIT}, found {asked}")))
    }

    /// The next page over all hosts, once the state is new enough.
    async fn page(&self, wired: &Asked, limit: NonZeroUsize) -> Result<PageAndToken, Problem> {
        let (page, missing) = self.page_here(wired, limit).await?;
        let mut token = self.freshness.token(&self.application);
        page.seen.iter().for_each(|position| token.add(&self.store, position));
        let Some(&first) = missing.first() else { return Ok((page, token)) };
        let routing = wired.routing().ok_or_else(|| self.not_here(first))?;
        let sources = Sources::of(wired, &self.store, self.max_lag.is_some(), self.freshness.clone());
        let path = format!("{}?{}", self.path, self.query(limit));
        let answers = routed::pages(routing, &sources, &path, &missing, &self.application).await?;
        let mut pages = vec![page];
        for (page, of_page) in answers {
            token.merge(&of_page);
            pages.push(page);
        }
        let reverse = self.reverse;
        let page = blocking(move || Ok(merge_pages(pages, reverse, limit))).await?;
        Ok((page, token))
    }

    /// The page of the partitions that are here and new enough, and the other partitions.
    async fn page_here(&self, wired: &Asked, limit: NonZeroUsize) -> Result<(QueryPage, Vec<i32>), Problem> {
        let (_, topics) = sub_topology(wired, &self.store);
        let mut partitions = self.partitions.clone();
        loop {
            let is_reached = |at: &PartitionPosition| self.freshness.is_reached(&self.store, &topics, at);
            let positions = wired.queries.positions(&self.store, &partitions, self.max_lag).map_err(problem_of)?;
            let mut behind: Vec<PartitionPosition> = positions.into_iter().filter(|at| !is_reached(at)).collect();
            let mut page = QueryPage::default();
            // What is not new enough is not read, which may take long.
            if behind.is_empty() {
                let (local, asked) = (wired.clone(), self.local(partitions.clone(), limit));
                page = blocking(move || asked.read(&local)).await?;
                behind = page.positions.iter().filter(|at| !is_reached(at)).cloned().collect();
            }
            let Some(first) = behind.first() else {
                let is_read = |partition: i32| page.positions.iter().any(|at| at.partition == partition);
                let missing = self.partitions.iter().copied().filter(|&partition| !is_read(partition)).collect();
                return Ok((page, missing));
            };
            // Older copies of what is running elsewhere are left out, and asked for there.
            let copies = |partition: &i32| behind.iter().any(|at| at.partition == *partition && !is_running(at));
            let others: Vec<i32> = partitions.iter().copied().filter(|partition| !copies(partition)).collect();
            if wired.routing().is_some() && others.len() < partitions.len() {
                partitions = others;
            } else if !self.freshness.wait().await {
                return Err(not_reached(&self.store, first));
            }
        }
    }

    fn local(&self, partitions: Vec<i32>, limit: NonZeroUsize) -> LocalScan {
        LocalScan {
            store: self.store.clone(),
            partitions,
            bounds: self.bounds.clone(),
            reverse: self.reverse,
            limit,
            resume: self.cursor.clone(),
            max_lag: self.max_lag,
            condition: self.condition.clone(),
        }
    }

    fn not_here(&self, partition: i32) -> Problem {
        problem_of(QueryError::NotAssigned { store: self.store.clone(), partition: Some(partition) })
    }

    /// The same scan for another host, without its partitions.
    fn query(&self, limit: NonZeroUsize) -> String {
        let mut query = format!("{}&reverse={}&limit={limit}", routed::PAGE_FORMATS, self.reverse);
        let mut bound = |name: &str, bound: &Bound<Vec<u8>>| {
            if let Bound::Included(key) | Bound::Excluded(key) = bound {
                query.push_str(&format!("&{name}={}", formats::hex(key)));
            }
        };
        bound("from", &self.bounds.lower);
        bound("to", &self.bounds.upper);
        query.push_str(&standby_query(self.max_lag));
        if let Some(cursor) = &self.cursor {
            query.push_str(&format!("&cursor={}", write_cursor(cursor)));
        }
        if let Some(condition) = &self.condition {
            query.push_str(&format!("&where={}", formats::percent_encode(condition.text())));
        }
        query
    }

    fn entry(&self, entry: &QueryEntry) -> Result<EntryBody, Problem> {
        let key = self.formats.show("key", self.formats.key, &entry.key)?;
        let value = self.formats.show("value", self.formats.value, &entry.value)?;
        Ok(EntryBody { key, value, partition: entry.partition })
    }

    fn response(&self, page: &QueryPage, token: &Token) -> Result<Response, Problem> {
        serialized(&PageBody {
            store: &self.store,
            entries: page.entries.iter().map(|entry| self.entry(entry)).collect::<Result<_, Problem>>()?,
            next_cursor: page.resume.as_ref().map(write_cursor),
            positions: page.positions.iter().map(position).collect(),
            scanned: self.condition.as_ref().map(|_| page.scanned),
            consistency_token: token.write(),
        })
    }
}

/// The part of a scan that this host does by itself.
struct LocalScan {
    store: String,
    partitions: Vec<i32>,
    bounds: Bounds,
    reverse: bool,
    limit: NonZeroUsize,
    resume: Option<ResumeKey>,
    max_lag: Option<u64>,
    condition: Option<Condition>,
}

impl LocalScan {
    /// The page of the partitions that are here. One that is being restored here has no other host to ask, but for
    /// standbys.
    fn read(&self, wired: &Wired) -> Result<QueryPage, Problem> {
        let accepts = |_: &[u8], value: &[u8]| self.condition.as_ref().is_none_or(|condition| condition.accepts(value));
        let filter = Filter { accepts: &accepts, scanned_max: SCANNED_MAX, scanned_bytes_max: SCANNED_BYTES_MAX };
        let scan = ScanQuery {
            store: &self.store,
            partitions: Some(&self.partitions),
            range: self.bounds.range(),
            reverse: self.reverse,
            limit: self.limit,
            resume: self.resume.as_ref(),
            max_lag: self.max_lag,
            filter: self.condition.is_some().then_some(filter),
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
            Err(QueryError::NotAssigned { .. }) => Ok(QueryPage::default()),
            Err(error) => Err(problem_of(error)),
        }
    }
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
    positions: Vec<Position<'a>>,
    /// How many entries were looked at, where only some are wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    scanned: Option<u64>,
    consistency_token: Option<String>,
}

/// The ends of a scan, as bytes.
#[derive(Clone)]
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
