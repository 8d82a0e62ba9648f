//! Tests of `isolation`: where batches are cut. Whole turns with failing processors are among those of `stream_thread`.

use super::*;

fn refused(indexes: &[u32]) -> Vec<Refusal> {
    indexes.iter().map(|&index| Refusal { index, reason: String::new() }).collect()
}

#[test]
fn a_batch_is_cut_in_halves_or_around_what_was_refused() {
    let cases: [(usize, &[u32], &[usize]); 8] = [
        (1, &[], &[1]),
        (1, &[0], &[1]),
        (2, &[], &[1, 1]),
        (7, &[], &[3, 4]),
        (5, &[0], &[0, 1, 4]),
        (5, &[4], &[4, 1, 0]),
        (6, &[3, 1, 3], &[1, 1, 1, 1, 2]),
        // A number that no record has is the sandbox's to refuse; here it must not lose the count.
        (4, &[9], &[2, 2]),
    ];
    for (records, indexes, expected) in cases {
        let found = pieces(records, &refused(indexes));
        assert_eq!(found, expected, "{records} records, {indexes:?} refused");
        assert_eq!(found.iter().sum::<usize>(), records);
    }
}
