//! Row G3: versions of the guest `versions` take over from each other while entries flow, with hosts killed, bad
//! versions and hosts that join. Carries a campaign through and reads its topics back; what is done to it is the
//! rows', and what came of it is for `judge` to say.

pub mod bad;
pub mod bench;
pub mod judge;
pub mod migrating;
pub mod self_test;

mod commits;
mod deploying;
mod watching;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::host::wait_until;
use e2e::own_kafka::OwnKafka;
use e2e::repository;
use e2e::topics::{self, Broker};
use rdkafka::message::Message;
use serde_json::Value;

use self::commits::Commit;
use self::deploying::{Deployer, LABEL, Version};
use self::judge::{Counts, Known, Recording, judge};
use self::watching::{Sampler, Witness, parse_output};
use crate::asking::Directory;
use crate::campaign::{Options, kafka_settings, stable_ends};
use crate::checker::{ByPartition, LogEnd};
use crate::clients::{Load, Loader, Reader};
use crate::hosts::{self, Guest, Hosts, Setup};
use crate::random::Random;
use crate::results::Slice;
use crate::workload::{Key, Plan};

pub const STORES: [&str; 2] = ["counts", "last"];
const OFFSETS: &str = "__consumer_offsets";
const OFFSETS_PARTITIONS: u32 = 4;

/// More than any loader writes.
const PRELOADED_PER_SECOND: u64 = 1_000_000_000;

/// How long tasks may take until all of them run what was deployed.
pub const SWAP_LIMIT: Duration = Duration::from_secs(20);

/// A running campaign.
pub struct Campaign {
    pub options: Options,
    pub name: String,
    pub kafka: OwnKafka,
    pub hosts: Hosts,
    pub random: Random,
    pub deployer: Deployer,
    pub directory: Directory,
    /// The good ones, which take turns.
    modules: [Vec<u8>; 2],
    turn: usize,
    labels: u64,
    /// Labels of versions that forward nothing or too much.
    spoiling: Vec<u64>,
    plan: Plan,
    /// Until the load has ended.
    loader: Option<Loader>,
    entries: u64,
    /// Whether the counts have the schema of the migrating version.
    is_migrated: bool,
    witness: Option<Witness>,
    sampler: Option<Sampler>,
    pub figures: BTreeMap<String, u64>,
    pub defects: BTreeMap<String, u64>,
    pub faults: u64,
}

/// Runs a campaign whose faults are `body`. Its folder stays when something was wrong. `running` hosts of the options'
/// are started.
///
/// # Errors
/// When it could not be carried through.
pub fn carry_through(
    options: &Options,
    running: usize,
    slice: &mut Slice,
    body: impl FnOnce(&mut Campaign) -> Result<()>,
) -> Result<()> {
    let mut campaign = Campaign::start(options, running)?;
    let done = body(&mut campaign);
    slice.faults = campaign.faults;
    if done.is_err() {
        campaign.tell_logs();
    }
    done?;
    campaign.finish(slice)
}

/// A test guest's module.
///
/// # Errors
/// When it was not built.
pub fn module(name: &str) -> Result<Vec<u8>> {
    let path = repository::target().join(format!("guests/{name}.wasm"));
    std::fs::read(&path).with_context(|| format!("{} is not there; run `make guests`", path.display()))
}

