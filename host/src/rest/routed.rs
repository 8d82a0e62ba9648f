//! Queries of partitions that other hosts have: each is asked for its own, one hop away, and what they say becomes one
//! answer. A partition that nobody can answer for makes the whole a problem that may be tried again, and never an
//! answer with a part missing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use engine::query::{PartitionPosition, QueryEntry, QueryPage, Role};
use engine::routing::Route;
use engine::topology::TaskId;
use serde::Deserialize;
use tokio::task::JoinSet;

use super::Problem;
use super::entries::read_cursor;
use super::peers::Answer;
use crate::formats::DataFormat;
use crate::runtime::status::Routing;

/// How long another host may take for a key (H4), and for a page.
const KEY_LIMIT: Duration = Duration::from_secs(2);
const PAGE_LIMIT: Duration = Duration::from_secs(10);
/// Before a wrong or failing route is looked up anew.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a query is tried in all.
const TRIES: usize = 3;

/// What a host says to a query of one of its partitions.
enum Asked {
    Found(Response),
    Absent,
    /// Nobody knows now; with the reason.
    Unavailable(String),
}

/// Who may be asked.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    pub sub_topology: u32,
    /// Whether a standby may answer where the active task cannot.
    pub standby: bool,
}

impl Sources {
    fn task(self, partition: i32) -> TaskId {
        TaskId { sub_topology: self.sub_topology, partition }
    }
}

/// Asks for a key in partitions that are not here, in this order: the first is where it should be, and the others are
/// asked together when it is not there. `None` when none of them has it. `path` says all but the partition.
///
/// # Errors
/// When a partition cannot be asked, and none of the others has the key.
pub async fn key(
    routing: &Routing,
    sources: Sources,
    path: &str,
    partitions: &[i32],
) -> Result<Option<Response>, Problem> {
    let Some((first, others)) = partitions.split_first() else { return Ok(None) };
    let mut unavailable = match key_of(routing.clone(), sources, *first, path.to_owned()).await {
        Asked::Found(response) => return Ok(Some(response)),
        Asked::Absent => None,
        Asked::Unavailable(reason) => Some(reason),
    };
    let mut asked = JoinSet::new();
    for &partition in others {
        asked.spawn(key_of(routing.clone(), sources, partition, path.to_owned()));
    }
    while let Some(answer) = asked.join_next().await {
        match answer.map_err(|error| Problem::internal(error.to_string()))? {
            Asked::Found(response) => return Ok(Some(response)),
            Asked::Absent => {}
            Asked::Unavailable(reason) => unavailable = unavailable.or(Some(reason)),
        }
    }
    unavailable.map_or(Ok(None), |reason| Err(unavailable_problem(reason)))
}

/// Where to ask for a key: the owner of the first of these partitions. That host asks the others where it has to.
///
/// # Errors
/// When nobody is known to have it.
pub async fn redirect(
    routing: &Routing,
    sub_topology: u32,
    path: &str,
    partitions: &[i32],
) -> Result<Response, Problem> {
    let partition = partitions.first().copied().unwrap_or_default();
    let sources = Sources { sub_topology, standby: false };
    let route = route(routing, sources, partition, Try::first()).await.map_err(unavailable_problem)?;
    routing.peers.check(&route.endpoint).map_err(|why| unavailable_problem(failed(partition, &route, &why)))?;
    let location = format!("http://{}{path}", route.endpoint);
    Ok(Redirect::temporary(&location).into_response())
}

async fn key_of(routing: Routing, sources: Sources, partition: i32, path: String) -> Asked {
    let path = format!("{path}&partition={partition}");
    let mut turn = Try::first();
    let mut reason = String::new();
    while turn.number < TRIES {
        match route(&routing, sources, partition, turn).await {
            Err(why) => reason = why,
            Ok(route) => match routing.peers.get(&route.endpoint, &path, &routing.finder.host_id, KEY_LIMIT).await {
                Ok(answer) if is_absent(&answer) => return Asked::Absent,
                Ok(answer) if is_answer(&answer, partition) => return Asked::Found(passed_on(answer)),
                Ok(answer) => reason = said(partition, &route, &answer),
                Err(why) => reason = failed(partition, &route, &why),
            },
        }
        turn = turn.next(sources).await;
    }
    Asked::Unavailable(reason)
}

