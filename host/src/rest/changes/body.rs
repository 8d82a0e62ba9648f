//! `ChangeBody`: the body of an answer that has no end of its own. Takes what a reading thread sends, and ends with it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use hyper::body::Frame;
use tokio::sync::mpsc::Receiver;

/// See the module's head. Dropping it tells the reading thread that nobody listens any more.
pub struct ChangeBody(Receiver<Bytes>);

impl ChangeBody {
    pub fn new(chunks: Receiver<Bytes>) -> Self {
        Self(chunks)
    }
}

impl HttpBody for ChangeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}
