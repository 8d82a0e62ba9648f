//! Connections leave handles to the logs.

use super::*;

#[test]
fn connections_do_not_take_the_last_handles() {
    assert_eq!(connections_allowed(2_000, None), 2_000);
    assert_eq!(connections_allowed(2_000, Some(1_048_576)), 2_000);
    assert_eq!(connections_allowed(2_000, Some(1_024)), 1_024 - HANDLES_KEPT);
    assert_eq!(connections_allowed(2_000, Some(100)), CONNECTIONS_MIN);
    assert_eq!(connections_allowed(5, Some(100)), 5);
}

#[test]
fn the_limit_is_raised_as_far_as_it_may() {
    let raised = raise_limit();
    assert_eq!(raised, getrlimit(Resource::Nofile).maximum.map(|most| most as usize));
}
