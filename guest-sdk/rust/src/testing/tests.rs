//! The SDK through the driver: atomic records, outputs, metadata, schedules, and how few host calls a batch costs.

use std::time::Duration;

use crate::bindings::sandbar::processor::types;
use crate::prelude::*;
use crate::testing::{HostCalls, TestDriver, TestRecord};

/// Does what its records say.
#[sandbar::processor(source = "orders", source = "more")]
struct Obedient {
    #[store(prefetch, version = 3, name = "tallies")]
    counts: Store<String, i64>,
    #[sink]
    first: Sink<String, String>,
    #[sink(name = "second-sink")]
    second: Sink<Option<Raw>, Json<u32>>,
    schedule: Option<ScheduleId>,
    punctuations: Vec<i64>,
}

impl Processor for Obedient {
    type Key = String;
    type Value = Option<Str>;

    fn init(&mut self, context: &mut Context) -> Result<()> {
        if context.config("forward.in.init").is_some() {
            self.first.forward("a", "b")?;
        }
        Ok(())
    }

    fn process(&mut self, record: Record<String, Option<Str>>, context: &mut Context) -> Result<()> {
        let Some(order) = record.value else {
            return self.first.forward_tombstone(&record.key);
        };
        match order {
            "count" | "count and fail" => {
                let count = self.counts.get(&record.key)?.unwrap_or(0) + 1;
                self.counts.put(&record.key, &count)?;
                self.first.forward(&record.key, &count.to_string())?;
                self.second.record(&None, &7).header("h", b"v").partition(2).forward()?;
                if order == "count and fail" {
                    context.schedule(Duration::from_millis(10), PunctuationType::WallClockTime)?;
                    bail!("failed after {count}");
                }
            }
            "metadata" => {
                let time = context.stream_time().unwrap_or(-1);
                let text = format!(
                    "{} {} {} {} {time} {} {}",
                    record.topic,
                    record.partition,
                    record.offset,
                    record.timestamp,
                    context.wall_clock_time(),
                    context.task().partition
                );
                self.first
                    .record(&record.key, &text)
                    .headers(record.headers)
                    .header("last", b"1")
                    .timestamp(5)
                    .forward()?;
            }
            "schedule" => {
                self.schedule = Some(context.schedule(Duration::from_millis(100), PunctuationType::StreamTime)?)
            }
            "schedule wall" => {
                self.schedule = Some(context.schedule(Duration::from_millis(100), PunctuationType::WallClockTime)?);
            }
            "cancel" | "cancel and fail" => {
                if let Some(schedule) = self.schedule {
                    context.cancel(schedule);
                }
                ensure!(order == "cancel", "failed to cancel");
            }
            "at no time" => self.first.record(&record.key, "x").timestamp(-1).forward()?,
            "never" => drop(context.schedule(Duration::from_micros(1), PunctuationType::StreamTime)?),
            other => bail!("unknown order {other}"),
        }
        Ok(())
    }

    fn punctuate(&mut self, punctuation: Punctuation, context: &mut Context) -> Result<()> {
        self.punctuations.push(punctuation.time);
        self.counts.put("punctuated", &punctuation.time)?;
        self.first.forward("punctuation", &punctuation.time.to_string())?;
        ensure!(context.config("punctuation.fails").is_none(), "no punctuation today");
        Ok(())
    }
}

fn order(key: &str, order: &str, timestamp: i64) -> TestRecord {
    TestRecord { key: Some(key.into()), value: Some(order.into()), timestamp, ..TestRecord::default() }
}

fn values(driver: &mut TestDriver<Obedient>) -> Vec<String> {
    driver.read(|p| &p.first).into_iter().map(|forwarded| forwarded.value).collect()
}

