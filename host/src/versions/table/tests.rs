//! The fold over the topic's records: what counts, what is a problem, what is an error and never nothing.

use bytes::Bytes;
use engine::record::Headers;

use super::*;
use crate::versions::state::VersionState;
use crate::versions::version::{ChangeKind, NewVersion};

const TOPIC: &str = "vote-sandbar-versions";

/// A table that gets one record after the other.
struct Fold {
    table: VersionTable,
    offset: Offset,
}

impl Fold {
    fn new() -> Self {
        Self { table: VersionTable::new(TOPIC), offset: 0 }
    }

    fn put(&mut self, key: &str, value: Option<&[u8]>) -> &mut Self {
        let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let (key, value) = (Some(bytes(key.as_bytes())), value.map(bytes));
        self.table.apply(&Record { offset: self.offset, timestamp: 1, key, value, headers: Headers::default() });
        self.offset += 1;
        self
    }

    fn version(&mut self, version: &Version) -> &mut Self {
        let json = serde_json::to_vec(version).expect("JSON");
        self.put(&format!("version/{}", version.number), Some(&json))
    }

    fn active(&mut self, number: u64, previous: Option<u64>) -> &mut Self {
        let json = serde_json::to_vec(&active(number, previous)).expect("JSON");
        self.put("active", Some(&json))
    }

    fn module(&mut self, chunks: &[&[u8]]) -> ModuleDigest {
        let bytes = chunks.concat();
        let digest = ModuleDigest::of(&bytes);
        for (at, chunk) in chunks.iter().enumerate() {
            self.put(&format!("module/{digest}/{at}"), Some(chunk));
        }
        let index = format!(r#"{{"bytes":{},"chunks":{}}}"#, bytes.len(), chunks.len());
        self.put(&format!("module/{digest}"), Some(index.as_bytes()));
        digest
    }
}

fn active(number: u64, previous: Option<u64>) -> Active {
    Active {
        number,
        previous,
        confirmed_before: None,
        is_confirmed: false,
        when_ms: 1,
        by: "ada".to_owned(),
        why: String::new(),
    }
}

fn version(number: u64, module: &[u8]) -> Version {
    let (module, manifest) = (ModuleDigest::of(module), VersionManifest::default());
    let (who, why, kind) = (String::new(), String::new(), ChangeKind::Swap);
    Version::new(NewVersion { number, module, manifest, who, when_ms: 1, why, kind, signature: None })
}

/// As it is once it has run and another one has taken over.
fn superseded(number: u64, module: &[u8]) -> Version {
    let mut version = version(number, module);
    for to in [VersionState::Ready, VersionState::Swapping, VersionState::Active, VersionState::Superseded] {
        version.move_to(to, 1, "").expect("an allowed move");
    }
    version
}

#[test]
fn the_last_record_of_each_key_counts() {
    let mut fold = Fold::new();
    assert!(fold.table.is_empty() && fold.table.next_number() == 1);
    assert_eq!(fold.table.active_version(), Ok(None));
    let (mut first, second) = (version(1, b"one"), version(2, b"two"));
    fold.version(&first).active(1, None).version(&second);
    first.move_to(VersionState::Ready, 2, "").expect("an allowed move");
    fold.version(&first).active(2, Some(1));
    assert_eq!(fold.table.active_version(), Ok(Some(&second)));
    assert_eq!(fold.table.version(1), Some(&first));
    assert_eq!((fold.table.next_number(), fold.table.revision()), (3, Revision(Some(4))));
    let found = |module: &[u8]| fold.table.find(&ModuleDigest::of(module), &VersionManifest::default());
    assert_eq!((found(b"two"), found(b"three")), (Some(&second), None));
}

#[test]
fn keys_of_something_else_are_left_alone() {
    let mut fold = Fold::new();
    let digest = ModuleDigest::of(b"one");
    let others = [
        "",
        "versions/1",
        "version/",
        "version/01",
        "version/+1",
        "version/-1",
        "version/1/more",
        "Active",
        "module/abc",
    ];
    for key in others {
        fold.put(key, Some(b"x"));
    }
    fold.put(&format!("module/{digest}/01"), Some(b"x"))
        .put(&format!("module/{}", digest.to_string().to_uppercase()), None);
    assert!(fold.table.is_empty());
    assert_eq!((fold.table.ignored(), fold.table.problems().count()), (others.len() as u64 + 2, 0));
    for key in [Key::Active, Key::Version(12), Key::Module(digest), Key::Chunk(digest, 7)] {
        assert_eq!(Key::parse(key.to_string().as_bytes()), Some(key));
    }
    assert_eq!(Key::parse(b"\xff"), None);
}

#[test]
fn garbage_changes_nothing_and_is_told_until_it_is_mended() {
    let mut fold = Fold::new();
    let first = version(1, b"one");
    fold.version(&first).active(1, None);
    fold.put("active", Some(b"\x00nonsense")).put("version/1", Some(b"{}")).put("active", None).put("version/1", None);
    assert_eq!(fold.table.active_version(), Ok(Some(&first)));
    let problems: Vec<String> = fold.table.problems().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            format!("topic {TOPIC}, offset 5, key version/1: it was deleted, which no host does"),
            format!("topic {TOPIC}, offset 4, key active: it was deleted, which no host does"),
        ]
    );
    fold.version(&first).active(1, None);
    assert_eq!(fold.table.problems().count(), 0);
}

