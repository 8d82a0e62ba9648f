//! Tests of `record_collector`: what is refused before anything is sent, and backpressure.

use super::*;
use crate::broker::ClientSupplier;
use crate::columns::NullableColumns;
use crate::record::Record;
use crate::testing::MockBroker;
use crate::topology::{SubTopology, TopicBinding};

const TASK: TaskId = TaskId { sub_topology: 0, partition: 0 };

fn collector(sinks: &[(&str, i32)]) -> RecordCollector {
    let binding = |&(name, _): &(&str, i32)| TopicBinding { name: name.into(), topic: name.into() };
    let sub_topology = SubTopology { sinks: sinks.iter().map(binding).collect(), ..SubTopology::default() };
    let counts = sinks.iter().map(|&(name, partitions)| (name.into(), partitions)).collect();
    let topology = Topology { sub_topologies: vec![sub_topology], ..Topology::default() };
    RecordCollector::new(TASK, &topology, &PartitionCounts(counts), &SinkLimits::default())
}

fn producer(broker: &MockBroker) -> StreamsProducer {
    StreamsProducer::new(broker.producer(0, None).expect("the mock makes one"), false)
}

fn column(items: &[Option<&str>]) -> NullableColumns {
    let mut column = NullableColumns::default();
    items.iter().for_each(|item| column.push(item.map(str::as_bytes)));
    column
}

fn outputs(keys: &[Option<&str>]) -> OutputBatch {
    let timestamps = (0..keys.len() as i64).collect();
    OutputBatch { timestamps, keys: column(keys), values: column(keys), ..OutputBatch::default() }
}

#[test]
fn outputs_that_break_the_contract_are_refused_as_a_whole() {
    let two = collector(&[("x", 2), ("y", 4)]);
    let good = outputs(&[Some("a"), None]);
    let cases: [(OutputBatch, Result<(), &str>); 9] = [
        (good.clone(), Ok(())),
        (OutputBatch { sinks: vec![1, 0], partitions: vec![3, -1], ..good.clone() }, Ok(())),
        (
            OutputBatch { sinks: vec![0, 2], ..good.clone() },
            Err("output 1 goes to sink 2, but the sinks are 0 to 1: x, y"),
        ),
        (OutputBatch { partitions: vec![0, 2], ..good.clone() }, Err("output 1 goes to partition 2 of x, which has 2")),
        (
            OutputBatch { sinks: vec![1, 1], partitions: vec![4, 0], ..good.clone() },
            Err("output 0 goes to partition 4 of y, which has 4"),
        ),
        (
            OutputBatch { partitions: vec![-2, 0], ..good.clone() },
            Err("output 0 goes to partition -2 of x, which has 2"),
        ),
        (
            OutputBatch { timestamps: vec![5, -1], ..good.clone() },
            Err("output 1 has the timestamp -1; expected milliseconds since the epoch, 0 or more"),
        ),
        (
            OutputBatch { keys: column(&[None]), ..good.clone() },
            Err("a column has 1 items where 2 were expected (keys)"),
        ),
        (OutputBatch { timestamps: vec![], ..good.clone() }, Err("a column has 2 items where 0 were expected (keys)")),
    ];
    for (outputs, expected) in cases {
        assert_eq!(two.check(&outputs, 0).map(|_| ()), expected.map_err(str::to_owned), "{outputs:?}");
    }
    let none = collector(&[]);
    assert_eq!(none.check(&OutputBatch::default(), 0), Ok(Checked::default()));
    assert_eq!(none.check(&good, 0), Err("2 records were forwarded but the sub-topology declares no sink".to_owned()));
}

#[test]
fn keys_go_where_the_default_partitioner_puts_them_unless_a_partition_is_given() {
    let broker = MockBroker::new();
    broker.create_topic("x", 4);
    let mut producer = producer(&broker);
    let mut batch = outputs(&[Some("a"), Some("a")]);
    batch.partitions = vec![-1, 3];
    let expected = partition_for_key(b"a", 4);
    assert_ne!(expected, 3);
    collector(&[("x", 4)]).send(batch, Vec::new(), &mut producer).expect("it is sent");
    producer.drain(Duration::ZERO).expect("it is delivered");
    let at = |partition| broker.records("x", partition).len();
    assert_eq!((at(expected), at(3)), (1, 1));
}

#[test]
fn each_record_keeps_its_own_headers() {
    let broker = MockBroker::new();
    broker.create_topic("x", 1);
    let mut producer = producer(&broker);
    let mut batch = outputs(&[Some("a"), Some("b"), Some("c")]);
    batch.headers.counts = vec![2, 0, 1];
    ["h1", "h2", "h3"].iter().for_each(|key| batch.headers.keys.push(key.as_bytes()));
    batch.headers.values = column(&[Some("1"), None, Some("")]);
    collector(&[("x", 1)]).send(batch, Vec::new(), &mut producer).expect("it is sent");
    producer.drain(Duration::ZERO).expect("it is delivered");
    let header = |header: &Header| format!("{:?}={:?}", header.key, header.value);
    let headers = |record: Record| record.headers.iter().map(header).collect::<Vec<_>>().join(" ");
    let sent: Vec<String> = broker.records("x", 0).into_iter().map(headers).collect();
    assert_eq!(sent, [r#"b"h1"=Some(b"1") b"h2"=None"#, "", r#"b"h3"=Some(b"")"#]);
}

#[test]
fn a_full_queue_keeps_the_rest_and_its_order() {
    let broker = MockBroker::new();
    broker.create_topic("x", 1);
    broker.limit_producer_queue(2);
    broker.hold_deliveries(true);
    let mut producer = producer(&broker);
    let mut collector = collector(&[("x", 1)]);
    collector
        .send(outputs(&[Some("1"), Some("2"), Some("3")]), Vec::new(), &mut producer)
        .expect("backpressure is no error");
    collector.send(outputs(&[Some("4")]), Vec::new(), &mut producer).expect("backpressure is no error");
    assert!(collector.is_full());
    assert_eq!(collector.drain(&mut producer), Ok(false));
    broker.hold_deliveries(false);
    while !collector.drain(&mut producer).expect("no fault") {}
    producer.drain(Duration::ZERO).expect("it is delivered");
    let keys: Vec<_> = broker.records("x", 0).into_iter().filter_map(|record| record.key).collect();
    assert_eq!(keys, ["1", "2", "3", "4"]);
    assert_eq!(producer.acknowledged(&crate::record::TopicPartition::new("x", 0)), Some(3));
}
