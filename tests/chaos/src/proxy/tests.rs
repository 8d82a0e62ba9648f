//! The proxy between a client and a broker that answers every request with its own first bytes.

use super::*;

/// A broker that answers with the correlation id, no throttle time, and error code 7.
fn broker() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                while let Ok(Some(request)) = read_frame(&mut client) {
                    let mut answer = 10u32.to_be_bytes().to_vec();
                    answer.extend(&request[8..12]);
                    answer.extend([0, 0, 0, 0, 0, 7]);
                    if client.write_all(&answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

/// A proxy before it, and its port.
fn proxy() -> (Proxy, u16) {
    let (port, listener) = Proxy::bind().expect("a port");
    (Proxy::start(listener, broker()), port)
}

fn client(port: u16) -> TcpStream {
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connected");
    client.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    client
}

fn request(api: u16, correlation: u32) -> Vec<u8> {
    let mut frame = 8u32.to_be_bytes().to_vec();
    frame.extend(api.to_be_bytes());
    frame.extend([0, 1]);
    frame.extend(correlation.to_be_bytes());
    frame
}

/// The correlation id of the answer.
fn ask(client: &mut TcpStream, api: u16, correlation: u32) -> Option<u32> {
    client.write_all(&request(api, correlation)).ok()?;
    let answer = read_frame(client).ok()??;
    Some(u32::from_be_bytes(answer[4..8].try_into().ok()?))
}

#[test]
fn an_open_network_passes_everything() {
    let (_, port) = proxy();
    let mut client = client(port);
    assert_eq!(
        (0..20).map(|number| ask(&mut client, 3, number)).collect::<Vec<_>>(),
        (0..20).map(Some).collect::<Vec<_>>()
    );
}

#[test]
fn a_cut_network_closes_and_refuses() {
    let (proxy, port) = proxy();
    let mut before = client(port);
    assert_eq!(ask(&mut before, 3, 1), Some(1));
    proxy.set(Mode::Cut);
    assert_eq!(ask(&mut before, 3, 2), None);
    assert_eq!(ask(&mut client(port), 3, 3), None);
    proxy.set(Mode::Open);
    assert_eq!(ask(&mut client(port), 3, 4), Some(4));
}

#[test]
fn a_half_open_network_takes_requests_and_answers_nothing() {
    let (proxy, port) = proxy();
    let mut client = client(port);
    proxy.set(Mode::HalfOpen);
    assert_eq!(ask(&mut client, 3, 1), None);
    proxy.set(Mode::Open);
    // The request was not lost.
    assert_eq!(ask(&mut client, 3, 2), Some(1));
}

#[test]
fn a_slow_or_delayed_network_takes_its_time() {
    let (proxy, port) = proxy();
    let mut client = client(port);
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    for mode in [Mode::Delay(Duration::from_millis(100)), Mode::Slow(100)] {
        proxy.set(mode);
        let started = Instant::now();
        assert_eq!(ask(&mut client, 3, 1), Some(1));
        assert!(started.elapsed() >= Duration::from_millis(190), "{mode:?}: {:?}", started.elapsed());
    }
}

#[test]
fn resets_close_some_connections() {
    let (proxy, port) = proxy();
    proxy.set(Mode::Reset(200));
    let answered = (0..100).filter(|number| ask(&mut client(port), 3, *number).is_some()).count();
    assert!((20..95).contains(&answered), "{answered} of 100 were answered");
}

#[test]
fn a_held_request_arrives_when_its_sender_has_gone_on() {
    let (proxy, port) = proxy();
    let mut first = client(port);
    assert_eq!(ask(&mut first, 3, 1), Some(1));
    let holding = proxy.hold_next(END_TXN);
    assert_eq!(ask(&mut first, 3, 2), Some(2), "other requests pass");
    assert_eq!(ask(&mut first, END_TXN, 3), None, "its connection is closed");
    let held = holding.recv_timeout(Duration::from_secs(5)).expect("a held request");
    let mut second = client(port);
    assert_eq!(ask(&mut second, END_TXN, 4), Some(4), "only one is held");
    assert_eq!(held.release().expect("an answer"), 7);
}
