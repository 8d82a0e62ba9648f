//! The hosts of a campaign: processes of `sandbar run` with a state directory each, ended by signals and started again
//! on it. Keeps count of what ended processes had restored. An end that nobody asked for is an error with the host's
//! log.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::host::{Host, Options, wait_until};
use e2e::repository;
use e2e::topics::Broker;

use crate::checker::Dump;
use crate::workload::{Balance, Key, STORE};

/// How long hosts may take until all tasks run and everything is committed.
const SETTLE_LIMIT: Duration = Duration::from_secs(150);

/// How long an orderly end may take (row H2).
pub const END_LIMIT: Duration = Duration::from_secs(10);

/// The module that the hosts of a campaign run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// Keeps the balances of entries, and tells every one of them to two outputs.
    Ledger,
    /// Keeps the last value of every key, which REST clients write.
    Register,
    /// Counts the records of each key, and says of every count which version has made it.
    Versions,
}

impl Guest {
    fn file(self) -> &'static str {
        match self {
            Self::Ledger => "guests/ledger.wasm",
            Self::Register => "guests/register.wasm",
            Self::Versions => "guests/versions.wasm",
        }
    }

    /// The keys of the manifest that name its topics.
    fn settings(self, id: &str) -> Vec<(&'static str, String)> {
        match self {
            Self::Ledger => vec![
                ("sources.entries.topic", input_topic(id)),
                ("sinks.first.topic", output_topic(id, 0)),
                ("sinks.second.topic", output_topic(id, 1)),
            ],
            Self::Register => {
                vec![("sources.in.topic", input_topic(id)), ("stores.values.write.source", "in".to_owned())]
            }
            Self::Versions => vec![("sources.in.topic", input_topic(id)), ("sinks.out.topic", format!("{id}-out"))],
        }
    }
}

/// How the hosts of a campaign are set up.
#[derive(Debug, Clone)]
pub struct Setup {
    pub application_id: String,
    pub guest: Guest,
    pub bootstrap: String,
    pub folder: PathBuf,
    pub partitions: u32,
    /// Keys of the manifest, the same for all hosts.
    pub settings: BTreeMap<String, String>,
    /// `group.instance.id` for each host: a restart keeps its partitions.
    pub static_members: bool,
    /// Another binary than the usual one.
    pub binary: Option<PathBuf>,
    /// Variables of the environment of all hosts.
    pub variables: Vec<(String, String)>,
}

/// One host, whether its process runs or not.
pub struct Slot {
    pub number: usize,
    pub host: Option<Host>,
    /// Variables for its next start.
    pub variables: Vec<(String, String)>,
    /// How often another took its identity, each time in a directory of its own.
    doubles: u64,
    restored: u64,
    pub starts: u64,
}

/// All hosts of the campaign.
pub struct Hosts {
    setup: Setup,
    manifest: PathBuf,
    pub slots: Vec<Slot>,
}

impl Hosts {
    /// Writes the manifest; starts nothing.
    ///
    /// # Errors
    /// When the test guest was not built, or the disk refuses.
    pub fn new(setup: Setup, count: usize) -> Result<Self> {
        let module = repository::target().join(setup.guest.file());
        ensure!(module.is_file(), "{} is not there; run `make guests`", module.display());
        let manifest = setup.folder.join("sandbar.toml");
        let id = &setup.application_id;
        let text = format!("application.id = \"{id}\"\nmodule = \"{}\"\n", module.display());
        std::fs::write(&manifest, text).with_context(|| format!("cannot write {}", manifest.display()))?;
        let slot = |number| Slot { number, host: None, variables: Vec::new(), doubles: 0, restored: 0, starts: 0 };
        Ok(Self { setup, manifest, slots: (0..count).map(slot).collect() })
    }

    /// The state directory of a host.
    fn state_dir(&self, number: usize) -> PathBuf {
        let doubles = self.slots[number].doubles;
        let copy = if doubles == 0 { String::new() } else { format!("-{doubles}") };
        self.setup.folder.join(format!("host-{number}{copy}"))
    }

