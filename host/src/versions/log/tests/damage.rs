//! What others do to the topic: garbage under our keys, parts of modules that are missing or others.

use super::*;

fn put(broker: &DirectBroker, key: &str, value: Option<&[u8]>) {
    let record = NewRecord { timestamp: 1_000, key: Some(key.as_bytes()), value, headers: &[] };
    broker.append(&TopicPartition::new(TOPIC, 0), &[record]).expect("appended");
}

#[test]
fn a_damaged_module_is_never_handed_out_and_a_deploy_mends_it() {
    let digest = ModuleDigest::of(&module(1));
    let part = vec![9; 512 << 10];
    for (key, value, expected) in [
        (
            format!("module/{digest}/1"),
            Some(&part[..]),
            format!("expected bytes with the sha-256 {digest}, found 1200000 with"),
        ),
        (format!("module/{digest}/1"), Some(&b"short"[..]), "expected 1200000 bytes, found".to_owned()),
        (format!("module/{digest}/1"), None, "expected part 2 of 3, found nothing".to_owned()),
        (format!("module/{digest}"), None, "expected the module's size, found nothing".to_owned()),
        (format!("module/{digest}"), Some(&br#"{"bytes":5,"chunks":1}"#[..]), "expected 5 bytes, found".to_owned()),
    ] {
        let broker = broker(Faults::none());
        let mut log = opened(&broker, "aa");
        try_deploy(&mut log, &module(1), "ada").expect("deployed");
        put(&broker, &key, value);
        for log in [&mut log, &mut opened(&broker, "bb")] {
            let error = log.module(&digest).expect_err("it is damaged");
            let message = error.to_string();
            assert!(message.contains(&format!("topic {TOPIC}, key module/{digest}")), "{message}");
            assert!(message.contains(&expected) && !error.is_retriable(), "{message}");
            assert_eq!(active(log), Some((1, "ada".to_owned())));
        }
        try_deploy(&mut log, &module(1), "ada").expect("deployed");
        assert_eq!(log.module(&digest).expect("its bytes"), module(1));
    }
}

#[test]
fn garbage_of_others_is_told_and_the_host_goes_on() {
    let broker = broker(Faults::none());
    let mut log = opened(&broker, "aa");
    try_deploy(&mut log, &module(1), "ada").expect("deployed");
    let before = log.table().revision();
    put(&broker, "something/else", Some(b"x"));
    assert!(!log.refresh().expect("read"));
    put(&broker, "active", Some(b"\xff\x00"));
    put(&broker, "version/1", None);
    assert!(log.refresh().expect("read"));
    assert_eq!(active(&log), Some((1, "ada".to_owned())));
    let problems: Vec<String> = log.table().problems().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2);
    assert!(problems.iter().all(|problem| problem.starts_with(&format!("topic {TOPIC}, offset "))), "{problems:?}");
    // Whoever decided before must look again.
    let entries = deploy(log.table(), &module(2), "ada");
    assert!(matches!(log.append(before, &entries), Err(AppendError::Conflict { .. })));
    try_deploy(&mut log, &module(2), "ada").expect("deployed");
    assert_eq!(active(&opened(&broker, "bb")), Some((2, "ada".to_owned())));
}
