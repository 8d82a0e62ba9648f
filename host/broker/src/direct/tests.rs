//! Direct clients as the engine uses them: rebalances, sessions, commits, deliveries with faults, repeatability.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use engine::broker::{
    BrokerErrorKind, ClientSupplier, Consumer, GroupMetadata, OffsetAndMetadata, Producer, ProducerRecord,
    RebalanceEvent, SendError, StartOffset,
};
use engine::record::TopicPartition;
use engine::testing::{ContractHost, ManualClock, Seed, membership_contract};

use super::{ClientOptions, DirectBroker, FaultRates, Faults, RebalanceProtocol};
use crate::core::CoreOptions;
use crate::core::admin::NewTopic;
use crate::core::batch::build::NewRecord;
use crate::core::memory::MemoryStorage;

const ZERO: Duration = Duration::ZERO;

fn broker(clock: &ManualClock, faults: Faults, partitions: i32) -> DirectBroker {
    let storage = Arc::new(MemoryStorage::new());
    let broker = DirectBroker::open(CoreOptions::default(), storage, Arc::new(clock.clone()), faults).expect("opens");
    let topic = NewTopic { name: "in".to_owned(), partitions, configs: Default::default() };
    broker.core().create_topic(&topic, false).expect("is created");
    broker
}

/// A consumer that answers its events by the book.
struct Member {
    consumer: Box<dyn Consumer>,
    owned: BTreeSet<TopicPartition>,
    events: Vec<RebalanceEvent>,
    read: Vec<i64>,
}

impl Member {
    fn new(broker: &DirectBroker, host: &str, protocol: RebalanceProtocol) -> Self {
        let options = ClientOptions { protocol, session_timeout_ms: 6_000, ..ClientOptions::new(host, "app") };
        let mut consumer = broker.clients(options).consumer(0).expect("a consumer");
        consumer.subscribe(&["in".into()]).expect("subscribe");
        Self { consumer, owned: BTreeSet::new(), events: Vec::new(), read: Vec::new() }
    }

    fn poll(&mut self) {
        let polled = self.consumer.poll(ZERO, 100).expect("poll");
        for event in polled.events {
            match &event {
                RebalanceEvent::Assigned(partitions) => {
                    let starts: Vec<_> =
                        partitions.iter().map(|partition| (partition.clone(), StartOffset::Earliest)).collect();
                    self.consumer.assign(&starts).expect("assign");
                    self.owned.extend(partitions.iter().cloned());
                }
                RebalanceEvent::Revoked(partitions) | RebalanceEvent::Lost(partitions) => {
                    self.consumer.unassign(partitions).expect("unassign");
                    self.owned.retain(|partition| !partitions.contains(partition));
                }
            }
            self.events.push(event);
        }
        let records = polled.records.into_iter().flat_map(|polled| polled.records);
        self.read.extend(records.map(|record| record.offset));
    }
}

/// Polls everybody for a while; nobody ever owns what another one owns.
fn settle(clock: &ManualClock, members: &mut [Member], ms: u64) {
    for _ in 0..ms / 100 {
        clock.advance_ms(100);
        members.iter_mut().for_each(Member::poll);
        let all: usize = members.iter().map(|member| member.owned.len()).sum();
        let distinct: BTreeSet<_> = members.iter().flat_map(|member| &member.owned).collect();
        assert_eq!(all, distinct.len(), "a partition has two owners");
    }
}

fn loads(members: &[Member]) -> Vec<usize> {
    members.iter().map(|member| member.owned.len()).collect()
}

fn committed(offset: i64) -> OffsetAndMetadata {
    OffsetAndMetadata { offset, metadata: "time".to_owned() }
}

#[test]
fn members_share_partitions_and_take_over_from_a_silent_one() {
    for protocol in [RebalanceProtocol::Cooperative, RebalanceProtocol::Eager] {
        let clock = ManualClock::new(1_000);
        let broker = broker(&clock, Faults::none(), 6);
        let mut members = vec![Member::new(&broker, "h0", protocol)];
        settle(&clock, &mut members, 1_000);
        assert_eq!(loads(&members), [6]);
        members.push(Member::new(&broker, "h1", protocol));
        members.push(Member::new(&broker, "h2", protocol));
        settle(&clock, &mut members, 20_000);
        assert_eq!(loads(&members), [2, 2, 2], "{protocol:?}");
        let kept = members[0].owned.clone();
        // Dropped without a word, as by a crash.
        members.remove(1);
        settle(&clock, &mut members, 3_000);
        assert_eq!(loads(&members), [2, 2], "its session is not over yet");
        settle(&clock, &mut members, 20_000);
        assert_eq!(loads(&members), [3, 3]);
        if protocol == RebalanceProtocol::Cooperative {
            assert!(members[0].owned.is_superset(&kept), "what it had was never touched");
        }
        members[1].consumer.close().expect("leave");
        members.remove(1);
        settle(&clock, &mut members, 4_000);
        assert_eq!(loads(&members), [6], "one that leaves is not waited for");
    }
}

