//! Who waits for whom: a busy partition keeps nobody but its own clients waiting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use broker::core::admin::NewTopic;
use broker::core::batch::build::{NewRecord, batch_of};
use broker::core::log::IsolationLevel;
use broker::{EmbeddedBroker, EmbeddedBrokerOptions};

use crate::client::TestDir;

/// What a reader takes at once: near the most that a fetch may ask for.
const FETCH_BYTES: usize = 50_000_000;

/// Median and longest of appends to a partition.
fn append_latency(broker: &EmbeddedBroker, partition: i32) -> (Duration, Duration) {
    let batch = batch_of(None, &[NewRecord { value: Some(&[7; 1_000]), ..NewRecord::default() }]);
    let mut latencies: Vec<Duration> = (0..300)
        .map(|_| {
            let began = Instant::now();
            broker.core().partition("t", partition).unwrap().append(&batch, 0).unwrap();
            let latency = began.elapsed();
            std::thread::sleep(Duration::from_millis(1));
            latency
        })
        .collect();
    latencies.sort();
    (latencies[150], latencies[299])
}

#[test]
fn large_fetches_do_not_keep_other_partitions_waiting() {
    let dir = TestDir::new();
    let broker = EmbeddedBroker::start(dir.path(), &EmbeddedBrokerOptions::default()).unwrap();
    let new = NewTopic { name: "t".into(), partitions: 2, ..NewTopic::default() };
    broker.core().create_topic(&new, false).unwrap();
    let large = batch_of(None, &[NewRecord { value: Some(&[7; 1_000_000]), ..NewRecord::default() }]);
    for _ in 0..FETCH_BYTES / large.len() {
        broker.core().partition("t", 0).unwrap().append(&large, 0).unwrap();
    }
    let alone = append_latency(&broker, 1);
    let stop = AtomicBool::new(false);
    let (other, same, fetches, took) = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let (mut fetches, began) = (0u32, Instant::now());
            while !stop.load(Ordering::Relaxed) {
                let handle = broker.core().partition("t", 0).unwrap();
                let read = handle.read(0, FETCH_BYTES, true, IsolationLevel::ReadUncommitted).unwrap();
                assert!(read.records.len() > FETCH_BYTES / 2);
                fetches += 1;
            }
            (fetches, began.elapsed())
        });
        let (other, same) = (append_latency(&broker, 1), append_latency(&broker, 0));
        stop.store(true, Ordering::Relaxed);
        let (fetches, took) = reading.join().unwrap();
        (other, same, fetches, took)
    });
    println!("append p50, max: alone {alone:?}, beside fetches of the other partition {other:?}, of its own {same:?}");
    println!("{fetches} fetches of {FETCH_BYTES} bytes, {:?} each", took / fetches.max(1));
    // Generous, since tests run beside builds; a wait for each fetch would be its whole time.
    assert!(other.0 < alone.0 * 10 + Duration::from_millis(2), "{:?} became {:?}", alone.0, other.0);
}

#[test]
fn a_deletion_that_waits_for_its_partition_holds_up_no_other() {
    let dir = TestDir::new();
    let broker = EmbeddedBroker::start(dir.path(), &EmbeddedBrokerOptions::default()).unwrap();
    let core = broker.core();
    let new = NewTopic { name: "t".into(), partitions: 2, ..NewTopic::default() };
    core.create_topic(&new, false).unwrap();
    let append = |partition| {
        let batch = batch_of(None, &[NewRecord::default()]);
        core.partition("t", partition).unwrap().append(&batch, 0).unwrap();
    };
    append(0);
    let busy = core.partition("t", 0).unwrap();
    let (sender, done) = channel();
    std::thread::scope(|scope| {
        // As while a large fetch reads its log.
        let guard = busy.partition.log();
        let waiting = scope.spawn(|| core.delete_records("t", 0, 1).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        scope.spawn(|| {
            append(1);
            sender.send(()).unwrap();
        });
        let other = done.recv_timeout(Duration::from_secs(10));
        drop(guard);
        assert_eq!(waiting.join().unwrap(), 1);
        assert!(other.is_ok(), "the other partition waited for the busy one");
    });
}
