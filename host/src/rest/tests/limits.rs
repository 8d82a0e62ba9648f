//! What hostile clients may hold (F2), on loopback with limits that are shorter than those of a host: each is refused
//! or cut off in time, and others are served meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::*;
use crate::rest::body::BodyLimits;
use crate::rest::server::{ServerLimits, serve_within};

const TIMEOUT: Duration = Duration::from_millis(500);
/// How late a limit may take effect on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

/// A host that listens.
struct Server {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
    _stop: tokio::sync::watch::Sender<bool>,
}

impl Server {
    fn start(status: Arc<Status>) -> Self {
        let limits = ServerLimits { header_timeout: TIMEOUT, stall_timeout: TIMEOUT, ..ServerLimits::default() };
        Self::within(limits, status)
    }

    fn within(limits: ServerLimits, status: Arc<Status>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, stop) = tokio::sync::watch::channel(false);
        let router = router_within(BodyLimits { timeout: TIMEOUT, ..BodyLimits::default() }, Arc::new(status.into()));
        runtime.spawn(serve_within(limits, listener, router, stop));
        Self { address, _runtime: runtime, _stop: sender }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(SLACK + TIMEOUT)).expect("a socket");
        stream.set_write_timeout(Some(SLACK + TIMEOUT)).expect("a socket");
        stream
    }
}

/// Everything until the other side closes, and how long that took.
#[track_caller]
fn until_closed(stream: &mut TcpStream) -> (String, Duration) {
    let since = Instant::now();
    let (mut answer, mut buffer) = (Vec::new(), [0; 65536]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break,
            Err(error) => panic!("the connection is still open after {:?}: {error}", since.elapsed()),
        }
    }
    (String::from_utf8_lossy(&answer).into_owned(), since.elapsed())
}

#[test]
fn a_head_that_does_not_come_is_not_waited_for() {
    let server = Server::start(running_host());
    for head in ["", "GET /livez HT", "GET /livez HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        let mut stream = server.connect();
        stream.write_all(head.as_bytes()).expect("is taken");
        let (_, took) = until_closed(&mut stream);
        assert!(took < TIMEOUT + SLACK, "{head:?}: {took:?}");
    }
    // Not even if a byte comes now and then.
    let mut stream = server.connect();
    let since = Instant::now();
    while since.elapsed() < TIMEOUT + SLACK && stream.write_all(b"x").is_ok() {
        std::thread::sleep(TIMEOUT / 10);
    }
    assert!(since.elapsed() < TIMEOUT + SLACK, "it is still listened to");
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Server::start(running_host());
    for head in ["content-length: 10", "transfer-encoding: chunked"] {
        let mut stream = server.connect();
        write!(stream, "POST /v1/apps HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n5").expect("is taken");
        let (answer, took) = until_closed(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{head}: {answer}");
        assert!(answer.contains("urn:sandbar:problem:body-timeout"), "{head}: {answer}");
        assert!(took >= TIMEOUT && took < TIMEOUT + SLACK, "{head}: {took:?}");
    }
}

#[test]
fn a_large_body_is_refused_before_it_is_read() {
    let server = Server::start(running_host());
    // Declared and not sent.
    for method in ["POST", "GET"] {
        let mut stream = server.connect();
        write!(stream, "{method} /v1/apps HTTP/1.1\r\nhost: x\r\ncontent-length: 1073741824\r\n\r\n")
            .expect("is taken");
        let (answer, _) = until_closed(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{method}: {answer}");
        assert!(answer.contains("application/problem+json") && answer.contains("body-too-large"), "{method}: {answer}");
    }
    // Sent, with and without having been declared.
    for (head, chunk) in [("content-length: 1073741824", false), ("transfer-encoding: chunked", true)] {
        let mut stream = server.connect();
        write!(stream, "POST /v1/apps HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n").expect("is taken");
        let mut piece = vec![b'x'; 65536];
        if chunk {
            piece = [b"10000\r\n", &piece[..], b"\r\n"].concat();
        }
        let pieces = (0..16 * 1024).take_while(|_| stream.write_all(&piece).is_ok()).count();
        assert!(pieces < 1024, "{head}: {pieces} pieces of 64 KiB were taken");
    }
    // A body that is small enough is no reason to refuse anything.
    let mut stream = server.connect();
    let head = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1048576\r\n\r\n";
    stream.write_all(&[head.as_bytes(), &vec![b'x'; 1 << 20]].concat()).expect("is taken");
    let (answer, _) = until_closed(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_large_head_is_refused() {
    let server = Server::start(running_host());
    let name = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20));
    let value = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(100));
    for (what, head) in [("a name", name), ("a header", value), ("headers", many)] {
        let mut stream = server.connect();
        // It may be cut off before it has sent everything.
        let _ = stream.write_all(head.as_bytes());
        let (answer, _) = until_closed(&mut stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{what}: {answer}");
    }
    // Where it reads the answer in time, it is told.
    let mut stream = server.connect();
    let value = "a".repeat(17 << 10);
    write!(stream, "GET /livez HTTP/1.1\r\nhost: x\r\nx: {value}").expect("is taken");
    let (answer, _) = until_closed(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

/// A host with large pages.
fn host_of_much() -> Arc<Status> {
    let (status, queries) = host();
    let value = format!("\"{}\"", "v".repeat(4096));
    let keys: Vec<String> = (0..10_000).map(|number| format!("key{number:05}")).collect();
    let entries: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), value.as_str())).collect();
    register(&queries, 0, Availability::Running, &entries);
    register(&queries, 1, Availability::Running, &[]);
    status
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    const PAGES: usize = 10;
    let server = Server::start(host_of_much());
    let last = "GET /v1/apps/vote/stores/votes/entries?limit=10000 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    // One after the other, more than the buffers of both sides hold.
    let requests = last.replace("connection: close\r\n", "").repeat(PAGES - 1) + last;
    let mut reading = server.connect();
    reading.write_all(requests.as_bytes()).expect("is taken");
    let (whole, _) = until_closed(&mut reading);
    assert!(whole.len() > PAGES * 5_000_000, "{} bytes", whole.len());

    let mut stream = server.connect();
    stream.write_all(requests.as_bytes()).expect("is taken");
    std::thread::sleep(TIMEOUT * 2 + SLACK);
    let (part, _) = until_closed(&mut stream);
    assert!(part.len() < whole.len() / 2, "{} of {} bytes", part.len(), whole.len());
}

/// A full window stands for a client that has vanished: neither acknowledges anything new.
#[cfg(target_os = "linux")]
#[test]
fn a_connection_whose_client_takes_nothing_is_ended_by_the_system() {
    let limits = ServerLimits { loss_timeout: TIMEOUT, ..ServerLimits::default() };
    assert!(limits.stall_timeout > TIMEOUT * 2 + SLACK, "it is not the stalled write that is noticed");
    let server = Server::within(limits, host_of_much());
    let request = "GET /v1/apps/vote/stores/votes/entries?limit=10000 HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut stream = server.connect();
    stream.write_all(request.repeat(10).as_bytes()).expect("is taken");
    std::thread::sleep(TIMEOUT * 2 + SLACK);
    let (part, _) = until_closed(&mut stream);
    assert!(part.len() < 25_000_000, "{} bytes", part.len());
}

/// How long so many requests of a good client take, in order.
fn latencies(server: &Server, count: usize) -> Vec<Duration> {
    let mut stream = server.connect();
    let mut buffer = [0; 4096];
    let mut taken: Vec<Duration> = (0..count)
        .map(|_| {
            let since = Instant::now();
            stream.write_all(b"GET /v1/apps/vote/stores/votes/keys/c HTTP/1.1\r\nhost: x\r\n\r\n").expect("is taken");
            let read = stream.read(&mut buffer).expect("an answer");
            assert!(buffer[..read].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..read]));
            since.elapsed()
        })
        .collect();
    taken.sort_unstable();
    taken
}

