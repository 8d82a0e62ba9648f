//! `sandbar dlq redrive`: sends records back in one transaction, so that a call that is interrupted has no effect.
//! Looks at all of them before it sends the first: one that cannot go refuses the call. Where a record came from is the
//! word of whoever wrote the dead letter, so that topics which nobody named get nothing unless somebody sees them and
//! agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use engine::broker::{BrokerError, BrokerErrorKind, Producer, ProducerRecord, SendError};
use engine::record::Offset;
use kafka::KafkaClients;
use kafka::topics::{PartitionBounds, TopicRecord};
use serde_json::json;

use super::filter::Filter;
use super::letter::DeadLetter;
use super::position::Position;
use super::scan::{self, Scan};
use super::target::{self, Redriven, Targets, Unsent};
use super::{Place, Selected, counted};
use crate::config::is_kafka_name;
use crate::exit::UsageError;
use crate::terminal::{Format, Terminal, can_ask, confirmed, print_line};
use crate::text;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    filter: Filter,
    /// The topic, or dead letters in it as `dlq list` prints them: TOPIC@PARTITION:OFFSET
    #[arg(value_name = "TOPIC|POSITION")]
    what: Vec<String>,
    /// All of the topic
    #[arg(long)]
    all: bool,
    /// Send to this topic instead, where keys decide the partitions
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// Print what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; topics that only the dead letters name are refused then
    #[arg(short, long)]
    yes: bool,
}

/// Refusals that are printed; the others are counted.
const REFUSALS_SHOWN: usize = 20;
/// Time of a transaction beside that for its records. A killed call holds back readers of the source topics for as
/// long, unless another one follows.
const TRANSACTION_TIME: Duration = Duration::from_secs(60);
/// What the slowest brokers take in a second.
const RECORDS_PER_SECOND: u64 = 500;
/// Kafka's own bound, `transaction.max.timeout.ms`.
const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(900);

/// For an abort; the broker does it by itself later on.
const ABORT_TIME: Duration = Duration::from_secs(30);

/// Runs the command.
///
/// # Errors
/// When a record cannot go, or the broker does not take them; nothing was sent then.
pub fn run(arguments: &Arguments, terminal: Terminal) -> Result<()> {
    let selected = Selected::of(&arguments.what)?;
    check(arguments, &selected)?;
    let (connected, topic) = arguments.place.open(selected.topic.as_deref(), terminal)?;
    if arguments.to.as_ref() == Some(&topic) {
        let message = format!("--to {topic}: the dead letters are in this topic; send their records to another one");
        return Err(UsageError(message).into());
    }
    let clients = &connected.clients;
    let mut call = Call { clients, arguments, topic: &topic, targets: Targets::new() };
    let plan = call.plan(&selected.positions, terminal.format)?;
    plan.tell_refusals()?;
    if arguments.dry_run {
        return plan.tell("would-redrive", "would send", terminal);
    }
    if plan.count() == 0 {
        return plan.tell("redriven", "sent", terminal);
    }
    let question = format!("send {} to {}?", records(plan.count()), plan.topics());
    let asked = !arguments.yes && can_ask();
    if !asked {
        call.check_named(&plan)?;
    } else if !confirmed(&question)? {
        bail!("nothing was sent");
    }
    call.send(&plan)?;
    plan.tell("redriven", "sent", terminal)
}

fn check(arguments: &Arguments, selected: &Selected) -> Result<(), UsageError> {
    let filtered = !arguments.filter.is_empty();
    let ways = [(!selected.positions.is_empty()), filtered, arguments.all];
    if ways.iter().filter(|way| **way).count() != 1 {
        let message = "which dead letters? name positions, or filters such as --reason, or --all: one of the three";
        return Err(UsageError(message.to_owned()));
    }
    if let Some(topic) = arguments.to.as_ref().filter(|topic| !is_kafka_name(topic)) {
        let expected = "expected a name of letters, digits, '.', '_' and '-' (at most 249)";
        return Err(UsageError(format!("--to {topic:?}: {expected}")));
    }
    Ok(())
}

