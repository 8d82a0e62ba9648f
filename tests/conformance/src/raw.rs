//! The calls of librdkafka that `rdkafka` does not wrap, and this package's only unsafe code: incremental alter
//! configs, groups listed, described and their offsets read, set and deleted, offsets listed, topic ids, and group
//! metadata with a generation of the caller's choice. Every function waits for the broker's answer and copies what it
//! returns; no pointer leaves this file.

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{Consumer, ConsumerContext};
use rdkafka::error::{IsError, RDKafkaErrorCode};
use sys::rd_kafka_admin_op_t as Operation;

/// How long a call waits for its answer, in librdkafka and here.
const ANSWER_MS: i32 = 20_000;

/// What a call gives, or the code of the refusal.
pub type Answer<T> = Result<T, RDKafkaErrorCode>;

/// A group as DescribeGroups shows it.
#[derive(Debug)]
pub struct GroupDescription {
    pub state: String,
    pub assignor: String,
    /// `(client id, instance id)` of each member.
    pub members: Vec<(String, Option<String>)>,
}

/// What an incremental change does with a setting.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    Set(&'a str, &'a str),
    Delete(&'a str),
}

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy)]
pub enum OffsetSpec {
    Earliest,
    Latest,
    MaxTimestamp,
}

/// A member of a group as its client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub generation: i32,
    pub member: String,
}

