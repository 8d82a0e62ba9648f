//! A response body that is made while it is read: parts go through a short channel, so that whoever makes them waits
//! for the client and never gets far ahead of it.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::Frame;
use tokio::sync::mpsc;

/// The sending half; it ends the body when it is dropped.
pub type Parts = mpsc::Sender<Bytes>;

struct Channel(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Channel {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

/// A body and where its parts go; at most so many of them wait for the client.
pub fn channel(parts_max: usize) -> (Parts, Body) {
    let (sender, receiver) = mpsc::channel(parts_max);
    (sender, Body::new(Channel(receiver)))
}
