//! Which blocks run, and when their output is wrong.

use super::{blocks, first_missing};

#[test]
fn only_marked_blocks_run() {
    let page = "a\n```sh\nls\n```\n```sh run\ncd a\nls\n```\n\n```text\nb\n```\n```sh run fails\nfalse\n```\n";
    let found = blocks(page).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].line, found[0].script.as_str(), found[0].must_fail), (5, "cd a\nls", false));
    assert_eq!(found[0].expected, ["b"]);
    assert!(found[1].must_fail);
}

#[test]
fn a_text_block_after_prose_is_not_output() {
    let found = blocks("```sh run\nls\n```\nAn example:\n```text\nb\n```\n").unwrap();
    assert!(found[0].expected.is_empty());
}

#[test]
fn mistakes_in_fences_are_errors() {
    assert!(blocks("```sh run\nls\n").is_err());
    assert!(blocks("```sh runs\nls\n```\n").is_err());
}

#[track_caller]
fn check(expected: &[&str], output: &str, missing: Option<&str>) {
    let expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
    assert_eq!(first_missing(&expected, output), missing);
}

#[test]
fn expected_lines_occur_in_order() {
    check(&["a", "b"], "a 1\nx\nb 2\n", None);
    check(&["b", "a"], "a 1\nx\nb 2\n", Some("a"));
    check(&["took … ms", "…", "end"], "took 12 ms\nx\nend\n", None);
    check(&["took … ms"], "took 12 s\n", Some("took … ms"));
}
