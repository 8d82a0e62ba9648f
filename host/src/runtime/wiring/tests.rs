//! What a topic takes of a written record, by what the broker answers.

use super::*;

#[test]
fn a_broker_that_fails_is_no_broker_without_a_bound() {
    let topic = |configs: &[(&str, &str)]| TopicDescription {
        name: "in".to_owned(),
        id: None,
        partitions: 1,
        configs: configs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
    };
    let of = |described| record_bytes_max(described).map_err(|error| format!("{error:#}"));
    assert_eq!(of(Ok(Some(topic(&[("max.message.bytes", "1000")])))), Ok(Some(1000)));
    assert_eq!(of(Ok(Some(topic(&[])))), Ok(None));
    assert_eq!(of(Ok(None)), Ok(None));
    let denied = BrokerError::new(BrokerErrorKind::Fatal, "describe in".to_owned(), "not authorized");
    assert_eq!(of(Err(denied.clone())), Err(denied.to_string()));
    let message = of(Ok(Some(topic(&[("max.message.bytes", "much")])))).expect_err("refused");
    assert!(message.starts_with("max.message.bytes of topic in is \"much\""), "{message}");
}
