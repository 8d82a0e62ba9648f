//! The cache of compiled code: it serves what this host wrote and nothing else (S11, G4).

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use sandbox::{Limits, LoadStage, Runtime, RuntimeConfig, RuntimeError};

use crate::support::{TempDir, guest};

/// The cache in `dir/project`, as a project has it, with the key of a user who has `dir/user`.
fn config(dir: &Path) -> RuntimeConfig {
    let (cache_dir, cache_key_dir) = (Some(dir.join("project")), Some(dir.join("user/state")));
    RuntimeConfig { cache_dir, cache_key_dir, ..RuntimeConfig::default() }
}

fn open(dir: &Path) -> Runtime {
    Runtime::new(config(dir)).unwrap()
}

/// Whether the guest came from the cache.
fn cached(runtime: &Runtime, name: &str) -> bool {
    let mut from_cache = false;
    let mut note = |stage| from_cache |= stage == LoadStage::LoadedFromCache;
    runtime.load_with(&guest(name), &Limits::default(), &mut note).unwrap();
    from_cache
}

/// The folder of the compiled code.
fn code_folder(dir: &Path) -> PathBuf {
    dir.join("project/compiled")
}

fn code_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(code_folder(dir)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_second_load_comes_from_the_cache() {
    let dir = TempDir::new("hit");
    assert!(!cached(&open(&dir.0), "passthrough"));
    assert!(cached(&open(&dir.0), "passthrough"));
    assert!(!cached(&open(&dir.0), "count"));
    for folder in [code_folder(&dir.0), dir.0.join("user"), dir.0.join("user/state")] {
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
    }
    for file in code_files(&dir.0).iter().chain([&dir.0.join("user/state/compiled-code.key")]) {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(code_files(&dir.0).len(), 2);
}

#[test]
fn applications_of_a_process_may_keep_the_same_module_at_once() {
    const APPLICATIONS: usize = 4;
    let dir = TempDir::new("at-once");
    let first = Runtime::new(RuntimeConfig::default()).unwrap();
    let config = config(&dir.0);
    let barrier = Barrier::new(APPLICATIONS);
    let load = || {
        let runtime = first.beside(config.clone()).unwrap();
        let mut not_kept = Vec::new();
        barrier.wait();
        let mut note = |stage| {
            if let LoadStage::NotCached { reason } = stage {
                not_kept.push(reason);
            }
        };
        runtime.load_with(&guest("count"), &Limits::default(), &mut note).unwrap();
        not_kept
    };
    let not_kept: Vec<String> = std::thread::scope(|scope| {
        let loading: Vec<_> = (0..APPLICATIONS).map(|_| scope.spawn(load)).collect();
        loading.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(not_kept.is_empty(), "{not_kept:?}");
    assert_eq!(code_files(&dir.0).len(), 1, "the code, and nothing half-done");
    assert!(cached(&open(&dir.0), "count"));
}

#[test]
fn planted_and_damaged_code_is_never_loaded() {
    let (dir, other) = (TempDir::new("planted"), TempDir::new("other"));
    assert!(!cached(&open(&dir.0), "passthrough"));
    let path = code_files(&dir.0).remove(0);
    let ours = fs::read(&path).unwrap();

    // Code that another host with another key compiled from the same module.
    assert!(!cached(&open(&other.0), "passthrough"));
    fs::copy(code_files(&other.0).remove(0), &path).unwrap();
    assert!(!cached(&open(&dir.0), "passthrough"), "code of another host was loaded");
    assert!(cached(&open(&dir.0), "passthrough"), "it was not replaced");

    // That with its key beside it, as a project has it that was packed with what lies in its folders.
    let planted = |to: &Path| {
        fs::copy(code_files(&other.0).remove(0), &path).unwrap();
        for name in ["key", "compiled-code.key"] {
            fs::copy(other.0.join("user/state/compiled-code.key"), to.join(name)).unwrap();
        }
    };
    for folder in [code_folder(&dir.0), dir.0.join("project")] {
        planted(&folder);
        assert!(!cached(&open(&dir.0), "passthrough"), "code was loaded by a key that came with it");
        for name in ["key", "compiled-code.key"] {
            fs::remove_file(folder.join(name)).unwrap();
        }
    }
    // Code of this user's own, from another of his folders.
    let sibling = RuntimeConfig { cache_dir: Some(other.0.join("sibling")), ..config(&dir.0) };
    assert!(!cached(&Runtime::new(sibling).unwrap(), "passthrough"));
    let of_sibling = fs::read_dir(other.0.join("sibling/compiled")).unwrap().next().unwrap().unwrap().path();
    fs::copy(of_sibling, &path).unwrap();
    assert!(!cached(&open(&dir.0), "passthrough"), "code of another folder was loaded");

    // Our own code of another module under this name.
    assert!(!cached(&open(&dir.0), "count"));
    let count = code_files(&dir.0).into_iter().find(|file| *file != path).unwrap();
    fs::copy(&count, &path).unwrap();
    assert!(!cached(&open(&dir.0), "passthrough"), "code of another module was loaded");

    let mut planted = 5;
    for damaged in [&ours[..0], &ours[..31], &ours[..ours.len() / 2], b"garbage"] {
        fs::write(&path, damaged).unwrap();
        assert!(!cached(&open(&dir.0), "passthrough"));
        planted += 1;
    }
    let mut flipped = ours.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&path, &flipped).unwrap();
    assert!(!cached(&open(&dir.0), "passthrough"));
    planted += 1;

    // Under the name of a module that was never compiled here, with the mark of the one that was.
    let name = path.file_name().unwrap().to_str().unwrap();
    let (_, settings) = name.split_once('-').unwrap();
    let probe = sandbox::check(&guest("probe")).unwrap().digest;
    fs::write(path.with_file_name(format!("{probe}-{settings}")), &ours).unwrap();
    assert!(!cached(&open(&dir.0), "probe"), "code of another module was loaded");
    planted += 1;
    // As a module, with and without what the cache puts before it.
    for bytes in [&ours[..], &ours[32..]] {
        open(&dir.0).load(bytes).unwrap_err();
        planted += 1;
    }
    println!("hostile: G4 {planted} planted files of compiled code, 0 loaded");
    fs::write(&path, &ours).unwrap();
    assert!(cached(&open(&dir.0), "passthrough"), "the untouched file must pass");
}

#[test]
fn a_folder_that_others_can_enter_is_refused() {
    let dir = TempDir::new("open");
    let make = |folder: &Path| fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).unwrap();
    make(&code_folder(&dir.0));
    let Err(error) = Runtime::new(config(&dir.0)) else { panic!("an open folder was accepted") };
    assert!(matches!(error, RuntimeError::Cache { .. }));
    // Whoever made it may have put something in: to close it is not enough.
    assert!(error.to_string().contains("others can enter it (mode 755); remove it"), "{error}");

    fs::remove_dir(code_folder(&dir.0)).unwrap();
    let elsewhere = TempDir::new("elsewhere");
    std::os::unix::fs::symlink(&elsewhere.0, code_folder(&dir.0)).unwrap();
    let Err(error) = Runtime::new(config(&dir.0)) else { panic!("a link was accepted") };
    assert!(error.to_string().contains("it is not a folder; remove it"), "{error}");
}

/// Nothing is kept then, and it is said; the module runs all the same.
#[test]
fn without_a_folder_for_the_key_nothing_is_kept() {
    let dir = TempDir::new("no-key");
    let open_folder = dir.0.join("open");
    fs::DirBuilder::new().mode(0o755).create(&open_folder).unwrap();
    let file = dir.0.join("file");
    fs::write(&file, "x").unwrap();
    for (folder, expected) in [
        (None, "there is no folder for its key: set HOME or XDG_STATE_HOME"),
        (Some(open_folder), "others can enter it (mode 755); remove it"),
        (Some(file.join("below")), "cannot be used: "),
    ] {
        let runtime = Runtime::new(RuntimeConfig { cache_key_dir: folder, ..config(&dir.0) }).unwrap();
        for _ in 0..2 {
            let mut stages = Vec::new();
            runtime.load_with(&guest("passthrough"), &Limits::default(), &mut |stage| stages.push(stage)).unwrap();
            let told = stages.iter().any(|stage| match stage {
                LoadStage::NotCached { reason } => reason.contains(expected),
                _ => false,
            });
            assert!(told && !stages.contains(&LoadStage::LoadedFromCache), "{stages:?}");
        }
        assert!(!code_folder(&dir.0).exists());
    }
}

#[test]
fn compiled_code_is_not_accepted_as_a_module() {
    let dir = TempDir::new("upload");
    assert!(!cached(&open(&dir.0), "passthrough"));
    let compiled = fs::read(code_files(&dir.0).remove(0)).unwrap();
    // With and without what our cache puts before it.
    for bytes in [&compiled[..], &compiled[32..]] {
        let message = open(&dir.0).load(bytes).unwrap_err().to_string();
        assert!(message.starts_with("not a WebAssembly component"), "{message}");
    }
    let message = open(&dir.0).load(&compiled[32..]).unwrap_err().to_string();
    assert!(message.contains("it is compiled code of a machine, which is never loaded"), "{message}");
}
