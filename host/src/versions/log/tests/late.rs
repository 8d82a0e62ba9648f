//! A broker that lets readers have a transaction some moments after it has answered that it is committed, as Kafka
//! does.

use std::sync::atomic::{AtomicU32, Ordering};

use engine::broker::{PartitionRecords, Watermarks};

use super::*;

/// Clients whose readers learn of a new end so many looks late.
struct Late {
    inner: Arc<dyn ClientSupplier>,
    looks: Arc<AtomicU32>,
}

struct LateConsumer {
    inner: Box<dyn RestoreConsumer>,
    looks: Arc<AtomicU32>,
    seen: Option<Vec<Offset>>,
}

impl ClientSupplier for Late {
    fn consumer(&self, thread: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        self.inner.consumer(thread)
    }

    fn restore_consumer(&self, thread: usize) -> Result<Box<dyn RestoreConsumer>, BrokerError> {
        let inner = self.inner.restore_consumer(thread)?;
        Ok(Box::new(LateConsumer { inner, looks: Arc::clone(&self.looks), seen: None }))
    }

    fn producer(&self, thread: usize, transactional_id: Option<&str>) -> Result<Box<dyn Producer>, BrokerError> {
        self.inner.producer(thread, transactional_id)
    }

    fn admin(&self) -> Result<Box<dyn Admin>, BrokerError> {
        self.inner.admin()
    }

    fn membership(&self) -> Result<Box<dyn Membership>, BrokerError> {
        self.inner.membership()
    }
}

impl RestoreConsumer for LateConsumer {
    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>, BrokerError> {
        self.inner.watermarks(partitions)
    }

    fn stable_ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Offset>, BrokerError> {
        let ends = self.inner.stable_ends(partitions)?;
        let later = |looks: u32| looks.checked_sub(1);
        if let Some(seen) = self.seen.as_ref().filter(|seen| **seen != ends)
            && self.looks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later).is_ok()
        {
            return Ok(seen.clone());
        }
        self.seen = Some(ends.clone());
        Ok(ends)
    }

    fn assign(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), BrokerError> {
        self.inner.assign(partition, offset)
    }

    fn unassign(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        self.inner.unassign(partition)
    }

    fn poll(&mut self, timeout: Duration, max_records: usize) -> Result<Vec<PartitionRecords>, BrokerError> {
        self.inner.poll(timeout, max_records)
    }

    fn position(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        self.inner.position(partition)
    }
}

#[test]
fn the_table_has_what_was_written_also_where_readers_have_it_later() {
    let broker = broker(Faults::none());
    let looks = Arc::new(AtomicU32::new(0));
    let clients = Late { inner: clients(&broker, "aa"), looks: Arc::clone(&looks) };
    let mut ada = VersionLog::open(Arc::new(clients), options()).expect("the log opens");
    for number in 1..4_u8 {
        looks.store(3, Ordering::Relaxed);
        try_deploy(&mut ada, &module(number), "ada").expect("deployed");
        assert_eq!(active(&ada), Some((u64::from(number), "ada".to_owned())));
        assert_eq!(looks.load(Ordering::Relaxed), 0, "readers were not late");
    }
}
