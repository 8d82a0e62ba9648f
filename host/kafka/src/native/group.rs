//! The description of a consumer group, copied out of librdkafka's structures.

use std::ffi::c_char;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_consumer_group_state_t as State;
use rdkafka::error::RDKafkaErrorCode;

use super::{Client, ErrorText, Failure, PartitionList, c_name, owned_text, timeout_ms};

/// A member as the group's coordinator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedMember {
    pub member_id: String,
    pub client_id: String,
    pub group_instance_id: Option<String>,
    pub host: String,
    /// Topic and partition.
    pub assigned: Vec<(String, i32)>,
}

/// Where a group stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DescribedGroup {
    /// Everybody has what is said.
    Settled(Vec<DescribedMember>),
    Rebalancing,
}

/// How long the answer may be late after its time, which librdkafka watches itself.
const GRACE: Duration = Duration::from_secs(1);

impl Client {
    /// Asks the coordinator of a group for its members.
    pub fn describe_group(&self, group: &str, timeout: Duration) -> Result<DescribedGroup, Failure> {
        let name = c_name(group)?;
        let mut names: [*const c_char; 1] = [name.as_ptr()];
        let mut text = ErrorText::new();
        let (buffer, size) = text.parts();
        // SAFETY: live client; the options and the queue are ours, used only here and destroyed once, after the event
        // that came through the queue; the names live through the call that copies them; the buffer has its length.
        unsafe {
            let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
            let options = sys::rd_kafka_AdminOptions_new(self.raw(), operation);
            let set = sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms(timeout), buffer, size);
            if let Err(failure) = Failure::check_code(set) {
                sys::rd_kafka_AdminOptions_destroy(options);
                return Err(Failure::with_detail(failure.code, text.to_string()));
            }
            let queue = sys::rd_kafka_queue_new(self.raw());
            sys::rd_kafka_DescribeConsumerGroups(self.raw(), names.as_mut_ptr(), names.len(), options, queue);
            let event = sys::rd_kafka_queue_poll(queue, timeout_ms(timeout + GRACE));
            let described = read(event);
            if !event.is_null() {
                sys::rd_kafka_event_destroy(event);
            }
            sys::rd_kafka_queue_destroy(queue);
            sys::rd_kafka_AdminOptions_destroy(options);
            described
        }
    }
}

/// # Safety
/// `event` is null or a live event.
unsafe fn read(event: *mut sys::rd_kafka_event_t) -> Result<DescribedGroup, Failure> {
    if event.is_null() {
        return Err(Failure::of_code(RDKafkaErrorCode::OperationTimedOut));
    }
    // SAFETY: the event is live; what is asked of it lives as long and is copied.
    unsafe {
        if let Err(failure) = Failure::check_code(sys::rd_kafka_event_error(event)) {
            let detail = owned_text(sys::rd_kafka_event_error_string(event));
            return Err(Failure::with_detail(failure.code, detail));
        }
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event);
        let mut count = 0;
        let groups = if result.is_null() {
            ptr::null_mut()
        } else {
            sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count)
        };
        if groups.is_null() || count == 0 {
            return Err(Failure::with_detail(RDKafkaErrorCode::Unknown, "the answer describes no group"));
        }
        let group = *groups;
        let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
        if !error.is_null() {
            let code = sys::rd_kafka_error_code(error).into();
            // Nobody has joined it yet.
            if code == RDKafkaErrorCode::GroupIdNotFound {
                return Ok(DescribedGroup::Settled(Vec::new()));
            }
            return Err(Failure::with_detail(code, owned_text(sys::rd_kafka_error_string(error))));
        }
        Ok(match sys::rd_kafka_ConsumerGroupDescription_state(group) {
            State::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE
            | State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY
            | State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD => {
                let members = 0..sys::rd_kafka_ConsumerGroupDescription_member_count(group);
                let member = |index| member(sys::rd_kafka_ConsumerGroupDescription_member(group, index));
                DescribedGroup::Settled(members.map(member).collect())
            }
            _ => DescribedGroup::Rebalancing,
        })
    }
}

/// # Safety
/// `member` is live.
unsafe fn member(member: *const sys::rd_kafka_MemberDescription_t) -> DescribedMember {
    // SAFETY: the member is live; its texts are NUL-terminated or null, and everything is copied.
    unsafe {
        let instance = sys::rd_kafka_MemberDescription_group_instance_id(member);
        let assignment = sys::rd_kafka_MemberDescription_assignment(member);
        let partitions =
            if assignment.is_null() { ptr::null() } else { sys::rd_kafka_MemberAssignment_partitions(assignment) };
        DescribedMember {
            member_id: owned_text(sys::rd_kafka_MemberDescription_consumer_id(member)),
            client_id: owned_text(sys::rd_kafka_MemberDescription_client_id(member)),
            group_instance_id: (!instance.is_null()).then(|| owned_text(instance)),
            host: owned_text(sys::rd_kafka_MemberDescription_host(member)),
            assigned: PartitionList::names_of(partitions.cast_mut()),
        }
    }
}
