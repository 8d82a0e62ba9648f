//! Agents report whether something holds for an object; more than half of the known agents decide. The latest report of
//! every agent is kept per object, every report forwards the vote, and once an hour of stream time a summary of every
//! object goes out and objects that nobody reports on any more are forgotten. A report without a value forgets its
//! object. The feature `two-thirds` makes another version of the module, which differs in `is_majority` alone.

use std::collections::BTreeMap;
use std::time::Duration;

use sandbar::prelude::*;
use serde::{Deserialize, Serialize};

const HOUR: Duration = Duration::from_secs(3_600);
const FORGET_AFTER_MS: i64 = 24 * 3_600_000;

/// What an agent says of an object, which is the record's key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Report {
    agent: String,
    state: bool,
    at_ms: i64,
}

/// What is kept of an agent's latest report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Latest {
    state: bool,
    at_ms: i64,
}

/// How the known agents vote at the time of the latest report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Vote {
    at_ms: i64,
    yes: usize,
    agents: usize,
    state: bool,
}

/// What the hourly punctuation needs to know of an object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Schedule {
    last_report_ms: i64,
    reports_since_summary: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Summary {
    at_ms: i64,
    reports: u64,
    vote: Vote,
}

#[sandbar::processor(source = "reports")]
struct MajorityVote {
    #[store(prefetch)]
    latest: Store<String, Json<BTreeMap<String, Latest>>>,
    #[store(prefetch)]
    schedule: Store<String, Json<Schedule>>,
    #[sink]
    votes: Sink<String, Json<Vote>>,
    #[sink]
    summaries: Sink<String, Json<Summary>>,
}

/// Whether so many of the agents decide: more than half of them, or with the feature `two-thirds` more than two thirds.
fn is_majority(yes: usize, agents: usize) -> bool {
    if cfg!(feature = "two-thirds") { yes * 3 > agents * 2 } else { yes * 2 > agents }
}

impl Vote {
    fn of(agents: &BTreeMap<String, Latest>) -> Self {
        let yes = agents.values().filter(|latest| latest.state).count();
        let at_ms = agents.values().map(|latest| latest.at_ms).max().unwrap_or_default();
        Self { at_ms, yes, agents: agents.len(), state: is_majority(yes, agents.len()) }
    }
}

impl MajorityVote {
    fn forget(&mut self, object: &str) -> Result<()> {
        self.latest.delete(object)?;
        self.schedule.delete(object)?;
        self.summaries.forward_tombstone(object)
    }
}

impl Processor for MajorityVote {
    type Key = String;
    type Value = Option<Json<Report>>;

    fn init(&mut self, context: &mut Context) -> Result<()> {
        context.schedule(HOUR, PunctuationType::StreamTime)?;
        Ok(())
    }

    fn process(&mut self, record: Record<String, Option<Json<Report>>>, _context: &mut Context) -> Result<()> {
        let object = &record.key;
        let Some(Report { agent, state, at_ms }) = record.value else {
            return self.forget(object);
        };
        let mut agents = self.latest.get(object)?.unwrap_or_default();
        // A report that was overtaken by a later one of the same agent changes nothing.
        if agents.get(&agent).is_none_or(|latest| latest.at_ms <= at_ms) {
            agents.insert(agent, Latest { state, at_ms });
            self.latest.put(object, &agents)?;
        }

        let mut schedule = self.schedule.get(object)?.unwrap_or_default();
        schedule.last_report_ms = schedule.last_report_ms.max(record.timestamp);
        schedule.reports_since_summary += 1;
        self.schedule.put(object, &schedule)?;

        self.votes.forward(object, &Vote::of(&agents))
    }

    fn punctuate(&mut self, punctuation: Punctuation, _context: &mut Context) -> Result<()> {
        for entry in self.schedule.all() {
            let (object, schedule) = entry?;
            if punctuation.time - schedule.last_report_ms >= FORGET_AFTER_MS {
                self.forget(&object)?;
                continue;
            }
            let agents = self.latest.get(&object)?.unwrap_or_default();
            let summary =
                Summary { at_ms: punctuation.time, reports: schedule.reports_since_summary, vote: Vote::of(&agents) };
            self.summaries.forward(&object, &summary)?;
            self.schedule.put(&object, &Schedule { reports_since_summary: 0, ..schedule })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
