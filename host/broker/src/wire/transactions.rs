//! Transactions on the wire (KIP-98, KIP-447, KIP-664): producer ids, what a transaction reads and writes, its end.

use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse as ProducersOfTopic,
};
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState as DescribedTransaction};
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedTransaction;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
    EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse, ListTransactionsRequest,
    ListTransactionsResponse, TopicName, TransactionalId, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::connection::Session;
use super::{code, message, text, unique};
use crate::core::group::MemberIdentity;
use crate::core::group::offsets::OffsetToCommit;
use crate::core::metadata::TopicId;
use crate::core::refusal::{ErrorCode, Refusal};
use crate::core::transaction::{TransactionDescription, TransactionalProducer};

/// The first version of each request whose client knows `ProducerFenced`; older ones know a stale epoch (KIP-588).
const FENCED_FROM_ADD_PARTITIONS: i16 = 2;
const FENCED_FROM_ADD_OFFSETS: i16 = 2;
const FENCED_FROM_END: i16 = 2;
const FENCED_FROM_INIT: i16 = 4;

/// A result as a client of this version understands it. A coordinator that cannot write its log is none, so that
/// clients ask again (Kafka's `TransactionStateManager.appendTransactionToLog`).
fn known_to<T>(result: Result<T, Refusal>, version: i16, fenced_from: i16) -> Result<T, Refusal> {
    result.map_err(|refusal| match refusal.code {
        ErrorCode::KafkaStorageError => Refusal::new(ErrorCode::NotCoordinator, refusal.detail),
        ErrorCode::ProducerFenced if version < fenced_from => {
            Refusal::new(ErrorCode::InvalidProducerEpoch, refusal.detail)
        }
        _ => refusal,
    })
}

fn producer_of<'a>(id: &'a TransactionalId, producer_id: i64, epoch: i16) -> TransactionalProducer<'a> {
    TransactionalProducer { transactional_id: id.0.as_str(), producer_id, epoch }
}

impl Session<'_> {
    /// Wakes readers of committed records, and the clock that finishes a transaction which could not be finished at
    /// once.
    fn transaction_moved(&self, touched: Vec<(TopicId, i32)>) {
        touched.into_iter().for_each(|(topic, partition)| self.shared.fetches.notify(topic, partition));
        self.shared.group_clock.ring();
    }
}

/// A producer's id: of its own, or its transactional id's.
pub(super) fn init_producer_id(
    session: &Session<'_>,
    version: i16,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let shared = session.shared;
    let result = match &request.transactional_id {
        None => shared.core.init_producer_id(),
        Some(id) => expected_producer(request).and_then(|expected| {
            let (now_ms, timeout_ms) = (shared.group_now_ms(), request.transaction_timeout_ms);
            let (owner, touched) = shared.core.init_transactional_producer(now_ms, id, timeout_ms, expected)?;
            session.transaction_moved(touched);
            Ok((owner.producer_id, owner.epoch))
        }),
    };
    let result = known_to(result, version, FENCED_FROM_INIT);
    if let Err(refusal) = &result {
        tracing::warn!(%refusal, "a producer got no id");
    }
    let (id, epoch) = result.as_ref().copied().unwrap_or((-1, -1));
    InitProducerIdResponse::default()
        .with_error_code(code(&result))
        .with_producer_id(id.into())
        .with_producer_epoch(epoch)
}

/// The producer id and epoch that the client had before, if it names any (KIP-360).
fn expected_producer(request: &InitProducerIdRequest) -> Result<Option<(i64, i16)>, Refusal> {
    match (request.producer_id.0, request.producer_epoch) {
        (id, epoch) if id >= 0 && epoch >= 0 => Ok(Some((id, epoch))),
        (id, epoch) if id < 0 && epoch < 0 => Ok(None),
        (id, epoch) => {
            let detail = format!("producer id {id} with epoch {epoch}: both or none");
            Err(Refusal::new(ErrorCode::InvalidRequest, detail))
        }
    }
}

pub(super) fn add_partitions(
    session: &Session<'_>,
    version: i16,
    request: &AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let id = &request.v3_and_below_transactional_id;
    let producer = producer_of(id, request.v3_and_below_producer_id.0, request.v3_and_below_producer_epoch);
    let topics = &request.v3_and_below_topics;
    let asked: Vec<(&str, i32)> = topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|&partition| (topic.name.as_str(), partition)))
        .collect();
    let shared = session.shared;
    let result = shared.core.add_partitions_to_transaction(shared.group_now_ms(), &producer, &asked);
    if result.is_ok() {
        shared.group_clock.ring();
    }
    let result = known_to(result, version, FENCED_FROM_ADD_PARTITIONS);
    let whole = code(&result);
    let mut each = result.unwrap_or_default().into_iter();
    let results = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|&partition| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(partition)
                .with_partition_error_code(each.next().map_or(whole, |result| code(&result)))
        });
        let partitions = partitions.collect();
        AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(partitions)
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect())
}