impl Campaign {
    fn start(options: &Options, running: usize) -> Result<Self> {
        let name = format!("{}-{}", options.row.to_lowercase(), options.seed);
        let folder = hosts::scratch(&name)?;
        let kafka = OwnKafka::start("swaps", &kafka_settings(false), None)?;
        let bootstrap = kafka.bootstrap();
        let partitions = options.partitions;
        create_topics(&Broker::Kafka(bootstrap.clone()), &name, options)?;
        let mut settings = options.settings.clone();
        settings.insert(LABEL.to_owned(), "0".to_owned());
        let setup = Setup {
            application_id: name.clone(),
            guest: Guest::Versions,
            bootstrap: bootstrap.clone(),
            folder,
            partitions,
            settings,
            static_members: options.static_members,
            binary: options.binary.clone(),
            variables: options.variables.clone(),
        };
        let mut hosts = Hosts::new(setup, options.hosts)?;
        (0..running).try_for_each(|number| hosts.start(number))?;
        hosts.settle(0).context("before the first entry")?;
        let directory = Directory::default();
        directory.set(hosts.addresses()?);
        let deployer = Deployer::new(&name, directory.clone(), options.seed)?;
        let Options { seed, keys, preloaded, .. } = *options;
        let plan = Plan { seed, partitions, keys, poison_one_in: 0, preloaded };
        let load = match preloaded {
            0 => load(options, &name, &bootstrap, plan, 0),
            // As fast as they go, and for now no others.
            _ => Load {
                entries: u64::from(preloaded),
                per_second: PRELOADED_PER_SECOND,
                ..load(options, &name, &bootstrap, plan, 0)
            },
        };
        Ok(Self {
            options: options.clone(),
            random: Random::new(options.seed),
            modules: [module("versions-b")?, module("versions")?],
            turn: 0,
            labels: 0,
            spoiling: Vec::new(),
            loader: Some(Loader::start(load)),
            entries: 0,
            is_migrated: false,
            witness: Some(Witness::start(&bootstrap, output_topic(&name), partitions)?),
            sampler: Some(Sampler::start(&name, directory.clone())),
            name,
            kafka,
            hosts,
            deployer,
            directory,
            plan,
            figures: BTreeMap::new(),
            defects: BTreeMap::new(),
            faults: 0,
        })
    }

    /// Adds to a figure of the row.
    pub fn count(&mut self, figure: &str, value: u64) {
        *self.figures.entry(figure.to_owned()).or_default() += value;
    }

    /// Keeps the highest value of a figure, whose name begins with `max `.
    pub fn at_most(&mut self, figure: &str, value: u64) {
        let highest = self.figures.entry(figure.to_owned()).or_default();
        *highest = value.max(*highest);
    }

    /// Notes a defect that the row itself has found.
    pub fn defect(&mut self, kind: &str, what: &str) {
        println!("  {kind}: {what}");
        *self.defects.entry(kind.to_owned()).or_default() += 1;
    }

