//! The simulation's tests: many seeds with faults, clean seeds in which nothing may be replayed, repeatability, and
//! the checker's own test. `SANDBAR_SIM_SEEDS` sets how many seeds are played, `SANDBAR_SIM_SEED` replays one and
//! prints its trace.

mod self_test;

use sim::{Report, Scenario, run};

/// Seeds with faults that are played by default.
const SEEDS: u64 = 200;

/// Seeds with zombies that are played by default.
const ZOMBIE_SEEDS: u64 = 40;

/// Seeds with faults that are played under exactly-once by default.
const EXACTLY_ONCE_SEEDS: u64 = 80;

/// Clean seeds that are played by default.
const CLEAN_SEEDS: u64 = 40;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, found {text:?}")))
}

fn play(kind: &str, seeds: u64, scenario: fn(u64) -> Scenario) {
    let single = number("SANDBAR_SIM_SEED");
    let range = single.map_or(0..seeds, |seed| seed..seed + 1);
    let mut failed: Vec<Report> = Vec::new();
    for seed in range {
        let report = run(&scenario(seed), single.is_some());
        if single.is_some() {
            println!("{:#?}\n{}", scenario(seed), report.trace.join("\n"));
            println!("{kind} seed {seed}: {}", report.summary);
        }
        if !report.violations.is_empty() {
            failed.push(report);
        }
    }
    for report in &failed {
        println!("{kind} seed {}: {}", report.seed, report.summary);
        report.violations.iter().take(8).for_each(|violation| println!("    {violation}"));
    }
    let seeds: Vec<u64> = failed.iter().map(|report| report.seed).collect();
    assert!(failed.is_empty(), "{kind} seeds {seeds:?} failed; replay one with SANDBAR_SIM_SEED=<seed>");
}

#[test]
fn nothing_is_lost_under_faults() {
    play("faulty", number("SANDBAR_SIM_SEEDS").unwrap_or(SEEDS), Scenario::new);
}

#[test]
fn nothing_is_lost_or_doubled_under_exactly_once() {
    let seeds = number("SANDBAR_SIM_SEEDS").map_or(EXACTLY_ONCE_SEEDS, |seeds| seeds / 2);
    play("exactly-once", seeds, Scenario::exactly_once);
}

#[test]
fn no_output_is_lost_when_zombies_come_back() {
    play("zombie", number("SANDBAR_SIM_SEEDS").map_or(ZOMBIE_SEEDS, |seeds| seeds / 5), Scenario::with_zombies);
}

#[test]
fn nothing_is_repeated_without_faults() {
    play("clean", number("SANDBAR_SIM_SEEDS").map_or(CLEAN_SEEDS, |seeds| seeds / 5), Scenario::clean);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..10 {
        let (first, second) = (run(&Scenario::new(seed), false), run(&Scenario::new(seed), false));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        let (first, second) = (run(&Scenario::exactly_once(seed), false), run(&Scenario::exactly_once(seed), false));
        assert_eq!(first.digest, second.digest, "exactly-once seed {seed}");
    }
    assert_ne!(run(&Scenario::new(0), false).digest, run(&Scenario::new(1), false).digest);
}
