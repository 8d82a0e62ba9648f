//! Row Q3: what REST clients write, and read back at another host, while hosts are killed.

use super::{Request, failpoints};
use crate::campaign::{self, Options};
use crate::registers::{self, Work};
use crate::results::Slice;

/// How long each transaction is held open, with everything in it sent and acknowledged, where what is not committed
/// must have time to show. The broker ends one after 10 s.
const HELD_MS: u64 = 2_500;

/// Read-your-writes. Every third slice holds its transactions open by a failpoint.
pub fn read_your_writes(request: &Request) -> Slice {
    let Request { name, seed, faults, records } = *request;
    let mut options = Options::new(name, seed);
    options.hosts = 3;
    options.partitions = 9;
    options.static_members = seed.is_multiple_of(2);
    if !options.static_members {
        options = options.set("kafka.consumer.session.timeout.ms", 2_500);
    }
    if seed % 4 >= 2 {
        options = options.set("num.standby.replicas", 1);
    }
    let mut work = Work { kills: faults, passes: records, held_ms: None };
    if seed.is_multiple_of(3) {
        work.held_ms = Some(HELD_MS);
        options.binary = Some(failpoints::binary());
        options.variables = vec![("SANDBAR_FAILPOINT_HOLD".to_owned(), format!("before-end-txn:{HELD_MS}"))];
        options = options.set("commit.interval.ms", 500);
        // A pass takes as long as a commit.
        work.passes = records / 6;
    }
    campaign::slice(&options, |slice| registers::carry_through(&options, &work, slice))
}
