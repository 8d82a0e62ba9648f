//! Errors of the REST interface as RFC 9457 problem documents: a type that programs compare, a detail that names
//! the thing, what was expected and what to do. Every error answer goes through here.

use std::borrow::Cow;

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Bytes of a detail at most: what a client sent is not sent back whole.
const DETAIL_BYTES_MAX: usize = 2_000;

/// A refused request.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub status: StatusCode,
    /// Stable name of the kind, for example `store-not-found`.
    pub kind: &'static str,
    pub title: &'static str,
    pub detail: String,
    /// Seconds after which another try makes sense.
    pub retry_after_s: Option<u32>,
    /// How far the state is, where that is what the problem is about.
    pub position: Option<Box<Value>>,
    /// Each of several points that stand against what was asked for.
    pub points: Option<Box<[String]>>,
    /// How far the state was of which it speaks, for later questions.
    pub token: Option<String>,
}

impl Problem {
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            title,
            detail: detail.into(),
            retry_after_s: None,
            position: None,
            points: None,
            token: None,
        }
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "the request cannot be read", detail)
    }

    pub fn not_found(kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, kind, title, detail)
    }

    /// The state is not here now, but will be, here or on another host.
    pub fn unavailable(kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail);
        Self { retry_after_s: Some(1), ..problem }
    }

    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the host failed", detail)
    }

    pub fn document(&self) -> Value {
        let mut document = json!({
            "type": kind_name(self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": shortened(&self.detail),
        });
        if let Some(position) = &self.position {
            document["position"] = Value::clone(position);
        }
        if let Some(points) = &self.points {
            document["incompatibilities"] = points.iter().map(|point| shortened(point)).collect();
        }
        if let Some(token) = &self.token {
            document["consistency_token"] = token.as_str().into();
        }
        document
    }
}

fn shortened(detail: &str) -> Cow<'_, str> {
    if detail.len() <= DETAIL_BYTES_MAX {
        return detail.into();
    }
    let end = detail.floor_char_boundary(DETAIL_BYTES_MAX);
    format!("{}… ({} bytes in all)", &detail[..end], detail.len()).into()
}

/// The `type` of a problem's document.
pub fn kind_name(kind: &str) -> String {
    format!("urn:sandbar:problem:{kind}")
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        // The words of Rust's own parser, which say nothing to who has not read it.
        let text = rejection.body_text();
        let text = text.replace("invalid digit found in string", "expected a whole number, not below 0");
        Self::bad_request(text.replace("number too large to fit in target type", "expected a smaller number"))
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        // That a body is too large was found before anybody asked for it, so this one broke off.
        Self::bad_request(rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.document().to_string();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
