//! When a change is told, and which files count.

use super::*;

fn seen(files: &[(&str, i64)]) -> Snapshot {
    let stamp = |ms: i64| Stamp { modified_ns: ms as u128 * 1_000_000, size_bytes: 1 };
    files.iter().map(|(path, ms)| (PathBuf::from(path), stamp(*ms))).collect()
}

fn change(files: &[&str], saved_ms: i64) -> Option<Change> {
    Some(Change { files: files.iter().map(PathBuf::from).collect(), saved_ms })
}

#[test]
fn a_save_is_told_once_when_it_was_quiet_for_a_moment() {
    let mut debounce = Debounce::at(seen(&[("lib.rs", 10), ("main.rs", 10)]));
    let saved = seen(&[("lib.rs", 10_005), ("main.rs", 10)]);
    assert_eq!(debounce.look(seen(&[("lib.rs", 10), ("main.rs", 10)]), 10_000), None);
    assert_eq!(debounce.look(saved.clone(), 10_020), None, "it has only begun");
    assert_eq!(debounce.look(saved.clone(), 10_020 + QUIET_MS - 1), None);
    assert_eq!(debounce.look(saved.clone(), 10_020 + QUIET_MS), change(&["lib.rs"], 10_005));
    assert_eq!(debounce.look(saved, 20_000), None, "it was told");
}

#[test]
fn several_changes_in_a_row_are_one() {
    let mut debounce = Debounce::at(seen(&[("lib.rs", 10)]));
    // An editor that writes beside the file and moves it there, then another file, always within the quiet time.
    for (at_ms, files) in [
        (10_000, &[][..]),
        (10_050, &[("lib.rs", 10_040)][..]),
        (10_100, &[("lib.rs", 10_040), ("new.rs", 10_090)][..]),
    ] {
        assert_eq!(debounce.look(seen(files), at_ms), None);
    }
    let last = seen(&[("lib.rs", 10_040), ("new.rs", 10_090)]);
    assert_eq!(debounce.look(last.clone(), 10_150), None);
    assert_eq!(debounce.look(last, 10_160), change(&["lib.rs", "new.rs"], 10_090));
}

#[test]
fn what_is_again_as_it_was_is_no_change() {
    let mut debounce = Debounce::at(seen(&[("lib.rs", 10)]));
    assert_eq!(debounce.look(seen(&[]), 10_000), None);
    assert_eq!(debounce.look(seen(&[("lib.rs", 10)]), 10_030), None);
    assert_eq!(debounce.look(seen(&[("lib.rs", 10)]), 10_200), None);
}

#[test]
fn the_time_of_a_save_is_that_of_the_look_where_the_file_does_not_say_it() {
    let mut debounce = Debounce::at(seen(&[("lib.rs", 10), ("old.rs", 10)]));
    // A removed file has no time, and one that was moved there has that of its writing.
    let moved = seen(&[("lib.rs", 500)]);
    assert_eq!(debounce.look(moved.clone(), 100_000), None);
    assert_eq!(debounce.look(moved, 100_100), change(&["lib.rs", "old.rs"], 100_000));
}

#[test]
fn only_sources_count() {
    let folder = std::env::temp_dir().join(format!("sandbar-watch-{}", std::process::id()));
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("it is below the folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    write("src/lib.rs", "one");
    write("src/part/mod.rs", "one");
    write("sandbar.toml", "one");
    let mut watch = Watch::default();
    watch.settle(vec![Place::Folder(folder.join("src")), Place::File(folder.join("sandbar.toml"))]);
    for other in ["src/.lib.rs.swp", "src/lib.rs~", "src/4913", "src/target/x.rs", "src/.git/HEAD", "vote.wasm", "x.rs"]
    {
        write(other, "one");
    }
    assert_eq!((watch.look(1), watch.look(1_000)), (None, None));
    write("src/part/mod.rs", "two, and longer");
    write("sandbar.toml", "two, and longer");
    let now_ms = crate::runtime::wall_clock_ms();
    assert_eq!(watch.look(now_ms), None);
    let told = watch.look(now_ms + QUIET_MS).expect("two files were saved");
    fs::remove_dir_all(&folder).expect("removed");
    assert_eq!(told.files, [folder.join("sandbar.toml"), folder.join("src/part/mod.rs")]);
}
