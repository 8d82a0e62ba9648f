//! When a call is stopped and when it is over.

use super::*;

const LIMITS: fn() -> Limits = || Limits { deadline_ms: 800, ..Limits::default() };
const MS: u64 = NS_PER_MS;

#[test]
fn a_call_has_its_whole_time_from_the_first_stop_on() {
    let mut deadline = Deadline::default();
    assert_eq!(deadline.begin(&LIMITS(), 1), 101);
    assert_eq!(deadline.stop(5_000 * MS), Some(800));
    assert_eq!(deadline.stop(5_799 * MS + 1), Some(1));
    assert_eq!(deadline.stop(5_800 * MS), None);
}

#[test]
fn a_busy_machine_takes_nothing_of_it() {
    let mut deadline = Deadline::default();
    deadline.begin(&LIMITS(), 1);
    let (mut cpu_ns, mut epochs, mut stops) = (0, 0, 0);
    while let Some(granted) = deadline.stop(cpu_ns) {
        // The thread gets a quarter of the machine.
        cpu_ns += granted * MS / 4;
        epochs += granted;
        stops += 1;
    }
    assert!((800 * MS..=801 * MS).contains(&cpu_ns), "{cpu_ns}");
    assert!((3_200..3_210).contains(&epochs), "{epochs}");
    assert!(stops < 30, "{stops} stops");
}

#[test]
fn ten_times_as_long_by_the_clock_ends_it() {
    for (records, expected) in [(0, 8_000), (1, 8_000), (500, 16_000)] {
        let mut deadline = Deadline::default();
        let mut epochs = deadline.begin(&LIMITS(), records) - 1;
        while let Some(granted) = deadline.stop(7) {
            epochs += granted;
        }
        assert_eq!(epochs, expected, "{records} records");
    }
}

#[test]
fn a_batch_has_twice_the_time() {
    let mut deadline = Deadline::default();
    deadline.begin(&LIMITS(), 2);
    assert_eq!(deadline.stop(0), Some(1_600));
    assert_eq!(deadline.stop(1_599 * MS), Some(1));
    assert_eq!(deadline.stop(1_600 * MS), None);
}

#[test]
fn the_shortest_and_the_longest_deadline_work() {
    for deadline_ms in [1, u64::MAX] {
        let limits = Limits { deadline_ms, ..Limits::default() };
        let mut deadline = Deadline::default();
        assert!(deadline.begin(&limits, 1) > 1);
        assert!(deadline.stop(3).is_some());
        assert_eq!(deadline.stop(u64::MAX).is_none(), deadline_ms == 1);
    }
}
