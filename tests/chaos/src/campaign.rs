//! A campaign from its start to its verdict: a Kafka of its own, hosts, a loader that writes all the while and a reader
//! that watches, then the end, at which everything is read back and judged. What is done to them in between is the
//! row's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::host::wait_until;
use e2e::own_kafka::{self, OwnKafka};
use e2e::repository;
use e2e::topics::{self, Broker};
use rdkafka::message::Message;

use crate::asking::Directory;
use crate::checker::{self, Defect, Dump, LogEnd, Recording, Verdict};
use crate::clients::{Load, Loader, Reader, Seen, Witness, log_ends};
use crate::hosts::{self, Guest, Hosts, Setup};
use crate::poison::{self, DeadLetter, Poison};
use crate::proxy::Proxy;
use crate::queries::Surroundings;
use crate::random::Random;
use crate::results::Slice;
use crate::workload::{Balance, Input, Key, Plan};

/// Kafka's own topics have so many partitions here.
const OFFSETS_PARTITIONS: u32 = 4;

/// What makes real Kafka notice in a campaign's time what it otherwise notices every few minutes, and lets members be
/// missed as soon as the campaign wants. None changes what it promises.
const KAFKA_SETTINGS: &str = "\
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=500
group.min.session.timeout.ms=1000
";

/// Has a coordinator end transactions of hosts that are gone soon after their time.
const QUICK_ABORTS: &str = "transaction.abort.timed.out.transaction.cleanup.interval.ms=1000\n";

/// Where the broker is killed it leaves that to the hosts, which come back with their transactional ids. A lone broker
/// that ends a transaction before it is registered again finds its own partitions without a leader, takes them for
/// deleted, and forgets the markers (`TransactionMarkerChannelManager`); the transaction then hangs for good.
const NO_ABORTS: &str = "transaction.abort.timed.out.transaction.cleanup.interval.ms=60000\n";

/// What a campaign's Kafka is told. `restarts` says whether it is killed.
pub fn kafka_settings(restarts: bool) -> String {
    let aborts = if restarts { NO_ABORTS } else { QUICK_ABORTS };
    format!("{KAFKA_SETTINGS}{aborts}")
}

/// How long readers may have to wait for a transaction of a host that did not come back.
const STABLE_LIMIT: Duration = Duration::from_secs(40);

/// How a campaign is set up.
#[derive(Debug, Clone)]
pub struct Options {
    pub row: String,
    pub seed: u64,
    pub hosts: usize,
    pub partitions: u32,
    pub keys: u32,
    /// Entries at least, of all partitions together.
    pub records: u64,
    pub per_second: u64,
    /// Entries of each partition that come before all others, each of a key of its own.
    pub preloaded: u32,
    /// One of so many entries is poison, and there is a topic for dead letters; 0 for neither.
    pub poison_one_in: u64,
    pub static_members: bool,
    /// Keys of the manifest.
    pub settings: BTreeMap<String, String>,
    pub binary: Option<PathBuf>,
    /// Variables of the hosts' environment.
    pub variables: Vec<(String, String)>,
    /// The hosts' clients are sent to a proxy, in place of the broker itself.
    pub proxied: bool,
    /// The broker is killed in the campaign.
    pub broker_restarts: bool,
    /// Defects that are figures here, and no failures.
    pub allowed: Vec<Defect>,
}

impl Options {
    pub fn new(row: &str, seed: u64) -> Self {
        let settings = [("kafka.consumer.session.timeout.ms", "6000"), ("kafka.consumer.heartbeat.interval.ms", "500")];
        Self {
            row: row.to_owned(),
            seed,
            hosts: 2,
            partitions: 8,
            keys: 500,
            records: 0,
            per_second: 4_000,
            preloaded: 0,
            poison_one_in: 0,
            static_members: true,
            settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            binary: None,
            variables: Vec::new(),
            proxied: false,
            broker_restarts: false,
            allowed: Vec::new(),
        }
    }

    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.insert(key.to_owned(), value.to_string());
        self
    }
}