#[test]
fn many_idle_connections_hold_up_nobody() {
    const IDLE: usize = 10_000;
    let server = Server::start(running_host());
    let quiet = latencies(&server, 5_000);
    let (mut refused, mut idle) = (0, Vec::new());
    let busy = std::thread::scope(|scope| {
        let good = scope.spawn(|| latencies(&server, 20_000));
        std::thread::sleep(Duration::from_millis(20));
        for _ in 0..IDLE {
            match TcpStream::connect(server.address) {
                Ok(stream) => idle.push(stream),
                Err(_) => refused += 1,
            }
        }
        good.join().expect("every request is answered")
    });
    let p99 = |of: &[Duration]| of[of.len() * 99 / 100];
    println!(
        "{} idle connections and {refused} refused: p99 {:?} instead of {:?}",
        idle.len(),
        p99(&busy),
        p99(&quiet)
    );
    assert!(idle.len() + refused == IDLE);
    // The clients of this test take their share of the machine too, so the bound is wide where the times are short.
    assert!(p99(&busy) < (p99(&quiet) * 2).max(Duration::from_millis(20)), "{:?}, {:?}", p99(&busy), p99(&quiet));
    for stream in &mut idle {
        stream.set_read_timeout(Some(SLACK + TIMEOUT)).expect("a socket");
        until_closed(stream);
    }
    assert!(!latencies(&server, 10).is_empty(), "there is room again");
}

#[test]
fn who_begins_to_ask_and_goes_no_further_gives_way_like_an_idle_one() {
    let server = Server::start(running_host());
    let head = b"POST /v1/apps/vote/stores/votes/batch-get HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n";
    let begun: Vec<TcpStream> = (0..ServerLimits::default().connections.per_address)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(head).expect("is taken");
            stream
        })
        .collect();
    assert!(!latencies(&server, 10).is_empty(), "{} connections hold every place", begun.len());
}
