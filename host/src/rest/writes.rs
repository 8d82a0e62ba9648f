//! Writes: a record for the application's source topic, never a change of a store behind the processor's back. What the
//! processor makes of it is its own affair; with `wait=applied` the answer comes when the state reflects it. Only
//! stores whose manifest names a source for it take writes.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use engine::query::Role;
use engine::record::Header;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::freshness::{Freshness, NOT_REACHED};
use super::idempotency::{self, Begun, Outcomes, fingerprint};
use super::json::{JsonObject, Object};
use super::keys::{KeyPath, KeyQuery};
use super::peers::Failure;
use super::routed::{self, Sources};
use super::stores::{Asked, Formats, serialized, wired};
use super::token::{self, Token};
use super::{Problem, application_of, json_response, keys};
use crate::formats::{self, DataFormat};
use crate::runtime::status::{Applications, Wired};
use crate::runtime::wall_clock_ms;
use crate::runtime::writer::{WriteError, WriteRecord, Writer, Written};

/// The headers that a conditional write gives its record.
const IF_MATCH: &str = "sandbar-if-match";
const IF_NONE_MATCH: &str = "sandbar-if-none-match";

/// What a producer sends of one record, as it is set by itself.
const RECORD_BYTES_MAX: usize = 1_000_000;

/// Brokers refuse timestamps that are an hour ahead (`message.timestamp.after.max.ms`).
const AHEAD_MAX_MS: i64 = 3_500_000;

/// How long a write may wait for the state: the write itself takes time as well.
const WAIT_MS_MAX: u64 = 10_000;

/// Records of one request.
const WRITES_MAX: usize = 1_000;

/// What a write may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteQuery {
    key_format: Option<String>,
    /// The body is text in this format; without it the body is the record's value as it is.
    value_format: Option<String>,
    /// `applied` waits for the state.
    wait: Option<String>,
    timeout_ms: Option<u64>,
    timestamp_ms: Option<i64>,
}

/// A record as a batch gives it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchWrite {
    key: Box<RawValue>,
    value: Option<Box<RawValue>>,
    #[serde(default)]
    delete: bool,
}

/// Many of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    writes: Vec<Object<BatchWrite>>,
}

/// What takes the writes of an application.
pub struct Writes {
    pub targets: Vec<Target>,
    pub writer: Writer,
    pub outcomes: Outcomes,
}

/// A store that takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub store: String,
    /// The source topic, and how many partitions it has.
    pub topic: Arc<str>,
    pub partitions: i32,
    /// Whether the processor looks at conditions.
    pub conditional: bool,
    /// What the topic takes of one record, where its settings say it.
    pub record_bytes_max: Option<usize>,
}

impl Target {
    fn of(wired: &Wired, store: &str) -> Result<Self, Problem> {
        let writes = wired.writes.as_ref();
        writes.and_then(|writes| writes.targets.iter().find(|target| target.store == store)).cloned().ok_or_else(|| {
            let detail = match wired.module_digest {
                Some(_) => format!(
                    "store {store} takes no writes; stores.{store}.write.source in the manifest names a source for them"
                ),
                None => format!("store {store} is a table, which is only read; write to its topic"),
            };
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "not-writable", "the store takes no writes", detail)
        })
    }

    /// A record of a key, in the partition of Kafka's default partitioner.
    ///
    /// # Errors
    /// When the topic does not take it: a broker says so only when others that are sent with it are in doubt too (R18).
    fn record(
        &self,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
        timestamp: i64,
        headers: Vec<Header>,
    ) -> Result<WriteRecord, Problem> {
        let partition = engine::partitioner::partition_for_key(&key, self.partitions.max(1));
        let record = WriteRecord { topic: Arc::clone(&self.topic), partition, timestamp, key, value, headers };
        let (bytes, most) = (record.bytes(), self.record_bytes_max.unwrap_or(RECORD_BYTES_MAX).min(RECORD_BYTES_MAX));
        if bytes > most {
            let detail = format!("the record has about {bytes} bytes, and topic {} takes {most}", self.topic);
            return Err(problem_of(WriteError::Refused(detail)));
        }
        Ok(record)
    }
}

