//! Rows about whole processes: frozen ones (A4), two of one identity (A5), modules that trap (A8), a new
//! version (A9), calls that are too slow (B7), orderly ends (H2).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::host::wait_until;

use super::{Request, options, rest};
use crate::campaign::{self, Campaign};
use crate::hosts::{END_LIMIT, end_of};
use crate::results::Slice;

/// Longer than a member is missed and a transaction lasts.
const FREEZE: Duration = Duration::from_secs(13);

/// A4: what a host did before it was frozen and had not committed must not count when it goes on.
pub fn freeze(request: &Request) -> Slice {
    let mut options = options(request, 21_000);
    options = options.set("kafka.consumer.session.timeout.ms", 3_000);
    campaign::run(&options, |campaign| {
        for _ in 0..request.faults {
            rest(campaign)?;
            let victim = campaign.random.index(campaign.options.hosts);
            freeze_one(campaign, victim)?;
        }
        rest(campaign)
    })
}

fn freeze_one(campaign: &mut Campaign, victim: usize) -> Result<()> {
    let partitions = campaign.hosts.partitions_of(victim);
    let before = dirty_closes(campaign, victim);
    let recycles_before = campaign.hosts.metric(victim, "sandbar_recycles_total", "")?;
    campaign.hosts.signal(victim, "STOP")?;
    campaign.fault(partitions.clone());
    campaign.go_on(FREEZE)?;
    let other = 1 - victim;
    let taken = campaign.hosts.partitions_of(other).is_superset(&partitions);
    campaign.count("taken over meanwhile", u64::from(taken));
    campaign.hosts.signal(victim, "CONT")?;
    // It must notice, drop what it had, and come back.
    let noticed = wait_until(Duration::from_secs(20), || {
        let closes = dirty_closes(campaign, victim);
        let recycles = campaign.hosts.metric(victim, "sandbar_recycles_total", "")?;
        ensure!(closes > before || recycles > recycles_before, "nothing was closed dirty");
        Ok(())
    });
    if partitions.is_empty() {
        campaign.count("froze without tasks", 1);
    } else if noticed.is_ok() {
        campaign.count("fenced", 1);
    } else {
        let log = campaign.hosts.log_of(victim);
        bail!("host {victim} went on as if nothing had been:\n{}", end_of(&log));
    }
    Ok(())
}

fn dirty_closes(campaign: &Campaign, number: usize) -> u64 {
    campaign.hosts.metric(number, "sandbar_tasks_closed_total", "how=\"dirty\"").unwrap_or(0)
}

/// A5: the older one ends loudly, the newer one goes on; they do not take turns.
pub fn double(request: &Request) -> Slice {
    let mut options = options(request, 15_000);
    options.static_members = true;
    campaign::run(&options, |campaign| {
        for _ in 0..request.faults {
            rest(campaign)?;
            let victim = campaign.random.index(campaign.options.hosts);
            double_one(campaign, victim)?;
        }
        rest(campaign)
    })
}

fn double_one(campaign: &mut Campaign, victim: usize) -> Result<()> {
    let partitions = campaign.hosts.partitions_of(victim);
    campaign.fault(partitions);
    let mut older = campaign.hosts.start_double(victim)?;
    let started = Instant::now();
    let status = older.wait(Duration::from_secs(40)).context("the older host of two with one identity")?;
    ensure!(!status.success(), "the older host ended as if all were well:\n{}", end_of(&older.log()));
    campaign.count("older ended loudly", 1);
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    campaign.at_most("max ms to its end", took_ms);
    campaign.go_on(Duration::from_secs(3))
}

/// A8: a trap undoes its call, ends the application, and its transaction is never seen.
pub fn trap(request: &Request) -> Slice {
    let options = options(request, 4_000).set("config.trap.one.in", 20_000);
    campaign::run(&options, |campaign| {
        let mut traps = 0;
        while traps < request.faults {
            std::thread::sleep(Duration::from_millis(50));
            for number in 0..campaign.options.hosts {
                let Some(status) = campaign.hosts.ended(number)? else { continue };
                let log = campaign.hosts.log_of(number);
                let trapped = !status.success() && log.contains("a trap that the manifest asked for");
                ensure!(trapped, "host {number} ended with {status}:\n{}", end_of(&log));
                traps += 1;
                campaign.hosts.forget(number);
                campaign.fault((0..campaign.options.partitions).collect());
                if traps == request.faults {
                    campaign.hosts.set("config.trap.one.in", "0");
                }
                campaign.hosts.start(number)?;
            }
        }
        // Those that still may trap are started again without.
        for number in 0..campaign.options.hosts {
            campaign.hosts.stop_hard(number)?;
            campaign.hosts.start(number)?;
        }
        campaign.go_on(Duration::from_secs(3))
    })
}

