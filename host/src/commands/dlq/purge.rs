//! `sandbar dlq purge`: removes dead letters from the start of their partitions on, which is all that Kafka can remove.
//! Never removes what is not committed yet: nobody has seen it. Removes records that are no dead letters only where
//! somebody asked for that, so that a wrong name does not empty a topic of other records.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Result, anyhow, bail};
use engine::record::{Offset, Timestamp};
use kafka::KafkaClients;
use kafka::topics::PartitionBounds;
use serde_json::json;

use super::letter::{DeadLetter, NoDeadLetter};
use super::position::Position;
use super::scan::{self, Scan};
use super::{Place, counted, moment};
use crate::exit::UsageError;
use crate::terminal::{Terminal, can_ask, confirmed};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The topic; not needed where --before names a position in it
    topic: Option<String>,
    /// Remove what stands before a position TOPIC@PARTITION:OFFSET (one for each partition), or what failed before a
    /// time: `720h` ago, or 2026-11-27T17:30:00Z
    #[arg(long, value_name = "POSITION|TIME", required_unless_present = "all", conflicts_with = "all")]
    before: Vec<Before>,
    /// Remove all
    #[arg(long)]
    all: bool,
    /// Remove records that are no dead letters too
    #[arg(long)]
    any_record: bool,
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; needed where there is no terminal
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Before {
    Position(Position),
    Time(Timestamp),
}

impl FromStr for Before {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('@') { text.parse().map(Self::Position) } else { moment::parse(text).map(Self::Time) }
    }
}

/// What a call keeps.
#[derive(Debug, PartialEq, Eq)]
enum Keep {
    Nothing,
    /// From these offsets on; everything of other partitions.
    From(BTreeMap<i32, Offset>),
    /// From the first dead letter on that failed then or later.
    Since(Timestamp),
}

/// Runs the command.
///
/// # Errors
/// When nobody can be asked, the topic is not there, a position is outside of it, records are no dead letters, or the
/// broker does not remove the records.
pub fn run(arguments: &Arguments, terminal: Terminal) -> Result<()> {
    let (topic, keep) = read(arguments.topic.as_deref(), &arguments.before)?;
    if !arguments.yes && !arguments.dry_run && !can_ask() {
        let message = "nothing was removed: there is no terminal to ask whether to remove; add --yes";
        return Err(UsageError(message.to_owned()).into());
    }
    let (connected, topic) = arguments.place.open(topic.as_deref(), terminal)?;
    let clients = &connected.clients;
    let bounds = scan::bounds(clients, &topic)?;
    let ends = ends(clients, &topic, &bounds, &keep)?;
    if !arguments.any_record {
        check_dead_letters(clients, &topic, &bounds, &ends)?;
    }
    if arguments.dry_run || ends.is_empty() {
        return tell("would-purge", "would remove", &topic, &bounds, &ends, terminal);
    }
    let question = format!("remove {} of {topic}?", counted(total(&removed(&bounds, &ends)), "offset"));
    if !arguments.yes && !confirmed(&question)? {
        bail!("nothing was removed");
    }
    let mut starts = BTreeMap::new();
    let mut refused = Vec::new();
    for (partition, start) in clients.delete_records(&topic, &ends)? {
        match start {
            Ok(start) => drop(starts.insert(partition, start)),
            Err(error) => refused.push(error),
        }
    }
    tell("purged", "removed", &topic, &bounds, &starts, terminal)?;
    match refused.into_iter().next() {
        None => Ok(()),
        Some(error) => Err(anyhow!(error).context(format!("not all was removed from {topic}"))),
    }
}

/// The topic, where it is named, and what is to be kept of it.
fn read(topic: Option<&str>, before: &[Before]) -> Result<(Option<String>, Keep), UsageError> {
    let mut named = topic.map(str::to_owned);
    let mut keep = Keep::Nothing;
    for before in before {
        keep = match (keep, before) {
            (Keep::Nothing, Before::Time(time)) => Keep::Since(*time),
            (Keep::Nothing | Keep::From(_), Before::Position(position))
                if named.as_ref().is_some_and(|topic| *topic != position.topic) =>
            {
                let message = format!("--before {position}: a position in {}", named.unwrap_or_default());
                return Err(UsageError(format!("{message} was expected")));
            }
            (keep @ (Keep::Nothing | Keep::From(_)), Before::Position(position)) => {
                named = Some(position.topic.clone());
                let mut offsets = if let Keep::From(offsets) = keep { offsets } else { BTreeMap::new() };
                if offsets.insert(position.partition, position.offset).is_some() {
                    return Err(UsageError(format!("--before names partition {} twice", position.partition)));
                }
                Keep::From(offsets)
            }
            _ => return Err(UsageError("--before takes one time, or positions".to_owned())),
        };
    }
    Ok((named, keep))
}

