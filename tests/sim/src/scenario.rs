//! A scenario: everything about a run that the seed decides before it begins.

use std::fmt;
use std::str::FromStr;

use broker::direct::{FaultRates, RebalanceProtocol};
use engine::stream_thread::{ProcessingGuarantee, StreamsConfig};
use engine::testing::Seed;

use crate::checker::Rules;
use crate::world::World;

/// What a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// At-least-once with every kind of fault, except hosts that stand still.
    AtLeastOnce,
    /// At-least-once, with hosts that stand still as well and come back as zombies.
    Zombies,
    /// Exactly-once with every kind of fault; in every third seed zombies come back too.
    ExactlyOnce,
    /// At-least-once without faults: hosts come and leave in good order.
    Clean,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::AtLeastOnce, Self::Zombies, Self::ExactlyOnce, Self::Clean];

    /// How many of a hundred schedules are of this kind.
    pub fn percent(self) -> u64 {
        match self {
            Self::AtLeastOnce => 25,
            Self::Zombies => 10,
            Self::ExactlyOnce => 50,
            Self::Clean => 15,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::Zombies => "zombies",
            Self::ExactlyOnce => "exactly-once",
            Self::Clean => "clean",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| format!("a kind of schedule is one of {}, found {text:?}", names()))
    }
}

/// How a run goes. Rates are once in so many steps, 0 for never.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub kind: Kind,
    pub seed: u64,
    pub topics: u32,
    pub partitions: i32,
    pub hosts: usize,
    pub threads: usize,
    pub num_standby_replicas: usize,
    pub records: usize,
    pub protocol: RebalanceProtocol,
    pub config: StreamsConfig,
    pub fetch_bytes: usize,
    pub producer_queue_records: usize,
    pub faults: FaultRates,
    pub crash_one_in: u64,
    /// A host crashes exactly between two stages of its next commit.
    pub crash_in_commit_one_in: u64,
    /// Of a crashed host's restarts: with an empty state directory.
    pub wipe_one_in: u64,
    pub leave_one_in: u64,
    pub broker_restart_one_in: u64,
    pub disk_full_one_in: u64,
    /// A store turns out to be damaged.
    pub damage_one_in: u64,
    /// A host stands still for longer than its session, as under SIGSTOP, and goes on as if nothing had been: between
    /// two turns, or in the middle of one.
    pub stall_one_in: u64,
    /// Somebody else writes to a changelog or an output in a transaction and leaves it open.
    pub hang_one_in: u64,
    /// The coordinator says for a while that the group has committed nothing.
    pub forget_offsets_one_in: u64,
    /// Changelogs have small segments and are compacted.
    pub compact_one_in: u64,
    /// Records of a changelog that newer ones have replaced are deleted, as retention or an operator would.
    pub truncate_one_in: u64,
    /// Whoever writes the inputs aborts a transaction between them.
    pub aborted_input_one_in: u64,
    /// Another version of the processor is deployed, every second one unsound.
    pub deploy_one_in: u64,
    /// A version that takes rows over into a newer schema is deployed, every second one unsound.
    pub migrate_one_in: u64,
    /// The processor fails at a call, and at none of its records alone.
    pub fails_one_in: u64,
}

/// One of these numbers.
fn pick(seed: &mut Seed, from: &[u64]) -> u64 {
    from[seed.below(from.len() as u64) as usize]
}

impl Scenario {
    /// The scenario of a seed.
    pub fn new(kind: Kind, seed: u64) -> Self {
        let mut numbers = Seed::new(seed);
        let mut scenario = Self::quiet(kind, seed, &mut numbers);
        if kind == Kind::Clean {
            scenario.num_standby_replicas = numbers.below(2) as usize;
            scenario.fails_one_in = pick(&mut numbers, &[0, 3, 10]);
            scenario.deploy_one_in = pick(&mut numbers, &[0, 30, 100]);
            scenario.add_migrations(&mut numbers);
            return scenario;
        }
        scenario.add_faults(&mut numbers);
        if kind == Kind::Zombies || (kind == Kind::ExactlyOnce && seed.is_multiple_of(3)) {
            scenario.stall_one_in = 80;
            scenario.hosts = 2 + (numbers.below(2) as usize);
        }
        if kind == Kind::ExactlyOnce {
            scenario.config.processing_guarantee = ProcessingGuarantee::ExactlyOnceV2;
            // Shorter and longer than a session: zombies with an open transaction, and without.
            scenario.config.transaction_timeout_ms = pick(&mut numbers, &[3_000, 5_000, 10_000]);
            scenario.faults.delayed_end_one_in = pick(&mut numbers, &[0, 6, 20]);
        }
        scenario.num_standby_replicas = pick(&mut numbers, &[0, 1, 2]) as usize;
        scenario.fails_one_in = pick(&mut numbers, &[0, 3, 10, 40]);
        scenario.deploy_one_in = pick(&mut numbers, &[0, 50, 200]);
        scenario.add_migrations(&mut numbers);
        scenario
    }

