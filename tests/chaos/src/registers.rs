//! Row Q3: clients write by REST at one host and read their own writes at another, with the module `register`, while
//! hosts are killed and others take over. Carries the campaign through and reads the topics back; `judge` says what was
//! wrong.

pub mod judge;

mod client;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::own_kafka::OwnKafka;
use e2e::topics::{self, Broker};
use rdkafka::message::{BorrowedMessage, Message};

use self::client::{Client, KEYS, Surroundings, key_text};
use self::judge::{Key, Number, Topics, parse_value};
use crate::asking::Directory;
use crate::campaign::{Options, kafka_settings};
use crate::clients::{Reader, log_ends};
use crate::findings::Findings;
use crate::hosts::{self, Guest, Hosts, Setup};
use crate::random::Random;
use crate::results::Slice;

pub const STORE: &str = "values";

/// Clients, each of which waits for one answer at a time.
const CLIENTS: u32 = 12;
/// Between the last write that needs a calm group and a kill.
const DRAIN: Duration = Duration::from_secs(2);
/// How long the clients may take in all.
const LIMIT: Duration = Duration::from_secs(400);

/// What a slice does.
pub struct Work {
    pub kills: u64,
    /// Reads of one's own writes at least.
    pub passes: u64,
    /// How long each transaction is held open before its end, so that what is not committed yet would show.
    pub held_ms: Option<u64>,
}

/// Runs one slice. Its folder stays when something was wrong.
///
/// # Errors
/// When it could not be carried through.
pub fn carry_through(options: &Options, work: &Work, slice: &mut Slice) -> Result<()> {
    let mut campaign = Campaign::start(options)?;
    let done = campaign.run(work);
    slice.faults = campaign.kills;
    campaign.around.stop.store(true, Ordering::Relaxed);
    done?;
    campaign.finish(work, slice)
}

struct Campaign {
    options: Options,
    name: String,
    kafka: OwnKafka,
    hosts: Hosts,
    around: Surroundings,
    clients: Vec<JoinHandle<Result<Client>>>,
    witness: Option<Witness>,
    kills: u64,
}

impl Campaign {
    fn start(options: &Options) -> Result<Self> {
        let name = format!("{}-{}", options.row.to_lowercase(), options.seed);
        let folder = hosts::scratch(&name)?;
        let kafka = OwnKafka::start("chaos", &kafka_settings(false), None)?;
        topics::create(&Broker::Kafka(kafka.bootstrap()), &hosts::input_topic(&name), options.partitions)?;
        let setup = Setup {
            application_id: name.clone(),
            guest: Guest::Register,
            bootstrap: kafka.bootstrap(),
            folder,
            partitions: options.partitions,
            settings: options.settings.clone(),
            static_members: options.static_members,
            binary: options.binary.clone(),
            variables: options.variables.clone(),
        };
        let mut hosts = Hosts::new(setup, options.hosts)?;
        hosts.start_all()?;
        hosts.settle(0).context("before the first write")?;
        let started = Instant::now();
        let changelog = format!("{name}-{STORE}-changelog");
        let witness = Witness::start(&kafka.bootstrap(), changelog, options.partitions, started)?;
        let around = Surroundings {
            application_id: name.clone(),
            directory: Directory::default(),
            started,
            calm: Arc::new(AtomicBool::new(true)),
            stop: Arc::default(),
            passes: Arc::default(),
        };
        around.directory.set(hosts.addresses()?);
        let client = |number| Client::new(around.clone(), number, options.seed);
        let clients = (0..CLIENTS).map(client).map(|client| thread::spawn(move || client.run())).collect();
        Ok(Self { options: options.clone(), name, kafka, hosts, around, clients, witness: Some(witness), kills: 0 })
    }

    fn passes(&self) -> u64 {
        self.around.passes.load(Ordering::Relaxed)
    }

