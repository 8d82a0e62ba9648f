//! The rows of the matrix that are run here: what each does to hosts and brokers, how many faults a slice of it has,
//! and how many the long profile asks for.

mod failpoints;
mod kills;
mod network;
mod poison;
mod processes;
mod queries;
mod standbys;
mod swaps;
mod writes;

use std::time::Duration;

use anyhow::{Result, bail};

use crate::campaign::{Campaign, Options};
use crate::results::Slice;

/// A row that can be run.
pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    /// Faults of one slice, where nobody says how many.
    pub faults: u64,
    /// Entries of one slice at least, where nobody says how many.
    pub records: u64,
    /// Faults that the long profile comes to.
    pub goal: u64,
    /// Runs the binary with failpoints.
    pub failpoints: bool,
    pub run: fn(&Request) -> Slice,
}

/// What is asked of a row.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub name: &'static str,
    pub seed: u64,
    pub faults: u64,
    /// Entries at least.
    pub records: u64,
}

const fn row(name: &'static str, what: &'static str, faults: u64, goal: u64, run: fn(&Request) -> Slice) -> Row {
    Row { name, what, faults, records: 100_000, goal, failpoints: false, run }
}

impl Row {
    const fn records(self, records: u64) -> Self {
        Self { records, ..self }
    }

    const fn with_failpoints(self) -> Self {
        Self { failpoints: true, ..self }
    }
}

pub use swaps::bench as bench_swaps;

pub const ROWS: &[Row] = &[
    row("A1", "hosts killed at random moments", 25, 200, kills::exactly_once).records(1_250_000),
    row("A2", "hosts aborted at named points of a commit, a rebalance, a restore", 48, 320, failpoints::run)
        .with_failpoints(),
    row("A3", "hosts killed under at-least-once", 25, 100, kills::at_least_once),
    row("A4", "hosts frozen for 10 s while others take over, then let go on", 10, 50, processes::freeze),
    row("A5", "a second host with the identity of a running one", 10, 20, processes::double),
    row("A7", "an EndTxn request delayed into the next transaction", 50, 200, network::delayed_end_txn)
        .with_failpoints(),
    row("A7-control", "the same, without the rule that makes a new producer", 50, 50, network::delayed_end_txn_control)
        .with_failpoints(),
    row("A8", "modules that trap inside transactions", 20, 60, processes::trap),
    row("A9", "hosts ended and started again one after the other, as for a new version", 10, 40, processes::rolling),
    row("B1", "the broker killed, back after 3 s", 6, 30, network::kill_broker),
    row("B2", "the broker away for 70 s", 2, 4, network::broker_away),
    row("B3", "partitions, half-open and slow connections, delays, resets", 15, 50, network::bad_network),
    row("B7", "calls that take longer than max.poll.interval.ms", 10, 30, processes::slow).records(50_000),
    row("C5", "hosts killed whose tasks are warm on the other one", 10, 50, standbys::fail_over),
    row("E1", "poison of eight kinds while hosts are killed", 8, 64, poison::poison).records(125_000),
    row("Q2", "queries while hosts are killed and added by turns", 6, 30, queries::queries),
    row("Q3", "hosts killed while clients read their own writes at other hosts", 3, 15, writes::read_your_writes)
        .records(3_000)
        .with_failpoints(),
    row("G3", "two good versions that take over from each other twice a second", 250, 500, swaps::swap).records(0),
    row("G3-kills", "the same on two hosts, one of which is killed every 15 s", 250, 500, swaps::kills).records(0),
    row("G3-bad", "bad versions under load, and refusals at rest", 22, 22, swaps::bad).records(0),
    row("G3-hosts", "deployments that reach two hosts, and a third one that joins", 5, 20, swaps::hosts).records(0),
    row(
        "G3-migrate",
        "a store's schema that changes, and hosts killed in the middle of its migration",
        4,
        12,
        swaps::migrate,
    )
    .records(0),
    row("G3-migrate-ci", "the same with fewer rows and one kill", 2, 0, swaps::migrate_short).records(0),
    row("G3-ci", "some of all that in a minute", 20, 0, swaps::short).records(0),
    row("H2", "hosts ended by SIGTERM in any state", 40, 200, processes::terminate),
];

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

/// Time between two faults.
const PAUSE_MS: (u64, u64) = (3_000, 8_000);

/// What most rows start from: a slice differs from the next in membership, in how often stores are flushed, and in
/// whether there are standby tasks. `mean_ms` is how long one fault takes about, rest included; the entries are spread
/// over all of them.
fn options(request: &Request, mean_ms: u64) -> Options {
    let Request { name, seed, faults, records } = *request;
    let flush_ms = [500, 5_000, 60_000][usize::try_from(seed % 3).unwrap_or(0)];
    let mut options = Options::new(name, seed).set("statestore.flush.interval.ms", flush_ms);
    options.static_members = seed.is_multiple_of(2);
    if !options.static_members {
        // A member that is gone is missed before the next kill.
        options = options.set("kafka.consumer.session.timeout.ms", 2_500);
    }
    if seed % 4 >= 2 {
        options = options.set("num.standby.replicas", 1);
    }
    options.records = records;
    options.per_second = (records * 1_000 / (faults * mean_ms).max(1)).max(200);
    options
}

/// The time until the next fault.
fn rest(campaign: &mut Campaign) -> Result<()> {
    let pause_ms = campaign.random.between(PAUSE_MS.0, PAUSE_MS.1);
    campaign.go_on(Duration::from_millis(pause_ms))
}
