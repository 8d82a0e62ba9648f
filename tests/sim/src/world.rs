//! The world of a run: broker, clock, hosts and the numbers that decide what happens next. `play` takes it to the end
//! of the workload and then lets everybody catch up; `observe` looks at what is left.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::core::CoreOptions;
use broker::core::admin::NewTopic;
use broker::core::batch::build::NewRecord;
use broker::core::memory::MemoryStorage;
use broker::direct::{DirectBroker, FaultRates, Faults};
use engine::error::EngineError;
use engine::record::TopicPartition;
use engine::testing::{ManualClock, Seed};
use engine::topology::{TaskId, changelog_topic};

use crate::checker::Violation;
use crate::host::{APPLICATION, Host};
use crate::observation::{Observation, Output, Rows};
use crate::scenario::Scenario;
use crate::tally::{LATEST, OUTPUT, TALLIES, Tallied};
use crate::workload::{self, Input, source_topic};

/// When the simulated wall clock starts.
const START_MS: i64 = 1_700_000_000_000;

/// Steps after which a run that does not catch up has failed.
const CATCH_UP_STEPS_MAX: u64 = 10_000;

/// Everything that is simulated.
pub struct World {
    scenario: Scenario,
    seed: Seed,
    clock: ManualClock,
    broker: DirectBroker,
    hosts: Vec<Host>,
    inputs: Vec<Input>,
    produced: usize,
    step: u64,
    events: BTreeMap<&'static str, u32>,
    /// The disk of this host is full until this step.
    disk_full: Option<(usize, u64)>,
}

impl World {
    pub fn new(scenario: &Scenario, keep_trace: bool) -> Self {
        let mut seed = Seed::new(scenario.seed ^ 0x5eed_0000_0000);
        let clock = ManualClock::new(START_MS);
        let faults = Faults::new(seed.fork(), FaultRates::default());
        if keep_trace {
            faults.keep_trace();
        }
        let storage = Arc::new(MemoryStorage::new());
        let broker = DirectBroker::open(CoreOptions::default(), storage, Arc::new(clock.clone()), faults)
            .expect("an empty broker opens");
        let topics = (0..scenario.topics).map(source_topic).chain([OUTPUT.to_owned()]);
        for name in topics {
            let topic = NewTopic { name, partitions: scenario.partitions, configs: BTreeMap::new() };
            broker.core().create_topic(&topic, false).expect("the topics are new");
        }
        let inputs =
            workload::generate(&mut seed.fork(), scenario.topics, scenario.partitions, scenario.records, START_MS);
        let hosts = (0..scenario.hosts).map(|n| Host::new(format!("h{n}"))).collect();
        let (produced, step, events, disk_full) = (0, 0, BTreeMap::new(), None);
        Self { scenario: scenario.clone(), seed, clock, broker, hosts, inputs, produced, step, events, disk_full }
    }

