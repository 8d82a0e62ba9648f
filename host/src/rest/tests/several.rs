//! A host with several applications: all of them are shown, and one that failed is told apart from those that go on.

use super::*;

/// `vote`, with two partitions of a store, and `tally`, of which nothing is there yet.
fn two() -> (Arc<Applications>, Arc<Status>, Arc<Status>) {
    let applications = Applications::new(["vote", "tally"].into_iter());
    let (vote, tally) = (Arc::clone(&applications.all()[0]), Arc::clone(&applications.all()[1]));
    // Without threads it has nothing to wait for.
    vote.wire(Wired { threads: Vec::new(), ..wired() });
    vote.set_phase(Phase::Running);
    (Arc::new(applications), vote, tally)
}

fn ask(applications: &Arc<Applications>, path: &str) -> (u16, Value) {
    ask_of(router(Arc::clone(applications)), path)
}

fn text(applications: &Arc<Applications>, path: &str) -> String {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    send_to(router(Arc::clone(applications)), path, request).1
}

/// The parts of a running application.
fn wired() -> Wired {
    Wired::clone(&running_host().wired().expect("it is wired"))
}

#[test]
fn each_is_found_by_its_id() {
    let (applications, _, tally) = two();
    tally.set_phase(Phase::Starting("loading the module"));
    let expected = json!({ "apps": [{ "id": "vote", "state": "running" }, { "id": "tally", "state": "starting" }] });
    assert_eq!(ask(&applications, "/v1/apps").1, expected);
    assert_eq!(ask(&applications, "/v1/apps/tally").1["not_ready"], json!("starting: loading the module"));
    let (code, body) = ask(&applications, "/v1/apps/vote/stores/votes/keys/b");
    assert_eq!((code, &body["value"]), (200, &json!(2)), "one that starts is no hindrance: {body}");
    let (code, body) = ask(&applications, "/v1/apps/other");
    assert_eq!((code, &body["detail"]), (404, &json!("this host runs vote, tally, not other")));
}

#[test]
fn one_that_failed_is_errored_and_the_other_goes_on() {
    let (applications, _, tally) = two();
    tally.wire(wired());
    tally.set_phase(Phase::Running);
    assert_eq!(ask(&applications, "/v1/apps/tally/stores/votes/keys/b").0, 200);
    tally.set_phase(Phase::Failed("the module trapped".to_owned()));
    let held = Arc::downgrade(&tally.wired().expect("it is wired").queries);
    tally.release();
    assert!(held.upgrade().is_none(), "its stores are still held");
    let listed = json!([
        { "id": "vote", "state": "running" },
        { "id": "tally", "state": "ERRORED", "error": "the module trapped" },
    ]);
    assert_eq!(ask(&applications, "/v1/apps").1["apps"], listed);
    let (_, shown) = ask(&applications, "/v1/apps/tally");
    assert_eq!((&shown["state"], &shown["error"]), (&json!("ERRORED"), &json!("the module trapped")));
    assert_eq!(shown["topology"][0]["stores"][0]["name"], json!("votes"), "what it was is still told");
    assert_eq!(shown["threads"][0]["state"], json!("Dead"));
    assert_eq!(ask(&applications, "/v1/apps/vote").1["error"], Value::Null);
    for path in ["stores", "stores/votes/keys/b", "stores/votes/entries", "stores/votes/count", "instances"] {
        let (code, body) = ask(&applications, &format!("/v1/apps/tally/{path}"));
        assert_eq!((code, &body["type"]), (503, &json!("urn:sandbar:problem:failed")), "{path}: {body}");
        assert!(body["detail"].as_str().is_some_and(|detail| detail.ends_with("the module trapped")), "{body}");
    }
    assert_eq!(ask(&applications, "/v1/apps/vote/stores/votes/keys/b").1["value"], json!(2));
}

