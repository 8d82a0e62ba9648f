//! What the tests share: a scratch folder, the built binary with its output, and a running host.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing here takes longer, except on a machine that does something else.
const LIMIT: Duration = Duration::from_secs(60);

/// How a command ended and what it printed.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// That it ended with this code and that each of the words stands in what it said.
    #[track_caller]
    pub fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing in {self:#?}");
        }
        self
    }
}

/// A folder of one test, with an application in it.
pub struct Place {
    pub folder: PathBuf,
}

impl Place {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{name}-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("host_it").join(unique);
        fs::create_dir_all(&folder).expect("a scratch folder");
        Self { folder }
    }

    /// With the guest that counts records by key: `in` to `out`, store `counts`.
    pub fn counting(name: &str) -> Self {
        let place = Self::new(name);
        place.write("sandbar.toml", format!("application.id = \"count\"\nmodule = {:?}\n", guest("count")));
        place
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.folder.join(name), content).expect("writable");
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbar"));
        command.current_dir(&self.folder).args(arguments).stdin(Stdio::null());
        // What the caller's shell sets must not decide a test.
        for variable in ["SANDBAR_LOG", "SANDBAR_URL", "SANDBAR_BROKERS"] {
            command.env_remove(variable);
        }
        command.env("XDG_STATE_HOME", self.folder.join("user"));
        command
    }

    /// Runs a command to its end.
    pub fn sandbar(&self, arguments: &[&str]) -> Ended {
        self.sandbar_with(arguments, "")
    }

    /// Runs a command with text on its standard input.
    pub fn sandbar_with(&self, arguments: &[&str], input: &str) -> Ended {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sandbar starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_owned();
        // A command that refuses its input closes the pipe early.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).is_ok());
        let output = child.wait_with_output().expect("sandbar ends");
        writer.join().expect("no panic");
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// Runs the application of the folder on its embedded broker until nothing comes any more.
    pub fn run_until_idle(&self, arguments: &[&str]) -> Ended {
        let mut all = vec!["run", "--embedded", "broker", "--until-idle", "1s", "--listen", "127.0.0.1:0"];
        all.extend(arguments);
        self.sandbar(&all)
    }

    #[track_caller]
    pub fn create_topic(&self, topic: &str, partitions: u32) {
        let partitions = partitions.to_string();
        self.sandbar(&["topics", "create", topic, "--partitions", &partitions, "--embedded", "broker"]).succeeded();
    }

    #[track_caller]
    pub fn produce(&self, topic: &str, lines: &str) {
        self.sandbar_with(&["topics", "produce", topic, "--embedded", "broker"], lines).succeeded();
    }

    /// The records of a topic.
    #[track_caller]
    pub fn read(&self, topic: &str, arguments: &[&str]) -> Vec<Value> {
        let mut all = vec!["topics", "read", topic, "--embedded", "broker"];
        all.extend(arguments);
        let ended = self.sandbar(&all).succeeded();
        ended.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Starts the application of the folder on its embedded broker.
    pub fn start(&self, arguments: &[&str]) -> Host {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let mut all = vec!["run", "--listen", &address];
        if !arguments.contains(&"-b") {
            all.extend(["--embedded", "broker"]);
        }
        all.extend(arguments);
        let log = self.folder.join(format!("{port}.log"));
        let file = fs::File::create(&log).expect("a log file");
        let child = self
            .command(&all)
            .stdout(file.try_clone().expect("a log file"))
            .stderr(file)
            .spawn()
            .expect("sandbar starts");
        Host { child, url: format!("http://{address}"), log }
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start_ready(&self, arguments: &[&str]) -> Host {
        let mut host = self.start(arguments);
        host.wait_until("ready", |host| host.get("/readyz").is_some_and(|(code, _)| code == 200));
        host
    }
}

/// A running `sandbar run`; killed with the value.
pub struct Host {
    child: Child,
    pub url: String,
    log: PathBuf,
}

impl Host {
    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Status and body of an answer; `None` where nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, Value)> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .build();
        let mut response = config.new_agent().get(format!("{}{path}", self.url)).call().ok()?;
        let text = response.body_mut().read_to_string().ok()?;
        Some((response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    #[track_caller]
    pub fn wait_until(&mut self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !reached(self) {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("ended with {status} before: {what}\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success(), "cannot signal the host");
    }

    /// Waits for the end; the exit code.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the host does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM, and that it ends well.
    #[track_caller]
    pub fn terminate(&mut self) {
        self.signal("-TERM");
        let code = self.wait();
        assert_eq!(code, Some(0), "{}", self.log());
    }

    pub fn kill(&mut self) {
        self.signal("-KILL");
        self.wait();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Both fail where the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The path of a test guest. Fails where it was not built: a test that is skipped in silence proves nothing.
pub fn guest(name: &str) -> PathBuf {
    let folder = std::env::var_os("SANDBAR_GUESTS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/guests"));
    let path = folder.join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing; run `make guests`", path.display());
    path
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
