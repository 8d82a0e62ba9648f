//! Queries of partitions that other hosts have: each is asked for its own, one hop away, and what they say becomes one
//! answer. A partition that nobody can answer for makes the whole a problem that may be tried again, and never an
//! answer with a part missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use engine::query::{PartitionPosition, QueryEntry, QueryPage, Role};
use engine::routing::Route;
use engine::topology::TaskId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::Problem;
use super::batch::{TOO_LARGE, too_large};
use super::entries::read_cursor;
use super::freshness::{Freshness, NOT_REACHED, not_reached_at};
use super::peers::Answer;
use super::problem::kind_name;
use super::stores::sub_topology;
use super::token::{self, Token};
use crate::formats::DataFormat;
use crate::runtime::status::{Routing, Wired};

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
    /// With the token of that.
    Absent(Option<String>),
    /// Nobody knows now; with the reason.
    Unavailable(String),
}

/// Who may be asked, and for what.
#[derive(Debug, Clone)]
pub struct Sources {
    pub store: String,
    pub sub_topology: u32,
    /// The source topics of that part of the topology.
    pub topics: Vec<String>,
    /// Whether a standby may answer where the active task cannot.
    pub standby: bool,
    /// How new the answer has to be. Each host waits for it by itself.
    pub freshness: Freshness,
}

impl Sources {
    /// For a store; copies may answer where `standby` says so.
    pub fn of(wired: &Wired, store: &str, standby: bool, freshness: Freshness) -> Self {
        let (sub_topology, topics) = sub_topology(wired, store);
        let topics = topics.into_iter().map(str::to_owned).collect();
        Self { store: store.to_owned(), sub_topology, topics, standby, freshness }
    }

    /// How new the answer of another host has to be, as part of its query.
    fn query(&self, partitions: &[i32]) -> String {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        self.freshness.query(&self.store, &topics, partitions)
    }

    fn task(&self, partition: i32) -> TaskId {
        TaskId { sub_topology: self.sub_topology, partition }
    }
}

/// What the hosts of some partitions say of a key.
pub enum KeyFound {
    Value(Response),
    /// None of them has it; with how far each of them was.
    Nothing(Vec<String>),
}

/// Asks for a key in partitions that are not here, in this order: the first is where it should be, and the others are
/// asked together when it is not there. `path` says all but the partition.
///
/// # Errors
/// When a partition cannot be asked, and none of the others has the key.
pub async fn key(routing: &Routing, sources: &Sources, path: &str, partitions: &[i32]) -> Result<KeyFound, Problem> {
    let mut tokens = Vec::new();
    let Some((first, others)) = partitions.split_first() else { return Ok(KeyFound::Nothing(tokens)) };
    let mut unavailable = match key_of(routing.clone(), sources.clone(), *first, path.to_owned()).await {
        Asked::Found(response) => return Ok(KeyFound::Value(response)),
        Asked::Absent(token) => {
            tokens.extend(token);
            None
        }
        Asked::Unavailable(reason) => Some(reason),
    };
    let mut asked = JoinSet::new();
    for &partition in others {
        asked.spawn(key_of(routing.clone(), sources.clone(), partition, path.to_owned()));
    }
    while let Some(answer) = asked.join_next().await {
        match answer.map_err(|error| Problem::internal(error.to_string()))? {
            Asked::Found(response) => return Ok(KeyFound::Value(response)),
            Asked::Absent(token) => tokens.extend(token),
            Asked::Unavailable(reason) => unavailable = unavailable.or(Some(reason)),
        }
    }
    unavailable.map_or(Ok(KeyFound::Nothing(tokens)), |reason| Err(unavailable_problem(reason)))
}

