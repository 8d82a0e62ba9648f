//! Kafka's own command-line tools in Java, of the newest version, on `sandbar broker`: what they print is what the
//! broker did. Each start of a tool costs more than a second, so there are few and each shows something.

use anyhow::Result;
use e2e::embedded::EmbeddedBroker;
use e2e::repository;
use e2e::tools::{self, Printed};
use e2e::topics::{self, Values};

const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

/// A broker for one family of tools.
struct Place {
    broker: EmbeddedBroker,
    folder: std::path::PathBuf,
}

impl Place {
    fn new(name: &str) -> Result<Self> {
        let folder = repository::scratch(&repository::unique(name))?;
        Ok(Self { broker: EmbeddedBroker::start(&folder.join("broker"), &[])?, folder })
    }

    /// Runs a tool on the broker.
    fn tool(&self, class: &str, arguments: &[&str], input: &str) -> Result<Printed> {
        let class = if class.contains('.') { class.to_owned() } else { format!("org.apache.kafka.tools.{class}") };
        tools::java(&class, &[&["--bootstrap-server", &self.broker.address], arguments].concat(), input)
    }
}

#[track_caller]
fn assert_row(printed: &Printed, words: &str) {
    assert!(printed.has_row(words), "no row begins with {words:?}: {printed:#?}");
}

#[test]
fn topics_and_settings() -> Result<()> {
    let place = Place::new("java-topics")?;
    let topic = ["--topic", "orders"];
    let create = ["--create", "--partitions", "2", "--replication-factor", "1", "--config", "cleanup.policy=compact"];
    place.tool("TopicCommand", &[&create[..], &topic].concat(), "")?;
    place.tool("TopicCommand", &[&["--alter", "--partitions", "3"][..], &topic].concat(), "")?;
    let described = place.tool("TopicCommand", &["--describe"], "")?;
    assert!(described.stdout.contains("PartitionCount: 3\tReplicationFactor: 1\tConfigs: cleanup.policy=compact"));
    assert_row(&described, "Topic: orders Partition: 2 Leader: 0 Replicas: 0 Isr: 0");

    let settings = ["--entity-type", "topics", "--entity-name", "orders"];
    let alter = ["--alter", "--add-config", "retention.ms=12345"];
    place.tool("kafka.admin.ConfigCommand", &[&settings[..], &alter].concat(), "")?;
    let described = place.tool("kafka.admin.ConfigCommand", &[&settings[..], &["--describe"]].concat(), "")?;
    assert_row(&described, "cleanup.policy=compact");
    assert_row(&described, "retention.ms=12345 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=12345");

    let broker = ["--entity-type", "brokers", "--entity-name", "0", "--describe", "--all"];
    let described = place.tool("kafka.admin.ConfigCommand", &broker, "")?;
    assert_row(&described, &format!("log.dirs={}", place.folder.join("broker/logs").display()));

    place.tool("TopicCommand", &[&["--delete"][..], &topic].concat(), "")?;
    let gone = topics::read(&place.broker.by_folder(), "orders", Values::Text).map_err(|error| format!("{error:#}"));
    assert!(gone.as_ref().is_err_and(|error| error.contains("orders")), "{gone:?}");
    Ok(())
}

