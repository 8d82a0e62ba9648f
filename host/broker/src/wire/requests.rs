//! From a request's bytes to its answer's bytes: decodes, calls the one function that answers this kind of request, and
//! encodes what it says in the version that was asked.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::connection::{Ended, RequestHead, Session};
use super::shape::APIS;
use super::{admin, data, groups, inspect, offsets, transactions};
use crate::core::refusal::ErrorCode;

/// What goes back to the client.
pub(super) enum Reply {
    /// A whole frame.
    Frame(BytesMut),
    /// The request wants no answer (a produce with `acks=0`).
    Nothing,
}

fn decode<T: Decodable>(head: &RequestHead, mut body: Bytes) -> Result<T, Ended> {
    T::decode(&mut body, head.version).map_err(|error| Ended::Malformed {
        api: head.api.key,
        version: head.version,
        detail: error.to_string(),
    })
}

fn encode<T: Encodable>(head: &RequestHead, response: &T) -> Result<Reply, Ended> {
    let failed = |detail: String| Ended::Encode { api: head.api.key, version: head.version, detail };
    let size = response.compute_size(head.version).map_err(|error| failed(error.to_string()))?;
    let mut frame = BytesMut::with_capacity(size + 16);
    frame.put_i32(0);
    frame.put_i32(head.correlation_id);
    // The header of an ApiVersions answer is never flexible: the client does not know the broker's versions yet.
    if head.api.is_flexible(head.version) && head.api.key != ApiKey::ApiVersions {
        frame.put_u8(0);
    }
    response.encode(&mut frame, head.version).map_err(|error| failed(error.to_string()))?;
    finish(frame).map_err(failed)
}

fn finish(mut frame: BytesMut) -> Result<Reply, String> {
    let length = i32::try_from(frame.len() - 4).map_err(|_| format!("{} bytes", frame.len()))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(Reply::Frame(frame))
}

fn api_versions(error_code: i16) -> ApiVersionsResponse {
    let keys = APIS.iter().map(|api| {
        ApiVersion::default().with_api_key(api.key as i16).with_min_version(api.min).with_max_version(api.max)
    });
    ApiVersionsResponse::default().with_error_code(error_code).with_api_keys(keys.collect())
}

/// The answer to an ApiVersions request of a version that is not known here.
pub(super) fn api_versions_fallback(correlation_id: i32) -> Result<BytesMut, Ended> {
    let failed = |detail: String| Ended::Encode { api: ApiKey::ApiVersions, version: 0, detail };
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i32(correlation_id);
    let response = api_versions(ErrorCode::UnsupportedVersion.code());
    response.encode(&mut frame, 0).map_err(|error| failed(error.to_string()))?;
    match finish(frame).map_err(failed)? {
        Reply::Frame(frame) => Ok(frame),
        Reply::Nothing => Ok(BytesMut::new()),
    }
}

/// Answers one request.
pub(super) fn answer(session: &Session<'_>, head: &RequestHead, body: Bytes) -> Result<Reply, Ended> {
    match head.api.key {
        ApiKey::Produce => match data::produce(session, decode(head, body)?) {
            Some(response) => encode(head, &response),
            None => Ok(Reply::Nothing),
        },
        ApiKey::Fetch => encode(head, &data::fetch(session, decode(head, body)?)),
        ApiKey::ListOffsets => encode(head, &data::list_offsets(session, head.version, &decode(head, body)?)),
        ApiKey::OffsetForLeaderEpoch => encode(head, &data::offset_for_leader_epoch(session, &decode(head, body)?)),
        ApiKey::ApiVersions => encode(head, &api_versions(0)),
        ApiKey::Metadata => encode(head, &admin::metadata(session, head.version, decode(head, body)?)),
        ApiKey::DescribeCluster => encode(head, &admin::describe_cluster(session, &decode(head, body)?)),
        ApiKey::DescribeLogDirs => encode(head, &inspect::describe_log_dirs(session, &decode(head, body)?)),
        ApiKey::CreateTopics => encode(head, &admin::create_topics(session, decode(head, body)?)),
        ApiKey::DeleteTopics => encode(head, &admin::delete_topics(session, head.version, decode(head, body)?)),
        ApiKey::DeleteRecords => encode(head, &admin::delete_records(session, &decode(head, body)?)),
        ApiKey::CreatePartitions => encode(head, &admin::create_partitions(session, &decode(head, body)?)),
        ApiKey::DescribeConfigs => encode(head, &admin::describe_configs(session, &decode(head, body)?)),
        ApiKey::AlterConfigs => encode(head, &admin::alter_configs(session, &decode(head, body)?)),
        ApiKey::IncrementalAlterConfigs => {
            encode(head, &admin::incremental_alter_configs(session, &decode(head, body)?))
        }
        ApiKey::FindCoordinator => encode(head, &groups::find_coordinator(session, head.version, decode(head, body)?)),
        ApiKey::JoinGroup => encode(head, &groups::join_group(session, head, decode(head, body)?)?),
        ApiKey::SyncGroup => encode(head, &groups::sync_group(session, head.version, decode(head, body)?)?),
        ApiKey::Heartbeat => encode(head, &groups::heartbeat(session, &decode(head, body)?)),
        ApiKey::LeaveGroup => encode(head, &groups::leave_group(session, head.version, decode(head, body)?)),
        ApiKey::DescribeGroups => encode(head, &groups::describe_groups(session, head.version, decode(head, body)?)),
        ApiKey::ListGroups => encode(head, &groups::list_groups(session, head.version, &decode(head, body)?)),
        ApiKey::DeleteGroups => encode(head, &groups::delete_groups(session, decode(head, body)?)),
        ApiKey::OffsetCommit => encode(head, &offsets::commit(session, decode(head, body)?)),
        ApiKey::OffsetFetch => encode(head, &offsets::fetch(session, head.version, decode(head, body)?)),
        ApiKey::OffsetDelete => encode(head, &offsets::delete(session, &decode(head, body)?)),
        _ => answer_transactions(session, head, body),
    }
}

fn answer_transactions(session: &Session<'_>, head: &RequestHead, body: Bytes) -> Result<Reply, Ended> {
    let version = head.version;
    match head.api.key {
        ApiKey::InitProducerId => encode(head, &transactions::init_producer_id(session, version, &decode(head, body)?)),
        ApiKey::AddPartitionsToTxn => {
            encode(head, &transactions::add_partitions(session, version, &decode(head, body)?))
        }
        ApiKey::AddOffsetsToTxn => encode(head, &transactions::add_offsets(session, version, &decode(head, body)?)),
        ApiKey::TxnOffsetCommit => encode(head, &transactions::commit_offsets(session, decode(head, body)?)),
        ApiKey::EndTxn => encode(head, &transactions::end(session, version, &decode(head, body)?)),
        ApiKey::ListTransactions => encode(head, &transactions::list(session, &decode(head, body)?)),
        ApiKey::DescribeTransactions => encode(head, &transactions::describe(session, decode(head, body)?)),
        ApiKey::DescribeProducers => encode(head, &transactions::describe_producers(session, decode(head, body)?)),
        key => Err(Ended::UnknownApi { key: key as i16 }),
    }
}
