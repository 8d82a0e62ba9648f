//! The rows of the matrix: what each does to hosts and brokers, for a number of faults from a seed.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::campaign::{self, Campaign, Options};
use crate::results::Slice;

/// A row that can be run.
pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    /// Faults of one slice, where nobody says how many.
    pub faults: u64,
    pub run: fn(&Request) -> Slice,
}

/// What is asked of a row.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub seed: u64,
    pub faults: u64,
    /// Entries at least.
    pub records: u64,
}

pub const ROWS: &[Row] =
    &[Row { name: "A1", what: "hosts killed at random moments under exactly-once", faults: 25, run: kill_hosts }];

/// The row of this name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Row> {
    let Some(row) = ROWS.iter().find(|row| row.name.eq_ignore_ascii_case(name)) else {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        bail!("there is no row {name}; there are {}", names.join(", "));
    };
    Ok(row)
}

/// Time between two kills.
const KILL_PAUSE_MS: (u64, u64) = (3_000, 8_000);

/// A1 and its like: a slice differs from the next in membership and in how often stores are flushed.
fn options(row: &str, request: &Request) -> Options {
    let Request { seed, faults, records } = *request;
    let mean_seconds = faults.max(1) * (KILL_PAUSE_MS.0 + KILL_PAUSE_MS.1) / 2_000;
    let flush_ms = [500, 5_000, 60_000][usize::try_from(seed % 3).unwrap_or(0)];
    let mut options = Options::new(row, seed).set("statestore.flush.interval.ms", flush_ms);
    options.static_members = seed % 2 == 0;
    if !options.static_members {
        // A member that is gone is missed before the next kill.
        options = options.set("kafka.consumer.session.timeout.ms", 2_500);
    }
    options.records = records;
    options.per_second = records / mean_seconds.max(1);
    options
}

fn kill_hosts(request: &Request) -> Slice {
    campaign::run(&options("A1", request), |campaign| {
        (0..request.faults).try_for_each(|_| {
            rest(campaign)?;
            let victim = campaign.random.index(campaign.options.hosts);
            let pause = Duration::from_millis(campaign.random.below(1_500));
            campaign.kill_and_restart(victim, pause)
        })?;
        rest(campaign)
    })
}

/// The time until the next kill.
fn rest(campaign: &mut Campaign) -> Result<()> {
    let pause_ms = campaign.random.between(KILL_PAUSE_MS.0, KILL_PAUSE_MS.1);
    campaign.go_on(Duration::from_millis(pause_ms))
}