/// `PUT /v1/apps/{app}/stores/{store}/keys/{key}`
pub async fn put(
    State(applications): State<Arc<Applications>>,
    headers: HeaderMap,
    uri: Uri,
    path: Result<Path<KeyPath>, PathRejection>,
    query: Result<Query<WriteQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let request = Request::of(&applications, headers, uri, path?.0, query?.0)?;
    let body = body?;
    let value = match request.query.value_format.as_deref() {
        None => body.to_vec(),
        Some(name) => {
            let format = Formats::of(&request.wired, &request.store, None, Some(name))?.value;
            let text = std::str::from_utf8(&body).map_err(|_| Problem::bad_request("body: expected UTF-8 text"))?;
            let value = format.read(text).map_err(|error| Problem::bad_request(format!("body: {error}")))?;
            // What surrounds a document is the client's too.
            if format == DataFormat::Json { body.to_vec() } else { value }
        }
    };
    request.run(Method::PUT, Some(value), body).await
}

/// `DELETE /v1/apps/{app}/stores/{store}/keys/{key}`: a record without a value.
pub async fn delete(
    State(applications): State<Arc<Applications>>,
    headers: HeaderMap,
    uri: Uri,
    path: Result<Path<KeyPath>, PathRejection>,
    query: Result<Query<WriteQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let request = Request::of(&applications, headers, uri, path?.0, query?.0)?;
    if request.query.value_format.is_some() {
        return Err(Problem::bad_request("value_format: a delete has no value"));
    }
    request.run(Method::DELETE, None, Bytes::new()).await
}

/// A write of one key.
struct Request {
    application: String,
    store: String,
    key: Vec<u8>,
    key_text: String,
    target: Target,
    /// How the store shows its values.
    declared: DataFormat,
    wired: Asked,
    headers: HeaderMap,
    uri: Uri,
    query: WriteQuery,
    wait: bool,
}

impl Request {
    fn of(
        applications: &Applications,
        headers: HeaderMap,
        uri: Uri,
        path: KeyPath,
        query: WriteQuery,
    ) -> Result<Self, Problem> {
        let KeyPath { app, store, key } = path;
        let status = application_of(applications, &app)?;
        let wired = wired(&status)?.by(&headers);
        let formats = Formats::of(&wired, &store, query.key_format.as_deref(), None)?;
        let target = Target::of(&wired, &store)?;
        Ok(Self {
            key: formats.key.read(&key).map_err(|error| Problem::bad_request(format!("key: {error}")))?,
            wait: is_waited_for(&query)?,
            application: app,
            key_text: key,
            declared: formats.value,
            store,
            target,
            wired,
            headers,
            uri,
            query,
        })
    }

    async fn run(self, method: Method, value: Option<Vec<u8>>, body: Bytes) -> Result<Response, Problem> {
        let key = self.idempotency_key()?;
        let answer = self.attempt(method, value, body, key.as_deref()).await;
        answer.map_err(|problem| if key.is_some() { of_this_attempt(problem) } else { problem })
    }

    async fn attempt(
        &self,
        method: Method,
        value: Option<Vec<u8>>,
        body: Bytes,
        key: Option<&str>,
    ) -> Result<Response, Problem> {
        let conditions = self.conditions()?;
        let timestamp = timestamp(&self.query)?;
        let mut headers = conditions;
        if let Some(key) = key {
            headers.push(record_header(idempotency::HEADER, key.as_bytes()));
            if let Some(answer) = self.passed_on(method.clone(), body).await? {
                return Ok(answer);
            }
        }
        let conditions: Vec<_> = headers.iter().map(|header| (&header.key, &header.value)).collect();
        let asked_timestamp = self.query.timestamp_ms;
        let fingerprint =
            fingerprint((&self.store, &self.key, &value, method == Method::PUT, conditions, asked_timestamp));
        let record = self.target.record(self.key.clone(), value, timestamp, headers)?;
        let writes = self.wired.writes.as_ref().ok_or_else(|| Problem::internal("the writer is gone"))?;
        let written = match key {
            None => writes.writer.write(vec![record]).await,
            Some(key) => match writes.outcomes.begin(&self.kept_under(key), fingerprint, Instant::now())? {
                Begun::Before(written) => Ok(written),
                Begun::First => {
                    let (writes, key) = (Arc::clone(writes), self.kept_under(key));
                    // Goes on when the client does not, so that the key has an outcome in any case.
                    let writing = tokio::spawn(async move {
                        let outcome = writes.writer.write(vec![record]).await;
                        writes.outcomes.end(&key, &outcome);
                        outcome
                    });
                    writing.await.map_err(|error| Problem::internal(error.to_string()))?
                }
            },
        };
        let token = token_of(&self.application, &written.map_err(problem_of)?);
        match self.wait {
            false => Ok(accepted(&self.store, &self.key_text, &token, None)),
            true => self.applied(token).await,
        }
    }

