//! Subscriptions: the committed changes of a store as they come, for one key, a prefix or all. Any host serves them,
//! since all of them can read the store's changelog: it is read with `read_committed`, so an aborted change is never
//! told, and each committed one once, in the order of its partition. Each change carries a position from which any host
//! goes on. Subscriptions hold no state of the application and never wait for a stream thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::broker::ClientSupplier;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::stores::{Formats, blocking, partitions_of, spec, wired};
use super::token::Token;
use super::{Problem, application_of, parts};
use crate::formats::DataFormat;
use crate::runtime::status::{Applications, Wired};
use crate::runtime::stop::Stop;

pub(super) mod position;
mod reader;
#[cfg(test)]
mod tests;
mod text;

use reader::{ChangeReader, Outlet};
use text::TextFormat;

/// Subscriptions that a host serves at once. Each has a client of the broker and a thread.
const SUBSCRIPTIONS_MAX: usize = 32;
/// Pieces of an answer that wait for a client which reads slowly; each is about as large as `reader::CHUNK_BYTES`.
const CHUNKS_MAX: usize = 16;
/// What an `EventSource` sends when it comes back: the id of the last event that it has seen.
const LAST_EVENT_ID: &str = "last-event-id";

/// What subscriptions are served from: the broker's clients, and the places for subscribers.
#[derive(Clone)]
pub struct Changelogs {
    clients: Arc<dyn ClientSupplier>,
    places: Arc<Semaphore>,
    /// How many there were, to tell their clients apart.
    served: Arc<AtomicUsize>,
    /// With it every subscription ends.
    stop: Stop,
}

impl Changelogs {
    pub fn new(clients: Arc<dyn ClientSupplier>, stop: Stop) -> Self {
        Self { clients, places: Arc::new(Semaphore::new(SUBSCRIPTIONS_MAX)), served: Arc::default(), stop }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let detail = format!("this host serves {SUBSCRIPTIONS_MAX} subscriptions at most; ask another host");
            Problem::unavailable("too-many-subscriptions", "too many subscriptions", detail)
        })
    }
}

/// What a subscription may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangesQuery {
    key: Option<String>,
    prefix: Option<String>,
    key_format: Option<String>,
    value_format: Option<String>,
    from: Option<String>,
}

/// Which keys are of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    All,
    Key(Vec<u8>),
    Prefix(Vec<u8>),
}

impl Filter {
    fn of(query: &ChangesQuery, format: DataFormat) -> Result<Self, Problem> {
        let read = |what: &str, text: &str| {
            format.read(text).map_err(|error| Problem::bad_request(format!("{what}: {error}")))
        };
        match (&query.key, &query.prefix) {
            (Some(_), Some(_)) => Err(Problem::bad_request("key cannot be combined with prefix")),
            (Some(key), None) => read("key", key).map(Self::Key),
            // Part of a JSON document is no JSON document; its bytes are its text.
            (None, Some(prefix)) if format == DataFormat::Json => Ok(Self::Prefix(prefix.as_bytes().to_vec())),
            (None, Some(prefix)) => read("prefix", prefix).map(Self::Prefix),
            (None, None) => Ok(Self::All),
        }
    }

    fn takes(&self, key: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Key(only) => only == key,
            Self::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    /// With everything that the changelog has: the last change of each key at least.
    Beginning,
    /// With what is committed from now on.
    End,
    /// By partition, the offset of the next change. Partitions that are not named begin at their ends.
    Position(BTreeMap<i32, i64>),
}

impl Start {
    fn of(query: &ChangesQuery, headers: &HeaderMap, partitions: i32, app: &str, store: &str) -> Result<Self, Problem> {
        let last = match headers.get(LAST_EVENT_ID) {
            Some(id) => Some(id.to_str().map_err(|_| Problem::bad_request(format!("{LAST_EVENT_ID}: expected text")))?),
            None => None,
        };
        // Who comes back asks the same question as before, so what was seen since goes first.
        match last.filter(|id| !id.is_empty()).or(query.from.as_deref()) {
            None | Some("end") => Ok(Self::End),
            Some("beginning") => Ok(Self::Beginning),
            Some(text) => {
                // Of a consistency token the part that is about this store.
                let token = Token::read(text, app).ok().and_then(|token| token.changelog(store).cloned());
                let offsets = token.map_or_else(|| position::read_from(text), Ok).map_err(Problem::bad_request)?;
                match offsets.keys().find(|partition| !(0..partitions).contains(*partition)) {
                    None => Ok(Self::Position(offsets)),
                    Some(partition) => Err(Problem::bad_request(format!(
                        "from: the position is of another store; it has partition {partition}, and this one {partitions} \
                         from 0"
                    ))),
                }
            }
        }
    }
}

/// A subscription as it was asked for.
struct Subscription {
    topic: Arc<str>,
    partitions: i32,
    filter: Filter,
    start: Start,
    formats: Formats,
    text: TextFormat,
}

impl Subscription {
    fn of(wired: &Wired, app: &str, store: &str, query: &ChangesQuery, headers: &HeaderMap) -> Result<Self, Problem> {
        let formats = Formats::of(wired, store, query.key_format.as_deref(), query.value_format.as_deref())?;
        let topic = spec(wired, store).and_then(|(_, spec)| spec.changelog_topic(app)).ok_or_else(|| {
            let detail =
                format!("store {store} has no changelog (logging.enabled = false), so nobody tells its changes");
            Problem::new(StatusCode::CONFLICT, "no-changelog", "the store has no changelog", detail)
        })?;
        let partitions = partitions_of(wired, store);
        Ok(Self {
            topic,
            partitions,
            filter: Filter::of(query, formats.key)?,
            start: Start::of(query, headers, partitions, app, store)?,
            formats,
            text: TextFormat::of(headers)?,
        })
    }
}

/// `GET /v1/apps/{app}/stores/{store}/changes`
pub async fn subscribe(
    State(applications): State<Arc<Applications>>,
    headers: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<ChangesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path((application, store)) = path?;
    let Query(query) = query?;
    let status = application_of(&applications, &application)?;
    let wired = wired(&status)?;
    let subscription = Subscription::of(&wired, &application, &store, &query, &headers)?;
    let content_type = subscription.text.content_type();
    let changelogs = wired.changelogs.clone().ok_or_else(|| {
        let detail = "this host has no clients of a broker to read changelogs with";
        Problem::unavailable("changelog-unavailable", "the changelog cannot be read", detail)
    })?;
    let place = changelogs.place()?;
    let number = changelogs.served.fetch_add(1, Ordering::Relaxed);
    let (sender, body) = parts::channel(CHUNKS_MAX);
    let outlet = Outlet::new(sender, changelogs.stop.clone());
    blocking(move || {
        let reader = ChangeReader::open(&*changelogs.clients, number, subscription)?;
        let run = move || {
            reader.run(outlet);
            drop(place);
        };
        let thread = std::thread::Builder::new().name(format!("changes-{number}")).spawn(run);
        thread.map(drop).map_err(|error| Problem::internal(format!("cannot start a thread: {error}")))
    })
    .await?;
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that collect an answer before they pass it on would hold changes back.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body).into_response())
}
