//! What must hold at any moment of a run, looked at from outside: committed offsets and the times committed with them
//! never go back, two hosts do not run one task for long, and what a crash leaves of a store is what its changelog says
//! up to the store's offset. Reads outputs and changelogs all the time, so that they are known as they were written.

use std::collections::{BTreeMap, BTreeSet};

use broker::core::metadata::CommittedOffset;
use broker::direct::DirectBroker;
use engine::clock::Clock;
use engine::record::{Offset, Record, TopicPartition};
use engine::task::offset_metadata::{self, Committed};
use engine::testing::CrashStores;
use engine::topology::{TaskId, changelog_topic};

use crate::checker::Violation;
use crate::host::APPLICATION;
use crate::observation::Rows;
use crate::scenario::Scenario;
use crate::tally::{LATEST, OUTPUT, SCHEMA_MAX, TALLIES, generation};

/// How long two hosts may believe that they run a task: until the older one has heard of the rebalance.
const TWO_OWNERS_MAX_MS: u64 = 10_000;

/// What a reader of committed records has read of a log.
#[derive(Debug, Default)]
struct History {
    next: Offset,
    records: Vec<Record>,
}

/// Everything that was seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    committed: BTreeMap<(String, i32), CommittedOffset>,
    histories: BTreeMap<TopicPartition, History>,
    /// Tasks that more than one thread runs, and since when.
    shared: BTreeMap<TaskId, u64>,
    /// Records of changelogs were compacted or deleted.
    thinned: bool,
    /// How many stores were compared with their changelogs after a crash.
    pub stores_checked: u64,
}

/// Every partition of a topic; none while it does not exist.
pub fn partitions_of(broker: &DirectBroker, topic: &str) -> Vec<TopicPartition> {
    let count = broker.core().topic(topic).map_or(0, |topic| topic.partitions.len());
    (0..count).map(|n| TopicPartition::new(topic, n as i32)).collect()
}

/// The newest value of each key of the records below an offset.
fn fold<'a>(records: impl IntoIterator<Item = &'a Record>, below: Offset) -> Rows {
    let mut rows = Rows::new();
    for record in records.into_iter().take_while(|record| record.offset < below) {
        let Some(key) = &record.key else { continue };
        match &record.value {
            Some(value) => rows.insert(key.to_vec(), value.to_vec()),
            None => rows.remove(&key[..]),
        };
    }
    rows
}

impl Watch {
    /// The group's offsets never go back, and neither do the times, the changelog offsets and, once something was
    /// processed with them, the schemas that are committed with them.
    pub fn look_at_offsets(&mut self, broker: &DirectBroker) -> Result<(), Violation> {
        for (topic, partitions) in broker.core().committed_offsets(APPLICATION) {
            for (partition, committed) in partitions {
                let before = self.committed.insert((topic.clone(), partition), committed.clone());
                let Some(before) = before.filter(|before| *before != committed) else { continue };
                let (known, now) =
                    (offset_metadata::decode(&before.metadata), offset_metadata::decode(&committed.metadata));
                // Another schema has another changelog.
                let may_be_gone = |store: &str| store.starts_with(TALLIES);
                let mut changelogs = known.changelogs.iter();
                let fell = changelogs.any(|(store, offset)| match now.changelogs.get(store) {
                    Some(now) => now < offset,
                    None => !may_be_gone(store),
                });
                let schema = |of: &Committed| of.schemas.get(TALLIES).copied().unwrap_or(1);
                // Rows that were changed since they were taken over are in no older schema.
                let is_lowered = schema(&now) < schema(&known) && known.schema_since != Some(before.offset);
                if is_lowered || committed.offset < before.offset || now.partition_time < known.partition_time || fell {
                    let detail = format!("from {before:?} with {known:?} to {committed:?} with {now:?}");
                    return Err(Violation::WentBack { of: format!("the group in {topic}-{partition}"), detail });
                }
            }
        }
        Ok(())
    }

    /// Reads on in outputs and changelogs.
    pub fn look_at_logs(&mut self, broker: &DirectBroker, scenario: &Scenario) {
        let generations = (1..=SCHEMA_MAX).map(|schema| changelog_topic(APPLICATION, &generation(schema)));
        for topic in generations.chain([OUTPUT.to_owned(), changelog_topic(APPLICATION, LATEST)]) {
            for partition in (0..scenario.partitions).map(|n| TopicPartition::new(topic.as_str(), n)) {
                let history = self.histories.entry(partition.clone()).or_default();
                // A changelog is made by the first host that starts.
                if let Ok((records, next)) = broker.committed_records_from(&partition, history.next) {
                    history.records.extend(records);
                    history.next = next;
                }
            }
        }
    }

