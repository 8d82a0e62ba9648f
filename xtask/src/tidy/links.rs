//! That the links of the documentation lead somewhere, and that the tests it names (`path.rs::function`) exist. Looks
//! at relative links only; the network is never asked.

use std::collections::BTreeSet;

use super::Finding;
use crate::source::SourceFile;

pub fn check(files: &[SourceFile]) -> Vec<Finding> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for file in files {
        known.insert(file.path.clone());
        known.extend(file.path.match_indices('/').map(|(at, _)| file.path[..at].to_owned()));
    }
    let mut found = Vec::new();
    for page in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in links(&page.text) {
            if !known.contains(&resolve(&page.path, target)) {
                let what = format!("the link `{target}` leads nowhere");
                found.push(Finding { rule: "link", path: page.path.clone(), line, what, size: None });
            }
        }
        for (line, path, function) in named_tests(&page.text) {
            let source = files.iter().find(|file| file.path == path);
            if !source.is_some_and(|source| source.text.contains(&format!("fn {function}("))) {
                let what = format!("there is no `{path}::{function}`");
                found.push(Finding { rule: "named-test", path: page.path.clone(), line, what, size: None });
            }
        }
    }
    found
}

/// The tests that a page names, as line, path and function.
fn named_tests(text: &str) -> Vec<(usize, &str, &str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let names = line.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::"));
        let tests = names.filter(|(path, _)| path.ends_with(".rs"));
        found.extend(tests.map(|(path, function)| (index + 1, path, function)));
    }
    found
}

/// The relative targets of a page's links, without their anchors, each with its line.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            in_code = !in_code;
        }
        let opens = line.match_indices("](").filter(|_| !in_code);
        for target in opens.filter_map(|(at, _)| line[at + 2..].split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if !path.is_empty() && !target.contains("://") {
                found.push((index + 1, path));
            }
        }
    }
    found
}

/// The repository's path of a target that stands on a page.
fn resolve(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
