//! Starts that must fail: each says what is wrong, in words that name the thing, with its exit code. And starts that
//! a signal ends before they are done.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::host::{Host, Options};
use e2e::topics::{self, Broker};
use e2e::{kafka, repository};

/// A scratch folder with an embedded broker's place and a manifest.
struct Place {
    folder: PathBuf,
    broker: Broker,
    manifest: PathBuf,
}

impl Place {
    /// With the manifest of `hello`.
    fn new(name: &str) -> Result<Self> {
        let folder = repository::scratch(&repository::unique(name))?;
        let broker = Broker::Embedded(folder.join("broker"));
        Ok(Self { folder, broker, manifest: repository::example("hello").join("sandbar.toml") })
    }

    /// With a manifest of its own.
    fn with_manifest(name: &str, text: &str) -> Result<Self> {
        let place = Self::new(name)?;
        let manifest = place.folder.join("sandbar.toml");
        fs::write(&manifest, text)?;
        Ok(Self { manifest, ..place })
    }

    fn start(&self, settings: &[(&str, &str)]) -> Result<Host> {
        let state = self.folder.join("state");
        let mut options = Options::new(&self.manifest, &self.broker, "hello", &state);
        for (key, value) in settings {
            options = options.set(key, value);
        }
        Host::start(&options)
    }

    /// Starts, waits for the failure, and checks the exit code and that each word stands in the message.
    fn fails(&self, settings: &[(&str, &str)], code: i32, words: &[&str]) -> Result<()> {
        let mut host = self.start(settings)?;
        let status = host.wait(Duration::from_secs(60))?;
        let log = host.log();
        assert_eq!(status.code(), Some(code), "{log}");
        for word in words {
            assert!(log.contains(word), "`{word}` is missing in:\n{log}");
        }
        Ok(())
    }
}

#[test]
fn a_missing_manifest() -> Result<()> {
    let mut place = Place::new("no-manifest")?;
    place.manifest = place.folder.join("nowhere.toml");
    place.fails(&[], 2, &["nowhere.toml"])
}

#[test]
fn a_malformed_manifest() -> Result<()> {
    Place::with_manifest("malformed", "application.id = \n")?.fails(&[], 2, &["sandbar.toml", "1"])
}

#[test]
fn an_unknown_key_names_the_nearest() -> Result<()> {
    let text = "application.id = \"a\"\nmodule = \"a.wasm\"\ncommit.intervall.ms = 5\n";
    Place::with_manifest("unknown-key", text)?.fails(&[], 2, &["commit.intervall.ms", "commit.interval.ms"])
}

#[test]
fn an_undeclared_store_names_the_declared_ones() -> Result<()> {
    let mut place = Place::new("undeclared-store")?;
    place.manifest = repository::example("carrier-count").join("sandbar.toml");
    place.fails(&[("stores.count.backend", "memory")], 2, &["stores.count", "counts"])
}

#[test]
fn a_missing_module() -> Result<()> {
    let text = "application.id = \"a\"\nmodule = \"nowhere.wasm\"\n";
    let mut host = Place::with_manifest("no-module", text)?.start(&[])?;
    assert!(!host.wait(Duration::from_secs(30))?.success());
    assert!(host.log().contains("nowhere.wasm"), "{}", host.log());
    Ok(())
}

#[test]
fn a_module_that_is_no_component() -> Result<()> {
    let place = Place::with_manifest("garbage", "application.id = \"a\"\nmodule = \"garbage.wasm\"\n")?;
    fs::write(place.folder.join("garbage.wasm"), b"\0asm not a module")?;
    place.fails(&[], 4, &["garbage.wasm"])
}

/// Opening a pipe that nobody writes to waits for ever, and a device may never end.
#[test]
fn a_module_that_is_no_regular_file() -> Result<()> {
    let place = Place::with_manifest("pipe-module", "application.id = \"a\"\nmodule = \"pipe.wasm\"\n")?;
    assert!(Command::new("mkfifo").arg(place.folder.join("pipe.wasm")).status()?.success());
    place.fails(&[], 4, &["pipe.wasm", "is not a regular file"])?;
    place.fails(&[("module", "/dev/zero")], 4, &["/dev/zero", "is not a regular file"])
}

#[test]
fn a_module_above_the_limit() -> Result<()> {
    let place = Place::new("large-module")?;
    let mut host = place.start(&[("module.max.bytes", "1024")])?;
    assert!(!host.wait(Duration::from_secs(30))?.success());
    assert!(host.log().contains("module.max.bytes"), "{}", host.log());
    Ok(())
}

#[test]
fn an_unknown_topic_on_real_kafka() -> Result<()> {
    let mut place = Place::new("unknown-topic")?;
    place.broker = kafka::broker()?;
    let topic = repository::unique("nowhere");
    let mut host = place.start(&[("sources.greetings.topic", &topic)])?;
    assert!(!host.wait(Duration::from_secs(60))?.success());
    assert!(host.log().contains(&topic), "{}", host.log());
    Ok(())
}

#[test]
fn an_unreachable_broker_is_tried_for_a_while_and_named() -> Result<()> {
    let mut place = Place::new("unreachable")?;
    place.broker = Broker::Kafka("127.0.0.1:1".to_owned());
    let started = Instant::now();
    place.fails(&[("default.api.timeout.ms", "3000")], 3, &["127.0.0.1:1", "waiting"])?;
    assert!(started.elapsed() > Duration::from_secs(2), "it gave up after {:?}", started.elapsed());
    Ok(())
}

#[test]
fn a_signal_ends_the_wait_for_a_broker() -> Result<()> {
    let mut place = Place::new("signal")?;
    place.broker = Broker::Kafka("127.0.0.1:1".to_owned());
    let mut host = place.start(&[])?;
    std::thread::sleep(Duration::from_millis(1500));
    let asked = Instant::now();
    host.terminate()?;
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?} to end:\n{}", asked.elapsed(), host.log());
    Ok(())
}

#[test]
fn a_taken_port() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    Place::new("taken-port")?.fails(&[("application.server", &address)], 6, &[&address])
}

#[test]
fn a_state_directory_in_use() -> Result<()> {
    let place = Place::new("state-in-use")?;
    let mut first = place.start(&[])?;
    first.wait_ready(Duration::from_secs(60))?;
    place.fails(&[], 5, &["state"])
}

#[test]
fn a_state_directory_of_another_application() -> Result<()> {
    let place = Place::new("foreign-state")?;
    let mut first = place.start(&[])?;
    first.wait_ready(Duration::from_secs(60))?;
    assert!(first.terminate()?.success(), "{}", first.log());
    // Each application has a folder of its own below `state.dir`; this one is put in another's place.
    let state = place.folder.join("state");
    fs::rename(state.join("hello"), state.join("another"))?;
    place.fails(&[("application.id", "another")], 5, &["another", "hello"])
}

#[test]
fn a_clean_end_gives_the_tasks_back_at_once() -> Result<()> {
    let place = Place::new("clean-end")?;
    topics::create(&place.broker, "greetings", 4)?;
    for _ in 0..2 {
        let started = Instant::now();
        let mut host = place.start(&[])?;
        host.wait_ready(Duration::from_secs(60))?;
        assert!(host.terminate()?.success(), "{}", host.log());
        // Far below the session timeout that a host which did not leave would cost the next one.
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
    assert!(Path::new(&place.folder.join("state")).exists());
    Ok(())
}
