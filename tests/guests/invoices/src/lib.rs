//! Sums the invoices of each customer, as changes of a database table that arrive as JSON, and forwards every new
//! total. A value that is not JSON is refused; `invoices-mended` is the version that reads it.

use sandbar::prelude::*;
use serde::{Deserialize, Serialize};

/// A change as Debezium writes it: the row before and after.
#[derive(Serialize, Deserialize)]
struct Change {
    after: Option<Invoice>,
}

#[derive(Serialize, Deserialize)]
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
    type Value = Json<Change>;

    fn process(&mut self, record: Record<Str, Json<Change>>, _context: &mut Context) -> Result<()> {
        let amount_cents = record.value.after.map_or(0, |invoice| invoice.amount_cents);
        let total = self.totals.get(record.key)?.unwrap_or(0) + amount_cents;
        self.totals.put(record.key, &total)?;
        self.customer_totals.forward(record.key, &total)
    }
}
