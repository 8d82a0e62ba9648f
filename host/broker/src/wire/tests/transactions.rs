//! Transactions from a raw client's side: every request in every version, and readers that wait for the end.

use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;

use super::client::{Broker, Client, produce_request, text, topic};
use super::versions::each;
use crate::core::batch::build::{NewRecord, ProducerStamp, batch_of};

fn id() -> TransactionalId {
    TransactionalId(text("t"))
}

fn group() -> GroupId {
    GroupId(text("g"))
}

/// A producer id and epoch.
type Owner = (ProducerId, i16);

fn init(client: &mut Client, version: i16) -> Owner {
    let request =
        InitProducerIdRequest::default().with_transactional_id(Some(id())).with_transaction_timeout_ms(60_000);
    let response = client.call(&request, version);
    assert_eq!(response.error_code, 0, "{version}");
    (response.producer_id, response.producer_epoch)
}

fn add_partitions(owner: Owner) -> AddPartitionsToTxnRequest {
    let topics = ["out", "missing"]
        .map(|name| AddPartitionsToTxnTopic::default().with_name(topic(name)).with_partitions(vec![0]));
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id())
        .with_v3_and_below_producer_id(owner.0)
        .with_v3_and_below_producer_epoch(owner.1)
        .with_v3_and_below_topics(topics.into_iter().take(1).collect())
}

fn add_offsets(owner: Owner) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(owner.0)
        .with_producer_epoch(owner.1)
        .with_group_id(group())
}

fn commit_offsets(owner: Owner, offset: i64) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("stream time")));
    let one = TxnOffsetCommitRequestTopic::default().with_name(topic("in")).with_partitions(vec![partition]);
    TxnOffsetCommitRequest::default()
        .with_transactional_id(id())
        .with_group_id(group())
        .with_producer_id(owner.0)
        .with_producer_epoch(owner.1)
        .with_topics(vec![one])
}

fn end(owner: Owner, commit: bool) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(owner.0)
        .with_producer_epoch(owner.1)
        .with_committed(commit)
}

fn produce(client: &mut Client, owner: Owner, sequence: i32) -> i16 {
    let (producer_id, epoch) = (owner.0.0, owner.1);
    let stamp = ProducerStamp { producer_id, epoch, base_sequence: sequence, transactional: true };
    let batch = batch_of(Some(stamp), &[NewRecord { timestamp: 1, value: Some(b"v"), ..NewRecord::default() }]);
    let request = produce_request("out", 0, batch).with_transactional_id(Some(id()));
    client.call(&request, 8).responses[0].partition_responses[0].error_code
}

fn fetch_offset(client: &mut Client, stable: bool) -> (i16, i64) {
    let one = OffsetFetchRequestTopic::default().with_name(topic("in")).with_partition_indexes(vec![0]);
    let request =
        OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![one])).with_require_stable(stable);
    let response = client.call(&request, 7);
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.committed_offset)
}

fn started() -> (Broker, Client) {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create_topic("in", 1);
    client.create_topic("out", 1);
    (broker, client)
}

#[test]
fn a_transaction_in_every_version() {
    let (_broker, mut client) = started();
    let client = &mut client;
    for version in 0..=4 {
        let owner = init(client, version);
        let younger = version.min(3);
        let added = client.call(&add_partitions(owner), younger);
        assert_eq!(added.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code, 0);
        assert_eq!(produce(client, owner, 0), 0);
        assert_eq!(client.call(&add_offsets(owner), younger).error_code, 0);
        let offset = i64::from(version) + 1;
        let committed = client.call(&commit_offsets(owner, offset), younger);
        assert_eq!(committed.topics[0].partitions[0].error_code, 0, "{version}");
        assert_eq!(fetch_offset(client, true).0, ResponseError::UnstableOffsetCommit.code());
        assert_ne!(fetch_offset(client, false), (0, offset));
        assert_eq!(client.call(&end(owner, true), younger).error_code, 0);
        assert_eq!(fetch_offset(client, true), (0, offset));
    }
}

#[test]
fn a_fenced_producer_is_told_as_its_version_understands() {
    let (_broker, mut client) = started();
    let client = &mut client;
    let owner = init(client, 4);
    init(client, 4);
    let fenced = |known: bool| {
        if known { ResponseError::ProducerFenced.code() } else { ResponseError::InvalidProducerEpoch.code() }
    };
    each(client, |_| end(owner, true), |version, response| assert_eq!(response.error_code, fenced(version >= 2)));
    each(client, |_| add_offsets(owner), |version, response| assert_eq!(response.error_code, fenced(version >= 2)));
    each(
        client,
        |_| add_partitions(owner),
        |version, response| {
            let code = response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code;
            assert_eq!(code, fenced(version >= 2));
        },
    );
    each(
        client,
        |_| commit_offsets(owner, 1),
        |_, response| assert_eq!(response.topics[0].partitions[0].error_code, fenced(false)),
    );
    assert_eq!(produce(client, owner, 0), fenced(false));
    let again = InitProducerIdRequest::default()
        .with_transactional_id(Some(id()))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(owner.0)
        .with_producer_epoch(owner.1 - 1);
    assert_eq!(client.call(&again, 3).error_code, ResponseError::InvalidRequest.code(), "an id without an epoch");
    let stale = again.with_producer_epoch(owner.1);
    assert_eq!(client.call(&stale.clone(), 3).error_code, fenced(false));
    assert_eq!(client.call(&stale, 4).error_code, fenced(true));
}

