//! What is wrong with a configuration, and where: every fault names the place, the key, what was expected and what
//! was found. Faults are collected, so that one run shows them all.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value came from. Later ones win.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// Line and column, both from 1.
    File {
        line: usize,
        column: usize,
    },
    /// The environment variable's name.
    Environment(String),
    /// The flag as the user wrote it.
    Flag(String),
    /// The version that was deployed.
    Version,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub origin: Origin,
    pub message: String,
    /// The line of the manifest, where the fault has one.
    pub line_text: Option<String>,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "no manifest at {}: write one (`sandbar new` makes a project with one) or name another with -f",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error("cannot read the manifest {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the manifest {} is not UTF-8 text (first bad byte at {offset})", path.display())]
    NotText { path: PathBuf, offset: usize },
    #[error("{}", Faults { path, faults })]
    Faults { path: PathBuf, faults: Vec<Fault> },
    /// What several manifests say does not fit together; each fault names its places.
    #[error("{}", faults.join("\n"))]
    Together { faults: Vec<String> },
    /// Several manifests are wrong, each by itself.
    #[error("{}", Each(errors))]
    Several { errors: Vec<ConfigError> },
}

struct Each<'a>(&'a [ConfigError]);

impl fmt::Display for Each<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join("\n"))
    }
}

struct Faults<'a> {
    path: &'a Path,
    faults: &'a [Fault],
}

impl fmt::Display for Faults<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let path = self.path.display();
            match &fault.origin {
                Origin::Default => write!(f, "{path}: {}", fault.message)?,
                Origin::File { line, column } => write!(f, "{path}:{line}:{column}: {}", fault.message)?,
                Origin::Environment(name) => write!(f, "environment variable {name}: {}", fault.message)?,
                Origin::Flag(flag) => write!(f, "{flag}: {}", fault.message)?,
                Origin::Version => write!(f, "the manifest of the version: {}", fault.message)?,
            }
            if let (Origin::File { line, column }, Some(text)) = (&fault.origin, &fault.line_text) {
                let margin = line.to_string();
                write!(f, "\n  {margin} | {text}")?;
                let spaces = column.saturating_sub(1);
                write!(f, "\n  {:width$} | {:spaces$}^", "", "", width = margin.len())?;
            }
        }
        Ok(())
    }
}

/// The candidate that a user most likely meant: at most a quarter of its letters differ.
pub fn nearest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(found, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 4).max(2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Line and column (from 1, in characters) of a byte offset, with the line's text.
pub fn place(text: &str, offset: usize) -> (usize, usize, &str) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or_default();
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(start..).unwrap_or_default().chars().count() + 1;
    let line_text = text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
    (line, column, line_text)
}