#[test]
fn a_member_that_slept_through_its_session_cannot_commit_and_is_told_that_it_lost() {
    let clock = ManualClock::new(1_000);
    let broker = broker(&clock, Faults::none(), 2);
    let mut members = vec![Member::new(&broker, "h0", RebalanceProtocol::Cooperative)];
    settle(&clock, &mut members, 1_000);
    let mut sleeper = members.remove(0);
    let mut others = vec![Member::new(&broker, "h1", RebalanceProtocol::Cooperative)];
    settle(&clock, &mut others, 10_000);
    assert_eq!(loads(&others), [2]);
    let partition = TopicPartition::new("in", 0);
    let error = sleeper.consumer.commit(&[(partition.clone(), committed(1))]).expect_err("no member");
    assert_eq!(error.kind, BrokerErrorKind::Rebalanced, "{error}");
    assert_eq!(others[0].consumer.committed(std::slice::from_ref(&partition)).expect("committed"), [None]);
    clock.advance_ms(3_000);
    sleeper.poll();
    assert!(matches!(sleeper.events.last(), Some(RebalanceEvent::Lost(lost)) if lost.len() == 2));
    others.push(sleeper);
    settle(&clock, &mut others, 10_000);
    assert_eq!(loads(&others), [1, 1], "it joined anew");
    let owner = others.iter_mut().find(|member| member.owned.contains(&partition)).expect("an owner");
    owner.consumer.commit(&[(partition.clone(), committed(7))]).expect("commit");
    assert_eq!(owner.consumer.committed(&[partition]).expect("committed"), [Some(committed(7))]);
}

#[test]
fn a_restarted_broker_keeps_logs_and_offsets_and_members_join_anew() {
    let clock = ManualClock::new(1_000);
    let broker = broker(&clock, Faults::none(), 2);
    let partition = TopicPartition::new("in", 1);
    broker.append(&partition, &[NewRecord { timestamp: 5, key: Some(b"k"), ..NewRecord::default() }]).expect("append");
    let mut members = vec![
        Member::new(&broker, "h0", RebalanceProtocol::Cooperative),
        Member::new(&broker, "h1", RebalanceProtocol::Cooperative),
    ];
    settle(&clock, &mut members, 20_000);
    let owner = members.iter_mut().find(|member| member.owned.contains(&partition)).expect("an owner");
    assert_eq!(owner.read, [0]);
    assert_eq!(owner.consumer.position(&partition), Ok(Some(1)));
    owner.consumer.commit(&[(partition.clone(), committed(1))]).expect("commit");
    broker.restart().expect("restarts");
    settle(&clock, &mut members, 20_000);
    assert_eq!(loads(&members), [1, 1]);
    assert_eq!(
        members[0].consumer.committed(std::slice::from_ref(&partition)).expect("committed"),
        [Some(committed(1))]
    );
    assert_eq!(broker.records(&partition).expect("records").len(), 1);
}

fn send(producer: &mut dyn Producer, key: &str) -> Result<(), SendError> {
    producer.send(ProducerRecord {
        topic: &"in".into(),
        partition: None,
        timestamp: 1_000,
        key: Some(key.as_bytes()),
        value: None,
        headers: &[],
    })
}

