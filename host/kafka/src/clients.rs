//! Makes the clients of an application from one configuration.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use engine::assignment::MemberName;
use engine::broker::{Admin, BrokerError, ClientSupplier, Consumer, Membership, Producer, RestoreConsumer};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;

use crate::admin::TopicAdmin;
use crate::config::{self, ClientIdentity, ConfigError, KafkaClientsConfig, Role};
use crate::consumer::GroupConsumer;
use crate::members::GroupObserver;
use crate::metadata::{ClusterInfo, ConnectAttempt, MetadataClient};
use crate::producer::RecordProducer;
use crate::restore::PartitionReader;

/// What a reader holds in advance whose records are taken slowly or not at all.
const SUBSCRIPTION_SETTINGS: [(&str, &str); 3] =
    [("queued.max.messages.kbytes", "4096"), ("queued.min.messages", "1000"), ("fetch.message.max.bytes", "262144")];

/// The supplier of an application's Kafka clients.
pub struct KafkaClients {
    config: KafkaClientsConfig,
    /// Made with the first use.
    metadata: Mutex<Option<Arc<MetadataClient>>>,
    /// Id and endpoint of this host, once they are known.
    host: OnceLock<(String, String)>,
    /// The largest batch that every topic takes which stream threads write.
    batch_max_bytes: OnceLock<usize>,
}

impl KafkaClients {
    /// Checks the configuration, every property of it; makes no connection.
    pub fn new(config: KafkaClientsConfig) -> Result<Self, ConfigError> {
        config::check(&config)?;
        Ok(Self { config, metadata: Mutex::new(None), host: OnceLock::new(), batch_max_bytes: OnceLock::new() })
    }

    pub fn config(&self) -> &KafkaClientsConfig {
        &self.config
    }

    /// Names this host for its consumers, before the first of them is made: the group carries where it is to be found.
    /// The first name stays.
    pub fn name_host(&self, host_id: &str, endpoint: &str) {
        self.host.get_or_init(|| (host_id.to_owned(), endpoint.to_owned()));
    }

    /// Bounds the batches of stream threads, before the first producer is made: the least `max.message.bytes` of the
    /// topics that they write. The broker refuses a batch above it whole, however small its records are.
    pub fn bound_batches(&self, bytes: usize) {
        self.batch_max_bytes.get_or_init(|| bytes);
    }

    /// Waits for a first answer of the cluster. `retry` is called after each failed try with its reason, so that the
    /// host can show it; when `timeout` is over the error names the addresses and the last reason.
    pub fn wait_for_broker(
        &self,
        timeout: Duration,
        retry: &mut dyn FnMut(&ConnectAttempt),
    ) -> Result<ClusterInfo, BrokerError> {
        self.metadata()?.wait_for_broker(timeout, retry)
    }

    fn client_id_prefix(&self) -> &str {
        self.config.client_id.as_deref().unwrap_or(&self.config.application_id)
    }

    fn client_id(&self, rest: &str) -> String {
        format!("{}-{rest}", self.client_id_prefix())
    }

    /// Whether the group would go on to tell an earlier address of a static member. Brokers keep the client id of one
    /// that is replaced (KIP-345), with the address in it, but take its new rack (KIP-881), where `GroupObserver` finds
    /// it. A rack that no broker is in leaves records to come from the leader; but with a rack librdkafka joins again
    /// when a replica's broker comes or goes, so that it is only given where it is needed, or where nobody can tell.
    fn is_told_by_another_address(&self, client_id: &str) -> bool {
        let Some(name) = MemberName::parse(client_id) else { return false };
        let members = self.membership().and_then(|mut membership| membership.members());
        let Ok(Some(members)) = members else { return true };
        let mut known = members.iter().filter_map(|member| MemberName::parse(&member.client_id));
        known.any(|known| (&known.host_id, known.thread) == (&name.host_id, name.thread) && known != name)
    }

