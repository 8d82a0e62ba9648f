//! How the downtime of a fault is read from the arrivals.

use super::*;

fn fault(at_ms: u64, partitions: &[u32]) -> Fault {
    Fault { at_ms, partitions: partitions.iter().copied().collect() }
}

#[test]
fn a_downtime_is_the_longest_gap_of_a_partition_that_was_hit() {
    let arrivals = [vec![900, 1_000, 1_100, 4_100, 4_200], vec![1_000, 2_000, 2_100], vec![900, 9_000]];
    assert_eq!(downtime_ms(&fault(1_050, &[0, 1]), u64::MAX, &arrivals), Some(3_000));
    assert_eq!(downtime_ms(&fault(1_050, &[1]), u64::MAX, &arrivals), Some(950));
    // The gap that the next fault falls into counts to its end, later ones do not count.
    assert_eq!(downtime_ms(&fault(950, &[0]), 1_050, &arrivals), Some(100));
    assert_eq!(downtime_ms(&fault(950, &[2]), 1_050, &arrivals), Some(8_050));
    assert_eq!(downtime_ms(&fault(5_000, &[0]), u64::MAX, &arrivals), None);
}
