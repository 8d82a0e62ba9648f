//! Moments as people write them. The expected numbers are those of GNU date.

use super::*;

const NOW: Timestamp = 1_795_000_000_000;

#[test]
fn a_duration_is_before_now() {
    assert_eq!(parse_at("10m", NOW), Ok(NOW - 600_000));
    assert_eq!(parse_at("250ms", NOW), Ok(NOW - 250));
}

#[test]
fn a_date_with_a_time_is_read() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-27T17:30:00Z", 1_795_800_600_000),
        ("2026-11-27t17:30:00.5z", 1_795_800_600_500),
        ("2026-11-27 18:30:00.123456+01:00", 1_795_800_600_123),
        ("2026-11-27T12:00:00-05:30", 1_795_800_600_000),
        ("2000-02-29T23:59:59Z", 951_868_799_000),
        ("1969-12-31T23:59:59.999Z", -1),
    ] {
        assert_eq!(parse_at(text, NOW), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_no_moment_is_told() {
    for text in [
        "",
        "yesterday",
        "10",
        "2026-11-27",
        "2026-11-27T17:30:00",
        "2026-11-27T17:30Z",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-11-27T24:00:00Z",
        "2026-11-27T17:30:00.Z",
        "2026-11-27T17:30:00+1:00",
        "2026-11-27T17:30:00Zz",
        "+026-11-27T17:30:00Z",
        "２026-11-27T17:30:00Z",
    ] {
        let error = parse_at(text, NOW).expect_err(text);
        assert!(error.contains("such as 10m") && error.contains(&format!("{text:?}")), "{error}");
    }
}

#[test]
fn a_timestamp_is_shown_as_it_is_read() {
    assert_eq!(show(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(show(1_795_800_600_123), "2026-11-27T17:30:00.123Z");
    // Every day of four centuries and more, with a time that moves on.
    for day in -150_000..150_000_i64 {
        let timestamp = day * DAY_MS + day.rem_euclid(86_400) * 997;
        assert_eq!(read(&show(timestamp)), Some(timestamp), "{}", show(timestamp));
    }
    for strange in [i64::MAX, i64::MIN, 253_402_300_800_000] {
        assert_eq!(show(strange), strange.to_string());
    }
    assert_eq!(show(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
}
