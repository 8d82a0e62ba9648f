//! `invoices`, mended: a change that was cut off is read as far as it goes, when the amount is in that part.

use sandbar::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Change {
    after: Option<Invoice>,
}

#[derive(Deserialize)]
struct Invoice {
    amount_cents: i64,
}

#[sandbar::processor(source = "invoices")]
struct Invoices {
    #[store(prefetch)]
    totals: Store<String, i64>,
    #[sink]
    customer_totals: Sink<String, i64>,
}

impl Processor for Invoices {
    type Key = Str;
    type Value = Str;

    fn process(&mut self, record: Record<Str, Str>, _context: &mut Context) -> Result<()> {
        let change = read(record.value)?;
        let amount_cents = change.after.map_or(0, |invoice| invoice.amount_cents);
        let total = self.totals.get(record.key)?.unwrap_or(0) + amount_cents;
        self.totals.put(record.key, &total)?;
        self.customer_totals.forward(record.key, &total)
    }
}

fn read(text: &str) -> Result<Change> {
    match serde_json::from_str(text) {
        Err(error) if error.is_eof() => serde_json::from_str(&completed(text)),
        result => result,
    }
    .or_else(|error| bail!("no change of an invoice: {error}"))
}

/// The text with the string and the objects closed that it leaves open.
fn completed(text: &str) -> String {
    let (mut in_string, mut escaped, mut open) = (false, false, 0);
    for character in text.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '{' if !in_string => open += 1,
            '}' if !in_string => open -= 1,
            _ => {}
        }
    }
    let closing_quote = if in_string { "\"" } else { "" };
    format!("{text}{closing_quote}{}", "}".repeat(open))
}
