//! How fast a host is back after `kill -9`: from the kill to the first record processed again, with a million keys in
//! the store and records coming in all the time, with the state directory kept and with it lost. Runs the built binary.
//! Needs `SANDBAR_KAFKA_BOOTSTRAP` of a fresh broker.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::host::{Host, Options, wait_committed, wait_until};
use e2e::topics::Broker;
use engine::broker::{ClientSupplier, NewTopic, Producer, ProducerRecord};

use crate::measure::{self, spread};
use crate::sandbox_tax::guests_dir;
use crate::{real_kafka, setting, show};

const APPLICATION: &str = "bench-restart";
const INPUT: &str = "bench-restart-in";
const OUTPUT: &str = "bench-restart-out";
const PARTITIONS: i32 = 4;
const LIMIT: Duration = Duration::from_secs(300);

/// How much comes in a second while the host is killed.
const RECORDS_PER_SECOND: u64 = 1_000;
/// How often the stores are made durable.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);

struct Recovery {
    seconds: f64,
    restored: u64,
}

/// The table.
pub fn run() -> Result<()> {
    let bootstrap = std::env::var("SANDBAR_KAFKA_BOOTSTRAP").context("needs SANDBAR_KAFKA_BOOTSTRAP")?;
    let rounds = setting("SANDBAR_BENCH_ROUNDS", 5)?;
    let keys = setting("SANDBAR_BENCH_RESTART_KEYS", 1_000_000)?;
    println!("load {} at the start", measure::load_average()?);
    let folder = std::env::temp_dir().join(format!("sandbar-bench-restart-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    create_topics(&bootstrap)?;
    let mut producer = real_kafka::clients(&bootstrap, "bench-restart-fill")?.producer(0, None)?;
    for key in 0..keys {
        send(&mut *producer, key)?;
    }
    producer.flush(LIMIT)?;
    let done = AtomicBool::new(false);
    let tables = std::thread::scope(|scope| {
        let feeder = scope.spawn(|| feed(&mut *producer, keys, &done));
        let tables = kills(&bootstrap, &folder, keys, rounds);
        done.store(true, Ordering::Relaxed);
        let fed = feeder.join().map_err(|_| anyhow!("the feeder panicked"))?;
        fed.and(tables)
    });
    fs::remove_dir_all(&folder)?;
    let (kept, lost) = tables?;
    println!(
        "\n## from kill -9 to the first record processed again: {keys} keys, {RECORDS_PER_SECOND} records/s, \
         exactly_once_v2, a static member, stores durable every {} s, {rounds} kills each, median (min–max)\n",
        FLUSH_INTERVAL.as_secs()
    );
    println!("| state directory | seconds | records restored |\n| --- | ---: | ---: |");
    for (name, recoveries) in [("kept", &kept), ("lost", &lost)] {
        let seconds = spread(recoveries.iter().map(|recovery| recovery.seconds));
        let restored = spread(recoveries.iter().map(|recovery| recovery.restored as f64));
        println!("| {name} | {} | {} |", show(seconds, 2), show(restored, 0));
    }
    println!("\none flush interval's worth: {} records", RECORDS_PER_SECOND * FLUSH_INTERVAL.as_secs());
    println!("load {} at the end", measure::load_average()?);
    Ok(())
}

fn create_topics(bootstrap: &str) -> Result<()> {
    let mut admin = real_kafka::clients(bootstrap, APPLICATION)?.admin()?;
    for name in [INPUT, OUTPUT] {
        let configs = Default::default();
        admin.create_topic(&NewTopic {
            name: name.to_owned(),
            partitions: PARTITIONS,
            replication_factor: 1,
            configs,
        })?;
    }
    Ok(())
}

fn send(producer: &mut dyn Producer, key: u64) -> Result<()> {
    let topic: Arc<str> = INPUT.into();
    let text = format!("k{key:09}");
    let record = ProducerRecord {
        topic: &topic,
        partition: Some((key % PARTITIONS as u64) as i32),
        timestamp: 1_357_020_000_000 + key as i64,
        key: Some(text.as_bytes()),
        value: Some(b"{}"),
        headers: &[],
    };
    real_kafka::send(producer, record)
}

/// Sends records of known keys at a steady rate.
fn feed(producer: &mut dyn Producer, keys: u64, done: &AtomicBool) -> Result<()> {
    const TICK: Duration = Duration::from_millis(10);
    let per_tick = RECORDS_PER_SECOND / (1_000 / TICK.as_millis() as u64);
    let (started, mut sent) = (Instant::now(), 0_u64);
    while !done.load(Ordering::Relaxed) {
        for _ in 0..per_tick {
            send(producer, sent.wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys)?;
            sent += 1;
        }
        producer.poll(Duration::ZERO)?;
        let due = TICK * u32::try_from(sent / per_tick)?;
        std::thread::sleep(due.saturating_sub(started.elapsed()));
    }
    Ok(producer.flush(LIMIT)?)
}

fn kills(bootstrap: &str, folder: &Path, keys: u64, rounds: u64) -> Result<(Vec<Recovery>, Vec<Recovery>)> {
    let manifest = write_manifest(folder)?;
    let (broker, state_dir) = (Broker::Kafka(bootstrap.to_owned()), folder.join("state"));
    let flush_ms = FLUSH_INTERVAL.as_millis().to_string();
    // As a static member the host takes its own place again. Any other one waits until the group has given up the one
    // that was killed, which takes session.timeout.ms, 45 s.
    let options = Options::new(&manifest, &broker, APPLICATION, &state_dir)
        .set("statestore.flush.interval.ms", &flush_ms)
        .set("group.instance.id", "bench-host");
    let mut host = Host::start_ready(&options)?;
    wait_committed(&[&host], INPUT, keys, LIMIT)?;
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (recoveries, keep) in [(&mut kept, true), (&mut lost, false)] {
            // What came while the host was down is no flush interval's worth.
            caught_up(&host)?;
            // At a moment of its own between two flushes, after at least one.
            std::thread::sleep(FLUSH_INTERVAL + Duration::from_millis(2_500 * (1 + recoveries.len() as u64 % 3)));
            let killed = Instant::now();
            host.kill()?;
            if !keep {
                fs::remove_dir_all(state_dir.join(APPLICATION))?;
            }
            host = Host::start(&options)?;
            recoveries.push(first_record(&host, killed)?);
        }
    }
    host.terminate()?;
    Ok((kept, lost))
}

/// Waits until the host is as far as what comes in, but for a second.
fn caught_up(host: &Host) -> Result<()> {
    wait_until(LIMIT, || {
        let lag = host.application()?.body["lag"].as_u64().context("the lag is not known")?;
        ensure!(lag <= RECORDS_PER_SECOND, "{lag} records to go");
        Ok(())
    })
}

fn write_manifest(folder: &Path) -> Result<PathBuf> {
    let module = fs::canonicalize(guests_dir().join("count.wasm")).context("the guest count; run `make guests`")?;
    let manifest = folder.join("sandbar.toml");
    let text = format!(
        "application.id = \"{APPLICATION}\"\nmodule = {:?}\n[sources.in]\ntopic = \"{INPUT}\"\n[sinks.out]\ntopic = \
         \"{OUTPUT}\"\n",
        module.display().to_string()
    );
    fs::write(&manifest, text)?;
    Ok(manifest)
}

/// Waits until the host has processed something.
fn first_record(host: &Host, killed: Instant) -> Result<Recovery> {
    while killed.elapsed() < LIMIT {
        // It does not answer yet while it starts.
        if let Ok(application) = host.application()
            && application.body["records_processed"].as_u64() > Some(0)
        {
            let seconds = killed.elapsed().as_secs_f64();
            let restored = application.body["restoring"]["records_restored"].as_u64().context("records_restored")?;
            return Ok(Recovery { seconds, restored });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nothing was processed in {LIMIT:?} after the kill")
}