    /// Lets it run for a while; no host may end meanwhile.
    ///
    /// # Errors
    /// When one did.
    pub fn go_on(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            self.hosts.check_all_alive()?;
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(());
            }
            std::thread::sleep(rest.min(Duration::from_millis(200)));
        }
    }

    /// A version with a label of its own.
    pub fn version(&mut self, module: Vec<u8>, settings: &[(&str, &str)]) -> Version {
        self.labels += 1;
        let mut own: BTreeMap<String, String> =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        own.insert(LABEL.to_owned(), self.labels.to_string());
        Version { module, settings: own, without_probation: false }
    }

    /// The module of the next good version.
    pub fn next_module(&mut self) -> Vec<u8> {
        self.turn += 1;
        self.modules[(self.turn - 1) % 2].clone()
    }

    /// Outputs of the version that was made last may be missing or several.
    pub fn note_spoiling(&mut self) {
        self.spoiling.push(self.labels);
    }

    /// Deploys the other of two good versions, which must succeed; gives its number. Does not wait for its tasks.
    ///
    /// # Errors
    /// When it was refused.
    pub fn swap(&mut self) -> Result<u64> {
        let module = self.next_module();
        let version = self.version(module, &[]);
        self.deploy_good(&version)
    }

    /// As `swap`, with this version.
    ///
    /// # Errors
    /// As `swap`.
    pub fn deploy_good(&mut self, version: &Version) -> Result<u64> {
        let deployed = self.deployer.deploy(version)?;
        let answer = &deployed.answer;
        ensure!(
            matches!(answer.status, 200 | 201),
            "a good version was refused: {} {}",
            answer.status,
            answer.document
        );
        let number = answer.document["number"].as_u64().with_context(|| format!("no number in {}", answer.document))?;
        self.faults += 1;
        self.at_most("max ms of a deploy", deployed.took_us / 1_000);
        self.count("deploys put off", deployed.put_off);
        Ok(number)
    }

    /// Waits until all tasks run a version; gives the time since then, in microseconds.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_tasks(&mut self, number: u64, since: Instant) -> Result<u64> {
        let count = self.options.partitions as usize;
        self.deployer.wait_tasks(number, count, since, SWAP_LIMIT)
    }

    /// Kills a host and starts it again after a moment.
    ///
    /// # Errors
    /// When it had ended by itself, or does not start.
    pub fn kill_and_restart(&mut self, number: usize) -> Result<()> {
        self.hosts.kill(number)?;
        self.directory.set(self.hosts.addresses()?);
        std::thread::sleep(Duration::from_millis(self.random.below(500)));
        self.hosts.start(number)?;
        self.directory.set(self.hosts.addresses()?);
        self.count("kills", 1);
        Ok(())
    }

    /// Starts a host that does not run.
    ///
    /// # Errors
    /// When its process cannot be started.
    pub fn start_host(&mut self, number: usize) -> Result<()> {
        self.hosts.start(number)?;
        self.directory.set(self.hosts.addresses()?);
        Ok(())
    }

    /// Entries that all tasks together have committed.
    pub fn committed(&self) -> u64 {
        self.hosts.committed()
    }

    /// Ends the load, and waits until everything is committed.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn quiet(&mut self) -> Result<()> {
        if let Some(loader) = self.loader.take() {
            self.entries = loader.finish()?;
        }
        self.hosts.settle(self.entries * u64::from(self.plan.partitions)).context("after the last entry")
    }

    /// Lets entries flow again after `quiet`.
    pub fn load_again(&mut self) {
        let load = load(&self.options, &self.name, &self.kafka.bootstrap(), self.plan, self.entries);
        self.loader = Some(Loader::start(load));
    }

    /// Everything that a refused deployment must leave as it is: the rows of the stores, and what is `around` them.
    ///
    /// # Errors
    /// When a host or the broker has no answer.
    pub fn state(&mut self) -> Result<Value> {
        let mut state = self.around()?;
        for (number, host) in self.hosts.numbered() {
            for store in STORES {
                let rows = host.entries(store, "&value_format=hex")?;
                state[format!("host {number} {store}")] = serde_json::to_value(rows)?;
            }
        }
        Ok(state)
    }

    /// The ends of all topics, changelogs among them, and what is said of versions and tasks.
    ///
    /// # Errors
    /// When a host or the broker has no answer.
    pub fn around(&mut self) -> Result<Value> {
        let mut state = serde_json::Map::new();
        for (number, host) in self.hosts.numbered() {
            let (_, versions) = host.get(&format!("/v1/apps/{}/versions", self.name))?;
            state.insert(format!("host {number} versions"), versions);
        }
        let mut topics: Vec<(String, u32)> =
            self.topics().into_iter().map(|topic| (topic, self.plan.partitions)).collect();
        topics.push((format!("{}-sandbar-versions", self.name), 1));
        topics.push((OFFSETS.to_owned(), OFFSETS_PARTITIONS));
        for end in crate::clients::log_ends(&self.kafka.bootstrap(), &topics)? {
            state.insert(end.partition, Value::from(end.end));
        }
        let mut tasks = Vec::new();
        for address in self.directory.all() {
            // The connection may have been idle for so long that the host has closed it.
            let first = self.deployer.tasks_of(address, 1);
            let of_host = first.or_else(|| self.deployer.tasks_of(address, 1)).context("a host does not answer")?;
            tasks.extend(of_host.into_iter().map(|task| format!("{} {}", task.name, task.version)));
        }
        tasks.sort();
        state.insert("tasks".to_owned(), Value::from(tasks));
        Ok(Value::Object(state))
    }

    /// Input, output and changelogs, that of the counts first, and the one that they had before a migration last.
    fn topics(&self) -> Vec<String> {
        let mut topics = vec![hosts::input_topic(&self.name), output_topic(&self.name)];
        if self.is_migrated {
            topics.push(format!("{}-{}-v2-changelog", self.name, STORES[0]));
            topics.push(format!("{}-{}-changelog", self.name, STORES[1]));
            topics.push(format!("{}-{}-changelog", self.name, STORES[0]));
            return topics;
        }
        topics.extend(STORES.map(|store| format!("{}-{store}-changelog", self.name)));
        topics
    }

    fn tell_logs(&self) {
        for (number, _) in self.hosts.numbered() {
            println!("  the log of host {number} ends so:\n{}", hosts::end_of(&self.hosts.log_of(number)));
        }
    }

    fn finish(mut self, slice: &mut Slice) -> Result<()> {
        self.hosts.start_all()?;
        self.directory.set(self.hosts.addresses()?);
        self.quiet()?;
        let mut recording = self.record()?;
        recording.shown = self.sampler.take().context("the sampler is gone")?.finish()?;
        recording.witnessed = self.witness.take().context("the witness is gone")?.finish(&recording.ends)?;
        let verdict = judge(&recording);
        verdict.findings.examples.iter().for_each(|example| println!("  {example}"));
        slice.records = verdict.records;
        self.count("partitions switched", verdict.switches);
        self.count("reports compared with commits", verdict.compared);
        if !self.spoiling.is_empty() {
            self.count("entries of versions that spoil outputs", verdict.spoiled);
        }
        slice.records_restored = self.hosts.records_restored();
        slice.figures = std::mem::take(&mut self.figures);
        slice.defects = std::mem::take(&mut self.defects);
        for (kind, count) in verdict.findings.counts {
            *slice.defects.entry(kind.to_owned()).or_default() += count;
        }
        match slice.defects.is_empty() {
            true => self.hosts.clear(),
            false => {
                self.tell_logs();
                Ok(())
            }
        }
    }

    /// Reads everything back, once all that was begun is ended.
    fn record(&mut self) -> Result<Recording> {
        let (bootstrap, partitions) = (self.kafka.bootstrap(), self.plan.partitions);
        let mut names: Vec<(String, u32)> = self.topics().into_iter().map(|topic| (topic, partitions)).collect();
        names.push((OFFSETS.to_owned(), OFFSETS_PARTITIONS));
        let ends = stable_ends(&bootstrap, &names)?;
        let mut recording = Recording {
            input: vec![Vec::new(); partitions as usize],
            outputs: vec![Vec::new(); partitions as usize],
            versions: self.known()?,
            ..Recording::default()
        };
        recording.commits = self.commits(&ends)?;
        let mut changelog = Counts { name: "the changelog".to_owned(), ..Counts::default() };
        changelog.partitions = (0..partitions).collect();
        let mut older = Counts { name: "the older changelog".to_owned(), ..changelog.clone() };
        let is_migrated = self.is_migrated;
        let mut topics = self.topics();
        // That of the other store says nothing here.
        topics.remove(3);
        Reader::new(&bootstrap, &topics, partitions)?.read_to_end(&ends, |topic, record| {
            let partition = usize::try_from(record.partition())?;
            let key = record.key().context("a record without a key")?;
            match topic {
                0 => recording.input[partition].push(Key::parse(key)?),
                1 => recording.outputs[partition].push(parse_output(record)?),
                _ => {
                    let is_newer = topic == 2;
                    let counts = if is_newer { &mut changelog } else { &mut older };
                    match record.payload() {
                        Some(value) => counts.rows.insert(Key::parse(key)?, count_of(value, is_newer && is_migrated)?),
                        None => counts.rows.remove(&Key::parse(key)?),
                    };
                }
            }
            Ok(())
        })?;
        recording.counts = self.stores()?;
        recording.counts.push(changelog);
        if is_migrated {
            // It is said until something has changed the rows.
            let since = |commits: &Vec<Commit>| commits.iter().find_map(|commit| commit.schema_since);
            let at = recording.commits.iter().map(|of_partition| usize::try_from(since(of_partition)?).ok());
            recording.migrated_at = at.collect::<Option<_>>().context("a commit without the start of its schema")?;
            recording.older = Some(older);
        }
        recording.ends = ends;
        Ok(recording)
    }

    /// What was committed of each partition, in its order.
    fn commits(&self, ends: &[LogEnd]) -> Result<ByPartition<Commit>> {
        let mut found = vec![Vec::new(); self.plan.partitions as usize];
        let input = hosts::input_topic(&self.name);
        let mut reader = Reader::new(&self.kafka.bootstrap(), &[OFFSETS.to_owned()], OFFSETS_PARTITIONS)?;
        reader.read_to_end(ends, |_, record| {
            let Some(key) = record.key() else { return Ok(()) };
            let Some((topic, partition, commit)) = commits::parse(&self.name, key, record.payload())? else {
                return Ok(());
            };
            ensure!(topic == input, "an offset of {topic} was committed");
            found.get_mut(partition as usize).context("a partition too many")?.push(commit);
            Ok(())
        })?;
        Ok(found)
    }

    /// The versions with their labels, as the hosts list them.
    fn known(&mut self) -> Result<BTreeMap<u64, Known>> {
        let version = |document: &Value| {
            let number = document["number"].as_u64().context("a version without a number")?;
            let label = document["manifest"][LABEL].as_str().and_then(|label| label.parse().ok());
            let label = label.with_context(|| format!("version {number} has no label: {}", document["manifest"]))?;
            Ok((number, Known { label, spoils: self.spoiling.contains(&label) }))
        };
        self.deployer.list()?.iter().map(version).collect()
    }

    /// The counts that each host has.
    fn stores(&self) -> Result<Vec<Counts>> {
        let of_host = |(number, host): (usize, &e2e::host::Host)| {
            wait_until(SWAP_LIMIT, || {
                let partitions = host.application()?.running_partitions();
                if partitions.is_empty() {
                    return Ok(Counts { name: format!("host {number}"), ..Counts::default() });
                }
                let list: Vec<String> = partitions.iter().map(u32::to_string).collect();
                let entries = host.entries(STORES[0], &format!("&value_format=hex&partitions={}", list.join(",")))?;
                let row = |(key, value): (String, Value)| {
                    let text = value.as_str().context("a row without text")?;
                    Ok((Key::parse(key.as_bytes())?, count_of(&bytes_of(text)?, self.is_migrated)?))
                };
                let rows = entries.into_iter().map(row).collect::<Result<_>>()?;
                Ok(Counts { name: format!("host {number}"), partitions: partitions.into_iter().collect(), rows })
            })
        };
        self.hosts.numbered().map(of_host).collect()
    }
}

