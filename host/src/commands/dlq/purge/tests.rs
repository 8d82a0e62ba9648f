//! What the arguments keep.

use super::*;

fn keep(topic: Option<&str>, before: &[&str]) -> Result<(Option<String>, Keep), String> {
    let before: Vec<Before> = before.iter().map(|text| text.parse().expect(text)).collect();
    read(topic, &before).map_err(|error| error.to_string())
}

#[test]
fn a_time_or_positions_say_what_is_kept() {
    let dlq = Some("dlq".to_owned());
    assert_eq!(keep(Some("dlq"), &[]), Ok((dlq.clone(), Keep::Nothing)));
    assert_eq!(keep(Some("dlq"), &["1970-01-01T00:00:01Z"]), Ok((dlq.clone(), Keep::Since(1000))));
    let from = Keep::From(BTreeMap::from([(0, 5), (2, 7)]));
    assert_eq!(keep(None, &["dlq@0:5", "dlq@2:7"]), Ok((dlq, from)));
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (topic, before, expected) in [
        (Some("other"), vec!["dlq@0:5"], "a position in other was expected"),
        (None, vec!["dlq@0:5", "other@1:5"], "a position in dlq was expected"),
        (None, vec!["dlq@0:5", "dlq@0:6"], "partition 0 twice"),
        (Some("dlq"), vec!["10m", "20m"], "one time, or positions"),
        (Some("dlq"), vec!["dlq@0:5", "20m"], "one time, or positions"),
        (Some("dlq"), vec!["20m", "dlq@0:5"], "one time, or positions"),
    ] {
        let error = keep(topic, &before).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
    assert!("dlq@0".parse::<Before>().is_err_and(|error| error.contains("TOPIC@PARTITION:OFFSET")));
    assert!("soon".parse::<Before>().is_err_and(|error| error.contains("such as 10m")));
}

#[test]
fn what_was_removed_is_between_the_starts() {
    let bounds = |partition, start| PartitionBounds { partition, start, stable_end: 100 };
    let starts = BTreeMap::from([(0, 10), (1, 5), (2, 5)]);
    let found = removed(&[bounds(0, 3), bounds(1, 5), bounds(2, 9), bounds(3, 0)], &starts);
    assert_eq!(found, BTreeMap::from([(0, 7)]));
}
