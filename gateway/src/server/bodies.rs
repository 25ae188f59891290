//! The bodies of a connection's requests and answers. They report their progress to the connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use confab_socketio::net::wire::Wire;

/// The body of a request. It reports when its reader waits for the client, and its end.
pub struct RequestBody {
    pub incoming: Incoming,
    pub wire: Arc<Wire>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(context);
        match &frame {
            Poll::Pending => self.wire.requests.body_is_awaited(context.waker()),
            Poll::Ready(None) => self.wire.requests.body_has_ended(),
            Poll::Ready(Some(_)) if self.incoming.is_end_stream() => self.wire.requests.body_has_ended(),
            Poll::Ready(Some(_)) => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of an answer. It reports when hyper drops it, which means that hyper has all of it.
pub struct AnswerBody {
    body: axum::body::Body,
    wire: Arc<Wire>,
}

impl AnswerBody {
    /// Encloses the body of the answer to the request in progress.
    pub fn new(body: axum::body::Body, wire: Arc<Wire>) -> Self {
        Self { body, wire }
    }
}

impl Body for AnswerBody {
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

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.wire.requests.made();
    }
}
