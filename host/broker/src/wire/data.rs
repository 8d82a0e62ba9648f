//! Records in and out: Produce, Fetch, ListOffsets and what belongs to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::produce_request::TopicProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse,
};

use super::connection::Session;
use super::park::Slot;
use super::{code, message};
use crate::core::PartitionHandle;
use crate::core::log::{Appended, Fetched, IsolationLevel, LEADER_EPOCH};
use crate::core::metadata::TopicId;
use crate::core::refusal::{ErrorCode, Refusal};

/// The most record bytes of one answer (`fetch.max.bytes` of Kafka's broker).
pub(crate) const FETCH_BYTES_MAX: usize = 57_671_680;
/// The longest a fetch may wait, whatever it asks.
pub(crate) const FETCH_WAIT_MAX: Duration = Duration::from_secs(300);

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// The first offset on the broker's own disk; there is no other storage.
const EARLIEST_LOCAL: i64 = -4;
/// The last offset in remote storage, and the first that is not there yet: there is no remote storage.
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// Appends; `None` when the client wants no answer.
pub(super) fn produce(session: &Session<'_>, request: ProduceRequest) -> Option<ProduceResponse> {
    let acks = request.acks;
    let check = match acks {
        -1..=1 => Ok(request.transactional_id.as_ref().map(|id| id.0.as_str())),
        _ => Err(Refusal::new(ErrorCode::InvalidRequiredAcks, format!("acks of -1, 0 or 1, found {acks}"))),
    };
    let topics = request.topic_data.into_iter().map(|topic| produce_topic(session, topic, &check)).collect();
    (acks != 0).then(|| ProduceResponse::default().with_responses(topics))
}

/// `check` has the request's transactional id, if it may be carried out.
fn produce_topic(
    session: &Session<'_>,
    topic: TopicProduceData,
    check: &Result<Option<&str>, Refusal>,
) -> TopicProduceResponse {
    let partitions = topic.partition_data.into_iter().map(|partition| {
        let result = check.clone().and_then(|transactional_id| {
            append(session, transactional_id, &topic.name, partition.index, partition.records)
        });
        let mut response = PartitionProduceResponse::default()
            .with_index(partition.index)
            .with_error_code(code(&result))
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1);
        if let Ok(appended) = &result {
            response.base_offset = appended.base_offset;
            response.log_append_time_ms = appended.log_append_time;
            response.log_start_offset = appended.log_start_offset;
        }
        response.error_message = message(&result);
        response
    });
    let partitions = partitions.collect();
    TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions)
}

fn append(
    session: &Session<'_>,
    transactional_id: Option<&str>,
    topic: &str,
    partition: i32,
    records: Option<Bytes>,
) -> Result<Appended, Refusal> {
    let shared = session.shared;
    let batch = records.ok_or_else(|| {
        Refusal::new(ErrorCode::InvalidRecord, format!("append to {topic}-{partition}: the request has no records"))
    })?;
    let result = match transactional_id {
        Some(id) => shared.core.append_in_transaction(shared.now_ms(), id, topic, partition, &batch),
        None => shared.core.partition(topic, partition).and_then(|handle| {
            let appended = handle.append(&batch, shared.now_ms())?;
            Ok((handle.partition.topic_id, appended))
        }),
    };
    match &result {
        Ok((topic_id, _)) => shared.fetches.notify(*topic_id, partition),
        Err(refusal) if refusal.code == ErrorCode::KafkaStorageError && shared.may_log_storage_error() => {
            tracing::error!(%refusal, "the broker could not keep records; their producers were told");
        }
        Err(_) => {}
    }
    result.map(|(_, appended)| appended)
}

fn check_leader_epoch(epoch: i32) -> Result<(), Refusal> {
    if epoch == -1 || epoch == LEADER_EPOCH {
        return Ok(());
    }
    let code = if epoch < LEADER_EPOCH { ErrorCode::FencedLeaderEpoch } else { ErrorCode::UnknownLeaderEpoch };
    Err(Refusal::new(code, format!("the leader epoch is {LEADER_EPOCH}, found {epoch}")))
}

/// What one look at the logs found.
struct Look {
    topics: Vec<FetchableTopicResponse>,
    bytes: usize,
    failed: bool,
    partitions: Vec<(TopicId, i32)>,
}

/// Reads; waits for records as the request says, woken by the append that brings them.
pub(super) fn fetch(session: &Session<'_>, request: FetchRequest) -> FetchResponse {
    let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64).min(FETCH_WAIT_MAX);
    let deadline = Instant::now() + wait;
    let enough =
        |look: &Look| look.failed || look.partitions.is_empty() || look.bytes as i64 >= i64::from(request.min_bytes);
    let mut look = look_at(session, &request);
    if !enough(&look) && !wait.is_zero() {
        let slot = Arc::new(Slot::default());
        let partitions = std::mem::take(&mut look.partitions);
        session.shared.fetches.enter(&partitions, &slot);
        loop {
            look = look_at(session, &request);
            let left = deadline.saturating_duration_since(Instant::now());
            if enough(&look) || left.is_zero() || session.shared.is_stopping() {
                break;
            }
            let patience = session.patience();
            let woken = slot.take(left.min(patience)).is_some();
            if !woken && left > patience && !session.is_connected() {
                break;
            }
        }
        session.shared.fetches.leave(&partitions, &slot);
    }
    FetchResponse::default().with_responses(look.topics)
}