fn create_topics(broker: &Broker, name: &str, options: &Options) -> Result<()> {
    topics::create(broker, &hosts::input_topic(name), options.partitions)?;
    let output = output_topic(name);
    if options.row.starts_with("bench") {
        return topics::create_with(broker, &output, options.partitions, &["message.timestamp.type=LogAppendTime"]);
    }
    // Compacted, so that it takes no record without a key; in this time nothing is compacted away.
    let settings = ["cleanup.policy=compact", "min.compaction.lag.ms=86400000"];
    topics::create_with(broker, &output, options.partitions, &settings)
}

/// Entries from one on in each partition, at the campaign's rate.
fn load(options: &Options, name: &str, bootstrap: &str, plan: Plan, first: u64) -> Load {
    let (bootstrap, topic, per_second) = (bootstrap.to_owned(), hosts::input_topic(name), options.per_second);
    Load { bootstrap, topic, plan, first, entries: first, per_second }
}

/// The topic of the guest's one sink.
pub fn output_topic(application_id: &str) -> String {
    format!("{application_id}-out")
}

/// The bytes of hexadecimal digits.
fn bytes_of(text: &str) -> Result<Vec<u8>> {
    let digits = |at: usize| text.get(at..at + 2).context("half a byte");
    (0..text.len()).step_by(2).map(|at| Ok(u8::from_str_radix(digits(at)?, 16)?)).collect()
}