/// Something that was done to a host or the broker.
#[derive(Debug, Clone)]
struct Fault {
    at_ms: u64,
    /// The partitions that it hit.
    partitions: BTreeSet<u32>,
}

/// A running campaign.
pub struct Campaign {
    pub options: Options,
    pub kafka: OwnKafka,
    pub hosts: Hosts,
    pub random: Random,
    figures: BTreeMap<String, u64>,
    defects: BTreeMap<String, u64>,
    proxy: Option<Proxy>,
    plan: Plan,
    folder: PathBuf,
    loader: Loader,
    witness: Witness,
    started: Instant,
    faults: Vec<Fault>,
}

/// Runs a campaign whose faults are `body`, and says how it went. Its folder stays when something was wrong.
pub fn run(options: &Options, body: impl FnOnce(&mut Campaign) -> Result<()>) -> Slice {
    slice(options, |slice| {
        slice.settings.insert("entries per second".to_owned(), options.per_second.to_string());
        let verdict = carry_through(options, body, slice)?;
        slice.records = verdict.records;
        for (defect, count) in verdict.counts() {
            let allowed = options.allowed.contains(&defect);
            let place = if allowed { &mut slice.figures } else { &mut slice.defects };
            place.insert(defect.name().to_owned(), count);
        }
        println!("{} seed {}: {verdict}", options.row, options.seed);
        Ok(())
    })
}

/// A slice around what is done, whatever its workload: its circumstances, and its failure where it has one.
pub fn slice(options: &Options, body: impl FnOnce(&mut Slice) -> Result<()>) -> Slice {
    let started = Instant::now();
    let load_before = load_average();
    let mut slice = Slice {
        row: options.row.clone(),
        seed: options.seed,
        settings: options.settings.clone(),
        sandbar: sandbar_version(),
        kafka: own_kafka::version().unwrap_or_else(|_| "unknown".to_owned()),
        ..Slice::default()
    };
    slice.settings.insert("static members".to_owned(), options.static_members.to_string());
    if let Err(error) = body(&mut slice) {
        let reason = format!("{error:#}");
        println!("{} seed {}: FAILED: {reason}", options.row, options.seed);
        slice.failure = Some(reason.lines().next().unwrap_or_default().chars().take(200).collect());
    }
    slice.seconds = started.elapsed().as_secs();
    slice.load_average = [load_before, load_average()];
    slice
}

fn carry_through(
    options: &Options,
    body: impl FnOnce(&mut Campaign) -> Result<()>,
    slice: &mut Slice,
) -> Result<Verdict> {
    let mut campaign = Campaign::start(options)?;
    let done = body(&mut campaign);
    slice.faults = campaign.faults.len() as u64;
    done?;
    campaign.finish(slice)
}

