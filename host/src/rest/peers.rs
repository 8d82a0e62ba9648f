//! Requests to other hosts of the application: pooled connections, a bound on time and size, no redirects. Addresses
//! are handed in; they come from the group's members and from nowhere else, and each is checked before it is asked
//! (H4).

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::request::Builder;
use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Service;

use crate::networks::PeerNetworks;

/// Names the host that passes a request on. Such a request is never passed on again: one hop.
pub const FORWARDED_BY: &str = "sandbar-forwarded-by";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Shorter than the time after which a host cuts an idle connection off.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_CONNECTIONS_MAX: usize = 32;
/// As long as a request may take at the other host.
const WRITE_LIMIT: Duration = Duration::from_secs(29);
/// A page of the most entries, with room.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Whether a request came from another host.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED_BY)
}

/// What another host answered.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no whole answer.
pub enum Failure {
    /// There was no connection, so the other host has not seen the request.
    NotSent(String),
    /// The request may have been sent, and whatever it asks for done.
    NoAnswer(String),
}

impl Failure {
    /// For whoever may ask again in either case.
    fn into_reason(self) -> String {
        let (Self::NotSent(why) | Self::NoAnswer(why)) = self;
        why
    }
}

/// The client for all of them.
pub struct Peers {
    client: Client<HttpConnector<AllowedResolver>, Body>,
    networks: Arc<PeerNetworks>,
}

/// Resolves names to the addresses that may be connected to. Asked by the connector itself, so that what was checked is
/// what is connected to.
#[derive(Clone)]
struct AllowedResolver {
    networks: Arc<PeerNetworks>,
}

impl Service<Name> for AllowedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let networks = Arc::clone(&self.networks);
        Box::pin(async move {
            // The connector puts the port in.
            let mut refused = format!("{name} has no address");
            let mut allowed = Vec::new();
            for address in tokio::net::lookup_host((name.as_str(), 0)).await? {
                match networks.check(address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(why) => refused = why,
                }
            }
            if allowed.is_empty() {
                return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, refused));
            }
            Ok(allowed.into_iter())
        })
    }
}

impl Peers {
    /// Has to be made where a tokio runtime will poll it.
    pub fn new(networks: PeerNetworks) -> Self {
        let networks = Arc::new(networks);
        let mut connector = HttpConnector::new_with_resolver(AllowedResolver { networks: Arc::clone(&networks) });
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_idle_timeout(IDLE_TIMEOUT).pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
        builder.pool_timer(TokioTimer::new());
        Self { client: builder.build(connector), networks }
    }

    /// Whether an endpoint, as the group says it, may be asked, or a client sent to it.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, endpoint: &str) -> Result<(), String> {
        self.networks.check_endpoint(endpoint)
    }

    /// Asks a host.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub async fn get(
        &self,
        endpoint: &str,
        path_and_query: &str,
        from: &str,
        limit: Duration,
    ) -> Result<Answer, String> {
        let request = Request::get(self.uri(endpoint, path_and_query)?);
        self.send(request, Body::empty(), from, limit).await.map_err(Failure::into_reason)
    }

    /// Asks a host with a JSON document.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub async fn post(
        &self,
        endpoint: &str,
        path_and_query: &str,
        document: String,
        from: &str,
        limit: Duration,
    ) -> Result<Answer, String> {
        let request =
            Request::post(self.uri(endpoint, path_and_query)?).header(header::CONTENT_TYPE, "application/json");
        self.send(request, Body::from(document), from, limit).await.map_err(Failure::into_reason)
    }

    /// Passes a write on.
    ///
    /// # Errors
    /// Why there is no whole answer, and whether the write may have been done all the same.
    pub async fn write(
        &self,
        endpoint: &str,
        path_and_query: &str,
        request: Builder,
        body: Body,
        from: &str,
    ) -> Result<Answer, Failure> {
        let uri = self.uri(endpoint, path_and_query).map_err(Failure::NotSent)?;
        self.send(request.uri(uri), body, from, WRITE_LIMIT).await
    }

    /// The address of a question, once it is plain that the endpoint may be asked.
    fn uri(&self, endpoint: &str, path_and_query: &str) -> Result<Uri, String> {
        self.check(endpoint)?;
        let uri = Uri::builder().scheme("http").authority(endpoint).path_and_query(path_and_query).build();
        uri.map_err(|error| format!("{endpoint} is no address: {error}"))
    }

    async fn send(&self, request: Builder, body: Body, from: &str, limit: Duration) -> Result<Answer, Failure> {
        let request = request.header(FORWARDED_BY, from).body(body);
        let request = request.map_err(|error| Failure::NotSent(error.to_string()))?;
        let ask = async {
            let response = self.client.request(request).await.map_err(|error| match error.is_connect() {
                true => Failure::NotSent(reason(&error)),
                false => Failure::NoAnswer(reason(&error)),
            })?;
            let (parts, body) = response.into_parts();
            let body = axum::body::to_bytes(Body::new(body), ANSWER_BYTES_MAX).await;
            let body = body.map_err(|error| Failure::NoAnswer(reason(&error)))?;
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        match tokio::time::timeout(limit, ask).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::NoAnswer(format!("no answer within {} s", limit.as_secs()))),
        }
    }
}

/// The innermost reason says what happened; the outer ones only that something did.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
