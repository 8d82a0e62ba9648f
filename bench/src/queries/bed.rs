//! What is measured: a host whose store has many keys in RocksDB, filled through Kafka, and what is sent to it. The
//! keys are where Kafka's default partitioner puts them.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::host::{Host, Options, wait_committed, wait_until};
use e2e::http::{self, Client};
use e2e::topics::Broker;
use engine::broker::{ClientSupplier, NewTopic, Producer, ProducerRecord};
use engine::partitioner::partition_for_key;

use super::Plan;
use crate::real_kafka;
use crate::sandbox_tax::guests_dir;

pub const APPLICATION: &str = "bench-queries";
pub const STORE: &str = "values";
const INPUT: &str = "bench-queries-in";
pub const PARTITIONS: i32 = 4;
pub const LIMIT: Duration = Duration::from_secs(300);

/// See the module's head. Dropping it ends the hosts.
pub struct Bed {
    bootstrap: String,
    folder: PathBuf,
    manifest: PathBuf,
    keys: u64,
    host: Option<Host>,
}

/// A second host, and which partitions are at the first one and at this one.
pub struct Pair {
    host: Host,
    pub here: BTreeSet<i32>,
    pub there: BTreeSet<i32>,
}

impl Pair {
    pub fn process_id(&self) -> u32 {
        self.host.process_id()
    }
}

/// The text of a key.
pub fn key(number: u64) -> String {
    format!("k{number:09}")
}

/// The value of a key, about 100 bytes of JSON.
pub fn value(number: u64) -> String {
    let station = number % 97;
    format!(
        r#"{{"id":"{number:010}","agent":"station-{station:02}","state":true,"note":"some more text that a report carries"}}"#
    )
}

/// The first key from a number on that is in one of these partitions.
pub fn key_in(partitions: &BTreeSet<i32>, number: u64, keys: u64) -> u64 {
    let is_in = |number: &u64| partitions.contains(&partition_for_key(key(*number).as_bytes(), PARTITIONS));
    (0..keys).map(|step| number.wrapping_add(step) % keys).find(is_in).unwrap_or(0)
}

fn path_of(number: u64) -> String {
    format!("/v1/apps/{APPLICATION}/stores/{STORE}/keys/{}?key_format=utf8", key(number))
}

/// A read of a key.
pub fn read_request(number: u64) -> Vec<u8> {
    http::request("GET", &format!("{}&value_format=json", path_of(number)), &[], b"")
}

/// A write of a key, with further words of its query.
pub fn write_request(number: u64, query: &str) -> Vec<u8> {
    http::request("PUT", &format!("{}{query}", path_of(number)), &[], value(number).as_bytes())
}

impl Bed {
    /// Fills the topic, has a host process it, and starts that host again, so that everything is in files.
    ///
    /// # Errors
    /// When one of the processes does not do what it should.
    pub fn make(plan: &Plan) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("sandbar-bench-queries-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let module =
            fs::canonicalize(guests_dir().join("register.wasm")).context("the guest register; `make guests`")?;
        let manifest = folder.join("sandbar.toml");
        let text = format!(
            "application.id = \"{APPLICATION}\"\nmodule = {:?}\n[sources.in]\ntopic = \"{INPUT}\"\n[stores.{STORE}]\n\
             write.source = \"in\"\n",
            module.display().to_string()
        );
        fs::write(&manifest, text)?;
        let bootstrap = plan.bootstrap.clone();
        let mut bed = Self { bootstrap, folder, manifest, keys: plan.keys, host: None };
        let topic = NewTopic {
            name: INPUT.to_owned(),
            partitions: PARTITIONS,
            replication_factor: 1,
            configs: Default::default(),
        };
        real_kafka::clients(&bed.bootstrap, APPLICATION)?.admin()?.create_topic(&topic)?;
        bed.produce(0..plan.keys)?;
        bed.start()?;
        wait_committed(&[bed.host()?], INPUT, plan.keys, LIMIT)?;
        bed.stop()?;
        bed.start()?;
        Ok(bed)
    }

    pub fn host(&self) -> Result<&Host> {
        self.host.as_ref().context("the host does not run")
    }

    pub fn process_id(&self) -> Result<u32> {
        Ok(self.host()?.process_id())
    }

    pub fn address(&self) -> Result<SocketAddr> {
        address_of(self.host()?)
    }

    /// A read of a key of this bed.
    pub fn read(&self, number: u64) -> Vec<u8> {
        read_request(number % self.keys)
    }

