//! Tests of the table of task states.

use super::TaskState::{self, Closed, Created, Restoring, Running, Suspended};
use crate::error::EngineError;
use crate::topology::TaskId;

#[test]
fn exactly_the_moves_of_the_diagram_are_allowed() {
    let allowed = [
        (Created, Restoring),
        (Created, Suspended),
        (Restoring, Running),
        (Restoring, Suspended),
        (Running, Suspended),
        (Suspended, Restoring),
        (Suspended, Closed),
        (Closed, Created),
    ];
    for from in TaskState::ALL {
        for to in TaskState::ALL {
            assert_eq!(from.allows(to), allowed.contains(&(from, to)), "{from} to {to}");
        }
    }
}

#[test]
fn another_move_is_an_error_that_names_the_task() {
    let task = TaskId { sub_topology: 1, partition: 3 };
    assert_eq!(Created.moved_to(Restoring, task), Ok(Restoring));
    let error = Running.moved_to(Closed, task).expect_err("a running task is suspended first");
    assert_eq!(error, EngineError::IllegalMove { task, from: Running, to: Closed });
    assert_eq!(error.to_string(), "task 1_3 cannot move from RUNNING to CLOSED");
}
