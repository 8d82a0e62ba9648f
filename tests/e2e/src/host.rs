//! A running `sandbar run` or `serve-topic` as a child process: start, ask by REST, end with a signal. Its output goes
//! to a file, which every error names the end of. A host that a test forgets is killed with the value.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::repository;
use crate::topics::Broker;

/// How a host is started.
pub struct Options<'a> {
    /// The command and what it is about: `run` with a manifest, or `serve-topic` with topics.
    pub command: Vec<OsString>,
    pub broker: &'a Broker,
    /// That of all manifests, which are one then; `None` leaves it to them.
    pub application_id: Option<&'a str>,
    pub state_dir: &'a Path,
    /// Further flags and `-X key=value` settings.
    pub arguments: Vec<OsString>,
    pub environment: Vec<(String, String)>,
    /// Another binary than the one that was built last.
    pub binary: Option<PathBuf>,
    /// A program that becomes the host, before the host's own words.
    pub wrapper: Vec<OsString>,
}

impl<'a> Options<'a> {
    pub fn new(manifest: &Path, broker: &'a Broker, application_id: &'a str, state_dir: &'a Path) -> Self {
        Self::of(vec!["run".into(), "-f".into(), manifest.into()], broker, application_id, state_dir)
    }

    /// A host with the applications of several manifests.
    pub fn several(manifests: &[PathBuf], broker: &'a Broker, state_dir: &'a Path) -> Self {
        let files = manifests.iter().flat_map(|manifest| ["-f".into(), manifest.into()]);
        let command = std::iter::once("run".into()).chain(files).collect();
        Self { application_id: None, ..Self::of(command, broker, "", state_dir) }
    }

    /// A host that serves topics without a manifest.
    pub fn serving(topics: &[&str], broker: &'a Broker, application_id: &'a str, state_dir: &'a Path) -> Self {
        let command = std::iter::once("serve-topic").chain(topics.iter().copied()).map(OsString::from).collect();
        Self::of(command, broker, application_id, state_dir)
    }

    fn of(command: Vec<OsString>, broker: &'a Broker, application_id: &'a str, state_dir: &'a Path) -> Self {
        Self {
            command,
            broker,
            application_id: Some(application_id),
            state_dir,
            arguments: Vec::new(),
            environment: Vec::new(),
            binary: None,
            wrapper: Vec::new(),
        }
    }

    /// Sets a key of the manifest.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.arguments.extend(["-X".into(), format!("{key}={value}").into()]);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.arguments.push(flag.into());
        self
    }
}

/// How long an answer may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(25);

/// How long a store may have no whole answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A host process.
pub struct Host {
    child: Child,
    pub url: String,
    pub state_dir: PathBuf,
    log: PathBuf,
}

impl Host {
    /// Starts a host; it is not ready yet.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(options: &Options<'_>) -> Result<Self> {
        let port = free_port()?;
        fs::create_dir_all(options.state_dir)?;
        let log = options.state_dir.with_extension(format!("{port}.log"));
        let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut words = options.wrapper.clone();
        words.push(options.binary.clone().map_or_else(repository::sandbar, Ok)?.into());
        let id = options.application_id.map(|id| format!("application.id={id}"));
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(&options.command)
            .args(options.broker.flags())
            .args(id.iter().flat_map(|id| ["-X", id]))
            .args(["-X", &format!("application.server=127.0.0.1:{port}")])
            .arg("-X")
            .arg(format!("state.dir={}", options.state_dir.display()))
            .args(&options.arguments)
            .envs(options.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("cannot start sandbar")?;
        Ok(Self { child, url: format!("http://127.0.0.1:{port}"), state_dir: options.state_dir.to_owned(), log })
    }

    /// Starts a host and waits until `/readyz` is good.
    ///
    /// # Errors
    /// When it ends or is not ready within a minute.
    pub fn start_ready(options: &Options<'_>) -> Result<Self> {
        let mut host = Self::start(options)?;
        host.wait_ready(Duration::from_secs(60))?;
        Ok(host)
    }

