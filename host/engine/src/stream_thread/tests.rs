//! Tests of `stream_thread`: whole turns over the mock broker.

use super::fixture::{Fixture, task};
use super::*;
use crate::task::TaskState;

#[test]
fn a_record_goes_all_the_way() {
    let fixture = Fixture::counting(1);
    let mut thread = fixture.thread();
    fixture.produce(0, &["a", "b", "a"]);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.texts("out", 0), ["a=1", "b=1", "a=2"]);
    assert_eq!(fixture.texts("app-counts-changelog", 0), ["a=2", "b=1"]);
    assert_eq!(fixture.committed("in", 0), Some(3));
    assert_eq!(fixture.count(0, "a"), Some(2));
    let report = fixture.progress.read();
    assert_eq!((report.records_processed, report.state), (3, ThreadState::Running));
    assert_eq!((report.tasks[0].task, report.tasks[0].state), (task(0), TaskState::Running));
    assert_eq!(report.tasks[0].stream_time, Some(2));
}
