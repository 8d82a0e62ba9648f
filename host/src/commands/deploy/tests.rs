//! The command lines, and what is said of a version.

use clap::Parser;
use serde_json::json;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn parsed(words: &[&str]) -> Result<Arguments, clap::Error> {
    Line::try_parse_from(std::iter::once("deploy").chain(words.iter().copied())).map(|line| line.arguments)
}

#[test]
fn a_command_line() {
    let plain = parsed(&[]).expect("everything has a default");
    assert_eq!((plain.file.as_path(), plain.wait.wait), (Path::new("sandbar.toml"), false));
    let whole = ["-f", "x.toml", "--why", "a b", "--drop-store", "s", "--drop-store", "t", "--wait", "--timeout", "3s"];
    let whole = parsed(&whole).expect("known flags");
    assert_eq!(whole.drop_store, ["s", "t"]);
    assert_eq!((whole.wait.wait, whole.wait.timeout), (true, Duration::from_secs(3)));
    assert!(parsed(&["--timeout", "3s"]).is_err(), "of which wait?");
}

#[test]
fn a_headline_says_where_a_version_is_and_why() {
    let version = |json: serde_json::Value| Version::of(json).expect("a version");
    let active = json!({
        "number": 4, "module": "0123456789abcdef", "state": "ACTIVE", "kind": "Swap",
        "moves": [{ "state": "ACTIVE", "when_ms": 1, "reason": "all tasks run it" }],
        "tasks": [{ "task": "0_0", "version": 4 }, { "task": "0_1", "version": 3 }],
    });
    assert_eq!(headline(&version(active)), "version 4 (0123456789ab) is ACTIVE, by a swap, 1 of 2 tasks run it");
    let back = json!({
        "number": 3, "module": "ab", "state": "ACTIVE", "kind": "Restart",
        "moves": [
            { "state": "ACTIVE", "when_ms": 1 }, { "state": "SUPERSEDED", "when_ms": 2 }, { "state": "ACTIVE", "when_ms": 3 },
        ],
    });
    assert_eq!(headline(&version(back)), "version 3 (ab) is ACTIVE again");
    let refused = json!({
        "number": 5, "module": "ab", "state": "REFUSED",
        "moves": [{ "state": "REFUSED", "when_ms": 1, "reason": "init failed" }],
    });
    assert_eq!(headline(&version(refused)), "version 5 (ab) is REFUSED: init failed");
}

#[test]
fn what_is_no_module_does_not_go_out() {
    let folder = std::env::temp_dir().join(format!("sandbar-deploy-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let manifest = folder.join("sandbar.toml");
    let refusal = |text: &str| {
        std::fs::write(&manifest, text).expect("a file");
        Package::read(&manifest).err().map(|error| (crate::exit::number_of(&error), format!("{error:#}")))
    };
    let with_module = "application.id = \"vote\"\nmodule = \"vote.wasm\"\n";
    let (code, text) = refusal(with_module).expect("there is none");
    assert!(code == 4 && text.contains("there is no module"), "{code} {text}");
    std::fs::write(folder.join("vote.wasm"), "no module").expect("a file");
    let (code, text) = refusal(with_module).expect("it is none");
    assert!(code == 4 && text.contains("was refused"), "{code} {text}");
    let (code, text) = refusal("application.id = \"t\"\n[table.a]\n").expect("there is none");
    assert!(code == 2 && text.contains("tables"), "{code} {text}");
    std::fs::remove_dir_all(&folder).expect("removed");
}
