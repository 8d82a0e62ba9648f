//! `make bench-peer`: the same pipelines as processes of their own, on Kafka Streams and on Sandbar, by turns on one real
//! broker. Both are measured from outside by the same means: committed offsets of the group, /proc of the process and
//! of the broker. What comes before the warm-up's last record counts for nothing but the start.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use engine::broker::{BrokerErrorKind, ClientSupplier, Consumer, NewTopic, RestoreConsumer};
use engine::record::TopicPartition;
use kafka::topics::ReadOptions;

use crate::measure::{self, Spread, spread};
use crate::workload::{INPUT, PARTITIONS, input};
use crate::{real_kafka, setting, show};

const LIMIT: Duration = Duration::from_secs(300);
const COMMIT_INTERVAL_MS: u64 = 100;
const THREADS: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    KafkaStreams,
    Sandbar,
}

impl Side {
    const ALL: [Self; 2] = [Self::KafkaStreams, Self::Sandbar];
}

/// The pipelines by the names that the Java program knows, with the module and the store's backend on our side.
const PIPELINES: [(&str, &str, Option<&str>); 3] = [
    ("pass-through", "passthrough", None),
    ("count-rocksdb", "count", Some("rocksdb")),
    ("count-memory", "count", Some("memory")),
];

const GUARANTEES: [&str; 2] = ["at_least_once", "exactly_once_v2"];

/// What a run is made of.
struct Plan {
    bootstrap: String,
    binary: PathBuf,
    guests: PathBuf,
    peer: PathBuf,
    /// The number of the broker's process.
    broker: String,
    folder: PathBuf,
    warm_up: u64,
    records: u64,
}

/// One measured run.
#[derive(Debug, Clone, Copy)]
struct Measured {
    rate: f64,
    cpu_us: f64,
    broker_cpu_us: f64,
    peak_memory_mib: f64,
    first_output_s: f64,
}

/// Every pipeline under both guarantees, by turns.
pub fn run() -> Result<()> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set"));
    let data = path("SANDBAR_KAFKA_DATA")?;
    let broker = std::fs::read_to_string(data.join("pid")).context("the broker's number")?.trim().to_owned();
    let plan = Plan {
        bootstrap: std::env::var("SANDBAR_KAFKA_BOOTSTRAP").context("SANDBAR_KAFKA_BOOTSTRAP is not set")?,
        binary: path("SANDBAR_BENCH_BINARY")?,
        guests: path("SANDBAR_GUESTS")?,
        peer: path("SANDBAR_BENCH_PEER")?,
        broker,
        folder: std::env::temp_dir().join(format!("sandbar-bench-peer-{}", std::process::id())),
        warm_up: setting("SANDBAR_BENCH_WARM_UP", 500_000)?,
        records: setting("SANDBAR_BENCH_KAFKA_RECORDS", 2_000_000)?,
    };
    let rounds = setting("SANDBAR_BENCH_ROUNDS", 5)?;
    println!(
        "Kafka Streams 4.3.1 and Sandbar {}, {THREADS} threads each, {} records after {} to warm up, {PARTITIONS} \
         partitions, a commit every {COMMIT_INTERVAL_MS} ms, every update emitted (the peer's cache is off); load {} at \
         the start; median (min–max) of {rounds} rounds\n",
        env!("CARGO_PKG_VERSION"),
        plan.records,
        plan.warm_up,
        measure::load_average()?
    );
    real_kafka::fill(&plan.bootstrap, plan.warm_up + plan.records)?;
    let result = tables(&plan, rounds);
    if plan.folder.exists() {
        std::fs::remove_dir_all(&plan.folder)?;
    }
    println!("\nload {} at the end", measure::load_average()?);
    result
}

fn tables(plan: &Plan, rounds: u64) -> Result<()> {
    println!("| pipeline | guarantee | | k rec/s | CPU µs/rec | broker CPU µs/rec | peak MiB | first output s |");
    println!("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |");
    for pipeline in PIPELINES {
        for guarantee in GUARANTEES {
            let mut runs: [Vec<Measured>; 2] = Default::default();
            for round in 0..rounds {
                for (side, runs) in Side::ALL.into_iter().zip(&mut runs) {
                    let application_id = format!("peer-{}-{guarantee}-{round}-{side:?}", pipeline.0);
                    let measured = one(plan, side, pipeline, guarantee, &application_id)
                        .with_context(|| format!("{side:?}, {}, {guarantee}", pipeline.0))?;
                    runs.push(measured);
                    // Counts do not hang on the round.
                    if round == 0 && pipeline.1 == "count" {
                        check_counts(plan, &output(&application_id))?;
                    }
                }
            }
            print_runs(pipeline.0, guarantee, &runs);
        }
    }
    Ok(())
}

