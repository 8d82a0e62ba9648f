//! The world of a run: broker, clock, hosts and the numbers that decide what happens next. `play` takes it to the end
//! of the workload and then lets everybody catch up; `observe` looks at what is left. A host can be interrupted in the
//! middle of a call: then the world goes on without it from inside of that call, so everything here works through
//! shared references and nothing stays borrowed while a host runs, except the host itself.

mod deploying;
mod interruption;
mod misfortune;
mod observe;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use broker::core::CoreOptions;
use broker::core::admin::NewTopic;
use broker::core::batch::build::NewRecord;
use broker::core::memory::MemoryStorage;
use broker::direct::{DirectBroker, FaultRates, Faults};
use engine::error::EngineError;
use engine::record::TopicPartition;
use engine::task::offset_metadata::{self, Committed, VersionMark};
use engine::testing::{CrashStores, ManualClock, Seed};
use engine::topology::changelog_topic;

use crate::checker::Violation;
use crate::current;
use crate::deployments::Deployments;
use crate::host::{APPLICATION, Host};
use crate::scenario::Scenario;
use crate::tally::{LATEST, OUTPUT, SCHEMA_MAX, generation};
use crate::watch::Watch;
use crate::workload::{self, Input, source_topic};

use interruption::Plan;

/// When the simulated wall clock starts.
const START_MS: i64 = 1_700_000_000_000;

/// Steps after which a run that does not catch up has failed.
const CATCH_UP_STEPS_MAX: u64 = 20_000;

/// Events after which no record is processed again.
const HARMLESS: [&str; 7] = [
    "clean leave",
    "deployment",
    "rollback",
    "migration",
    "mended version",
    "restart for a migration",
    "restart for older rows",
];

/// How many steps pass between two looks at the logs.
const LOOK_STEPS: u64 = 25;

/// What changes while the world goes on.
struct State {
    seed: Seed,
    produced: usize,
    step: u64,
    /// Bad things happen.
    is_troubled: bool,
    events: BTreeMap<&'static str, u32>,
    /// Where in a commit hosts have crashed or stood still.
    coverage: BTreeMap<String, u32>,
    /// The disk of this host is full until this step.
    disk_full: Option<(usize, u64)>,
    /// The coordinator knows no offsets until this step.
    offsets_forgotten_until: Option<u64>,
    /// What is going to happen to each host in the middle of a turn.
    plans: Vec<Plan>,
    /// The hosts that run now, each called from inside of the one before it, and their threads.
    running: Vec<(usize, usize)>,
    /// Once everything is produced: the offset after the last record of each input partition.
    needed: Vec<(TopicPartition, i64)>,
    /// How many foreign transactions were opened.
    foreign: u32,
    /// Found in the middle of a turn.
    violation: Option<Violation>,
}

/// Everything that is simulated.
pub struct World {
    scenario: Scenario,
    clock: ManualClock,
    broker: DirectBroker,
    hosts: Vec<RefCell<Host>>,
    /// The state directories of the hosts.
    stores: Vec<CrashStores>,
    inputs: Vec<Input>,
    state: RefCell<State>,
    deployments: RefCell<Deployments>,
    watch: RefCell<Watch>,
}