    fn idempotency_key(&self) -> Result<Option<String>, Problem> {
        let mut keys = self.headers.get_all(idempotency::HEADER).iter();
        match (keys.next(), keys.next()) {
            (None, _) => Ok(None),
            (Some(key), None) => idempotency::read_key(key.as_bytes()).map(Some),
            (Some(_), Some(_)) => Err(Problem::bad_request("idempotency-key: expected one, found several")),
        }
    }

    /// An idempotency key holds for a key of a store, since one host decides for a partition and not for all of them.
    fn kept_under(&self, idempotency_key: &str) -> String {
        format!("{}/{}/{idempotency_key}", self.store, formats::hex(&self.key))
    }

    /// The conditions of a write, for the processor to look at.
    fn conditions(&self) -> Result<Vec<Header>, Problem> {
        let mut headers = Vec::new();
        for (name, of_record) in [(header::IF_MATCH, IF_MATCH), (header::IF_NONE_MATCH, IF_NONE_MATCH)] {
            let mut values = self.headers.get_all(&name).iter();
            let (Some(value), another) = (values.next(), values.next()) else { continue };
            let version = another.is_none().then(|| version_of(value.as_bytes())).flatten().ok_or_else(|| {
                Problem::bad_request(format!("{name}: expected one version in quotation marks, or *"))
            })?;
            headers.push(record_header(of_record, version));
        }
        if headers.is_empty() || self.target.conditional {
            return Ok(headers);
        }
        let detail = format!(
            "the processor of store {} looks at no conditions; stores.{}.write.conditional says that it does",
            self.store, self.store
        );
        Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "not-conditional", "the store takes no conditions", detail))
    }

    /// One host knows the outcomes of a partition's keys: the one that processes it. `None` where that is this one.
    async fn passed_on(&self, method: Method, body: Bytes) -> Result<Option<Response>, Problem> {
        let partition = engine::partitioner::partition_for_key(&self.key, self.target.partitions.max(1));
        let Some(routing) = self.wired.routing() else {
            // What others think of where the partition is may be old.
            return match self.is_here(partition) {
                true => Ok(None),
                false => {
                    let detail = format!("partition {partition} is not processed by this host now");
                    Err(problem_of(WriteError::Unavailable(detail)))
                }
            };
        };
        let freshness = Freshness::of(&self.application, None, None)?;
        let sources = Sources::of(&self.wired, &self.store, false, freshness);
        let Some(route) = routed::owner(routing, &sources, partition).await? else { return Ok(None) };
        let path = self.uri.path_and_query().map_or(self.uri.path(), |path| path.as_str());
        let mut request = axum::http::Request::builder().method(method);
        for name in [header::IF_MATCH, header::IF_NONE_MATCH, HeaderName::from_static(idempotency::HEADER)] {
            if let Some(value) = self.headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let answer =
            routing.peers.write(&route.endpoint, path, request, Body::from(body), &routing.finder.host_id).await;
        let owner = format!("partition {partition} is at {} (host {})", route.endpoint, route.host_id);
        let answer = answer.map_err(|failure| match failure {
            Failure::NotSent(why) => {
                problem_of(WriteError::Unavailable(format!("{owner}, which cannot be connected to: {why}")))
            }
            Failure::NoAnswer(why) => {
                unknown(format!("{owner}, which gave no answer: {why}; the same idempotency key may be sent again"))
            }
        })?;
        Ok(Some(routed::passed_on(answer)))
    }

    fn is_here(&self, partition: i32) -> bool {
        let registrations = self.wired.queries.registrations();
        let mut of_store = registrations.iter().filter(|one| *one.store == *self.store && one.role == Role::Active);
        of_store.any(|one| one.task.partition == partition)
    }

    /// The state once it reflects the write. The write is done in any case.
    async fn applied(&self, token: Token) -> Result<Response, Problem> {
        // One partition of one topic is never too long.
        let text = token.write().unwrap_or_default();
        // What the processor makes of a body need not have its format. A store of mere bytes says nothing of theirs.
        let value_format = self.query.value_format.clone().filter(|_| self.declared == DataFormat::Base64);
        let formats = [self.query.key_format.clone(), value_format];
        let query = KeyQuery::at(formats, text, self.query.timeout_ms);
        let path = KeyPath { app: self.application.clone(), store: self.store.clone(), key: self.key_text.clone() };
        // As the first host that is asked: the write may have come from another one.
        let found = keys::answer(&self.wired, self.uri.path(), path, query).await;
        let entry: Box<RawValue> = match found {
            Ok(response) if response.status() == StatusCode::OK => {
                let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
                let body = body.map_err(|error| Problem::internal(error.to_string()))?;
                serde_json::from_slice(&body).map_err(|error| Problem::internal(error.to_string()))?
            }
            Err(problem) if problem.kind == "key-not-found" => raw(&Value::Null)?,
            // It is there, but not in the format in which the store is shown.
            Err(problem) if problem.kind == "format" => raw(&json!({ "error": problem.document() }))?,
            Ok(response) if response.status() == StatusCode::UNPROCESSABLE_ENTITY => {
                raw(&json!({ "error": { "status": response.status().as_u16() } }))?
            }
            Ok(_) => {
                let reason = format!("the state does not reflect it yet ({NOT_REACHED})");
                return Ok(accepted(&self.store, &self.key_text, &token, Some(reason)));
            }
            Err(problem) => return Ok(accepted(&self.store, &self.key_text, &token, Some(problem.detail))),
        };
        let mut of_answer = token;
        let of_entry: Option<EntryToken> = serde_json::from_str(entry.get()).unwrap_or_default();
        if let Some(text) = of_entry.and_then(|entry| entry.consistency_token) {
            of_answer.merge(&Token::read(&text, &self.application)?);
        }
        let token = of_answer.write();
        let mut response = serialized(&AppliedBody {
            store: &self.store,
            key: &self.key_text,
            applied: true,
            entry,
            consistency_token: token.as_deref(),
        })?;
        set_token(&mut response, token.as_deref());
        Ok(response)
    }
}

