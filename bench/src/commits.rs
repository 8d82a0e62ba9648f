//! What transactions cost on a real broker: how long a commit takes with a steady input, and the throughput of
//! `exactly_once_v2` over `at_least_once`, run by turns. Needs `SANDBAR_KAFKA_BOOTSTRAP` of a fresh broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use engine::broker::ClientSupplier;
use engine::metrics::{DURATION_BUCKETS_MS, DurationMetric, EngineMetrics, Metric};
use engine::stream_thread::{ProcessingGuarantee, StreamsConfig};
use engine::topology::StoreBackend;
use sandbox::{Runtime, RuntimeConfig};

use crate::drive::{Drive, Stores};
use crate::measure::{self, Sample};
use crate::sandbox_tax::{Place, processors};
use crate::workload::{INPUT, Work, input};
use crate::{rate, real_kafka, setting, show};

/// Records that arrive in the time between two commits.
const RECORDS_PER_COMMIT: u64 = 1_000;

const COMMIT_INTERVAL_MS: u64 = 100;

/// Commits before the measured ones: a broker's JVM needs some hundred requests to become quick.
const WARM_UP_COMMITS: u64 = 150;

fn config(guarantee: ProcessingGuarantee) -> StreamsConfig {
    // The same interval on both sides, so that only the guarantee differs.
    StreamsConfig {
        processing_guarantee: guarantee,
        commit_interval_ms: COMMIT_INTERVAL_MS,
        ..StreamsConfig::default()
    }
}

/// Both tables.
pub fn run() -> Result<()> {
    let bootstrap = std::env::var("SANDBAR_KAFKA_BOOTSTRAP").context("needs SANDBAR_KAFKA_BOOTSTRAP")?;
    let rounds = setting("SANDBAR_BENCH_ROUNDS", 5)?;
    let records = setting("SANDBAR_BENCH_KAFKA_RECORDS", 1_000_000)?;
    let commits = setting("SANDBAR_BENCH_COMMITS", 200)?;
    let runtime = Runtime::new(RuntimeConfig::default())?;
    println!("load {} at the start\n", measure::load_average()?);
    real_kafka::fill(&bootstrap, records)?;
    throughput(&runtime, &bootstrap, rounds, records)?;
    latency(&runtime, &bootstrap, commits)?;
    println!("load {} at the end", measure::load_average()?);
    Ok(())
}

fn throughput(runtime: &Runtime, bootstrap: &str, rounds: u64, records: u64) -> Result<()> {
    println!("## exactly_once_v2 over at_least_once, {records} records, commits every {COMMIT_INTERVAL_MS} ms\n");
    println!("| work | at least once, k rec/s | exactly once, k rec/s | ratio |\n| --- | ---: | ---: | ---: |");
    for work in [Work::PassThrough, Work::Count(StoreBackend::Persistent)] {
        let mut samples: [Vec<Sample>; 2] = Default::default();
        for round in 0..rounds {
            let guarantees = [ProcessingGuarantee::AtLeastOnce, ProcessingGuarantee::ExactlyOnceV2];
            for (index, guarantee) in guarantees.into_iter().enumerate() {
                let application_id = format!("commits-{}-{round}-{index}", work.guest());
                let config = config(guarantee);
                let sample =
                    real_kafka::run(runtime, bootstrap, &application_id, work, Place::Sandbox, config, records)?;
                samples[index].push(sample);
            }
        }
        let [at_least_once, exactly_once] = &samples;
        let pairs = exactly_once.iter().zip(at_least_once);
        let ratio = measure::spread(pairs.map(|(once, least)| once.records_per_second() / least.records_per_second()));
        println!(
            "| {work} | {} | {} | {} |",
            show(rate(at_least_once), 0),
            show(rate(exactly_once), 0),
            show(ratio, 2)
        );
    }
    Ok(())
}

