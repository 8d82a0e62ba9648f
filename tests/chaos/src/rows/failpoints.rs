//! Row A2: both hosts always run towards a named point at which they abort, and are started again towards the next one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::repository;

use super::{Request, options};
use crate::campaign::{self, Campaign};
use crate::hosts::end_of;
use crate::results::Slice;

/// The points of the host, and how often one is passed at most before the abort. Those of a dead-letter queue and of a
/// module's exchange come with them.
const POINTS: [(&str, u64); 16] = [
    ("before-send", 8_000),
    ("after-send", 8_000),
    ("before-drain", 30),
    ("after-drain", 30),
    ("before-send-offsets", 30),
    ("after-send-offsets", 30),
    ("end-txn-sent", 30),
    ("after-commit", 30),
    ("after-write-batch", 100),
    ("before-flush", 12),
    ("after-flush", 12),
    ("before-revoke", 1),
    ("after-revoke", 1),
    ("after-restore-batch", 4),
    ("before-handover", 1),
    ("after-handover", 1),
];

/// Points that a host comes to only when the other one has gone for longer than a session, or has come back from that.
const OF_REBALANCES: [&str; 4] = ["before-revoke", "after-revoke", "before-handover", "after-handover"];

/// Longer than a session, with the time in which the other host takes over.
const LONG_PAUSE: Duration = Duration::from_secs(6);

/// After this time a host that has not come to its point is killed, and comes to it another time; where the point is
/// one of a rebalance, the other host is. The second host is given longer, so that not both are gone at once.
const LIMITS: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(32)];

pub fn run(request: &Request) -> Slice {
    let mut options = options(request, 3_000);
    // Members must come and go for a revoke, and be missed soon; stores must lag behind for a restore.
    options.static_members = false;
    options = options.set("kafka.consumer.session.timeout.ms", 2_500).set("statestore.flush.interval.ms", 1_500);
    options = options.set("num.standby.replicas", 1);
    options.binary = Some(binary());
    campaign::run(&options, |campaign| abort_hosts(campaign, request.faults))
}

/// The binary with failpoints, which `scripts/chaos.sh` builds.
pub fn binary() -> std::path::PathBuf {
    repository::target().join("failpoints/sandbar")
}

struct Armed {
    point: &'static str,
    passes: u64,
    since: Instant,
}

fn abort_hosts(campaign: &mut Campaign, aborts: u64) -> Result<()> {
    let first = campaign.random.index(POINTS.len());
    let mut queue: VecDeque<(&str, u64)> =
        POINTS.iter().cycle().skip(first).take(usize::try_from(aborts)?).copied().collect();
    let mut armed: Vec<Option<Armed>> = Vec::new();
    for number in 0..campaign.options.hosts {
        campaign.hosts.kill(number)?;
        armed.push(arm(campaign, number, &mut queue)?);
    }
    let mut missed = 0;
    while armed.iter().any(Option::is_some) {
        std::thread::sleep(Duration::from_millis(20));
        for number in 0..armed.len() {
            let Some(Armed { point, passes, since }) = &armed[number] else { continue };
            if let Some(status) = campaign.hosts.ended(number)? {
                let log = campaign.hosts.log_of(number);
                let reached = log.contains(&format!("failpoint {point}"));
                ensure!(reached, "host {number} ended with {status} before {point}:\n{}", end_of(&log));
                campaign.count(&format!("at {point}"), 1);
                campaign.hosts.forget(number);
                campaign.fault((0..campaign.options.partitions).collect());
            } else if since.elapsed() > LIMITS[number % LIMITS.len()] {
                missed += 1;
                ensure!(missed <= aborts, "the hosts do not come to their points, at last {point} of {passes}");
                if OF_REBALANCES.contains(point) {
                    push(campaign, &mut armed, number)?;
                    continue;
                }
                queue.push_back((*point, passes.div_ceil(2)));
                campaign.count("not reached, killed", 1);
                campaign.hosts.kill(number)?;
            } else {
                continue;
            }
            let waits = armed[1 - number].as_ref().is_some_and(|other| OF_REBALANCES.contains(&other.point));
            let pause = if waits { LONG_PAUSE } else { Duration::from_millis(campaign.random.below(800)) };
            std::thread::sleep(pause);
            armed[number] = arm(campaign, number, &mut queue)?;
        }
    }
    campaign.go_on(Duration::from_secs(2))
}

/// Has the host that waits for a rebalance see two: the other one goes, and comes back.
fn push(campaign: &mut Campaign, armed: &mut [Option<Armed>], number: usize) -> Result<()> {
    let other = 1 - number;
    if let Some(armed) = &mut armed[number] {
        armed.since = Instant::now();
    }
    if campaign.hosts.ended(other)?.is_some() {
        return Ok(());
    }
    campaign.count("killed for the other's sake", 1);
    // It may come to its own point at this moment, and comes to it again.
    campaign.hosts.stop_hard(other)?;
    std::thread::sleep(LONG_PAUSE);
    if let Some(armed) = &mut armed[other] {
        armed.since = Instant::now();
        set_point(campaign, other, armed.point, armed.passes);
    }
    campaign.hosts.start(other)
}

fn set_point(campaign: &mut Campaign, number: usize, point: &str, passes: u64) {
    let variable = ("SANDBAR_FAILPOINT".to_owned(), format!("{point}:{passes}"));
    campaign.hosts.slots[number].variables.push(variable);
}

/// Starts a host towards the next point; towards none when there is no other.
fn arm(campaign: &mut Campaign, number: usize, queue: &mut VecDeque<(&'static str, u64)>) -> Result<Option<Armed>> {
    let armed = queue.pop_front().map(|(point, bound)| {
        let passes = campaign.random.between(1, bound);
        Armed { point, passes, since: Instant::now() }
    });
    if let Some(Armed { point, passes, .. }) = &armed {
        set_point(campaign, number, point, *passes);
    }
    campaign.hosts.start(number)?;
    Ok(armed)
}
