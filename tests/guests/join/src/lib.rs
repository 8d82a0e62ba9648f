//! Joins a stream with a table: the join of the benchmark beside Kafka Streams. The records of the topic that the
//! manifest's `table` names become the table; each one of the stream whose key has a row is forwarded with the row's
//! value behind its own, a bar between them.

use sandbar::prelude::*;

#[sandbar::processor(source = "in", source = "table")]
struct Join {
    #[store(prefetch)]
    rows: Store<Raw, Raw>,
    #[sink]
    out: Sink<Raw, Raw>,
    /// The topic of the table.
    table: String,
    joined: Vec<u8>,
}

impl Processor for Join {
    type Key = Raw;
    type Value = Option<Raw>;

    fn init(&mut self, context: &mut Context) -> Result<()> {
        let Some(table) = context.config("table") else { bail!("the manifest's [config] names no `table`") };
        self.table = table;
        Ok(())
    }

    fn process(&mut self, record: Record<Raw, Option<Raw>>, _context: &mut Context) -> Result<()> {
        match (record.topic == self.table, record.value) {
            (true, Some(row)) => self.rows.put(record.key, row),
            (true, None) => self.rows.delete(record.key),
            (false, None) => Ok(()),
            (false, Some(value)) => self.join(record.key, value),
        }
    }
}

impl Join {
    fn join(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Some(row) = self.rows.get(key)? else { return Ok(()) };
        self.joined.clear();
        self.joined.extend_from_slice(value);
        self.joined.push(b'|');
        self.joined.extend_from_slice(&row);
        self.out.forward(key, &self.joined)
    }
}
