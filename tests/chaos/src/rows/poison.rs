//! Row E1, and E3 among its kinds: one of a hundred entries is poison, and every ten seconds a host is killed. Each
//! poison is one dead letter, the others are processed once and in order, and no record is tried again without end.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Request, options};
use crate::campaign::{self, Campaign};
use crate::results::Slice;

const POISON_ONE_IN: u64 = 100;
/// From one kill to the next.
const PAUSE_MS: (u64, u64) = (8_500, 10_500);
const MEAN_MS: u64 = 10_000;
const DEADLINE_MS: u64 = 60;

/// Calls with a part of a batch for each dead letter, at most: a batch of 500 is halved nine times, and each half is
/// called; then once more in a fresh instance. What was called before a kill is called again after it.
const CALLS_MAX: u64 = 2 * 9 + 2;

pub fn poison(request: &Request) -> Slice {
    // A memory bomb and an endless loop are tamed early. The schedule is due again after every loop.
    let mut options = options(request, MEAN_MS)
        .set("processor.memory.max.bytes", 16 << 20)
        .set("processor.deadline.ms", DEADLINE_MS)
        .set("config.tick.ms", DEADLINE_MS / 3);
    options.poison_one_in = POISON_ONE_IN;
    campaign::run(&options, |campaign| {
        for _ in 0..request.faults {
            rest(campaign)?;
            let victim = campaign.random.index(campaign.options.hosts);
            note_calls(campaign, victim)?;
            let pause = Duration::from_millis(campaign.random.below(1_500));
            campaign.kill_and_restart(victim, pause)?;
        }
        rest(campaign)?;
        let isolated: u64 =
            (0..campaign.options.hosts).map(|number| note_calls(campaign, number)).sum::<Result<_>>()?;
        ensure!(isolated > 0, "the hosts say that they isolated nothing");
        Ok(())
    })
}

fn rest(campaign: &mut Campaign) -> Result<()> {
    let pause_ms = campaign.random.between(PAUSE_MS.0, PAUSE_MS.1);
    campaign.go_on(Duration::from_millis(pause_ms))
}

/// How many records a host has isolated since its start; it has called its module so often as that takes, at most.
fn note_calls(campaign: &mut Campaign, number: usize) -> Result<u64> {
    let metric = |name| campaign.hosts.metric(number, name, "");
    let (calls, letters) = (metric("sandbar_isolation_calls_total")?, metric("sandbar_dead_letters_total")?);
    // The last one may not be isolated yet.
    ensure!(calls <= CALLS_MAX * (letters + 1), "host {number}: {calls} calls to isolate {letters} records");
    campaign.count("calls to isolate", calls);
    campaign.count("records isolated", letters);
    Ok(letters)
}
