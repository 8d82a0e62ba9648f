//! What becomes of a life that ends badly.

use super::*;

#[test]
fn a_panic_is_the_failure_of_its_application() {
    let error = caught(|| panic!("on purpose")).expect_err("it panicked");
    assert_eq!(error.to_string(), "it panicked, which is a defect of the host: on purpose");
}
