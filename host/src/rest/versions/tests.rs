//! Who may change what runs, and what a deployment's body may be.

use axum::http::HeaderValue;

use super::*;

fn peer(address: &str) -> Peer {
    Peer(address.parse().expect("an address"))
}

#[test]
fn only_clients_on_this_machine_may_change_what_runs() {
    let none = HeaderMap::new();
    for address in ["127.0.0.1:4711", "127.3.2.1:1", "[::1]:4711", "[::ffff:127.0.0.1]:80"] {
        assert_eq!(is_allowed(Some(&peer(address)), &none), Ok(()), "{address}");
    }
    for address in ["10.0.0.1:4711", "192.168.1.2:1", "[fe80::1]:80", "[::ffff:10.0.0.1]:80", "0.0.0.0:1"] {
        let refused = is_allowed(Some(&peer(address)), &none).expect_err(address);
        assert_eq!((refused.status, refused.kind), (StatusCode::FORBIDDEN, "forbidden"), "{address}");
    }
    assert!(is_allowed(None, &none).is_err(), "whoever is not known is not trusted");
}

#[test]
fn a_page_of_a_browser_may_not() {
    for origin in ["http://localhost:8080", "https://evil.example", "null"] {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        let refused = is_allowed(Some(&peer("127.0.0.1:1")), &headers).expect_err(origin);
        assert!(refused.detail.contains("Origin"), "{}", refused.detail);
    }
}

#[test]
fn what_a_proxy_of_this_machine_passes_on_may_not() {
    for (name, value) in [("forwarded", "for=10.0.0.1"), ("x-forwarded-for", "10.0.0.1"), ("via", "1.1 front")] {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        let refused = is_allowed(Some(&peer("127.0.0.1:1")), &headers).expect_err(name);
        assert!(refused.detail.contains(name), "{}", refused.detail);
    }
}

fn request(kind: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().header(header::CONTENT_TYPE, kind).body(body.into()).expect("a request")
}

#[tokio::test]
async fn a_module_comes_alone_or_in_a_form() {
    let alone = Parts::of(request("application/wasm", "\0asm")).await.expect("a module");
    assert_eq!((&alone.module[..], alone.manifest), (&b"\0asm"[..], None));
    let form = "--X\r\nContent-Disposition: form-data; name=\"module\"; filename=\"m.wasm\"\r\n\r\n\0asm\r\n\
                --X\r\nContent-Disposition: form-data; name=\"manifest\"\r\n\r\napplication.id = \"a\"\r\n\
                --X\r\nContent-Disposition: form-data; name=\"signature\"\r\n\r\nc2ln\n\r\n--X--\r\n";
    let parts = Parts::of(request("multipart/form-data; boundary=X", form)).await.expect("three parts");
    assert_eq!(&parts.module[..], b"\0asm");
    assert_eq!(parts.manifest.as_deref(), Some("application.id = \"a\""));
    assert_eq!(parts.signature.as_deref(), Some("c2ln"));
}

#[tokio::test]
async fn another_body_is_refused() {
    let refusal = |kind: &'static str, body: &'static str| async move {
        Parts::of(request(kind, body)).await.map(|_| ()).expect_err(kind).detail
    };
    assert!(refusal("text/plain", "x").await.contains("application/wasm"));
    assert!(refusal("multipart/form-data", "x").await.contains("cannot be read"));
    let broken = "--X\r\nContent-Disposition: form-data; name=\"module\"\r\n\r\nabc";
    assert!(refusal("multipart/form-data; boundary=X", broken).await.contains("cannot be read"));
    let unknown = "--X\r\nContent-Disposition: form-data; name=\"modul\"\r\n\r\nabc\r\n--X--\r\n";
    assert!(refusal("multipart/form-data; boundary=X", unknown).await.contains("found \"modul\""));
    let part = "--X\r\nContent-Disposition: form-data; name=\"module\"\r\n\r\nabc\r\n";
    let twice: &'static str = format!("{part}{part}--X--\r\n").leak();
    assert!(refusal("multipart/form-data; boundary=X", twice).await.contains("the part \"module\" twice"));
    let without = "--X\r\nContent-Disposition: form-data; name=\"manifest\"\r\n\r\nabc\r\n--X--\r\n";
    assert!(refusal("multipart/form-data; boundary=X", without).await.contains("no part module"));
}
