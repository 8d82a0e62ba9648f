//! The keys of the versions' topic. A key that is written in any other way is none of ours.

use std::fmt;

use super::digest::ModuleDigest;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `module/<sha-256>/<index>`: a part of a module's bytes, from 0.
    Chunk(ModuleDigest, u32),
    /// `module/<sha-256>`: how many bytes and chunks the module has.
    Module(ModuleDigest),
    /// `version/<number>`
    Version(u64),
    /// `active`
    Active,
}

impl Key {
    /// `None` for a key of something else, which may be a newer host's.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?;
        let parts: Vec<&str> = text.split('/').collect();
        let key = match parts[..] {
            ["module", digest, index] => Self::Chunk(digest.parse().ok()?, index.parse().ok()?),
            ["module", digest] => Self::Module(digest.parse().ok()?),
            ["version", number] => Self::Version(number.parse().ok()?),
            ["active"] => Self::Active,
            _ => return None,
        };
        // `version/07` and `version/+7` would be a second record of the same version.
        (key.to_string() == text).then_some(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk(digest, index) => write!(f, "module/{digest}/{index}"),
            Self::Module(digest) => write!(f, "module/{digest}"),
            Self::Version(number) => write!(f, "version/{number}"),
            Self::Active => f.write_str("active"),
        }
    }
}
