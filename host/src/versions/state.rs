//! Where a version stands, and the one table of the moves that it may make.

use std::fmt;

use engine::record::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a version stands. In JSON and for people in upper case, as Kafka Streams writes its states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VersionState {
    /// Checked, compiled and tried out, beside the version that runs.
    Preparing,
    /// Nothing stands against it.
    Ready,
    /// Tasks go over to it.
    Swapping,
    /// The one that the application runs.
    Active,
    /// Another one took over from it.
    Superseded,
    /// Something stood against it; it never ran.
    Refused,
    /// It was taken back, by the host or by hand.
    RolledBack,
}

/// Which states may follow which. A version that ran may run again, which is a rollback to it; one that was refused may
/// not, since what stood against it still does: it is deployed again, as a new version.
const MOVES: [(VersionState, &[VersionState]); 7] = [
    (VersionState::Preparing, &[VersionState::Ready, VersionState::Refused]),
    (VersionState::Ready, &[VersionState::Swapping, VersionState::Refused]),
    (VersionState::Swapping, &[VersionState::Active, VersionState::Superseded, VersionState::RolledBack]),
    (VersionState::Active, &[VersionState::Superseded, VersionState::RolledBack]),
    (VersionState::Superseded, &[VersionState::Swapping]),
    (VersionState::RolledBack, &[VersionState::Swapping]),
    (VersionState::Refused, &[]),
];

impl VersionState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "PREPARING",
            Self::Ready => "READY",
            Self::Swapping => "SWAPPING",
            Self::Active => "ACTIVE",
            Self::Superseded => "SUPERSEDED",
            Self::Refused => "REFUSED",
            Self::RolledBack => "ROLLED_BACK",
        }
    }

    /// Whether a deploy of it is still on its way.
    pub fn is_on_its_way(self) -> bool {
        matches!(self, Self::Preparing | Self::Ready | Self::Swapping)
    }

    /// Whether this state may follow that one: the only place that decides it.
    pub fn may_follow(self, from: Self) -> bool {
        MOVES.iter().any(|(state, next)| *state == from && next.contains(&self))
    }
}

impl fmt::Display for VersionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// That a version came into a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub state: VersionState,
    /// Milliseconds since the epoch.
    pub when_ms: Timestamp,
    /// Why, for people; empty where it needs no reason.
    #[serde(default)]
    pub reason: String,
}

/// A move that the table does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {number} is {from} and cannot become {to}")]
pub struct IllegalMove {
    pub number: u64,
    pub from: VersionState,
    pub to: VersionState,
}

#[cfg(test)]
mod tests;