#[test]
fn a_batch_that_is_sent_twice_is_in_the_log_once_and_in_order() {
    let clock = ManualClock::new(1_000);
    let rates = FaultRates { lost_reply_one_in: 2, delayed_delivery_one_in: 3, ..FaultRates::default() };
    let broker = broker(&clock, Faults::new(Seed::new(1), rates), 1);
    let mut producer = broker.clients(ClientOptions::new("h0", "app")).producer(0, None).expect("a producer");
    for n in 0..200 {
        send(&mut *producer, &n.to_string()).expect("send");
        if n % 7 == 0 {
            producer.poll(ZERO).expect("poll");
            clock.advance_ms(5);
        }
    }
    producer.flush(ZERO).expect("flush");
    assert_eq!(producer.in_flight(), 0);
    let partition = TopicPartition::new("in", 0);
    assert_eq!(producer.take_acknowledged().get(&partition), Some(&199));
    let keys: Vec<_> = broker.records(&partition).expect("records").into_iter().map(|record| record.key).collect();
    let expected: Vec<_> = (0..200).map(|n: i32| Some(n.to_string().into())).collect();
    assert_eq!(keys, expected);
    let (_, injected) = broker.faults().counts();
    assert!(injected["produce sent twice"] > 0 && injected["delayed delivery"] > 0);
}

