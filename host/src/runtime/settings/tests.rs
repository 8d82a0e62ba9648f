//! Durations as people write them.

use super::*;

#[test]
fn durations_have_a_unit() {
    assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
    assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
    for text in ["5", "s", "", "-1s", "5 s", "99999999999999999999s"] {
        assert!(parse_duration(text).is_err_and(|error| error.contains("for example 5s")), "{text}");
    }
}
