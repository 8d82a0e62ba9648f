//! The lock, and the identity file's text.

use super::*;

/// As a child that is being forked off does: it has a copy of the lock for a moment after its parent gave it up.
#[test]
fn a_lock_that_is_held_for_a_moment_only_is_waited_for() {
    let folder = std::env::temp_dir().join(format!("sandbar-rocks-lock-{}", std::process::id()));
    let options = RocksOptions::new(&folder, "carrier-count");
    let first = StateDirectory::open(&options).expect("the state directory");
    let copy = first._lock.try_clone().expect("a copy of the lock");
    drop(first);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            drop(copy);
        });
        StateDirectory::open(&options).expect("the lock is free in a moment");
    });
    fs::remove_dir_all(folder).expect("remove the folder");
}

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

#[test]
fn a_host_keeps_its_id_with_its_directory() {
    let folder = std::env::temp_dir().join(format!("sandbar-rocks-host-id-{}", std::process::id()));
    let options = RocksOptions::new(&folder, "carrier-count");
    let first = StateDirectory::open(&options).expect("the state directory");
    let id = first.host_id().to_owned();
    assert_eq!(id.len(), HOST_ID_DIGITS);
    drop(first);
    assert_eq!(StateDirectory::open(&options).expect("again").host_id(), id);
    fs::write(folder.join("carrier-count").join(HOST_ID), "half an i").expect("written");
    let refused = StateDirectory::open(&options).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("unreadable .host-id"), "{refused}");
    fs::remove_dir_all(&folder).expect("remove the folder");
    assert_ne!(StateDirectory::open(&options).expect("a new one").host_id(), id);
    fs::remove_dir_all(folder).expect("remove the folder");
}
