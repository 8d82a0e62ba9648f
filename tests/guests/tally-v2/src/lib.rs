//! The second version of `tally`: its counts are JSON, and those that the first version has stored are migrated.

use sandbar::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Default, Deserialize, Serialize)]
struct Count {
    count: i64,
}

/// Version 1 kept the bare number.
fn from_number(_key: &[u8], count: i64) -> Result<Option<Count>> {
    Ok((count != 0).then_some(Count { count }))
}

#[sandbar::processor(source = "in")]
struct Tally {
    #[store(prefetch, version = 2, migrate(from = 1, old = i64, with = from_number))]
    counts: Store<Raw, Json<Count>>,
    #[sink]
    out: Sink<Raw, i64>,
}

impl Processor for Tally {
    type Key = Raw;
    type Value = Raw;

    fn process(&mut self, record: Record<Raw, Raw>, _context: &mut Context) -> Result<()> {
        let mut count = self.counts.get(record.key)?.unwrap_or_default();
        count.count += 1;
        self.counts.put(record.key, &count)?;
        self.out.forward(record.key, &count.count)
    }
}