    fn run(&mut self, work: &Work) -> Result<()> {
        let mut random = Random::new(self.options.seed);
        let started = Instant::now();
        // The kills are spread over the passes, the first of which are without.
        let at = |kill: u64| work.passes * (kill + 1) / (work.kills + 1);
        while self.kills < work.kills || self.passes() < work.passes {
            ensure!(started.elapsed() < LIMIT, "{} of {} passes in {LIMIT:?}", self.passes(), work.passes);
            self.hosts.check_all_alive()?;
            if let Some(place) = self.clients.iter().position(JoinHandle::is_finished) {
                join(self.clients.swap_remove(place)).context("a client has given up")?;
            }
            if self.kills < work.kills && self.passes() >= at(self.kills) {
                self.kill(&mut random)?;
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn kill(&mut self, random: &mut Random) -> Result<()> {
        if self.around.calm.swap(false, Ordering::Relaxed) {
            thread::sleep(DRAIN);
        }
        let victim = random.index(self.options.hosts);
        self.hosts.kill(victim)?;
        self.kills += 1;
        self.around.directory.set(self.hosts.addresses()?);
        thread::sleep(Duration::from_millis(random.between(500, 6_000)));
        self.hosts.start(victim)?;
        self.around.directory.set(self.hosts.addresses()?);
        Ok(())
    }

    fn finish(mut self, work: &Work, slice: &mut Slice) -> Result<()> {
        let clients: Vec<Client> = self.clients.drain(..).map(join).collect::<Result<_>>()?;
        let bootstrap = self.kafka.bootstrap();
        let input = hosts::input_topic(&self.name);
        let ends = log_ends(&bootstrap, &[(input.clone(), self.options.partitions)])?;
        let records: i64 = ends.iter().map(|end| end.end).sum();
        self.hosts.settle(records.unsigned_abs()).context("after the last write")?;
        let witness = self.witness.take().context("the witness is gone")?;
        let mut found = Topics { committed_ms: witness.finish()?, ..Topics::default() };
        let names: BTreeMap<String, Key> = (0..CLIENTS * KEYS).map(|key| (key_text(key), key)).collect();
        Reader::new(&bootstrap, &[input], self.options.partitions)?
            .read_to_end(&ends, |_, record| add_record(&mut found, &names, record))?;
        found.shown = self.shown(&names)?;
        slice.records = records.unsigned_abs();
        for client in &clients {
            for (name, value) in &client.figures {
                let figure = slice.figures.entry(name.clone()).or_default();
                *figure = if name.starts_with("max ") { *value.max(figure) } else { *value + *figure };
            }
        }
        slice.figures.insert("reads of own writes".to_owned(), self.passes());
        slice.records_restored = self.hosts.records_restored();
        let slack_ms = work.held_ms.map(|held_ms| held_ms / 2);
        let events: Vec<_> = clients.into_iter().map(|client| client.events).collect();
        let Findings { counts, examples } = judge::judge(&events, &found, slack_ms);
        examples.iter().for_each(|example| println!("  {example}"));
        slice.defects = counts.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect();
        if slice.defects.is_empty() {
            self.hosts.clear()?;
        }
        Ok(())
    }

    /// The whole store at each host.
    fn shown(&self, names: &BTreeMap<String, Key>) -> Result<Vec<(String, BTreeMap<Key, Number>)>> {
        let of_host = |(number, host): (usize, &e2e::host::Host)| {
            let entries = host.entries(STORE, "&key_format=utf8&value_format=utf8")?;
            let entry = |(key, value): (String, serde_json::Value)| {
                let key = *names.get(&key).with_context(|| format!("{key} is no client's"))?;
                let (of_key, number) = parse_value(value.as_str().unwrap_or_default())?;
                ensure!(of_key == key, "key {key} has the value of {of_key}");
                Ok((key, number))
            };
            Ok((format!("host {number}"), entries.into_iter().map(entry).collect::<Result<_>>()?))
        };
        self.hosts.numbered().map(of_host).collect()
    }
}

fn join(client: JoinHandle<Result<Client>>) -> Result<Client> {
    client.join().map_err(|_| anyhow!("a client panicked"))?
}

fn add_record(topics: &mut Topics, names: &BTreeMap<String, Key>, record: &BorrowedMessage<'_>) -> Result<()> {
    let key = std::str::from_utf8(record.key().unwrap_or_default())?;
    let key = *names.get(key).with_context(|| format!("{key} is no client's"))?;
    let Some(value) = record.payload() else {
        *topics.deletes.entry(key).or_default() += 1;
        topics.last.insert(key, None);
        return Ok(());
    };
    let (of_key, number) = parse_value(std::str::from_utf8(value)?)?;
    *topics.writes.entry((of_key, number)).or_default() += 1;
    topics.last.insert(key, Some(number));
    Ok(())
}

/// Reads the changelog as any reader of committed records does, and notes when it saw each value first.
struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<BTreeMap<(Key, Number), u64>>>,
}

impl Witness {
    fn start(bootstrap: &str, changelog: String, partitions: u32, started: Instant) -> Result<Self> {
        let reader = Reader::new(bootstrap, &[changelog], partitions)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen = BTreeMap::new();
            let mut last = false;
            while !last {
                // One more time after the end.
                last = stopped.load(Ordering::Relaxed);
                let time = if last { Duration::from_secs(3) } else { Duration::from_millis(200) };
                reader.read(time, |_, record| {
                    let at_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    if let Some(value) = record.payload() {
                        seen.entry(parse_value(std::str::from_utf8(value)?)?).or_insert(at_ms);
                    }
                    Ok(())
                })?;
            }
            Ok(seen)
        });
        Ok(Self { stop, thread })
    }

    fn finish(self) -> Result<BTreeMap<(Key, Number), u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the witness panicked"))?
    }
}
