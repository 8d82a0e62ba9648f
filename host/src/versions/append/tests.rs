//! Records of a deploy: parts that the topic takes, what is deleted with them, and what is refused before anything is
//! written.

use engine::record::{Headers, Offset, Record};

use super::*;
use crate::versions::manifest::VersionManifest;
use crate::versions::version::{ChangeKind, NewVersion};

const TOPIC: &str = "vote-sandbar-versions";
const DEFAULT_BYTES: usize = 1_048_588;

fn version(number: u64, module: &[u8]) -> Version {
    let (module, manifest) = (ModuleDigest::of(module), VersionManifest::default());
    let (who, why, kind) = (String::new(), String::new(), ChangeKind::Swap);
    Version::new(NewVersion { number, module, manifest, who, when_ms: 1, why, kind, signature: None })
}

fn active(number: u64) -> Entry {
    Entry::Active(Active {
        number,
        previous: None,
        is_confirmed: false,
        confirmed_before: None,
        when_ms: 1,
        by: String::new(),
        why: String::new(),
    })
}

fn apply(table: &mut VersionTable, records: &[PlannedRecord]) {
    let revision = table.versions().len() as Offset * 1_000;
    for (offset, record) in (revision..).zip(records) {
        let key = Some(record.key.to_string().into());
        let value = record.value.clone();
        table.apply(&Record { offset, timestamp: 1, key, value, headers: Headers::default() });
    }
}

fn deploy(number: u64, module: &'static [u8]) -> Vec<Entry> {
    vec![Entry::Module(module.into()), Entry::Version(version(number, module)), active(number)]
}

fn refused(table: &VersionTable, entries: &[Entry]) -> String {
    plan(table, entries, DEFAULT_BYTES).expect_err("it is refused").to_string()
}

#[test]
fn a_module_is_cut_into_parts_that_the_topic_takes() {
    let bytes: Bytes = (0..1_300_000_u32).map(|at| at as u8).collect::<Vec<u8>>().into();
    let digest = ModuleDigest::of(&bytes);
    for (message_bytes_max, chunks) in [(DEFAULT_BYTES, 3), (101_024, 13), (16 << 10, 85)] {
        let entries = [Entry::Module(bytes.clone()), Entry::Version(version(1, &bytes)), active(1)];
        let records = plan(&VersionTable::new(TOPIC), &entries, message_bytes_max).expect("records");
        assert_eq!(records.len(), chunks + 3);
        assert!(
            records.iter().all(|record| record.value.as_ref().is_some_and(|value| value.len() < message_bytes_max))
        );
        let parts = records.iter().filter(|record| matches!(record.key, Key::Chunk(..)));
        let whole: Vec<u8> = parts.flat_map(|record| record.value.clone().unwrap_or_default()).collect();
        assert_eq!(ModuleDigest::of(&whole), digest);
        let mut table = VersionTable::new(TOPIC);
        apply(&mut table, &records);
        assert!(table.has_module(&digest) && table.active_version().is_ok_and(|version| version.is_some()));
    }
}

#[test]
fn parts_that_a_shorter_list_leaves_over_are_deleted() {
    let bytes = Bytes::from(vec![7; 100_000]);
    let entries = [Entry::Module(bytes.clone()), Entry::Version(version(1, &bytes)), active(1)];
    let mut table = VersionTable::new(TOPIC);
    let records = plan(&table, &entries, 16 << 10).expect("records");
    apply(&mut table, &records);
    let records = plan(&table, &entries, 64 << 10).expect("records");
    let deleted: Vec<&PlannedRecord> = records.iter().filter(|record| record.value.is_none()).collect();
    assert_eq!(deleted.len(), 7 - 2);
    apply(&mut table, &records);
    assert!(table.has_module(&ModuleDigest::of(&bytes)));
}

#[test]
fn an_old_module_goes_with_the_eleventh_deploy_after_it_and_its_version_stays() {
    let mut table = VersionTable::new(TOPIC);
    let modules: Vec<Bytes> = (1..=13_u8).map(|number| Bytes::from(vec![number])).collect();
    for (number, module) in (1..).zip(&modules) {
        let mut version = version(number, module);
        version.move_to(crate::versions::VersionState::Refused, 2, "").expect("an allowed move");
        let entries = [Entry::Module(module.clone()), Entry::Version(version), active(1)];
        let records = plan(&table, &entries, DEFAULT_BYTES).expect("records");
        apply(&mut table, &records);
    }
    let kept: Vec<u64> = (1..)
        .zip(&modules)
        .filter(|(_, module)| table.has_module(&ModuleDigest::of(module)))
        .map(|(number, _)| number)
        .collect();
    // 1 is active.
    assert_eq!(kept, [1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    assert_eq!(table.versions().len(), 13);
    // A version without its module cannot be made active; with it, it can.
    let message = refused(&table, &[active(2)]);
    assert!(
        message.contains("version 2 cannot be active: its module") && message.contains("is not kept any more"),
        "{message}"
    );
    assert!(plan(&table, &[Entry::Module(modules[1].clone()), active(2)], DEFAULT_BYTES).is_ok());
}

#[test]
fn what_no_host_could_run_is_refused() {
    let mut table = VersionTable::new(TOPIC);
    let records = plan(&table, &deploy(1, b"one"), DEFAULT_BYTES).expect("records");
    apply(&mut table, &records);
    let module = |module: &'static [u8]| Entry::Module(module.into());
    for (entries, expected) in [
        (vec![], "there is no version to append"),
        (vec![module(b"two")], "there is no version to append"),
        (vec![module(b""), Entry::Version(version(2, b""))], "the module is empty"),
        (vec![Entry::Version(version(2, b"two")), active(1)], "version 2 has the module"),
        (vec![module(b"two"), Entry::Version(version(1, b"two"))], "version 1 is another one already"),
        (vec![module(b"two"), Entry::Version(version(0, b"two"))], "version 0 is none"),
        (vec![Entry::Version(version(1, b"one")), Entry::Version(version(1, b"one"))], "is there twice"),
        (vec![active(2)], "there is no version 2 that could be active"),
    ] {
        let message = refused(&table, &entries);
        assert!(message.starts_with(&format!("topic {TOPIC}: ")) && message.contains(expected), "{message}");
    }
}

#[test]
fn a_version_that_the_topic_does_not_take_names_the_key_to_change() {
    let entries = deploy(1, b"one");
    let error = plan(&VersionTable::new(TOPIC), &entries, RECORD_OVERHEAD_BYTES + 100).expect_err("too large");
    let message = error.to_string();
    assert!(message.contains("version/1 takes ") && message.contains("raise its max.message.bytes"), "{message}");
}
