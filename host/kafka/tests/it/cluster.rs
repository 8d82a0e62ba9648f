//! The brokers that the contract runs on, and short ways to make topics and clients.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker::{EmbeddedBroker, EmbeddedBrokerOptions};
use engine::broker::{
    ClientSupplier, Consumer, NewTopic, Polled, Producer, ProducerRecord, RebalanceEvent, StartOffset,
};
use engine::record::TopicPartition;
use kafka::{KafkaClients, KafkaClientsConfig};

/// Long enough for a starved machine; nothing waits for it when all goes well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A broker for the time of a case.
pub struct Cluster {
    pub bootstrap_servers: String,
    embedded: Option<(EmbeddedBroker, PathBuf)>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((broker, folder)) = self.embedded.take() {
            broker.shutdown();
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A name that no other case and no other run uses.
pub fn unique(stem: &str) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    format!("{stem}-{since:x}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

impl Cluster {
    /// Real Kafka, when there is one.
    pub fn real() -> Option<Cluster> {
        let bootstrap_servers = std::env::var("SANDBAR_KAFKA_BOOTSTRAP").ok()?;
        Some(Cluster { bootstrap_servers, embedded: None })
    }

    /// An embedded broker of its own, in an empty folder.
    pub fn embedded() -> Cluster {
        let folder = std::env::temp_dir().join(unique("sandbar-kafka"));
        let broker = EmbeddedBroker::start(&folder, &EmbeddedBrokerOptions::default()).expect("an embedded broker");
        Cluster { bootstrap_servers: broker.address().to_string(), embedded: Some((broker, folder)) }
    }

    /// Stops the embedded broker and starts it again on its folder, at the same address.
    pub fn restart(&mut self) {
        let (broker, folder) = self.embedded.take().expect("an embedded broker");
        broker.shutdown();
        let broker = EmbeddedBroker::start(&folder, &EmbeddedBrokerOptions::default()).expect("an embedded broker");
        assert_eq!(broker.address().to_string(), self.bootstrap_servers, "the address is kept");
        self.embedded = Some((broker, folder));
    }

    pub fn config(&self, application_id: &str) -> KafkaClientsConfig {
        let mut config = KafkaClientsConfig::new(&self.bootstrap_servers, application_id);
        // Short enough that a crashed member does not hold up a test.
        config.properties.insert("consumer.session.timeout.ms".into(), "6000".into());
        config.properties.insert("consumer.heartbeat.interval.ms".into(), "500".into());
        config
    }

    pub fn clients(&self, application_id: &str) -> KafkaClients {
        KafkaClients::new(self.config(application_id)).expect("clients")
    }

    pub fn topic(&self, stem: &str, partitions: i32) -> Arc<str> {
        self.topic_with(stem, partitions, &[])
    }

    pub fn topic_with(&self, stem: &str, partitions: i32, configs: &[(&str, &str)]) -> Arc<str> {
        let name = unique(stem);
        let configs: BTreeMap<String, String> =
            configs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let topic = NewTopic { name: name.clone(), partitions, replication_factor: 1, configs };
        self.clients("admin").admin().expect("admin").create_topic(&topic).expect("create topic");
        name.into()
    }

    /// Writes `count` records, `key-i` to `value-i`, into a partition.
    pub fn fill(&self, topic: &Arc<str>, partition: i32, from: usize, count: usize) {
        let mut producer = self.clients("fill").producer(0, None).expect("producer");
        for i in from..from + count {
            send(&mut *producer, topic, Some(partition), &format!("key-{i}"), &format!("value-{i}"));
        }
        producer.flush(PATIENCE).expect("flush");
    }
}

/// Runs a case on each broker there is.
macro_rules! on_each_broker {
    ($($name:ident),* $(,)?) => {
        mod embedded_broker {
            $(
                #[test]
                fn $name() {
                    super::$name(&crate::cluster::Cluster::embedded());
                }
            )*
        }

        mod real_kafka {
            $(
                #[test]
                fn $name() {
                    match crate::cluster::Cluster::real() {
                        Some(cluster) => super::$name(&cluster),
                        None => eprintln!("skipped: SANDBAR_KAFKA_BOOTSTRAP is not set"),
                    }
                }
            )*
        }
    };
}
pub(crate) use on_each_broker;

pub fn send(producer: &mut dyn Producer, topic: &Arc<str>, partition: Option<i32>, key: &str, value: &str) {
    producer
        .send(ProducerRecord {
            topic,
            partition,
            timestamp: 1_000,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
        })
        .expect("send");
}

/// Asks until `probe` gives something.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain for {what}", PATIENCE.as_secs());
    }
}

/// A member that answers every event at once, as an engine without state would, and remembers what happened.
pub struct Member {
    pub consumer: Box<dyn Consumer>,
    pub owned: Vec<TopicPartition>,
    pub events: Vec<RebalanceEvent>,
    pub values: Vec<String>,
    pub start: StartOffset,
}

impl Member {
    pub fn join(clients: &KafkaClients, thread: usize, topic: &Arc<str>) -> Self {
        let mut consumer = clients.consumer(thread).expect("consumer");
        consumer.subscribe(&[Arc::clone(topic)]).expect("subscribe");
        Member { consumer, owned: Vec::new(), events: Vec::new(), values: Vec::new(), start: StartOffset::Earliest }
    }

    pub fn poll(&mut self) {
        let polled = self.consumer.poll(Duration::from_millis(50), 1000).expect("poll");
        self.take(polled);
    }

    fn take(&mut self, polled: Polled) {
        for group in polled.records {
            for record in group.records {
                self.values.push(String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned());
            }
        }
        for event in polled.events {
            match &event {
                RebalanceEvent::Assigned(partitions) => {
                    let starts: Vec<_> = partitions.iter().map(|p| (p.clone(), self.start)).collect();
                    self.consumer.assign(&starts).expect("assign");
                    self.owned.extend(partitions.iter().cloned());
                }
                RebalanceEvent::Revoked(partitions) | RebalanceEvent::Lost(partitions) => {
                    self.consumer.unassign(partitions).expect("unassign");
                    self.owned.retain(|owned| !partitions.contains(owned));
                }
            }
            self.events.push(event);
        }
    }

    pub fn poll_until_owned(&mut self, count: usize) {
        wait_for(&format!("{count} partitions"), || {
            self.poll();
            (self.owned.len() == count).then_some(())
        });
    }

    pub fn poll_until_read(&mut self, count: usize) {
        wait_for(&format!("{count} records"), || {
            self.poll();
            (self.values.len() >= count).then_some(())
        });
    }
}
