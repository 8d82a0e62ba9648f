//! Which of its two forms a scan has, by what the client accepts.

use super::*;

/// Status and content type, or kind of problem, of a scan.
fn scan(accept: &str) -> (u16, String) {
    let path = "/v1/apps/vote/stores/votes/entries";
    let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).expect("a request");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let response = routes(running_host()).oneshot(request).await.expect("infallible");
        let code = response.status().as_u16();
        let what = response.headers()[header::CONTENT_TYPE].to_str().expect("text").to_owned();
        if code < 400 {
            return (code, what);
        }
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        let body: Value = serde_json::from_slice(&body).expect("a problem");
        (code, body["type"].as_str().unwrap_or_default().to_owned())
    })
}

#[test]
fn what_has_a_weight_of_nothing_is_not_accepted() {
    for accept in
        ["*/*", "application/json", "text/html", "application/x-ndjson;q=0", "application/x-ndjson; Q=0.0,*/*"]
    {
        assert_eq!(scan(accept), (200, "application/json".to_owned()), "{accept}");
    }
    for accept in ["application/x-ndjson", "Application/X-NDJSON;q=0.1", "application/json;q=0, application/*"] {
        assert_eq!(scan(accept), (200, "application/x-ndjson".to_owned()), "{accept}");
    }
    for accept in ["application/json;q=0", "application/json;q=0, application/x-ndjson;q=0", "*/*;q=0"] {
        assert_eq!(scan(accept), (406, "urn:sandbar:problem:not-acceptable".to_owned()), "{accept}");
    }
}
