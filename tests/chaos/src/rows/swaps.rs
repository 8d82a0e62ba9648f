//! Rows G3: versions that take over from each other under load, with and without kills; bad versions; several hosts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Request;
use crate::campaign::{self, Options};
use crate::results::Slice;
use crate::swaps::{self, Campaign, SWAP_LIMIT, bad, bench, migrating};

/// Two swaps in a second.
const TURN: Duration = Duration::from_millis(500);
/// Between two kills.
const KILL_EVERY: Duration = Duration::from_secs(15);

fn options(request: &Request, hosts: usize) -> Options {
    let mut options = Options::new(request.name, request.seed);
    options.hosts = hosts;
    options.static_members = request.seed.is_multiple_of(2);
    if !options.static_members {
        options = options.set("kafka.consumer.session.timeout.ms", 2_500);
    }
    // Loops and floods are to end in a campaign's time.
    options = options.set("probation.ms", 1_000);
    options.set("processor.deadline.ms", 300).set("processor.memory.max.bytes", 48 << 20)
}

fn run(options: &Options, running: usize, body: impl FnOnce(&mut Campaign) -> Result<()>) -> Slice {
    campaign::slice(options, |slice| {
        slice.settings.insert("entries per second".to_owned(), options.per_second.to_string());
        swaps::carry_through(options, running, slice, body)
    })
}

/// G3: two good versions take turns, twice in a second.
pub fn swap(request: &Request) -> Slice {
    run(&options(request, 1), 1, |campaign| turns(campaign, request.faults, None))
}

/// The same with two hosts, one of which is killed every 15 s.
pub fn kills(request: &Request) -> Slice {
    run(&options(request, 2), 2, |campaign| turns(campaign, request.faults, Some(KILL_EVERY)))
}

/// Bad versions under load; and refusals that change nothing.
pub fn bad(request: &Request) -> Slice {
    run(&options(request, 2), 2, |campaign| {
        let count = usize::try_from(request.faults)?.min(bad::BAD.len());
        bad::under_load(campaign, &bad::BAD[..count])?;
        bad::refused_at_rest(campaign)
    })
}

/// One deployment reaches two hosts; a third one that joins runs what is active, whatever its own manifest names.
pub fn hosts(request: &Request) -> Slice {
    run(&options(request, 3), 2, |campaign| converge(campaign, request.faults).and_then(|()| join(campaign)))
}

/// All of it in a minute: 20 swaps with a kill, some bad versions, a host that joins.
pub fn short(request: &Request) -> Slice {
    run(&options(request, 3), 2, |campaign| {
        turns(campaign, request.faults, Some(Duration::from_secs(4)))?;
        bad::under_load(campaign, &bad::BAD[..7])?;
        join(campaign)
    })
}

/// Rows of each partition that are migrated.
const PRELOADED: u32 = 10_000;
const PRELOADED_SHORT: u32 = 3_000;

/// A version whose store has another schema, with kills in the middle of its migration.
pub fn migrate(request: &Request) -> Slice {
    migrated(request, PRELOADED)
}

/// The same with fewer rows.
pub fn migrate_short(request: &Request) -> Slice {
    migrated(request, PRELOADED_SHORT)
}

fn migrated(request: &Request, preloaded: u32) -> Slice {
    // Commits that are small, so that there are many to be killed between.
    let mut options = options(request, 1).set("statestore.uncommitted.max.bytes", 256 << 10);
    // The guest takes its time for each row, so that the middle is long.
    options = options.set("processor.deadline.ms", 10_000);
    options.static_members = true;
    options.partitions = 4;
    options.preloaded = preloaded;
    options.keys = preloaded + 1_000;
    options.per_second = 2_000;
    run(&options, 1, |campaign| migrating::under_load(campaign, request.faults - 1))
}

/// Swaps at a steady rate. With kills there is one as soon as the time has passed, and one at least.
fn turns(campaign: &mut Campaign, swaps: u64, kill_every: Option<Duration>) -> Result<()> {
    campaign.go_on(Duration::from_secs(1))?;
    let started = Instant::now();
    let mut next_kill = kill_every;
    let mut last = 1;
    for swap in 0..swaps {
        let due = TURN * u32::try_from(swap)?;
        campaign.go_on(due.saturating_sub(started.elapsed()))?;
        if next_kill.is_some_and(|at| started.elapsed() >= at) {
            let victim = campaign.random.index(campaign.hosts.numbered().count());
            campaign.kill_and_restart(victim)?;
            next_kill = next_kill.zip(kill_every).map(|(at, every)| at + every.max(KILL_EVERY));
        }
        last = campaign.swap()?;
    }
    let ms = u64::try_from(started.elapsed().as_millis())?;
    campaign.count("swaps", swaps);
    campaign.count("ms of swaps", ms);
    let took = campaign.wait_tasks(last, Instant::now())?;
    campaign.at_most("max ms until all tasks ran the last", took / 1_000);
    Ok(())
}

fn converge(campaign: &mut Campaign, times: u64) -> Result<()> {
    for _ in 0..times {
        campaign.go_on(Duration::from_secs(1))?;
        let started = Instant::now();
        let number = campaign.swap()?;
        let us = campaign.wait_tasks(number, started)?;
        campaign.count("ms until both hosts ran it, summed up", us / 1_000);
        campaign.at_most("max ms until both hosts ran it", us / 1_000);
    }
    Ok(())
}

/// Starts the last host, whose manifest names the first version; it must get tasks, and run the active one.
fn join(campaign: &mut Campaign) -> Result<()> {
    // So that the active version is not the one of its manifest.
    let number = campaign.swap()?;
    campaign.wait_tasks(number, Instant::now())?;
    let joining = campaign.options.hosts - 1;
    let started = Instant::now();
    campaign.start_host(joining)?;
    loop {
        campaign.go_on(Duration::from_millis(50))?;
        if !campaign.hosts.partitions_of(joining).is_empty() {
            break;
        }
        ensure!(started.elapsed() < 2 * SWAP_LIMIT, "the host that joined has no task");
    }
    campaign.at_most("max ms until the joining host ran", u64::try_from(started.elapsed().as_millis())?);
    campaign.wait_tasks(number, Instant::now()).context("with a host that joined")?;
    campaign.count("hosts that joined and ran what is active", 1);
    Ok(())
}

/// Not a row of the matrix: what a swap costs.
pub fn bench(amount: bench::Amount, records_per_second: u64) -> Slice {
    let mut options = Options::new("bench-swaps", 1).set("module.max.bytes", 16_u64 << 20);
    options.hosts = 1;
    options.keys = 10_000;
    options.per_second = records_per_second;
    campaign::slice(&options, |slice| bench::run(&options, amount, slice))
}