impl World {
    pub fn new(scenario: &Scenario, keep_trace: bool) -> Self {
        let mut seed = Seed::new(scenario.seed ^ 0x5eed_0000_0000);
        let clock = ManualClock::new(START_MS);
        let faults = Faults::new(seed.fork(), FaultRates::default());
        faults.interrupt_with(current::interrupt);
        if keep_trace {
            faults.keep_trace();
        }
        let storage = Arc::new(MemoryStorage::new());
        let broker = DirectBroker::open(CoreOptions::default(), storage, Arc::new(clock.clone()), faults)
            .expect("an empty broker opens");
        let topics = (0..scenario.topics).map(source_topic).chain([OUTPUT.to_owned()]);
        let topics = topics.map(|name| (name, BTreeMap::new()));
        // Who creates a changelog first may choose more than the engine asks for.
        let small = [("cleanup.policy", "compact"), ("segment.bytes", "400"), ("min.cleanable.dirty.ratio", "0.01")];
        let small: BTreeMap<String, String> = small.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let kept = (1..=SCHEMA_MAX).map(generation).chain([LATEST.to_owned()]);
        let changelogs = kept.map(|store| (changelog_topic(APPLICATION, &store), small.clone()));
        for (name, configs) in topics.chain(changelogs.filter(|_| scenario.compact_one_in > 0)) {
            let topic = NewTopic { name, partitions: scenario.partitions, configs };
            broker.core().create_topic(&topic, false).expect("the topics are new");
        }
        let inputs =
            workload::generate(&mut seed.fork(), scenario.topics, scenario.partitions, scenario.records, START_MS);
        let hosts: Vec<Host> = (0..scenario.hosts).map(|n| Host::new(format!("h{n}"))).collect();
        for host in &hosts {
            let (faults, name) = (broker.clone(), host.name.clone());
            let may_write = move |task, store: &str| {
                current::with(|world| world.store_written(task));
                faults.faults().may_write(&name, &format!("{task}/{store}"))
            };
            host.stores.ask_before_writes(Arc::new(may_write));
        }
        let state = State {
            seed,
            produced: 0,
            step: 0,
            is_troubled: false,
            events: BTreeMap::new(),
            coverage: BTreeMap::new(),
            disk_full: None,
            offsets_forgotten_until: None,
            plans: hosts.iter().map(|_| Plan::default()).collect(),
            running: Vec::new(),
            needed: Vec::new(),
            foreign: 0,
            violation: None,
        };
        Self {
            scenario: scenario.clone(),
            clock,
            broker,
            stores: hosts.iter().map(|host| host.stores.clone()).collect(),
            hosts: hosts.into_iter().map(RefCell::new).collect(),
            inputs,
            state: RefCell::new(state),
            deployments: RefCell::new(Deployments::new(scenario.topics, scenario.fails_one_in)),
            watch: RefCell::default(),
        }
    }

    fn count(&self, event: &'static str) {
        *self.state.borrow_mut().events.entry(event).or_default() += 1;
    }

    fn below(&self, bound: u64) -> u64 {
        self.state.borrow_mut().seed.below(bound)
    }

    /// Whether something with this rate happens now.
    fn happens(&self, one_in: u64) -> bool {
        self.state.borrow_mut().seed.one_in(one_in)
    }

    fn step(&self) -> u64 {
        self.state.borrow().step
    }

    fn any_host(&self) -> usize {
        self.below(self.hosts.len() as u64) as usize
    }

    fn note(&self, who: &str, detail: &str) {
        self.broker.faults().note(who, detail);
    }

    fn name(&self, host: usize) -> String {
        format!("h{host}")
    }

    /// How often anything happened after which records may be processed again.
    pub fn failures(&self) -> u32 {
        let (_, injected) = self.broker.faults().counts();
        let injected: u64 = injected.values().sum();
        let state = self.state.borrow();
        let own: u32 = state.events.iter().filter(|(event, _)| !HARMLESS.contains(event)).map(|(_, count)| count).sum();
        let refused: u32 = self.hosts.iter().map(|host| host.borrow().refused_commits()).sum();
        let rollbacks: u32 = self.hosts.iter().map(|host| host.borrow().rollbacks()).sum();
        own + injected as u32 + refused + rollbacks
    }

    /// Whether somebody may have written after its tasks were given to others: a host that stood still, or a thread
    /// that had not heard yet that the broker was restarted and has forgotten the members of its groups. The first to
    /// join again is given everything, and the others go on until their next heartbeat.
    pub fn has_zombies(&self) -> bool {
        let events = &self.state.borrow().events;
        let has_others = self.hosts.len() * self.scenario.threads > 1;
        events.contains_key("stall") || (has_others && events.contains_key("broker restart"))
    }

