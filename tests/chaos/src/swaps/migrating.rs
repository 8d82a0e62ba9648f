//! A version whose store has another schema takes over while entries flow, and its host is killed in the middle of the
//! migration. Everything ends as if nothing had happened, the older rows are what they were at the switch, and nobody
//! goes back to them. A kill counts only where the host has gone on in the middle afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Campaign, OFFSETS, OFFSETS_PARTITIONS, module};
use crate::clients::log_ends;

/// How long a migration may take, with all its kills.
const LIMIT: Duration = Duration::from_secs(120);

/// The row at which the module that traps does so.
const TRAP_KEY: &str = "0-00042";

/// How far the tasks of a host are.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// Tasks that are migrating.
    tasks: usize,
    rows: u64,
}

/// Deploys the migrating version and kills the host so many times in the middle.
///
/// # Errors
/// When the middle is not met, or the tasks do not come to its end.
pub fn under_load(campaign: &mut Campaign, kills: u64) -> Result<()> {
    campaign.quiet()?;
    refused(campaign)?;
    campaign.load_again();
    campaign.go_on(Duration::from_secs(1))?;
    let version = campaign.version(module("versions-migrates")?, &[]);
    let started = Instant::now();
    let number = campaign.deploy_good(&version)?;
    campaign.count("ms of the deploy", ms(started));
    let began = Instant::now();
    let rows = u64::from(campaign.options.preloaded) * u64::from(campaign.options.partitions);
    // As many rows between two kills as leave some for the last start.
    let step = rows / (kills + 2);
    for kill in 0..kills {
        let progress = middle(campaign, step, began).with_context(|| format!("before kill {kill}"))?;
        campaign.kill_and_restart(0)?;
        campaign.faults += 1;
        // What a killed host has not committed before is never committed, and the next one has hardly begun.
        let tasks = migrating_tasks(campaign, number)?;
        println!("  killed after {} of {} rows of this start; {tasks} tasks are in the middle", progress.rows, rows);
        ensure!(tasks > 0, "kill {kill} was not in the middle: no commit says so");
        campaign.count("kills in the middle", 1);
        campaign.count("tasks killed in the middle", tasks);
    }
    all_migrated(campaign, number, began)?;
    campaign.count("ms until all was migrated", ms(began));
    let last = campaign.hosts.metric(0, "sandbar_migrated_rows_total", "")?;
    ensure!(kills == 0 || last < rows, "the last start has taken over {last} rows, all {rows} of them anew");
    campaign.count("rows of the first generation, at least", rows);
    campaign.count("rows of the last start", last);
    campaign.is_migrated = true;
    campaign.go_on(Duration::from_secs(1))?;
    campaign.quiet()?;
    no_way_back(campaign)
}

/// Tasks whose last commit says that the version is taking rows over.
fn migrating_tasks(campaign: &Campaign, number: u64) -> Result<u64> {
    let ends = log_ends(&campaign.kafka.bootstrap(), &[(OFFSETS.to_owned(), OFFSETS_PARTITIONS)])?;
    let commits = campaign.commits(&ends)?;
    let last = commits.iter().filter_map(|of_partition| of_partition.last());
    Ok(last.filter(|commit| commit.migrating == Some(number)).count() as u64)
}

/// Waits until all tasks run the version and none takes rows over.
fn all_migrated(campaign: &mut Campaign, number: u64, began: Instant) -> Result<()> {
    let count = campaign.options.partitions as usize;
    loop {
        campaign.deployer.wait_tasks(number, count, began, LIMIT)?;
        campaign.hosts.check_all_alive()?;
        if campaign.hosts.partitions_of(0).len() == count && progress(campaign)?.tasks == 0 {
            return Ok(());
        }
        ensure!(began.elapsed() < LIMIT, "tasks that run the new version are still migrating");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What the host says of its tasks; nothing while it does not answer.
fn progress(campaign: &Campaign) -> Result<Progress> {
    let (_, host) = campaign.hosts.numbered().next().context("no host runs")?;
    let Ok((200, document)) = host.get(&format!("/v1/apps/{}", campaign.name)) else { return Ok(Progress::default()) };
    let mut progress = Progress::default();
    let threads = document["threads"].as_array().into_iter().flatten();
    let tasks = threads.flat_map(|thread| thread["tasks"].as_array().into_iter().flatten());
    progress.tasks = tasks.filter(|task| task["migration"].is_object()).count();
    Ok(progress)
}

/// Waits until this start of the host has taken over so many rows, by its own count of them.
fn middle(campaign: &mut Campaign, rows: u64, began: Instant) -> Result<Progress> {
    loop {
        campaign.hosts.check_all_alive()?;
        let mut found = progress(campaign)?;
        // Tasks that are through with it are not among those that migrate.
        found.rows = campaign.hosts.metric(0, "sandbar_migrated_rows_total", "").unwrap_or(0);
        if found.rows >= rows {
            ensure!(found.tasks > 0, "the migration was over after {found:?}");
            return Ok(found);
        }
        ensure!(began.elapsed() < LIMIT, "no migration is seen, at last {found:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// At rest: a version whose migration traps at a row is refused, and says at which; nothing has changed.
fn refused(campaign: &mut Campaign) -> Result<()> {
    let version = campaign.version(module("versions-migrates-fragile")?, &[]);
    unchanged(campaign, "a migration that traps", |campaign| {
        let answer = campaign.deployer.deploy(&version)?.answer;
        let detail = format!("{} {}", answer.document["detail"], answer.document["incompatibilities"]);
        match answer.status == 422 && detail.contains(TRAP_KEY) {
            true => Ok(detail),
            false => bail!("the answer was {} {}", answer.status, answer.document),
        }
    })
}

/// At rest, after the migration: nobody goes back to the older rows.
fn no_way_back(campaign: &mut Campaign) -> Result<()> {
    unchanged(campaign, "back to the older schema", |campaign| {
        let answer = campaign.deployer.roll_back()?.answer;
        let detail = format!("{} {}", answer.document["detail"], answer.document["incompatibilities"]);
        match answer.status == 422 && detail.contains("schema version") {
            true => Ok(detail),
            false => bail!("the answer was {} {}", answer.status, answer.document),
        }
    })
}

/// Does what must be refused and change nothing.
fn unchanged(campaign: &mut Campaign, name: &str, change: impl FnOnce(&mut Campaign) -> Result<String>) -> Result<()> {
    let before = campaign.around()?;
    let refusal = change(campaign);
    campaign.go_on(Duration::from_millis(300))?;
    let after = campaign.around()?;
    match refusal {
        Err(error) => campaign.defect("not refused", &format!("{name}: {error:#}")),
        Ok(_) if before != after => {
            let differs = |key: &&String| before.get(key.as_str()) != after.get(key.as_str());
            let keys: Vec<&String> = after.as_object().into_iter().flat_map(|map| map.keys()).filter(differs).collect();
            campaign.defect("changed by a refusal", &format!("{name}: {keys:?}"));
        }
        Ok(detail) => {
            println!("  {name}: {detail}");
            campaign.count("refusals that changed nothing", 1);
        }
    }
    Ok(())
}