fn print_runs(pipeline: &str, guarantee: &str, runs: &[Vec<Measured>; 2]) {
    type Figure = fn(&Measured) -> f64;
    let figures: [(Figure, usize); 5] = [
        (|run| run.rate / 1_000.0, 0),
        (|run| run.cpu_us, 2),
        (|run| run.broker_cpu_us, 2),
        (|run| run.peak_memory_mib, 0),
        (|run| run.first_output_s, 1),
    ];
    let of = |runs: &[Measured], figure: Figure| -> Option<Spread> { spread(runs.iter().map(figure)) };
    for (name, runs) in ["Kafka Streams", "Sandbar"].into_iter().zip(runs) {
        let cells: Vec<String> = figures.iter().map(|&(figure, decimals)| show(of(runs, figure), decimals)).collect();
        println!("| {pipeline} | {guarantee} | {name} | {} |", cells.join(" | "));
    }
    let ratio = |figure: Figure| {
        let pairs = runs[1].iter().zip(&runs[0]);
        show(spread(pairs.map(|(ours, theirs)| figure(ours) / figure(theirs))), 2)
    };
    let cells: Vec<String> = figures.iter().map(|&(figure, _)| ratio(figure)).collect();
    println!("| | | **ours / theirs** | {} |", cells.join(" | "));
}

fn output(application_id: &str) -> String {
    format!("{application_id}-out")
}

/// Starts one side, waits until everything is committed, and ends it.
fn one(
    plan: &Plan,
    side: Side,
    pipeline: (&str, &str, Option<&str>),
    guarantee: &str,
    application_id: &str,
) -> Result<Measured> {
    let clients = real_kafka::clients(&plan.bootstrap, application_id)?;
    let output = output(application_id);
    let topic =
        NewTopic { name: output.clone(), partitions: PARTITIONS, replication_factor: 1, configs: BTreeMap::new() };
    clients.admin()?.create_topic(&topic)?;
    std::fs::create_dir_all(&plan.folder)?;
    let state_dir = plan.folder.join(application_id);
    let started = Instant::now();
    let mut command = match side {
        Side::KafkaStreams => streams_command(plan, pipeline.0, guarantee, application_id, &state_dir),
        Side::Sandbar => sandbar_command(plan, pipeline, guarantee, application_id, &state_dir)?,
    };
    let log = std::fs::File::create(plan.folder.join(format!("{application_id}.log")))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = Process(command.spawn().context("start the process")?);
    let watch = Watch {
        consumer: clients.consumer(0)?,
        ends: clients.restore_consumer(0)?,
        input: partitions(INPUT),
        output: partitions(&output),
    };
    let measured = watch.follow(plan, &mut child, started)?;
    child.terminate()?;
    // The peer makes none where it has no state.
    if state_dir.exists() {
        std::fs::remove_dir_all(&state_dir).with_context(|| format!("remove {}", state_dir.display()))?;
    }
    Ok(measured)
}

fn partitions(topic: &str) -> Vec<TopicPartition> {
    (0..PARTITIONS).map(|partition| TopicPartition::new(topic, partition)).collect()
}

/// The process with everything that it is told; both sides get the same values.
fn streams_command(plan: &Plan, pipeline: &str, guarantee: &str, application_id: &str, state_dir: &Path) -> Command {
    let mut command = Command::new("java");
    // A fixed heap, as the documentation advises, so that the collector's growth is not measured.
    command.args(["-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-cp"]);
    command.arg(format!("{}:{}/lib/*", plan.peer.join("peer.jar").display(), plan.peer.display()));
    command.args(["peer.Peer", pipeline]);
    command.args([
        format!("application.id={application_id}"),
        format!("bootstrap.servers={}", plan.bootstrap),
        format!("processing.guarantee={guarantee}"),
        format!("commit.interval.ms={COMMIT_INTERVAL_MS}"),
        format!("num.stream.threads={THREADS}"),
        format!("state.dir={}", state_dir.display()),
        "statestore.cache.max.bytes=0".to_owned(),
        format!("input={INPUT}"),
        format!("output={}", output(application_id)),
    ]);
    command
}