fn records(count: u64) -> String {
    counted(count, "record")
}

/// What will be sent.
#[derive(Debug, Default)]
struct Plan {
    /// Offsets of the dead letters by partition.
    offsets: BTreeMap<i32, BTreeSet<Offset>>,
    /// How many records each topic gets.
    topics: BTreeMap<String, u64>,
    /// Dead letters without a record, such as those of punctuations.
    without_record: u64,
    /// Records of the topic that are no dead letters.
    no_dead_letters: u64,
    refusals: Vec<String>,
    refused: u64,
}

impl Plan {
    fn count(&self) -> u64 {
        self.topics.values().sum()
    }

    fn topics(&self) -> String {
        self.topics.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    fn add(&mut self, position: &Position, topic: &str) {
        self.offsets.entry(position.partition).or_default().insert(position.offset);
        *self.topics.entry(topic.to_owned()).or_default() += 1;
    }

    fn refuse(&mut self, position: &Position, detail: &str) {
        self.refused += 1;
        if self.refusals.len() < REFUSALS_SHOWN {
            self.refusals.push(format!("{position}: {detail}"));
        }
    }

    fn tell_refusals(&self) -> Result<()> {
        if self.refused == 0 {
            return Ok(());
        }
        let more = match self.refused - self.refusals.len() as u64 {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let refused = anyhow!("{}{more}", self.refusals.join("; "));
        Err(refused.context(format!("nothing was sent: {} cannot go", records(self.refused))))
    }

    fn tell(&self, event: &str, verb: &str, terminal: Terminal) -> Result<()> {
        let count = self.count();
        let mut text = format!("{verb} {}", records(count));
        let topics = self.topics.iter().map(|(topic, count)| format!("{count} to {topic}")).collect::<Vec<_>>();
        if !topics.is_empty() {
            text = format!("{text}: {}", topics.join(", "));
        }
        if self.without_record > 0 {
            text = format!("{text}; without a record (punctuations): {}", self.without_record);
        }
        if self.no_dead_letters > 0 {
            text = format!("{text}; no dead letters: {}", self.no_dead_letters);
        }
        let fields = json!({
            "records": count,
            "topics": self.topics,
            "without_record": self.without_record,
            "no_dead_letters": self.no_dead_letters,
        });
        terminal.notice(event, &text, fields);
        Ok(())
    }
}

/// One call of the command.
struct Call<'a> {
    clients: &'a Arc<KafkaClients>,
    arguments: &'a Arguments,
    topic: &'a str,
    targets: Targets,
}

impl Call<'_> {
    fn plan(&mut self, positions: &[Position], format: Format) -> Result<Plan> {
        let mut plan = Plan::default();
        if let Some(to) = &self.arguments.to {
            self.describe(to)?;
        }
        for position in positions {
            let letter = DeadLetter::of(&position.topic, scan::one(self.clients, position)?)?;
            match self.redriven(letter)? {
                Ok(record) => self.planned(&mut plan, position, &record, format),
                Err(Unsent::Refused(detail) | Unsent::NoRecord(detail)) => plan.refuse(position, &detail),
            }
        }
        if positions.is_empty() {
            let mut scan = Scan::of(self.clients, self.topic)?;
            while let Some(records) = scan.next()? {
                records.into_iter().try_for_each(|record| self.plan_one(&mut plan, record, format))?;
            }
        }
        Ok(plan)
    }

    fn plan_one(&mut self, plan: &mut Plan, record: TopicRecord, format: Format) -> Result<()> {
        let letter = match DeadLetter::of(self.topic, record) {
            Ok(letter) if self.arguments.filter.wants(&letter) => letter,
            Ok(_) => return Ok(()),
            Err(_) => {
                plan.no_dead_letters += u64::from(self.arguments.all);
                return Ok(());
            }
        };
        let position = letter.position.clone();
        match self.redriven(letter)? {
            Ok(record) => self.planned(plan, &position, &record, format),
            Err(Unsent::NoRecord(_)) => plan.without_record += 1,
            Err(Unsent::Refused(detail)) => plan.refuse(&position, &detail),
        }
        Ok(())
    }

