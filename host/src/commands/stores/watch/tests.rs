//! What the lines of a subscription mean, and how it ends.

use super::super::tests::host_of;
use super::*;
use crate::commands::client::Client;

#[test]
fn a_line_is_a_change_a_sign_of_life_or_the_reason_of_the_end() {
    let change = r#"{"partition":0,"offset":3,"key":"a","value":null,"timestamp":5,"position":"x"}"#;
    assert!(matches!(Told::of(change), Ok(Told::Change { position, .. }) if position == "x"));
    assert_eq!(Told::of(r#"{"position":"y"}"#).ok(), Some(Told::Heartbeat { position: "y".to_owned() }));
    let problem = r#"{"problem":{"type":"urn:sandbar:problem:format","detail":"why"}}"#;
    assert_eq!(Told::of(problem).ok(), Some(Told::Problem("why".to_owned())));
    for line in ["", "nothing", "{}", r#"{"offset":1}"#] {
        assert!(Told::of(line).is_err(), "{line}");
    }
}

#[test]
fn the_end_says_where_to_go_on() {
    let url = host_of(&["{\"position\":\"x\"}\n{\"offset\":1,\"key\":\"a\",\"value\":1,\"position\":\"y\"}\n"]);
    let question = Question { client: Client::new(&url), path: "/changes".to_owned() };
    let error = run(&question, &[], Terminal::new(Format::Json)).expect_err("it ends");
    assert!(error.to_string().contains("--from y"), "{error}");
    assert!(error.is::<UnreachableError>());
}
