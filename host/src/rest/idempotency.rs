//! Writes that clients may send again: the outcome of each idempotency key is kept for a while, and whoever comes with
//! the same key gets it instead of a second write. A write whose outcome is not known stays unknown under its key. One
//! host decides for a partition: the one that processes it.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use super::Problem;
use crate::runtime::writer::{WriteError, Written};

/// The header of a request, and in small letters that of its record.
pub const HEADER: &str = "idempotency-key";

/// For so long an outcome is kept.
const KEPT: Duration = Duration::from_secs(600);
/// So many are kept at most; beyond it no other is taken.
const KEYS_MAX: usize = 100_000;
const KEY_BYTES_MAX: usize = 255;

/// What is known under a key.
#[derive(Debug, Clone)]
enum Outcome {
    Pending,
    Written(Written),
    Unknown(String),
}

struct Kept {
    fingerprint: u64,
    outcome: Outcome,
}

#[derive(Default)]
struct Keys {
    kept: HashMap<String, Kept>,
    /// The oldest first.
    order: VecDeque<(Instant, String)>,
}

/// See the module's head.
#[derive(Default)]
pub struct Outcomes(Mutex<Keys>);

/// Whether a request under a key goes on.
#[derive(Debug)]
pub enum Begun {
    /// It is the first; its end has to be told.
    First,
    /// It was done before.
    Before(Written),
}

/// Reads the header's text.
///
/// # Errors
/// When it is empty, too long, or not of visible ASCII characters.
pub fn read_key(text: &[u8]) -> Result<String, Problem> {
    let is_fine = !text.is_empty() && text.len() <= KEY_BYTES_MAX && text.iter().all(u8::is_ascii_graphic);
    let text = std::str::from_utf8(text).ok().filter(|_| is_fine);
    text.map(str::to_owned).ok_or_else(|| {
        Problem::bad_request(format!("{HEADER}: expected 1 to {KEY_BYTES_MAX} visible ASCII characters"))
    })
}

/// What tells a request from another one under the same key.
pub fn fingerprint(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

impl Outcomes {
    /// Begins a request under a key.
    ///
    /// # Errors
    /// When the key belongs to another request, that one has not ended, or nobody knows how it ended.
    pub fn begin(&self, key: &str, fingerprint: u64, now: Instant) -> Result<Begun, Problem> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.forget(now);
        match keys.kept.get(key) {
            Some(kept) if kept.fingerprint != fingerprint => {
                let detail = format!("{HEADER} {key} was given to another write");
                Err(Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "idempotency-key-reused",
                    "the key is of another write",
                    detail,
                ))
            }
            Some(Kept { outcome: Outcome::Written(written), .. }) => Ok(Begun::Before(written.clone())),
            Some(Kept { outcome: Outcome::Pending, .. }) => {
                let detail = format!("the write under {HEADER} {key} has not ended; ask again");
                let title = "the idempotency key is in use";
                let problem = Problem::new(StatusCode::CONFLICT, "write-pending", title, detail);
                Err(Problem { retry_after_s: Some(1), ..problem })
            }
            Some(Kept { outcome: Outcome::Unknown(detail), .. }) => {
                let detail = format!("the write under {HEADER} {key}: {detail}");
                let title = "the outcome of the write is not known";
                Err(Problem::new(StatusCode::CONFLICT, "write-unknown", title, detail))
            }
            // To forget one that may still come again would be to do it twice.
            None if keys.kept.len() >= KEYS_MAX => {
                let detail = format!("{KEYS_MAX} idempotency keys of the last minutes are kept already");
                Err(Problem::unavailable("write-unavailable", "nothing was written", detail))
            }
            None => {
                keys.kept.insert(key.to_owned(), Kept { fingerprint, outcome: Outcome::Pending });
                keys.order.push_back((now, key.to_owned()));
                Ok(Begun::First)
            }
        }
    }

    /// Tells how the first request under a key ended. One that wrote nothing may be tried again under it.
    pub fn end(&self, key: &str, outcome: &Result<Written, WriteError>) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match outcome {
            Ok(written) => Outcome::Written(written.clone()),
            Err(error @ WriteError::Unknown(_)) => Outcome::Unknown(error.to_string()),
            Err(WriteError::Refused(_) | WriteError::Unavailable(_)) => {
                keys.kept.remove(key);
                keys.order.retain(|(_, kept)| kept != key);
                return;
            }
        };
        if let Some(kept) = keys.kept.get_mut(key) {
            kept.outcome = outcome;
        }
    }
}

impl Keys {
    fn forget(&mut self, now: Instant) {
        while let Some((since, _)) = self.order.front() {
            if now.saturating_duration_since(*since) < KEPT {
                return;
            }
            if let Some((_, key)) = self.order.pop_front() {
                self.kept.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
