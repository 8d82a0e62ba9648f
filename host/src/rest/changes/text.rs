//! How changes are written: as server-sent events, which browsers read and resume by themselves, or as NDJSON for
//! everybody else. A piece of the answer is whole events only.

use axum::http::{HeaderMap, StatusCode};
use bytes::BytesMut;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::rest::Problem;
use crate::rest::accept::Accepted;

/// A way to write changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    EventStream,
    Ndjson,
}

/// A change as clients see it.
#[derive(Debug, Serialize)]
pub struct Change {
    pub partition: i32,
    /// Of the changelog.
    pub offset: i64,
    pub key: Box<RawValue>,
    /// `None` for a key that was deleted.
    pub value: Option<Box<RawValue>>,
    /// Of the record that made the change, in milliseconds since the epoch.
    pub timestamp: i64,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    change: &'a Change,
    position: &'a str,
}

impl TextFormat {
    /// What a client accepts; server-sent events where it does not care.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let accepted = Accepted::of(headers);
        if accepted.is_empty() {
            return Ok(Self::EventStream);
        }
        // Which one is liked more is not weighed: whoever names both gets what is named first.
        let both = [Self::EventStream, Self::Ndjson];
        let first = accepted.first_of(&both.map(Self::content_type));
        { both }.into_iter().find(|one| Some(one.content_type()) == first).ok_or_else(|| {
            let detail = format!("accept: expected text/event-stream or application/x-ndjson, found {accepted}");
            Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", "no such content type", detail)
        })
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::EventStream => "text/event-stream",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// Adds a change, with the position after it.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which would be a defect of ours.
    pub fn change(self, out: &mut BytesMut, change: &Change, position: &str) -> Result<(), Problem> {
        let text = match self {
            Self::EventStream => serde_json::to_string(change).map(|json| format!("id: {position}\ndata: {json}\n\n")),
            Self::Ndjson => serde_json::to_string(&Line { change, position }).map(|json| json + "\n"),
        };
        out.extend_from_slice(text.map_err(|error| Problem::internal(error.to_string()))?.as_bytes());
        Ok(())
    }

    /// Adds a sign of life with the position so far, which moves on where nothing is of interest to the client.
    pub fn heartbeat(self, out: &mut BytesMut, position: &str) {
        let text = match self {
            // An id without data is kept by an `EventSource`, and is no event.
            Self::EventStream => format!(": heartbeat\nid: {position}\n\n"),
            Self::Ndjson => format!("{}\n", json!({ "position": position })),
        };
        out.extend_from_slice(text.as_bytes());
    }

    /// Adds why there is nothing more to come.
    pub fn problem(self, out: &mut BytesMut, problem: &Problem) {
        let text = match self {
            Self::EventStream => format!("event: problem\ndata: {}\n\n", problem.document()),
            Self::Ndjson => format!("{}\n", json!({ "problem": problem.document() })),
        };
        out.extend_from_slice(text.as_bytes());
    }
}