/// An answer of the broker to an admin call, with the queue that it came in.
struct Event {
    queue: *mut sys::rd_kafka_queue_t,
    event: *mut sys::rd_kafka_event_t,
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: both are owned by this value (made in `ask`), not null or accepted as null, and freed once.
        unsafe {
            sys::rd_kafka_event_destroy(self.event);
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// Options and queue for one admin call, the call itself by `send`, and the wait for its answer.
fn ask<C: ClientContext>(
    client: &Client<C>,
    operation: Operation,
    configure: impl FnOnce(*mut sys::rd_kafka_AdminOptions_t),
    send: impl FnOnce(*mut sys::rd_kafka_t, *const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
) -> Answer<Event> {
    let rk = client.native_ptr();
    // SAFETY: the client lives through the call; options and queue are made here; a null error text of length 0 is
    // allowed. The options are copied by the call that `send` makes and freed after it.
    let event = unsafe {
        let options = sys::rd_kafka_AdminOptions_new(rk, operation);
        let queue = sys::rd_kafka_queue_new(rk);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, ANSWER_MS, ptr::null_mut(), 0);
        configure(options);
        send(rk, options, queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        Event { queue, event: sys::rd_kafka_queue_poll(queue, ANSWER_MS + 5_000) }
    };
    if event.event.is_null() {
        return Err(RDKafkaErrorCode::OperationTimedOut);
    }
    // SAFETY: the event is not null.
    check(unsafe { sys::rd_kafka_event_error(event.event) })?;
    Ok(event)
}

fn check(code: sys::rd_kafka_resp_err_t) -> Answer<()> {
    if code.is_error() { Err(code.into()) } else { Ok(()) }
}

/// A C string of ours; test names hold no NUL.
fn text(value: &str) -> CString {
    CString::new(value).unwrap_or_default()
}

/// # Safety
/// `value` is null or a NUL-terminated string that lives through the call.
unsafe fn copied(value: *const c_char) -> Option<String> {
    // SAFETY: by the caller's promise.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned())
}

/// The code of an error object, which is freed; null is no error.
///
/// # Safety
/// `error` is null or an error object that the caller owns.
unsafe fn taken(error: *mut sys::rd_kafka_error_t) -> Answer<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null and owned by the caller's promise; freed once, after it was read.
    unsafe {
        let code = sys::rd_kafka_error_code(error);
        sys::rd_kafka_error_destroy(error);
        check(code)
    }
}

/// The error of each partition in a list and the offsets in it.
///
/// # Safety
/// `list` is null or a live list.
unsafe fn offsets_of(list: *const sys::rd_kafka_topic_partition_list_t) -> Answer<Vec<(String, i32, i64)>> {
    if list.is_null() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    // SAFETY: a live list has `cnt` elements at `elems`, each with a NUL-terminated topic.
    unsafe {
        for index in 0..usize::try_from((*list).cnt).unwrap_or(0) {
            let element = &*(*list).elems.add(index);
            check(element.err)?;
            found.push((copied(element.topic).unwrap_or_default(), element.partition, element.offset));
        }
    }
    Ok(found)
}

/// Changes single settings of a topic and leaves the others alone.
pub fn alter_topic_incrementally<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    changes: &[Change<'_>],
) -> Answer<()> {
    let topic = text(topic);
    // SAFETY: the resource is made here, given to calls that copy it, and freed once; strings are NUL-terminated.
    let (mut resource, prepared) = unsafe {
        let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        let resource = sys::rd_kafka_ConfigResource_new(kind, topic.as_ptr());
        let mut prepared = Ok(());
        for change in changes {
            let (name, operation, value) = match change {
                Change::Set(name, value) => {
                    (name, sys::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET, Some(text(value)))
                }
                Change::Delete(name) => {
                    (name, sys::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE, None)
                }
            };
            let name = text(name);
            let value = value.as_ref().map_or(ptr::null(), |value| value.as_ptr());
            let error = sys::rd_kafka_ConfigResource_add_incremental_config(resource, name.as_ptr(), operation, value);
            prepared = prepared.and(taken(error));
        }
        (resource, prepared)
    };
    let answer = prepared.and_then(|()| {
        ask(
            client,
            Operation::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS,
            |_| {},
            |rk, options, queue| {
                // SAFETY: one live resource, live client, options and queue.
                unsafe { sys::rd_kafka_IncrementalAlterConfigs(rk, &mut resource, 1, options, queue) }
            },
        )
    });
    // SAFETY: made above, freed once; the call has copied it.
    unsafe { sys::rd_kafka_ConfigResource_destroy(resource) };
    let answer = answer?;
    let mut count = 0;
    // SAFETY: the event is of this operation; the array has `count` live resources as long as the event lives.
    unsafe {
        let result = sys::rd_kafka_event_IncrementalAlterConfigs_result(answer.event);
        let resources = sys::rd_kafka_IncrementalAlterConfigs_result_resources(result, &mut count);
        (0..count).try_for_each(|index| check(sys::rd_kafka_ConfigResource_error(*resources.add(index))))
    }
}

/// The ids of all groups with their states.
pub fn list_groups<C: ClientContext>(client: &Client<C>) -> Answer<Vec<(String, String)>> {
    let answer = ask(
        client,
        Operation::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS,
        |_| {},
        |rk, options, queue| {
            // SAFETY: live client, options and queue.
            unsafe { sys::rd_kafka_ListConsumerGroups(rk, options, queue) }
        },
    )?;
    let mut count = 0;
    // SAFETY: the event is of this operation; the array has `count` live listings as long as the event lives.
    unsafe {
        let result = sys::rd_kafka_event_ListConsumerGroups_result(answer.event);
        let listings = sys::rd_kafka_ListConsumerGroups_result_valid(result, &mut count);
        Ok((0..count)
            .map(|index| {
                let listing = *listings.add(index);
                let state = sys::rd_kafka_ConsumerGroupListing_state(listing);
                let group = copied(sys::rd_kafka_ConsumerGroupListing_group_id(listing));
                let state = copied(sys::rd_kafka_consumer_group_state_name(state));
                (group.unwrap_or_default(), state.unwrap_or_default())
            })
            .collect())
    }
}

pub fn describe_group<C: ClientContext>(client: &Client<C>, group: &str) -> Answer<GroupDescription> {
    let group = text(group);
    let mut groups = [group.as_ptr()];
    let answer = ask(
        client,
        Operation::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
        |_| {},
        |rk, options, queue| {
            // SAFETY: one NUL-terminated name, copied by the call; live client, options and queue.
            unsafe { sys::rd_kafka_DescribeConsumerGroups(rk, groups.as_mut_ptr(), 1, options, queue) }
        },
    )?;
    let mut count = 0;
    // SAFETY: the event is of this operation; one group was asked for, so the array has one live description if
    // `count` is not 0; members are below `member_count`; all strings are null or NUL-terminated and live.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(answer.event);
        let descriptions = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        if count == 0 {
            return Err(RDKafkaErrorCode::GroupIdNotFound);
        }
        let group = *descriptions;
        let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
        if !error.is_null() {
            check(sys::rd_kafka_error_code(error))?;
        }
        let state = sys::rd_kafka_ConsumerGroupDescription_state(group);
        let members = (0..sys::rd_kafka_ConsumerGroupDescription_member_count(group)).map(|index| {
            let member = sys::rd_kafka_ConsumerGroupDescription_member(group, index);
            let client = copied(sys::rd_kafka_MemberDescription_client_id(member)).unwrap_or_default();
            (client, copied(sys::rd_kafka_MemberDescription_group_instance_id(member)))
        });
        Ok(GroupDescription {
            state: copied(sys::rd_kafka_consumer_group_state_name(state)).unwrap_or_default(),
            assignor: copied(sys::rd_kafka_ConsumerGroupDescription_partition_assignor(group)).unwrap_or_default(),
            members: members.collect(),
        })
    }
}

/// The committed offsets of a group (-1001 where there is none); with `stable` the call waits for open transactions.
pub fn group_offsets<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    partitions: &TopicPartitionList,
    stable: bool,
) -> Answer<Vec<(String, i32, i64)>> {
    let group = text(group);
    // SAFETY: NUL-terminated name and live list, both copied.
    let mut request = unsafe { sys::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), partitions.ptr()) };
    let mut configured = Ok(());
    let answer = ask(
        client,
        Operation::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS,
        |options| {
            // SAFETY: live options of this operation; the returned error object is ours.
            let set = unsafe { taken(sys::rd_kafka_AdminOptions_set_require_stable_offsets(options, stable.into())) };
            configured = set;
        },
        // SAFETY: one live request, live client, options and queue.
        |rk, options, queue| unsafe { sys::rd_kafka_ListConsumerGroupOffsets(rk, &mut request, 1, options, queue) },
    );
    // SAFETY: made above, freed once; the call has copied it.
    unsafe { sys::rd_kafka_ListConsumerGroupOffsets_destroy(request) };
    configured?;
    let answer = answer?;
    // SAFETY: the event is of this operation.
    unsafe {
        let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(answer.event);
        group_results(|count| sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, count))
    }
}

