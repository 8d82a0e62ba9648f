//! The exactly-once loop under kills: 30,000 records in, the same out through transactions that carry the input's
//! offsets, while the broker or the client is killed five times. Afterwards every record is out once, in order, and the
//! committed offsets are the input's ends. The client is a process of its own and never guesses: after any doubt it
//! makes a new producer, asks again what is committed, and goes on from there.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::Message;
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};

use crate::Victim;
use crate::broker::{Broker, Kind};
use crate::client::{self, Clients, PATIENCE, Sender, expect_equal, values};
use crate::member;

const RECORDS: usize = 30_000;
const PARTITIONS: i32 = 4;
const KILLS: usize = 5;

/// How many loops there are at most until one says something.
const RUNS: u32 = 3;

/// Records in a transaction at most.
const BATCH: usize = 250;

/// How long the whole loop may take; a broker's starts are part of it.
const LOOP_LIMIT: Duration = Duration::from_secs(180);

/// Runs the loop several times on one broker and prints how many were exact; false when one was not.
pub fn repeat(kind: Kind, victim: Victim, runs: u32) -> Result<bool> {
    let broker = Broker::start(kind)?;
    let clients = Clients::new(&broker.bootstrap())?;
    let mut exact = 0;
    for number in 1..=runs {
        let started = Instant::now();
        let outcome = run(&clients, &broker, &format!("eos-loop-{number}"), victim);
        let took = started.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                exact += 1;
                println!("run {number:>3}: exact, {took:.1} s");
            }
            Err(error) => println!("run {number:>3}: FAIL, {took:.1} s: {error:#}"),
        }
    }
    println!("eos-loop: {exact} of {runs} exact");
    Ok(exact == runs)
}

/// One loop. A failed one says nothing where the broker's own log tells that it forgot how one of its transactions
/// ended, which a kill of a lone Kafka can do to it: another takes its place, `RUNS` in all.
pub fn run(clients: &Clients, broker: &Broker, name: &str, victim: Victim) -> Result<()> {
    for number in 1..RUNS {
        let name = format!("{name}-{number}");
        match run_once(clients, broker, &name, victim) {
            Err(error) if broker.forgot_markers(&name) => {
                println!(
                    "void: the broker forgot how a transaction of {name} ended; the loop's failure was: {error:#}"
                );
            }
            outcome => return outcome,
        }
    }
    run_once(clients, broker, &format!("{name}-{RUNS}"), victim)
}

/// `name` is the prefix of the topics, the group and the transactional id.
fn run_once(clients: &Clients, broker: &Broker, name: &str, victim: Victim) -> Result<()> {
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    clients.create_topic(&input, PARTITIONS, &[])?;
    clients.create_topic(&output, PARTITIONS, &[])?;
    let sender = Sender::new(&clients.bootstrap, &[])?;
    for number in 0..RECORDS {
        sender.put(&input, i32::try_from(number)? % PARTITIONS, &number.to_string())?;
    }
    sender.flush()?;
    drop(sender);
    let deadline = Instant::now() + LOOP_LIMIT;
    let mut client = Client::start(&clients.bootstrap, name)?;
    for kill in 1..=KILLS {
        client.wait_for(kill * RECORDS / (KILLS + 1), deadline).with_context(|| format!("before kill {kill}"))?;
        // At any point of a transaction, not always at the same one.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos();
        thread::sleep(Duration::from_micros(u64::from(nanos / 1_000 % 12_000)));
        match victim {
            Victim::Broker => {
                broker.kill()?;
                if broker.starts_unready() {
                    client.signal("STOP")?;
                }
                broker.start_again()?;
                clients.wait_for_broker()?;
                client.signal("CONT")?;
            }
            Victim::Client => {
                client.kill()?;
                client = Client::start(&clients.bootstrap, name)?;
            }
        }
    }
    client.wait_for(RECORDS, deadline).with_context(|| format!("after {KILLS} kills"))?;
    client.finish()?;
    verify(clients, name, &input, &output)
}

