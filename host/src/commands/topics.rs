//! `sandbar topics`: lists, creates, fills and reads topics of a Kafka cluster or of an embedded broker, with the
//! same clients as a stream thread. Joins no group.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use engine::broker::{BrokerErrorKind, NewTopic};
use kafka::{KafkaClients, KafkaClientsConfig};
use serde_json::json;

use crate::config::Manifest;
use crate::exit::UsageError;
use crate::formats::{self, DataFormat};
use crate::runtime::brokers::{Broker, BrokerArguments, Folder, connect};
use crate::runtime::parse_duration;
use crate::runtime::stop::Stop;
use crate::terminal::{Format, Terminal, print_line};

pub mod line;
mod produce;
mod read;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the topics with their partitions and records
    List {
        #[command(flatten)]
        connection: Connection,
        /// Also the broker's own (`__…`)
        #[arg(long)]
        internal: bool,
    },
    /// Create a topic
    Create {
        #[command(flatten)]
        connection: Connection,
        topic: String,
        #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: i32,
        /// -1 leaves it to the broker
        #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
        replication_factor: i32,
        /// A setting of the topic, for example cleanup.policy=compact
        #[arg(long, value_name = "KEY=VALUE")]
        config: Vec<String>,
        /// Succeed where it exists already
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Write records, one JSON object a line, into a topic
    #[command(long_about = line::HELP)]
    Produce(ProduceArguments),
    /// Print the records of a topic, one JSON object a line
    Read(ReadArguments),
}

/// How to reach the broker.
#[derive(Debug, Args)]
pub struct Connection {
    #[command(flatten)]
    broker: BrokerArguments,

    /// How long to wait for the broker
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,

    /// Set a property of librdkafka
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ProduceArguments {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    formats: DataFormats,
    topic: String,
    /// File of records, gzip or not; standard input where it is absent or -
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ReadArguments {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    formats: DataFormats,
    topic: String,
    /// Only this partition; may be given several times
    #[arg(short, long)]
    partition: Vec<i32>,
    /// Where to begin: beginning, end, or an offset of the partition that was named
    #[arg(long, default_value = "beginning")]
    from: String,
    /// Wait for more at the end
    #[arg(short, long)]
    follow: bool,
    /// Stop after so many records
    #[arg(short = 'n', long)]
    max: Option<u64>,
}

#[derive(Debug, Args)]
pub struct DataFormats {
    /// How keys are written: utf8, json, i32, i64, f64, base64 or hex
    #[arg(long, default_value = "utf8", value_parser = parse_format)]
    pub key_format: DataFormat,
    /// How values are written
    #[arg(long, default_value = "utf8", value_parser = parse_format)]
    pub value_format: DataFormat,
}

fn parse_format(name: &str) -> Result<DataFormat, String> {
    DataFormat::from_name(name).ok_or_else(|| format!("expected one of {}", formats::NAMES))
}

/// Runs the command.
///
/// # Errors
/// What the broker refused, or which line of the input.
pub fn run(command: &Command, terminal: Terminal) -> Result<()> {
    match command {
        Command::List { connection, internal } => list(connection, *internal, terminal),
        Command::Create { connection, topic, partitions, replication_factor, config, if_not_exists } => {
            let new = NewTopic {
                name: topic.clone(),
                partitions: *partitions,
                replication_factor: *replication_factor,
                configs: pairs("--config", config)?.into_iter().collect(),
            };
            create(connection, &new, *if_not_exists, terminal)
        }
        Command::Produce(arguments) => produce::run(arguments, terminal),
        Command::Read(arguments) => read::run(arguments, terminal),
    }
}

/// A broker and the clients for it; the broker, where it is ours, lives as long as this.
pub struct Connected {
    pub clients: Arc<KafkaClients>,
    _broker: Broker,
}

impl Connection {
    fn open(&self, folder: Folder, terminal: Terminal) -> Result<Connected> {
        self.open_for("sandbar-topics", None, folder, terminal)
    }

    /// Reaches the broker with clients of this name. A manifest gives its brokers where no flag names any, and its
    /// properties of librdkafka.
    ///
    /// # Errors
    /// When no broker is named or none answers.
    pub fn open_for(
        &self,
        name: &str,
        manifest: Option<&Manifest>,
        folder: Folder,
        terminal: Terminal,
    ) -> Result<Connected> {
        // What a script reads is the topics' data; where the broker came from is for people.
        let told = Terminal::new(Format::Text);
        let named = self.broker.embedded.is_some() || self.broker.brokers().is_some();
        let of_manifest = manifest.and_then(Manifest::bootstrap_servers).filter(|_| !named);
        let broker = match of_manifest {
            Some(servers) => Broker::cluster(&servers),
            None => Broker::of(&self.broker, folder, told)?,
        };
        let mut config = KafkaClientsConfig::new(&broker.bootstrap_servers, name);
        config.request_timeout = self.timeout;
        config.properties.extend(manifest.into_iter().flat_map(|manifest| manifest.kafka.clone()));
        config.properties.extend(pairs("-X", &self.set)?);
        let connected = connect(config, self.timeout, &Stop::default(), told)?;
        let (clients, _) = connected.context("told to stop")?;
        tracing::debug!(?terminal.format, brokers = broker.bootstrap_servers, "connected");
        Ok(Connected { clients, _broker: broker })
    }
}

fn pairs(flag: &str, given: &[String]) -> Result<Vec<(String, String)>> {
    given
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_owned(), value.to_owned())),
            None => Err(UsageError(format!("{flag} {pair}: expected key=value, found no '='")).into()),
        })
        .collect()
}

