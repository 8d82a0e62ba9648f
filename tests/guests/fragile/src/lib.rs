//! Counts the records of each key and forwards every new count, unless a value begins with `!`: `!refuse`, `!trap`, and
//! for a hostile neighbour `!loop` (until the deadline) and `!churn` (all the memory that there is, written to, again
//! and again).

use sandbar::prelude::*;

#[sandbar::processor(source = "in")]
struct Fragile {
    #[store(prefetch)]
    counts: Store<Raw, i64>,
    #[sink]
    out: Sink<Raw, i64>,
}

impl Processor for Fragile {
    type Key = Raw;
    type Value = Raw;

    fn process(&mut self, record: Record<Raw, Raw>, _context: &mut Context) -> Result<()> {
        let count = self.counts.get(record.key)?.unwrap_or(0) + 1;
        self.counts.put(record.key, &count)?;
        self.out.forward(record.key, &count)?;
        match record.value {
            b"!refuse" => bail!("the record asked for it"),
            b"!trap" => panic!("the record asked for it"),
            b"!loop" => endless(),
            b"!churn" => churn(),
            _ => Ok(()),
        }
    }
}

fn endless() -> ! {
    let mut turn = 0_u64;
    loop {
        turn = std::hint::black_box(turn + 1);
    }
}

fn churn() -> ! {
    const BLOCK_BYTES: usize = 1 << 20;
    // Most of what an instance may have by default.
    const BLOCKS: usize = 48;
    loop {
        let blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|fill| vec![fill as u8 + 1; BLOCK_BYTES]).collect();
        std::hint::black_box(blocks);
    }
}
