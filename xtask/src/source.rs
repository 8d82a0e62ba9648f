//! A file of the repository as the house rules see it: its text, and the same text with comments and literals blanked
//! so that a rule about code is not fooled by words in a string. Keeps line numbers; never parses more than it must.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// One file. Paths are relative to the repository's root, with `/`.
pub struct SourceFile {
    pub path: String,
    pub text: String,
    /// `text` with the inside of comments, strings and character literals replaced by spaces. Only for Rust files.
    pub code: String,
}

impl SourceFile {
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { blank(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Files that a tool wrote say so near their top and are exempt from the rules about size and style.
    pub fn is_generated(&self) -> bool {
        self.text.lines().take(8).any(|line| line.contains("DO NOT EDIT"))
    }
}

/// Every text file that is in git, or would be after `git add`.
pub fn read_repository(root: &Path) -> Result<Vec<SourceFile>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("cannot run git ls-files")?;
    ensure!(output.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    let mut files = Vec::new();
    for path in output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
        let path = std::str::from_utf8(path).context("a path in the repository is not UTF-8")?;
        let absolute = root.join(path);
        // Deleted, but not yet in git's index; or a link to elsewhere in the tree.
        if !absolute.is_file() || absolute.is_symlink() {
            continue;
        }
        let bytes = std::fs::read(&absolute).with_context(|| format!("cannot read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(SourceFile::new(path, &text));
        }
    }
    Ok(files)
}

/// Replaces comments and literals by spaces, byte for byte, and keeps the line breaks.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (start, end) = match next_blank(bytes, at) {
            Some(span) => span,
            None => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole literals and comments were replaced, so no character was cut")
}

/// The span to blank when a comment or literal starts at `at`.
fn next_blank(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = &bytes[at..];
    let after_name = at > 0 && is_name(bytes[at - 1]);
    match rest[0] {
        b'/' if rest.starts_with(b"//") => Some((at, at + line_length(rest))),
        b'/' if rest.starts_with(b"/*") => Some((at, at + block_comment_length(rest))),
        b'"' => Some((at, at + string_length(rest))),
        b'r' | b'b' | b'c' if !after_name => raw_string_length(rest).map(|length| (at, at + length)),
        b'\'' if !after_name => character_length(rest).map(|length| (at, at + length)),
        _ => None,
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn line_length(rest: &[u8]) -> usize {
    rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
}

fn block_comment_length(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (2, 1);
    while at < rest.len() && depth > 0 {
        if rest[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if rest[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
        } else {
            at += 1;
        }
    }
    at.min(rest.len())
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// `r"…"`, `br#"…"#` and the like; `None` for a plain name that starts with one of these letters.
fn raw_string_length(rest: &[u8]) -> Option<usize> {
    let letters = rest.iter().take_while(|byte| matches!(byte, b'r' | b'b' | b'c')).count();
    if letters > 2 || !rest[..letters].contains(&b'r') {
        return None;
    }
    let hashes = rest[letters..].iter().take_while(|byte| **byte == b'#').count();
    let open = letters + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let inside = rest[open + 1..].windows(close.len()).position(|window| window == close);
    Some(inside.map_or(rest.len(), |inside| open + 1 + inside + close.len()))
}

/// A character literal; `None` for a lifetime.
fn character_length(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        let close = rest.iter().skip(3).position(|byte| *byte == b'\'')?;
        return Some(close + 4);
    }
    let text = std::str::from_utf8(&rest[1..]).ok()?;
    let length = text.chars().next()?.len_utf8();
    (rest.get(1 + length) == Some(&b'\'')).then_some(length + 2)
}

#[cfg(test)]
mod tests;
