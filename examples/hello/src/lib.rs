//! The smallest processor: it greets whatever the value names, and keeps nothing.

use sandbar::prelude::*;

#[sandbar::processor(source = "greetings")]
struct Hello {
    #[sink]
    answers: Sink<Option<Raw>, String>,
}

impl Processor for Hello {
    type Key = Option<Vec<u8>>;
    type Value = String;

    fn process(&mut self, record: Record<Option<Vec<u8>>, String>, _context: &mut Context) -> Result<()> {
        self.answers.forward(&record.key, &format!("{}, World!", record.value))
    }
}

#[cfg(test)]
mod tests;
