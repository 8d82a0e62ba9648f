//! One truncated change in the middle of a partition: the others arrive, the bad one is found and reproduced, a mended
//! module reads it, and it is sent back once. On both brokers, under exactly-once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::{Host, Options};
use e2e::topics::{self, Broker, Record, Values};
use e2e::{kafka, repository};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: u64 = 3;
const CUSTOMERS_OF_PARTITION: u64 = 5;
const INVOICES_OF_PARTITION: u64 = 400;
/// The one that is cut off.
const BAD: (u64, u64) = (1, 217);

/// Whose invoice is at an offset of a partition, and how much it is.
fn invoice(partition: u64, offset: u64) -> (String, i64) {
    let customer = format!("customer-{partition}-{}", offset * 7 % CUSTOMERS_OF_PARTITION);
    (customer, 100 + (offset * 31 + partition * 17) as i64 % 9_000)
}

fn every_invoice() -> impl Iterator<Item = (u64, u64)> {
    (0..INVOICES_OF_PARTITION).flat_map(|offset| (0..PARTITIONS).map(move |partition| (partition, offset)))
}

fn change(partition: u64, offset: u64) -> String {
    let (customer, amount_cents) = invoice(partition, offset);
    let text = json!({
        "op": "c", "ts_ms": 1_795_800_000_000_u64 + offset, "before": null,
        "after": { "amount_cents": amount_cents, "customer": customer, "note": "delivered {to} the \"back\" door" },
        "source": { "connector": "postgresql", "table": "invoices", "lsn": offset },
    })
    .to_string();
    if (partition, offset) == BAD { text.split(" door").next().unwrap_or_default().to_owned() } else { text }
}

struct Invoices {
    id: String,
    broker: Broker,
    folder: PathBuf,
}

impl Invoices {
    fn new(broker: Option<Broker>) -> Result<Self> {
        let id = repository::unique("invoices");
        let folder = repository::scratch(&id)?;
        let broker = broker.unwrap_or_else(|| Broker::Embedded(folder.join("broker")));
        let invoices = Self { id, broker, folder };
        topics::create(&invoices.broker, &invoices.topic("in"), PARTITIONS as u32)?;
        topics::create(&invoices.broker, &invoices.topic("out"), PARTITIONS as u32)?;
        topics::create(&invoices.broker, &invoices.topic("dlq"), 1)?;
        Ok(invoices)
    }

    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    /// Runs a module until nothing comes any more.
    fn run(&self, module: &str) -> Result<()> {
        let manifest = self.folder.join("sandbar.toml");
        let module = repository::guest(module)?;
        std::fs::write(&manifest, format!("application.id = \"{}\"\nmodule = \"{}\"\n", self.id, module.display()))?;
        let state_dir = self.folder.join("state");
        let options = Options::new(&manifest, &self.broker, &self.id, &state_dir)
            .set("sources.invoices.topic", &self.topic("in"))
            .set("sinks.customer_totals.topic", &self.topic("out"))
            .set("errors.dead.letter.queue.topic.name", &self.topic("dlq"))
            .flag("--until-idle")
            .flag("1s");
        let mut host = Host::start(&options)?;
        let status = host.wait(LIMIT)?;
        ensure!(status.success(), "{}", host.log());
        Ok(())
    }

    fn sandbar(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(repository::sandbar()?);
        // What it leaves behind, such as compiled code, stays out of the repository.
        command.current_dir(&self.folder);
        command.args(words).args(self.broker.flags()).output().context("cannot start sandbar")
    }

