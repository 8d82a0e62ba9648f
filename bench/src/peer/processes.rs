//! The two sides as processes of their own, seen from outside by the same means: the committed offsets of the group,
//! the ends of the output, /proc of the process and of the broker. What comes before the warm-up's last record counts
//! for nothing but the start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::host::{free_port, get};
use engine::broker::{BrokerErrorKind, ClientSupplier, Consumer, NewTopic, RestoreConsumer};
use engine::record::TopicPartition;
use serde::{Deserialize, Serialize};

use super::pipelines::Pipeline;
use crate::workload::{PARTITIONS, TABLE};
use crate::{measure, real_kafka};

pub const COMMIT_INTERVAL_MS: u64 = 100;
pub const THREADS: u32 = 2;
const LIMIT: Duration = Duration::from_secs(300);

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Without a cache: every update goes out, as ours do.
    KafkaStreams,
    /// With its default cache of 10 MiB: the updates of a key between two commits are merged to one.
    KafkaStreamsMerging,
    Sandbar,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Self::KafkaStreams => "Kafka Streams",
            Self::KafkaStreamsMerging => "Kafka Streams, merging",
            Self::Sandbar => "Sandbar",
        }
    }
}

/// Where everything is, and how long a run is.
pub struct Plan {
    pub bootstrap: String,
    pub binary: PathBuf,
    pub guests: PathBuf,
    pub peer: PathBuf,
    /// The number of the broker's process.
    pub broker: String,
    pub folder: PathBuf,
    pub warm_up: u64,
    pub records: u64,
}

/// One measured run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub records_per_second: f64,
    pub cpu_us: f64,
    pub broker_cpu_us: f64,
    pub peak_memory_mib: f64,
    pub first_output_s: f64,
    pub commits: f64,
}

/// The topic that a run writes.
pub fn output(application_id: &str) -> String {
    format!("{application_id}-out")
}

/// Starts one side, waits until everything is committed, and ends it.
pub fn run(plan: &Plan, side: Side, pipeline: &Pipeline, guarantee: &str, application_id: &str) -> Result<Measured> {
    let clients = real_kafka::clients(&plan.bootstrap, application_id)?;
    let output = output(application_id);
    let topic =
        NewTopic { name: output.clone(), partitions: PARTITIONS, replication_factor: 1, configs: BTreeMap::new() };
    clients.admin()?.create_topic(&topic)?;
    std::fs::create_dir_all(&plan.folder)?;
    let state_dir = plan.folder.join(application_id);
    let log_path = plan.folder.join(format!("{application_id}.log"));
    let port = free_port()?;
    let started = Instant::now();
    let launch = Launch { pipeline, input: pipeline.input(), guarantee, application_id, state_dir: &state_dir };
    let command = match side {
        Side::Sandbar => launch.sandbar(plan, port, &launch.module(plan))?,
        _ => launch.streams(plan, side),
    };
    let mut child = Process::start(command, &log_path)?;
    let watch = Watch {
        consumer: clients.consumer(0)?,
        ends: clients.restore_consumer(0)?,
        input: partitions(pipeline.input()),
        output: partitions(&output),
    };
    let said = || std::fs::read_to_string(&log_path).unwrap_or_else(|error| error.to_string());
    let measured = watch.follow(plan, &mut child, started);
    let mut measured = measured.with_context(|| format!("its log ends:\n{}", tail(&said())))?;
    if side == Side::Sandbar {
        measured.commits = commits_by_metrics(port)?;
    }
    child.terminate()?;
    if side != Side::Sandbar {
        measured.commits = commits_by_log(&std::fs::read_to_string(&log_path)?)?;
    }
    // The peer makes none where it has no state.
    if state_dir.exists() {
        std::fs::remove_dir_all(&state_dir).with_context(|| format!("remove {}", state_dir.display()))?;
    }
    Ok(measured)
}

/// The last lines.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn commits_by_metrics(port: u16) -> Result<f64> {
    let (_, text) = get(&format!("http://127.0.0.1:{port}/metrics"))?;
    let text = text.as_str().context("the metrics are no text")?;
    let lines = text.lines().filter(|line| line.starts_with("sandbar_commits_total") && line.contains("\"ok\""));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}

/// The Java program says it at its end.
fn commits_by_log(log: &str) -> Result<f64> {
    let line =
        log.lines().rev().find_map(|line| line.strip_prefix("commits ")).context("it did not say its commits")?;
    Ok(line.trim().parse()?)
}

