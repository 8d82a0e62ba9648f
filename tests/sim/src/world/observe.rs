//! Looking at what is left of a run: everybody is closed, and one more host restores everything from nothing.

use std::collections::BTreeMap;

use engine::clock::Clock;
use engine::error::EngineError;
use engine::query::{Registration, Role};
use engine::record::{Record, TopicPartition};
use engine::topology::{TaskId, changelog_topic};

use super::World;
use crate::checker::Violation;
use crate::host::{APPLICATION, Host};
use crate::observation::{Observation, Output, Rows};
use crate::tally::{LATEST, OUTPUT, TALLIES, Tallied, generation};
use crate::workload::source_topic;

impl World {
    /// Closes everybody and collects what is left, and what a host restores that has nothing.
    pub fn observe(&self, violations: &mut Vec<Violation>) -> Observation {
        let produced = self.state.borrow().produced;
        let mut observation = Observation { inputs: self.inputs[..produced].to_vec(), ..Observation::default() };
        let owners = self.owners();
        let schema = self.deployments.borrow().schema();
        for host in &self.hosts {
            let mut host = host.borrow_mut();
            if let Err(error) = host.close(u64::MAX) {
                violations.push(Violation::Failed(format!("{} does not close: {error}", host.name)));
            }
        }
        for ((store, partition), host) in owners {
            let task = TaskId { sub_topology: 0, partition };
            let kept = if store == TALLIES { generation(schema) } else { store.clone() };
            let content = self.stores[host].content(task, &kept).unwrap_or_default();
            let rows: Rows = content.entries.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            observation.stores.insert((store, partition), (rows, content.changelog_offset));
        }
        observation.active_version = self.deployments.borrow().active();
        observation.schema = schema;
        self.observe_logs(&mut observation);
        if let Err(error) = self.restore_from_nothing(&mut observation) {
            violations.push(Violation::Failed(format!("the last restore: {error}")));
        }
        observation
    }

    fn observe_logs(&self, observation: &mut Observation) {
        self.watch.borrow_mut().look_at_logs(&self.broker, &self.scenario);
        let watch = self.watch.borrow();
        for topic in 0..self.scenario.topics {
            for partition in self.partitions_of(&source_topic(topic)) {
                let place = (topic, partition.partition);
                observation.committed.insert(place, self.committed(&partition));
                observation.versions.extend(self.committed_version(&partition).map(|mark| (place, mark)));
                let last = self.read(&partition).last().map_or(0, |record| record.offset + 1);
                observation.input_ends.insert(place, last..=self.end_of(&partition));
            }
        }
        for partition in self.partitions_of(OUTPUT) {
            observation.outputs.insert(partition.partition, decode_outputs(&self.read(&partition)));
            let meanwhile = decode_outputs(watch.records(&partition));
            observation.read_meanwhile.insert(partition.partition, meanwhile);
        }
        for (store, kept) in [(TALLIES, generation(observation.schema)), (LATEST, LATEST.to_owned())] {
            for partition in self.partitions_of(&changelog_topic(APPLICATION, &kept)) {
                let mut rows = Rows::new();
                let mut last = 0;
                for record in self.read(&partition) {
                    last = record.offset + 1;
                    let Some(key) = record.key else { continue };
                    match record.value {
                        Some(value) => rows.insert(key.to_vec(), value.to_vec()),
                        None => rows.remove(&key[..]),
                    };
                }
                let place = (store.to_owned(), partition.partition);
                observation.histories.insert(place.clone(), watch.rows(&partition));
                observation.changelogs.insert(place, (rows, last..=self.end_of(&partition)));
            }
        }
    }

    pub(super) fn read(&self, partition: &TopicPartition) -> Vec<Record> {
        self.broker.committed_records(partition).expect("the log can be read")
    }

    /// Which host holds each store of each partition now.
    pub(super) fn owners(&self) -> BTreeMap<(String, i32), usize> {
        let mut owners = BTreeMap::new();
        for (index, host) in self.hosts.iter().enumerate() {
            let registrations = host.borrow().queries.registrations().into_iter();
            for registration in
                registrations.filter(|registration| registration.role == Role::Active && is_own(registration))
            {
                owners.insert((registration.store.to_string(), registration.task.partition), index);
            }
        }
        owners
    }

    /// Starts one host with an empty state directory, alone, and takes down what it restores.
    fn restore_from_nothing(&self, observation: &mut Observation) -> Result<(), EngineError> {
        let mut restorer = Host::new("restorer".to_owned());
        restorer.start(&self.broker, &self.clock, &self.scenario, &self.deployments.borrow())?;
        let begun_ms = self.clock.monotonic_ms();
        // What hangs must be over at some time.
        while self.clock.monotonic_ms() - begun_ms < 60_000 {
            self.clock.advance_ms(20);
            for thread in 0..restorer.thread_count() {
                if let Some(turn) = restorer.run(thread, &self.clock) {
                    turn?;
                }
            }
            if restorer.is_running() && registrations(&restorer).len() == observation.stores.len() {
                break;
            }
        }
        let registrations = registrations(&restorer);
        restorer.close(u64::MAX)?;
        for registration in registrations {
            let is_migrated = &*registration.store == TALLIES;
            let kept = if is_migrated { generation(observation.schema) } else { registration.store.to_string() };
            let content = restorer.stores.content(registration.task, &kept).unwrap_or_default();
            let rows: Rows = content.entries.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            observation.restored.insert((registration.store.to_string(), registration.task.partition), rows);
        }
        Ok(())
    }

    /// A digest of every call and of what is left.
    pub fn digest(&self, observation: &Observation) -> u64 {
        self.note("observer", &format!("{observation:?}"));
        self.broker.faults().digest()
    }
}

/// Whether it is a store of the processor, and no older generation.
fn is_own(registration: &Registration) -> bool {
    [TALLIES, LATEST].contains(&&*registration.store)
}

fn registrations(host: &Host) -> Vec<Registration> {
    host.queries.registrations().into_iter().filter(is_own).collect()
}

fn decode_outputs(records: &[Record]) -> Vec<Output> {
    let decode = |record: &Record| decode_output(record.key.as_ref()?, record.value.as_ref()?);
    // What cannot be decoded was written by nobody of ours: it stands for itself.
    records.iter().map(|record| decode(record).unwrap_or_else(|| foreign(record))).collect()
}

fn foreign(record: &Record) -> Output {
    let key = record.key.as_ref().map(|key| key.to_vec()).unwrap_or_default();
    Output { key, topic: u32::MAX, sequence: u32::MAX, tallied: Tallied::default(), version: 0, offset: 0 }
}

fn decode_output(key: &[u8], value: &[u8]) -> Option<Output> {
    let (topic, rest) = value.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<4>()?;
    let (rest, offset) = rest.split_last_chunk::<8>()?;
    let (tallied, version) = rest.split_last_chunk::<8>()?;
    Some(Output {
        key: key.to_vec(),
        topic: u32::from_be_bytes(*topic),
        sequence: u32::from_be_bytes(*sequence),
        tallied: Tallied::decode(tallied)?,
        version: u64::from_be_bytes(*version),
        offset: i64::from_be_bytes(*offset),
    })
}