/// Sets offsets of a group from outside.
pub fn alter_group_offsets<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    offsets: &TopicPartitionList,
) -> Answer<()> {
    let group = text(group);
    // SAFETY: NUL-terminated name and live list, both copied.
    let mut request = unsafe { sys::rd_kafka_AlterConsumerGroupOffsets_new(group.as_ptr(), offsets.ptr()) };
    let answer = ask(
        client,
        Operation::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS,
        |_| {},
        |rk, options, queue| {
            // SAFETY: one live request, live client, options and queue.
            unsafe { sys::rd_kafka_AlterConsumerGroupOffsets(rk, &mut request, 1, options, queue) }
        },
    );
    // SAFETY: made above, freed once; the call has copied it.
    unsafe { sys::rd_kafka_AlterConsumerGroupOffsets_destroy(request) };
    let answer = answer?;
    // SAFETY: the event is of this operation.
    unsafe {
        let result = sys::rd_kafka_event_AlterConsumerGroupOffsets_result(answer.event);
        group_results(|count| sys::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, count)).map(drop)
    }
}

/// Deletes the committed offsets of the listed partitions.
pub fn delete_group_offsets<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    partitions: &TopicPartitionList,
) -> Answer<()> {
    let group = text(group);
    // SAFETY: NUL-terminated name and live list, both copied.
    let mut request = unsafe { sys::rd_kafka_DeleteConsumerGroupOffsets_new(group.as_ptr(), partitions.ptr()) };
    let answer = ask(
        client,
        Operation::RD_KAFKA_ADMIN_OP_DELETECONSUMERGROUPOFFSETS,
        |_| {},
        |rk, options, queue| {
            // SAFETY: one live request, live client, options and queue.
            unsafe { sys::rd_kafka_DeleteConsumerGroupOffsets(rk, &mut request, 1, options, queue) }
        },
    );
    // SAFETY: made above, freed once; the call has copied it.
    unsafe { sys::rd_kafka_DeleteConsumerGroupOffsets_destroy(request) };
    let answer = answer?;
    // SAFETY: the event is of this operation.
    unsafe {
        let result = sys::rd_kafka_event_DeleteConsumerGroupOffsets_result(answer.event);
        group_results(|count| sys::rd_kafka_DeleteConsumerGroupOffsets_result_groups(result, count)).map(drop)
    }
}

/// The first error of the groups in a result, else all their offsets.
///
/// # Safety
/// `groups` writes the length of the live array that it returns.
unsafe fn group_results(
    groups: impl FnOnce(*mut usize) -> *mut *const sys::rd_kafka_group_result_t,
) -> Answer<Vec<(String, i32, i64)>> {
    let mut count = 0;
    let groups = groups(&mut count);
    let mut found = Vec::new();
    for index in 0..count {
        // SAFETY: the array has `count` live results by the caller's promise; the error is borrowed from its result.
        unsafe {
            let group = *groups.add(index);
            let error = sys::rd_kafka_group_result_error(group);
            if !error.is_null() {
                check(sys::rd_kafka_error_code(error))?;
            }
            found.extend(offsets_of(sys::rd_kafka_group_result_partitions(group))?);
        }
    }
    Ok(found)
}