#[test]
fn records_offsets_and_groups() -> Result<()> {
    let place = Place::new("java-console")?;
    topics::create(&place.broker.by_folder(), "orders", 2)?;
    let keyed = ["--topic", "orders", "--reader-property", "parse.key=true", "--reader-property", "key.separator=:"];
    place.tool("ConsoleProducer", &keyed, "a:1\nb:2\na:3\nc:4\n")?;
    let records = topics::read(&place.broker.by_folder(), "orders", Values::Text)?;
    assert_eq!(records.len(), 4);
    let in_first = records.iter().filter(|record| record.partition == 0).count();

    let consume = ["--topic", "orders", "--group", "clerks", "--from-beginning", "--max-messages", "4"];
    let shown = ["--timeout-ms", "20000", "--formatter-property", "print.key=true"];
    let consumer = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let mut rows = place.tool(consumer, &[&consume[..], &shown].concat(), "")?.rows();
    rows.sort();
    assert_eq!(rows, ["a 1", "a 3", "b 2", "c 4"]);

    assert_eq!(
        place.tool(GROUPS, &["--list", "--state", "--type"], "")?.rows(),
        ["GROUP TYPE STATE", "clerks Classic Empty"]
    );
    let described = place.tool(GROUPS, &["--describe", "--group", "clerks"], "")?;
    assert_row(&described, &format!("clerks orders 0 {in_first} {in_first} 0 - - -"));
    let reset = ["--reset-offsets", "--group", "clerks", "--all-topics", "--to-earliest", "--execute"];
    assert_row(&place.tool(GROUPS, &reset, "")?, "clerks orders 1 0");
    place.tool(GROUPS, &["--delete", "--group", "clerks"], "")?;

    let ends = place.tool("GetOffsetShell", &["--topic", "orders", "--time", "latest"], "")?;
    assert_eq!(ends.rows(), [format!("orders:0:{in_first}"), format!("orders:1:{}", 4 - in_first)]);

    let file = place.folder.join("delete.json");
    std::fs::write(&file, r#"{"partitions":[{"topic":"orders","partition":0,"offset":1}],"version":1}"#)?;
    let deleted = place.tool("DeleteRecordsCommand", &["--offset-json-file", &file.display().to_string()], "")?;
    assert_row(&deleted, "partition: orders-0 low_watermark: 1");
    let starts = place.tool("GetOffsetShell", &["--topic", "orders", "--time", "earliest-local"], "")?;
    assert_eq!(starts.rows(), ["orders:0:1", "orders:1:0"]);
    Ok(())
}

#[test]
fn performance_and_the_inside_of_the_broker() -> Result<()> {
    let place = Place::new("java-performance")?;
    topics::create(&place.broker.by_folder(), "load", 1)?;
    let produce = ["--topic", "load", "--num-records", "50000", "--record-size", "100", "--throughput", "-1"];
    let transactional = ["--transactional-id", "loader", "--transaction-duration-ms", "200"];
    let produced = place.tool("ProducerPerformance", &[&produce[..], &transactional].concat(), "")?;
    assert!(produced.stdout.contains("50000 records sent"), "{produced:?}");
    let consume = ["--topic", "load", "--num-records", "50000", "--timeout", "20000"];
    let consumed = place.tool("ConsumerPerformance", &consume, "")?;
    // start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, …
    let counted = consumed.rows().last().and_then(|row| row.split(", ").nth(4).map(str::to_owned));
    assert_eq!(counted.as_deref(), Some("50000"), "{consumed:?}");

    let folder = place.folder.join("broker/logs").display().to_string();
    let directories = place.tool("LogDirsCommand", &["--describe", "--topic-list", "load"], "")?;
    assert!(directories.stdout.contains(&format!(r#""logDir":"{folder}""#)), "{directories:?}");
    assert!(directories.stdout.contains(r#""partition":"load-0","size":"#), "{directories:?}");
    let transactions = place.tool("TransactionsCommand", &["list"], "")?;
    assert_row(&transactions, "TransactionalId Coordinator ProducerId TransactionState");
    assert!(transactions.has_row("loader 0 ") && transactions.stdout.contains("CompleteCommit"), "{transactions:?}");
    let described = place.tool("TransactionsCommand", &["describe", "--transactional-id", "loader"], "")?;
    assert!(described.has_row("0 loader ") && described.stdout.contains("CompleteCommit"), "{described:?}");
    let producers =
        place.tool("TransactionsCommand", &["describe-producers", "--topic", "load", "--partition", "0"], "")?;
    // A head, and the one producer with nothing open.
    assert!(producers.rows().len() == 2 && producers.rows()[1].ends_with("None"), "{producers:?}");
    let endpoints = tools::java(
        "org.apache.kafka.tools.ClusterTool",
        &["list-endpoints", "--bootstrap-server", &place.broker.address],
        "",
    )?;
    let (host, port) = place.broker.address.split_once(':').unwrap_or_default();
    assert_row(&endpoints, &format!("0 {host} {port} null unfenced broker"));
    Ok(())
}
