//! Properties: what passes through, what is refused and with which words.

use super::*;

fn config(properties: &[(&str, &str)]) -> KafkaClientsConfig {
    let mut config = KafkaClientsConfig::new("127.0.0.1:9092", "app");
    config.properties = properties.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    config
}

fn refused(properties: &[(&str, &str)]) -> String {
    match check(&config(properties)) {
        Ok(()) => panic!("{properties:?} was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_longer_prefix_wins_over_a_shorter_one_and_over_none() {
    let config = config(&[
        ("fetch.wait.max.ms", "1"),
        ("consumer.fetch.wait.max.ms", "2"),
        ("restore.consumer.fetch.wait.max.ms", "3"),
    ]);
    let value = |role| passed_through(&config, role).get("fetch.wait.max.ms").map(|(_, value)| *value);
    assert_eq!(value(Role::MainConsumer), Some("2"));
    assert_eq!(value(Role::RestoreConsumer), Some("3"));
    assert_eq!(value(Role::Producer), Some("1"));
    assert!(check(&config).is_ok());
}

#[test]
fn consumers_check_what_they_fetch() {
    for role in [Role::MainConsumer, Role::RestoreConsumer] {
        assert!(defaults(role).contains(&("check.crcs", "true")), "{role:?}");
    }
}

#[test]
fn an_unknown_property_is_named_as_it_was_given() {
    let text = refused(&[("producer.linger.msec", "5")]);
    assert!(text.contains("producer.linger.msec"), "{text}");
}

#[test]
fn an_invalid_value_is_explained_and_a_secret_is_not_repeated() {
    let text = refused(&[("linger.ms", "soon")]);
    assert!(text.contains("linger.ms") && text.contains("soon"), "{text}");
    let hidden = explain("sasl.password", "hunter2", "Invalid value \"hunter2\"");
    assert!(!hidden.contains("hunter2"), "{hidden}");
}

#[test]
fn what_correctness_rests_on_cannot_be_set() {
    for key in [
        "enable.auto.commit",
        "consumer.isolation.level",
        "producer.acks",
        "producer.delivery.report.only.error",
        "main.consumer.group.id",
        "consumer.group.protocol",
        "plugin.library.paths",
        "ssl.engine.location",
        "producer.ssl.engine.location",
        "ssl.providers",
        "sasl.kerberos.kinit.cmd",
    ] {
        let text = refused(&[(key, "false")]);
        assert!(text.contains(key) && text.contains("cannot be set"), "{text}");
    }
}

#[test]
fn an_empty_address_or_id_is_refused() {
    let text = check(&KafkaClientsConfig::new(" ", "app")).unwrap_err().to_string();
    assert_eq!(text, "bootstrap.servers is empty");
}
