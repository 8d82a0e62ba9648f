//! That the records of the vote are the data set's.

use e2e::votes;
use e2e::weather::{format_time, parse_time_ms, reports};

#[test]
fn times_are_milliseconds_since_the_epoch() {
    assert_eq!(parse_time_ms("1970-01-01T00:00:00Z").unwrap(), 0);
    assert_eq!(parse_time_ms("2000-02-29T12:34:56Z").unwrap(), 951_827_696_000);
    assert_eq!(parse_time_ms("2013-01-01T06:00:00Z").unwrap(), 1_357_020_000_000);
    assert!(parse_time_ms("2013-01-01").is_err());
    for time in ["1970-01-01 00:00", "1999-12-31 23:59", "2000-02-29 12:34", "2013-03-01 06:00"] {
        let written = format!("{}:00Z", time.replace(' ', "T"));
        assert_eq!(format_time(parse_time_ms(&written).unwrap()), time);
    }
}

#[test]
fn every_row_gives_three_reports_in_order_of_event_time() {
    let reports = reports().unwrap();
    assert_eq!(reports.len(), 3 * 26_115);
    assert!(reports.is_sorted_by_key(|report| report.at_ms));
    let line = reports[0].to_line();
    assert_eq!(
        line,
        r#"{"key":"rain","timestamp":1357020000000,"value":{"agent":"EWR","at_ms":1357020000000,"state":false}}"#
    );
    assert_eq!(votes::expected().unwrap().len(), 26_142);
}