    fn add_migrations(&mut self, numbers: &mut Seed) {
        self.migrate_one_in = pick(numbers, &[0, 0, 60, 200]);
        if self.migrate_one_in > 0 {
            // Few rows at a time, so that a migration has several commits.
            self.config.batch_max_bytes = pick(numbers, &[1, 200, 1 << 20]) as usize;
            self.config.statestore_uncommitted_max_bytes = pick(numbers, &[100, 500, 1 << 20]) as usize;
        }
    }

    fn add_faults(&mut self, numbers: &mut Seed) {
        self.faults = FaultRates {
            retriable_one_in: pick(numbers, &[0, 30, 60, 200]),
            lost_reply_one_in: pick(numbers, &[0, 5, 20]),
            // A small queue makes many batches of a commit, and a commit that fails ten times in a row is the end.
            failed_delivery_one_in: pick(numbers, &[0, 40, 150])
                * if self.producer_queue_records < 10 { 10 } else { 1 },
            delayed_delivery_one_in: pick(numbers, &[0, 3, 10]),
            delayed_end_one_in: 0,
            empty_restore_one_in: 0,
        };
        self.crash_one_in = pick(numbers, &[0, 60, 150, 400]);
        self.wipe_one_in = pick(numbers, &[0, 2, 4]);
        self.leave_one_in = pick(numbers, &[0, 100, 300]);
        self.broker_restart_one_in = pick(numbers, &[0, 0, 500]);
        self.disk_full_one_in = pick(numbers, &[0, 0, 200]);
        self.faults.empty_restore_one_in = pick(numbers, &[0, 0, 2]);
        self.crash_in_commit_one_in = pick(numbers, &[0, 50, 150]);
        self.damage_one_in = pick(numbers, &[0, 0, 200]);
        self.hang_one_in = pick(numbers, &[0, 0, 150]);
        self.forget_offsets_one_in = pick(numbers, &[0, 0, 150]);
        self.compact_one_in = pick(numbers, &[0, 0, 40]);
        self.truncate_one_in = pick(numbers, &[0, 0, 60]);
        self.aborted_input_one_in = pick(numbers, &[0, 0, 20]);
    }

    pub fn is_exactly_once(&self) -> bool {
        self.config.processing_guarantee == ProcessingGuarantee::ExactlyOnceV2
    }

    /// Hosts come and leave in good order, and nothing is replayed.
    fn quiet(kind: Kind, seed: u64, numbers: &mut Seed) -> Self {
        let config = StreamsConfig {
            commit_interval_ms: pick(numbers, &[50, 200, 1_000]),
            max_poll_records: pick(numbers, &[1, 7, 100]) as usize,
            buffered_records_per_partition: pick(numbers, &[3, 20, 1_000]) as usize,
            batch_max_records: pick(numbers, &[1, 4, 500]) as usize,
            statestore_uncommitted_max_bytes: pick(numbers, &[2_000, 1 << 20]) as usize,
            statestore_cache_max_bytes: pick(numbers, &[0, 1_000, 1 << 20]) as usize,
            statestore_flush_interval_ms: pick(numbers, &[500, 5_000]),
            restore_max_records: pick(numbers, &[1, 10, 1_000]) as usize,
            max_task_idle_ms: [-1, 0, 100][numbers.below(3) as usize],
            ..StreamsConfig::default()
        };
        Self {
            kind,
            seed,
            topics: 1 + numbers.below(2) as u32,
            partitions: 1 + numbers.below(4) as i32,
            hosts: 1 + numbers.below(3) as usize,
            threads: 1 + numbers.below(2) as usize,
            num_standby_replicas: 0,
            records: 30 + numbers.below(250) as usize,
            protocol: if numbers.one_in(2) { RebalanceProtocol::Eager } else { RebalanceProtocol::Cooperative },
            config,
            fetch_bytes: pick(numbers, &[1, 300, 1 << 20]) as usize,
            producer_queue_records: pick(numbers, &[2, 30, 100_000]) as usize,
            faults: FaultRates::default(),
            crash_one_in: 0,
            crash_in_commit_one_in: 0,
            wipe_one_in: 0,
            leave_one_in: 100,
            broker_restart_one_in: 0,
            disk_full_one_in: 0,
            damage_one_in: 0,
            stall_one_in: 0,
            hang_one_in: 0,
            forget_offsets_one_in: 0,
            compact_one_in: 0,
            truncate_one_in: 0,
            aborted_input_one_in: 0,
            fails_one_in: 0,
            deploy_one_in: 0,
            migrate_one_in: 0,
        }
    }

    /// What the run may show, after it. Under exactly-once that is always the same.
    pub fn rules(&self, world: &World) -> Rules {
        if self.is_exactly_once() {
            return Rules { replays: 0, zombies: false };
        }
        Rules { replays: world.failures(), zombies: world.has_zombies() }
    }
}
