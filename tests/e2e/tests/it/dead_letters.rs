//! `sandbar dlq` on both brokers, with dead letters that the test writes: what is listed, shown, sent back and removed,
//! and that a redrive which is killed leaves nothing.

use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::embedded::EmbeddedBroker;
use e2e::kafka;
use e2e::repository;
use e2e::topics::{self, Broker, Values};
use serde_json::{Value, json};

mod purge;

/// 2026-11-27T17:30:00Z
const FAILED_AT: i64 = 1_795_800_600_000;

fn brokers(name: &str) -> Result<[Broker; 2]> {
    Ok([kafka::broker()?, Broker::Embedded(repository::scratch(&repository::unique(name))?.join("broker"))])
}

fn dlq(broker: &Broker, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(repository::sandbar()?);
    command.arg("dlq").args(arguments).args(broker.flags()).stdin(Stdio::null());
    command.output().context("cannot start sandbar dlq")
}

/// What a command prints, line by line.
fn told(broker: &Broker, arguments: &[&str]) -> Result<Vec<String>> {
    let output = dlq(broker, arguments)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "dlq {arguments:?} ended with {}: {errors}", output.status);
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

fn documents(broker: &Broker, arguments: &[&str]) -> Result<Vec<Value>> {
    let lines = told(broker, &[arguments, &["-o", "json"]].concat())?;
    lines.iter().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// What a command that fails says, and its exit code.
fn refused(broker: &Broker, arguments: &[&str]) -> Result<(String, Option<i32>)> {
    let output = dlq(broker, arguments)?;
    ensure!(!output.status.success(), "dlq {arguments:?} succeeded");
    Ok((String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code()))
}

/// A dead letter as the engine writes it, of the record at an offset of partition 1 of `source`.
struct Letter<'a> {
    partition: i32,
    source: &'a str,
    offset: i64,
    reason: &'a str,
    message: &'a str,
}

impl Letter<'_> {
    fn line(&self) -> Value {
        let source = [
            ("__streams.errors.topic", self.source.to_owned()),
            ("__streams.errors.partition", "1".to_owned()),
            ("__streams.errors.offset", self.offset.to_string()),
        ];
        let punctuation = [("__sandbar.schedule", "3".to_owned()), ("__sandbar.time", "60000".to_owned())];
        let subject = if self.source.is_empty() { punctuation.to_vec() } else { source.to_vec() };
        let told = [
            ("trace", format!("t{}", self.offset)),
            ("__streams.errors.exception", format!("sandbar.RecordRefused: {}", self.message)),
            ("__streams.errors.message", self.message.to_owned()),
            ("__streams.errors.stacktrace", "0: invoice\n1: start".to_owned()),
            ("__sandbar.reason", self.reason.to_owned()),
            ("__sandbar.application", "invoices".to_owned()),
            ("__sandbar.task", "0_1".to_owned()),
            ("__sandbar.module.sha256", "3fa9".repeat(16)),
            ("__sandbar.cpu-us", "120".to_owned()),
            ("__sandbar.wall-clock-time", (FAILED_AT + self.offset * 1000).to_string()),
        ];
        let headers: Vec<Value> = told.into_iter().chain(subject).map(|(name, value)| json!([name, value])).collect();
        let key = format!("k{}", self.offset);
        let key = if self.source.is_empty() { Value::Null } else { json!(key) };
        json!({
            "partition": self.partition,
            "key": key,
            "value": format!("v{}", self.offset),
            "timestamp": 5000 + self.offset,
            "headers": headers,
        })
    }
}

