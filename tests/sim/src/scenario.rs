//! A scenario: everything about a run that the seed decides before it begins.

use broker::direct::{FaultRates, RebalanceProtocol};
use engine::stream_thread::{ProcessingGuarantee, StreamsConfig};
use engine::testing::Seed;

use crate::checker::Rules;
use crate::world::World;

/// How a run goes. Rates are once in so many steps, 0 for never.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub seed: u64,
    pub topics: u32,
    pub partitions: i32,
    pub hosts: usize,
    pub threads: usize,
    pub records: usize,
    pub protocol: RebalanceProtocol,
    pub config: StreamsConfig,
    pub fetch_bytes: usize,
    pub producer_queue_records: usize,
    pub faults: FaultRates,
    pub crash_one_in: u64,
    /// Of a crashed host's restarts: with an empty state directory.
    pub wipe_one_in: u64,
    pub leave_one_in: u64,
    pub broker_restart_one_in: u64,
    pub disk_full_one_in: u64,
    /// A host stands still for longer than its session, as under SIGSTOP, and goes on as if nothing had been.
    pub stall_one_in: u64,
}

/// One of these numbers.
fn pick(seed: &mut Seed, from: &[u64]) -> u64 {
    from[seed.below(from.len() as u64) as usize]
}

impl Scenario {
    /// The scenario of a seed, with every kind of fault.
    pub fn new(seed: u64) -> Self {
        let mut numbers = Seed::new(seed);
        let numbers = &mut numbers;
        let mut scenario = Self::clean_from(seed, numbers);
        scenario.faults = FaultRates {
            retriable_one_in: pick(numbers, &[0, 30, 60, 200]),
            lost_reply_one_in: pick(numbers, &[0, 5, 20]),
            // A small queue makes many batches of a commit, and a commit that fails ten times in a row is the end.
            failed_delivery_one_in: pick(numbers, &[0, 40, 150])
                * if scenario.producer_queue_records < 10 { 10 } else { 1 },
            delayed_delivery_one_in: pick(numbers, &[0, 3, 10]),
        };
        scenario.crash_one_in = pick(numbers, &[0, 60, 150, 400]);
        scenario.wipe_one_in = pick(numbers, &[0, 2, 4]);
        scenario.leave_one_in = pick(numbers, &[0, 100, 300]);
        scenario.broker_restart_one_in = pick(numbers, &[0, 0, 500]);
        scenario.disk_full_one_in = pick(numbers, &[0, 0, 200]);
        scenario
    }

    /// The scenario of a seed in which hosts also stand still and come back as zombies.
    pub fn with_zombies(seed: u64) -> Self {
        Self { stall_one_in: 80, hosts: 2 + (seed % 2) as usize, ..Self::new(seed) }
    }

    /// The scenario of a seed under exactly-once, with every kind of fault; in every third one zombies come back too.
    pub fn exactly_once(seed: u64) -> Self {
        let mut scenario = if seed.is_multiple_of(3) { Self::with_zombies(seed) } else { Self::new(seed) };
        scenario.config.processing_guarantee = ProcessingGuarantee::ExactlyOnceV2;
        scenario.config.transaction_timeout_ms = 5_000;
        scenario
    }

    fn is_exactly_once(&self) -> bool {
        self.config.processing_guarantee == ProcessingGuarantee::ExactlyOnceV2
    }

    /// The scenario of a seed without faults: hosts come and leave in good order, and nothing is replayed.
    pub fn clean(seed: u64) -> Self {
        Self::clean_from(seed, &mut Seed::new(seed))
    }

    fn clean_from(seed: u64, numbers: &mut Seed) -> Self {
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
            seed,
            topics: 1 + numbers.below(2) as u32,
            partitions: 1 + numbers.below(4) as i32,
            hosts: 1 + numbers.below(3) as usize,
            threads: 1 + numbers.below(2) as usize,
            records: 30 + numbers.below(250) as usize,
            protocol: if numbers.one_in(2) { RebalanceProtocol::Eager } else { RebalanceProtocol::Cooperative },
            config,
            fetch_bytes: pick(numbers, &[1, 300, 1 << 20]) as usize,
            producer_queue_records: pick(numbers, &[2, 30, 100_000]) as usize,
            faults: FaultRates::default(),
            crash_one_in: 0,
            wipe_one_in: 0,
            leave_one_in: 100,
            broker_restart_one_in: 0,
            disk_full_one_in: 0,
            stall_one_in: 0,
        }
    }

    /// What the run may show, after it.
    pub fn rules(&self, world: &World) -> Rules {
        if self.is_exactly_once() {
            return Rules { replays: 0, zombies: false };
        }
        Rules { replays: world.failures(), zombies: self.stall_one_in > 0 }
    }
}
