//! Dead letters are read as the format says, and what is not as it says is told and never trusted.

use super::*;

fn header(name: &str, value: &[u8]) -> Header {
    Header { key: Bytes::from(name.to_owned()), value: Some(Bytes::copy_from_slice(value)) }
}

fn record(headers: Headers) -> TopicRecord {
    TopicRecord { partition: 1, offset: 9, timestamp: 1000, key: None, value: Some("v".into()), headers }
}

/// The headers of a dead letter as the engine writes them.
pub fn added() -> Headers {
    [
        (header::EXCEPTION, "sandbar.RecordRefused: no amount"),
        (header::MESSAGE, "no amount"),
        (header::TOPIC, "orders"),
        (header::PARTITION, "2"),
        (header::OFFSET, "17"),
        (header::REASON, "refused"),
        (header::APPLICATION, "invoices"),
        (header::TASK, "0_2"),
        (header::MODULE, "3fa9"),
        (header::CPU_US, "120"),
        (header::STREAM_TIME, "900"),
        (header::WALL_CLOCK_TIME, "5000"),
        (header::STACKTRACE, ""),
    ]
    .map(|(name, value)| header(name, value.as_bytes()))
    .to_vec()
}

/// The same with one header put in place of another, or at the end.
fn with(name: &str, value: &[u8]) -> DeadLetter {
    let mut headers = added();
    headers.retain(|one| one.key != name);
    headers.push(header(name, value));
    DeadLetter::of("dlq", record(headers)).expect("a dead letter")
}

fn orders_17() -> Position {
    Position { topic: "orders".to_owned(), partition: 2, offset: 17 }
}

#[test]
fn the_headers_are_read() {
    let own = vec![header("trace", b"1"), header("trace", b"2")];
    let letter = DeadLetter::of("dlq", record([own.clone(), added()].concat())).expect("a dead letter");
    assert_eq!(letter.position.to_string(), "dlq@1:9");
    assert_eq!((&letter.own_headers, letter.source()), (&own, Some(&orders_17())));
    assert_eq!((letter.told(), letter.exception.as_str()), ("no amount", "sandbar.RecordRefused: no amount"));
    assert_eq!((letter.reason.as_deref(), letter.task.as_deref()), (Some("refused"), Some("0_2")));
    assert_eq!((letter.module.as_deref(), letter.application.as_deref()), (Some("3fa9"), Some("invoices")));
    assert_eq!((letter.cpu_us, letter.stream_time, letter.time()), (Some(120), Some(900), 5000));
    assert_eq!((letter.backtrace, letter.reads, letter.source_timestamp), (None, None, None));
    assert_eq!((letter.other_headers, letter.faults), (Headers::new(), Vec::new()));
}

#[test]
fn headers_of_the_source_with_such_names_stay_its_own() {
    let own = vec![header(header::EXCEPTION, b"older"), header(header::OFFSET, b"3"), header("a", b"b")];
    let mut headers = [own.clone(), added()].concat();
    headers.push(header("copied-by", b"a tool"));
    let letter = DeadLetter::of("dlq", record(headers)).expect("a dead letter");
    assert_eq!(letter.own_headers, [own, vec![header("copied-by", b"a tool")]].concat());
    assert_eq!(letter.source(), Some(&orders_17()));
    let twice = [added(), vec![header(header::REASON, b"trap")]].concat();
    assert_eq!(DeadLetter::of("dlq", record(twice)).expect("a dead letter").reason.as_deref(), Some("trap"));
}

#[test]
fn those_of_kafka_streams_are_read_too() {
    let headers = [header::EXCEPTION, header::MESSAGE, header::TOPIC].map(|name| header(name, b"x")).to_vec();
    let headers = [headers, vec![header(header::PARTITION, b"0"), header(header::OFFSET, b"1")]].concat();
    let letter = DeadLetter::of("dlq", record(headers)).expect("a dead letter");
    assert_eq!((&letter.reason, letter.time(), &letter.faults), (&None, 1000, &Vec::new()));
    assert_eq!(letter.subject.to_string(), "x@0:1");
}

