//! That comments and literals vanish and everything else keeps its place.

use super::blank;

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(blank(text), expected);
    assert_eq!(text.len(), expected.len());
}

#[test]
fn comments_vanish() {
    check("a // b {\nc", "a       \nc");
    check("a /* { /* } */ \n } */ c", "a              \n      c");
}

#[test]
fn strings_vanish() {
    check(r#"a("{ \" }"); b"#, "a(        ); b");
    check("x(r#\"a \" {\"#) y", "x(          ) y");
    check("x(br\"{\") y", "x(     ) y");
}

#[test]
fn characters_vanish_and_lifetimes_stay() {
    check("m('{', '\\'', '\\u{7d}', 'ü')", "m(   ,     ,         ,     )");
    check("fn a<'a>(b: &'a str) {}", "fn a<'a>(b: &'a str) {}");
}

#[test]
fn names_with_the_letters_of_raw_strings_stay() {
    check("for bar in crab {}", "for bar in crab {}");
    check("break; r#type", "break; r#type");
}
