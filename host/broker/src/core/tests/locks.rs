//! Who waits for whom: a partition that is busy keeps nobody but its own clients waiting.

use std::sync::mpsc::channel;
use std::time::Duration;

use crate::core::memory::MemoryStorage;
use crate::core::tests::{append, commit, new_topic, open};

#[test]
fn a_busy_partition_does_not_keep_others_waiting() {
    let core = open(&MemoryStorage::new());
    core.create_topic(&new_topic("t", 2), false).unwrap();
    append(&core, "t", 0).unwrap();
    let busy = core.partition("t", 0).unwrap();
    let (sender, done) = channel();
    std::thread::scope(|scope| {
        // As while a large fetch reads its log.
        let guard = busy.partition.log();
        let core = &core;
        let waiting = scope.spawn(|| core.delete_records("t", 0, 1).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        scope.spawn(move || {
            append(core, "t", 1).unwrap();
            commit(core, "g", "t", 1, 1).unwrap();
            sender.send(()).unwrap();
        });
        let others = done.recv_timeout(Duration::from_secs(5));
        drop(guard);
        assert_eq!(waiting.join().unwrap(), 1);
        assert!(others.is_ok(), "the other partition waited for the busy one");
    });
}
