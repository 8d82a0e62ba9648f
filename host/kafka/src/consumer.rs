//! A member of the application's consumer group. Rebalances are events that `poll` returns and that the engine answers
//! with `assign` and `unassign`; nothing is ever committed, sought or reset by itself. Leaving is bounded: a client
//! that cannot say goodbye is left to a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use engine::broker::{
    BrokerError, BrokerErrorKind, Consumer, GroupMetadata, OffsetAndMetadata, Polled, RebalanceEvent, StartOffset,
};
use engine::record::{Offset, TopicPartition};
use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

use crate::fetch::Fetcher;
use crate::native::{Client, Failure, PartitionList, Rebalance};

/// How long a broker may take to name a new member, which it does at once (KIP-394).
const MEMBER_ID_COMES: Duration = Duration::from_millis(300);

/// How long a member that leaves waits for the next event.
const LEAVING_POLL: Duration = Duration::from_millis(5);

const NO_OFFSET: i64 = sys::RD_KAFKA_OFFSET_INVALID as i64;

/// The engine's consumer over librdkafka's.
pub(crate) struct GroupConsumer {
    fetcher: Option<Fetcher>,
    client: Arc<Client>,
    group_id: String,
    group_instance_id: Option<String>,
    assigned: BTreeSet<TopicPartition>,
    /// Events that the engine has not answered; the group waits for it.
    unanswered: Vec<RebalanceEvent>,
    request_timeout: Duration,
    close_timeout: Duration,
}

impl GroupConsumer {
    pub fn new(
        client: Client,
        group_id: &str,
        group_instance_id: Option<String>,
        request_timeout: Duration,
        close_timeout: Duration,
    ) -> Result<Self, BrokerError> {
        let client = Arc::new(client);
        let fetcher = Fetcher::new(Arc::clone(&client))?;
        Ok(Self {
            fetcher: Some(fetcher),
            client,
            group_id: group_id.into(),
            group_instance_id,
            assigned: BTreeSet::new(),
            unanswered: Vec::new(),
            request_timeout,
            close_timeout,
        })
    }

    fn operation(&self, what: &str) -> String {
        format!("{what} (group {}, {})", self.group_id, self.client.events().name())
    }

    fn error(&self, failure: Failure, what: &str) -> BrokerError {
        self.client.error(failure, self.operation(what))
    }

    fn list(&self, partitions: &[TopicPartition], what: &str) -> Result<PartitionList, BrokerError> {
        let mut list = PartitionList::new();
        for partition in partitions {
            list.add(&partition.topic, partition.partition, NO_OFFSET, &[])
                .map_err(|failure| self.error(failure, what))?;
        }
        Ok(list)
    }

    /// The error of a list whose elements were filled in one by one.
    fn check_elements(&self, list: &PartitionList, what: &str) -> Result<(), BrokerError> {
        match list.first_error() {
            Some(entry) => {
                let code = entry.error.unwrap_or(RDKafkaErrorCode::Fail);
                let what = format!("{what} {}-{}", entry.topic, entry.partition);
                Err(self.error(Failure::of_code(code), &what))
            }
            None => Ok(()),
        }
    }

    /// Answers an event that names no partition at once: the group would wait for an answer that the engine has no
    /// reason to give.
    fn record(&mut self, rebalance: Rebalance) -> Result<RebalanceEvent, BrokerError> {
        let partitions = |names: Vec<(String, i32)>| {
            names.into_iter().map(|(topic, partition)| TopicPartition::new(topic, partition)).collect::<Vec<_>>()
        };
        let event = match rebalance {
            Rebalance::Assigned(names) => RebalanceEvent::Assigned(partitions(names)),
            Rebalance::Revoked(names) => RebalanceEvent::Revoked(partitions(names)),
            Rebalance::Lost(names) => RebalanceEvent::Lost(partitions(names)),
        };
        match &event {
            RebalanceEvent::Assigned(empty) if empty.is_empty() => self.assign_list(&[])?,
            RebalanceEvent::Revoked(empty) | RebalanceEvent::Lost(empty) if empty.is_empty() => {
                self.unassign_list(&[])?;
            }
            _ => self.unanswered.push(event.clone()),
        }
        Ok(event)
    }