fn look_at(session: &Session<'_>, request: &FetchRequest) -> Look {
    let mut look = Look { topics: Vec::new(), bytes: 0, failed: false, partitions: Vec::new() };
    let most = usize::try_from(request.max_bytes).unwrap_or(0).min(FETCH_BYTES_MAX);
    let isolation =
        if request.isolation_level == 1 { IsolationLevel::ReadCommitted } else { IsolationLevel::ReadUncommitted };
    for topic in &request.topics {
        let partitions = topic
            .partitions
            .iter()
            .map(|partition| {
                let result =
                    read(session, topic, partition, most.saturating_sub(look.bytes), look.bytes == 0, isolation);
                look.failed |= result.is_err();
                if let Err(refusal) = &result {
                    log_read_error(session, refusal);
                }
                if let Ok((handle, fetched)) = &result {
                    look.bytes += fetched.records.len();
                    look.partitions.push((handle.partition.topic_id, partition.partition));
                }
                partition_data(partition.partition, result, isolation)
            })
            .collect();
        look.topics.push(FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_partitions(partitions));
    }
    look
}

/// A client learns only a code; which file it was is for people.
fn log_read_error(session: &Session<'_>, refusal: &Refusal) {
    let is_ours = matches!(refusal.code, ErrorCode::KafkaStorageError | ErrorCode::CorruptMessage);
    if is_ours && session.shared.may_log_storage_error() {
        tracing::error!(%refusal, "the broker could not read records; their consumer was told");
    }
}

fn read(
    session: &Session<'_>,
    topic: &FetchTopic,
    partition: &FetchPartition,
    left: usize,
    at_least_one: bool,
    isolation: IsolationLevel,
) -> Result<(PartitionHandle, Fetched), Refusal> {
    let handle = session.shared.core.partition(&topic.topic, partition.partition)?;
    check_leader_epoch(partition.current_leader_epoch)?;
    let most = usize::try_from(partition.partition_max_bytes).unwrap_or(0).min(left);
    let fetched = handle.read(partition.fetch_offset, most, at_least_one, isolation)?;
    Ok((handle, fetched))
}

fn partition_data(
    index: i32,
    result: Result<(PartitionHandle, Fetched), Refusal>,
    isolation: IsolationLevel,
) -> PartitionData {
    let data = PartitionData::default().with_partition_index(index).with_error_code(code(&result));
    match result {
        Ok((_, fetched)) => {
            let aborted = fetched.aborted.iter().map(|transaction| {
                AbortedTransaction::default()
                    .with_producer_id(transaction.producer_id.into())
                    .with_first_offset(transaction.first_offset)
            });
            data.with_high_watermark(fetched.bounds.high_watermark)
                .with_last_stable_offset(fetched.bounds.last_stable_offset)
                .with_log_start_offset(fetched.bounds.log_start_offset)
                .with_aborted_transactions((isolation == IsolationLevel::ReadCommitted).then(|| aborted.collect()))
                .with_records(Some(fetched.records))
        }
        Err(_) => data
            .with_high_watermark(-1)
            .with_last_stable_offset(-1)
            .with_log_start_offset(-1)
            .with_aborted_transactions(None)
            .with_records(Some(Bytes::new())),
    }
}

/// Offsets by position or by time.
pub(super) fn list_offsets(session: &Session<'_>, version: i16, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let committed = request.isolation_level == 1;
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let result = check_leader_epoch(partition.current_leader_epoch)
                .and_then(|()| session.shared.core.partition(&topic.name, partition.partition_index))
                .and_then(|handle| list_offset(&handle, partition.timestamp, committed));
            let found = result.as_ref().ok().copied().flatten();
            let mut response = ListOffsetsPartitionResponse::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(&result))
                .with_offset(-1)
                .with_timestamp(-1)
                .with_leader_epoch(-1);
            if let Some((offset, timestamp)) = found {
                response.offset = offset;
                response.timestamp = timestamp;
                response.leader_epoch = if version >= 4 { LEADER_EPOCH } else { -1 };
            }
            response
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn list_offset(handle: &PartitionHandle, timestamp: i64, committed: bool) -> Result<Option<(i64, i64)>, Refusal> {
    let bounds = handle.bounds();
    let is_visible = |(offset, _): &(i64, i64)| !committed || *offset < bounds.last_stable_offset;
    match timestamp {
        LATEST if committed => Ok(Some((bounds.last_stable_offset, -1))),
        LATEST => Ok(Some((bounds.high_watermark, -1))),
        EARLIEST | EARLIEST_LOCAL => Ok(Some((bounds.log_start_offset, -1))),
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Ok(None),
        MAX_TIMESTAMP => Ok(handle.partition.log().offset_of_max_timestamp()?.filter(is_visible)),
        timestamp if timestamp >= 0 => Ok(handle.offset_for_timestamp(timestamp)?.filter(is_visible)),
        other => {
            let detail = format!("list offsets: a timestamp, or -1 to -6, found {other}");
            Err(Refusal::new(ErrorCode::UnsupportedVersion, detail))
        }
    }
}

/// Where a leader epoch ends: there is only one, so at the log end.
pub(super) fn offset_for_leader_epoch(
    session: &Session<'_>,
    request: &OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let result = check_leader_epoch(partition.current_leader_epoch)
                .and_then(|()| session.shared.core.partition(&topic.topic, partition.partition));
            let end = result.as_ref().ok().filter(|_| partition.leader_epoch == LEADER_EPOCH);
            EpochEndOffset::default()
                .with_partition(partition.partition)
                .with_error_code(code(&result))
                .with_leader_epoch(if end.is_some() { LEADER_EPOCH } else { -1 })
                .with_end_offset(end.map_or(-1, |handle| handle.bounds().high_watermark))
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