    fn planned(&self, plan: &mut Plan, position: &Position, record: &Redriven, format: Format) {
        plan.add(position, &record.topic);
        if self.arguments.dry_run {
            print_line(&line(position, record, format));
        }
    }

    /// Refuses topics that only the dead letters name.
    fn check_named(&self, plan: &Plan) -> Result<()> {
        let Arguments { place, filter, what, to, .. } = self.arguments;
        // A filter by source is a list of their names, and a position is of a dead letter that was looked at.
        if to.is_some() || !filter.source.is_empty() || what.iter().any(|one| one.contains('@')) {
            return Ok(());
        }
        let named = place.source_topics()?;
        let unnamed: Vec<&str> = plan.topics.keys().map(String::as_str).filter(|one| !named.contains(*one)).collect();
        if unnamed.is_empty() {
            return Ok(());
        }
        let message = format!(
            "nothing was sent: that records came from {} is the word of the dead letters alone, and whoever may write {} can \
             write such a word; name the topics with --source, or with -f a manifest that has them at \
             sources.<name>.topic, or send all to one with --to; --dry-run shows the records",
            unnamed.join(", "),
            self.topic
        );
        Err(UsageError(message).into())
    }

    fn describe(&mut self, topic: &str) -> Result<()> {
        if !self.targets.contains_key(topic) {
            let described = self.clients.describe_topic(topic)?;
            self.targets.insert(topic.to_owned(), described);
        }
        Ok(())
    }

    fn redriven(&mut self, letter: DeadLetter) -> Result<Result<Redriven, Unsent>> {
        let to = self.arguments.to.as_deref();
        if let Some(topic) = target::topic_of(&letter, to) {
            self.describe(&topic)?;
        }
        Ok(target::redriven(letter, to, &self.targets))
    }

    /// Sends what is planned, all or nothing.
    fn send(&mut self, plan: &Plan) -> Result<()> {
        let seconds = Duration::from_secs(plan.count() / RECORDS_PER_SECOND);
        let timeout = (TRANSACTION_TIME + seconds).min(TRANSACTION_TIME_MAX);
        // One id for a topic: a call ends at once what one before it left open, and two at the same time do not both
        // send.
        let id = format!("sandbar-dlq-redrive-{}", self.topic);
        let producer = self.producer_clients(timeout)?.transactional_producer(&id)?;
        let mut transaction = Transaction { producer, deadline: Instant::now() + timeout };
        transaction.producer.init_transactions(timeout).context("nothing was sent")?;
        transaction.producer.begin_transaction().context("nothing was sent")?;
        if let Err(error) = self.send_all(plan, &mut transaction) {
            return Err(transaction.abort(error));
        }
        transaction.commit()
    }

    /// Clients whose batches every topic takes, with time for all records.
    fn producer_clients(&self, timeout: Duration) -> Result<KafkaClients> {
        let mut config = self.clients.config().clone();
        config.transaction_timeout = timeout;
        let bounds = self.targets.values().flatten().filter_map(|topic| target::max_message_bytes(&topic.configs));
        let bounds: Vec<u64> = bounds.collect();
        // librdkafka's own bounds and defaults.
        let least = bounds.iter().min().map_or(1_000_000, |least| (*least).clamp(1, 1_000_000));
        let most = bounds.iter().max().map_or(1_000_000, |most| (*most).clamp(1_000_000, 1_000_000_000));
        let mut default = |key: &str, value: u64| {
            config.properties.entry(key.to_owned()).or_insert_with(|| value.to_string());
        };
        default("producer.batch.size", least);
        default("producer.message.max.bytes", most);
        Ok(KafkaClients::new(config).map_err(|error| UsageError(error.to_string()))?)
    }

