//! What a member of the group may say of itself to have this host connect somewhere (F4): nothing of it is followed.

use std::io::{Read, Write};

use super::*;

/// An address that nobody may connect to.
struct Trap(TcpListener);

impl Trap {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().expect("bound").port()
    }

    fn check(&self, what: &str) {
        assert!(self.0.accept().is_err(), "{what}: somebody came");
    }
}

/// Asks for what partition 1 has, when the group says that it is at this endpoint.
#[track_caller]
fn refused(pair: &Pair, endpoint: &str) -> String {
    pair.say([Some(members(&[("aa", "127.0.0.1:2", &[0]), ("cc", endpoint, &[1])]))]);
    let mut said = String::new();
    for path in ["keys/b", "entries", "keys/b?redirect=true&partition=1"] {
        let (code, headers, body) = pair.ask_as(None, &format!("{STORE}/{path}"));
        assert_eq!((code, &body["type"]), (503, &json!("urn:sandbar:problem:not-here")), "{endpoint}, {path}: {body}");
        assert!(!headers.contains_key(header::LOCATION), "{endpoint}, {path}");
        said = body["detail"].as_str().unwrap_or_default().to_owned();
    }
    said
}

#[test]
fn addresses_that_are_no_hosts_are_never_asked() {
    let pair = Pair::new();
    for endpoint in ["169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[fe80::1]:80", "0.0.0.0:7070", "[::]:7070"] {
        let detail = refused(&pair, endpoint);
        assert!(detail.contains("is never the address of a host"), "{endpoint}: {detail}");
    }
    let trap = Trap::new();
    let port = trap.port();
    for endpoint in [
        format!("user:secret@127.0.0.1:{port}"),
        format!("127.0.0.1:{port}/latest/meta-data:80"),
        format!("127.0.0.1/x:{port}"),
        format!("127.0.0.1#x:{port}"),
        format!("127.0.0.1?x=:{port}"),
        format!("127.0.0.1%00:{port}"),
        format!("http://127.0.0.1:{port}"),
        format!("127.0.0.1\r\nhost: x:{port}"),
        format!("127.0.0.1:{port}0000"),
    ] {
        refused(&pair, &endpoint);
        trap.check(&endpoint);
    }
}

#[test]
fn addresses_outside_the_allowed_networks_are_never_asked() {
    let pair = Pair::new();
    let allowed = PeerNetworks::new(vec!["10.0.0.0/8".parse().expect("a network")]);
    let wired = pair.asked.wired().expect("it is wired");
    let peers = Arc::new(pair.runtime.block_on(async { peers::Peers::new(allowed) }));
    let finder = wired.routing.as_ref().expect("it routes").finder.clone();
    pair.asked.wire(Wired { routing: Some(Routing { finder, peers: Arc::clone(&peers) }), ..Wired::clone(&wired) });
    let trap = Trap::new();
    let port = trap.port();
    let detail = refused(&pair, &format!("127.0.0.1:{port}"));
    assert!(detail.contains("advertised.networks"), "{detail}");
    trap.check("an address");
    // A name says where it leads only when it is resolved.
    let asked = pair.runtime.block_on(peers.get(&format!("localhost:{port}"), "/", "aa", KEY_LIMIT));
    let why = asked.err().expect("it is refused");
    assert!(why.contains("advertised.networks"), "{why}");
    trap.check("a name");
}

const KEY_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

#[test]
fn a_peer_sends_nobody_elsewhere() {
    let pair = Pair::new();
    let trap = Trap::new();
    let redirecting = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = redirecting.local_addr().expect("bound").to_string();
    let location = format!("http://127.0.0.1:{}/", trap.port());
    std::thread::spawn(move || {
        for (number, stream) in redirecting.incoming().enumerate() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let status = ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"][number % 4];
            let head =
                format!("HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n");
            let _ = write!(stream, "{head}\r\n");
        }
    });
    pair.say([Some(members(&[("aa", "127.0.0.1:2", &[0]), ("cc", &endpoint, &[1])]))]);
    for path in ["keys/b", "entries"] {
        let (code, body) = pair.ask(&format!("{STORE}/{path}"));
        assert_eq!((code, &body["type"]), (503, &json!("urn:sandbar:problem:not-here")), "{path}: {body}");
    }
    trap.check("a redirect");
}

#[test]
fn a_request_goes_one_hop_whoever_says_where_it_should_go() {
    let pair = Pair::new();
    let trap = Trap::new();
    // A host that has nothing, and believes that another one has.
    let (status, _) = host();
    let believed = members(&[("ee", &format!("127.0.0.1:{}", trap.port()), &[0, 1])]);
    let answers: Answers = Arc::new(Mutex::new(VecDeque::from([Some(believed)])));
    let routing = pair.runtime.block_on(async { routing("dd", &answers, &status) });
    status.wire(Wired { routing: Some(routing), ..Wired::clone(&status.wired().expect("it is wired")) });
    let listener = bind("127.0.0.1:0").expect("a port");
    let endpoint = listener.local_addr().expect("bound").to_string();
    let (_sender, stop) = tokio::sync::watch::channel(false);
    pair.runtime.spawn(serve(listener, routes(status), stop));
    pair.say([Some(members(&[("aa", "127.0.0.1:2", &[0]), ("dd", &endpoint, &[1])]))]);
    for path in ["keys/b", "entries"] {
        let (code, body) = pair.ask(&format!("{STORE}/{path}"));
        assert_eq!((code, &body["type"]), (503, &json!("urn:sandbar:problem:not-here")), "{path}: {body}");
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains(&endpoint)), "{path}: {body}");
    }
    trap.check("a second hop");
}
