//! The client configuration: what the host states, what librdkafka properties pass through, and what is fixed because
//! correctness rests on it. A property that librdkafka does not know, or that is fixed, is an error that names it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::native::{Client, ClientKind, NativeConfig, PropertyFault};
use engine::broker::BrokerError;

/// Settings of an application's Kafka clients.
#[derive(Debug, Clone)]
pub struct KafkaClientsConfig {
    /// `bootstrap.servers`: `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// The consumer group's id (Kafka Streams' `application.id`).
    pub application_id: String,
    /// Prefix of the clients' ids in the broker's logs and metrics; the application id when `None`.
    pub client_id: Option<String>,
    /// Static membership (KIP-345): the id of this host, unique in the group and the same after a restart. Stream
    /// thread `n` joins as `<id>-<n>`.
    pub group_instance_id: Option<String>,
    /// librdkafka properties. A plain name goes to every client; the prefixes `consumer.` (both consumers),
    /// `main.consumer.`, `restore.consumer.`, `producer.` and `admin.` choose one, and a longer prefix wins.
    pub properties: BTreeMap<String, String>,
    /// `transaction.timeout.ms` of producers with a transactional id.
    pub transaction_timeout: Duration,
    /// Bound of one blocking call: metadata, committed offsets, admin requests.
    pub request_timeout: Duration,
    /// Bound of leaving the group and of freeing a client; after it the work goes on without its owner.
    pub close_timeout: Duration,
}

impl KafkaClientsConfig {
    /// The defaults for an application.
    pub fn new(bootstrap_servers: impl Into<String>, application_id: impl Into<String>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            application_id: application_id.into(),
            client_id: None,
            group_instance_id: None,
            properties: BTreeMap::new(),
            transaction_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("unknown librdkafka property {property} (given as {key}); see librdkafka's CONFIGURATION.md for its names")]
    Unknown { key: String, property: String },
    #[error("property {key}: {detail}")]
    Invalid { key: String, detail: String },
    #[error("property {key} cannot be set: {reason}")]
    Reserved { key: String, reason: &'static str },
    #[error("{name} is empty")]
    Empty { name: &'static str },
    #[error("cannot create the Kafka client {client}: {detail}")]
    Client { client: String, detail: String },
}

impl From<ConfigError> for BrokerError {
    fn from(error: ConfigError) -> Self {
        BrokerError::new(engine::broker::BrokerErrorKind::Fatal, "create a Kafka client", error.to_string())
    }
}

/// The clients of one application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    MainConsumer,
    RestoreConsumer,
    Producer,
    Admin,
}

impl Role {
    const ALL: [Role; 4] = [Role::MainConsumer, Role::RestoreConsumer, Role::Producer, Role::Admin];

    /// The prefixes that address this role, the strongest last.
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Role::MainConsumer => &["consumer.", "main.consumer."],
            Role::RestoreConsumer => &["consumer.", "restore.consumer."],
            Role::Producer => &["producer."],
            Role::Admin => &["admin."],
        }
    }

    pub(crate) fn kind(self) -> ClientKind {
        match self {
            Role::MainConsumer | Role::RestoreConsumer | Role::Admin => ClientKind::Consumer,
            Role::Producer => ClientKind::Producer,
        }
    }
}

const PREFIXES: [&str; 5] = ["consumer.", "main.consumer.", "restore.consumer.", "producer.", "admin."];

/// Properties that the host sets itself, with the reason.
const RESERVED: [(&str, &str); 24] = [
    ("bootstrap.servers", "it is set by bootstrap.servers of the application"),
    ("metadata.broker.list", "it is set by bootstrap.servers of the application"),
    ("group.id", "it is the application id"),
    ("group.instance.id", "it is set by group.instance.id of the application, one for each stream thread"),
    ("client.id", "it is set by client.id of the application, one for each client"),
    ("transactional.id", "the host sets it under exactly_once_v2"),
    ("transaction.timeout.ms", "it is set by transaction.timeout.ms of the application"),
    ("enable.auto.commit", "offsets are committed only as part of a commit"),
    ("enable.auto.offset.store", "offsets are committed only as part of a commit"),
    ("auto.offset.reset", "where a partition starts is decided by the application, never by a silent reset"),
    ("isolation.level", "records are read with read_committed"),
    ("enable.partition.eof", "the end of a partition is known by position"),
    ("enable.idempotence", "the producer is always idempotent"),
    ("acks", "records are always acknowledged by all replicas"),
    ("request.required.acks", "records are always acknowledged by all replicas"),
    ("partitioner", "records are partitioned as Kafka's Java clients do, so that keys meet in one partition"),
    ("produce.offset.report", "it is always on"),
    ("delivery.report.only.error", "every delivery report is counted before a commit"),
    ("log.queue", "logs go to the host's log"),
    ("group.protocol", "the group speaks the classic protocol"),
    ("plugin.library.paths", "a manifest must not load native code"),
    ("ssl.engine.location", "a manifest must not load native code"),
    ("ssl.providers", "a manifest must not load native code"),
    ("sasl.kerberos.kinit.cmd", "a manifest must not run commands"),
];

/// Checks every property against librdkafka, for every client that would get it.
pub(crate) fn check(config: &KafkaClientsConfig) -> Result<(), ConfigError> {
    for (name, value) in [("bootstrap.servers", &config.bootstrap_servers), ("application.id", &config.application_id)]
    {
        if value.trim().is_empty() {
            return Err(ConfigError::Empty { name });
        }
    }
    for key in config.properties.keys() {
        let property = strip_prefix(key);
        if let Some((_, reason)) = RESERVED.iter().find(|(name, _)| *name == property) {
            return Err(ConfigError::Reserved { key: key.clone(), reason });
        }
    }
    for role in Role::ALL {
        let mut native = NativeConfig::new();
        set_passed_through(&mut native, config, role)?;
    }
    Ok(())
}

