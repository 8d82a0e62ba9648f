//! Consistency tokens: how far the state of an application was, partition by partition, when something was answered. A
//! client hands one back, and nothing older is shown to it. The text is opaque to clients and names its application, so that
//! one of another application is refused and not misread. Knows offsets only, and never asks anybody.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::query::PartitionPosition;
use engine::record::Offset;
use serde::{Deserialize, Serialize};

use super::Problem;

/// The header of answers whose body has no room for a token, and of writes.
pub const HEADER: &str = "sandbar-consistency-token";

/// A request head holds at most 16 KiB, and a token must leave room for the rest.
const TEXT_BYTES_MAX: usize = 12 * 1024;

type Offsets = BTreeMap<i32, Offset>;

/// See the module's head. An offset is the one that follows the last record of which the state knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    #[serde(rename = "a")]
    application: String,
    /// By source topic and partition.
    #[serde(rename = "s", default, skip_serializing_if = "BTreeMap::is_empty")]
    sources: BTreeMap<String, Offsets>,
    /// By store and partition of its changelog.
    #[serde(rename = "c", default, skip_serializing_if = "BTreeMap::is_empty")]
    changelogs: BTreeMap<String, Offsets>,
}

impl Token {
    pub fn new(application: &str) -> Self {
        Self { application: application.to_owned(), sources: BTreeMap::new(), changelogs: BTreeMap::new() }
    }

    /// Reads what an answer of this application said.
    ///
    /// # Errors
    /// When it is none, or of another application.
    pub fn read(text: &str, application: &str) -> Result<Self, Problem> {
        let refuse = |detail: String| {
            Problem::new(StatusCode::BAD_REQUEST, "bad-token", "the consistency token cannot be used", detail)
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(refuse(format!("a token has at most {TEXT_BYTES_MAX} characters, this one {}", text.len())));
        }
        let none = || refuse("expected the consistency token of an earlier answer".to_owned());
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| none())?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| none())?;
        if token.application != application {
            return Err(refuse(format!("the token is of application {}, not of {application}", token.application)));
        }
        let mut offsets = token.sources.values().chain(token.changelogs.values()).flatten();
        if offsets.any(|(&partition, &offset)| partition < 0 || offset < 0) {
            return Err(none());
        }
        Ok(token)
    }

    pub fn write(&self) -> String {
        // Maps of numbers and strings always have a form in JSON.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// What is known of a store's changelog.
    #[cfg(test)]
    pub fn changelog(&self, store: &str) -> Option<&Offsets> {
        self.changelogs.get(store)
    }

    /// Adds how far one partition of a store is.
    pub fn add(&mut self, store: &str, position: &PartitionPosition) {
        for (source, offset) in position.sources.iter().flat_map(|sources| &**sources) {
            self.add_source(&source.topic, source.partition, *offset);
        }
        if let Some(offset) = position.changelog_offset {
            raise(&mut self.changelogs, store, position.partition, offset);
        }
    }

    /// Adds that the state must know a source partition below an offset.
    pub fn add_source(&mut self, topic: &str, partition: i32, offset: Offset) {
        raise(&mut self.sources, topic, partition, offset);
    }

    /// Adds everything that another one says.
    pub fn merge(&mut self, other: &Self) {
        for (to, from) in [(&mut self.sources, &other.sources), (&mut self.changelogs, &other.changelogs)] {
            for (name, offsets) in from {
                offsets.iter().for_each(|(&partition, &offset)| raise(to, name, partition, offset));
            }
        }
    }

    /// Whether a copy of a store's partition at this position is as new as the token asks for. `sources` are the source
    /// topics of its task: what the token says of others does not concern it.
    pub fn is_reached(&self, store: &str, sources: &[&str], position: &PartitionPosition) -> bool {
        let partition = position.partition;
        let changelog = self.changelogs.get(store).and_then(|offsets| offsets.get(&partition));
        if changelog.is_some_and(|&asked| position.changelog_offset.unwrap_or(0) < asked) {
            return false;
        }
        sources.iter().all(|&topic| {
            let Some(&asked) = self.sources.get(topic).and_then(|offsets| offsets.get(&partition)) else { return true };
            // A copy that does not know how far its sources are cannot say that it is far enough.
            let known = position.sources.iter().flat_map(|known| &**known);
            let mut at = known.filter(|(source, _)| &*source.topic == topic && source.partition == partition);
            at.any(|&(_, offset)| offset >= asked)
        })
    }
}

/// Never lowers what is there.
fn raise(of: &mut BTreeMap<String, Offsets>, name: &str, partition: i32, offset: Offset) {
    // Looking first spares the copy of the name in most cases.
    if let Some(offsets) = of.get_mut(name) {
        let known = offsets.entry(partition).or_insert(offset);
        *known = offset.max(*known);
    } else {
        of.insert(name.to_owned(), BTreeMap::from([(partition, offset)]));
    }
}

#[cfg(test)]
mod tests;
