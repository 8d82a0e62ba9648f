//! The expected table of the majority vote, and what an output topic says of it. The last record of an object and
//! hour counts, since every report is answered and the last answer has seen them all.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::repository;
use crate::topics::Record;
use crate::weather::read_csv;

/// The result of a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    pub yes: u64,
    pub agents: u64,
    pub state: bool,
}

/// Votes by object and hour.
pub type Votes = BTreeMap<(String, i64), Vote>;

/// What DuckDB computed from the same reports.
///
/// # Errors
/// When the file is missing or not what it should be.
pub fn expected() -> Result<Votes> {
    let table = read_csv(&repository::root().join("examples/data/nycflights13/expected/majority_vote.csv.gz"))?;
    let mut votes = Votes::new();
    for row in &table.rows {
        let number = |column: &str| -> Result<i64> {
            let text = &row[table.column(column)?];
            text.parse().with_context(|| format!("{column} `{text}` is not a number"))
        };
        let vote = Vote {
            yes: u64::try_from(number("yes")?)?,
            agents: u64::try_from(number("agents")?)?,
            state: row[table.column("state")?] == "true",
        };
        votes.insert((row[table.column("key")?].clone(), number("at_ms")?), vote);
    }
    Ok(votes)
}

/// The last vote on each object and hour, of records in offset order within their partition.
///
/// # Errors
/// When a record is not a vote.
pub fn last_of_each(records: &[Record]) -> Result<Votes> {
    let mut votes = Votes::new();
    for record in records {
        let (object, at_ms, vote) =
            parse(record).with_context(|| format!("partition {} offset {}", record.partition, record.offset))?;
        votes.insert((object, at_ms), vote);
    }
    Ok(votes)
}

/// Object, hour and vote of a record.
///
/// # Errors
/// When it is not a vote.
pub fn parse(record: &Record) -> Result<(String, i64, Vote)> {
    let object = record.key.as_str().context("the key is not text")?;
    let number =
        |field: &str| record.value[field].as_u64().with_context(|| format!("`{field}` is missing in {}", record.value));
    let vote = Vote {
        yes: number("yes")?,
        agents: number("agents")?,
        state: record.value["state"].as_bool().with_context(|| format!("`state` is missing in {}", record.value))?,
    };
    let at_ms = record.value.get("at_ms").and_then(Value::as_i64).context("`at_ms` is missing")?;
    Ok((object.to_owned(), at_ms, vote))
}

/// How a result departs from the expected table.
pub struct Comparison {
    pub expected: usize,
    pub equal: usize,
    /// A line for each that is missing, wrong or too many.
    pub differences: Vec<String>,
}

pub fn compare(expected: &Votes, found: &Votes) -> Comparison {
    let mut differences = Vec::new();
    for (place, vote) in expected {
        match found.get(place) {
            None => differences.push(format!("{} at {}: expected {vote:?}, found nothing", place.0, place.1)),
            Some(other) if other != vote => {
                differences.push(format!("{} at {}: expected {vote:?}, found {other:?}", place.0, place.1));
            }
            Some(_) => {}
        }
    }
    let equal = expected.len() - differences.len();
    for (place, vote) in found.iter().filter(|(place, _)| !expected.contains_key(*place)) {
        differences.push(format!("{} at {}: expected nothing, found {vote:?}", place.0, place.1));
    }
    Comparison { expected: expected.len(), equal, differences }
}