/// Where to ask for a key: the owner of the first of these partitions. That host asks the others where it has to.
///
/// # Errors
/// When nobody is known to have it.
pub async fn redirect(
    routing: &Routing,
    sources: &Sources,
    path: &str,
    partitions: &[i32],
) -> Result<Response, Problem> {
    let partition = partitions.first().copied().unwrap_or_default();
    let sources = Sources { standby: false, ..sources.clone() };
    let route = route(routing, &sources, partition, Try::first()).await.map_err(unavailable_problem)?;
    routing.peers.check(&route.endpoint).map_err(|why| unavailable_problem(failed(partition, &route, &why)))?;
    let location = format!("http://{}{path}", route.endpoint);
    Ok(Redirect::temporary(&location).into_response())
}

/// The host that processes a partition, now; `None` where that is this one.
///
/// # Errors
/// When nobody is known to.
pub async fn owner(routing: &Routing, sources: &Sources, partition: i32) -> Result<Option<Route>, Problem> {
    let unknown = |why: String| unavailable_problem(format!("no host is known for partition {partition}: {why}"));
    let routes = routing.finder.routes().await.map_err(unknown)?;
    let active = routes.active(sources.task(partition));
    let active = active.ok_or_else(|| unknown("nobody processes it at the moment".to_owned()))?;
    Ok(Some(active).filter(|route| route.host_id != routing.finder.host_id))
}

async fn key_of(routing: Routing, sources: Sources, partition: i32, path: String) -> Asked {
    let mut turn = Try::first();
    let mut reason = String::new();
    while turn.number < TRIES {
        let path = format!("{path}&partition={partition}{}", sources.query(&[partition]));
        let limit = KEY_LIMIT + sources.freshness.left();
        match route(&routing, &sources, partition, turn).await {
            Err(why) => reason = why,
            Ok(route) => match routing.peers.get(&route.endpoint, &path, &routing.finder.host_id, limit).await {
                Ok(answer) if is_absent(&answer) => return Asked::Absent(token_of(&answer)),
                Ok(answer) if is_answer(&answer, partition) => return Asked::Found(passed_on(answer)),
                Ok(answer) => reason = said(partition, &route, &answer),
                Err(why) => reason = failed(partition, &route, &why),
            },
        }
        turn = turn.next(&sources).await;
    }
    Asked::Unavailable(reason)
}

/// Only this says that a host has looked and found nothing; another 404 comes from somebody who does not know the
/// store.
fn is_absent(answer: &Answer) -> bool {
    answer.status == StatusCode::NOT_FOUND && kind_of(answer) == kind_name("key-not-found")
}

/// An answer for whoever asked: the value from that partition, or that it cannot be shown as was wanted. Whatever else
/// may listen at the address by now does not say such things.
fn is_answer(answer: &Answer, partition: i32) -> bool {
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match answer.status {
        StatusCode::OK => document["position"]["partition"] == partition,
        StatusCode::UNPROCESSABLE_ENTITY => document["type"] == kind_name("format"),
        StatusCode::PRECONDITION_FAILED => document["type"] == kind_name(NOT_REACHED),
        _ => false,
    }
}

fn token_of(answer: &Answer) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    document["consistency_token"].as_str().map(str::to_owned)
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
    async fn next(self, sources: &Sources) -> Self {
        if sources.standby && self.number == 0 {
            return Self { number: 1, ..self };
        }
        let moment = Some(Instant::now());
        tokio::time::sleep(PAUSE).await;
        Self { number: self.number + 1, moment }
    }
}

