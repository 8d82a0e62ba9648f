//! How campaigns deploy: a version is a module and a manifest whose label its outputs carry, sent to a host as a form.
//! Reads what hosts say of versions and tasks. A host that is away or busy is asked again; what an answer means is for
//! the campaign to judge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::http;
use serde_json::Value;

use super::judge::Shown;
use crate::asking::{Answer, Asker, Directory};
use crate::random::Random;

/// The key of the manifest that the guest's outputs carry.
pub const LABEL: &str = "config.label";

/// How long a deployment may be put off, and how soon it is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// No part of a form has it in it.
const BOUNDARY: &str = "sandbar-chaos-9d2f6c1e7b5a4830";

/// A version as it is sent.
#[derive(Debug, Clone)]
pub struct Version {
    pub module: Vec<u8>,
    /// Keys of its manifest beside those that all versions have.
    pub settings: BTreeMap<String, String>,
    /// It is confirmed at once.
    pub without_probation: bool,
}

/// What came of a deployment.
#[derive(Debug, Clone)]
pub struct Deployed {
    pub answer: Answer,
    /// From the first request to the answer, in microseconds.
    pub took_us: u64,
    /// Answers that it is to be sent again.
    pub put_off: u64,
}

/// A client that deploys.
pub struct Deployer {
    application_id: String,
    pub directory: Directory,
    asker: Asker,
    random: Random,
    /// The values of the first version's manifest, which all others have too.
    base: BTreeMap<String, Value>,
}

impl Deployer {
    /// Takes over the manifest of the version that runs.
    ///
    /// # Errors
    /// When the hosts do not list it.
    pub fn new(application_id: &str, directory: Directory, seed: u64) -> Result<Self> {
        let random = Random::new(seed ^ 0x5A4D);
        let (application_id, asker, base) = (application_id.to_owned(), Asker::default(), BTreeMap::new());
        let mut deployer = Self { application_id, directory, asker, random, base };
        let list = deployer.list()?;
        let version = list.last().context("the hosts list no version")?;
        let values = version["manifest"].as_object().context("a version without a manifest")?;
        deployer.base = values.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(deployer)
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/apps/{}/{rest}", self.application_id)
    }

    /// The text of a manifest: a key and a value in each line.
    fn manifest(&self, settings: &BTreeMap<String, String>) -> String {
        let mut values: BTreeMap<&str, String> =
            self.base.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect();
        let own = settings.iter().map(|(key, value)| (key.as_str(), Value::from(value.as_str()).to_string()));
        values.extend(own);
        let head =
            format!("application.id = {}\nmodule = \"module.wasm\"\n", Value::from(self.application_id.as_str()));
        values.iter().fold(head, |text, (key, value)| format!("{text}{key} = {value}\n"))
    }

    /// The request that deploys a version.
    pub fn request(&self, version: &Version) -> Vec<u8> {
        let Version { module, settings, without_probation } = version;
        let mut body = Vec::with_capacity(module.len() + 4_096);
        let manifest = self.manifest(settings);
        for (name, bytes) in [("module", module.as_slice()), ("manifest", manifest.as_bytes())] {
            let head =
                format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(bytes);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        let path = self.path(&format!("versions?who=chaos&no_probation={without_probation}"));
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        http::request("POST", &path, &[("content-type", &kind)], &body)
    }

    /// Deploys at some host, again where it is busy or away. The same version twice is one version.
    ///
    /// # Errors
    /// When no host has an answer in time.
    pub fn deploy(&mut self, version: &Version) -> Result<Deployed> {
        let request = self.request(version);
        self.send(&request)
    }

    /// Sends a request that changes what runs, until there is an answer to it.
    fn send(&mut self, request: &[u8]) -> Result<Deployed> {
        let started = Instant::now();
        let mut put_off = 0;
        let mut not = None;
        loop {
            let address = self.directory.pick(&mut self.random, not);
            let answer = address.map(|address| self.asker.send(address, request)).unwrap_or_default();
            if !matches!(answer.status, 0 | 409 | 503) {
                let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                return Ok(Deployed { answer, took_us, put_off });
            }
            ensure!(started.elapsed() < PATIENCE, "no host deploys within {PATIENCE:?}: {answer:?}");
            put_off += 1;
            // One that is away is not asked again at once.
            not = address.filter(|_| answer.status == 0);
            std::thread::sleep(PAUSE);
        }
    }

    /// Goes back to the version before.
    ///
    /// # Errors
    /// As `deploy`.
    pub fn roll_back(&mut self) -> Result<Deployed> {
        self.send(&http::request("POST", &self.path("rollback?who=chaos"), &[], b""))
    }

    fn get(&mut self, rest: &str) -> Result<Value> {
        let path = self.path(rest);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let address = self.directory.pick(&mut self.random, None);
            let answer = address.map(|address| self.asker.get(address, &path)).unwrap_or_default();
            match answer.status {
                200 => return Ok(answer.document),
                // A version that another host has is known here soon.
                0 | 404 | 503 if Instant::now() < deadline => std::thread::sleep(PAUSE),
                status => bail!("GET {path}: {status} {}", answer.document),
            }
        }
    }

