//! Tests of a Kafka of one's own that need none.

use super::*;

const LOG: &str = "\
2026-11-27T11:05:43,311 INFO logger: [Transaction Marker Channel Manager 1]: Couldn't find leader endpoint for partitions \
Set(__consumer_offsets-1) while trying to send transaction markers for loop-1, these partitions are likely deleted already \
and hence can be skipped
2026-11-27T11:05:44,311 INFO logger: [TransactionCoordinator id=1] Completed rollback of ongoing transaction for \
transactionalId loop-2 due to timeout
";

#[test]
fn a_log_tells_whose_markers_were_forgotten() {
    assert!(tells_forgotten_markers(LOG, "loop-1"));
    for other in ["loop-2", "loop", "loop-11", "op-1"] {
        assert!(!tells_forgotten_markers(LOG, other), "{other}");
    }
}