#[test]
fn what_cannot_be_read_is_an_error_and_never_an_empty_topic() {
    let mut fold = Fold::new();
    fold.put("active", Some(b"nonsense"));
    let error = fold.table.active_version().expect_err("unreadable").to_string();
    assert!(error.starts_with(&format!("topic {TOPIC}, offset 0, key active: expected")), "{error}");
    assert!(!fold.table.is_empty());

    let mut fold = Fold::new();
    fold.version(&version(4, b"four"));
    let error = fold.table.active_version().expect_err("unknown").to_string();
    assert!(error.contains("has versions up to 4, but does not say which one is active"), "{error}");

    let mut fold = Fold::new();
    fold.put("version/7", Some(b"[]")).active(7, None);
    let error = fold.table.active_version().expect_err("unreadable").to_string();
    assert!(error.contains("key version/7: "), "{error}");
    assert_eq!(fold.table.next_number(), 8);

    let mut fold = Fold::new();
    fold.active(3, None);
    let error = fold.table.active_version().expect_err("missing").to_string();
    assert!(error.contains("says that version 3 is active, but does not have it"), "{error}");
    fold.put("active", Some(br#"{"number":0,"previous":null,"when_ms":1,"by":"","why":""}"#));
    assert_eq!(fold.table.problems().count(), 1);
}

#[test]
fn a_module_is_there_when_all_its_parts_are() {
    let mut fold = Fold::new();
    let digest = fold.module(&[b"ab", b"cd", b"e"]);
    assert!(fold.table.has_module(&digest));
    assert_eq!(fold.table.module_parts(&digest).expect("parts").bytes(), 5);
    let refused = |fold: &Fold| fold.table.module_parts(&digest).expect_err("damaged").to_string();

    fold.put(&format!("module/{digest}/1"), None);
    let expected = format!("topic {TOPIC}, key module/{digest}/1: expected part 2 of 3, found nothing; ");
    assert!(refused(&fold).starts_with(&expected), "{}", refused(&fold));
    fold.put(&format!("module/{digest}/1"), Some(b"cdx"));
    let expected = format!("topic {TOPIC}, key module/{digest}: expected 5 bytes, found 6 in 3 parts; ");
    assert!(refused(&fold).starts_with(&expected), "{}", refused(&fold));
    fold.put(&format!("module/{digest}"), Some(b"{}"));
    assert_eq!(fold.table.problems().count(), 1);
    fold.put(&format!("module/{digest}"), None);
    assert!(
        refused(&fold).contains(": expected the module's size, found nothing (modules of old versions are deleted)")
    );
    assert_eq!(fold.table.problems().count(), 0);
    for at in 0..3 {
        fold.put(&format!("module/{digest}/{at}"), None);
    }
    assert!(fold.table.modules.is_empty());
}

#[test]
fn a_size_that_nobody_could_hold_costs_no_memory() {
    let mut fold = Fold::new();
    let digest = ModuleDigest::of(b"huge");
    fold.put(&format!("module/{digest}"), Some(br#"{"bytes":18446744073709551615,"chunks":4294967295}"#));
    fold.put(&format!("module/{digest}/4294967295"), Some(b"x"));
    let error = fold.table.module_parts(&digest).expect_err("damaged").to_string();
    assert!(error.contains("expected part 1 of 4294967295, found nothing"), "{error}");
}

#[test]
fn modules_of_the_newest_of_the_active_and_of_the_one_before_are_kept() {
    let mut fold = Fold::new();
    for number in 1..=14_u64 {
        let bytes = number.to_be_bytes();
        fold.module(&[&bytes]);
        fold.version(&superseded(number, &bytes));
    }
    fold.active(2, Some(3));
    let outdated = |written: &[&Version], active: Option<&Active>| {
        let keys = fold.table.outdated_modules(written, active).into_iter();
        let digests: BTreeSet<ModuleDigest> = keys
            .map(|key| if let Key::Module(digest) | Key::Chunk(digest, _) = key { digest } else { unreachable!() })
            .collect();
        let numbers = (1..=14_u64).filter(|number| digests.contains(&ModuleDigest::of(&number.to_be_bytes())));
        numbers.collect::<Vec<u64>>()
    };
    // Of 14, the newest ten are 5 to 14; 2 is active and 3 came before it.
    assert_eq!(outdated(&[], None), [1, 4]);
    let next = version(15, b"fifteen");
    assert_eq!(outdated(&[&next], None), [1, 4, 5]);
    assert_eq!(outdated(&[&next], Some(&active(15, Some(2)))), [1, 3, 4, 5]);
    // The last confirmed one is gone back to where the one before is not.
    let with_confirmed = Active { confirmed_before: Some(1), ..active(15, Some(2)) };
    assert_eq!(outdated(&[&next], Some(&with_confirmed)), [3, 4, 5]);
    // A deploy of an old version that is still on its way needs its module, too.
    let mut again = superseded(1, &1_u64.to_be_bytes());
    again.move_to(VersionState::Swapping, 2, "").expect("an allowed move");
    assert_eq!(outdated(&[&next, &again], Some(&active(15, Some(2)))), [3, 4, 5]);
    // Every key of a module that goes, goes.
    assert_eq!(fold.table.outdated_modules(&[], None).len(), 4);
}
