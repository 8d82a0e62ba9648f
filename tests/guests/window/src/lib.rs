//! Counts the records of each key in each minute of event time: the window of the benchmark beside Kafka Streams. The
//! keys of store and sink are the record's key and the begin of its window, as Kafka's `TimeWindowedSerializer` writes
//! them. Windows are kept for ever; the peer keeps them for a day, which the benchmark does not last.

use sandbar::prelude::*;

const SIZE_MS: i64 = 60_000;

#[sandbar::processor(source = "in")]
struct Window {
    #[store]
    counts: Store<Raw, i64>,
    #[sink]
    out: Sink<Raw, i64>,
    key: Vec<u8>,
}

impl Processor for Window {
    type Key = Raw;
    type Value = Raw;

    fn process(&mut self, record: Record<Raw, Raw>, _context: &mut Context) -> Result<()> {
        let begin = record.timestamp - record.timestamp.rem_euclid(SIZE_MS);
        self.key.clear();
        self.key.extend_from_slice(record.key);
        self.key.extend_from_slice(&begin.to_be_bytes());
        let count = self.counts.get(&self.key)?.unwrap_or(0) + 1;
        self.counts.put(&self.key, &count)?;
        self.out.forward(&self.key, &count)
    }
}
