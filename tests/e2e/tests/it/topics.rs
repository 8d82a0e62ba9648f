//! `sandbar topics` on both brokers: what is written is read again, and mistakes are told.

use std::process::Command;

use anyhow::Result;
use e2e::kafka;
use e2e::repository;
use e2e::topics::{self, Broker, Values};
use serde_json::{Value, json};

fn brokers(name: &str) -> Result<[Broker; 2]> {
    Ok([kafka::broker()?, Broker::Embedded(repository::scratch(&repository::unique(name))?.join("broker"))])
}

/// What a failing `sandbar topics` says.
fn refused(broker: &Broker, verb: &str, arguments: &[&str], input: &str) -> Result<String> {
    let output = topics::run(broker, verb, arguments, input)?;
    assert!(!output.status.success(), "topics {verb} {arguments:?} succeeded");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_is_produced_is_read_again() -> Result<()> {
    for broker in brokers("roundtrip")? {
        let topic = repository::unique("roundtrip");
        topics::create(&broker, &topic, 2)?;
        let lines = [
            json!({ "key": "a", "value": "Hello", "timestamp": 1_357_020_000_000_i64, "partition": 1 }),
            json!({ "key": null, "value": "no key", "timestamp": 5, "partition": 1 }),
            json!({ "key": "tombstone", "value": null, "timestamp": 6, "partition": 1 }),
            json!({ "key": "ü", "value": "Tschüss", "timestamp": 7, "partition": 0, "headers": {"trace": "1"} }),
        ];
        topics::produce(&broker, &topic, Values::Text, &lines.map(|line| line.to_string()).join("\n"))?;

        let records = topics::read(&broker, &topic, Values::Text)?;
        let shown: Vec<_> = records.iter().map(|r| (r.partition, r.offset, r.timestamp, &r.key, &r.value)).collect();
        assert_eq!(
            shown,
            [
                (0, 0, 7, &json!("ü"), &json!("Tschüss")),
                (1, 0, 1_357_020_000_000, &json!("a"), &json!("Hello")),
                (1, 1, 5, &Value::Null, &json!("no key")),
                (1, 2, 6, &json!("tombstone"), &Value::Null),
            ],
            "{broker:?}"
        );
    }
    Ok(())
}

#[test]
fn json_values_keep_their_text() -> Result<()> {
    for broker in brokers("json")? {
        let topic = repository::unique("json");
        topics::create(&broker, &topic, 1)?;
        topics::produce(&broker, &topic, Values::Json, r#"{"key":"a","value":{"b": [1, 2.50, "x"]},"timestamp":1}"#)?;
        assert_eq!(topics::read(&broker, &topic, Values::Json)?[0].value, json!({ "b": [1, 2.5, "x"] }));
        assert_eq!(topics::read(&broker, &topic, Values::Text)?[0].value, json!(r#"{"b": [1, 2.50, "x"]}"#));
    }
    Ok(())
}

#[test]
fn a_record_without_a_timestamp_gets_the_time_of_its_producer() -> Result<()> {
    for broker in brokers("no-timestamp")? {
        let topic = repository::unique("no-timestamp");
        topics::create(&broker, &topic, 1)?;
        topics::produce(&broker, &topic, Values::Text, r#"{"key":"a","value":"b"}"#)?;
        let timestamp = topics::read(&broker, &topic, Values::Text)?[0].timestamp;
        assert!(timestamp > 1_700_000_000_000, "{broker:?}: {timestamp}");
    }
    Ok(())
}

#[test]
fn mistakes_are_told() -> Result<()> {
    for broker in brokers("mistakes")? {
        let topic = repository::unique("mistakes");
        let unknown = refused(&broker, "produce", &[&topic], r#"{"value":"a"}"#)?;
        assert!(unknown.contains(&topic), "{unknown}");
        let unknown = refused(&broker, "read", &[&topic], "")?;
        assert!(unknown.contains(&topic), "{unknown}");

        topics::create(&broker, &topic, 1)?;
        let twice = refused(&broker, "create", &[&topic], "")?;
        assert!(twice.contains(&topic) && twice.contains("exists"), "{twice}");

        let negative = refused(&broker, "produce", &[&topic], r#"{"value":"a","timestamp":-5}"#)?;
        assert!(negative.contains("-5"), "{negative}");
        let garbage = refused(&broker, "produce", &[&topic], "{\"value\":\"good\"}\nnot json\n")?;
        assert!(garbage.contains("line 2"), "{garbage}");
        let large = json!({ "value": "x".repeat(2 << 20) }).to_string();
        let large = refused(&broker, "produce", &[&topic], &large)?;
        assert!(large.contains(&topic) || large.contains("line 1"), "{large}");
        assert!(large.to_lowercase().contains("large") || large.contains("bytes"), "{large}");
    }
    Ok(())
}

#[test]
fn a_full_disk_fails_the_command_and_keeps_what_was_acknowledged() -> Result<()> {
    let folder = repository::scratch(&repository::unique("full-disk"))?;
    let broker = Broker::Embedded(folder.join("broker"));
    topics::create(&broker, "letters", 1)?;
    topics::produce(&broker, "letters", Values::Text, r#"{"key":"first","value":"kept"}"#)?;

    let lines: String =
        (0..20_000).map(|n| json!({ "key": n.to_string(), "value": "x".repeat(60) }).to_string() + "\n").collect();
    let file = folder.join("letters.ndjson");
    std::fs::write(&file, lines)?;
    // A limit on the size of files stands in for the disk: a write beyond it fails as it would there.
    let output = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 256; exec \"$@\"", "bash"])
        .arg(repository::sandbar()?)
        .args(["topics", "produce", "letters", "--timeout", "3s"])
        .args(broker.flags())
        .arg(&file)
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("topic letters") && told.contains("File too large"), "{told}");

    let before = topics::read(&broker, "letters", Values::Text)?;
    assert_eq!(before[0].key, "first");
    topics::produce(&broker, "letters", Values::Text, r#"{"key":"last","value":"goes on"}"#)?;
    let after = topics::read(&broker, "letters", Values::Text)?;
    assert_eq!(after.len(), before.len() + 1);
    assert_eq!(after[after.len() - 1].key, "last");
    Ok(())
}

/// A path with a mistake in it is told, and no empty broker is left there.
#[test]
fn commands_for_what_is_there_make_no_broker() -> Result<()> {
    let folder = repository::scratch(&repository::unique("no-broker"))?;
    let (missing, empty) = (folder.join("missing"), folder.join("empty"));
    std::fs::create_dir(&empty)?;
    for arguments in [
        ["topics", "list"].as_slice(),
        &["topics", "read", "letters"],
        &["dlq", "list", "letters"],
        &["dlq", "show", "letters@0:0"],
        &["dlq", "redrive", "letters", "--all", "--to", "others", "--yes"],
        &["dlq", "purge", "letters", "--all", "--yes"],
        &["repro", "--from-dlq", "letters@0:0", "--module", "letters.wasm"],
    ] {
        for path in [&missing, &empty] {
            let output = Command::new(repository::sandbar()?).args(arguments).arg("--embedded").arg(path).output()?;
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(told.contains(&format!("there is no broker in {}", path.display())), "{arguments:?}: {told}");
            assert_eq!(output.status.code(), Some(3), "{arguments:?}: {told}");
        }
        assert!(!missing.exists(), "{arguments:?}");
        assert_eq!(std::fs::read_dir(&empty)?.count(), 0, "{arguments:?}");
    }
    topics::create(&Broker::Embedded(missing.clone()), "letters", 1)?;
    assert!(topics::read(&Broker::Embedded(missing), "letters", Values::Text)?.is_empty());
    Ok(())
}