    /// Sets a key of the manifest for further starts.
    pub fn set(&mut self, key: &str, value: &str) {
        self.setup.settings.insert(key.to_owned(), value.to_owned());
    }

    /// Starts a second host with the identity of a running one, and gives the older one back.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_double(&mut self, number: usize) -> Result<Host> {
        self.note_restored(number);
        let Some(older) = self.slots[number].host.take() else { bail!("host {number} does not run") };
        let id = Path::new(&self.setup.application_id).join(".host-id");
        let identity = self.state_dir(number).join(&id);
        self.slots[number].doubles += 1;
        let copy = self.state_dir(number).join(&id);
        std::fs::create_dir_all(copy.parent().context("a folder above the identity")?)?;
        std::fs::copy(&identity, &copy).with_context(|| format!("cannot copy {}", identity.display()))?;
        self.start(number)?;
        Ok(older)
    }

    /// Starts a host that does not run; it is not ready yet.
    ///
    /// # Errors
    /// When its process cannot be started.
    pub fn start(&mut self, number: usize) -> Result<()> {
        let broker = Broker::Kafka(self.setup.bootstrap.clone());
        let state_dir = self.state_dir(number);
        let slot = &mut self.slots[number];
        let id = &self.setup.application_id;
        let mut options = Options::new(&self.manifest, &broker, id, &state_dir);
        for (key, value) in self.setup.guest.settings(id) {
            options = options.set(key, &value);
        }
        for (key, value) in &self.setup.settings {
            options = options.set(key, value);
        }
        if self.setup.static_members {
            options = options.set("group.instance.id", &format!("host-{number}"));
        }
        for (name, value) in slot.variables.drain(..).chain(self.setup.variables.iter().cloned()) {
            options = options.variable(&name, &value);
        }
        options.binary.clone_from(&self.setup.binary);
        slot.host = Some(Host::start(&options)?);
        slot.starts += 1;
        Ok(())
    }

    /// The partitions that a host processes; none where it does not say.
    pub fn partitions_of(&self, number: usize) -> BTreeSet<u32> {
        let application = self.slots[number].host.as_ref().and_then(|host| host.application().ok());
        application.map(|application| application.running_partitions()).unwrap_or_default()
    }

    /// Takes note of what a host had restored, before it is ended.
    fn note_restored(&mut self, number: usize) {
        let slot = &mut self.slots[number];
        let application = slot.host.as_ref().and_then(|host| host.application().ok());
        slot.restored += application.map_or(0, |application| application.records_restored());
    }

    /// Changelog records that a running host has restored since its start.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn restored_by(&self, number: usize) -> Result<u64> {
        let host = self.slots[number].host.as_ref().context("the host does not run")?;
        Ok(host.application()?.records_restored())
    }

    /// Fails unless each of two hosts has tasks, and warm copies of all tasks of the other one.
    ///
    /// # Errors
    /// What is missing.
    pub fn check_warm(&self) -> Result<()> {
        let applications: Vec<_> = self.running().map(Host::application).collect::<Result<_>>()?;
        ensure!(applications.len() == 2, "{} hosts run", applications.len());
        for (application, other) in applications.iter().zip(applications.iter().rev()) {
            let (active, warm) = (other.running_tasks(), application.following_tasks());
            ensure!(!active.is_empty() && active == warm, "{warm:?} are warm and {active:?} are active elsewhere");
        }
        Ok(())
    }

    /// The binary of further starts.
    pub fn set_binary(&mut self, binary: Option<PathBuf>) {
        self.setup.binary = binary;
    }

    /// Changelog records that all processes together have restored, up to their last word.
    pub fn records_restored(&self) -> u64 {
        self.slots.iter().map(|slot| slot.restored).sum()
    }

    /// Ends a host by SIGKILL.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.note_restored(number);
        let slot = &mut self.slots[number];
        let Some(mut host) = slot.host.take() else { bail!("host {number} does not run") };
        check_alive(number, &mut host)?;
        host.kill()
    }

    /// Ends a host by SIGTERM, which must succeed in time; gives the time it took.
    ///
    /// # Errors
    /// When it ends with a failure or too late.
    pub fn terminate(&mut self, number: usize) -> Result<Duration> {
        self.note_restored(number);
        let slot = &mut self.slots[number];
        let Some(mut host) = slot.host.take() else { bail!("host {number} does not run") };
        check_alive(number, &mut host)?;
        let started = Instant::now();
        host.signal("TERM")?;
        let status = host.wait(END_LIMIT + Duration::from_secs(5))?;
        let took = started.elapsed();
        // Before its first word it has no handler, and nothing to end.
        let unborn = status.code().is_none() && host.log().is_empty();
        ensure!(
            status.success() || unborn,
            "host {number} ended with {status} after SIGTERM:\n{}",
            end_of(&host.log())
        );
        ensure!(took <= END_LIMIT, "host {number} took {took:?} to end");
        Ok(took)
    }

    /// Ends a host by SIGKILL, however it is.
    ///
    /// # Errors
    /// When its process cannot be waited for.
    pub fn stop_hard(&mut self, number: usize) -> Result<()> {
        self.note_restored(number);
        self.slots[number].host.take().map_or(Ok(()), |mut host| host.kill())
    }

    /// Lets go of a host that has ended.
    pub fn forget(&mut self, number: usize) {
        self.slots[number].host = None;
    }

    /// Sends a signal to a host.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, number: usize, name: &str) -> Result<()> {
        self.slots[number].host.as_ref().context("the host does not run")?.signal(name)
    }

    /// The state of a host's application in one word.
    pub fn state_of(&self, number: usize) -> String {
        let apps = self.slots[number].host.as_ref().and_then(|host| host.get("/v1/apps").ok());
        let state = apps.as_ref().and_then(|(_, body)| body["apps"][0]["state"].as_str());
        state.unwrap_or("starting").to_owned()
    }

    /// The sum of a metric over all threads of a host, of the series with this label.
    ///
    /// # Errors
    /// When the host does not answer, or shows no such series.
    pub fn metric(&self, number: usize, name: &str, label: &str) -> Result<u64> {
        let host = self.slots[number].host.as_ref().context("the host does not run")?;
        let (_, body) = host.get("/metrics")?;
        let text = body.as_str().context("the metrics are no text")?;
        let series = text.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        let values: Vec<u64> = series.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        ensure!(!values.is_empty(), "host {number} shows no {name} with {label:?}");
        Ok(values.iter().sum())
    }

    pub fn process_ids(&self) -> Vec<u32> {
        self.running().map(Host::process_id).collect()
    }

    /// Entries that the running hosts' tasks have committed.
    pub fn committed(&self) -> u64 {
        let topic = input_topic(&self.setup.application_id);
        self.running().filter_map(|host| Some(host.application().ok()?.committed(&topic))).sum()
    }

    /// The status of a host that has ended by itself.
    ///
    /// # Errors
    /// When its process cannot be asked.
    pub fn ended(&mut self, number: usize) -> Result<Option<ExitStatus>> {
        self.slots[number].host.as_mut().map_or(Ok(None), Host::ended)
    }

    /// Fails when a host ended that nobody ended.
    ///
    /// # Errors
    /// Its status and the end of its log.
    pub fn check_all_alive(&mut self) -> Result<()> {
        for slot in &mut self.slots {
            if let Some(host) = &mut slot.host {
                check_alive(slot.number, host)?;
            }
        }
        Ok(())
    }

    /// Starts every host that does not run.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_all(&mut self) -> Result<()> {
        (0..self.slots.len())
            .filter(|number| self.slots[*number].host.is_none())
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|number| self.start(number))
    }

    /// Waits until the running hosts process all partitions, each on one of them, and have committed so many entries.
    ///
    /// # Errors
    /// When that takes too long, or a host ends.
    pub fn settle(&mut self, entries: u64) -> Result<()> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            self.check_all_alive()?;
            let found = self.settled(entries);
            match found {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    let logs: Vec<String> = self.running().map(|host| end_of(&host.log())).collect();
                    return Err(error.context(format!("after {SETTLE_LIMIT:?}\n{}", logs.join("\n---\n"))));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn running(&self) -> impl Iterator<Item = &Host> {
        self.slots.iter().filter_map(|slot| slot.host.as_ref())
    }

    /// The running hosts with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &Host)> {
        self.slots.iter().filter_map(|slot| Some((slot.number, slot.host.as_ref()?)))
    }

    /// Where the running hosts answer.
    ///
    /// # Errors
    /// When one has no such address.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let address = |host: &Host| Ok(host.url.strip_prefix("http://").context("no address")?.parse()?);
        self.running().map(address).collect()
    }

    /// Ends all hosts and removes the campaign's folder.
    ///
    /// # Errors
    /// When a host does not end in order.
    pub fn clear(&mut self) -> Result<()> {
        for number in 0..self.slots.len() {
            if self.slots[number].host.is_some() {
                self.terminate(number)?;
            }
        }
        std::fs::remove_dir_all(&self.setup.folder).context("remove the campaign's folder")
    }

    fn settled(&self, entries: u64) -> Result<()> {
        let mut tasks = Vec::new();
        let mut committed = 0;
        for host in self.running() {
            let application = host.application()?;
            tasks.extend(application.running_partitions());
            committed += application.committed(&input_topic(&self.setup.application_id));
        }
        tasks.sort_unstable();
        let all: Vec<u32> = (0..self.setup.partitions).collect();
        ensure!(tasks == all, "the hosts process the partitions {tasks:?}");
        ensure!(committed == entries, "{committed} of {entries} entries are committed");
        Ok(())
    }

    /// The store of each running host, as REST shows it.
    ///
    /// # Errors
    /// When a host does not answer with it within some seconds.
    pub fn dumps(&self, suffix: &str) -> Result<Vec<Dump>> {
        let running = self.slots.iter().filter_map(|slot| slot.host.as_ref().map(|host| (slot.number, host)));
        running
            .map(|(number, host)| {
                wait_until(Duration::from_secs(20), || {
                    let partitions = host.application()?.running_partitions();
                    let rows = rows_of(host, &partitions)?;
                    Ok(Dump {
                        name: format!("host {number}{suffix}"),
                        partitions: partitions.into_iter().collect(),
                        rows,
                    })
                })
            })
            .collect()
    }

    pub fn log_of(&self, number: usize) -> String {
        self.slots[number].host.as_ref().map(Host::log).unwrap_or_default()
    }
}