/// The host to ask at this try: the active one, or by turns one that keeps the task warm.
async fn route(routing: &Routing, sources: &Sources, partition: i32, turn: Try) -> Result<Route, String> {
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
pub fn passed_on(answer: Answer) -> Response {
    let mut response = (answer.status, answer.body).into_response();
    for name in [header::CONTENT_TYPE, header::ETAG, header::RETRY_AFTER, HeaderName::from_static(token::HEADER)] {
        if let Some(value) = answer.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// Why a host has not said what it was asked for.
pub enum Refused {
    /// Another try, or another host, may answer.
    Unavailable(String),
    /// The host has the answer, and this is it.
    Final(Problem),
}

/// Asks the hosts of these partitions, each for its own. What comes back covers each of the partitions once.
///
/// # Errors
/// When a partition cannot be asked, or a host's refusal is final.
pub async fn scatter<T, F>(
    routing: &Routing,
    sources: &Sources,
    partitions: &[i32],
    ask: impl Fn(Route, Vec<i32>) -> F,
) -> Result<Vec<T>, Problem>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Refused>> + Send + 'static,
{
    let mut missing: BTreeSet<i32> = partitions.iter().copied().collect();
    let mut answers = Vec::new();
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
            let answer = ask(route, partitions.clone());
            asked.spawn(async move { (partitions, answer.await) });
        }
        while let Some(answer) = asked.join_next().await {
            match answer.map_err(|error| Problem::internal(error.to_string()))? {
                (covered, Ok(answer)) => {
                    missing.retain(|partition| !covered.contains(partition));
                    answers.push(answer);
                }
                (_, Err(Refused::Unavailable(why))) => reason = why,
                (_, Err(Refused::Final(problem))) => return Err(problem),
            }
        }
        if missing.is_empty() {
            return Ok(answers);
        }
        turn = turn.next(sources).await;
    }
    Err(unavailable_problem(reason))
}

/// What a host answers to one of these questions, once it is plain that it answers for just these partitions.
///
/// # Errors
/// When it says something else.
pub async fn document<T: DeserializeOwned + Send + 'static>(
    routing: &Routing,
    route: &Route,
    partitions: &[i32],
    question: Question,
) -> Result<T, Refused> {
    let first = partitions.first().copied().unwrap_or_default();
    let Question { path, body, limit } = question;
    let list: Vec<String> = partitions.iter().map(i32::to_string).collect();
    let path = format!("{path}&partitions={}", list.join(","));
    let from = &routing.finder.host_id;
    let answer = match body {
        None => routing.peers.get(&route.endpoint, &path, from, limit).await,
        Some(body) => routing.peers.post(&route.endpoint, &path, body, from, limit).await,
    };
    let unavailable = |why: &str| Refused::Unavailable(failed(first, route, why));
    let answer = answer.map_err(|why| unavailable(&why))?;
    if let Some(problem) = final_refusal(&answer) {
        return Err(Refused::Final(problem));
    }
    if answer.status != StatusCode::OK {
        return Err(Refused::Unavailable(said(first, route, &answer)));
    }
    // A page may be large, and reading it takes its time.
    let read = tokio::task::spawn_blocking(move || {
        let covered: Covered = serde_json::from_slice(&answer.body)?;
        Ok::<_, serde_json::Error>((covered, serde_json::from_slice(&answer.body)?))
    });
    let read = read.await.map_err(|error| unavailable(&error.to_string()))?;
    let (covered, document) = read.map_err(|error| unavailable(&format!("its answer cannot be read: {error}")))?;
    let mut read: Vec<i32> = covered.positions.iter().map(|position| position.partition).collect();
    read.sort_unstable();
    if read != partitions {
        return Err(unavailable(&format!("it answered for {read:?}, asked for {partitions:?}")));
    }
    Ok(document)
}

/// What is asked of another host. `path` says all but the partitions.
pub struct Question {
    pub path: String,
    /// With it the question is a POST.
    pub body: Option<String>,
    pub limit: Duration,
}

impl Question {
    /// One whose answer may take a while to make.
    pub fn large(path: &str, body: Option<String>, sources: &Sources, partitions: &[i32]) -> Self {
        let path = format!("{path}{}", sources.query(partitions));
        Self { path, body, limit: PAGE_LIMIT + sources.freshness.left() }
    }
}

/// The part of an answer that says for which partitions it speaks.
#[derive(Deserialize)]
struct Covered {
    positions: Vec<CoveredPosition>,
}

#[derive(Deserialize)]
struct CoveredPosition {
    partition: i32,
}