    fn assign_list(&mut self, partitions: &[(TopicPartition, StartOffset)]) -> Result<(), BrokerError> {
        let mut list = PartitionList::new();
        let cooperative = self.client.is_cooperative();
        if !cooperative {
            // An eager assignment is replaced as a whole: what is read already goes on where it stands.
            for kept in self.assigned.iter().filter(|kept| !partitions.iter().any(|(new, _)| new == *kept)) {
                let position = self.position_of(kept)?.unwrap_or(i64::from(sys::RD_KAFKA_OFFSET_STORED));
                list.add(&kept.topic, kept.partition, position, &[])
                    .map_err(|failure| self.error(failure, "assign"))?;
            }
        }
        for (partition, start) in partitions {
            let offset = match start {
                StartOffset::At(offset) => *offset,
                StartOffset::Earliest => i64::from(sys::RD_KAFKA_OFFSET_BEGINNING),
                StartOffset::Latest => i64::from(sys::RD_KAFKA_OFFSET_END),
            };
            list.add(&partition.topic, partition.partition, offset, &[])
                .map_err(|failure| self.error(failure, "assign"))?;
        }
        let answered =
            if cooperative { self.client.incremental_assign(&list) } else { self.client.assign(Some(&list)) };
        answered
            .map_err(|failure| self.error(failure, &format!("assign {}", names(partitions.iter().map(|(p, _)| p)))))?;
        self.assigned.extend(partitions.iter().map(|(partition, _)| partition.clone()));
        Ok(())
    }

    fn unassign_list(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let what = format!("unassign {}", names(partitions.iter()));
        if self.client.is_cooperative() {
            let known: Vec<_> = partitions.iter().filter(|p| self.assigned.contains(*p)).cloned().collect();
            let list = self.list(&known, "unassign")?;
            self.client.incremental_unassign(&list).map_err(|failure| self.error(failure, &what))?;
        } else {
            let rest: Vec<_> = self.assigned.iter().filter(|kept| !partitions.contains(kept)).cloned().collect();
            if rest.is_empty() {
                self.client.assign(None).map_err(|failure| self.error(failure, &what))?;
            } else {
                let mut list = PartitionList::new();
                for kept in &rest {
                    let position = self.position_of(kept)?.unwrap_or(i64::from(sys::RD_KAFKA_OFFSET_STORED));
                    list.add(&kept.topic, kept.partition, position, &[])
                        .map_err(|failure| self.error(failure, &what))?;
                }
                self.client.assign(Some(&list)).map_err(|failure| self.error(failure, &what))?;
            }
        }
        for partition in partitions {
            self.assigned.remove(partition);
        }
        Ok(())
    }

    fn position_of(&self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        let list = self.list(std::slice::from_ref(partition), "ask the position of")?;
        self.client
            .position(&list)
            .map_err(|failure| self.error(failure, &format!("ask the position of {partition}")))?;
        self.check_elements(&list, "ask the position of")?;
        Ok(list.entries().first().map(|entry| entry.offset).filter(|offset| *offset >= 0))
    }

    /// Removes what an answer settles: a partition is answered wherever it stands.
    fn settle(&mut self, answered: &[&TopicPartition], assigned: bool) {
        for event in &mut self.unanswered {
            if let (RebalanceEvent::Assigned(partitions), true)
            | (RebalanceEvent::Revoked(partitions) | RebalanceEvent::Lost(partitions), false) = (event, assigned)
            {
                partitions.retain(|partition| !answered.contains(&partition));
            }
        }
        self.unanswered.retain(|event| {
            let (RebalanceEvent::Assigned(rest) | RebalanceEvent::Revoked(rest) | RebalanceEvent::Lost(rest)) = event;
            !rest.is_empty()
        });
    }

    /// Leaves the group on a thread of its own, which also frees the client; waits for at most `close_timeout` in all.
    fn leave(&mut self) -> Result<(), BrokerError> {
        if self.fetcher.is_none() {
            return Ok(());
        }
        let deadline = Instant::now() + self.close_timeout;
        self.answer_with_nothing();
        let owns_nothing = self.assigned.is_empty();
        // librdkafka closes a cooperative member that holds no partition without telling the group
        // (`rd_kafka_cgrp_revoke_all_rejoin` skips the leave when it terminates). Everybody would wait for it until its
        // session ends. A static member stays on purpose.
        let unsubscribed = if owns_nothing && self.group_instance_id.is_none() { self.unsubscribe() } else { Ok(()) };
        let Some(fetcher) = self.fetcher.take() else { return Ok(()) };
        let client = Arc::clone(&self.client);
        let left = run_bounded(self.client.events().name(), deadline, move || {
            let closed = client.close_consumer();
            drop(fetcher);
            unsubscribed.and(closed)
        });
        match left {
            // A join that the broker keeps waiting keeps everything after it waiting too. The group waits for a member
            // that owns nothing no longer than for one that has died, and nobody lacks anything meanwhile.
            Err(failure) if owns_nothing && failure.code == RDKafkaErrorCode::OperationTimedOut => {
                tracing::warn!(group = self.group_id, "{}; its session ends later", failure.detail);
                Ok(())
            }
            left => left.map_err(|failure| self.error(failure, "leave the group")),
        }
    }