fn verify(clients: &Clients, group: &str, input: &str, output: &str) -> Result<()> {
    let records = clients.read_settled(output)?;
    let mut numbers: Vec<usize> = values(&records).iter().map(|value| Ok(value.parse()?)).collect::<Result<_>>()?;
    let out = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    expect_equal("records out, and distinct ones", (RECORDS, RECORDS), (out, numbers.len()))?;
    expect_equal("the highest", Some(&(RECORDS - 1)), numbers.last())?;
    for partition in 0..PARTITIONS {
        let of_partition = records.iter().filter(|record| record.partition() == partition);
        let found: Vec<usize> = of_partition
            .map(|record| Ok(String::from_utf8_lossy(record.payload().unwrap_or_default()).parse()?))
            .collect::<Result<_>>()?;
        expect_equal("the order within a partition is the input's", true, found.is_sorted())?;
    }
    let ends: Vec<i64> = (0..PARTITIONS)
        .map(|partition| Ok(clients.bounds(input, partition, client::Isolation::Uncommitted)?.1))
        .collect::<Result<_>>()?;
    expect_equal("committed offsets and input ends", ends, clients.committed(group, input, PARTITIONS)?)
}

/// The parent's end of the client process.
struct Client {
    child: Child,
    lines: Receiver<String>,
    /// The last reasons why the client began anew, for a failure's message.
    doubts: Vec<String>,
}

impl Client {
    fn start(bootstrap: &str, name: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["eos-client", bootstrap, name, &RECORDS.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the client of the loop")?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("the client has no stdout"))?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, doubts: Vec::new() })
    }

    /// Waits until so many input records are committed.
    fn wait_for(&mut self, records: usize, deadline: Instant) -> Result<()> {
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(rest).map_err(|error| {
                let last = self.doubts.iter().rev().take(3).cloned().collect::<Vec<_>>().join(" | ");
                anyhow!("{error} while {records} records were waited for; its last doubts: {last}")
            })?;
            if let Some(count) = line.strip_prefix("committed ") {
                if count.parse::<usize>()? >= records {
                    return Ok(());
                }
            } else {
                tracing::info!("{line}");
                self.doubts.push(line);
            }
        }
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, name: &str) -> Result<()> {
        member::signal(self.child.id(), name)
    }

    fn finish(&mut self) -> Result<()> {
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("the client ended with {status}") }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts rebalances: a transaction that spans one is in doubt.
#[derive(Default, Clone)]
struct Watch {
    rebalances: Arc<AtomicU32>,
}

impl ClientContext for Watch {}

impl ConsumerContext for Watch {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        self.rebalances.fetch_add(1, Ordering::SeqCst);
    }
}

/// The client process: reads, transforms, writes and commits until all records are committed.
pub fn client(bootstrap: &str, name: &str, records: usize) -> Result<()> {
    let mut work = Work::new(bootstrap, name)?;
    loop {
        match work.session(bootstrap, name, records) {
            Ok(()) => return Ok(()),
            Err(doubt) => println!("doubt: {doubt:#}"),
        }
        thread::sleep(Duration::from_millis(20));
        // A static member whose join was answered to a dead connection is fenced by itself; it is of no use any more.
        if work.consumer.client().fatal_error().is_some() {
            println!("doubt: the consumer has failed for good, another takes its place");
            work = Work::new(bootstrap, name)?;
        }
    }
}

struct Work {
    consumer: BaseConsumer<Watch>,
    watch: Watch,
    input: String,
    output: String,
    /// The count of rebalances when the session began.
    rebalances: u32,
    /// The next input offset of each partition.
    next: Vec<i64>,
}

