//! Tests of `dead_letter`: its record and headers, and the word for each reason.

use super::*;
use crate::record::Header;
use bytes::Bytes;

fn letter<'a>(
    subject: Subject<'a>,
    error: &'a ProcessorError,
    report: &'a CallReport,
    reads: &'a Reads,
) -> DeadLetter<'a> {
    DeadLetter {
        subject,
        error,
        report,
        task: TaskId { sub_topology: 0, partition: 3 },
        application_id: "app",
        digest: "abc",
        stream_time: Some(70),
        write_time: 75,
        wall_clock_ms: 1_000,
        settings: &[],
        reads,
    }
}

fn headers(output: &OutputBatch) -> Vec<(String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (keys, values) = (&output.headers.keys, &output.headers.values);
    keys.iter().zip(values.iter()).map(|(key, value)| (text(key), value.map(text))).collect()
}

#[test]
fn a_dead_letter_is_the_record_with_what_happened_behind_its_own_headers() {
    let own = Header { key: Bytes::from_static(b"own"), value: None };
    let record =
        Record { offset: 9, timestamp: -1, key: Some(Bytes::from_static(b"k")), value: None, headers: vec![own] };
    let partition = TopicPartition::new("in", 3);
    let error = ProcessorError::Trap { message: "unreachable".to_owned(), backtrace: String::new() };
    let report = CallReport { cpu_us: 12, backtrace: "0x1 f\n0x2 g".to_owned() };
    let reads = Reads::new(0);
    let subject = Subject::Record { partition: &partition, record: &record };
    let output = letter(subject, &error, &report, &reads).to_output(2, Form::Whole, false);
    assert_eq!((output.sinks.as_slice(), output.timestamps.as_slice()), (&[2][..], &[70][..]));
    assert_eq!((output.keys.get(0), output.values.get(0)), (Some(&b"k"[..]), None));
    let expected = [
        ("own", None),
        (header::EXCEPTION, Some("sandbar.Trap: the processor crashed: unreachable")),
        (header::MESSAGE, Some("the processor crashed: unreachable")),
        (header::TOPIC, Some("in")),
        (header::PARTITION, Some("3")),
        (header::OFFSET, Some("9")),
        (header::REASON, Some("trap")),
        (header::APPLICATION, Some("app")),
        (header::TASK, Some("0_3")),
        (header::MODULE, Some("abc")),
        (header::CPU_US, Some("12")),
        (header::STREAM_TIME, Some("70")),
        (header::WRITE_TIME, Some("75")),
        (header::WALL_CLOCK_TIME, Some("1000")),
        (header::TIMESTAMP, Some("-1")),
        (header::STACKTRACE, Some("0x1 f\n0x2 g")),
        (header::READS, Some("\u{1}\0")),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
    assert_eq!(headers(&output), expected);
    assert_eq!(output.validate(), Ok(()));
    let bare = letter(subject, &error, &report, &reads).to_output(2, Form::WithoutDetails, false);
    assert_eq!(headers(&bare)[expected.len() - 2..], [(header::STACKTRACE.to_owned(), Some(String::new()))]);
}

#[test]
fn a_punctuation_has_no_record_but_its_schedule_and_time() {
    let error = ProcessorError::Deadline { limit_ms: 5 };
    let (report, reads) = (CallReport::default(), Reads::new(0));
    let output = letter(Subject::Punctuation { schedule: 4, time: 60 }, &error, &report, &reads).to_output(
        0,
        Form::Whole,
        false,
    );
    assert_eq!((output.keys.get(0), output.values.get(0), output.timestamps[0]), (None, None, 60));
    let found = headers(&output);
    for (name, value) in [(header::SCHEDULE, "4"), (header::PUNCTUATION_TIME, "60"), (header::REASON, "deadline")] {
        assert!(found.contains(&(name.to_owned(), Some(value.to_owned()))), "{name}: {found:?}");
    }
    assert!(!found.iter().any(|(name, _)| name == header::OFFSET));
}

#[test]
fn every_reason_has_its_word() {
    let production = |too_large| ProcessorError::Production { fault: String::new(), too_large };
    let limit = ProcessorError::Limit { name: "n", key: "k", limit: 1, found: 2 };
    let trap = ProcessorError::Trap { message: String::new(), backtrace: String::new() };
    let cases = [
        (ProcessorError::Returned(String::new()), "refused"),
        (trap, "trap"),
        (ProcessorError::Deadline { limit_ms: 1 }, "deadline"),
        (ProcessorError::Memory { limit_bytes: 1 }, "memory"),
        (limit, "limit"),
        (ProcessorError::Output(String::new()), "output"),
        (production(false), "output"),
        (production(true), "too-large"),
    ];
    for (error, expected) in cases {
        assert_eq!(DeadLetterReason::of(&error).as_str(), expected, "{error:?}");
    }
}
