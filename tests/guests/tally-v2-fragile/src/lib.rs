//! As `tally-v2`, with a migration that obeys keys: `trap`, `loop`, `refuse`, and `curious`, which asks the host for
//! something while it must not.

use sandbar::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Default, Deserialize, Serialize)]
struct Count {
    count: i64,
}

fn from_number(key: &[u8], count: i64) -> Result<Option<Count>> {
    match key {
        b"trap" => panic!("this row is one too many"),
        b"loop" => loop {
            std::hint::black_box(count);
        },
        b"refuse" => bail!("it is refused"),
        b"curious" => drop(sandbar::bindings::sandbar::processor::context::config("curious")),
        _ => {}
    }
    Ok(Some(Count { count }))
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
