//! Rules about words: those that a layer must not know, those that must not be committed at all, and the synonyms that
//! the glossary replaces. Words about layers count in comments too; synonyms count in code only.

use super::{Finding, rust};
use crate::source::SourceFile;

/// A folder, the words that must not occur below it (any case), and the reason.
const FOREIGN: &[(&str, &[&str], &str)] = &[
    (
        "host/engine/src/",
        &["tenant", "http", "wasm", "rocksdb", "tokio"],
        "the engine knows its seams and nothing behind them",
    ),
    (
        "host/broker/src/core",
        &["std::fs", "std::thread", "std::net", "instant::now", "systemtime::now", "hashmap<", "tokio"],
        "the broker's core is pure: requests in, answers out, time passed in",
    ),
];

/// Never committed, anywhere. Split so that this file does not break its own rule.
const NEVER: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "finish it or file an issue"),
    (concat!("XX", "X:"), "finish it or file an issue"),
    (concat!("todo", "!("), "finish it or file an issue"),
    (concat!("unimplemented", "!("), "finish it or file an issue"),
    (concat!("/ho", "me/"), "no absolute path of one machine"),
    (concat!("/ro", "ot/"), "no absolute path of one machine"),
    (concat!("/wo", "rk/"), "no absolute path of one machine"),
    (concat!("/Us", "ers/"), "no absolute path of one machine"),
];

/// A synonym in code, and the word to use.
const SYNONYMS: &[(&str, &str)] = &[
    ("msg", "record, or message where an error speaks"),
    ("ctx", "context"),
    ("evt", "event"),
    ("shard", "partition or task"),
    ("checkpoint", "commit, or changelog offset"),
    ("keyspace", "store"),
    ("watermark_time", "stream time"),
];

/// Folders where another protocol's or library's names are spoken.
const SYNONYMS_ALLOWED: &[&str] = &[
    "host/kafka/src/",
    "host/broker/src/wire",
    // wasmtime-wasi's view has a field and a method `ctx`.
    "host/sandbox/src/imports/wasi",
    "host/sandbox/src/task_state.rs",
];

pub fn check(files: &[SourceFile]) -> Vec<Finding> {
    files.iter().flat_map(|file| [foreign(file), never(file), synonyms(file)]).flatten().collect()
}

pub fn foreign(file: &SourceFile) -> Vec<Finding> {
    let mut found = Vec::new();
    for (_, words, reason) in FOREIGN.iter().filter(|(folder, _, _)| file.path.starts_with(folder)) {
        for (line, text) in numbered(&file.text) {
            let text = text.to_lowercase();
            for word in words.iter().filter(|word| text.contains(*word)) {
                found.push(finding("foreign-word", file, line, format!("`{word}`: {reason}")));
            }
        }
    }
    found
}

pub fn never(file: &SourceFile) -> Vec<Finding> {
    let mut found = Vec::new();
    for (line, text) in numbered(&file.text) {
        for (word, reason) in NEVER.iter().filter(|(word, _)| text.contains(word)) {
            found.push(finding("never", file, line, format!("`{word}`: {reason}")));
        }
    }
    found
}

pub fn synonyms(file: &SourceFile) -> Vec<Finding> {
    let allowed = SYNONYMS_ALLOWED.iter().any(|folder| file.path.starts_with(folder));
    if !file.is_rust() || file.is_generated() || allowed {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (line, text) in numbered(&file.code) {
        for (_, name) in rust::words(text) {
            let lower = name.to_lowercase();
            for (synonym, word) in SYNONYMS {
                if lower.split('_').any(|part| part == *synonym) {
                    found.push(finding("synonym", file, line, format!("`{name}`: the glossary's word is {word}")));
                }
            }
        }
    }
    found
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn finding(rule: &'static str, file: &SourceFile, line: usize, what: String) -> Finding {
    Finding { rule, path: file.path.clone(), line, what, size: None }
}
