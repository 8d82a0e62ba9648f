//! The log through librdkafka: on the embedded broker, or on the Kafka that `SANDBAR_KAFKA_BOOTSTRAP` names.

use broker::{EmbeddedBroker, EmbeddedBrokerOptions};
use kafka::{KafkaClients, KafkaClientsConfig};

use super::*;
use crate::runtime::wall_clock_ms;

#[test]
fn deploys_go_through_librdkafka() {
    let unique = format!("versions-{}-{}", std::process::id(), wall_clock_ms());
    let folder = std::env::temp_dir().join(format!("sandbar-{unique}"));
    let (bootstrap, embedded) = match std::env::var("SANDBAR_KAFKA_BOOTSTRAP") {
        Ok(bootstrap) => (bootstrap, None),
        Err(_) => {
            let embedded = EmbeddedBroker::start(&folder, &EmbeddedBrokerOptions::default()).expect("a broker");
            (embedded.address().to_string(), Some(embedded))
        }
    };
    let open = || {
        let clients = KafkaClients::new(KafkaClientsConfig::new(bootstrap.clone(), unique.clone())).expect("clients");
        let options = VersionLogOptions {
            application_id: unique.clone(),
            replication_factor: -1,
            timeout: Duration::from_secs(20),
            clock: Arc::new(ManualClock::new(wall_clock_ms())),
        };
        VersionLog::open(Arc::new(clients), options).expect("the log opens")
    };
    let (mut ada, mut bob) = (open(), open());
    assert!(ada.table().is_empty());
    try_deploy(&mut ada, &module(1), "ada").expect("deployed");
    let error = try_deploy(&mut bob, &module(2), "bob").expect_err("ada was faster");
    assert!(matches!(error, AppendError::Conflict { .. }), "{error}");
    try_deploy(&mut bob, &module(2), "bob").expect("deployed");
    assert!(ada.refresh().expect("read"));
    assert!(!ada.refresh().expect("read"));
    let mut third = open();
    for log in [&mut ada, &mut bob, &mut third] {
        assert_eq!(active(log), Some((2, "bob".to_owned())));
        for number in [1, 2] {
            assert_eq!(log.module(&ModuleDigest::of(&module(number))).expect("its bytes"), module(number));
        }
    }
    drop((ada, bob, third));
    if let Some(embedded) = embedded {
        embedded.shutdown();
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