/// `(offset, timestamp)` of one partition by ListOffsets.
pub fn list_offset<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
    spec: OffsetSpec,
    committed_only: bool,
) -> Answer<(i64, i64)> {
    let topic = text(topic);
    let spec = match spec {
        OffsetSpec::Earliest => -2,
        OffsetSpec::Latest => -1,
        OffsetSpec::MaxTimestamp => -3,
    };
    // SAFETY: a list of one element is made and freed here; the name is copied into it.
    let list = unsafe {
        let list = sys::rd_kafka_topic_partition_list_new(1);
        (*sys::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), partition)).offset = spec;
        list
    };
    let level = if committed_only {
        sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
    } else {
        sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
    };
    let mut configured = Ok(());
    let answer = ask(
        client,
        Operation::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
        // SAFETY: live options of this operation; the returned error object is ours.
        |options| configured = unsafe { taken(sys::rd_kafka_AdminOptions_set_isolation_level(options, level)) },
        // SAFETY: live list, client, options and queue; the list is copied.
        |rk, options, queue| unsafe { sys::rd_kafka_ListOffsets(rk, list, options, queue) },
    );
    // SAFETY: made above, freed once; the call has copied it.
    unsafe { sys::rd_kafka_topic_partition_list_destroy(list) };
    configured?;
    let answer = answer?;
    let mut count = 0;
    // SAFETY: the event is of this operation; the array has `count` live infos as long as the event lives.
    unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(answer.event);
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &mut count);
        if count == 0 {
            return Err(RDKafkaErrorCode::UnknownPartition);
        }
        let found = &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos);
        check(found.err)?;
        Ok((found.offset, sys::rd_kafka_ListOffsetsResultInfo_timestamp(*infos)))
    }
}

/// The id of a topic.
pub fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str) -> Answer<String> {
    let topic = text(topic);
    let mut names = [topic.as_ptr()];
    // SAFETY: one NUL-terminated name, copied.
    let topics = unsafe { sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1) };
    let answer = ask(
        client,
        Operation::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        |_| {},
        |rk, options, queue| {
            // SAFETY: live collection, client, options and queue; the collection is copied.
            unsafe { sys::rd_kafka_DescribeTopics(rk, topics, options, queue) }
        },
    );
    // SAFETY: made above, freed once.
    unsafe { sys::rd_kafka_TopicCollection_destroy(topics) };
    let answer = answer?;
    let mut count = 0;
    // SAFETY: the event is of this operation; one topic was asked for, so the array has one live description if
    // `count` is not 0; its id and the id's text live as long as the event.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(answer.event);
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count == 0 {
            return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
        }
        let error = sys::rd_kafka_TopicDescription_error(*descriptions);
        if !error.is_null() {
            check(sys::rd_kafka_error_code(error))?;
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(*descriptions);
        Ok(copied(sys::rd_kafka_Uuid_base64str(id)).unwrap_or_default())
    }
}

/// The generation and member id that this consumer has at the moment.
pub fn membership<X: ConsumerContext, C: Consumer<X>>(consumer: &C) -> Option<Membership> {
    // SAFETY: live consumer; the metadata object is ours, read and freed once.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return None;
        }
        let found = Membership {
            generation: sys::rd_kafka_consumer_group_metadata_generation_id(metadata),
            member: copied(sys::rd_kafka_consumer_group_metadata_member_id(metadata)).unwrap_or_default(),
        };
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        Some(found)
    }
}

/// `send_offsets_to_transaction` in the name of a member of the caller's choice, so also of a stale one.
pub fn send_offsets_as<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    who: &Membership,
    offsets: &TopicPartitionList,
    timeout: Duration,
) -> Answer<()> {
    let (group, member) = (text(group), text(&who.member));
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: NUL-terminated strings, no instance id (null); the metadata object is ours and freed after the call;
    // live client and list; the error object is ours.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata_new_with_genid(
            group.as_ptr(),
            who.generation,
            member.as_ptr(),
            ptr::null(),
        );
        let error = sys::rd_kafka_send_offsets_to_transaction(client.native_ptr(), offsets.ptr(), metadata, timeout_ms);
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        taken(error)
    }
}
