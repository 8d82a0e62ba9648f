//! Counts the flights of every carrier: one store, one sink that reads as a table. The values are not looked at.

use sandbar::prelude::*;

#[sandbar::processor(source = "flights")]
struct CarrierCount {
    #[store(prefetch)]
    counts: Store<String, i64>,
    #[sink]
    totals: Sink<String, i64>,
}

impl Processor for CarrierCount {
    type Key = Str;
    type Value = Option<Raw>;

    fn process(&mut self, record: Record<Str, Option<Raw>>, _context: &mut Context) -> Result<()> {
        let carrier = record.key;
        let count = self.counts.get(carrier)?.unwrap_or(0) + 1;
        self.counts.put(carrier, &count)?;
        self.totals.forward(carrier, &count)
    }
}

#[cfg(test)]
mod tests;