pub fn partitions(topic: &str) -> Vec<TopicPartition> {
    (0..PARTITIONS).map(|partition| TopicPartition::new(topic, partition)).collect()
}

/// What a process is told; both sides get the same values.
pub struct Launch<'a> {
    pub pipeline: &'a Pipeline,
    pub input: &'a str,
    pub guarantee: &'a str,
    pub application_id: &'a str,
    pub state_dir: &'a Path,
}

impl Launch<'_> {
    pub fn streams(&self, plan: &Plan, side: Side) -> Command {
        let mut command = Command::new("java");
        // A fixed heap, as the documentation advises, so that the collector's growth is not measured.
        command.args(["-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-cp"]);
        command.arg(format!("{}:{}/lib/*", plan.peer.join("peer.jar").display(), plan.peer.display()));
        command.args(["peer.Peer", self.pipeline.peer]);
        let cache_bytes = if side == Side::KafkaStreamsMerging { 10 * 1024 * 1024 } else { 0 };
        command.args([
            format!("application.id={}", self.application_id),
            format!("bootstrap.servers={}", plan.bootstrap),
            format!("processing.guarantee={}", self.guarantee),
            format!("commit.interval.ms={COMMIT_INTERVAL_MS}"),
            format!("num.stream.threads={THREADS}"),
            format!("state.dir={}", self.state_dir.display()),
            format!("statestore.cache.max.bytes={cache_bytes}"),
            format!("input={}", self.input),
            format!("table={TABLE}"),
            format!("output={}", output(self.application_id)),
        ]);
        command
    }

    /// Where the pipeline's module is.
    pub fn module(&self, plan: &Plan) -> PathBuf {
        plan.guests.join(format!("{}.wasm", self.pipeline.guest))
    }

    /// Writes the manifest of a host that listens on `port`; its path.
    pub fn manifest(&self, plan: &Plan, port: u16, module: &Path) -> Result<PathBuf> {
        let Self { pipeline, input, guarantee, application_id, state_dir } = self;
        let manifest = format!(
            "application.id = {application_id:?}\nmodule = {module:?}\nstate.dir = {state_dir:?}\n\
             application.server = \"127.0.0.1:{port}\"\nprocessing.guarantee = {guarantee:?}\n\
             commit.interval.ms = {COMMIT_INTERVAL_MS}\nnum.stream.threads = {THREADS}\n\
             sources.in.topic = {input:?}\nsinks.out.topic = {:?}\n{}",
            output(application_id),
            pipeline.manifest(),
        );
        let path = plan.folder.join(format!("{application_id}.toml"));
        std::fs::write(&path, manifest)?;
        Ok(path)
    }

    pub fn sandbar(&self, plan: &Plan, port: u16, module: &Path) -> Result<Command> {
        let path = self.manifest(plan, port, module)?;
        let mut command = Command::new(&plan.binary);
        command.args(["run", "-b", &plan.bootstrap, "-f"]).arg(path);
        Ok(command)
    }
}

/// A process that does not outlive its run.
pub struct Process(Child);

impl Process {
    /// What it says goes to a file, after what that has already.
    pub fn start(mut command: Command, log_path: &Path) -> Result<Self> {
        let log = std::fs::File::options().create(true).append(true).open(log_path)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn().context("start the process")?))
    }

    fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// Tells it to end, and waits until it has.
    pub fn terminate(&mut self) -> Result<()> {
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
        match self.ends.watermarks(&self.output) {
            // Nor has a new topic a leader.
            Err(error) if error.kind == BrokerErrorKind::Retriable => Ok(0),
            ends => Ok(ends?.iter().map(|log| log.high.unsigned_abs()).sum()),
        }
    }

    fn follow(mut self, plan: &Plan, child: &mut Process, started: Instant) -> Result<Measured> {
        let (mut first_output, mut begin) = (None, None);
        let all = plan.warm_up + plan.records;
        loop {
            if let Some(status) = child.0.try_wait()? {
                bail!("the process ended with {status}");
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
            records_per_second: records / since.elapsed().as_secs_f64(),
            cpu_us: us(measure::cpu_time_of(&child.id())?.saturating_sub(cpu)),
            broker_cpu_us: us(broker_cpu(plan)?.saturating_sub(broker)),
            peak_memory_mib: measure::memory_kb_of(&child.id(), "VmHWM")? as f64 / 1024.0,
            first_output_s: first_output.unwrap_or_default().as_secs_f64(),
            commits: 0.0,
        })
    }
}

fn broker_cpu(plan: &Plan) -> Result<Duration> {
    measure::cpu_time_of(&plan.broker)
}
