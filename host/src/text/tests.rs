//! Nothing that steers a terminal passes.

use super::*;

#[test]
fn what_steers_a_terminal_is_written_out() {
    assert_eq!(escape("plain text, ü, 漢字, 🙂, \"q\" \\"), "plain text, ü, 漢字, 🙂, \"q\" \\");
    assert_eq!(escape("a\nb\tc\r"), "a\\nb\\tc\\r");
    assert_eq!(escape("\u{1b}[2J\u{7}\0\u{7f}"), "\\u{1b}[2J\\u{7}\\u{0}\\u{7f}");
    assert_eq!(escape("\u{9b}31m"), "\\u{9b}31m");
    assert_eq!(escape("a\u{202e}b\u{200b}c\u{2028}"), "a\\u{202e}b\\u{200b}c\\u{2028}");
    let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
    assert!(!escape(&all).chars().any(is_unseen));
}

#[test]
fn lines_of_ours_stay_lines() {
    assert_eq!(escape_lines("error: a\n  3 | \tx = 1\n"), "error: a\n  3 | \tx = 1\n");
    assert_eq!(escape_lines("a\u{1b}]0;title\u{7}\r\nb"), "a\\u{1b}]0;title\\u{7}\\u{d}\nb");
    let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
    assert!(!escape_lines(&all).chars().any(|character| is_unseen(character) && !"\n\t".contains(character)));
}

#[test]
fn a_long_text_is_cut_between_characters() {
    assert_eq!(short("abc", 3), "abc");
    assert_eq!(short("abcd", 3), "abc…");
    assert_eq!(short("ü漢🙂x", 3), "ü漢🙂…");
    assert_eq!(short("", 0), "");
    assert_eq!(short("\u{1b}\u{1b}", 1), "\\u{1b}…");
}
