//! A thousand idle clients: what they cost, and that others do not notice.

use std::fs;
use std::time::{Duration, Instant};

use broker::{EmbeddedBroker, EmbeddedBrokerOptions};
use kafka_protocol::messages::ApiVersionsRequest;

use crate::client::{Client, TestDir};
use crate::crash::{Process, connect};

const IDLE: usize = 1_000;

/// A number of `/proc/PID/status`.
fn status(process: &Process, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The median of a produce.
fn latency(client: &mut Client, next: &mut i32) -> Duration {
    let mut latencies: Vec<Duration> = (0..200)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(client.produce(1, *next, b"value").unwrap(), (0, i64::from(*next)));
            *next += 1;
            began.elapsed()
        })
        .collect();
    latencies.sort();
    latencies[100]
}

#[test]
fn a_thousand_idle_clients_cost_little() {
    let (dir, own) = (TestDir::new(), TestDir::new());
    // A broker of this process's own raises the limit of open files, which the clients below need too.
    drop(EmbeddedBroker::start(own.path(), &EmbeddedBrokerOptions::default()).unwrap());
    let process = Process::start(dir.path());
    let mut client = connect(dir.path());
    assert_eq!(client.create_topic(), 0);
    let mut next = 0;
    latency(&mut client, &mut next);
    let before = (status(&process, "VmRSS:"), status(&process, "Threads:"), latency(&mut client, &mut next));
    let address = broker::running_at(dir.path()).unwrap();
    let idle: Vec<Client> = (0..IDLE)
        .map(|_| {
            let mut client = Client::connect(address).unwrap();
            assert_eq!(client.call(&ApiVersionsRequest::default(), 0).unwrap().error_code, 0);
            client
        })
        .collect();
    let during = (status(&process, "VmRSS:"), status(&process, "Threads:"), latency(&mut client, &mut next));
    let each_kib = during.0.saturating_sub(before.0) as f64 / IDLE as f64;
    println!("{before:?} without, {during:?} with {IDLE} idle clients: {each_kib} KiB each");
    assert!(each_kib < 64.0, "{each_kib} KiB a client");
    assert!(during.1 <= before.1 + IDLE as u64 + 1, "{} threads", during.1);
    // Generous, since tests run beside builds.
    assert!(during.2 < 10 * before.2 + Duration::from_millis(5), "{:?} became {:?}", before.2, during.2);
    drop(idle);
    let deadline = Instant::now() + Duration::from_secs(10);
    while status(&process, "Threads:") > before.1 + 1 {
        assert!(Instant::now() < deadline, "{} threads are left", status(&process, "Threads:"));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(client.produce(1, next, b"value").unwrap().0, 0);
}
