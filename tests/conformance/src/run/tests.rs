//! How an outcome becomes a verdict.

use super::*;

fn done(name: &str, outcome: Outcome) -> Done {
    Done { name: name.to_owned(), proves: "", outcome, took: Duration::ZERO }
}

#[test]
fn a_documented_limit_covers_a_failure_of_the_embedded_broker_alone() {
    let failed = || done("consumer-protocol/kill", Err(anyhow!("why")));
    assert_eq!(verdict(Kind::Embedded, &failed()).word(), "limit");
    assert_eq!(verdict(Kind::Kafka, &failed()).word(), "FAIL");
    assert_eq!(verdict(Kind::Embedded, &done("topics/create", Err(anyhow!("why")))).word(), "FAIL");
}

#[test]
fn a_documented_limit_that_passes_is_a_failure() {
    assert_eq!(verdict(Kind::Embedded, &done("consumer-protocol/kill", Ok(()))).word(), "FAIL");
    assert_eq!(verdict(Kind::Kafka, &done("consumer-protocol/kill", Ok(()))).word(), "pass");
}

#[test]
fn a_panic_is_the_checks_failure() {
    let outcome: Outcome = guarded(|| panic!("broken"));
    assert!(outcome.unwrap_err().to_string().contains("broken"));
}

#[test]
fn names_of_checks_are_unique_and_limits_name_some() {
    let mut names: Vec<&str> = table::CHECKS.iter().flat_map(|theme| theme.iter()).map(|check| check.name).collect();
    for (begin, _) in limits::LIMITS {
        assert!(names.iter().any(|name| name.starts_with(begin)), "{begin}");
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