/// Only this says that a host has looked and found nothing; another 404 comes from somebody who does not know the store.
fn is_absent(answer: &Answer) -> bool {
    answer.status == StatusCode::NOT_FOUND && kind_of(answer) == "urn:sandbar:problem:key-not-found"
}

/// An answer for whoever asked: the value from that partition, or that it cannot be shown as was wanted. Whatever else may
/// listen at the address by now does not say such things.
fn is_answer(answer: &Answer, partition: i32) -> bool {
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match answer.status {
        StatusCode::OK => document["position"]["partition"] == partition,
        StatusCode::UNPROCESSABLE_ENTITY => document["type"] == "urn:sandbar:problem:format",
        _ => false,
    }
}

fn kind_of(answer: &Answer) -> String {
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    document["type"].as_str().unwrap_or_default().to_owned()
}

/// One of several tries to ask somebody.
#[derive(Debug, Clone, Copy)]
struct Try {
    number: usize,
    /// Routes from before are known to be wrong.
    moment: Option<Instant>,
}

impl Try {
    fn first() -> Self {
        Self { number: 0, moment: None }
    }

    /// Waits a little before the next one, but for a first look at the standbys.
    async fn next(self, sources: Sources) -> Self {
        if sources.standby && self.number == 0 {
            return Self { number: 1, ..self };
        }
        let moment = Some(Instant::now());
        tokio::time::sleep(PAUSE).await;
        Self { number: self.number + 1, moment }
    }
}

/// The host to ask at this try: the active one, or by turns one that keeps the task warm.
async fn route(routing: &Routing, sources: Sources, partition: i32, turn: Try) -> Result<Route, String> {
    let routes = match turn.moment {
        None => routing.finder.routes().await,
        Some(moment) => routing.finder.routes_after(moment).await,
    };
    let routes = routes.map_err(|why| format!("no host is known for partition {partition}: {why}"))?;
    let task = sources.task(partition);
    let mut candidates: Vec<Route> = routes.active(task).into_iter().collect();
    if sources.standby {
        candidates.extend(routes.standbys(task));
    }
    // What this host has was looked at before anybody else is asked.
    let here = candidates.iter().any(|route| route.host_id == routing.finder.host_id);
    candidates.retain(|route| route.host_id != routing.finder.host_id);
    let count = candidates.len().max(1);
    candidates.into_iter().nth(turn.number % count).ok_or_else(|| match here {
        true => format!("partition {partition} is about to be opened on this host"),
        false => format!("no host processes partition {partition} at the moment"),
    })
}

fn said(partition: i32, route: &Route, answer: &Answer) -> String {
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let detail = document["detail"].as_str().unwrap_or("no reason given");
    failed(partition, route, &format!("{}: {detail}", answer.status.as_u16()))
}

fn failed(partition: i32, route: &Route, why: &str) -> String {
    format!(
        "partition {partition} is at {} (host {}), which does not answer for it: {why}",
        route.endpoint, route.host_id
    )
}

fn unavailable_problem(reason: String) -> Problem {
    Problem::unavailable("not-here", "another host has this partition", reason)
}

/// The other host's answer as this host's.
fn passed_on(answer: Answer) -> Response {
    let content_type = answer.headers.get(header::CONTENT_TYPE).cloned();
    let mut response = (answer.status, answer.body).into_response();
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}

/// A page as it comes from another host: keys in hexadecimal, values in base64.
#[derive(Deserialize)]
struct PageAnswer {
    entries: Vec<EntryAnswer>,
    next_cursor: Option<String>,
    positions: Vec<PositionAnswer>,
}

#[derive(Deserialize)]
struct EntryAnswer {
    key: String,
    value: String,
    partition: i32,
}