fn write(broker: &Broker, topic: &str, letters: &[Letter<'_>]) -> Result<()> {
    let lines: Vec<String> = letters.iter().map(|letter| letter.line().to_string()).collect();
    topics::produce(broker, topic, Values::Text, &lines.join("\n"))
}

/// A source topic and a topic of dead letters in two partitions: three records and a punctuation.
fn filled(broker: &Broker) -> Result<(String, String)> {
    let (orders, letters) = (repository::unique("orders"), repository::unique("orders-dlq"));
    topics::create(broker, &orders, 2)?;
    topics::create(broker, &letters, 2)?;
    let letter = |partition, source, offset, reason, message| Letter { partition, source, offset, reason, message };
    let all = [
        letter(0, orders.as_str(), 17, "refused", "no amount"),
        letter(0, orders.as_str(), 18, "trap", "boom \u{1b}[2J"),
        letter(1, orders.as_str(), 19, "deadline", "too late"),
        letter(1, "", 20, "trap", "tick"),
    ];
    write(broker, &letters, &all)?;
    Ok((orders, letters))
}

#[test]
fn dead_letters_are_listed_and_filtered() -> Result<()> {
    for broker in brokers("dlq-list")? {
        let (orders, letters) = filled(&broker)?;
        let lines = told(&broker, &["list", &letters])?;
        assert_eq!(
            lines,
            [
                format!("{letters}@0:0\t2026-11-27T17:30:17.000Z\trefused\t{orders}@1:17\t0_1\tno amount"),
                format!("{letters}@0:1\t2026-11-27T17:30:18.000Z\ttrap\t{orders}@1:18\t0_1\tboom \\u{{1b}}[2J"),
                format!("{letters}@1:0\t2026-11-27T17:30:19.000Z\tdeadline\t{orders}@1:19\t0_1\ttoo late"),
                format!("{letters}@1:1\t2026-11-27T17:30:20.000Z\ttrap\tpunctuation of schedule 3\t0_1\ttick"),
            ],
            "{broker:?}"
        );
        let (source, until) = (format!("{orders}@1:18-19"), "2026-11-27T18:30:19+01:00");
        for (arguments, expected) in [
            (vec!["--limit", "3"], [0, 1, 2].as_slice()),
            (vec!["--reason", "trap"], &[1, 3]),
            (vec!["--reason", "trap", "--reason", "refused"], &[0, 1, 3]),
            (vec!["--source", &source], &[1, 2]),
            (vec!["--source", &orders, "--reason", "trap"], &[1]),
            (vec!["--module", "3FA93"], &[0, 1, 2, 3]),
            (vec!["--module", "4"], &[]),
            (vec!["--until", until], &[0, 1]),
            (vec!["--since", until], &[2, 3]),
            (vec!["--contains", "too"], &[2]),
        ] {
            let found = told(&broker, &[&["list", &letters], arguments.as_slice()].concat())?;
            let expected: Vec<&String> = expected.iter().map(|&index| &lines[index]).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{arguments:?}");
        }
        let summary = documents(&broker, &["list", &letters, "--summary"])?;
        let counts: u64 = summary.iter().filter_map(|kind| kind["count"].as_u64()).sum();
        assert_eq!((summary.len(), counts), (4, 4), "{summary:?}");
        assert!(summary.iter().any(|kind| kind["source"] == "(punctuation)" && kind["reason"] == "trap"));
    }
    Ok(())
}

#[test]
fn one_is_shown_with_everything() -> Result<()> {
    for broker in brokers("dlq-show")? {
        let (orders, letters) = filled(&broker)?;
        let text = told(&broker, &["show", &format!("{letters}@0:1")])?.join("\n");
        for expected in ["message         boom \\u{1b}[2J", "header          trace: \"t18\"", "  1: start", "\"v18\""] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        let at = format!("{letters}@1:0");
        let shown = &documents(&broker, &["show", &at, "--value-format", "hex"])?[0];
        assert_eq!(shown["source"], json!(format!("{orders}@1:19")));
        assert_eq!((&shown["key"], &shown["value"]), (&json!("k19"), &json!("763139")));
        assert_eq!((&shown["timestamp"], &shown["headers"]), (&json!(5019), &json!([["trace", "t19"]])));
        assert_eq!((&shown["backtrace"], &shown["cpu_us"]), (&json!("0: invoice\n1: start"), &json!(120)));
    }
    Ok(())
}

/// The path of a manifest that has this topic as a source.
fn naming(topic: &str) -> Result<String> {
    let path = repository::scratch(&repository::unique("dlq-manifest"))?.join("sandbar.toml");
    let text = format!("application.id = \"invoices\"\nmodule = \"invoices.wasm\"\nsources.in.topic = \"{topic}\"\n");
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

/// A dead letter that somebody else wrote says what he likes of where it came from.
#[test]
fn records_go_to_no_topic_that_only_the_dead_letters_name() -> Result<()> {
    for broker in brokers("dlq-forged")? {
        let (orders, letters) = filled(&broker)?;
        let (payments, state) = (repository::unique("payments"), format!("{}-changelog", repository::unique("app")));
        topics::create(&broker, &payments, 2)?;
        topics::create(&broker, &state, 2)?;
        let forged = |source| Letter { partition: 0, source, offset: 30, reason: "trap", message: "pay me" };
        write(&broker, &letters, &[forged(&payments)])?;
        for arguments in
            [vec!["--all"], vec!["--reason", "trap"], vec!["--all", "--yes"], vec!["--contains", "pay", "-y"]]
        {
            let all = [&["redrive", letters.as_str()], arguments.as_slice()].concat();
            let (error, code) = refused(&broker, &all)?;
            let words = format!("{payments} is the word of the dead letters alone");
            assert!(error.contains(&words) && error.contains("--source") && code == Some(2), "{arguments:?} {error}");
        }
        // A manifest names some topics and no others.
        let (error, _) = refused(&broker, &["redrive", &letters, "--all", "-f", &naming(&orders)?])?;
        assert!(error.contains(&format!("came from {payments} is")), "{error}");
        for topic in [&orders, &payments] {
            assert!(topics::read(&broker, topic, Values::Text)?.is_empty(), "nothing is sent");
        }
        // Whoever names it means it.
        told(&broker, &["redrive", &letters, "--source", &payments])?;
        told(&broker, &["redrive", &format!("{letters}@0:2")])?;
        assert_eq!(topics::read(&broker, &payments, Values::Text)?.len(), 2);

        write(&broker, &letters, &[forged(&state)])?;
        let at = format!("{letters}@0:3");
        for arguments in [vec!["--source", &state, "-y"], vec!["--all"], vec!["--source", &orders, "--to", &state]] {
            let (error, code) = refused(&broker, &[&["redrive", letters.as_str()], arguments.as_slice()].concat())?;
            assert!(
                error.contains(&format!("topic {state} is the state of")) && code == Some(1),
                "{arguments:?} {error}"
            );
        }
        let (error, _) = refused(&broker, &["redrive", &at])?;
        assert!(error.contains("which nothing is sent to; --to names another"), "{error}");
        assert!(topics::read(&broker, &state, Values::Text)?.is_empty());
        told(&broker, &["redrive", &at, "--to", &orders])?;
        assert_eq!(topics::read(&broker, &orders, Values::Text)?.len(), 1);
    }
    Ok(())
}

#[test]
fn records_go_back_as_they_were() -> Result<()> {
    for broker in brokers("dlq-redrive")? {
        let (orders, letters) = filled(&broker)?;
        let planned = told(&broker, &["redrive", &letters, "--all", "--dry-run"])?;
        assert_eq!(planned.len(), 3, "{planned:?}");
        assert!(planned[0].starts_with(&format!("{letters}@0:0\tto {orders}-1\tk17")), "{planned:?}");
        assert!(topics::read(&broker, &orders, Values::Text)?.is_empty(), "a dry run sends nothing");

        let done = &documents(&broker, &["redrive", &letters, "--all", "-f", &naming(&orders)?])?[0];
        assert_eq!((&done["event"], &done["records"]), (&json!("redriven"), &json!(3)));
        assert_eq!((&done["without_record"], &done["topics"]), (&json!(1), &json!({ orders.as_str(): 3 })));
        let output = topics::run(&broker, "read", &[&orders], "")?;
        let sent: Vec<Value> =
            String::from_utf8(output.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        assert_eq!(sent.len(), 3);
        for (record, offset) in sent.iter().zip([17, 18, 19]) {
            let at = format!("{letters}@{}", ["0:0", "0:1", "1:0"][offset as usize - 17]);
            let headers = json!([["trace", format!("t{offset}")], ["__sandbar.redriven", at]]);
            let expected = (json!(1), json!(5000 + offset), json!(format!("k{offset}")), json!(format!("v{offset}")));
            let found = (&record["partition"], &record["timestamp"], &record["key"], &record["value"]);
            assert_eq!(found, (&expected.0, &expected.1, &expected.2, &expected.3));
            assert_eq!(record["headers"], headers, "{broker:?}");
        }

        let other = repository::unique("elsewhere");
        topics::create(&broker, &other, 1)?;
        let chosen = [format!("{letters}@0:1"), format!("{letters}@1:0")];
        told(&broker, &["redrive", &chosen[0], &chosen[1], "--to", &other, "--yes"])?;
        let values: Vec<Value> =
            topics::read(&broker, &other, Values::Text)?.into_iter().map(|record| record.value).collect();
        assert_eq!(values, ["v18", "v19"]);
    }
    Ok(())
}

#[test]
fn one_record_that_cannot_go_refuses_all() -> Result<()> {
    for broker in brokers("dlq-refuse")? {
        let (orders, letters) = filled(&broker)?;
        let small = repository::unique("small");
        let flags = ["--partitions", "2", "--config", "max.message.bytes=200"];
        let created = topics::run(&broker, "create", &[&[small.as_str()], flags.as_slice()].concat(), "")?;
        assert!(created.status.success());
        let mut large = Letter { partition: 0, source: &small, offset: 30, reason: "trap", message: "m" }.line();
        large["value"] = json!("x".repeat(500));
        topics::produce(&broker, &letters, Values::Text, &large.to_string())?;
        let (error, code) = refused(&broker, &["redrive", &letters, "--all"])?;
        assert!(error.contains("nothing was sent: 1 record cannot go"), "{error}");
        assert!(error.contains(&format!("{letters}@0:2")) && error.contains("max.message.bytes of topic"), "{error}");
        assert_eq!(code, Some(1));

        write(&broker, &letters, &[Letter { partition: 0, source: "gone", offset: 1, reason: "trap", message: "m" }])?;
        let (error, _) = refused(&broker, &["redrive", &letters, "--source", "gone"])?;
        assert!(error.contains("topic gone does not exist"), "{error}");
        let (error, _) = refused(&broker, &["redrive", &format!("{letters}@1:1")])?;
        assert!(error.contains("a punctuation failed"), "{error}");
        assert!(topics::read(&broker, &orders, Values::Text)?.is_empty());
    }
    Ok(())
}

#[test]
fn what_is_removed_is_at_the_start_of_partitions() -> Result<()> {
    for broker in brokers("dlq-purge")? {
        let (_, letters) = filled(&broker)?;
        let at = format!("{letters}@0:1");
        let planned = &documents(&broker, &["purge", "--before", &at, "--dry-run"])?[0];
        assert_eq!((&planned["event"], &planned["offsets"]), (&json!("would-purge"), &json!(1)));
        assert_eq!(told(&broker, &["list", &letters])?.len(), 4, "a dry run removes nothing");
        let done = &documents(&broker, &["purge", "--before", &at, "--yes"])?[0];
        assert_eq!((&done["event"], &done["partitions"]), (&json!("purged"), &json!({ "0": 1 })));
        assert_eq!(told(&broker, &["list", &letters])?.len(), 3);

        let time = "2026-11-27T17:30:20Z";
        let done = &documents(&broker, &["purge", &letters, "--before", time, "-y"])?[0];
        assert_eq!(done["partitions"], json!({ "0": 1, "1": 1 }), "{broker:?}");
        let left = told(&broker, &["list", &letters])?;
        assert!(left.len() == 1 && left[0].contains("tick"), "{left:?}");
        let done = &documents(&broker, &["purge", &letters, "--all", "-y"])?[0];
        assert_eq!(done["offsets"], 1);
        assert!(told(&broker, &["list", &letters])?.is_empty());
        let again = &documents(&broker, &["purge", &letters, "--all", "-y"])?[0];
        assert_eq!(again["offsets"], 0);
    }
    Ok(())
}

#[test]
fn mistakes_are_told() -> Result<()> {
    for broker in brokers("dlq-mistakes")? {
        let (_, letters) = filled(&broker)?;
        topics::produce(&broker, &letters, Values::Text, r#"{"partition":0,"value":"foreign"}"#)?;
        let malformed = json!({ "partition": 0, "headers": [
            ["__streams.errors.exception", "x"], ["__streams.errors.topic", "../etc"],
            ["__streams.errors.partition", "1"], ["__streams.errors.offset", { "base64": "/w==" }],
        ]});
        topics::produce(&broker, &letters, Values::Text, &malformed.to_string())?;
        let (foreign, outside, beyond) =
            (format!("{letters}@0:2"), format!("{letters}@7:0"), format!("{letters}@0:99"));
        let (missing, at) = (repository::unique("missing"), format!("{letters}@0:0"));
        for (arguments, expected, code) in [
            (vec!["show", &foreign], "is no dead letter", 1),
            (vec!["redrive", &foreign], "is no dead letter", 1),
            (vec!["show", &outside], "the topic has the partitions 0 to 1", 1),
            (vec!["show", &beyond], "from 0 to before 4", 1),
            (vec!["purge", "--before", &beyond, "-y"], "the partition ends before 4", 1),
            (vec!["list", &missing], "cannot read topic", 3),
            (vec!["purge", &missing, "--all", "-y"], "cannot read topic", 3),
            (vec!["list"], "no topic: name it", 2),
            (vec!["redrive", &letters], "which dead letters?", 2),
            (vec!["redrive", &letters, "--all", "--reason", "trap"], "one of the three", 2),
            (vec!["list", &letters, "--reason", "bored"], "invalid value 'bored'", 2),
            (vec!["list", &letters, "--since", "noon"], "such as 10m", 2),
            (vec!["purge", &letters], "--before", 2),
            (vec!["redrive", &letters, "--all", "--to", &letters, "-y"], "the dead letters are in this topic", 2),
            (vec!["redrive", &at, "--to", &letters, "--dry-run"], "the dead letters are in this topic", 2),
        ] {
            let (error, found) = refused(&broker, &arguments)?;
            assert!(error.contains(expected) && found == Some(code), "{arguments:?}: {found:?} {error}");
        }
        let shown = told(&broker, &["show", &format!("{letters}@0:3")])?.join("\n");
        assert!(shown.contains("source          unknown"), "{shown}");
        assert!(shown.contains("malformed       __streams.errors.offset: not UTF-8 text"), "{shown}");
        assert!(told(&broker, &["list", &letters])?.iter().any(|line| line.ends_with("no dead letter")));
    }
    Ok(())
}

#[test]
fn a_manifest_names_the_topic() -> Result<()> {
    for broker in brokers("dlq-manifest")? {
        let (_, letters) = filled(&broker)?;
        let manifest = repository::scratch(&repository::unique("dlq-manifest"))?.join("sandbar.toml");
        let key = format!("errors.dead.letter.queue.topic.name = \"{letters}\"\n");
        std::fs::write(&manifest, format!("application.id = \"invoices\"\nmodule = \"m.wasm\"\n{key}"))?;
        let file = manifest.to_str().context("a path of text")?;
        assert_eq!(told(&broker, &["list", "-f", file])?.len(), 4);
        std::fs::write(&manifest, "application.id = \"invoices\"\nmodule = \"m.wasm\"\n")?;
        let (error, code) = refused(&broker, &["list", "-f", file])?;
        assert!(error.contains("has no errors.dead.letter.queue.topic.name") && code == Some(2), "{error}");
    }
    Ok(())
}

/// How many offsets a topic has, those of open transactions included.
fn log_length(broker: &Broker, topic: &str) -> Result<u64> {
    let output = topics::run(broker, "list", &["-o", "json"], "")?;
    let text = String::from_utf8(output.stdout)?;
    let topics = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = topics.filter(|found| found["topic"] == topic).find_map(|found| found["records"].as_u64());
    found.with_context(|| format!("topic {topic} is not in {text}"))
}

/// Dead letters that take a while to send back.
const LETTERS: u64 = 20_000;

/// A source topic and a topic with so many dead letters.
fn many_letters(broker: &Broker) -> Result<(String, String)> {
    let (orders, letters) = (repository::unique("orders"), repository::unique("orders-dlq"));
    topics::create(broker, &orders, 2)?;
    topics::create(broker, &letters, 1)?;
    let letter = |offset| Letter { partition: 0, source: &orders, offset, reason: "trap", message: "boom" };
    write(broker, &letters, &(0..LETTERS as i64).map(letter).collect::<Vec<_>>())?;
    Ok((orders, letters))
}

/// A redrive on its way: a request for each record gives the time to see it half done.
fn slow_redrive(broker: &Broker, letters: &str, orders: &str, errors: Stdio) -> Result<Child> {
    let mut command = Command::new(repository::sandbar()?);
    command
        .args(["dlq", "redrive", letters, "--source", orders])
        .args(["-X", "producer.batch.num.messages=1", "-X", "producer.max.in.flight=1"])
        .args(broker.flags());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().context("cannot start sandbar dlq")
}

#[test]
fn a_redrive_that_is_killed_leaves_nothing() -> Result<()> {
    // A process of its own: whoever looks on would else start the broker, and end it under the redrive.
    let embedded = EmbeddedBroker::start(&repository::scratch(&repository::unique("dlq-kill"))?.join("broker"), &[])?;
    for broker in [kafka::broker()?, embedded.by_folder()] {
        let (orders, letters) = many_letters(&broker)?;
        let mut child = slow_redrive(&broker, &letters, &orders, Stdio::null())?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while log_length(&broker, &orders)? == 0 {
            ensure!(Instant::now() < deadline && child.try_wait()?.is_none(), "it was not seen at work on {broker:?}");
            thread::sleep(Duration::from_millis(5));
        }
        child.kill()?;
        child.wait()?;
        let written = log_length(&broker, &orders)?;
        assert!(0 < written && written < LETTERS, "it was killed half way, at {written}: {broker:?}");
        assert!(topics::read(&broker, &orders, Values::Text)?.is_empty(), "nothing is committed");

        told(&broker, &["redrive", &letters, "--source", &orders])?;
        let records = topics::read(&broker, &orders, Values::Text)?;
        let values: Vec<Value> = records.into_iter().map(|record| record.value).collect();
        let expected: Vec<Value> = (0..LETTERS).map(|offset| json!(format!("v{offset}"))).collect();
        assert!(values == expected, "{} records, each once and in order: {broker:?}", values.len());
    }
    Ok(())
}

/// The later of two calls ends the transaction of the earlier one, which says so.
#[test]
fn of_two_redrives_at_once_the_earlier_fails_and_says_why() -> Result<()> {
    let embedded = EmbeddedBroker::start(&repository::scratch(&repository::unique("dlq-two"))?.join("broker"), &[])?;
    for broker in [kafka::broker()?, embedded.by_folder()] {
        let (orders, letters) = many_letters(&broker)?;
        let mut earlier = slow_redrive(&broker, &letters, &orders, Stdio::piped())?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while log_length(&broker, &orders)? == 0 {
            ensure!(
                Instant::now() < deadline && earlier.try_wait()?.is_none(),
                "it was not seen at work on {broker:?}"
            );
            thread::sleep(Duration::from_millis(5));
        }
        told(&broker, &["redrive", &format!("{letters}@0:0")])?;
        let output = earlier.wait_with_output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains("another redrive of the topic may be running"), "{error}");
        assert_eq!(topics::read(&broker, &orders, Values::Text)?.len(), 1, "{broker:?}");
    }
    Ok(())
}