fn strip_prefix(key: &str) -> &str {
    // The longest prefix first, so that `main.consumer.` is not left with a rest of its own.
    let mut prefixes = PREFIXES;
    prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
    prefixes.iter().find_map(|prefix| key.strip_prefix(prefix)).unwrap_or(key)
}

/// The properties given for a role: plain ones, then by prefix.
pub(crate) fn passed_through(config: &KafkaClientsConfig, role: Role) -> BTreeMap<&str, (&str, &str)> {
    let mut chosen: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (key, value) in &config.properties {
        if !PREFIXES.iter().any(|prefix| key.starts_with(prefix)) {
            chosen.insert(key, (key, value));
        }
    }
    for prefix in role.prefixes() {
        for (key, value) in &config.properties {
            if let Some(property) = key.strip_prefix(prefix) {
                chosen.insert(property, (key, value));
            }
        }
    }
    chosen
}

fn set_passed_through(native: &mut NativeConfig, config: &KafkaClientsConfig, role: Role) -> Result<(), ConfigError> {
    for (property, (key, value)) in passed_through(config, role) {
        native.set(property, value).map_err(|fault| match fault {
            PropertyFault::Unknown => ConfigError::Unknown { key: key.into(), property: property.into() },
            PropertyFault::Invalid(detail) => {
                ConfigError::Invalid { key: key.into(), detail: explain(property, value, &detail) }
            }
        })?;
    }
    Ok(())
}

/// What is wrong with a value. librdkafka names some properties by another name and seldom repeats the value; a secret
/// is repeated by nobody.
fn explain(property: &str, value: &str, detail: &str) -> String {
    let secret = ["password", "secret", "key.pem", "jaas"].iter().any(|word| property.contains(word));
    if secret {
        "librdkafka refuses the value (hidden, since it may be a secret)".into()
    } else {
        format!("librdkafka refuses the value {value:?}: {detail}")
    }
}

/// The defaults of a role: ours, before what passes through.
fn defaults(role: Role) -> &'static [(&'static str, &'static str)] {
    match role {
        Role::MainConsumer | Role::RestoreConsumer => &[
            // A poll that drained the queue must not wait for the next fetch.
            ("fetch.queue.backoff.ms", "5"),
            // As Java's consumers do, and unlike librdkafka: damaged bytes must not become state.
            ("check.crcs", "true"),
            ("log.connection.close", "false"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("retry.backoff.ms", "20"),
            ("reconnect.backoff.max.ms", "2000"),
            // A connection that has gone silent is noticed by a request that is not answered. Java's clients wait so
            // long, librdkafka twice as long.
            ("socket.timeout.ms", "30000"),
        ],
        Role::Producer => &[
            ("linger.ms", "5"),
            // 100, the default, is waited out after nearly every commit of back-to-back transactions.
            ("retry.backoff.ms", "5"),
            ("log.connection.close", "false"),
            ("reconnect.backoff.max.ms", "2000"),
        ],
        Role::Admin => {
            &[("log.connection.close", "false"), ("reconnect.backoff.max.ms", "2000"), ("socket.timeout.ms", "30000")]
        }
    }
}

/// The properties that nobody overrides.
fn fixed(role: Role) -> &'static [(&'static str, &'static str)] {
    match role {
        Role::MainConsumer | Role::RestoreConsumer => &[
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "false"),
        ],
        Role::Producer => &[("enable.idempotence", "true"), ("acks", "all"), ("partitioner", "murmur2_random")],
        // Log ends must count open transactions (R9), which read_committed would hide.
        Role::Admin => &[("isolation.level", "read_uncommitted"), ("allow.auto.create.topics", "false")],
    }
}

/// What a single client adds: its name and identities.
pub(crate) struct ClientIdentity<'a> {
    pub client_id: &'a str,
    pub extra: &'a [(&'a str, &'a str)],
}

fn set_own(native: &mut NativeConfig, key: &str, value: &str) -> Result<(), ConfigError> {
    native.set(key, value).map_err(|fault| {
        let detail = match fault {
            PropertyFault::Unknown => "unknown to librdkafka".into(),
            PropertyFault::Invalid(detail) => detail,
        };
        ConfigError::Invalid { key: key.into(), detail }
    })
}

/// Makes the client of a role.
pub(crate) fn create(
    config: &KafkaClientsConfig,
    role: Role,
    identity: ClientIdentity<'_>,
) -> Result<Client, ConfigError> {
    let mut native = NativeConfig::new();
    for (key, value) in defaults(role) {
        set_own(&mut native, key, value)?;
    }
    set_passed_through(&mut native, config, role)?;
    for (key, value) in fixed(role) {
        set_own(&mut native, key, value)?;
    }
    set_own(&mut native, "bootstrap.servers", &config.bootstrap_servers)?;
    set_own(&mut native, "client.id", identity.client_id)?;
    for (key, value) in identity.extra {
        set_own(&mut native, key, value)?;
    }
    Client::new(role.kind(), native, identity.client_id)
        .map_err(|failure| ConfigError::Client { client: identity.client_id.into(), detail: failure.detail })
}

#[cfg(test)]
mod tests;