/// B7: a call that takes longer than the group waits for a poll; its work is dropped, and done by whoever is next.
pub fn slow(request: &Request) -> Slice {
    let mut options = options(request, 12_000).set("config.idle.one.in", request.records / request.faults.max(1));
    options.static_members = false;
    options = options
        .set("config.idle.turns", 12_000_000_000_u64)
        .set("processor.deadline.ms", 120_000)
        .set("kafka.consumer.session.timeout.ms", 2_500)
        .set("max.poll.interval.ms", 3_000);
    campaign::run(&options, |campaign| {
        let time_ms = request.faults * 12_000;
        for _ in 0..time_ms / 3_000 {
            campaign.go_on(Duration::from_secs(3))?;
        }
        for number in 0..campaign.options.hosts {
            let closed = dirty_closes(campaign, number);
            campaign.count("tasks closed dirty", closed);
        }
        campaign.hosts.set("config.idle.one.in", "0");
        for number in 0..campaign.options.hosts {
            campaign.hosts.stop_hard(number)?;
            campaign.fault((0..campaign.options.partitions).collect());
            campaign.hosts.start(number)?;
        }
        campaign.go_on(Duration::from_secs(3))
    })
}

/// A9: a host that ends in order and comes back, as another version perhaps, goes on where it was and restores nothing.
/// `SANDBAR_OTHER_BINARY` names the other version's binary; the two take turns.
pub fn rolling(request: &Request) -> Slice {
    let mut options = options(request, 9_000);
    options.static_members = true;
    options = options.set("kafka.consumer.session.timeout.ms", 6_000);
    campaign::run(&options, |campaign| {
        let other = std::env::var_os("SANDBAR_OTHER_BINARY").map(PathBuf::from);
        let hosts = campaign.options.hosts;
        for number in 0..usize::try_from(request.faults)? {
            rest(campaign)?;
            // Both hosts get the one version, then both the other.
            let binary = if number / hosts % 2 == 0 { other.clone() } else { None };
            campaign.count("of the other version", u64::from(binary.is_some()));
            campaign.hosts.set_binary(binary);
            restart_one(campaign, number % hosts)?;
        }
        campaign.hosts.set_binary(None);
        rest(campaign)
    })
}

fn restart_one(campaign: &mut Campaign, victim: usize) -> Result<()> {
    let partitions = campaign.hosts.partitions_of(victim);
    campaign.fault(partitions.clone());
    campaign.hosts.terminate(victim)?;
    campaign.hosts.start(victim)?;
    wait_until(Duration::from_secs(30), || {
        let running = campaign.hosts.partitions_of(victim);
        ensure!(running == partitions, "host {victim} processes {running:?}, and not yet {partitions:?}");
        Ok(())
    })?;
    let restored = campaign.hosts.restored_by(victim)?;
    ensure!(restored == 0, "host {victim} restored {restored} records after an orderly end");
    campaign.count("restored by restarted hosts", restored);
    Ok(())
}

/// H2: in whatever state a host is, it ends in time.
pub fn terminate(request: &Request) -> Slice {
    campaign::run(&options(request, 5_000), |campaign| {
        for _ in 0..request.faults {
            let victim = campaign.random.index(campaign.options.hosts);
            terminate_one(campaign, victim)?;
        }
        rest(campaign)
    })
}

/// Starting, restoring, rebalancing and running are told apart by the time since the start.
fn terminate_one(campaign: &mut Campaign, victim: usize) -> Result<()> {
    let wait_ms = match campaign.random.below(3) {
        0 => campaign.random.below(300),
        1 => campaign.random.below(2_500),
        _ => campaign.random.between(2_500, 8_000),
    };
    campaign.go_on(Duration::from_millis(wait_ms))?;
    let state = campaign.hosts.state_of(victim);
    let partitions = campaign.hosts.partitions_of(victim);
    campaign.fault(partitions);
    let took = campaign.hosts.terminate(victim)?;
    ensure!(took <= END_LIMIT, "host {victim} took {took:?} to end");
    campaign.count(&format!("while {state}"), 1);
    campaign.at_most("max ms to its end", u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    campaign.hosts.start(victim)
}
