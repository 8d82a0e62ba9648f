//! A version of an application: what it is, who deployed it, why, and the way it went. Its state changes by the table
//! of moves only.

use std::collections::BTreeMap;

use engine::record::Timestamp;
use serde::{Deserialize, Serialize};

use super::digest::ModuleDigest;
use super::manifest::VersionManifest;
use super::state::{IllegalMove, Move, VersionState};

/// How long a text of a user's or a host's may be that is kept for good.
const TEXT_MAX_BYTES: usize = 2_000;
/// Moves that a version keeps: its first, and the latest. Swapping to and fro must not make it grow for ever.
const MOVES_MAX: usize = 500;

/// What a change of versions costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ChangeKind {
    /// Task by task at a commit, without a rebalance: sources, sinks and stores are the same.
    Swap,
    /// The application's threads close clean and start again in the same process.
    Restart,
    /// It cannot be done.
    Refused,
}

impl ChangeKind {
    /// In a word, for people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Swap => "swap",
            Self::Restart => "restart",
            Self::Refused => "refused",
        }
    }
}

/// Who deploys what, for a new version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVersion {
    pub number: u64,
    pub module: ModuleDigest,
    pub manifest: VersionManifest,
    pub who: String,
    pub when_ms: Timestamp,
    pub why: String,
    pub kind: ChangeKind,
    /// The module's detached signature in base64, as `signature::Signature` shows it.
    pub signature: Option<String>,
}

/// A version, as it is kept. What a newer host has written into it beside these fields stays in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// From 1.
    pub number: u64,
    pub module: ModuleDigest,
    pub manifest: VersionManifest,
    pub who: String,
    /// Milliseconds since the epoch.
    pub when_ms: Timestamp,
    pub why: String,
    /// What it was to the version before it.
    pub kind: ChangeKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    state: VersionState,
    moves: Vec<Move>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

impl Version {
    /// A version that begins as `PREPARING`. Long texts are cut.
    pub fn new(new: NewVersion) -> Self {
        let NewVersion { number, module, manifest, who, when_ms, why, kind, signature } = new;
        let (state, others) = (VersionState::Preparing, BTreeMap::new());
        let moves = vec![Move { state, when_ms, reason: String::new() }];
        let (who, why) = (cut(who), cut(why));
        Self { number, module, manifest, who, when_ms, why, kind, signature, state, moves, others }
    }

    pub fn state(&self) -> VersionState {
        self.state
    }

    /// The way it went, the latest last. Of very many, some between the first and the latest are missing.
    pub fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// Moves it on; a long reason is cut.
    ///
    /// # Errors
    /// When the table has no such move; then nothing has changed.
    pub fn move_to(
        &mut self,
        to: VersionState,
        when_ms: Timestamp,
        reason: impl Into<String>,
    ) -> Result<(), IllegalMove> {
        let (number, from) = (self.number, self.state);
        if !to.may_follow(from) {
            return Err(IllegalMove { number, from, to });
        }
        self.state = to;
        if self.moves.len() >= MOVES_MAX {
            self.moves.remove(1);
        }
        self.moves.push(Move { state: to, when_ms, reason: cut(reason.into()) });
        Ok(())
    }

    /// Whether it is the same module with the same manifest.
    pub fn is_same(&self, module: &ModuleDigest, manifest: &VersionManifest) -> bool {
        self.module == *module && self.manifest == *manifest
    }

    /// Reads the version of this number.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(super) fn read(number: u64, json: &[u8]) -> Result<Self, String> {
        let version: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if version.number != number {
            return Err(format!("it is of version {}", version.number));
        }
        if version.moves.last().map(|last| last.state) != Some(version.state) {
            return Err(format!("its state is {}, but its last move is another one", version.state));
        }
        Ok(version)
    }
}

/// Which version the application runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    pub number: u64,
    /// The one that was active before, to which a rollback goes.
    pub previous: Option<u64>,
    /// The last confirmed one before it, where the previous one is not confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_before: Option<u64>,
    /// It has come through its probation, or had none.
    #[serde(default, rename = "confirmed")]
    pub is_confirmed: bool,
    /// Milliseconds since the epoch.
    pub when_ms: Timestamp,
    pub by: String,
    pub why: String,
}

/// At most so much of a text, whole characters.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX_BYTES {
        let end = (0..=TEXT_MAX_BYTES).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
