//! One connection: frames in, answers out, one after another. Ends on end of stream, on a malformed frame, on a stalled
//! or idle client, or when the broker stops; the reason is logged.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use super::requests::{self, Reply};
use super::server::Shared;
use super::shape::{Api, Malformed, Walk};

/// Requests other than Produce are small; their bound keeps what decoding takes small too.
pub(crate) const OTHER_REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Reserved before the bytes have come; more only as they come.
const RESERVE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How often a parked request looks whether its client is still there.
pub(super) const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the client closed it")]
    Closed,
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    #[error("a request of {size} bytes, at most {most} are allowed")]
    TooLarge { size: i64, most: usize },
    #[error("the client stalled inside of a request")]
    Stalled,
    #[error("a malformed request header: {0}")]
    Header(Malformed),
    #[error("request {key} is not served")]
    UnknownApi { key: i16 },
    #[error("{api:?} version {version} is not served, only {min} to {max}")]
    UnknownVersion { api: ApiKey, version: i16, min: i16, max: i16 },
    #[error("a malformed {api:?} request of version {version}: {detail}")]
    Malformed { api: ApiKey, version: i16, detail: String },
    #[error("the answer to {api:?} version {version} could not be written: {detail}")]
    Encode { api: ApiKey, version: i16, detail: String },
    #[error("{api:?} version {version} failed inside of the broker")]
    Panicked { api: ApiKey, version: i16 },
    #[error("the broker stops")]
    Stopping,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A connection's thread-local part.
pub(super) struct Session<'a> {
    pub shared: &'a Shared,
    pub peer: SocketAddr,
    /// Where this client reached the broker, and so what it is told as the broker's address: right for each of several
    /// interfaces.
    pub address: SocketAddr,
    pub stream: Arc<TcpStream>,
}

impl Session<'_> {
    /// How long a parked request sleeps before it looks whether its client is still there. A broker that stops waits
    /// for nothing.
    pub fn patience(&self) -> Duration {
        if self.shared.is_stopping() { Duration::ZERO } else { PRESENCE_INTERVAL }
    }

    /// Whether the client is still connected. Used while a request is parked.
    pub fn is_connected(&self) -> bool {
        let looked =
            self.stream.set_read_timeout(Some(Duration::from_millis(1))).and_then(|()| self.stream.peek(&mut [0]));
        let restored = self.stream.set_read_timeout(Some(self.shared.options.stall_timeout));
        let present = match looked {
            Ok(count) => count > 0,
            Err(error) => is_timeout(&error),
        };
        present && restored.is_ok() && !self.shared.is_stopping()
    }
}

/// A decoded request header.
pub(super) struct RequestHead {
    pub api: &'static Api,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: String,
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Serves a connection to its end.
pub(super) fn serve(shared: &Shared, stream: Arc<TcpStream>, peer: SocketAddr) {
    let reached = stream.local_addr().unwrap_or(shared.address);
    // On a listener of both families a client of the older one has an address of the newer one.
    let address = SocketAddr::new(reached.ip().to_canonical(), reached.port());
    let session = Session { shared, peer, address, stream };
    match run(&session) {
        Ended::Closed | Ended::Stopping => tracing::debug!(%peer, "a connection ended"),
        // A client that leaves while a fetch of its waits is found gone when the answer is written.
        Ended::Io(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            tracing::debug!(%peer, "a connection was reset");
        }
        reason => tracing::warn!(%peer, %reason, "the broker closed a connection"),
    }
}

fn run(session: &Session<'_>) -> Ended {
    loop {
        match serve_one(session) {
            Ok(()) => {}
            Err(_) if session.shared.is_stopping() => return Ended::Stopping,
            Err(ended) => return ended,
        }
    }
}

fn serve_one(session: &Session<'_>) -> Result<(), Ended> {
    let frame = read_frame(session)?;
    match serve_frame(session, frame)? {
        Reply::Frame(bytes) => Ok((&*session.stream).write_all(&bytes)?),
        Reply::Nothing => Ok(()),
    }
}

/// From a whole request to its answer.
pub(super) fn serve_frame(session: &Session<'_>, frame: Bytes) -> Result<Reply, Ended> {
    let (head, body) = match read_head(&frame) {
        Ok(read) => read,
        Err(HeadError::Ended(ended)) => return Err(ended),
        Err(HeadError::NewerApiVersions { correlation_id }) => {
            // KIP-511: a client that asks in a version from the future is told the versions in version 0.
            return requests::api_versions_fallback(correlation_id).map(Reply::Frame);
        }
    };
    if frame.len() > OTHER_REQUEST_BYTES_MAX && head.api.key != ApiKey::Produce {
        return Err(Ended::TooLarge { size: frame.len() as i64, most: OTHER_REQUEST_BYTES_MAX });
    }
    let (api, version) = (head.api.key, head.version);
    head.api.check(version, &body).map_err(|malformed| Ended::Malformed {
        api,
        version,
        detail: malformed.to_string(),
    })?;
    catch_unwind(AssertUnwindSafe(|| requests::answer(session, &head, body)))
        .map_err(|_| Ended::Panicked { api, version })?
}

/// Reads one frame. Waits for its first byte as long as an idle client may be silent.
fn read_frame(session: &Session<'_>) -> Result<Bytes, Ended> {
    let mut length = [0u8; 4];
    let idle_since = Instant::now();
    let mut filled = 0;
    while let Some(rest) = length.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match (&*session.stream).read(rest) {
            Ok(0) => return Err(Ended::Closed),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) && filled > 0 => return Err(Ended::Stalled),
            Err(error) if is_timeout(&error) => {
                let limit = session.shared.options.idle_timeout;
                if idle_since.elapsed() >= limit {
                    return Err(Ended::Idle(limit));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let size = i32::from_be_bytes(length);
    let most = session.shared.options.request_bytes_max;
    let expected = match usize::try_from(size) {
        Ok(expected) if expected <= most => expected,
        _ => return Err(Ended::TooLarge { size: i64::from(size), most }),
    };
    let mut frame = Vec::with_capacity(expected.min(RESERVE_BYTES_MAX));
    let read = (&*session.stream).take(expected as u64).read_to_end(&mut frame);
    match read {
        Ok(count) if count == expected => Ok(Bytes::from(frame)),
        Ok(_) => Err(Ended::Closed),
        Err(error) if is_timeout(&error) => Err(Ended::Stalled),
        Err(error) => Err(error.into()),
    }
}

enum HeadError {
    Ended(Ended),
    NewerApiVersions { correlation_id: i32 },
}

impl From<Malformed> for HeadError {
    fn from(malformed: Malformed) -> Self {
        Self::Ended(Ended::Header(malformed))
    }
}

fn read_head(frame: &Bytes) -> Result<(RequestHead, Bytes), HeadError> {
    let mut walk = Walk::new(frame, false);
    let key = walk.int16()?;
    let version = walk.int16()?;
    let correlation_id = walk.int32()?;
    let Some(api) = Api::find(key) else { return Err(HeadError::Ended(Ended::UnknownApi { key })) };
    if version < api.min || version > api.max {
        if api.key == ApiKey::ApiVersions {
            return Err(HeadError::NewerApiVersions { correlation_id });
        }
        let (min, max) = (api.min, api.max);
        return Err(HeadError::Ended(Ended::UnknownVersion { api: api.key, version, min, max }));
    }
    let client_id = walk.string()?.to_owned();
    walk.flexible = api.is_flexible(version);
    walk.tags()?;
    let body = frame.slice(frame.len() - walk.rest.len()..);
    Ok((RequestHead { api, version, correlation_id, client_id }, body))
}
