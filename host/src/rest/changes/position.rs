//! The position of a subscription as text: the offset of the next change of each partition. Opaque to clients, so that
//! only this file knows how it is written.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A position as a client keeps it; fit for a query and for the id of an event.
pub fn write_from(offsets: &BTreeMap<i32, i64>) -> String {
    let parts: Vec<String> = offsets.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
    URL_SAFE_NO_PAD.encode(parts.join(","))
}

/// The position that a client kept.
///
/// # Errors
/// Says what was expected when it is none.
pub fn read_from(text: &str) -> Result<BTreeMap<i32, i64>, String> {
    let parse = || {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let mut offsets = BTreeMap::new();
        for part in std::str::from_utf8(&bytes).ok()?.split(',') {
            let (partition, offset) = part.split_once(':')?;
            let (partition, offset): (i32, i64) = (partition.parse().ok()?, offset.parse().ok()?);
            if partition < 0 || offset < 0 || offsets.insert(partition, offset).is_some() {
                return None;
            }
        }
        Some(offsets)
    };
    parse().ok_or_else(|| "from: expected the position of an earlier answer, beginning or end".to_owned())
}
