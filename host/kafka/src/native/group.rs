//! The description of a consumer group, copied out of librdkafka's structures. Asks by `rd_kafka_list_groups`: the
//! newer `DescribeConsumerGroups` goes to the coordinator as an admin request, and librdkafka 2.12 ends the process by
//! an assertion when the coordinator is lost at the wrong moment (`rd_kafka_enq_once_del_source_return`).

use std::ffi::c_int;
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

use super::{Client, Failure, c_name, owned_text, timeout_ms};

/// A member as the group's coordinator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedMember {
    pub member_id: String,
    pub client_id: String,
    /// The rack that it gave with its latest join; unlike the client id it is not the one of an earlier life of a
    /// static member.
    pub rack: Option<String>,
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

impl Client {
    /// Asks the brokers for a group and its members. A group that nobody has joined yet is settled and empty.
    pub fn describe_group(&self, group: &str, timeout: Duration) -> Result<DescribedGroup, Failure> {
        let name = c_name(group)?;
        let mut list: *const sys::rd_kafka_group_list = ptr::null();
        // SAFETY: live client, NUL-terminated name that lives through the call, a place to write to.
        let code = unsafe { sys::rd_kafka_list_groups(self.raw(), name.as_ptr(), &mut list, timeout_ms(timeout)) };
        let list = GroupList(list);
        let groups = list.groups();
        // While its coordinator moves, a group is in the lists of two brokers.
        let sound = groups.iter().find(|group| Failure::check_code(group.err).is_ok());
        match (Failure::check_code(code), sound.or(groups.first())) {
            // A partial answer that has the group is whole: one broker coordinates it.
            (Ok(()), Some(group)) => read(group),
            (Err(failure), Some(group)) if failure.code == RDKafkaErrorCode::Partial => read(group),
            (Ok(()), None) => Ok(DescribedGroup::Settled(Vec::new())),
            (Err(failure), _) => Err(failure),
        }
    }
}

/// A list that librdkafka has made, or null.
struct GroupList(*const sys::rd_kafka_group_list);

impl GroupList {
    fn groups(&self) -> &[sys::rd_kafka_group_info] {
        // SAFETY: null or a live list.
        let list = unsafe { self.0.as_ref() };
        // SAFETY: the list's groups are as many as it says, and live as long as it.
        list.map_or(&[][..], |list| unsafe { elements(list.groups, list.group_cnt) })
    }
}

impl Drop for GroupList {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: ours, destroyed once, and nothing that points into it outlives it.
            unsafe { sys::rd_kafka_group_list_destroy(self.0) }
        }
    }
}

/// # Safety
/// `first` is null or the first of `count` live elements.
unsafe fn elements<'a, T>(first: *const T, count: c_int) -> &'a [T] {
    match usize::try_from(count) {
        // SAFETY: not null, and as many as the caller promises.
        Ok(count) if count > 0 && !first.is_null() => unsafe { slice::from_raw_parts(first, count) },
        _ => &[],
    }
}

fn read(group: &sys::rd_kafka_group_info) -> Result<DescribedGroup, Failure> {
    Failure::check_code(group.err)?;
    // SAFETY: the texts of a live group are NUL-terminated or null.
    let state = unsafe { owned_text(group.state) };
    if !["Stable", "Empty", "Dead"].contains(&state.as_str()) {
        return Ok(DescribedGroup::Rebalancing);
    }
    // SAFETY: a live group has as many members as it says.
    let members = unsafe { elements(group.members, group.member_cnt) };
    members.iter().map(member).collect::<Result<_, _>>().map(DescribedGroup::Settled)
}

fn member(member: &sys::rd_kafka_group_member_info) -> Result<DescribedMember, Failure> {
    // SAFETY: the member is live; its texts are NUL-terminated or null, its assignment and its metadata have the sizes
    // that it says, and everything is copied.
    unsafe {
        let assignment = elements(member.member_assignment.cast::<u8>(), member.member_assignment_size);
        let member_id = owned_text(member.member_id);
        let assigned = assigned_partitions(assignment).ok_or_else(|| {
            let detail = format!("the assignment of member {member_id} cannot be read");
            Failure::with_detail(RDKafkaErrorCode::BadMessage, detail)
        })?;
        Ok(DescribedMember {
            member_id,
            client_id: owned_text(member.client_id),
            rack: rack_of(elements(member.member_metadata.cast::<u8>(), member.member_metadata_size)),
            host: owned_text(member.client_host),
            assigned,
        })
    }
}

/// The partitions of a `ConsumerProtocolAssignment`: a version, then topics with their partitions, then what concerns
/// the assignor alone. A member that has none yet has no bytes at all.
fn assigned_partitions(bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    let mut assigned = Vec::new();
    if bytes.is_empty() {
        return Some(assigned);
    }
    let (_version, mut rest) = bytes.split_first_chunk::<2>()?;
    let topics = take_count(&mut rest)?;
    for _ in 0..topics {
        let topic = take_text(&mut rest)?;
        for _ in 0..take_count(&mut rest)? {
            let (partition, after) = rest.split_first_chunk::<4>()?;
            assigned.push((topic.to_owned(), i32::from_be_bytes(*partition)));
            rest = after;
        }
    }
    Some(assigned)
}

/// The rack in a `ConsumerProtocolSubscription`, from its version 3 on (KIP-881): version, topics, user data, owned
/// partitions, generation, rack. Other versions and other clients' forms have none.
fn rack_of(bytes: &[u8]) -> Option<String> {
    let (version, mut rest) = bytes.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 3 {
        return None;
    }
    for _ in 0..take_count(&mut rest)? {
        take_text(&mut rest)?;
    }
    // Null user data have the length -1.
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
    rest = after.split_at_checked(length)?.1;
    for _ in 0..take_count(&mut rest)? {
        take_text(&mut rest)?;
        let length = usize::try_from(take_count(&mut rest)?).ok()?.checked_mul(4)?;
        rest = rest.split_at_checked(length)?.1;
    }
    let (_generation, mut rest) = rest.split_first_chunk::<4>()?;
    take_text(&mut rest).map(str::to_owned)
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
    let (text, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

fn take_count(bytes: &mut &[u8]) -> Option<u32> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    u32::try_from(i32::from_be_bytes(*count)).ok()
}

#[cfg(test)]
mod tests;