/// A count as the store has it: eight bytes, or text once it is migrated.
fn count_of(value: &[u8], is_text: bool) -> Result<u64> {
    if is_text {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() < 8);
        return text.and_then(|text| text.parse().ok()).with_context(|| format!("a migrated count is {value:?}"));
    }
    match value.try_into() {
        Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
        Err(_) => bail!("a count has 8 bytes, found {}", value.len()),
    }
}

/// What slices of these rows came to, in one line.
pub fn summary(slices: &[Slice]) -> String {
    let figure = |name: &str| slices.iter().filter_map(|slice| slice.figures.get(name)).sum::<u64>();
    let defect = |name: &str| slices.iter().filter_map(|slice| slice.defects.get(name)).sum::<u64>();
    let records: u64 = slices.iter().map(|slice| slice.records).sum();
    let named = ["lost", "duplicated", "wrong version"];
    let all: u64 = slices.iter().flat_map(|slice| slice.defects.values()).sum();
    let others = all - named.iter().map(|name| defect(name)).sum::<u64>();
    format!(
        "chaos: swaps: {} swaps, {} kills, {} bad versions refused and {} rolled back by themselves, {} refusals that \
         changed nothing, {} hosts joined; {records} records, {} lost, {} doubled, {} of a wrong version, {others} other \
         defects, {} failed",
        figure("swaps"),
        figure("kills"),
        figure("bad versions refused"),
        figure("bad versions rolled back"),
        figure("refusals that changed nothing"),
        figure("hosts that joined and ran what is active"),
        defect("lost"),
        defect("duplicated"),
        defect("wrong version"),
        slices.iter().filter(|slice| slice.failure.is_some()).count(),
    )
}
