//! The table of moves, written out once more: what is not here must be refused.

use super::VersionState::{Active, Preparing, Ready, Refused, RolledBack, Superseded, Swapping};
use super::*;

const ALL: [VersionState; 7] = [Preparing, Ready, Swapping, Active, Superseded, Refused, RolledBack];

#[test]
fn only_the_moves_of_the_table_are_allowed() {
    let allowed = [
        (Preparing, Ready),
        (Preparing, Refused),
        (Ready, Swapping),
        (Ready, Refused),
        (Swapping, Active),
        (Swapping, Superseded),
        (Swapping, RolledBack),
        (Active, Superseded),
        (Active, RolledBack),
        (Superseded, Swapping),
        (RolledBack, Swapping),
    ];
    for from in ALL {
        for to in ALL {
            assert_eq!(to.may_follow(from), allowed.contains(&(from, to)), "{from} to {to}");
        }
    }
}

#[test]
fn a_state_is_written_in_json_as_it_is_shown() {
    for state in ALL {
        let text = serde_json::to_string(&state).expect("JSON");
        assert_eq!(text, format!("\"{state}\""));
        assert_eq!(serde_json::from_str::<VersionState>(&text).expect("a state"), state);
    }
    assert!(serde_json::from_str::<VersionState>("\"active\"").is_err());
}