    /// The bytes of an answer to a read.
    ///
    /// # Errors
    /// When there is none.
    pub fn answer_bytes(&self) -> Result<usize> {
        let answer = Client::new(self.address()?, LIMIT).send(&self.read(0))?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.head.status == 200 && text.contains(&value(0)), "the first key: {:?} {text}", answer.head);
        Ok(answer.body.len())
    }

    /// Starts the host and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become that.
    pub fn start(&mut self) -> Result<()> {
        // As a static member it takes its own place again at once.
        self.host = Some(self.start_host("state", Some("bench-host"))?);
        Ok(())
    }

    /// Ends the host in an orderly way.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        let mut host = self.host.take().context("the host does not run")?;
        let status = host.terminate()?;
        ensure!(status.success(), "the host ended with {status}:\n{}", host.log());
        Ok(())
    }

    fn start_host(&self, folder: &str, instance: Option<&str>) -> Result<Host> {
        let (broker, state_dir) = (Broker::Kafka(self.bootstrap.clone()), self.folder.join(folder));
        let mut options = Options::new(&self.manifest, &broker, APPLICATION, &state_dir);
        if let Some(instance) = instance {
            options = options.set("group.instance.id", instance);
        }
        Host::start_ready(&options)
    }

    /// Starts another host and waits until each of them has partitions.
    ///
    /// # Errors
    /// When they do not share them.
    pub fn with_second_host(&mut self) -> Result<Pair> {
        let host = self.start_host("second", None)?;
        let (here, there) = wait_until(LIMIT, || {
            let partitions = |host: &Host| -> Result<BTreeSet<i32>> {
                host.application()?.running_partitions().into_iter().map(|number| Ok(i32::try_from(number)?)).collect()
            };
            let (here, there) = (partitions(self.host()?)?, partitions(&host)?);
            let both = here.len() + there.len();
            ensure!(both == PARTITIONS as usize && !here.is_empty() && !there.is_empty(), "{here:?} and {there:?}");
            Ok((here, there))
        })?;
        Ok(Pair { host, here, there })
    }

    fn producer(&self) -> Result<Box<dyn Producer>> {
        Ok(real_kafka::clients(&self.bootstrap, "bench-queries-fill")?.producer(0, None)?)
    }

    /// Writes records of these numbers to the input.
    ///
    /// # Errors
    /// When the broker does not take them.
    pub fn produce(&self, numbers: impl Iterator<Item = u64>) -> Result<()> {
        let mut producer = self.producer()?;
        for number in numbers {
            self.send(&mut *producer, number)?;
        }
        Ok(producer.flush(LIMIT)?)
    }

    fn send(&self, producer: &mut dyn Producer, number: u64) -> Result<()> {
        let topic: Arc<str> = INPUT.into();
        let (key, value) = (key(number % self.keys), value(number % self.keys));
        let record = ProducerRecord {
            topic: &topic,
            partition: Some(partition_for_key(key.as_bytes(), PARTITIONS)),
            timestamp: 1_357_020_000_000 + (number % self.keys) as i64,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        real_kafka::send(producer, record)
    }

    /// Records that the host has processed since its start.
    ///
    /// # Errors
    /// When it does not say.
    pub fn processed(&self) -> Result<u64> {
        let application = self.host()?.application()?;
        application.body["records_processed"].as_u64().context("records_processed")
    }

    /// Has records of known keys come in at a steady rate while `work` goes on; how many were processed a second.
    ///
    /// # Errors
    /// What `work` or the producer said.
    pub fn while_fed(&self, per_second: u64, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let feeder = scope.spawn(|| self.feed(per_second, &done));
            let measured = (|| {
                let (before, started) = (self.processed()?, Instant::now());
                work()?;
                Ok((self.processed()? - before) as f64 / started.elapsed().as_secs_f64())
            })();
            done.store(true, Ordering::Relaxed);
            feeder.join().map_err(|_| anyhow!("the feeder panicked"))??;
            measured
        })
    }

    fn feed(&self, per_second: u64, done: &AtomicBool) -> Result<()> {
        const TICK: Duration = Duration::from_millis(10);
        let per_tick = (per_second / (1_000 / TICK.as_millis() as u64)).max(1);
        let mut producer = self.producer()?;
        let (started, mut sent) = (Instant::now(), 0_u64);
        while !done.load(Ordering::Relaxed) {
            for _ in 0..per_tick {
                self.send(&mut *producer, sent.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20)?;
                sent += 1;
            }
            producer.poll(Duration::ZERO)?;
            let due = TICK * u32::try_from(sent / per_tick)?;
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        Ok(producer.flush(LIMIT)?)
    }

    /// Ends the host and removes its folder.
    ///
    /// # Errors
    /// When that fails.
    pub fn end(mut self) -> Result<()> {
        self.stop()?;
        Ok(fs::remove_dir_all(&self.folder)?)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn address_of(host: &Host) -> Result<SocketAddr> {
    let address = host.url.strip_prefix("http://").context("the host's address")?;
    Ok(address.parse()?)
}
