//! The identity file's text.

use super::*;

#[test]
fn an_identity_is_read_as_it_was_written() {
    for cluster_id in [None, Some("M3kT".to_string())] {
        let identity = Identity { format_version: 1, application_id: "carrier-count".into(), cluster_id };
        assert_eq!(Identity::parse(&identity.to_text()), Ok(identity));
    }
}

#[test]
fn what_is_missing_or_malformed_is_named() {
    assert_eq!(Identity::parse("application.id = a\n"), Err("format.version is missing".into()));
    assert_eq!(Identity::parse("format.version = 1\n"), Err("application.id is missing".into()));
    assert_eq!(Identity::parse("format.version = one\n"), Err("format.version \" one\" is no number".into()));
    assert_eq!(Identity::parse("garbage\n"), Err("line \"garbage\" has no =".into()));
}

#[test]
fn a_name_cannot_leave_the_directory() {
    let directory = Path::new("state");
    for name in ["..", ".", "", "a/b", ".hidden", "a\0b", "ä", &"x".repeat(201)] {
        assert!(check_name("store", name, directory).is_err(), "{name:?} was accepted");
    }
    for name in ["counts", "a.b_c-D9"] {
        assert_eq!(check_name("store", name, directory), Ok(()));
    }
}