#[test]
fn a_failing_record_leaves_nothing_and_others_go_on() -> Result<()> {
    let mut driver = TestDriver::<Obedient>::new()?;
    let refused = driver.pipe_all(vec![
        order("a", "count", 1),
        order("a", "count and fail", 2),
        TestRecord { key: None, ..order("", "count", 3) },
        TestRecord { value: Some(vec![0xff]), ..order("a", "", 4) },
        order("a", "count", 5),
        order("a", "count and fail", 6),
    ])?;

    let reasons: Vec<_> = refused.iter().map(|refused| (refused.index, refused.reason.as_str())).collect();
    assert_eq!(reasons[0], (1, "failed after 2"));
    assert_eq!(reasons[1], (2, "deserialization: the key is null where UTF-8 text was expected"));
    assert!(
        reasons[2].0 == 3 && reasons[2].1.starts_with("deserialization: the value is not UTF-8 text"),
        "{reasons:?}"
    );
    assert_eq!(reasons[3], (5, "failed after 3"));

    assert_eq!(driver.store(|p| &p.counts).get("a"), Some(2));
    assert_eq!(driver.store(|p| &p.counts).timestamp("a"), Some(5));
    let second = driver.read(|p| &p.second);
    assert_eq!(second.len(), 2);
    assert_eq!((second[1].timestamp, second[1].partition, second[1].headers.len()), (5, Some(2), 1));
    assert_eq!(values(&mut driver), ["1", "2"]);
    driver.advance_wall_clock(Duration::from_secs(1))?;
    assert!(values(&mut driver).is_empty(), "a schedule of a failed record fired");
    Ok(())
}

#[test]
fn a_batch_costs_one_read_and_one_write() -> Result<()> {
    let mut driver = TestDriver::<Obedient>::new()?;
    let records =
        |from: i64| (from..from + 500).map(|time| order(&format!("k{}", time % 100), "count", time)).collect();
    driver.pipe_all(records(0))?;
    assert_eq!(driver.host_calls(), HostCalls { get_many: 1, put_many: 1, ..HostCalls::default() });
    driver.pipe_all(records(500))?;
    assert_eq!(driver.host_calls(), HostCalls { get_many: 2, put_many: 2, ..HostCalls::default() });
    assert_eq!(driver.store(|p| &p.counts).get("k7"), Some(10));
    Ok(())
}

#[test]
fn a_record_knows_where_it_comes_from() -> Result<()> {
    let mut driver = TestDriver::<Obedient>::builder().wall_clock_time(99).partition(4).start()?;
    let plain = order("a", "metadata", 30);
    let late = order("a", "metadata", 20).header("x", b"1").header("y", b"2").source("more");
    assert_eq!(driver.pipe_all(vec![plain, late])?, []);
    let forwarded = driver.read(|p| &p.first);
    assert_eq!(forwarded[0].value, "orders 4 0 30 30 99 4");
    assert_eq!(forwarded[1].value, "more 4 1 20 30 99 4");
    assert_eq!(forwarded[1].timestamp, 5);
    let keys: Vec<&str> = forwarded[1].headers.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["x", "y", "last"]);
    assert_eq!(forwarded[0].headers.len(), 1);
    Ok(())
}

#[test]
fn tombstones_and_mixed_sinks_keep_their_places() -> Result<()> {
    let mut driver = TestDriver::<Obedient>::new()?;
    let tombstone = TestRecord { value: None, ..order("gone", "", 1) };
    driver.pipe_all(vec![tombstone.clone(), order("a", "count", 2), tombstone])?;
    let first = driver.read_nullable(|p| &p.first);
    assert_eq!(first.iter().map(|f| f.value.as_deref()).collect::<Vec<_>>(), [None, Some("1"), None]);
    assert!(first.iter().all(|forwarded| forwarded.partition.is_none() && forwarded.headers.is_empty()));
    let second = driver.read(|p| &p.second);
    assert_eq!((second.len(), second[0].key.clone(), second[0].value), (1, None, 7));
    Ok(())
}