/// What the host itself has: it would ask the others for their partitions.
fn rows_of(host: &Host, partitions: &BTreeSet<u32>) -> Result<BTreeMap<Key, Balance>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let list: Vec<String> = partitions.iter().map(u32::to_string).collect();
    let entries = host.entries(STORE, &format!("&value_format=hex&partitions={}", list.join(",")))?;
    let row = |(key, value): (String, serde_json::Value)| {
        let text = value.as_str().context("a row without text")?;
        Ok((Key::parse(key.as_bytes())?, Balance::parse_hex(text)?))
    };
    entries.into_iter().map(row).collect()
}

fn check_alive(number: usize, host: &mut Host) -> Result<()> {
    if let Some(status) = host.ended()? {
        bail!("host {number} ended by itself with {status}:\n{}", end_of(&host.log()));
    }
    Ok(())
}

/// The last lines of a log.
pub fn end_of(log: &str) -> String {
    const LINES: usize = 40;
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

pub fn input_topic(application_id: &str) -> String {
    format!("{application_id}-entries")
}

/// The topic of an output by its place among the sinks.
pub fn output_topic(application_id: &str, output: usize) -> String {
    format!("{application_id}-{}", crate::workload::OUTPUTS[output])
}

pub fn dead_letter_topic(application_id: &str) -> String {
    format!("{application_id}-dead-letters")
}

pub fn changelog_topic(application_id: &str) -> String {
    format!("{application_id}-{STORE}-changelog")
}

/// A scratch folder below the target folder, empty.
///
/// # Errors
/// When the disk refuses.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let path: &Path = &repository::target().join("chaos").join(name);
    if path.exists() {
        std::fs::remove_dir_all(path).with_context(|| format!("cannot empty {}", path.display()))?;
    }
    std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path.to_path_buf())
}
