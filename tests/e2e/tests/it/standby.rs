//! Standby replicas with two hosts and kills: the warm host takes over with few records to restore, again and again,
//! and the counts are exact.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::embedded::EmbeddedBroker;
use e2e::host::{Host, wait_until};
use e2e::{kafka, repository};
use serde_json::Value;

use crate::count::{Count, LIMIT, tasks_of};

const PARTITIONS: u32 = 4;
const KEYS: usize = 2_000;

/// Waits until each task has a warm copy, on the other host, that has read everything.
fn wait_warm(hosts: &[&Host; 2]) -> Result<()> {
    wait_until(LIMIT, || {
        let active = tasks_of(hosts)?;
        ensure!(active.iter().all(|tasks| tasks.len() == 2), "the tasks are not shared out evenly: {active:?}");
        for (host, elsewhere) in hosts.iter().zip(active.iter().rev()) {
            let application = host.application()?;
            let standby = application.body["standby"]["tasks"].as_array().context("no standby tasks")?;
            let warm = |task: &&Value| {
                let mut stores = task["stores"].as_array().into_iter().flatten();
                task["state"] == "FOLLOWING" && stores.all(|store| store["lag"] == 0)
            };
            let names = standby.iter().filter(warm).filter_map(|task| task["task"].as_str());
            let names: BTreeSet<String> = names.map(str::to_owned).collect();
            ensure!(names == *elsewhere, "{names:?} are warm instead of {elsewhere:?}: {standby:?}");
        }
        Ok(())
    })
}

fn restored(host: &Host) -> Result<u64> {
    host.application()?.body["restoring"]["records_restored"].as_u64().context("no count of restored records")
}

/// Kills one of two warm hosts amid its work and checks what the other makes of it. Returns the records that were
/// restored.
fn fail_over(count: &mut Count, mut killed: Host, left: &Host) -> Result<u64> {
    let promoted_before = left.log().matches("promoted standby task").count();
    let restored_before = restored(left)?;
    let lines = count.more(KEYS, 10);
    let since = std::thread::scope(|scope| {
        let producing = scope.spawn(|| count.produce(&lines));
        std::thread::sleep(Duration::from_millis(400));
        killed.kill()?;
        let since = Instant::now();
        producing.join().map_err(|_| anyhow::anyhow!("the producing thread panicked"))??;
        anyhow::Ok(since)
    })?;
    count.wait_processed(&[left])?;
    let takeover = since.elapsed();
    let restored = restored(left)? - restored_before;
    wait_until(Duration::from_secs(10), || {
        let promoted = left.log().matches("promoted standby task").count() - promoted_before;
        ensure!(promoted == 2, "{promoted} tasks were promoted:\n{}", left.log());
        Ok(())
    })?;
    println!("{}: {restored} records restored by 2 promoted tasks, {:.1} s", count.id, takeover.as_secs_f64());
    count.check(left)?;
    Ok(restored)
}

/// Kill the active, promote the standby, start the killed again, kill the other.
fn kill_promote_kill_again(mut count: Count) -> Result<()> {
    let lines = count.more(KEYS, 5);
    count.produce(&lines)?;
    let (first, second) = (count.host("first", 1)?, count.host("second", 1)?);
    count.wait_processed(&[&first, &second])?;
    wait_warm(&[&first, &second])?;
    let mut restored = vec![fail_over(&mut count, second, &first)?];

    let second = count.host("second", 1)?;
    count.wait_processed(&[&first, &second])?;
    wait_warm(&[&first, &second])?;
    restored.push(fail_over(&mut count, first, &second)?);

    // The changelogs of two tasks hold ten thousand records and more; the copies can lack what the killed host
    // committed in its last moments.
    ensure!(restored.iter().all(|&records| records <= 2 * KEYS as u64), "restored {restored:?}");
    Ok(())
}

#[test]
fn a_standby_is_promoted_on_the_embedded_broker() -> Result<()> {
    let folder = repository::scratch(&repository::unique("standby-broker"))?;
    let broker = EmbeddedBroker::start(Path::new(&folder), &[])?;
    kill_promote_kill_again(Count::new("standby", broker.by_address(), PARTITIONS)?)
}

#[test]
fn a_standby_is_promoted_on_real_kafka() -> Result<()> {
    kill_promote_kill_again(Count::new("standby-kafka", kafka::broker()?, PARTITIONS)?)
}
