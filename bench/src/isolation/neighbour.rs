//! Part (c), row D4: an application at a fixed rate (`tally`, exactly-once) by itself, and beside a hostile one that
//! loops until its deadline and churns memory at every record. By default each has a `sandbar run` of its own; with
//! SANDBAR_BENCH_ISOLATION_ONE_PROCESS=1 one process runs both manifests. Latency is from a record's own timestamp to
//! when a reader of committed records has its output. Driver, reader and broker share the machine with both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::host::{Host, Options};
use e2e::topics::Broker;
use engine::broker::{ClientSupplier, NewTopic, ProducerRecord, RebalanceEvent, StartOffset};

use super::{LIMIT, Plan};
use crate::measure::{cpu_time_of, spread};
use crate::real_kafka::{clients, send};
use crate::sandbox_tax::guests_dir;
use crate::show;

const VICTIM: &str = "bench-victim";
const HOSTILE: &str = "bench-hostile";
const PARTITIONS: i32 = 4;
const KEYS: u64 = 10_000;
/// More than a hostile application gets through.
const HOSTILE_RECORDS: u64 = 20_000;

/// What a turn came to.
struct Turn {
    /// Of the rate at which records came.
    share: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Of the victim's process; of both applications where that is one.
    cpu_us_per_record: f64,
    /// Of the hostile application.
    dead_letters: u64,
}

struct Place {
    bootstrap: String,
    folder: PathBuf,
    one_process: bool,
}

pub fn run(plan: &Plan) -> Result<()> {
    let place = Place {
        bootstrap: std::env::var("SANDBAR_KAFKA_BOOTSTRAP").context("part (c) needs SANDBAR_KAFKA_BOOTSTRAP")?,
        folder: std::env::temp_dir().join(format!("sandbar-bench-neighbour-{}", std::process::id())),
        one_process: std::env::var_os("SANDBAR_BENCH_ISOLATION_ONE_PROCESS").is_some_and(|value| value == "1"),
    };
    std::fs::create_dir_all(&place.folder)?;
    place.create_topics()?;
    place.fill_hostile()?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let arrivals: Arrivals = Arc::default();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&place.bootstrap, &arrivals, &done));
        let turns = (|| {
            for _ in 0..plan.rounds {
                alone.push(place.turn(plan, false, &arrivals)?);
                beside.push(place.turn(plan, true, &arrivals)?);
            }
            Ok(())
        })();
        done.store(true, Ordering::Relaxed);
        let read = reader.join().map_err(|_| anyhow!("the reader panicked"))?;
        turns.and(read)
    })?;
    print_table(plan, &place, &alone, &beside);
    std::fs::remove_dir_all(&place.folder)?;
    Ok(())
}

fn print_table(plan: &Plan, place: &Place, alone: &[Turn], beside: &[Turn]) {
    let processes = if place.one_process { "one process" } else { "two processes" };
    println!(
        "\n## (c) {} records/s beside a hostile application, {processes}, {} s a turn\n",
        plan.per_second, plan.seconds
    );
    println!("| victim | of the rate that came | p50 ms | p99 ms | CPU µs/rec | the neighbour's dead letters |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (name, turns) in [("alone", alone), ("beside the hostile one", beside)] {
        let of = |value: fn(&Turn) -> f64, decimals| show(spread(turns.iter().map(value)), decimals);
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            of(|turn| turn.share, 3),
            of(|turn| turn.p50_ms, 0),
            of(|turn| turn.p99_ms, 0),
            of(|turn| turn.cpu_us_per_record, 1),
            turns.iter().map(|turn| turn.dead_letters).sum::<u64>()
        );
    }
    let pairs = |of: fn(&Turn) -> f64| spread(beside.iter().zip(alone).map(|(beside, alone)| of(beside) / of(alone)));
    println!(
        "\nThe victim's throughput is {} of its own alone (goal 0.9), its p99 {} times that (goal 1.2).",
        show(pairs(|turn| turn.share), 3),
        show(pairs(|turn| turn.p99_ms), 2)
    );
}

