//! Escaping and counting of guests' lines.

use super::*;

#[test]
fn what_could_forge_a_line_is_escaped() {
    assert_eq!(escape("plain ünïcode 日本", 100), "plain ünïcode 日本");
    assert_eq!(escape("a\nERROR b\r\t\u{1b}[31m", 100), "a\\nERROR b\\r\\t\\u{1b}[31m");
    assert_eq!(escape("\\n", 100), "\\\\n");
    assert_eq!(escape("\u{202e}abc\u{2028}\u{0}", 100), "\\u{202e}abc\\u{2028}\\u{0}");
}

#[test]
fn a_long_line_is_cut_at_a_character() {
    assert_eq!(escape("ääää", 4), "ää… (4 bytes cut)");
    let huge = "x".repeat(1 << 20);
    assert!(escape(&huge, LINE_MAX_BYTES).len() < LINE_MAX_BYTES + 40);
}

#[test]
fn lines_above_the_limit_are_counted_and_the_last_complaint_is_kept() {
    let limits = Limits { log_max_lines: 2, ..Limits::default() };
    let log = GuestLog::new(None, Arc::new(limits), Arc::default());
    log.begin_call(&Arc::from("app"));
    for index in 0..5 {
        log.line(Level::Info, &format!("line {index}"));
    }
    log.line(Level::Error, "panicked");
    let said = log.end_call();
    assert_eq!((said.lines, said.dropped.total(), said.last_complaint.as_deref()), (2, 4, Some("panicked")));
    log.begin_call(&Arc::from("app"));
    let said = log.end_call();
    assert_eq!((said.lines, said.dropped.total(), said.last_complaint), (0, 0, None));
}