    fn count(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    /// How often anything happened after which records may be processed again.
    pub fn failures(&self) -> u32 {
        let (_, injected) = self.broker.faults().counts();
        let injected: u64 = injected.values().sum();
        let own: u32 = self.events.iter().filter(|(event, _)| **event != "clean leave").map(|(_, count)| count).sum();
        let refused: u32 = self.hosts.iter().map(Host::refused_commits).sum();
        own + injected as u32 + refused
    }

    /// Plays the workload with all faults, then without any until everything is processed and committed.
    pub fn play(&mut self) -> Vec<Violation> {
        self.broker.faults().set_rates(self.scenario.faults);
        let steps_min = if self.scenario.stall_one_in > 0 { 1_500 } else { 300 };
        while self.produced < self.inputs.len() || self.step < steps_min {
            self.misfortune();
            if self.seed.one_in(4) {
                let count = self.seed.below(12) as usize;
                self.produce(count);
            }
            if let Err(violation) = self.turn() {
                return vec![violation];
            }
        }
        self.produce(self.inputs.len());
        self.make_well();
        let mut quiet = 0;
        for _ in 0..CATCH_UP_STEPS_MAX {
            match self.turn() {
                Err(violation) => return vec![violation],
                Ok(idle) if idle && self.has_caught_up() => quiet += 1,
                Ok(_) => quiet = 0,
            }
            if quiet > 20 * self.hosts.len() * self.scenario.threads {
                return Vec::new();
            }
        }
        vec![Violation::Failed(format!("did not catch up in {CATCH_UP_STEPS_MAX} steps: {}", self.describe()))]
    }

    /// Ends every fault and starts every host.
    fn make_well(&mut self) {
        self.broker.faults().set_rates(FaultRates::default());
        self.disk_full = None;
        for index in 0..self.hosts.len() {
            self.hosts[index].stores.fill_disk(false);
            self.hosts[index].stalled_until = 0;
            let host = &mut self.hosts[index];
            if self.broker.faults().is_crashed(&host.name) && host.is_up() {
                host.crash(&mut self.seed, 0);
            }
            self.broker.faults().revive(&self.hosts[index].name);
            if let Some(until) = &mut self.hosts[index].down_until {
                *until = 0;
            }
        }
    }

    /// Appends the next records of the workload.
    fn produce(&mut self, count: usize) {
        let end = (self.produced + count).min(self.inputs.len());
        for input in &self.inputs[self.produced..end] {
            let partition = TopicPartition::new(source_topic(input.topic), input.partition);
            let value = input.value();
            let record =
                NewRecord { timestamp: input.timestamp, key: Some(&input.key), value: Some(&value), headers: &[] };
            self.broker.append(&partition, &[record]).expect("the core takes the workload");
        }
        self.produced = end;
    }

    /// Whether something with this rate happens now.
    fn happens(&mut self, one_in: u64) -> bool {
        self.seed.one_in(one_in)
    }

    fn any_host(&mut self) -> usize {
        self.seed.below(self.hosts.len() as u64) as usize
    }

    /// Lets bad things begin.
    fn misfortune(&mut self) {
        if self.happens(self.scenario.crash_one_in) {
            let (host, calls) = (self.any_host(), self.seed.below(60));
            if self.hosts[host].is_up() {
                self.broker.faults().crash_after(&self.hosts[host].name, calls);
                self.count("crash");
            }
        }
        if self.happens(self.scenario.leave_one_in) {
            let (host, until) = (self.any_host(), self.step + self.seed.below(200));
            let stalled = self.hosts[host].stalled_until > self.step;
            let crashing = self.broker.faults().is_crashed(&self.hosts[host].name);
            if self.hosts[host].is_up() && !stalled && !crashing {
                self.broker.faults().note(&self.hosts[host].name, "leaves");
                // A close that fails under a fault has dropped work, which the failures count already.
                let closed = self.hosts[host].close(until);
                self.count(if closed.is_ok() { "clean leave" } else { "failed leave" });
            }
        }
        if self.happens(self.scenario.stall_one_in) {
            let (host, until) = (self.any_host(), self.step + 450 + self.seed.below(300));
            // One at a time, so that somebody takes over.
            if self.hosts.iter().all(|host| host.stalled_until <= self.step) && self.hosts[host].is_up() {
                self.hosts[host].stalled_until = until;
                self.broker.faults().note(&self.hosts[host].name, "stands still");
                self.count("stall");
            }
        }
        if self.happens(self.scenario.broker_restart_one_in) {
            self.broker.restart().expect("the memory storage opens");
            self.count("broker restart");
        }
        if self.happens(self.scenario.disk_full_one_in) && self.disk_full.is_none() {
            let host = self.any_host();
            self.hosts[host].stores.fill_disk(true);
            self.disk_full = Some((host, self.step + 30 + self.seed.below(100)));
            self.count("full disk");
        }
        if let Some((host, until)) = self.disk_full
            && self.step >= until
        {
            self.hosts[host].stores.fill_disk(false);
            self.disk_full = None;
        }
    }

    /// One step: time passes, hosts that are due start, and one thread runs. True when it found nothing to do.
    fn turn(&mut self) -> Result<bool, Violation> {
        self.step += 1;
        self.clock.advance_ms(1 + self.seed.below(30));
        self.start_due();
        let host = self.any_host();
        if !self.hosts[host].is_up() || self.hosts[host].stalled_until > self.step {
            return Ok(true);
        }
        let thread = self.seed.below(self.hosts[host].thread_count() as u64) as usize;
        let name = self.hosts[host].name.clone();
        match self.hosts[host].run(thread, &self.clock) {
            None => Ok(true),
            Some(turn) if self.broker.faults().is_crashed(&name) => {
                let until = self.step + self.seed.below(300);
                self.broker.faults().note(&name, "crashed");
                self.hosts[host].crash(&mut self.seed, until);
                self.broker.faults().revive(&name);
                let _ = turn;
                if self.happens(self.scenario.wipe_one_in) {
                    self.hosts[host].stores.remove_all();
                    self.broker.faults().note(&name, "state directory removed");
                }
                Ok(false)
            }
            Some(Ok(turn)) => Ok(turn.is_idle()),
            Some(Err(error)) => {
                Err(Violation::Failed(format!("{name} thread {thread} in step {}: {error}", self.step)))
            }
        }
    }

    fn start_due(&mut self) {
        for index in 0..self.hosts.len() {
            if self.hosts[index].down_until.is_some_and(|until| until <= self.step) {
                let started = self.hosts[index].start(&self.broker, &self.clock, &self.scenario);
                if let Err(error) = started {
                    self.broker.faults().note(&self.hosts[index].name, &format!("does not start: {error}"));
                    self.hosts[index].down_until = Some(self.step + 10);
                }
            }
        }
    }

    fn partitions_of(&self, topic: &str) -> Vec<TopicPartition> {
        let count = self.broker.core().topic(topic).map_or(0, |topic| topic.partitions.len());
        (0..count).map(|n| TopicPartition::new(topic, n as i32)).collect()
    }

    fn end_of(&self, partition: &TopicPartition) -> i64 {
        let log = self.broker.core().partition(&partition.topic, partition.partition);
        log.map_or(0, |log| log.bounds().high_watermark)
    }

    fn committed(&self, partition: &TopicPartition) -> Option<i64> {
        let committed = self.broker.core().committed_offset(APPLICATION, &partition.topic, partition.partition);
        committed.map(|committed| committed.offset)
    }

    fn has_caught_up(&self) -> bool {
        let topics = 0..self.scenario.topics;
        let mut partitions = topics.flat_map(|topic| self.partitions_of(&source_topic(topic)));
        let all_owned = self.owners().len() == 2 * self.scenario.partitions as usize;
        all_owned
            && self.hosts.iter().all(|host| host.is_up() && host.is_running())
            && partitions.all(|partition| self.committed(&partition).unwrap_or(0) == self.end_of(&partition))
    }

    fn describe(&self) -> String {
        let partitions = (0..self.scenario.topics).flat_map(|topic| self.partitions_of(&source_topic(topic)));
        let partitions = partitions.map(|partition| {
            format!("{partition} committed {:?} of {}", self.committed(&partition), self.end_of(&partition))
        });
        let hosts =
            self.hosts.iter().map(|host| format!("{} up {} running {}", host.name, host.is_up(), host.is_running()));
        partitions.chain(hosts).collect::<Vec<_>>().join("; ")
    }

    /// Closes everybody and collects what is left, and what a host restores that has nothing.
    pub fn observe(&mut self, violations: &mut Vec<Violation>) -> Observation {
        let mut observation = Observation { inputs: self.inputs[..self.produced].to_vec(), ..Observation::default() };
        let owners = self.owners();
        for host in &mut self.hosts {
            if let Err(error) = host.close(u64::MAX) {
                violations.push(Violation::Failed(format!("{} does not close: {error}", host.name)));
            }
        }
        for ((store, partition), host) in owners {
            let task = TaskId { sub_topology: 0, partition };
            let content = self.hosts[host].stores.content(task, &store).unwrap_or_default();
            let rows: Rows = content.entries.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            observation.stores.insert((store, partition), (rows, content.changelog_offset));
        }
        for topic in 0..self.scenario.topics {
            for partition in self.partitions_of(&source_topic(topic)) {
                observation.committed.insert((topic, partition.partition), self.committed(&partition));
            }
        }
        for partition in self.partitions_of(OUTPUT) {
            let records = self.broker.committed_records(&partition).expect("the output can be read");
            let outputs = records.into_iter().filter_map(|record| decode_output(&record.key?, &record.value?));
            observation.outputs.insert(partition.partition, outputs.collect());
        }
        for store in [TALLIES, LATEST] {
            for partition in self.partitions_of(&changelog_topic(APPLICATION, store)) {
                let mut rows = Rows::new();
                let mut last = 0;
                for record in self.broker.committed_records(&partition).expect("the changelog can be read") {
                    last = record.offset + 1;
                    let Some(key) = record.key else { continue };
                    match record.value {
                        Some(value) => rows.insert(key.to_vec(), value.to_vec()),
                        None => rows.remove(&key[..]),
                    };
                }
                observation
                    .changelogs
                    .insert((store.to_owned(), partition.partition), (rows, last..=self.end_of(&partition)));
            }
        }
        if let Err(error) = self.restore_from_nothing(&mut observation) {
            violations.push(Violation::Failed(format!("the last restore: {error}")));
        }
        observation
    }

    /// Which host holds each store of each partition now.
    fn owners(&self) -> BTreeMap<(String, i32), usize> {
        let mut owners = BTreeMap::new();
        for (index, host) in self.hosts.iter().enumerate() {
            for registration in host.queries.registrations() {
                owners.insert((registration.store.to_string(), registration.task.partition), index);
            }
        }
        owners
    }

    /// Starts one host with an empty state directory, alone, and takes down what it restores.
    fn restore_from_nothing(&mut self, observation: &mut Observation) -> Result<(), EngineError> {
        let mut restorer = Host::new("restorer".to_owned());
        restorer.start(&self.broker, &self.clock, &self.scenario)?;
        for _ in 0..2_000 {
            self.clock.advance_ms(20);
            for thread in 0..restorer.thread_count() {
                if let Some(turn) = restorer.run(thread, &self.clock) {
                    turn?;
                }
            }
            if restorer.is_running() && restorer.queries.registrations().len() == observation.stores.len() {
                break;
            }
        }
        let registrations = restorer.queries.registrations();
        restorer.close(u64::MAX)?;
        for registration in registrations {
            let content = restorer.stores.content(registration.task, &registration.store).unwrap_or_default();
            let rows: Rows = content.entries.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            observation.restored.insert((registration.store.to_string(), registration.task.partition), rows);
        }
        Ok(())
    }

    /// A digest of every call and of what is left.
    pub fn digest(&self, observation: &Observation) -> u64 {
        self.broker.faults().note("observer", &format!("{observation:?}"));
        self.broker.faults().digest()
    }

    /// What happened, for people.
    pub fn summary(&self) -> String {
        let (calls, injected) = self.broker.faults().counts();
        format!("{} steps, {calls} calls, events {:?}, faults {injected:?}", self.step, self.events)
    }

    pub fn trace(&self) -> Vec<String> {
        self.broker.faults().trace()
    }
}

fn decode_output(key: &[u8], value: &[u8]) -> Option<Output> {
    let (topic, rest) = value.split_first_chunk::<4>()?;
    let (sequence, tallied) = rest.split_first_chunk::<4>()?;
    Some(Output {
        key: key.to_vec(),
        topic: u32::from_be_bytes(*topic),
        sequence: u32::from_be_bytes(*sequence),
        tallied: Tallied::decode(tallied)?,
    })
}
