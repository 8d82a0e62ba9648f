//! The accept loop: HTTP/1.1 with a bound on everything a client may hold (rule H1): connections, header time and
//! size, request time, the time in which nothing is read of an answer, or nobody is there to read it. `axum::serve`
//! offers none of these, so the loop is our own. Knows no routes.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::ServiceExt;

use super::Problem;
use super::connections::{BusyBody, ConnectionCaps, Connections, Place};
use super::stall::StallGuard;
use super::versions::Peer;
use crate::exit::AddressError;

/// A request whose answer is not ready by then is ended.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Open requests get this long to end when the host stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Where a system asks by itself whether a silent client is still there: how long it waits before it asks, and before
/// it asks again, and how often nobody may answer.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// What a client may hold of the host.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// A client that has not sent its whole request head by then is cut off; so is an idle connection.
    pub header_timeout: Duration,
    /// A client that reads nothing of its answer for so long is cut off.
    pub stall_timeout: Duration,
    /// A client whose system acknowledges nothing of what it is sent for so long, or has no room for it, has vanished.
    /// Where the host's system can tell (Linux).
    pub loss_timeout: Duration,
    pub connections: ConnectionCaps,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            loss_timeout: Duration::from_secs(60),
            connections: ConnectionCaps { total: 1024, per_address: 256 },
        }
    }
}

const MAX_HEADERS: usize = 64;
/// The read buffer, and so a request head, holds at most this much; a larger one is answered by 431.
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
pub async fn serve(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) -> std::io::Result<()> {
    serve_within(ServerLimits::default(), listener, router, stop).await
}

/// As `serve`, with other limits.
///
/// # Errors
/// As `serve`.
pub async fn serve_within(
    limits: ServerLimits,
    listener: TcpListener,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
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
                    // Where nobody can make room the connection is closed at once, so that those who are in are served.
                    if let Some(place) = connections.enter(peer.ip(), limits.connections) {
                        let client = Client { stream, peer, limits, place };
                        tasks.spawn(client.serve(router.clone(), stop.clone()));
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

/// A connection that was let in.
struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    limits: ServerLimits,
    place: Place,
}

impl Client {
    async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        let Self { stream, peer, limits, place } = self;
        if let Err(error) = notice_loss(&stream, limits.loss_timeout) {
            tracing::debug!(%peer, %error, "a REST connection may stay open for long after its client has vanished");
        }
        let answer = |mut request: Request<Incoming>| {
            let marker = place.marker();
            // With a body it is busy once that is there.
            let busy = request.body().is_end_stream().then(|| marker.busy());
            request.extensions_mut().insert(marker);
            request.extensions_mut().insert(Peer(peer));
            let answer = router.clone().oneshot(request.map(Body::new));
            async move { answer.await.map(|response| response.map(|body| BusyBody::around(body, busy))) }
        };
        let stream = StallGuard::new(TokioIo::new(stream), limits.stall_timeout);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(stream, service_fn(answer));
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = place.lost() => {
                tracing::debug!(%peer, "REST connection closed in favour of another one");
                return;
            }
            () = raised(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "REST connection ended");
        }
    }
}

/// Has the system end a connection whose client has vanished without a word. The buffers of the connection take small
/// pieces, as the signs of life of a subscription are, for longer than anybody would wait for a stalled write.
fn notice_loss(stream: &TcpStream, limit: Duration) -> std::io::Result<()> {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(limit))?;
    #[cfg(not(target_os = "linux"))]
    let _ = limit;
    Ok(())
}

/// Ends a request that takes too long with a problem document.
pub async fn within_request_timeout(request: Request, next: Next) -> Response {
    // A module is compiled meanwhile, which has bounds of its own.
    let path = request.uri().path();
    if request.method() == Method::POST && (path.ends_with("/versions") || path.ends_with("/rollback")) {
        return next.run(request).await;
    }
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer within {} s; ask for less with limit", REQUEST_TIMEOUT.as_secs());
            Problem::unavailable("timeout", "the request took too long", detail).into_response()
        }
    }
}
