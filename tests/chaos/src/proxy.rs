//! A TCP proxy on loopback between clients and a broker, which can do to connections what networks do: cut them, stop
//! passing bytes without a word, delay, slow down, reset at random, and hold one request back to deliver it later, when
//! its sender has long given up on it. It understands so much of the protocol as to find one API's requests.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::random::scatter;

/// `EndTxn`'s number among the APIs.
pub const END_TXN: u16 = 26;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Open,
    /// Connections are closed, and new ones as soon as they are there.
    Cut,
    /// Connections are there, and nothing passes in either direction.
    HalfOpen,
    /// Every request waits so long.
    Delay(Duration),
    /// So many of a thousand requests close their connection instead.
    Reset(u64),
    /// So many bytes a second in each direction of each connection.
    Slow(u64),
}

/// A request that was taken out of its connection. The broker has not seen it and still has the connection.
pub struct Held {
    request: Vec<u8>,
    broker: TcpStream,
    answers: Receiver<Vec<u8>>,
}

impl Held {
    /// Delivers the request on the connection that it came by, and gives the answer's error code.
    ///
    /// # Errors
    /// When the broker does not answer on the connection any more.
    pub fn release(mut self) -> Result<i16> {
        let correlation = self.request.get(8..12).context("the request is too short")?.to_vec();
        self.broker.write_all(&self.request)?;
        loop {
            let answer = self.answers.recv_timeout(Duration::from_secs(10)).context("no answer to a held request")?;
            // Those of earlier requests may be on their way.
            if answer.get(4..8) == Some(&correlation[..]) {
                // Length, correlation id and throttle time come before.
                let code = answer.get(12..14).context("the answer is too short")?;
                return Ok(i16::from_be_bytes(code.try_into()?));
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The broker may have closed it before.
        let _ = self.broker.shutdown(Shutdown::Both);
    }
}

struct State {
    mode: Mode,
    /// Where the next request of this API goes.
    hold: Option<(u16, Sender<Held>)>,
    connections: Vec<TcpStream>,
}

/// A proxy that runs until the process ends.
#[derive(Clone)]
pub struct Proxy {
    state: Arc<Mutex<State>>,
    broker: SocketAddr,
    requests: Arc<AtomicU64>,
}

impl Proxy {
    /// A port for the proxy, known before there is a broker.
    ///
    /// # Errors
    /// When there is none.
    pub fn bind() -> Result<(u16, TcpListener)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port for the proxy")?;
        Ok((listener.local_addr()?.port(), listener))
    }

    /// Serves connections to the broker on this port of the machine.
    pub fn start(listener: TcpListener, broker_port: u16) -> Self {
        let proxy = Self {
            state: Arc::new(Mutex::new(State { mode: Mode::Open, hold: None, connections: Vec::new() })),
            broker: (Ipv4Addr::LOCALHOST, broker_port).into(),
            requests: Arc::default(),
        };
        let accepting = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                accepting.serve(client);
            }
        });
        proxy
    }

    /// Sets how the network is from now on.
    pub fn set(&self, mode: Mode) {
        let mut state = self.state();
        state.mode = mode;
        if mode == Mode::Cut {
            for connection in state.connections.drain(..) {
                // It may have been closed meanwhile.
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
    }

    /// Takes the next request of an API out of its connection, which is closed for its client only.
    pub fn hold_next(&self, api: u16) -> Receiver<Held> {
        let (sender, receiver) = channel();
        self.state().hold = Some((api, sender));
        receiver
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, client: TcpStream) {
        if self.state().mode == Mode::Cut {
            return;
        }
        // The client sees a closed connection where the broker is not there.
        let Ok(broker) = TcpStream::connect(self.broker) else { return };
        let proxy = self.clone();
        thread::spawn(move || {
            // A connection that ends with an error is what this is for.
            let _ = proxy.connect(client, broker);
        });
    }

    fn connect(&self, client: TcpStream, broker: TcpStream) -> Result<()> {
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        {
            let mut state = self.state();
            state.connections.retain(|connection| connection.peer_addr().is_ok());
            state.connections.push(client.try_clone()?);
        }
        let (from_broker, to_client) = (broker.try_clone()?, client.try_clone()?);
        let (sender, answers) = channel();
        let proxy = self.clone();
        let back = thread::spawn(move || proxy.pass_answers(from_broker, to_client, &sender));
        let held = self.pass_requests(client.try_clone()?, &broker, answers);
        // Either may be closed already.
        let _ = client.shutdown(Shutdown::Both);
        if !matches!(held, Ok(true)) {
            let _ = broker.shutdown(Shutdown::Both);
        }
        back.join().map_err(|_| anyhow!("a thread of the proxy panicked"))
    }

    /// Passes requests on; true when one was taken out, and the broker's side is somebody else's.
    fn pass_requests(&self, mut client: TcpStream, broker: &TcpStream, answers: Receiver<Vec<u8>>) -> Result<bool> {
        let mut to_broker = broker.try_clone()?;
        while let Some(request) = read_frame(&mut client)? {
            let api = u16::from_be_bytes([request[4], request[5]]);
            let wanted = {
                let mut state = self.state();
                let wanted = state.hold.take_if(|(wanted, _)| *wanted == api);
                wanted.map(|(_, sender)| sender)
            };
            if let Some(sender) = wanted {
                // When nobody waits for it any more, it is lost, as in a network.
                let _ = sender.send(Held { request, broker: to_broker, answers });
                return Ok(true);
            }
            if !self.wait_turn(&request)? {
                return Ok(false);
            }
            to_broker.write_all(&request)?;
        }
        Ok(false)
    }

    /// Passes answers on; those that the client is not there for any more go to whoever holds its request.
    fn pass_answers(&self, mut broker: TcpStream, mut client: TcpStream, late: &Sender<Vec<u8>>) {
        while let Ok(Some(answer)) = read_frame(&mut broker) {
            let passed = matches!(self.wait_turn(&answer), Ok(true)) && client.write_all(&answer).is_ok();
            if !passed && late.send(answer).is_err() {
                break;
            }
        }
        // It may be closed already.
        let _ = client.shutdown(Shutdown::Both);
    }

    /// Waits as long as the network is slow or silent; false when the connection is to be closed.
    fn wait_turn(&self, frame: &[u8]) -> Result<bool> {
        const LOOK: Duration = Duration::from_millis(20);
        let started = Instant::now();
        loop {
            let mode = self.state().mode;
            let wait = match mode {
                Mode::Open => return Ok(true),
                Mode::Cut => return Ok(false),
                Mode::HalfOpen => Duration::MAX,
                Mode::Delay(delay) => delay,
                Mode::Reset(per_mille) => {
                    let number = self.requests.fetch_add(1, Ordering::Relaxed);
                    return Ok(scatter(number) % 1_000 >= per_mille);
                }
                Mode::Slow(per_second) => Duration::from_millis(frame.len() as u64 * 1_000 / per_second.max(1)),
            };
            let rest = wait.saturating_sub(started.elapsed());
            if rest.is_zero() {
                return Ok(true);
            }
            thread::sleep(rest.min(LOOK));
        }
    }
}

/// A request or an answer with its length; `None` at the end of the connection.
fn read_frame(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let size = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if !(4..=256 << 20).contains(&size) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a frame of the Kafka protocol"));
    }
    let mut frame = vec![0; 4 + size];
    frame[..4].copy_from_slice(&length);
    stream.read_exact(&mut frame[4..])?;
    Ok(Some(frame))
}

#[cfg(test)]
mod tests;
