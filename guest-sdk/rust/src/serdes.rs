//! How keys and values are written to bytes: the encodings of Kafka's own serializers (`StringSerializer`,
//! `LongSerializer`, `IntegerSerializer`, `DoubleSerializer`, `ByteArraySerializer`, `VoidSerializer`) and JSON.
//! Numbers are big endian in two's complement, so negative keys sort after positive ones, as in Kafka Streams. Null is
//! a value of its own and never an empty byte string.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// The bytes of a key or a value type. `String`, `i64`, `i32`, `i16`, `f64`, `f32`, `bool`, `Vec<u8>` and `()` (always
/// null) stand for themselves; [`Json`], [`Str`] and [`Raw`] are names of an encoding only and are never built;
/// `Option` of any of them allows null.
pub trait Serde: 'static {
    /// What a processor gets for a record; may borrow from the batch.
    type Item<'a>;
    /// What a store or a test gives back.
    type Owned: 'static;
    /// What is written, by reference.
    type View: ?Sized;
    /// How the host shows the bytes to people: `bytes`, `utf8`, `json`, `i32`, `i64` or `f64`.
    const FORMAT: &'static str;

    /// Appends the bytes; `false` means null, with nothing appended.
    fn encode(view: &Self::View, into: &mut Vec<u8>) -> Result<bool>;
    /// Reads a record's key or value, `None` where it is null. The error goes on from "the key" or "the value".
    fn decode(bytes: Option<&[u8]>) -> Result<Self::Item<'_>>;
    /// Reads what outlives the bytes.
    fn decode_owned(bytes: Option<&[u8]>) -> Result<Self::Owned>;
}

/// UTF-8 text that a processor reads without a copy, as `&str`; kept and written like `String`.
pub enum Str {}

/// Bytes that a processor reads without a copy, as `&[u8]`; kept and written like `Vec<u8>`.
pub enum Raw {}

/// JSON text of a serde type. A record's value of this type is the `T` itself.
pub struct Json<T>(PhantomData<T>);

fn present<'a>(bytes: Option<&'a [u8]>, format: &str) -> Result<&'a [u8]> {
    bytes.ok_or_else(|| Error::new(format_args!("is null where {format} was expected")))
}

fn text(bytes: Option<&[u8]>) -> Result<&str> {
    let bytes = present(bytes, "UTF-8 text")?;
    std::str::from_utf8(bytes).map_err(|error| Error::new(format_args!("is not UTF-8 text: {error}")))
}

impl Serde for Str {
    type Item<'a> = &'a str;
    type Owned = String;
    type View = str;
    const FORMAT: &'static str = "utf8";

    fn encode(view: &str, into: &mut Vec<u8>) -> Result<bool> {
        into.extend_from_slice(view.as_bytes());
        Ok(true)
    }

    fn decode(bytes: Option<&[u8]>) -> Result<&str> {
        text(bytes)
    }

    fn decode_owned(bytes: Option<&[u8]>) -> Result<String> {
        text(bytes).map(str::to_owned)
    }
}

impl Serde for String {
    type Item<'a> = String;
    type Owned = String;
    type View = str;
    const FORMAT: &'static str = Str::FORMAT;

    fn encode(view: &str, into: &mut Vec<u8>) -> Result<bool> {
        Str::encode(view, into)
    }

    fn decode(bytes: Option<&[u8]>) -> Result<String> {
        Str::decode_owned(bytes)
    }

    fn decode_owned(bytes: Option<&[u8]>) -> Result<String> {
        Str::decode_owned(bytes)
    }
}

impl Serde for Raw {
    type Item<'a> = &'a [u8];
    type Owned = Vec<u8>;
    type View = [u8];
    const FORMAT: &'static str = "bytes";

    fn encode(view: &[u8], into: &mut Vec<u8>) -> Result<bool> {
        into.extend_from_slice(view);
        Ok(true)
    }

    fn decode(bytes: Option<&[u8]>) -> Result<&[u8]> {
        present(bytes, "bytes")
    }

    fn decode_owned(bytes: Option<&[u8]>) -> Result<Vec<u8>> {
        present(bytes, "bytes").map(<[u8]>::to_vec)
    }
}

impl Serde for Vec<u8> {
    type Item<'a> = Vec<u8>;
    type Owned = Vec<u8>;
    type View = [u8];
    const FORMAT: &'static str = Raw::FORMAT;

    fn encode(view: &[u8], into: &mut Vec<u8>) -> Result<bool> {
        Raw::encode(view, into)
    }

    fn decode(bytes: Option<&[u8]>) -> Result<Vec<u8>> {
        Raw::decode_owned(bytes)
    }

