//! A second version of `tally` with a store more, `doubles`, which `init` fills from `counts`: every key has twice its
//! count there, also those that came before this version did.

use sandbar::prelude::*;

/// Under this key `doubles` says that it was filled; no record has it.
const FILLED: &[u8] = b"filled";

#[sandbar::processor(source = "in")]
struct Tally {
    #[store(prefetch)]
    counts: Store<Raw, i64>,
    #[store]
    doubles: Store<Raw, i64>,
    #[sink]
    out: Sink<Raw, i64>,
}

impl Processor for Tally {
    type Key = Raw;
    type Value = Raw;

    fn init(&mut self, _context: &mut Context) -> Result<()> {
        if self.doubles.get(FILLED)?.is_some() {
            return Ok(());
        }
        for entry in self.counts.all() {
            let (key, count) = entry?;
            self.doubles.put(&key, &(2 * count))?;
        }
        self.doubles.put(FILLED, &1)
    }

    fn process(&mut self, record: Record<Raw, Raw>, _context: &mut Context) -> Result<()> {
        let count = self.counts.get(record.key)?.unwrap_or(0) + 1;
        self.counts.put(record.key, &count)?;
        // From its own rows, so that a row which `init` has missed would be seen.
        let double = self.doubles.get(record.key)?.unwrap_or(0) + 2;
        self.doubles.put(record.key, &double)?;
        self.out.forward(record.key, &count)
    }
}