#[test]
fn a_reader_of_committed_records_is_woken_by_the_end() {
    let (broker, mut client) = started();
    let owner = init(&mut client, 4);
    client.call(&add_partitions(owner), 3);
    assert_eq!(produce(&mut client, owner, 0), 0);
    let mut reader = broker.client();
    let partition = FetchPartition::default().with_partition_max_bytes(1_000);
    let one = FetchTopic::default().with_topic(topic("out")).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_wait_ms(15_000)
        .with_min_bytes(1)
        .with_max_bytes(1_000)
        .with_isolation_level(1)
        .with_topics(vec![one]);
    reader.write(&request, 11);
    reader.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(reader.stream.peek(&mut [0]).is_err(), "open transactions are not shown");
    reader.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(client.call(&end(owner, false), 3).error_code, 0);
    let response = reader.read::<FetchRequest>(11);
    let found = &response.responses[0].partitions[0];
    assert_eq!((found.last_stable_offset, found.high_watermark), (2, 2));
    let aborted = found.aborted_transactions.as_ref().unwrap();
    assert_eq!((aborted[0].producer_id, aborted[0].first_offset), (owner.0, 0));
}

#[test]
fn transactions_and_producers_are_described() {
    let (_broker, mut client) = started();
    let client = &mut client;
    let owner = init(client, 4);
    client.call(&add_partitions(owner), 3);
    assert_eq!(produce(client, owner, 0), 0);
    let ids = vec![id(), TransactionalId(text("nobody"))];
    let described = client.call(&DescribeTransactionsRequest::default().with_transactional_ids(ids), 0);
    let found = &described.transaction_states[0];
    assert_eq!((found.transaction_state.as_str(), found.transaction_timeout_ms), ("Ongoing", 60_000));
    assert_eq!((found.topics[0].topic.as_str(), found.topics[0].partitions.as_slice()), ("out", [0].as_slice()));
    assert!(found.transaction_start_time_ms > 0);
    assert_eq!(described.transaction_states[1].error_code, ResponseError::TransactionalIdNotFound.code());
    let one = TopicRequest::default().with_name(topic("out")).with_partition_indexes(vec![0, 5]);
    let producers = client.call(&DescribeProducersRequest::default().with_topics(vec![one]), 0);
    let partitions = &producers.topics[0].partitions;
    let active = &partitions[0].active_producers[0];
    assert_eq!((active.producer_id, active.last_sequence, active.current_txn_start_offset), (owner.0, 0, 0));
    assert_eq!(partitions[1].error_code, ResponseError::UnknownTopicOrPartition.code());
    let list = |states: &[&str], duration_ms| {
        ListTransactionsRequest::default()
            .with_state_filters(states.iter().map(|state| text(state)).collect())
            .with_duration_filter(duration_ms)
    };
    assert_eq!(client.call(&list(&[], -1), 0).transaction_states.len(), 1);
    assert_eq!(client.call(&list(&["Ongoing"], -1), 1).transaction_states.len(), 1);
    assert_eq!(client.call(&list(&["Ongoing"], 60_000), 1).transaction_states.len(), 0);
    let unknown = client.call(&list(&["Empty", "Sleeping"], -1), 1);
    assert_eq!((unknown.transaction_states.len(), unknown.unknown_state_filters.len()), (0, 1));
}

#[test]
fn a_decision_is_finished_soon_after_a_full_disk() {
    let (broker, mut client) = started();
    let owner = init(&mut client, 4);
    client.call(&add_partitions(owner), 3);
    assert_eq!(produce(&mut client, owner, 0), 0);
    // The clock has gone to sleep until the transaction's timeout.
    std::thread::sleep(Duration::from_millis(200));
    broker.storage.fill_disk_after(1);
    assert_eq!(client.call(&end(owner, true), 3).error_code, 0);
    broker.storage.fill_disk(false);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id()]);
        let state = client.call(&request, 0).transaction_states[0].transaction_state.clone();
        if state.as_str() == "CompleteCommit" {
            break;
        }
        assert!(Instant::now() < deadline, "still in state {}", state.as_str());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn offsets_for_times_respect_the_isolation_level() {
    let (_broker, mut client) = started();
    let owner = init(&mut client, 4);
    client.call(&add_partitions(owner), 3);
    assert_eq!(produce(&mut client, owner, 0), 0);
    let mut list = |isolation_level: i8| {
        let at = |timestamp| ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
        let one = ListOffsetsTopic::default().with_name(topic("out")).with_partitions(vec![at(1), at(-3)]);
        let request = ListOffsetsRequest::default().with_isolation_level(isolation_level).with_topics(vec![one]);
        let response = client.call(&request, 7);
        response.topics[0].partitions.iter().map(|found| found.offset).collect::<Vec<_>>()
    };
    assert_eq!(list(0), [0, 0]);
    assert_eq!(list(1), [-1, -1], "the record is above the last stable offset");
}