#[test]
fn stream_time_punctuations_fire_as_in_the_engine() -> Result<()> {
    for batch_records in [1, 500] {
        let mut driver = TestDriver::<Obedient>::builder().batch_records(batch_records).start()?;
        let times = [250, 251, 299, 300, 310, 640, 650, 700];
        driver.pipe_all(vec![order("a", "schedule", 249)])?;
        driver.pipe_all(times.iter().map(|&time| order("a", "count", time)).collect())?;
        // At once (the schedule starts at the epoch), at each full interval, once for several that were missed.
        let fired: Vec<i64> = driver
            .read(|p| &p.first)
            .into_iter()
            .filter(|forwarded| forwarded.key == "punctuation")
            .map(|forwarded| forwarded.timestamp)
            .collect();
        assert_eq!(fired, [249, 300, 640, 700], "batches of {batch_records}");
        assert_eq!(driver.store(|p| &p.counts).timestamp("punctuated"), Some(700));
    }
    Ok(())
}

#[test]
fn wall_clock_punctuations_end_when_cancelled() -> Result<()> {
    let mut driver = TestDriver::<Obedient>::builder().wall_clock_time(1_000).start()?;
    driver.pipe("a", &Some("schedule wall".into()), 1)?;
    driver.advance_wall_clock(Duration::from_millis(99))?;
    assert!(values(&mut driver).is_empty());
    driver.advance_wall_clock(Duration::from_millis(1))?;
    driver.advance_wall_clock(Duration::from_millis(350))?;
    assert_eq!(values(&mut driver), ["1100", "1450"]);

    driver.pipe("a", &Some("cancel and fail".into()), 2).expect_err("refused");
    driver.advance_wall_clock(Duration::from_millis(50))?;
    assert_eq!(values(&mut driver), ["1500"], "a failed record cancelled");
    driver.pipe("a", &Some("cancel".into()), 3)?;
    driver.advance_wall_clock(Duration::from_secs(9))?;
    assert!(values(&mut driver).is_empty());
    Ok(())
}

#[test]
fn a_failing_punctuation_leaves_nothing() -> Result<()> {
    let mut driver = TestDriver::<Obedient>::builder().config("punctuation.fails", "yes").start()?;
    driver.pipe("a", &Some("schedule wall".into()), 1)?;
    let error = driver.advance_wall_clock(Duration::from_millis(100)).expect_err("it fails").to_string();
    assert_eq!(error, "a punctuation failed: no punctuation today");
    assert!(driver.store(|p| &p.counts).is_empty());
    assert!(values(&mut driver).is_empty());
    Ok(())
}

#[test]
fn misuse_is_an_error_with_a_reason() -> Result<()> {
    let refusal = |text: &str| -> Result<String> {
        let mut driver = TestDriver::<Obedient>::new()?;
        Ok(driver.pipe("a", &Some(text.into()), 1).expect_err("refused").to_string())
    };
    assert_eq!(refusal("at no time")?, "a forwarded record needs a timestamp of 0 or more, found -1");
    assert_eq!(refusal("never")?, "a schedule needs an interval of at least 1 ms, found 1µs");
    let error = TestDriver::<Obedient>::builder().config("forward.in.init", "").start().err().map(|e| e.to_string());
    assert_eq!(error.as_deref(), Some("init failed: records are forwarded only from process and punctuate"));
    let mut driver = TestDriver::<Obedient>::new()?;
    let error =
        driver.pipe_all(vec![order("a", "count", 1).source("nowhere")]).expect_err("no such source").to_string();
    assert_eq!(error, "the processor has no source nowhere");
    Ok(())
}

#[test]
fn the_topology_is_what_the_struct_says() -> Result<()> {
    let driver = TestDriver::<Obedient>::new()?;
    let [sub_topology] = driver.topology().sub_topologies.as_slice() else { panic!("one sub-topology") };
    let sources: Vec<&str> = sub_topology.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(sources, ["orders", "more"]);
    let sinks: Vec<&str> = sub_topology.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(sinks, ["first", "second-sink"]);
    let expected = types::StoreDeclaration {
        name: "tallies".into(),
        kind: "key-value".into(),
        key_format: "utf8".into(),
        value_format: "i64".into(),
        version: 3,
        options: Vec::new(),
    };
    assert_eq!(sub_topology.stores, [expected]);
    Ok(())
}

