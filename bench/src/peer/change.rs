//! The same change of a running count, as each side can make it: a deployment to a running host, or a stop and a start.
//! Records come at a steady rate all the time. What is measured is how long the output of a partition stood still, by
//! the times at which the broker appended its records, and how long it took until nothing was left to be caught up.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::host::free_port;
use engine::broker::{BrokerErrorKind, ClientSupplier, NewTopic, RestoreConsumer};
use kafka::topics::ReadOptions;

use super::pipelines::{PIPELINES, Pipeline};
use super::processes::{self, Launch, Plan, Process, Side, tail};
use crate::measure::{self, spread};
use crate::workload::{Keys, PARTITIONS, input_of};
use crate::{real_kafka, setting, show};

const GUARANTEE: &str = "exactly_once_v2";
const LIMIT: Duration = Duration::from_secs(120);
/// How long all is left alone before the change, and after it was caught up.
const QUIET: Duration = Duration::from_secs(5);

/// How the change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Deployment,
    Restart,
    /// With `group.instance.id`, so that the group does not wait for the member that has ended.
    StreamsStatic,
    Streams,
}

impl Way {
    const ALL: [Self; 4] = [Self::Deployment, Self::Restart, Self::StreamsStatic, Self::Streams];

    fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Sandbar, `sandbar deploy` of a new module",
            Self::Restart => "Sandbar, stop and start",
            Self::StreamsStatic => "Kafka Streams, stop and start, static members",
            Self::Streams => "Kafka Streams, stop and start",
        }
    }

    fn is_streams(self) -> bool {
        matches!(self, Self::StreamsStatic | Self::Streams)
    }
}

/// What one change cost, in seconds.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// The longest time in which an output partition got nothing.
    still: f64,
    /// The same before the change.
    still_before: f64,
    caught_up: f64,
    /// Answers in the worst second from the change on.
    least_rate: f64,
}

/// Prints the table.
///
/// # Errors
/// When a process ended, or was not as far as the input in time.
pub fn run(plan: &Plan, rounds: u64) -> Result<()> {
    let per_second = setting("SANDBAR_BENCH_RECORDS_PER_SECOND", 20_000)?;
    let pipeline = PIPELINES.iter().find(|pipeline| pipeline.peer == "count-rocksdb").context("no such pipeline")?;
    let load = measure::load_average()?;
    let mut costs: BTreeMap<&str, Vec<Cost>> = BTreeMap::new();
    for round in 0..rounds {
        for way in Way::ALL {
            let what = || format!("{}, round {round}", way.name());
            let cost = change(plan, pipeline, way, per_second, round).with_context(what)?;
            costs.entry(way.name()).or_default().push(cost);
        }
    }
    println!(
        "{}, {GUARANTEE}, {per_second} records a second, {rounds} rounds by turns, load {load} at the start and {} at the \
         end; seconds, median (least–most)\n",
        pipeline.name,
        measure::load_average()?
    );
    println!(
        "| the change | no output in a partition | the same before it | until caught up | answers in the worst second |"
    );
    println!("| --- | ---: | ---: | ---: | ---: |");
    for way in Way::ALL {
        let Some(costs) = costs.get(way.name()) else { continue };
        let of = |value: fn(&Cost) -> f64, decimals| show(spread(costs.iter().map(value)), decimals);
        println!(
            "| {} | {} | {} | {} | {} |",
            way.name(),
            of(|cost| cost.still, 2),
            of(|cost| cost.still_before, 2),
            of(|cost| cost.caught_up, 2),
            of(|cost| cost.least_rate, 0)
        );
    }
    Ok(())
}

