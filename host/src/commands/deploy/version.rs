//! A version of an application as a host tells it, and what people see of one. What a newer host tells beside this is
//! passed over, and shown by `-o json`.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::commands::dlq::moment;
use crate::text;
use crate::versions::VersionState;

/// Of a sha-256, for people.
const DIGEST_CHARACTERS: usize = 12;
const REASON_MAX_CHARACTERS: usize = 400;

/// See the module's head.
#[derive(Debug, Clone, Deserialize)]
pub struct Version {
    /// None in the answer to a dry run.
    pub number: Option<u64>,
    /// The sha-256 of the module.
    pub module: String,
    pub state: VersionState,
    /// In which way it comes in place of the one before, `swap` or `restart`.
    pub kind: Option<String>,
    pub who: Option<String>,
    pub when_ms: Option<i64>,
    pub why: Option<String>,
    #[serde(default)]
    pub moves: Vec<Move>,
    /// What becomes of what the version before had.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// What whoever deploys it should know beside.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Only where one version is asked for.
    #[serde(default)]
    pub tasks: Vec<TaskOfVersion>,
    /// The whole answer.
    #[serde(skip)]
    pub json: Value,
}

/// A step of a version's way.
#[derive(Debug, Clone, Deserialize)]
pub struct Move {
    pub state: Option<VersionState>,
    pub reason: Option<String>,
}

/// `store counts` is `kept`, `migrated`, `created`, `dropped` or `reset`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Change {
    pub what: String,
    pub effect: String,
}

/// A task with the version that it runs.
#[derive(Debug, Clone, Deserialize)]
pub struct TaskOfVersion {
    pub version: u64,
    #[serde(default)]
    pub partitions: Vec<PartitionOfVersion>,
}

/// From which offset on a partition is the version's, and how far it is.
#[derive(Debug, Clone, Deserialize)]
pub struct PartitionOfVersion {
    pub since: i64,
    pub next_offset: Option<i64>,
}

impl Version {
    /// Reads a host's answer.
    ///
    /// # Errors
    /// When it is none of a version.
    pub fn of(json: Value) -> Result<Self> {
        let version: Self = serde_json::from_value(json.clone()).context("the host's answer is no version")?;
        Ok(Self { json, ..version })
    }

    /// With what only the answer to its deploy says: what becomes of the state.
    pub fn of_deploy(mut self, answer: &Self) -> Self {
        if self.changes.is_empty() && self.notes.is_empty() {
            self.changes.clone_from(&answer.changes);
            self.notes.clone_from(&answer.notes);
            for name in ["changes", "notes"] {
                if let Some(said) = answer.json.get(name) {
                    self.json[name] = said.clone();
                }
            }
        }
        self
    }

    /// `version 3`, or what would become one.
    pub fn name(&self) -> String {
        self.number.map_or_else(|| "the version".to_owned(), |number| format!("version {number}"))
    }

    pub fn short_digest(&self) -> &str {
        let end = self.module.char_indices().nth(DIGEST_CHARACTERS).map_or(self.module.len(), |(end, _)| end);
        &self.module[..end]
    }

    /// Why it is where it is, as far as that is said.
    pub fn reason(&self) -> Option<&str> {
        self.moves.last().and_then(|last| last.reason.as_deref())
    }

    /// Whether it was active before, so that it came back.
    pub fn came_back(&self) -> bool {
        self.moves.iter().filter(|one| one.state == Some(VersionState::Active)).count() > 1
    }

    /// Whether a task has processed a record with it.
    pub fn has_processed(&self) -> bool {
        let of_this = self.tasks.iter().filter(|task| Some(task.version) == self.number);
        let mut partitions = of_this.flat_map(|task| &task.partitions);
        partitions.any(|partition| partition.next_offset.is_some_and(|next| next > partition.since))
    }

    /// How many of the tasks run it.
    pub fn tasks_on_it(&self) -> usize {
        self.tasks.iter().filter(|task| Some(task.version) == self.number).count()
    }

    /// Number, state, kind, module, moment, who and why, as a line of a table.
    pub fn row(&self) -> String {
        let or_dash = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), |text| text::short(text, 40));
        let fields = [
            self.number.map_or_else(|| "-".to_owned(), |number| number.to_string()),
            self.state.as_str().to_owned(),
            or_dash(self.kind.as_deref()),
            self.short_digest().to_owned(),
            self.when_ms.map_or_else(|| "-".to_owned(), moment::show),
            or_dash(self.who.as_deref()),
            match (self.why.as_deref(), self.reason()) {
                (None, None) => "-".to_owned(),
                (why, None) => or_dash(why),
                (_, Some(reason)) => text::short(reason, REASON_MAX_CHARACTERS),
            },
        ];
        fields.join("\t")
    }

    /// What was kept, and what was not, a line for each effect, then the notes.
    pub fn effects(&self) -> Vec<String> {
        let mut effects: Vec<(&str, Vec<&str>)> = Vec::new();
        for Change { what, effect } in &self.changes {
            match effects.iter_mut().find(|(other, _)| other == effect) {
                Some((_, whats)) => whats.push(what),
                None => effects.push((effect, vec![what])),
            }
        }
        let lines = effects.into_iter().map(|(effect, whats)| format!("{effect}: {}", whats.join(", ")));
        lines.chain(self.notes.iter().map(|note| format!("note: {note}"))).collect()
    }
}

#[cfg(test)]
mod tests;
