//! `sandbar repro`: the dead letters of each kind, saved to files, fail in the same way without any broker, and a
//! module that is mended goes through.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::{Host, Options};
use e2e::repository;
use e2e::topics::{self, Broker, Values};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);

/// The ledger's entries, by the poison that the 21st byte asks for; see `tests/guests/ledger`.
fn entry(poison: Option<u8>) -> String {
    // Partition 0, the first of its sequence, an amount of 5.
    let mut bytes = [vec![0; 4], vec![0; 8], vec![0, 0, 0, 0, 0, 0, 0, 5]].concat();
    bytes.extend(poison);
    bytes.iter().map(|byte| format!("\\u{byte:04x}")).collect()
}

/// An application of the ledger, whose records are in an embedded broker of its own.
struct Place {
    id: String,
    broker: Broker,
    folder: PathBuf,
    module: PathBuf,
}

impl Place {
    fn new(name: &str) -> Result<Self> {
        let id = repository::unique(name);
        let folder = repository::scratch(&id)?;
        let broker = Broker::Embedded(folder.join("broker"));
        let module = repository::guest("ledger")?;
        let manifest = format!(
            "application.id = \"{id}\"\nmodule = \"{}\"\nerrors.dead.letter.queue.topic.name = \"dlq\"\n\
             application.server = \"127.0.0.1:0\"\n[config]\n\"idle.turns\" = \"100000000000\"\n",
            module.display()
        );
        std::fs::write(folder.join("sandbar.toml"), manifest)?;
        topics::create(&broker, "entries", 1)?;
        topics::create(&broker, "dlq", 1)?;
        topics::create(&broker, "second", 1)?;
        let sink = ["first", "--partitions", "1", "--config", "max.message.bytes=20000"];
        ensure!(topics::run(&broker, "create", &sink, "")?.status.success());
        Ok(Self { id, broker, folder, module })
    }

    fn produce(&self, value: &str) -> Result<()> {
        topics::produce(&self.broker, "entries", Values::Text, &format!("{{\"key\":\"k\",\"value\":\"{value}\"}}"))
    }

    /// Runs until nothing comes any more.
    fn run(&self, settings: &[(&str, &str)]) -> Result<()> {
        let state_dir = self.folder.join("state");
        let manifest = self.folder.join("sandbar.toml");
        let mut options = Options::new(&manifest, &self.broker, &self.id, &state_dir).flag("--until-idle").flag("1s");
        for (key, value) in settings {
            options = options.set(key, value);
        }
        let mut host = Host::start(&options)?;
        let status = host.wait(LIMIT)?;
        ensure!(status.success(), "{}", host.log());
        Ok(())
    }

    /// Saves every dead letter, and returns the files by reason.
    fn saved(&self) -> Result<BTreeMap<String, PathBuf>> {
        let flags = self.broker.flags();
        let flags = strings(&flags);
        let listed = sandbar(&[&["dlq", "list", "dlq", "-o", "json"][..], &flags].concat())?;
        let mut files = BTreeMap::new();
        for line in String::from_utf8(listed.stdout)?.lines() {
            let letter: Value = serde_json::from_str(line)?;
            let reason = letter["reason"].as_str().context("it has no reason")?.to_owned();
            let position = letter["position"].as_str().context("it has no position")?;
            let file = self.folder.join(format!("{reason}-{}.json", files.len()));
            let path = file.display().to_string();
            let output = sandbar(&[&["dlq", "show", position, "--save", &path][..], &flags].concat())?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            files.insert(reason, file);
        }
        Ok(files)
    }
}

fn strings(flags: &[std::ffi::OsString]) -> Vec<&str> {
    flags.iter().filter_map(|flag| flag.to_str()).collect()
}

fn sandbar(arguments: &[&str]) -> Result<Output> {
    Command::new(repository::sandbar()?).args(arguments).output().context("cannot start sandbar")
}

/// Repeats a saved dead letter, in a folder without anything else.
fn repro(file: &Path, module: &Path) -> Result<(Option<i32>, Value)> {
    let (file_text, module) = (file.display().to_string(), module.display().to_string());
    let mut command = Command::new(repository::sandbar()?);
    command.args(["repro", "--from-file", &file_text, "--module", &module, "-o", "json"]);
    let output = command.current_dir(file.parent().context("it is in a folder")?).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // The module's notices come before it, and the error after it.
    let report = text.lines().find(|line| line.contains("\"verdict\""));
    let report = report.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code(), serde_json::from_str(report)?))
}

#[test]
fn a_dead_letter_of_each_kind_fails_in_the_same_way_elsewhere() -> Result<()> {
    let place = Place::new("repro")?;
    place.produce(&entry(None))?;
    place.produce("no entry")?;
    // A trap, memory, a partition that is not there, an output that is too large.
    for poison in 1..=4 {
        place.produce(&entry(Some(poison)))?;
    }
    place.run(&[("processor.memory.max.bytes", "8388608")])?;
    // These fail at everything.
    place.produce(&entry(None))?;
    place.run(&[("processor.output.max.records", "1")])?;
    place.produce(&entry(None))?;
    place.run(&[("config.idle.one.in", "1"), ("processor.deadline.ms", "100")])?;

    let saved = place.saved()?;
    let reasons: Vec<&str> = saved.keys().map(String::as_str).collect();
    assert_eq!(reasons, ["deadline", "limit", "memory", "output", "refused", "too-large", "trap"]);
    for (reason, file) in &saved {
        let (code, said) = repro(file, &place.module)?;
        ensure!(code == Some(1) && said["verdict"] == "reproduced", "{reason}: {code:?} {said:#}");
        ensure!(said["reason"] == json!(reason), "{reason}: {said:#}");
        if reason == "trap" {
            ensure!(said["backtrace"].as_str().is_some_and(|text| text.lines().count() > 1), "{said:#}");
        }
    }
    // Another module is what mends it.
    let (code, said) = repro(&saved["trap"], &repository::guest("uppercase")?)?;
    ensure!(code == Some(0) && said["verdict"] == "processed", "{code:?} {said:#}");
    Ok(())
}