    /// Plays the workload with all faults, then without any until everything is processed and committed.
    pub fn play(&self) -> Vec<Violation> {
        self.broker.faults().set_rates(self.scenario.faults);
        self.state.borrow_mut().is_troubled = self.scenario.kind != crate::Kind::Clean;
        let steps_min = if self.scenario.stall_one_in > 0 { 1_500 } else { 300 };
        while self.state.borrow().produced < self.inputs.len() || self.step() < steps_min {
            self.misfortune();
            self.deploy_something();
            self.produce_some();
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

    fn produce_some(&self) {
        if self.happens(4) {
            self.produce(self.below(12) as usize);
        }
    }

    /// Appends the next records of the workload.
    fn produce(&self, count: usize) {
        let produced = self.state.borrow().produced;
        let end = (produced + count).min(self.inputs.len());
        for input in &self.inputs[produced..end] {
            let partition = TopicPartition::new(source_topic(input.topic), input.partition);
            let value = input.value();
            let record =
                NewRecord { timestamp: input.timestamp, key: Some(&input.key), value: Some(&value), headers: &[] };
            self.broker.append(&partition, &[record]).expect("the core takes the workload");
        }
        self.state.borrow_mut().produced = end;
    }

    /// One step: time passes, hosts that are due start, and one thread runs. True when it found nothing to do.
    fn turn(&self) -> Result<bool, Violation> {
        self.state.borrow_mut().step += 1;
        self.clock.advance_ms(1 + self.below(30));
        // Nobody else lets the broker's time pass while no host polls.
        self.broker.tick();
        self.start_due();
        let host = self.any_host();
        self.tell_of_versions(host);
        self.operate(host);
        let idle = self.run_host(host)?;
        self.look()?;
        self.state.borrow_mut().violation.take().map_or(Ok(idle), Err)
    }

    fn run_host(&self, index: usize) -> Result<bool, Violation> {
        // Somebody who is in the middle of a call stands still.
        let Ok(mut host) = self.hosts[index].try_borrow_mut() else { return Ok(true) };
        if !host.is_up() || host.stalled_until > self.step() {
            return Ok(true);
        }
        let thread = self.below(host.thread_count() as u64) as usize;
        self.state.borrow_mut().running.push((index, thread));
        let turn = host.run(thread, &self.clock);
        self.state.borrow_mut().running.pop();
        match turn {
            None => Ok(true),
            Some(_) if self.broker.faults().is_crashed(&host.name) => {
                self.crashed(index, &mut host, thread)?;
                Ok(false)
            }
            Some(Ok(turn)) => Ok(turn.is_idle()),
            // Too many faults in a row end an application; whoever operates it starts it again.
            Some(Err(EngineError::Recycled { .. } | EngineError::TimedOut { .. }))
                if self.state.borrow().is_troubled =>
            {
                self.count("gave up");
                self.crashed(index, &mut host, thread)?;
                Ok(false)
            }
            Some(Err(error)) => {
                Err(Violation::Failed(format!("{} thread {thread} in step {}: {error}", host.name, self.step())))
            }
        }
    }

    /// The process of a host is gone.
    fn crashed(&self, index: usize, host: &mut Host, thread: usize) -> Result<(), Violation> {
        self.count_crash(index, thread);
        let until = self.step() + self.below(300);
        self.note(&host.name, "crashed");
        host.crash(&mut self.state.borrow_mut().seed, until);
        self.broker.faults().revive(&host.name);
        let copies_may_differ = !self.scenario.is_exactly_once() && self.has_zombies();
        if !copies_may_differ {
            let exactly_once = self.scenario.is_exactly_once();
            self.watch.borrow_mut().check_stores(&self.broker, &host.name, &host.stores, exactly_once)?;
        }
        self.forget_offsets_in_rebalance();
        if self.happens(self.scenario.wipe_one_in) {
            host.stores.remove_all();
            self.note(&host.name, "state directory removed");
        }
        Ok(())
    }

    fn start_due(&self) {
        for (index, host) in self.hosts.iter().enumerate() {
            let Ok(mut host) = host.try_borrow_mut() else { continue };
            if host.down_until.is_some_and(|until| until <= self.step()) {
                self.state.borrow_mut().plans[index] = Plan::default();
                if let Err(error) = host.start(&self.broker, &self.clock, &self.scenario, &self.deployments.borrow()) {
                    self.note(&host.name, &format!("does not start: {error}"));
                    host.down_until = Some(self.step() + 10);
                }
            }
        }
    }

    /// Watches what must hold at any moment.
    fn look(&self) -> Result<(), Violation> {
        let mut watch = self.watch.borrow_mut();
        watch.look_at_offsets(&self.broker)?;
        let step = self.step();
        if step.is_multiple_of(LOOK_STEPS) {
            watch.look_at_logs(&self.broker, &self.scenario);
            let hosts = self.hosts.iter().filter_map(|host| host.try_borrow().ok());
            let awake = hosts.filter(|host| host.is_up() && host.stalled_until <= step);
            let running = awake.flat_map(|host| host.running_tasks());
            watch.look_at_owners(running, &self.clock)?;
        }
        Ok(())
    }

    fn partitions_of(&self, topic: &str) -> Vec<TopicPartition> {
        crate::watch::partitions_of(&self.broker, topic)
    }

    fn committed(&self, partition: &TopicPartition) -> Option<i64> {
        let committed = self.broker.core().committed_offset(APPLICATION, &partition.topic, partition.partition);
        committed.map(|committed| committed.offset)
    }

    fn committed_metadata(&self, partition: &TopicPartition) -> Option<Committed> {
        let committed = self.broker.core().committed_offset(APPLICATION, &partition.topic, partition.partition);
        Some(offset_metadata::decode(&committed?.metadata))
    }

    fn committed_version(&self, partition: &TopicPartition) -> Option<VersionMark> {
        self.committed_metadata(partition)?.version
    }

    fn has_caught_up(&self) -> bool {
        let all_owned = self.owners().len() == 2 * self.scenario.partitions as usize;
        all_owned
            && self.hosts.iter().map(RefCell::borrow).all(|host| host.is_up() && host.is_running())
            && self.runs_active_version()
            && self.is_all_committed()
            && self.nothing_hangs()
    }

    /// Whether no transaction is open anywhere: nobody's lasts longer than its timeout.
    fn nothing_hangs(&self) -> bool {
        let topics = self.broker.core().topics();
        let logs = topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.log().bounds());
        { logs }.all(|log| log.last_stable_offset == log.high_watermark)
    }

    /// Whether the group has committed every record. It need not pass what comes after the last one.
    fn is_all_committed(&self) -> bool {
        let mut state = self.state.borrow_mut();
        if state.needed.is_empty() {
            let partitions = (0..self.scenario.topics).flat_map(|topic| self.partitions_of(&source_topic(topic)));
            let last = |partition: &TopicPartition| self.read(partition).last().map_or(0, |record| record.offset + 1);
            state.needed =
                partitions.map(|partition| (last(&partition), partition)).map(|(end, of)| (of, end)).collect();
        }
        state.needed.iter().all(|(partition, end)| self.committed(partition).unwrap_or(0) >= *end)
    }

    fn describe(&self) -> String {
        let partitions = (0..self.scenario.topics).flat_map(|topic| self.partitions_of(&source_topic(topic)));
        let partitions = partitions.map(|partition| {
            let end = self.end_of(&partition);
            format!("{partition} committed {:?} of {end}", self.committed(&partition))
        });
        let hosts = self.hosts.iter().map(RefCell::borrow);
        let hosts = hosts.map(|host| format!("{} up {} {}", host.name, host.is_up(), host.describe()));
        let hanging = (!self.nothing_hangs()).then(|| "a transaction is open".to_owned());
        partitions.chain(hosts).chain(hanging).collect::<Vec<_>>().join("; ")
    }

    fn end_of(&self, partition: &TopicPartition) -> i64 {
        let log = self.broker.core().partition(&partition.topic, partition.partition);
        log.map_or(0, |log| log.bounds().high_watermark)
    }

    /// Where in a commit hosts were hit, and how often.
    pub fn coverage(&self) -> BTreeMap<String, u32> {
        self.state.borrow().coverage.clone()
    }

    /// What happened, for people.
    pub fn summary(&self) -> String {
        let (calls, injected) = self.broker.faults().counts();
        let state = self.state.borrow();
        format!("{} steps, {calls} calls, events {:?}, faults {injected:?}", state.step, state.events)
    }

    /// Events and injected faults by name.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let (_, mut counts) = self.broker.faults().counts();
        let state = self.state.borrow();
        for (event, &count) in &state.events {
            *counts.entry(event).or_default() += u64::from(count);
        }
        let migrated: u64 = self.hosts.iter().map(|host| host.borrow().rows_migrated()).sum();
        counts.insert("migrated rows", migrated);
        for (records, promotions) in self.hosts.iter().map(|host| host.borrow().standby_counts()) {
            *counts.entry("records read by standby tasks").or_default() += records;
            *counts.entry("promoted standby tasks").or_default() += promotions;
        }
        counts
    }

    pub fn trace(&self) -> Vec<String> {
        self.broker.faults().trace()
    }
}
