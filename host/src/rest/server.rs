//! The accept loop: HTTP/1.1 with a bound on everything a client may hold (rule H1): connections, header time and
//! size, request time. `axum::serve` offers none of these, so the loop is our own. Knows no routes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Problem;
use crate::exit::AddressError;

/// A client that has not sent its whole request head by then is cut off; so is an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A request whose answer is not ready by then is ended.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Open requests get this long to end when the host stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_CONNECTIONS: usize = 1024;
const MAX_CONNECTIONS_PER_ADDRESS: usize = 256;
const MAX_HEADERS: usize = 64;
/// The read buffer, and so a request head, holds at most this much.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Binds the address.
///
/// # Errors
/// Says that the port is taken, or why else it cannot be listened on, and which key to change.
pub fn bind(address: &str) -> Result<TcpListener, AddressError> {
    let refuse = |error: std::io::Error| AddressError {
        address: address.to_owned(),
        detail: match error.kind() {
            std::io::ErrorKind::AddrInUse => "the port is in use".to_owned(),
            _ => error.to_string(),
        },
        hint: "choose another with the key application.server, port 0 for any free one",
    };
    let listener = TcpListener::bind(address).map_err(refuse)?;
    listener.set_nonblocking(true).map_err(refuse)?;
    Ok(listener)
}

/// Serves until `stop` turns true, then lets open requests end.
///
/// # Errors
/// When the listener cannot be used at all; a failing connection never ends the loop.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let connections = Connections::default();
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = raised(&mut stop) => break,
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Over a cap the connection is closed at once, so that those who are in are served.
                    if let Some(held) = connections.enter(peer.ip()) {
                        tasks.spawn(connection(stream, peer, router.clone(), stop.clone(), held));
                    }
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come back.
                    tracing::warn!(%error, "cannot accept a REST connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    let drained = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
    Ok(())
}

/// Ends when the wish to stop is there, or nobody is left to have it.
async fn raised(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, mut stop: watch::Receiver<bool>, _held: Held) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = raised(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "REST connection ended");
    }
}

/// Ends a request that takes too long with a problem document.
pub async fn within_request_timeout(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer within {} s; ask for less with limit", REQUEST_TIMEOUT.as_secs());
            Problem::unavailable("timeout", "the request took too long", detail).into_response()
        }
    }
}

/// Open connections, counted by address.
#[derive(Debug, Clone, Default)]
struct Connections(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// A counted connection; dropping it gives the place back.
struct Held {
    connections: Connections,
    address: IpAddr,
}

impl Connections {
    fn enter(&self, address: IpAddr) -> Option<Held> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = counts.values().sum();
        let of_address = counts.get(&address).copied().unwrap_or(0);
        if total >= MAX_CONNECTIONS || of_address >= MAX_CONNECTIONS_PER_ADDRESS {
            return None;
        }
        counts.insert(address, of_address + 1);
        Some(Held { connections: self.clone(), address })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}