/// Up to where records are removed, of the partitions that lose some.
fn ends(clients: &KafkaClients, topic: &str, bounds: &[PartitionBounds], keep: &Keep) -> Result<BTreeMap<i32, Offset>> {
    let all = || bounds.iter().map(|bounds| (bounds.partition, bounds.stable_end)).collect();
    let mut ends: BTreeMap<i32, Offset> = match keep {
        Keep::Nothing => all(),
        Keep::From(offsets) => {
            for (partition, offset) in offsets {
                match bounds.iter().find(|bounds| bounds.partition == *partition) {
                    None => {
                        bail!("{topic}@{partition}:{offset}: the topic has the partitions 0 to {}", bounds.len() - 1)
                    }
                    Some(found) if *offset > found.stable_end => {
                        bail!("{topic}@{partition}:{offset}: the partition ends before {}", found.stable_end)
                    }
                    Some(_) => {}
                }
            }
            offsets.clone()
        }
        Keep::Since(time) => {
            let mut ends = all();
            let mut scan = Scan::between(clients, topic, bounds.to_vec());
            while let Some(records) = scan.next()? {
                let kept = records.into_iter().find_map(|record| {
                    let (partition, offset, timestamp) = (record.partition, record.offset, record.timestamp);
                    let time_of = DeadLetter::of(topic, record).map_or(timestamp, |letter| letter.time());
                    (time_of >= *time).then_some((partition, offset))
                });
                if let Some((partition, offset)) = kept {
                    ends.entry(partition).and_modify(|end| *end = offset.min(*end));
                    scan.skip_partition();
                }
            }
            ends
        }
    };
    ends.retain(|partition, end| bounds.iter().any(|bounds| bounds.partition == *partition && bounds.start < *end));
    Ok(ends)
}

/// Refuses a range that holds records which are no dead letters.
fn check_dead_letters(
    clients: &KafkaClients,
    topic: &str,
    bounds: &[PartitionBounds],
    ends: &BTreeMap<i32, Offset>,
) -> Result<()> {
    let in_range = bounds.iter().filter(|bounds| ends.contains_key(&bounds.partition)).copied().collect();
    let mut scan = Scan::between(clients, topic, in_range);
    let mut others: u64 = 0;
    let mut first = None;
    while let Some(records) = scan.next()? {
        for record in records {
            if ends.get(&record.partition).is_none_or(|end| record.offset >= *end) {
                scan.skip_partition();
                break;
            }
            if let Err(NoDeadLetter(position)) = DeadLetter::of(topic, record) {
                others += 1;
                first.get_or_insert(position);
            }
        }
    }
    let Some(first) = first else { return Ok(()) };
    let records = counted(others, "record");
    let are = if others == 1 { "is no dead letter" } else { "are no dead letters" };
    let message = format!(
        "nothing was removed: {records} of {topic} that this would remove {are}, the first at {first}; add --any-record \
         where they are to go too"
    );
    Err(UsageError(message).into())
}

/// How many offsets are between the old starts and the new ones.
fn removed(bounds: &[PartitionBounds], starts: &BTreeMap<i32, Offset>) -> BTreeMap<i32, u64> {
    let of = |bounds: &PartitionBounds| {
        let count = u64::try_from(starts.get(&bounds.partition)? - bounds.start).ok()?;
        Some((bounds.partition, count))
    };
    bounds.iter().filter_map(of).filter(|(_, count)| *count > 0).collect()
}

fn total(removed: &BTreeMap<i32, u64>) -> u64 {
    removed.values().sum()
}

fn tell(
    event: &str,
    verb: &str,
    topic: &str,
    bounds: &[PartitionBounds],
    starts: &BTreeMap<i32, Offset>,
    terminal: Terminal,
) -> Result<()> {
    let removed = removed(bounds, starts);
    let total = total(&removed);
    let parts: Vec<String> =
        removed.iter().map(|(partition, count)| format!("{count} of {topic}-{partition}")).collect();
    let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    let fields = json!({ "topic": topic, "offsets": total, "partitions": removed });
    terminal.notice(event, &format!("{verb} {}{parts}", counted(total, "offset")), fields);
    Ok(())
}

#[cfg(test)]
mod tests;
