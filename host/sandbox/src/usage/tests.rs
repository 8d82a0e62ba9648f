//! Which calls are measured.

use super::*;

#[test]
fn large_calls_are_all_measured_and_small_ones_by_sample() {
    let mut meter = CpuMeter::default();
    assert!((0..100).all(|_| meter.start(500).is_some_and(|start| start.calls == 1)));
    let measured = (0..160).filter_map(|_| meter.start(1)).map(|start| start.calls).collect::<Vec<_>>();
    // Each of the 160 calls is stood for once.
    assert_eq!(measured, [16; 10]);
}

#[test]
fn the_clock_counts_work_and_not_waiting() {
    let start = thread_cpu_ns();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(thread_cpu_ns() - start < 10_000_000, "a sleep was charged");
    let mut number = 1_u64;
    while thread_cpu_ns() - start < 1_000_000 {
        number = std::hint::black_box(number.wrapping_mul(3));
    }
}
