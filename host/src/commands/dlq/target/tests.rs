//! A record goes back as it was, or is refused with the reason.

use kafka::topics::TopicRecord;

use super::super::letter::tests::added;
use super::*;

fn header(name: &str, value: &str) -> Header {
    Header { key: Bytes::from(name.to_owned()), value: Some(Bytes::from(value.to_owned())) }
}

fn letter(own: &[Header], more: &[Header]) -> DeadLetter {
    let record = TopicRecord {
        partition: 1,
        offset: 9,
        timestamp: 1000,
        key: Some("k".into()),
        value: Some("v".into()),
        headers: [own, &added(), more].concat(),
    };
    DeadLetter::of("dlq", record).expect("a dead letter")
}

fn targets(topic: &str, partitions: i32, configs: &[(&str, &str)]) -> Targets {
    let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let described = TopicDescription { name: topic.to_owned(), id: None, partitions, configs };
    BTreeMap::from([(topic.to_owned(), Some(described))])
}

#[test]
fn a_record_goes_back_as_it_was() {
    let own = [header("trace", "1"), header(header::REDRIVEN, "dlq@0:3"), header("trace", "2")];
    let sent = redriven(letter(&own, &[]), None, &targets("orders", 4, &[])).expect("it goes");
    let expected = Redriven {
        topic: "orders".to_owned(),
        partition: Some(2),
        timestamp: 1000,
        key: Some("k".into()),
        value: Some("v".into()),
        headers: vec![header("trace", "1"), header("trace", "2"), header(header::REDRIVEN, "dlq@1:9")],
    };
    assert_eq!(sent, expected);
}

#[test]
fn a_partition_that_is_gone_or_another_topic_is_left_to_the_key() {
    assert_eq!(redriven(letter(&[], &[]), None, &targets("orders", 2, &[])).map(|sent| sent.partition), Ok(None));
    let sent = redriven(letter(&[], &[]), Some("again"), &targets("again", 9, &[])).expect("it goes");
    assert_eq!((sent.topic.as_str(), sent.partition), ("again", None));
}

#[test]
fn the_timestamp_is_the_source_s() {
    let sent = |own: &str| {
        let letter = letter(&[], &[header(header::TIMESTAMP, own)]);
        redriven(letter, None, &targets("orders", 4, &[])).map(|sent| sent.timestamp)
    };
    assert_eq!((sent("0"), sent("77")), (Ok(0), Ok(77)));
    assert_eq!(sent("-1"), Ok(1000), "none at all cannot be sent");
}

#[test]
fn what_cannot_go_is_told() {
    let refused = |letter: DeadLetter, targets: &Targets| match redriven(letter, None, targets) {
        Err(Unsent::Refused(detail)) => detail,
        other => panic!("{other:?}"),
    };
    let gone = BTreeMap::from([("orders".to_owned(), None)]);
    assert_eq!(refused(letter(&[], &[]), &gone), "topic orders does not exist");
    assert_eq!(refused(letter(&[], &[]), &Targets::new()), "topic orders does not exist");
    let mut keyless = letter(&[], &[]);
    keyless.key = None;
    let compacted = targets("orders", 4, &[("cleanup.policy", "compact,delete")]);
    assert!(refused(keyless, &compacted).contains("compacted"));

    let sent = redriven(letter(&[], &[]), None, &targets("orders", 4, &[])).expect("it goes");
    let exact = batch_bytes(&sent);
    let most = |bytes: u64| targets("orders", 4, &[("max.message.bytes", &bytes.to_string())]);
    assert!(redriven(letter(&[], &[]), None, &most(exact)).is_ok());
    let detail = refused(letter(&[], &[]), &most(exact - 1));
    assert!(detail.contains("max.message.bytes of topic orders"), "{detail}");

    let mut punctuation = letter(&[], &[]);
    punctuation.subject = Subject::Punctuation { schedule: Some(1), time: None };
    assert!(
        matches!(redriven(punctuation, None, &most(1)), Err(Unsent::NoRecord(detail)) if detail.contains("punctuation"))
    );
    let mut unknown = letter(&[], &[]);
    unknown.subject = Subject::Unknown;
    assert!(matches!(redriven(unknown, Some("again"), &most(1)), Err(Unsent::NoRecord(_))));
}

#[test]
fn no_record_goes_to_the_topic_of_its_dead_letter() {
    for to in [Some("dlq"), Some("orders")] {
        let sent = redriven(letter(&[], &[]), to, &targets(to.unwrap_or_default(), 4, &[]));
        match to {
            Some("dlq") => assert_eq!(
                sent,
                Err(Unsent::Refused("topic dlq is where the dead letter is; --to names another".to_owned()))
            ),
            _ => assert!(sent.is_ok(), "{sent:?}"),
        }
    }
}
