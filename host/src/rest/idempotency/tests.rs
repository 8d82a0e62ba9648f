//! One write for each key, whatever comes.

use super::*;

#[test]
fn a_key_stands_for_one_write() {
    let (outcomes, now) = (Outcomes::default(), Instant::now());
    assert!(matches!(outcomes.begin("k", 1, now), Ok(Begun::First)));
    assert_eq!(outcomes.begin("k", 1, now).expect_err("pending").kind, "write-pending");
    assert_eq!(outcomes.begin("k", 2, now).expect_err("another").kind, "idempotency-key-reused");
    outcomes.end("k", &Ok(Written::new()));
    assert!(matches!(outcomes.begin("k", 1, now), Ok(Begun::Before(_))));
    assert!(matches!(outcomes.begin("k", 2, now + KEPT), Ok(Begun::First)), "forgotten in time");
}

#[test]
fn a_write_that_did_not_happen_may_be_tried_again_and_one_in_doubt_not() {
    let (outcomes, now) = (Outcomes::default(), Instant::now());
    assert!(outcomes.begin("k", 1, now).is_ok());
    outcomes.end("k", &Err(WriteError::Unavailable("full".to_owned())));
    assert!(matches!(outcomes.begin("k", 1, now), Ok(Begun::First)));
    outcomes.end("k", &Err(WriteError::Unknown("timed out".to_owned())));
    assert_eq!(outcomes.begin("k", 1, now).expect_err("in doubt").kind, "write-unknown");
}

#[test]
fn keys_are_short_and_visible() {
    assert_eq!(read_key(b"a-1").expect("fine"), "a-1");
    for refused in [&b""[..], b"a b", "ä".as_bytes(), &[b'a'; 256]] {
        assert_eq!(read_key(refused).expect_err("no key").status, StatusCode::BAD_REQUEST);
    }
}
