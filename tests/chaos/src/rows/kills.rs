//! Rows A1 and A3: hosts killed at random moments, under either guarantee.

use std::time::Duration;

use anyhow::Result;

use super::{Request, options, rest};
use crate::campaign::{self, Campaign};
use crate::checker::Defect;
use crate::results::Slice;

/// From one kill to the next on the average.
const MEAN_MS: u64 = 6_500;

pub fn exactly_once(request: &Request) -> Slice {
    campaign::run(&options(request, MEAN_MS), |campaign| kill_hosts(campaign, request.faults))
}

/// Nothing may be lost. What was processed again shows as doubled outputs, and in balances that are too high.
pub fn at_least_once(request: &Request) -> Slice {
    let mut options = options(request, MEAN_MS).set("processing.guarantee", "at_least_once");
    options = options.set("commit.interval.ms", 500);
    options.allowed = vec![Defect::Duplicated, Defect::Wrong, Defect::Stale];
    campaign::run(&options, |campaign| kill_hosts(campaign, request.faults))
}

fn kill_hosts(campaign: &mut Campaign, kills: u64) -> Result<()> {
    for _ in 0..kills {
        rest(campaign)?;
        let victim = campaign.random.index(campaign.options.hosts);
        let pause = Duration::from_millis(campaign.random.below(1_500));
        campaign.kill_and_restart(victim, pause)?;
    }
    rest(campaign)
}
