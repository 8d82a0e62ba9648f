//! Writes every value in capital letters: the pass-through of the benchmark beside Kafka Streams.

use sandbar::prelude::*;

#[sandbar::processor(source = "in")]
struct Uppercase {
    #[sink]
    out: Sink<Raw, Raw>,
    text: Vec<u8>,
}

impl Processor for Uppercase {
    type Key = Raw;
    type Value = Raw;

    fn process(&mut self, record: Record<Raw, Raw>, _context: &mut Context) -> Result<()> {
        self.text.clear();
        self.text.extend_from_slice(record.value);
        self.text.make_ascii_uppercase();
        self.out.forward(record.key, &self.text)
    }
}
