//! Writes are told as what they are: done, refused, or unknown.

use std::sync::Arc;
use std::time::Duration;

use engine::broker::{BrokerErrorKind, ClientSupplier};
use engine::record::TopicPartition;
use engine::testing::{MockBroker, Operation};

use super::{WriteError, WriteRecord, Writer, Written};
use crate::runtime::stop::Stop;

fn broker() -> MockBroker {
    let broker = MockBroker::new();
    broker.create_topic("in", 2);
    broker
}

fn record(partition: i32, value: Option<&str>) -> WriteRecord {
    WriteRecord {
        topic: "in".into(),
        partition,
        timestamp: 5,
        key: b"k".to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
        headers: Vec::new(),
    }
}

fn writer(broker: &MockBroker) -> (Writer, Stop) {
    let (clients, stop): (Arc<dyn ClientSupplier>, Stop) = (Arc::new(broker.clone()), Stop::default());
    (Writer::start(clients, &stop).expect("a thread"), stop)
}

fn write(writer: &Writer, records: Vec<WriteRecord>) -> Result<Written, WriteError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(writer.write(records))
}

#[test]
fn a_write_ends_with_the_offsets_that_follow_it() {
    let broker = broker();
    let (writer, stop) = writer(&broker);
    let written = write(&writer, vec![record(1, Some("a")), record(1, None), record(0, Some("b"))]).expect("written");
    let expected = [(TopicPartition::new("in", 0), 1), (TopicPartition::new("in", 1), 2)];
    assert_eq!(written, Written::from(expected));
    let values: Vec<_> = broker.records("in", 1).into_iter().map(|record| record.value).collect();
    assert_eq!(values, [Some("a".into()), None]);
    stop.raise();
    std::thread::sleep(Duration::from_millis(200));
    assert!(matches!(write(&writer, vec![record(0, None)]), Err(WriteError::Unavailable(_))));
}

#[test]
fn a_write_without_an_answer_is_unknown_and_the_next_one_gets_a_new_producer() {
    let broker = broker();
    let (writer, _stop) = writer(&broker);
    broker.fail(Operation::Delivery, BrokerErrorKind::Abortable);
    let failed = write(&writer, vec![record(0, Some("a"))]).expect_err("no answer");
    assert!(matches!(failed, WriteError::Unknown(_)), "{failed:?}");
    assert!(write(&writer, vec![record(0, Some("b"))]).is_ok());
}
