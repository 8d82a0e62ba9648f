//! The driver against the plain route, and against nobody.

use e2e::http::request;

use super::super::plain;
use super::*;

fn load(address: SocketAddr, status: u16) -> Load {
    Load { address, processes: vec![std::process::id()], connections: 2, time: Duration::from_millis(200), status }
}

#[test]
fn good_answers_are_counted_and_others_are_failures() {
    let address = plain::serve_in_background(100).expect("a server");
    let get = |_| request("GET", "/v1/apps/a/stores/s/keys/k", &[], b"");
    let measured = drive(&load(address, 200), &get).expect("answers");
    assert!(measured.requests > 0 && measured.failed == 0, "{} failed", measured.failed);
    assert_eq!(measured.requests, measured.latencies_us.len() as u64);
    assert!(measured.latency_ms(500) <= measured.latency_ms(999));
    let error = drive(&load(address, 202), &get).expect_err("another status is no good answer");
    assert!(error.to_string().contains("one was: 200"), "{error}");
}

#[test]
fn percentiles_are_of_all_answers() {
    let latencies_us = (1..=1_000).map(|number| number * 1_000).collect();
    let (wall, cpu) = (Duration::from_secs(2), Duration::from_millis(10));
    let measured = Measured { requests: 1_000, failed: 0, wall, cpu, latencies_us };
    assert_eq!([500, 990, 999].map(|per_mille| measured.latency_ms(per_mille)), [500.0, 990.0, 999.0]);
    assert_eq!((measured.per_second(), measured.cpu_us()), (500.0, 10.0));
}
