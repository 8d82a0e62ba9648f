//! The parts of a subscription that need no broker: positions, content types, and what happens to a slow client.

use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use bytes::Bytes;

use tokio::sync::mpsc;

use super::position::{read_from, write_from};
use super::*;

#[test]
fn a_position_comes_back_as_it_was() {
    for offsets in [vec![(0, 0)], vec![(0, 7), (1, i64::MAX), (99, 3)]] {
        let offsets: BTreeMap<i32, i64> = offsets.into_iter().collect();
        let text = write_from(&offsets);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
        assert_eq!(read_from(&text), Ok(offsets));
    }
}

#[test]
fn what_is_no_position_is_refused() {
    let encoded = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let broken = ["", "0", "0:", ":1", "0:1,", "0:-1", "-1:0", "0:1,0:2", "0:99999999999999999999", "a:b", "0:1;1:2"];
    let broken = broken.map(encoded).into_iter().chain(["%".to_owned(), "not base64".to_owned(), "AAAA".to_owned()]);
    for text in broken {
        assert!(read_from(&text).is_err(), "{text}");
    }
}

#[test]
fn the_content_type_is_what_the_client_accepts() {
    let of = |accept: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        headers.extend(accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept))));
        TextFormat::of(&headers).map_err(|problem| problem.kind)
    };
    for accept in [None, Some("*/*"), Some("text/event-stream"), Some("text/html, text/event-stream;q=0.9")] {
        assert_eq!(of(accept), Ok(TextFormat::EventStream), "{accept:?}");
    }
    for accept in ["application/x-ndjson", "text/html, application/x-ndjson;q=0.1, */*"] {
        assert_eq!(of(Some(accept)), Ok(TextFormat::Ndjson), "{accept}");
    }
    for accept in ["application/json", "text/event-stream;q=0", "text/event-stream; Q=0.000, text/html", "*/*;q=0"] {
        assert_eq!(of(Some(accept)), Err("not-acceptable"), "{accept}");
    }
    for accept in ["text/event-stream;q=0, application/x-ndjson", "text/event-stream;q=0, */*", "text/*;q=0,*/*;q=0.1"]
    {
        assert_eq!(of(Some(accept)), Ok(TextFormat::Ndjson), "{accept}");
    }
    assert_eq!(of(Some("*/*;q=0, Text/Event-Stream")), Ok(TextFormat::EventStream));
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let (sender, mut receiver) = mpsc::channel(2);
    let limit = Duration::from_millis(200);
    let outlet = Outlet::with_stall_limit(sender, Stop::default(), limit);
    for piece in [&b"1"[..], b"2"] {
        outlet.send(Bytes::from_static(piece)).expect("there is space");
    }
    let since = Instant::now();
    outlet.send(Bytes::from_static(b"3")).expect_err("nobody takes it");
    assert!(since.elapsed() >= limit, "{:?}", since.elapsed());
    assert_eq!(receiver.try_recv(), Ok(Bytes::from_static(b"1")));
    outlet.send(Bytes::from_static(b"3")).expect("there is space again");
}

#[test]
fn a_full_subscription_does_not_hold_up_the_end_of_the_host() {
    let (sender, _receiver) = mpsc::channel(1);
    let stop = Stop::default();
    let outlet = Outlet::new(sender, stop.clone());
    outlet.send(Bytes::from_static(b"1")).expect("there is space");
    let waiting = std::thread::spawn(move || outlet.send(Bytes::from_static(b"2")));
    stop.raise();
    waiting.join().expect("no panic").expect_err("the host stops");
}
