//! Tests of the order of the stages; what each does is tested with whole turns of a stream thread.

use super::*;
use CommitStage::*;

fn stages(guarantee: ProcessingGuarantee) -> Vec<CommitStage> {
    std::iter::successors(Some(SendOutputs), |stage| stage.next(guarantee)).collect()
}

#[test]
fn the_stages_of_each_guarantee_are_in_the_order_that_loses_nothing() {
    assert_eq!(
        stages(ProcessingGuarantee::AtLeastOnce),
        [SendOutputs, DrainOutputs, WriteChangelogs, Drain, CommitOffsets, WriteStores, Completed]
    );
    assert_eq!(
        stages(ProcessingGuarantee::ExactlyOnceV2),
        [SendOutputs, WriteChangelogs, Drain, SendOffsets, CommitTransaction, WriteStores, Completed]
    );
}

#[test]
fn stores_are_written_only_after_the_decision() {
    for guarantee in [ProcessingGuarantee::AtLeastOnce, ProcessingGuarantee::ExactlyOnceV2] {
        let decided: Vec<_> = stages(guarantee).into_iter().filter(|stage| stage.is_decided()).collect();
        assert_eq!(decided, [WriteStores, Completed]);
    }
}