fn sandbar_command(
    plan: &Plan,
    (_, guest, backend): (&str, &str, Option<&str>),
    guarantee: &str,
    application_id: &str,
    state_dir: &Path,
) -> Result<Command> {
    let mut manifest = format!(
        "application.id = {application_id:?}\nmodule = {:?}\nstate.dir = {:?}\napplication.server = \"127.0.0.1:0\"\n\
         processing.guarantee = {guarantee:?}\ncommit.interval.ms = {COMMIT_INTERVAL_MS}\nnum.stream.threads = {THREADS}\n\
         sources.in.topic = {INPUT:?}\nsinks.out.topic = {:?}\n",
        plan.guests.join(format!("{guest}.wasm")),
        state_dir,
        output(application_id),
    );
    if let Some(backend) = backend {
        manifest.push_str(&format!("stores.counts.backend = {backend:?}\n"));
    }
    let path = plan.folder.join(format!("{application_id}.toml"));
    std::fs::write(&path, manifest)?;
    let mut command = Command::new(&plan.binary);
    command.args(["run", "-b", &plan.bootstrap, "-f"]).arg(path);
    Ok(command)
}

/// A process that does not outlive its run.
struct Process(Child);

impl Process {
    fn id(&self) -> String {
        self.0.id().to_string()
    }

    fn terminate(&mut self) -> Result<()> {
        let told = Command::new("kill").args(["-TERM", &self.id()]).status()?;
        ensure!(told.success(), "kill -TERM failed");
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a run is seen by.
struct Watch {
    /// Of the same group, but no member of it.
    consumer: Box<dyn Consumer>,
    ends: Box<dyn RestoreConsumer>,
    input: Vec<TopicPartition>,
    output: Vec<TopicPartition>,
}

impl Watch {
    fn committed(&mut self) -> Result<u64> {
        let committed = match self.consumer.committed(&self.input) {
            // A new group has no coordinator yet.
            Err(error) if error.kind == BrokerErrorKind::Retriable => return Ok(0),
            committed => committed?,
        };
        Ok(committed.into_iter().flatten().map(|one| one.offset.unsigned_abs()).sum())
    }

    fn written(&mut self) -> Result<u64> {
        Ok(self.ends.watermarks(&self.output)?.iter().map(|log| log.high.unsigned_abs()).sum())
    }

    fn follow(mut self, plan: &Plan, child: &mut Process, started: Instant) -> Result<Measured> {
        let (mut first_output, mut begin) = (None, None);
        let all = plan.warm_up + plan.records;
        loop {
            if let Some(status) = child.0.try_wait()? {
                bail!("the process ended with {status}; its log is in {}", plan.folder.display());
            }
            ensure!(started.elapsed() < LIMIT, "not done within {} s", LIMIT.as_secs());
            if first_output.is_none() && self.written()? > 0 {
                first_output = Some(started.elapsed());
            }
            let committed = self.committed()?;
            if begin.is_none() && committed >= plan.warm_up {
                begin = Some((committed, Instant::now(), measure::cpu_time_of(&child.id())?, broker_cpu(plan)?));
            }
            if committed >= all {
                break;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        let (before, since, cpu, broker) = begin.ok_or_else(|| anyhow!("the warm-up was never seen to end"))?;
        let records = (all - before) as f64;
        let us = |time: Duration| time.as_secs_f64() * 1e6 / records;
        Ok(Measured {
            rate: records / since.elapsed().as_secs_f64(),
            cpu_us: us(measure::cpu_time_of(&child.id())?.saturating_sub(cpu)),
            broker_cpu_us: us(broker_cpu(plan)?.saturating_sub(broker)),
            peak_memory_mib: measure::memory_kb_of(&child.id(), "VmHWM")? as f64 / 1024.0,
            first_output_s: first_output.unwrap_or_default().as_secs_f64(),
        })
    }
}

fn broker_cpu(plan: &Plan) -> Result<Duration> {
    measure::cpu_time_of(&plan.broker)
}

/// That the last count of every key in the output is the number of its records in the input.
fn check_counts(plan: &Plan, output: &str) -> Result<()> {
    let mut expected: HashMap<String, u64> = HashMap::new();
    for index in 0..plan.warm_up + plan.records {
        *expected.entry(input(index).key).or_default() += 1;
    }
    let clients = real_kafka::clients(&plan.bootstrap, "bench-check")?;
    let mut reader = clients.topic_reader(output, &ReadOptions::default())?;
    let mut found: HashMap<String, u64> = HashMap::new();
    while !reader.is_done() {
        for record in reader.poll(Duration::from_millis(100), 10_000)? {
            let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
            let count = record.value.as_deref().and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes);
            let highest = found.entry(key).or_default();
            *highest = count.max(*highest);
        }
    }
    let wrong = expected.iter().filter(|(key, count)| found.get(*key) != Some(count)).count();
    ensure!(wrong == 0 && found.len() == expected.len(), "{wrong} of {} counts in {output} are wrong", expected.len());
    Ok(())
}
