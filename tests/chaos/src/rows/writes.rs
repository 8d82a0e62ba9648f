//! Row Q3: what REST clients write, and read back at another host, while hosts are killed.

use super::Request;
use crate::campaign::{self, Options};
use crate::registers::{self, Work};
use crate::results::Slice;

/// Between commits where what is not committed must have time to show. Longer transactions than that are ended by the
/// broker after 10 s.
const SLOW_COMMIT_MS: u64 = 3_000;

/// Read-your-writes. Every third slice commits so rarely that an uncommitted value would be seen.
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
    let slow_commits = seed.is_multiple_of(3);
    let mut work = Work { kills: faults, passes: records, slow_commits };
    if slow_commits {
        options = options.set("commit.interval.ms", SLOW_COMMIT_MS);
        // A pass takes as long as a commit.
        work.passes = records / 6;
    }
    campaign::slice(&options, |slice| registers::carry_through(&options, &work, slice))
}