impl Campaign {
    fn start(options: &Options) -> Result<Self> {
        let name = format!("{}-{}", options.row.to_lowercase(), options.seed);
        let folder = hosts::scratch(&name)?;
        let listener = options.proxied.then(Proxy::bind).transpose()?;
        let proxy_port = listener.as_ref().map(|(port, _)| *port);
        let kafka = OwnKafka::start("chaos", &kafka_settings(options.broker_restarts), proxy_port)?;
        let proxy = listener.map(|(_, listener)| Proxy::start(listener, kafka.proxied_port()));
        let direct = Broker::Kafka(kafka.bootstrap());
        create_topics(&direct, &name, options)?;
        let bootstrap = proxy_port.map_or_else(|| kafka.bootstrap(), |port| format!("127.0.0.1:{port}"));
        let setup = Setup {
            application_id: name.clone(),
            guest: Guest::Ledger,
            bootstrap,
            folder: folder.clone(),
            partitions: options.partitions,
            settings: settings(&name, options),
            static_members: options.static_members,
            binary: options.binary.clone(),
            variables: options.variables.clone(),
        };
        let mut hosts = Hosts::new(setup, options.hosts)?;
        hosts.start_all()?;
        hosts.settle(0).context("before the first entry")?;
        let Options { seed, partitions, keys, poison_one_in, .. } = *options;
        let plan = Plan { seed, partitions, keys, poison_one_in, preloaded: 0 };
        let load = Load {
            bootstrap: kafka.bootstrap(),
            topic: hosts::input_topic(&name),
            plan,
            first: 0,
            entries: options.records.div_ceil(u64::from(options.partitions)),
            per_second: options.per_second,
        };
        let started = Instant::now();
        let outputs = [hosts::output_topic(&name, 0), hosts::output_topic(&name, 1)];
        let witness = Witness::start(&kafka.bootstrap(), &outputs, options.partitions, started)?;
        Ok(Self {
            options: options.clone(),
            random: Random::new(options.seed),
            figures: BTreeMap::new(),
            defects: BTreeMap::new(),
            loader: Loader::start(load),
            proxy,
            kafka,
            hosts,
            plan,
            folder,
            witness,
            started,
            faults: Vec::new(),
        })
    }

    /// Notes that something was done now that stops these partitions.
    pub fn fault(&mut self, partitions: BTreeSet<u32>) {
        let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.faults.push(Fault { at_ms, partitions });
    }

    /// Lets it run for a while; no host may end meanwhile.
    ///
    /// # Errors
    /// When one did.
    pub fn go_on(&mut self, time: Duration) -> Result<()> {
        const LOOK: Duration = Duration::from_millis(200);
        let until = Instant::now() + time;
        loop {
            self.hosts.check_all_alive()?;
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(());
            }
            std::thread::sleep(rest.min(LOOK));
        }
    }

    /// Kills a host and starts it again after a while.
    ///
    /// # Errors
    /// When it had ended by itself, or does not start.
    pub fn kill_and_restart(&mut self, number: usize, pause: Duration) -> Result<()> {
        let partitions = self.hosts.partitions_of(number);
        self.hosts.kill(number)?;
        self.fault(partitions);
        self.go_on(pause)?;
        self.hosts.start(number)
    }

    /// Adds to a figure of the row.
    pub fn count(&mut self, figure: &str, value: u64) {
        *self.figures.entry(figure.to_owned()).or_default() += value;
    }

    /// Notes defects that the row itself has found.
    pub fn defect(&mut self, kind: &str, count: u64) {
        *self.defects.entry(kind.to_owned()).or_default() += count;
    }

    /// What clients of the store have to know.
    ///
    /// # Errors
    /// When a host has no address.
    pub fn surroundings(&self, copies: bool) -> Result<Surroundings> {
        let directory = Directory::default();
        directory.set(self.hosts.addresses()?);
        Ok(Surroundings {
            application_id: format!("{}-{}", self.options.row.to_lowercase(), self.options.seed),
            directory,
            plan: self.plan,
            sent: self.loader.sent(),
            started: self.started,
            copies,
        })
    }

    /// Keeps the highest value of a figure, whose name begins with `max `.
    pub fn at_most(&mut self, figure: &str, value: u64) {
        let highest = self.figures.entry(figure.to_owned()).or_default();
        *highest = value.max(*highest);
    }

    /// What is between the hosts and the broker.
    ///
    /// # Errors
    /// When the options did not ask for it.
    pub fn proxy(&self) -> Result<Proxy> {
        self.proxy.clone().context("the campaign has no proxy")
    }

    fn finish(mut self, slice: &mut Slice) -> Result<Verdict> {
        let id = format!("{}-{}", self.options.row.to_lowercase(), self.options.seed);
        self.hosts.start_all()?;
        let entries = self.loader.finish()?;
        self.hosts.settle(entries * u64::from(self.plan.partitions)).context("after the last entry")?;
        let mut dumps = self.hosts.dumps("")?;
        dumps.extend(take_over(&mut self.hosts, entries * u64::from(self.plan.partitions))?);
        let mut recording = record(&self.kafka.bootstrap(), &id, &self.plan)?;
        for letter in &recording.dead_letters {
            *self.figures.entry(format!("dead letters: {}", letter.reason)).or_default() += 1;
        }
        recording.dumps = dumps;
        every_kind(&recording)?;
        let seen = self.witness.finish(&recording.ends)?;
        recording.witnessed = seen.outputs;
        let faults = &self.faults;
        slice.downtime_ms = faults
            .iter()
            .enumerate()
            .filter_map(|(index, fault)| {
                let until_ms = faults.get(index + 1).map_or(u64::MAX, |next| next.at_ms);
                downtime_ms(fault, until_ms, &seen.arrivals_ms)
            })
            .collect();
        slice.records_restored = self.hosts.records_restored();
        slice.figures = self.figures;
        slice.defects = self.defects;
        let verdict = checker::check(&recording);
        if slice.defects.is_empty() && verdict.counts().all(|(defect, _)| self.options.allowed.contains(&defect)) {
            std::fs::remove_dir_all(&self.folder).context("remove the campaign's folder")?;
        }
        Ok(verdict)
    }
}