pub(super) fn add_offsets(
    session: &Session<'_>,
    version: i16,
    request: &AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let producer = producer_of(&request.transactional_id, request.producer_id.0, request.producer_epoch);
    let shared = session.shared;
    let result = shared.core.add_offsets_to_transaction(shared.group_now_ms(), &producer, &request.group_id);
    if result.is_ok() {
        shared.group_clock.ring();
    }
    let result = known_to(result, version, FENCED_FROM_ADD_OFFSETS);
    AddOffsetsToTxnResponse::default().with_error_code(code(&result))
}

pub(super) fn commit_offsets(session: &Session<'_>, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let producer = producer_of(&request.transactional_id, request.producer_id.0, request.producer_epoch);
    let member = MemberIdentity {
        generation: request.generation_id,
        member_id: request.member_id.as_str().to_owned(),
        instance_id: request.group_instance_id.as_ref().map(|id| id.as_str().to_owned()),
    };
    let mut offsets = Vec::new();
    for topic in &request.topics {
        offsets.extend(topic.partitions.iter().map(|partition| OffsetToCommit {
            topic: topic.name.as_str().to_owned(),
            partition: partition.partition_index,
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata: partition.committed_metadata.as_ref().map_or_else(String::new, |text| text.as_str().to_owned()),
        }));
    }
    let shared = session.shared;
    let now_ms = shared.group_now_ms();
    let result = shared.core.commit_transaction_offsets(now_ms, &producer, &request.group_id, &member, offsets);
    // No version of this request knows `ProducerFenced`.
    let result = known_to(result, 0, 1);
    let whole = code(&result);
    let mut each = result.unwrap_or_default().into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(each.next().map_or(whole, |result| code(&result)))
        });
        let partitions = partitions.collect();
        TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

pub(super) fn end(session: &Session<'_>, version: i16, request: &EndTxnRequest) -> EndTxnResponse {
    let producer = producer_of(&request.transactional_id, request.producer_id.0, request.producer_epoch);
    let shared = session.shared;
    let result = shared.core.end_transaction(shared.group_now_ms(), &producer, request.committed);
    let result = known_to(result, version, FENCED_FROM_END).map(|touched| session.transaction_moved(touched));
    EndTxnResponse::default().with_error_code(code(&result))
}

pub(super) fn list(session: &Session<'_>, request: &ListTransactionsRequest) -> ListTransactionsResponse {
    let now_ms = session.shared.group_now_ms();
    let known = ["Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead"];
    let unknown = request.state_filters.iter().filter(|state| !known.contains(&state.as_str()));
    let is_wanted = |one: &TransactionDescription| {
        let states = &request.state_filters;
        let ids = &request.producer_id_filters;
        let lasts_ms = if one.started_ms < 0 { -1 } else { now_ms - one.started_ms };
        (states.is_empty() || states.iter().any(|state| state.as_str() == one.state.name()))
            && (ids.is_empty() || ids.iter().any(|id| id.0 == one.producer_id))
            && (request.duration_filter < 0 || lasts_ms > request.duration_filter)
    };
    let found = session.shared.core.transactions().into_iter().filter(is_wanted).map(|one| {
        ListedTransaction::default()
            .with_transactional_id(TransactionalId(text(one.transactional_id)))
            .with_producer_id(one.producer_id.into())
            .with_transaction_state(text(one.state.name()))
    });
    ListTransactionsResponse::default()
        .with_unknown_state_filters(unknown.cloned().collect())
        .with_transaction_states(found.collect())
}

pub(super) fn describe(session: &Session<'_>, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let states = unique(request.transactional_ids).map(|id| {
        let result = session.shared.core.describe_transaction(&id);
        let described = DescribedTransaction::default().with_error_code(code(&result)).with_transactional_id(id);
        let Ok(found) = result else { return described.with_transaction_state(text("")).with_producer_id((-1).into()) };
        let topics = found.partitions.into_iter().map(|(topic, partitions)| {
            TopicData::default().with_topic(TopicName(text(topic))).with_partitions(partitions)
        });
        described
            .with_transaction_state(text(found.state.name()))
            .with_transaction_timeout_ms(found.timeout_ms)
            .with_transaction_start_time_ms(found.started_ms)
            .with_producer_id(found.producer_id.into())
            .with_producer_epoch(found.epoch)
            .with_topics(topics.collect())
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

pub(super) fn describe_producers(
    session: &Session<'_>,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = unique(topic.partition_indexes).map(|index| {
            let result = session.shared.core.active_producers(&topic.name, index);
            let response = PartitionResponse::default()
                .with_partition_index(index)
                .with_error_code(code(&result))
                .with_error_message(message(&result));
            let producers = result.unwrap_or_default().into_iter().map(|one| {
                ProducerState::default()
                    .with_producer_id(one.producer_id.into())
                    .with_producer_epoch(i32::from(one.epoch))
                    .with_last_sequence(one.last_sequence)
                    .with_last_timestamp(one.last_timestamp)
                    .with_coordinator_epoch(0)
                    .with_current_txn_start_offset(one.transaction_start_offset)
            });
            response.with_active_producers(producers.collect())
        });
        let partitions = partitions.collect();
        ProducersOfTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}
