//! `where=/status=PAID`: which entries a scan is after, by a JSON pointer (RFC 6901) into the value. A look at every
//! entry of the range, not an index: a page looks at a bounded number and says how many.

use std::num::NonZeroUsize;

use serde_json::Value;

use super::Problem;
use crate::formats::DataFormat;

/// How many entries each host looks at for one page, at most, and how many bytes of them. An in-memory store cannot be
/// written meanwhile.
pub const SCANNED_MAX: NonZeroUsize = NonZeroUsize::new(20_000).expect("not 0");
pub const SCANNED_BYTES_MAX: usize = 16 << 20;

/// See the module's head.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    text: String,
    pointer: String,
    wanted: String,
    /// The same read as JSON, for numbers, `true`, `false`, `null` and whole documents.
    literal: Option<Value>,
}

impl Condition {
    /// Reads `POINTER=VALUE`.
    ///
    /// # Errors
    /// When it is none, or the store's values cannot be JSON.
    pub fn read(text: &str, declared: DataFormat) -> Result<Self, Problem> {
        let refuse = |why: &str| Problem::bad_request(format!("where: {why}, found {text:?}"));
        if !matches!(declared, DataFormat::Json | DataFormat::Utf8 | DataFormat::Base64) {
            let detail = format!("where: looks into JSON values, and those of this store are {}", declared.name());
            return Err(Problem::bad_request(detail));
        }
        let (pointer, wanted) =
            text.split_once('=').ok_or_else(|| refuse("expected a JSON pointer, =, and a value, as /status=PAID"))?;
        check_pointer(pointer)
            .map_err(|why| Problem::bad_request(format!("where: {pointer:?} is no JSON pointer: {why}")))?;
        Ok(Self {
            text: text.to_owned(),
            pointer: pointer.to_owned(),
            wanted: wanted.to_owned(),
            literal: serde_json::from_str(wanted).ok(),
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a value has what is wanted at the pointer: text that is the same, or JSON that is equal. A value that is
    /// no JSON has nothing.
    pub fn accepts(&self, value: &[u8]) -> bool {
        let Ok(value) = serde_json::from_slice::<Value>(value) else { return false };
        match value.pointer(&self.pointer) {
            Some(Value::String(found)) if *found == self.wanted => true,
            found => found.is_some() && found == self.literal.as_ref(),
        }
    }
}

/// A pointer that is none finds nothing in any value, which would look like an answer.
fn check_pointer(pointer: &str) -> Result<(), &'static str> {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err("it has to be empty or begin with /");
    }
    match pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1'])) {
        true => Ok(()),
        false => Err("after ~ comes 0 or 1, as in ~0 for ~ and ~1 for /"),
    }
}

#[cfg(test)]
mod tests;
