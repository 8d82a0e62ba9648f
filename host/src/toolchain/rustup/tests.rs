//! A command that ends, one that fails and one that hangs.

use super::*;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn the_reason_of_a_failure_is_kept() {
    run(shell("true"), LIMIT).expect("it succeeds");
    let script = "echo 'info: downloading' >&2; echo 'error: could not download' >&2; echo more >&2; exit 1";
    let error = run(shell(script), LIMIT).expect_err("it fails");
    assert_eq!(error.to_string(), "it failed: error: could not download");
}

#[test]
fn a_command_that_hangs_is_ended() {
    let error = run(shell("exec sleep 60"), Duration::from_millis(200)).expect_err("it is ended");
    assert!(error.to_string().starts_with("it did not end within"), "{error}");
}
