//! Arguments that are a topic or positions in it.

use super::*;

fn of(arguments: &[&str]) -> Result<Selected, String> {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Selected::of(&arguments).map_err(|error| error.to_string())
}

#[test]
fn arguments_are_one_topic_and_positions_in_it() {
    let at = |offset| Position { topic: "dlq".to_owned(), partition: 0, offset };
    let selected = |topic: Option<&str>, positions: &[Position]| {
        Ok(Selected { topic: topic.map(str::to_owned), positions: positions.to_vec() })
    };
    assert_eq!(of(&[]), selected(None, &[]));
    assert_eq!(of(&["dlq"]), selected(Some("dlq"), &[]));
    assert_eq!(of(&["dlq@0:1", "dlq@0:2", "dlq@0:1"]), selected(Some("dlq"), &[at(1), at(2)]));
    assert_eq!(of(&["dlq", "dlq@0:1"]), selected(Some("dlq"), &[at(1)]));
    assert!(of(&["dlq@0:1", "other@0:1"]).is_err_and(|error| error.contains("dlq and other")));
    assert!(of(&["dlq@0"]).is_err_and(|error| error.contains("expected TOPIC@PARTITION:OFFSET")));
}
