//! `sandbar broker` itself: its output, its end, its folder from other processes, and what it says when it cannot
//! start.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};
use e2e::embedded::EmbeddedBroker;
use e2e::repository;
use e2e::topics::{self, Broker, Values};
use serde_json::Value;

const ALICE: &str = r#"{"key":"a","value":"Alice","timestamp":1}"#;

fn refused(folder: &Path, arguments: &[&str], code: i32, words: &[&str]) -> Result<()> {
    let Output { status, stderr, stdout } =
        Command::new(repository::sandbar()?).arg("broker").arg("--dir").arg(folder).args(arguments).output()?;
    let told = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{told}");
    assert!(stdout.is_empty(), "an address of no broker");
    for word in words {
        assert!(told.contains(word), "{word:?} is missing in: {told}");
    }
    Ok(())
}

#[test]
fn a_full_log_is_no_reason_to_end_and_a_full_disk_is_told_of() -> Result<()> {
    let folder = repository::scratch(&repository::unique("stand-alone"))?.join("broker");
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").context("open /dev/full");
    let mut broker = Command::new(repository::sandbar()?)
        .args(["broker", "--dir"])
        .arg(&folder)
        .env("SANDBAR_LOG", "debug")
        .stdout(Stdio::piped())
        .stderr(full()?)
        .spawn()?;
    let mut address = String::new();
    BufReader::new(broker.stdout.take().context("no output")?).read_line(&mut address)?;
    topics::create(&Broker::Kafka(address.trim().to_owned()), "letters", 1)?;
    // SIGTERM, so that its farewell has nowhere to go either.
    let signalled = Command::new("kill").arg(broker.id().to_string()).status()?;
    assert!(signalled.success());
    let status = broker.wait()?;
    assert_eq!(status.code(), Some(0), "{status}");

    let Output { status, stderr, .. } =
        Command::new(repository::sandbar()?).args(["reference", "manifest"]).stdout(full()?).output()?;
    let told = String::from_utf8_lossy(&stderr);
    assert!(status.code() == Some(1) && told.contains("cannot write to standard output"), "{status}: {told}");
    Ok(())
}

/// Leaves the beginning of a batch at the end of the only log, as a write does that is cut short.
fn tear(folder: &Path) -> Result<()> {
    let topic = fs::read_dir(folder.join("logs"))?.next().context("no topic")??.path();
    let mut log = fs::OpenOptions::new().append(true).open(topic.join("0/00000000000000000000.log"))?;
    Ok(log.write_all(&[0; 30])?)
}

#[test]
fn other_processes_use_the_broker_of_the_folder() -> Result<()> {
    let folder = repository::scratch(&repository::unique("stand-alone"))?.join("broker");
    let mut broker = EmbeddedBroker::start(&folder, &[])?;
    let log = broker.log();
    assert!(log.contains("a single node for trials and tests") && log.contains("fsync is off"), "{log}");
    // By its folder, from another process each: were it not the running one, the folder's lock would refuse it.
    topics::create(&broker.by_folder(), "letters", 1)?;
    topics::produce(&broker.by_folder(), "letters", Values::Text, ALICE)?;
    assert_eq!(topics::read(&broker.by_address(), "letters", Values::Text)?.len(), 1);
    // What somebody has exported is no conflict: a flag wins over the environment.
    let by_flag = Command::new(repository::sandbar()?)
        .args(["topics", "list", "--embedded"])
        .arg(&folder)
        .env("SANDBAR_BROKERS", "127.0.0.1:1")
        .output()?;
    assert!(by_flag.status.success(), "{}", String::from_utf8_lossy(&by_flag.stderr));
    let shown = topics::run(&broker.by_folder(), "list", &[], "")?;
    let told = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(told.contains(&format!("at {} (another process runs it)", broker.address)), "{told}");

    // Killed: the next start has the records, at the same address. A clean end: the next command has them too.
    let address = broker.address.clone();
    broker.kill()?;
    tear(&folder)?;
    let mut broker = EmbeddedBroker::start(&folder, &["--fsync"])?;
    assert_eq!(broker.address, address);
    let log = broker.log();
    assert!(log.contains("fsync is on"), "{log}");
    assert!(log.contains("warning: cut 30 bytes from the end of letters-0, which now ends at offset 1"), "{log}");
    assert_eq!(topics::read(&broker.by_address(), "letters", Values::Text)?[0].value, "Alice");
    assert!(broker.terminate()?.success(), "{}", broker.log());
    assert_eq!(topics::read(&broker.by_folder(), "letters", Values::Text)?.len(), 1);
    Ok(())
}

#[test]
fn a_start_in_json_is_one_event() -> Result<()> {
    let folder = repository::scratch(&repository::unique("stand-alone-json"))?.join("broker");
    let mut broker = EmbeddedBroker::start(&folder, &["-o", "json", "--auto-create-topics"])?;
    let event: Value = serde_json::from_str(&broker.address).context("the first line")?;
    assert_eq!((&event["event"], &event["fsync"]), (&Value::from("broker"), &Value::from(false)));
    assert_eq!(event["dir"].as_str().map(Path::new), Some(folder.as_path()));
    assert_eq!(event["auto_create_topics"], true);
    broker.address = event["address"].as_str().unwrap_or_default().to_owned();
    topics::create(&broker.by_address(), "letters", 1)?;
    assert!(broker.terminate()?.success());
    Ok(())
}

#[test]
fn a_broker_that_cannot_start_says_why() -> Result<()> {
    let place = repository::scratch(&repository::unique("stand-alone-refused"))?;
    let folder = place.join("broker");
    let broker = EmbeddedBroker::start(&folder, &[])?;
    refused(&folder, &[], 5, &["another process uses it", &format!("(a broker at {})", broker.address)])?;
    drop(broker);

    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    refused(&folder, &["--port", &port], 6, &[&format!("127.0.0.1:{port}: the port is in use")])?;
    drop(taken);

    fs::write(folder.join("format.json"), r#"{"version":99,"cluster_id":"x"}"#)?;
    refused(&folder, &[], 5, &["format 99", "use a newer one"])?;
    fs::write(folder.join("format.json"), "not ours")?;
    refused(&folder, &[], 5, &["it is not a broker's folder, or the file is damaged"])?;
    refused(&place, &[], 5, &["which no broker made; use an empty folder"])?;
    refused(Path::new("/proc/nowhere"), &[], 1, &["/proc/nowhere"])?;
    Ok(())
}

#[test]
fn an_address_that_others_reach_is_asked_for_twice() -> Result<()> {
    let folder = repository::scratch(&repository::unique("stand-alone-open"))?.join("broker");
    refused(&folder, &["--listen", "0.0.0.0"], 2, &["no authentication", "add --no-authentication"])?;
    assert!(!folder.exists(), "refused before anything was made");
    refused(&folder, &["--listen", "localhost:9092"], 2, &["expected an IP address", "--port"])?;
    refused(&folder, &["--listen", "192.0.2.1", "--no-authentication"], 6, &["no interface of this machine"])?;

    let broker = EmbeddedBroker::start(&folder, &["--listen", "0.0.0.0", "--no-authentication"])?;
    assert!(broker.log().contains("other machines can reach, and there is no authentication"), "{}", broker.log());
    // The address that a client is sent to is one that it can use.
    assert!(broker.address.starts_with("127.0.0.1:"), "{}", broker.address);
    topics::create(&broker.by_address(), "letters", 1)?;
    topics::produce(&broker.by_folder(), "letters", Values::Text, ALICE)?;
    assert_eq!(topics::read(&broker.by_address(), "letters", Values::Text)?.len(), 1);
    Ok(())
}
