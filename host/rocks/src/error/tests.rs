//! Which of RocksDB's errors mean damage.

use super::*;

#[test]
fn only_a_missing_file_of_the_data_is_damage() {
    assert!(misses_data("io error: no such file or directory: while open a file for random read: /s/000012.sst"));
    assert!(misses_data("io error: no such file or directory: /s/LOG/MANIFEST-000005".to_lowercase().as_str()));
    let info_log = "io error: no such file or directory: while unlink() file: /s/log.old.1795436014061856: no such file or directory";
    assert!(!misses_data(info_log));
    assert!(!misses_data("io error: permission denied: /s/000012.sst"));
}
