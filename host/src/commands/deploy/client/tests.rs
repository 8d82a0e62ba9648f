//! What a host is asked, and what becomes of its answers.

use serde_json::json;

use super::*;
use crate::commands::client::testing::{Asked, host_of};
use crate::exit;

fn answer(number: u64, state: &str) -> Value {
    json!({ "number": number, "module": "ab", "state": state, "moves": [{ "state": state, "when_ms": 1, "reason": "so" }] })
}

const DEPLOY: Deploy<'_> = Deploy {
    application: "a vote",
    module: b"\0asm\r\n--sandbar-form",
    manifest: Some("module = \"vote.wasm\"\n"),
    signature: None,
    why: None,
    who: None,
    drop_stores: &[],
    dry_run: false,
    no_probation: false,
};

fn asked(run: impl FnOnce(&Client) -> Result<Version>) -> Asked {
    let (url, host) = host_of(vec![(200, answer(4, "ACTIVE"))]);
    assert_eq!(run(&Client::new(&url)).expect("an answer").number, Some(4));
    host.join().expect("no panic").remove(0)
}

#[test]
fn a_module_goes_out_with_its_manifest_as_a_form() {
    let asked = asked(|client| deploy(client, &DEPLOY));
    assert_eq!(asked.what(), "POST /v1/apps/a%20vote/versions");
    let boundary = asked.header("content-type").and_then(|kind| kind.strip_prefix("multipart/form-data; boundary="));
    // What would end the first part is in it, so that the boundary is another one.
    assert_eq!(boundary, Some("sandbar-form-"));
    let expected = b"--sandbar-form-\r\n\
        content-disposition: form-data; name=\"module\"; filename=\"module.wasm\"\r\n\
        content-type: application/wasm\r\n\r\n\0asm\r\n--sandbar-form\r\n\
        --sandbar-form-\r\n\
        content-disposition: form-data; name=\"manifest\"; filename=\"sandbar.toml\"\r\n\
        content-type: application/toml\r\n\r\nmodule = \"vote.wasm\"\n\r\n\
        --sandbar-form---\r\n";
    assert_eq!(String::from_utf8_lossy(&asked.body), String::from_utf8_lossy(expected));
}

#[test]
fn a_signature_goes_out_with_the_module() {
    let asked = asked(|client| deploy(client, &Deploy { manifest: None, signature: Some("c2ln"), ..DEPLOY }));
    let body = String::from_utf8_lossy(&asked.body);
    let expected = "content-disposition: form-data; name=\"signature\"; filename=\"module.wasm.sig\"\r\n\
        content-type: text/plain\r\n\r\nc2ln\r\n--sandbar-form---\r\n";
    assert!(body.ends_with(expected), "{body}");
}

#[test]
fn a_module_alone_goes_out_as_it_is() {
    let stores = ["old".to_owned(), "older".to_owned()];
    let whole = Deploy {
        manifest: None,
        why: Some("a & b"),
        who: Some("ada"),
        drop_stores: &stores,
        dry_run: true,
        no_probation: true,
        ..DEPLOY
    };
    let asked = asked(|client| deploy(client, &whole));
    let what = asked.what();
    let (path, query) = what.split_once('?').expect("a query");
    assert_eq!(path, "POST /v1/apps/a%20vote/versions");
    assert!(query.starts_with("why=a") && query.contains("%26"), "{query}");
    let query = query.replace("%2C", ",");
    assert!(query.ends_with("&who=ada&drop_stores=old,older&dry_run=true&no_probation=true"), "{query}");
    assert_eq!((asked.header("content-type"), asked.body.as_slice()), (Some("application/wasm"), DEPLOY.module));
}

#[test]
fn a_rollback_names_the_version_where_one_is_meant() {
    assert_eq!(asked(|client| roll_back(client, "v", None, &[], (None, None))).what(), "POST /v1/apps/v/rollback");
    assert_eq!(
        asked(|client| roll_back(client, "v", Some(2), &["old".to_owned()], (Some("no"), Some("ada")))).what(),
        "POST /v1/apps/v/rollback?to=2&drop_stores=old&why=no&who=ada"
    );
}

#[test]
fn every_point_of_a_refusal_is_told() {
    let problem = json!({
        "type": "urn:sandbar:problem:version-incompatible", "title": "it does not fit", "status": 422,
        "detail": "the version does not fit the running one in 2 points",
        "incompatibilities": ["store counts: i64 became json", { "kind": "source", "detail": "source in: it is gone" }],
    });
    let (url, host) = host_of(vec![(422, problem), (409, json!({ "title": "another deploy is on its way" }))]);
    let client = Client::new(&url);
    let error = deploy(&client, &DEPLOY).expect_err("it is refused");
    let told = crate::terminal::causes(&error).join("\n");
    let expected = "the host refused the request (422)\n\
                    the version does not fit the running one in 2 points\n  \
                    store counts: i64 became json\n  source in: it is gone";
    assert_eq!((told.as_str(), exit::number_of(&error)), (expected, 4));
    let error = deploy(&client, &DEPLOY).expect_err("it is refused");
    assert_eq!(exit::number_of(&error), 1, "it may go another time");
    assert!(format!("{error:#}").ends_with("another deploy is on its way"), "{error:#}");
    host.join().expect("no panic");
    let error = deploy(&client, &DEPLOY).expect_err("nobody is there");
    assert_eq!(exit::number_of(&error), 3, "{error:#}");
}

#[test]
fn a_version_is_followed_to_its_end() {
    let on_its_way = || {
        let mut answer = answer(7, "PREPARING");
        answer["changes"] = json!([{ "what": "store a", "effect": "kept" }]);
        answer["notes"] = json!(["b"]);
        Version::of(answer).expect("a version")
    };
    let way = |answers: &[&str]| {
        let (url, host) = host_of(answers.iter().map(|state| (200, answer(7, state))).collect());
        let mut told = Vec::new();
        let mut tell = |version: &Version| told.push(version.state.as_str());
        let end = wait(&Client::new(&url), "v", on_its_way(), Duration::from_secs(60), &mut tell);
        let asked = host.join().expect("no panic");
        assert!(asked.iter().all(|asked| asked.what() == "GET /v1/apps/v/versions/7"));
        (end, told)
    };
    let (end, told) = way(&["PREPARING", "READY", "SWAPPING", "ACTIVE"]);
    let end = end.expect("it is active");
    assert_eq!(
        (end.state, end.effects()),
        (VersionState::Active, vec!["kept: store a".to_owned(), "note: b".to_owned()])
    );
    assert_eq!(end.json["notes"][0], "b", "what the deploy said is in the whole too");
    assert_eq!(told, ["READY", "SWAPPING", "ACTIVE"]);
    let error = way(&["SWAPPING", "ROLLED_BACK"]).0.expect_err("it is not active");
    assert_eq!((error.to_string().as_str(), exit::number_of(&error)), ("version 7 is ROLLED_BACK: so", 4));
}

#[test]
fn a_wait_has_an_end() {
    let (url, host) = host_of(vec![(200, answer(7, "READY"))]);
    let version = Version::of(answer(7, "READY")).expect("a version");
    let error =
        wait(&Client::new(&url), "v", version, Duration::from_millis(1), &mut |_| {}).expect_err("it takes long");
    assert!(error.to_string().starts_with("version 7 is READY after"), "{error}");
    host.join().expect("no panic");
}
