//! What the address of a request has to be: escapes that are whole, and text in its parameters. Decoders of queries are
//! lenient, and a parameter that was garbled on its way would be one that nothing is found for.

use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Problem;

/// Refuses a request whose address cannot be read, with a problem document.
pub async fn well_formed(request: Request, next: Next) -> Response {
    // Nearly every address is plain.
    let is_plain = request.uri().path_and_query().is_none_or(|address| !address.as_str().contains('%'));
    if !is_plain && let Err(problem) = check(request.uri()) {
        return problem.into_response();
    }
    next.run(request).await
}

fn check(uri: &Uri) -> Result<(), Problem> {
    unescape("path", uri.path())?;
    for parameter in uri.query().unwrap_or_default().split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        for part in [name, value] {
            if String::from_utf8(unescape(name, part)?).is_err() {
                return Err(Problem::bad_request(format!("{name}: expected text in UTF-8, found {part:?}")));
            }
        }
    }
    Ok(())
}

/// The bytes of an escaped text.
fn unescape(what: &str, text: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(|| {
            let found: String = after.chars().take(2).collect();
            Problem::bad_request(format!("{what}: expected two hexadecimal digits after %, found {found:?}"))
        })?;
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(byte);
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}
