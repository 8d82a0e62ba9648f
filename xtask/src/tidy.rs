//! The house rules as a test over the source. A rule takes every file and gives findings; findings of the sizes may be
//! listed in `ratchet.txt`, whose numbers only ever go down. Reports, never repairs.

mod links;
mod manifests;
mod rust;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::source::{SourceFile, read_repository};

/// Something that breaks a rule. `size` is what the ratchet compares, where the rule is about a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub rule: &'static str,
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    pub what: String,
    pub size: Option<usize>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} ({})", self.path, self.line, self.what, self.rule)
    }
}

/// Checks the repository and prints what breaks a rule; true when nothing does.
pub fn check_repository(root: &Path) -> Result<bool> {
    let files = read_repository(root)?;
    let ratchet_path = root.join("xtask/ratchet.txt");
    let ratchet = std::fs::read_to_string(&ratchet_path)
        .with_context(|| format!("cannot read {}", ratchet_path.display()))
        .and_then(|text| parse_ratchet(&text))?;
    let problems = apply_ratchet(findings(&files), &ratchet);
    for problem in &problems {
        println!("{problem}");
    }
    println!("house rules: {} files, {} problems", files.len(), problems.len());
    Ok(problems.is_empty())
}

/// Everything that breaks a rule in these files.
fn findings(files: &[SourceFile]) -> Vec<Finding> {
    let mut found = rust::check(files);
    found.extend(words::check(files));
    found.extend(manifests::check(files));
    found.extend(links::check(files));
    found
}

/// `(rule, path)` to the largest size that is still let through.
type Ratchet = BTreeMap<(String, String), usize>;

/// Lines of `rule path size`; `#` starts a comment.
fn parse_ratchet(text: &str) -> Result<Ratchet> {
    let mut ratchet = Ratchet::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [rule, path, size] = fields[..] else { bail!("ratchet.txt: expected `rule path size`, found `{line}`") };
        let size = size.parse().with_context(|| format!("ratchet.txt: `{size}` is not a size"))?;
        ratchet.insert((rule.to_owned(), path.to_owned()), size);
    }
    Ok(ratchet)
}

/// Drops the findings that the ratchet lets through, and adds one for each entry that could be lowered.
fn apply_ratchet(found: Vec<Finding>, ratchet: &Ratchet) -> Vec<Finding> {
    let mut largest: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut kept = Vec::new();
    for finding in found {
        let key = (finding.rule.to_owned(), finding.path.clone());
        let allowed = ratchet.get(&key).copied();
        match (finding.size, allowed) {
            (Some(size), Some(allowed)) if size <= allowed => {
                let entry = largest.entry(key).or_default();
                *entry = size.max(*entry);
            }
            _ => kept.push(finding),
        }
    }
    for ((rule, path), allowed) in ratchet {
        let now = largest.get(&(rule.clone(), path.clone())).copied().unwrap_or(0);
        let grown = kept.iter().any(|finding| finding.rule == rule && &finding.path == path);
        if now < *allowed && !grown {
            kept.push(Finding {
                rule: "ratchet",
                path: "xtask/ratchet.txt".to_owned(),
                line: 1,
                what: format!("lower `{rule} {path} {allowed}` to {now} (remove the line at 0)"),
                size: None,
            });
        }
    }
    kept
}

#[cfg(test)]
mod tests;
