//! A scan as a stream of lines: the same pages one after the other, made as the client takes them. The last line says
//! that it was the last, or what went wrong; a stream that ends without one was cut off.

use std::num::NonZeroUsize;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::{PageAndToken, Scan, write_cursor};
use crate::rest::Problem;
use crate::rest::accept::Accepted;
use crate::rest::parts::{self, Parts};
use crate::rest::stores::{Asked, Position, blocking, position};

const MEDIA_TYPE: &str = "application/x-ndjson";

/// Streams of the host at the same time. Each may hold a few pages.
const STREAMS_MAX: usize = 16;
static STREAMS: Semaphore = Semaphore::const_new(STREAMS_MAX);

/// A client that takes nothing for so long is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Pages that wait for the client.
const PARTS_MAX: usize = 1;

/// Entries of a page, so of a part of the stream.
const PAGE_ENTRIES: usize = 1_000;

/// Whether a client wants lines: where it names them, or refuses the page as one document.
///
/// # Errors
/// When it refuses both.
pub fn is_asked_for(headers: &HeaderMap) -> Result<bool, Problem> {
    let accepted = Accepted::of(headers);
    if accepted.names(MEDIA_TYPE) {
        return Ok(true);
    }
    match (accepted.takes("application/json"), accepted.takes(MEDIA_TYPE)) {
        (Some(false), Some(true)) => Ok(true),
        (Some(false), _) => {
            let detail = format!("accept: expected application/json or {MEDIA_TYPE}, found {accepted}");
            Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", "no such content type", detail))
        }
        // A page is JSON also for who names neither, as browsers do.
        _ => Ok(false),
    }
}

impl Scan {
    /// The most entries of the next page, when so many have been sent.
    pub(super) fn streamed_limit(&self, sent: usize) -> NonZeroUsize {
        let left = self.limit.map_or(PAGE_ENTRIES, |limit| limit.saturating_sub(sent).min(PAGE_ENTRIES));
        NonZeroUsize::new(left).unwrap_or(NonZeroUsize::MIN)
    }
}

/// The stream that begins with a page which was read already, so that what is wrong at once has a status of its own.
///
/// # Errors
/// When there are too many streams already.
pub fn stream(wired: Asked, scan: Scan, first: PageAndToken) -> Result<Response, Problem> {
    let permit = STREAMS.try_acquire().map_err(|_| {
        let detail = format!("{STREAMS_MAX} streams are open already");
        Problem::unavailable("too-many-streams", "the host streams to others", detail)
    })?;
    let (parts, body) = parts::channel(PARTS_MAX);
    tokio::spawn(async move {
        let _permit = permit;
        let last = match send(&wired, scan, first, &parts).await {
            Ok(Some(last)) => last,
            // The client has gone.
            Ok(None) => return,
            Err(problem) => json!({ "error": problem.document() }).to_string(),
        };
        // Nor is it an error when it goes now.
        let _ = send_part(&parts, format!("{last}\n").into()).await;
    });
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response())
}

/// Gives a part to a client; false when it has gone, or takes nothing for too long.
async fn send_part(parts: &Parts, part: Bytes) -> bool {
    matches!(tokio::time::timeout(STALL_TIMEOUT, parts.send(part)).await, Ok(Ok(())))
}

/// What a whole stream ends with.
#[derive(Serialize)]
struct LastLine<'a> {
    end: End,
    positions: Vec<Position<'a>>,
    consistency_token: Option<String>,
}

#[derive(Serialize)]
struct End {
    entries: usize,
    next_cursor: Option<String>,
}

/// Sends page after page; the last line, or `None` when the client has gone.
async fn send(wired: &Asked, mut scan: Scan, first: PageAndToken, parts: &Parts) -> Result<Option<String>, Problem> {
    let (mut page, mut token) = first;
    let mut sent = 0;
    loop {
        sent += page.entries.len();
        let (lines, of_page, back) = blocking(move || Ok((lines(&scan, &page)?, page, scan))).await?;
        (page, scan) = (of_page, back);
        // Also where nothing is found that could be sent.
        if parts.is_closed() || (!lines.is_empty() && !send_part(parts, lines).await) {
            return Ok(None);
        }
        let is_full = scan.limit.is_some_and(|limit| sent >= limit);
        if is_full || page.resume.is_none() {
            let last = LastLine {
                end: End { entries: sent, next_cursor: page.resume.as_ref().map(write_cursor) },
                positions: page.positions.iter().map(position).collect(),
                consistency_token: token.write(),
            };
            return serde_json::to_string(&last).map(Some).map_err(|error| Problem::internal(error.to_string()));
        }
        scan.cursor = page.resume.take();
        scan.freshness.renew();
        let (next, of_next) = scan.page(wired, scan.streamed_limit(sent)).await?;
        token.merge(&of_next);
        page = next;
    }
}

fn lines(scan: &Scan, page: &engine::query::QueryPage) -> Result<Bytes, Problem> {
    let mut lines = Vec::new();
    for entry in &page.entries {
        serde_json::to_writer(&mut lines, &scan.entry(entry)?).map_err(|error| Problem::internal(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines.into())
}
