//! When a file counts as changed, on real files and at made-up times.

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sandbar-watch-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("writable");
        path
    }

    fn watch(&self) -> Watch {
        Watch::open(&self.0, Overrides::default()).expect("readable")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn after(seconds: f64) -> Instant {
    Instant::now() + Duration::from_secs_f64(seconds)
}

/// Looks long enough for all that has changed to be read, and not before `seconds` from now.
fn settle(watch: &mut Watch, seconds: f64) {
    for step in 1..=4 {
        watch.look(after(seconds + 2.0 * f64::from(step))).expect("readable");
    }
    assert!(!watch.is_moving());
}

fn ids(watch: &Watch) -> Vec<String> {
    let found = watch.found().filter_map(|(_, found)| found.as_ref().ok());
    found.map(|source| source.manifest.application_id().to_owned()).collect()
}

fn module_of(watch: &Watch) -> Option<ModuleDigest> {
    watch.found().find_map(|(_, found)| found.as_ref().ok()).and_then(|source| source.content.module)
}

const TABLE: &str = "application.id = \"a\"\n[table.topic]\n";

#[test]
fn a_file_is_read_once_it_was_left_alone() {
    let folder = Folder::new("debounce");
    folder.write("a.toml", TABLE);
    let mut watch = folder.watch();
    assert_eq!(ids(&watch), ["a"], "what is there at the start is read at once");
    settle(&mut watch, 10.0);

    folder.write("b.toml", "application.id = ");
    watch.look(after(100.0)).expect("readable");
    folder.write("b.toml", &TABLE.replace("\"a\"", "\"b\""));
    watch.look(after(100.9)).expect("readable");
    assert!(!watch.look(after(101.5)).expect("readable"), "it has changed 0.6 s ago");
    assert_eq!((ids(&watch), watch.is_moving()), (vec!["a".to_owned()], true));
    assert!(watch.look(after(102.0)).expect("readable"));
    assert_eq!(ids(&watch), ["a", "b"]);

    fs::remove_file(folder.0.join("a.toml")).expect("a file");
    watch.look(after(103.0)).expect("readable");
    assert_eq!(ids(&watch), ["a", "b"], "it may come back in a moment");
    watch.look(after(104.1)).expect("readable");
    assert_eq!(ids(&watch), ["b"]);
}

#[test]
fn a_file_under_another_name_does_not_seem_gone_meanwhile() {
    let folder = Folder::new("renamed");
    folder.write("m.wasm", "one");
    let old = folder.write("b.toml", "application.id = \"a\"\nmodule = \"m.wasm\"\n");
    let mut watch = folder.watch();
    settle(&mut watch, 10.0);
    fs::rename(&old, folder.0.join("z.toml")).expect("a file");
    // The new one is read twice, since its module is looked at from the first time on.
    for seconds in [100.0, 101.1, 102.2, 103.3] {
        watch.look(after(seconds)).expect("readable");
        assert_eq!(ids(&watch), ["a"], "{seconds}");
    }
    let paths: Vec<_> = watch.found().map(|(path, _)| path.to_owned()).collect();
    assert_eq!(paths, [folder.0.join("z.toml")]);
    // One that is always being written keeps nothing for ever.
    fs::remove_file(folder.0.join("z.toml")).expect("a file");
    for seconds in 200..215 {
        folder.write("busy.toml", &"#".repeat(seconds));
        watch.look(after(seconds as f64)).expect("readable");
    }
    assert_eq!(ids(&watch), Vec::<String>::new());
}

#[test]
fn a_module_is_part_of_its_manifest_and_its_file_is_not() {
    let folder = Folder::new("module");
    folder.write("a.toml", "application.id = \"a\"\nmodule = \"m.wasm\"\n");
    let mut watch = folder.watch();
    let (_, found) = watch.found().next().expect("a file");
    let reason = found.as_ref().expect_err("there is no module");
    assert!(reason.contains("a.toml: there is no module at"), "{reason}");

    let module = folder.write("m.wasm", "one");
    settle(&mut watch, 20.0);
    assert_eq!(module_of(&watch), Some(ModuleDigest::of(b"one")));
    // Another file of the same size in its place, as a link that is swapped.
    let other = folder.write("other.wasm", "two");
    fs::remove_file(&module).expect("a file");
    std::os::unix::fs::symlink(&other, &module).expect("a link");
    settle(&mut watch, 30.0);
    assert_eq!(module_of(&watch), Some(ModuleDigest::of(b"two")));
    let before = watch.found().find_map(|(_, found)| found.as_ref().ok()).map(|source| source.content.clone());
    fs::remove_file(&module).expect("a file");
    fs::rename(&other, &module).expect("a file");
    watch.look(after(100.0)).expect("readable");
    assert!(watch.is_moving(), "the link has become a file");
    settle(&mut watch, 110.0);
    let now = watch.found().find_map(|(_, found)| found.as_ref().ok()).map(|source| source.content.clone());
    assert_eq!(before, now, "with the same in it");
}

#[test]
fn what_cannot_be_read_is_told_with_its_place() {
    let folder = Folder::new("broken");
    folder.write("a.toml", "application.id = \"a\"\nnonsense = 1\n[table.topic]\n");
    let watch = folder.watch();
    let (_, found) = watch.found().next().expect("a file");
    let reason = found.as_ref().expect_err("there is no such key");
    assert!(reason.contains("a.toml:2:1: unknown key nonsense"), "{reason}");
}

#[test]
fn a_folder_that_cannot_be_read_takes_nothing_away() {
    let folder = Folder::new("folder");
    folder.write("a.toml", TABLE);
    let mut watch = folder.watch();
    settle(&mut watch, 10.0);
    let elsewhere = folder.0.with_extension("elsewhere");
    fs::rename(&folder.0, &elsewhere).expect("a folder");
    let looks = [50.0, 60.0, 70.0].map(|seconds| watch.look(after(seconds)).is_err());
    fs::rename(&elsewhere, &folder.0).expect("a folder");
    assert_eq!((looks, ids(&watch)), ([true; 3], vec!["a".to_owned()]));
}