#[derive(Deserialize)]
struct PositionAnswer {
    partition: i32,
    role: String,
    changelog_offset: Option<i64>,
    lag: u64,
}

/// The formats in which hosts give each other entries.
pub const PAGE_FORMATS: &str = "key_format=hex&value_format=base64";

/// Asks the hosts of these partitions for their pages of a scan. `path` says all but the partitions. The pages cover
/// each of the partitions once.
///
/// # Errors
/// When a partition cannot be asked.
pub async fn pages(
    routing: &Routing,
    sources: Sources,
    path: &str,
    partitions: &[i32],
) -> Result<Vec<QueryPage>, Problem> {
    let mut missing: Vec<i32> = partitions.to_vec();
    let mut pages = Vec::new();
    let mut turn = Try::first();
    let mut reason = String::new();
    while turn.number < TRIES {
        let mut hosts: BTreeMap<String, (Route, Vec<i32>)> = BTreeMap::new();
        for &partition in &missing {
            match route(routing, sources, partition, turn).await {
                Ok(route) => {
                    hosts.entry(route.host_id.clone()).or_insert_with(|| (route, Vec::new())).1.push(partition);
                }
                Err(why) => reason = why,
            }
        }
        let mut asked = JoinSet::new();
        for (route, partitions) in hosts.into_values() {
            asked.spawn(page_of(routing.clone(), route, path.to_owned(), partitions));
        }
        while let Some(answer) = asked.join_next().await {
            match answer.map_err(|error| Problem::internal(error.to_string()))? {
                Ok(page) => pages.push(page),
                Err(why) => reason = why,
            }
        }
        let covered = |at: i32| pages.iter().flat_map(|page| &page.positions).any(|position| position.partition == at);
        missing.retain(|&partition| !covered(partition));
        if missing.is_empty() {
            return Ok(pages);
        }
        turn = turn.next(sources).await;
    }
    Err(unavailable_problem(reason))
}

async fn page_of(routing: Routing, route: Route, path: String, partitions: Vec<i32>) -> Result<QueryPage, String> {
    let list: Vec<String> = partitions.iter().map(i32::to_string).collect();
    let path = format!("{path}&partitions={}", list.join(","));
    let first = partitions.first().copied().unwrap_or_default();
    let answer = routing.peers.get(&route.endpoint, &path, &routing.finder.host_id, PAGE_LIMIT).await;
    let answer = answer.map_err(|why| failed(first, &route, &why))?;
    if answer.status != StatusCode::OK {
        return Err(said(first, &route, &answer));
    }
    let page = tokio::task::spawn_blocking(move || read_page(&answer.body)).await;
    let page = page.map_err(|error| error.to_string())?.map_err(|why| failed(first, &route, &why))?;
    let mut read: Vec<i32> = page.positions.iter().map(|position| position.partition).collect();
    read.sort_unstable();
    if read != partitions {
        return Err(failed(first, &route, &format!("it answered for {read:?}, asked for {partitions:?}")));
    }
    Ok(page)
}

fn read_page(body: &[u8]) -> Result<QueryPage, String> {
    let page: PageAnswer = serde_json::from_slice(body).map_err(|error| format!("its page cannot be read: {error}"))?;
    let entry = |entry: EntryAnswer| {
        let key = DataFormat::Hex.read(&entry.key)?.into();
        Ok(QueryEntry { partition: entry.partition, key, value: DataFormat::Base64.read(&entry.value)?.into() })
    };
    let position = |position: PositionAnswer| PartitionPosition {
        partition: position.partition,
        role: if position.role == "standby" { Role::Standby } else { Role::Active },
        changelog_offset: position.changelog_offset,
        lag: position.lag,
    };
    let resume = page.next_cursor.as_deref().map(read_cursor).transpose().map_err(|problem| problem.detail)?;
    Ok(QueryPage {
        entries: page.entries.into_iter().map(entry).collect::<Result<_, String>>()?,
        resume,
        positions: page.positions.into_iter().map(position).collect(),
        restoring: Vec::new(),
    })
}