/// Feeds records at a steady rate to an application that counts them, and looks at the commits.
fn latency(runtime: &Runtime, bootstrap: &str, commits: u64) -> Result<()> {
    println!(
        "\n## how long a commit takes: count in RocksDB, {RECORDS_PER_COMMIT} records in each {COMMIT_INTERVAL_MS} ms\n"
    );
    println!("| guarantee | commits | records a commit | p50 ms | p99 ms | mean ms |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (name, guarantee) in
        [("at_least_once", ProcessingGuarantee::AtLeastOnce), ("exactly_once_v2", ProcessingGuarantee::ExactlyOnceV2)]
    {
        let measured = paced(runtime, bootstrap, &format!("commits-latency-{name}"), guarantee, commits)?;
        let count = measured.cumulative.last().copied().unwrap_or(0);
        println!(
            "| {name} | {count} | {:.0} | {} | {} | {:.1} |",
            measured.records as f64 / count.max(1) as f64,
            at_most(&measured.cumulative, count, 50),
            at_most(&measured.cumulative, count, 99),
            measured.sum_ms as f64 / count.max(1) as f64,
        );
    }
    Ok(())
}

/// What the counters say since a moment.
#[derive(Default)]
struct Counted {
    records: u64,
    cumulative: Vec<u64>,
    sum_ms: u64,
}

impl Counted {
    fn now(metrics: &EngineMetrics) -> Self {
        let histogram = metrics.histogram(DurationMetric::Commit);
        Self {
            records: metrics.get(Metric::RecordsProcessed),
            cumulative: histogram.cumulative.to_vec(),
            sum_ms: histogram.sum_ms,
        }
    }

    fn since(mut self, before: &Self) -> Self {
        self.records -= before.records;
        self.sum_ms -= before.sum_ms;
        self.cumulative.iter_mut().zip(&before.cumulative).for_each(|(now, before)| *now -= before);
        self
    }
}

/// The bound of the bucket that holds the percentile.
fn at_most(cumulative: &[u64], count: u64, percent: u64) -> String {
    let wanted = (count * percent).div_ceil(100);
    let bucket = cumulative.iter().position(|&up_to| up_to >= wanted).unwrap_or(cumulative.len());
    DURATION_BUCKETS_MS.get(bucket).map_or_else(|| "more".to_owned(), |bound| format!("≤ {bound}"))
}

fn paced(
    runtime: &Runtime,
    bootstrap: &str,
    application_id: &str,
    guarantee: ProcessingGuarantee,
    commits: u64,
) -> Result<Counted> {
    let work = Work::Count(StoreBackend::Persistent);
    let state_dir = std::env::temp_dir().join(format!("sandbar-bench-{}", std::process::id()));
    let (metrics, done) = (Arc::new(EngineMetrics::new()), AtomicBool::new(false));
    let records = (WARM_UP_COMMITS + commits) * RECORDS_PER_COMMIT;
    let mut config = config(guarantee);
    // Only what comes from now on, at its own pace.
    config.auto_offset_reset = engine::stream_thread::AutoOffsetReset::Latest;
    let drive = Drive {
        application_id: application_id.to_owned(),
        threads: 1,
        config,
        clients: real_kafka::clients(bootstrap, application_id)?,
        processors: processors(runtime, work, Place::Sandbox)?,
        stores: Arc::new(Stores::fresh(&state_dir, application_id)?),
        metrics: Arc::clone(&metrics),
        records,
        limit: Duration::from_secs(300),
    };
    let prepared = drive.prepare()?;
    let before = std::thread::scope(|scope| {
        let feeder = scope.spawn(|| feed(bootstrap, &metrics, &done));
        let ran = prepared.run();
        done.store(true, Ordering::Relaxed);
        let fed = feeder.join().map_err(|_| anyhow!("the feeder panicked"))?;
        ran.and(fed)
    })?;
    std::fs::remove_dir_all(&state_dir)?;
    Ok(Counted::now(&metrics).since(&before))
}

/// Returns what was counted when the warm-up was over.
fn feed(bootstrap: &str, metrics: &EngineMetrics, done: &AtomicBool) -> Result<Counted> {
    const PER_TICK: u64 = RECORDS_PER_COMMIT / (COMMIT_INTERVAL_MS / 10);
    let topic: Arc<str> = INPUT.into();
    let mut producer = real_kafka::clients(bootstrap, "bench-feed")?.producer(0, None)?;
    let (started, mut index, mut before) = (Instant::now(), 0, None);
    while !done.load(Ordering::Relaxed) {
        for _ in 0..PER_TICK {
            real_kafka::send(&mut *producer, input(index).record(&topic))?;
            index += 1;
        }
        producer.poll(Duration::ZERO)?;
        if before.is_none() && metrics.get(Metric::RecordsProcessed) >= WARM_UP_COMMITS * RECORDS_PER_COMMIT {
            before = Some(Counted::now(metrics));
        }
        let due = Duration::from_millis(10 * index / PER_TICK);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
    }
    producer.flush(Duration::from_secs(30))?;
    Ok(before.unwrap_or_default())
}
