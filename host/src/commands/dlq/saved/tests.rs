//! Tests of `saved`: a dead letter comes back as it was, and files of strangers are refused with a reason.

use super::super::letter::tests::added;
use super::*;

fn folder() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("sandbar-saved-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the machine has a folder for this");
    folder
}

#[test]
fn a_saved_dead_letter_comes_back_as_it_was() {
    let own = Header { key: Bytes::from_static(b"own"), value: None };
    let record = TopicRecord {
        partition: 1,
        offset: 9,
        timestamp: 70,
        key: None,
        value: Some(Bytes::from_static(b"\0\xff")),
        headers: [vec![own], added()].concat(),
    };
    let path = folder().join("letter.json");
    // What an earlier run has left; it may not be there.
    let _ = std::fs::remove_file(&path);
    write(&path, "dlq", &record).expect("it can be written");
    assert_eq!(read(&path).expect("it can be read"), DeadLetter::of("dlq", record.clone()).expect("it is one"));
    assert!(write(&path, "dlq", &record).is_err(), "a file that exists is not replaced");
}

#[test]
fn other_files_are_refused() {
    let path = folder().join("other.json");
    let cases = [
        ("", "EOF"),
        ("{}", "missing field"),
        (r#"{"position":"dlq@0:1","timestamp":1,"key":"*","value":null,"headers":[]}"#, "Invalid symbol"),
        (r#"{"position":"dlq","timestamp":1,"key":null,"value":null,"headers":[]}"#, "found no '@'"),
        (r#"{"position":"dlq@0:1","timestamp":1,"key":null,"value":null,"headers":[]}"#, "is no dead letter"),
    ];
    for (text, expected) in cases {
        std::fs::write(&path, text).expect("the folder can be written");
        let error = format!("{:#}", read(&path).expect_err("it is none"));
        assert!(error.contains(expected), "{text}: {error}");
    }
}
