//! A broker that goes away and comes back: clients go on by themselves.

use std::time::Duration;

use engine::broker::{BrokerErrorKind, ClientSupplier, OffsetAndMetadata, RebalanceEvent, StartOffset};
use engine::record::TopicPartition;

use crate::cluster::{Cluster, Member, PATIENCE, send, unique, wait_for};

#[test]
fn clients_outlive_a_restart_of_the_broker() {
    let mut cluster = Cluster::embedded();
    let topic = cluster.topic("restart", 1);
    let partition = TopicPartition::new(topic.clone(), 0);
    let clients = cluster.clients(&unique("group"));
    cluster.fill(&topic, 0, 0, 5);
    let mut producer = clients.producer(0, None).expect("producer");
    send(&mut *producer, &topic, Some(0), "before", "before");
    producer.flush(PATIENCE).expect("flush");
    let mut member = Member::join(&clients, 0, &topic);
    member.poll_until_read(6);
    let committed = OffsetAndMetadata { offset: 6, metadata: "kept".into() };
    member.consumer.commit(&[(partition.clone(), committed.clone())]).expect("commit");

    cluster.restart();
    send(&mut *producer, &topic, Some(0), "after", "after");
    producer.flush(PATIENCE).expect("the producer reconnects");
    assert_eq!(producer.take_acknowledged().get(&partition), Some(&6));
    let value =
        wait_for("the record after the restart", || match member.consumer.poll(Duration::from_millis(50), 100) {
            Ok(polled) => {
                for event in polled.events {
                    match event {
                        RebalanceEvent::Assigned(partitions) => {
                            let starts: Vec<_> = partitions.into_iter().map(|p| (p, StartOffset::At(6))).collect();
                            member.consumer.assign(&starts).expect("assign");
                        }
                        RebalanceEvent::Revoked(gone) | RebalanceEvent::Lost(gone) => {
                            member.consumer.unassign(&gone).expect("unassign");
                        }
                    }
                }
                polled.records.into_iter().next().and_then(|group| group.records.first()?.value.clone())
            }
            Err(error) => {
                let passing = matches!(error.kind, BrokerErrorKind::Retriable | BrokerErrorKind::Rebalanced);
                assert!(passing, "{error}");
                None
            }
        });
    assert_eq!(value, "after", "nothing twice, nothing lost");
    let found = wait_for("the committed offset", || member.consumer.committed(std::slice::from_ref(&partition)).ok());
    assert_eq!(found, [Some(committed)]);
}
