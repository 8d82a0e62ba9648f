//! Row C5: the tasks of a killed host go on from the warm copies that the other host keeps, by turns.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::host::wait_until;

use super::{Request, options, rest};
use crate::campaign::{self, Campaign};
use crate::results::Slice;

/// How long a copy may take to become warm, and a task to go on.
const LIMIT: Duration = Duration::from_secs(60);

/// What warm copies may lack: about what is committed in a second.
const RESTORED_MAX: u64 = 2_000;

pub fn fail_over(request: &Request) -> Slice {
    // A static member would be waited for until its session is over, a while in which it comes back.
    let mut options = options(request, 13_000);
    options.static_members = false;
    options = options.set("num.standby.replicas", 1).set("kafka.consumer.session.timeout.ms", 2_500);
    campaign::run(&options, |campaign| {
        for number in 0..usize::try_from(request.faults)? {
            wait_until(LIMIT, || campaign.hosts.check_warm()).context("before a kill")?;
            rest(campaign)?;
            fail_over_one(campaign, number % campaign.options.hosts)?;
        }
        rest(campaign)
    })
}

fn fail_over_one(campaign: &mut Campaign, victim: usize) -> Result<()> {
    let survivor = 1 - victim;
    let promotions = |campaign: &Campaign| campaign.hosts.log_of(survivor).matches("promoted standby task").count();
    let promoted_before = promotions(campaign);
    let restored_before = campaign.hosts.restored_by(survivor)?;
    let partitions = campaign.hosts.partitions_of(victim);
    campaign.hosts.kill(victim)?;
    campaign.fault(partitions.clone());
    let killed = Instant::now();
    wait_until(LIMIT, || {
        let running = campaign.hosts.partitions_of(survivor).len();
        ensure!(running == campaign.options.partitions as usize, "host {survivor} runs {running} tasks");
        Ok(())
    })?;
    let took_ms = u64::try_from(killed.elapsed().as_millis()).unwrap_or(u64::MAX);
    let promoted = u64::try_from(promotions(campaign) - promoted_before)?;
    let restored = campaign.hosts.restored_by(survivor)?.saturating_sub(restored_before);
    ensure!(promoted >= partitions.len() as u64, "{promoted} of the tasks {partitions:?} were promoted");
    ensure!(restored <= RESTORED_MAX, "{promoted} promoted tasks restored {restored} records");
    campaign.count("tasks promoted", promoted);
    campaign.count("restored by promoted tasks", restored);
    campaign.at_most("max restored at once", restored);
    campaign.at_most("max ms until all tasks ran", took_ms);
    campaign.hosts.start(victim)
}
