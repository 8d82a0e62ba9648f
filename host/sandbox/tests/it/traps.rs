//! Modules that stop in the middle of a call (D3): with the real stream thread around the real sandbox, a record at
//! which the module fails leaves nothing behind but its dead letter, wherever it stops and however.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::dead_letter::header;
use engine::exception_handlers::{ExceptionHandler, ExceptionHandlers};
use engine::metrics::Metric;
use engine::record::Record;
use engine::stream_thread::StreamsConfig;
use engine::testing::{DriverOptions, Seed, TopologyTestDriver, number, topology};
use sandbox::Limits;

use crate::support::module;

/// Steps of the guest, and ways to end.
const STEPS: u64 = 8;
const REASONS: [&str; 6] = ["trap", "memory", "refused", "refused", "output", "limit"];

fn driver(batch_max_records: usize) -> TopologyTestDriver {
    let mut topology = topology(&["in"], &["counts"], &["out"]);
    topology.dead_letter_topic = Some("dlq".into());
    let limits = Limits { memory_max_bytes: 8 << 20, host_max_calls: 5_000, ..Limits::default() };
    let mut options = DriverOptions::new(module("careless").supplier(Arc::new(topology), limits));
    options.config = StreamsConfig {
        batch_max_records,
        exception_handlers: ExceptionHandlers {
            deserialization: ExceptionHandler::DeadLetter,
            processing: ExceptionHandler::DeadLetter,
            production: ExceptionHandler::DeadLetter,
            consecutive_failures_max: u32::MAX,
            ..ExceptionHandlers::default()
        },
        ..StreamsConfig::default()
    };
    TopologyTestDriver::new(options).unwrap()
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

fn said(record: &Record, name: &str) -> String {
    text(record.headers.iter().rfind(|one| one.key == name.as_bytes()).and_then(|one| one.value.as_deref()))
}

/// One application and some hundred records, of which some stop it; gives how many did.
fn run(seed: &mut Seed) -> u64 {
    const RECORDS: i64 = 400;
    let mut driver = driver(1 + seed.below(40) as usize);
    let one_in = 3 + seed.below(30);
    let (mut outputs, mut counts, mut bad) = (Vec::new(), BTreeMap::new(), Vec::new());
    for index in 0..RECORDS {
        let key = format!("k{}", seed.below(20));
        let fails = seed.below(one_in) == 0;
        let how = seed.below(REASONS.len() as u64) as u8;
        let value = if fails { [seed.below(STEPS) as u8, how] } else { [u8::MAX, 0] };
        driver.broker().append("in", 0, Some(key.as_bytes()), Some(&value), index, Vec::new());
        if fails {
            bad.push((index.to_string(), REASONS[usize::from(how)].to_owned()));
            continue;
        }
        *counts.entry(key.clone()).or_insert(0_u64) += 2;
        outputs.extend([format!("{key}=1"), format!("{key}=2")]);
    }
    // Failures in a row are answered with pauses, in which a driver finds nothing to do.
    let mut turns = 0;
    let done = |driver: &TopologyTestDriver| {
        driver.metrics().get(Metric::RecordsProcessed) + driver.metrics().get(Metric::DeadLetters)
    };
    while done(&driver) < RECORDS as u64 || turns < 3 {
        driver.advance_wall_clock_ms(1_100).unwrap();
        turns += 1;
        assert!(turns < 10_000, "{} records are done with", done(&driver));
    }
    let told = driver.read_output("out");
    let (beats, others): (Vec<_>, Vec<_>) = told
        .iter()
        .map(|one| (text(one.key.as_deref()), text(one.value.as_deref())))
        .partition(|(key, _)| key == "heartbeat");
    let others: Vec<String> = others.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(others, outputs);
    // A schedule of `init` goes on, whatever records have done to it.
    assert!(beats.len() >= 2, "{} heartbeats", beats.len());
    for (key, count) in counts {
        let found = driver.store_value("counts", key.as_bytes()).unwrap();
        assert_eq!(found.map(|bytes| number(&bytes)), Some(count), "{key}");
    }
    let letters = driver.broker().records("dlq", 0);
    let found: Vec<_> = letters.iter().map(|one| (said(one, header::OFFSET), said(one, header::REASON))).collect();
    assert_eq!(found, bad);
    bad.len() as u64
}

/// `SANDBAR_TRAPS` asks for another number.
#[test]
fn thousands_of_failures_at_random_points_leave_no_trace() {
    let wanted = std::env::var("SANDBAR_TRAPS").map_or(2_000, |text| text.parse().unwrap());
    let mut seed = Seed::new(11);
    let (mut failures, mut runs) = (0, 0);
    while failures < wanted {
        failures += run(&mut seed);
        runs += 1;
    }
    println!("{failures} failures in {runs} runs");
}