fn list(connection: &Connection, internal: bool, terminal: Terminal) -> Result<()> {
    let connected = connection.open(Folder::MustExist, terminal)?;
    let topics = connected.clients.list_topics(internal)?;
    let width = topics.iter().map(|topic| topic.name.len()).max().unwrap_or(0).max("TOPIC".len());
    if terminal.format == Format::Text {
        print_line(&format!("{:width$}  {:>10}  {:>12}", "TOPIC", "PARTITIONS", "RECORDS"));
    }
    for topic in topics {
        print_line(&match terminal.format {
            Format::Text => format!("{:width$}  {:>10}  {:>12}", topic.name, topic.partitions, topic.log_length),
            Format::Json => json!({
                "topic": topic.name,
                "partitions": topic.partitions,
                "records": topic.log_length,
            })
            .to_string(),
        });
    }
    Ok(())
}

fn create(connection: &Connection, topic: &NewTopic, if_not_exists: bool, terminal: Terminal) -> Result<()> {
    if !crate::config::is_kafka_name(&topic.name) {
        let message =
            format!("topic {:?}: expected a name of letters, digits, '.', '_' and '-' (at most 249)", topic.name);
        return Err(UsageError(message).into());
    }
    let connected = connection.open(Folder::MayBeNew, terminal)?;
    let (name, partitions) = (&topic.name, topic.partitions);
    match connected.clients.create_topic(topic) {
        Ok(()) => {
            let text = format!("created topic {name} with {partitions} partitions");
            terminal.notice("topic-created", &text, json!({ "topic": name, "partitions": partitions }));
            Ok(())
        }
        Err(error) if error.kind == BrokerErrorKind::TopicExists && if_not_exists => {
            exists(&connected, topic, terminal)
        }
        Err(error) if error.kind == BrokerErrorKind::TopicExists => {
            Err(anyhow!(error).context(format!("topic {name} exists already; use --if-not-exists where that is fine")))
        }
        Err(error) => Err(error.into()),
    }
}

/// What exists is fine only with the partitions that were asked for.
fn exists(connected: &Connected, topic: &NewTopic, terminal: Terminal) -> Result<()> {
    let found = connected.clients.describe_topic(&topic.name)?;
    let partitions = found.map_or(0, |found| found.partitions);
    if partitions != topic.partitions {
        let (name, expected) = (&topic.name, topic.partitions);
        anyhow::bail!("topic {name} exists with {partitions} partitions where {expected} were asked for");
    }
    let text = format!("topic {} is there already, with {partitions} partitions", topic.name);
    terminal.notice("topic-exists", &text, json!({ "topic": topic.name, "partitions": partitions }));
    Ok(())
}