    fn decode_owned(bytes: Option<&[u8]>) -> Result<Vec<u8>> {
        Raw::decode_owned(bytes)
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Serde for Json<T> {
    type Item<'a> = T;
    type Owned = T;
    type View = T;
    const FORMAT: &'static str = "json";

    fn encode(view: &T, into: &mut Vec<u8>) -> Result<bool> {
        serde_json::to_writer(into, view)
            .map_err(|error| Error::new(format_args!("cannot be written as JSON: {error}")))?;
        Ok(true)
    }

    fn decode(bytes: Option<&[u8]>) -> Result<T> {
        Self::decode_owned(bytes)
    }

    fn decode_owned(bytes: Option<&[u8]>) -> Result<T> {
        let bytes = present(bytes, "JSON")?;
        serde_json::from_slice(bytes)
            .map_err(|error| Error::new(format_args!("is not the expected JSON: {error}; found {}", excerpt(bytes))))
    }
}

/// The beginning of bytes for an error message.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const LIMIT_BYTES: usize = 80;
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(LIMIT_BYTES)]);
    if bytes.len() > LIMIT_BYTES { format!("`{shown}`… ({} bytes)", bytes.len()) } else { format!("`{shown}`") }
}

macro_rules! number {
    ($type:ty, $format:literal, $name:literal) => {
        impl Serde for $type {
            type Item<'a> = $type;
            type Owned = $type;
            type View = $type;
            const FORMAT: &'static str = $format;

            fn encode(view: &$type, into: &mut Vec<u8>) -> Result<bool> {
                into.extend_from_slice(&view.to_be_bytes());
                Ok(true)
            }

            fn decode(bytes: Option<&[u8]>) -> Result<$type> {
                let bytes = present(bytes, $name)?;
                match bytes.try_into() {
                    Ok(array) => Ok(<$type>::from_be_bytes(array)),
                    Err(_) => Err(Error::new(format_args!(
                        "is not {}: {} bytes expected, {} found ({})",
                        $name,
                        size_of::<$type>(),
                        bytes.len(),
                        excerpt(bytes)
                    ))),
                }
            }

            fn decode_owned(bytes: Option<&[u8]>) -> Result<$type> {
                Self::decode(bytes)
            }
        }
    };
}

number!(i64, "i64", "a big-endian 64-bit integer");
number!(i32, "i32", "a big-endian 32-bit integer");
number!(i16, "bytes", "a big-endian 16-bit integer");
number!(f64, "f64", "a big-endian 64-bit float");
number!(f32, "bytes", "a big-endian 32-bit float");

impl Serde for bool {
    type Item<'a> = bool;
    type Owned = bool;
    type View = bool;
    const FORMAT: &'static str = "bytes";

    fn encode(view: &bool, into: &mut Vec<u8>) -> Result<bool> {
        into.push(u8::from(*view));
        Ok(true)
    }

    fn decode(bytes: Option<&[u8]>) -> Result<bool> {
        match present(bytes, "a boolean byte")? {
            [0] => Ok(false),
            [1] => Ok(true),
            other => Err(Error::new(format_args!("is not a boolean byte (0 or 1): {} bytes found", other.len()))),
        }
    }

    fn decode_owned(bytes: Option<&[u8]>) -> Result<bool> {
        Self::decode(bytes)
    }
}

impl Serde for () {
    type Item<'a> = ();
    type Owned = ();
    type View = ();
    const FORMAT: &'static str = "bytes";

    fn encode(_view: &(), _into: &mut Vec<u8>) -> Result<bool> {
        Ok(false)
    }

    fn decode(bytes: Option<&[u8]>) -> Result<()> {
        match bytes {
            None => Ok(()),
            Some(bytes) => Err(Error::new(format_args!("has {} bytes where null was expected", bytes.len()))),
        }
    }

    fn decode_owned(bytes: Option<&[u8]>) -> Result<()> {
        Self::decode(bytes)
    }
}

impl<S: Serde> Serde for Option<S>
where
    S::Owned: std::borrow::Borrow<S::View>,
{
    type Item<'a> = Option<S::Item<'a>>;
    type Owned = Option<S::Owned>;
    type View = Option<S::Owned>;
    const FORMAT: &'static str = S::FORMAT;

    fn encode(view: &Option<S::Owned>, into: &mut Vec<u8>) -> Result<bool> {
        match view {
            Some(value) => S::encode(std::borrow::Borrow::borrow(value), into),
            None => Ok(false),
        }
    }

    fn decode(bytes: Option<&[u8]>) -> Result<Option<S::Item<'_>>> {
        match bytes {
            Some(bytes) => S::decode(Some(bytes)).map(Some),
            None => Ok(None),
        }
    }

    fn decode_owned(bytes: Option<&[u8]>) -> Result<Option<S::Owned>> {
        match bytes {
            Some(bytes) => S::decode_owned(Some(bytes)).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