/// The keys of the manifest.
fn settings(name: &str, options: &Options) -> BTreeMap<String, String> {
    let mut settings = options.settings.clone();
    if options.poison_one_in > 0 {
        settings.insert(poison::TOPIC_KEY.to_owned(), hosts::dead_letter_topic(name));
    }
    settings
}

fn create_topics(broker: &Broker, name: &str, options: &Options) -> Result<()> {
    let partitions = options.partitions;
    topics::create(broker, &hosts::input_topic(name), partitions)?;
    let (first, second) = (hosts::output_topic(name, 0), hosts::output_topic(name, 1));
    if options.poison_one_in == 0 {
        topics::create(broker, &first, partitions)?;
        return topics::create(broker, &second, partitions);
    }
    let size = format!("max.message.bytes={}", poison::MESSAGE_MAX_BYTES);
    // Compacted, so that it takes no record without a key; in this time nothing is compacted away.
    let compacted = ["cleanup.policy=compact", "min.compaction.lag.ms=86400000", &size];
    topics::create_with(broker, &first, partitions, &compacted)?;
    topics::create_with(broker, &second, partitions, &[&size])?;
    topics::create(broker, &hosts::dead_letter_topic(name), partitions)
}

/// Each host in turn takes over everything from its own state directory, and shows what it then has.
fn take_over(hosts: &mut Hosts, entries: u64) -> Result<Vec<Dump>> {
    let mut dumps = Vec::new();
    let count = hosts.slots.len();
    for alone in 0..count {
        for number in (0..count).filter(|number| *number != alone) {
            if hosts.slots[number].host.is_some() {
                hosts.terminate(number)?;
            }
        }
        if hosts.slots[alone].host.is_none() {
            hosts.start(alone)?;
        }
        hosts.settle(entries).with_context(|| format!("with host {alone} alone"))?;
        dumps.extend(hosts.dumps(" alone")?);
    }
    for number in 0..count {
        if hosts.slots[number].host.is_some() {
            hosts.terminate(number)?;
        }
    }
    Ok(dumps)
}

/// A campaign with poison has had some of each kind, where it is long enough for that.
fn every_kind(recording: &Recording) -> Result<()> {
    const ENTRIES: usize = 50_000;
    let kinds: Vec<Poison> = recording.input.iter().flatten().filter_map(|input| input.entry.poison).collect();
    let long_enough = !kinds.is_empty() && recording.input.iter().map(Vec::len).sum::<usize>() >= ENTRIES;
    match Poison::ALL.into_iter().find(|kind| long_enough && !kinds.contains(kind)) {
        Some(kind) => bail!("no entry is poison of the kind {}", kind.name()),
        None => Ok(()),
    }
}