    /// librdkafka waits for the answer to a rebalance that it has handed out before it lets a member go.
    fn answer_with_nothing(&mut self) {
        for event in std::mem::take(&mut self.unanswered) {
            let answered = match event {
                RebalanceEvent::Assigned(_) => self.assign_list(&[]),
                RebalanceEvent::Revoked(partitions) | RebalanceEvent::Lost(partitions) => {
                    self.unassign_list(&partitions)
                }
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a rebalance could not be answered while leaving the group");
            }
        }
    }

    /// Ends the subscription and waits, for half of the time to close, until the member has left, upon which it forgets
    /// its member id. In the middle of a join librdkafka puts the end off; a close would overtake it, and the group
    /// would wait for a member that is gone. So it would for one that left before it was told the member id that the
    /// broker has given it.
    fn unsubscribe(&mut self) -> Result<(), Failure> {
        let named_until = Instant::now() + MEMBER_ID_COMES.min(self.close_timeout / 2);
        while self.client.is_subscribed()? && self.client.group_member()?.member_id.is_empty() {
            if Instant::now() > named_until || self.client.events().is_fatal() {
                break;
            }
            self.serve_and_answer_with_nothing();
        }
        self.client.unsubscribe()?;
        let deadline = Instant::now() + self.close_timeout / 2;
        while !self.client.group_member()?.member_id.is_empty() && Instant::now() < deadline {
            if self.client.events().is_fatal() {
                break;
            }
            self.serve_and_answer_with_nothing();
        }
        Ok(())
    }

    /// One short poll of a member that leaves. Its errors are nobody's concern any more; a fatal one fails the close.
    fn serve_and_answer_with_nothing(&mut self) {
        if let Err(error) = Consumer::poll(self, LEAVING_POLL, 1) {
            tracing::debug!(%error, "while leaving the group");
        }
        self.answer_with_nothing();
    }
}

fn names<'a>(partitions: impl Iterator<Item = &'a TopicPartition>) -> String {
    partitions.map(TopicPartition::to_string).collect::<Vec<_>>().join(", ")
}

/// Runs something that librdkafka may hold up for long (T13) on its own thread, and stops waiting at `deadline`.
pub(crate) fn run_bounded(
    client: &str,
    deadline: Instant,
    work: impl FnOnce() -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let (done, wait) = mpsc::channel();
    let timeout = deadline.saturating_duration_since(Instant::now());
    let spawned = std::thread::Builder::new().name(format!("{client}-close")).spawn(move || {
        // The receiver is gone when nobody waits any more.
        let _ = done.send(work());
    });
    if let Err(error) = spawned {
        return Err(Failure::with_detail(
            RDKafkaErrorCode::CriticalSystemResource,
            format!("cannot start a thread to close the client {client}: {error}"),
        ));
    }
    match wait.recv_timeout(timeout) {
        Ok(result) => result,
        Err(_) => Err(Failure::with_detail(
            RDKafkaErrorCode::OperationTimedOut,
            format!("the client {client} did not close in time; it is left to end by itself"),
        )),
    }
}

impl Consumer for GroupConsumer {
    fn subscribe(&mut self, topics: &[Arc<str>]) -> Result<(), BrokerError> {
        let what = format!("subscribe to {}", topics.join(", "));
        let mut list = PartitionList::new();
        for topic in topics {
            list.add(topic, -1, NO_OFFSET, &[]).map_err(|failure| self.error(failure, &what))?;
        }
        self.client.subscribe(&list).map_err(|failure| self.error(failure, &what))
    }

