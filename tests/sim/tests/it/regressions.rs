//! Seeds that have failed once, each with the reason. They are played whatever the campaign's numbers are.

use sim::{Kind, Scenario, run};

/// A seed and what it found.
const SEEDS: [(Kind, u64, &str); 15] = [
    (Kind::AtLeastOnce, 201, "records of a changelog were deleted under a restore, which stopped the application"),
    (
        Kind::AtLeastOnce,
        1_469,
        "records in flight of a task that was given up replaced what its next owner had written",
    ),
    (Kind::AtLeastOnce, 3_368, "records in flight of a commit that was given up reached a changelog after its restore"),
    (
        Kind::AtLeastOnce,
        4_063,
        "a store that a crash left was behind its changelog, which records in flight had reached",
    ),
    (Kind::AtLeastOnce, 6_997, "two wrote for one task after a restart of the broker, which forgets members"),
    (Kind::AtLeastOnce, 7_208, "two wrote for one task after a restart of the broker, which forgets members"),
    (Kind::AtLeastOnce, 7, "rows of the first schema that were not open passed for none"),
    (Kind::AtLeastOnce, 17, "a rollback returned to a version that had been given up"),
    (Kind::Clean, 71, "a version that was given up was tried again in a task that ran another"),
    (Kind::Clean, 127, "a version that was wanted again was not judged by what tasks with its older instance did"),
    (Kind::ExactlyOnce, 145, "a version went back to rows that were older than those which had been taken over"),
    (Kind::ExactlyOnce, 482, "an assignment that came while a producer was made anew was forgotten"),
    (Kind::ExactlyOnce, 2_965, "forgotten offsets of a task without state look like a first start"),
    (Kind::Zombies, 12, "a later output shows the tally that a zombie set back"),
    (Kind::Zombies, 526, "a zombie wrote to a changelog after the last write of its store"),
];

#[test]
fn seeds_that_failed_once_pass() {
    for (kind, seed, reason) in SEEDS {
        let report = run(&Scenario::new(kind, seed), false);
        assert!(report.violations.is_empty(), "{kind} seed {seed} ({reason}): {:#?}", report.violations);
    }
}