/// Reads everything back, once all that was begun is ended.
fn record(bootstrap: &str, id: &str, plan: &Plan) -> Result<Recording> {
    let partitions = plan.partitions;
    let outputs = [hosts::output_topic(id, 0), hosts::output_topic(id, 1)];
    let (input, changelog) = (hosts::input_topic(id), hosts::changelog_topic(id));
    let dead_letters = (plan.poison_one_in > 0).then(|| hosts::dead_letter_topic(id));
    let mut names: Vec<(String, u32)> = outputs
        .iter()
        .chain([&input, &changelog])
        .chain(&dead_letters)
        .map(|topic| (topic.clone(), partitions))
        .collect();
    names.push(("__consumer_offsets".to_owned(), OFFSETS_PARTITIONS));
    let ends = stable_ends(bootstrap, &names)?;
    let mut recording = Recording { input: vec![Vec::new(); partitions as usize], ..Recording::default() };
    let mut seen = Seen::new(partitions);
    Reader::new(bootstrap, &outputs, partitions)?.read_to_end(&ends, |topic, record| seen.add(topic, record, None))?;
    recording.outputs = seen.outputs;
    if let Some(topic) = dead_letters {
        Reader::new(bootstrap, &[topic], partitions)?.read_to_end(&ends, |_, record| {
            recording.dead_letters.push(DeadLetter::read(record)?);
            Ok(())
        })?;
    }
    recording.input_topic.clone_from(&input);
    let topics = [input, changelog];
    Reader::new(bootstrap, &topics, partitions)?.read_to_end(&ends, |topic, record| {
        let key = record.key().context("a record without a key")?;
        if topic == 0 {
            let timestamp = record.timestamp().to_millis().context("an entry without a timestamp")?;
            let input = Input::parse(timestamp, key, record.payload().unwrap_or_default())?;
            let partition = usize::try_from(record.partition())?;
            recording.input.get_mut(partition).context("a partition too many")?.push(input);
            return Ok(());
        }
        let key: Key = Key::parse(key)?;
        match record.payload() {
            Some(value) => recording.changelog.insert(key, Balance::parse(value)?),
            None => recording.changelog.remove(&key),
        };
        Ok(())
    })?;
    recording.ends = ends;
    Ok(recording)
}

/// The ends of the logs, once readers of committed records can read all of them, or the time is over.
///
/// # Errors
/// When the broker does not answer.
pub fn stable_ends(bootstrap: &str, topics: &[(String, u32)]) -> Result<Vec<LogEnd>> {
    let ends = wait_until(STABLE_LIMIT, || {
        let ends = log_ends(bootstrap, topics)?;
        anyhow::ensure!(ends.iter().all(|end| end.last_stable == end.end), "a transaction hangs");
        Ok(ends)
    });
    // The checker says which, as a defect.
    ends.or_else(|_| log_ends(bootstrap, topics))
}

/// The longest time without anything new from a partition that the fault hit.
fn downtime_ms(fault: &Fault, until_ms: u64, arrivals_ms: &[Vec<u64>]) -> Option<u64> {
    let of_partition = |partition: &u32| {
        let times = arrivals_ms.get(*partition as usize)?;
        let after = times.partition_point(|at_ms| *at_ms <= fault.at_ms);
        let pairs = times.windows(2).skip(after.saturating_sub(1)).take_while(|pair| pair[0] < until_ms);
        pairs.map(|pair| pair[1] - pair[0].max(fault.at_ms)).max()
    };
    fault.partitions.iter().filter_map(of_partition).max()
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// The last commit that changed the host, as far as git knows.
fn sandbar_version() -> String {
    let mut command = Command::new("git");
    let output = command.args(["log", "-1", "--format=%h", "--", "host"]).current_dir(repository::root()).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    if text.is_empty() { "unknown".to_owned() } else { text }
}

#[cfg(test)]
mod tests;