/// One change, on topics and with a group of its own.
fn change(plan: &Plan, pipeline: &Pipeline, way: Way, per_second: u64, round: u64) -> Result<Cost> {
    let application_id = format!("change-{way:?}-{round}").to_lowercase();
    let input = format!("{application_id}-in");
    let clients = real_kafka::clients(&plan.bootstrap, &application_id)?;
    let append_times = BTreeMap::from([("message.timestamp.type".to_owned(), "LogAppendTime".to_owned())]);
    let output = processes::output(&application_id);
    for (name, configs) in [(&input, BTreeMap::new()), (&output, append_times)] {
        let topic = NewTopic { name: name.clone(), partitions: PARTITIONS, replication_factor: 1, configs };
        clients.admin()?.create_topic(&topic)?;
    }
    std::fs::create_dir_all(&plan.folder)?;
    let state_dir = plan.folder.join(&application_id);
    let launch = Launch {
        pipeline,
        input: &input,
        guarantee: GUARANTEE,
        application_id: &application_id,
        state_dir: &state_dir,
    };
    let (sent, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let ends = Ends { consumer: clients.restore_consumer(0)?, output: output.clone(), sent: &sent, per_second };
    let times = std::thread::scope(|scope| {
        let feeder = scope.spawn(|| feed(&plan.bootstrap, &input, per_second, &sent, &done));
        let log = plan.folder.join(format!("{application_id}.log"));
        let said = || std::fs::read_to_string(&log).map_or_else(|error| error.to_string(), |text| tail(&text));
        let times = make(plan, &launch, way, ends, &log).with_context(|| format!("its log ends:\n{}", said()));
        done.store(true, Ordering::Relaxed);
        feeder.join().map_err(|_| anyhow!("the feeder panicked"))?.and(times)
    });
    if state_dir.exists() {
        std::fs::remove_dir_all(&state_dir)?;
    }
    let (began_ms, caught_up) = times?;
    cost(&plan.bootstrap, &output, began_ms, caught_up)
}

/// Starts the side, changes it under load, and ends it: when the change began, in milliseconds since the epoch, and in
/// how many seconds it was caught up.
fn make(plan: &Plan, launch: &Launch<'_>, way: Way, mut ends: Ends<'_>, log: &Path) -> Result<(i64, f64)> {
    let port = free_port()?;
    let module = launch.module(plan);
    let start = || -> Result<Process> {
        if !way.is_streams() {
            return Process::start(launch.sandbar(plan, port, &module)?, log);
        }
        let mut command = launch.streams(plan, Side::KafkaStreams);
        if way == Way::StreamsStatic {
            command.arg("group.instance.id=the-one");
        }
        Process::start(command, log)
    };
    let mut process = start()?;
    ends.wait()?;
    // The second thread gets its tasks from the first a moment after that has begun, which is no steady state.
    std::thread::sleep(3 * QUIET);
    let began = Instant::now();
    let began_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    if way == Way::Deployment {
        deploy(plan, launch, port, &module)?;
    } else {
        process.terminate()?;
        process = start()?;
    }
    ends.wait()?;
    let caught_up = began.elapsed().as_secs_f64();
    std::thread::sleep(QUIET);
    process.terminate()?;
    Ok((began_ms, caught_up))
}

/// Gives the host the same code in other bytes: an empty custom section behind it.
fn deploy(plan: &Plan, launch: &Launch<'_>, port: u16, module: &Path) -> Result<()> {
    let mut bytes = std::fs::read(module)?;
    bytes.extend([0, 2, 1, b'v']);
    let other = plan.folder.join(format!("{}.wasm", launch.application_id));
    std::fs::write(&other, bytes)?;
    let manifest = launch.manifest(plan, port, &other)?;
    let mut command = Command::new(&plan.binary);
    command.args(["deploy", "--wait", "--url", &format!("http://127.0.0.1:{port}"), "-f"]).arg(manifest);
    let told = command.output()?;
    ensure!(told.status.success(), "sandbar deploy: {}", String::from_utf8_lossy(&told.stderr));
    Ok(())
}

/// Sends records at a steady rate.
fn feed(bootstrap: &str, input: &str, per_second: u64, sent: &AtomicU64, done: &AtomicBool) -> Result<()> {
    const TICK: Duration = Duration::from_millis(10);
    let per_tick = per_second / 100;
    let topic: Arc<str> = input.into();
    let mut producer = real_kafka::clients(bootstrap, "bench-change-fill")?.producer(0, None)?;
    let (started, mut ticks) = (Instant::now(), 0_u32);
    while !done.load(Ordering::Relaxed) {
        for _ in 0..per_tick {
            let record = input_of(Keys::Uniform, sent.fetch_add(1, Ordering::Relaxed));
            real_kafka::send(&mut *producer, record.record(&topic))?;
        }
        producer.poll(Duration::ZERO)?;
        ticks += 1;
        std::thread::sleep((TICK * ticks).saturating_sub(started.elapsed()));
    }
    Ok(producer.flush(LIMIT)?)
}

/// How far the output is behind the input.
struct Ends<'a> {
    consumer: Box<dyn RestoreConsumer>,
    output: String,
    sent: &'a AtomicU64,
    per_second: u64,
}

impl Ends<'_> {
    fn written(&mut self) -> Result<u64> {
        match self.consumer.watermarks(&processes::partitions(&self.output)) {
            // A new topic has no leader yet.
            Err(error) if error.kind == BrokerErrorKind::Retriable => Ok(0),
            ends => Ok(ends?.iter().map(|log| log.high.unsigned_abs()).sum()),
        }
    }

    /// Waits until it is half a second's worth behind at most; the markers of transactions count as outputs, of which
    /// there are a few hundred.
    fn wait(&mut self) -> Result<()> {
        let started = Instant::now();
        // What was sent until now has to be there too, so that a side that has just ended does not pass for one that
        // is not behind yet.
        let at_least = self.sent.load(Ordering::Relaxed) + self.per_second / 10;
        loop {
            let (written, sent) = (self.written()?, self.sent.load(Ordering::Relaxed));
            if written >= at_least && written + self.per_second / 2 >= sent {
                return Ok(());
            }
            ensure!(started.elapsed() < LIMIT, "{written} of {sent} outputs after {} s", LIMIT.as_secs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Reads the output whole.
fn cost(bootstrap: &str, output: &str, began_ms: i64, caught_up: f64) -> Result<Cost> {
    let clients = real_kafka::clients(bootstrap, "bench-change-check")?;
    let mut reader = clients.topic_reader(output, &ReadOptions::default())?;
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    let (mut still_ms, mut still_before_ms) = (0, 0);
    let mut by_second: BTreeMap<i64, u64> = BTreeMap::new();
    while !reader.is_done() {
        for record in reader.poll(Duration::from_millis(100), 10_000)? {
            let at_ms = record.timestamp;
            if at_ms >= began_ms {
                *by_second.entry((at_ms - began_ms) / 1_000).or_default() += 1;
            }
            let before = last.insert(record.partition, at_ms).unwrap_or(at_ms);
            if at_ms >= began_ms {
                still_ms = still_ms.max(at_ms - before);
            } else if before >= began_ms - i64::try_from(QUIET.as_millis())? {
                still_before_ms = still_before_ms.max(at_ms - before);
            }
        }
    }
    let until = caught_up.ceil() as i64;
    let least = (0..until).map(|second| by_second.get(&second).copied().unwrap_or(0)).min();
    Ok(Cost {
        still: still_ms as f64 / 1_000.0,
        still_before: still_before_ms as f64 / 1_000.0,
        caught_up,
        least_rate: least.context("no whole second")? as f64,
    })
}
