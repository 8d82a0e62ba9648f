//! Rules about the shape of Rust files: the doc on line one, sizes, where tests live, where `unsafe` may stand.

use super::Finding;
use crate::source::SourceFile;

const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 70;
const COMMENT_COLUMNS_MAX: usize = 120;

/// The only files with `unsafe` code: one small module for each native library or system call, with the reason.
const UNSAFE_ALLOWED: &[(&str, &str)] = &[
    ("guest-sdk/rust/src/", "the component model's calling convention is written in raw pointers"),
    ("host/kafka/src/native/", "librdkafka is a C library; every call into it is in this folder"),
    ("tests/conformance/src/raw.rs", "the calls of librdkafka that rdkafka does not wrap"),
    ("host/sandbox/src/cache.rs", "loading compiled code that this host wrote itself"),
];

pub fn check(files: &[SourceFile]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        found.extend(first_line(file));
        found.extend(ignored_tests(file));
        if file.is_generated() {
            continue;
        }
        found.extend(file_length(file));
        found.extend(comment_widths(file));
        found.extend(function_lengths(file));
        found.extend(tests_inside(file));
        found.extend(unsafe_code(file));
    }
    found.extend(integration_binaries(files));
    found
}

fn finding(rule: &'static str, file: &SourceFile, line: usize, what: String) -> Finding {
    Finding { rule, path: file.path.clone(), line, what, size: None }
}

/// The first line says what the module owns, what always holds and what it never does.
pub fn first_line(file: &SourceFile) -> Option<Finding> {
    let first = file.text.lines().next().unwrap_or("");
    let says_something = first.strip_prefix("//!").is_some_and(|rest| rest.trim().len() > 5);
    let is_placeholder = first.contains("To be written");
    (!says_something || is_placeholder).then(|| {
        finding("first-line", file, 1, "the first line must be a `//!` doc that says what the file owns".to_owned())
    })
}

/// A file that cannot be read at one sitting hides what it does.
pub fn file_length(file: &SourceFile) -> Option<Finding> {
    let lines = file.text.lines().count();
    (lines > FILE_LINES_MAX).then(|| Finding {
        size: Some(lines),
        ..finding("file-length", file, 1, format!("{lines} lines; split it, {FILE_LINES_MAX} is the most"))
    })
}

/// The formatter leaves comments as they are, so that their width is looked at here. Rows of tables cannot be broken.
pub fn comment_widths(file: &SourceFile) -> Option<Finding> {
    let is_comment =
        |line: &str| line.trim_start().starts_with("//") && !line.trim_start_matches(['/', '!', ' ']).starts_with('|');
    let is_wide = |line: &str| is_comment(line) && line.chars().count() > COMMENT_COLUMNS_MAX;
    let index = file.text.lines().position(is_wide)?;
    Some(finding("comment-width", file, index + 1, format!("a comment has {COMMENT_COLUMNS_MAX} columns at most")))
}

/// One finding for each function that is too long, from its `fn` to its closing brace.
pub fn function_lengths(file: &SourceFile) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, first, last) in functions(&file.code) {
        let lines = last - first + 1;
        if lines > FUNCTION_LINES_MAX {
            let what = format!("function `{name}` has {lines} lines, {FUNCTION_LINES_MAX} is the most");
            found.push(Finding { size: Some(lines), ..finding("function-length", file, first, what) });
        }
    }
    found
}

/// `(name, first line, last line)` of every function with a body.
fn functions(code: &str) -> Vec<(&str, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word =
            code[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '_');
        let rest = &code[at + 3..];
        let name_length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if !starts_word || name_length == 0 {
            continue;
        }
        if let Some(length) = body_length(&rest[name_length..]) {
            let first = line_of(code, at);
            let last = line_of(code, at + 3 + name_length + length);
            found.push((&rest[..name_length], first, last));
        }
    }
    found
}

/// Bytes from the end of the name to the closing brace; `None` where a `;` ends the signature.
fn body_length(signature: &str) -> Option<usize> {
    let (mut braces, mut others) = (0usize, 0usize);
    for (at, byte) in signature.bytes().enumerate() {
        match byte {
            b'(' | b'[' => others += 1,
            b')' | b']' => others = others.saturating_sub(1),
            b'{' => braces += 1,
            b';' if braces == 0 && others == 0 => return None,
            b'}' if braces == 1 => return Some(at),
            b'}' => braces = braces.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Tests live in a sibling file, so that a file's length is the length of its code.
pub fn tests_inside(file: &SourceFile) -> Option<Finding> {
    let at = file.code.find("mod tests {")?;
    let what = "move the tests to a sibling file: `#[cfg(test)] mod tests;`".to_owned();
    Some(finding("tests-inside", file, line_of(&file.code, at), what))
}

/// A test that does not run cannot fail.
pub fn ignored_tests(file: &SourceFile) -> Option<Finding> {
    let at = file.code.find("#[ignore")?;
    Some(finding("ignored-test", file, line_of(&file.code, at), "run the test or remove it".to_owned()))
}

pub fn unsafe_code(file: &SourceFile) -> Option<Finding> {
    if UNSAFE_ALLOWED.iter().any(|(path, _)| file.path.starts_with(path)) {
        return None;
    }
    let at = words(&file.code).find(|(_, word)| *word == "unsafe")?.0;
    let what = "`unsafe` outside the listed modules; see UNSAFE_ALLOWED in xtask/src/tidy/rust.rs".to_owned();
    Some(finding("unsafe", file, line_of(&file.code, at), what))
}

/// Every name and keyword with its place.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
}

/// One integration binary for each package: each further one links everything again.
fn integration_binaries(files: &[SourceFile]) -> Vec<Finding> {
    let mut found = Vec::new();
    for manifest in files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        let package = manifest.path.trim_end_matches("Cargo.toml");
        let tests = format!("{package}tests/");
        for file in files.iter().filter(|file| file.is_rust()) {
            let directly_inside = file.path.strip_prefix(&tests).is_some_and(|rest| !rest.contains('/'));
            if directly_inside && files.iter().all(|other| other.path != format!("{tests}Cargo.toml")) {
                let what = "one integration binary for each package: move it below tests/it/".to_owned();
                found.push(finding("integration-binary", file, 1, what));
            }
        }
        if manifest.text.matches("[[test]]").count() > 1 {
            let what = "more than one [[test]]; one integration binary for each package".to_owned();
            found.push(finding("integration-binary", manifest, 1, what));
        }
    }
    found
}