/// A host's final refusal as this host's: another try would be told the same.
fn final_refusal(answer: &Answer) -> Option<Problem> {
    // Whatever else it says may be large, and is read where that holds nobody up.
    if ![StatusCode::PRECONDITION_FAILED, StatusCode::PAYLOAD_TOO_LARGE].contains(&answer.status) {
        return None;
    }
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let detail = document["detail"].as_str().unwrap_or_default().to_owned();
    let is_kind = |kind: &str| document["type"] == kind_name(kind);
    match answer.status {
        StatusCode::PRECONDITION_FAILED if is_kind(NOT_REACHED) => {
            Some(not_reached_at(detail, document.get("position").cloned()))
        }
        StatusCode::PAYLOAD_TOO_LARGE if is_kind(TOO_LARGE) => Some(too_large(detail)),
        _ => None,
    }
}

/// A page as it comes from another host: keys in hexadecimal, values in base64.
#[derive(Deserialize)]
struct PageAnswer {
    entries: Vec<EntryAnswer>,
    next_cursor: Option<String>,
    positions: Vec<PositionAnswer>,
    #[serde(default)]
    scanned: u64,
    consistency_token: Option<String>,
}

#[derive(Deserialize)]
struct EntryAnswer {
    key: String,
    value: String,
    partition: i32,
}

/// How far a partition of another host is.
#[derive(Deserialize)]
pub struct PositionAnswer {
    partition: i32,
    role: String,
    changelog_offset: Option<i64>,
    lag: u64,
}

impl PositionAnswer {
    /// Without the sources, which the token of the answer has.
    pub fn position(self) -> PartitionPosition {
        PartitionPosition {
            partition: self.partition,
            role: if self.role == "standby" { Role::Standby } else { Role::Active },
            changelog_offset: self.changelog_offset,
            lag: self.lag,
            sources: None,
        }
    }
}

/// The formats in which hosts give each other entries.
pub const PAGE_FORMATS: &str = "key_format=hex&value_format=base64";

/// Asks the hosts of these partitions for their pages of a scan, each with how far its state is. `path` says all but
/// the partitions. The pages cover each of the partitions once.
///
/// # Errors
/// When a partition cannot be asked, or its state is not new enough.
pub async fn pages(
    routing: &Routing,
    sources: &Sources,
    path: &str,
    partitions: &[i32],
    application: &str,
) -> Result<Vec<(QueryPage, Token)>, Problem> {
    let ask = |route: Route, partitions: Vec<i32>| {
        let question = Question::large(path, None, sources, &partitions);
        let (routing, application) = (routing.clone(), application.to_owned());
        async move {
            let page: PageAnswer = document(&routing, &route, &partitions, question).await?;
            read_page(page, &application).map_err(|why| {
                Refused::Unavailable(failed(partitions.first().copied().unwrap_or_default(), &route, &why))
            })
        }
    };
    scatter(routing, sources, partitions, ask).await
}

/// What an answer says of how far it is; one that is too long to be said is not said by us either.
pub fn read_token(text: Option<&str>, application: &str) -> Result<Token, String> {
    let token = text.map(|text| Token::read(text, application)).transpose().map_err(|problem| problem.detail)?;
    Ok(token.unwrap_or_else(|| Token::new(application)))
}

fn read_page(page: PageAnswer, application: &str) -> Result<(QueryPage, Token), String> {
    let entry = |entry: EntryAnswer| {
        let key = DataFormat::Hex.read(&entry.key)?.into();
        Ok(QueryEntry { partition: entry.partition, key, value: DataFormat::Base64.read(&entry.value)?.into() })
    };
    let resume = page.next_cursor.as_deref().map(read_cursor).transpose().map_err(|problem| problem.detail)?;
    let token = read_token(page.consistency_token.as_deref(), application)?;
    let page = QueryPage {
        entries: page.entries.into_iter().map(entry).collect::<Result<_, String>>()?,
        resume,
        positions: page.positions.into_iter().map(PositionAnswer::position).collect(),
        seen: Vec::new(),
        restoring: Vec::new(),
        scanned: page.scanned,
    };
    Ok((page, token))
}