/// What a write that was waited for has become.
#[derive(Serialize)]
struct AppliedBody<'a> {
    store: &'a str,
    key: &'a str,
    applied: bool,
    /// As the query for the key answers it, byte for byte: a value is the processor's, and nobody's to write anew.
    entry: Box<RawValue>,
    consistency_token: Option<&'a str>,
}

/// The part of an entry that says how far the state was.
#[derive(Deserialize)]
struct EntryToken {
    consistency_token: Option<String>,
}

fn raw(value: &Value) -> Result<Box<RawValue>, Problem> {
    to_raw_value(value).map_err(|error| Problem::internal(error.to_string()))
}

/// The version of a strong entity tag, or `*`. A list, or a weak tag, is more than a processor is asked to judge.
fn version_of(text: &[u8]) -> Option<&[u8]> {
    if text == b"*" {
        return Some(text);
    }
    let version = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    (!version.is_empty() && version.iter().all(u8::is_ascii_hexdigit)).then_some(version)
}

/// `POST /v1/apps/{app}/stores/{store}/batch-write`: many records, one after the other; not all or none.
pub async fn batch(
    State(applications): State<Arc<Applications>>,
    headers: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<WriteQuery>, QueryRejection>,
    body: Result<JsonObject<BatchBody>, Problem>,
) -> Result<Response, Problem> {
    let Path((application, store)) = path?;
    let Query(query) = query?;
    let status = application_of(&applications, &application)?;
    let wired = wired(&status)?;
    let formats = Formats::of(&wired, &store, query.key_format.as_deref(), query.value_format.as_deref())?;
    let target = Target::of(&wired, &store)?;
    if is_waited_for(&query)? {
        return Err(Problem::bad_request("wait: a batch is not waited for; ask with its consistency token"));
    }
    for name in [header::IF_MATCH, header::IF_NONE_MATCH, HeaderName::from_static(idempotency::HEADER)] {
        if headers.contains_key(&name) {
            return Err(Problem::bad_request(format!("{name}: it belongs to a write of one key, not to a batch")));
        }
    }
    let JsonObject(BatchBody { writes }) = body?;
    if writes.is_empty() || writes.len() > WRITES_MAX {
        let detail = format!("writes: expected 1 to {WRITES_MAX}, found {}", writes.len());
        return Err(Problem::bad_request(detail));
    }
    let timestamp = timestamp(&query)?;
    let record = |(number, Object(write)): (usize, &Object<BatchWrite>)| {
        let refuse = |what: &str, why: String| Problem::bad_request(format!("writes[{number}].{what}: {why}"));
        let key = formats.key.read_json(&write.key).map_err(|error| refuse("key", error))?;
        let value = match (&write.value, write.delete) {
            (Some(value), false) => Some(formats.value.read_json(value).map_err(|error| refuse("value", error))?),
            (None, true) => None,
            _ => return Err(refuse("value", "expected either value or \"delete\": true".to_owned())),
        };
        target.record(key, value, timestamp, Vec::new())
    };
    let records: Vec<WriteRecord> = writes.iter().enumerate().map(record).collect::<Result<_, Problem>>()?;
    let count = records.len();
    let writer = wired.writes.as_ref().ok_or_else(|| Problem::internal("the writer is gone"))?;
    let written = writer.writer.write(records).await.map_err(problem_of)?;
    let token = token_of(&application, &written).write();
    let document = json!({ "store": store, "writes": count, "consistency_token": token });
    let mut response = (StatusCode::ACCEPTED, json_response(&document)).into_response();
    set_token(&mut response, token.as_deref());
    Ok(response)
}