impl Place {
    fn create_topics(&self) -> Result<()> {
        let clients = clients(&self.bootstrap, "bench-neighbour")?;
        let mut admin = clients.admin()?;
        for (application, kinds) in [(VICTIM, &["in", "out"][..]), (HOSTILE, &["in", "out", "dead-letters"][..])] {
            for kind in kinds {
                let name = format!("{application}-{kind}");
                let configs = BTreeMap::new();
                admin.create_topic(&NewTopic { name, partitions: PARTITIONS, replication_factor: 1, configs })?;
            }
        }
        Ok(())
    }

    fn fill_hostile(&self) -> Result<()> {
        let topic: Arc<str> = format!("{HOSTILE}-in").into();
        let mut producer = clients(&self.bootstrap, "bench-neighbour-fill")?.producer(0, None)?;
        for index in 0..HOSTILE_RECORDS {
            let value = if index % 8 < 4 { "!loop" } else { "!churn" };
            let partition = Some((index % PARTITIONS as u64) as i32);
            let (key, timestamp) = (index.to_string(), now_ms());
            let record = ProducerRecord {
                topic: &topic,
                partition,
                timestamp,
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                headers: &[],
            };
            send(&mut *producer, record)?;
        }
        Ok(producer.flush(LIMIT)?)
    }

