//! The table of limits says what is in force.

use super::*;
use crate::core::batch::codec;
use crate::core::log::LogLimits;

#[test]
fn the_table_of_limits_is_true() {
    let options = EmbeddedBrokerOptions::default();
    let (core, wire) = (CoreOptions::default(), WireOptions::default());
    let seconds = |milliseconds: i64| format!("{} s", milliseconds / 1_000);
    let groups = &options.groups;
    let sessions = format!("{} to {}", seconds(groups.min_session_timeout_ms), seconds(groups.max_session_timeout_ms));
    let rows = [
        ("`connections_max`", options.connections_max.to_string()),
        ("`request_bytes_max`", options.request_bytes_max.to_string()),
        ("a request other than Produce", wire::OTHER_REQUEST_BYTES_MAX.to_string()),
        ("array elements", wire::shape::ELEMENTS_MAX.to_string()),
        ("a string of a request", wire::shape::STRING_BYTES_MAX.to_string()),
        ("silence inside", format!("{} s", wire.stall_timeout.as_secs())),
        ("silence between", format!("{} s", wire.idle_timeout.as_secs())),
        ("records of a fetch", wire::FETCH_BYTES_MAX.to_string()),
        ("wait of a fetch", format!("{} s", wire::FETCH_WAIT_MAX.as_secs())),
        ("a record batch", LogLimits::default().max_message_bytes.to_string()),
        ("a record batch when it is decompressed", codec::decompressed_bytes_max(0).to_string()),
        ("partitions of a topic", core.max_partitions.to_string()),
        ("members of a group", groups.max_members.to_string()),
        ("session of a member", sessions),
        ("metadata of a committed offset", groups.offset_metadata_max_bytes.to_string()),
        ("time of a transaction", seconds(i64::from(core.max_transaction_timeout_ms))),
        ("silence of a producer", seconds(core.producer_expiration_ms)),
        ("disuse of a transactional id", seconds(core.transactional_id_expiration_ms)),
        ("log files held open", disk::ALL_OPEN_FILES_MAX.to_string()),
    ];
    let source = include_str!("../embedded.rs");
    let table: Vec<&str> = source.lines().filter_map(|line| line.strip_prefix("/// | ")).skip(2).collect();
    assert_eq!(table.len(), rows.len());
    for (line, (name, value)) in table.iter().zip(&rows) {
        let cells: Vec<&str> = line.split(" | ").collect();
        assert!(cells[0].starts_with(name) && cells[1] == value, "{line}: expected {name} | {value}");
    }
}
