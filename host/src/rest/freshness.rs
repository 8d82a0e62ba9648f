//! How new an answer has to be: a consistency token, and how long a query may wait until the state is as new as it
//! says. What cannot be reached in time is a problem that says how far the state is, never an older answer.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use engine::query::{PartitionPosition, Role};
use serde_json::Value;

use super::Problem;
use super::stores::position as shown;
use super::token::Token;

const DEFAULT_TIMEOUT_MS: u64 = 5_000;
/// Less than the time after which a request is ended in any case.
const TIMEOUT_MS_MAX: u64 = 20_000;
/// Between two looks at a state that is not new enough.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(2);
const LOOK_INTERVAL_MAX: Duration = Duration::from_millis(50);

/// The kind of the problem that says so.
pub const NOT_REACHED: &str = "position-not-reached";

/// See the module's head.
#[derive(Debug, Clone)]
pub struct Freshness {
    token: Option<Token>,
    timeout: Duration,
    deadline: Instant,
}

impl Freshness {
    /// As a query's `min_position` and `timeout_ms` say.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn of(application: &str, min_position: Option<&str>, timeout_ms: Option<u64>) -> Result<Self, Problem> {
        let token = min_position.map(|text| Token::read(text, application)).transpose()?;
        if timeout_ms.is_some() && token.is_none() {
            return Err(Problem::bad_request("timeout_ms needs min_position"));
        }
        let timeout_ms = timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
        if timeout_ms > TIMEOUT_MS_MAX {
            let detail = format!("timeout_ms: expected at most {TIMEOUT_MS_MAX}, found {timeout_ms}");
            return Err(Problem::bad_request(detail));
        }
        let timeout = Duration::from_millis(timeout_ms);
        Ok(Self { token, timeout, deadline: Instant::now() + timeout })
    }

    /// Gives the next part of an answer as much time as the first.
    pub fn renew(&mut self) {
        self.deadline = Instant::now() + self.timeout;
    }

    /// Whether a copy of a store's partition is new enough. `sources` are the source topics of its task.
    pub fn is_reached(&self, store: &str, sources: &[&str], position: &PartitionPosition) -> bool {
        self.token.as_ref().is_none_or(|token| token.is_reached(store, sources, position))
    }

    /// The same as part of a query for somebody else, as far as it concerns some partitions of a store.
    pub fn query(&self, store: &str, sources: &[&str], partitions: &[i32]) -> String {
        let token = self.token.as_ref().and_then(|token| token.about(store, sources, partitions).write());
        let left = self.left().as_millis();
        token.map(|token| format!("&min_position={token}&timeout_ms={left}")).unwrap_or_default()
    }

    /// How long another host may wait before it answers.
    pub fn left(&self) -> Duration {
        match self.token {
            Some(_) => self.deadline.saturating_duration_since(Instant::now()),
            None => Duration::ZERO,
        }
    }

    /// Waits a little for the state to go on, longer the longer it has taken; false when there is no time left.
    pub async fn wait(&self) -> bool {
        let left = self.left();
        let waited = self.timeout.saturating_sub(left);
        tokio::time::sleep((waited / 4).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX).min(left)).await;
        !left.is_zero()
    }

    /// The token of an answer before its positions are added: what was asked for is reached.
    pub fn token(&self, application: &str) -> Token {
        self.token.clone().unwrap_or_else(|| Token::new(application))
    }
}

/// Whether waiting makes a copy newer: a task that runs is as new as it gets, and another copy is none the newer.
pub fn is_running(position: &PartitionPosition) -> bool {
    position.role == Role::Active && position.lag == 0
}

/// The state is older than what was asked for.
pub fn not_reached(store: &str, position: &PartitionPosition) -> Problem {
    let detail = format!(
        "partition {} of store {store} is not as far as min_position says; ask again, or give it more time with timeout_ms",
        position.partition
    );
    // Numbers and strings always have a form in JSON.
    not_reached_at(detail, serde_json::to_value(shown(position)).ok())
}

/// The same with what another host says of it.
pub fn not_reached_at(detail: String, position: Option<Value>) -> Problem {
    let status = StatusCode::PRECONDITION_FAILED;
    let problem = Problem::new(status, "position-not-reached", "the state is older than asked for", detail);
    Problem { position: position.map(Box::new), retry_after_s: Some(1), ..problem }
}
