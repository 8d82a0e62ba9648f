//! The places for connections: so many in all, so many for one address, or one network of IPv6. Over a cap the
//! connection that has waited for longest without a request gives its place up, first of all one that has never sent
//! any; so whoever opens connections and leaves them idle locks nobody out. One whose request is being answered is
//! never closed for another.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

/// How many there may be.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionCaps {
    pub total: usize,
    pub per_address: usize,
}

/// The open connections.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// As it is counted.
    address: IpAddr,
    /// `None` while a request is being answered.
    waiting_since: Option<Instant>,
    has_asked: bool,
    /// Told when it has to leave.
    leave: Arc<Notify>,
}

/// A connection's place; dropping it gives the place back.
pub struct Place {
    connections: Connections,
    id: u64,
    leave: Arc<Notify>,
}

impl Connections {
    // Single inserts and removals, so a poisoned lock is no sign of damage.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from an address; `None` where all that could give theirs up are busy.
    pub fn enter(&self, address: IpAddr, caps: ConnectionCaps) -> Option<Place> {
        let address = counted(address);
        let mut table = self.table();
        let of_address = table.open.values().filter(|open| open.address == address).count();
        if of_address >= caps.per_address {
            table.make_room(|open| open.address == address)?;
        } else if table.open.len() >= caps.total {
            table.make_room(|_| true)?;
        }
        table.last_id += 1;
        let (id, leave) = (table.last_id, Arc::new(Notify::new()));
        let open = Open { address, waiting_since: Some(Instant::now()), has_asked: false, leave: Arc::clone(&leave) };
        table.open.insert(id, open);
        Some(Place { connections: self.clone(), id, leave })
    }
}

/// What counts as one address. Of IPv6 whoever has one has all of its /64; IPv4 clients of a listener for both come as
/// IPv6 addresses, which are all of one network.
fn counted(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = u128::MAX << 64;
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address => address,
    }
}

impl Table {
    /// Has one of these leave.
    fn make_room(&mut self, among: impl Fn(&Open) -> bool) -> Option<()> {
        let waiting = self.open.iter().filter(|(_, open)| among(open));
        let waiting = waiting.filter_map(|(id, open)| Some((open.has_asked, open.waiting_since?, *id)));
        let (_, _, id) = waiting.min()?;
        // It counts no more from now on, though its task needs a moment to end.
        let open = self.open.remove(&id)?;
        open.leave.notify_one();
        Some(())
    }
}

impl Place {
    /// Ends when the connection has to leave.
    pub async fn lost(&self) {
        self.leave.notified().await;
    }

    /// What marks the connection as busy.
    pub fn marker(&self) -> Marker {
        Marker { connections: self.connections.clone(), id: self.id }
    }
}

/// Goes with a request until all of it is there: one that only begins to ask gives its place up like an idle one.
#[derive(Clone)]
pub struct Marker {
    connections: Connections,
    id: u64,
}

impl Marker {
    /// Marks the connection as busy for as long as the mark lives.
    pub fn busy(&self) -> Busy {
        if let Some(open) = self.connections.table().open.get_mut(&self.id) {
            open.waiting_since = None;
            open.has_asked = true;
        }
        Busy { connections: self.connections.clone(), id: self.id }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.table().open.remove(&self.id);
    }
}

/// A request that is being answered.
pub struct Busy {
    connections: Connections,
    id: u64,
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(open) = self.connections.table().open.get_mut(&self.id) {
            open.waiting_since = Some(Instant::now());
        }
    }
}

/// The body of an answer, which keeps its connection busy until it is written.
pub struct BusyBody {
    body: Body,
    _busy: Busy,
}

impl BusyBody {
    /// The body, with the mark of its request where there is one.
    pub fn around(body: Body, busy: Option<Busy>) -> Body {
        match busy {
            Some(busy) => Body::new(Self { body, _busy: busy }),
            None => body,
        }
    }
}

impl HttpBody for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
