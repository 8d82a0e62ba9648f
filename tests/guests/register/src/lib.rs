//! Keeps the last value of every key, where the conditions of the write hold: a table that REST clients write.

use sandbar::prelude::*;

#[sandbar::processor(source = "in")]
struct Register {
    #[store(prefetch)]
    values: Store<Raw, Raw>,
}

impl Processor for Register {
    type Key = Raw;
    type Value = Option<Raw>;

    fn process(&mut self, record: Record<Raw, Option<Raw>>, _context: &mut Context) -> Result<()> {
        let current = self.values.get(record.key)?;
        if !record.headers.condition_holds(current.as_deref()) {
            return Ok(());
        }
        match record.value {
            Some(value) => self.values.put(record.key, value),
            None => self.values.delete(record.key),
        }
    }
}
