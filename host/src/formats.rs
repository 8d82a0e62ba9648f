//! How people see the bytes of keys and values: the formats of a store's declaration, those that a query may ask
//! for, and those of `topics produce|read`. Numbers are as Kafka's own serializers write them (big-endian). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// A reading of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFormat {
    Utf8,
    Json,
    I32,
    I64,
    F64,
    Base64,
    Hex,
}

/// All names, for messages.
pub const NAMES: &str = "utf8, json, i32, i64, f64, base64, hex";

impl DataFormat {
    /// The format with a name; `bytes`, as declarations call them, are shown in base64.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "utf8" => Self::Utf8,
            "json" => Self::Json,
            "i32" => Self::I32,
            "i64" => Self::I64,
            "f64" => Self::F64,
            "base64" | "bytes" => Self::Base64,
            "hex" => Self::Hex,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Json => "json",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F64 => "f64",
            Self::Base64 => "base64",
            Self::Hex => "hex",
        }
    }

    /// Shows bytes as JSON. JSON itself stays as it was written, but for line breaks.
    ///
    /// # Errors
    /// Says what was expected and found when the bytes are not of this format.
    pub fn show(self, bytes: &[u8]) -> Result<Box<RawValue>, String> {
        let wrong = |expected: &str| format!("expected {expected}, found {} bytes {}", bytes.len(), excerpt(bytes));
        let value = match self {
            Self::Json => {
                let value: &RawValue =
                    serde_json::from_slice(bytes).map_err(|error| format!("{} ({error})", wrong("JSON")))?;
                // A line break would end a line of NDJSON, or of an event. Text has none in JSON, so it stands between
                // tokens, which need nothing between them; all else stays.
                let is_break = |c: char| matches!(c, '\n' | '\r');
                if !value.get().contains(is_break) {
                    return Ok(value.to_owned());
                }
                return RawValue::from_string(value.get().replace(is_break, "")).map_err(|error| error.to_string());
            }
            Self::Utf8 => Value::from(std::str::from_utf8(bytes).map_err(|_| wrong("UTF-8 text"))?),
            Self::I32 => Value::from(i32::from_be_bytes(bytes.try_into().map_err(|_| wrong("4 bytes"))?)),
            Self::I64 => Value::from(i64::from_be_bytes(bytes.try_into().map_err(|_| wrong("8 bytes"))?)),
            Self::F64 => {
                let number = f64::from_be_bytes(bytes.try_into().map_err(|_| wrong("8 bytes"))?);
                // JSON has no infinities; their names are as Kafka's tools print them.
                serde_json::Number::from_f64(number).map_or_else(|| Value::from(number.to_string()), Value::Number)
            }
            Self::Base64 => Value::from(STANDARD.encode(bytes)),
            Self::Hex => Value::from(hex(bytes)),
        };
        to_raw_value(&value).map_err(|error| error.to_string())
    }

    /// The bytes of a text in this format, as in a path or a flag.
    ///
    /// # Errors
    /// Says what was expected and found.
    pub fn read(self, text: &str) -> Result<Vec<u8>, String> {
        let wrong = |expected: &str| format!("expected {expected}, found {text:?}");
        match self {
            Self::Utf8 => Ok(text.as_bytes().to_vec()),
            Self::Json => match serde_json::from_str::<&serde_json::value::RawValue>(text) {
                Ok(_) => Ok(text.trim().as_bytes().to_vec()),
                Err(error) => Err(format!("{} ({error})", wrong("JSON"))),
            },
            Self::I32 => text.parse().map(|n: i32| n.to_be_bytes().to_vec()).map_err(|_| wrong("a 32-bit number")),
            Self::I64 => text.parse().map(|n: i64| n.to_be_bytes().to_vec()).map_err(|_| wrong("a 64-bit number")),
            Self::F64 => text.parse().map(|n: f64| n.to_be_bytes().to_vec()).map_err(|_| wrong("a number")),
            Self::Base64 => STANDARD.decode(text).map_err(|error| format!("{} ({error})", wrong("base64"))),
            Self::Hex => unhex(text).ok_or_else(|| wrong("pairs of hexadecimal digits")),
        }
    }

    /// The bytes of a JSON value in this format: text for text and bytes, numbers for numbers.
    ///
    /// # Errors
    /// Says what was expected and found.
    pub fn read_json(self, value: &RawValue) -> Result<Vec<u8>, String> {
        if self == Self::Json {
            return Ok(value.get().as_bytes().to_vec());
        }
        let wrong = || format!("expected {} as text, found {}", self.name(), value.get());
        match serde_json::from_str(value.get()) {
            Ok(Value::String(text)) => self.read(&text),
            Ok(Value::Number(_)) if matches!(self, Self::I32 | Self::I64 | Self::F64) => self.read(value.get()),
            _ => Err(wrong()),
        }
    }
}

/// The first bytes, in hexadecimal.
fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 16;
    let rest = if bytes.len() > SHOWN { "…" } else { "" };
    format!("{}{rest}", hex(&bytes[..bytes.len().min(SHOWN)]))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The version of a value, which tells it from others of its key: FNV-1a of 64 bits, in hexadecimal. Short enough for
/// any module to work out by itself; not made against those who want two values to have one version.
pub fn version(value: &[u8]) -> String {
    format!("{:016x}", fnv1a(value))
}

/// FNV-1a of 64 bits: tells texts and values apart that nobody chose to look the same.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Percent-encodes one segment of a path, or one value of a query.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests;
