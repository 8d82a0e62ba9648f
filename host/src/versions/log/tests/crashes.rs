//! A writer that dies at any of its calls, and a broker that fails at any: the topic has all of a deploy or nothing,
//! and the next writer goes on.

use super::*;

#[test]
fn a_writer_that_dies_at_any_call_leaves_all_or_nothing() {
    let (mut nothing, mut all) = (0, 0);
    for calls in 0.. {
        let broker = broker(Faults::none());
        let mut dying = opened(&broker, "aa");
        try_deploy(&mut dying, &module(1), "ada").expect("deployed");
        broker.faults().crash_after("aa", calls);
        let result = try_deploy(&mut dying, &module(2), "ada");
        drop(dying);
        let mut next = opened(&broker, "bb");
        let Some((number, _)) = active(&next) else { panic!("version 1 is gone") };
        match number {
            1 => {
                nothing += 1;
                assert!(result.is_err(), "after {calls} calls");
                assert_eq!(next.table().versions().len(), 1, "after {calls} calls");
                assert!(!next.table().has_module(&ModuleDigest::of(&module(2))), "after {calls} calls");
            }
            _ => {
                all += 1;
                assert_eq!(next.module(&ModuleDigest::of(&module(2))).expect("its bytes"), module(2));
            }
        }
        try_deploy(&mut next, &module(3), "bob").expect("the next one goes on");
        assert_eq!(active(&next), Some((number + 1, "bob".to_owned())), "after {calls} calls");
        assert_eq!(next.module(&ModuleDigest::of(&module(3))).expect("its bytes"), module(3));
        if result.is_ok() && !broker.faults().is_crashed("aa") {
            break;
        }
    }
    assert!(nothing >= 6 && all >= 1, "{nothing} times nothing, {all} times all");
}

#[test]
fn whatever_the_broker_fails_at_the_answer_is_true() {
    let (mut written, mut refused, mut unknown) = (0, 0, 0);
    for seed in 0..300 {
        let rates = FaultRates {
            retriable_one_in: 12,
            lost_reply_one_in: 6,
            failed_delivery_one_in: 12,
            delayed_end_one_in: 6,
            empty_restore_one_in: 4,
            ..FaultRates::default()
        };
        let broker = broker(Faults::new(Seed::new(seed), FaultRates::default()));
        let mut log = opened(&broker, "aa");
        try_deploy(&mut log, &module(1), "ada").expect("deployed");
        broker.faults().set_rates(rates);
        let result = try_deploy(&mut log, &module(2), "ada");
        broker.faults().set_rates(FaultRates::default());
        let now = active(&opened(&broker, "bb")).map(|(number, _)| number);
        match &result {
            Ok(()) => written += 1,
            Err(AppendError::Unknown { .. }) => unknown += 1,
            Err(_) => refused += 1,
        }
        match &result {
            Ok(()) => assert_eq!(now, Some(2), "seed {seed}"),
            Err(AppendError::Unknown { .. }) => {}
            Err(error) => assert_eq!(now, Some(1), "seed {seed}: {error}"),
        }
        // The same log goes on by itself.
        log.refresh().expect("read");
        assert_eq!(active(&log).map(|(number, _)| number), now, "seed {seed}");
        try_deploy(&mut log, &module(3), "ada").expect("deployed");
    }
    assert!(written > 20 && refused > 20 && unknown > 0, "{written} written, {refused} refused, {unknown} unknown");
}

#[test]
fn a_broker_that_is_away_leaves_the_table_and_the_log_goes_on_later() {
    let broker = broker(Faults::none());
    let mut log = opened(&broker, "aa");
    try_deploy(&mut log, &module(1), "ada").expect("deployed");
    let away = FaultRates { retriable_one_in: 1, ..FaultRates::default() };
    broker.faults().set_rates(away);
    for _ in 0..3 {
        assert!(log.refresh().expect_err("away").is_retriable());
        let error = try_deploy(&mut log, &module(2), "ada").expect_err("away");
        assert!(matches!(&error, AppendError::Log(error) if error.is_retriable()), "{error}");
        assert_eq!(active(&log), Some((1, "ada".to_owned())));
    }
    broker.faults().set_rates(FaultRates::default());
    try_deploy(&mut log, &module(2), "ada").expect("deployed");
    assert_eq!(active(&log), Some((2, "ada".to_owned())));
}

#[test]
fn a_reader_does_not_wait_for_a_transaction_that_hangs() {
    let broker = broker(Faults::none());
    let mut log = opened(&broker, "aa");
    try_deploy(&mut log, &module(1), "ada").expect("deployed");
    let mut hanging = clients(&broker, "zz").producer(0, Some("somebody")).expect("a producer");
    hanging.init_transactions(Duration::ZERO).expect("begins");
    hanging.begin_transaction().expect("begins");
    let topic: Arc<str> = TOPIC.into();
    let record = ProducerRecord {
        topic: &topic,
        partition: Some(0),
        timestamp: 1_000,
        key: Some(b"active"),
        value: Some(b"nonsense"),
        headers: &[],
    };
    hanging.send(record).expect("sent");
    hanging.flush(Duration::ZERO).expect("written");
    assert!(!log.refresh().expect("read"));
    assert_eq!(active(&opened(&broker, "bb")), Some((1, "ada".to_owned())));
    hanging.abort_transaction(Duration::ZERO).expect("aborted");
    assert!(!log.refresh().expect("read"));
    try_deploy(&mut log, &module(2), "ada").expect("deployed");
}