    fn manifest(&self, application: &str, guest: &str, more: &str) -> Result<PathBuf> {
        let module = std::fs::canonicalize(guests_dir().join(guest).with_extension("wasm"))
            .with_context(|| format!("the guest {guest}; `make guests`"))?;
        let path = self.folder.join(format!("{application}.toml"));
        let text = format!(
            "application.id = \"{application}\"\nmodule = {:?}\nsources.in.topic = \"{application}-in\"\nsinks.out.topic \
             = \"{application}-out\"\n{more}",
            module.display().to_string()
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// The hosts of a turn, the victim's first.
    fn start(&self, hostile: bool) -> Result<Vec<Host>> {
        let broker = Broker::Kafka(self.bootstrap.clone());
        let victim = self.manifest(VICTIM, "tally", "")?;
        // It is never given up, so that it goes on being hostile, and its loops are short, so that it ends up with dead
        // letters and new instances within a turn.
        let more = format!(
            "errors.dead.letter.queue.topic.name = \"{HOSTILE}-dead-letters\"\nprocessing.exception.consecutive.max = \
             1000000000\nprocessor.deadline.ms = 50\n"
        );
        let neighbour = self.manifest(HOSTILE, "fragile", &more)?;
        let start = |manifests: &[PathBuf], state: &str| {
            Host::start_ready(&Options::several(manifests, &broker, &self.folder.join(state)))
        };
        if self.one_process {
            let manifests = if hostile { vec![victim, neighbour] } else { vec![victim] };
            return Ok(vec![start(&manifests, "both")?]);
        }
        let mut hosts = vec![start(&[victim], "victim")?];
        if hostile {
            hosts.push(start(&[neighbour], "hostile")?);
        }
        Ok(hosts)
    }

    fn turn(&self, plan: &Plan, hostile: bool, arrivals: &Arrivals) -> Result<Turn> {
        let hosts = self.start(hostile)?;
        // A second for the neighbour's first records and for caches.
        self.feed(plan.per_second, Duration::from_secs(1))?;
        wait_for(arrivals, plan.per_second)?;
        let process = hosts[0].process_id().to_string();
        let (cpu_before, started) = (cpu_time_of(&process)?, Instant::now());
        let sent = self.feed(plan.per_second, Duration::from_secs(plan.seconds))?;
        let mut seen = wait_for(arrivals, sent)?;
        let took = started.elapsed();
        let cpu = cpu_time_of(&process)?.saturating_sub(cpu_before);
        let dead_letters = hosts.iter().map(dead_letters).sum::<Result<u64>>()?;
        ensure!(!hostile || dead_letters > 0, "the neighbour did nothing hostile");
        for mut host in hosts {
            // A module in an endless loop ends with its deadline, so the end takes a while.
            host.terminate()?;
        }
        seen.sort_unstable();
        let percentile = |percent: usize| seen[(seen.len() * percent / 100).min(seen.len() - 1)] as f64;
        Ok(Turn {
            share: sent as f64 / took.as_secs_f64() / plan.per_second as f64,
            p50_ms: percentile(50),
            p99_ms: percentile(99),
            cpu_us_per_record: cpu.as_secs_f64() * 1e6 / sent as f64,
            dead_letters,
        })
    }

    /// Sends records at a steady rate; how many.
    fn feed(&self, per_second: u64, time: Duration) -> Result<u64> {
        const TICK: Duration = Duration::from_millis(10);
        let topic: Arc<str> = format!("{VICTIM}-in").into();
        let mut producer = clients(&self.bootstrap, "bench-neighbour-feed")?.producer(0, None)?;
        let (started, mut sent) = (Instant::now(), 0_u64);
        let all = per_second * time.as_secs();
        while sent < all {
            let due = (started.elapsed().as_secs_f64() * per_second as f64) as u64;
            while sent < due.min(all) {
                let key = format!("k{:05}", sent.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS);
                let record = ProducerRecord {
                    topic: &topic,
                    partition: Some((sent % PARTITIONS as u64) as i32),
                    timestamp: now_ms(),
                    key: Some(key.as_bytes()),
                    value: Some(b"some value"),
                    headers: &[],
                };
                send(&mut *producer, record)?;
                sent += 1;
            }
            producer.poll(Duration::ZERO)?;
            std::thread::sleep(TICK);
        }
        producer.flush(LIMIT)?;
        Ok(sent)
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64)
}

/// The sum of the counter over all series of a host.
fn dead_letters(host: &Host) -> Result<u64> {
    let (_, body) = host.get("/metrics")?;
    let text = body.as_str().context("the metrics are no text")?;
    let series = text.lines().filter(|line| line.starts_with("sandbar_dead_letters_total{"));
    Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

/// How many milliseconds after its timestamp each output was seen.
type Arrivals = Arc<Mutex<Vec<i64>>>;

/// Waits for so many outputs and takes them.
fn wait_for(arrivals: &Arrivals, records: u64) -> Result<Vec<i64>> {
    let started = Instant::now();
    loop {
        let mut seen = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() as u64 >= records {
            return Ok(std::mem::take(&mut *seen));
        }
        ensure!(started.elapsed() < LIMIT, "{} of {records} outputs after {LIMIT:?}", seen.len());
        drop(seen);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads the victim's output until the end.
fn read(bootstrap: &str, arrivals: &Arrivals, done: &AtomicBool) -> Result<()> {
    let mut consumer = clients(bootstrap, "bench-neighbour-read")?.consumer(0)?;
    consumer.subscribe(&[format!("{VICTIM}-out").as_str().into()])?;
    while !done.load(Ordering::Relaxed) {
        let polled = consumer.poll(Duration::from_millis(100), 10_000)?;
        for event in polled.events {
            match event {
                RebalanceEvent::Assigned(partitions) => {
                    let starts: Vec<_> =
                        partitions.into_iter().map(|partition| (partition, StartOffset::Earliest)).collect();
                    consumer.assign(&starts)?;
                }
                RebalanceEvent::Revoked(partitions) | RebalanceEvent::Lost(partitions) => {
                    consumer.unassign(&partitions)?;
                }
            }
        }
        let now_ms = now_ms();
        let records = polled.records.iter().flat_map(|batch| &batch.records);
        let mut seen = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(records.map(|record| now_ms - record.timestamp));
    }
    Ok(consumer.close()?)
}