impl Work {
    /// A consumer that waits for its partitions.
    fn new(bootstrap: &str, name: &str) -> Result<Self> {
        let watch = Watch::default();
        let mut config = client::config(bootstrap);
        config
            .set("group.id", name)
            // A client that comes back after a kill is the same member, and need not wait for its session to end.
            .set("group.instance.id", format!("{name}-instance"))
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "500")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "20");
        let consumer: BaseConsumer<Watch> = config.create_with_context(watch.clone())?;
        let input = format!("{name}-in");
        consumer.subscribe(&[&input])?;
        Ok(Self { consumer, watch, input, output: format!("{name}-out"), rebalances: 0, next: Vec::new() })
    }

    /// From a new producer to the end, or to the first doubt.
    fn session(&mut self, bootstrap: &str, id: &str, records: usize) -> Result<()> {
        let sender = Sender::transactional(bootstrap, id, &[("transaction.timeout.ms", "30000")])?;
        self.find_start()?;
        sender.take_errors();
        loop {
            let done: i64 = self.next.iter().sum();
            println!("committed {done}");
            if usize::try_from(done)? >= records {
                return Ok(());
            }
            self.transaction(&sender)?;
            let errors = sender.take_errors();
            if !errors.is_empty() {
                // The connection was lost during the transaction: the client may have sent its end twice.
                bail!("connection errors: {errors:?}");
            }
        }
    }

    /// Waits for the assignment, asks what is committed, and goes there.
    fn find_start(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let assignment = loop {
            // What comes is dropped: the seek below gives it again.
            if let Some(Err(error)) = self.consumer.poll(Duration::from_millis(10))
                && self.consumer.client().fatal_error().is_some()
            {
                return Err(error).context("while waiting for partitions");
            }
            let assignment = self.consumer.assignment()?;
            if assignment.count() == usize::try_from(PARTITIONS)? {
                break assignment;
            }
            if Instant::now() > deadline {
                bail!("no partitions within {PATIENCE:?}");
            }
        };
        self.rebalances = self.watch.rebalances.load(Ordering::SeqCst);
        let committed =
            self.consumer.committed_offsets(assignment, Duration::from_secs(10)).context("committed offsets")?;
        let mut places = TopicPartitionList::new();
        self.next.clear();
        for partition in 0..PARTITIONS {
            let element =
                committed.find_partition(&self.input, partition).ok_or_else(|| anyhow!("no answer for {partition}"))?;
            element.error()?;
            let next = match element.offset() {
                Offset::Offset(offset) => offset,
                Offset::Invalid => 0,
                other => bail!("odd committed offset {other:?}"),
            };
            self.next.push(next);
            places.add_partition_offset(&self.input, partition, Offset::Offset(next))?;
        }
        let sought = self.consumer.seek_partitions(places, Duration::from_secs(10)).context("seek")?;
        Ok(sought.elements().iter().try_for_each(|element| element.error())?)
    }

    fn transaction(&mut self, sender: &Sender) -> Result<()> {
        let mut next = self.next.clone();
        let mut batch = Vec::with_capacity(BATCH);
        let deadline = Instant::now() + Duration::from_millis(50);
        while batch.len() < BATCH && (batch.is_empty() || Instant::now() < deadline) {
            let polled = self.consumer.poll(Duration::from_millis(10));
            if self.watch.rebalances.load(Ordering::SeqCst) != self.rebalances {
                bail!("a rebalance");
            }
            let Some(record) = polled.transpose().context("poll")? else {
                if Instant::now() > deadline + PATIENCE {
                    bail!("no record within {PATIENCE:?}");
                }
                continue;
            };
            let slot =
                next.get_mut(usize::try_from(record.partition())?).ok_or_else(|| anyhow!("a fifth partition"))?;
            if *slot != record.offset() {
                bail!("offset {} of partition {} instead of {slot}", record.offset(), record.partition());
            }
            *slot += 1;
            batch.push((record.partition(), record.payload().unwrap_or_default().to_vec()));
        }
        sender.begin()?;
        for (partition, value) in &batch {
            sender.send(BaseRecord::to(&self.output).partition(*partition).payload(value.as_slice()))?;
        }
        sender.flush()?;
        let places: Vec<(i32, i64)> = (0..PARTITIONS).zip(next.iter().copied()).collect();
        sender.send_offsets(&self.consumer, &client::offsets(&self.input, &places)?)?;
        sender.commit()?;
        self.next = next;
        Ok(())
    }
}