    fn send_all(&mut self, plan: &Plan, transaction: &mut Transaction) -> Result<()> {
        let mut sent = 0;
        for (&partition, offsets) in &plan.offsets {
            let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { continue };
            let bounds = PartitionBounds { partition, start: *first, stable_end: last + 1 };
            let mut scan = Scan::between(self.clients, self.topic, vec![bounds]);
            let mut left = offsets.len();
            while left > 0 {
                let Some(records) = scan.next()? else {
                    bail!("{left} dead letters of {}-{partition} are gone since they were looked at", self.topic);
                };
                for record in records.into_iter().filter(|record| offsets.contains(&record.offset)) {
                    let letter = DeadLetter::of(self.topic, record)?;
                    let position = letter.position.clone();
                    let record = match self.redriven(letter)? {
                        Ok(record) => record,
                        Err(Unsent::Refused(detail) | Unsent::NoRecord(detail)) => bail!("{position}: {detail}"),
                    };
                    transaction.send(&record).with_context(|| format!("{position}: the broker did not take it"))?;
                    left -= 1;
                    sent += 1;
                }
            }
        }
        transaction.flush()?;
        anyhow::ensure!(sent == plan.count(), "{sent} of {} were found again", records(plan.count()));
        Ok(())
    }
}

/// What a dry run prints of a record.
fn line(position: &Position, record: &Redriven, format: Format) -> String {
    let Redriven { topic, partition, key, .. } = record;
    let bytes = target::batch_bytes(record);
    match format {
        Format::Text => {
            let place = partition.map_or_else(|| format!("{topic} by its key"), |number| format!("{topic}-{number}"));
            let key = key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned());
            format!("{position}\tto {place}\t{}\t{bytes} bytes", text::short(key.as_deref().unwrap_or("(no key)"), 60))
        }
        Format::Json => json!({
            "position": position.to_string(), "topic": topic, "partition": partition, "bytes": bytes,
        })
        .to_string(),
    }
}

/// A transaction that is open.
struct Transaction {
    producer: Box<dyn Producer>,
    deadline: Instant,
}

impl Transaction {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn send(&mut self, record: &Redriven) -> Result<(), BrokerError> {
        let topic: Arc<str> = record.topic.as_str().into();
        loop {
            let outcome = self.producer.send(ProducerRecord {
                topic: &topic,
                partition: record.partition,
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
            });
            match outcome {
                Ok(()) => return self.producer.poll(Duration::ZERO),
                Err(SendError::Failed(error)) => return Err(error),
                Err(SendError::QueueFull) if self.left().is_zero() => {
                    let detail = "the queue is full and the time of the transaction is over";
                    return Err(BrokerError::new(BrokerErrorKind::Retriable, format!("send to {topic}"), detail));
                }
                Err(SendError::QueueFull) => self.producer.poll(Duration::from_millis(50))?,
            }
        }
    }

    fn flush(&mut self) -> Result<(), BrokerError> {
        self.producer.flush(self.left())
    }

    /// Takes back what was sent; the error for it.
    fn abort(&mut self, error: anyhow::Error) -> anyhow::Error {
        let error = error.context("nothing was sent: the transaction was aborted");
        match self.producer.abort_transaction(ABORT_TIME) {
            Ok(()) => error,
            // Whoever sent nothing more commits nothing either: the broker ends it by time.
            Err(abort) => error.context(format!(
                "the broker ends the transaction by itself, since {abort}; another redrive of the topic may be running"
            )),
        }
    }

    /// Ends it. A commit that fails for now may have happened, and is repeated until the broker says so.
    fn commit(&mut self) -> Result<()> {
        loop {
            match self.producer.commit_transaction(self.left().max(Duration::from_secs(1))) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind == BrokerErrorKind::Retriable && !self.left().is_zero() => {
                    tracing::debug!(%error, "commit again");
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) if error.kind == BrokerErrorKind::Abortable => return Err(self.abort(error.into())),
                Err(error) => {
                    let unknown = "whether the records were sent is not known: look for their header \
                                   __sandbar.redriven before you send them again";
                    return Err(anyhow!(error).context(unknown));
                }
            }
        }
    }
}
