//! The client against a server that answers with fixed bytes.

use std::io::Write as _;
use std::net::TcpListener;
use std::thread;

use super::*;

/// A server that takes one connection and gives these answers one after the other, each to a request without a body.
fn client_of(answers: &'static [&'static str]) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut stream = BufReader::new(stream);
        for answer in answers {
            while !line(&mut stream).expect("a request").is_empty() {}
            stream.get_mut().write_all(answer.as_bytes()).expect("an answer is sent");
        }
    });
    Client::new(address, Duration::from_secs(5))
}

#[test]
fn answers_follow_each_other_on_one_connection() {
    let mut client = client_of(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\nfirst",
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nsecond\r\nA;x=1\r\n, in parts\r\n0\r\n\r\n",
    ]);
    let get = request("GET", "/", &[("accept", "*/*")], b"");
    let first = client.send(&get).expect("the first answer");
    assert_eq!((first.head.status, &first.body[..], first.head.header("etag")), (200, &b"first"[..], Some("\"a\"")));
    let second = client.send(&get).expect("the second answer");
    assert_eq!((second.head.status, second.body.len()), (404, 0));
    assert_eq!(client.send(&get).expect("the third answer").body, b"second, in parts");
}

#[test]
fn an_answer_that_is_cut_off_is_none() {
    for cut in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "SSH-2.0\r\n\r\n"] {
        let answers: &'static [&'static str] = Box::leak(Box::new([cut]));
        assert!(client_of(answers).send(&request("GET", "/", &[], b"")).is_err(), "{cut:?} is taken for an answer");
    }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let answers: &'static [&'static str] = Box::leak(Box::new([chunked]));
    assert!(client_of(answers).send(&request("GET", "/", &[], b"")).is_err(), "a stream without an end");
}

#[test]
fn a_request_has_the_length_of_its_body() {
    let put = request("PUT", "/a", &[("x", "1")], b"body");
    assert_eq!(put, b"PUT /a HTTP/1.1\r\nhost: sandbar\r\nx: 1\r\ncontent-length: 4\r\n\r\nbody");
    assert_eq!(request("GET", "/a", &[], b""), b"GET /a HTTP/1.1\r\nhost: sandbar\r\n\r\n");
}