#[test]
fn a_punctuation_has_no_source() {
    let mut headers = added();
    headers.retain(|one| !["topic", "partition", "offset"].iter().any(|name| one.key.ends_with(name.as_bytes())));
    headers.extend([header(header::SCHEDULE, b"3"), header(header::PUNCTUATION_TIME, b"60000")]);
    let letter = DeadLetter::of("dlq", record(headers.clone())).expect("a dead letter");
    assert_eq!(letter.subject, Subject::Punctuation { schedule: Some(3), time: Some(60_000) });
    assert!(letter.source().is_none() && letter.faults.is_empty(), "{:?}", letter.faults);
    headers.retain(|one| one.key != header::SCHEDULE);
    headers.push(header(header::SCHEDULE, b"three"));
    let letter = DeadLetter::of("dlq", record(headers)).expect("a dead letter");
    assert_eq!(letter.subject, Subject::Punctuation { schedule: None, time: Some(60_000) });
    assert_eq!(letter.faults, ["__sandbar.schedule: expected a number, found three"]);
}

#[test]
fn a_record_without_the_headers_is_no_dead_letter() {
    for headers in [vec![], vec![header("a", b"b")], vec![header(header::REASON, b"trap"), header("x", b"")]] {
        let error = DeadLetter::of("dlq", record(headers)).expect_err("no dead letter");
        assert_eq!(error.to_string(), "dlq@1:9 is no dead letter: it has no header __streams.errors.exception");
    }
}

#[test]
fn what_cannot_be_read_is_told() {
    for (name, value, expected) in [
        (header::CPU_US, b"many".as_slice(), "__sandbar.cpu-us: expected a number, found many"),
        (header::CPU_US, b"-1", "__sandbar.cpu-us: expected a number"),
        (header::WALL_CLOCK_TIME, b"99999999999999999999", "__sandbar.wall-clock-time: expected a number"),
        (header::MESSAGE, b"\xff\xfe", "__streams.errors.message: not UTF-8 text at byte 0"),
        (header::OFFSET, b"\x1b[2J", "__streams.errors.offset: expected a number, found \\u{1b}[2J"),
        (header::OFFSET, b"-4", "__streams.errors.topic: no place of a record: orders@2:-4"),
        (header::TOPIC, b"../../etc", "__streams.errors.topic: no place of a record: ../../etc@2:17"),
        (header::TOPIC, b"", "__streams.errors.topic: no place of a record"),
        (header::PARTITION, b"2147483648", "__streams.errors.partition: expected a number"),
    ] {
        let letter = with(name, value);
        assert!(letter.faults.iter().any(|fault| fault.starts_with(expected)), "{name}: {:?}", letter.faults);
        assert!(!letter.faults.iter().any(|fault| fault.chars().any(char::is_control)), "{:?}", letter.faults);
        let placed = [header::TOPIC, header::PARTITION, header::OFFSET].contains(&name);
        assert_eq!(letter.subject == Subject::Unknown, placed, "{name}: {:?}", letter.subject);
    }
    assert_eq!(with(header::WALL_CLOCK_TIME, b"soon").time(), 1000);
    assert_eq!(with(header::MESSAGE, b"\xff").told(), "sandbar.RecordRefused: no amount");
}

#[test]
fn what_is_not_known_yet_is_kept() {
    let letter = with("__sandbar.later", b"a=b");
    assert_eq!(letter.other_headers, [header("__sandbar.later", b"a=b")]);
}

#[test]
fn no_headers_make_it_panic() {
    // Every name with bytes of all kinds, from a fixed sequence.
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let names: Vec<String> = added().iter().map(|one| String::from_utf8_lossy(&one.key).into_owned()).collect();
    for _ in 0..5_000 {
        let headers: Headers = (0..next() % 20)
            .map(|_| {
                let name = &names[next() as usize % names.len()];
                let value: Vec<u8> = (0..next() % 12).map(|_| next() as u8).collect();
                Header { key: Bytes::from(name.clone()), value: (next() % 5 > 0).then(|| value.into()) }
            })
            .collect();
        if let Ok(letter) = DeadLetter::of("dlq", record(headers)) {
            assert!(letter.own_headers.len() + letter.other_headers.len() < 20);
        }
    }
}