    /// All versions, the newest first.
    ///
    /// # Errors
    /// When no host lists them.
    pub fn list(&mut self) -> Result<Vec<Value>> {
        let document = self.get("versions")?;
        Ok(document["versions"].as_array().context("an answer without versions")?.clone())
    }

    /// One version.
    ///
    /// # Errors
    /// When no host has it.
    pub fn version(&mut self, number: u64) -> Result<Value> {
        self.get(&format!("versions/{number}"))
    }

    /// The versions that the tasks of a host run; `None` while it does not answer.
    pub fn tasks_of(&mut self, address: SocketAddr, number: u64) -> Option<Vec<Task>> {
        let path = self.path(&format!("versions/{number}"));
        let answer = self.asker.get(address, &path);
        (answer.status == 200).then(|| tasks(&answer.document))
    }

    /// Waits until the tasks of all running hosts, so many together, run a version; gives how long that took from
    /// `since`, in microseconds.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub fn wait_tasks(&mut self, number: u64, count: usize, since: Instant, limit: Duration) -> Result<u64> {
        loop {
            let mut found = BTreeSet::new();
            let mut others = BTreeSet::new();
            for address in self.directory.all() {
                for task in self.tasks_of(address, number).unwrap_or_default() {
                    if task.version == number {
                        found.insert(task.name)
                    } else {
                        others.insert(task.version)
                    };
                }
            }
            if found.len() == count && others.is_empty() {
                return Ok(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            ensure!(
                since.elapsed() < limit,
                "after {limit:?} {} of {count} tasks run version {number}, others run {others:?}",
                found.len()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A task with the version that it runs.
#[derive(Debug, Clone)]
pub struct Task {
    pub name: String,
    pub version: u64,
    pub partitions: Vec<Shown>,
}

/// The tasks in a host's answer on a version.
pub fn tasks(document: &Value) -> Vec<Task> {
    let task = |task: &Value| {
        let version = task["version"].as_u64()?;
        let partition = |partition: &Value| {
            let number = u32::try_from(partition["partition"].as_u64()?).ok()?;
            Some(Shown { partition: number, version, since: partition["since"].as_i64()? })
        };
        let partitions = task["partitions"].as_array()?.iter().filter_map(partition).collect();
        Some(Task { name: task["task"].as_str()?.to_owned(), version, partitions })
    };
    document["tasks"].as_array().into_iter().flatten().filter_map(task).collect()
}

/// The last state of a version, and the reason of it.
pub fn state(document: &Value) -> (&str, &str) {
    let last = document["moves"].as_array().and_then(|moves| moves.last());
    let reason = last.and_then(|last| last["reason"].as_str()).unwrap_or_default();
    (document["state"].as_str().unwrap_or_default(), reason)
}

/// A module that is larger by a custom section of random bytes, which components may have.
pub fn padded(module: &[u8], bytes: usize, random: &mut Random) -> Vec<u8> {
    const NAME: &[u8] = b"padding";
    let Some(missing) = bytes.checked_sub(module.len() + NAME.len() + 16) else { return module.to_vec() };
    let mut padded = module.to_vec();
    padded.push(0);
    padded.extend(leb128(NAME.len() + 1 + missing));
    padded.extend(leb128(NAME.len()));
    padded.extend_from_slice(NAME);
    let end = padded.len() + missing;
    while padded.len() < end {
        padded.extend(random.next().to_be_bytes());
    }
    padded.truncate(end);
    padded
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let part = (number & 0x7F) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(part);
            return bytes;
        }
        bytes.push(part | 0x80);
    }
}