fn is_waited_for(query: &WriteQuery) -> Result<bool, Problem> {
    match (query.wait.as_deref(), query.timeout_ms) {
        (None, Some(_)) => Err(Problem::bad_request("timeout_ms needs wait=applied")),
        (None, None) => Ok(false),
        (Some("applied"), Some(timeout_ms)) if timeout_ms > WAIT_MS_MAX => {
            Err(Problem::bad_request(format!("timeout_ms: expected at most {WAIT_MS_MAX}, found {timeout_ms}")))
        }
        (Some("applied"), _) => Ok(true),
        (Some(other), _) => Err(Problem::bad_request(format!("wait: expected applied, found {other:?}"))),
    }
}

fn timestamp(query: &WriteQuery) -> Result<i64, Problem> {
    let timestamp = query.timestamp_ms.unwrap_or_else(wall_clock_ms);
    let most = wall_clock_ms() + AHEAD_MAX_MS;
    if !(0..=most).contains(&timestamp) {
        return Err(Problem::bad_request(format!("timestamp_ms: expected 0 to {most}, found {timestamp}")));
    }
    Ok(timestamp)
}

fn record_header(name: &'static str, value: &[u8]) -> Header {
    Header { key: bytes::Bytes::from_static(name.as_bytes()), value: Some(bytes::Bytes::copy_from_slice(value)) }
}

fn token_of(application: &str, written: &Written) -> Token {
    let mut token = Token::new(application);
    written.iter().for_each(|(at, &offset)| token.add_source(&at.topic, at.partition, offset));
    token
}

/// The write is in the topic, and the state follows. `reason` says why nobody waited for it to the end.
fn accepted(store: &str, key: &str, token: &Token, reason: Option<String>) -> Response {
    let token = token.write();
    let mut document = json!({ "store": store, "key": key, "applied": false, "consistency_token": token });
    if let Some(reason) = reason {
        document["reason"] = reason.into();
    }
    let mut response = (StatusCode::ACCEPTED, json_response(&document)).into_response();
    set_token(&mut response, token.as_deref());
    response
}

fn set_token(response: &mut Response, text: Option<&str>) {
    // Its alphabet is that of base64url.
    if let Some(Ok(value)) = text.map(str::parse) {
        response.headers_mut().insert(HeaderName::from_static(token::HEADER), value);
    }
}

fn unknown(detail: String) -> Problem {
    let title = "the outcome of the write is not known";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "write-unknown", title, detail)
}

/// What is wrong with one of the attempts under an idempotency key. That it wrote nothing says so of no other: one
/// before it may have ended in doubt, at another host too, and whoever reads of this one must not take that for undone.
fn of_this_attempt(problem: Problem) -> Problem {
    if problem.kind != "write-unavailable" {
        return problem;
    }
    let of_others = "this request wrote nothing, but an earlier one under the same idempotency key may have";
    Problem { title: "this request wrote nothing", detail: format!("{}; {of_others}", problem.detail), ..problem }
}

fn problem_of(error: WriteError) -> Problem {
    let detail = error.to_string();
    match error {
        WriteError::Refused(_) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "write-refused", "Kafka takes no such record", detail)
        }
        WriteError::Unavailable(_) => Problem::unavailable("write-unavailable", "nothing was written", detail),
        // Not to be tried again without a thought: that may write it twice.
        WriteError::Unknown(_) => unknown(detail),
    }
}