    fn documents(&self, words: &[&str]) -> Result<Vec<Value>> {
        let output = self.sandbar(&[words, &["-o", "json"]].concat())?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn totals(&self) -> Result<Totals> {
        let mut totals = Totals::new();
        for Record { key, value, .. } in topics::read(&self.broker, &self.topic("out"), Values::I64)? {
            let customer = key.as_str().context("a customer is text")?.to_owned();
            totals.entry(customer).or_default().push(value.as_i64().context("a total is a number")?);
        }
        Ok(totals)
    }

    /// Repeats a dead letter on a module, without this application.
    fn repro(&self, position: &str, module: &str) -> Result<(Option<i32>, Value)> {
        let module = repository::guest(module)?.display().to_string();
        let output = self.sandbar(&["repro", "--from-dlq", position, "--module", &module, "-o", "json"])?;
        let text = String::from_utf8(output.stdout)?;
        let report = text.lines().find(|line| line.contains("\"verdict\""));
        let report = report.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok((output.status.code(), serde_json::from_str(report)?))
    }
}

/// The totals of each customer, in their order.
type Totals = BTreeMap<String, Vec<i64>>;

/// Adds what must be forwarded for an invoice.
fn add(totals: &mut Totals, partition: u64, offset: u64) {
    let (customer, amount_cents) = invoice(partition, offset);
    let of_customer = totals.entry(customer).or_default();
    of_customer.push(of_customer.last().unwrap_or(&0) + amount_cents);
}

#[test]
fn a_truncated_change_is_found_mended_and_sent_back_once() -> Result<()> {
    for broker in [None, Some(kafka::broker()?)] {
        let invoices = Invoices::new(broker)?;
        let mut lines = String::new();
        for (partition, offset) in every_invoice() {
            let (key, value) = (invoice(partition, offset).0, change(partition, offset));
            lines += &(json!({ "partition": partition, "key": key, "value": value }).to_string() + "\n");
        }
        topics::produce(&invoices.broker, &invoices.topic("in"), Values::Text, &lines)?;

        // The others arrive, in order.
        invoices.run("invoices")?;
        let mut model = Totals::new();
        for (partition, offset) in every_invoice().filter(|&at| at != BAD) {
            add(&mut model, partition, offset);
        }
        ensure!(invoices.totals()? == model, "the totals without the bad change, on {:?}", invoices.broker);

        // The bad one is found, and fails elsewhere as it did here.
        let letters = invoices.documents(&["dlq", "list", &invoices.topic("dlq"), "--reason", "refused"])?;
        ensure!(letters.len() == 1, "{letters:?}");
        let source = format!("{}@{}:{}", invoices.topic("in"), BAD.0, BAD.1);
        ensure!(letters[0]["source"] == json!(source), "{letters:?}");
        let position = letters[0]["position"].as_str().context("it has no position")?;
        let shown = &invoices.documents(&["dlq", "show", position])?[0];
        ensure!(shown["value"] == json!(change(BAD.0, BAD.1)), "{shown:#}");
        ensure!(shown["message"].as_str().is_some_and(|text| text.contains("EOF while parsing")), "{shown:#}");
        let (code, said) = invoices.repro(position, "invoices")?;
        ensure!(code == Some(1) && said["verdict"] == "reproduced", "{code:?} {said:#}");
        let (code, said) = invoices.repro(position, "invoices-mended")?;
        ensure!(code == Some(0) && said["verdict"] == "processed", "{code:?} {said:#}");

        // It is sent back to the module that reads it, and nothing else is.
        let done = &invoices.documents(&["dlq", "redrive", position, "--yes"])?[0];
        ensure!(done["records"] == 1, "{done:#}");
        invoices.run("invoices-mended")?;
        add(&mut model, BAD.0, BAD.1);
        ensure!(invoices.totals()? == model, "the totals with it, on {:?}", invoices.broker);
        let read = topics::read(&invoices.broker, &invoices.topic("in"), Values::Text)?;
        ensure!(read.len() as u64 == PARTITIONS * INVOICES_OF_PARTITION + 1, "{} records", read.len());
        ensure!(topics::read(&invoices.broker, &invoices.topic("dlq"), Values::Text)?.len() == 1);
    }
    Ok(())
}
