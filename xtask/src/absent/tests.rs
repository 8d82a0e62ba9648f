//! That a banned crate in a tree is found, and a crate that only starts like one is not.

use super::banned;

#[test]
fn a_banned_crate_is_found() {
    assert_eq!(banned("bytes v1.0.0\ntokio v1.54.0\nengine v0.1.0 (host/engine)"), ["tokio"]);
}

#[test]
fn a_name_that_only_starts_alike_is_not() {
    assert!(banned("tokio-util v0.7.0\nwasmtime-types v48.0.0").is_empty());
}