    pub(crate) fn metadata(&self) -> Result<Arc<MetadataClient>, BrokerError> {
        let mut shared = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metadata) = shared.as_ref() {
            return Ok(Arc::clone(metadata));
        }
        let client_id = self.client_id("metadata");
        let identity = ClientIdentity { client_id: &client_id, extra: &[] };
        let client = config::create(&self.config, Role::Admin, identity)?;
        let metadata = MetadataClient::new(client, &self.config.bootstrap_servers, self.config.request_timeout);
        *shared = Some(Arc::clone(&metadata));
        Ok(metadata)
    }

    /// A reader outside any group, with further settings.
    pub(crate) fn partition_reader(
        &self,
        client_id: &str,
        settings: &[(&str, &str)],
    ) -> Result<PartitionReader, BrokerError> {
        let mut extra = settings.to_vec();
        extra.push(("group.id", &self.config.application_id));
        let identity = ClientIdentity { client_id, extra: &extra };
        let client = config::create(&self.config, Role::RestoreConsumer, identity)?;
        PartitionReader::new(client, self.metadata()?, self.config.request_timeout)
    }

    pub(crate) fn record_producer(
        &self,
        client_id: &str,
        transactional_id: Option<&str>,
        settings: &[(&str, &str)],
    ) -> Result<RecordProducer, BrokerError> {
        let mut extra = settings.to_vec();
        let timeout_ms = self.config.transaction_timeout.as_millis().to_string();
        if let Some(id) = transactional_id {
            extra.extend([("transactional.id", id), ("transaction.timeout.ms", &timeout_ms)]);
        }
        let client = config::create(&self.config, Role::Producer, ClientIdentity { client_id, extra: &extra })?;
        Ok(RecordProducer::new(client, transactional_id))
    }

    pub(crate) fn topic_admin(&self) -> Result<TopicAdmin, BrokerError> {
        let mut native = ClientConfig::new();
        for (property, (_, value)) in config::passed_through(&self.config, Role::Admin) {
            native.set(property, value);
        }
        native.set("bootstrap.servers", &self.config.bootstrap_servers);
        native.set("client.id", self.client_id("admin"));
        native.set("log.connection.close", "false");
        let client: AdminClient<DefaultClientContext> = native
            .create()
            .map_err(|error| ConfigError::Client { client: self.client_id("admin"), detail: error.to_string() })?;
        let timeout = self.config.request_timeout;
        Ok(TopicAdmin::new(client, self.metadata()?, &self.config.bootstrap_servers, timeout))
    }
}

impl ClientSupplier for KafkaClients {
    fn consumer(&self, thread: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        let client_id = match self.host.get().cloned() {
            Some((host_id, endpoint)) => MemberName { host_id, endpoint, thread }.client_id(self.client_id_prefix()),
            None => self.client_id(&format!("StreamThread-{thread}-consumer")),
        };
        let instance = self.config.group_instance_id.as_ref().map(|id| format!("{id}-{thread}"));
        let mut extra = vec![("group.id", self.config.application_id.as_str())];
        if let Some(instance) = &instance {
            extra.push(("group.instance.id", instance));
            let passed = config::passed_through(&self.config, Role::MainConsumer);
            if !passed.contains_key("client.rack") && self.is_told_by_another_address(&client_id) {
                extra.push(("client.rack", &client_id));
            }
        }
        let identity = ClientIdentity { client_id: &client_id, extra: &extra };
        let client = config::create(&self.config, Role::MainConsumer, identity)?;
        let consumer = GroupConsumer::new(
            client,
            &self.config.application_id,
            instance,
            self.config.request_timeout,
            self.config.close_timeout,
        )?;
        Ok(Box::new(consumer))
    }

    fn restore_consumer(&self, thread: usize) -> Result<Box<dyn RestoreConsumer>, BrokerError> {
        let client_id = self.client_id(&format!("StreamThread-{thread}-restore-consumer"));
        Ok(Box::new(self.partition_reader(&client_id, &[])?))
    }

    fn subscription_consumer(&self, number: usize) -> Result<Box<dyn RestoreConsumer>, BrokerError> {
        let client_id = self.client_id(&format!("subscription-{number}-consumer"));
        Ok(Box::new(self.partition_reader(&client_id, &SUBSCRIPTION_SETTINGS)?))
    }

    fn producer(&self, thread: usize, transactional_id: Option<&str>) -> Result<Box<dyn Producer>, BrokerError> {
        let client_id = self.client_id(&format!("StreamThread-{thread}-producer"));
        /// librdkafka's own bound, which larger topics do not raise.
        const BATCH_BYTES: usize = 1_000_000;
        /// What a topic takes is the topic's to say, and looked at before a record is sent.
        const RECORD_BYTES: &str = "67108864";
        let bound = self.batch_max_bytes.get().copied().filter(|&bytes| bytes < BATCH_BYTES);
        let bound = bound.map(|bytes| bytes.max(1).to_string());
        let mut settings = vec![("message.max.bytes", RECORD_BYTES)];
        settings.extend(bound.iter().map(|bytes| ("batch.size", bytes.as_str())));
        let is_set = config::passed_through(&self.config, Role::Producer);
        settings.retain(|(property, _)| !is_set.contains_key(property));
        Ok(Box::new(self.record_producer(&client_id, transactional_id, &settings)?))
    }

    fn admin(&self) -> Result<Box<dyn Admin>, BrokerError> {
        Ok(Box::new(self.topic_admin()?))
    }

    fn membership(&self) -> Result<Box<dyn Membership>, BrokerError> {
        let timeout = self.config.request_timeout;
        Ok(Box::new(GroupObserver::new(self.metadata()?, &self.config.application_id, timeout)))
    }
}
