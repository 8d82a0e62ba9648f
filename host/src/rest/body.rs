//! The bodies of requests, read whole before anybody looks at a request: within a time, up to a size. So no handler
//! waits for a slow client, and all of them refuse a large body in the same way.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;

use super::connections::{BusyBody, Marker};
use super::{Problem, peers, versions};

/// Of a body with a module, which has a limit of its own beside.
const MODULE_BYTES_MAX: usize = 64 << 20;

/// What a body may take.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    pub bytes_max: usize,
    /// From the request's head to the end of its body.
    pub timeout: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self { bytes_max: 1 << 20, timeout: Duration::from_secs(30) }
    }
}

/// Reads the body of a request, or refuses it and closes the connection.
pub async fn within_body_limits(State(limits): State<BodyLimits>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, Body::empty())).await;
    }
    // Hosts ask each other for keys in hexadecimal.
    let is_large = peers::is_forwarded(&parts.headers) && parts.uri.path().ends_with("/batch-get");
    // Before a module is read from somebody who may not deploy it.
    let is_module = parts.method == Method::POST
        && parts.uri.path().ends_with("/versions")
        && versions::is_allowed(parts.extensions.get(), &parts.headers).is_ok();
    let bytes_max = match (is_large, is_module) {
        (_, true) => limits.bytes_max.max(MODULE_BYTES_MAX),
        (true, false) => 4 * limits.bytes_max,
        (false, false) => limits.bytes_max,
    };
    let read = tokio::time::timeout(limits.timeout, read(body, bytes_max)).await;
    let refusal = match read {
        Ok(Ok(body)) => {
            let busy = parts.extensions.get::<Marker>().map(Marker::busy);
            let response = next.run(Request::from_parts(parts, body)).await;
            return response.map(|body| BusyBody::around(body, busy));
        }
        Ok(Err(problem)) => problem,
        Err(_) => {
            let detail = format!("its body did not come within {} ms", limits.timeout.as_millis());
            Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", "the request took too long", detail)
        }
    };
    let mut response = refusal.into_response();
    // The rest of the body would be taken for the next request.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn read(mut body: Body, bytes_max: usize) -> Result<Body, Problem> {
    let too_large = || {
        let detail = format!("a body may have {bytes_max} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "the request is too large", detail)
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let mut read = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?;
        // What is no data are trailers, which nobody asks for.
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > bytes_max {
            return Err(too_large());
        }
        read.extend_from_slice(&data);
    }
    Ok(Body::from(read.freeze()))
}