    /// Waits until `/readyz` is good.
    ///
    /// # Errors
    /// When the host ends, or is not ready within `limit`.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the host ended with {status} before it was ready:\n{}", self.log_end());
            }
            match self.get("/readyz") {
                Ok((200, _)) => return Ok(()),
                Ok((status, body)) => {
                    ensure!(Instant::now() < deadline, "not ready after {limit:?}: {status} {body}\n{}", self.log_end())
                }
                Err(error) => {
                    ensure!(Instant::now() < deadline, "no answer after {limit:?}: {error}\n{}", self.log_end());
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks the REST interface; the status, and the body where it is JSON.
    ///
    /// # Errors
    /// When nothing answers.
    pub fn get(&self, path: &str) -> Result<(u16, Value)> {
        get(&format!("{}{path}", self.url))
    }

    /// What the host says of its application.
    ///
    /// # Errors
    /// When nothing answers, or another status than 200.
    pub fn application(&self) -> Result<Application> {
        let (_, apps) = self.get("/v1/apps")?;
        let id = apps["apps"][0]["id"].as_str().with_context(|| format!("no application in {apps}"))?;
        self.application_of(id)
    }

    /// What the host says of one of its applications.
    ///
    /// # Errors
    /// When nothing answers, or another status than 200.
    pub fn application_of(&self, id: &str) -> Result<Application> {
        let (status, body) = self.get(&format!("/v1/apps/{id}"))?;
        ensure!(status == 200, "/v1/apps/{id}: {status} {body}");
        Ok(Application { id: id.to_owned(), body })
    }

    /// All entries of a store that this host holds, by key.
    ///
    /// # Errors
    /// When the store does not answer with them.
    pub fn store(&self, name: &str) -> Result<BTreeMap<String, Value>> {
        self.entries(name, "")
    }

    /// As `store`, with further parameters of the query, for example `&value_format=hex`.
    ///
    /// # Errors
    /// When the store does not answer with them.
    pub fn entries(&self, name: &str, parameters: &str) -> Result<BTreeMap<String, Value>> {
        self.entries_of(&self.application()?.id, name, parameters)
    }

    /// As `entries`, of one of several applications.
    ///
    /// # Errors
    /// When the store does not answer with them.
    pub fn entries_of(&self, id: &str, name: &str, parameters: &str) -> Result<BTreeMap<String, Value>> {
        let mut found = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/apps/{id}/stores/{name}/entries?limit=10000{parameters}{cursor}");
            // Partitions may be between two owners for a moment.
            let body = wait_until(ANSWER_LIMIT, || {
                let (status, body) = self.get(&path)?;
                ensure!(status == 200, "store {name}: {status} {body}");
                Ok(body)
            })?;
            for entry in body["entries"].as_array().with_context(|| format!("no entries in {body}"))? {
                let key = entry["key"].as_str().with_context(|| format!("the key of {entry} is not text"))?;
                found.insert(key.to_owned(), entry["value"].clone());
            }
            match body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(found),
            }
        }
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// When it has not ended within `limit`; it is killed then.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                self.kill()?;
                bail!("the host did not end within {limit:?}:\n{}", self.log_end());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the host with SIGTERM and waits for it.
    ///
    /// # Errors
    /// When it does not end within half a minute.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait(Duration::from_secs(30))
    }

    /// Sends a signal, for example `STOP`.
    ///
    /// # Errors
    /// When the process cannot be signalled.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "cannot signal process {}", self.child.id());
        Ok(())
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, if it has.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends the host with SIGKILL.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// What the host printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// A host's answer on its application.
pub struct Application {
    pub id: String,
    pub body: Value,
}

impl Application {
    /// The tasks of this host that process, for example `0_3`.
    pub fn running_tasks(&self) -> BTreeSet<String> {
        let running = self.tasks().filter(|task| task["state"].as_str() == Some("RUNNING"));
        running.filter_map(|task| task["task"].as_str()).map(str::to_owned).collect()
    }

    /// The standby tasks of this host that have caught up.
    pub fn following_tasks(&self) -> BTreeSet<String> {
        let standby = self.body["standby"]["tasks"].as_array().into_iter().flatten();
        let following = standby.filter(|task| task["state"].as_str() == Some("FOLLOWING"));
        following.filter_map(|task| task["task"].as_str()).map(str::to_owned).collect()
    }

    /// The partitions that this host's tasks process.
    pub fn running_partitions(&self) -> BTreeSet<u32> {
        let tasks = self.running_tasks();
        tasks.iter().filter_map(|task| task.split_once('_')?.1.parse().ok()).collect()
    }

    /// Changelog records that the process has restored.
    pub fn records_restored(&self) -> u64 {
        self.body["restoring"]["records_restored"].as_u64().unwrap_or_default()
    }

    /// How often uncommitted work was dropped.
    pub fn recycles(&self) -> u64 {
        let threads = self.body["threads"].as_array().into_iter().flatten();
        threads.filter_map(|thread| thread["recycles"].as_u64()).sum()
    }

    /// Records of a source topic before the committed offsets of this host's tasks.
    pub fn committed(&self, topic: &str) -> u64 {
        let partitions = self.tasks().flat_map(|task| task["partitions"].as_array().into_iter().flatten());
        let of_topic = partitions.filter(|partition| partition["topic"].as_str() == Some(topic));
        of_topic.filter_map(|partition| partition["committed_offset"].as_u64()).sum()
    }

    fn tasks(&self) -> impl Iterator<Item = &Value> {
        let threads = self.body["threads"].as_array().into_iter().flatten();
        threads.flat_map(|thread| thread["tasks"].as_array().into_iter().flatten())
    }
}

/// Waits until hosts have together committed so many records of a source topic.
///
/// # Errors
/// When that takes longer than `limit`.
pub fn wait_committed(hosts: &[&Host], topic: &str, records: u64, limit: Duration) -> Result<()> {
    wait_until(limit, || {
        let mut committed = 0;
        for host in hosts {
            committed += host.application()?.committed(topic);
        }
        ensure!(committed >= records, "{committed} of {records} records of {topic} are committed");
        Ok(())
    })
}

/// Tries until it succeeds.
///
/// # Errors
/// The last error, when `limit` has passed.
pub fn wait_until<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => return Err(error.context(format!("after {limit:?}"))),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Both fail when the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks for a document; text where it is none.
///
/// # Errors
/// When nothing answers.
pub fn get(url: &str) -> Result<(u16, Value)> {
    request("GET", url, &[], "")
}

/// Sends a request with a body, empty for those that have none.
///
/// # Errors
/// When nothing answers.
pub fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Result<(u16, Value)> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(REQUEST_LIMIT))
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = agent.run(request.body(body.to_owned())?);
    let mut response = answer.with_context(|| format!("no answer to {method} {url}"))?;
    let text = response.body_mut().read_to_string().with_context(|| format!("the answer of {url} broke off"))?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok((response.status().as_u16(), body))
}

/// A port that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