    /// Records of changelogs are about to be compacted or deleted: what a restore has read of one at some offset is no
    /// longer everything that was written up to there.
    pub fn look_before_thinning(&mut self, broker: &DirectBroker, scenario: &Scenario) {
        self.look_at_logs(broker, scenario);
        self.thinned = true;
    }

    /// A task is run by one thread. `running` leaves out the hosts that stand still.
    pub fn look_at_owners(
        &mut self,
        running: impl Iterator<Item = (TaskId, String)>,
        clock: &dyn Clock,
    ) -> Result<(), Violation> {
        let mut owners: BTreeMap<TaskId, Vec<String>> = BTreeMap::new();
        running.for_each(|(task, thread)| owners.entry(task).or_default().push(thread));
        owners.retain(|_, threads| threads.len() > 1);
        self.shared.retain(|task, _| owners.contains_key(task));
        for (task, threads) in owners {
            let now_ms = clock.monotonic_ms();
            let since_ms = *self.shared.entry(task).or_insert(now_ms);
            if now_ms - since_ms > TWO_OWNERS_MAX_MS {
                return Err(Violation::TwoOwners { task: task.to_string(), threads });
            }
        }
        Ok(())
    }

    /// After a crash each store holds what its changelog says up to the offset that the store names, or under
    /// at-least-once at least nothing else: nobody is fenced there, and after a restart of the broker two hosts may
    /// write for one task until the group has settled. What their records were made of is processed again.
    pub fn check_stores(
        &mut self,
        broker: &DirectBroker,
        host: &str,
        stores: &CrashStores,
        exactly_once: bool,
    ) -> Result<(), Violation> {
        let is_exact = exactly_once && !self.thinned;
        for ((task, store), content) in stores.durable_contents() {
            let partition = TopicPartition::new(changelog_topic(APPLICATION, &store), task.partition);
            let history = self.histories.entry(partition.clone()).or_default();
            let offset = content.changelog_offset.unwrap_or(0);
            if history.next < offset
                && let Ok((records, next)) = broker.committed_records_from(&partition, history.next)
            {
                history.records.extend(records);
                history.next = next;
            }
            // Something that is open below the store's offset hides what is committed above it.
            if history.next < offset {
                continue;
            }
            self.stores_checked += 1;
            let expected = fold(&history.records, offset);
            let found: Rows = content.entries.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            let below = || history.records.iter().take_while(|record| record.offset < offset);
            let was_written = |key: &[u8], value: &[u8]| {
                below().any(|record| record.key.as_deref() == Some(key) && record.value.as_deref() == Some(value))
            };
            let keys: BTreeSet<&Vec<u8>> = expected.keys().chain(found.keys()).collect();
            let wrong = keys.into_iter().filter(|key| match found.get(*key) {
                found if found == expected.get(*key) => false,
                Some(found) => is_exact || !was_written(key, found),
                None => is_exact,
            });
            let keys: Vec<String> = wrong.map(|key| String::from_utf8_lossy(key).into_owned()).collect();
            if !keys.is_empty() {
                return Err(Violation::WrongAfterCrash { store: format!("{host} {task}/{store}"), offset, keys });
            }
        }
        Ok(())
    }

    /// The offset below which no record of a changelog is needed: that of the oldest among the newest records of the
    /// keys that have a value.
    pub fn first_needed(&self, changelog: &TopicPartition) -> Option<Offset> {
        let history = self.histories.get(changelog)?;
        let mut newest: BTreeMap<&[u8], Offset> = BTreeMap::new();
        for record in &history.records {
            let Some(key) = &record.key else { continue };
            match &record.value {
                Some(_) => newest.insert(key, record.offset),
                None => newest.remove(&key[..]),
            };
        }
        newest.into_values().min()
    }

    /// What the log of a partition said.
    pub fn rows(&self, partition: &TopicPartition) -> Rows {
        self.histories.get(partition).map_or_else(Rows::new, |history| fold(&history.records, Offset::MAX))
    }

    /// What was read of a partition, in the order of the log.
    pub fn records(&self, partition: &TopicPartition) -> &[Record] {
        self.histories.get(partition).map_or(&[], |history| &history.records)
    }
}