/// What version 1 kept as a number of cents, 2 as text.
#[derive(serde::Deserialize, serde::Serialize, PartialEq, Debug)]
struct Price {
    cents: i64,
    currency: String,
}

fn of_cents(_product: &str, cents: i64) -> Result<Option<Price>> {
    ensure!(cents >= 0, "a price of {cents} cents is none");
    Ok((cents > 0).then(|| Price { cents, currency: "EUR".to_owned() }))
}

fn of_text(_product: &str, text: &str) -> Result<Option<Price>> {
    let (cents, currency) = text.split_once(' ').ok_or_else(|| Error::new("no currency"))?;
    Ok(Some(Price { cents: cents.parse()?, currency: currency.to_owned() }))
}

#[sandbar::processor(source = "orders")]
struct Prices {
    #[store(
        version = 3,
        migrate(from = 1, old = i64, with = of_cents),
        migrate(from = 2, old = Str, with = of_text)
    )]
    prices: Store<Str, Json<Price>>,
    #[sink]
    out: Sink<Str, i64>,
}

impl Processor for Prices {
    type Key = Str;
    type Value = Raw;

    fn process(&mut self, record: Record<Str, Raw>, _context: &mut Context) -> Result<()> {
        match self.prices.get(record.key)? {
            Some(price) => self.out.forward(record.key, &price.cents),
            None => bail!("no price"),
        }
    }
}

#[test]
fn rows_of_older_versions_are_taken_over() -> Result<()> {
    let mut driver = TestDriver::<Prices>::new()?;
    let price = |cents, currency: &str| Price { cents, currency: currency.to_owned() };
    assert_eq!(driver.migrate::<i64, _, _>(|p| &p.prices, 1, "tea", &350)?, Some(price(350, "EUR")));
    assert_eq!(driver.migrate::<Str, _, _>(|p| &p.prices, 2, "rum", "900 GBP")?, Some(price(900, "GBP")));
    driver.pipe("tea", b"", 1)?;
    assert_eq!(driver.read(|p| &p.out)[0].value, 350);
    // A row that is nothing any more is deleted.
    assert_eq!(driver.migrate::<i64, _, _>(|p| &p.prices, 1, "tea", &0)?, None);
    assert_eq!(driver.store(|p| &p.prices).get("tea"), None);

    let mut refused =
        |from, cents| driver.migrate::<i64, _, _>(|p| &p.prices, from, "tea", &cents).expect_err("refused").to_string();
    assert_eq!(refused(1, -1), "store prices: the row of key `tea`: a price of -1 cents is none");
    assert_eq!(
        refused(4, 1),
        "it has no migration of store prices from version 4; it has: prices from version 1, prices from version 2"
    );
    let wrong = driver.migrate::<Raw, _, _>(|p| &p.prices, 1, "tea", b"three").expect_err("refused").to_string();
    assert_eq!(
        wrong,
        "store prices: the row of key `tea`: the value is not a big-endian 64-bit integer: 8 bytes expected, 5 found \
         (`three`)"
    );
    assert!(driver.store(|p| &p.prices).get("tea").is_none());
    Ok(())
}

/// The bindings are generated ahead of time; a contract that moved on without them would be found by nobody else.
#[test]
fn the_bindings_are_those_of_the_contract() {
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/processor.wit");
    let contract = std::fs::read(contract).expect("the contract is in the checkout");
    let checksum = contract
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let expected = format!("// contract: {checksum:016x}");
    let found = include_str!("../bindings.rs").lines().nth(1);
    assert_eq!(
        found,
        Some(expected.as_str()),
        "wit/processor.wit has changed: run `cargo run --manifest-path guest-sdk/rust/bindings/Cargo.toml`"
    );
}
