//! Medians and CPU time.

use super::*;

#[test]
fn the_median_of_an_even_number_is_between_the_middle_two() {
    let spread = spread([4.0, 1.0, 2.0, 10.0]).unwrap();
    assert_eq!((spread.min, spread.median, spread.max), (1.0, 3.0, 10.0));
}

#[test]
fn cpu_time_grows_with_work() {
    let before = cpu_time().unwrap();
    let mut x = 1u64;
    while cpu_time().unwrap() == before {
        x = std::hint::black_box(x.wrapping_mul(3));
    }
}
