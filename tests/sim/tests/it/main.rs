//! The simulation's tests: the schedules of every kind, repeatability, what of a commit they reach, and the checkers'
//! own test. `SANDBAR_SIM_SCHEDULES` sets how many schedules are played. `make sim KIND=… SEED=…` replays one with its
//! trace.

mod regressions;
mod self_test;
mod watch;

use std::collections::BTreeMap;

use sim::campaign::{Campaign, schedules};
use sim::{Kind, Scenario, run};

/// Schedules that are played by default.
const SCHEDULES: u64 = 1_000;

/// Where hosts must have crashed, five times each in a thousand schedules.
const CRASHES: [&str; 10] = [
    "crash outside of a commit",
    "crash in drain outputs",
    "crash in write changelogs",
    "crash in drain",
    "crash in commit offsets",
    "crash in send offsets",
    "crash in commit transaction",
    // The offsets are committed, and no store is written.
    "crash in write stores",
    "crash after a write of a store",
    "crash between the stores of two tasks",
];

/// Where hosts must have stood still while others took over, and how often in a thousand schedules. Stages of
/// at-least-once are rarer: fewer schedules have zombies, and mostly nothing is left to drain.
const STALLS: [(&str, u64); 8] = [
    ("stall in no commit", 5),
    ("stall in drain outputs", 1),
    ("stall in write changelogs", 5),
    ("stall in drain", 5),
    ("stall in commit offsets", 1),
    ("stall in send offsets", 5),
    ("stall in commit transaction", 5),
    ("stall in write stores", 5),
];

fn schedules_to_play() -> u64 {
    let Ok(text) = std::env::var("SANDBAR_SIM_SCHEDULES") else { return SCHEDULES };
    text.parse().unwrap_or_else(|_| panic!("SANDBAR_SIM_SCHEDULES is a number, found {text:?}"))
}

#[test]
fn no_schedule_shows_anything_wrong() {
    let count = schedules_to_play();
    let campaign = Campaign::play(&schedules(0, count), usize::MAX);
    println!("{:?}\n{:?}\n{:#?}", campaign.played, campaign.counts, campaign.coverage);
    assert!(campaign.failures.is_empty(), "{}", campaign.describe_failures());
    let promoted = campaign.counts.get("promoted standby tasks").copied().unwrap_or(0);
    assert!(promoted >= 50 * count / SCHEDULES, "{promoted} standby tasks were promoted");
    let hits = |place: &str| campaign.coverage.get(place).copied().unwrap_or(0);
    let wanted = CRASHES.map(|place| (place, 5)).into_iter().chain(STALLS);
    let missed = wanted.filter(|(place, times)| hits(place) < times * count / SCHEDULES);
    let missed: BTreeMap<&str, u64> = missed.map(|(place, _)| (place, hits(place))).collect();
    assert!(missed.is_empty(), "{count} schedules hit too rarely: {missed:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..4 {
        for kind in Kind::ALL {
            let play = || run(&Scenario::new(kind, seed), false);
            assert_eq!(play().digest, play().digest, "{kind} seed {seed}");
        }
    }
    let play = |seed| run(&Scenario::new(Kind::ExactlyOnce, seed), false).digest;
    assert_ne!(play(0), play(1));
}