#[test]
fn one_that_failed_makes_the_host_unready_but_not_dead() {
    let (applications, vote, tally) = two();
    tally.set_phase(Phase::Running);
    assert_eq!(ask(&applications, "/readyz"), (200, json!({ "ready": true })));
    tally.set_phase(Phase::Failed("the module trapped".to_owned()));
    let (code, body) = ask(&applications, "/readyz");
    assert_eq!((code, &body["detail"]), (503, &json!("tally: ERRORED: the module trapped")));
    assert_eq!(ask(&applications, "/readyz?app=vote").0, 200, "traffic for the other one is none of its business");
    assert_eq!(ask(&applications, "/readyz?app=tally").0, 503);
    assert_eq!(ask(&applications, "/readyz?app=other").0, 404);
    assert_eq!(ask(&applications, "/livez").0, 200);
    vote.set_phase(Phase::Failed("no broker".to_owned()));
    let (code, body) = ask(&applications, "/livez");
    assert_eq!((code, &body["detail"]), (503, &json!("vote: no broker; tally: the module trapped")));
}

#[test]
fn applications_that_come_are_waited_for_and_those_that_go_are_not() {
    let (applications, vote, tally) = two();
    tally.set_phase(Phase::Running);
    applications.enter("new").set_phase(Phase::Starting("loading the module"));
    let (code, body) = ask(&applications, "/readyz");
    assert_eq!((code, &body["detail"]), (503, &json!("new: starting: loading the module")));
    applications.remove("new");
    tally.leave();
    tally.set_phase(Phase::Stopping);
    assert_eq!(ask(&applications, "/readyz").0, 200);
    assert_eq!(ask(&applications, "/readyz?app=tally").0, 503);
    assert_eq!(ask(&applications, "/v1/apps").1["apps"][1], json!({ "id": "tally", "state": "stopping" }));
    applications.remove("tally");
    assert_eq!(ask(&applications, "/v1/apps/tally").0, 404);

    vote.set_phase(Phase::Failed("no broker".to_owned()));
    assert_eq!(ask(&applications, "/livez").0, 503);
    let again = applications.enter("vote");
    assert_eq!((applications.all().len(), ask(&applications, "/livez").0), (1, 200), "it has another life");
    assert!(again.failure().is_none());
    applications.remove("vote");
    assert_eq!(ask(&applications, "/livez").0, 200, "a host that waits for applications lives");
    assert_eq!(ask(&applications, "/readyz").0, 200);
    assert!(text(&applications, "/metrics").starts_with("# HELP sandbar_ready"));
    let (_, body) = ask(&applications, "/v1/apps/vote");
    assert_eq!(body["detail"], json!("this host runs no application now, not vote"));
}

#[test]
fn metrics_have_a_head_once_and_the_series_of_each() {
    let (applications, _, tally) = two();
    let held = "sandbar_tasks{app=\"tally\",thread=\"0\",state=\"running\"}";
    let counted = "sandbar_records_processed_total{app=\"tally\",thread=\"0\"} 7\n";
    let before = text(&applications, "/metrics");
    assert!(before.contains("sandbar_ready{app=\"vote\"} 1\nsandbar_ready{app=\"tally\"} 0\n"), "{before}");
    assert!(!before.contains(held));
    tally.wire(wired());
    let both = text(&applications, "/metrics");
    assert!(both.contains("sandbar_records_processed_total{app=\"vote\",thread=\"0\"} 7\n") && both.contains(counted));
    assert!(both.contains(held), "{both}");
    let heads: Vec<&str> = both.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let distinct: std::collections::BTreeSet<&&str> = heads.iter().collect();
    assert_eq!(heads.len(), distinct.len(), "a metric's head comes once");
    tally.set_phase(Phase::Failed("the module trapped".to_owned()));
    tally.release();
    let after = text(&applications, "/metrics");
    assert!(after.contains(counted), "what was counted stays: {after}");
    assert!(!after.contains(held), "there are no tasks any more: {after}");
}
