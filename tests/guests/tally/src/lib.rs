//! Counts the records of each key and forwards every new count, in the SDK's words: the count of the benchmark beside
//! Kafka Streams. `count` does the same below the SDK.

use sandbar::prelude::*;

/// Called as what the SDK makes of it is called, which must not matter.
#[sandbar::processor(source = "in")]
struct Module {
    #[store(prefetch)]
    counts: Store<Raw, i64>,
    #[sink]
    out: Sink<Raw, i64>,
}

impl Processor for Module {
    type Key = Raw;
    type Value = Raw;

    fn process(&mut self, record: Record<Raw, Raw>, _context: &mut Context) -> Result<()> {
        let count = self.counts.get(record.key)?.unwrap_or(0) + 1;
        self.counts.put(record.key, &count)?;
        self.out.forward(record.key, &count)
    }
}
