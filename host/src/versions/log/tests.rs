//! The log on a broker in memory: what one host writes and another reads, two writers at once, crashes at every call,
//! damage, and topics that cannot be used.

use std::collections::BTreeMap;
use std::sync::Mutex;

use broker::core::CoreOptions;
use broker::core::admin::NewTopic;
use broker::core::batch::build::NewRecord;
use broker::core::memory::MemoryStorage;
use broker::direct::{ClientOptions, DirectBroker, FaultRates, Faults};
use engine::broker::{Admin, Consumer, Membership};
use engine::testing::{ManualClock, Seed};

use super::*;
use crate::versions::manifest::VersionManifest;
use crate::versions::version::{Active, ChangeKind, NewVersion, Version};

mod crashes;
mod damage;
mod late;
mod wire;
mod writers;

const TOPIC: &str = "vote-sandbar-versions";

fn broker(faults: Faults) -> DirectBroker {
    let (storage, clock) = (Arc::new(MemoryStorage::new()), Arc::new(ManualClock::new(1_000)));
    DirectBroker::open(CoreOptions::default(), storage, clock, faults).expect("opens")
}

fn clients(broker: &DirectBroker, host: &str) -> Arc<dyn ClientSupplier> {
    Arc::new(broker.clients(ClientOptions::new(host, "vote")))
}

fn options() -> VersionLogOptions {
    VersionLogOptions {
        application_id: "vote".to_owned(),
        replication_factor: -1,
        timeout: Duration::from_secs(5),
        clock: Arc::new(ManualClock::new(1_000)),
    }
}

fn open(broker: &DirectBroker, host: &str) -> Result<VersionLog, LogError> {
    VersionLog::open(clients(broker, host), options())
}

fn opened(broker: &DirectBroker, host: &str) -> VersionLog {
    open(broker, host).expect("the log opens")
}

/// A module of some parts.
fn module(number: u8) -> Bytes {
    (0..1_200_000_u32).map(|at| (at >> 8) as u8 ^ number).collect::<Vec<u8>>().into()
}

/// The entries of a deploy by somebody.
fn deploy(table: &VersionTable, module: &Bytes, who: &str) -> Vec<Entry> {
    let number = table.next_number();
    let version = Version::new(NewVersion {
        number,
        module: ModuleDigest::of(module),
        manifest: VersionManifest::default(),
        who: who.to_owned(),
        when_ms: 1_000,
        why: String::new(),
        kind: ChangeKind::Swap,
        signature: None,
    });
    let previous = table.active().map(|active| active.number);
    let active = Active {
        number,
        previous,
        confirmed_before: None,
        is_confirmed: false,
        when_ms: 1_000,
        by: who.to_owned(),
        why: String::new(),
    };
    vec![Entry::Module(module.clone()), Entry::Version(version), Entry::Active(active)]
}

/// Deploys by what the log shows.
fn try_deploy(log: &mut VersionLog, module: &Bytes, who: &str) -> Result<(), AppendError> {
    let (revision, entries) = (log.table().revision(), deploy(log.table(), module, who));
    log.append(revision, &entries)
}

/// Number and author of the active version.
fn active(log: &VersionLog) -> Option<(u64, String)> {
    let version = log.table().active_version().expect("readable")?;
    Some((version.number, version.who.clone()))
}

#[test]
fn what_one_host_deploys_every_other_one_sees() {
    let broker = broker(Faults::none());
    let (mut first, mut second) = (opened(&broker, "aa"), opened(&broker, "bb"));
    assert!(first.table().is_empty() && active(&first).is_none());
    try_deploy(&mut first, &module(1), "ada").expect("deployed");
    assert_eq!(active(&first), Some((1, "ada".to_owned())));
    assert!(second.refresh().expect("read"));
    assert!(!second.refresh().expect("read"));
    let mut third = opened(&broker, "cc");
    for log in [&mut first, &mut second, &mut third] {
        assert_eq!(active(log), Some((1, "ada".to_owned())));
        assert_eq!(log.module(&ModuleDigest::of(&module(1))).expect("its bytes"), module(1));
    }
    // What somebody holds does not change under them.
    let before = Arc::clone(third.table());
    try_deploy(&mut second, &module(2), "bob").expect("deployed");
    third.refresh().expect("read");
    assert_eq!((before.versions().len(), active(&third)), (1, Some((2, "bob".to_owned()))));
    assert_eq!(third.table().active().and_then(|active| active.previous), Some(1));
    assert_eq!(third.module(&ModuleDigest::of(&module(1))).expect("its bytes"), module(1));
}

#[test]
fn the_topic_is_made_as_it_must_be() {
    let broker = broker(Faults::none());
    opened(&broker, "aa");
    let mut admin = clients(&broker, "aa").admin().expect("an admin");
    let found = admin.describe_topics(&[TOPIC]).expect("described").remove(0).expect("it exists");
    assert_eq!((found.partitions, found.configs["cleanup.policy"].as_str()), (1, "compact"));
}

#[test]
fn a_topic_that_cannot_hold_versions_is_refused_with_what_to_do() {
    for (partitions, configs, expected) in [
        (3, vec![("cleanup.policy", "compact")], "it has 3 partitions where 1 is needed: delete it"),
        (1, vec![], "its cleanup.policy is delete, which deletes versions by their age: set cleanup.policy=compact"),
        (1, vec![("cleanup.policy", "compact,delete")], "its cleanup.policy is compact,delete"),
        (
            1,
            vec![("cleanup.policy", "compact"), ("max.message.bytes", "1000")],
            "its max.message.bytes is 1000: set 16384",
        ),
    ] {
        let broker = broker(Faults::none());
        let configs = configs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let topic = NewTopic { name: TOPIC.to_owned(), partitions, configs };
        broker.core().create_topic(&topic, false).expect("is created");
        let error = open(&broker, "aa").map(drop).expect_err("it is refused");
        assert!(!error.is_retriable() && error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn parts_fit_a_topic_that_takes_little() {
    let broker = broker(Faults::none());
    let configs = [("cleanup.policy", "compact"), ("max.message.bytes", "20000")];
    let configs: BTreeMap<String, String> = configs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let topic = NewTopic { name: TOPIC.to_owned(), partitions: 1, configs };
    broker.core().create_topic(&topic, false).expect("is created");
    let mut log = opened(&broker, "aa");
    try_deploy(&mut log, &module(1), "ada").expect("deployed");
    assert_eq!(opened(&broker, "bb").module(&ModuleDigest::of(&module(1))).expect("its bytes"), module(1));
}

#[test]
fn a_topic_that_was_made_anew_is_found_out_and_the_table_stays() {
    let broker = broker(Faults::none());
    let mut log = opened(&broker, "aa");
    try_deploy(&mut log, &module(1), "ada").expect("deployed");
    broker.core().delete_topic(TOPIC).expect("is deleted");
    let error = try_deploy(&mut log, &module(2), "ada").expect_err("there is no topic");
    assert!(error.to_string().contains("the broker does not know it"), "{error}");
    opened(&broker, "bb");
    let error = try_deploy(&mut log, &module(2), "ada").expect_err("it is another topic").to_string();
    assert!(error.contains("was deleted and created anew"), "{error}");
    let error = log.refresh().expect_err("it ends earlier");
    assert!(matches!(error, LogError::Regressed { end: 0, .. }) && !error.is_retriable(), "{error}");
    assert_eq!(active(&log), Some((1, "ada".to_owned())));
}
