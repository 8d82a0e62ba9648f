//! Part (e): writes of single keys, acknowledged by the broker, and waited for until the state has them.

use anyhow::Result;

use super::Plan;
use super::bed::{Bed, write_request};
use super::driver::{Load, drive};
use super::table::{self, Series};

/// The table.
///
/// # Errors
/// When no write is taken.
pub fn run(plan: &Plan, bed: &Bed) -> Result<()> {
    let mut sent = Series::new("PUT");
    let mut applied = Series::new("PUT, wait=applied");
    for _ in 0..plan.rounds {
        for (series, query, status) in [(&mut sent, "", 202), (&mut applied, "&wait=applied", 200)] {
            let load = Load { status, ..Load::of(plan, bed.address()?, vec![bed.process_id()?]) };
            series.add(drive(&load, &|number| write_request(number % plan.keys, query))?);
        }
    }
    println!(
        "\n## (e) writes of single keys, exactly_once_v2, a commit every 100 ms; CPU time with that of processing\n"
    );
    print!("{}", table::head("of the rate of PUT"));
    print!("{}{}", sent.line(None), applied.line(Some(&sent)));
    Ok(())
}
