//! What clients read from answers.

use super::*;

#[test]
fn values_are_read_as_hosts_show_them() {
    for (shown, text) in [("NTowMDAwMDAwMQ==", "5:00000001"), ("", ""), ("YWI=", "ab"), ("YWJj", "abc"), ("?", "?")] {
        assert_eq!(text_of_base64(shown), text);
    }
}