#[test]
fn a_batch_that_was_given_up_leaves_the_producer_in_doubt() {
    let clock = ManualClock::new(1_000);
    let broker = broker(&clock, Faults::none(), 1);
    let clients = broker.clients(ClientOptions { producer_queue_records: 2, ..ClientOptions::new("h0", "app") });
    let mut producer = clients.producer(0, None).expect("a producer");
    send(&mut *producer, "a").expect("send");
    send(&mut *producer, "b").expect("send");
    assert_eq!(send(&mut *producer, "c"), Err(SendError::QueueFull));
    broker.faults().set_rates(FaultRates { failed_delivery_one_in: 1, ..FaultRates::default() });
    assert_eq!(producer.flush(ZERO).expect_err("given up").kind, BrokerErrorKind::Abortable);
    assert_eq!(producer.in_flight(), 0);
    assert!(producer.take_acknowledged().is_empty(), "nothing is known of it");
    broker.faults().set_rates(FaultRates::default());
    send(&mut *producer, "c").expect("send");
    assert!(producer.flush(ZERO).is_err(), "what follows would leave a gap");
    let mut anew = clients.producer(0, None).expect("a producer");
    send(&mut *anew, "d").expect("send");
    anew.flush(ZERO).expect("a new one works");
    let unknown = anew.send(ProducerRecord {
        topic: &"nowhere".into(),
        partition: None,
        timestamp: 0,
        key: None,
        value: None,
        headers: &[],
    });
    assert!(matches!(unknown, Err(SendError::Failed(error)) if error.kind == BrokerErrorKind::UnknownTopic));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let clock = ManualClock::new(1_000);
        let rates = FaultRates { retriable_one_in: 9, lost_reply_one_in: 5, ..FaultRates::default() };
        let broker = broker(&clock, Faults::new(Seed::new(seed), rates), 4);
        let mut consumers: Vec<_> = ["h0", "h1"]
            .map(|host| broker.clients(ClientOptions::new(host, "app")).consumer(0).expect("a consumer"))
            .into();
        consumers.iter_mut().for_each(|consumer| consumer.subscribe(&["in".into()]).expect("subscribe"));
        for _ in 0..500 {
            clock.advance_ms(100);
            for consumer in &mut consumers {
                // Failed polls are part of the trace.
                for event in consumer.poll(ZERO, 10).map(|polled| polled.events).unwrap_or_default() {
                    match event {
                        RebalanceEvent::Assigned(partitions) => {
                            let starts: Vec<_> = partitions.into_iter().map(|p| (p, StartOffset::Earliest)).collect();
                            consumer.assign(&starts).expect("assign");
                        }
                        RebalanceEvent::Revoked(gone) | RebalanceEvent::Lost(gone) => {
                            consumer.unassign(&gone).expect("unassign");
                        }
                    }
                }
            }
        }
        broker.faults().digest()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn a_crashed_host_has_no_effect_any_more() {
    let clock = ManualClock::new(1_000);
    let broker = broker(&clock, Faults::none(), 1);
    let clients = broker.clients(ClientOptions::new("h0", "app"));
    let mut producer = clients.producer(0, None).expect("a producer");
    broker.faults().crash_after("h0", 1);
    send(&mut *producer, "a").expect("send");
    producer.flush(ZERO).expect("one more call");
    assert!(broker.faults().is_crashed("h0"));
    send(&mut *producer, "b").expect("send");
    assert_eq!(producer.flush(ZERO).expect_err("crashed").kind, BrokerErrorKind::Fatal);
    assert!(clients.producer(0, None).is_err());
    broker.faults().revive("h0");
    clients.producer(0, None).expect("a producer of the new process");
    assert_eq!(broker.records(&TopicPartition::new("in", 0)).expect("records").len(), 1);
}

/// A producer with an open transaction that has committed offset 1 of `in-0`.
fn with_open_transaction(broker: &DirectBroker, host: &str) -> Box<dyn Producer> {
    let clients = broker.clients(ClientOptions::new(host, "app"));
    let mut producer = clients.producer(0, Some("app-id")).expect("a producer");
    producer.init_transactions(ZERO).expect("init");
    producer.begin_transaction().expect("begin");
    let offset = OffsetAndMetadata { offset: 1, metadata: String::new() };
    let group = GroupMetadata {
        group_id: "app".to_owned(),
        generation_id: -1,
        member_id: String::new(),
        group_instance_id: None,
    };
    producer.send_offsets(&[(TopicPartition::new("in", 0), offset)], &group, ZERO).expect("send offsets");
    producer
}

#[test]
fn a_delayed_end_arrives_later_and_a_newer_producer_is_safe_from_it() {
    for recycled in [false, true] {
        let clock = ManualClock::new(1_000);
        let broker = broker(&clock, Faults::none(), 1);
        let mut producer = with_open_transaction(&broker, "h0");
        broker.faults().set_rates(FaultRates { delayed_end_one_in: 1, ..FaultRates::default() });
        assert_eq!(producer.commit_transaction(ZERO).expect_err("no reply").kind, BrokerErrorKind::Retriable);
        broker.faults().set_rates(FaultRates::default());
        let committed = || broker.core().committed_offset("app", "in", 0).map(|committed| committed.offset);
        assert_eq!(committed(), None, "it is on its way");
        let anew = recycled.then(|| with_open_transaction(&broker, "h0"));
        clock.advance_ms(8_000);
        broker.tick();
        assert_eq!(committed(), (!recycled).then_some(1), "recycled: {recycled}");
        if let Some(mut anew) = anew {
            anew.commit_transaction(ZERO).expect("its transaction is still its own");
            assert_eq!(committed(), Some(1));
        }
    }
}

#[test]
fn offsets_that_a_transaction_is_going_to_commit_are_waited_for() {
    let clock = ManualClock::new(1_000);
    let broker = broker(&clock, Faults::none(), 1);
    let mut consumer = broker.clients(ClientOptions::new("h1", "app")).consumer(0).expect("a consumer");
    let partitions = [TopicPartition::new("in", 0)];
    assert_eq!(consumer.committed(&partitions).expect("none yet"), [None]);
    let mut producer = with_open_transaction(&broker, "h0");
    assert_eq!(consumer.committed(&partitions).expect_err("open").kind, BrokerErrorKind::Retriable);
    producer.commit_transaction(ZERO).expect("commit");
    let mut offset = || consumer.committed(&partitions).expect("committed").remove(0).map(|committed| committed.offset);
    assert_eq!(offset(), Some(1));
    broker.faults().forget_offsets(true);
    assert_eq!(offset(), None);
    broker.faults().forget_offsets(false);
    assert_eq!(offset(), Some(1));
}

#[test]
fn the_group_tells_its_members() {
    for protocol in [RebalanceProtocol::Cooperative, RebalanceProtocol::Eager] {
        let clock = ManualClock::new(1_000);
        let broker = broker(&clock, Faults::none(), 4);
        let [one, other] =
            ["h0", "h1"].map(|host| broker.clients(ClientOptions { protocol, ..ClientOptions::new(host, "app") }));
        let hosts = [ContractHost { clients: &one, host_id: "h0" }, ContractHost { clients: &other, host_id: "h1" }];
        membership_contract(hosts, &"in".into(), &mut || clock.advance_ms(100));
    }
}

#[test]
fn a_group_in_motion_tells_nothing() {
    let clock = ManualClock::new(1_000);
    let broker = broker(&clock, Faults::none(), 2);
    let mut members = vec![Member::new(&broker, "h0", RebalanceProtocol::Cooperative)];
    settle(&clock, &mut members, 1_000);
    members.push(Member::new(&broker, "h1", RebalanceProtocol::Cooperative));
    members[1].poll();
    members[1].poll();
    let mut membership = broker.clients(ClientOptions::new("h1", "app")).membership().expect("a membership");
    assert_eq!(membership.members().expect("an answer"), None);
}