    fn poll(&mut self, timeout: Duration, max_records: usize) -> Result<Polled, BrokerError> {
        let Some(fetcher) = self.fetcher.as_mut() else {
            return Err(self.closed("poll"));
        };
        let fetched = fetcher.poll(timeout, max_records);
        let mut events = Vec::new();
        let mut faults = Vec::new();
        for rebalance in self.client.events().take_rebalances() {
            match self.record(rebalance) {
                Ok(event) => events.push(event),
                Err(fault) => faults.push(fault),
            }
        }
        // The position has passed these records, so no fault may take their place: it comes with the next poll.
        if let Some(fetcher) = self.fetcher.as_mut() {
            faults.into_iter().rev().for_each(|fault| fetcher.defer(fault));
        }
        match fetched {
            Ok(records) => Ok(Polled { records, events }),
            // An event must not be lost behind an error: the error comes again with the next poll.
            Err(error) if !events.is_empty() => {
                if let Some(fetcher) = self.fetcher.as_mut() {
                    fetcher.defer(error);
                }
                Ok(Polled { records: Vec::new(), events })
            }
            Err(error) => Err(error),
        }
    }

    fn assign(&mut self, partitions: &[(TopicPartition, StartOffset)]) -> Result<(), BrokerError> {
        if partitions.is_empty() {
            return Ok(());
        }
        self.assign_list(partitions)?;
        self.settle(&partitions.iter().map(|(partition, _)| partition).collect::<Vec<_>>(), true);
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        if partitions.is_empty() {
            return Ok(());
        }
        self.unassign_list(partitions)?;
        self.settle(&partitions.iter().collect::<Vec<_>>(), false);
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let list = self.list(partitions, "pause")?;
        self.client.pause(&list).map_err(|failure| self.error(failure, "pause"))?;
        self.check_elements(&list, "pause")
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let list = self.list(partitions, "resume")?;
        self.client.resume(&list).map_err(|failure| self.error(failure, "resume"))?;
        self.check_elements(&list, "resume")
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), BrokerError> {
        let mut list = PartitionList::new();
        let what = format!("seek {partition} to offset {offset}");
        list.add(&partition.topic, partition.partition, offset, &[]).map_err(|failure| self.error(failure, &what))?;
        self.client.seek(&list, self.request_timeout).map_err(|failure| self.error(failure, &what))?;
        self.check_elements(&list, "seek")
    }

    fn position(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        self.position_of(partition)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>, BrokerError> {
        let list = self.list(partitions, "fetch committed offsets")?;
        self.client
            .committed(&list, self.request_timeout)
            .map_err(|failure| self.error(failure, "fetch committed offsets"))?;
        self.check_elements(&list, "fetch committed offsets of")?;
        let found: BTreeMap<_, _> =
            list.entries().into_iter().map(|entry| ((entry.topic.clone(), entry.partition), entry)).collect();
        partitions
            .iter()
            .map(|partition| {
                let Some(entry) = found.get(&(partition.topic.to_string(), partition.partition)) else {
                    return Ok(None);
                };
                if entry.offset < 0 {
                    return Ok(None);
                }
                let metadata = String::from_utf8(entry.metadata.clone()).map_err(|_| {
                    BrokerError::new(
                        BrokerErrorKind::Rejected,
                        self.operation("fetch committed offsets"),
                        format!(
                            "the metadata committed for {partition} is not UTF-8; another program commits to this group"
                        ),
                    )
                })?;
                Ok(Some(OffsetAndMetadata { offset: entry.offset, metadata }))
            })
            .collect()
    }

    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<(), BrokerError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let mut list = PartitionList::new();
        for (partition, committed) in offsets {
            list.add(&partition.topic, partition.partition, committed.offset, committed.metadata.as_bytes())
                .map_err(|failure| self.error(failure, "commit offsets"))?;
        }
        let what = || format!("commit offsets of {}", names(offsets.iter().map(|(partition, _)| partition)));
        self.client.commit(&list).map_err(|failure| self.error(failure, &what()))?;
        self.check_elements(&list, "commit offsets of")
    }

    fn group_metadata(&mut self) -> Result<GroupMetadata, BrokerError> {
        let member = self.client.group_member().map_err(|failure| self.error(failure, "read the group membership"))?;
        if member.generation_id < 0 {
            return Err(BrokerError::new(
                BrokerErrorKind::Rebalanced,
                self.operation("read the group membership"),
                format!("generation {} means that the group is not joined", member.generation_id),
            ));
        }
        Ok(GroupMetadata {
            group_id: member.group_id,
            generation_id: member.generation_id,
            member_id: member.member_id,
            group_instance_id: self.group_instance_id.clone(),
        })
    }

    fn close(&mut self) -> Result<(), BrokerError> {
        self.leave()
    }
}

impl GroupConsumer {
    fn closed(&self, what: &str) -> BrokerError {
        BrokerError::new(BrokerErrorKind::Fatal, self.operation(what), "the consumer is closed")
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            tracing::warn!(%error, "a consumer was dropped without leaving its group");
        }
    }
}
