//! A full disk under the embedded broker: the command that fills it fails and says so, and every record that it was
//! told of is there afterwards. Runs in a mount namespace of its own with a small disk.

use std::process::Command;

use crate::support::Place;

/// Runs on a disk of 8 MiB, which is mounted where only this script sees it. `$1` is the built binary.
const SCRIPT: &str = r#"
set -eu
mkdir -p small
mount -t tmpfs -o size=8m tmpfs small
"$1" topics create t --partitions 1 --embedded small/broker
code=0
"$1" topics produce t input.ndjson --embedded small/broker 2>produce.log || code=$?
echo "produce $code"
mount -o remount,size=64m small
"$1" topics read t --embedded small/broker >read.ndjson
echo '{"value":"after"}' | "$1" topics produce t --embedded small/broker
"$1" topics read t --embedded small/broker | tail -n 1
umount small
"#;

#[test]
fn a_full_disk_is_told_and_loses_nothing_that_was_acknowledged() {
    let place = Place::new("disk-full");
    let lines: String = (0..20_000).map(|n| format!("{{\"value\":\"{n:01000}\",\"timestamp\":1}}\n")).collect();
    place.write("input.ndjson", lines);
    place.write("script.sh", SCRIPT);
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "script.sh", env!("CARGO_BIN_EXE_sandbar")])
        .current_dir(&place.folder)
        .output()
        .expect("unshare of util-linux is there");
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if errors.contains("unshare") || errors.contains("mount:") {
        // A container without the right to mount has no small disk to fill.
        eprintln!("not checked, no private mount here: {errors}");
        return;
    }
    assert!(output.status.success(), "{out}\n{errors}");
    let log = std::fs::read_to_string(place.folder.join("produce.log")).expect("the log");
    assert!(!out.contains("produce 0"), "20 MB fitted into 8 MiB:\n{out}\n{log}");
    assert!(log.to_lowercase().contains("space") || log.contains("disk"), "the reason is not told:\n{log}");
    assert!(log.contains("records"), "how many were written is not told:\n{log}");
    // What is there is the input's beginning, without gap or repeat.
    let read = std::fs::read_to_string(place.folder.join("read.ndjson")).expect("the records");
    for (number, line) in read.lines().enumerate() {
        assert!(line.contains(&format!("\"value\":\"{number:01000}\"")), "record {number} is {:.200}", line);
    }
    assert!(out.contains("\"value\":\"after\""), "the broker does not go on after there is space:\n{out}\n{errors}");
}
