//! Records that a module cannot process: the application stops and names topic, partition, offset and module, nothing
//! of the call is committed, and with the record out of the way everything is processed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::host::{Host, Options};
use e2e::topics::{self, Broker, Values};
use e2e::{kafka, repository};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// The `hello` example with topics of its own.
struct Hello {
    id: String,
    broker: Broker,
    folder: PathBuf,
}

impl Hello {
    fn new(name: &str, broker: Option<Broker>) -> Result<Self> {
        let id = repository::unique(name);
        let folder = repository::scratch(&id)?;
        let broker = broker.unwrap_or_else(|| Broker::Embedded(folder.join("broker")));
        let hello = Self { id, broker, folder };
        topics::create(&hello.broker, &hello.topic("greetings"), 1)?;
        topics::create(&hello.broker, &hello.topic("answers"), 1)?;
        Ok(hello)
    }

    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    /// Runs until nothing comes any more, or until it fails.
    fn run(&self) -> Result<(bool, String)> {
        self.run_with(&[])
    }

    fn run_with(&self, settings: &[(&str, &str)]) -> Result<(bool, String)> {
        let manifest = repository::example("hello").join("sandbar.toml");
        let state_dir = self.folder.join("state");
        let mut options = Options::new(&manifest, &self.broker, &self.id, &state_dir)
            .set("sources.greetings.topic", &self.topic("greetings"))
            .set("sinks.answers.topic", &self.topic("answers"));
        for (key, value) in settings {
            options = options.set(key, value);
        }
        options.arguments.extend(["--until-idle".into(), "1s".into()]);
        let mut host = Host::start(&options)?;
        let status = host.wait(LIMIT)?;
        Ok((status.success(), host.log()))
    }

    fn produce(&self, line: &str) -> Result<()> {
        topics::produce(&self.broker, &self.topic("greetings"), Values::Text, line)
    }

    fn answers(&self) -> Result<Vec<String>> {
        let records = topics::read(&self.broker, &self.topic("answers"), Values::Text)?;
        Ok(records.iter().map(|record| record.value.as_str().unwrap_or_default().to_owned()).collect())
    }
}

#[test]
fn a_null_key_is_a_key_like_any() -> Result<()> {
    let hello = Hello::new("null-key", None)?;
    hello.produce(&json!({ "key": null, "value": "Hello" }).to_string())?;
    let (succeeded, log) = hello.run()?;
    ensure!(succeeded, "{log}");
    assert_eq!(hello.answers()?, ["Hello, World!"]);
    Ok(())
}

#[test]
fn a_refused_record_stops_the_application_and_commits_nothing() -> Result<()> {
    for broker in [None, Some(kafka::broker()?)] {
        let hello = Hello::new("refused", broker)?;
        hello.produce(&json!({ "key": "a", "value": "Hello" }).to_string())?;
        hello.produce(&json!({ "key": "b", "value": null }).to_string())?;
        // Twice, since a start must not step over it either.
        for _ in 0..2 {
            let (succeeded, log) = hello.run()?;
            ensure!(!succeeded, "the application went on:\n{log}");
            for word in [format!("{}-0", hello.topic("greetings")), "offset 1".to_owned()] {
                ensure!(log.contains(&word), "`{word}` is missing in:\n{log}");
            }
            let error = log.split("error:").nth(1).unwrap_or_default();
            ensure!(names_a_digest(error), "the module's digest is missing in:\n{log}");
            ensure!(hello.answers()?.is_empty(), "something was forwarded: {:?}", hello.answers()?);
        }
    }
    Ok(())
}

#[test]
fn a_refused_record_is_a_dead_letter_where_there_is_a_topic_for_it() -> Result<()> {
    for broker in [None, Some(kafka::broker()?)] {
        let hello = Hello::new("dead-letter", broker)?;
        topics::create(&hello.broker, &hello.topic("dlq"), 1)?;
        for (key, value) in [("a", json!("Hello")), ("b", json!(null)), ("c", json!("Bye"))] {
            hello.produce(&json!({ "key": key, "value": value }).to_string())?;
        }
        let (succeeded, log) = hello.run_with(&[("errors.dead.letter.queue.topic.name", &hello.topic("dlq"))])?;
        ensure!(succeeded, "{log}");
        assert_eq!(hello.answers()?, ["Hello, World!", "Bye, World!"]);
        let letters = topics::read(&hello.broker, &hello.topic("dlq"), Values::Text)?;
        ensure!(letters.len() == 1, "{letters:?}");
        assert_eq!((letters[0].key.as_str(), letters[0].value.is_null()), (Some("b"), true));
    }
    Ok(())
}

/// Whether a sha-256 stands in the text.
fn names_a_digest(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_hexdigit()).any(|word| word.len() == 64)
}
