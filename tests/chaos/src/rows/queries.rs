//! Row Q2: queries of every kind at whichever host runs, while hosts are killed and added by turns.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::host::wait_until;

use super::{Request, options};
use crate::campaign::{self, Campaign};
use crate::findings::Findings;
use crate::queries::judge::{self, Copies, Said};
use crate::queries::{Clients, Surroundings, Told, walk_once};
use crate::results::Slice;

/// Between two changes: a host is killed, and added.
const TURN: Duration = Duration::from_secs(10);
/// How long every key may take to be there at first.
const LIMIT: Duration = Duration::from_secs(60);

pub fn queries(request: &Request) -> Slice {
    let mut options = options(request, 2 * 10_000);
    options.hosts = 3;
    options.partitions = 9;
    options.keys = 50;
    // A host that is gone is to be missed, and not waited for.
    options.static_members = false;
    options = options.set("kafka.consumer.session.timeout.ms", 2_500);
    let copies = u64::from(request.seed.is_multiple_of(2));
    options = options.set("num.standby.replicas", copies);
    campaign::run(&options, |campaign| kill_and_add(campaign, request.faults, copies > 0))
}

fn kill_and_add(campaign: &mut Campaign, kills: u64, copies: bool) -> Result<()> {
    let around = campaign.surroundings(copies)?;
    let first = wait_until(LIMIT, || {
        let walk = walk_once(&around).context("the store has no answer yet")?;
        let Said::Walk { rows, .. } = &walk.said else { anyhow::bail!("no walk") };
        let all = around.plan.partitions * around.plan.keys;
        anyhow::ensure!(rows.len() == all as usize, "{} of {all} keys are there", rows.len());
        Ok(walk)
    })?;
    let clients = Clients::start(&around);
    let done = by_turns(campaign, &around, kills);
    let mut told = clients.finish()?;
    done?;
    // By it every key is known to be there from the beginning.
    told.queries.push(first);
    note(campaign, &around, &told, copies);
    Ok(())
}

fn by_turns(campaign: &mut Campaign, around: &Surroundings, kills: u64) -> Result<()> {
    campaign.go_on(TURN)?;
    for _ in 0..kills {
        let victim = campaign.random.index(campaign.options.hosts);
        let partitions = campaign.hosts.partitions_of(victim);
        campaign.hosts.kill(victim)?;
        campaign.fault(partitions);
        around.directory.set(campaign.hosts.addresses()?);
        campaign.go_on(TURN)?;
        campaign.hosts.start(victim)?;
        around.directory.set(campaign.hosts.addresses()?);
        campaign.go_on(TURN)?;
    }
    Ok(())
}

fn note(campaign: &mut Campaign, around: &Surroundings, told: &Told, copies: bool) {
    let Findings { counts, examples } = judge::judge(&told.queries, &around.plan);
    examples.iter().for_each(|example| println!("  {example}"));
    for (kind, count) in counts {
        campaign.defect(kind, count);
    }
    campaign.count("queries", told.requests);
    campaign.count("answered 503", told.later);
    campaign.count("cut off by a kill", told.cut_off);
    let names = match copies {
        false => vec![("no copies", Copies::None)],
        true => vec![
            ("1 copy, without it", Copies::None),
            ("1 copy, max_lag=200", Copies::Close),
            ("1 copy, standby=true", Copies::Any),
        ],
    };
    for (name, copies) in names {
        let outage = judge::longest_outage(&told.queries, copies);
        let (begin_s, length_ms) = (outage.begin_us / 1_000_000, outage.length_ms());
        println!(
            "  {name}: partition {} for {length_ms} ms from second {begin_s}: {}",
            outage.partition, outage.reason
        );
        campaign.at_most(&format!("max ms a key could not be read, {name}"), length_ms);
    }
}
